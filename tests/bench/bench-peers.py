#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What other programs make of the same work, one line "what|how|seconds|work|unit" each; those that are not installed are left out.

numpy: a float32 product of Kimi K2's shape on one core (its BLAS).  tiktoken: the same vocabulary and text as our tokenizer's row."""
import os
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"
import base64
import sys
import time

quick = "--quick" in sys.argv


def best(fn):
    fn()
    least = float("inf")
    for _ in range(1 if quick else 7):
        start = time.process_time()
        fn()
        least = min(least, time.process_time() - start)
    return max(least, 1e-9)


def numpy_rows():
    import numpy as np
    rows, cols = (64, 256) if quick else (2048, 7168)
    w = np.ones((rows, cols), np.float32)
    for n in (1, 8, 128):
        x = np.ones((cols, n), np.float32)
        print(f"numpy float32 {rows} x {cols}, N = {n}|numpy {np.__version__}|{best(lambda: w @ x)}|{2e-9 * rows * cols * n}|GFLOPS")


def tiktoken_rows():
    import tiktoken
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "../data/tiny-k2/bf16/tiktoken.model"), "rb") as f:
        ranks = {base64.b64decode(t): int(r) for t, r in (line.split() for line in f if line.strip())}
    pattern = "|".join([
        r"[\p{Han}]+",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}", r" ?[^\s\p{L}\p{N}]+[\r\n]*", r"\s*[\r\n]+", r"\s+(?!\S)", r"\s+"])
    encoding = tiktoken.Encoding("k2", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    with open(os.path.join(here, "../data/tiny-k2/calib.txt"), encoding="utf-8") as f:
        text = f.read()
    size = len(text.encode())
    print(f"tokenize plain English|tiktoken {getattr(tiktoken, '__version__', '')}|{best(lambda: encoding.encode_ordinary(text))}|{size * 1e-6}|MB/s")


for rows in (numpy_rows, tiktoken_rows):
    try:
        rows()
    except ImportError:
        pass
