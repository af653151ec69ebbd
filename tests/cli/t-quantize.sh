#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests quantizing of tiny-k2: container and checkpoint give the same bytes; the report; the precision map;
# KL against the source as it was measured elsewhere on the same weights (docs/reference/quantization.md);
# wrong commands.
. tests/common.sh
need_tool moe-convert moe-quantize moe-run moe-inspect
F=tests/data/tiny-k2

near() { awk "BEGIN { d = ($1) / ($2) - 1; exit !(d < $3 && d > -$3) }" || fail "$4: $1 is not within $3 of $2"; }
need_python

ok "$BIN/moe-convert" -q $F/bf16 -o "$T/src.moe"
for m in max four-over-six search; do
    ok "$BIN/moe-quantize" -q --json --method $m $F/bf16 -o "$T/$m.moe"
    cp "$T/out" "$T/$m.json"
    ok "$BIN/moe-quantize" -q --method $m "$T/src.moe" -o "$T/$m-2.moe"
    ok diff -r "$T/$m.moe" "$T/$m-2.moe"
    ok "$BIN/moe-inspect" -q --verify "$T/$m.moe"
done
ok "$BIN/moe-convert" -q --to nvfp4 $F/bf16 -o "$T/onepass.moe"
ok diff -r "$T/search.moe" "$T/onepass.moe"

[ "$(look "$T/search.json" "v['method']")" = search ] || fail "method in the report"
[ "$(look "$T/search.json" "v['weights_quantized']")" = 2359296 ] || fail "weights_quantized"
[ "$(look "$T/search.json" "[l['layer'] for l in v['relative_error']['layers']]")" = "[1, 2, 3]" ] || fail "layers in the report"
[ "$(look "$T/search.json" "[0.07 < l[k] < 0.09 for l in v['relative_error']['layers'] for k in ('gate','up','down')].count(False) == 0")" = True ] || fail "error of search"
for k in gate up down; do
    s=$(look "$T/search.json" "v['relative_error']['layers'][0]['$k']")
    x=$(look "$T/max.json" "v['relative_error']['layers'][0]['$k']")
    awk "BEGIN { exit !($s < $x) }" || fail "search is not better than max on $k"
done

kl() { ok "$BIN/moe-run" -q --json "$T/$1.moe" --score "$2" --window 256 --reference $F/bf16; cp "$T/out" "$T/kl.json"; look "$T/kl.json" "v['kl']"; }
if ! sanitized && [ -z "${MOE_COMPILER:-}" ]; then
    whole=$(kl max $F/valid.txt) || exit 1
    echo "KL max: $whole (elsewhere 0.01164)"
    near "$whole" 0.01164 0.03 "KL of max"
    # How much better the others are shows on a seventh of the text: elsewhere 0.01014 and, with modelopt's global
    # scales where ours are powers of two, 0.00924.
    head -c 30000 $F/valid.txt >"$T/text"
    part=$(kl max "$T/text") || exit 1
    for x in four-over-six:0.01014 search:0.00924; do
        got=$(kl "${x%:*}" "$T/text") || exit 1
        echo "KL ${x%:*}: $got, max $part (elsewhere ${x#*:}, 0.01164)"
        near "$got / $part" "(${x#*:} / 0.01164)" 0.03 "KL of ${x%:*} beside max"
    done
fi

# precision map
# all-linear leaves kv_b as the source has it, unless a rule names it
attention() { ok "$BIN/moe-inspect" --json --tensors '_proj(_with_mqa)?\.weight$' "$1"; look "$T/out" "' '.join(sorted({t['name'].split('.')[4] + ':' + t['type'] for t in v['tensor_list'] if 'self_attn' in t['name']}))"; }
for l in bf16:bf16 fp8:fp8-block128 int4:bf16; do
    ok "$BIN/moe-quantize" -q --method max --quantize all-linear $F/${l%:*} -o "$T/linear.moe" --force
    [ "$(attention "$T/linear.moe")" = "kv_a_proj_with_mqa:nvfp4 kv_b_proj:${l#*:} o_proj:nvfp4 q_a_proj:nvfp4 q_b_proj:nvfp4" ] || fail "all-linear of ${l%:*}: $(attention "$T/linear.moe")"
done
ok "$BIN/moe-quantize" -q --method max --quantize all-linear --tensor-type 'kv_b_proj=nvfp4' $F/bf16 -o "$T/named.moe"
attention "$T/named.moe" | grep -q 'kv_b_proj:nvfp4' || fail "kv_b by name: $(attention "$T/named.moe")"
ok "$BIN/moe-quantize" -q --quantize all-linear --tensor-type 'kv_b_proj=bf16' --tensor-type 'experts\.31\.=source' $F/fp8 -o "$T/all.moe"
ok "$BIN/moe-inspect" --json --tensors "$T/all.moe"
ok "$BIN/moe-inspect" -q --verify "$T/all.moe"
ok "$BIN/moe-run" -q --json "$T/all.moe" --prompt 'And God said' -n 4
# quantizing what is NVFP4 already changes nothing
ok "$BIN/moe-quantize" "$T/search.moe" -o "$T/again.moe"
grep -q 'NVFP4 already' "$T/err" || fail "no notice about NVFP4 tensors"
ok cmp "$T/search.moe/layer-002.moe" "$T/again.moe/layer-002.moe"

# states of the output, and wrong commands
code 4 'already exists' "$BIN/moe-quantize" $F/bf16 -o "$T/search.moe"
ok "$BIN/moe-quantize" -q --resume --method search $F/bf16 -o "$T/search.moe"
code 15 'method' "$BIN/moe-quantize" -q --resume --method max $F/bf16 -o "$T/search.moe"
ok "$BIN/moe-quantize" -q --force --method max $F/bf16 -o "$T/search.moe"
ok diff -r "$T/search.moe" "$T/max.moe"
code 2 'which model?' "$BIN/moe-quantize"
code 2 'where to? (-o NAME.moe)' "$BIN/moe-quantize" $F/bf16
code 2 'moe-convert NAME.moe --to gguf' "$BIN/moe-quantize" $F/bf16 --to gguf -o "$T/x.gguf"
code 2 'unknown --method' "$BIN/moe-quantize" --method best $F/bf16 -o "$T/x.moe"
code 2 "needs text" "$BIN/moe-quantize" --method gptq $F/bf16 -o "$T/x.moe"
for r in '.*' 'norm' 'e_score_correction_bias'; do
    code 14 'is a vector, which cannot be nvfp4' "$BIN/moe-quantize" -q --tensor-type "$r=nvfp4" $F/bf16 -o "$T/x.moe"
done
# a tensor that belongs to no layer is reported by its name
ok "$BIN/moe-quantize" -m max --tensor-type 'lm_head|embed=nvfp4' --tensor-type 'mlp=bf16' $F/bf16 -o "$T/model.moe" --report "$T/model.txt"
for f in "$T/err" "$T/model.txt"; do
    grep -q ' model.embed_tokens.weight 0.0[0-9]* *lm_head.weight 0.0' "$f" || { cat "$f"; fail "embedding and head are not named"; }
    if grep -- '-1' "$f"; then fail "there is no layer -1"; fi
done
code 2 'matches no tensor' "$BIN/moe-quantize" --tensor-type 'nothing=bf16' $F/bf16 -o "$T/x.moe"
code 2 'cannot write type' "$BIN/moe-quantize" --tensor-type 'experts=int4' $F/bf16 -o "$T/x.moe"
code 2 'regular expression' "$BIN/moe-quantize" --tensor-type '(=bf16' $F/bf16 -o "$T/x.moe"
code 2 'where to' "$BIN/moe-quantize" $F/bf16
code 2 'one model' "$BIN/moe-quantize" $F/bf16 $F/fp8 -o "$T/x.moe"
code 2 'threads' "$BIN/moe-quantize" --threads 0 $F/bf16 -o "$T/x.moe"
code 3 'nowhere' "$BIN/moe-quantize" "$T/nowhere" -o "$T/x.moe"
code 10 'memory' "$BIN/moe-quantize" --memory 1M $F/bf16 -o "$T/x.moe"
[ ! -e "$T/x.moe" ] && [ ! -e "$T/x.moe.partial" ] || fail "a failed command left something"
