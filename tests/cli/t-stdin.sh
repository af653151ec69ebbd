#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that "-" is standard input wherever text is read, plain or gzipped, whole or a few bytes at a time;
# that a sentence refuses it elsewhere, and where it stands twice; and that no output is called "-".  Tests
# that the texts of several --prompts can be told apart; blank lines; pieces.
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize moe-plan moe-run
need_python
F=tests/data/tiny-k2/bf16 RUN=$BIN/moe-run INSPECT=$BIN/moe-inspect
printf 'And it came to pass\nIn the beginning\n' >"$T/two"
gzip -c "$T/two" >"$T/two.gz"
head -c 3000 tests/data/tiny-k2/valid.txt >"$T/text"
gzip -c "$T/text" >"$T/text.gz"
# alike FILE COMMAND...: the command gives the same output with FILE as its last argument, and with "-" and
# the file as standard input (plain, gzipped, and some bytes at a time).
drip() { python3 -c 'import os, sys, time
data = open(sys.argv[1], "rb").read()
for i in range(0, len(data), 701):
    os.write(1, data[i:i + 701]); time.sleep(0.002)' "$1"; }
alike()
{
    input=$1
    shift
    ok "$@" "$input"
    steady "$T/out" "$T/want"
    for from in "$input" "$input.gz"; do
        "$@" - <"$from" >"$T/out" 2>"$T/err" || { cat "$T/err"; fail "$* - <$from"; }
        steady "$T/out" "$T/got"
        cmp "$T/want" "$T/got" || fail "$* - <$from: other output"
        drip "$from" | "$@" - >"$T/out" 2>"$T/err" || { cat "$T/err"; fail "$* -, in drips of $from"; }
        steady "$T/out" "$T/got"
        cmp "$T/want" "$T/got" || fail "$* -, in drips of $from: other output"
        count
    done
}
steady() { sed 's/"\(seconds\|peak_rss\|peak_anonymous\)": [0-9.e-]*//g' "$1" >"$2"; }
alike "$T/two" "$RUN" --json $F -n 5 --prompts
alike "$T/two" "$RUN" $F -n 5 --prompts
alike "$T/two" "$RUN" $F -n 5 --ranks 2 --prompts
alike "$T/two" "$RUN" $F -n 5 --prompt-file
alike "$T/text" "$RUN" --json $F --window 64 --score
alike "$T/text" "$INSPECT" --json $F --tokenize
alike "$T/text" "$INSPECT" $F --tokenize

# ---- impossible uses: one sentence ----
head -c 60 "$T/two.gz" | head -c 30 >"$T/cut.gz"
# from FILE EXPECTED TEXT COMMAND...: runs the command with the file as standard input
from()
{
    file=$1 want=$2 text=$3
    shift 3
    got=0
    "$@" <"$file" >"$T/out" 2>"$T/err" || got=$?
    [ $got = "$want" ] && [ "$(wc -l <"$T/err")" = 1 ] && grep -qF -- "$text" "$T/err" || {
        cat "$T/err"; fail "exit $got, not $want with '$text': $*"; }
    [ ! -s "$T/out" ] || fail "something on standard output: $*"
    count
}
from "$T/cut.gz" 13 "'standard input': the compressed text is truncated" "$RUN" $F --prompts -
from "$T/cut.gz" 13 "'standard input': the compressed text is truncated" "$INSPECT" $F --tokenize -
from /dev/null 2 "'standard input': no prompts" "$RUN" $F --prompts -
from "$T/two" 2 "both --calib and --calib name it" "$BIN/moe-quantize" $F --calib - --calib - --dry-run
mkfifo "$T/named" || fail mkfifo
from "$T/two" 2 "a pipe can be read by one process alone" "$RUN" $F --prompts "$T/named" --comm ucx --ranks 2
from "$T/two" 11 "'/': is a directory" "$RUN" $F --prompts /
for what in / /dev/zero; do from "$T/two" 11 "neither a file nor a pipe" "$RUN" $F --prompts $what; done
from "$T/two" 11 "neither a file nor a pipe" "$BIN/moe-quantize" -q $F --calib /dev/zero -o "$T/x"
from "$T/two" 2 "every rank reads the file" "$RUN" $F --prompts - --comm ucx --ranks 2
from "$T/two" 2 "every rank reads the file" "$RUN" $F --score - --comm ucx --ranks 2
head -c 22000000 /dev/zero | tr '\0' a >"$T/large"
from "$T/large" 10 "'standard input': the text has more bytes than the 20971520 that are allowed" "$RUN" $F --prompt-file - --memory 20M
for line in "$RUN $F --plan" "$RUN $F --prompt a --trace" "$RUN $F --prompt a --record-routing" "$RUN $F --score $T/text --reference" \
    "$RUN $F --score $T/text --scratch" "$RUN $F --comm ucx --secret-file" "$INSPECT $F --diff" "$BIN/moe-convert $F -o" \
    "$BIN/moe-quantize $F -o" "$BIN/moe-quantize $F --dry-run --report"; do
    from "$T/two" 2 "needs a name" $line -
done
for tool in moe-inspect moe-run "moe-convert -o $T/x" "moe-quantize -o $T/x"; do
    from "$T/two" 2 "cannot be read from standard input" "$BIN/"$tool -
done
"$RUN" -q $F --score - <&- >"$T/out" 2>"$T/err"
[ $? = 11 ] && grep -q "'standard input': cannot read" "$T/err" || { cat "$T/err"; fail "--score - of a closed stream"; }
[ ! -e - ] || fail "something is called -"
# a pipe that a path names, as a shell's <(command) does, is read like standard input: plain and gzipped
piped() # FILE COMMAND...: with the pipe's path behind
{
    file=$1
    shift
    "$@" "$file" >"$T/out1" 2>"$T/err1" || { cat "$T/err1"; fail "$* $file"; }
    cat "$file" >"$T/named" &
    "$@" "$T/named" >"$T/out2" 2>"$T/err2" || { cat "$T/err2"; fail "$* a pipe"; }
    wait $!
    cmp -s "$T/out1" "$T/out2" || fail "$*: a pipe gives something else than the file"
    count
}
for f in "$T/two" "$T/two.gz"; do
    piped "$f" "$RUN" -q $F -n 3 --prompts
    piped "$f" "$RUN" -q $F -n 3 --prompt-file
    piped "$f" "$INSPECT" -q $F --tokenize
done
piped "$T/text" "$RUN" -q $F --window 64 --score
piped "$T/text" "$BIN/moe-quantize" -q -f $F -o "$T/piped.moe" --method weighted --sequence-length 64 --calib
# a signal ends the wait for text at once
mkfifo "$T/pipe" || fail mkfifo
for line in "$RUN -q $F --prompts -" "$INSPECT $F --tokenize -"; do
    $line <"$T/pipe" >"$T/out" 2>"$T/err" &
    pid=$!
    exec 9>"$T/pipe"
    printf 'And' >&9
    sleep 0.5
    kill -TERM $pid
    wait $pid
    r=$?
    exec 9>&-
    [ $r = 143 ] && grep -q terminated "$T/err" && [ ! -s "$T/out" ] || { cat "$T/err"; fail "SIGTERM while text is waited for gives $r: $line"; }
    count
done

# ---- --prompts: which text belongs to which prompt ----
"$RUN" -q $F -n 5 --prompts "$T/two" >"$T/out" 2>"$T/err" || fail "--prompts"
"$RUN" -q --json $F -n 5 --prompts "$T/two" >"$T/json" 2>"$T/err" || fail "--prompts --json"
python3 - "$T/out" "$T/json" <<'P' || fail "headings of --prompts, or index and line in JSON"
import json, sys
out, j = open(sys.argv[1]).read(), json.load(open(sys.argv[2]))["sequences"]
assert [(s["index"], s["line"]) for s in j] == [(0, 1), (1, 2)], j
assert all(list(s)[:2] == ["index", "line"] for s in j)
assert out == "==> prompt 0 (line 1) <==\n%s\n\n==> prompt 1 (line 2) <==\n%s\n" % tuple(s["text"] for s in j), out
P
printf 'a\n\nb\n' >"$T/blank"
refused 2 "'$T/blank': line 2: is blank, and an empty prompt has no token to go on from" $F --prompts "$T/blank"
refused 2 "line 2: is blank, and a user's turn cannot be empty" $F --prompts "$T/blank" --chat --bos
printf '\n' >"$T/empty"
refused 2 "no prompts" $F --prompts "$T/empty"
refused 2 "'$T/two': prompt 0 (line 1): its 5 tokens do not fit the context of 2" $F --prompts "$T/two" --context 2
printf 'a\nb\n\n\r\n\n' >"$T/behind" # blank lines at the end shift nothing
ok "$RUN" -q --json $F --prompts "$T/behind" -n 1
[ "$(look "$T/out" "[s['line'] for s in v['sequences']]")" = "[1, 2]" ] || fail "blank lines behind the last prompt"
ok "$RUN" -q --json $F --bos --prompts "$T/blank" -n 1
[ "$(look "$T/out" "[s['prompt_tokens'] for s in v['sequences']]")" = "[2, 1, 2]" ] || { cat "$T/out"; fail "--bos and a blank line"; }
printf '{"prompt": "a"}\n\n \n{"prompt": "b"}\n' >"$T/rows.jsonl"
ok "$RUN" -q --json $F --prompts "$T/rows.jsonl" -n 1
[ "$(look "$T/out" "[(s['index'], s['line']) for s in v['sequences']]")" = "[(0, 1), (1, 4)]" ] || { cat "$T/out"; fail "blank lines between requests"; }

# ---- --tokenize: pieces and counts ----
printf 'And it\n\342\200\256 x\033\377' >"$T/piece"
ok "$INSPECT" $F --tokenize "$T/piece"
cp "$T/out" "$T/pieces"
ok "$INSPECT" -q $F --tokenize "$T/piece"
cp "$T/out" "$T/ids"
ok "$INSPECT" -q --json $F --tokenize "$T/piece"
python3 - "$T/pieces" "$T/ids" "$T/out" "$T/piece" <<'P' || fail "--tokenize"
import json, re, sys
lines = open(sys.argv[1]).read().split("\n")
ids, j = list(map(int, open(sys.argv[2]).read().split(" "))), json.load(open(sys.argv[3]))
rows = [re.fullmatch(r' *(\d+)  "(.*)"', l).groups() for l in lines[:-2]]
assert [int(i) for i, _ in rows] == ids == j["tokens"] and list(j)[0] == "tokens", (rows, ids, j)
unescape = lambda s: re.sub(rb"\\(?:x(..)|(n)|u202e)", lambda m: bytes([int(m[1], 16)]) if m[1] else b"\n" if m[2] else "\u202e".encode(), s.encode())
assert b"".join(unescape(p) for _, p in rows) == open(sys.argv[4], "rb").read(), rows
assert not re.search("[\x00-\x09\x0b-\x1f\u202e]", "\n".join(lines)), lines
n = len(open(sys.argv[4], "rb").read())
assert j["token_count"] == len(ids) and j["bytes"] == n and j["characters"] == 12 and abs(j["bytes_per_token"] - n / len(ids)) < 1e-5, j
assert lines[-2] == "%d tokens, %d bytes, 12 characters, %.2f bytes a token" % (len(ids), n, n / len(ids)), lines
P
count
: >"$T/none"
ok "$INSPECT" --json $F --tokenize "$T/none"
[ "$(look "$T/out" "(v['tokens'], v['bytes_per_token'])")" = "([], None)" ] || { cat "$T/out"; fail "--tokenize of nothing"; }
echo "t-stdin: $checks checks"
