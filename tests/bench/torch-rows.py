#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""torch-rows.py [--cpu]: PyTorch's products of the dense shapes of Kimi K2, BF16 weights and BF16 x, as rows
of the table that bench-cuda prints.  tests/device.sh bench runs it.  --cpu: tiny shapes on the processor, to
see that it runs; their numbers mean nothing."""
import sys
import time

import torch

CPU = "--cpu" in sys.argv
HIDDEN, Q_LORA, HEADS, KL = (256, 64, 4, 64) if CPU else (7168, 1536, 64, 512)
ROPE, NOPE, V, VOCAB = (16, 16, 16, 512) if CPU else (64, 128, 128, 163840)
RUNS = 1 if CPU else 20
DEVICE = "cpu" if CPU else "cuda"


def seconds_of(weights, x):
    """The least of three graphs of RUNS products; each takes other weights, which no cache has."""
    def run():
        for i in range(RUNS):
            torch.nn.functional.linear(x, weights[i % len(weights)])
    if CPU:
        start = time.perf_counter()
        run()
        return (time.perf_counter() - start) / RUNS
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    least = 1e9
    for i in range(4):
        torch.cuda.synchronize()
        start = time.perf_counter()
        graph.replay()
        torch.cuda.synchronize()
        if i:
            least = min(least, time.perf_counter() - start)
    return least / RUNS


def row(name, rows, cols, n):
    size = 2 * rows * cols
    turns = 1 if CPU else (256 << 20) // size + 1
    weights = [torch.full((rows, cols), 0.0115, dtype=torch.bfloat16, device=DEVICE) for _ in range(turns)]
    x = torch.full((n, cols), 0.0115, dtype=torch.bfloat16, device=DEVICE)
    took = seconds_of(weights, x)
    shape = f"BF16 [{rows}, {cols}], {n} rows, PyTorch"
    moved = size + 2 * n * (rows + cols)
    print(f"{name:<14} {shape:<44} {took * 1e6:10.2f} {moved / took * 1e-9:9.1f} {'':7} "
          f"{n * rows * cols / took * 1e-9:10.0f}", flush=True)


print(f"PyTorch {torch.__version__} on {'the processor' if CPU else torch.cuda.get_device_name()}")
for n in (1, 16, 64) if CPU else (1, 16, 64, 1024):
    row("q_a", Q_LORA, HIDDEN, n)
    row("q_b", HEADS * (NOPE + ROPE), Q_LORA, n)
    row("kv_a", KL + ROPE, HIDDEN, n)
    row("o", HIDDEN, HEADS * V, n)
    if n <= 64:
        row("head", VOCAB, HIDDEN, n)
