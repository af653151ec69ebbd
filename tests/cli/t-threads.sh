#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that the number of threads changes no byte of a container.
. tests/common.sh
need_tool moe-convert moe-quantize
need_helper genmodel
need_space 300

ok "$GEN/genmodel" -o "$T/fp8" --format fp8 --layers 3 --experts 10 --hidden 256 --inter 160 --seed 11
ok "$GEN/genmodel" -o "$T/hostile" --format bf16 --hostile --layers 3 --experts 24 --seed 12
for model in "$T/fp8" "$T/hostile"; do
    for n in 1 2 7; do
        rm -rf "$T/c$n.moe" "$T/v$n.moe" "$T/q$n.moe"
        ok "$BIN/moe-convert" "$model" -o "$T/c$n.moe" --threads $n
        ok "$BIN/moe-convert" "$model" -o "$T/v$n.moe" --to nvfp4 --threads $n
        ok "$BIN/moe-quantize" "$model" -o "$T/q$n.moe" --method search --quantize all-linear --threads $n
    done
    for what in c v q; do
        ok diff -r "$T/${what}1.moe" "$T/${what}2.moe"
        ok diff -r "$T/${what}1.moe" "$T/${what}7.moe"
    done
done
echo "t-threads: convert, convert --to nvfp4 and quantize of 2 models with 1, 2 and 7 threads"
