#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs the EXAMPLES of every man page in order, as they are printed, in a directory where the names in them
# stand for the fixture.  A command that fails, or that no longer does what its line says, fails here.
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize moe-run moe-plan
need_python
ROOT=$PWD FIXTURE=$PWD/tests/data/tiny-k2
case $BIN in /*) ;; *) BIN=$PWD/$BIN ;; esac
PATH=$BIN:$PATH

# lines TOOL: writes its examples to T/TOOL.lines
lines()
{
    ok "$BIN/$1" --help-man
    examples <"$T/out" >"$T/$1.lines"
    grep -q "^\.SH DESCRIPTION" "$T/out" || fail "$1 has no DESCRIPTION"
    [ "$(grep -c "^[^#]*$1 " "$T/$1.lines")" -ge 6 ] || fail "$1 has fewer than six examples"
}

bytes=6000
sanitized && bytes=2000 # each run takes ten times as long there

# The files and models that the names stand for; made anew for each page, whose examples build on each other.
setting()
{
    rm -rf "$T/here"
    mkdir "$T/here" "$T/here/scratch" && cd "$T/here" || fail mkdir
    cp -r "$FIXTURE/bf16" Kimi-K2
    case $1 in moe-run|moe-inspect)
        cp -r "$T/k2.moe" "$T/k2-nvfp4.moe" . ;;
    moe-quantize)
        cp -r "$T/k2.moe" . ;;
    esac
    head -c $bytes "$FIXTURE/calib.txt" >text.txt
    printf 'And it came to pass\nIn the beginning\nBlessed are\n' >prompts.txt
    printf '{"messages": [{"role": "user", "content": "Who made the heaven?"}]}\n{"prompt": "And it"}\n' >requests.jsonl
    printf '[{"role": "user",\n  "content": "Who?"}]\n' >request.json
    printf '{"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "The LORD."}]}\n' >chats.jsonl
}

ucx=yes
"$BIN/moe-run" -q "$FIXTURE/bf16" --prompt a -n 1 --ranks 2 --comm ucx >"$T/out" 2>"$T/err" </dev/null || ucx=no
[ $ucx = yes ] || grep -q -i ucx "$T/err" || { cat "$T/err"; fail "--comm ucx"; }
ok "$BIN/moe-convert" -q "$FIXTURE/bf16" -o "$T/k2.moe"
ok "$BIN/moe-convert" -q "$FIXTURE/bf16" -o "$T/k2-nvfp4.moe" --to nvfp4
for tool in moe-inspect moe-convert moe-quantize moe-run; do
    lines $tool
    setting $tool
    while IFS= read -r line; do
        case $line in ''|\#*) continue ;; *ucx*) [ $ucx = yes ] || continue ;; *'--device cuda'*) continue ;; esac # t-device has these
        want=0
        case $line in *--diff*nvfp4*) want=15 ;; esac
        r=0
        echo "Who made the heaven?" | sh -c "$line" >"$T/out" 2>"$T/err" || r=$? # what a chat is asked
        [ $r = $want ] || { cat "$T/err"; fail "$tool's example exits $r: $line"; }
        count
    done <"$T/$tool.lines"
    cd "$ROOT" || fail cd
done
# the files that the lines name are there
cd "$T/here" || fail cd
python3 - <<'P' || fail "what moe-run's examples wrote"
import gzip, json, os
assert len(json.load(open("answers.json"))["sequences"]) == 2
assert json.loads(gzip.open("routing.json.gz").read()) and json.load(open("plan.json")) and os.path.getsize("trace.safetensors") > 1000
P
cd "$ROOT" || fail cd
echo "t-examples: $checks commands${ucx#yes}"
