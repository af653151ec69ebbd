#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests what moe-run generates: the same from a container and on any number of threads; JSON keys; stop texts
# anywhere; end tokens; the end of the context; prompts from every source.
. tests/common.sh
need_tool moe-run moe-convert
need_python
F=tests/data/tiny-k2 RUN=$BIN/moe-run checks=0
count() { checks=$(($checks + 1)); }
# run NAME ARGUMENT...: runs moe-run, with its standard output in T/NAME
run() { name=$1; shift; "$RUN" -q "$@" >"$T/$name" 2>"$T/err" </dev/null || { r=$?; cat "$T/err"; fail "exit $r: moe-run $*"; }; }
# py NAME EXPRESSION: fails unless the Python expression over j, the object in T/NAME, is true
py() { python3 -c 'import json, math, sys
j = json.load(open(sys.argv[1]))
sys.exit(0 if eval(sys.argv[2]) else 1)' "$T/$1" "$2" || { cat "$T/$1"; fail "not so: $2"; }; count; }
same() { cmp "$T/$1" "$T/$2" || { head -c 600 "$T/$1" "$T/$2"; fail "$1 and $2 differ"; }; count; }
# pick NAME KEY...: writes these keys alone to T/NAME, in a form that can be compared
pick() { n=$1; shift; python3 -c 'import json, sys
j = json.load(open(sys.argv[1])); json.dump([j[k] for k in sys.argv[2:]], open(sys.argv[1], "w"))' "$T/$n" "$@"; }

ok "$BIN/moe-convert" -q $F/bf16 -o "$T/c.moe"

# ---- generation ----
P='And it came to pass'
gen() { n=$1; shift; run $n --json "$@"; cp "$T/$n" "$T/$n.full"; pick $n text tokens prompt_tokens finish_reason; }
gen g1 -t 1 $F/bf16 --prompt "$P" -n 40
py g1.full 'list(j) == ["text", "tokens", "prompt_tokens", "seconds", "prefill_tokens_per_second", "decode_tokens_per_second", "peak_rss", "peak_anonymous", "finish_reason", "cache", "device"]'
py g1.full 'list(j["cache"]) == ["bytes", "pages", "used_peak", "found_tokens", "preemptions"] and j["cache"]["used_peak"] == 1'
gen turn -t 1 $F/bf16 --chat --prompt "$P" -n 4
py turn.full 'j["cache"]["pages"] > 0 and j["cache"]["used_peak"] == 1'
py g1.full 'list(j["seconds"]) == ["load", "prefill", "decode"] and len(j["tokens"]) == 40 and j["finish_reason"] == "length"'
python3 -c 'import re, sys
t = open(sys.argv[1]).read()
bad = [n for n in re.findall(r"(?:load|prefill|decode|per_second)\": ([0-9.e-]+)", t) if len(re.sub("e.*|[.]|^0[.]0*", "", n)) > 6]
sys.exit("more digits than were measured: %s" % bad if bad or "per_second" not in t else 0)' "$T/g1.full" || fail "numbers in JSON"
for t in 2 7; do gen g$t -t $t $F/bf16 --prompt "$P" -n 40; same g1 g$t; done
gen gc -t 2 "$T/c.moe" --prompt "$P" -n 40; same g1 gc
gen ga $F/bf16 --prompt "$P" -n 40 --temperature 0 --seed 99; same g1 ga
streamed() { n=$1; shift; run $n.txt "$@"; run $n --json "$@"
    python3 -c 'import json, sys
j = json.load(open(sys.argv[1])); t = open(sys.argv[2], newline="").read()
sys.exit(t != j["text"] + ("\n" if j["tokens"] else ""))' "$T/$n" "$T/$n.txt" || fail "$n: the streamed text is not the JSON text"; count; }
streamed st $F/bf16 --prompt "$P" -n 60 --temperature 1.5 --seed 3 --ignore-eos
for s in 1 2; do gen t$s $F/bf16 --prompt "$P" -n 40 --temperature 0.9 --top-p 0.95 --top-k 50 --min-p 0.01 --seed $s; done
gen t1b -t 7 "$T/c.moe" --prompt "$P" -n 40 --temperature 0.9 --top-p 0.95 --top-k 50 --min-p 0.01 --seed 1
same t1 t1b
! cmp -s "$T/t1" "$T/t2" || fail "seeds 1 and 2 give the same text"
run st --json $F/bf16 --prompt "$P" -n 60 --ignore-eos

# Stop texts of every length that end anywhere in the greedy continuation, at token borders or within tokens.
python3 - "$T" >"$T/stops" <<'P'
import json, sys
t = json.load(open(sys.argv[1] + "/st"))["text"]
for at, n in ((1, 1), (5, 3), (8, 9), (20, 2), (17, 14), (40, 5)):
    print(t[at:at + n])
P
while IFS= read -r stop; do
    streamed stop $F/bf16 --prompt "$P" -n 60 --ignore-eos --stop "$stop" --stop 'never in it'
    python3 -c 'import json, sys
full = json.load(open(sys.argv[1] + "/st"))["text"]; j = json.load(open(sys.argv[1] + "/stop"))
sys.exit(not (j["finish_reason"] == "stop" and sys.argv[2] not in j["text"] and j["text"] == full[:full.index(sys.argv[2])]))' "$T" "$stop" || {
        cat "$T/stop"; fail "--stop '$stop'"; }
    count
done <"$T/stops"
[ "$(wc -l <"$T/stops")" -ge 6 ] || fail "no stop texts"
streamed almost $F/bf16 --prompt "$P" -n 60 --ignore-eos --stop "$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["text"][3:20] + "~")' "$T/st")"
py almost "j['text'] == json.load(open('$T/st'))['text'] and j['finish_reason'] == 'length'"

# Text may hold any byte: sampling at a high temperature produces NULs, which JSON spells \u0000.
streamed nul $F/bf16 --prompt "And it" -n 1000 --temperature 1000 --seed 3 --ignore-eos
py nul 'j["text"].count(chr(0)) >= 1 and len(j["text"]) > 2000'

run n0 --json $F/bf16 --prompt "$P" -n 0
py n0 'j["text"] == "" and j["tokens"] == [] and j["prompt_tokens"] > 2 and j["finish_reason"] == "length"'
run n0t $F/bf16 --prompt "$P" -n 0
[ ! -s "$T/n0t" ] || fail "-n 0 prints something"

# An end token stops the answer unless told otherwise: a copy's config names the first greedy token as [EOS].
mkdir "$T/eosdir"
for f in $F/bf16/*; do ln -s "$PWD/$f" "$T/eosdir/"; done
rm "$T/eosdir/config.json" "$T/eosdir/generation_config.json"
first=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["tokens"][3])' "$T/st")
sed "s/\"eos_token_id\": 1009/\"eos_token_id\": $first/" $F/bf16/config.json >"$T/eosdir/config.json"
run eos --json "$T/eosdir" --prompt "$P" -n 20
py eos "len(j['tokens']) <= 3 and $first not in j['tokens'] and j['finish_reason'] == 'stop'"
run ign --json "$T/eosdir" --prompt "$P" -n 20 --ignore-eos
py ign "len(j['tokens']) == 20 and $first in j['tokens'] and j['finish_reason'] == 'length'"

run full --json $F/bf16 --prompt "$P" --context 24 --ignore-eos
py full 'j["finish_reason"] == "length" and j["prompt_tokens"] + len(j["tokens"]) in (24, 25)'

# generation continues a traced prompt as any other
run plain --json $F/bf16 --prompt "$P" -n 12; pick plain text tokens
run traced --json $F/bf16 --prompt "$P" -n 12 --trace "$T/trace.safetensors"; pick traced text tokens; same plain traced

# ---- prompts ----
run chat --json $F/bf16 --chat --prompt 'Who made the heaven?' -n 12
printf 'Who made the heaven?' | "$RUN" -q --json $F/bf16 --chat -n 12 >"$T/chat2" 2>"$T/err" || fail "chat from standard input"
pick chat text tokens prompt_tokens; pick chat2 text tokens prompt_tokens; same chat chat2
run sys --json $F/bf16 --chat --system 'Be brief.' --prompt 'Who made the heaven?' -n 0
run nosys --json $F/bf16 --chat --system '' --prompt 'Who made the heaven?' -n 0 # the default turn is K2's own, longer than this one
py sys "json.load(open('$T/nosys'))['prompt_tokens'] < j['prompt_tokens'] < json.load(open('$T/chat'))[2]"
run bos --json $F/bf16 --bos --special --prompt '<|im_end|>' -n 0
py bos 'j["prompt_tokens"] == 2'
run bosonly --json $F/bf16 --bos --prompt '' -n 3
py bosonly 'j["prompt_tokens"] == 1 and len(j["tokens"]) <= 3'
printf '%s' "$P" >"$T/p.txt"; gzip -c "$T/p.txt" >"$T/p.gz"
gen pf $F/bf16 --prompt-file "$T/p.txt" -n 40; same g1 pf
gen pg $F/bf16 --prompt-file "$T/p.gz" -n 40; same g1 pg
for how in '--prompt-file -' ''; do
    "$RUN" -q --json $F/bf16 $how -n 40 <"$T/p.txt" >"$T/pi" 2>"$T/err" || { cat "$T/err"; fail "a prompt from standard input"; }
    pick pi text tokens prompt_tokens finish_reason; same g1 pi
done
printf 'And \377\300 he \200' >"$T/bad.txt"
run bad --json $F/bf16 --prompt-file "$T/bad.txt" -n 8
py bad 'j["prompt_tokens"] >= 6 and len(j["tokens"]) == 8'
run tok --json $F/bf16 --tokens 320,678,44 -n 5
run tok2 --json "$T/c.moe" --tokens 320,678,44 -n 5
pick tok tokens prompt_tokens; pick tok2 tokens prompt_tokens; same tok tok2
py tok 'len(j[0]) == 5 and j[1] == 3'

# ---- tokens that tokenizer_config.json marks "special": false are text (</think>, tool markers); other added tokens are not ----
mkdir "$T/marks" || fail "mkdir"
for f in $F/bf16/*; do ln -s "$PWD/$f" "$T/marks/" || fail "ln"; done
rm "$T/marks/tiktoken.model" "$T/marks/tokenizer_config.json"
# The fixture's last ranks become added tokens: the largest id that is generated is `</think>`, those above
# it are placeholders.
run before --json $F/bf16 --tokens 320,678,44 -n 30
mark() { python3 - "$T/before" "$T/marks" $F/bf16 $1 <<'E' || fail "a vocabulary with </think>"; }
import json, sys
run, dst, src, special = sys.argv[1:]
x = max(json.load(open(run))["tokens"])
open(dst + "/tiktoken.model", "w").writelines(l for l in open(src + "/tiktoken.model") if int(l.split()[1]) < x)
json.dump({"added_tokens_decoder": {str(x): {"content": "</think>", "special": special == "True"}}}, open(dst + "/tokenizer_config.json", "w"))
E
mark False; streamed mark "$T/marks" --tokens 320,678,44 -n 30
py mark 'j["text"].count("</think>") == j["tokens"].count(max(j["tokens"])) > 0'
mark True; streamed mark "$T/marks" --tokens 320,678,44 -n 30
py mark '"</think>" not in j["text"]'
echo "t-generate: $checks checks"
