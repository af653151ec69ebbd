#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compares moe-quantize --calib --dry-run with runs, seconds included, on tiny-k2 and at K2's true widths.
# On a machine whose load changes, seconds prove nothing: they are printed, and have to be within a factor of
# 1.5 only with TIME=1.
. tests/common.sh
need_tool moe-quantize
need_helper genmodel
need_python
need_space 3000
sanitized && skip "sanitizers change memory use"
F=tests/data/tiny-k2 EXPERTS=${EXPERTS:-4} TOKENS=${TOKENS:-2048}
export T
mkdir "$T/scratch"
compare() # MODEL OPTION...
{
    model=$1; shift
    python3 tests/readers/estimate.py ${TIME:+--time} "$BIN/moe-quantize" --calib $F/calib.txt "$@" "$model" || fail "$model $*"
}
for threads in 1 2; do
    for tokens in 4000 16000; do
        compare $F/bf16 --calib-tokens $tokens --sequence-length 256 -t $threads
        compare $F/bf16 --calib-tokens $tokens --sequence-length 1024 -t $threads --effort balanced
        compare $F/bf16 --calib-tokens $tokens --sequence-length 256 -t $threads --method gptq
        compare $F/bf16 --calib-tokens $tokens --sequence-length 256 -t $threads --method weighted
    done
    compare $F/bf16 --calib-tokens 16000 --sequence-length 256 -t $threads --memory 64M --scratch "$T/scratch"
    compare $F/bf16 --calib-tokens 16000 --sequence-length 256 -t $threads --quantize all-linear
done
ok "$GEN/genmodel" -o "$T/m" --format bf16 --layers 2 --dense 1 --experts $EXPERTS --top-k 2 --hidden 7168 --inter 2048 --dense-inter 2048 --vocab 1024 --tokenizer $F/bf16 --seed 31
compare "$T/m" --calib-tokens $TOKENS --sequence-length 512 --method weighted
compare "$T/m" --calib-tokens $TOKENS --sequence-length 512 --effort fast
compare "$T/m" --calib-tokens $TOKENS --sequence-length 512 --effort fast -t 1 --memory 3G
compare "$T/m" --calib-tokens $TOKENS --sequence-length 512 --effort balanced --memory 4G
