#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-run --messages and what it says of answers in a chat: thinking, content and tool calls, printed and as
# JSON, against chatparts.py; stop texts that end an answer anywhere; files that are read, and what is refused.
. tests/common.sh
need_tool moe-run
need_python
F=tests/data/tiny-k2/bf16 RUN=$BIN/moe-run
same() { [ "$1" = "$2" ] || fail "$3: $1 is not $2"; count; }

# the fixture's last placeholders get the names of the markers, and the template is that of K2.5
mkdir "$T/m" || fail mkdir
for f in $F/*; do ln -s "$PWD/$f" "$T/m/" || fail ln; done
rm "$T/m/tokenizer_config.json"
cp tests/data/chat-templates/k2.5.jinja "$T/m/chat_template.jinja" || fail cp
python3 - $F/tokenizer_config.json "$T" <<'P' || fail "a vocabulary with markers"
import json, sys
src, T = sys.argv[1:]
c = json.load(open(src)); a = c["added_tokens_decoder"]
marks = {1013: "<think>", 1014: "</think>", 1015: "<|tool_calls_section_begin|>", 1018: "<|tool_calls_section_end|>",
         1019: "<|tool_call_begin|>", 1020: "<|tool_call_argument_begin|>", 1021: "<|tool_call_end|>"}
for id, name in marks.items(): a[str(id)] = {"content": name, "special": False}
json.dump(c, open(T + "/m/tokenizer_config.json", "w"))
# requests whose answers are markers and text in any order: markers have a bias
def request(name, **more):
    bias = {i: 20 for i in marks}
    bias.update({1013: 16, 1014: 24, 1019: 24, 1020: 27})
    r = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 60, "temperature": 5, "logprobs": True, "logit_bias": bias, "ignore_eos": True}
    r.update(more)
    json.dump(r, open("%s/%s.json" % (T, name), "w"), indent=1)
for seed in range(24): request(seed, seed=seed, **({"chat_template_kwargs": {"thinking": False}} if seed % 4 == 0 else {}))
json.dump([{"role": "user", "content": "Hello"}], open(T + "/list.json", "w"))
open(T + "/turns.txt", "w").write("Hello\n")
json.dump({"messages": [{"role": "user", "content": "Hello"}]}, open(T + "/plain.json", "w"))
open(T + "/line.jsonl", "w").write(json.dumps({"messages": [{"role": "user", "content": "Hello"}]}) + "\n")
for name, r in {"n": {"n": 3}, "key": {"foo": 1}, "prompt": {"prompt": "a"}, "long": {"max_tokens": -3},
                "image": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}}.items():
    open("%s/bad-%s.json" % (T, name), "w").write(json.dumps({"messages": [{"role": "user", "content": "a"}], **r}))
json.dump({"messages": [{"role": "user", "content": "a"}], "logprobs": 20, "max_tokens": 900}, open(T + "/bad-logprobs.json", "w"))
json.dump([{"role": "user", "content": "a b " * 1000000}], open(T + "/bad-size.json", "w"))
open(T + "/bad-json.json", "w").write('{"messages": [')
open(T + "/bad-text.json", "w").write('Hello')
open(T + "/bad-prompts.json", "w").write('{"prompt": "a"}')
P

# ---- parts of answers, printed and as JSON ----
seeds=24
sanitized && seeds=8
seen=
seed=0
while [ $seed -lt $seeds ]; do
    thinking=1
    [ $(($seed % 4)) = 0 ] && thinking=0
    ok "$RUN" -q --json -t 1 "$T/m" --messages "$T/$seed.json"
    cp "$T/out" "$T/json" && cp "$T/out" "$T/answer-$seed.json" || fail cp
    ok "$RUN" -q -t 1 "$T/m" --messages "$T/$seed.json"
    cp "$T/out" "$T/printed" || fail cp
    seen="$seen $(python3 tests/readers/chatparts.py "$T/json" "$T/m/tokenizer_config.json" $thinking "$T/printed")" || fail "the parts of answer $seed"
    count
    # the answer may end anywhere
    python3 - "$T" $seed <<'P' || fail "stop texts of answer $seed"
import json, sys
T, seed = sys.argv[1:]
text = json.load(open(T + "/json"))["text"]
r = json.load(open("%s/%s.json" % (T, seed)))
for k in range(3):
    at = (int(seed) * 37 + k * 61) % max(len(text), 1)
    r["stop"] = [text[at:at + 1 + k * 3] or "x", "never in it"]
    json.dump(r, open("%s/stop-%d.json" % (T, k), "w"))
P
    for k in 0 1 2; do
        ok "$RUN" -q --json -t 1 "$T/m" --messages "$T/stop-$k.json"
        cp "$T/out" "$T/json" || fail cp
        ok "$RUN" -q -t 1 "$T/m" --messages "$T/stop-$k.json"
        cp "$T/out" "$T/printed" || fail cp
        python3 tests/readers/chatparts.py "$T/json" "$T/m/tokenizer_config.json" $thinking "$T/printed" >"$T/n" || fail "the parts of answer $seed up to a stop text"
        count
    done
    seed=$(($seed + 1))
done
# they are not all of one kind
for kind in '[1-9] True True' '0 True False' '0 True True' '0 False True'; do
    sanitized || echo "$seen" | grep -q "$kind" || fail "no answer with $kind (calls, thinking, content): $seen"
done
count

# the same in --prompts, with a second choice each, and by two ranks; a text has no parts
python3 - "$T" $seeds <<'P' || fail "requests of --prompts"
import json, sys
with open(sys.argv[1] + "/requests.jsonl", "w") as f:
    for seed in range(int(sys.argv[2])): f.write(json.dumps({**json.load(open("%s/%d.json" % (sys.argv[1], seed))), "n": 2}) + "\n")
    f.write('{"prompt": "Hello", "max_tokens": 3}\n')
P
for ranks in 1 2; do
    ok "$RUN" -q --json "$T/m" --prompts "$T/requests.jsonl" --ranks $ranks
    python3 - "$T" $seeds <<'P' || fail "parts in --prompts with $ranks ranks"
import json, sys
T, seeds = sys.argv[1], int(sys.argv[2])
keys = ("tokens", "content", "reasoning_content", "tool_calls")
rows = json.load(open(T + "/out"))["sequences"]
for seed in range(seeds):
    want, got = json.load(open("%s/answer-%d.json" % (T, seed))), rows[seed]
    for one in (got, got["choices"][0]): assert all(one.get(k) == want.get(k) for k in keys), (seed, one, want)
    assert len(got["choices"]) == 2 and "content" in got["choices"][1]
assert not any(k in rows[-1] for k in keys[1:])
P
    count
done
ok "$RUN" -q --json "$T/m" --prompts "$T/turns.txt" --chat -n 5
same "$(look "$T/out" "'content' in v['sequences'][0]")" True "a turn a line"

# ---- what is read ----
ok "$RUN" -q --json "$T/m" --prompts "$T/line.jsonl" -n 9
look "$T/out" "v['sequences'][0]['tokens']" >"$T/want"
for file in "$T/list.json" "$T/plain.json" "$T/line.jsonl"; do
    ok "$RUN" -q --json "$T/m" --messages "$file" -n 9
    same "$(look "$T/out" "v['tokens']")" "$(cat "$T/want")" "$file"
done
gzip -c "$T/plain.json" >"$T/plain.gz"
ok "$RUN" -q --json "$T/m" --messages "$T/plain.gz" -n 9
same "$(look "$T/out" "v['tokens']")" "$(cat "$T/want")" "a gzipped file"
"$RUN" -q --json "$T/m" --messages - -n 9 <"$T/list.json" >"$T/out" 2>"$T/err" || fail "standard input"
same "$(look "$T/out" "v['tokens']")" "$(cat "$T/want")" "standard input"
ok "$RUN" -q --json "$T/m" --messages "$T/plain.json" -n 9 --ranks 2
same "$(look "$T/out" "v['tokens']")" "$(cat "$T/want")" "two ranks"
ok "$RUN" -q --json "$T/m" --prompt Hello --messages "$T/plain.json" -n 9
same "$(look "$T/out" "v['tokens']")" "$(cat "$T/want")" "the last prompt counts"
ok "$RUN" -q --json "$T/m" --chat --prompt Hello -n 9
same "$(look "$T/out" "v['tokens']")" "$(cat "$T/want")" "--chat"
same "$(look "$T/out" "list(v)[9:12]")" "['content', 'reasoning_content', 'cache']" "the keys of a chat that only thinks"
ok "$RUN" -q --json "$T/m" --prompt Hello -n 3
same "$(look "$T/out" "'content' in v")" False "a text has no parts"
ok "$RUN" -q --json "$T/m" --messages "$T/plain.json" -n 0 --system 'Be brief.'
n=$(json prompt_tokens "$T/out")
ok "$RUN" -q --json "$T/m" --messages "$T/plain.json" -n 0
[ "$n" -gt "$(json prompt_tokens "$T/out")" ] || fail "--system"
count
# the text as it is
ok "$RUN" -q --json "$T/m" --messages "$T/1.json" --special
look "$T/out" "v['text']" >"$T/want"
ok "$RUN" -q "$T/m" --messages "$T/1.json" --special
same "$(cat "$T/out")" "$(cat "$T/want")" "--special"

# ---- what is refused ----
bad() { refused "$1" "$2" "$T/m" --messages "$T/bad-$3.json" -n 3; }
bad 13 "is not JSON" json
bad 13 "is not JSON" text
bad 13 "is neither a list of messages nor a request with 'messages'" prompts
bad 13 "is neither a list of messages nor a request with 'messages'" prompt
bad 14 "'n' is 3, and --messages gives one answer" n
bad 14 "'foo' is no key of a request here" key
bad 14 "message 0: a part of its content is of type 'image_url'" image
bad 13 "'max_tokens'" long
sanitized || refused 10 "bad-logprobs.json': 1 prompts take up to" "$T/m" --messages "$T/bad-logprobs.json" --memory 14M
sanitized || refused 10 "bad-size.json': its tokens take up to" "$T/m" --messages "$T/bad-size.json" --memory 14M
refused 2 "--chat does not go with --messages" "$T/m" --messages "$T/plain.json" --chat
refused 2 "--score does not go with --messages" "$T/m" --messages "$T/plain.json" --score "$T/plain.json"
cp tests/data/chat-templates/k2.5.jinja "$T/m/chat_template.jinja"; echo x >>"$T/m/chat_template.jinja"
refused 14 "its chat template is none of those known to the letter" "$T/m" --messages "$T/plain.json" -n 1
ok "$RUN" -q --json "$T/m" --messages "$T/plain.json" -n 1 --chat-template k2-thinking
count
refused 2 "--chat-template goes with --chat, --messages, or" "$T/m" --prompt a --chat-template k2.5 -n 1
echo "t-messages: $checks checks"
