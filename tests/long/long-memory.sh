#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that peak memory at Kimi K2's widths (7168 x 2048, 2 layers of 48 experts, 8.5 GB) is at most 1 GiB,
# from every source layout.
. tests/common.sh
sanitized && skip "sanitizers change memory use"
need_tool moe-convert moe-quantize
need_helper genmodel genrss
need_space 22000

for format in bf16 fp8 int4; do
    ok "$GEN/genmodel" -o "$T/m" --preset k2 --layers 2 --dense 0 --experts 48 --format $format
    measure 1024 900 "$BIN/moe-convert" "$T/m" -o "$T/c.moe" --json
    measure 1024 1800 "$BIN/moe-quantize" "$T/m" -o "$T/q.moe" --method search --json
    rm -rf "$T/q.moe"
    measure 1024 1800 "$BIN/moe-quantize" "$T/c.moe" -o "$T/q.moe" --method max --json
    rm -rf "$T/q.moe" "$T/c.moe"
    measure 1024 1800 "$BIN/moe-convert" "$T/m" -o "$T/v.moe" --to nvfp4 --json
    rm -rf "$T/v.moe" "$T/m"
done
