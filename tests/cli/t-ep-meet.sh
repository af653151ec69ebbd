#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests how ranks meet over UCX: what they must have in common and what may differ, the secret, strangers
# that connect to the port, and where ranks listen.
. tests/cli/ep.sh
sanitized && skip "UCX is not built with sanitizers"
"$R" -q $M --prompt x -n 1 --ranks 2 --comm ucx >"$T/out" 2>"$T/err" || {
    grep -q "libucx" "$T/err" && skip "no UCX (libucx-dev at build time, libucx0 at run time)"
    cat "$T/err"
    fail "exit $?: two ranks over UCX"
}
head -n 2 "$T/prompts" >"$T/two" && sed 's/a/b/' "$T/two" >"$T/other" && cp "$T/two" "$T/copy"
sed '1s/^./Q/' "$T/text" >"$T/text-too"
ok "$R" -q --json $M --prompts "$T/two" -n 4
mv "$T/out" "$T/one"

# pair ZERO... / ONE...: runs rank 0 and rank 1 with these arguments after those that both have; $r0 and $r1
# are their exit codes.  E1: rank 1's environment.
E1=
pair()
{
    zero= port=$(free_port)
    while [ "$1" != / ]; do zero="$zero $1"; shift; done
    shift
    env $E1 timeout 60 "$R" -q --comm ucx --ranks 2 --rank 1 --rendezvous ":$port" "$@" >"$T/out1" 2>"$T/err1" &
    timeout 60 "$R" -q --json --comm ucx --ranks 2 --rank 0 --rendezvous "127.0.0.1:$port" $zero >"$T/out" 2>"$T/err"
    r0=$?
    wait $!
    r1=$?
}
# differs WHAT ZERO... / ONE...: both ranks refuse, and name WHAT.
differs()
{
    name=$1
    shift
    pair "$@"
    [ "$r0 $r1" = "15 15" ] || { cat "$T/err" "$T/err1"; fail "another $name: exits $r0 and $r1"; }
    grep -q "rank 1 has another model, plan or settings than rank 0: $name differs" "$T/err" || { cat "$T/err"; fail "another $name"; }
    [ "$(grep -c "rank 1 was told by rank 0: .*$name differs" "$T/err1")" = 1 ] || { cat "$T/err1"; fail "rank 1 does not say what differs"; }
    [ ! -s "$T/out1" ] || fail "rank 1 prints a report"
    count
}
# alike ZERO... / ONE...: both succeed, and the texts are those of one rank.
alike()
{
    what="$*"
    pair "$@"
    [ "$r0 $r1" = "0 0" ] || { cat "$T/err" "$T/err1"; fail "$what: exits $r0 and $r1"; }
    check 'texts(j) == texts(w)'
}

P="$M --prompts $T/two -n 4"
cp -r $M "$T/elsewhere"
alike $P -t 1 / "$T/elsewhere" --prompts "$T/copy" -n 4 -t 2 --memory 1G --max-sequences 1 --rank-timeout 20 --device cpu
differs --prompts $P / $M --prompts "$T/other" -n 4
printf '{"prompt": "a", "seed": %s}\n' 1 >"$T/seed-1.jsonl"
printf '{"prompt": "a", "seed": %s}\n' 2 >"$T/seed-2.jsonl"
differs --prompts $M --prompts "$T/seed-1.jsonl" -n 4 / $M --prompts "$T/seed-2.jsonl" -n 4
for salt in x y; do printf '{"prompt": "a", "cache_salt": "%s"}\n' $salt >"$T/salt-$salt.jsonl"; done
differs --prompts $M --prompts "$T/salt-x.jsonl" -n 4 / $M --prompts "$T/salt-y.jsonl" -n 4
differs --n-predict $P / $P -n 5
differs --batch-tokens $P / $P --batch-tokens 7
differs --temperature $P / $P --temperature 0.5
differs --seed $P --temperature 1 --seed 1 / $P --temperature 1 --seed 2
differs --stop $P --stop a / $P --stop a --stop b
differs --activations $P / $P --activations int16
differs --record-routing $P / $P --record-routing "$T/routing"
differs --context $P -n -1 --context 90 / $P -n -1 --context 91
differs --score $M --score "$T/text" --window 64 / $M --score "$T/text-too" --window 64
if [ -x "$GEN/genmodel" ]; then # a fine-tune: the same config, names and sizes
    ok "$GEN/genmodel" -o "$T/base" --layers 3 --experts 4 --top-k 4 --seed 1
    ok "$GEN/genmodel" -o "$T/tuned" --layers 3 --experts 4 --top-k 4 --seed 2
    differs MODEL "$T/base" --tokens 1,2 -n 2 / "$T/tuned" --tokens 1,2 -n 2
fi
E1=MOE_CPU=ref
[ "${MOE_CPU:-}" = ref ] || ! grep -q avx2 /proc/cpuinfo || differs MOE_CPU $P / $P
E1=

# ---- secrets ------------------------------------------------------------------
printf 'a secret of all ranks\n' >"$T/secret"
printf 'another secret of strangers' >"$T/wrong"
chmod 600 "$T/secret" "$T/wrong"
alike $P --secret-file "$T/secret" / $P --secret-file "$T/secret"
what="--secret-file, ranks that are started here"
ok "$R" -q --json $P --ranks 2 --comm ucx --secret-file "$T/secret"
check 'texts(j) == texts(w)'
port=$(free_port)
timeout 60 "$R" -q --json $P --comm ucx --ranks 2 --rank 0 --rendezvous :$port --secret-file "$T/secret" >"$T/kept" 2>"$T/err0" &
zero=$!
refused 15 "wants a secret, rank 1 has none" -q $P --comm ucx --ranks 2 --rank 1 --rendezvous :$port
refused 15 "has another secret than rank 1" -q $P --comm ucx --ranks 2 --rank 1 --rendezvous :$port --secret-file "$T/wrong"
ok "$R" -q $P --comm ucx --ranks 2 --rank 1 --rendezvous :$port --secret-file "$T/secret"
wait $zero || { cat "$T/err0"; fail "rank 0 with a secret: exit $?"; }
mv "$T/kept" "$T/out"
check 'texts(j) == texts(w)'
chmod 640 "$T/secret"
refused 2 "others can reach the secret" $P --ranks 2 --comm ucx --secret-file "$T/secret"
# A rank with wrong options tells the other ranks, and all end at once.
wrong_words()
{
    begin=$(date +%s)
    pair $P --secret-file "$T/good" / $P "$@"
    [ "$r0 $r1" = "2 2" ] && grep -q "rank 1: .*$told" "$T/err" ||
        { cat "$T/err" "$T/err1"; fail "$*: exits $r0 and $r1"; }
    [ $(($(date +%s) - begin)) -le 5 ] || fail "$*: rank 0 learnt it after $(($(date +%s) - begin)) s"
    count
}
cp "$T/secret" "$T/good" && chmod 600 "$T/good"
told="unknown option '--bogus'"
wrong_words --bogus --secret-file "$T/good"
told="option '--n-predict' wants a whole number, not 'x'"
wrong_words -n x --secret-file "$T/good" --json
told="threads 0: want 1 to 4096"
wrong_words --threads 0 --secret-file "$T/good"
told="unknown --mla 'x'"
wrong_words --mla x --secret-file "$T/good"
printf 'short' >"$T/wrong"
refused 2 "the secret has 5 bytes" $P --ranks 2 --comm ucx --secret-file "$T/wrong"
refused 3 "cannot open the secret" $P --ranks 2 --comm ucx --secret-file "$T/nowhere"
for bad in 99999 0 -1 7000x ssh; do
    refused 2 "the port is not a number from 1 to 65535" $P --ranks 2 --comm ucx --rank 0 --rendezvous "127.0.0.1:$bad"
done
refused 2 "--secret-file goes with --comm ucx" $P --ranks 2 --secret-file "$T/wrong"

# ---- the user is told which ranks are waited for, unless --quiet ----
port=$(free_port)
alone() { timeout 3.5 "$R" $P --comm ucx --ranks 3 --rendezvous "127.0.0.1:$port" "$@" >"$T/out" 2>"$T/err"; }
alone --rank 0
grep -q "waiting for 2 of 3 ranks at '127.0.0.1:$port', rank 1 is the first of them, up to 120 s" "$T/err" || { cat "$T/err"; fail "who is waited for"; }
alone --rank 2
grep -q "rank 2 is waiting for rank 0 at '127.0.0.1:$port', up to 120 s" "$T/err" || { cat "$T/err"; fail "rank 2 waits"; }
alone --rank 0 -q
! grep -q waiting "$T/err" || fail "--quiet tells who is waited for"
count

# ---- strangers that connect, and where ranks can be reached ------------------------------
ok python3 - "$R" $M "$T/two" <<'P'
import os, re, socket, struct, subprocess, sys, time
run, model, prompts = sys.argv[1:]
version = int(re.search(r"MOE_WIRE_VERSION = (\d+)", open("runtime/comm/wire.h").read())[1])
with socket.socket() as s:
    s.bind(("127.0.0.1", 0))
    port = s.getsockname()[1]
words = [run, "-q", model, "--prompts", prompts, "-n", "2", "--comm", "ucx", "--ranks", "2", "--rendezvous", f"127.0.0.1:{port}", "--rank"]
def start(rank): return subprocess.Popen(words + [str(rank)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
def call():
    for _ in range(1000):
        try: return socket.create_connection(("127.0.0.1", port), timeout=30)
        except OSError: time.sleep(0.02)
def meet(before):
    p = [start(0)]
    kept = before()
    begin = time.time()
    p.append(start(1))
    said = [x.communicate(timeout=100) for x in p]
    return [x.returncode for x in p], time.time() - begin, said, kept
# Silent connections, more than the rendezvous keeps; port scanners; one that announces a huge message.
def crowd():
    c = [call() for _ in range(80)]
    for i, s in enumerate(c):
        if i % 3 == 1: s.sendall(b"GET / HTTP/1.0\r\n\r\n" * (i % 5 + 1))
        if i % 3 == 2: s.sendall(b"MOERANKS" + struct.pack("<IiiIQQ", version, 1, 2, 3, 0, 2 ** 63))
    return c
codes, seconds, said, kept = meet(crowd)
assert codes == [0, 0] and seconds < 8, (codes, seconds, said)
# A rank of an earlier version, which reports a failure as a struct in memory: the exit code is a documented
# one.
def earlier():
    s = call()
    s.sendall(b"MOERANKS" + struct.pack("<IiiIQQ", 2, 1, 2, 14, 0, 1796) + struct.pack("<I", 999) + b"A" * 1792)
    return s
p = start(0)
kept = earlier()
said = p.communicate(timeout=100)
assert p.returncode == 15 and b"another version" in said[1], (p.returncode, said)
# The ranks of one host listen only at its loopback address.
p = subprocess.Popen([run, model, "--prompts", prompts, "-n", "100000", "--ignore-eos", "--comm", "ucx", "--ranks", "2"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
ranks = []
for line in p.stderr:
    found = re.match(rb"rank \d is process (\d+)", line)
    if found: ranks.append(int(found[1]))
    if b"ranks are there" in line: break
at = set()
for r in ranks:
    links = {os.readlink(f"/proc/{r}/fd/{f}") for f in os.listdir(f"/proc/{r}/fd") if os.path.islink(f"/proc/{r}/fd/{f}")}
    for kind in "tcp", "tcp6":
        for row in (x.split() for x in open(f"/proc/net/{kind}").read().splitlines()[1:]):
            if row[3] == "0A" and f"socket:[{row[9]}]" in links: at.add(row[1].split(":")[0])
p.kill()
p.wait()
assert at == {"0100007F"}, at
P
count
echo "t-ep-meet: $checks checks"
