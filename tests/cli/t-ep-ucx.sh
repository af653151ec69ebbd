#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests expert parallelism over UCX: ranks as processes of one host, as processes that a launcher starts and
# that meet by its environment, and in two network namespaces; ranks that are killed.
. tests/cli/ep.sh
sanitized && skip "UCX is not built with sanitizers"
"$R" -q $M --prompt x -n 1 --ranks 2 --comm ucx >"$T/out" 2>"$T/err" || {
    grep -q "libucx" "$T/err" && skip "no UCX (libucx-dev at build time, libucx0 at run time)"
    cat "$T/err"
    fail "exit $?: two ranks over UCX"
}
head -n 12 "$T/prompts" >"$T/twelve" && mv "$T/twelve" "$T/prompts"
plan plan 4 70 1
ok "$R" -q $M --prompt "And it came to pass" -n 24
mv "$T/out" "$T/greedy"
ok "$R" -q --json $M --score "$T/text" --window 64
mv "$T/out" "$T/score"
ok "$R" -q --json $M --prompts "$T/prompts" -n 12
mv "$T/out" "$T/one"

# ---- processes that moe-run starts ------------------------------------------
for how in "--ranks 3" "--ranks 4" "--plan $T/plan.json"; do
    what="--comm ucx $how"
    ok "$R" -q $M --prompt "And it came to pass" -n 24 --comm ucx $how
    cmp -s "$T/out" "$T/greedy" || fail "$what: other text"
    ok "$R" -q --json $M --prompts "$T/prompts" -n 12 --comm ucx $how
    check 'texts(j) == texts(w) and len(texts(j)) == 12'
    ok "$R" -q --json $M --score "$T/text" --window 64 --comm ucx $how
    check_score
done
what="standard input"
printf 'And it came to pass' | "$R" -q $M -n 24 --ranks 2 --comm ucx >"$T/out" 2>"$T/err" || fail "a prompt from standard input"
cmp -s "$T/out" "$T/greedy" || fail "a prompt from standard input"
what="texts come once"
ok "$R" -q $M --prompts "$T/prompts" -n 12
mv "$T/out" "$T/texts"
ok "$R" -q $M --prompts "$T/prompts" -n 12 --ranks 4 --comm ucx
cmp -s "$T/out" "$T/texts" || fail "--prompts without --json: other text"
what="--record-routing"
ok "$R" -q $M --prompts "$T/prompts" -n 4 --record-routing "$T/routing-1.json.gz"
ok "$R" -q $M --prompts "$T/prompts" -n 4 --record-routing "$T/routing-4.json.gz" --ranks 4 --comm ucx
gzip -dc "$T/routing-1.json.gz" >"$T/routing-1"
gzip -dc "$T/routing-4.json.gz" | cmp -s - "$T/routing-1" || fail "--record-routing depends on ranks"
count

# ---- one message, whichever rank fails ----------------------------------
refused 3 "nowhere" "$T/nowhere" --prompt x --ranks 2 --comm ucx
refused 2 "empty" -q $M --prompt "" --ranks 2 --comm ucx
refused 2 "--rendezvous" $M --prompt x --ranks 2 --comm ucx --rank 1
refused 2 "--comm ucx" $M --prompt x --ranks 2 --rank 1 --rendezvous localhost:1
refused 2 "rank -1 of 2" $M --prompt x --ranks 2 --comm ucx --rendezvous localhost:1
refused 2 "--ranks or --plan" $M --prompt x --comm ucx
if [ -x "$GEN/genmodel" ]; then
    ok "$GEN/genmodel" -o "$T/nan" --layers 3 --experts 4 --top-k 4 --nan model.layers.1.mlp.experts.2.up_proj.weight
    refused 18 "layers.1.mlp.experts.2.up_proj" -q "$T/nan" --tokens 1,2,3 -n 2 --ranks 2 --comm ucx
fi

# ---- a rank that ends before all have met, and a signal to end ----------------------
# soon LIMIT COMMAND...: the command ends within LIMIT seconds.
soon()
{
    limit=$1 start=$(date +%s)
    shift
    "$@"
    [ $(($(date +%s) - $start)) -le "$limit" ] || fail "took more than $limit s: $*"
}
for r in 0 2; do aside start-$r env MOE_DIE=$r:start timeout 20 "$R" -q $M --prompt x --ranks 3 --comm ucx; done
wait
for r in 0 2; do
    what="rank $r killed at its start"
    came start-$r 17 "rank $r was ended by signal 9 (Killed, as when memory is short) before all ranks were there"
done
# alone_in BAD TEXT CODE WORDS...: rank BAD gets WORDS and fails; both ranks end with CODE, and each prints
# TEXT once.
alone_in()
{
    bad=$1 text=$2 want=$3 port=$(free_port)
    shift 3
    good=$((1 - $bad))
    "$R" -q $M --prompt x -n 1 --comm ucx --ranks 2 --rank $good --rendezvous :$port >/dev/null 2>"$T/good" &
    other=$!
    "$R" -q $M --prompt x -n 1 --comm ucx --ranks 2 --rank $bad --rendezvous :$port "$@" >/dev/null 2>"$T/bad"
    r=$?
    wait $other
    [ "$r $?" = "$want $want" ] && [ "$(grep -cF -- "$text" "$T/good"):$(grep -cF -- "$text" "$T/bad")" = 1:1 ] &&
        [ "$(cat "$T/good" "$T/bad" | wc -l)" = 2 ] || { cat "$T/good" "$T/bad"; fail "rank $bad alone has $*"; }
    count
}
soon 20 alone_in 1 "--temperature -1" 2 --temperature -1
soon 20 alone_in 0 "--temperature -1" 2 --temperature -1
soon 20 alone_in 1 "'$T/none/x'" 3 --record-routing "$T/none/x"
soon 20 alone_in 1 "unknown --mla 'x'" 2 --mla x
what="SIGTERM says it once"
for after in "rank 2 is process" "all 3 ranks are there"; do # minutes of work, which the signal ends
    "$R" $M --prompts tests/data/tiny-k2/valid.txt -n 800 --ignore-eos --ranks 3 --comm ucx >/dev/null 2>"$T/err" &
    run=$!
    until grep -q "$after" "$T/err"; do kill -0 $run 2>/dev/null || fail "$what: $(cat "$T/err")"; done
    kill -TERM $run
    wait $run
    [ "$?: $(grep -v 'is process\|are there' "$T/err")" = "143: moe-run: terminated" ] || { cat "$T/err"; fail "$what"; }
    count
done
for bad in SLURM_NTASKS=5000 SLURM_NTASKS=0 SLURM_NTASKS=2x SLURM_PROCID=abc SLURM_PROCID=-1 PMI_RANK=1024 OMPI_COMM_WORLD_SIZE=99999999999; do
    code 2 "${bad%=*}='${bad#*=}' in the environment: want a number" env SLURM_NTASKS=2 SLURM_PROCID=0 $bad "$R" -q $M --prompt x --comm ucx --rendezvous :7001
    count
done
code 11 "needs 50 open files, the limit is 16 (raise ulimit -Hn)" sh -c "ulimit -n 16; exec '$R' -q $M --prompt x --ranks 2 --comm ucx"
ok sh -c "ulimit -Sn 16; exec '$R' -q $M --prompt x -n 1 --ranks 2 --comm ucx"

# ---- started by a launcher: rank and number of ranks come from its environment --------------
together() # the environment's names for rank and number; what each process gets besides
{
    rank=$1 size=$2
    shift 2
    pids=
    for r in 1 2; do
        env $rank=$r $size=3 "$R" -q --json $M --prompts "$T/prompts" -n 12 --comm ucx "$@" >"$T/out$r" 2>"$T/err$r" &
        pids="$pids $!"
    done
    env $rank=0 $size=3 timeout 120 "$R" -q --json $M --prompts "$T/prompts" -n 12 --comm ucx "$@" >"$T/out" 2>"$T/err"
    r=$?
    for p in $pids; do wait $p || r="$r, $?"; done
}
what="mpirun's environment"
together OMPI_COMM_WORLD_RANK OMPI_COMM_WORLD_SIZE --rendezvous 127.0.0.1:$(free_port)
[ "$r" = 0 ] || { cat "$T/err"*; fail "$what: exit $r"; }
check 'texts(j) == texts(w)'
[ ! -s "$T/out1" ] && [ ! -s "$T/out2" ] && [ ! -s "$T/err1" ] || fail "ranks that do not report print something"
what="srun's environment"
together SLURM_PROCID SLURM_NTASKS --rendezvous 127.0.0.1:$(free_port)
[ "$r" = 0 ] || { cat "$T/err"*; fail "$what: exit $r"; }
check 'texts(j) == texts(w)'
# No process that started the ranks prints here, so a rank that dies while it prints leaves a part of the
# report; the next rank begins a new line and prints all of it.
plan three 3 70 1
for at in report printing reported 0:report,1:printing; do
    what="a launcher's rank killed at $at"
    case $at in *:*) die=$at by=2 ;; *) die=0:$at by=1 ;; esac
    case $at in report) lines=1 ;; reported) lines=3 ;; *) lines=2 ;; esac # all, an empty one, all; a part, all
    export MOE_DIE=$die
    together PMI_RANK PMI_SIZE --rendezvous 127.0.0.1:$(free_port) --plan "$T/three.json"
    unset MOE_DIE
    case $r in 137*) ;; *) cat "$T/err"*; fail "$what: exit $r" ;; esac
    got=$(cat "$T/out" "$T/out1" "$T/out2" | wc -l)
    [ "$got" = $lines ] || fail "$what: $got lines, not $lines"
    tail -n 1 "$T/out$by" >"$T/out"
    check 'texts(j) == texts(w)'
done
launch() { timeout 120 mpirun --allow-run-as-root --oversubscribe -n 4 "$R" -q $M --comm ucx --rendezvous 127.0.0.1:$(free_port) "$@" >"$T/out" 2>"$T/err"; }
if command -v mpirun >/dev/null && mpirun --version 2>/dev/null | grep -q 'Open MPI'; then
    for how in "" "--plan $T/plan.json"; do
        what="mpirun $how"
        launch --prompt "And it came to pass" -n 24 $how || fail "$what: exit $?: $(cat "$T/err")"
        cmp -s "$T/out" "$T/greedy" || fail "$what: other text"
        launch --json --prompts "$T/prompts" -n 12 $how || fail "$what: exit $?: $(cat "$T/err")"
        check 'texts(j) == texts(w) and len(j["ranks"]) == 4'
    done
else
    echo "no mpirun of Open MPI here: its environment alone was tested"
fi
what="ranks with different plans"
plan a 3 70 1; plan b 3 71 1
port=$(free_port)
for r in 1 2; do
    "$R" -q $M --prompt x -n 2 --comm ucx --plan "$T/b.json" --rank $r --rendezvous 127.0.0.1:$port >/dev/null 2>"$T/err$r" &
done
# Rank 0 refuses whichever of the two joins first.
refused 15 " has another model, plan or settings than rank 0: --plan differs" $M --prompt x -n 2 --comm ucx --plan "$T/a.json" --rank 0 --rendezvous 127.0.0.1:$port
wait
what="a plan for another number of ranks"
for r in 0 1; do # nobody else comes, and it does not wait for them for long
    aside plan-$r timeout 10 "$R" -q $M --prompt x -n 2 --comm ucx --ranks 3 --plan "$T/plan.json" --rank $r --rendezvous 127.0.0.1:$(free_port)
    aside replan-$r timeout 10 "$R" -q $M --prompt x -n 2 --comm ucx --plan "$T/a.json" --replan "$T/plan.json" --rank $r --rendezvous 127.0.0.1:$(free_port)
done
wait
for case in plan-0 plan-1 replan-0 replan-1; do came $case 15 "the plan does not fit: it has 4 ranks, not 3"; done
what="one rank has a plan for another number of ranks"
for wrong in 2 0; do # the others learn it at once, and so does a rank that comes a second later
    port=$(free_port) begin=$(date +%s)
    for r in 0 1 2; do
        p=a
        [ $r = $wrong ] && p=plan
        (
            [ $r = 1 ] && sleep 1
            got=0
            timeout 60 "$R" -q $M --prompt x -n 2 --comm ucx --ranks 3 --plan "$T/$p.json" --rank $r --rendezvous 127.0.0.1:$port >/dev/null 2>"$T/err$r" || got=$?
            echo $got >"$T/exit$r"
        ) &
    done
    wait
    [ $(($(date +%s) - begin)) -le 10 ] || fail "$what: they waited"
    for r in 0 1 2; do
        [ "$(cat "$T/exit$r")" = 15 ] && grep -q "the plan does not fit: it has 4 ranks, not 3" "$T/err$r" || { cat "$T/err$r"; fail "$what: rank $r, exit $(cat "$T/exit$r")"; }
    done
    count
done
what="ranks with different plans, and one that never comes"
port=$(free_port) begin=$(date +%s)
timeout 60 "$R" -q $M --prompt x -n 2 --comm ucx --plan "$T/b.json" --rank 1 --rendezvous 127.0.0.1:$port >/dev/null 2>"$T/err1" &
refused 15 "rank 1 has another model, plan or settings than rank 0: --plan differs" $M --prompt x -n 2 --comm ucx --plan "$T/a.json" --rank 0 --rendezvous 127.0.0.1:$port
wait
grep -q "rank 1 was told by rank 0: .*--plan differs" "$T/err1" || { cat "$T/err1"; fail "$what: rank 1"; }
[ $(($(date +%s) - begin)) -le 10 ] || fail "$what: they waited"

# ---- killed ---------------------------------------------------------------------
for step in 1 30 77 200; do
    rank=$(($step % 4))
    what="rank $rank killed at step $step"
    MOE_DIE=$rank:$step timeout 120 "$R" -q --json $M --prompts "$T/prompts" -n 12 --plan "$T/plan.json" --comm ucx >"$T/out" 2>"$T/err" || fail "$what: exit $?: $(cat "$T/err")"
    check "lost(j) == of(j, $rank) and len(lost(j)) in (2, 3, 4) and [r['lost'] for r in j['ranks']] == [k == $rank for k in range(4)]"
    check 'all(a == b for i, (a, b) in enumerate(zip(texts(j), texts(w))) if i not in lost(j))'
done
# When all work is done, a dead rank loses nothing: the next one reports, and the process that started them
# prints the report once.
for at in 0:report 0:printing 0:reported 3:report,0:report 0:report,1:printing 0:printing,1:report,2:reported; do
    what="killed at $at"
    MOE_DIE=$at timeout 120 "$R" -q --json $M --prompts "$T/prompts" -n 12 --ranks 4 --comm ucx >"$T/out" 2>"$T/err" || fail "$what: exit $?: $(cat "$T/err")"
    [ "$(wc -l <"$T/out")" = 1 ] || fail "$what: $(wc -l <"$T/out") lines"
    check "texts(j) == texts(w)"
done
what="one killed when it reports, another at a step"
MOE_DIE=0:report,1:30 timeout 120 "$R" -q --json $M --prompts "$T/prompts" -n 12 --plan "$T/plan.json" --comm ucx >"$T/out" 2>"$T/err" || fail "$what: exit $?: $(cat "$T/err")"
check "lost(j) == of(j, 1) and [r['lost'] for r in j['ranks']] == [True, True, False, False]"
what="--score, the reporting rank killed"
MOE_DIE=0:report ok "$R" -q --json $M --score "$T/text" --window 64 --ranks 4 --comm ucx
check_score
MOE_DIE=0:report refused 17 "lost with rank 0" -q $M --prompt "In the" -n 12 --ranks 4 --comm ucx
MOE_DIE=0:report,1:report refused 17 "2 of 2 ranks were ended by signals, and none has reported" -q $M --prompts "$T/prompts" -n 2 --ranks 2 --comm ucx
MOE_DIE=2:40 refused 17 "rank 2 gone, and with it the only copies of 24 experts: 16, 17, 18, 19 ... of layer 1" -q $M --prompts "$T/prompts" -n 12 --ranks 4 --comm ucx
MOE_DIE=0:30 refused 17 "lost with rank 0" -q $M --prompt "In the" -n 12 --plan "$T/plan.json" --comm ucx

# A rank that hangs (it is stopped, so that its sockets stay open) is found by the timeout.
what="a rank that hangs"
"$R" --json $M --prompts "$T/prompts" -n 400 --ignore-eos --plan "$T/plan.json" --comm ucx --rank-timeout 2 >"$T/out" 2>"$T/err" &
run=$!
until grep -q "all 4 ranks are there" "$T/err"; do # a rank that is lost before ends the run
    kill -0 $run 2>/dev/null || fail "$what: $(cat "$T/err")"
    sleep 0.02
done
hung=$(sed -n 's/^rank 1 is process //p' "$T/err")
kill -STOP "$hung" 2>/dev/null
start=$(date +%s)
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -s "$T/out" ] && break
    sleep 1
done
kill -KILL "$hung" 2>/dev/null
wait $run || fail "$what: exit $?: $(cat "$T/err")"
check "lost(j) in ([], of(j, 1))"
echo "hung rank: reported after $(($(date +%s) - $start)) s"

# A rank hangs when it is to report: the next one reports after the timeout, and the hanging process is
# killed at last.
what="the reporting rank hangs"
MOE_DIE=0:hang timeout 120 "$R" --json $M --prompts "$T/prompts" -n 12 --ranks 3 --comm ucx --rank-timeout 2 >"$T/out" 2>"$T/err" || fail "$what: exit $?: $(cat "$T/err")"
[ "$(wc -l <"$T/out")" = 1 ] && grep -q "rank 0 was ended by signal 9" "$T/err" || fail "$what: $(cat "$T/err")"
check "texts(j) == texts(w) and [r['lost'] for r in j['ranks']] == [True, False, False]"

# ---- two ranks here, two in another network namespace ----------------------------
cat >"$T/net.sh" <<'N'
ip link set lo up && mount -t sysfs sysfs /sys || exit 77
unshare -nm sh -c 'mount -t sysfs sysfs /sys && exec sleep 300' &
other=$!
trap 'kill $other' EXIT
i=0
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ] && [ "$(cat /proc/$other/comm)" = sleep ]; do
    i=$(($i + 1)); [ $i -lt 200 ] || exit 77
    sleep 0.05
done
there() { nsenter -t $other -n -m --wd="$PWD" "$@"; }
ip link add veth0 type veth peer name veth1 netns $other || exit 77
ip addr add 10.77.0.1/24 dev veth0 && ip link set veth0 up && there ip link set lo up && there ip addr add 10.77.0.2/24 dev veth1 && there ip link set veth1 up || exit 77
i=0
until ip link show veth0 | grep -q 'state UP' && there ip link show veth1 | grep -q 'state UP'; do
    i=$(($i + 1)); [ $i -lt 200 ] || exit 77
    sleep 0.05
done
at="--comm ucx --ranks 4 --rendezvous 10.77.0.1:7000"
"$R" -q --json $M "$@" $at --rank 1 & one=$!
there "$R" -q --json $M "$@" $at --rank 2 & two=$!
there "$R" -q --json $M "$@" $at --rank 3 & three=$!
"$R" -q --json $M "$@" $at --rank 0 || exit 1
wait $one && wait $two && wait $three || exit 2
[ "$(cat /sys/class/net/veth0/statistics/tx_bytes)" -gt 100000 ] || exit 3
N
command -v ip >/dev/null && command -v nsenter >/dev/null && unshare -Urnm true 2>/dev/null || { echo "t-ep-ucx: $checks checks; no network namespaces here"; exit 0; }
export R M
for plan in "" "--plan $T/plan.json"; do
    what="two network namespaces $plan"
    timeout 180 unshare -Urnm sh "$T/net.sh" --prompts "$T/prompts" -n 12 $plan >"$T/out" 2>"$T/err"
    r=$?
    [ $r = 77 ] && { cat "$T/err"; echo "t-ep-ucx: $checks checks; network namespaces do not work here"; exit 0; }
    [ $r = 0 ] || { cat "$T/err"; fail "$what: exit $r"; }
    check 'texts(j) == texts(w) and len(texts(j)) == 12'
done
timeout 180 unshare -Urnm sh "$T/net.sh" --score "$T/text" --window 64 >"$T/out" 2>"$T/err" || fail "$what: --score: exit $?"
check_score
echo "t-ep-ucx: $checks checks"
