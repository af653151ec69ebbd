#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# moe-run --device cuda through the stand-in for NVIDIA's driver, more than make check does: every layout of the
# fixture under three orders of threads, long prompts, many prompts at once, scores, and random schedules.
. tests/common.sh
need_tool moe-run moe-quantize
need_python
need_helper test-core-cuda
F=tests/data/tiny-k2 checks=0
need_standin
cpu() { "$BIN/moe-run" -q "$@" </dev/null 2>"$T/err"; }
cuda() { LD_LIBRARY_PATH=$B/shim "$RUN" -q --device cuda "$@" </dev/null 2>"$T/err"; }
# both NAME ARGUMENT...: both devices give the same output and the same trace
both() { name=$1; shift
    rm -f "$T/cpu.trace" "$T/cuda.trace"
    trace=; case " $* " in *" --prompts "*|*" --score "*) ;; *) trace=yes ;; esac
    cpu "$@" ${trace:+--trace "$T/cpu.trace"} >"$T/cpu" || { cat "$T/err"; fail "$name on the processor"; }
    cuda "$@" ${trace:+--trace "$T/cuda.trace"} >"$T/cuda" || { cat "$T/err"; fail "$name on the GPU"; }
    cmp "$T/cpu" "$T/cuda" || fail "$name: the outputs differ"
    [ -z "$trace" ] || cmp "$T/cpu.trace" "$T/cuda.trace" || fail "$name: the traces differ"
    checks=$(($checks + 1)); }

ok "$BIN/moe-quantize" -q $F/bf16 -o "$T/experts.moe"
ok "$BIN/moe-quantize" -q --quantize all-linear --tensor-type kv_b_proj=nvfp4 $F/fp8 -o "$T/all.moe"
for seed in 1 2 3; do
    MOE_SHIM_SEED=$seed; export MOE_SHIM_SEED
    for m in $F/bf16 $F/fp8 $F/int4 "$T/experts.moe" "$T/all.moe"; do
        both "$m, seed $seed" "$m" --prompt "$(head -c 300 $F/valid.txt)" -n 40 --ignore-eos --context 256
    done
done
unset MOE_SHIM_SEED

# more than a chunk of attention, whole (many tokens at once) and split (one after the other)
head -c 1800 $F/valid.txt >"$T/long"
both "a long prompt" "$T/experts.moe" --prompt-file "$T/long" -n 12 --ignore-eos --context 1000

# forty prompts at once, some of them with choices
python3 - "$T/prompts" <<'P'
import json, sys
words = "And it came to pass in the beginning of the reign that the king said unto them".split()
with open(sys.argv[1], "w") as f:
    for i in range(40):
        q = {"prompt": " ".join(words[i % 7:i % 7 + 3 + i % 9]), "max_tokens": 4 + i % 11, "seed": i}
        if i % 3: q.update(temperature=0.5 + i % 4 / 2, top_p=0.9, top_k=(0, 30)[i % 2])
        if i % 5 == 0: q.update(n=2, logprobs=2)
        f.write(json.dumps(q) + "\n")
P
for m in "$T/experts.moe" $F/int4; do both "forty prompts" "$m" --prompts "$T/prompts" --context 128; done

head -c 1500 $F/valid.txt >"$T/text"
for m in "$T/all.moe" $F/bf16; do both "--score" "$m" --score "$T/text" --window 96; done
for a in nvfp4 nvfp4-four-over-six nvfp4-search; do
    both $a "$T/all.moe" --activations $a --prompt "$(head -c 300 $F/valid.txt)" -n 20 --ignore-eos --context 256
done
"$GEN/test-core-cuda" 60 >"$T/out" 2>&1 || { cat "$T/out"; fail "random schedules"; }
echo "long-device: $checks runs on both devices"
