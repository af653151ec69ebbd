#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-plan from outside: gaps, baselines, drift, losses, proofs checked by two verifiers, exports read
# back, pictures, staging, refusals.
. tests/common.sh
need_tool moe-plan moe-convert moe-inspect
need_helper genrouting
P=$BIN/moe-plan G=$GEN/genrouting checks=0
count() { checks=$(($checks + 1)); }
# refused CODE TEXT ARGUMENTS...: moe-plan exits with that code and prints one line that holds TEXT.
refused()
{
    code=$1 text=$2
    shift 2
    "$P" "$@" >"$T/out" 2>"$T/err" </dev/null
    r=$?
    [ $r = "$code" ] || { cat "$T/err"; fail "exit $r, not $code: moe-plan $*"; }
    [ "$(wc -l <"$T/err")" = 1 ] && grep -qF -- "$text" "$T/err" || { cat "$T/err"; fail "not one line with '$text': moe-plan $*"; }
    count
}
# is EXPRESSION WHAT: fails unless awk finds the expression true.
is() { awk "BEGIN { exit !($1) }" || fail "$2: $1"; count; }
# total KEY FILE: prints a number that stands after the list of layers.
total() { tr -d '\n' <"$2" | sed 's/.*\],"gap_total"/"gap_total"/; s/.*\], *"gap_total"/"gap_total"/' | sed -n "s/.*\"$1\": *\([-0-9.e+]*\).*/\1/p"; }

mkdir "$T/k2"
cat >"$T/k2/config.json" <<'J'
{"architectures": ["DeepseekV3ForCausalLM"], "model_type": "kimi_k2", "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
 "num_hidden_layers": 61, "first_k_dense_replace": 1, "moe_layer_freq": 1, "num_attention_heads": 64, "num_key_value_heads": 64, "q_lora_rank": 1536,
 "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 163840, "n_routed_experts": 384,
 "num_experts_per_tok": 8, "n_shared_experts": 1, "n_group": 1, "topk_group": 1, "max_position_embeddings": 131072, "norm_topk_prob": true,
 "routed_scaling_factor": 2.827, "rms_norm_eps": 1e-6, "rope_theta": 50000, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "hidden_act": "silu",
 "bos_token_id": 163584, "eos_token_id": 163585, "tie_word_embeddings": false}
J
K="$T/k2 -q --expert-type nvfp4"

# ---- gaps: 60 layers of 384 experts, log-normal popularity; with spare slots every layer is at most 0.1 % above the bound ----
shapes="72/432 72/504 36/432 32/416 16/384 8/384"
sanitized && shapes="72/432 16/384"
for sigma in 0.5 1 1.5; do
    "$G" sigma=$sigma seed=11 >"$T/r$sigma" || fail genrouting
    sanitized && [ $sigma != 1.5 ] && continue # a plan takes ten times as long there
    for shape in $shapes; do
        ok "$P" $K --ranks ${shape%/*} --slots ${shape#*/} --stats "$T/r$sigma" --baseline all -f -o "$T/p.json" --json
        gap=$(total gap_total "$T/out")
        eplb=$(tr -d '\n' <"$T/out" | sed 's/.*"eplb"//' | sed -n 's/[^}]*"gap_total": *\([-0-9.e+]*\).*/\1/p')
        echo "$shape sigma $sigma: gap $gap, EPLB $eplb, $(total seconds "$T/out") s"
        is "$gap >= 0 && $gap <= $eplb + 1e-9" "$shape sigma $sigma beside EPLB"
        [ ${shape#*/} = 384 ] || is "$gap <= 0.001" "$shape sigma $sigma"
        grep -o '"gap":[^,]*' "$T/p.json" | cut -d : -f 2 >"$T/gaps"
        [ "$(wc -l <"$T/gaps")" = 60 ] || fail "not 60 layers"
        [ ${shape#*/} = 384 ] || awk '$1 > 0.001 { exit 1 }' "$T/gaps" || fail "$shape sigma $sigma: a layer above 0.1 %"
        ok "$P" verify "$T/p.json" --stats "$T/r$sigma" -q
        grep -q '^verified: [1-9][0-9][0-9]' "$T/out" || fail "nothing was verified"
        count
    done
done

# ---- two copies of each expert and no slot more: exchange alone would stop up to 40 % above the bound, with nodes 13 % ----
"$G" sigma=1 seed=5 >"$T/r5" || fail genrouting
for how in "--ranks 8 --stats $T/r1.5" "--ranks 12 --ranks-per-node 6 --stats $T/r5"; do
    ok "$P" $K --slots 768 --survive 1 $how -f -o "$T/two.json" --json
    grep -o '"gap":[^,]*' "$T/two.json" | cut -d : -f 2 >"$T/gaps"
    [ "$(wc -l <"$T/gaps")" = 60 ] || fail "not 60 layers"
    awk '$1 > 0.0015 { exit 1 }' "$T/gaps" || { sort -g "$T/gaps" | tail -3; fail "a layer of two copies is not balanced: $how"; }
    is "$(total load_max_after_loss "$T/out") <= 1.15 * $(total load_mean "$T/out")" "balance after a loss: $how"
    ok "$P" verify "$T/two.json" --stats "${how##* }" -q
    grep -q 'at least 2 copies of each expert, 0 lost with the worst rank' "$T/out" || fail "an expert is lost: $how"
done
grep -q ', 0 with the worst node of 6 ranks' "$T/out" || fail "a node takes experts with it"
ok "$P" $K --ranks 16 --slots 400 --stats "$T/r1.5" -f -o "$T/flat.json"
ok "$P" $K --ranks 16 --slots 400 --stats "$T/r1.5" --ranks-per-node 1 -f -o "$T/each.json"
cmp -s "$T/flat.json" "$T/each.json" || fail "nodes of one rank change the plan"
count

# ---- the same bytes for any number of threads ----
for threads in $(sanitized && echo 1 7 || echo 1 2 7); do
    ok "$P" $K --ranks 72 --slots 432 --stats "$T/r1" -f -o "$T/t$threads" -t $threads
    cmp -s "$T/t1" "$T/t$threads" || fail "the plan depends on --threads $threads"
    count
done

# ---- drift: few slots move ----
"$G" sigma=1 seed=11 drift=0.1 >"$T/drifted"
ok "$P" $K --from "$T/t1" --stats "$T/drifted" -f -o "$T/p2" --json
moved=$(total slots_moved "$T/out")
echo "drift 0.1: $moved of 25920 slots move, gap $(total gap_total "$T/out"), $(total seconds "$T/out") s"
is "$moved > 0 && $moved <= 0.12 * 25920" "slots moved after drift"
grep -o '"gap":[^,]*' "$T/p2" | cut -d : -f 2 | awk '$1 > 0.02 { exit 1 }' || fail "a layer is above 1.02 after drift"
ok "$P" verify "$T/p2" --stats "$T/drifted" --from "$T/t1" -q
sanitized || {
    "$G" sigma=1 seed=11 drift=0.1 windows=4 >"$T/w4"
    ok "$P" $K --from "$T/t1" --stats "$T/w4" -f -o "$T/p4" --json -t 1
    echo "drift 0.1 in four windows: $(total slots_moved "$T/out") slots move, gap $(total gap_total "$T/out"), $(total cpu_seconds "$T/out") s"
    is "$(total slots_moved "$T/out") <= 0.38 * 25920 && $(total gap_total "$T/out") <= 0.0196" "drift in four windows"
    ok "$P" verify "$T/p4" --stats "$T/w4" --from "$T/t1" -q
    cp "$T/p4" "$T/p4-1"
    ok "$P" $K --from "$T/t1" --stats "$T/w4" -f -o "$T/p4" -t 3
    cmp -s "$T/p4" "$T/p4-1" || fail "a plan from an old one depends on --threads"
}
ok "$P" $K --from "$T/t1" --stats "$T/r1" --json
[ "$(total slots_moved "$T/out")" = 0 ] || fail "slots move without a reason"
ok "$P" $K --from "$T/t1" --stats "$T/drifted" --ranks 71 --slots 426 -f -o "$T/p71" --json # a rank less
ok "$P" verify "$T/p71" --stats "$T/drifted" --from "$T/t1" -q
sanitized || ok "$P" $K --from "$T/t1" --stats "$T/drifted" --slots 792 --survive 1 -f -o "$T/p792" --json
sanitized || ok "$P" verify "$T/p792" --stats "$T/drifted" --from "$T/t1" -q
count

# ---- a rank lost ----
for sigma in 0.5 1 1.5; do
    sanitized && [ $sigma != 1.5 ] && continue
    ok "$P" $K --ranks 72 --slots 792 --survive 1 --stats "$T/r$sigma" -f -o "$T/s.json" --json
    [ "$(total experts_lost_worst "$T/out")" = 0 ] && [ "$(total copies_min "$T/out")" = 2 ] || fail "experts are lost with one rank"
    is "$(total gap_total "$T/out") <= 0.001" "balance with --survive 1"
    grep -o '"load_max_after_loss":[^,]*\|"bound_after_loss":[^,]*' "$T/s.json" | cut -d : -f 2 | paste - - >"$T/loss"
    awk '{ a += $1; b += $2 } END { printf "after a loss, sigma '$sigma': %.6f x the bound for any plan\n", a / b; exit !(NR == 60 && a <= 1.01 * b) }' "$T/loss" || fail "load after loss"
    ok "$P" verify "$T/s.json" --stats "$T/r$sigma" -q
    count
done
ok "$P" $K --ranks 72 --slots 1152 --survive 2 --ranks-per-node 4 --stats "$T/r1" -f -o "$T/n.json" --json
[ "$(total experts_lost_worst_node "$T/out")" = 0 ] || fail "copies are not spread over nodes"
ok "$P" verify "$T/n.json" --stats "$T/r1" -q
ok "$P" $K --ranks 72 --slots 450 --stats "$T/r1" -f -o "$T/uneven.json" --json # 450 = 6.25 x 72
is "$(total gap_total "$T/out") <= 0.001" "uneven slots"
ok "$P" verify "$T/uneven.json" --stats "$T/r1" -q

# ---- several windows, other forms of statistics ----
mkdir "$T/few"
sed 's/"num_hidden_layers": 61/"num_hidden_layers": 10/; s/"n_routed_experts": 384/"n_routed_experts": 64/' "$T/k2/config.json" >"$T/few/config.json"
windows="sigma=1 seed=11 drift=0.3 windows=3" few="layers=9 experts=64"
"$G" $windows $few >"$T/f3"
"$G" $windows $few form=sglang >"$T/f3s"
"$G" $windows $few form=sglang-all >"$T/f3a"
"$G" $windows $few form=gzip:"$T/f3z" >/dev/null
for f in f3 f3s f3a f3z; do
    ok "$P" -q "$T/few" --ranks 16 --slots 80 --stats "$T/$f" -f -o "$T/$f.json"
    grep -v '"model"' "$T/$f.json" >"$T/$f.cmp"
    cmp -s "$T/f3.cmp" "$T/$f.cmp" || fail "statistics in another form ($f) give another plan"
    ok "$P" verify "$T/$f.json" --stats "$T/$f" -q
    count
done
"$G" $windows >"$T/w3"
"$G" $windows form=sglang-all >"$T/w3a"
ok "$P" $K --ranks 72 --slots 504 --stats "$T/w3a" -f -o "$T/w3.json"
ok "$P" verify "$T/w3.json" --stats "$T/w3" -q
ok "$P" $K --ranks 72 --slots 504 --stats "$T/r1" --stats "$T/drifted" --stats "$T/w3" --windows 1 -f -o "$T/many.json" --json
[ "$(total windows "$T/out")" = 3 ] || fail "windows are not added up"
ok "$P" verify "$T/many.json" --stats "$T/r1" --stats "$T/drifted" --stats "$T/w3" --windows 1 -q

# ---- the verifier shares no code with the planner, and finds what is wrong ----
! grep -h '#include "runtime/' runtime/plan/plan-verify*.[ch] | grep -v 'runtime/plan/plan-verify' || fail "the verifier includes the planner"
# plan-check.c reads files for it, and is included by what draws a plan, what reports for the tool and the public API.
! grep -rl --include='*.[ch]' 'runtime/plan/plan-verify' runtime | grep -v 'runtime/plan/plan-verify\|runtime/plan/plan-check' || fail "the planner includes the verifier"
! grep -rl --include='*.[ch]' 'runtime/plan/plan-check' runtime | grep -v 'runtime/plan/plan-check\|runtime/plan/plan-picture.c\|runtime/plan/plan-tell.h\|runtime/plan/moe-plan.c\|runtime/plan/api-plan.c' || fail "the planner includes the verifier"
if command -v python3 >/dev/null; then
    for f in t1:r1 s.json:r1.5 w3.json:w3a; do
        reads python3 tests/readers/verifyplan.py "$T/${f%:*}" "$T/${f#*:}"
        count
    done
    "$G" layers=9 experts=64 >"$T/few.json"
    ok "$P" -q "$T/few" --ranks 16 --slots 80 --stats "$T/few.json" -o "$T/few.plan"
    reads python3 tests/readers/verifyplan.py "$T/p2" "$T/drifted" --from "$T/t1"
    cat >"$T/tamper.py" <<'Y'
import json, sys
p = json.load(open(sys.argv[1])); how = sys.argv[3]; l = p["layers"][7]
if how == "swap": l["ranks"][3][0], l["ranks"][11][1] = l["ranks"][11][1], l["ranks"][3][0]
elif how == "twice": l["ranks"][3][0] = l["ranks"][3][1]
elif how == "gone":
    n = [e for r in l["ranks"] for e in r]; one = next(e for e in n if n.count(e) == 1); two = next(e for e in n if n.count(e) == 2)
    for r in l["ranks"]:
        if one in r and two not in r: r[r.index(one)] = two
elif how == "cut": l["min_cut_ranks"] = l["min_cut_ranks"][:-1] or [0, 1]
elif how == "loads": l["loads"][9] *= 1.001
elif how == "total": p["gap_total"] *= 1.1
elif how == "bytes": p["bytes_per_rank"] += 1e6
elif how == "total_copies": p["copies_min"] += 1
elif how == "total_moved": p["slots_moved"] += 1
elif how == "survive": p["survive"] = 1
elif how == "rank": l["ranks"][0].append(l["ranks"][1].pop())
else: l[how] = l[how] * 1.001 + (l[how] == 0)
json.dump(p, open(sys.argv[2], "w"))
Y
    for how in swap gone cut loads total bytes total_copies total_moved survive twice load_max load_mean bound min_cut load_max_after_loss gap copies_min experts_lost_worst activated_max noise_floor; do
        python3 "$T/tamper.py" "$T/few.plan" "$T/bad" $how || fail "tamper $how"
        "$P" verify "$T/bad" --stats "$T/few.json" -q >"$T/out" 2>"$T/err"
        [ $? = 16 ] || { cat "$T/out" "$T/err"; fail "a plan with a wrong $how is verified"; }
        ! sanitized && python3 tests/readers/verifyplan.py "$T/bad" "$T/few.json" >"$T/out" 2>&1 && fail "verifyplan.py takes a plan with a wrong $how"
        count
    done
fi
ok "$P" verify "$T/t1" --stats "$T/drifted" --json
grep -q '"same_statistics": *false' "$T/out" || fail "other statistics are taken for the plan's"
ok "$P" verify "$T/t1"
echo '{"version":1,"layers":[{"layer":1,"ranks":[[0,1],[2,0]]},{"layer":2,"ranks":[[0,1],[2,1]]}]}' >"$T/bare" # what others may write
ok "$P" verify "$T/bare"
grep -q 'at least 1 copy of each expert, 1 lost' "$T/out" || fail "a bare plan: $(cat "$T/out")"
count

# ---- statistics without counts for a layer, for all, or for an expert, in one window or in all: both verifiers agree ----
if command -v python3 >/dev/null; then
    mkdir "$T/silent"
    sed 's/"num_hidden_layers": 61/"num_hidden_layers": 4/; s/"n_routed_experts": 384/"n_routed_experts": 16/' "$T/k2/config.json" >"$T/silent/config.json"
    row() # VALUE: counts of 16 experts
    {
        [ "$1" = x ] && echo '[900,0,31,70,12,55,0,300,8,41,17,0,96,23,64,5]' || echo "[$1,$1,$1,$1,$1,$1,$1,$1,$1,$1,$1,$1,$1,$1,$1,$1]"
    }
    window() # FILE VALUE VALUE VALUE: one for each layer
    {
        printf '{"version":1,"experts":16,"experts_per_token":8,"tokens":0,"layers":[{"layer":1,"counts":%s},{"layer":2,"counts":%s},{"layer":3,"counts":%s}]}' \
            "$(row $2)" "$(row $3)" "$(row $4)" >"$1"
    }
    window "$T/w-one" x 0 5; window "$T/w-all" 0 0 0; window "$T/w-expert" x x x; window "$T/w-other" 0 x 0
    for stats in w-one w-all w-expert "w-one w-all" "w-one w-other w-expert"; do
        case $stats in w-one | w-expert | "w-one w-all") sanitized && [ "$stats" != w-one ] && continue ;; esac
        given= files=
        for w in $stats; do given="$given --stats $T/$w" files="$files $T/$w"; done
        for how in "--ranks 4" "--ranks 1" "--ranks 6 --survive 1" "--ranks 4 --slots 24 --ranks-per-node 2" "--ranks 16" "--ranks 5 --from $T/sp"; do
            ok "$P" "$T/silent" $how $given --baseline trivial -f -o "$T/sq"
            ! grep -qi 'nan\|inf ' "$T/out" || { cat "$T/out"; fail "not a number in the report: $how, $stats"; }
            from=$(echo "$how" | sed -n 's/.*\(--from .*\)/\1/p')
            ok "$P" verify "$T/sq" $given $from
            reads python3 tests/readers/verifyplan.py "$T/sq" $files $from
            ok "$P" plot "$T/sq" -f -o "$T/sq.svg"
            [ "$how" = "--ranks 4" ] && cp "$T/sq" "$T/sp"
            count
        done
    done
    # the claims about a layer without counts are checked, too
    ok "$P" -q "$T/silent" --ranks 4 --stats "$T/w-one" -f -o "$T/sq"
    for key in load_max load_max_after_loss min_cut bound; do
        python3 - "$T/sq" "$T/sx" $key <<'Y' || fail python
import json, sys
p = json.load(open(sys.argv[1]))
p["layers"][1][sys.argv[3]] = 3
json.dump(p, open(sys.argv[2], "w"))
Y
        refused 16 'layer 2' verify "$T/sx" --stats "$T/w-one"
    done
fi

# ---- the report: five sentences, then the layers where they are asked for ----
ok "$P" $K --from "$T/t1" --stats "$T/drifted"
[ "$(grep -c '^\(Balance: \|Losses: \|Memory: \|Speed, modelled and not measured: \|Moves: \)' "$T/out")" = 5 ] || { cat "$T/out"; fail "not five sentences"; }
! grep -q 'min-cut' "$T/out" || fail "the table stands in the report unasked"
ok "$P" $K --from "$T/t1" --stats "$T/drifted" --layers
[ "$(grep -c '^ *[0-9][0-9]* .*\(mean\|piece\|packing\) ' "$T/out")" = 60 ] && grep -q '^    min-cut  ' "$T/out" || fail "--layers lacks lines or its legend"
ok "$P" $K --ranks 72 --slots 432 --stats "$T/r1" --baseline eplb --json
eplb=$(tr -d '\n' <"$T/out" | sed 's/.*"eplb"//' | sed -n 's/[^}]*"gap_total": *\([-0-9.e+]*\).*/\1/p')
ok "$P" $K --ranks 72 --slots 432 --stats "$T/r1"
is "$(sed -n 's/.*EPLB it would compute [0-9]*, \([0-9.]*\) % above.*/\1/p' "$T/out") - 100 * $eplb < 0.001" "EPLB in the report"
for say in "x:--ranks 72 --slots 450:has no placement of 450 slots on 72 ranks" "x:--ranks 8 --survive 1 --slots 768:no expert is lost with any 1 rank" \
           "x:--ranks 8 --gpu hgx-h200,memory=40:too much, and the model does not fit" "x:--ranks 8 --context 1000000: fit (--batch" "x:--ranks 8:Moves: none are told"; do
    how=${say#*:}
    ok "$P" $K --stats "$T/r1" ${how%%:*}
    grep -qF -- "${how#*:}" "$T/out" || { cat "$T/out"; fail "the report does not say '${how#*:}'"; }
    count
done

# ---- nodes: with two copies of every expert, and room on other nodes, no expert is lost with a node; the report says what is lost ----
sed 's/"num_hidden_layers": 61/"num_hidden_layers": 4/' "$T/k2/config.json" >"$T/small.json"
mkdir "$T/small" && mv "$T/small.json" "$T/small/config.json"
S="$T/small -q --expert-type nvfp4"
"$G" layers=3 seed=3 sigma=1 >"$T/s1" && "$G" layers=3 seed=3 sigma=1 windows=3 drift=0.3 >"$T/s3" || fail genrouting
set -- "8 768 4 1 s1" "8 768 4 1 s3" "32 768 8 1 s1" "32 768 8 1 s3" "64 768 8 1 s1" "9 770 3 1 s3" "8 769 2 1 s1" "16 1552 4 3 s1"
sanitized && set -- "8 768 4 1 s3" "9 770 3 1 s3" "16 1552 4 3 s1"
for shape; do
    set -- $shape
    ok "$P" $S --ranks $1 --slots $2 --ranks-per-node $3 --survive $4 --stats "$T/$5" -f -o "$T/n.json"
    grep -q "no expert is lost with any node of $3 ranks" "$T/out" || { cat "$T/out"; fail "a node takes experts with it: $shape"; }
    ok "$P" verify "$T/n.json" --stats "$T/$5" -q
    grep -q ", 0 with the worst node of $3 ranks" "$T/out" || { cat "$T/out"; fail "verify does not say what a node takes: $shape"; }
    count
done
ok "$P" $S --from "$T/n.json" --stats "$T/s3" --slots 1664 # as few moves as it takes
grep -q "no expert is lost with any node of 4 ranks" "$T/out" || { cat "$T/out"; fail "a plan from another loses experts with a node"; }
# where no plan comes near the target, a fresh plan that gains little is not worth its moves (380 of 1200
# slots)
ok "$P" $S --ranks 128 --slots 400 --stats "$T/s1" -f -o "$T/tight.json"
ok "$P" $S --from "$T/tight.json" --stats "$T/s3" --json
is "$(total slots_moved "$T/out") < 200 && $(total gap_total "$T/out") < 0.2" "a fresh plan for little"
ok "$P" $S --from "$T/tight.json" --stats "$T/s3"
grep -q '^Moves: .*; 3 layers stay above --target: planning anew does not reach it' "$T/out" || { cat "$T/out"; fail "the report does not say that the target is not reached"; }
ok "$P" $S --from "$T/tight.json" --stats "$T/s1" --target 0.1
! grep -q 'above --target' "$T/out" || { cat "$T/out"; fail "the target is reached, and the report says otherwise"; }
ok "$P" $S --ranks 8 --slots 768 --survive 1 --stats "$T/s1" -f -o "$T/flat.json"
ok "$P" $S --from "$T/flat.json" --ranks-per-node 4 --stats "$T/s1"
grep -q "no expert is lost with any node of 4 ranks" "$T/out" || { cat "$T/out"; fail "a plan of one node is not spread over two"; }
ok "$P" $S --ranks 8 --slots 768 --ranks-per-node 4 --stats "$T/s1"
grep -q 'with the worst node of 4 ranks [0-9]* experts of a layer are lost, since not all have two copies (--survive 1)' "$T/out" || { cat "$T/out"; fail "it is not said why a node takes experts"; }

# without --survive, too, an expert with two copies or more has them in two nodes, where slots allow that
caught() # PLAN PER_NODE: how many experts of two copies or more have all of them in one node
{
    awk -v node="$2" '/^{"layer"/ {
        gsub(/.*"ranks": \[\[|\]\].*/, "")
        n = split($0, rank, /\], \[/)
        split("", copies); split("", nodes); split("", seen)
        for (r = 1; r <= n; r++) {
            m = split(rank[r], e, ", ")
            at = int((r - 1) / node)
            for (k = 1; k <= m; k++) { copies[e[k]]++; if (!seen[e[k], at]++) nodes[e[k]]++ }
        }
        for (x in copies) { slots += copies[x]; bad += copies[x] > 1 && nodes[x] == 1 }
    } END { print slots + 0, bad + 0 }' "$1"
}
mkdir "$T/spread"
sed 's/"num_hidden_layers": 61/"num_hidden_layers": 11/; s/"n_routed_experts": 384/"n_routed_experts": 32/' "$T/k2/config.json" >"$T/spread/config.json"
for shape in "0.3 1 60" "0.3 4 60" "0.5 4 50" "1 1 40"; do
    sanitized && [ "$shape" != "0.5 4 50" ] && continue
    set -- $shape
    "$G" experts=32 layers=10 sigma=$1 windows=$2 drift=0.3 >"$T/spread.json" || fail genrouting
    ok "$P" "$T/spread" -q --ranks 8 --slots $3 --ranks-per-node 4 --stats "$T/spread.json" -f -o "$T/n.json"
    [ "$(caught "$T/n.json" 4)" = "$((10 * $3)) 0" ] || fail "slots, and experts whose copies are all in one node: $(caught "$T/n.json" 4) of sigma, windows, slots $shape"
    count
done

# ---- EPLB need not satisfy --survive: it is compared with a bound of its own, and the report says what it loses ----
ok "$P" $S --ranks 32 --slots 768 --survive 1 --stats "$T/s1" --baseline eplb -f -o "$T/sv.json"
grep -q 'bound that no placement which survives the loss of 1 rank can beat; by DeepSeek.s EPLB, which knows nothing of --survive and loses up to [0-9]* experts of a layer with a rank, it would compute [0-9]*, [0-9.]* % above the bound without --survive, so' "$T/out" || { cat "$T/out"; fail "EPLB is held against a bound that it need not keep"; }
ok "$P" $S --ranks 32 --slots 768 --survive 1 --stats "$T/s1" --baseline eplb --json
cp "$T/out" "$T/sv-eplb.json"
is "$(tr -d '\n' <"$T/out" | sed 's/.*"eplb"//' | sed -n 's/[^}]*"experts_lost_worst": *\([0-9]*\).*/\1/p') > 0" "what EPLB loses, in JSON"
ok "$P" plot "$T/sv.json" --stats "$T/s1" -o "$T/sv.svg"
if command -v python3 >/dev/null; then reads python3 tests/readers/plotcheck.py "$T/sv.json" "$T/sv.svg" "$T/sv-eplb.json"; fi
ok "$P" verify "$T/sv.json" --json
grep -q '"same_statistics": *null' "$T/out" || fail "verify without statistics says that they are others"

# ---- export, and back ----
for to in sglang tensorrt-llm; do
    ok "$P" export "$T/t1" --to $to -f -o "$T/x"
    "$P" export "$T/t1" --to $to >"$T/y" 2>/dev/null && cmp -s "$T/x" "$T/y" || fail "export to standard output is another"
    ok "$P" $K --ranks 72 --from "$T/x" --stats "$T/r1" --json
    [ "$(total slots_moved "$T/out")" = 0 ] || fail "what was exported to $to is another plan"
    count
done
refused 14 'as many slots on each rank' export "$T/uneven.json" --to sglang

# ---- picture ----
ok "$P" plot "$T/t1" -o "$T/t.svg"
[ "$(grep -c 'rank 71' "$T/t.svg")" = 60 ] && [ "$(grep -c '<title>' "$T/t.svg")" = 4380 ] || fail "the picture lacks cells"
ok "$P" $K --ranks 72 --slots 432 --stats "$T/r1" --baseline eplb --json
cp "$T/out" "$T/eplb.json"
ok "$P" plot "$T/t1" --stats "$T/r1" -o "$T/t-eplb.svg"
if command -v python3 >/dev/null; then
    reads python3 tests/readers/plotcheck.py "$T/t1" "$T/t.svg"
    reads python3 tests/readers/plotcheck.py "$T/t1" "$T/t-eplb.svg" "$T/eplb.json"
    ! python3 tests/readers/plotcheck.py "$T/p2" "$T/t.svg" >"$T/out" 2>&1 || fail "plotcheck.py takes the picture of another plan"
    for shape in "1 60" "2 1" "150 60" "256 60" "512 60" "1024 60"; do
        sed "s/\"num_hidden_layers\": 61/\"num_hidden_layers\": $((${shape#* } + 1))/" "$T/k2/config.json" >"$T/shape.json"
        mkdir -p "$T/shape" && mv "$T/shape.json" "$T/shape/config.json"
        sanitized && [ ${shape% *} -gt 256 ] && continue
        ok "$P" "$T/shape" --ranks ${shape% *} -f -o "$T/shape.plan" # as if all were equally busy: quickly proven
        ok "$P" plot "$T/shape.plan" -f -o "$T/shape.svg"
        reads python3 tests/readers/plotcheck.py "$T/shape.plan" "$T/shape.svg"
        count
    done
fi
refused 15 'was made from other statistics' plot "$T/t1" --stats "$T/drifted"
for v in verify export plot stage; do refused 2 "is a directory, and $v wants a plan" $v "$T"; done
refused 3 'a plan goes with verify, export, plot or stage' "$T/t1" --ranks 8
refused 15 'has no counts of 384 experts' plot "$T/t1" --stats "$T/few.json"
refused 4 'already exists' plot "$T/t1" -o "$T/t.svg"
tampered() # CODE TEXT EDIT: neither reader takes the plan
{
    sed "$3" "$T/t1" >"$T/bad"
    ! cmp -s "$T/bad" "$T/t1" || fail "nothing to edit: $3"
    refused "$1" "$2" plot "$T/bad"
    [ -n "${4:-}" ] || refused "$1" "$2" verify "$T/bad"
}
tampered 14 'version 2 of a placement plan' 's/"version":1/"version":2/'
tampered 16 'is on no rank' 's/"ranks": \[\[[0-9]*,/"ranks": [[383,/'
tampered 13 'are not digits of a model' '1,/"layers"/s/"model_origin":"[^"]*"/"model_origin":"zz"/'
tampered 13 'are not digits of a model' '1,/"layers"/s/"model_origin":"\([^"]*\)"/"model_origin":"\1","model_weights":"zz"/'
tampered 13 'loads of 1 rank and slots of 72' 's/"loads": \[[^]]*\]/"loads": [1]/' plot
tampered 14 'has no loads to plot' 's/"loads": \[[0-9]*/"loads": [-5/' plot
sed 's/"num_hidden_layers": 61/"num_hidden_layers": 1/' "$T/k2/config.json" >"$T/dense.json"
mkdir "$T/dense" && mv "$T/dense.json" "$T/dense/config.json"
refused 14 'has no layer with routed experts to place' "$T/dense" --ranks 8

# ---- model of memory and time: the reference's table for K2 in NVFP4 (docs/reference/placement.md) ----
ok "$P" $K --ranks 72 --slots 432 --dense-type fp8 --dry-run --compare 72x432,72x576,36x432,32x416,16x384,8x384 --json
grep -o '"decode_tokens_per_second_rank":[^,]*' "$T/out" | cut -d : -f 2 | sed 1d >"$T/rates"
paste "$T/rates" - <<'N' | awk '{ if ($1 / $2 < 0.95 || $1 / $2 > 1.05) exit 1; n++ } END { exit n != 6 }' || fail "the model of time has changed: $(tr '\n' ' ' <"$T/rates")"
9500
9200
8600
8500
7300
5500
N
ok "$P" $K --ranks 72 --slots 792 --dry-run --json
is "$(total bytes_per_rank "$T/out" || json bytes_per_rank "$T/out") > 39.7e9 && $(json bytes_per_rank "$T/out") < 39.9e9" "39.8 GB a rank at 792 slots"
ok "$P" $K --ranks 72 --memory-per-rank 38G --dry-run --json
[ "$(json slots "$T/out")" = 792 ] || fail "38 GiB a rank hold $(json slots "$T/out") slots, not 792"
refused 2 'a rank hold' $K --ranks 8 --memory-per-rank 40G
count

# ---- tiny-k2: all kinds of model, exact optima, staging ----
ok "$BIN/moe-convert" -q tests/data/tiny-k2/bf16 -o "$T/tiny.moe"
mkdir "$T/tiny-config"
cp tests/data/tiny-k2/bf16/config.json "$T/tiny-config/"
experts=$(sed -n 's/.*"n_routed_experts": *\([0-9]*\).*/\1/p' "$T/tiny-config/config.json")
layers=$(sed -n 's/.*"num_hidden_layers": *\([0-9]*\).*/\1/p' "$T/tiny-config/config.json")
dense=$(sed -n 's/.*"first_k_dense_replace": *\([0-9]*\).*/\1/p' "$T/tiny-config/config.json")
top=$(sed -n 's/.*"num_experts_per_tok": *\([0-9]*\).*/\1/p' "$T/tiny-config/config.json")
"$G" experts=$experts layers=$(($layers - $dense)) first=$dense top=$top >"$T/tiny.json"
for m in "$T/tiny.moe" tests/data/tiny-k2/bf16 "$T/tiny-config"; do
    ok "$P" -q "$m" --ranks 3 --slots $((3 * (($experts + 5) / 3))) --stats "$T/tiny.json" -f -o "$T/tiny-plan.json"
    grep -v '"model\|"expert_bytes\|"replicated_bytes\|"bytes_' "$T/tiny-plan.json" >"$T/now"
    [ -e "$T/before" ] || cp "$T/now" "$T/before"
    cmp -s "$T/before" "$T/now" || fail "the plan of $m differs"
    ok "$P" verify "$T/tiny-plan.json" --stats "$T/tiny.json" -q
    count
done
ok "$P" -q "$T/tiny.moe" --ranks 8 --slots $((8 * (($experts + 15) / 8))) --stats "$T/tiny.json" -f -o "$T/tiny.moe/plan-8.json"
ok "$P" stage "$T/tiny.moe/plan-8.json" --rank 1 -o "$T/one.moe" --json
ok "$P" stage "$T/tiny.moe/plan-8.json" --rank 0-3 -o "$T/four.moe"
ok "$P" stage "$T/tiny.moe/plan-8.json" --rank 0-7 -o "$T/all.moe"
ok "$P" stage "$T/tiny.moe/plan-8.json" --rank 1 -o "$T/linked.moe" --how link
for d in one:1 four:0-3 all:0-7 linked:1; do
    ok "$P" stage "$T/tiny.moe/plan-8.json" --rank ${d#*:} -o "$T/${d%:*}.moe" --check
    ok "$BIN/moe-inspect" --verify "$T/${d%:*}.moe"
    cmp -s "$T/${d%:*}.moe/plan-staged.json" "$T/tiny.moe/plan-8.json" || fail "the plan is not beside what was staged"
    count
done
# The part for all ranks, and the one made of hard links, are the whole container; a part for one rank says
# that it is a part (t-stage).
ok diff -r -x plan-staged.json -x plan-8.json "$T/all.moe" "$T/tiny.moe"
ok diff -r -x plan-staged.json -x plan-8.json "$T/linked.moe" "$T/tiny.moe"
ok "$BIN/moe-inspect" "$T/one.moe"
grep -q "a staged part for ranks 1 to 1 of 8" "$T/out" || fail "a part is taken for the whole"
[ "$(stat -c %i "$T/linked.moe/dense.moe")" = "$(stat -c %i "$T/tiny.moe/dense.moe")" ] || fail "no hard link"
used() { cat "$1"/layer-*.moe | tr -d '\0' | wc -c; }
[ "$(used "$T/one.moe")" -lt $(($(used "$T/tiny.moe") / 3)) ] || fail "one rank's part has $(used "$T/one.moe") bytes of $(used "$T/tiny.moe")"
refused 4 'already exists' stage "$T/tiny.moe/plan-8.json" --rank 1 -o "$T/one.moe"
refused 15 'was not staged into it, and rank 0 needs it' stage "$T/tiny.moe/plan-8.json" --rank 0-7 -o "$T/one.moe" --check
refused 2 'ranks of 0 to 7' stage "$T/tiny.moe/plan-8.json" --rank 8 -o "$T/x.moe"
refused 14 'only a container' stage "$T/tiny.moe/plan-8.json" --rank 1 --model tests/data/tiny-k2/bf16 -o "$T/x.moe"
[ ! -e "$T/x.moe" ] && [ ! -e "$T/x.moe.partial" ] || fail "something is left behind"
cp "$T/tiny.moe/plan-8.json" "$T/away.json"
ok "$BIN/moe-convert" -q tests/data/tiny-k2/fp8 -o "$T/other.moe"
refused 15 'another model' stage "$T/away.json" --rank 1 --model "$T/other.moe" -o "$T/x.moe"

# ---- engines' placements, whose files have rows for dense layers: run, staged and exported like the plan they were made from ----
ok "$P" -q "$T/tiny.moe" --ranks 4 --slots $((4 * (($experts + 7) / 4))) --stats "$T/tiny.json" -f -o "$T/four.json"
ok "$P" export "$T/four.json" --to sglang -f -o "$T/four.sglang"
ok "$P" export "$T/four.json" --to tensorrt-llm -f -o "$T/four.yaml"
ok "$P" export "$T/four.sglang" --ranks 4 --to tensorrt-llm --model "$T/tiny.moe" -f -o "$T/again.yaml"
cmp -s "$T/four.yaml" "$T/again.yaml" || fail "what goes from SGLang to TensorRT-LLM is another placement"
ok "$P" export "$T/four.sglang" --ranks 4 --to tensorrt-llm -f -o "$T/again.yaml"
grep -q 'rows of such, as SGLang.s files have them, are taken along (--model MODEL leaves them out)' "$T/err" || fail "rows of dense layers are exported in silence"
for file in four.sglang four.yaml; do
    for model in "$T/tiny.moe" tests/data/tiny-k2/bf16; do
        ok "$BIN/moe-run" -q "$model" --tokens 1,2 -n 3 --plan "$T/$file" --ranks 4
        count
    done
    rm -rf "$T/part.moe"
    ok "$P" -q stage "$T/$file" --ranks 4 --rank 0-1 --model "$T/tiny.moe" -o "$T/part.moe"
    ok "$P" -q stage "$T/four.json" --rank 0-1 -o "$T/part.moe" --check
    ok "$P" -q verify "$T/part.moe/plan-staged.json"
    refused 14 "which says nothing of loads" verify "$T/$file"
    refused 14 "which says nothing of loads" plot "$T/$file"
    refused 2 'give --model NAME.moe' stage "$T/$file" --ranks 4 --rank 0 -o "$T/x.moe"
done

# ---- standard input, once in a command ----
piped() { "$P" "$@" <"$from" >"$T/out" 2>"$T/err" || { cat "$T/err"; fail "moe-plan $* of standard input"; }; count; }
from=$T/four.json
piped -q verify - --stats "$T/tiny.json"
piped plot - --stats "$T/tiny.json" && "$P" plot "$T/four.json" --stats "$T/tiny.json" | cmp -s - "$T/out" || fail "another picture of standard input"
piped export - --to sglang && cmp -s "$T/out" "$T/four.sglang" || fail "another export of standard input"
rm -rf "$T/part.moe"
piped -q stage - --model "$T/tiny.moe" --rank 1 -o "$T/part.moe" && cmp -s "$T/part.moe/plan-staged.json" "$T/four.json" || fail "another plan is staged of standard input"
piped -q "$T/tiny.moe" --from - --stats "$T/tiny.json"
from=$T/tiny.json
piped -q "$T/tiny.moe" --ranks 4 --stats -
piped -q verify "$T/four.json" --stats -
for twice in "verify - --stats -" "verify - --from -" "plot - --stats -" "verify $T/four.json --from - --stats -" "$T/tiny.moe --from - --stats -"; do
    refused 2 'standard input can be read once' $twice
done
refused 2 'cannot be read from standard input' - --ranks 4

# ---- output that cannot be written: no message for a reader that closed its pipe; a full disk is named ----
for cut in "plot $T/t1" "export $T/t1 --to sglang"; do
    (trap '' PIPE; "$P" $cut 2>"$T/err"; echo $? >"$T/code") | head -c 20 >/dev/null
    [ "$(cat "$T/code")" = 11 ] && [ ! -s "$T/err" ] || { cat "$T/err"; fail "$(cat "$T/code") of moe-plan $cut, of which 20 bytes were wanted"; }
    count
done
if [ -w /dev/full ]; then
    for full in "plot $T/t1" "export $T/t1 --to sglang" "$T/tiny.moe --ranks 4" "$T/k2 --ranks 8 --json"; do
        "$P" -q $full >/dev/full 2>"$T/err"
        [ $? = 12 ] && grep -q 'cannot write to standard output: No space left' "$T/err" || { cat "$T/err"; fail "moe-plan $full on a full disk"; }
        count
    done
fi

# ---- messages for files of another kind, and for other spellings ----
refused 13 'holds statistics of experts, and is no plan' verify "$T/tiny.json"
refused 13 'holds statistics of experts, and is no plan' "$T/tiny.moe" --from "$T/tiny.json"
refused 13 "neither 'layers' nor 'physical_to_logical_map'" verify "$T/tiny-config/config.json"
refused 13 'is a plan, and holds no statistics' "$T/tiny.moe" --ranks 4 --stats "$T/four.json"
refused 13 'is a plan, and holds no statistics' "$T/tiny.moe" --ranks 4 --stats "$T/four.sglang"
refused 2 "did you mean 'verify'" veriy "$T/four.json"
refused 2 "want one model, got 2: 'a', 'b'" a b --ranks 4
refused 2 'moe-plan: export wants --to' export "$T/four.json"
refused 2 'moe-plan: stage wants --rank' stage "$T/four.json"
refused 2 'is to be written, but is also the path which is read' stage "$T/four.json" --rank 0 -o "$T/four.json"
refused 2 '--compare 8x48: 48 slots are too few, 2 copies of 384 experts on 8 ranks take 768 to 3072' $K --ranks 8 --survive 1 -n --compare 8x48,16
for x in 0.1 0.0195; do refused 2 '--target goes with --from PLAN' $K --ranks 8 --target $x; done # also at their defaults
for x in 3 8; do
    refused 2 '--windows is for statistics' $K --ranks 8 --windows $x
    refused 2 '--windows goes with --stats FILE' verify "$T/four.json" --windows $x
    refused 2 '--windows goes with --stats FILE' plot "$T/four.json" --windows $x
done
refused 2 '--memory-per-rank 1.0 MiB is too little: so a rank holds 0 experts of each layer' $K --ranks 8 --memory-per-rank 1M
ok "$P" $K --ranks 8 --reserve 500G
grep -q 'Speed: none is modelled, since the model does not fit' "$T/out" || fail "a model that does not fit has a speed"
ok "$P" $K --ranks 8 --stats "$T/r1" -n --compare 4,8x400
grep -q 'first row is this plan with its own balance; the others' "$T/out" || fail "it is not said how rows of --compare differ"
ok "$P" stage "$T/four.json" --rank 0 -f -o "$T/part.moe"
grep -q 'iB copied' "$T/err" || fail "stage says in which unit?"
! grep -o '"load_max_after_loss": *[0-9]*\.[0-9]*' "$T/four.json" | grep '00000[0-9]' || fail "digits that nobody found"

# ---- the man page's examples as they are printed, with a smaller model ----
mkdir "$T/ex"
cp -r "$T/tiny.moe" "$T/ex/k2.moe" && rm -f "$T/ex/k2.moe/plan-8.json"
cp -r "$T/k2" "$T/ex/k2-config"
cp "$T/tiny.json" "$T/ex/routing.json"
"$G" experts=$experts layers=$(($layers - $dense)) first=$dense top=$top drift=0.2 >"$T/ex/today.json"
BINS=$(cd "$BIN" && pwd)
for verb in "" verify export plot stage; do
    "$P" $verb --help-man | examples | sed "s/--slots 400/--slots $(($experts + 8))/" >"$T/ex/lines"
    [ -s "$T/ex/lines" ] || fail "no examples in the man page of moe-plan $verb"
    while read -r line; do
        if [ -n "$verb" ]; then rm -rf "$T/ex"/sglang.json "$T/ex"/plan.svg "$T/ex"/node0.moe; fi
        (cd "$T/ex" && PATH="$BINS:$PATH" sh -c "$line -q" </dev/null) >"$T/out" 2>"$T/err" || { cat "$T/err"; fail "an example of the man page fails: $line"; }
        count
    done <"$T/ex/lines"
done
for verb in verify export plot stage; do
    "$P" $verb --help >"$T/out"
    grep -q "^usage: moe-plan $verb PLAN" "$T/out" && ! grep -q -- --survive "$T/out" || fail "moe-plan $verb --help"
    refused 2 "(see moe-plan $verb --help)" $verb "$T/t1" --survive 1
    refused 2 "(see moe-plan $verb --help)" --threads 2 $verb "$T/t1" -k
done
refused 2 "unknown option '--to'" $K --ranks 8 --to sglang
refused 2 "unknown option '--rank'" plot "$T/t1" --rank 1

# ---- refusals ----
refused 2 'for how many ranks' $K
refused 2 'too few' $K --ranks 72 --slots 383
refused 2 'too many' $K --ranks 2 --slots 800
refused 2 'too few: 2 copies' $K --ranks 72 --slots 700 --survive 1
refused 2 'cannot survive' $K --ranks 4 --survive 4
refused 2 'no whole number of nodes' $K --ranks 10 --ranks-per-node 4
refused 2 'exclude each other' $K --ranks 8 --slots 384 --memory-per-rank 100G
refused 2 "unknown --baseline 'x'" $K --ranks 8 --baseline x
refused 2 "unknown --gpu 'x'" $K --ranks 8 --gpu x
refused 2 "unknown figure 'x'" $K --ranks 8 --gpu hgx-h200,x=1
refused 2 "unknown --expert-type" "$T/k2" --ranks 8 --expert-type x
refused 2 '--compare wants' $K --ranks 8 -n --compare 8,x
refused 3 'not found' "$T/none" --ranks 8
refused 3 "none.json" $K --ranks 8 --stats "$T/none.json"
refused 15 'statistics of another model' $K --ranks 8 --stats "$T/tiny.json"
refused 15 'the old plan has' $K --ranks 8 --from "$T/tiny-plan.json"
refused 4 'already exists' $K --ranks 8 -o "$T/t1"
printf '{"version":1,"experts":384,"experts_per_token":8,"tokens":5,"layers":[{"layer":1,"counts":[-1]}]}' >"$T/hostile"
refused 13 'not a whole number' $K --ranks 8 --stats "$T/hostile"
refused 13 'not JSON' verify "$T/t.svg"
echo '{"version":1,"layers":[{"layer":1,"ranks":[[0,0]]}]}' >"$T/dup"
refused 13 'there twice' export "$T/dup" --to sglang

# --ranks has to agree with our own plan, and divides an engine's file into ranks; messages name the old plan
# that asks for something
ok "$P" $S --ranks 8 --slots 768 --survive 1 --ranks-per-node 4 --stats "$T/s1" -f -o "$T/old.json"
ok "$P" export "$T/old.json" --to sglang --ranks 8 -f -o "$T/old-sglang.json"
ok "$P" export "$T/old-sglang.json" --to sglang --ranks 4 -f -o "$T/now"
refused 15 "old.json': the plan does not fit: it has 8 ranks, not 4" export "$T/old.json" --to sglang --ranks 4
refused 15 'the plan does not fit: it has 8 ranks, not 4' stage "$T/tiny.moe/plan-8.json" --ranks 4 --rank 7 -o "$T/x.moe"
refused 15 '768 slots a layer are no multiple of 5 ranks' export "$T/old-sglang.json" --to sglang --ranks 5
echo '{"physical_to_logical_map":[[0,0,1,1]]}' >"$T/cut"
refused 13 'read as a plan for 2 ranks, which --ranks may have wrong' export "$T/cut" --to sglang --ranks 2
refused 2 "6 ranks are no whole number of nodes of 4, which '$T/old.json' has (--ranks-per-node N" $S --from "$T/old.json" --ranks 6
refused 2 "400 slots are too few: '$T/old.json' has 2 copies of each expert, and those of 384 experts need 768 (--survive R" $S --from "$T/old.json" --slots 400
refused 2 "1 rank cannot survive the loss of 1, as '$T/old.json' does (--survive R" $S --from "$T/old.json" --ranks 1
refused 2 '8 ranks are no whole number of nodes of 9' $S --ranks 8 --ranks-per-node 9
ok "$P" $S --from "$T/old.json" --ranks 6 --ranks-per-node 0 --stats "$T/s1" -n
ok "$P" "$T/tiny-config" -q --ranks 1 --stats "$T/tiny.json"
grep -q ' on 1 rank\.$' "$T/out" || { cat "$T/out"; fail "one rank is not one"; }
ok "$P" stage "$T/tiny.moe/plan-8.json" --rank 1 -f -o "$T/one.moe"
grep -q "written for rank 1: " "$T/err" || { cat "$T/err"; fail "one rank is not one (stage)"; }
: >"$T/nothing"
refused 13 "nothing': is empty" verify "$T/nothing"
refused 13 "nothing': is empty" $K --ranks 8 --stats "$T/nothing"
refused 13 "'standard input': is empty" verify -
refused 13 "'standard input': is empty" $K --ranks 8 --stats -
truncate -s 257M "$T/large"
for verb in verify plot "export --to sglang" "stage --rank 0 -o $T/x.moe"; do
    refused 14 "large': has more than the 268435456 bytes of text that are read here" $verb "$T/large"
done

refused 2 'want a model' 
refused 2 'wants one PLAN' verify

# ---- statistics that prove little: numbers that are not counts, of one rank, of nothing ----
# doubt COUNTS TEXT: COUNTS is an awk expression for expert e of 384, TEXT what is printed once.
doubt()
{
    awk "BEGIN { srand(1); printf \"{\\\"logical_count\\\":[\"
                 for (l = 0; l < 61; l++) { printf l ? \",[\" : \"[\"; for (e = 0; e < 384; e++) printf \"%s%s\", e ? \",\" : \"\", $1; printf \"]\" }
                 printf \"]}\\n\" }" >"$T/doubt"
    "$P" "$T/k2" --expert-type nvfp4 --ranks 8 --stats "$T/doubt" -n >"$T/out" 2>"$T/err" || { cat "$T/err"; fail "statistics of $1"; }
    if [ -n "$2" ]; then [ "$(grep -cF -- "$2" "$T/err")" = 1 ] || { cat "$T/err"; fail "'$2' is not said once of $1"; }
    else ! grep -E 'rounded|never|zero|no count' "$T/err" || fail "something is said of $1"; fi
    count
}
doubt 'e + 1 ".0"' ''
doubt 'e + 1 ".5"' '23424 counts of the statistics are fractions and were rounded'
doubt '(e < 16 ? e + 1 : 0)' '368 of 384 experts of a layer never got a token in the statistics, as when they are of one rank only or of a few prompts: the plan takes these experts to be idle'
doubt '0' 'all counts of the statistics are zero: nothing is known of how busy experts are, so the plan spreads them evenly'
doubt '(l == 7 ? 0 : e + 1)' '1 of 60 layers has no count in the statistics: its experts are spread evenly'
echo "t-plan: $checks checks"
