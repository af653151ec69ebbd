#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-run --chat on a terminal (talk.py): turns of one line and of several, commands, what is not sent;
# /save and who reads its file; Ctrl-C in an answer, before it began, and at the prompt; Ctrl-D; the end of
# the context; ranks.
. tests/common.sh
need_tool moe-run moe-quantize
need_helper genmodel
need_python
F=tests/data/tiny-k2/bf16 RUN=$BIN/moe-run
# talk EXPECTED ARGUMENT...: types the script on standard input to moe-run --chat with these arguments.
talk()
{
    want=$1
    shift
    cat >"$T/script"
    got=0
    python3 tests/shim/talk.py "$T/script" "$RUN" --chat -t 1 "$@" >"$T/out" 2>"$T/err" || got=$?
    [ $got = "$want" ] || { cat "$T/out" "$T/err"; fail "exit $got, not $want: a conversation with $*"; }
    count
}
# reads N: the Nth answer in T/talk.jsonl is the one that --prompts gives for the turns before it.
reads()
{
    python3 - "$T" "$1" <<'P' || fail "the conversation has no turn $1"
import json, sys
m = json.loads(open(sys.argv[1] + "/talk.jsonl").read())["messages"]
at = [i for i, x in enumerate(m) if x["role"] == "assistant"][int(sys.argv[2])]
json.dump({"messages": m[:at]}, open(sys.argv[1] + "/asked.jsonl", "w"))
open(sys.argv[1] + "/said", "w").write(m[at]["content"])
P
    ok "$RUN" -q --json -t 1 $F --prompts "$T/asked.jsonl" -n 12
    [ "$(look "$T/out" "v['sequences'][0]['text'] == open('$T/said').read()")" = True ] || {
        cat "$T/asked.jsonl" "$T/said" "$T/out"; fail "answer $1 of a chat is not what --prompts gives"; }
    count
}

# ---- turns and commands ----
cat >"$T/first" <<E
< > 
> 
< an empty turn is not sent
< > 
>     
< an empty turn is not sent
< > 
> Who made the heaven?
< \n> 
> and\\
< ... 
> the earth?
< \n> 
> """
< ... 
> /clear
< ... 
> in quotes\\
< ... 
> """
< \n> 
> """short"""
< \n> 
> //slash
< \n> 
> /nonsense now
< '/nonsense' is no command
< > 
> /help
< /save FILE
< > 
> /system
< the chat template's own
< > 
> /save $T/talk.jsonl
< talk.jsonl' has the conversation, of 10 turns
< > 
> /quit
E
talk 0 $F -n 12 <"$T/first"
python3 - "$T/talk.jsonl" <<'P' || fail "what was typed is not what was sent"
import json, sys
text = open(sys.argv[1]).read()
assert text.count("\n") == 1 and text.endswith("\n")
m = json.loads(text)["messages"]
assert [x["role"] for x in m] == ["user", "assistant"] * 5, m
want = ["Who made the heaven?", "and\nthe earth?", "/clear\nin quotes\\", "short", "/slash"]
assert [x["content"] for x in m[::2]] == want, m
P
count
for i in 0 1 4; do reads $i; done
ok "$RUN" -q --json $F --prompts "$T/talk.jsonl" -n 2
ok "$BIN/moe-quantize" -q $F -o "$T/calibrated.moe" --calib "$T/talk.jsonl" --calib-tokens 64 --method weighted
count

# ---- /clear, /system, and files that exist already ----
echo 'years of work' >"$T/mine"
mkdir "$T/dir" || fail mkdir
talk 0 $F -n 12 <<E
< > 
> /save $T/never
< there is no conversation to save yet
< > 
> Hello
< \n> 
> /clear
< is forgotten
< > 
> /save $T/never
< there is no conversation to save yet
< > 
> /system Be brief.
< is set
< > 
> /system
< the system turn: Be brief.
< > 
> Who made the heaven?
< \n> 
> /save $T/mine
< exists already: replace it (y or n)?
< > 
> n
< nothing is written
< > 
> /save $T/dir
< exists already
< > 
> y
< /dir'
< > 
> /save
< wants the name of a file
< > 
> /save -
< wants the name of a file
< > 
> /save $T/no/such/file
< /no/such
< > 
> /save $T/talk.jsonl
< exists already
< > 
> y
< has the conversation, of 2 turns
< > 
= ^D
E
[ "$(cat "$T/mine")" = 'years of work' ] && [ ! -e "$T/never" ] && [ ! -e - ] || fail "/save writes what it should not"
[ "$(look "$T/talk.jsonl" "([m['role'] for m in v['messages']], v['messages'][0]['content'])")" = "(['system', 'user', 'assistant'], 'Be brief.')" ] || {
    cat "$T/talk.jsonl"; fail "/system and /save"; }
reads 0

# ---- the end of the context, input that is not text, a backslash before the end ----
talk 0 $F -n 12 --context 40 --system '' <<'E'
< > 
> Who made the heaven and the earth, and the sea, and all that is in them, and rested on the seventh day, and blessed it, and said that it was good?
< do not fit the context of 40
< the turn is taken back
< > 
> Hello
< \n> 
> /system
< there is no system turn
< > 
> one\
< ... 
= ^D
< the text that was begun has no end, and is not sent
E
talk 0 $F --context 60 --ignore-eos <<'E'
< > 
> Hello
< the answer is cut: the context of 60 positions is full; /clear begins anew
< > 
> """one
< ... 
> two
< ... 
= ^D
< the text that was begun has no end, and is not sent
E
# a NUL that a model generates does not cut a remembered turn short
talk 0 $F --temperature 1000 --seed 31 --ignore-eos -n 250 <<E
< > 
> Hello
< (a NUL in the answer is remembered as U+FFFD)
< > 
> /save $T/nul.jsonl
< has the conversation, of 2 turns
< > 
= ^D
E
[ "$(look "$T/nul.jsonl" "(lambda s: 0 <= s.find(chr(0xfffd)) < len(s) - 99)(v['messages'][1]['content'])")" = True ] || fail "a NUL cuts a turn"
# Latin-1
printf '< > \n> caf\351\n< that is not text in UTF-8\n< > \n= ^D\n' >"$T/latin"
talk 0 $F <"$T/latin"

# ---- a model that thinks: the turn keeps thinking and content apart, and the next prompt is that of --prompts ----
mkdir "$T/m" || fail mkdir
for f in $F/*; do ln -s "$PWD/$f" "$T/m/" || fail "ln"; done
rm "$T/m/tokenizer_config.json"
cp tests/data/chat-templates/k2.5.jinja "$T/m/chat_template.jinja" || fail cp
sed 's/<|start_header_id|>/<think>/; s/<|end_header_id|>/<\/think>/' $F/tokenizer_config.json >"$T/m/tokenizer_config.json"
talk 0 "$T/m" -n 12 <<E
< > 
> Hello
< <think>
< \n> 
> Hello again
< <think>
< \n> 
> /save $T/think.jsonl
< has the conversation, of 4 turns
< > 
= ^D
E
python3 - "$T" <<'P' || fail "the turns of a model that thinks"
import json, sys
m = json.loads(open(sys.argv[1] + "/think.jsonl").read())["messages"]
assert all(x["content"] == "" and x["reasoning_content"] for x in m[1::2]), m
json.dump({"messages": m[:3]}, open(sys.argv[1] + "/asked.jsonl", "w"))
open(sys.argv[1] + "/said", "w").write(m[3]["reasoning_content"])
P
ok "$RUN" -q --json -t 1 "$T/m" --prompts "$T/asked.jsonl" -n 12
[ "$(look "$T/out" "v['sequences'][0]['reasoning_content'] == open('$T/said').read()")" = True ] || {
    cat "$T/asked.jsonl" "$T/said" "$T/out"; fail "the second answer of a chat that thinks"; }
count

# ---- control-C ----
ok "$GEN/genmodel" -o "$T/big" --format bf16 --layers 12 --experts 40 --hidden 256 --inter 256 --vocab 1024 --tokenizer $F --seed 32
long=$(python3 -c 'print("and the earth " * 250)')
for ranks in 1 2; do
    talk 130 "$T/big" --ignore-eos --ranks $ranks <<E
< > 
> Hello
+ 20
= ^C
< (interrupted
< > 
> /save $T/cut-$ranks.jsonl
< has the conversation, of 2 turns
< > 
> $long
! 0.2
= ^C
< (interrupted
< > 
> Hello again
+ 26
= ^C
< (interrupted
< > 
! 0.3
= ^C
< moe-run: interrupted
E
    [ "$(look "$T/cut-$ranks.jsonl" "len(v['messages'][1]['content']) > 0")" = True ] || fail "what was answered before a control-C is gone"
done
echo "t-talk: $checks checks"
