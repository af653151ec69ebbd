#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests the command line of every tool that was built: help, version, man page, completions, refusals, JSON
# errors.
. tests/common.sh

checks=0
count() { checks=$(($checks + 1)); }
# refused CODE TEXT COMMAND...: the command exits with that code, prints one line that holds TEXT on standard
# error, and nothing on standard output.
refused()
{
    code=$1 text=$2
    shift 2
    "$@" >"$T/out" 2>"$T/err" </dev/null
    r=$?
    [ $r = "$code" ] || { cat "$T/err"; fail "exit $r, not $code: $*"; }
    [ "$(wc -l <"$T/err")" = 1 ] || { cat "$T/err"; fail "not one line on standard error: $*"; }
    grep -qF -- "$text" "$T/err" || { cat "$T/err"; fail "does not say '$text': $*"; }
    [ ! -s "$T/out" ] || { cat "$T/out"; fail "something on standard output: $*"; }
    count
}

# reply WORD...: prints what bash offers for the last word, once it has loaded the completion as a shell
# does.
reply()
{
    bash -c '. "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
        f=$(complete -p "$1" | sed "s/.*-F \([^ ]*\).*/\1/"); "$f" "$1" "${@: -1}" "${@: -2:1}"; echo "${COMPREPLY[*]}"' x "$T/bash" "$@"
}
offers() # EXPECTED WORD...
{
    want=$1
    shift
    got=$(reply "$@") || fail "$tool: bash completion fails for: $*"
    [ "$got" = "$want" ] || fail "$tool: bash completes '$*' to '$got', not '$want'"
    count
}
completes_in_bash()
{
    offers always "$tool" --color al
    offers "auto always" "$tool" tests --color a
    offers --threads "$tool" --thr
    offers tests/common.sh "$tool" tests/comm
    offers "" "$tool" --threads "" # a number: nothing to offer
    offers "" "$tool" -t ""
    all=$(reply "$tool" --)
    for name in $(sed -n 's/^.\{6\}\(--[a-z0-9-]*\).*/\1/p' "$T/help"); do
        case " $all " in *" $name "*) ;; *) fail "$tool: bash does not offer $name" ;; esac
    done
    case $tool in
    moe-plan)
        offers verify moe-plan ver
        offers "--stats" moe-plan verify x --st
        offers "" moe-plan stage x --st
        offers "sglang" moe-plan export x --to sg
        offers "" moe-plan stage x --rank R
        offers "--survive" moe-plan x --surv
        ;;
    moe-convert) offers gguf moe-convert x --to gg ;;
    moe-quantize) offers tests/common.sh moe-quantize x -o tests/comm ;;
    moe-inspect) offers tests/data moe-inspect x --diff tests/dat ;;
    esac
}

cli()
{
    tool=$1 x=$BIN/$1
    ok "$x" --help
    grep -q "^usage: $tool " "$T/out" || fail "$tool --help has no usage line"
    cp "$T/out" "$T/help"
    for name in json threads quiet color help-man version; do grep -q -- "--$name" "$T/out" || fail "$tool --help lacks --$name"; done
    awk 'length > 80' "$T/out" >"$T/long"
    [ ! -s "$T/long" ] || { cat "$T/long"; fail "$tool --help has lines over 80 columns"; }
    ! grep -q ' $' "$T/out" || fail "$tool --help has spaces at the end of a line"
    ok "$x" --version
    [ "$(cat "$T/out")" = "$tool $(cat VERSION)" ] || fail "$tool --version says $(cat "$T/out")"
    ok "$x" --help-env
    grep -q MOE_CPU "$T/out" || fail "$tool --help-env lacks MOE_CPU"
    count

    ok "$x" --help-man
    mv "$T/out" "$T/$tool.1"
    for section in NAME SYNOPSIS OPTIONS JSON "EXIT STATUS" ENVIRONMENT; do
        grep -q "^.SH $section" "$T/$tool.1" || fail "$tool --help-man lacks $section"
    done
    if command -v groff >/dev/null; then
        groff -man -Tascii -wall -z "$T/$tool.1" >"$T/out" 2>"$T/err" || fail "groff fails on $tool.1"
        [ ! -s "$T/err" ] || { cat "$T/err"; fail "groff warns about $tool.1"; }
    fi
    if command -v mandoc >/dev/null; then
        mandoc -Tlint "$T/$tool.1" >"$T/out" 2>&1 || { cat "$T/out"; fail "mandoc -Tlint on $tool.1"; }
        [ ! -s "$T/out" ] || { cat "$T/out"; fail "mandoc -Tlint on $tool.1"; }
    else
        linted=no
    fi
    count

    for shell in bash zsh fish; do
        ok "$x" --help-complete $shell
        mv "$T/out" "$T/$shell"
        grep -q threads "$T/$shell" || fail "$tool: completion for $shell lacks threads"
        ! command -v $shell >/dev/null || $shell -n "$T/$shell" || fail "$tool: $shell cannot parse its completion"
    done
    ! command -v bash >/dev/null || completes_in_bash
    refused 2 "tcsh" "$x" --help-complete tcsh

    refused 2 "--no-such-option-at-all" "$x" --no-such-option-at-all
    refused 2 "did you mean '--threads'" "$x" --thread 2
    refused 2 "--threads" "$x" --threads 0 tests/data/tiny-k2/bf16
    refused 2 "1 to 4096" "$x" -t 5000 tests/data/tiny-k2/bf16
    refused 2 "threads" "$x" --threads x
    refused 2 "purple" "$x" --color purple tests/data/tiny-k2/bf16
    refused 2 "wants a value" "$x" --threads
    for cpu in AVX2 sse 'avx2 ' 'ref|avx2'; do
        refused 2 "MOE_CPU='$cpu' in the environment: want ref, avx2 or avx512" env MOE_CPU="$cpu" "$x" tests/data/tiny-k2/bf16
    done
    refused 2 "takes no value" "$x" --json=yes
    "$x" </dev/null >"$T/out" 2>"$T/err"
    [ $? = 2 ] || fail "$tool without operands does not exit with 2"
    count

    # After -- a word that looks like an option is an operand: nothing is said about --threads.
    "$x" --color never "$T/none" -- -t --threads 0 >"$T/out" 2>"$T/err" </dev/null
    ! grep -q 'threads' "$T/err" || { cat "$T/err"; fail "$tool takes an operand for --threads"; }
    count
    json_error "$x"
    ! [ -e /dev/full ] || { "$x" --help >/dev/full 2>"$T/err"; [ $? != 0 ] || fail "$tool --help hides a full disk"; }
}

# With --json a failure prints an object on standard output and the same sentence on standard error.
json_error()
{
    "$1" --json --no-such-option >"$T/out" 2>"$T/err" </dev/null
    [ $? = 2 ] || fail "$1 --json --no-such-option: wrong exit code"
    grep -q "^$(basename "$1"): unknown option" "$T/err" || { cat "$T/err"; fail "$1: no sentence on standard error"; }
    [ "$(wc -l <"$T/out")" = 1 ] || fail "$1: --json printed more than one line"
    command -v python3 >/dev/null || return 0
    python3 -c '
import json, sys
e = json.load(open(sys.argv[1]))
assert list(e) == ["error"] and sorted(e["error"]) == ["code", "file", "message", "name", "tensor"], e
assert e["error"]["code"] == 2 and e["error"]["name"] == "usage" and e["error"]["file"] is None, e
assert open(sys.argv[2]).read().split(": ", 1)[1].rstrip("\n") == e["error"]["message"], e
' "$T/out" "$T/err" || { cat "$T/out"; fail "$1: the error object is wrong"; }
    count
}

n=0
for f in "$BIN"/moe-*; do
    [ -x "$f" ] || continue
    cli "$(basename "$f")"
    n=$(($n + 1))
done
[ $n -gt 0 ] || fail "no tools in $BIN"
[ -z "${linted-}" ] || echo "t-cli: man pages not linted, no mandoc"
echo "t-cli: $n tools, $checks checks"
