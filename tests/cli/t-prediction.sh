#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests layers for multi-token prediction: they are recognized by their eh_proj where config.json does not
# mention them, in statistics, and in plans for engines that run them.
. tests/common.sh
need_tool moe-convert moe-inspect moe-plan
need_helper genmodel
need_python

# ---- checkpoints: 2 layers, and one or two for prediction ----

ok "$GEN/genmodel" -o "$T/one" --format bf16 --single-file --layers 2 --experts 4 --hidden 128 --inter 64 --seed 7
# extra N LAYER...: makes $T/m, which is $T/one with such layers (relayout.py predict)
extra() { rm -rf "$T/m"; ok python3 tests/gen/relayout.py predict "$T/one" "$T/m" "$@"; }
for n in "" 0 1; do
    extra "$n" 2
    ok "$BIN/moe-convert" "$T/m" -f -o "$T/m.moe"
    grep -q "3 tensors left out (multi-token prediction), 'model.layers.2.enorm.weight' the first" "$T/err" || { cat "$T/err"; fail "num_nextn_predict_layers '$n': no notice"; }
    ok "$BIN/moe-inspect" -q --verify "$T/m.moe"
    ok "$BIN/moe-inspect" -q --diff "$T/m" "$T/m.moe"
    ok "$BIN/moe-convert" -q --to hf "$T/m.moe" -f -o "$T/back"
    [ "$(look "$T/back/config.json" 'v.get("num_nextn_predict_layers", 0)')" = 0 ] || fail "the config promises layers that are not there"
done
extra 0 2 3; ok "$BIN/moe-convert" "$T/m" -f -o "$T/m.moe"; grep -q '6 tensors left out' "$T/err" || fail "two layers"
extra 0 2x; code 13 "lies beyond the last layer: config.json has num_hidden_layers 2 and num_nextn_predict_layers 0" "$BIN/moe-convert" -q "$T/m" -o "$T/x.moe"
extra 0 3;  code 13 "lies beyond the last layer" "$BIN/moe-convert" -q "$T/m" -o "$T/x.moe" # not right behind the last one
extra 1 2 3x; code 13 "lies beyond the last layer" "$BIN/moe-convert" -q "$T/m" -o "$T/x.moe"

# ---- statistics: rows for these layers are left out, with a notice ----

# model DENSE LAYERS PREDICTION: makes a directory with a config.json alone. stats FILE FORM ROW...: writes
# statistics in SGLang's form or in ours, one digit for each row
model()
{
    mkdir -p "$T/c"
    sed "s/\"first_k_dense_replace\": *[0-9]*/\"first_k_dense_replace\": $1/; s/\"num_hidden_layers\": *[0-9]*/\"num_hidden_layers\": $2/
         s/\"num_nextn_predict_layers\": *[0-9]*/\"num_nextn_predict_layers\": $3/" "$T/one/config.json" >"$T/c/config.json"
    grep -q '"num_nextn_predict_layers"' "$T/c/config.json" || fail "no such key"
}
cat >"$T/stats.py" <<'P'
import json, sys
path, form, rows = sys.argv[1], sys.argv[2], sys.argv[3:]
counts = [[0] * 4 if r == "0" else [int(r) * 10 + e * int(r) for e in range(4)] for r in rows]
if form == "sglang": json.dump({"logical_count": counts}, open(path, "w"))
else: json.dump({"version": 1, "experts": 4, "experts_per_token": 4, "tokens": 0, "layers": [{"layer": int(form) + i, "counts": c} for i, c in enumerate(counts)]}, open(path, "w"))
P
# planned BEYOND FORM ROW...: a plan of these statistics has to be the plan of the MoE rows 5 and 6, and both
# verifiers have to accept it
planned()
{
    beyond=$1; shift
    ok python3 "$T/stats.py" "$T/s" "$@"
    ok "$BIN/moe-plan" "$T/c" --ranks 2 --slots 6 --stats "$T/s" -f -o "$T/p"
    if [ "$beyond" = 0 ]; then ! grep -q 'multi-token' "$T/err" || fail "a notice about nothing: $*"
    else grep -q "the statistics have $beyond row.* of layers for multi-token prediction: no plan places their experts" "$T/err" || { cat "$T/err"; fail "no notice: $*"; }; fi
    ok "$BIN/moe-plan" verify "$T/p" --stats "$T/s" --json
    grep -q '"same_statistics": *true' "$T/out" || fail "verify takes other rows: $*"
    ok "$BIN/moe-plan" plot "$T/p" --stats "$T/s" -f -o "$T/svg" # refuses rows that are others than the plan's
    [ -e "$T/want" ] || cp "$T/p" "$T/want"
    [ "$(look "$T/p" '[l["ranks"] for l in v["layers"]], v["statistics"]')" = "$(look "$T/want" '[l["ranks"] for l in v["layers"]], v["statistics"]')" ] || fail "another plan: $*"
}
other() { text=$1; shift; ok python3 "$T/stats.py" "$T/s" "$@"; code 15 "$text" "$BIN/moe-plan" -q "$T/c" --ranks 2 --stats "$T/s" -f -o "$T/x"; }
model 3 5 1 # as DeepSeek-V3: more dense layers than layers for prediction
planned 0 sglang 5 6; planned 0 sglang 0 0 0 5 6; planned 1 sglang 5 6 7; planned 1 sglang 0 0 0 5 6 7
planned 0 3 5 6; planned 1 3 5 6 7
other '4 rows, the model has 5 layers, 2 of them with experts, and config.json says that 1 more' sglang 0 5 6 7
other '4 rows' 3 5 6 7 8
model 1 3 1 # all layers are as many as those with experts and that for prediction
planned 0 sglang 0 5 6; planned 1 sglang 0 5 6 7; planned 0 1 5 6; planned 1 1 5 6 7
other "3 rows without layer numbers are all layers, or those with experts and 1 for multi-token prediction" sglang 5 6 7
model 1 3 0
planned 0 sglang 0 5 6
other 'config.json says that 0 more are for multi-token prediction' sglang 0 5 6 7
other 'config.json says that 0 more' 1 5 6 7

# ---- plans for engines: TensorRT-LLM looks up a row for such a layer, SGLang takes that of layer 0 ----

model 1 3 2
ok python3 "$T/stats.py" "$T/s" sglang 5 6
ok "$BIN/moe-plan" -q "$T/c" --ranks 2 --slots 6 --stats "$T/s" -f -o "$T/p"
[ "$(look "$T/p" 'v["prediction_layers"]')" = "[3, 4]" ] || fail "the plan does not name the layers"
ok "$BIN/moe-plan" export "$T/p" --to tensorrt-llm -o "$T/p.yaml"
grep -q 'layer 3 is for multi-token prediction: it has a row with its experts in order' "$T/err" || { cat "$T/err"; fail "no notice"; }
[ "$(grep -c '^  [1-4]: ' "$T/p.yaml")" = 4 ] && grep -q '^  4: \[0, 1, 2, 3, 0, 1\]$' "$T/p.yaml" || { cat "$T/p.yaml"; fail "rows"; }
ok "$BIN/moe-plan" export "$T/p" --to sglang -o "$T/p.sglang"
[ "$(look "$T/p.sglang" 'len(v["physical_to_logical_map"])')" = 3 ] || fail "SGLang has a row for each of the model's layers"
grep -q 'SGLang reads that of layer 0' "$T/err" || { cat "$T/err"; fail "no notice"; }
ok "$BIN/moe-plan" "$T/c" --ranks 2 --from "$T/p.yaml" --stats "$T/s" --json
[ "$(look "$T/out" 'v["slots_moved"]')" = 0 ] || fail "--from reads another plan back"
sed "s/\(\"prediction_layers\": *\[3, *\)4/\15/" "$T/p" >"$T/bad"
code 13 "'prediction_layers' is no list of layers one after the other" "$BIN/moe-plan" -q export "$T/bad" --to sglang
echo "t-prediction: layers for multi-token prediction are named where they are left out"
