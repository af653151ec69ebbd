#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests the layouts of checkpoints in which a weight is not one tensor in one place: copies of which the
# index says that they do not count, and experts fused into two tensors a layer.
. tests/common.sh
need_tool moe-convert moe-inspect moe-quantize moe-run
need_helper genmodel
need_python
small="--layers 2 --experts 4 --hidden 128 --inter 64"
relayout() { ok python3 tests/gen/relayout.py "$@"; }
# same A B: fails unless the two models are equal, tensor by tensor.
same() { ok "$BIN/moe-inspect" -q "$1" --diff "$2"; }

# ---- the index says which of two copies counts ----

for g in bf16 fp8 int4 nvfp4; do ok "$GEN/genmodel" -o "$T/$g" --format $g --shards 3 $small --seed 5; done
# overlaid NAME SOURCE TENSORS FILE...: an overlay has to be the model that its index names, and to come back
# with its stale copies.
overlaid()
{
    name=$1 from=$2 pattern=$3; shift 3
    rm -rf "$T/$name" "$T/want"
    relayout overlay "$T/$from" "$T/$name" "$pattern" "$@"
    relayout prefer "$T/$name" "$T/want"
    back "$name"
    same "$T/m.moe" "$T/$from"; same "$T/$name" "$T/$from"; same "$T/want" "$T/$name"
    [ "$(grep -c 'names another file for the same name' "$T/convert.err")" = 1 ] || { cat "$T/convert.err"; fail "$name: not one notice about stale copies"; }
}
overlaid o1 bf16 'layers.1.self_attn.o_proj' model-overlay.safetensors
grep -q "1 tensor is not used because model.safetensors.index.json names another file for the same name: 'model.layers.1.self_attn.o_proj.weight' in 'model-" "$T/convert.err" ||
    { cat "$T/convert.err"; fail "the stale copy is not named"; }
overlaid o2 bf16 'experts.[12]..*_proj|norm' zz.safetensors
overlaid o3 bf16 'experts.3.|lm_head' a.safetensors b.safetensors   # three copies
overlaid o4 fp8 'experts.1.(gate|up)_proj' patch.safetensors
overlaid o5 int4 'experts.(0|2).' patch.safetensors
overlaid o6 nvfp4 'experts.2.' x1.safetensors x2.safetensors
# only the codes, or only the scales, come from another file
overlaid o7 fp8 'experts.1.down_proj.weight$' patch.safetensors
overlaid o8 nvfp4 'experts.1.down_proj.weight_scale(_2)?$' patch.safetensors
ok "$BIN/moe-inspect" "$T/o8" --tensors=down_proj.weight_scale_2; grep -q 'left out: superseded' "$T/out" || fail "--tensors does not mark the stale copies"
ok "$BIN/moe-quantize" "$T/o2" -o "$T/q.moe"; grep -q 'names another file' "$T/err" || fail "moe-quantize tells nothing"
ok "$BIN/moe-quantize" -q "$T/bf16" -o "$T/q2.moe"; same "$T/q.moe" "$T/q2.moe"; [ ! -e "$T/q.moe/superseded.safetensors" ] || fail "a quantized container keeps stale copies"
ok "$BIN/moe-run" "$T/o2" --tokens 5,9,100 -n 0 --trace "$T/1.trace"; grep -q 'names another file' "$T/err" || fail "moe-run tells nothing"
ok "$BIN/moe-run" -q "$T/bf16" --tokens 5,9,100 -n 0 --trace "$T/2.trace"; ok cmp "$T/1.trace" "$T/2.trace"
# a container of the container, --resume; another stale copy makes another model
back o3
ok "$BIN/moe-convert" -q "$T/m.moe" -o "$T/m2.moe"; ok diff -r "$T/m.moe" "$T/m2.moe"
ok "$BIN/moe-convert" -q --resume "$T/o3" -o "$T/m.moe"
cp -r "$T/o3" "$T/o3b"; printf x | dd of="$T/o3b/a.safetensors" bs=1 seek=5000 conv=notrunc 2>/dev/null
code 15 '' "$BIN/moe-convert" -q --resume "$T/o3b" -o "$T/m.moe"
printf x | dd of="$T/m.moe/superseded.safetensors" bs=1 seek=9000 conv=notrunc 2>/dev/null
code 13 'superseded.safetensors' "$BIN/moe-convert" -q --to hf "$T/m.moe" -o "$T/x"; [ ! -e "$T/x" ] || fail "something was written"
code 16 'superseded.safetensors' "$BIN/moe-inspect" -q --verify "$T/m.moe"
# a multimodal model comes back whole; of its text model only what counts comes back
ok "$GEN/genmodel" -o "$T/k25" --format int4 --prefix language_model --vision --shards 3 $small --seed 6
overlaid o9 k25 'experts.1.|patch_embed|lm_head' patch.safetensors
ok "$BIN/moe-convert" --no-keep-vision --to hf "$T/m.moe" -o "$T/text"
code 15 "differ in 0 tensors" "$BIN/moe-inspect" -q "$T/text" --diff "$T/k25"
ok python3 - "$T/text" <<'P'
import glob, json, struct, sys
seen = set()
for f in glob.glob(sys.argv[1] + "/*.safetensors"):
    h = open(f, "rb")
    for n in json.loads(h.read(struct.unpack("<Q", h.read(8))[0])):
        assert n == "__metadata__" or n not in seen, n
        seen.add(n)
P
# no index, or one that does not say which copy counts: refused, with both files named
cp -r "$T/o1" "$T/bare"; rm "$T/bare/model.safetensors.index.json"
code 13 "model-overlay.safetensors': tensor 'model.layers.1.self_attn.o_proj.weight': is in 'model-.*' already, and no model.safetensors.index.json says which" \
    "$BIN/moe-convert" -q "$T/bare" -o "$T/x.moe"
cp -r "$T/o9" "$T/bare9"; rm "$T/bare9/model.safetensors.index.json"
code 13 "is in '.*' already" "$BIN/moe-convert" -q "$T/bare9" -o "$T/x.moe"
ok python3 - "$T/o1" <<'P'
import json, sys
p = sys.argv[1] + "/model.safetensors.index.json"
v = json.load(open(p))
del v["weight_map"]["model.layers.1.self_attn.o_proj.weight"]
json.dump(v, open(p, "w"))
P
code 13 'the index does not name it' "$BIN/moe-convert" -q "$T/o1" -o "$T/x.moe"

# ---- experts fused into two tensors a layer ----

fused() # NAME SOURCE: FROM fused is FROM, and comes back
{
    relayout fuse "$T/$2" "$T/$1"
    back "$1"; same "$T/m.moe" "$T/$2"; same "$T/$1" "$T/$2"
}
fused f1 bf16
ok "$BIN/moe-convert" -q "$T/bf16" -o "$T/plain.moe"
for f in "$T/plain.moe/"*.moe; do ok cmp "$f" "$T/m.moe/${f##*/}"; done
ok "$GEN/genmodel" -o "$T/f32" --format f32 --single-file $small --seed 9; fused f2 f32
ok python3 tests/gen/retype.py "$T/bf16" "$T/f16" f16; fused f7 f16
ok "$GEN/genmodel" -o "$T/square" --format bf16 --layers 2 --experts 4 --hidden 64 --inter 64 --seed 3; fused f3 square
ok "$GEN/genmodel" -o "$T/half" --format bf16 --layers 2 --experts 4 --hidden 128 --inter 64 --seed 3; fused f4 half
ok "$GEN/genmodel" -o "$T/k25b" --format bf16 --prefix language_model --vision --shards 2 $small --seed 6; fused f5 k25b
ok "$BIN/moe-convert" -q --no-keep-vision --to hf "$T/m.moe" -o "$T/text5"; code 15 "differ in 0 tensors" "$BIN/moe-inspect" -q "$T/text5" --diff "$T/k25b"
ok "$BIN/moe-quantize" -q "$T/f1" -o "$T/fq.moe"; same "$T/fq.moe" "$T/q2.moe"
ok "$BIN/moe-run" -q "$T/f1" --tokens 5,9,100 -n 0 --trace "$T/3.trace"; ok cmp "$T/3.trace" "$T/2.trace"
ok "$BIN/moe-inspect" "$T/f1" --tensors='experts.1.up_proj'; grep -q 'experts.1.up_proj.weight .*\[64, 128\]' "$T/out" || { cat "$T/out"; fail "--tensors does not list the slices"; }
ok "$BIN/moe-convert" -q "$T/m.moe" -o "$T/m5.moe"; ok diff -r "$T/m.moe" "$T/m5.moe"
# a fused tensor that replaces another one
relayout overlay "$T/f1" "$T/f6" 'mlp.experts.down_proj' patch.safetensors; back f6; same "$T/f6" "$T/bf16"
grep -q '^4 tensors are not used' "$T/convert.err" || { cat "$T/convert.err"; fail "stale slices are not counted"; }
for how in transposed fp8 short scaled twice; do relayout fuse "$T/bf16" "$T/bad-$how" $how; done
for m in half square; do
    relayout fuse "$T/$m" "$T/$m-t" transposed
    code 14 'as one tensor, transposed' "$BIN/moe-convert" -q "$T/$m-t" -o "$T/x.moe"
done
code 14 'as one tensor, transposed .* save_original_format' "$BIN/moe-convert" -q "$T/bad-transposed" -o "$T/x.moe"
code 14 'as one quantized tensor (dtype F8_E4M3)' "$BIN/moe-quantize" -q "$T/bad-fp8" -o "$T/x.moe"
code 14 'as one quantized tensor' "$BIN/moe-run" -q "$T/bad-scaled" --tokens 1 -n 0
code 13 'the config wants the shape 4 x 128 x 128' "$BIN/moe-convert" -q "$T/bad-short" -o "$T/x.moe"
code 13 "experts.1.up_proj.weight': is there twice, as a tensor of its own (in '.*') and in the one of all experts of its layer (gate_up_proj, in '.*')" "$BIN/moe-convert" -q "$T/bad-twice" -o "$T/x.moe"
echo "t-layouts: copies that an index overrules and fused experts are the same model, and come back byte for byte"
