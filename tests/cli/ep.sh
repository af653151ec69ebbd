# SPDX-License-Identifier: Apache-2.0
# tests/cli/ep.sh - what t-ep, t-ep-ucx, t-stage and long-ep-kill share; sourced, never run.
# Sourced by the tests of expert parallelism (. tests/cli/ep.sh).  Defines M and R (the model tiny-k2 and
# moe-run), $T/prompts (20 lines), $T/text and the functions below.
. tests/common.sh
need_tool moe-run moe-plan
need_python
M=tests/data/tiny-k2/bf16
R=$BIN/moe-run
grep -v '^$' tests/data/tiny-k2/valid.txt | head -n 20 | cut -c 1-50 >"$T/prompts"
head -c 6000 tests/data/tiny-k2/valid.txt >"$T/text"

# plan NAME RANKS SLOTS SURVIVE [LINE]: makes the plan $T/NAME.json with moe-plan, from the routing of the
# prompts from LINE on.  Slots beyond (SURVIVE + 1) x 32 are replicas of the busiest experts; where the ranks
# do not divide them, some ranks have one more.
plan()
{
    at=${5:-1}
    [ -e "$T/routing-from-$at.json.gz" ] || {
        tail -n +"$at" "$T/prompts" >"$T/some"
        ok "$R" -q $M --prompts "$T/some" -n 8 --record-routing "$T/routing-from-$at.json.gz"
    }
    ok "$BIN/moe-plan" -q $M --ranks "$2" --slots "$3" --survive "$4" --stats "$T/routing-from-$at.json.gz" -o "$T/$1.json"
    ok "$BIN/moe-plan" verify -q "$T/$1.json" --stats "$T/routing-from-$at.json.gz"
}

# check EXPRESSION: fails unless the Python expression is true.  In it j is what was printed and w what one
# rank printed ($T/one); $what names the case.
check()
{
    python3 - "$T/out" "$T/one" "$1" <<'P' || { cat "$T/err"; fail "$what: $1"; }
import json, sys
j, w = [json.load(open(f)) for f in sys.argv[1:3]]
def texts(o): return [(s["text"], s["tokens"], s["finish_reason"]) for s in o["sequences"]]
def lost(o): return [i for i, s in enumerate(o["sequences"]) if s["finish_reason"] == "lost"]
def of(o, *ranks): return [i for i, s in enumerate(o["sequences"]) if s["rank"] in ranks]
sys.exit(not eval(sys.argv[3]))
P
    count
}
# check_score: fails unless the perplexity is that of one rank, $T/score.
check_score()
{
    mv "$T/one" "$T/one-texts"
    cp "$T/score" "$T/one"
    check 'abs(j["perplexity"] / w["perplexity"] - 1) < 1e-6 and j["tokens"] == w["tokens"]'
    mv "$T/one-texts" "$T/one"
}
# aside NAME COMMAND...: runs a command that mostly waits, beside others.  After a `wait` came looks at it.
aside()
{
    aside=$1
    shift
    {
        got=0
        "$@" >"$T/out-$aside" 2>"$T/err-$aside" </dev/null || got=$?
        echo $got >"$T/exit-$aside"
    } &
}
# came NAME EXIT [TEXT]: fails unless command NAME ended so and, with TEXT, printed one line with it.  What it
# printed is in $T/out and $T/err then.
came()
{
    mv "$T/out-$1" "$T/out" && mv "$T/err-$1" "$T/err" && got=$(cat "$T/exit-$1") || fail "$what: it has not come"
    [ "$got" = "$2" ] || { cat "$T/err"; fail "$what: exit $got, not $2"; }
    [ $# = 2 ] && return
    [ "$(wc -l <"$T/err")" = 1 ] && grep -qF -- "$3" "$T/err" || { cat "$T/err"; fail "$what: not one line with '$3'"; }
    count
}
free_port() # one that nobody listens at, below those which the system gives to connections (UCX has many open)
{
    python3 - <<'P'
import os, socket
for k in range(12000):
    port = 20000 + (os.getpid() * 7 + k) % 12000
    try:
        with socket.socket() as s: s.bind(("127.0.0.1", port))
    except OSError: continue
    print(port)
    break
P
}
