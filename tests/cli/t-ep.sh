#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests expert parallelism on threads: 1, 2, 3, 8 and 72 ranks give the answer of one, whatever the plan;
# what each rank maps; ranks that die.
. tests/cli/ep.sh
silence=2 # seconds after which a rank is given up; a busy machine may keep one from running for a while
sanitized && silence=5
plan plan-3 3 70 1; plan plan-4 4 70 1; plan plan-8 8 100 2; plan plan-72 72 150 1
python3 -c 'import json,sys; n = {len(r) for l in json.load(open(sys.argv[1]))["layers"] for r in l["ranks"]}; assert len(n) == 2' "$T/plan-4.json" || fail "plan-4 is even"
few="1 2 3 8" many=72 moves="0 7 31" deaths="20 45 70"
{ sanitized || [ -n "${MOE_COMPILER:-}" ]; } && few=2 many=9 moves=7 deaths=45 && plan plan-9 9 100 2

# ---- the same text and scores from any number of ranks, any plan -------------
for model in $M nvfp4; do
    if [ $model = nvfp4 ]; then
        [ -x "$BIN/moe-quantize" ] || continue
        ok "$BIN/moe-quantize" -q $M -o "$T/nvfp4.moe"
        model=$T/nvfp4.moe
    fi
    ok "$R" -q $model --prompt "And it came to pass" -n 24
    mv "$T/out" "$T/greedy"
    ok "$R" -q --json $model --score "$T/text" --window 64
    mv "$T/out" "$T/score"
    ok "$R" -q --json $model --prompts "$T/prompts" -n 12
    mv "$T/out" "$T/one"
    for n in $few $many "3 $T/plan-3.json" "8 $T/plan-8.json" "$many $T/plan-$many.json"; do
        set -- --ranks ${n% *}
        [ "${n#* }" = "$n" ] || set -- "$@" --plan "${n#* }"
        what="$model $*"
        ok "$R" -q $model --prompt "And it came to pass" -n 24 "$@"
        cmp -s "$T/out" "$T/greedy" || fail "$what: other text"
        ok "$R" -q --json $model --prompts "$T/prompts" -n 12 "$@"
        check 'texts(j) == texts(w) and len(texts(j)) == 20'
        cp "$T/out" "$T/prompts.json"
        ok "$R" -q --json $model --score "$T/text" --window 64 "$@"
        check_score
    done
done
what="equal split"
ok "$R" -q --json "$model" --prompts "$T/prompts" -n 12 --plan "$T/plan-4.json" --split equal # ranks are the plan's
check 'texts(j) == texts(w) and len(j["ranks"]) == 4'
what="sampling"
ok "$R" -q --json "$model" --prompts "$T/prompts" -n 12 --temperature 1 --top-k 20 --seed 5
mv "$T/out" "$T/one"
ok "$R" -q --json "$model" --prompts "$T/prompts" -n 12 --temperature 1 --top-k 20 --seed 5 --ranks 3 --threads 7
check 'texts(j) == texts(w)'
what="sequences run together and alone"
head -n 1 "$T/prompts" | tr -d '\n' >"$T/first"
ok "$R" -q --json "$model" --prompt-file "$T/first" -n 12 --temperature 1 --top-k 20 --seed 5
check 'j["tokens"] == w["sequences"][0]["tokens"] and j["prompt_tokens"] == w["sequences"][0]["prompt_tokens"]'
what="-n 0 and a full context"
ok "$R" -q --json "$model" --prompts "$T/prompts" -n 0 --ranks 2
check '[len(s["tokens"]) for s in j["sequences"]] == [0] * 20'
ok "$R" -q --json "$model" --prompts "$T/prompts" --ignore-eos --context 40 --ranks 2
check 'all(len(s["tokens"]) + s["prompt_tokens"] == 40 for s in j["sequences"])'
ok "$R" -q $M --tokens 5,6,7 -n 2 --trace "$T/trace1"
ok "$R" -q $M --tokens 5,6,7 -n 2 --trace "$T/trace3" --ranks 3
cmp -s "$T/trace1" "$T/trace3" || fail "--trace depends on ranks"
ok "$R" -q --json $M --score "$T/text" --window 100 --reference "$model"
mv "$T/out" "$T/one"
ok "$R" -q --json $M --score "$T/text" --window 100 --reference "$model" --ranks 3
what="--reference"
check 'all(abs(j[k] - w[k]) <= 1e-9 * abs(w[k]) for k in ("kl", "kl_p50", "kl_p99", "kl_max", "top1_agreement", "perplexity_reference"))'
# ---- prompts that begin alike go to one rank, where their beginning is computed once ----
python3 - >"$T/alike" <<'P'
for i in range(8):
    print(("the children of " if i % 2 else "And it came to pass ") * 40 + "abcdefgh"[i])
P
ok "$R" -q --json $M --prompts "$T/alike" -n 3
mv "$T/out" "$T/one"
ok "$R" -q --json $M --prompts "$T/alike" -n 3 --ranks 2
what="prompts that begin alike"
check 'texts(j) == texts(w) and of(j, 0) == [0, 2, 4, 6] and of(j, 1) == [1, 3, 5, 7]'
ok "$R" -q --json $M --prompts "$T/alike" -n 3 --max-sequences 1
mv "$T/out" "$T/one"
ok "$R" -q --json $M --prompts "$T/alike" -n 3 --max-sequences 1 --ranks 2
what="what each rank finds in its cache"
check 'j["cache"] == {k: sum(r["cache"][k] for r in j["ranks"]) for k in w["cache"]}'
check 'all(r["cache"]["found_tokens"] > 0 and r["cache"]["used_peak"] > 0 for r in j["ranks"]) and j["cache"]["found_tokens"] == w["cache"]["found_tokens"]'

# What ranks map, how they move and how they die is nothing that a compiler changes.
[ -z "${MOE_COMPILER:-}" ] || { echo "t-ep: $checks checks of text and numbers"; exit 0; }

# ---- each rank maps its own extents; those of others cannot even be read -----------
ok "$BIN/moe-convert" -q $M -o "$T/bf16.moe"
cat >"$T/mapped.py" <<'P'
import json, os, sys
out, model, plan = json.load(open(sys.argv[1])), sys.argv[2], sys.argv[3:] and json.load(open(sys.argv[3]))
dense = os.path.getsize(model + "/dense.moe")
layers = sum(os.path.getsize("%s/%s" % (model, f)) for f in os.listdir(model) if f.startswith("layer-"))
for i, r in enumerate(out["ranks"]):
    share = sum(len(l["ranks"][i]) for l in plan["layers"]) / (32 * len(plan["layers"])) if plan else 1 / len(out["ranks"])
    most = dense + layers * share * 1.05 + 3 * 32 * 8192
    assert 0.9 * layers * share < r["mapped_bytes"] - dense * 0.9 and r["mapped_bytes"] < most, (r, dense, layers, most)
P
for n in 2 8; do
    ok "$R" -q --json "$T/bf16.moe" --prompts "$T/prompts" -n 4 --ranks $n
    python3 "$T/mapped.py" "$T/out" "$T/bf16.moe" || fail "bytes mapped by $n ranks"
done
ok "$R" -q --json "$T/bf16.moe" --prompts "$T/prompts" -n 4 --plan "$T/plan-8.json"
python3 "$T/mapped.py" "$T/out" "$T/bf16.moe" "$T/plan-8.json" || fail "bytes mapped under a plan with three copies"
count

# ---- a new plan during a run: the same text, and the new plan's extents at the end ----
ok "$R" -q --json "$T/bf16.moe" --prompts "$T/prompts" -n 24
mv "$T/out" "$T/one"
plan plan-new 4 34 0 11
for after in $moves; do
    what="--replan after $after"
    ok "$R" -q --json "$T/bf16.moe" --prompts "$T/prompts" -n 24 --plan "$T/plan-4.json" --replan "$T/plan-new.json" --replan-after $after
    check 'texts(j) == texts(w) and [r["plans"] for r in j["ranks"]] == [1] * 4'
    python3 "$T/mapped.py" "$T/out" "$T/bf16.moe" "$T/plan-new.json" || fail "bytes mapped $what"
    ok "$R" -q --json "$T/bf16.moe" --prompts "$T/prompts" -n 24 --plan "$T/plan-new.json" --replan "$T/plan-4.json" --replan-after $after
    check 'texts(j) == texts(w) and [r["plans"] for r in j["ranks"]] == [1] * 4'
done
plan plan-two 4 67 1 11
# A death in the middle of the move.  Here and below the runs wait for the silence of a rank side by side.
for step in $deaths; do
    aside $step env MOE_DIE=1:$step timeout 120 "$R" -q --json $M --prompts "$T/prompts" -n 24 --plan "$T/plan-4.json" --replan "$T/plan-two.json" \
        --replan-after 2 --rank-timeout $silence
done
wait
for step in $deaths; do
    what="dead at step $step of a move"
    came $step 0
    check 'lost(j) == of(j, 1) and all(a == b for i, (a, b) in enumerate(zip(texts(j), texts(w))) if i not in lost(j))'
    check '[r["plans"] for r in j["ranks"] if not r["lost"]] == [1] * 3'
done
refused 15 "" $M --prompt x --ranks 3 --replan "$T/plan-4.json"

# ---- any number of ranks records the same routing ------------------------------------------------
for n in 1 3; do
    ok "$R" -q $M --prompts "$T/prompts" -n 12 --ranks $n --record-routing "$T/routing-$n.json.gz"
    gzip -dc "$T/routing-$n.json.gz" >"$T/routing-$n" || fail "not gzip"
done
cmp -s "$T/routing-1" "$T/routing-3" || fail "--record-routing depends on ranks"
python3 - "$T/routing-1" <<'P' || fail "--record-routing"
import json, sys
text = open(sys.argv[1]).read()
assert text.count("[") >= 4 and '"layers"' in text, text[:200]
P
count

# ---- ranks that die without a message -----------------------------------------------------
ok "$R" -q --json $M --prompts "$T/prompts" -n 12
mv "$T/out" "$T/one"
kills="1 17 60 130 290"
sanitized && kills="17 130"
quiet="--rank-timeout $silence"
for step in $kills; do
    aside $step env MOE_DIE=$(($step % 4)):$step timeout 120 "$R" -q --json $M --prompts "$T/prompts" -n 12 --plan "$T/plan-4.json" $quiet
done
echo '{"prompt": "In the", "n": 8, "temperature": 1, "max_tokens": 12}' >"$T/choices"
aside choices env MOE_DIE=1:17 "$R" --json $M --prompts "$T/choices" --plan "$T/plan-4.json" $quiet
aside copies env MOE_DIE=2:40 "$R" $M --prompts "$T/prompts" -n 12 --ranks 4 $quiet
aside prompt env MOE_DIE=0:40 "$R" -q $M --prompt "In the" -n 12 --plan "$T/plan-4.json" $quiet
aside score env MOE_DIE=1:9 "$R" -q $M --score "$T/text" --window 64 --plan "$T/plan-4.json" $quiet
wait
for step in $kills; do
    rank=$(($step % 4))
    what="rank $rank dead at step $step"
    came $step 0
    check "lost(j) == of(j, $rank) and len(lost(j)) in range(3, 8) and [r['lost'] for r in j['ranks']] == [k == $rank for k in range(4)]"
    check 'all(a == b for i, (a, b) in enumerate(zip(texts(j), texts(w))) if i not in lost(j))'
done
what="choices lost"
came choices 0
check 'sorted(c["rank"] for c in j["sequences"][0]["choices"]) == [0, 0, 1, 1, 2, 2, 3, 3]'
check 'all((c["finish_reason"] == "lost") == (c["rank"] == 1) for c in j["sequences"][0]["choices"])'
[ "$(grep -c 'prompt 0 (line 1), choice [0-7] was lost with rank 1' "$T/err")" = 2 ] || { cat "$T/err"; fail "a lost choice is not named"; }
what="only copies lost"
came copies 17 "rank 2 gone, and with it the only copies of 24 experts: 16, 17, 18, 19 ... of layer 1"
what="the only prompt lost"
came prompt 17 "lost with rank 0"
what="a part of the score lost"
came score 17 "rank 1 was lost"

# ---- refusals -------------------------------------------------------------------
refused 2 "--ranks" $M --prompt x --ranks 0
refused 2 "--ranks" $M --prompt x --ranks 100000
refused 2 "--comm" $M --prompt x --ranks 2 --comm pigeon
refused 14 "nccl" $M --prompt x --ranks 2 --comm nccl
refused 2 "unknown --split" $M --prompt x --ranks 2 --split odd
refused 2 "--rank-timeout" $M --prompt x --ranks 2 --rank-timeout 0
refused 2 "--prompts" $M --prompts "$T/prompts" --trace "$T/x"
refused 2 "--record-routing" $M --prompt x --trace "$T/x" --record-routing "$T/y"
: >"$T/empty"
refused 2 "no prompts" $M --prompts "$T/empty" --ranks 2
refused 3 "no-plan" $M --prompt x --plan "$T/no-plan"
refused 15 "" $M --prompt x --ranks 3 --plan "$T/plan-4.json"
refused 2 "tokens do not fit the context of 4" $M --prompts "$T/prompts" --context 4 --ranks 2
printf 'a\nb\r\n\n' >"$T/two" # blank lines behind the last prompt are none
ok "$R" -q --json $M --prompts "$T/two" -n 1
python3 -c 'import json,sys; s = json.load(open(sys.argv[1]))["sequences"]; assert [x["prompt_tokens"] for x in s] == [1, 1]' "$T/out" || fail "lines of --prompts"
if [ -x "$GEN/genmodel" ]; then
    ok "$GEN/genmodel" -o "$T/nan" --layers 3 --experts 4 --top-k 4 --nan model.layers.1.mlp.experts.2.up_proj.weight
    refused 18 "layers.1.mlp.experts.2.up_proj" "$T/nan" --tokens 1,2,3 -n 2 --ranks 2
fi
echo "t-ep: $checks checks"
