#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests calibrated quantization of tiny-k2 and of generated models: quality against the data-free methods;
# the same bytes from container and checkpoint, for any number of threads, through scratch files and after
# kills; experts that the text never reaches, zeros, NaN.
. tests/common.sh
need_tool moe-convert moe-quantize moe-run moe-inspect
need_helper genmodel
need_python
F=tests/data/tiny-k2

quantize() { out=$1; shift; ok "$BIN/moe-quantize" -q --calib $F/calib.txt --sequence-length $S -o "$T/$out.moe" "$@"; }
kl() # NAME [OPTION...]
{
    name=$1; shift
    ok "$BIN/moe-run" "$T/$name.moe" --score "$T/text" --window 256 --reference $F/bf16 -q --json "$@"
    look "$T/out" "v['kl']"
}
better() { awk "BEGIN { exit !($1 < $3 * $2) }" || fail "$4: $1 is not below $3 of $2"; }

# --- the same bytes ---
N=4000
quick= # for what is not about the rounding itself
P=520 S=256 # of what is not about tokens, and their sequences
sanitized && N=256 P=128 S=64 && quick="--effort fast" # a token takes ten times as long there
quantize one $F/bf16 --calib-tokens $N --threads 1
ok "$BIN/moe-inspect" -q --verify "$T/one.moe"
quantize two $F/bf16 --calib-tokens $N --threads 2
quantize seven $F/bf16 --calib-tokens $N --threads 7
mkdir "$T/scratch"
memory=40M
sanitized && memory=4G # which is room enough for everything
quantize files $F/bf16 --calib-tokens $N --threads 1 --memory $memory --scratch "$T/scratch"
ok "$BIN/moe-convert" -q $F/bf16 -o "$T/src.moe"
quantize container "$T/src.moe" --calib-tokens $N
for other in two seven files container; do ok diff -r "$T/one.moe" "$T/$other.moe"; done
[ -z "$(ls "$T/scratch")" ] || fail "scratch is not empty"
gzip -c $F/calib.txt >"$T/calib.txt.gz"
python3 -c "import json,sys; print(json.dumps({'text': open(sys.argv[1]).read()}))" $F/calib.txt >"$T/calib.jsonl"
few="--sequence-length $S --calib-tokens $P --effort fast" # how the text is read has nothing to do with how many tokens are taken
ok "$BIN/moe-quantize" -q --calib $F/calib.txt $few -o "$T/few.moe" $F/bf16
for text in calib.txt.gz calib.jsonl; do
    rm -rf "$T/read.moe"
    ok "$BIN/moe-quantize" -q --calib "$T/$text" $few -o "$T/read.moe" $F/bf16
    ok diff -r "$T/few.moe" "$T/read.moe"
done

for how in plain gzip rows; do # from standard input, a pipe or a file
    rm -rf "$T/read.moe"
    case $how in plain) cat $F/calib.txt ;; gzip) cat "$T/calib.txt.gz" ;; rows) cat "$T/calib.jsonl" ;; esac |
        "$BIN/moe-quantize" -q --calib - $few -o "$T/read.moe" $F/bf16 >"$T/out" 2>"$T/err" || { cat "$T/err"; fail "--calib - ($how)"; }
    ok diff -r "$T/few.moe" "$T/read.moe"
done
ok "$BIN/moe-quantize" -q --resume --calib - $few -o "$T/read.moe" $F/bf16 <$F/calib.txt
code 15 "calibration.tokens_xxh3_64" sh -c '"$@" <tests/data/tiny-k2/valid.txt' sh "$BIN/moe-quantize" -q --resume --calib - $few -o "$T/read.moe" $F/bf16
code 2 "standard input can be read once" "$BIN/moe-quantize" -q --calib - --calib - -o "$T/x.moe" $F/bf16
code 10 "calib.txt': its tokens take up to" \
    "$BIN/moe-quantize" -q --calib $F/calib.txt --memory 1M -o "$T/x.moe" $F/bf16
code 13 "holds no text" "$BIN/moe-quantize" -q --calib - -o "$T/x.moe" $F/bf16 </dev/null
[ "$(echo '{"messages": [{"role": "user", "content": 1}]}' | "$BIN/moe-quantize" -q --calib - -o "$T/x.moe" $F/bf16 2>&1 | grep -c "'standard input': line 1")" = 1 ] || fail "standard input has no name in messages"

# --- killed and resumed (t-kill has more of this) ---
quantize all $F/bf16 --calib-tokens $N $quick --quantize all-linear --threads 1
"$BIN/moe-quantize" -q --calib $F/calib.txt --sequence-length $S --calib-tokens $N $quick --quantize all-linear $F/bf16 -o "$T/all-2.moe" >"$T/out" 2>"$T/err" &
pid=$!
sleep 0.7
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
quantize all-2 $F/bf16 --calib-tokens $N $quick --quantize all-linear --resume
ok diff -r "$T/all.moe" "$T/all-2.moe"
# How work is kept, parts are merged and tensors are chosen is nothing that a compiler changes.
[ -z "${MOE_COMPILER:-}" ] || { echo "t-calibrate: the same bytes"; exit 0; }

# --- files that a calibration keeps for itself, damaged or of an older version ---
damaged() # FILE: a byte in its middle is another
{
    printf x | dd of="$1" bs=1 seek=$(($(wc -c <"$1") / 2)) conv=notrunc 2>/dev/null
}
kept="-q --calib $F/calib.txt --calib-tokens 256 --sequence-length 64 --sensitivity-tokens 128 -m fisher --effort fast"
kept="$kept --quantize all-linear $F/bf16"
ok "$BIN/moe-quantize" $kept -o "$T/kept.moe"
need_faults
for how in damaged old coded journal; do
    rm -rf "$T/k.moe" "$T/k.moe.partial"
    got=0
    shim MOE_FAULT=fsync:26:SIGKILL "$BIN/moe-quantize" $kept -o "$T/k.moe" >"$T/out" 2>&1 || got=$?
    [ $got = 137 ] || { rm -rf "$T/k.moe"; echo "no call can be killed here: damaged files are left out"; break; }
    p=$T/k.moe.partial
    [ -e "$p/layer-001.json" ] && [ -e "$p/fisher-003.work" ] && [ -e "$p/coded-001.work" ] && [ ! -e "$p/layer-003.json" ] ||
        { ls "$p"; fail "killed at another moment"; }
    case $how in
        damaged) damaged "$p/fisher-003.work" ;;
        old) for f in "$p"/fisher-*.work; do tail -c +33 "$f" >"$T/headless"; cat "$T/headless" >"$f"; done ;;
        coded)
            damaged "$p/coded-001.work"
            code 13 "coded-001.work': is damaged, or an older version wrote it (remove it and use --resume)" \
                "$BIN/moe-quantize" $kept -o "$T/k.moe" --resume
            rm "$p/coded-001.work" ;;
        journal) # sealed, but its note lacks what routing.json is made of
            cp "$p/layer-001.json" "$T/journal"
            for key in layer tokens; do
                cp "$T/journal" "$p/layer-001.json"
                ok python3 tests/gen/reseal.py "$p/layer-001.json" "\"$key\":" '"other":'
                code 13 "k.moe.partial': the journal of a layer in it is damaged" \
                    "$BIN/moe-quantize" $kept -o "$T/k.moe" --resume
            done
            cp "$T/journal" "$p/layer-001.json" ;;
    esac
    ok "$BIN/moe-quantize" $kept -o "$T/k.moe" --resume
    ok diff -r "$T/kept.moe" "$T/k.moe"
done

# --- parts made by several machines: tokens pass the layers before a part as the source has them ---
part() # NAME [OPTION...]
{
    name=$1; shift
    ok "$BIN/moe-quantize" -q --calib $F/calib.txt --sequence-length $S --calib-tokens $P $quick --upstream source $F/bf16 -o "$T/$name.moe" "$@"
}
for q in experts all-linear; do
    rm -rf "$T/whole.moe" "$T/merged.moe" "$T"/part-?.moe
    part whole --quantize $q
    part part-a --quantize $q --layers 0
    part part-b --quantize $q --layers 1-2
    part part-c --quantize $q --layers 3
    ok "$BIN/moe-inspect" -q --verify "$T/part-c.moe"
    ok "$BIN/moe-convert" -q --merge "$T/part-c.moe" "$T/part-a.moe" "$T/part-b.moe" -o "$T/merged.moe"
    ok diff -r "$T/whole.moe" "$T/merged.moe"
done
part part-d --quantize all-linear --layers 3 # a part again: the same bytes, manifest and all
ok diff -r "$T/part-c.moe" "$T/part-d.moe"

# --- containers that were quantized before: what is NVFP4 stays, with its input scales; routing.json is replaced ---
again() # OUT SOURCE [OPTION...]
{
    out=$1 src=$2; shift 2
    ok "$BIN/moe-quantize" -q --json --calib $F/calib.txt --sequence-length $S --calib-tokens $P $quick "$T/$src.moe" -o "$T/$out.moe" "$@"
    cp "$T/out" "$T/again.json"
    ok "$BIN/moe-inspect" -q --verify "$T/$out.moe"
}
[ "$(look "$T/one.moe/routing.json" "v['tokens']")" = $N ] || fail "routing.json of the first run"
again twice one --quantize all-linear
for l in 1 2 3; do ok cmp "$T/one.moe/layer-00$l.moe" "$T/twice.moe/layer-00$l.moe"; done
[ "$(look "$T/twice.moe/routing.json" "v['tokens'] == $P and [sum(l['counts']) for l in v['layers']] == [4 * $P] * 3")" = True ] || fail "routing.json is not that of the last calibration"
[ "$(look "$T/twice.moe/manifest.json" "(v['quantization']['quantize'], v['quantization']['calibration']['tokens'], v['quantization']['before'] == $(look "$T/one.moe/manifest.json" "v['quantization']"))")" = \
  "('all-linear', $P, True)" ] || fail "the manifest of what was quantized twice"
[ "$(look "$T/twice.moe/manifest.json" "sum(f['name'] == 'routing.json' for f in v['files'])")" = 1 ] || fail "routing.json is listed twice"
# the experts keep the input scales of the first run, and the report counts what those clip
[ "$(look "$T/again.json" "[(c['limit'] > 1, c['of']) for l in v['calibration'] for c in l['clipped'] if c['input'] == 'gate_up' and c['layer']]")" = "[(True, $((512 * $P))), (True, $((512 * $P))), (True, $((512 * $P)))]" ] ||
    fail "input scales that were there: $(look "$T/again.json" "[l['clipped'] for l in v['calibration']]")"
ok "$BIN/moe-quantize" -q $F/bf16 --tensor-type 'layers\.[23]\..*\.experts\.=source' --tensor-type 'layers\.1\.(self_attn\.q_a_proj|mlp\.shared_experts\.gate)=nvfp4' -o "$T/some.moe"
for q in experts all-linear; do
    again some-$q some --quantize $q
    ok cmp "$T/some.moe/layer-001.moe" "$T/some-$q.moe/layer-001.moe"
    # nobody calibrated the input scales of layer 1, so the report counts nothing that they clip
    [ "$(look "$T/again.json" "[sum(c['layer'] == l['layer'] and c['input'] == 'down' for c in l['clipped']) for l in v['calibration']]")" = "[0, 1, 1]" ] || fail "clipped of a layer that was NVFP4 before"
    [ "$(look "$T/again.json" "all(l['amax_x'] > 0.1 and l['amax_y'] > 0.1 for l in v['calibration'])")" = True ] || fail "amax of a layer that was NVFP4 before"
    flops=$(look "$T/again.json" "v['flops']")
    ok "$BIN/moe-quantize" -q --json --dry-run --calib $F/calib.txt --sequence-length $S --calib-tokens $P $quick --quantize $q "$T/some.moe"
    [ "$(look "$T/out" "abs(v['flops'] / $flops - 1) < 1e-6")" = True ] || fail "--dry-run of a model that is NVFP4 in part"
done
code 14 "nothing is left to calibrate: .* NVFP4 already" "$BIN/moe-quantize" --calib $F/calib.txt "$T/one.moe" -o "$T/x.moe"
code 14 "nothing is left to calibrate" "$BIN/moe-quantize" --calib $F/calib.txt --tensor-type '.*=source' $F/bf16 --dry-run
[ ! -e "$T/x.moe" ] && [ ! -e "$T/x.moe.partial" ] || fail "something is left behind"

# --- dense layers that stand between layers with experts alone, and are wider than these: buffers hold them ---
ok "$GEN/genmodel" -o "$T/between" --format bf16 --layers 4 --dense 0 --freq 2 --experts 4 --hidden 64 --inter 32 --dense-inter 512 --vocab 1024 --tokenizer $F/bf16 --seed 8
for q in experts all-linear; do
    rm -rf "$T/between.moe"
    ok "$BIN/moe-quantize" -q --calib $F/calib.txt --sequence-length 64 --calib-tokens 256 $quick --quantize $q "$T/between" -o "$T/between.moe"
    ok "$BIN/moe-inspect" -q --verify "$T/between.moe"
done

if sanitized; then
    echo "t-calibrate: the same bytes; quality is not measured under sanitizers"
    exit 0
fi

# --- progress: one line from the first operation to the last; a run does as many operations as --dry-run says ---
watch() # NAME [OPTION...]: progress.json of a run
{
    name=$1; shift
    python3 tests/shim/progress.py "$BIN/moe-quantize" --json --calib $F/calib.txt --sequence-length 256 -o "$T/$name.moe" $F/bf16 "$@" >"$T/progress.json" || fail "no progress"
    look "$T/progress.json" "v['exit']" | grep -q '^0$' || { cat "$T/progress.json"; fail "progress of $name"; }
}
watch seen --calib-tokens 10000 --quantize all-linear
[ "$(look "$T/progress.json" "len(v['lines']) > 3 and len({l['total'] for l in v['lines']}) == 1")" = True ] || { cat "$T/progress.json"; fail "more than one total"; }
[ "$(look "$T/progress.json" "all(a['percent'] <= b['percent'] <= 100 for a, b in zip(v['lines'], v['lines'][1:]))")" = True ] || { cat "$T/progress.json"; fail "progress goes back"; }
[ "$(look "$T/progress.json" "v['lines'][-1]['percent'] >= 90")" = True ] || { cat "$T/progress.json"; fail "progress ends early"; }
[ "$(look "$T/progress.json" "(lambda s: s == sorted(s, key=s.index) and len(s) == len(set(s)))([a['label'] for a, b in zip(v['lines'], v['lines'][1:] + [{'label': ''}]) if a['label'] != b['label']])")" = True ] ||
    { cat "$T/progress.json"; fail "phases are mixed"; }
for q in experts all-linear; do
    set -- --calib $F/calib.txt --sequence-length 256 --calib-tokens 3000 --quantize $q $F/bf16 --effort balanced
    ok "$BIN/moe-quantize" -q --json --dry-run "$@"
    planned=$(look "$T/out" "v['flops']")
    ok "$BIN/moe-quantize" -q --json "$@" -o "$T/counted-$q.moe"
    look "$T/out" "abs(v['flops'] / $planned - 1) < 1e-6" | grep -q True || fail "--dry-run says $planned operations, $(look "$T/out" "v['flops']") were done"
done

# --- quality, on text that is not part of the calibration ---
tail -c 20000 $F/calib.txt >"$T/text"
ok "$BIN/moe-quantize" -q $F/bf16 -o "$T/search.moe"
quantize weighted $F/bf16 --calib-tokens 8000 --method weighted
quantize gptq $F/bf16 --calib-tokens 8000 --method gptq
ok "$BIN/moe-quantize" -q --json --calib $F/calib.txt --sequence-length 256 -o "$T/auto.moe" $F/bf16 --calib-tokens 8000 --report "$T/report.json"
cp "$T/out" "$T/auto.json"
search=$(kl search) weighted=$(kl weighted) gptq=$(kl gptq) auto=$(kl auto)
better "$weighted" "$search" 1.03 "weighted against search"
better "$gptq" "$search" 0.85 "gptq against search"
better "$auto" "$search" 0.65 "auto against search"
[ "$(look "$T/report.json" "v['calibration'][2]['tokens']")" = "$(look "$T/auto.json" "v['calibration'][2]['tokens']")" ] || fail "--report is not the report"
[ "$(look "$T/auto.json" "v['method']")" = fisher ] || fail "method of auto"
[ "$(look "$T/auto.json" "[l['layer'] for l in v['calibration']]")" = "[1, 2, 3]" ] || fail "layers of the calibration"
[ "$(look "$T/auto.json" "[sum(l['tokens']) for l in v['calibration']]")" = "[32000, 32000, 32000]" ] || fail "tokens of the calibration"
# drift: 0 before the first layer with experts, more before the others; not measured with --upstream
# quantized
[ "$(look "$T/auto.json" "[1e-7 < l['drift'] < 0.2 for l in v['calibration']]")" = "[False, True, True]" ] || fail "drift: $(look "$T/auto.json" "[l['drift'] for l in v['calibration']]")"
[ "$(look "$T/auto.moe/manifest.json" "v['quantization']['calibration']['upstream']")" = corrected ] || fail "upstream in the manifest"
ok "$BIN/moe-quantize" -q --json --calib $F/calib.txt --sequence-length 256 --calib-tokens $N --upstream quantized $F/bf16 -o "$T/quantized.moe"
[ "$(look "$T/out" "[l.get('drift') for l in v['calibration']]")" = "[None, None, None]" ] || fail "drift of --upstream quantized"
for l in 1 2 3; do cmp -s "$T/one.moe/layer-00$l.moe" "$T/quantized.moe/layer-00$l.moe" && echo "layer $l: the same"; done >"$T/same"
[ "$(cat "$T/same")" = "layer 1: the same" ] || fail "--upstream corrected against quantized: $(cat "$T/same")"
[ "$(look "$T/auto.json" "v['cold_experts']")" = "[]" ] || fail "cold experts of tiny-k2"
[ "$(look "$T/auto.moe/routing.json" "[sum(l['counts']) for l in v['layers']]")" = "[32000, 32000, 32000]" ] || fail "routing.json"
[ "$(look "$T/auto.moe/manifest.json" "v['quantization']['input_scale']")" = calibrated ] || fail "input_scale in the manifest"

ok "$BIN/moe-quantize" -q $F/bf16 --quantize all-linear -o "$T/all-search.moe"
rm -rf "$T/all.moe"
quantize all $F/bf16 --calib-tokens 8000 --quantize all-linear --report "$T/all.json" --report "$T/all.txt"
ok python3 tests/readers/reportcheck.py "$T/all.json" "$T/all.moe" "$T/src.moe" 2
ok python3 tests/readers/reportcheck.py "$T/report.json" "$T/auto.moe" "$T/src.moe" 1
for said in 'method fisher' 'relative error of weights' 'layer   3   output error' 'GFLOP/s' 'largest output error' 'input scale can represent' 'no expert is cold'; do
    grep -q -- "$said" "$T/all.txt" || { cat "$T/all.txt"; fail "the report's text does not say '$said'"; }
done
[ "$(wc -l <"$T/all.txt")" -lt 60 ] || fail "the report's text is long"
# routing of the source model, as moe-run records it
head -c 30000 $F/calib.txt >"$T/part"
ok "$BIN/moe-inspect" $F/bf16 --tokenize "$T/part" --json
tokens=$(look "$T/out" "(len(v['tokens']) - 1) // 256 * 256")
ok "$BIN/moe-run" -q --json $F/bf16 --score "$T/part" --window 256 --record-routing "$T/routing.json.gz"
ok gzip -df "$T/routing.json.gz"
ok "$BIN/moe-quantize" -q --calib "$T/part" --sequence-length 256 -o "$T/routed.moe" $F/bf16 --calib-tokens $tokens --method weighted
[ "$(look "$T/routing.json" "v['layers'][0]['counts']")" = "$(look "$T/routed.moe/routing.json" "v['layers'][0]['counts']")" ] || fail "calibration routes layer 1 another way than moe-run"
better "$(kl all)" "$(kl all-search)" 0.65 "all-linear against search"

# --- with NVFP4 activations: calibrated weights and input scales against search with an input scale of 1, and weights fitted to such activations ---
plain=$(kl auto --activations nvfp4) of_two=$(kl auto --activations nvfp4-four-over-six)
better "$plain" "$(kl search --activations nvfp4 2>/dev/null)" 0.95 "W4A4 calibrated against search"
better "$of_two" "$plain" 0.98 "four-over-six scales of activations"
better "$(kl auto --activations nvfp4-search)" "$of_two" 0.97 "the best of six scales of activations"
quantize w4a4 $F/bf16 --calib-tokens 2000 --activations nvfp4-search
ok "$BIN/moe-inspect" -q --verify "$T/w4a4.moe"

# --- fp8 and int4 are read in place ---
for s in fp8 int4; do
    quantize $s $F/$s --calib-tokens 4000
    ok "$BIN/moe-inspect" -q --verify "$T/$s.moe"
done

# --- a model in which layers without experts stand between layers with them ---
ok "$GEN/genmodel" -o "$T/apart" --format bf16 --layers 5 --dense 1 --freq 2 --experts 8 --hidden 64 --inter 64 --vocab 1024 --tokenizer $F/bf16 --seed 6
for q in experts all-linear; do
    ok "$BIN/moe-quantize" -q --json --calib $F/calib.txt --sequence-length 128 --calib-tokens 2000 --quantize $q "$T/apart" -o "$T/apart-$q.moe"
    cp "$T/out" "$T/apart.json"
    [ "$(look "$T/apart.json" "[l['layer'] for l in v['calibration']]")" = "[2, 4]" ] || fail "layers with experts apart: other layers"
    ok "$BIN/moe-quantize" -q --json --dry-run --calib $F/calib.txt --sequence-length 128 --calib-tokens 2000 --quantize $q "$T/apart"
    look "$T/out" "abs(v['flops'] / $(look "$T/apart.json" "v['flops']") - 1) < 1e-6" | grep -q True || fail "layers with experts apart: other operations than planned"
    ok "$BIN/moe-inspect" -q --verify "$T/apart-$q.moe"
done

# --- experts that the text does not reach, weights of zero ---
ok "$GEN/genmodel" -o "$T/cold" --format bf16 --layers 3 --experts 16 --hidden 64 --inter 64 --vocab 1024 --tokenizer $F/bf16 --dead 1 --cold 1 --seed 5
ok "$BIN/moe-quantize" --json --calib $F/calib.txt --calib-tokens 2000 "$T/cold" -o "$T/cold.moe" --report "$T/cold.txt"
grep -A 3 'hardly reached' "$T/cold.txt" | grep -q 'layer   [12] .* 15' || { cat "$T/cold.txt"; fail "the text does not name the dead expert"; }
grep -q "experts saw less than a twentieth" "$T/err" || { cat "$T/err"; fail "cold experts are not told"; }
[ "$(look "$T/out" "all([l, 15] in v['cold_experts'] for l in {c[0] for c in v['cold_experts']})")" = True ] || fail "the dead expert is not cold: $(look "$T/out" "v['cold_experts']")"
ok "$BIN/moe-inspect" -q --verify "$T/cold.moe"
# In tiny-k2: one expert becomes zeros, so does half of another one's blocks, and one input of layer 2 grows
# ten thousand times.
cp -r $F/bf16 "$T/odd" && chmod -R u+w "$T/odd"
ok python3 - "$T/odd" <<'PY'
import glob, json, struct, sys
for path in glob.glob(sys.argv[1] + "/*.safetensors"):
    data = bytearray(open(path, "rb").read())
    n = struct.unpack("<Q", data[:8])[0]
    for name, t in json.loads(data[8:8 + n]).items():
        if name == "__metadata__": continue
        a, b = t["data_offsets"][0] + 8 + n, t["data_offsets"][1] + 8 + n
        if "layers.1.mlp.experts.3." in name: data[a:b] = bytes(b - a)
        if "layers.1.mlp.experts.4." in name:
            for at in range(a, b, 64): data[at:at + 32] = bytes(32)
        if name.endswith("layers.2.post_attention_layernorm.weight"): data[a:a + 2] = b"\x1c\x46" # bf16 9984
    open(path, "wb").write(data)
PY
quantize odd "$T/odd" --calib-tokens 2000 --json
[ "$(look "$T/out" "all(0 <= l[k] < 0.5 for l in v['relative_error']['layers'] for k in ('gate','up','down'))")" = True ] || fail "errors with an outlier and zeros: $(look "$T/out" "v['relative_error']")"
ok "$BIN/moe-inspect" -q --verify "$T/odd.moe"

# --- what goes wrong ---
code 2 "needs text" "$BIN/moe-quantize" --method gptq $F/bf16 -o "$T/x.moe"
code 2 "takes no --calib" "$BIN/moe-quantize" --method max --calib $F/calib.txt $F/bf16 -o "$T/x.moe"
code 2 "--upstream source" "$BIN/moe-quantize" --layers 1-2 --calib $F/calib.txt $F/bf16 -o "$T/x.moe"
code 2 "corrected needs --method" "$BIN/moe-quantize" --upstream corrected --method weighted --calib $F/calib.txt $F/bf16 -o "$T/x.moe"
code 2 "--upstream wants" "$BIN/moe-quantize" --upstream sideways --calib $F/calib.txt $F/bf16 -o "$T/x.moe"
code 2 "--effort wants" "$BIN/moe-quantize" --effort most --calib $F/calib.txt $F/bf16 -o "$T/x.moe"
code 3 "nowhere.txt" "$BIN/moe-quantize" --calib nowhere.txt $F/bf16 -o "$T/x.moe"
code 10 "raise --memory" "$BIN/moe-quantize" --calib $F/calib.txt --memory 20M $F/bf16 -o "$T/x.moe"
code 15 "option 'calibration.tokens' was [0-9]* and is now 3000 " "$BIN/moe-quantize" --resume --calib $F/calib.txt --calib-tokens 3000 $F/bf16 -o "$T/one.moe"
[ ! -e "$T/x.moe" ] && [ ! -e "$T/x.moe.partial" ] || fail "something is left behind"
ok "$GEN/genmodel" -o "$T/nan" --format bf16 --layers 3 --experts 8 --hidden 64 --inter 64 --vocab 1024 --tokenizer $F/bf16 --nan model.layers.2.self_attn.o_proj.weight --seed 5
code 18 "layers.2" "$BIN/moe-quantize" -q --calib $F/calib.txt --calib-tokens 1000 "$T/nan" -o "$T/x.moe"
[ ! -e "$T/x.moe" ] || fail "a model with a NaN was published"
echo "t-calibrate: KL search $search, weighted $weighted, gptq $gptq, auto $auto"
