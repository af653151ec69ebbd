#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-run --device cuda through the stand-in for NVIDIA's driver: the same text, log-probabilities and
# trace as on the processor, byte for byte, for every layout of the fixture; several prompts at once; what is
# refused.
. tests/common.sh
need_tool moe-run moe-quantize
need_python
need_helper genmodel
F=tests/data/tiny-k2 checks=0
need_standin
count() { checks=$(($checks + 1)); }
cpu() { "$BIN/moe-run" -q "$@" </dev/null; }
cuda() { LD_LIBRARY_PATH=$B/shim "$RUN" -q --device cuda "$@" </dev/null; }
same() { cmp "$T/$1" "$T/$2" || fail "$1 and $2 differ"; count; }
# refused CODE TEXT ARGUMENT...: --device cuda ends with this code and a sentence with this text
refused() { want=$1 text=$2; shift 2; cuda "$@" >"$T/out" 2>"$T/err" && r=0 || r=$?
    [ $r = "$want" ] || { cat "$T/err"; fail "exit $r, not $want: $*"; }
    grep -qF -- "$text" "$T/err" || { cat "$T/err"; fail "does not say '$text': $*"; }
    [ "$(grep -c . "$T/err")" = 1 ] || { cat "$T/err"; fail "not one sentence: $*"; }; count; }

ok "$BIN/moe-quantize" -q $F/bf16 -o "$T/experts.moe"
ok "$BIN/moe-quantize" -q --quantize all-linear --tensor-type kv_b_proj=nvfp4 $F/int4 -o "$T/all.moe"

# NVFP4 as checkpoints have it, its scales in rows and its second scales as factors or as divisors
ok "$BIN/moe-convert" -q "$T/experts.moe" --to hf-nvfp4 -o "$T/modelopt"
ok "$BIN/moe-convert" -q "$T/experts.moe" --to hf-nvfp4 --flavor compressed-tensors -o "$T/tensors"

# ---- one prompt: text and trace ----
# twice NAME ARGUMENT...: both devices give the same text and the same trace
twice() { name=$1; shift
    cpu "$@" --prompt 'And it came to pass' --context 40 --trace "$T/cpu.trace" >"$T/cpu" || fail "$name on the processor"
    cuda "$@" --prompt 'And it came to pass' --context 40 --trace "$T/cuda.trace" >"$T/cuda" || fail "$name on the GPU"
    [ -s "$T/cpu" ] || fail "$name: no text"
    same cpu cuda; same cpu.trace cuda.trace; }
for m in $F/bf16 $F/fp8 $F/int4 "$T/experts.moe" "$T/all.moe" "$T/modelopt" "$T/tensors"; do twice "$m" "$m" -n 19 --ignore-eos; done
for a in nvfp4 nvfp4-four-over-six nvfp4-search; do twice $a "$T/all.moe" --activations $a -n 2 2>"$T/warnings"; done

# Tied embeddings, which lie on the GPU twice; and queries without q_a, experts in groups.  No tokenizer, so traces
# alone are compared.
for m in "nvfp4 --tied" "fp8 --tied --q-lora 0 --groups 4,2"; do
    rm -rf "$T/tied"
    ok "$GEN/genmodel" -o "$T/tied" --format $m
    for d in cpu cuda; do
        $d "$T/tied" --tokens 1,2,3 -n 6 --ignore-eos --context 40 --trace "$T/$d.trace" >"$T/$d" || fail "$m on $d"
    done
    same cpu.trace cuda.trace
done

# ---- several prompts at once, sampled, with log-probabilities ----
cat >"$T/prompts" <<'P'
{"prompt": "And it came to pass", "max_tokens": 6, "logprobs": 3}
{"prompt": "In the beginning", "max_tokens": 9, "temperature": 0.9, "top_p": 0.9, "seed": 4, "n": 2, "logprobs": 2}
{"prompt": "the king said", "max_tokens": 7, "temperature": 1.2, "top_k": 20, "min_p": 0.01, "seed": 9}
P
cpu "$T/experts.moe" --prompts "$T/prompts" --context 64 --jsonl >"$T/cpu" || fail "prompts on the processor"
cuda "$T/experts.moe" --prompts "$T/prompts" --context 64 --jsonl >"$T/cuda" || fail "prompts on the GPU"
[ "$(wc -l <"$T/cuda")" = 3 ] || fail "not three answers"
same cpu cuda

# ---- what is said about it ----
cuda --json $F/bf16 --tokens 1,2,3 -n 6 --context 16 --ignore-eos >"$T/json" || fail "--json"
python3 -c 'import json, sys
j = json.load(open(sys.argv[1])); d, l = j["device"], j["load"]
assert list(d) == ["kind", "index", "name", "arithmetic", "cache_type", "launches", "graphs", "graph_launches"] and d["kind"] == "cuda" and d["index"] == 0, d
assert d["graphs"] == 1 and d["graph_launches"] == 4, d
assert list(l) == ["path", "bytes", "seconds", "bytes_read", "pinned_bytes", "seconds_reading", "seconds_checking", "seconds_copying"], l
assert l["bytes_read"] > 100000 and l["pinned_bytes"] > 0 and l["path"] in ("cached", "direct") and l["bytes"] > 100000, l' "$T/json" || { cat "$T/json"; fail "JSON"; }
count
cuda --json $F/bf16 --tokens 1,2,3 -n 6 --context 16 --ignore-eos --record-routing "$T/routing.json" >"$T/json" || fail "routing"
grep -qF '"graphs": 0, "graph_launches": 0' "$T/json" || { cat "$T/json"; fail "graphs of pieces of a step"; }
count
# what becomes tiles on the way is read and counted as all else
cuda --json "$T/modelopt" --tokens 1 -n 1 >"$T/json" || fail "scales in rows"
python3 -c 'import json, os, struct, sys
file = sys.argv[2] + "/model.safetensors"
data = os.path.getsize(file) - 8 - struct.unpack("<Q", open(file, "rb").read(8))[0]
l = json.load(open(sys.argv[1]))["load"]
assert l["bytes"] >= data and l["bytes_read"] >= data - 8192, (l, data)' "$T/json" "$T/modelopt" || fail "bytes"
count
# auto takes the processor, and does not open the driver to say so
LD_DEBUG=libs LD_LIBRARY_PATH=$B/shim "$RUN" -q --json $F/bf16 --tokens 1,2,3 -n 1 >"$T/json" 2>"$T/libs" || fail "--device auto"
grep -qF '"device": {"kind": "cpu", "reason": "not measured"}' "$T/json" || { cat "$T/json"; fail "auto's reason"; }
grep -q libcjson "$T/libs" || fail "LD_DEBUG shows no library: nothing is tested"
! grep libcuda "$T/libs" || fail "--device auto opens the driver"
count

# a GPU that shares the host's page tables reads the files where they lie
MOE_SHIM_HAS=vmm,host-pages; export MOE_SHIM_HAS
for m in $F/bf16 "$T/all.moe" "$T/modelopt"; do
    cpu "$m" --tokens 1,2,3 -n 4 --context 16 --ignore-eos >"$T/cpu" || fail "$m"
    cuda "$m" --tokens 1,2,3 -n 4 --context 16 --ignore-eos --load-from mapped >"$T/cuda" || fail "$m --load-from mapped"
    same cpu cuda
done
cuda --json $F/bf16 --tokens 1,2,3 -n 1 --context 16 --load-from mapped >"$T/json" || fail "--json --load-from mapped"
python3 -c 'import json, sys
l = json.load(open(sys.argv[1]))["load"]
assert l["path"] == "mapped" and l["pinned_bytes"] == 0 and l["bytes_read"] > 100000, l' "$T/json" || { cat "$T/json"; fail "JSON of mapped"; }
count
unset MOE_SHIM_HAS

# A GPU that is lost ends the run with one sentence, wherever that is: while it loads, in a pass, in a graph.
for f in cuMemcpyHtoDAsync_v2:9:214 cuLaunchKernel:60:719 cuStreamSynchronize:3:700 cuGraphLaunch:2:719 any:150:999; do
    MOE_SHIM_FAIL=$f; export MOE_SHIM_FAIL
    refused 17 "GPU 0: cu" $F/bf16 --tokens 1,2,3 -n 6 --ignore-eos --context 40
    unset MOE_SHIM_FAIL
done

# --memory bounds what the host keeps of prompts; the engine, which the processor's run does not hold in it, is
# as large as the GPU's memory allows.
line="--tokens 1,2,3 -n 4 --context 40 --ignore-eos"
cpu $F/bf16 $line >"$T/cpu.text" || fail "cpu"
! cpu $F/bf16 $line --memory 1M >/dev/null 2>&1 || fail "the processor's run fits 1 MiB: nothing is tested"
cuda $F/bf16 $line --memory 1M >"$T/cuda.text" || fail "--memory 1M"
same cpu.text cuda.text
echo "the king said" >"$T/line"
refused 10 "a larger --memory" $F/bf16 --prompts "$T/line" -n 2 --context 40 --memory 2K
# of --score: the states of the text and some logits, but no buffers, which are the GPU's
head -c 300 $F/valid.txt >"$T/text"
score="--score $T/text --window 32"
cpu $F/bf16 $score >"$T/cpu.score" || fail "score"
! cpu $F/bf16 $score --memory 600K >/dev/null 2>&1 || fail "the processor's score fits 600 KiB: nothing is tested"
cuda $F/bf16 $score --memory 600K >"$T/cuda.score" || fail "--score --memory 600K"
same cpu.score cuda.score
refused 10 "for their hidden states, 64.0 KiB are allowed" $F/bf16 $score --memory 64K

# What the driver takes for graphs counts: 7 of about 100 launches here, and 32 of at most 240 in the estimate.
for n in 3 6 9 12 15 18 21 24; do echo "{\"prompt\": \"the king\", \"max_tokens\": $n}"; done >"$T/steps"
steps="--prompts $T/steps --context 64 --ignore-eos --json"
MOE_SHIM_MEMORY=50331648; export MOE_SHIM_MEMORY
refused 10 "a context of 64 needs " $F/bf16 $steps
# no context is short enough for that: the sentence advises something that helps
grep -qF "(try --device cpu, or a container with smaller weights)" "$T/err" || { cat "$T/err"; fail "what would fit"; }
MOE_SHIM_MEMORY=100663296 cuda $F/bf16 $steps >"$T/json" || fail "96 MiB"
[ "$(look "$T/json" 'v["device"]["graphs"]')" -ge 7 ] || { cat "$T/json"; fail "few graphs"; }
unset MOE_SHIM_MEMORY
cuda --json "$T/all.moe" --activations nvfp4 --tokens 1,2,3 -n 1 >"$T/json" 2>"$T/warnings" || fail "a step"
launches=$(look "$T/json" 'v["device"]["launches"]')
[ "$launches" -le 240 ] || fail "$launches launches in a step: MOE_CUDA_LAYER_LAUNCHES"
count

# ---- what is refused ----
refused 2 "unknown --load-from" $F/bf16 --tokens 1 -n 1 --load-from disk
refused 14 "host memory through the host's page tables" $F/bf16 --tokens 1 -n 1 --load-from mapped
refused 17 "GPU 7" --device cuda:7 $F/bf16 --tokens 1 -n 1
refused 2 "unknown --device 'cuda:99999999999999999999'" --device cuda:99999999999999999999 $F/bf16 --tokens 1 -n 1
MOE_SHIM_MEMORY=65536; export MOE_SHIM_MEMORY
refused 10 "GPU 0: the model needs" $F/bf16 --tokens 1 -n 1
unset MOE_SHIM_MEMORY
MOE_SHIM_FAIL=cuMemCreate:1:2; export MOE_SHIM_FAIL  # nothing of the weights is loaded before
refused 10 "a cache of 80.0 GiB does not fit what the model leaves of GPU 0" $F/bf16 --prompts "$T/prompts" --context 64 --cache 80G
unset MOE_SHIM_FAIL
MOE_SHIM_SHARED=101376; export MOE_SHIM_SHARED
refused 17 "gives a block 99 KiB of shared memory" $F/bf16 --tokens 1 -n 1
unset MOE_SHIM_SHARED
ok "$BIN/moe-quantize" -q --tensor-type 'experts\.31\.=source' $F/bf16 -o "$T/mixed.moe"
refused 14 "expert 31 is stored in another type" "$T/mixed.moe" --tokens 1 -n 1
echo "$checks checks"
