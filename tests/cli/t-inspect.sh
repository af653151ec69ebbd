#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests moe-inspect: its keys, its lists, its verdicts and exit codes, on checkpoints and containers.
. tests/common.sh
need_tool moe-inspect moe-convert moe-quantize
need_helper genmodel
need_python
I=$BIN/moe-inspect
K=tests/data/tiny-k2

exits() # CODE COMMAND...
{
    want=$1
    shift
    "$@" >"$T/out" 2>"$T/err"
    got=$?
    [ $got = "$want" ] || { cat "$T/out" "$T/err"; fail "exit $got, want $want: $*"; }
}

KEYS='["kind","layout","architecture","layers","experts","experts_per_token","hidden_size","vocab_size","parameters","parameters_active","tensors","bytes","types","context_length","rope","heads","q_lora_rank","kv_lora_rank","qk_nope_head_dim","qk_rope_head_dim","v_head_dim","dense_layers","shared_experts","expert_groups","expert_groups_used","tokenizer","end_tokens","quantization","verified","problems"]'
for layout in bf16 fp8 int4; do
    ok "$BIN/moe-convert" $K/$layout -o "$T/$layout.moe"
    for m in "$K/$layout" "$T/$layout.moe"; do
        exits 0 "$I" "$m" --json
        holds "list(j) == $KEYS and j['verified'] is None and j['problems'] == []"
        holds "(j['layers'], j['experts'], j['experts_per_token'], j['hidden_size'], j['vocab_size']) == (4, 32, 4, 128, 1024)"
        holds "(j['context_length'], j['heads'], j['q_lora_rank'], j['kv_lora_rank'], j['shared_experts'], j['dense_layers']) == (1024, 4, 96, 64, 1, 1)"
        holds "j['rope']['type'] == 'yarn' and j['rope']['factor'] == 4 and j['rope']['original_context_length'] == 256 and j['quantization'] is None"
        holds "(j['tokenizer']['kind'], j['tokenizer']['vocabulary']) == ('tiktoken', 1024) and all(e['piece'] for e in j['end_tokens'])"
        holds "j['parameters'] == 3151616 and sum(t['tensors'] for t in j['types'].values()) == 345"
        exits 0 "$I" --verify "$m" --json
        holds "j['verified'] is True"
        exits 0 "$I" "$m"
        grep -q "32 experts, 4 for each token" "$T/out" || fail "text"
        [ ! -s "$T/err" ] || fail "noise on standard error"
    done
done
exits 0 "$I" "$K/fp8" --json
holds "j['layout'] == 'fp8-block128' and j['kind'] == 'checkpoint' and j['tensors'] == 665 and j['types']['fp8-block128']['tensors'] == 320"
exits 0 "$I" "$T/int4.moe" --json
holds "j['layout'] == 'int4-g32' and j['kind'] == 'container' and j['tensors'] == 345"

# A container shows how it was quantized, layer by layer, too; for a model without a tokenizer the output
# says so.
ok "$BIN/moe-quantize" -q $K/bf16 --calib $K/calib.txt --calib-tokens 1000 --sequence-length 256 --effort fast -o "$T/calibrated.moe"
exits 0 "$I" "$T/calibrated.moe" --json --layers
holds "j['quantization']['calibrated'] is True and j['quantization']['calibration_tokens'] == 1000 and 0.05 < j['quantization']['relative_error'] < 0.2"
holds "[l['layer'] for l in j['layer_list']] == [None, 0, 1, 2, 3] and [l['kind'] for l in j['layer_list']][:3] == ['model', 'dense', 'experts']"
holds "j['layer_list'][1]['relative_error'] is None and all(0.05 < l['relative_error']['down'] < 0.2 for l in j['layer_list'][2:])"
holds "sum(t['bytes'] for l in j['layer_list'] for t in l['types'].values()) == j['bytes']"
exits 0 "$I" "$T/calibrated.moe" --layers
grep -q "quantized by method 'gptq' (experts), calibrated" "$T/out" && grep -q "layer 3, experts:" "$T/out" && grep -q "relative error: gate 0" "$T/out" || fail "text"
grep -q "context 1024 (YaRN: factor 4 over 256" "$T/out" && grep -q "tokenizer: tiktoken, 1024 tokens" "$T/out" || fail "text"
cp -r $K/bf16 "$T/mute"
rm "$T/mute/tiktoken.model"
exits 0 "$I" --verify "$T/mute"
exits 0 "$I" "$T/mute" --json
holds "j['tokenizer'] is None and all(e['piece'] is None for e in j['end_tokens'])"
printf 'junk\n' >"$T/mute/tiktoken.model"
exits 0 "$I" "$T/mute" --json
holds "j['tokenizer']['kind'] is None and 'tiktoken.model' in j['tokenizer']['problem']"
exits 16 "$I" "$T/mute" --verify --json
holds "j['verified'] is False and j['error']['code'] == 16 and len(j['problems']) == 1 and 'tiktoken.model' in j['problems'][0]"
printf 'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2795286\n' >"$T/mute/tiktoken.model"
exits 16 "$I" "$T/mute" --verify
grep -q "tiktoken.model': is a Git LFS pointer.*git lfs pull" "$T/err" || fail "a pointer to a tokenizer"
! grep -q 'nothing is wrong' "$T/out" || fail "nothing is wrong"

# Lists.
exits 0 "$I" "$T/fp8.moe" --json --tensors 'experts\.31\.'
holds "len(j['tensor_list']) == 9 and all(t['type'] == 'fp8-block128' and t['shape'] and t['bytes'] > 0 for t in j['tensor_list'])"
exits 0 "$I" --tensors=lm_head "$K/int4" --json
holds "[t['name'] for t in j['tensor_list']] == ['lm_head.weight'] and j['tensor_list'][0]['type'] == 'BF16'"
exits 0 "$I" "$K/int4" --json --tensors
holds "len(j['tensor_list']) == 921 and sum(t['skipped'] == 'weight_shape' for t in j['tensor_list']) == 288"
exits 0 "$I" "$T/bf16.moe" --tensors --experts
[ "$(grep -c '  bf16  ' "$T/out")" -ge 340 ] || fail "list for people"
exits 0 "$I" "$T/bf16.moe" --experts --json
holds "[r['layer'] for r in j['expert_layers']] == [1, 2, 3] and all(r['experts'] == 32 and r['expert_bytes_max'] == 49152 and r['extent_bytes'] % r['alignment'] == 0 for r in j['expert_layers'])"
exits 0 "$I" "$K/bf16" --experts --json
holds "j['expert_layers'][0]['extent_bytes'] is None"
exits 2 "$I" "$K/bf16" --tensors='('
[ ! -s "$T/out" ] || fail "a bad pattern is found after the model is printed"

# Two models.
exits 0 "$I" "$K/fp8" --diff "$T/fp8.moe" --json
holds "j['same'] and j['tensors_same'] == 345 and j['differences'] == []"
exits 15 "$I" "$T/fp8.moe" --diff "$K/bf16" --json
holds "not j['same'] and j['tensors_different'] > 300 and j['error']['code'] == 15 and 'fp8-block128, bf16 in the second' in j['differences'][0]"
ok "$GEN/genmodel" -o "$T/nv" --format nvfp4 --layers 2 --experts 4 --hidden 160 --seed 3
ok "$BIN/moe-convert" "$T/nv" -o "$T/nv.moe"
exits 0 "$I" "$T/nv" --diff "$T/nv.moe" # rows against tiles
ok "$GEN/genmodel" -o "$T/nv4" --format nvfp4 --layers 2 --experts 4 --hidden 160 --seed 4
exits 15 "$I" "$T/nv.moe" --diff "$T/nv4"
exits 2 "$I" "$T/nv.moe" --diff "$T/nv4" --verify

# Verdicts.
cp -R "$K/bf16" "$T/nan"
chmod -R u+w "$T/nan"
python3 - "$T/nan" <<'P'
import json, struct, sys
name = "model.layers.2.mlp.experts.5.up_proj.weight"
file = json.load(open(sys.argv[1] + "/model.safetensors.index.json"))["weight_map"][name]
with open(sys.argv[1] + "/" + file, "r+b") as f:
    n, = struct.unpack("<Q", f.read(8))
    f.seek(8 + n + json.loads(f.read(n))[name]["data_offsets"][0] + 100)
    f.write(b"\xc0\x7f")
P
exits 0 "$I" "$T/nan"
exits 16 "$I" "$T/nan" --verify --json
holds "j['verified'] is False and len(j['problems']) == 1 and 'model.layers.2.mlp.experts.5.up_proj.weight' in j['problems'][0]"
holds "j['error']['code'] == 16 and j['error']['tensor'] == 'model.layers.2.mlp.experts.5.up_proj.weight' and j['error']['file']"
rm "$T/nan/model-00002-of-000003.safetensors"
exits 3 "$I" "$T/nan" --json
holds "j['verified'] is None and j['problems'] and 'model-00002-of-000003.safetensors' in j['problems'][0]"
exits 16 "$I" "$T/nan" --json --verify
holds "j['verified'] is False"
rm "$T/bf16.moe/layer-002.moe"
exits 13 "$I" "$T/bf16.moe" --json
holds "len(j['problems']) == 1 and 'layer-002.moe' in j['problems'][0]"
exits 3 "$I" "$T/none" --json
holds "j['error']['name'] == 'not-found'"
exits 2 "$I" --json
exits 2 "$I" a b --json
mkdir "$T/empty"
exits 3 "$I" "$T/empty"

# Tokens: there and back.
head -c 3000 $K/valid.txt >"$T/text"
exits 0 "$I" $K/bf16 --tokenize "$T/text" --json
holds "len(j['tokens']) > 300 and all(0 <= t < 1008 for t in j['tokens'])"
ids=$(python3 -c 'import json, sys; print(",".join(map(str, json.load(open(sys.argv[1]))["tokens"])))' "$T/out")
exits 0 "$I" "$T/fp8.moe" --detokenize "$ids"
cmp "$T/out" "$T/text" || fail "the text does not come back"
exits 0 "$I" $K/bf16 --detokenize "$ids" --json
python3 -c 'import base64, json, sys
j, text = json.load(open(sys.argv[1])), open(sys.argv[2], "rb").read()
assert base64.b64decode(j["bytes_base64"]) == text and j["text"].encode() == text' "$T/out" "$T/text" || fail "detokenize --json"
exits 2 "$I" $K/bf16 --detokenize 1,x
exits 2 "$I" $K/bf16 --detokenize 99999999
printf 'a<|im_end|>' >"$T/text"
exits 0 "$I" -q $K/bf16 --tokenize "$T/text"
[ "$(wc -w <"$T/out")" -gt 2 ] || fail "a special token came out of plain text"
exits 0 "$I" -q $K/bf16 --tokenize "$T/text" --special
[ "$(wc -w <"$T/out")" = 2 ] || fail "--special"
# A GGUF file: its header, and its tensors by name; options for our own formats are refused; damage gives a
# sentence.
ok "$BIN/moe-convert" -q $K/int4 --to gguf -o "$T/x.gguf"
exits 0 "$I" "$T/x.gguf" --json
holds "list(j) == ['kind', 'version', 'architecture', 'name', 'tensors', 'bytes', 'types', 'metadata', 'verified', 'problems']"
holds "(j['kind'], j['version'], j['architecture'], j['tensors'], j['verified']) == ('gguf', 3, 'deepseek2', 70, None)"
holds "j['bytes'] == sum(t['bytes'] for t in j['types'].values()) and sum(t['tensors'] for t in j['types'].values()) == 70 and 'Q4_0' in j['types']"
holds "j['metadata']['deepseek2.expert_count'] == 32 and j['metadata']['tokenizer.ggml.tokens']['count'] == 1024 and len(j['metadata']['tokenizer.ggml.tokens']['first']) == 4"
cp "$T/out" "$T/gguf.json"
python3 - "$T/gguf.json" "$T/x.gguf" <<'P' || fail "metadata is not what the reader in Python finds"
import json, sys
sys.path.insert(0, "tests/readers")
import readgguf
m, g = json.load(open(sys.argv[1]))["metadata"], readgguf.Gguf(sys.argv[2])
assert list(m) == list(g.meta)
for k, v in g.meta.items():
    if isinstance(v, list):
        assert m[k]["count"] == len(v) and m[k]["first"] == v[:4], k
    elif isinstance(v, float):
        assert readgguf.f32(m[k]) == v, k
    else:
        assert m[k] == (v[:256] if isinstance(v, str) else v), k
P
exits 0 "$I" "$T/x.gguf" --tensors 'blk\.1\..*exps' --json
holds "[t['shape'] for t in j['tensor_list']] == [[128, 64, 32], [128, 64, 32], [64, 128, 32]] and all(t['type'] == 'Q4_0' and t['bytes'] == 147456 for t in j['tensor_list'])"
exits 0 "$I" --tensors 'blk\.1\..*exps' "$T/x.gguf"
[ "$(grep -c '^blk.1.*Q4_0  \[.*147456 bytes' "$T/out")" = 3 ] || fail "text of tensors"
exits 0 "$I" "$T/x.gguf"
grep -q '^gguf, version 3, architecture "deepseek2"' "$T/out" && grep -q 'and 7 more (--tensors or --json' "$T/out" || fail "text"
for o in --verify --experts --layers "--diff $K/bf16" "--detokenize 1"; do code 14 'is a GGUF file: of those only' "$I" "$T/x.gguf" $o; done
truncate -s -1 "$T/x.gguf"
code 13 "the file ends in it or before it" "$I" "$T/x.gguf"
for f in tests/corpus/gguf/*; do
    case ${f##*/} in
    good|v2|empty|align|zero) exits 0 "$I" "$f" --json; holds "j['kind'] == 'gguf'" ;;
    v1|big) code 14 'not supported' "$I" "$f" ;;
    f-*) ;;
    *) code 13 'tests/corpus/gguf' "$I" "$f" ;;
    esac
done
# numbers that JSON cannot represent, one value without dimensions, an unknown type, bytes that two tensors
# share
cat >"$T/gguf.py" <<'P'
import struct, sys
def text(s): return struct.pack("<Q", len(s)) + s.encode()
def write(path, tensors, values=()):
    b = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(values))
    for i, v in enumerate(values):
        b += text("v%d" % i) + (struct.pack("<If", 6, v) if i % 2 else struct.pack("<Id", 12, v))
    for i, (dims, kind, at) in enumerate(tensors):
        b += text("t%d" % i) + struct.pack("<I%dQIQ" % len(dims), len(dims), *dims, kind, at)
    b += b"\0" * (-len(b) % 32)
    open(path, "wb").write(b + b"\0" * 256)
inf = float("inf")
write(sys.argv[1] + "/odd.gguf", [([], 0, 0), ([32, 2], 2, 32), ([8], 99, 96), ([0, 4], 0, 32)], [inf - inf, inf - inf, inf, -inf, 1.5])
write(sys.argv[1] + "/over.gguf", [([16], 0, 64), ([8], 99, 64), ([24], 0, 0)])
write(sys.argv[1] + "/inside.gguf", [([16], 0, 0), ([8], 99, 32)])
write(sys.argv[1] + "/same.gguf", [([8], 98, 32), ([8], 99, 32), ([8], 0, 0)])
write(sys.argv[1] + "/none.gguf", [([0, 8], 98, 32), ([8], 99, 32), ([8], 0, 0)])
P
ok python3 "$T/gguf.py" "$T"
exits 0 "$I" "$T/odd.gguf" --tensors --json
holds "j['metadata'] == {'v0': 'NaN', 'v1': 'NaN', 'v2': 'Infinity', 'v3': '-Infinity', 'v4': 1.5}"
holds "j['bytes'] is None and [t['bytes'] for t in j['types'].values()] == [4, 36, None]"
holds "[(t['shape'], t['bytes']) for t in j['tensor_list']] == [([], 4), ([32, 2], 36), ([8], None), ([0, 4], 0)]"
exits 0 "$I" "$T/odd.gguf"
grep -q '^  4 tensors, bytes unknown' "$T/out" && grep -q 'v0 = "NaN"' "$T/out" || fail "text of an odd GGUF file"
code 13 "tensor 't0': overlaps tensor 't2'" "$I" "$T/over.gguf"
code 13 "tensor 't1': overlaps tensor 't0'" "$I" "$T/inside.gguf"
code 13 "tensor 't1': overlaps tensor 't0'" "$I" "$T/same.gguf"
exits 0 "$I" "$T/none.gguf"
exits 0 "$I" tests/corpus/gguf/good --json
holds "(j['metadata']['a.u64'], j['metadata']['a.i64'], j['metadata']['a.i8'], j['metadata']['a.f']) == (2**64 - 1, -2**53 - 1, -1, 0.1)"
exits 0 "$I" tests/corpus/gguf/good
[ "$(tr -cd '\001-\011\013-\037\177' <"$T/out" | wc -c)" = 0 ] || fail "control characters of a GGUF file reach the terminal"

code 14 'is a GGUF file, which --diff does not compare' "$I" $K/bf16 --diff "$T/x.gguf"
# a file that was cut is one problem, however many of its tensors are gone; a single problem is printed once
cp -r $K/int4 "$T/cut"; truncate -s 100000 "$T/cut/model-00002-of-000003.safetensors"
exits 13 "$I" "$T/cut" --json
holds "len(j['problems']) == 1 and 'the file ends in it, 931328 bytes short, 485 more tensors are cut off' in j['problems'][0]"
exits 13 "$I" "$T/cut"
[ "$(cat "$T/out" "$T/err" | grep -c 'the file ends in it')" = 1 ] || fail "a lone problem is said twice"
rm "$T/cut/model-00001-of-000003.safetensors"
exits 3 "$I" "$T/cut"
[ "$(grep -c '^problem: ' "$T/out")" = 2 ] || fail "two problems are not listed"

echo "t-inspect: ok"
