#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Kills ranks at random moments while sequences are generated and all experts have copies on living ranks:
# 100 threads that stop without a message, 100 processes ended by SIGKILL, half of these from outside; then
# as many processes while they report, in every second run together with the next rank.  Every sequence that
# the dead rank did not own comes out as without the death, its own are reported as lost, and nothing hangs.
. tests/cli/ep.sh
KILLS=${KILLS:-100}
plan plan-4 4 70 1; plan plan-6 6 100 2
ok "$R" -q --json $M --prompts "$T/prompts" -n 24
mv "$T/out" "$T/one"
kinds=${KINDS:-local}
[ -n "${KINDS:-}" ] || { "$R" -q $M --prompt x -n 1 --ranks 2 --comm ucx >/dev/null 2>&1 && kinds="local ucx"; }
cat >"$T/kill.py" <<'P'
import json, os, random, re, signal, subprocess, sys, tempfile, time
run, model, prompts, one, plans, kind, count, timeout = sys.argv[1:9]
count, timeout, plans = int(count), float(timeout), plans.split(",")
want = json.load(open(one))["sequences"]
draw = random.Random(20261125)
worst, lost = 0, 0

def kill_from_outside(p, err, rank):
    pid = None
    while pid is None and p.poll() is None:
        err.seek(0)
        so_far = err.read()
        m = re.search(r"rank %d is process (\d+)\n" % rank, so_far)
        pid = int(m.group(1)) if m and "ranks are there" in so_far else None
        time.sleep(0.002)
    time.sleep(draw.random() * 0.12)
    try:
        if pid: os.kill(pid, signal.SIGKILL)
    except ProcessLookupError: pass

def trial(what, plan, ranks, die, rank):
    """One run; die: MOE_DIE, or None: `rank` is killed from outside.  The ranks that it says are lost; only the sequences of `rank` may be."""
    global worst, lost
    start = time.monotonic()
    env = dict(os.environ, MOE_DIE=die) if die else dict(os.environ)
    with tempfile.TemporaryFile("w+") as out, tempfile.NamedTemporaryFile("w") as to, open(to.name) as err:
        p = subprocess.Popen([run, "--json", model, "--prompts", prompts, "-n", "24", "--plan", plan, "--comm", kind, "--rank-timeout", str(timeout)],
                             stdout=out, stderr=to, env=env, stdin=subprocess.DEVNULL)
        if not die: kill_from_outside(p, err, rank)
        try:
            code = p.wait(timeout=60 + 4 * timeout)
        except subprocess.TimeoutExpired:
            p.kill()
            sys.exit(what + ": hangs")
        out.seek(0), err.seek(0)
        text, said = out.read(), err.read()
    if code: sys.exit("%s: exit %d: %s" % (what, code, said))
    if text.count("\n") != 1: sys.exit("%s: printed %d lines" % (what, text.count("\n")))
    got = json.loads(text)
    gone = [r["rank"] for r in got["ranks"] if r["lost"]]
    for k, (s, w) in enumerate(zip(got["sequences"], want)):
        if s["finish_reason"] == "lost":
            if rank not in gone or k % ranks != rank or "prompt %d (line %d) was lost with rank %d" % (k, k + 1, rank) not in said:
                sys.exit("%s: sequence %d is lost" % (what, k))
            lost += 1
        elif (s["text"], s["tokens"]) != (w["text"], w["tokens"]):
            sys.exit("%s: sequence %d differs" % (what, k))
    worst = max(worst, time.monotonic() - start)
    return gone

def draw_plan(): return draw.choice([(p, int(re.search(r"plan-(\d+)", p).group(1))) for p in plans])

i, late = -1, 0
while i + 1 - late < count:  # so many during generation
    i += 1
    if late > count: sys.exit("%s: %d of %d kills came before or after generation" % (kind, late, i))
    plan, ranks = draw_plan()
    rank, step, outside = draw.randrange(ranks), draw.randrange(1, 500), kind == "ucx" and i % 2
    what = "%s %d: rank %d of %d, %s" % (kind, i, rank, ranks, "killed" if outside else "step %d" % step)
    gone = trial(what, plan, ranks, None if outside else "%d:%d" % (rank, step), rank)
    if gone not in ([], [rank]): sys.exit("%s: lost %s" % (what, gone))
    late += not gone

points = 0
while kind == "ucx" and points < count:  # while they report: the one whose turn it is, and the next; in every second run after a loss in generation
    plan, ranks = draw_plan()
    first = draw.randrange(ranks) if points % 2 else None
    turns = [r for r in range(ranks) if r != first][:draw.randrange(1, 3)]
    die = ",".join((["%d:%d" % (first, draw.randrange(1, 300))] if first is not None else []) + ["%d:%s" % (r, draw.choice(["report", "printing", "reported"])) for r in turns])
    what = "%s: MOE_DIE=%s of %d" % (kind, die, ranks)
    gone = trial(what, plan, ranks, die, first)
    if not set(gone) <= set(turns + [first]): sys.exit("%s: lost %s" % (what, gone))
    points += 1
print("%s: %d kills during generation, %d more before or after it, %d runs with kills while reporting; %d sequences lost, all of ranks dead before they had told them; longest run %.1f s, timeout %g s" %
      (kind, i + 1 - late, late, points, lost, worst, timeout))
P
for kind in $kinds; do
    timeout=2
    [ $kind = local ] || timeout=20
    python3 "$T/kill.py" "$R" $M "$T/prompts" "$T/one" "$T/plan-4.json,$T/plan-6.json" $kind "$KILLS" $timeout || fail "$kind"
done
