# SPDX-License-Identifier: Apache-2.0
# tests/common.sh - what the shell tests that generate models share; sourced, never run.  Defines BIN and GEN
# (directories of the tools and of the helpers), T (a temporary directory, removed at exit) and the functions
# below.  It gets the test's arguments:  . tests/common.sh
set -u
BIN=$1 GEN=$2
T=$(mktemp -d "${TMPDIR:-/tmp}/moe-test.XXXXXX") || exit 1
trap 'rm -rf "$T"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
export PYTHONDONTWRITEBYTECODE=1 # beside the scripts that import one another

skip() { echo "skip: $*"; exit 77; }
fail() { echo "FAIL: $*"; exit 1; }
# ok COMMAND...: the command must succeed; its output is shown only when it does not.
ok() { "$@" >"$T/out" 2>"$T/err" || { r=$?; cat "$T/out" "$T/err"; fail "exit $r: $*"; }; }

# reads COMMAND...: an independent reader, in Python, must take what a tool wrote.  Not under sanitizers: they watch the
# tool, whose bytes are those that the same reader gets in the other jobs, and most of the time would be Python's.
reads() { sanitized || ok "$@"; }

need_tool() { for tool; do [ -x "$BIN/$tool" ] || skip "no $tool"; done; }
need_helper() { for tool; do [ -x "$GEN/$tool" ] || fail "no helper $tool (make test-programs)"; done; }
# need_standin: sets RUN, moe-run for the stand-in for NVIDIA's driver, and B, the folder of the build.
need_standin()
{
    B=$(dirname "$BIN") RUN=$(dirname "$BIN")/tests/moe-run-shim
    [ -x "$RUN" ] && [ -e "$B/shim/libcuda.so.1" ] || skip "moe-run-shim is not built"
}
need_python() { command -v python3 >/dev/null || skip "no python3"; }
need_faults() { [ -e "$GEN/fault-preload.so" ] || fail "no fault-preload.so (make test-programs)"; }
# need_space MIB: skips the test unless so much room is free where temporary files go.
need_space()
{
    free=$(df -Pk "$T" | awk 'NR == 2 { print int($4 / 1024) }')
    [ "$free" -ge "$1" ] || skip "needs $1 MiB in ${TMPDIR:-/tmp}, $free MiB are free"
}
# Sanitizers multiply memory and time, so that limits on them do not hold there.
sanitized() { [ "${MOE_SAN:-0}" = 1 ]; }

# shim VARIABLE=VALUE...  COMMAND...: runs a command one of whose calls fails, or whose calls are counted
# (fault-preload.c explains the variables)
shim()
{
    env LD_PRELOAD="$GEN/fault-preload.so${LD_PRELOAD:+:$LD_PRELOAD}" ASAN_OPTIONS="${ASAN_OPTIONS:-}:verify_asan_link_order=0" "$@"
}

# json KEY FILE: prints a number or a word at the top level of the object that a tool printed.
json() { tr -d '\n' <"$2" | sed -n "s/.*\"$1\": *\"\{0,1\}\([^,\"}]*\).*/\1/p"; }

# look FILE EXPRESSION: prints a Python expression over v, the JSON in the file.
look() { python3 -c "import json,sys; v=json.load(open(sys.argv[1])); print(eval(sys.argv[2], {'v': v}))" "$1" "$2"; }
# holds EXPRESSION: fails unless it is true in Python, with math and j, the JSON in T/out.
holds()
{
    python3 -c 'import json, math, sys; j = json.load(open(sys.argv[1])); assert eval(sys.argv[2]), str(j)[:800]' "$T/out" "$1" 2>"$T/why" ||
        { cat "$T/why"; fail "not so: $1"; }
}
# code EXPECTED TEXT COMMAND...: the command must exit with that code and print one line that matches TEXT.
code()
{
    want=$1 text=$2
    shift 2
    got=0
    "$@" >"$T/out" 2>"$T/err" </dev/null || got=$?
    [ $got = "$want" ] || { cat "$T/err"; fail "'$*' gave $got, want $want"; }
    grep -q -- "$text" "$T/err" || { cat "$T/err"; fail "'$*' does not say '$text'"; }
    [ "$(wc -l <"$T/err")" = 1 ] || { cat "$T/err"; fail "'$*' says more than one line"; }
}
# refused EXPECTED TEXT ARGUMENTS...: moe-run with these arguments must exit with that code and print one line that
# has TEXT in it, literally.  It counts as a check.
refused()
{
    want=$1 text=$2
    shift 2
    got=0
    "$BIN/moe-run" "$@" >"$T/out" 2>"$T/err" </dev/null || got=$?
    [ $got = "$want" ] || { cat "$T/err"; fail "exit $got, not $want: moe-run $*"; }
    [ "$(wc -l <"$T/err")" = 1 ] && grep -qF -- "$text" "$T/err" || { cat "$T/err"; fail "not one line with '$text': moe-run $*"; }
    count
}
checks=0
count() { checks=$(($checks + 1)); }

# examples <PAGE: prints the lines under EXAMPLES of a man page, as its reader sees them
examples() { sed -n '/^\.SH EXAMPLES/,/^\.fi/p' | sed '/^\./d; s/\\-/-/g; s/^\\&//; s/\\e/\\/g'; }

# back NAME: converts T/NAME to a container, T/m.moe, and back to the same directory; what moe-convert
# printed is in T/convert.err
back()
{
    rm -rf "$T/m.moe" "$T/back"
    ok "$BIN/moe-convert" "$T/$1" -o "$T/m.moe"; cp "$T/err" "$T/convert.err"
    ok "$BIN/moe-inspect" -q --verify "$T/m.moe"
    reads python3 tests/readers/readmoe.py check "$T/m.moe"
    ok "$BIN/moe-convert" --to hf "$T/m.moe" -o "$T/back"
    if grep 'do not return' "$T/err"; then fail "$1: something does not return"; fi
    diff -r "$T/$1" "$T/back" || fail "$1 does not come back byte for byte"
}

# measure LIMIT_MIB LIMIT_SECONDS COMMAND...: runs the command, and compares its time and its peak memory
# with the limits.  Memory is what genrss measures; the command's own JSON may not say less than 9/10 of that.
measure()
{
    mib=$1 sec=$2
    shift 2
    "$GEN/genrss" "$T/rss" "$@" >"$T/out" 2>"$T/err" || { r=$?; cat "$T/err"; fail "exit $r: $*"; }
    read -r bytes seconds <"$T/rss"
    said=$(json peak_rss "$T/out")
    echo "$(basename "$1") $(($bytes / 1048576)) MiB (says $((${said:-0} / 1048576))) $seconds s: $*" | cut -c 1-150
    sanitized && return 0
    [ "$bytes" -le $(($mib * 1048576)) ] || fail "peak memory $(($bytes / 1048576)) MiB is above $mib MiB: $*"
    [ -z "$said" ] || [ "$said" -ge $(($bytes / 10 * 9)) ] || fail "says peak_rss $said, was $bytes: $*"
    awk "BEGIN { exit !($seconds <= $sec) }" || fail "took $seconds s, limit $sec s: $*"
}
