#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-run --keep and --attach through the stand-in for NVIDIA's driver, which shares memory by descriptors as the
# driver does: what an engine that has attached computes is what the processor computes; who dies does not hurt the
# others; sockets, keepers and engines that are not what they should be; calls of the driver that fail.
. tests/common.sh
need_tool moe-run moe-quantize moe-convert
need_python
F=tests/data/tiny-k2 S=$T/socket keeper=
need_standin
export LD_LIBRARY_PATH="$B/shim"
trap '[ -z "$keeper$fake" ] || kill -9 $keeper $fake 2>/dev/null; rm -rf "$T"' EXIT
fake=
same() { cmp "$T/$1" "$T/$2" || fail "$1 and $2 differ"; count; }
# until TEXT FILE: waits until the file has the text
until_says() { i=0; until grep -qF "$1" "$2" 2>/dev/null; do i=$((i + 1)); [ $i -lt 300 ] || { cat "$2"; fail "no '$1' within 30 s"; }; sleep 0.1; done; }
# keep ARGUMENT...: starts a keeper, and waits until it is ready
keep() { rm -f "$T/keep.err"; "$RUN" --device cuda --keep "$S" "$@" >"$T/keep.out" 2>"$T/keep.err" </dev/null & keeper=$!; until_says "ready: GPU " "$T/keep.err"; }
# ended CODE: the keeper ends with this code, and its socket is gone
ended() { got=0; wait $keeper || got=$?; keeper=; [ $got = "$1" ] || { cat "$T/keep.err"; fail "the keeper's exit is $got, not $1"; }
    [ ! -e "$S" ] || fail "the keeper has left its socket"; count; }
stop() { kill -TERM $keeper; ended 0; }
attach() { "$RUN" -q --device cuda --attach "$S" "$@" </dev/null; }
# no CODE TEXT ARGUMENT...: moe-run ends with this code and one sentence with the text
no() { want=$1 text=$2; shift 2; got=0; timeout 60 "$RUN" "$@" >"$T/out" 2>"$T/err" </dev/null || got=$?
    [ $got = "$want" ] || { cat "$T/err"; fail "exit $got, not $want: $*"; }
    [ "$(wc -l <"$T/err")" = 1 ] && grep -qF -- "$text" "$T/err" || { cat "$T/err"; fail "not one line with '$text': $*"; }; count; }
line="--tokens 1,2,3 -n 5 --context 40 --ignore-eos"
"$BIN/moe-run" -q $F/int4 $line >"$T/right" || fail "the processor"

# ---- what is computed ----
ok "$BIN/moe-quantize" -q --quantize all-linear --tensor-type kv_b_proj=nvfp4 $F/int4 -o "$T/all.moe"
ok "$BIN/moe-convert" -q "$T/all.moe" --to hf-nvfp4 -o "$T/rows"
for m in $F/bf16 $F/fp8 "$T/all.moe" "$T/rows"; do
    "$BIN/moe-run" -q "$m" --prompt 'And it came to pass' -n 9 --context 40 --trace "$T/cpu.trace" >"$T/cpu" || fail "$m: the processor"
    keep "$m"
    attach "$m" --prompt 'And it came to pass' -n 9 --context 40 --trace "$T/cuda.trace" >"$T/cuda" || fail "$m: --attach"
    same cpu cuda; same cpu.trace cuda.trace
    [ "$m" = "$T/all.moe" ] || { stop; continue; }
    # what follows from options is not kept: engines with others use the same keeper
    for a in "--activations nvfp4" "--activations nvfp4-search"; do
        "$BIN/moe-run" -q "$m" $a $line >"$T/cpu" 2>/dev/null || fail "$a"
        attach "$m" $a $line >"$T/cuda" 2>/dev/null || fail "$a --attach"
        same cpu cuda
    done
    "$RUN" -q "$m" --device cuda --arithmetic fast $line >"$T/loaded" && attach "$m" --arithmetic fast $line >"$T/attached" || fail "fast"
    same loaded attached
    stop
done
[ "$(grep -c 'engine 1 has attached' "$T/keep.err")" = 1 ] || { cat "$T/keep.err"; fail "the keeper's lines"; }

# ---- what is said about it ----
keep --json $F/int4
attach --json $F/int4 $line >"$T/json" || fail "--json"
python3 -c 'import json, sys
l = json.load(open(sys.argv[1]))["load"]
assert l["path"] == "attached" and not any(l[k] for k in l if k not in ("path", "seconds")), l' "$T/json" || { cat "$T/json"; fail "JSON of an engine"; }
kill -INT $keeper; ended 0
python3 -c 'import json, sys
j = json.load(open(sys.argv[1]))
assert list(j) == ["device", "attached", "load"] and j["attached"] == 1 and j["load"]["bytes_read"] > 100000 and j["load"]["bytes"] > 100000, j' "$T/keep.out" || { cat "$T/keep.out"; fail "JSON of a keeper"; }
count

# ---- a keeper, and engines of all kinds ----
mask=$(umask); umask 0; keep $F/int4; umask "$mask"
[ "$(stat -c %a "$S")" = 600 ] || fail "the socket's mode is $(stat -c %a "$S")"
python3 tests/shim/keep.py terms "$S" >"$T/terms" || fail "no offer"
[ "$(wc -l <"$T/terms")" = 4 ] || { cat "$T/terms"; fail "not four terms"; }
for i in 1 2 3; do attach $F/int4 $line >"$T/text.$i" & eval "e$i=\$!"; done
for i in 1 2 3; do eval "wait \$e$i" || fail "engine $i of three at once"; same right text.$i; done
python3 tests/shim/keep.py hostile "$S" >"$T/hostile" 2>&1 || { cat "$T/hostile"; fail "a hostile engine"; }
attach $F/int4 $line >"$T/text" || fail "after a hostile engine"; same right text
python3 tests/shim/keep.py silent "$S" >"$T/silent" & silent=$!
# an engine that is killed while it computes
attach $F/int4 --tokens 1,2,3 -n 400 --context 500 --ignore-eos >"$T/killed" & engine=$!
i=0; until [ -s "$T/killed" ]; do i=$((i + 1)); [ $i -lt 300 ] || fail "no text of an engine"; sleep 0.1; done
kill -9 $engine; wait $engine 2>/dev/null
attach $F/int4 $line >"$T/text" || fail "after an engine was killed"; same right text
# memory for the buffers and the graphs of steps, and not for the weights besides: they are there already
MOE_SHIM_MEMORY=67108864; export MOE_SHIM_MEMORY
no 10 "a context of 40 needs" $F/int4 --device cuda $line
attach $F/int4 $line >"$T/text" || fail "where memory holds the buffers alone"; same right text
unset MOE_SHIM_MEMORY

# what differs
no 15 "the keeper has another model: $(sed -n 's/^model.//p' "$T/terms"), and for '$F/bf16' this process needs " $F/bf16 --device cuda --attach "$S" $line
MOE_SHIM_DEVICES=2; export MOE_SHIM_DEVICES
no 15 "the keeper has another GPU: GPU-7374616e-642d-696e-2066-6f7220475030, and for '$F/int4' this process needs GPU-7374616e-642d-696e-2066-6f7220475031" $F/int4 --device cuda:1 --attach "$S" $line
unset MOE_SHIM_DEVICES
cp -r $F/int4 "$T/copy"; touch -d '2001-01-01' "$T"/copy/*
no 15 "the keeper has another model" "$T/copy" --device cuda --attach "$S" $line

# what else is at the path
no 4 "is the socket of a process that listens there" $F/int4 --device cuda --keep "$S"
attach $F/int4 $line >"$T/text" || fail "after a second keeper was refused"; same right text
wait $silent; [ "$(cat "$T/silent")" -ge 9 ] && [ "$(cat "$T/silent")" -le 25 ] || fail "a silent engine was kept $(cat "$T/silent") s"; count

# a keeper that is killed while an engine computes
attach $F/int4 --tokens 1,2,3 -n 60 --context 100 --ignore-eos >"$T/lives" & engine=$!
i=0; until [ -s "$T/lives" ]; do i=$((i + 1)); [ $i -lt 300 ] || fail "no text of an engine"; sleep 0.1; done
kill -9 $keeper; wait $keeper 2>/dev/null; keeper=
wait $engine || fail "the engine of a keeper that was killed"
"$BIN/moe-run" -q $F/int4 --tokens 1,2,3 -n 60 --context 100 --ignore-eos >"$T/cpu" || fail "the processor"
same cpu lives
[ -S "$S" ] || fail "a killed keeper has removed its socket"
no 17 "has nobody who listens there" $F/int4 --device cuda --attach "$S" $line
keep $F/int4 # in the place of the stale socket
attach $F/int4 $line >"$T/text" || fail "after a stale socket"; same right text
stop

# ---- keepers that are none ----
# fake LIE: starts one
fake() { rm -f "$T/fake"; python3 tests/shim/keep.py fake "$S" "$1" "$T/terms" >"$T/fake" 2>&1 & fake=$!; until_says listens "$T/fake"; }
lies() { fake "$1"; no "$2" "$3" $F/int4 --device cuda --attach "$S" $line; kill -9 $fake; wait $fake 2>/dev/null; fake=; }
lies gone 17 "the keeper went away"
lies noise 17 "it sends what is no message"
lies version 15 "the keeper speaks version 7 of the protocol, and this program version 1"
lies failed 17 'the keeper: the sky \x1b[31mis falling'
lies long 17 "is no keeper of weights, or a damaged one: Message too long"
lies terms 17 "it offers other things than this version does"
lies few 17 "it offers other things than this version does"
lies stream 17 "is the socket of another program"
lies "other=layout" 15 "the keeper has another layout: another, and for '$F/int4' this process needs "
lies "other=set of experts" 15 "the keeper has another set of experts: another, and for '$F/int4' this process needs all "
lies leave 17 "the keeper went away"
lies null 17 "cuMemImportFromShareableHandle"
lies none 17 "it gives something else than it was asked for"
lies less 17 "it gives something else than it was asked for"
lies more 17 "is no keeper of weights, or a damaged one: "
lies shift 17 "it gives something else than it was asked for"
lies again 17 "it gives something else than it was asked for"
for l in silent after; do
    start=$(date +%s)
    lies $l 17 "the keeper has said nothing for 10 s"
    [ $(($(date +%s) - start)) -le 40 ] || fail "a silent keeper held an engine up"
done
rm -f "$S"

# ---- another user ----
if [ "$(id -u)" = 0 ] && setpriv --reuid=65534 --clear-groups true 2>/dev/null; then
    mkdir -m 777 "$T/open"; chmod 711 "$T"; cp tests/shim/keep.py "$T/open/"
    setpriv --reuid=65534 --regid=65534 --clear-groups python3 "$T/open/keep.py" fake "$T/open/s" silent >"$T/fake" 2>&1 & fake=$!
    i=0; until [ -S "$T/open/s" ] || [ $i = 100 ]; do i=$((i + 1)); sleep 0.1; done
    if [ -S "$T/open/s" ]; then
        no 17 "is the socket of another user (uid 65534, this is 0)" $F/int4 --device cuda --attach "$T/open/s" $line
        kill -9 $fake; wait $fake 2>/dev/null
        no 4 "is the socket of another user (uid 65534, this is 0)" $F/int4 --device cuda --keep "$T/open/s"
    fi
    kill -9 $fake 2>/dev/null; fake=
    # with the right to open any file, but as another user: the keeper itself has to refuse
    S=$T/open/mine; keep $F/int4
    as="setpriv --reuid=65534 --regid=65534 --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override"
    if $as true 2>/dev/null; then
        ! $as python3 "$T/open/keep.py" terms "$S" >"$T/out" 2>"$T/err" || fail "another user got an offer"
        grep -q "AssertionError: b''" "$T/err" || { cat "$T/err"; fail "another user was not turned away by the keeper"; }
        count
    fi
    stop; S=$T/socket
fi

# ---- what is refused ----
touch "$T/file"; ln -s nowhere "$T/link"
no 4 "exists, and is no socket" $F/int4 --device cuda --keep "$T/file"
no 4 "exists, and is no socket" $F/int4 --device cuda --keep "$T/link"
no 2 "the path of a socket has 1 to 107 bytes" $F/int4 --device cuda --keep "$T/$(printf '%0100d' 0)"
no 2 "the path of a socket has 1 to 107 bytes" $F/int4 --device cuda --attach "$T/$(printf '%0100d' 0)" $line
no 3 "the directory of the socket" $F/int4 --device cuda --keep "$T/none/socket"
no 3 "(moe-run MODEL --device cuda --keep SOCKET starts a keeper)" $F/int4 --device cuda --attach "$S" $line
no 3 "is no socket" $F/int4 --device cuda --attach "$T/file" $line
no 3 "is no socket" $F/int4 --device cuda --attach "$T" $line
no 14 "--keep is about the memory of a GPU (--device cuda)" $F/int4 --keep "$S"
no 14 "--attach is about the memory of a GPU (--device cuda)" $F/int4 --device cpu --attach "$S" $line
for o in "--prompt x" "--tokens 1" "-n 3" "--chat" "--attach $S" "--activations nvfp4" "--context 9" "--mla-norm-eps 1e-6" --bos; do no 2 "--keep" $F/int4 --device cuda --keep "$S" $o; done
no 2 "--load-from" $F/int4 --device cuda --attach "$S" --load-from direct $line
no 3 "does not exist" "$T/nothing" --device cuda --keep "$S"
MOE_SHIM_HAS=vmm no 17 "cannot hand its memory to another process" $F/int4 --device cuda --keep "$S"
[ ! -e "$S" ] || fail "a keeper that could not be has left its socket"

# ---- calls of the driver that fail ----
# judge: a keeper or an engine that failed has ended with 17 and one sentence
judge() { [ $got = 17 ] || { cat "$T/err"; fail "$MOE_SHIM_FAIL: exit $got"; }
    [ "$(wc -l <"$T/err")" = 1 ] || { cat "$T/err"; fail "$MOE_SHIM_FAIL: not one sentence"; }; failed=$((failed + 1)); }
failed=0 n=1
keep $F/int4
while [ $n -lt 400 ]; do
    MOE_SHIM_FAIL=any:$n:$([ $((n % 3)) = 0 ] && echo 2 || echo 999); export MOE_SHIM_FAIL
    got=0; attach $F/int4 $line >"$T/text" 2>"$T/err" || got=$?
    if [ $got = 0 ]; then same right text; else judge; fi
    unset MOE_SHIM_FAIL; count
    n=$((n + (n < 12 ? 5 : n < 110 ? 9 : 97)))
done
[ $failed -gt 8 ] || fail "only $failed of the calls of an engine mattered"
attach $F/int4 $line >"$T/text" || fail "after engines failed"; same right text
stop
failed=0
for f in any:3:999 any:60:2 any:300:999 cuMemCreate:1:2 cuMemCreate:3:999 cuMemSetAccess:2:1 cuMemcpyHtoDAsync_v2:1:700 cuEventSynchronize:1:214; do
    MOE_SHIM_FAIL=$f; export MOE_SHIM_FAIL
    got=0; timeout --preserve-status -s TERM 8 "$RUN" -q --device cuda --keep "$S" $F/int4 >"$T/out" 2>"$T/err" </dev/null || got=$?
    [ $got = 0 ] || judge # 0: it was ready, and ended by the signal
    count
    unset MOE_SHIM_FAIL
    [ ! -e "$S" ] || fail "$f: a keeper that failed has left its socket"
done
[ $failed -gt 6 ] || fail "only $failed of the calls of a keeper mattered"
# in an export: an engine is told, and the next one is served; but a GPU that is lost ends the keeper
MOE_SHIM_FAIL=cuMemExportToShareableHandle:2:2; export MOE_SHIM_FAIL; keep $F/int4; unset MOE_SHIM_FAIL
no 17 "the keeper: GPU 0: cuMemExportToShareableHandle: out of memory" $F/int4 --device cuda --attach "$S" $line
attach $F/int4 $line >"$T/text" || fail "after an export that failed"; same right text
stop
MOE_SHIM_FAIL=cuMemExportToShareableHandle:2:719; export MOE_SHIM_FAIL; keep $F/int4; unset MOE_SHIM_FAIL
no 17 "the keeper: GPU 0: cuMemExportToShareableHandle" $F/int4 --device cuda --attach "$S" $line
ended 17
# a signal while the model is loaded
need_faults
got=0; shim MOE_FAULT=pread:20:SIGTERM "$RUN" -q --device cuda --keep "$S" $F/int4 >"$T/out" 2>"$T/err" </dev/null || got=$?
[ $got = 143 ] && [ ! -e "$S" ] || { cat "$T/err"; fail "SIGTERM while a keeper loads: exit $got"; }
count
echo "$checks checks"
