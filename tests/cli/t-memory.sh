#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that convert and quantize need much less memory than the model has: 420 MB of weights, two layers of
# 64 experts, in 64 MiB on four threads.
. tests/common.sh
sanitized && skip "sanitizers change memory use"
need_tool moe-convert moe-quantize
need_helper genmodel genrss
need_space 1500

ok "$GEN/genmodel" -o "$T/m" --format bf16 --layers 3 --experts 64 --hidden 1024 --inter 512 --dense-inter 2048 --heads 8
measure 64 120 "$BIN/moe-convert" "$T/m" -o "$T/c.moe" --json --threads 4
measure 64 120 "$BIN/moe-quantize" "$T/m" -o "$T/q.moe" --method max --json --threads 4
rm -rf "$T/q.moe"
measure 64 120 "$BIN/moe-quantize" "$T/m" --to hf-nvfp4 -o "$T/hf" --method max --json --threads 4
rm -rf "$T/hf"
measure 64 120 "$BIN/moe-quantize" "$T/c.moe" -o "$T/q.moe" --method max --json --threads 4
