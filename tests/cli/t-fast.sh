#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-run --arithmetic fast through the stand-in for NVIDIA's driver: what it gives is near the exact
# probabilities, and a request gets the same bits alone as among others.
. tests/common.sh
need_tool moe-run moe-quantize
need_python
F=tests/data/tiny-k2 checks=0 kl=
need_standin
count() { checks=$(($checks + 1)); }
fast() { LD_LIBRARY_PATH=$B/shim "$RUN" -q --device cuda --arithmetic fast "$@" </dev/null; }

# Every product with NVFP4 weights, but for kv_b_proj's; and experts of NVFP4 beside BF16.
ok "$BIN/moe-quantize" -q --quantize all-linear --tensor-type kv_b_proj=nvfp4 $F/int4 -o "$T/all.moe"
ok "$BIN/moe-quantize" -q $F/bf16 -o "$T/bf16.moe"

# ---- near the exact probabilities ----
# The processor's are exact.  WINDOWS: how many pieces of the text; 9 of 900 bytes have 2,664 positions.
windows=${WINDOWS:-1} bytes=900
sanitized && bytes=120
cat >"$T/kl.py" <<'P'
import array, json, math, struct, sys
def tensors(path):
    b = open(path, "rb").read()
    n = struct.unpack("<Q", b[:8])[0]
    t = json.loads(b[8:8 + n])
    assert t["logits"]["dtype"] == "F32", t
    at = lambda k: b[8 + n + t[k]["data_offsets"][0]:8 + n + t[k]["data_offsets"][1]]
    experts = [(at(k), len(at(k)) // t[k]["shape"][0]) for k in sorted(t) if k.startswith("experts.")]
    assert experts
    return t["logits"]["shape"], array.array("f", at("logits")), experts
def log_softmax(x):
    most = max(x)
    s = math.log(sum(math.exp(v - most) for v in x)) + most
    return [v - s for v in x]
kl, chose, differ = [], [], 0 # chose: where all experts are those of exact
for w in range(1, int(sys.argv[2]) + 1):
    (rows, n), want, experts = tensors(f"{sys.argv[1]}.exact.{w}")
    shape, got, others = tensors(f"{sys.argv[1]}.fast.{w}")
    assert shape == [rows, n], shape
    for r in range(0, rows * n, n):
        p, q = log_softmax(want[r:r + n]), log_softmax(got[r:r + n])
        kl.append(sum(math.exp(a) * (a - b) for a, b in zip(p, q)))
        t = r // n
        if all(a[t * s:t * s + s] == b[t * s:t * s + s] for (a, s), (b, _) in zip(experts, others)): chose.append(kl[-1])
        differ += want[r:r + n] != got[r:r + n]
mean, same = sum(kl) / len(kl), sum(chose) / len(chose)
print(f"{len(kl)} positions, KL {mean:.3g} nats, at most {max(kl):.3g}; {len(chose)} with the same experts, "
      f"KL {same:.3g}, at most {max(chose):.3g}")
assert len(kl) >= int(sys.argv[3]), "few positions"
assert differ == len(kl), "fast is exact: nothing was tested"
most_same, most, share = map(float, sys.argv[4:])
assert same < most_same and mean < most and len(chose) > share * len(kl), "KL"
P
# near MODEL BYTES SAME MEAN SHARE OPTION...: the most KL where the experts are the same, and of all positions; at least
# this share of the positions chooses the same.
near()
{
    m=$T/$1 name="$1${6:+ $6 $7}" n=$2 bounds="$3 $4 $5"
    shift 5
    for w in $(seq $windows); do
        tail -c +$((($w - 1) * $n + 1)) $F/valid.txt | head -c $n >"$T/text"
        [ -e "$m.exact.$w" ] ||
            "$BIN/moe-run" -q "$m.moe" --prompt-file "$T/text" -n 1 --trace "$m.exact.$w" </dev/null >/dev/null || fail "exact"
        rm -f "$m.fast.$w"
        fast "$m.moe" --prompt-file "$T/text" -n 1 --trace "$m.fast.$w" "$@" >/dev/null || fail "fast"
    done
    python3 "$T/kl.py" "$m" $windows $(($windows * $n / 8)) $bounds >"$T/out" || { cat "$T/out"; fail "$name is far from exact"; }
    kl="$kl; $name: $(cat "$T/out")"; count
}
near all $bytes 1e-5 1e-4 .97
near bf16 $(($bytes / 2)) 1e-6 1e-5 .97
# what latents lose when they are stored turns near ties between experts, whatever computes with them
near bf16 $(($bytes / 2)) 1e-4 1e-3 .9 --cache-type bf16

# ---- alone and among others ----
cat >"$T/prompts" <<'P'
{"prompt": "And it came to pass in those days that there went out a decree", "max_tokens": 5, "logprobs": 3}
{"prompt": "In the beginning", "max_tokens": 9, "temperature": 0.9, "top_p": 0.9, "seed": 4, "n": 2, "logprobs": 2}
{"prompt": "the king said", "max_tokens": 7, "temperature": 1.2, "top_k": 20, "min_p": 0.01, "seed": 9}
P
alone() # MODEL OPTION...
{
    m=$1
    shift
    fast "$T/$m.moe" --prompts "$T/prompts" --context 64 --jsonl "$@" >"$T/together" || fail "prompts"
    [ "$(wc -l <"$T/together")" = 3 ] || fail "not three answers"
    for i in 1 2 3; do
        sed -n ${i}p "$T/prompts" >"$T/one"
        fast "$T/$m.moe" --prompts "$T/one" --context 64 --jsonl "$@" >"$T/alone" || fail "prompt $i"
        sed -n ${i}p "$T/together" >"$T/other"
        sed -i 's/^{"index": [0-9]*, "line": [0-9]*, //' "$T/alone" "$T/other"
        cmp "$T/alone" "$T/other" || fail "$m: prompt $i depends on others"
        count
    done
}
alone all
alone bf16 --cache-type bf16

# ---- what is said about it ----
fast --json "$T/all.moe" --tokens 1,2 -n 1 --context 16 >"$T/json" || fail "--json"
grep -qF '"arithmetic": "fast"' "$T/json" && grep -qF '"cache_type": "float32"' "$T/json" || { cat "$T/json"; fail "JSON"; }
count
echo "$checks checks$kl"
