#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests scoring, a layer at a time: the same numbers wherever the hidden states are kept, models larger than
# the memory, and models that others quantized.
. tests/common.sh
need_tool moe-run moe-quantize moe-convert
need_helper genmodel genrss
M=tests/data/tiny-k2
R=$BIN/moe-run
# What a score prints, without time and memory.
numbers() { sed 's/, "seconds".*//' "$T/out"; }
same() { numbers >"$T/other"; cmp -s "$T/numbers" "$T/other" || { cat "$T/numbers" "$T/other"; fail "$1"; }; count; }

bytes=12000
sanitized && bytes=3600 # each run takes ten times as long there
head -c $bytes $M/valid.txt >"$T/short.txt"
ok "$BIN/moe-quantize" -q $M/bf16 -o "$T/q.moe" --method max

# ---- where the states are kept, batches, threads ---------------------------------
ok "$R" -q --json "$T/q.moe" --score "$T/short.txt" --window 64 --reference $M/bf16
numbers >"$T/numbers"
for key in nll perplexity kl kl_p50 kl_p99 kl_max top1_agreement perplexity_reference perplexity_ratio; do
    [ -n "$(json $key "$T/out")" ] || fail "no $key"
done
awk "BEGIN { r = $(json perplexity "$T/out") / $(json perplexity_reference "$T/out") / $(json perplexity_ratio "$T/out"); exit !(r > 1 - 1e-12 && r < 1 + 1e-12) }" || fail "perplexity_ratio"
mkdir "$T/scratch"
set -- "--threads 1" "--threads 7" "--mla absorbed" "--context 64" "--scratch $T/scratch"
sanitized && set -- "--threads 7" "--context 64"
for more; do
    ok "$R" -q --json "$T/q.moe" --score "$T/short.txt" --window 64 --reference $M/bf16 $more
    same "the score depends on $more"
done
# Hidden states that memory does not hold: refused before the work, or kept in scratch, where nothing is left
# afterwards.
if ! sanitized; then
    refused 10 "--scratch" -q "$T/q.moe" --score "$T/short.txt" --window 64 --reference $M/bf16 --context 64 --threads 2 --memory 7M
    ok "$R" -q --json "$T/q.moe" --score "$T/short.txt" --window 64 --reference $M/bf16 --context 64 --threads 2 --memory 7M --scratch "$T/scratch"
    same "states in scratch give another score"
    [ "$(json peak_anonymous "$T/out")" -le 7340032 ] || fail "peak_anonymous $(json peak_anonymous "$T/out") with --memory 7M"
    [ -z "$(ls -A "$T/scratch")" ] || fail "something is left in scratch"
    count
fi
refused 2 "--scratch goes with" $M/bf16 --prompt x --scratch "$T/scratch"
refused 2 "--window 0: want 1 to" $M/bf16 --score "$T/short.txt" --window 0
# A window that takes several batches.
ok "$R" -q --json $M/bf16 --score "$T/short.txt" --window 1000
numbers >"$T/numbers"
if ! sanitized; then
    ok "$R" -q --json $M/bf16 --score "$T/short.txt" --window 1000 --context 1000 --threads 2 --memory 9M --scratch "$T/scratch"
    same "a window in pieces gives another score"
fi

# ---- models that others quantized: how long the text is shows nothing of them ------
head -c 3600 $M/valid.txt >"$T/short.txt"
ok "$R" -q --json "$T/q.moe" --score "$T/short.txt" --window 64 --reference $M/bf16
numbers >"$T/numbers"
for flavor in modelopt compressed-tensors; do
    ok "$BIN/moe-convert" -q "$T/q.moe" --to hf-nvfp4 --flavor $flavor -o "$T/$flavor"
    ok "$R" -q --json "$T/$flavor" --score "$T/short.txt" --window 64 --reference $M/bf16
    [ $flavor = modelopt ] && same "the score of a $flavor checkpoint is not its container's"
    ok "$R" -q --json "$T/q.moe" --score "$T/short.txt" --window 64 --reference "$T/$flavor"
    awk "BEGIN { exit !($(json kl "$T/out") < 1e-9 && $(json kl "$T/out") > -1e-9 && $(json top1_agreement "$T/out") > 0.999) }" || { cat "$T/out"; fail "$flavor as reference"; }
    count
done
for format in nvfp4 nvfp4-ct; do
    ok "$GEN/genmodel" -o "$T/$format" --format $format --layers 3 --experts 6 --top-k 2 --hidden 64 --inter 64 --vocab 1024 --tokenizer $M/bf16
done
ok "$R" -q --json "$T/nvfp4" --score "$T/short.txt" --window 64 --reference "$T/nvfp4-ct"
awk "BEGIN { exit !($(json kl "$T/out") < 1e-6) }" || { cat "$T/out"; fail "the two spellings of one model differ"; }
ok "$R" -q --json "$T/nvfp4" --score "$T/short.txt" --window 64 --reference "$T/nvfp4-ct" --activations nvfp4
awk "BEGIN { exit !($(json kl "$T/out") > 1e-6) }" || { cat "$T/out"; fail "quantized activations change nothing"; }
count

# ---- models larger than the memory ------------------------------------------
sanitized && { echo "t-score: $checks checks"; exit 0; }
need_space 600
head -c 6000 $M/valid.txt >"$T/short.txt" # nine windows
ok "$GEN/genmodel" -o "$T/big" --format bf16 --layers 11 --experts 32 --top-k 4 --hidden 512 --inter 256 --dense-inter 1024 --heads 4 --vocab 1024 --tokenizer $M/bf16
ok "$BIN/moe-quantize" -q "$T/big" -o "$T/small.moe" --method max
bytes=$(du -sbL "$T/big" "$T/small.moe" | awk '{ s += $1 } END { print int(s / 1048576) }')
[ "$bytes" -ge 330 ] || fail "the models have $bytes MiB, which shows little"
# 64 MiB, and no more than one layer of mapped weights (25 MiB).
measure 89 600 "$R" "$T/small.moe" --score "$T/short.txt" --window 256 --reference "$T/big" --memory 64M --threads 2 --json
numbers >"$T/numbers"
[ "$(json peak_anonymous "$T/out")" -le 67108864 ] || fail "peak_anonymous"
ok "$R" -q --json "$T/small.moe" --score "$T/short.txt" --window 256 --reference "$T/big"
same "the score depends on --memory"
echo "t-score: $checks checks"
