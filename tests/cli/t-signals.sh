#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests SIGINT and SIGTERM (Ctrl-C, the end that a scheduler sends) at eight moments of each tool's work.
# The tool stops at the next item with exit code 130 or 143 and one sentence, the same in JSON, and leaves
# nothing under the final name and nothing beside it but what --resume continues; or it had finished already.
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize moe-run moe-plan
need_helper genrouting
need_faults
F=tests/data/tiny-k2/bf16 stopped=0 whole=0
ok "$BIN/moe-convert" -q $F -o "$T/c.moe"
ok "$BIN/moe-quantize" -q $F --method max -o "$T/q.moe"
head -c 3000 CONTRIBUTING.md >"$T/text"

# What the sentence says has to be there: finished files, work on them, or nothing.
said_what_is_kept()
{
    units=$(ls "$T"/w/out.partial/*.json 2>/dev/null | grep -c '/\(dense\|layer-[0-9]*\)[.]json$') expect="nothing was finished yet"
    [ "$units" = 0 ] || expect="$units of [0-9]* files are finished and kept in '.*out.partial' (go on with the same command and --resume)"
    if [ "$units" = 0 ] && ls "$T"/w/out.partial/*.work >/dev/null 2>&1; then expect="no file is finished yet, what was computed for them is kept in '.*out.partial' (go on"; fi
    grep -q "\(interrupted\|terminated\): $expect" "$T/err" || { cat "$T/err"; ls "$T/w/out.partial"; fail "the sentence is not '$expect': $1"; }
}

eighths="1 2 3 4 5 6 7 8"
sanitized && eighths="2 7" # each run takes ten times as long there

# try KIND OUTPUT COMMAND...: OUTPUT is what the command writes, - when nothing
try()
{
    kind=$1 output=$2
    shift 2
    rm -rf "$T/w" "$T/want"; mkdir "$T/w"
    shim MOE_FAULT_COUNT="$T/counts" "$@" >"$T/want" 2>"$T/err" </dev/null || { cat "$T/err"; fail "$*"; }
    [ "$output" = - ] || mv "$output" "$T/w.want"
    n=$(awk -v k="$kind" '$1 == k { print $2 }' "$T/counts")
    for eighth in $eighths; do
        for sig in INT:130 TERM:143; do
            r=0
            shim MOE_FAULT="$kind:$((($n * $eighth + 7) / 8)):SIG${sig%:*}" "$@" --json >"$T/out" 2>"$T/err" </dev/null || r=$?
            if [ $r = 0 ]; then
                whole=$(($whole + 1))
                [ "$output" = - ] || diff -r "$output" "$T/w.want" >/dev/null || fail "$sig at $eighth/8: other bytes: $*"
            else
                stopped=$(($stopped + 1))
                [ $r = "${sig#*:}" ] || { cat "$T/err"; fail "exit $r, $sig at $eighth/8: $*"; }
                [ "$(wc -l <"$T/err")" = 1 ] && grep -q 'interrupted\|terminated' "$T/err" || { cat "$T/err"; fail "not one sentence, $sig at $eighth/8: $*"; }
                tr -d '\n ' <"$T/out" | grep -q "\"error\":{\"code\":$r," || { cat "$T/out"; fail "no error in JSON, $sig at $eighth/8: $*"; }
                [ ! -e "$T/w/out" ] || fail "something under the final name, $sig at $eighth/8: $*"
                left=$(ls -A "$T/w" | grep -v '^out.partial$')
                [ -z "$left" ] || fail "left $left, $sig at $eighth/8: $*"
                case $1 in *moe-convert|*moe-quantize)
                    said_what_is_kept "$*, $sig at $eighth/8"
                    ok "$@" --resume
                    diff -r "$output" "$T/w.want" >/dev/null || fail "other bytes after --resume, $sig at $eighth/8: $*" ;;
                esac
            fi
            rm -rf "$T/w"; mkdir "$T/w"
        done
    done
    rm -rf "$T/w.want"
}
try pread "$T/w/out" "$BIN/moe-convert" -q $F -t 2 -o "$T/w/out"
try pwrite "$T/w/out" "$BIN/moe-convert" -q $F --to nvfp4 -t 2 -o "$T/w/out"
try pwrite "$T/w/out" "$BIN/moe-quantize" -q "$T/c.moe" --method max -t 2 -o "$T/w/out"
try pread "$T/w/out" "$BIN/moe-convert" -q "$T/c.moe" --to hf -t 2 -o "$T/w/out"
try pread "$T/w/out" "$BIN/moe-convert" -q "$T/q.moe" --to hf-nvfp4 -t 2 -o "$T/w/out"
try pread "$T/w/out" "$BIN/moe-convert" -q "$T/q.moe" --to gguf -t 2 -o "$T/w/out"
try pread - "$BIN/moe-inspect" -q --verify "$T/q.moe" -t 2
try pread - "$BIN/moe-inspect" -q "$T/c.moe" --diff $F -t 2
try alloc - "$BIN/moe-run" -q $F --tokens 1,2,3 -n 8 --ignore-eos -t 2
try pwrite "$T/w/out" "$BIN/moe-run" -q $F --tokens 1,2,3 -n 0 -t 2 --trace "$T/w/out"
try alloc - "$BIN/moe-run" -q $F --score "$T/text" --window 64 -t 2
# moe-plan: statistics in windows, a fresh plan, one from an old plan, a check, an engine's file, a part.
layers=$(sed -n 's/.*"num_hidden_layers": *\([0-9]*\).*/\1/p' $F/config.json)
experts=$(sed -n 's/.*"n_routed_experts": *\([0-9]*\).*/\1/p' $F/config.json)
top=$(sed -n 's/.*"num_experts_per_tok": *\([0-9]*\).*/\1/p' $F/config.json)
dense=$(sed -n 's/.*"first_k_dense_replace": *\([0-9]*\).*/\1/p' $F/config.json)
for w in 1 4; do
    "$GEN/genrouting" experts=$experts layers=$(($layers - $dense)) first=$dense top=$top drift=0.4 windows=$w >"$T/stats$w"
done
plan() { try alloc "$T/w/out" "$BIN/moe-plan" -q "$T/c.moe" --ranks 4 --slots $(($experts + 4)) -t 2 "$@" -o "$T/w/out"; }
ok "$BIN/moe-plan" -q "$T/c.moe" --ranks 4 --slots $(($experts + 4)) --stats "$T/stats1" -o "$T/plan"
plan --stats "$T/stats1" --stats "$T/stats4" --survive 0 --baseline all --compare 2,8
plan --stats "$T/stats4" --from "$T/plan"
try alloc - "$BIN/moe-plan" -q verify "$T/plan" --stats "$T/stats1"
try alloc "$T/w/out" "$BIN/moe-plan" -q plot "$T/plan" -o "$T/w/out"
try alloc "$T/w/out" "$BIN/moe-plan" -q export "$T/plan" --to sglang -o "$T/w/out"
try pread "$T/w/out" "$BIN/moe-plan" -q stage "$T/plan" --model "$T/c.moe" --rank 1 -o "$T/w/out"
# A plan of K2's size on 1024 ranks takes minutes, most of them to prove what a lost rank costs: it can be
# stopped in every phase.
mkdir "$T/k2"
sed 's/"num_hidden_layers": *[0-9]*/"num_hidden_layers": 61/; s/"n_routed_experts": *[0-9]*/"n_routed_experts": 384/
     s/"num_experts_per_tok": *[0-9]*/"num_experts_per_tok": 8/; s/"first_k_dense_replace": *[0-9]*/"first_k_dense_replace": 1/' \
    $F/config.json >"$T/k2/config.json"
"$GEN/genrouting" drift=0.3 windows=4 >"$T/k2.json"
ok "$BIN/moe-plan" -q "$T/k2" --ranks 72 --slots 432 -o "$T/k2.plan"
set -- "--ranks 1024 --slots 2048 0.2" "--ranks 1024 --slots 2048 5" "--ranks 512 --slots 2048 --survive 2 1" "--from $T/k2.plan 0.5"
sanitized && set -- "--ranks 1024 --slots 2048 3" "--from $T/k2.plan 0.5"
for how; do
    "$BIN/moe-plan" -q "$T/k2" --stats "$T/k2.json" ${how% *} -o "$T/w/out" >"$T/out" 2>"$T/err" & pid=$! r=0
    sleep ${how##* }
    kill -TERM $pid 2>/dev/null
    start=$(date +%s%N)
    wait $pid || r=$?
    ms=$((($(date +%s%N) - $start) / 1000000))
    [ $r = 143 ] && [ "$(cat "$T/err")" = "moe-plan: terminated" ] || { cat "$T/err"; fail "exit $r after SIGTERM: moe-plan $how"; }
    [ $ms -lt 5000 ] || fail "moe-plan $how ended $ms ms after SIGTERM" # a second on a quiet machine
    [ -z "$(ls -A "$T/w")" ] || fail "moe-plan $how left something"
    echo "moe-plan $how: ended after $ms ms"
done
if command -v python3 >/dev/null; then
    ok python3 tests/shim/progress.py timeout -s TERM 6 "$BIN/moe-plan" "$T/k2" --stats "$T/k2.json" --ranks 256 --slots 512
    grep -q '"label": "\(planning\|proving\) layers"' "$T/out" || { cat "$T/out"; fail "no progress on a terminal"; }
fi
# A calibration's sensitivity pass continues where it was, with its states in memory or in files, and ends
# with the same bytes; it does not continue from a damaged file.
calibrate() { exec "$BIN/moe-quantize" -q --json $F --calib "$T/text" --calib-tokens 512 --sequence-length 64 -t 1 -o "$T/w/out" "$@"; }
flops() { sed -n 's/.*"flops": \([0-9.e+]*\), "cold_experts.*/\1/p' "$T/out"; }
rm -rf "$T/w"; mkdir "$T/w"
(calibrate) >"$T/out" 2>"$T/err" || { cat "$T/err"; fail "a calibration"; }
mv "$T/w/out" "$T/w.want"
whole_flops=$(flops)
for how in memory files damaged; do
    for try in 1 2 3 4 5 6 7 8 9 10; do
        rm -rf "$T/w"; mkdir "$T/w" "$T/w/scratch"
        calibrate >"$T/out" 2>"$T/err" & pid=$! r=0
        while kill -0 $pid 2>/dev/null && [ ! -e "$T/w/out.partial/gradient.work" ]; do :; done
        kill -TERM $pid 2>/dev/null # a shell's background jobs ignore SIGINT
        wait $pid || r=$?
        [ $r = 143 ] && [ -e "$T/w/out.partial/gradient.work" ] && break
    done
    [ $r = 143 ] || fail "no calibration was interrupted in its sensitivity pass"
    [ -e "$T/w/out.partial/gradient.work" ] || fail "an interrupted sensitivity pass is thrown away"
    said_what_is_kept "a sensitivity pass"
    case $how in
        memory) set -- ;;
        files) set -- --memory 32M --scratch "$T/w/scratch" ;;
        damaged) printf x | dd of="$T/w/out.partial/gradient.work" bs=1 seek=5000 conv=notrunc 2>/dev/null ;;
    esac
    sanitized && set --
    (calibrate --resume "$@") >"$T/out" 2>"$T/err" || { cat "$T/err"; fail "an interrupted sensitivity pass is not gone on with"; }
    diff -r "$T/w/out" "$T/w.want" >/dev/null || fail "a sensitivity pass that went on: other bytes ($how)"
    awk "BEGIN { exit !(\"$how\" == \"damaged\" ? $(flops) == $whole_flops : $(flops) < 0.95 * $whole_flops) }" ||
        fail "a sensitivity pass, $how: $(flops) operations after it was interrupted, $whole_flops without"
done
rm -rf "$T/w.want"

[ $stopped -ge "$(sanitized && echo 40 || echo 80)" ] || fail "only $stopped runs met their signal"
echo "$stopped runs stopped, $whole were done"
