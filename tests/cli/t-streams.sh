#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests a tool's streams and signals: output that cannot be written is a failure, --quiet prints nothing, no
# escape codes are written off a terminal; a signal ends the tool with a sentence and exit code 130 or 143,
# and leaves work that --resume continues.
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize moe-run
need_helper genmodel
M=tests/data/tiny-k2/bf16 checks=0
count() { checks=$(($checks + 1)); }

small="--layers 2 --experts 4 --hidden 128 --inter 64"
ok "$GEN/genmodel" -o "$T/m" --format bf16 $small --seed 31
job() # TOOL: sets $@-like $line, a short successful command of that tool
{
    case $1 in
    moe-inspect) line="$BIN/moe-inspect $T/m" ;;
    moe-convert) line="$BIN/moe-convert $T/m -o $T/x.moe --force" ;;
    moe-quantize) line="$BIN/moe-quantize $T/m -o $T/x.moe --force --method max" ;;
    moe-run) line="$BIN/moe-run $M --prompt And -n 2" ;;
    esac
}
says() { [ "$(wc -l <"$T/err")" = 1 ] && grep -q "$1" "$T/err" || { cat "$T/err"; fail "$2: want one line with '$1'"; }; }

escape=$(printf '\033')
for tool in moe-inspect moe-convert moe-quantize moe-run; do
    job $tool
    ok $line --quiet
    [ ! -s "$T/err" ] || { cat "$T/err"; fail "$tool --quiet is not"; }
    case $tool in moe-convert|moe-quantize) [ ! -s "$T/out" ] || fail "$tool --quiet prints on standard output" ;; esac
    for color in auto never; do
        ok $line --color $color
        ! cat "$T/out" "$T/err" | grep -q "$escape" || fail "$tool --color $color: escape codes off a terminal"
    done
    ok $line --json --color always
    ! grep -q "$escape" "$T/out" || fail "$tool --json --color always: escape codes in JSON"
    [ "$(wc -l <"$T/out")" = 1 ] || fail "$tool --json printed more than a line on standard output"
    count

    # A closed stream is a failure of its own, and no file that is opened later gets its descriptor.
    for out in --json --help --version; do
        $line -q $out >&- 2>"$T/err"; r=$?
        [ $r = 11 ] || fail "$tool $out >&- gives $r"
        says 'standard output' "$tool $out >&-"
        [ -e /dev/full ] || continue
        $line -q $out >/dev/full 2>"$T/err"; r=$?
        [ $r = 12 ] || fail "$tool $out >/dev/full gives $r"
        says 'standard output' "$tool $out >/dev/full"
    done
    count
    ok sh -c "$line -q --json 2>&- <&-"
    count
done
# With standard output and standard error closed, a container still has nothing but its own bytes.
ok "$BIN/moe-convert" -q "$T/m" -o "$T/ref.moe"
rm -rf "$T/x.moe"
"$BIN/moe-convert" "$T/m" -o "$T/x.moe" <&- >&- 2>&-
[ $? = 0 ] || fail "moe-convert with closed streams"
ok diff -r "$T/ref.moe" "$T/x.moe"
count

# Where text is printed as it comes, a failed write is reported with its reason, too.
head -n 40 tests/data/tiny-k2/valid.txt >"$T/lines"
for how in "--prompt And -n 4" "--prompts $T/lines -n 1"; do
    [ -e /dev/full ] || continue
    "$BIN/moe-run" -q $M $how >/dev/full 2>"$T/err"; r=$?
    [ $r = 12 ] || fail "moe-run $how >/dev/full gives $r"
    says 'No space left on device' "moe-run $how >/dev/full"
    count
done
# A closed pipe: generated text that nobody reads ends the run with an exit code, without a signal and
# without a message.
{ "$BIN/moe-run" -q $M --prompt And -n 200 2>"$T/err"; echo $? >"$T/code"; } | :
[ "$(cat "$T/code")" != 0 ] || fail "moe-run into a closed pipe succeeds"
[ "$(cat "$T/code")" -lt 128 ] || fail "moe-run into a closed pipe dies of a signal"
[ ! -s "$T/err" ] || { cat "$T/err"; fail "moe-run into a closed pipe says something"; }
count

# Signals in the middle of a longer run.
ok "$GEN/genmodel" -o "$T/big" --format bf16 --layers 16 --experts 40 --hidden 256 --inter 256 --seed 32
interrupt() # SIGNAL CODE WORD COMMAND...
{
    sig=$1 want=$2 word=$3
    shift 3
    for try in 1 2 3 4 5 6; do # a run that ends before its signal proves nothing
        rm -rf "$T/y.moe" "$T/y.moe.partial"
        "$@" >"$T/out" 2>"$T/err" &
        pid=$!
        sleep "0.$((7 - $try))"
        kill -$sig $pid 2>/dev/null
        wait $pid
        r=$?
        [ $r = 0 ] || break
    done
    [ $r != 0 ] || { echo "'$*' always ended before its signal"; return 1; }
    [ $r = "$want" ] || { cat "$T/err"; fail "SIG$sig gives $r, not $want: $*"; }
    says "$word" "SIG$sig: $*"
    [ ! -e "$T/y.moe" ] || fail "SIG$sig: something stands under the final name: $*"
    count
}
for tool in convert quantize; do
    line="$BIN/moe-$tool -q $T/big -o $T/y.moe --threads 2"
    case $tool in convert) line="$line --to nvfp4" ;; quantize) line="$line --method search" ;; esac
    rm -rf "$T/y.moe"
    ok $line
    mv "$T/y.moe" "$T/$tool.moe"
    for sig in "INT 130 interrupted" "TERM 143 terminated"; do
        interrupt $sig $line || continue
        # On a busy machine the tool may not have finished anything before the signal came: then it says so.
        if [ -e "$T/y.moe.partial" ]; then grep -q -- --resume "$T/err"; else grep -q "nothing was finished yet" "$T/err"; fi ||
            { cat "$T/err"; fail "moe-$tool does not say how to go on"; }
        ok $line --resume
        ok diff -r "$T/$tool.moe" "$T/y.moe"
    done
done
for sig in "INT 130 interrupted" "TERM 143 terminated"; do
    interrupt $sig "$BIN/moe-run" -q $M --prompt And -n 900 --ignore-eos || continue
    ! grep -q -- --resume "$T/err" || fail "moe-run has no --resume, but names it"
done
interrupt INT 130 interrupted "$BIN/moe-run" -q --json $M --prompt And -n 900 --ignore-eos || exit 0
grep -q '"code": 130' "$T/out" || { cat "$T/out"; fail "no error object after a signal"; }
echo "t-streams: $checks checks"
