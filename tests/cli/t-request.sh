#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests requests of --prompts from outside: options of a line against those of the command line, choices,
# penalties and biases, logarithms of probabilities against a trace, what is refused; --jsonl, also where its
# output cannot be written; answers do not depend on company, ranks, batches or the size of the cache.
. tests/common.sh
need_tool moe-run
M=tests/data/tiny-k2/bf16
R=$BIN/moe-run
same() { cmp -s "$1" "$2" || { diff "$1" "$2" | head -n 4; fail "$3"; }; count; }
# shows EXPRESSION: of v, the object in $T/out, and s, its sequences
shows() { python3 -c 'import json, sys; v = json.load(open(sys.argv[1])); s = v.get("sequences"); print(eval(sys.argv[2]))' "$T/out" "$1"; }
is() { [ "$(shows "$1")" = True ] || { cat "$T/out"; fail "$2"; }; count; }

# ---- a line's options win over the command line's, and give what the command line gives ----
cat >"$T/lines" <<'J'
{"prompt": "Once upon"}
{"prompt": "Once upon", "max_tokens": 3, "user": "u", "stream": true, "stream_options": {"include_usage": true}}
{"prompt": "Once upon", "max_tokens": 9, "max_completion_tokens": 4, "temperature": null, "response_format": {"type": "text"}}
{"prompt": "Once upon", "temperature": 0.8, "top_k": 20, "top_p": 0.9, "min_p": 0.01, "seed": 11}
{"prompt": "Once upon", "stop": "upon"}
{"prompt": "Once upon", "stop": [" earth", "upon"]}
{"prompt": "Once upon", "max_tokens": 0}
J
ok "$R" -q --json $M --prompts "$T/lines" -n 6
is "[len(x['tokens']) for x in s] == [6, 3, 4, 6, len(s[4]['tokens']), len(s[5]['tokens']), 0]" "max_tokens of a line"
is "s[1]['tokens'] == s[0]['tokens'][:3] and 'choices' not in s[1] and 'logprobs' not in s[1]" "a line's own max_tokens"
is "s[4]['finish_reason'] == s[5]['finish_reason'] == 'stop' and s[0]['text'].startswith(s[4]['text']) and 'upon' not in s[4]['text']" "stop of a line"
shows "s[3]['tokens']" >"$T/line"
ok "$R" -q --json $M --prompt "Once upon" -n 6 --temperature 0.8 --top-k 20 --top-p 0.9 --min-p 0.01 --seed 11
shows "v['tokens']" >"$T/alone"
same "$T/line" "$T/alone" "sampling options of a line differ from those of the command line"
printf '{"%s": [1, 2, 3], "max_tokens": 4}\n' prompt tokens >"$T/lines"
ok "$R" -q --json $M --prompts "$T/lines"
is "s[0]['tokens'] == s[1]['tokens'] and s[0]['prompt_tokens'] == 3" "ids in 'prompt'"
# 2^53 + 1 is a seed of its own
printf '{"prompt": "a", "temperature": 1, "seed": 900719925474099%s}\n' 2 3 >"$T/lines"
ok "$R" -q --json $M --prompts "$T/lines" -n 12
is "s[0]['tokens'] != s[1]['tokens']" "seeds beyond 2^53"

# ---- where an answer ends ----
cat >"$T/lines" <<'J'
{"prompt": "Once upon", "max_tokens": 6}
{"prompt": "Once upon", "max_tokens": 6, "stop_token_ids": [44]}
{"prompt": "Once upon", "max_tokens": 6, "stop_token_ids": [44], "min_tokens": 4}
{"prompt": "Once upon", "max_tokens": 6, "stop": " ", "min_tokens": 3}
{"prompt": "Once upon", "max_tokens": 6, "logit_bias": {"44": 100}}
{"prompt": "Once upon", "max_tokens": 6, "logit_bias": {"44": -100}}
{"prompt": "Once upon", "max_tokens": 40, "ignore_eos": true}
{"prompt": "Once upon", "max_tokens": 40, "ignore_eos": true, "frequency_penalty": 2, "presence_penalty": 2, "repetition_penalty": 1.3}
J
ok "$R" -q --json $M --prompts "$T/lines"
is "s[0]['tokens'][2] == 44 and s[1]['tokens'] == s[0]['tokens'][:2] and s[1]['finish_reason'] == 'stop'" "stop_token_ids"
is "len(s[2]['tokens']) >= 4 and 44 not in s[2]['tokens'][:4] and s[2]['tokens'][:2] == s[0]['tokens'][:2]" "min_tokens with stop_token_ids"
is "len(s[3]['tokens']) >= 3" "min_tokens with a stop text"
cat >"$T/stops" <<'J'
{"prompt": "Once upon a time", "max_tokens": 8, "ignore_eos": true}
{"prompt": "Once upon a time", "max_tokens": 8, "ignore_eos": true, "min_tokens": 3, "stop": ["STOP", "STOP HELD"]}
J
ok "$R" -q --json $M --prompts "$T/stops"
# a stop text of the first tokens, and another that keeps it back, do not end the answer afterwards
python3 - "$T/out" >"$T/stops" <<'P'
import json, sys
text = json.load(open(sys.argv[1]))["sequences"][0]["text"]
print(json.dumps({"prompt": "Once upon a time", "max_tokens": 8, "ignore_eos": True, "min_tokens": 3, "stop": [text[1:3], text[:6] + "!"]}))
P
cp "$T/out" "$T/free"
ok "$R" -q --json $M --prompts "$T/stops"
is "s[0]['tokens'][:3] == json.load(open('$T/free'))['sequences'][0]['tokens'][:3] and len(s[0]['tokens']) > 3" "a stop text before min_tokens"
is "s[0]['text'].startswith(json.load(open('$T/free'))['sequences'][0]['text'][:6])" "text before min_tokens stays"
ok "$R" -q --json $M --prompts "$T/lines"
is "s[4]['tokens'] == [44] * 6 and 44 not in s[5]['tokens']" "logit_bias"
is "len(set(s[7]['tokens'])) > len(set(s[6]['tokens'])) and len(s[6]['tokens']) == 40" "penalties"

# ---- choices ----
for n in 1 2 5; do printf '{"prompt": "In the", "temperature": 1, "seed": 4, "max_tokens": 8, "n": %s}\n' $n; done >"$T/lines"
ok "$R" -q --json $M --prompts "$T/lines"
is "len(s) == 3 and [x['index'] for x in s] == [0, 1, 2] and [x['line'] for x in s] == [1, 2, 3] and 'choices' not in s[0]" "lines with choices"
is "[c['index'] for c in s[2]['choices']] == list(range(5)) and s[2]['choices'][:2] == s[1]['choices']" "choices depend on how many there are"
is "all(x['tokens'] == s[0]['tokens'] for x in s) and s[1]['choices'][0]['tokens'] == s[1]['tokens']" "choice 0 is the answer of n 1"
is "len(set(map(str, (c['tokens'] for c in s[2]['choices'])))) == 5" "choices are alike"
ok "$R" $M --prompts "$T/lines"
grep -q '^==> prompt 2 (line 3), choice 4 <==$' "$T/out" && grep -q '^==> prompt 0 (line 1) <==$' "$T/out" || { cat "$T/out"; fail "headings of choices"; }
grep -q '^3 prompts, 9 + 64 tokens' "$T/err" || { cat "$T/err"; fail "the notice counts prompts"; }
count

# ---- logarithms of probabilities, against the logits of a trace ----
printf '{"prompt": "Once upon", "max_tokens": 1, "logprobs": true, "top_logprobs": 20%s}\n' '' ', "temperature": 2, "seed": 9, "presence_penalty": 2, "logit_bias": {"300": 50}' >"$T/lines"
echo '{"prompt": "Once upon", "max_tokens": 2, "logprobs": 0}' >>"$T/lines"
echo '{"prompt": "Once upon", "max_tokens": 0, "logprobs": true}' >>"$T/lines"
ok "$R" -q $M --prompt "Once upon" -n 0 --trace "$T/trace"
ok "$R" -q --json $M --prompts "$T/lines"
python3 - "$T/out" "$T/trace" <<'P' || fail "logprobs differ from the trace"
import json, math, struct, sys
s = json.load(open(sys.argv[1]))["sequences"]
raw = open(sys.argv[2], "rb").read()
n = struct.unpack("<Q", raw[:8])[0]
t = json.loads(raw[8:8 + n])["logits"]
rows, v = t["shape"]
row = struct.unpack(f"<{v}f", raw[8 + n + t["data_offsets"][1] - 4 * v:8 + n + t["data_offsets"][1]])
z = max(row) + math.log(sum(math.exp(x - max(row)) for x in row))
best = sorted(range(v), key=lambda i: (-row[i], i))[:20]
for x in s[:2]:
    c = x["logprobs"]["content"]
    assert len(c) == 1 and c[0]["id"] == x["tokens"][0] and bytes(c[0]["bytes"]).decode() == c[0]["token"]
    assert abs(c[0]["logprob"] - (row[x["tokens"][0]] - z)) < 1e-5
    assert [a["id"] for a in c[0]["top_logprobs"]] == best
    assert all(abs(a["logprob"] - (row[a["id"]] - z)) < 1e-5 for a in c[0]["top_logprobs"])
assert s[1]["tokens"] == [300]
assert [len(c["top_logprobs"]) for c in s[2]["logprobs"]["content"]] == [0, 0] and s[3]["logprobs"]["content"] == []
P
count

# ---- and what they take is held to --memory: as one object, as lines, as text ----
for i in 1 2 3 4 5 6 7 8 9 10; do echo '{"prompt": "Once upon", "max_tokens": 200, "ignore_eos": true, "logprobs": 20}'; done >"$T/lines"
refused 10 "are there for them (--jsonl makes those of one prompt at a time; try fewer top_logprobs" $M --prompts "$T/lines" --json --memory 24M
ok "$R" -q $M --prompts "$T/lines" --jsonl --memory 24M
ok "$R" -q $M --prompts "$T/lines" --memory 24M
ok "$R" -q $M --prompts "$T/lines" --json --memory 64M
sanitized || is "v['peak_anonymous'] <= 64 << 20" "logprobs under --memory"
printf '{"prompt": "a", "max_tokens": 100, "logprobs": 20, "n": 20}\n' >"$T/lines"
refused 10 "'$T/lines': line 1: 1 prompts take up to" $M --prompts "$T/lines" --jsonl --memory 24M
ok "$R" -q $M --prompts "$T/lines" --jsonl --memory 64M

# ---- an error ends its request, not the run: the embedding of token 999 is no number ----
mkdir "$T/nan" && cp $M/* "$T/nan/"
python3 - "$T/nan" <<'P' || fail "no model with NaN"
import json, os, struct, sys
d, name = sys.argv[1], "model.embed_tokens.weight"
m = json.load(open(d + "/model.safetensors.index.json"))["weight_map"]
path = d + "/" + next(v for k, v in m.items() if k.endswith(name))
os.chmod(path, 0o644)
with open(path, "r+b") as f:
    n = struct.unpack("<Q", f.read(8))[0]
    t = next(v for k, v in json.loads(f.read(n)).items() if k.endswith(name))
    row = 2 * t["shape"][1]
    f.seek(8 + n + t["data_offsets"][0] + 999 * row)
    f.write(b"\xc0\x7f" * (row // 2))
P
for t in 1 999 5; do echo "{\"tokens\": [$t, 2, 3], \"max_tokens\": 5, \"ignore_eos\": true, \"logprobs\": 1}"; done >"$T/lines"
for how in "" "--ranks 2"; do
    "$R" -q "$T/nan" --prompts "$T/lines" --json $how >"$T/out" 2>"$T/err"; r=$?
    [ $r = 18 ] && [ "$(wc -l <"$T/err")" = 1 ] && grep -q 'prompt 1 (line 2): ' "$T/err" || { cat "$T/out" "$T/err"; fail "a request that fails gives $r ($how)"; }
    is "[x['finish_reason'] for x in s] == ['length', 'error', 'length'] and [len(x.get('tokens', '')) for x in s] == [5, 0, 5]" "the others of a request that fails"
    is "s[1]['error']['code'] == 18 and s[1]['line'] == 2 and s[1]['prompt_tokens'] == 3 and 'text' not in s[1] and 'logprobs' not in s[1]" "the record of a request that fails"
    "$R" -q "$T/nan" --prompts "$T/lines" --jsonl $how >"$T/got" 2>"$T/err"; r=$?
    [ $r = 18 ] && [ "$(grep -c '"finish_reason": "length"' "$T/got")" = 2 ] && [ "$(grep -c '"error": {"code": 18' "$T/got")" = 1 ] || { cat "$T/got" "$T/err"; fail "--jsonl of a request that fails gives $r ($how)"; }
    "$R" "$T/nan" --prompts "$T/lines" $how >"$T/got" 2>"$T/err"; r=$?
    [ $r = 18 ] && grep -q '^==> prompt 2' "$T/got" && grep -q 'warning: prompt 1 (line 2): ' "$T/err" || { cat "$T/got" "$T/err"; fail "text of a request that fails gives $r ($how)"; }
    count
done

# ---- priority: lower is sooner; of the same one the first ----
for p in 2 0 1 -5 0; do echo "{\"prompt\": \"a\", \"max_tokens\": 2, \"priority\": $p}"; done >"$T/lines"
ok "$R" -q $M --prompts "$T/lines" --jsonl --max-sequences 1
[ "$(cut -c 11 "$T/out" | tr -d '\n')" = 31420 ] || { cat "$T/out"; fail "the order of priorities"; }
count

# ---- refusals: one sentence with file, line and key ----
line() { printf '{"prompt": "a"}\n{"prompt": "a", %s}\n' "$2" >"$T/bad"; refused "$1" "'$T/bad': line 2: $3" $M --prompts "$T/bad" -n 1; }
line 13 '"temperature": -1' "'temperature' -1: want 0 or more"
line 13 '"temperature": "1"' "'temperature' is not a number"
line 13 '"top_p": 0' "'top_p' 0: want above 0, at most 1"
line 13 '"top_p": 1e-60' "'top_p' 1e-60: want above 0, at most 1"
line 13 '"min_p": 1.5' "'min_p' 1.5: want 0 to 1"
for r in 0 1e-40 0.009 100.1 3e38; do line 13 '"repetition_penalty": '$r "'repetition_penalty' $(printf %g $r): want 0.01 to 100"; done
line 13 '"presence_penalty": -2.1' "'presence_penalty' -2.1: want -2 to 2"
line 13 '"temperature": 1e39' "'temperature' 1e+39: want at most 3.40282e+38"
line 13 '"temperature": -1e39' "'temperature' -1e+39: want 0 or more"
line 13 '"max_tokens": 1e30' "'max_tokens' 1e+30: want at most 9223372036854775807"
line 13 '"max_tokens": -1e30' "'max_tokens' -1e+30: want 0 or more"
line 13 '"n": 129' "'n' 129: want 1 to 128"
line 13 '"n": 1.5' "'n' is not a whole number"
line 13 '"seed": 9223372036854775808' "'seed' 9.22337e+18: want -9223372036854775808 to 9223372036854775807"
line 13 '"priority": -2147483648' "'priority' -2147483648: want -2147483647 to 2147483647"
line 13 '"cache_salt": ""' "'cache_salt' is not a text of one character or more"
line 13 '"stop": ""' "'stop' has an empty text"
line 13 '"stop": [1]' "'stop' is not a text or a list of texts"
line 13 '"stop_token_ids": [1024]' "'stop_token_ids' has something that is no id below 1024"
line 13 '"logit_bias": {"x": 1}' "'logit_bias' has the key 'x', which is no id below 1024"
line 13 '"logit_bias": {"1": 101}' "'logit_bias': that of 1 is not a number from -100 to 100"
line 13 '"top_logprobs": 2' "'top_logprobs' goes with 'logprobs': true"
line 13 '"max_tokens": 1, "min_tokens": 2' "'min_tokens' 2 is more than 'max_tokens' 1"
line 14 '"response_format": {"type": "json_object"}' "'response_format' is not supported but as {\"type\":\"text\"}"
printf '{"prompt": ["a", "b"]}\n' >"$T/bad"
refused 13 "'$T/bad': line 1: 'prompt' has a text in its list of ids, and a line is one prompt (give each" $M --prompts "$T/bad" -n 1
for bad in "'tokens' is not" "'prompt' is neither a text nor"; do
    printf '{"%s": true}\n' "$(echo "$bad" | cut -d "'" -f 2)" >"$T/bad"
    refused 13 "'$T/bad': line 1: $bad a list of ids" $M --prompts "$T/bad" -n 1
done
printf '{"prompt": "a", "min_tokens": 5}\n' >"$T/bad"
refused 13 "'$T/bad': line 1: 'min_tokens' 5 is more than -n 3 (raise -n, or give 'max_tokens' too)" $M --prompts "$T/bad" -n 3
line 14 '"thinking": {}' "'thinking' is no key of a request here"
refused 2 "--jsonl goes with --prompts" $M -p a --jsonl
refused 2 "--jsonl does not go with --json" $M --prompts "$T/lines" --jsonl --json
refused 2 "--cache goes with --prompts" $M -p a --cache 1G
refused 2 "--max-sequences goes with --prompts" $M -p a --max-sequences 2
refused 2 "--max-sequences -1: want 1 or more" $M --prompts "$T/lines" --max-sequences -1
refused 2 "--batch-tokens -3: want 1 or more" $M -p a --batch-tokens -3
for o in max-sequences batch-tokens; do refused 2 "--$o 0: want 1 or more" $M --prompts "$T/lines" --$o 0; done
refused 2 "option '--cache' wants a size above 0" $M --prompts "$T/lines" --cache 0
refused 2 "--top-p 1e-60: want above 0" $M -p a --temperature 1 --top-p 1e-60
refused 2 "--temperature 1e+39: want at most 3.40282e+38" $M -p a --temperature 1e39
refused 2 "--min-p 1.5: want 0 to 1" $M -p a --temperature 1 --min-p 1.5
printf '{"prompt": "Once", "temperature": 3e38, "max_tokens": 2, "repetition_penalty": %s}\n' 0.01 100 >"$T/lines2"
ok "$R" -q $M --prompts "$T/lines2"
refused 2 "--cache of 1000 bytes: a page of 64 positions takes" $M --prompts "$T/lines" --cache 1000
echo '{"prompt": "a", "max_tokens": 400}' >"$T/line"
refused 2 "positions, and a sequence may need 401 (raise --cache" $M --prompts "$T/line" --cache 100000

# ---- the same answers in any company, from any ranks, by any limits; as lines ----
i=0
grep -v '^$' tests/data/tiny-k2/valid.txt | head -n 16 | cut -c 1-40 | while read -r text; do
    i=$(($i + 1))
    python3 -c 'import json, sys; i = int(sys.argv[2]); print(json.dumps({"prompt": sys.argv[1], "max_tokens": 4 + i, "temperature": i % 3 / 2, "seed": i, "n": 1 + i % 2,
        "presence_penalty": i % 5 / 4, "frequency_penalty": .5, "logprobs": i % 4 == 0, "repetition_penalty": 1.1, "min_tokens": i % 3}))' "$text" $i
done >"$T/mixed"
# tidy FILE: the sequences in the order of the file, without ranks
tidy() { python3 -c 'import json, sys
t = open(sys.argv[1]).read()
for v in sorted(map(json.loads, t.splitlines()), key=lambda v: v["index"]) if t.startswith("{\"index\"") else json.loads(t)["sequences"]:
    for c in [v] + v.get("choices", []): c.pop("rank")
    print(json.dumps(v))' "$1"; }
ok "$R" -q $M --prompts "$T/mixed" --jsonl
[ "$(wc -l <"$T/out")" = 16 ] && ! grep -qv '^{"index": ' "$T/out" || { cat "$T/out"; fail "lines of --jsonl"; }
tidy "$T/out" >"$T/want"
ok "$R" -q --json $M --prompts "$T/mixed"
tidy "$T/out" >"$T/got"
same "$T/want" "$T/got" "--jsonl and --json differ"
for how in "--batch-tokens 1" "--batch-tokens 7" "--max-sequences 1" "--max-sequences 3" "--cache 5M" "--cache 200K --batch-tokens 9" "-t 1" "--ranks 3" "--ranks 2 --max-sequences 2"; do
    ok "$R" -q $M --prompts "$T/mixed" --jsonl $how
    tidy "$T/out" >"$T/got"
    same "$T/want" "$T/got" "answers change with $how"
done
for at in 1 6 12; do
    sed -n ${at}p "$T/mixed" >"$T/one"
    ok "$R" -q $M --prompts "$T/one" --jsonl
    tidy "$T/out" >"$T/alone"
    sed -n ${at}p "$T/want" >"$T/line"
    python3 -c 'import json, sys; a, b = (json.load(open(f)) for f in sys.argv[1:]); a.update(index=0, line=0); b.update(index=0, line=0); assert a == b' "$T/alone" "$T/line" ||
        fail "request $at has another answer alone"
    count
done

# ---- a context that memory made short is named, once, where it ended an answer ----
cut='^warning: an answer ended at [0-9]* positions, since memory holds no longer context; the model.s is 1024 (raise --memory'
warned() { n=$1; shift; "$R" "$@" >"$T/out" 2>"$T/err" && [ "$(grep -c "$cut" "$T/err")" = "$n" ] || { cat "$T/err"; fail "$n warnings of a short context: $*"; }; count; }
printf '{"tokens": [1, 2], "ignore_eos": true, "n": 3}\n{"prompt": "a", "max_tokens": 3}\n' >"$T/lines"
if ! sanitized; then
    for memory in 1024 1536 2048 2560 3072 3584 4096; do # the least that runs: a full context takes 2 MiB more
        "$R" -q -t 1 $M --prompts "$T/lines" --memory ${memory}K >"$T/out" 2>"$T/err" && break
    done
    warned 1 -t 1 $M --prompts "$T/lines" --memory ${memory}K
    warned 1 -t 1 $M --prompts "$T/lines" --memory ${memory}K --jsonl
    warned 1 -t 1 $M --tokens 1,2 --ignore-eos --memory ${memory}K
    warned 0 -t 1 $M --tokens 1,2 --ignore-eos --memory ${memory}K -n 3
    warned 0 -t 1 $M --tokens 1,2 --ignore-eos --memory ${memory}K --context 16
fi
warned 0 $M --prompts "$T/lines"

# ---- lines that cannot be written: whatever stands there is whole lines ----
whole() { python3 -c 'import json, sys
t = open(sys.argv[1]).read()
assert t == "" or t.endswith("\n")
print(len([json.loads(l) for l in t.splitlines()]))' "$1" || fail "$2: not whole lines"; count; }
if [ -e /dev/full ]; then
    "$R" -q $M --prompts "$T/mixed" --jsonl >/dev/full 2>"$T/err"; r=$?
    [ $r = 12 ] && grep -q 'cannot write to standard output: No space left on device' "$T/err" && [ "$(wc -l <"$T/err")" = 1 ] || { cat "$T/err"; fail "--jsonl >/dev/full gives $r"; }
    count
fi
(ulimit -f 2; "$R" -q $M --prompts "$T/mixed" --jsonl >"$T/cut" 2>"$T/err"); r=$?
[ $r = 11 ] || [ $r = 12 ] || { cat "$T/err"; fail "a file that is too large gives $r"; }
[ "$(whole "$T/cut" "a file that is too large")" -gt 0 ] || fail "a file that is too large has no line"
{ "$R" -q $M --prompts "$T/mixed" --jsonl 2>"$T/err"; echo $? >"$T/code"; } | head -n 1 >"$T/cut"
[ ! -s "$T/err" ] && [ "$(cat "$T/code")" -lt 128 ] || { cat "$T/err"; fail "--jsonl into a closed pipe: $(cat "$T/code")"; }
[ "$(whole "$T/cut" "a closed pipe")" = 1 ] || fail "a closed pipe has no line"
sed 's/"max_tokens": [0-9]*/"max_tokens": 300, "ignore_eos": true/' "$T/mixed" >"$T/long"
"$R" -q $M --prompts "$T/long" --jsonl --max-sequences 2 >"$T/cut" 2>"$T/err" &
pid=$!
for wait in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do [ -s "$T/cut" ] && break; sleep 0.5; done
kill -9 $pid 2>/dev/null
wait $pid
[ "$(whole "$T/cut" "a killed run")" -ge 1 ] || fail "a killed run has printed no line"
echo "t-request: $checks checks"
