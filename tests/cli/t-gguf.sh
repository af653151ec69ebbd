#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests --to gguf: every value, name and pair as an independent reader sees them; powers of two of global
# scales go where llama.cpp reads them; the gguf package and llama.cpp read the file, where they are
# installed; it is written whole or not at all; the bytes are the same at any number of threads.
. tests/common.sh
need_tool moe-convert moe-quantize moe-inspect moe-run
need_helper genmodel
need_python
C=$BIN/moe-convert K=tests/data/tiny-k2 R="python3 tests/readers/readgguf.py"
PY=${PYTHON:-python3}

exits() # CODE TEXT COMMAND...
{
    want=$1 text=$2
    shift 2
    "$@" >"$T/out" 2>"$T/err"
    got=$?
    [ $got = "$want" ] || { cat "$T/out" "$T/err"; fail "exit $got, want $want: $*"; }
    grep -q "$text" "$T/err" || { cat "$T/err"; fail "no '$text': $*"; }
}
has() # PACKAGE
{
    "$PY" -c "import $1" 2>/dev/null
}
same() # MODEL.moe OUTTYPE
{
    ok "$C" "$1" --to gguf --outtype "$2" -o "$1.$2.gguf"
    reads $R check "$1.$2.gguf"
    reads $R same "$1.$2.gguf" "$1" "$2"
    if has gguf && ! sanitized; then ok "$PY" tests/readers/readgguf.py package "$1.$2.gguf"; fi
}

kinds() # FILE.gguf TYPE:COUNT...
{
    have=$(python3 -c 'import collections, sys
sys.path.insert(0, "tests/readers")
import readgguf
print(" ".join("%s:%d" % x for x in sorted(collections.Counter(t[0] for t in readgguf.Gguf(sys.argv[1]).tensors.values()).items())))' "$1")
    [ "$have" = "$2" ] || fail "types in $1: $have, not $2"
}
said() # TEXT
{
    grep -q -- "$1" "$T/err" || { cat "$T/err"; fail "no word: $1"; }
}

# The fixture with NVFP4 in attention, too: with global scales that are powers of two, and with others.
ok "$BIN/moe-quantize" $K/bf16 --quantize all-linear --method max -o "$T/q.moe"
ok "$BIN/moe-quantize" $K/bf16 --quantize all-linear -o "$T/p.moe"
same "$T/p.moe" auto
kinds "$T/p.moe.auto.gguf" "BF16:18 F32:23 NVFP4:29"
ok "$C" "$T/p.moe" --to gguf --json -o "$T/jp.gguf" --threads 3
python3 - "$T/out" <<'P' || fail "JSON, powers of two"
import json, sys
j = json.load(open(sys.argv[1]))
assert (j["tensors_nvfp4"], j["tensors_q6_k"], j["nvfp4_blocks_rounded"], j["tensors_rounded"]) == (29, 0, 0, 0), j
P
said "4 tensors of the file are not NVFP4 but BF16, 'model.layers.0.mlp.down_proj.weight' the first: their global scales have no place"
said "'model.layers.0.self_attn.q_b_proj.weight' the first: their rows are not a multiple of 64"
ok cmp "$T/jp.gguf" "$T/p.moe.auto.gguf"
# calibrated: the input scales are those of the vectors that the file's weights multiply
ok "$BIN/moe-quantize" -q $K/bf16 --quantize mlp --calib $K/calib.txt --calib-tokens 1000 --sequence-length 256 --effort fast -o "$T/c.moe"
same "$T/c.moe" auto
ok "$C" $K/int4 -o "$T/int4.moe"
ok "$C" $K/fp8 -o "$T/fp8.moe"
same "$T/q.moe" auto
for m in int4 fp8; do ok "$C" "$T/$m.moe" --to gguf -o "$T/$m.moe.auto.gguf"; done

# Small models of every other layout, with and without a low rank of queries.
small="--layers 3 --experts 4 --hidden 192 --inter 64 --vocab 320 --dense-inter 256 --seed 5"
for format in bf16 fp8 nvfp4 nvfp4-ct int4; do
    ok "$GEN/genmodel" -o "$T/$format" $small --format $format --top-k 2 --groups 2,1
    ok "$C" "$T/$format" -o "$T/s-$format.moe"
    same "$T/s-$format.moe" auto
done
same "$T/s-nvfp4.moe" f32
same "$T/s-nvfp4.moe" bf16
ok "$GEN/genmodel" -o "$T/lite" $small --q-lora 0 --format nvfp4 --all-mlp --shared 2 --tokenizer $K/bf16 --vocab 1024 --vision --prefix language_model
ok "$C" "$T/lite" -o "$T/lite.moe"
same "$T/lite.moe" auto

# Rows that are a multiple of 256: Q6_K where NVFP4 is impossible or not wanted.
big="--layers 2 --experts 2 --hidden 256 --inter 256 --vocab 276 --dense-inter 256 --seed 5 --top-k 2"
ok "$GEN/genmodel" -o "$T/b" $big --format bf16
ok "$BIN/moe-quantize" -q "$T/b" -o "$T/b.moe" --quantize all-linear
same "$T/b.moe" auto
kinds "$T/b.moe.auto.gguf" "BF16:8 F32:11 NVFP4:13 Q6_K:2"
same "$T/b.moe" q6_k
ok "$C" "$T/b.moe" --to gguf --outtype q6_k --force -o "$T/b.moe.q6_k.gguf"
said "4 tensors of the file are not Q6_K but BF16, 'model.layers.0.self_attn.q_b_proj.weight' the first: their rows are not a multiple of 256"
kinds "$T/b.moe.q6_k.gguf" "BF16:10 F32:11 Q6_K:13"
for format in nvfp4 nvfp4-ct; do
    ok "$GEN/genmodel" -o "$T/b-$format" $big --format $format --all-mlp
    ok "$C" "$T/b-$format" -o "$T/b-$format.moe"
    same "$T/b-$format.moe" auto
done
ok "$C" "$T/b-nvfp4" --to gguf -o "$T/said.gguf"
said "9 tensors of the file are not NVFP4 but Q6_K, 'model.layers.0.mlp.gate_proj.weight' the first: their global scales are not powers of two"
ok cmp "$T/said.gguf" "$T/b-nvfp4.moe.auto.gguf"

# One expert has scales too small for F16, in NVFP4 and in INT4: its stack becomes BF16, unless a type was
# asked for; the output names the tensor with the largest error.
worst() # LEAST MOST TENSOR: of the JSON printed last
{
    python3 - "$T/out" "$@" <<'P' || fail "worst error: $(cat "$T/out")"
import json, sys
j, least, most, name = json.load(open(sys.argv[1])), float(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
assert least < j["worst_error"] < most and j["relative_error"] <= j["worst_error"] and j["worst_tensor"].endswith(name), j
P
}
patch() { ok python3 tests/gen/patchtensors.py "$@"; }
expert=model.layers.1.mlp.experts.1
ok "$GEN/genmodel" -o "$T/faint" $big --format bf16
patch "$T/faint" 'experts.1.down_proj' times -16
ok "$BIN/moe-quantize" -q "$T/faint" -o "$T/faint.moe" --method max
ok "$C" "$T/faint.moe" --to gguf --json -o "$T/faint.moe.auto.gguf"
said "1 tensor of the file is BF16 and not Q6_K: '$expert.down_proj.weight', the first that is why, has scales too small"
worst 0.0001 0.004 _proj.weight
reads $R same "$T/faint.moe.auto.gguf" "$T/faint.moe" auto blk.1.ffn_down_exps.weight=BF16
ok "$C" "$T/faint.moe" --to gguf --outtype q6_k --json -o "$T/faint.gguf"
worst 0.05 1.0001 experts.1.down_proj.weight
said "warning: '$expert.down_proj.weight' has a relative error of .*too small for the type it has there (write --outtype bf16)"
ok "$GEN/genmodel" -o "$T/faint4" $big --format int4
patch "$T/faint4" 'experts.1.up_proj.weight_scale$' times -18
ok "$C" "$T/faint4" --to gguf --json -o "$T/faint4.gguf"
said "1 tensor of the file is BF16 and not Q4_0: '$expert.up_proj.weight', the first that is why, has scales too small"
kinds "$T/faint4.gguf" "BF16:21 F32:11 Q4_0:2"

# A block scale that is rounded when it is shifted, and a stack of experts for which no shift suits all.
ok "$C" "$T/b.moe" --to hf-nvfp4 -o "$T/b-round"
cp -R "$T/b-round" "$T/b-range"
patch "$T/b-round" 'experts.1.down_proj.weight_scale_2' times -3
patch "$T/b-round" 'experts.1.down_proj.weight_scale$' put 01
patch "$T/b-range" 'experts.1.down_proj.weight_scale_2' times 20
for m in b-round b-range; do
    ok "$C" "$T/$m" -o "$T/$m.moe"
    ok "$C" "$T/$m.moe" --to gguf --json -o "$T/$m.gguf"
    cp "$T/out" "$T/$m.json"
    [ $m = b-round ] || said "3 tensors of the file are not NVFP4 but Q6_K, .*their block scales no room for them"
done
[ "$(json nvfp4_blocks_rounded "$T/b-round.json")" = 1 ] || fail "blocks rounded: $(cat "$T/b-round.json")"
cp "$T/b-round.json" "$T/out"
worst 0.0000001 0.0001 experts.1.down_proj.weight
reads $R same "$T/b-round.gguf" "$T/b-round.moe" auto rounded=1
reads $R same "$T/b-range.gguf" "$T/b-range.moe" auto blk.1.ffn_down_exps.weight=Q6_K

# More than one stripe of rows: kv_b cut inside a head, matrices of 4096 columns and of 4096 rows.
ok "$GEN/genmodel" -o "$T/kv" --layers 1 --dense 1 --hidden 64 --heads 12 --nope 128 --v 72 --kv-lora 512 --vocab 320 --dense-inter 64 --seed 5 --format fp8
ok "$C" "$T/kv" -o "$T/kv.moe"
same "$T/kv.moe" auto
ok "$GEN/genmodel" -o "$T/wide" --layers 1 --dense 1 --hidden 4096 --heads 1 --q-lora 64 --kv-lora 64 --vocab 320 --dense-inter 320 --seed 5 --format nvfp4 --all-mlp
ok "$C" "$T/wide" -o "$T/wide.moe"
same "$T/wide.moe" auto
rm "$T/bf16/tiktoken.model" # a model needs none to be exported
ok "$C" "$T/bf16" -o "$T/mute.moe"
same "$T/mute.moe" auto
ok "$C" "$T/mute.moe" --to gguf --force -o "$T/mute.moe.auto.gguf"
grep -q "no tiktoken.model, so the file has no tokenizer" "$T/err" || fail "no word about the tokenizer"

# A checkpoint instead of its container, and any number of threads, give the same bytes.
for n in $(sanitized && echo 5 || echo 1 2 5); do
    ok "$C" "$T/nvfp4" --to gguf --threads $n -o "$T/t$n.gguf"
    ok cmp "$T/t$n.gguf" "$T/s-nvfp4.moe.auto.gguf"
done

# What the tool reports: sizes before and after, and what was dequantized.
ok "$C" "$T/fp8.moe" --to gguf --dry-run --json -o "$T/dry.gguf"
[ "$(json output_bytes "$T/out")" = "$(wc -c <"$T/fp8.moe.auto.gguf" | tr -d ' ')" ] || fail "--dry-run says another size"
[ ! -e "$T/dry.gguf" ] && [ ! -e "$T/dry.gguf.partial" ] || fail "--dry-run wrote something"
ok "$C" "$T/fp8.moe" --to gguf --json -o "$T/j.gguf"
python3 -c 'import json, sys; j = json.load(open(sys.argv[1])); assert j["tensors"] == 70 and j["tensors_decoded"] == 320 and 200 < j["tensors_rounded"] <= 320 and 0.001 < j["relative_error"] < 0.002, j' "$T/out" || fail "JSON"
grep -q -- "--yarn-beta-fast 1 " "$T/err" || fail "no word about YaRN"
ok "$C" "$T/fp8.moe" --to gguf --outtype f32 --json -o "$T/j32.gguf"
python3 -c 'import json, sys; j = json.load(open(sys.argv[1])); assert j["tensors_decoded"] == 320 and j["tensors_rounded"] == 0 == j["relative_error"], j' "$T/out" || fail "JSON, f32"
ok "$C" "$T/q.moe" --to gguf --json -o "$T/jq.gguf"
said "their global scales are not powers of two, and llama.cpp multiplies by none"
ok "$C" "$T/s-bf16.moe" --to gguf --quiet --json -o "$T/j16.gguf"
[ ! -s "$T/err" ] || fail "noise under --quiet"

# An added token that is not special is text, and is printed as text: its type is 4, where all others are
# control tokens.
cp -R $K/bf16 "$T/think"
chmod -R u+w "$T/think"
sed 's/<|reserved_token_1018|>/<\/think>/; /<\/think>/,/special/ s/"special": true/"special": false/' $K/bf16/tokenizer_config.json >"$T/think/tokenizer_config.json"
ok "$C" "$T/think" -o "$T/think.moe"
same "$T/think.moe" auto
[ "$(python3 -c 'import sys
sys.path.insert(0, "tests/readers")
import readgguf
m = readgguf.Gguf(sys.argv[1]).meta
print([(i, m["tokenizer.ggml.tokens"][i]) for i, t in enumerate(m["tokenizer.ggml.token_type"]) if t == 4])' "$T/think.moe.auto.gguf")" = "[(1018, '</think>')]" ] ||
    fail "tokens that are text"
if has xllamacpp; then ok "$PY" tests/readers/ggufllama.py prints "$T/think.moe.auto.gguf" 1018 '</think>'; fi

# a container's tokenizer has to match the checksum in its manifest
sed -i 's/think>/thunk>/' "$T/think.moe/tokenizer/tokenizer_config.json"
exits 13 "tokenizer_config.json.*does not match its checksum" "$C" "$T/think.moe" --to gguf -o "$T/thunk.gguf"

# An existing file is not replaced unless asked, and never when it is no GGUF file that this tool wrote.
cp "$T/j.gguf" "$T/before"
exits 4 "already exists (replace it with --force)" "$C" "$T/q.moe" --to gguf -o "$T/j.gguf"
ok cmp "$T/before" "$T/j.gguf"
ok "$C" "$T/q.moe" --to gguf --force -o "$T/j.gguf"
ok cmp "$T/jq.gguf" "$T/j.gguf"
echo precious >"$T/notes"
mkdir "$T/dir"
printf 'GGUF\3\0\0\0and precious' >"$T/theirs"
for there in notes dir theirs; do exits 4 "is not a GGUF file that this tool wrote" "$C" "$T/q.moe" --to gguf --force -o "$T/$there"; done
exits 2 "which is read" "$C" "$T/q.moe" --to gguf --force -o "$T/q.moe"
[ "$(cat "$T/notes")" = precious ] && [ "$(wc -c <"$T/theirs")" = 20 ] || fail "a stranger's file was touched"
exits 2 "is no name for a file" "$C" "$T/q.moe" --to gguf -o "$T/new/"
printf 'moe: unfinished work\nmodel\n\n' >"$T/n.gguf.partial"
exits 4 "holds unfinished work" "$C" "$T/q.moe" --to gguf -o "$T/n.gguf"
exits 15 "another input" "$C" "$T/q.moe" --to gguf --resume -o "$T/n.gguf"
ok "$C" "$T/q.moe" --to gguf --force -o "$T/n.gguf"
ok cmp "$T/jq.gguf" "$T/n.gguf"
ln -s "$T/notes" "$T/m.gguf.partial"
exits 4 "is in the way" "$C" "$T/q.moe" --to gguf --force -o "$T/m.gguf"
[ "$(cat "$T/notes")" = precious ] || fail "a symbolic link was followed"
printf 'GGUF\3\0\0\0a download' >"$T/d.gguf.partial"
for how in --force --resume; do exits 4 "is in the way" "$C" "$T/q.moe" --to gguf $how -o "$T/d.gguf"; done
[ "$(wc -c <"$T/d.gguf.partial")" = 18 ] || fail "another program's GGUF file was touched"
echo thesis >"$T/t.gguf.partial"
for how in --force --resume; do exits 4 "is in the way" "$C" "$T/q.moe" --to gguf $how -o "$T/t.gguf"; done
[ "$(cat "$T/t.gguf.partial")" = thesis ] || fail "a stranger's .partial was touched"
exits 3 "cannot create" "$C" "$T/q.moe" --to gguf -o "$T/none/x.gguf"

# What GGUF cannot represent, and damaged models: one sentence, and nothing is left.
left() { ls "$T"/bad.gguf* 2>/dev/null && fail "something was left: $1"; return 0; }
ok "$GEN/genmodel" -o "$T/odd" --layers 2 --experts 4 --hidden 160 --top-k 2 --format nvfp4 --seed 2
ok "$C" "$T/odd" --to gguf -o "$T/odd16.gguf"
said "not NVFP4 but BF16, 'model.layers.1.mlp.experts.0.gate_proj.weight' the first: their rows are not a multiple of 64 long"
ok "$C" "$T/odd" --to gguf --outtype f32 -o "$T/odd.gguf"
ok "$BIN/moe-quantize" $K/bf16 --tensor-type 'layers.2.mlp.experts.7.gate_proj=bf16' -o "$T/mixed.moe"
exits 14 "experts.7.gate_proj.weight.*one type a layer" "$C" "$T/mixed.moe" --to gguf -o "$T/bad.gguf"
left "mixed types"
ok "$C" "$T/mixed.moe" --to gguf --outtype bf16 -o "$T/mixed.gguf"
cp -R $K/bf16 "$T/mscale"
chmod -R u+w "$T/mscale"
sed 's/"mscale": 1.0/"mscale": 0.5/' $K/bf16/config.json >"$T/mscale/config.json"
exits 14 "wants them equal" "$C" "$T/mscale" --to gguf -o "$T/bad.gguf"
ok "$GEN/genmodel" -o "$T/nan" $small --format bf16 --nan model.layers.1.mlp.experts.2.up_proj.weight
exits 18 "model.layers.1.mlp.experts.2.up_proj.weight.*NaN" "$C" "$T/nan" --to gguf -o "$T/bad.gguf"
left "NaN"
python3 - "$T/q.moe" "$T/s-nvfp4.moe" <<'P'
import sys
sys.path.insert(0, "tests/readers")
import readmoe
for path, plane, value in ((sys.argv[1], readmoe.DATA, None), (sys.argv[2], readmoe.SCALE, 0x7f)):
    s = readmoe.Shard(path + "/layer-001.moe", "layer-001.moe")
    at = s.tensors["model.layers.1.mlp.experts.1.down_proj.weight"]["planes"][plane][0]
    with open(path + "/layer-001.moe", "r+b") as f:
        f.seek(at)
        b = f.read(1)[0]
        f.seek(at)
        f.write(bytes(((b ^ 0x10) if value is None else value,)))
P
exits 16 "layer-001.moe.*experts.1.down_proj.weight" "$C" "$T/q.moe" --to gguf -o "$T/bad.gguf"
left "damage"
exits 18 "layer-001.moe.*experts.1.down_proj.weight" "$C" "$T/s-nvfp4.moe" --to gguf -o "$T/bad.gguf"
left "NaN scale"
exits 2 "unknown --outtype" "$C" "$T/q.moe" --to gguf --outtype q8_0 -o "$T/bad.gguf"
exits 10 "raise --memory" "$C" "$T/fp8.moe" --to gguf --memory 1M -o "$T/bad.gguf"
left "--memory"

# K2 in full, headers alone: no time or memory grows with the square of its tensors.
need_space 400
ok "$GEN/genmodel" -o "$T/k2" --preset k2-nvfp4 --sparse
measure 180 20 "$C" "$T/k2" --to gguf --dry-run --json
[ "$(json tensors "$T/out")" = 1276 ] || fail "$(json tensors "$T/out") tensors of K2"
rm -rf "${T:?}/k2"

if has xllamacpp; then
    ok "$PY" tests/readers/ggufllama.py "$BIN" "$T/int4.moe.auto.gguf" $K/int4 $K/valid.txt
    cat "$T/out"
    ok "$PY" tests/readers/ggufllama.py "$BIN" "$T/fp8.moe.auto.gguf" $K/fp8 $K/valid.txt
    cat "$T/out"
    for m in p c; do
        ok "$PY" tests/readers/ggufllama.py "$BIN" "$T/$m.moe.auto.gguf" "$T/$m.moe" $K/valid.txt rounded
        cat "$T/out"
    done
fi
has gguf || echo "t-gguf: without the package gguf (PYTHON= names another interpreter)"
has xllamacpp || echo "t-gguf: without llama.cpp (package xllamacpp)"
echo "t-gguf: ok"
