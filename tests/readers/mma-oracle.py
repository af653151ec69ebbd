#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""mma-oracle.py FILE [ARCHITECTURE...]: compares the shim's tensor core with MMA-Sim (mmasim on PyPI, by the authors of arXiv 2511.10909).

FILE is of check-mma FRAGMENTS FILE: fragments, and what the shim made of them.  They are put together to matrices by the
formulas of the PTX manual (ISA 9.0, "Matrix Fragments for mma.m16n8k16 with floating point type"), and all bits of the
results are compared; NaN, too.  Says how many there were; exit 1 where one differs."""
import array
import importlib.metadata
import sys

import torch
from mmasim.nv_ptx import MMA

WORDS = 14  # of a lane: a [4], b [2], c [4], d [4]
PART = 2000  # fragments at a time
INSTRUCTION = {0: "m16n8k16.f32.f16.f16.f32", 1: "m16n8k16.f32.bf16.bf16.f32"}
TYPE = {0: torch.float16, 1: torch.bfloat16}


def matrices(lanes):
    """[n, 32, 14] words -> a [n, 16, 16], b [n, 8, 16] (n, k) of 16 bits; c, d [n, 16, 8] of 32."""
    n = lanes.shape[0]
    halves = lanes.contiguous().view(torch.int16).view(n, 32, 2 * WORDS)
    a = torch.empty(n, 16, 16, dtype=torch.int16)
    b = torch.empty(n, 8, 16, dtype=torch.int16)
    c, d = (torch.empty(n, 16, 8, dtype=torch.int32) for _ in range(2))
    for lane in range(32):
        group, inside = lane // 4, lane % 4
        for i in range(8):
            row = group if i in (0, 1, 4, 5) else group + 8
            a[:, row, inside * 2 + i % 2 + (8 if i >= 4 else 0)] = halves[:, lane, i]
        for i in range(4):
            b[:, group, inside * 2 + i % 2 + (8 if i >= 2 else 0)] = halves[:, lane, 8 + i]
        for i in range(4):
            at = group + (8 if i >= 2 else 0), inside * 2 + i % 2
            c[:, at[0], at[1]], d[:, at[0], at[1]] = lanes[:, lane, 6 + i], lanes[:, lane, 10 + i]
    return a, b, c, d


def different(kind, lanes, arch):
    """How many results differ; the first is printed."""
    a, b, c, d = matrices(lanes)
    a, b, c = a.view(TYPE[kind]), b.view(TYPE[kind]), c.view(torch.float32)
    n = a.shape[0]
    x = a[:, :, None, :].expand(n, 16, 8, 16)
    y = b[:, None, :, :].expand(n, 16, 8, 16)
    want = MMA(arch, INSTRUCTION[kind]).dpa(x, y, c).view(torch.int32)
    wrong = (want != d).nonzero()
    for f, row, column in wrong[:1].tolist():
        print(f"{arch} {INSTRUCTION[kind]}: {d[f, row, column] & 0xffffffff:#x}, and has to be "
              f"{want[f, row, column] & 0xffffffff:#x}: a {a[f, row].tolist()}, b {b[f, column].tolist()}, "
              f"c {c[f, row, column].item()}")
    return len(wrong)


def main():
    words = array.array("I")
    with open(sys.argv[1], "rb") as f:
        words.frombytes(f.read())
    words = torch.frombuffer(words, dtype=torch.int32).view(-1, 1 + 32 * WORDS)
    wrong, counts, archs = 0, [], sys.argv[2:] or ["Hopper"]
    for kind in INSTRUCTION:
        lanes = words[words[:, 0] == kind, 1:].view(-1, 32, WORDS)
        counts.append(f"{len(lanes)} fragments of {str(TYPE[kind])[6:]}")
        for arch in archs:
            for at in range(0, len(lanes), PART):
                wrong += different(kind, lanes[at:at + PART], arch)
    print(f"mmasim {importlib.metadata.version('mmasim')} ({', '.join(archs)}): {', '.join(counts)}: "
          f"{f'{wrong} results differ' if wrong else 'all bits equal'}")
    return 1 if wrong or not len(words) else 0


sys.exit(main())
