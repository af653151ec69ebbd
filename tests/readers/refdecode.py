#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of checkpoints, in Python's standard library alone: what the bytes say, as float32.

    refdecode.py CHECKPOINT OUT     write the decoded model as an F32 checkpoint without quantization_config

It shares no code with the C readers.  Every product and quotient of two float32 numbers is computed in double and rounded
to float32 once by array('f'), which equals the float32 operation (double has more than 2 * 24 + 2 bits).
Layouts: F32, BF16, F16, FP8 in 128x128 blocks, INT4 pack-quantized, NVFP4 of modelopt and of compressed-tensors.
"""
import array
import json
import os
import shutil
import struct
import sys

WIDTH = {"F32": 4, "BF16": 2, "F16": 2, "F8_E4M3": 1, "F8_E8M0": 1, "U8": 1, "I32": 4, "I64": 8}
E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0]
# One byte holds two values, the even column in the low nibble: byte -> those two nibbles as bytes.
NIBBLES = [bytes((b & 15, b >> 4)) for b in range(256)]
VISION = ("vision_tower.", "mm_projector.")
BUFFERS = ("rotary_emb.inv_freq", "cos_cached", "sin_cached")
AUXILIARY = (".weight_scale_inv", ".weight_scale", ".weight_shape", ".weight_scale_2", ".input_scale", ".weight_global_scale",
             ".input_global_scale", ".k_scale", ".v_scale")


def e4m3(c):
    e, m = c >> 3 & 15, c & 7
    if c & 0x7F == 0x7F:
        return float("nan")
    v = (1 + m / 8) * 2.0 ** (e - 7) if e else m * 2.0 ** -9
    return -v if c & 0x80 else v


E4M3 = [e4m3(c) for c in range(256)]


def f32(x):
    """x rounded to float32 (to infinity beyond its range)."""
    return array.array("f", (x,))[0]


class Checkpoint:
    """The tensors of a directory by name, and the logical weights they make."""

    def __init__(self, path):
        self.path = path
        self.tensors = {}  # name -> (file, dtype, shape, offset, bytes)
        index = os.path.join(path, "model.safetensors.index.json")
        if os.path.exists(index):
            with open(index) as f:
                files = sorted(set(json.load(f)["weight_map"].values()))
        else:
            files = ["model.safetensors"]
        for name in files:
            self._read_header(os.path.join(path, name))
        self.weights = [n for n in self.tensors if not self._skipped(n)]

    def _read_header(self, path):
        with open(path, "rb") as f:
            (size,) = struct.unpack("<Q", f.read(8))
            header = json.loads(f.read(size))
        for name, t in header.items():
            if name == "__metadata__":
                continue
            begin, end = t["data_offsets"]
            count = 1
            for d in t["shape"]:
                count *= d
            assert end - begin == count * WIDTH[t["dtype"]], name
            assert name not in self.tensors, name
            self.tensors[name] = (path, t["dtype"], t["shape"], 8 + size + begin, end - begin)

    @staticmethod
    def _skipped(name):
        return name.startswith(VISION) or any(b in name for b in BUFFERS) or name.endswith(AUXILIARY)

    def raw(self, name):
        path, dtype, shape, offset, size = self.tensors[name]
        with open(path, "rb") as f:
            f.seek(offset)
            data = f.read(size)
        assert len(data) == size, name
        return dtype, shape, data

    def floats(self, name):
        """A stored tensor of floating-point numbers; each is exact in float32."""
        dtype, shape, data = self.raw(name)
        out = array.array("f")
        if dtype == "F16":
            return shape, array.array("f", [v for (v,) in struct.iter_unpack("<e", data)])
        if dtype == "F8_E8M0":  # a power of two by its exponent
            return shape, array.array("f", [2.0 ** (x - 127) if x < 255 else float("nan") for x in data])
        if dtype == "BF16":  # the upper half of a float32
            wide = bytearray(2 * len(data))
            wide[2::4], wide[3::4] = data[0::2], data[1::2]
            data = bytes(wide)
        else:
            assert dtype == "F32", (name, dtype)
        out.frombytes(data)
        if sys.byteorder == "big":
            out.byteswap()
        return shape, out

    def canonical(self, name):
        """The name of the logical weight that the tensor `name` carries."""
        name = name[:-len("_packed")] if name.endswith(".weight_packed") else name
        return name[len("language_model."):] if name.startswith("language_model.") else name

    def kind(self, name):
        stem = name.rsplit(".", 1)[0]
        if name.endswith(".weight_packed"):
            return "nvfp4-ct" if stem + ".weight_global_scale" in self.tensors else "int4"
        return {"F8_E4M3": "fp8", "U8": "nvfp4"}.get(self.tensors[name][1], "float")

    def decode(self, name):
        """(shape, array of float32) of one logical weight, named as the tensor that holds its data."""
        return getattr(self, "_decode_" + self.kind(name).replace("-", "_"))(name, name.rsplit(".", 1)[0])

    def _decode_float(self, name, stem):
        return self.floats(name)

    def _decode_fp8(self, name, stem):
        _, (rows, cols), data = self.raw(name)
        inv = stem + ".weight_scale_inv"
        (_, wide), scales = self.floats(inv if inv in self.tensors else stem + ".weight_scale")
        assert wide == (cols + 127) // 128 and len(scales) == wide * ((rows + 127) // 128), name
        tables = {}
        out = array.array("f")
        for r in range(rows):
            if r % 128 == 0:
                tables = {}
            for b in range(wide):
                if b not in tables:
                    s = scales[r // 128 * wide + b]
                    tables[b] = array.array("f", [v * s for v in E4M3])
                out.extend(map(tables[b].__getitem__, data[r * cols + 128 * b:r * cols + min(128 * b + 128, cols)]))
        return [rows, cols], out

    def _decode_int4(self, name, stem):
        _, (rows, words), data = self.raw(name)
        (_, groups), scales = self.floats(stem + ".weight_scale")
        group = words * 8 // groups
        assert words * 8 == groups * group, name
        nibbles = b"".join(map(NIBBLES.__getitem__, data))
        out = array.array("f")
        for g, s in enumerate(scales):
            out.extend(map([(q - 8) * s for q in range(16)].__getitem__, nibbles[group * g:group * g + group]))
        return [rows, words * 8], out

    def _nvfp4(self, name, stem, scale_of):
        _, (rows, half), data = self.raw(name)
        _, (_, blocks), scales = self.raw(stem + ".weight_scale")
        assert blocks * 8 == half, name
        nibbles = b"".join(map(NIBBLES.__getitem__, data))
        tables = {}
        out = array.array("f")
        for b, c in enumerate(scales):
            if c not in tables:
                s = scale_of(E4M3[c])
                tables[c] = array.array("f", [v * s for v in E2M1])
            out.extend(map(tables[c].__getitem__, nibbles[16 * b:16 * b + 16]))
        return [rows, half * 2], out

    def _decode_nvfp4(self, name, stem):
        g = self.floats(stem + ".weight_scale_2")[1][0]
        return self._nvfp4(name, stem, lambda s: f32(s * g))

    def _decode_nvfp4_ct(self, name, stem):
        g = self.floats(stem + ".weight_global_scale")[1][0]
        return self._nvfp4(name, stem, lambda s: f32(s / g))


def write_safetensors(path, tensors):
    """tensors: list of (name, shape, function that gives the array).  Data are streamed."""
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape, _ in tensors:
        count = 1
        for d in shape:
            count *= d
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * count]}
        at += 4 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape, make in tensors:
            values = make()
            if sys.byteorder == "big":
                values.byteswap()
            assert 4 * len(values) == header[name]["data_offsets"][1] - header[name]["data_offsets"][0], name
            f.write(values.tobytes())


def logical_shape(c, name):
    shape = list(c.tensors[name][2])
    kind = c.kind(name)
    if kind in ("nvfp4", "nvfp4-ct"):
        shape[-1] *= 2
    if kind == "int4":
        shape[-1] *= 8
    return shape


def write_decoded(source, out):
    c = Checkpoint(source)
    os.makedirs(out, exist_ok=True)
    tensors = []
    for name in c.weights:
        to = name[:-len("_packed")] if name.endswith(".weight_packed") else name
        tensors.append((to, logical_shape(c, name), lambda n=name: c.decode(n)[1]))
    write_safetensors(os.path.join(out, "model.safetensors"), tensors)
    with open(os.path.join(source, "config.json")) as f:
        config = json.load(f)
    for level in (config, config.get("text_config", {})):
        level.pop("quantization_config", None)
        if "torch_dtype" in level:
            level["torch_dtype"] = "float32"
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config, f, indent=2)
    for name in ("generation_config.json", "tiktoken.model", "tokenizer_config.json"):
        if os.path.exists(os.path.join(source, name)):
            shutil.copyfile(os.path.join(source, name), os.path.join(out, name))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: refdecode.py CHECKPOINT OUT")
    write_decoded(sys.argv[1], sys.argv[2])
