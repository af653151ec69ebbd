#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-run from outside: scores, traces against goldens made by plain Python, generation, stop texts,
# chat, refusals, containers.
. tests/common.sh
need_tool moe-run
need_helper genmodel
M=tests/data/tiny-k2
R=$BIN/moe-run
same() { cmp -s "$1" "$2" || fail "$3"; count; }
near() { awk "BEGIN { d = $1 - $2; exit !(d <= $3 && d >= -$3) }" || fail "$4: $1, not $2 within $3"; count; }

# ---- scores -----------------------------------------------------------------
bytes=12000
sanitized && bytes=3000
head -c $bytes $M/valid.txt >"$T/short.txt"
if sanitized; then
    ok "$R" -q --json $M/bf16 --score "$T/short.txt" --window 256
else
    ok "$R" -q --json $M/bf16 --score $M/valid.txt --window 256
    [ "$(json tokens "$T/out")" = 69120 ] || fail "scored $(json tokens "$T/out") positions, not 69120"
    near "$(json perplexity "$T/out")" 15.7035 0.002 perplexity
    ok "$R" -q --json $M/bf16 --score "$T/short.txt" --window 256
fi
json nll "$T/out" >"$T/nll"
for threads in 1 7; do
    ok "$R" -q --json $M/bf16 --score "$T/short.txt" --window 256 --threads $threads
    json nll "$T/out" >"$T/other"
    same "$T/nll" "$T/other" "--score depends on --threads $threads"
done
gzip -c "$T/short.txt" >"$T/short.gz"
ok "$R" -q --json $M/bf16 --score "$T/short.gz" --window 256 --mla plain
near "$(json nll "$T/out")" "$(cat "$T/nll")" 1e-5 "plain MLA"
ok "$R" -q --json $M/bf16 --score "$T/short.txt" --window 100 --reference $M/bf16
[ "$(json kl "$T/out")" = 0 ] && [ "$(json top1_agreement "$T/out")" = 1 ] || { cat "$T/out"; fail "a model differs from itself"; }
ok "$R" -q --json $M/int4 --score "$T/short.txt" --window 100 --reference $M/bf16
awk "BEGIN { exit !(0 < $(json kl_p50 "$T/out") && $(json kl_p50 "$T/out") < $(json kl "$T/out") && $(json kl "$T/out") < $(json kl_p99 "$T/out") &&
    $(json kl_p99 "$T/out") < $(json kl_max "$T/out") && $(json kl "$T/out") < 0.5 && $(json top1_agreement "$T/out") > 0.7) }" || { cat "$T/out"; fail "KL of int4"; }
count

# ---- NVFP4 activations (test-plain has the arithmetic) ----------------------
if [ -x "$BIN/moe-quantize" ]; then
    ok "$BIN/moe-quantize" -q $M/bf16 -o "$T/w4.moe" --method max
    ok "$R" -q --json "$T/w4.moe" --score "$T/short.txt" --window 100 --reference $M/bf16
    weights=$(json kl "$T/out")
    ok "$R" --json "$T/w4.moe" --score "$T/short.txt" --window 100 --reference $M/bf16 --activations nvfp4
    grep -q 'warning: .*288 of 288 NVFP4 weights are uncalibrated' "$T/err" || { cat "$T/err"; fail "no warning about uncalibrated weights"; }
    awk "BEGIN { exit !($(json kl "$T/out") > 1.5 * $weights && $(json kl "$T/out") < 2.5 * $weights) }" || { cat "$T/out"; fail "KL with NVFP4 activations, $weights without"; }
    cp "$T/out" "$T/w4a4"
    ok "$R" -q --json "$T/w4.moe" --score "$T/short.txt" --window 100 --reference $M/bf16 --activations nvfp4 --threads 7
    [ "$(json kl "$T/out")" = "$(json kl "$T/w4a4")" ] || fail "--activations nvfp4 depends on --threads"
    ok "$R" -q --json "$T/w4.moe" --score "$T/short.txt" --window 100 --reference "$T/w4.moe" --activations int16
    awk "BEGIN { exit !($(json kl "$T/out") > 1e-12 && $(json kl "$T/out") < 1e-7) }" || { cat "$T/out"; fail "KL of 16-bit activations"; }
    cp "$T/out" "$T/int16"
    ok "$R" -q --json "$T/w4.moe" --score "$T/short.txt" --window 100 --reference "$T/w4.moe" --activations int16 --threads 7
    [ "$(json kl "$T/out")" = "$(json kl "$T/int16")" ] || fail "--activations int16 depends on --threads"
    ok "$R" --json $M/bf16 --tokens 1,2,3 -n 2 --activations nvfp4
    grep -q 'warning: .*no weight of the model is NVFP4' "$T/err" || { cat "$T/err"; fail "no warning without NVFP4 weights"; }
    count
fi

# ---- traces -----------------------------------------------------------------
ids=$(awk 'BEGIN { for (i = 0; i < 90; i++) printf "%s%d", i ? "," : "", i * 7919 % 1000 }')
trace() { ok "$R" -q "$1" --tokens "$ids" -n 0 --trace "$T/$2"; }
trace $M/bf16 trace
for threads in 1 2 7; do
    ok "$R" -q $M/bf16 --tokens "$ids" -n 0 --trace "$T/again" --threads $threads
    same "$T/trace" "$T/again" "--trace depends on --threads $threads"
done
MOE_CPU=avx2 "$R" -q $M/bf16 --tokens "$ids" -n 0 --trace "$T/again" || fail "MOE_CPU=avx2"
same "$T/trace" "$T/again" "AVX2 and AVX-512 compute different bits"
if [ -x "$BIN/moe-convert" ]; then
    for layout in bf16 fp8 int4; do
        ok "$BIN/moe-convert" $M/$layout -o "$T/$layout.moe"
        trace $M/$layout checkpoint
        trace "$T/$layout.moe" container
        same "$T/checkpoint" "$T/container" "$layout: checkpoint and container compute different bits"
    done
    ok "$R" -q --json "$T/bf16.moe" --score "$T/short.txt" --window 256
    json nll "$T/out" >"$T/other"
    same "$T/nll" "$T/other" "the container's score differs from the checkpoint's"
    ok "$R" -q --json "$T/bf16.moe" --prompt "And God said" -n 8 # its own tokenizer
fi
if command -v python3 >/dev/null; then
    cat >"$T/golden.py" <<'P'
import array, json, struct, subprocess, sys
def load(path):
    with open(path, "rb") as f:
        n = struct.unpack("<Q", f.read(8))[0]
        head, data = json.loads(f.read(n)), f.read()
    head.pop("__metadata__", None)
    out = {}
    for name, t in head.items():
        a = array.array({"F32": "f", "I32": "i"}[t["dtype"]])
        a.frombytes(data[slice(*t["data_offsets"])])
        out[name] = (t["shape"], a)
    return out
run, model, out = sys.argv[1:4]
golden, worst = load("tests/data/tiny-k2/golden.safetensors"), 0
for prompt in range(3):
    want = {k.split(".", 1)[1]: v for k, v in golden.items() if k.startswith("prompt%d." % prompt)}
    tokens = ",".join(map(str, want["tokens"][1]))
    for cpu in ("", "avx2", "ref")[:3 if prompt < 2 else 1]:
        subprocess.run([run, "-q", model, "--tokens", tokens, "-n", "0", "--trace", out], check=True, env={"MOE_CPU": cpu, "PATH": "/bin:/usr/bin"})
        got = load(out)
        assert set(got) == set(want), (sorted(got), sorted(want))
        for name, (shape, w) in want.items():
            g = got[name]
            assert g[0] == shape, (name, g[0], shape)
            if w.typecode == "i":
                assert g[1] == w, name
                continue
            error = max(abs(a - b) for a, b in zip(g[1], w)) / max(map(abs, w))
            assert error <= 2e-4, (name, error)
            if name == "logits":
                worst = max(worst, error)
print("t-run: logits within %.1e of the goldens" % worst)
P
    python3 "$T/golden.py" "$R" $M/bf16 "$T/t" || fail "the trace differs from golden.safetensors"
    count
fi

# ---- text -------------------------------------------------------------------
gen() { ok "$R" -q $M/bf16 --prompt "And it came to pass" "$@"; mv "$T/out" "$T/text"; }
gen -n 30
mv "$T/text" "$T/greedy"
[ "$(wc -c <"$T/greedy")" -gt 40 ] || fail "30 tokens make $(wc -c <"$T/greedy") bytes"
gen -n 30 --temperature 0 --seed 9 --threads 1
same "$T/text" "$T/greedy" "greedy text depends on the seed or on threads"
ok "$R" -q --json $M/bf16 --prompt "And it came to pass" -n 30
[ "$(json finish_reason "$T/out")" = length ] && [ "$(json prompt_tokens "$T/out")" -gt 2 ] || { cat "$T/out"; fail "finish_reason"; }
gen -n 30 --temperature 1 --top-p 0.9 --top-k 50 --min-p 0.01 --seed 3
mv "$T/text" "$T/sampled"
gen -n 30 --temperature 1 --top-p 0.9 --top-k 50 --min-p 0.01 --seed 3 --threads 7
same "$T/text" "$T/sampled" "sampled text is not the seed's"
gen -n 30 --temperature 1 --top-p 0.9 --top-k 50 --min-p 0.01 --seed 4
! cmp -s "$T/text" "$T/sampled" || fail "another seed, the same text"
gen -n 30 --temperature 1 --top-k 1 --seed 4
same "$T/text" "$T/greedy" "top-k 1 is not greedy"
# A stop text that begins inside one token and ends inside another: no part of it is printed.
stop=$(cut -c 9-14 "$T/greedy" | head -n 1)
gen -n 30 --stop "never there" --stop "$stop"
[ "$(cat "$T/text")" = "$(cut -c 1-8 "$T/greedy" | head -n 1)" ] || { cat "$T/greedy" "$T/text"; fail "--stop '$stop'"; }
ok "$R" -q --json $M/bf16 --prompt "And it came to pass" -n 30 --stop "$stop"
[ "$(json finish_reason "$T/out")" = stop ] || fail "a stop text is not finish_reason stop"
gen -n 30 --stop "$stop zzz" # begins like the text, then does not: what was held back comes
same "$T/text" "$T/greedy" "text was lost at a stop text that did not come"
count

# Prompts: file, standard input, tokens, invalid UTF-8, special tokens, BOS.
printf 'And it came to pass' >"$T/prompt"
ok "$R" -q $M/bf16 --prompt-file "$T/prompt" -n 30
same "$T/out" "$T/greedy" "--prompt-file"
"$R" -q $M/bf16 -n 30 <"$T/prompt" >"$T/out" || fail "a prompt from standard input"
same "$T/out" "$T/greedy" "a prompt from standard input"
printf 'a\377\300b' >"$T/bad"
ok "$R" -q --json $M/bf16 --prompt-file "$T/bad" -n 3
[ "$(json prompt_tokens "$T/out")" = 4 ] || fail "invalid UTF-8: $(json prompt_tokens "$T/out") tokens, not 4"
ok "$R" -q --json $M/bf16 --prompt '<|im_end|>' -n 0
[ "$(json prompt_tokens "$T/out")" -gt 1 ] || fail "special text became a special token"
ok "$R" -q --json $M/bf16 --prompt '<|im_end|>' -n 0 --special
[ "$(json prompt_tokens "$T/out")" = 1 ] || fail "--special does not"
ok "$R" -q --json $M/bf16 --prompt '<|im_end|>' -n 0 --special --bos
[ "$(json prompt_tokens "$T/out")" = 2 ] || fail "--bos does not"
ok "$R" -q --json $M/bf16 --chat --prompt 'Hello' -n 3
chat=$(json prompt_tokens "$T/out")
ok "$R" -q --json $M/bf16 --prompt 'Hello' -n 3
[ "$chat" -gt $(($(json prompt_tokens "$T/out") + 5)) ] || fail "--chat adds no template"
ok "$R" -q --json $M/bf16 --tokens 5 -n -1 --ignore-eos --context 12
[ "$(json finish_reason "$T/out")" = length ] && [ -n "$(json text "$T/out")" ] || fail "a full context is not finish_reason length"
[ "$(tr -d '\n' <"$T/out" | sed 's/.*"tokens": *\[\([^]]*\).*/\1/' | awk -F, '{ print NF }')" = 11 ] || { cat "$T/out"; fail "1 + 11 tokens fill a context of 12"; }
count
if ! sanitized; then # which hold more memory than is allowed here
    # --memory bounds what is held besides the mapped files; smaller batches compute the same.
    gen -n 30 --memory 6M
    same "$T/text" "$T/greedy" "text depends on --memory"
    head -c 2600 "$T/short.txt" >"$T/long.txt"
    ok "$R" -q --json $M/bf16 --prompt-file "$T/long.txt" -n 0 --context 1024 --memory 8M
    [ "$(json prompt_tokens "$T/out")" -gt 700 ] || fail "long.txt is $(json prompt_tokens "$T/out") tokens"
    [ "$(json peak_anonymous "$T/out")" -le $((8 << 20)) ] || fail "--memory 8M: peak_anonymous $(json peak_anonymous "$T/out")"
    count
fi

# ---- refusals ---------------------------------------------------------------
refused 3 "nowhere" "$T/nowhere" --prompt x
refused 2 "which model" --prompt x
: >"$T/nothing"
refused 13 "nothing': holds no text" $M/bf16 --score "$T/nothing"
refused 13 "nothing': holds no text" $M/bf16 --score "$T/nothing" --bos --ranks 2
refused 2 "empty" $M/bf16 --prompt ""
refused 2 "do not fit the context" $M/bf16 --prompt "And it came to pass, when men began to multiply" --context 3
refused 2 "--context" $M/bf16 --prompt x --context 100000
refused 10 "smaller --context" $M/bf16 --prompt x --context 1024 --memory 1M
refused 10 "larger --memory" $M/bf16 --prompt x --memory 1
refused 2 "--memory" $M/bf16 --prompt x --memory -1
refused 2 "option '--memory' wants a size above 0" $M/bf16 --prompt x --memory 0
refused 2 "--threads" $M/bf16 --prompt x --threads 0
refused 15 "vocabulary" $M/bf16 --tokens 1,2,1024
refused 2 "--tokens" $M/bf16 --tokens 1,x
refused 2 "--tokens" $M/bf16 --tokens 1,-2
refused 2 "--window" $M/bf16 --score "$T/short.txt" --window 5000
refused 2 "smaller --window" $M/bf16 --score "$T/prompt"
refused 2 "--reference" $M/bf16 --prompt x --reference $M/int4
refused 3 "no-text" $M/bf16 --score "$T/no-text"
refused 2 "--top-p 0: want" $M/bf16 --prompt x --temperature 1 --top-p 0
refused 2 "--temperature" $M/bf16 --prompt x --temperature -1
refused 2 "--mla" $M/bf16 --prompt x --mla other
refused 2 "--mla-norm-eps" $M/bf16 --prompt x --mla-norm-eps 1
refused 2 "--activations" $M/bf16 --prompt x --activations int8
refused 14 "--bench times the processor" $M/bf16 --bench --device cuda
refused 14 "one GPU in this version" $M/bf16 --prompt x --device cuda --ranks 2
refused 14 "--mla plain" $M/bf16 --prompt x --device cuda --mla plain
refused 14 "--activations int16" $M/bf16 --prompt x --device cuda --activations int16
refused 14 "--arithmetic fast is computed by a GPU alone" $M/bf16 --prompt x --arithmetic fast
refused 14 "--cache-type bf16 goes with --arithmetic fast" $M/bf16 --prompt x --cache-type bf16
refused 2 "unknown --cache-type 'fp8'" $M/bf16 --prompt x --cache-type fp8
refused 2 "unknown --arithmetic 'quick'" $M/bf16 --prompt x --arithmetic quick
refused 14 "nccl" $M/bf16 --prompt x --ranks 2 --comm nccl
refused 3 "no-folder" $M/bf16 --prompt x -n 0 --trace "$T/no-folder/x"
mkdir "$T/bare"
cp $M/bf16/*.safetensors* $M/bf16/config.json "$T/bare/"
ok "$R" -q "$T/bare" --tokens 1,2 -n 2
refused 3 "tiktoken.model" "$T/bare" --score "$T/short.txt" --window 100
ok "$R" -q $M/bf16 --score "$T/short.txt" --window 100 --reference "$T/bare"
refused 3 "tiktoken.model" "$T/bare" --tokens 1,2 -n 2 --stop x
printf 'a\0b' >"$T/nul"
refused 2 "NUL" $M/bf16 --chat --prompt-file "$T/nul" -n 0
ok "$GEN/genmodel" -o "$T/other-vocab" --layers 2 --experts 4 --top-k 2 --vocab 300
refused 15 "vocabular" $M/bf16 --score "$T/short.txt" --window 100 --reference "$T/other-vocab"
ok "$GEN/genmodel" -o "$T/nan" --layers 3 --experts 4 --top-k 4 --nan model.layers.1.mlp.experts.2.up_proj.weight
refused 18 "layers.1.mlp.experts.2.up_proj" "$T/nan" --tokens 1,2,3 -n 2
refused 18 "layers.1.mlp.experts.2.up_proj" "$T/nan" --tokens 1,2,3 -n 0 --trace "$T/never"
[ ! -e "$T/never" ] && [ ! -e "$T/never.tmp" ] || fail "a failed trace left a file"
ok "$GEN/genmodel" -o "$T/dense" --layers 2 --experts 4 --top-k 2 --dense 2
refused 14 "has no layer with routed experts" "$T/dense" --tokens 1,2 -n 1 --record-routing "$T/never"
ok "$GEN/genmodel" -o "$T/norm" --layers 2 --experts 4 --top-k 2 --inf model.norm.weight
refused 18 "model.norm.weight" "$T/norm" --tokens 1,2,3
refused 18 "model.norm.weight" "$T/norm" --tokens 1,2,3 --json
grep -q '"error"' "$T/out" || fail "no error object"

# ---- options that go together, and options of which the last wins -----------------------------
printf 'Hello\nBye\n' >"$T/in.txt"
printf 'Once upon' >"$T/once"
says() { ok "$R" -q $M/bf16 -n 6 "$@"; cat "$T/out"; }
[ "$(says --tokens 1,2 --prompt a)" = "$(says --prompt a)" ] || fail "--tokens, then --prompt: the last wins"
[ "$(says --prompt a --tokens 1,2)" = "$(says --tokens 1,2)" ] || fail "--prompt, then --tokens: the last wins"
[ "$(says --prompt-file "$T/once" -p a)" = "$(says --prompt a)" ] || fail "--prompt-file, then -p: the last wins"
[ "$(says -pa --prompt-file "$T/once")" = "$(says --prompt-file "$T/once")" ] || fail "-pa, then --prompt-file"
[ "$(says --prompts "$T/in.txt" --prompt=b)" = "$(says --prompt b)" ] || fail "--prompts, then --prompt: the last wins"
[ "$(says --prompt b --prompts "$T/in.txt")" = "$(says --prompts "$T/in.txt")" ] || fail "--prompt, then --prompts"
count
B="$M/bf16 --bench" S="$M/bf16 --score $T/once"
for o in "-p a" "--prompts $T/in.txt" "--tokens 1" "--score $T/once" --chat "--trace $T/never"; do
    refused 2 "--bench does not go with" $B $o
done
for o in "-p a" "--prompt-file $T/once" "--tokens 1" --chat "--trace $T/never"; do
    refused 2 "--score does not go with" $S $o
done
for o in "--temperature 0" "--top-p 1" "--top-k 0" "--min-p 0" "--seed 0" "--stop a" --ignore-eos; do # given at their defaults, too
    refused 2 "${o%% *} does not go with --score" $S $o
    refused 2 "${o%% *} does not go with --bench" $B $o
done
refused 2 "--window goes with --score" $M/bf16 -p a --window 9
for o in "--seed 3" "--top-p 0.9" "--top-k 5" "--min-p 0.1"; do
    refused 2 "${o% *} goes with --temperature" $M/bf16 -p a $o
    ok "$R" -q $M/bf16 -p a -n 1 --temperature 0 $o # said to have none
done
refused 2 "--split goes with --ranks N, --plan PLAN or --rendezvous" $M/bf16 -p a --split equal
refused 2 "--rank-timeout goes with --ranks" $M/bf16 -p a --rank-timeout 3
refused 2 "--replan-after goes with --replan" $M/bf16 -p a --replan-after 3
refused 2 "--replan wants several ranks" $M/bf16 -p a --replan "$T/once"
refused 2 "--stop wants a text" $M/bf16 -p a --stop ""
refused 2 "-n -2: want 0 or more, or -1" $M/bf16 -p a -n -2
refused 2 "unknown --device 'cuda:x'" $M/bf16 -p a --device cuda:x
for o in --gpu "--ngl 9" "-ngl 9"; do refused 2 "(here: --device)" $M/bf16 -p a $o; done
refused 2 "(here: --context)" $M/bf16 -p a --ctx-size 8
refused 2 "did you mean '--temperature'" $M/bf16 -p a --temp 1
refused 2 "unknown option '--xyz' (see moe-run --help)" $M/bf16 -p a --xyz

# ---- empty turns --------------------------------------------------
for t in "" "  "; do refused 2 "a turn of --chat is empty" $M/bf16 --chat -p "$t"; done
refused 2 "a turn of --chat is empty" $M/bf16 --chat # standard input has nothing
line() { printf '{"prompt": "a"}\n%s\n' "$1" >"$T/l.jsonl"; refused 13 "line 2: $2" $M/bf16 --prompts "$T/l.jsonl" -n 2; }
line '{"messages": []}' "'messages' holds no turn"
line '{"messages": [{"role": "user", "content": "a"}, {"role": "user", "content": " "}]}' "message 1: a user's turn is empty"
line '{"messages": [{"role": "user", "content": [{"type": "text", "text": ""}]}]}' "message 0: a user's turn is empty"
line '{"messages": [{"role": "user"}]}' "message 0: a user's turn is empty"
line '{"tokens": []}' "an empty prompt has no token"
line '{"prompt": ""}' "an empty prompt has no token"
line '{"tokens": [1, 99999]}' "token 99999 is outside the model's vocabulary of 1024"
line '{"prompt": "a\u0000b"}' "holds a text with a NUL (\u0000), which is not taken, at byte"
echo '{"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "a"},
    {"role": "assistant", "content": ""}, {"role": "user", "content": "b"}]}' | tr -d '\n' >"$T/l.jsonl"
ok "$R" -q $M/bf16 --prompts "$T/l.jsonl" -n 2
printf 'Hello\n  \n' >"$T/in.txt"
refused 13 "line 2: is blank, and a user's turn cannot be empty" $M/bf16 --chat --prompts "$T/in.txt" -n 2

ok "$R" -q --json $M/bf16 --bench
grep -q '"share_of_peak"' "$T/out" || fail "--bench"
for op in open "first token" decode prefill; do grep -qF "\"op\": \"$op\"" "$T/out" || fail "--bench has no row '$op'"; done
echo "t-run: $checks checks"
