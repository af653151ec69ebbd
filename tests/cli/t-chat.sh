#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests text and conversations on the command line: which chat template a model has; requests as lines of
# --prompts; what --calib takes, reports and refuses; --memory when there is too much text. test-chat tests
# the renderer itself.
. tests/common.sh
need_tool moe-run moe-quantize moe-convert
need_python
need_helper genrss
F=tests/data/tiny-k2 checks=0
# tokens ARGUMENT...: prints prompt_tokens of moe-run with these arguments.
tokens() { "$BIN/moe-run" -q --json -n 0 "$@" >"$T/out" 2>"$T/err" </dev/null || { cat "$T/err"; fail "moe-run $*"; }; json prompt_tokens "$T/out"; }
same() { [ "$1" = "$2" ] || fail "$3: $1 is not $2"; count; }

# The fixture's last placeholder tokens get the names of the chat markers.
mkdir "$T/m" || fail "mkdir"
for f in $F/bf16/*; do ln -s "$PWD/$f" "$T/m/" || fail "ln"; done
rm "$T/m/tokenizer_config.json"
python3 - $F/bf16/tokenizer_config.json "$T" <<'E' || fail "a vocabulary with markers"
import json, sys
src, T = sys.argv[1:]
c = json.load(open(src)); a = c["added_tokens_decoder"]
names = ["<think>", "</think>"] + ["<|%s|>" % s for s in ("tool_calls_section_begin", "tool_calls_section_end", "tool_call_begin", "tool_call_argument_begin")]
for id, name in zip((1013, 1014, 1015, 1018, 1019, 1020), names): a[str(id)] = {"content": name, "special": False}
a["1021"] = {"content": "<|tool_call_end|>", "special": False}
json.dump(c, open(T + "/m/tokenizer_config.json", "w"))
# prompts, and texts that give the same ids, by template
open(T + "/chatml.jinja", "w").write("<|im_start|>{{ role }}")
U = "<|im_user|>user<|im_middle|>Hello<|im_end|>"; A = "<|im_assistant|>assistant<|im_middle|>"
S = "<|im_system|>system<|im_middle|>You are Kimi, an AI assistant created by Moonshot AI.<|im_end|>"
for name, text in {"instruct": S + "\n" + U + A, "thinking": S + U + A, "k25": U + A + "<think>", "off": U + A + "<think></think>"}.items(): open(T + "/" + name, "w").write(text)
rows = [{"messages": [{"role": "user", "content": "Hello"}]}, {"messages": [{"role": "user", "content": "Hello"}], "chat_template_kwargs": {"thinking": False}},
        {"prompt": "Hello"}, {"tokens": [1, 2, 3], "id": "x"}]
open(T + "/requests.jsonl", "w").writelines(json.dumps(r) + "\n" for r in rows)
for name, r in {"thinking": {"prompt": "a", "thinking": {"type": "disabled"}}, "none": {"text": "a"}, "image": {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "bad": None}.items():
    open(T + "/" + name + ".jsonl", "w").write(json.dumps({"prompt": "a"}) + "\n" + (json.dumps(r) if r else "{\"prompt\": ") + "\n")
E

# ---- every published template against jinja2, on conversations made at random ----
P=${PYTHON:-python3}
if "$P" -c "import jinja2" 2>/dev/null; then
    need_helper test-chat
    ok "$P" tests/gen/chat-random.py tests/data/chat-templates 100 "$T/random.jsonl"
    ok "$GEN/test-chat" "$T/random.jsonl"
    count
else
    echo "no jinja2: the templates were not rendered again"
fi

# ---- the template: none and no <think>, none, by name, in a file; kept in a container ----
same "$(tokens $F/bf16 --chat --prompt Hello)" "$(tokens $F/bf16 --special --prompt-file "$T/instruct")" "K2-Instruct by its vocabulary"
same "$(tokens "$T/m" --chat --prompt Hello)" "$(tokens "$T/m" --special --prompt-file "$T/thinking")" "K2-Thinking by its vocabulary"
same "$(tokens "$T/m" --chat --prompt Hello --chat-template k2-instruct)" "$(tokens "$T/m" --special --prompt-file "$T/instruct")" "--chat-template"
same "$(tokens "$T/m" --chat --prompt Hello --chat-template k2.6)" "$(tokens "$T/m" --special --prompt-file "$T/k25")" "--chat-template"
cp tests/data/chat-templates/k2.5.jinja "$T/m/chat_template.jinja"
same "$(tokens "$T/m" --chat --prompt Hello)" "$(tokens "$T/m" --special --prompt-file "$T/k25")" "K2.5 by its template"
ok "$BIN/moe-convert" -q "$T/m" -o "$T/c.moe"
same "$(tokens "$T/c.moe" --chat --prompt Hello)" "$(tokens "$T/m" --special --prompt-file "$T/k25")" "the template of a container"

# ---- requests ----
ok "$BIN/moe-run" -q --json "$T/m" --prompts "$T/requests.jsonl" -n 1
[ "$(look "$T/out" "[s['prompt_tokens'] for s in v['sequences']]")" = "[$(tokens "$T/m" --special --prompt-file "$T/k25"), $(tokens "$T/m" --special --prompt-file "$T/off"), $(tokens "$T/m" --prompt Hello), 3]" ] ||
    { cat "$T/out"; fail "requests of --prompts"; }
count
# a key of a message that no template reads is reported; one that would change the prompt is refused
printf '{"messages": [{"role": "user", "content": "Hello", "weight": 1, "cache": 2}]}\n' >"$T/line"
ok "$BIN/moe-run" --json "$T/m" --prompts "$T/line" -n 1
grep -q "prompts: 2 keys of messages are left out, the first is 'weight'" "$T/err" || { cat "$T/err"; fail "keys of messages in --prompts"; }
printf '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "partial": true}]}\n' >"$T/line"
refused 14 "line 1: message 1: has 'partial'" "$T/m" --prompts "$T/line" -n 1
refused 14 "line 2: 'thinking' is no key of a request here" "$T/m" --prompts "$T/thinking.jsonl" -n 1
refused 13 "line 2: not an object with one of 'messages', 'prompt' and 'tokens'" "$T/m" --prompts "$T/none.jsonl" -n 1
refused 14 "line 2: message 0: a part of its content is of type 'image'" "$T/m" --prompts "$T/image.jsonl" -n 1
refused 13 "line 2: is not JSON" "$T/m" --prompts "$T/bad.jsonl" -n 1
# a line that begins like a request and is not a valid one is refused, also the first line; it is not taken
# as a plain prompt
line() { printf '%s\n{"prompt": "b"}\n' "$2" >"$T/line"; refused "$1" "line 1: $3" "$T/m" --prompts "$T/line" -n 1; }
line 13 '{"prompt": "a"' 'is not JSON'
line 13 '  {"prompt": "\u0000"}' ''
line 13 '{"text": "a"}' 'not an object with one of'
line 13 '[{"prompt": "a"}]' "is a JSON array, where requests are an object a line (jq -c '.[]' FILE"
line 13 '{"prompt": "a", "tokens": [1]}' 'not an object with one of'
line 13 '{"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": [{"thinking": false}]}' "'chat_template_kwargs' is not an object"
line 13 '{"messages": [{"role": "user", "content": "a"}], "chat_template_kwargs": 5}' "'chat_template_kwargs' is not an object"
line 13 '{"prompt": "a", "chat_template_kwargs": {"thinking": true}}' "'tools' and 'chat_template_kwargs' go with"
line 13 '{"prompt": "a", "tools": []}' "'tools' and 'chat_template_kwargs' go with"
line 14 '{"prompt": "a", "custom_id": "x"}' "'custom_id' is no key of a request here (take it out"
line 13 '{"messages": [{"role": "user", "content": "a"}], "tools": "{"}' "is not JSON"
tool='[{"type": "function", "function": {"name": "f"}}]'
printf '{"messages": [{"role": "user", "content": "a"}], "tools": %s}\n' "$tool" "\"$(echo "$tool" | sed 's/"/\\"/g')\"" '""' >"$T/line"
ok "$BIN/moe-run" -q --json "$T/m" --prompts "$T/line" -n 0
look "$T/out" "(lambda n: n[0] == n[1] > n[2])([s['prompt_tokens'] for s in v['sequences']])" | grep -q True || { cat "$T/out"; fail "tools as JSON in a string"; }
count
printf '\357\273\277Hello' >"$T/line"
same "$(tokens "$T/m" --prompt-file "$T/line")" "$(tokens "$T/m" --prompt Hello)" "a byte order mark before --prompt-file"
printf '\357\273\277 {"prompt": "Hello"}\n' >"$T/line"
ok "$BIN/moe-run" -q --json "$T/m" --prompts "$T/line" -n 1
same "$(look "$T/out" "v['sequences'][0]['prompt_tokens']")" "$(tokens "$T/m" --prompt Hello)" "a request behind a byte order mark"
refused 2 "unknown chat template 'x' (k2-first" "$T/m" --chat --prompt a --chat-template x
# a key and its colon show that a text is JSON, also over several lines; what is not text is refused
line 13 '{
  "prompt": "a"
}' 'is not JSON: bad syntax at byte 0 (it is read as requests, an object a line: jq -c . FILE makes such lines'
line 13 '[
  {"prompt": "a"}]' 'is a JSON array'
line 13 '{"prom' 'is not JSON'
for text in '{not a request}' '{x}' '{{user}}: a' '{"Hello," he said, "there"}' '[{foo} bar]' '{"' '{"a' '["Hello", he said]'; do
    printf '%s\nand a line\n' "$text" >"$T/lines"
    ok "$BIN/moe-run" -q --json "$T/m" --prompts "$T/lines" -n 1
    same "$(look "$T/out" "len(v['sequences'])")" 2 "lines that begin with $text"
done
# a damaged request is no text, nor is a request among lines of text
for text in "{'prompt': 'a'}" '{prompt: "a"}' '{"prompt" "a"}' '{"prompt: "a"}' '{“model”: "x"}' "[{'tokens': [1]}]" "{
  'prompt': 'a'}"; do
    printf '%s\nand a line\n' "$text" >"$T/lines"
    refused 13 "'$T/lines': line 1: is not JSON: " "$T/m" --prompts "$T/lines" -n 1
    grep -q 'a text goes into {"prompt": TEXT}' "$T/err" || { cat "$T/err"; fail "what to do with a damaged request"; }
done
for key in prompt tokens messages; do
    printf 'a\n{"a": 1}\n{"%s": 1, \n{"model": "m", "%s": []}\n' $key $key >"$T/lines"
    refused 13 "'$T/lines': line 4: is a request in JSON, but the file's first line is none" "$T/m" --prompts "$T/lines" -n 1
done
for text in '{x}' '{{user}}: a' '{ a: b }' '{a'; do
    printf 'a\n%s\n{"x": 1}\n{"prompt": \n' "$text" >"$T/lines"
    ok "$BIN/moe-run" -q --json "$T/m" --prompts "$T/lines" -n 1
    same "$(look "$T/out" "len(v['sequences'])")" 4 "a line $text among lines of text"
done
printf 'caf\351\n' >"$T/lines"
refused 13 "line 1: byte 0xe9 is not UTF-8" "$T/m" --prompts "$T/lines" -n 1
printf '\377\376\000\000a\000\000\000\n\000\000\000' >"$T/u32"
refused 14 "is UTF-32, not text (convert it: iconv -f UTF-32" "$T/m" --prompts "$T/u32" -n 1
printf '\377\376a\000\n\000' >"$T/u16"
printf 'PAR1\025\004' >"$T/parquet"
for how in --prompts --prompt-file --score; do
    refused 14 "is UTF-16, not text" "$T/m" $how "$T/u16" -n 1
    refused 14 "is Parquet, not text (convert it to JSON lines)" "$T/m" $how "$T/parquet" -n 1
done
# options for the form of a conversation are refused where there is no conversation
refused 2 "--system goes with --chat" "$T/m" --prompt a --system b
refused 2 "--chat-template goes with --chat" "$T/m" --prompt a --chat-template k2.5
refused 2 "--chat does not go with --tokens" "$T/m" --chat --tokens 1,2
echo a >"$T/lines"
refused 2 "--chat-template is for conversations, and '$T/lines' holds none" "$T/m" --prompts "$T/lines" --chat-template k2.5
echo '{"prompt": "a"}' >"$T/lines"
refused 2 "--system is for conversations, and '$T/lines' holds none" "$T/m" --prompts "$T/lines" --system b
code 2 "chat-template goes with --calib" "$BIN/moe-quantize" "$T/m" -o "$T/bad.moe" --chat-template k2.5
cp "$T/chatml.jinja" "$T/m/chat_template.jinja"
refused 14 "its chat template is none of those known to the letter: name the one that it renders as with --chat-template (k2-first, k2-instruct" "$T/m" --chat --prompt Hello
same "$(tokens "$T/m" --chat --prompt Hello --chat-template k2.5)" "$(tokens "$T/m" --special --prompt-file "$T/k25")" "--chat-template beside a template that is not known"
same "$(tokens "$T/m" --prompt Hello)" "$(tokens $F/bf16 --prompt Hello)" "plain text, whatever the template"

# ---- --calib: files of every kind, and what is left out ----
python3 - $F/calib.txt "$T" <<'E' || fail "texts"
import gzip, json, sys
src, T = sys.argv[1:]
text = open(src).read(); rows = [text[i:i + 400] for i in range(0, 24000, 400)]
jsonl = "".join(json.dumps({"text": r}) + "\n" for r in rows)
for name in ("rows.jsonl", "ROWS.JSONL"): open(T + "/" + name, "w").write(jsonl)
json.dump([{"text": r} for r in rows], open(T + "/rows.json", "w"), indent=1)
gzip.open(T + "/rows.gz", "wt").write(jsonl)
open(T + "/t.parquet", "wb").write(b"PAR1" + bytes(range(256))); open(T + "/u16.txt", "wb").write(text[:500].encode("utf-16")); open(T + "/nul.txt", "wb").write(b"one\ntw\0o\n")
call = {"id": "functions.f:0", "type": "function", "function": {"name": "f", "arguments": "{}"}}
def chat(i, full): return [{"role": "user", "content": rows[i]}, {"role": "assistant", "content": None if full else "", **({"reasoning_content": rows[i + 1], "tool_calls": [call]} if full else {})},
                           {"role": "tool", "tool_call_id": call["id"], "content": rows[i + 2]}, {"role": "assistant", "content": rows[i + 3]}]
for name, full in ("full", True), ("bare", False):
    open(T + "/" + name + ".jsonl", "w").writelines(json.dumps({"messages": chat(i, full), "id": i, **({"tools": [{"type": "function", "function": {"name": "f"}}]} if full else {})}) + "\n" for i in range(0, 40, 4))
open(T + "/empty.jsonl", "w").write('{"messages": [{"role": "robot", "content": "x"}]}\n')
E
quantize() { "$BIN/moe-quantize" "$1" -o "$T/q.moe" -f --json --effort fast --sequence-length 256 --calib-tokens 1024 --calib "$2" >"$T/out" 2>"$T/err" || { cat "$T/err"; fail "--calib $2"; }; }
hash() { quantize "$1" "$T/$2"; look "$T/q.moe/manifest.json" "v['quantization']['calibration']['tokens_xxh3_64']"; }
H=$(hash $F/bf16 rows.jsonl)
for f in ROWS.JSONL rows.json rows.gz; do same "$(hash $F/bf16 $f)" "$H" "$f"; done
rm "$T/m/chat_template.jinja"
full=$(hash "$T/m" full.jsonl)
grep -q "keys of rows are left out, the first is 'id'" "$T/err" && ! grep -q "thinking" "$T/err" || { cat "$T/err"; fail "notices of chats with everything"; }
{ printf '{"messages": []}\n{"text": null}\n'; cat "$T/full.jsonl"; } >"$T/holes.jsonl"
same "$(hash "$T/m" holes.jsonl)" "$full" "rows that hold nothing"
grep -q -e "--calib: 2 rows hold no turn, or null for their text, and are left out" "$T/err" || { cat "$T/err"; fail "notice of empty rows"; }
[ "$full" != "$(hash "$T/m" bare.jsonl)" ] || fail "tools, calls and thinking do not count"
hash $F/bf16 full.jsonl >/dev/null # K2-Instruct, and no tokens for tools
grep -q "the thinking of [0-9]* answers is left out" "$T/err" && grep -q "markers of tools and thinking are written as text" "$T/err" || { cat "$T/err"; fail "notices"; }
count
bad() { code "$1" "$2" "$BIN/moe-quantize" -q "$T/m" -o "$T/bad.moe" --calib "$T/$3"; count; }
bad 14 "t.parquet': is Parquet, not text (convert it to JSON lines)" t.parquet
bad 14 "is UTF-16, not text" u16.txt
bad 13 "line 2: a NUL byte" nul.txt
bad 13 "line 1: message 0: has the role 'robot'" empty.jsonl
[ ! -e "$T/bad.moe" ] && [ ! -e "$T/bad.moe.partial" ] || fail "something was written for a bad text"

# ---- memory ----
sanitized || {
    head -c 20000000 /dev/zero | tr '\0' a >"$T/run"
    refused 10 "a run of 20000000 bytes of text needs" $F/bf16 --prompt-file "$T/run" --memory 100M -n 1
    refused 10 "more bytes than the 10485760 that are allowed" $F/bf16 --prompts "$T/run" --memory 10M -n 1
    { echo a; head -c 4000000 "$T/run"; } >"$T/long-line" # of a line of --prompts it says which, as of a request
    refused 10 "'$T/long-line': line 2: a run of 4000000 bytes of text needs" $F/bf16 --prompts "$T/long-line" --memory 20M -n 1
    # JSON takes many times the memory of its text; how much it may take is known before it is parsed.
    python3 - "$T" <<'E' || fail "rows"
import sys
ones = ",".join(["1"] * 2000000)
open(sys.argv[1] + "/ones.jsonl", "w").write('{"tokens": [%s]}\n' % ones)
open(sys.argv[1] + "/row.jsonl", "w").write('{"text": "a b", "x": [%s]}\n' % ones)
E
    peak() # MIB EXIT TEXT COMMAND...
    {
        mib=$1 want=$2 text=$3 got=0
        shift 3
        "$GEN/genrss" "$T/rss" "$@" >"$T/out" 2>"$T/err" </dev/null || got=$?
        read -r bytes _ <"$T/rss"
        [ $got = "$want" ] && grep -qF -- "$text" "$T/err" || { cat "$T/err"; fail "exit $got, not $want with '$text': $*"; }
        [ "$bytes" -le $(($mib * 1048576)) ] || fail "$(($bytes / 1048576)) MiB are more than $mib: $*"
        count
    }
    peak 50 10 "line 1: its JSON takes up to 2" "$BIN/moe-run" $F/bf16 --prompts "$T/ones.jsonl" --memory 32M -n 1
    peak 50 10 "line 1: its JSON takes up to 2" "$BIN/moe-quantize" $F/bf16 -o "$T/bad.moe" --calib "$T/row.jsonl" --memory 64M --effort fast
    # The rendered conversation, and what is kept for every prompt, count as memory, too.
    python3 - "$T" <<'E' || fail "a long conversation"
import json, sys
text = "x y " * 5000000
for name, row in {"long": {"messages": [{"role": "user", "content": text}]}, "gpt": {"conversations": [{"from": "human", "value": text[:12000000]}]}}.items():
    open(sys.argv[1] + "/" + name + ".jsonl", "w").write(json.dumps(row) + "\n")
open(sys.argv[1] + "/many", "w").write("a\n" * 60000)
E
    peak 36 10 "line 1: has more bytes than the 1" "$BIN/moe-quantize" $F/bf16 -o "$T/bad.moe" --calib "$T/long.jsonl" --memory 16M --effort fast
    peak 80 10 "line 1: its tokens take up to" "$BIN/moe-quantize" $F/bf16 -o "$T/bad.moe" --calib "$T/long.jsonl" --memory 72M --effort fast
    peak 48 10 "line 1: its conversation takes up to" "$BIN/moe-quantize" $F/bf16 -o "$T/bad.moe" --calib "$T/gpt.jsonl" --memory 34M --effort fast
    peak 56 10 "are there for it (allow more with --memory, or shorten it)" "$BIN/moe-run" $F/bf16 --prompts "$T/long.jsonl" --memory 50M -n 0
    peak 90 10 "(allow more with --memory, or give less text at once)" "$BIN/moe-run" $F/bf16 --prompts "$T/long.jsonl" --memory 80M -n 0
    peak 36 10 "prompts take up to" "$BIN/moe-run" $F/bf16 --prompts "$T/many" --memory 30M -n 0
    peak 300 0 "1 key of rows is left out" "$BIN/moe-quantize" $F/bf16 -o "$T/q.moe" -f --calib "$T/row.jsonl" --memory 300M --effort fast
}
echo "t-chat: $checks checks"
