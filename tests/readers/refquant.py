#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second implementation of the NVFP4 quantization rules, and a checker of containers made by moe-quantize.

    refquant.py CHECKPOINT NAME.moe METHOD [--sample N] [--fused] [--pure]     METHOD: max, four-over-six, search
    refquant.py --selftest                                                     the two engines below against each other

For every routed expert it decodes the source (refdecode.py), computes globals, block scales and codes, and compares bytes
with the container, whose files it parses itself.  For `search` it checks per block that the stored scale is as good as the
best of all 126 (to 1e-12 relative) and no worse than max and four-over-six under the same global, and that the codes are
the nearest ones under that scale.  With numpy all experts are checked; in plain Python (--pure, or no numpy) N spread over the model (default 6).
--fused: q_a and kv_a of every layer likewise.

The rules are those of modelopt's NVFP4 tensor (but for the global of search), in float32:
    global = amax / (6 * 448), 256 in place of 448 for four-over-six; for search the smallest power of two that is no smaller than
    amax / (6 * 448); gate and up of an expert share the larger amax, as do q_a and kv_a
    b = block amax / (6 * global), 1 where that is 0; scale = e4m3 of b clamped to [2^-9, 448]
    code = nearest e2m1 of w / (scale * global), ties to even; the sign bit is w < 0
Errors are sums over a block of (w - v)^2 in double, v = e2m1 * (scale * global) in float32 as a reader decodes it.
"""
import array
import bisect
import itertools
import json
import math
import os
import struct
import sys

import refdecode
from refdecode import E2M1, E4M3, f32

try:
    import numpy
except ImportError:
    numpy = None

FLT_MIN = 2.0 ** -126
ROLES = {20: "gate_proj", 21: "up_proj", 22: "down_proj"}
NVFP4, TILE_128X4 = 4, 1


# ---- the rules, one value at a time ---------------------------------------------------------------------------------

def e4m3_nearest(v):
    """Code of the positive e4m3 number nearest v after clamping to [2^-9, 448]; ties to the even code."""
    v = min(max(v, 2.0 ** -9), 448.0)
    lo = max(c for c in range(127) if E4M3[c] <= v)
    if E4M3[lo] == v:
        return lo
    below, above = v - E4M3[lo], E4M3[lo + 1] - v  # exact: few bits apart
    return lo if below < above or (below == above and lo % 2 == 0) else lo + 1


def e2m1_magnitude(a):
    """Code 0..7 of the nearest e2m1 magnitude: one more for each midpoint passed, ties to the even code."""
    return ((a > .25) + (a >= .75) + (a > 1.25) + (a >= 1.75) + (a > 2.5) + (a >= 3.5) + (a > 5))


def beside(x, step):
    """The float32 `step` places from the positive float32 x."""
    return struct.unpack("<f", struct.pack("<I", struct.unpack("<I", struct.pack("<f", x))[0] + step))[0]


def global_scale(amax, method):
    if method == "search":
        k = -126
        while 2.0 ** k * 6 * 448 < amax:  # exact: doubles hold both
            k += 1
        return 2.0 ** k
    return max(f32(amax / (6.0 * (256 if method == "four-over-six" else 448))), FLT_MIN)


def pack(codes):
    return bytes(codes[i] | codes[i + 1] << 4 for i in range(0, len(codes), 2))


# ---- engine 1: plain Python -----------------------------------------------------------------------------------------

class Plain:
    name = "plain Python"
    _e4m3 = {}

    @staticmethod
    def amax(w):
        return max(max(w), -min(w))

    @classmethod
    def _scale_codes(cls, block, g):
        """The candidates of four-over-six: block maximum on 6 (what `max` takes) and on 4."""
        b = f32(cls.amax(block) / f32(6.0 * g))
        return [cls._code(x) for x in ((b, f32(b * 1.5)) if b else (1.0, 1.0))]

    @classmethod
    def _code(cls, b):
        if b not in cls._e4m3:
            cls._e4m3[b] = e4m3_nearest(b)
        return cls._e4m3[b]

    # Where the signed quotient passes from one code to the next; a tie that belongs below has the next float32 as its bound.
    _after, _before = [beside(x, 1) for x in (.25, 1.25, 2.5, 5)], [beside(x, -1) for x in (.75, 1.75, 3.5)]
    _up = [_after[0], .75, _after[1], 1.75, _after[2], 3.5, _after[3]]
    _down = [-5.0, -_before[2], -2.5, -_before[1], -1.25, -_before[0], -.25]
    _bounds = _down + [0.0] + _up
    _code_of = bytes([15, 14, 13, 12, 11, 10, 9, 8, 0, 1, 2, 3, 4, 5, 6, 7])

    @classmethod
    def codes(cls, block, s):
        """Codes of 16 values, one a byte."""
        q = array.array("f", [w / s for w in block])
        if 0.0 in q:  # a zero's sign is that of the weight, which underflow may have hidden
            return bytes([e2m1_magnitude(abs(x)) | (8 if w < 0 else 0) for w, x in zip(block, q)])
        return bytes(map(cls._code_of.__getitem__, map(bisect.bisect_right, itertools.repeat(cls._bounds), q)))

    @staticmethod
    def error(block, codes, s):
        return math.dist(block, list(map(array.array("f", [e * s for e in E2M1]).__getitem__, codes))) ** 2

    @classmethod
    def check(cls, w, g, method, codes, scales):
        """Faults in one tensor: list of (block, text)."""
        faults, nibbles = [], b"".join(map(refdecode.NIBBLES.__getitem__, codes))
        for b, stored in enumerate(scales):
            block, kept = w[16 * b:16 * b + 16], nibbles[16 * b:16 * b + 16]
            if not 0 < stored < 127:
                faults.append((b, "scale code %#x" % stored))
                continue
            s = f32(E4M3[stored] * g)
            if kept != cls.codes(block, s):
                faults.append((b, "codes are not the nearest ones under their scale"))
            if not any(block):
                good = stored == 0x38
            elif method == "max":
                good = stored == cls._scale_codes(block, g)[0]
            else:
                pair = cls._scale_codes(block, g)
                own, best = cls.error(block, kept, s), min(cls._error_of(block, g, c) for c in pair)
                if method == "search" and own > (1 + 1e-12) * best:
                    faults.append((b, "worse than max or four-over-six"))
                good = own <= (1 + 1e-12) * (cls._least(block, g, best) if method == "search" else best)
                good = good and (method == "search" or stored in pair)
            if not good:
                faults.append((b, "scale code %#x is not the one the rule gives" % stored))
        return faults

    @classmethod
    def _error_of(cls, block, g, c):
        s = f32(E4M3[c] * g)
        return cls.error(block, cls.codes(block, s), s)

    @classmethod
    def _least(cls, block, g, best):
        """The least error of all 126 scale codes, given that of some."""
        amax = cls.amax(block)
        for c in range(1, 127):
            s = f32(E4M3[c] * g)
            if amax > 6 * s and (amax - 6 * s) ** 2 > best:
                continue  # the largest value alone is worse
            best = min(best, cls._error_of(block, g, c))
            if s > 4 * amax:
                break  # all codes are 0, and stay so
        return best


# ---- engine 2: numpy, the same operations on all blocks at once ------------------------------------------------------

class Vector:
    name = "numpy"

    @staticmethod
    def amax(w):
        return float(numpy.max(numpy.abs(numpy.frombuffer(w, numpy.float32))))

    @staticmethod
    def _codes(w, s):
        """w [blocks, 16] float32, s [blocks] float32 -> codes"""
        with numpy.errstate(all="ignore"):
            a = numpy.abs(w / s[:, None])
        n = (a > .25).astype(numpy.uint8)
        for bound, tie in ((.75, 1), (1.25, 0), (1.75, 1), (2.5, 0), (3.5, 1), (5, 0)):
            n += a >= bound if tie else a > bound
        return n | (w < 0).astype(numpy.uint8) << 3

    @staticmethod
    def _error(w, codes, s):
        with numpy.errstate(all="ignore"):
            value = numpy.array(E2M1, numpy.float32)[codes] * s[:, None]
        return ((w.astype(numpy.float64) - value) ** 2).sum(1)

    @staticmethod
    def _nearest(b):
        table = numpy.array(E4M3[:127], numpy.float64)
        v = numpy.clip(b.astype(numpy.float64), 2.0 ** -9, 448.0)
        lo = numpy.searchsorted(table, v, "right") - 1
        hi = numpy.minimum(lo + 1, 126)
        below, above = v - table[lo], table[hi] - v
        return numpy.where((below < above) | ((below == above) & (lo % 2 == 0)) | (below == 0), lo, hi)

    @classmethod
    def _try(cls, w, g, code):
        with numpy.errstate(all="ignore"):
            s = numpy.array(E4M3, numpy.float32)[code] * numpy.float32(g)
        return cls._error(w, cls._codes(w, s), s)

    @classmethod
    def check(cls, w, g, method, codes, scales):
        w = numpy.frombuffer(w, numpy.float32).reshape(-1, 16)
        stored = numpy.frombuffer(scales, numpy.uint8)
        packed = numpy.frombuffer(codes, numpy.uint8).reshape(-1, 8)
        kept = numpy.stack((packed & 15, packed >> 4), 2).reshape(-1, 16)
        amax = numpy.abs(w).max(1)
        faults = [(int(b), "scale code %#x" % stored[b]) for b in numpy.nonzero((stored == 0) | (stored >= 127))[0]]
        stored = numpy.clip(stored, 1, 126)
        with numpy.errstate(all="ignore"):
            b = amax / (numpy.float32(6) * numpy.float32(g))
            s = numpy.array(E4M3, numpy.float32)[stored] * numpy.float32(g)
        b[b == 0] = 1
        six, four = cls._nearest(b), cls._nearest(b * numpy.float32(1.5))
        bad = (kept != cls._codes(w, s)).any(1)
        faults += [(int(i), "codes are not the nearest ones under their scale") for i in numpy.nonzero(bad)[0]]
        zero = amax == 0
        own = cls._error(w, kept, s)
        if method == "max":
            good = stored == six
        elif method == "four-over-six":
            e6, e4 = cls._try(w, g, six), cls._try(w, g, four)
            near = own <= (1 + 1e-12) * numpy.minimum(e6, e4)
            good = near & ((stored == six) | (stored == four))
        else:
            best = numpy.minimum(cls._try(w, g, six), cls._try(w, g, four))
            faults += [(int(i), "worse than max or four-over-six") for i in numpy.nonzero((own > (1 + 1e-12) * best) & ~zero)[0]]
            for c in range(1, 127):
                best = numpy.minimum(best, cls._try(w, g, numpy.full(len(w), c)))
            good = own <= (1 + 1e-12) * best
        good = numpy.where(zero, stored == 0x38, good)
        return faults + [(int(i), "scale code %#x is not the one the rule gives" % stored[i]) for i in numpy.nonzero(~good)[0]]


# ---- the container, by formats/container/container.h --------------------------------------------------------------------------

def read_shard(path):
    """Records of one shard file: (role, layer, expert) -> {plane: (type, layout, rows, cols, bytes)}."""
    with open(path, "rb") as f:
        data = f.read()
    magic, version, header_bytes = struct.unpack_from("<8sII", data)
    file_bytes, table, count, _ = struct.unpack_from("<QQQQ", data, 32)
    (record_bytes,) = struct.unpack_from("<I", data, 80)
    assert (magic, version, header_bytes, record_bytes, file_bytes) == (b"MOESHARD", 1, 128, 64, len(data)), path
    out = {}
    for i in range(count):
        role, layer, expert, kind, layout, plane, flags, _, rows, cols, offset, size, _, _ = struct.unpack_from(
            "<hhiBBBBIQQQQQQ", data, table + 64 * i)
        assert offset + size <= len(data), path
        out.setdefault((role, layer, expert), {})[plane] = (kind, layout, rows, cols, data[offset:offset + size])
        assert not flags & 1, "a container's globals multiply"
    return out


def linear_scales(layout, rows, blocks, data):
    if layout != TILE_128X4:
        return bytes(data)
    wide = (blocks + 3) // 4
    assert len(data) == (rows + 127) // 128 * wide * 512
    out, used = bytearray(rows * blocks), 0
    for m in range(rows):
        base = m // 128 * wide * 512 + m % 32 * 16 + m % 128 // 32 * 4
        for t in range(wide):
            n = min(4, blocks - 4 * t)
            out[m * blocks + 4 * t:m * blocks + 4 * t + n] = data[base + 512 * t:base + 512 * t + n]
    used = sum(1 for x in out if x)
    assert used == sum(1 for x in data if x), "padding of the scale tile is not zero"
    return bytes(out)


def load_experts(path):
    with open(os.path.join(path, "manifest.json")) as f:
        json.load(f)
    experts = {}
    for name in sorted(os.listdir(path)):
        if name.startswith("layer-") and name.endswith(".moe"):
            for (role, layer, expert), planes in read_shard(os.path.join(path, name)).items():
                if role in ROLES:
                    experts.setdefault((layer, expert), {})[ROLES[role]] = planes
    return experts


# ---- comparing --------------------------------------------------------------------------------------------------------

def check_expert(engine, source, where, planes, method):
    """Faults of one expert's three tensors, and the number of weights compared."""
    faults, weights = [], 0
    stem = "model.layers.%d.mlp.experts.%d." % where
    values = {p: source[stem + p + ".weight"]() for p in ROLES.values()}
    amax = {p: engine.amax(v) for p, (_, v) in values.items()}
    amax["gate_proj"] = amax["up_proj"] = max(amax["gate_proj"], amax["up_proj"])
    for part, (shape, w) in values.items():
        got, name = planes[part], stem + part
        kind, _, rows, cols, codes = got[0]
        assert kind == NVFP4 and [rows, cols] == shape, name
        g = global_scale(amax[part], method)
        if got[2][4] != struct.pack("<f", g):
            faults.append("%s: global %r, not %r" % (name, struct.unpack("<f", got[2][4])[0], g))
            continue
        scales = linear_scales(got[1][1], rows, cols // 16, got[1][4])
        faults += ["%s: block %d: %s" % (name, b, text) for b, text in engine.check(w, g, method, codes, scales)]
        weights += len(w)
    return faults, weights


def check_fused(engine, c, source, container, method):
    """Faults of q_a and kv_a of all layers, which share the larger of their global scales, and the number of weights compared."""
    faults, weights = [], 0
    names = {5: "self_attn.q_a_proj", 8: "self_attn.kv_a_proj_with_mqa"}
    shard = read_shard(os.path.join(container, "dense.moe"))
    for layer in sorted({l for role, l, _ in shard if role in names}):
        values = {role: source["model.layers.%d.%s.weight" % (layer, name)]() for role, name in names.items()}
        g = global_scale(max(engine.amax(w) for _, w in values.values()), method)
        for role, (shape, w) in values.items():
            got = shard[role, layer, -1]
            kind, _, rows, cols, codes = got[0]
            name = "layer %d, %s" % (layer, names[role])
            assert kind == NVFP4 and [rows, cols] == shape, name
            if got[2][4] != struct.pack("<f", g):
                faults.append("%s: global %r, not %r" % (name, struct.unpack("<f", got[2][4])[0], g))
                continue
            faults += ["%s: block %d: %s" % (name, b, text) for b, text in engine.check(w, g, method, codes, linear_scales(got[1][1], rows, cols // 16, got[1][4]))]
            weights += len(w)
    return faults, weights


def check_container(checkpoint, container, method, sample, fused, engine):
    c = refdecode.Checkpoint(checkpoint)
    source = {c.canonical(n): (lambda n=n: c.decode(n)) for n in c.weights}
    experts = load_experts(container)
    want = {n.rsplit(".", 2)[0] for n in source if ".mlp.experts." in n}
    assert {"model.layers.%d.mlp.experts.%d" % k for k in experts} == want, "the container lacks experts, or has others"
    keys = sorted(experts)
    if sample and sample < len(keys):
        keys = [keys[i * len(keys) // sample] for i in range(sample)]
    faults, weights = [], 0
    for key in keys:
        f, n = check_expert(engine, source, key, experts[key], method)
        faults, weights = faults + f, weights + n
    if fused:
        f, n = check_fused(engine, c, source, container, method)
        assert n, "no q_a and kv_a"
        faults, weights = faults + f, weights + n
    for line in faults[:20]:
        print(line)
    print("%s: %d experts, %d weights, %d faults (%s)" % (method, len(keys), weights, len(faults), engine.name))
    return 1 if faults or not weights else 0


def selftest():
    """Both engines agree that what Plain quantizes is right, and both see every change of a byte of it."""
    import random
    rng, blocks, seen = random.Random(1), 12, 0
    for method in ("max", "four-over-six", "search"):
        for shift in (0, -20, -130, 100):
            w = array.array("f", [rng.gauss(0, 1) * 2.0 ** (shift - 2 * (i // 32)) for i in range(16 * blocks)])
            g = global_scale(Plain.amax(w), method)
            scales, codes = bytearray(), bytearray()
            for b in range(blocks):
                block = w[16 * b:16 * b + 16]
                candidates = Plain._scale_codes(block, g)[:1 if method == "max" else 2] if method != "search" else range(1, 127)
                pick = min(candidates, key=lambda c: Plain._error_of(block, g, c)) if any(block) else 0x38
                scales.append(pick)
                codes += pack(Plain.codes(block, f32(E4M3[pick] * g)))
            for engine in (Plain, Vector) if numpy else (Plain,):
                assert engine.check(w, g, method, bytes(codes), bytes(scales)) == [], (engine.name, method, shift)
                broken = bytearray(codes)
                broken[5] ^= 1
                assert engine.check(w, g, method, bytes(broken), bytes(scales)), "a wrong code went unseen"
                broken = bytearray(scales)
                broken[3] = broken[3] - 40 if broken[3] > 60 else broken[3] + 40
                assert engine.check(w, g, method, bytes(codes), bytes(broken)), "a wrong scale went unseen"
                seen += 3
    print("selftest: %d checks%s" % (seen, "" if numpy else " (without numpy)"))
    return 0


def main(args):
    if args == ["--selftest"]:
        return selftest()
    sample, pure, fused = 6, "--pure" in args, "--fused" in args
    args = [a for a in args if a not in ("--pure", "--fused")]
    if "--sample" in args:
        i = args.index("--sample")
        sample = int(args[i + 1])
        del args[i:i + 2]
    if len(args) != 3 or args[2] not in ("max", "four-over-six", "search"):
        sys.exit("usage: refquant.py CHECKPOINT NAME.moe max|four-over-six|search [--sample N] [--fused] [--pure]")
    engine = Plain if pure or not numpy else Vector
    return check_container(args[0], args[1], args[2], sample if engine is Plain else 0, fused, engine)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
