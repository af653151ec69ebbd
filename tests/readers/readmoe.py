#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second reader of containers, in Python's standard library alone, written from docs/reference/format.md.

    readmoe.py check NAME.moe             every rule of the specification, every digest, all padding
    readmoe.py dump NAME.moe TENSOR       the decoded values as little-endian float32 on standard output
    readmoe.py same NAME.moe CHECKPOINT   every decoded value against refdecode.py's of the checkpoint it was converted from
    readmoe.py selftest                   XXH3 against values of the reference library

It shares no code with the C reader, XXH3 included.  Exit 0, or 1 with one line for each problem.
"""
import array
import json
import os
import re
import struct
import sys

# ---- XXH3, seed 0, default secret: after the public specification ----

M64 = (1 << 64) - 1
P32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
P64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")


def r32(b, o):
    return int.from_bytes(b[o:o + 4], "little")


def r64(b, o):
    return int.from_bytes(b[o:o + 8], "little")


def s64(o):
    return r64(SECRET, o)


def swap32(x):
    return int.from_bytes(x.to_bytes(4, "little"), "big")


def swap64(x):
    return int.from_bytes(x.to_bytes(8, "little"), "big")


def fold(a, b):
    p = a * b
    return (p & M64) ^ (p >> 64)


def avalanche3(h):
    h ^= h >> 37
    h = h * 0x165667919E3779F9 & M64
    return h ^ h >> 32


def avalanche64(h):
    h ^= h >> 33
    h = h * P64[1] & M64
    h ^= h >> 29
    h = h * P64[2] & M64
    return h ^ h >> 32


def rotl64(x, n):
    return (x << n | x >> 64 - n) & M64


def mix16(b, o, s):
    return fold(r64(b, o) ^ s64(s), r64(b, o + 8) ^ s64(s + 8))


def mix32(acc, b, o1, o2, s):
    lo = (acc[0] + mix16(b, o1, s) & M64) ^ (r64(b, o2) + r64(b, o2 + 8) & M64)
    hi = (acc[1] + mix16(b, o2, s + 16) & M64) ^ (r64(b, o1) + r64(b, o1 + 8) & M64)
    return lo, hi


KEYS = [struct.unpack_from("<8Q", SECRET, 8 * i) for i in range(17)]
LAST_KEY = struct.unpack_from("<8Q", SECRET, 192 - 64 - 7)
SCRAMBLE_KEY = struct.unpack_from("<8Q", SECRET, 192 - 64)


class Long:
    """The accumulators over an input of more than 240 bytes, from which low() and high() make both widths of digest."""

    def __init__(self, b):
        self.n = len(b)
        self.acc = acc = [P32[2], P64[0], P64[1], P64[2], P64[3], P32[1], P64[4], P32[0]]
        blocks = (self.n - 1) // 1024
        for k in range(blocks):
            self.stripes(b, 1024 * k, 16)
            for i in range(8):
                a = acc[i]
                acc[i] = (a ^ a >> 47 ^ SCRAMBLE_KEY[i]) * P32[0] & M64
        self.stripes(b, 1024 * blocks, (self.n - 1 - 1024 * blocks) // 64)
        self.stripe(struct.unpack_from("<8Q", b, self.n - 64), LAST_KEY)

    def stripes(self, b, at, count):
        for i, d in enumerate(struct.iter_unpack("<8Q", b[at:at + 64 * count])):
            self.stripe(d, KEYS[i])

    def stripe(self, d, key):
        acc = self.acc
        for i in range(8):
            k = d[i] ^ key[i]
            acc[i] = acc[i] + (k & 0xFFFFFFFF) * (k >> 32) & M64
            acc[i ^ 1] = acc[i ^ 1] + d[i] & M64

    def merge(self, s, start):
        acc = self.acc
        for i in range(4):
            start += fold(acc[2 * i] ^ s64(s + 16 * i), acc[2 * i + 1] ^ s64(s + 16 * i + 8))
        return avalanche3(start & M64)

    def low(self):
        return self.merge(11, self.n * P64[0] & M64)

    def high(self):
        return self.merge(192 - 64 - 11, ~(self.n * P64[1]) & M64)


def xxh3_64(b):
    n = len(b)
    if n == 0:
        return avalanche64(s64(56) ^ s64(64))
    if n <= 3:
        return avalanche64((b[0] << 16 | b[n >> 1] << 24 | b[n - 1] | n << 8) ^ (r32(SECRET, 0) ^ r32(SECRET, 4)))
    if n <= 8:
        h = (r32(b, n - 4) + (r32(b, 0) << 32) & M64) ^ (s64(8) ^ s64(16))
        h ^= rotl64(h, 49) ^ rotl64(h, 24)
        h = h * 0x9FB21C651E98DF25 & M64
        h ^= (h >> 35) + n
        h = h * 0x9FB21C651E98DF25 & M64
        return h ^ h >> 28
    if n <= 16:
        lo, hi = r64(b, 0) ^ s64(24) ^ s64(32), r64(b, n - 8) ^ s64(40) ^ s64(48)
        return avalanche3(n + swap64(lo) + hi + fold(lo, hi) & M64)
    if n <= 128:
        acc = n * P64[0]
        for i in range((n - 1) // 32, -1, -1):
            acc += mix16(b, 16 * i, 32 * i) + mix16(b, n - 16 * (i + 1), 32 * i + 16)
        return avalanche3(acc & M64)
    if n <= 240:
        acc = n * P64[0]
        for i in range(8):
            acc += mix16(b, 16 * i, 16 * i)
        acc = avalanche3(acc & M64) + mix16(b, n - 16, 136 - 17)
        for i in range(8, n // 16):
            acc += mix16(b, 16 * i, 16 * (i - 8) + 3)
        return avalanche3(acc & M64)
    return Long(b).low()


def finish128(acc, n):
    lo, hi = acc
    return (-avalanche3(lo * P64[0] + hi * P64[3] + n * P64[1] & M64) & M64) << 64 | avalanche3(lo + hi & M64)


def xxh3_128(b):
    n = len(b)
    if n == 0:
        return avalanche64(s64(80) ^ s64(88)) << 64 | avalanche64(s64(64) ^ s64(72))
    if n <= 3:
        c = b[0] << 16 | b[n >> 1] << 24 | b[n - 1] | n << 8
        d = swap32(c)
        d = (d << 13 | d >> 19) & 0xFFFFFFFF
        return avalanche64(d ^ r32(SECRET, 8) ^ r32(SECRET, 12)) << 64 | avalanche64(c ^ r32(SECRET, 0) ^ r32(SECRET, 4))
    if n <= 8:
        m = (r32(b, 0) + (r32(b, n - 4) << 32) ^ s64(16) ^ s64(24)) * (P64[0] + (n << 2))
        lo, hi = m & M64, m >> 64
        hi = hi + (lo << 1) & M64
        lo ^= hi >> 3
        lo ^= lo >> 35
        lo = lo * 0x9FB21C651E98DF25 & M64
        lo ^= lo >> 28
        return avalanche3(hi) << 64 | lo
    if n <= 16:
        first, last = r64(b, 0), r64(b, n - 8)
        m = (first ^ last ^ s64(32) ^ s64(40)) * P64[0]
        lo, hi = (m & M64) + (n - 1 << 54) & M64, m >> 64
        last ^= s64(48) ^ s64(56)
        hi = hi + last + (last & 0xFFFFFFFF) * (P32[1] - 1) & M64
        lo ^= swap64(hi)
        h = lo * P64[1]
        return avalanche3((h >> 64) + hi * P64[1] & M64) << 64 | avalanche3(h & M64)
    if n <= 128:
        acc = (n * P64[0] & M64, 0)
        for i in range((n - 1) // 32, -1, -1):
            acc = mix32(acc, b, 16 * i, n - 16 * (i + 1), 32 * i)
        return finish128(acc, n)
    if n <= 240:
        acc = (n * P64[0] & M64, 0)
        for i in range(32, 160, 32):
            acc = mix32(acc, b, i - 32, i - 16, i - 32)
        acc = avalanche3(acc[0]), avalanche3(acc[1])
        for i in range(160, n + 1, 32):
            acc = mix32(acc, b, i - 32, i - 16, 3 + i - 160)
        return finish128(mix32(acc, b, n - 16, n - 32, 136 - 17 - 16), n)
    h = Long(b)
    return h.high() << 64 | h.low()


KNOWN = [  # (n, XXH3-64, XXH3-128) of n bytes b[i] = 131 i + 7, by the reference library
    (0, 0x2d06800538d394c2, 0x99aa06d3014798d86001c324468d497f),
    (1, 0x4c5cca45d0f4811f, 0x495b62073ef70ca44c5cca45d0f4811f),
    (2, 0x29c60963cbfa4e6e, 0xf1b5eec902a1eb5e29c60963cbfa4e6e),
    (3, 0x6e3e2670e61106ac, 0x390cdc5b4a895dd76e3e2670e61106ac),
    (4, 0x5c4c63133443d03f, 0xaa6e2f274640a3f43d668af6f2a44d77),
    (5, 0x49f5eb3111280b63, 0xd9da89da8d7e169a62853c5f1a6eda6e),
    (8, 0xf9fd4dd0b04d78f5, 0x6a86a3bda6af4e3d61ddbe7f31a6100d),
    (9, 0x7c20df9712c26edf, 0x664c7ca18afd62558c7b67fd458a936b),
    (15, 0xb345a7b2698ba575, 0x6ef18f28edd02b19d2738c0bad6cbf9a),
    (16, 0x86abf6baccea0858, 0x7f9a218b0425449ae2ce54a7c19c730d),
    (17, 0xb58bf5dc5022d071, 0x66fc23f6439dbd778d96ef110fcdebb4),
    (32, 0xe3712ed84c04a66e, 0x49a11ee743d6d342fd357cf6cb2dda18),
    (33, 0xa4dee99b093e1f73, 0x7228d9284a8116f6f8994653f4bfe6da),
    (64, 0x1291d2d4042330dd, 0xe0faf20e0e0fe0ddba7e015a54f14be1),
    (65, 0x97c6bf83217e5ec9, 0x9397df27b7a9871385326f4078a61329),
    (96, 0x81296929fc063365, 0xfb78ac185ef554438b8720f565dcf40c),
    (97, 0xf145a45b658ab9dd, 0x9cfc8c7d6e7815c8bb385623e598c6d4),
    (128, 0x10d17f72c0ccba41, 0xaec730751478556cff361dec1385710a),
    (129, 0x1648bdc3db49d1a2, 0x98cd36ccbb5579264545b3a09738e31a),
    (160, 0x655c8dc33b4b4c4a, 0x832af93acbf14d0b10963bc4f63e0de8),
    (161, 0xac5e44367a00d651, 0xe7eef57c483dd6cc7ad98310db13778d),
    (200, 0xc0fbc0f4e181c826, 0x26d28d07860728f6a4773493fbbe3543),
    (239, 0xf0d154819adb16cd, 0x6e78178133d2c10bd0329d9f9566468d),
    (240, 0xb6cfaf343fab81e6, 0x5293e17bf553903d3f2c53e72293711f),
    (241, 0x956cae592c67279e, 0xb53840fe3fedf161956cae592c67279e),
    (512, 0xa0e9790eb93990d7, 0x7509d702d4519576a0e9790eb93990d7),
    (1024, 0x70bd377d9574f4bb, 0xf69630613f24324d70bd377d9574f4bb),
    (1025, 0x66c4487c41e127a7, 0x621af7b8277effa466c4487c41e127a7),
    (2048, 0x8b46caa67dab3a30, 0x56b77f207158a2ba8b46caa67dab3a30),
    (5000, 0xe4007929540f095c, 0x61bedb627e4a5fdfe4007929540f095c),
    (8192, 0xbf92f39d8e244293, 0xaf481027864e3e23bf92f39d8e244293),
]


def selftest():
    b = bytes((131 * i + 7) & 255 for i in range(8192))
    for n, h64, h128 in KNOWN:
        assert xxh3_64(b[:n]) == h64, n
        assert xxh3_128(b[:n]) == h128, n
    print("readmoe: %d digests of each width agree" % len(KNOWN))


# ---- the format ----

HEADER = struct.Struct("<8sIIQQQQQQQQIIiiQQQQ")
RECORD = struct.Struct("<hhiBBBBIQQQQQQ")
assert HEADER.size == 128 and RECORD.size == 64
TYPES = ["f32", "bf16", "fp8-block128", "int4-g32", "nvfp4", "f16", "fp8-block128-bf16", "fp8-block128-e8m0", "int4-g64", "int4-g128",
         "int4-row", "int4-g32-f16", "int4-g64-f16", "int4-g128-f16", "int4-row-f16"]
F32, BF16, FP8, INT4, NVFP4, F16 = range(6)
FP8_SCALES = {2: "f32", 6: "bf16", 7: "e8m0"}  # type -> the type of its scales
# type -> (how many columns of a row share a scale, 0: all; the type of its scales)
INT4_SCALES = {3: (32, "bf16"), 8: (64, "bf16"), 9: (128, "bf16"), 10: (0, "bf16"),
               11: (32, "f16"), 12: (64, "f16"), 13: (128, "f16"), 14: (0, "f16")}
WIDTH = {"f32": 4, "bf16": 2, "f16": 2, "e8m0": 1}
DATA, SCALE, GLOBAL, INPUT = range(4)
LAYER = ["input_layernorm.weight", "post_attention_layernorm.weight", "self_attn.q_a_proj.weight", "self_attn.q_a_layernorm.weight",
         "self_attn.q_b_proj.weight", "self_attn.kv_a_proj_with_mqa.weight", "self_attn.kv_a_layernorm.weight",
         "self_attn.kv_b_proj.weight", "self_attn.o_proj.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight",
         "mlp.gate.weight", "mlp.gate.e_score_correction_bias", "mlp.shared_experts.gate_proj.weight",
         "mlp.shared_experts.up_proj.weight", "mlp.shared_experts.down_proj.weight"]
EXPERT = ["gate_proj.weight", "up_proj.weight", "down_proj.weight"]


class Bad(Exception):
    pass


def need(ok, *what):
    if not ok:
        raise Bad(" ".join(str(w) for w in what))


def round_up(v, a):
    return (v + a - 1) // a * a


def name_of(role, layer, expert):
    if role < 3:
        return ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"][role]
    if role in (20, 21, 22):
        return "model.layers.%d.mlp.experts.%d.%s" % (layer, expert, EXPERT[role - 20])
    return "model.layers.%d.%s" % (layer, "self_attn.q_proj.weight" if role == 23 else LAYER[role - 3])


def plane_bytes(t, plane, rows, cols):
    if t == NVFP4:
        need(cols % 16 == 0, "cols", cols)
    if t in INT4_SCALES:
        group, scale = INT4_SCALES[t]
        need(cols % 32 == 0 and cols % (group or 1) == 0, "cols", cols)
    if plane == DATA:
        wide = {F32: 4, BF16: 2, F16: 2}.get(t, 1 if t in FP8_SCALES else 0)
        return wide * rows * cols or rows * cols // 2
    if plane == SCALE and t in INT4_SCALES:
        return WIDTH[scale] * rows * (cols // group if group else 1)
    if plane == SCALE and t in FP8_SCALES:
        return WIDTH[FP8_SCALES[t]] * (round_up(rows, 128) // 128) * (round_up(cols, 128) // 128)
    if plane == SCALE:
        return round_up(rows, 128) // 128 * (round_up(cols // 16, 4) // 4) * 512 if t == NVFP4 else 0
    return 4 if t == NVFP4 else 0


def dense_alignment(size):
    a = 64
    while a < 65536 and 2 * a <= size // 32:
        a *= 2
    return a


def extent_alignment(expert, head, experts):
    a = 2 << 20
    while a > 256 and (round_up(expert, a) - expert > expert // 32 or round_up(head, a) - head > experts * expert // 32):
        a //= 2
    return a


class Shard:
    def __init__(self, path, name, there=None):
        """there: the experts of this layer that a staged part holds; None when the container is no staged part."""
        with open(path, "rb") as f:
            self.b = f.read()
        b = self.b
        self.there = there
        need(len(b) >= 128, "too short")
        (magic, version, self.header_bytes, incompatible, _, size, table, count, self.data, self.stride, self.start, record, self.align,
         self.layer, self.experts, table_hash, res0, res1, header_hash) = HEADER.unpack_from(b)
        need(magic == b"MOESHARD" and version == 1 and incompatible == (there is not None), "magic, version or features")
        need(self.header_bytes == 128 and table == 128 and record == 64 and not res0 and not res1, "header sizes")
        need(size == len(b), "file size", len(b), "header says", size)
        need(xxh3_64(b[:120] + bytes(8)) == header_hash, "header checksum")
        self.end = 128 + 64 * count
        need(count >= 1 and self.end <= self.data <= size, "table bounds")
        need(xxh3_64(b[128:self.end]) == table_hash, "table checksum")
        need(name == ("dense.moe" if self.layer == -1 else "layer-%03d.moe" % self.layer), "name")
        self.digest = xxh3_128(b[:self.end])
        self.records = [RECORD.unpack_from(b, 128 + 64 * i) for i in range(count)]
        self.tensors = {}
        for r in self.records:
            self.read_record(*r)
        for t in self.tensors.values():
            need([p for p in range(4) if plane_bytes(t["type"], p, t["rows"], t["cols"])] == sorted(t["planes"]), t["name"], "planes")
        self.check_layout()
        self.check_padding()

    def read_record(self, role, layer, expert, typ, layout, plane, flags, res, rows, cols, offset, size, digest, res2):
        need(0 <= role < 24 and typ < len(TYPES) and plane < 4 and flags < 2 and not res and not res2, "record")
        is_expert = role in (20, 21, 22)
        need(is_expert == (self.layer >= 0), "role", role)
        need((layer == self.layer and 0 <= expert < self.experts) if is_expert else (expert == -1 and (layer == -1) == (role < 3)), "place")
        name = name_of(role, layer, expert)
        need(rows >= 1 and cols >= 1 and size == plane_bytes(typ, plane, rows, cols) > 0, name, "bytes")
        need(layout == (typ == NVFP4 and plane == SCALE), name, "layout")
        need(not flags or typ == NVFP4, name, "flags")
        need(self.data <= offset and offset + size <= len(self.b), name, "bounds")
        need(self.absent(expert) or xxh3_64(self.b[offset:offset + size]) == digest, name, "plane", plane, "does not match its checksum")
        t = self.tensors.setdefault(name, dict(name=name, type=typ, rows=rows, cols=cols, flags=flags, expert=expert, planes={}))
        need((t["type"], t["rows"], t["cols"], t["flags"]) == (typ, rows, cols, flags) and plane not in t["planes"], name, "planes disagree")
        t["planes"][plane] = (offset, size)

    def check_layout(self):
        """Offsets follow from the list of tensors alone."""
        if self.layer == -1:
            need((self.experts, self.stride, self.start, self.align) == (0, 0, 0, 64) and self.data == self.end, "dense header")
            at = self.end
            for t in self.tensors.values():
                for p in sorted(t["planes"]):
                    offset, size = t["planes"][p]
                    need(offset == round_up(at, dense_alignment(size)), t["name"], "offset")
                    at = offset + size
            need(at == len(self.b), "end of file")
            return
        ends = []
        groups = [[t for t in self.tensors.values() if t["expert"] == e] for e in range(self.experts)]
        for e, group in enumerate(groups):
            at = 0
            for p in range(4):
                for t in group:
                    if p in t["planes"]:
                        at = round_up(at, 256 if p < 2 else 4)
                        need(t["planes"][p][0] == self.start + e * self.stride + at, t["name"], "offset")
                        at += t["planes"][p][1]
            ends.append(at)
        align = extent_alignment(max(ends), self.end, self.experts)
        need((self.align, self.stride) == (align, round_up(max(ends), align)), "extent alignment or stride")
        need(self.start == self.data == round_up(self.end, align) and len(self.b) == self.start + self.experts * self.stride, "extents")

    def absent(self, expert):
        return self.there is not None and expert >= 0 and expert not in self.there

    def check_padding(self):
        at = self.end
        for offset, size in sorted(s for t in self.tensors.values() if not self.absent(t["expert"]) for s in t["planes"].values()):
            need(offset >= at, "overlap at", offset)
            need(not any(self.b[at:offset]), "padding before", offset)
            at = offset + size
        need(not any(self.b[at:]), "padding at the end")

    def plane(self, t, p):
        offset, size = t["planes"][p]
        return self.b[offset:offset + size]


def floats(b):
    a = array.array("f")
    a.frombytes(b)
    if sys.byteorder == "big":
        a.byteswap()
    return a


def bf16(b):
    wide = bytearray(2 * len(b))
    wide[2::4], wide[3::4] = b[::2], b[1::2]
    return floats(bytes(wide))


def numbers(b, kind):
    """What a plane of this kind holds: each is exact in float32."""
    if kind == "f16":
        return array.array("f", struct.unpack("<%de" % (len(b) // 2), b))
    if kind == "e8m0":
        return array.array("f", [2.0 ** (x - 127) if x < 255 else float("nan") for x in b])
    return bf16(b) if kind == "bf16" else floats(b)


def e4m3(c):
    e, m = c >> 3 & 15, c & 7
    v = float("nan") if c & 127 == 127 else (8 + m) * 2.0 ** (e - 10) if e else m * 2.0 ** -9
    return -v if c & 128 else v


E2M1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
E2M1 += [-v for v in E2M1]
E4M3 = [e4m3(c) for c in range(256)]


def tile(m, k, blocks):
    return m // 128 * (round_up(blocks, 4) // 4) * 512 + k // 4 * 512 + m % 32 * 16 + m % 128 // 32 * 4 + k % 4


def decode(s, t):
    """Row-major float32; a product of two float32 is exact in double and rounded once by array('f')."""
    rows, cols, typ = t["rows"], t["cols"], t["type"]
    d = s.plane(t, DATA)
    if typ == F32:
        return floats(d)
    if typ in (BF16, F16):
        return numbers(d, TYPES[typ])
    out = array.array("f", bytes(4 * rows * cols))
    if typ in FP8_SCALES:
        scale, wide = numbers(s.plane(t, SCALE), FP8_SCALES[typ]), round_up(cols, 128) // 128
        for r in range(rows):
            for c in range(0, cols, 128):
                at, end, by = r * cols + c, r * cols + min(c + 128, cols), scale[r // 128 * wide + c // 128]
                out[at:end] = array.array("f", [E4M3[x] * by for x in d[at:end]])
        return out
    if typ in INT4_SCALES:
        group, kind = INT4_SCALES[typ]
        scale, n = numbers(s.plane(t, SCALE), kind), group or cols
        code = [q - 8 for x in d for q in (x & 15, x >> 4)]
        for at in range(0, rows * cols, n):
            by = scale[at // n]
            out[at:at + n] = array.array("f", [q * by for q in code[at:min(at + n, rows * cols)]])
        return out
    scale, g, blocks = s.plane(t, SCALE), floats(s.plane(t, GLOBAL))[0], cols // 16
    one = array.array("f", [0])
    for r in range(rows):
        for k in range(blocks):
            v = E4M3[scale[tile(r, k, blocks)]]
            one[0] = v / g if t["flags"] else v * g
            by, at = one[0], (r * blocks + k) * 8
            out[2 * at:2 * at + 16] = array.array("f", [E2M1[q] * by for x in d[at:at + 8] for q in (x & 15, x >> 4)])
    return out


def staged(m):
    """The experts that a staged part holds, by the name of their file."""
    s, c = m["staged"], m["config"]
    need("part" not in m and re.fullmatch("[0-9a-f]{32}", s["from"]) and re.fullmatch("[0-9a-f]{32}", s["plan"]), "staged: from, plan or part")
    need(all(isinstance(n, int) for n in s["ranks"] + [s["of"]]), "staged: ranks")
    need(0 <= s["ranks"][0] <= s["ranks"][1] < s["of"] and len(s["ranks"]) == 2, "staged: ranks")
    layers = [l["layer"] for l in s["layers"]]
    need(layers == sorted(set(layers)) and all(c["first_k_dense_replace"] <= l < c["num_hidden_layers"] and l % c["moe_layer_freq"] == 0
                                               for l in layers), "staged: layers")
    there = {"dense.moe": set()}
    for l in s["layers"]:
        least = 0
        for a, b in l["experts"]:
            need(least <= a <= b < c["n_routed_experts"], "staged: experts of layer", l["layer"])
            there.setdefault("layer-%03d.moe" % l["layer"], set()).update(range(a, b + 1))
            least = b + 2
    return there


FILE = re.compile(r"(tokenizer/|hf/)?[^/]+\Z")


class Container:
    def __init__(self, path, only=None):
        self.path, self.problems, self.shards = path, [], {}
        with open(os.path.join(path, "manifest.json"), "rb") as f:
            text = f.read()
        m = self.manifest = json.loads(text)
        sum_at = text.rfind(m["checksum"].encode())
        need(m["format"] == "moe" and m["version"] == 1, "format or version")
        need(len(m["checksum"]) == 32 and "%032x" % xxh3_128(text[:sum_at] + b"0" * 32 + text[sum_at + 32:]) == m["checksum"],
             "manifest.json: checksum")
        p = m["provenance"]
        need(re.match(r"[0-9a-f]{16}\Z", p["origin"]) and re.match(r"[0-9a-f]{32}\Z", p.get("weights", "0" * 32)) and
             p.get("kernels", "ref") in ("ref", "vector", "mixed"), "manifest.json: provenance")
        self.there = staged(m) if "staged" in m else None
        names = [f["name"] for f in m["files"]]
        need(names == sorted(set(names), key=str.encode) and all(FILE.match(n) for n in names), "manifest.json: files")
        for f in m["files"]:
            try:
                self.file(f, only)
            except (Bad, OSError) as e:
                self.problems.append("%s: %s" % (f["name"], e))

    def file(self, f, only):
        path = os.path.join(self.path, f["name"])
        need(os.path.getsize(path) == f["bytes"], "size")
        if f["name"].endswith(".moe") and "/" not in f["name"]:
            if only and not only.startswith("model.layers.%d.mlp.experts." % int(f["name"][6:-4]) if f["name"] != "dense.moe" else "model"):
                return
            there = self.there and self.there.get(f["name"], set())
            s = self.shards[f["name"]] = Shard(path, f["name"], there)
            need("%032x" % s.digest == f["xxh3_128"], "digest")
        elif not only:
            with open(path, "rb") as h:
                need("%032x" % xxh3_128(h.read()) == f["xxh3_128"], "digest")

    def check(self):
        listed = {f["name"] for f in self.manifest["files"]} | {"manifest.json"}
        for folder, _, files in os.walk(self.path):
            for n in files:
                n = os.path.relpath(os.path.join(folder, n), self.path)
                if n not in listed and not re.match(r"plan-[^/]*\.json\Z", n):
                    self.problems.append("%s: not listed" % n)
        c = self.manifest["config"]
        names = {n for s in self.shards.values() for n in s.tensors}
        layers = [l for l in range(c["first_k_dense_replace"], c["num_hidden_layers"]) if l % c["moe_layer_freq"] == 0]
        part = self.manifest.get("part")
        if part:
            layers = [l for l in layers if part["layers"][0] <= l <= part["layers"][1]]
        for l in layers if c["n_routed_experts"] else []:
            for e in range(c["n_routed_experts"]):
                for role in (20, 21, 22):
                    if name_of(role, l, e) not in names:
                        self.problems.append("%s: missing" % name_of(role, l, e))
        with open(os.path.join(self.path, "source.jsonl")) as f:
            for i, line in enumerate(f):
                row = json.loads(line)
                if len(row) not in ((7, 8) if part else (7,)) or not isinstance(row[0], str) or not isinstance(row[2], list):
                    self.problems.append("source.jsonl: line %d" % (i + 1))

    def find(self, name):
        for s in self.shards.values():
            if name in s.tensors:
                need(not s.absent(s.tensors[name]["expert"]), name, "was not staged into this part")
                return s, s.tensors[name]
        raise Bad("no tensor '%s'" % name)


def same(container, checkpoint):
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    import refdecode
    ref = refdecode.Checkpoint(checkpoint)
    want = {ref.canonical(n): n for n in ref.weights}
    n = 0
    for s in container.shards.values():
        for name, t in s.tensors.items():
            got, ref_values = decode(s, t), ref.decode(want.pop(name))
            if isinstance(ref_values, tuple):
                ref_values = ref_values[-1]
            if got.tobytes() != array.array("f", ref_values).tobytes():
                container.problems.append("%s: values differ" % name)
            n += 1
    container.problems += ["%s: not in the container" % n for n in want]
    return n


def main(argv):
    if argv[1:] == ["selftest"]:
        return selftest()
    need(len(argv) in (3, 4), __doc__)
    if argv[1] == "dump":
        s, t = (c := Container(argv[2], argv[3])).find(argv[3])
        a = decode(s, t)
        if sys.byteorder == "big":
            a.byteswap()
        sys.stdout.buffer.write(a.tobytes())
        return None
    c = Container(argv[2])
    if argv[1] == "same" and not c.problems:
        print("readmoe: %d tensors have the checkpoint's values" % same(c, argv[3]))
    elif argv[1] == "check":
        c.check()
        print("readmoe: %d files, %d tensors" % (len(c.manifest["files"]), sum(len(s.tensors) for s in c.shards.values())))
    for p in c.problems:
        print(p)
    return 1 if c.problems else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv))
    except (Bad, OSError, ValueError, KeyError) as e:
        print("readmoe: %s: %s" % (type(e).__name__, e))
        sys.exit(1)
