#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-quantize --calib --dry-run: it always gives an estimate, and runs take the memory and files that
# it says (long-estimate tests the seconds).
. tests/common.sh
need_tool moe-quantize
need_python
F=tests/data/tiny-k2
dry() { ok "$BIN/moe-quantize" -q --json --dry-run --calib $F/calib.txt "$@" $F/bf16; }
said() { look "$T/out" "v['$1']"; }

# --- the number of tokens is read from the text; where there is none to read, the output says what is assumed ---
dry
[ "$(said calib_tokens)" = 127133 ] || fail "tokens of the text: $(said calib_tokens)"
dry --calib-tokens 5000
[ "$(said calib_tokens)" = 5000 ] || fail "tokens asked for: $(said calib_tokens)"
code 3 "nowhere': no such file" "$BIN/moe-quantize" --dry-run --calib "$T/nowhere" $F/bf16
mkdir "$T/bare"
for f in $F/bf16/*.safetensors* $F/bf16/config.json; do ln -s "$(realpath "$f")" "$T/bare/"; done
ok "$BIN/moe-quantize" --json --dry-run --calib $F/calib.txt "$T/bare"
[ "$(said calib_tokens)" = 1048576 ] && grep -q "not counted, 1048576 tokens are assumed: .*tiktoken.model" "$T/err" || { cat "$T/err"; fail "a tokenizer that is not there"; }

# --- options that have no effect, or are impossible, are refused ---
for o in "--effort fast" "--calib-tokens 9" "--sequence-length 9" "--sensitivity-tokens 9" "--chat-template k2.5" \
    "--activations float" "--upstream quantized" "--seed 0"; do
    code 2 "goes with --calib FILE" "$BIN/moe-quantize" --dry-run $o $F/bf16
done
code 2 "5000 is more than the model's context of 1024" "$BIN/moe-quantize" --dry-run --calib $F/calib.txt --sequence-length 5000 $F/bf16
code 2 "unknown chat template 'foo' (k2-first" "$BIN/moe-quantize" --dry-run --calib $F/calib.txt --chat-template foo $F/bf16

# --- too little memory gives an estimate, too ---
ok "$BIN/moe-quantize" --json --dry-run --memory 1M --calib $F/calib.txt $F/bf16
[ "$(look "$T/out" "(v['fits'], v['memory_allowed_bytes'], v['memory_bytes'] == v['memory_least_bytes'] > v['memory_least_with_scratch_bytes'])")" = "(False, 1048576, True)" ] ||
    { cat "$T/out"; fail "too little memory"; }
grep -q "does not fit: .*(raise --memory, give --scratch DIR, or lower --calib-tokens" "$T/err" || { cat "$T/err"; fail "what would make it fit is not said"; }
mkdir "$T/scratch"
dry --memory 1M --scratch "$T/scratch"
[ "$(look "$T/out" "(v['fits'], v['memory_bytes'] == v['memory_least_with_scratch_bytes'], v['scratch_bytes'] == v['scratch_with_least_bytes'])")" = "(False, True, True)" ] ||
    { cat "$T/out"; fail "too little memory, with scratch"; }
[ -z "$(ls "$T/scratch")" ] || fail "a dry run writes"

sanitized && { echo "t-estimate: memory is another under sanitizers"; exit 0; }

# --- the least memory that it names is enough, and half a MiB less is refused ---
set -- --calib-tokens 6000 --sequence-length 256 --effort balanced -t 1
dry "$@"
inside=$(($(said memory_least_bytes) / 1024)) outside=$(($(said memory_least_with_scratch_bytes) / 1024))
run() { "$BIN/moe-quantize" -q --calib $F/calib.txt "$@" $F/bf16 -o "$T/q.moe" --force >"$T/out" 2>"$T/err"; }
run "$@" --memory $(($inside + 512))K || { cat "$T/err"; fail "the least memory"; }
run "$@" --memory $(($outside + 512))K --scratch "$T/scratch" || { cat "$T/err"; fail "the least memory with scratch"; }
code 10 "give --scratch" "$BIN/moe-quantize" -q --calib $F/calib.txt "$@" $F/bf16 -o "$T/x.moe" --memory $(($inside - 1024))K
code 10 "raise --memory" "$BIN/moe-quantize" -q --calib $F/calib.txt "$@" $F/bf16 -o "$T/x.moe" --memory $(($outside - 1024))K --scratch "$T/scratch"

# --- memory and files of runs ---
export T
compare() { python3 tests/readers/estimate.py "$BIN/moe-quantize" --calib $F/calib.txt "$@" $F/bf16 || fail "$*"; }
compare --calib-tokens 4000 --sequence-length 256 -t 1
compare --calib-tokens 6000 -t 2 --effort balanced
compare --calib-tokens 12000 --sequence-length 256 -t 2 --method gptq --effort fast
compare --calib-tokens 12000 --sequence-length 512 -t 2 --method weighted
compare --calib-tokens 8000 --sequence-length 256 -t 2 --quantize all-linear --effort fast
compare "$@" --memory $(($outside + 1024))K --scratch "$T/scratch"
