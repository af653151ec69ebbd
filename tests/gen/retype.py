#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes a checkpoint again with its values in another type, in Python's standard library alone.

    retype.py CHECKPOINT OUT KIND

KIND, from a checkpoint of BF16:   f16                           every tensor of it, norms and bias too
      of FP8:                      fp8-bf16 fp8-e8m0             the scales
                                   fp8-ct fp8-ct-bf16            in the spelling of compressed-tensors' FP8_BLOCK
      of INT4:                     int4-g64 int4-g128 int4-row   fewer scales
                                   int4-g32-f16 int4-g64-f16 int4-g128-f16 int4-row-f16
                                   int4-all                      every linear layer is INT4, as with targets "Linear" and nothing ignored

Codes stay as they are: the values are others than before, and as good for a test.
"""
import json
import math
import os
import shutil
import struct
import sys

from relayout import read, write


def f32s(data):
    return [v for (v,) in struct.iter_unpack("<f", data)]


def bf16_values(data):
    return [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] for i in range(0, len(data), 2)]


def to_bf16(values):
    out = b""
    for v in values:
        (u,) = struct.unpack("<I", struct.pack("<f", v))
        out += struct.pack("<H", (u + 0x7FFF + (u >> 16 & 1)) >> 16)
    return out


def to_f16(values):
    return struct.pack("<%de" % len(values), *values)


def to_e8m0(values):
    return bytes(max(0, min(254, 127 + math.ceil(math.log2(v)))) for v in values)


def fp8(kind, name, dtype, shape, data):
    if not name.endswith(".weight_scale_inv"):
        return name, dtype, shape, data
    values = f32s(data)
    if kind == "fp8-e8m0":
        dtype, data = "F8_E8M0", to_e8m0(values)
    elif kind.endswith("bf16"):
        dtype, data = "BF16", to_bf16(values)
    return name[:-len("_inv")] if "-ct" in kind else name, dtype, shape, data


def int4(kind, name, dtype, shape, data):
    if not name.endswith(".weight_scale"):
        return name, dtype, shape, data
    values, wide = bf16_values(data), shape[1]
    share = wide if "-row" in kind else int(kind.split("-")[1][1:]) // 32
    assert wide % share == 0, (name, shape)
    values = [max(values[i:i + share]) for i in range(0, len(values), share)]
    dtype, data = ("F16", to_f16(values)) if kind.endswith("f16") else ("BF16", to_bf16(values))
    return name, dtype, [shape[0], wide // share], data


def rounded(name, shape, values):
    """A weight of numbers as pack-quantized writes it: groups of 32, 8 codes a word, the first in the low bits."""
    scales = [max(max(abs(v) for v in values[i:i + 32]) / 7, 1e-6) for i in range(0, len(values), 32)]
    codes = [max(0, min(15, round(v / scales[i // 32]) + 8)) for i, v in enumerate(values)]
    packed = bytes(codes[i] | codes[i + 1] << 4 for i in range(0, len(codes), 2))
    return [(name + "_packed", "I32", [shape[0], shape[1] // 8], packed),
            (name + "_scale", "BF16", [shape[0], shape[1] // 32], to_bf16(scales)),
            (name + "_shape", "I64", [2], struct.pack("<2q", *shape))]


def int4_all(kind, name, dtype, shape, data):
    linear = "_proj" in name or name.startswith("lm_head.")
    if not (linear and name.endswith(".weight") and dtype == "BF16"):
        return name, dtype, shape, data
    return rounded(name, shape, bf16_values(data))


def f16(kind, name, dtype, shape, data):
    return name, "F16", shape, to_f16(bf16_values(data) if dtype == "BF16" else f32s(data))


def config(kind, c):
    q = c.get("quantization_config")
    if kind == "f16":
        c["torch_dtype"] = "float16"
    if kind == "fp8-e8m0":
        q["scale_fmt"] = "ue8m0"
    if kind.startswith("fp8-ct"):
        c["quantization_config"] = {
            "quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed", "ignore": ["lm_head"],
            "config_groups": {"group_0": {"targets": ["Linear"], "format": "float-quantized", "output_activations": None,
                                          "input_activations": {"dynamic": True, "group_size": 128, "num_bits": 8, "strategy": "group",
                                                                "symmetric": True, "type": "float"},
                                          "weights": {"actorder": None, "block_structure": [128, 128], "dynamic": False, "group_size": None,
                                                      "num_bits": 8, "strategy": "block", "symmetric": True, "type": "float"}}}}
    if kind == "int4-all":
        q["ignore"] = []
    elif kind.startswith("int4"):
        w = q["config_groups"]["group_0"]["weights"]
        row = "-row" in kind
        w["strategy"] = "channel" if row else "group"
        w["group_size"] = None if row else int(kind.split("-")[1][1:])
    return c


def main(source, out, kind):
    change = int4_all if kind == "int4-all" else {"f16": f16, "fp8": fp8, "int4": int4}[kind.split("-")[0]]
    where, total = {}, 0
    os.makedirs(out)
    for name in sorted(os.listdir(source)):
        path = os.path.join(source, name)
        if not name.endswith(".safetensors"):
            if not name.endswith(".index.json"):
                shutil.copyfile(path, os.path.join(out, name))
            continue
        tensors = {}
        for n, t in read(path)[0].items():
            new = change(kind, n, *t)
            tensors.update((m, u) for m, *u in (new if isinstance(new, list) else [new]))
        write(os.path.join(out, name), tensors)
        total += sum(len(data) for _, _, data in tensors.values())
        where.update(dict.fromkeys(tensors, name))
    with open(os.path.join(out, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": total}, "weight_map": where}, f, indent=2, sort_keys=True)
    with open(os.path.join(source, "config.json")) as f:
        c = json.load(f)
    with open(os.path.join(out, "config.json"), "w") as f:
        json.dump(config(kind, c), f, indent=2)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: retype.py CHECKPOINT OUT KIND")
    main(*sys.argv[1:])
