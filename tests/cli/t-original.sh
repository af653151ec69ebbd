#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests a checkpoint, its container and the checkpoint made from that: the whole directory comes back byte
# for byte, from every layout and every legal way to write its text.
. tests/common.sh
need_tool moe-convert moe-inspect
need_helper genmodel
need_python
F=tests/data/tiny-k2
small="--layers 2 --experts 4 --hidden 128 --inter 64"

for l in bf16 fp8 int4; do cp -r $F/$l "$T/$l"; back $l; done
# a checkpoint written as we would write it costs one line for each file
[ "$(wc -c <"$T/m.moe/source.rest")" -lt 400 ] || fail "source.rest has $(wc -c <"$T/m.moe/source.rest") bytes"
# a byte order mark before every JSON file, as some editors write it
cp -r $F/int4 "$T/marked"
for f in "$T"/marked/*.json; do printf '\357\273\277' | cat - "$f" >"$T/mark"; mv "$T/mark" "$f"; done
back marked
for g in f32 nvfp4 nvfp4-ct; do ok "$GEN/genmodel" -o "$T/$g" --format $g $small --seed 5; back $g; done
ok "$GEN/genmodel" -o "$T/one" --format bf16 --single-file $small --seed 7; back one
ok "$GEN/genmodel" -o "$T/apart" --format fp8 --scales-apart --shards 4 --inv-freq $small --seed 8; back apart
if grep 'left out' "$T/convert.err"; then fail "rotary buffers are a few bytes"; fi
# a container of the container, and an interrupted and a second export
ok "$BIN/moe-convert" -q "$T/m.moe" -o "$T/m2.moe"; ok diff -r "$T/m.moe" "$T/m2.moe"

# every way to write the text
for how in spaces bare late shuffled loose; do
    for l in int4 one; do
        rm -rf "$T/odd"; ok python3 tests/gen/oddcheckpoint.py "$T/$l" "$T/odd" $how; back odd
    done
done
# files without an index, a file without tensors, KV scales
cp -r "$T/fp8" "$T/plain"; rm "$T/plain/model.safetensors.index.json"; back plain
python3 - "$T/one" "$T/more" <<'P'
import json, os, shutil, struct, sys
a, b = sys.argv[1:]
shutil.copytree(a, b)
def put(name, entries, data):
    h = json.dumps(entries).encode()
    with open(os.path.join(b, name), "wb") as f:
        f.write(struct.pack("<Q", len(h)) + h + data)
os.rename(b + "/model.safetensors", b + "/model-00001-of-00003.safetensors")
scales = {"model.layers.%d.self_attn.%s_proj.%s_scale" % (l, s, s): struct.pack("<f", 0.25 * l + 1) for l in range(2) for s in "kv"}
put("model-00002-of-00003.safetensors", {n: {"dtype": "F32", "shape": [], "data_offsets": [4 * i, 4 * i + 4]} for i, n in enumerate(scales)}, b"".join(scales.values()))
put("model-00003-of-00003.safetensors", {}, b"")
P
back more
if grep 'left out' "$T/convert.err"; then fail "KV scales are a few bytes"; fi
# other small files, also in directories; what does not belong to a checkpoint is named
mkdir -p "$T/bf16/docs/figures" "$T/bf16/docs/later" "$T/bf16/empty" "$T/bf16/.cache" "$T/bf16/empty.moe"
echo card >"$T/bf16/README.md"; echo attributes >"$T/bf16/.gitattributes"; : >"$T/bf16/nothing"; printf 'a\0b  ' >"$T/bf16/docs/figures/x.png"; echo x >"$T/bf16/LICENSE"
# another program's manifest does not make a container; --force replaces the directory that came back, with
# all that is in it
mkdir "$T/bf16/demo"; echo '{"files": {}}' | tee "$T/bf16/manifest.json" >"$T/bf16/demo/manifest.json"; echo '{"a": 1}' >"$T/bf16/demo/state.json"
rmdir "$T/bf16/.cache" "$T/bf16/empty.moe"; back bf16
ok "$BIN/moe-convert" --to hf "$T/m.moe" -o "$T/back" --force; ok diff -r "$T/bf16" "$T/back"
mkdir "$T/bf16/.cache" "$T/bf16/other"; echo x >"$T/bf16/.cache/x"; echo '{}' >"$T/bf16/other/config.json"; cp "$T/one/model.safetensors" "$T/bf16/consolidated.safetensors"
echo x >"$T/bf16/$(printf 'not\377text')"; echo x >"$T/bf16/$(printf 'two\nlines')"
rm -rf "$T/m.moe" "$T/back"
ok "$BIN/moe-convert" "$T/bf16" -o "$T/m.moe"
grep -q "4 other files or directories of the checkpoint are left out: '.cache', 'consolidated.safetensors', 'not.xfftext', 'other'" "$T/err" ||
    { cat "$T/err"; fail "what is left out is not named"; }
mkdir "$T/bf16/.1" "$T/bf16/.2"
ok "$BIN/moe-convert" "$T/bf16" -o "$T/m.moe" --force
grep -q "6 other files or directories of the checkpoint are left out: '.1', '.2', '.cache', 'cons.*', 'not.*' and 1 more" "$T/err" || { cat "$T/err"; fail "the rest is not counted"; }
rmdir "$T/bf16/.1" "$T/bf16/.2"
ok "$BIN/moe-convert" -q --to hf "$T/m.moe" -o "$T/back"
diff -r "$T/bf16" "$T/back" >"$T/diff"
[ "$(grep -ac '^Only in' "$T/diff")" = 4 ] && [ "$(wc -l <"$T/diff")" = 4 ] || { cat "$T/diff"; fail "other differences"; }

# a multimodal checkpoint: all of it, or the text model under its own names, with a config and an index for
# that alone
ok "$GEN/genmodel" -o "$T/k25" --format int4 --prefix language_model --vision --shards 3 $small --seed 6
echo '{"auto_map": {"AutoProcessor": "k25_processor.K25Processor", "AutoImageProcessor": ["k25_images.Images", "tokenization_k25.Tokenizer"]}}' >"$T/k25/preprocessor_config.json"
for f in k25_processor k25_images tokenization_k25 media; do echo "# $f" >"$T/k25/$f.py"; done
echo '{"auto_map": {"AutoTokenizer": ["tokenization_k25.Tokenizer", null]}}' >"$T/k25/tokenizer_config.json"
back k25
if grep 'left out' "$T/convert.err"; then fail "vision tensors are kept"; fi
ok "$BIN/moe-convert" -q "$T/m.moe" -o "$T/m3.moe"; ok diff -r "$T/m.moe" "$T/m3.moe"
ok python3 tests/readers/readmoe.py check "$T/m.moe"
ok "$BIN/moe-quantize" -q "$T/m.moe" -o "$T/q1.moe"; ok "$BIN/moe-quantize" -q "$T/k25" -o "$T/q2.moe"; ok diff -r "$T/q1.moe" "$T/q2.moe"
ok "$BIN/moe-convert" -q --resume "$T/k25" -o "$T/m.moe"
cp -r "$T/m.moe" "$T/forced.moe"; ok "$BIN/moe-convert" -q --force "$T/k25" -o "$T/forced.moe"; ok diff -r "$T/m.moe" "$T/forced.moe"
[ ! -e "$T/q1.moe/vision.safetensors" ] || fail "a quantized container keeps vision tensors"
cp -r "$T/m.moe" "$T/hurt-vision.moe"; printf x | dd of="$T/hurt-vision.moe/vision.safetensors" bs=1 seek=9000 conv=notrunc 2>/dev/null
code 13 'vision.safetensors' "$BIN/moe-convert" -q --to hf "$T/hurt-vision.moe" -o "$T/x"; [ ! -e "$T/x" ] || fail "something was written"
code 16 'vision.safetensors' "$BIN/moe-inspect" -q --verify "$T/hurt-vision.moe"
# tidy DIR: the index names exactly what the files hold, and the config promises nothing else
cat >"$T/tidy.py" <<'P'
import glob, json, os, struct, sys
d, held = sys.argv[1], {}
for f in glob.glob(d + "/*.safetensors"):
    with open(f, "rb") as h:
        held.update({n: os.path.basename(f) for n in json.loads(h.read(struct.unpack("<Q", h.read(8))[0])) if n != "__metadata__"})
index, c = d + "/model.safetensors.index.json", json.load(open(d + "/config.json"))
assert not os.path.exists(index) or json.load(open(index))["weight_map"] == held, "index"
assert ("vision_config" in c) == any(n.startswith("vision_tower.") for n in held), "vision"
layers = {int(n.split("layers.")[1].split(".")[0]) for n in held if n.startswith("model.layers.")}
assert layers == set(range(c["num_hidden_layers"] + c["num_nextn_predict_layers"])), (layers, c["num_nextn_predict_layers"])
q = c.get("quantization_config", {})
assert bool(q.get("kv_cache_scheme")) == any(n.endswith("k_scale") for n in held), "kv_cache_scheme"
assert not [i for i in q.get("ignore", []) if "language_model" in i or "vision" in i or "layers.%d" % len(layers) in i], q["ignore"]
assert not os.path.exists(d + "/preprocessor_config.json") and all(n.startswith(("model.", "lm_head.")) for n in held)
P
tidy() { ok python3 "$T/tidy.py" "$1"; ok "$BIN/moe-inspect" -q --verify "$1"; }
python3 - "$T/k25/config.json" <<'P'
import json, sys
c = json.load(open(sys.argv[1]))
q = c["text_config"].pop("quantization_config")
q["ignore"] = ["language_model.lm_head", "re:language_model\\.model\\.layers\\.\\d+\\.self_attn.*", "re:vision_tower.*", "mm_projector.proj.0"] + q["ignore"][2:]
json.dump({**c, "quantization_config": q}, open(sys.argv[1], "w"))
P
back k25
ok "$BIN/moe-run" -q "$T/k25" --tokens 5,9,100 -n 0 --trace "$T/k25.trace"
ok "$BIN/moe-convert" --no-keep-vision --to hf "$T/m.moe" -o "$T/text"
grep -q "23 tensors of the source were not kept and do not return, 'vision_tower.patch_embed.proj.weight' the first" "$T/err" || { cat "$T/err"; fail "what does not return is not named"; }
ok "$BIN/moe-convert" --no-keep-vision "$T/k25" -o "$T/text.moe"; grep -q 'left out (vision)' "$T/err" || fail "no notice about vision tensors"
[ ! -e "$T/text.moe/vision.safetensors" ] || fail "--no-keep-vision keeps them"
ok "$BIN/moe-convert" -q --to hf "$T/text.moe" -o "$T/text2"; ok diff -r "$T/text" "$T/text2"
tidy "$T/text"
[ "$(cd "$T/text" && echo *.py)" = "media.py tokenization_k25.py" ] || fail "code for images alone stays, or other code does not: $(ls "$T/text")"
ok "$BIN/moe-run" -q "$T/text" --tokens 5,9,100 -n 0 --trace "$T/text.trace"; ok cmp "$T/k25.trace" "$T/text.trace"
code 15 'keep_vision' "$BIN/moe-convert" -q --resume "$T/k25" -o "$T/text.moe"

# layers of multi-token prediction, and KV scales of more than a few bytes, are left out: the config no
# longer promises them
python3 - "$T/one" "$T/extra" <<'P'
import json, os, shutil, struct, sys
a, b = sys.argv[1:]
shutil.copytree(a, b)
extra = {"model.layers.2.eh_proj.weight": 64, "model.layers.2.enorm.weight": 8}
extra.update({"model.layers.%d.self_attn.%s_proj.%s_scale" % (l, s, s): 300 for l in range(2) for s in "kv"})
with open(a + "/model.safetensors", "rb") as f:
    n = struct.unpack("<Q", f.read(8))[0]
    h, data = json.loads(f.read(n)), f.read()
for name, count in extra.items():
    h[name] = {"dtype": "F32", "shape": [count], "data_offsets": [len(data), len(data) + 4 * count]}
    data += struct.pack("<%df" % count, *range(1, count + 1))
t = json.dumps(h).encode()
with open(b + "/model.safetensors", "wb") as f:
    f.write(struct.pack("<Q", len(t)) + t + data)
c = json.load(open(a + "/config.json"))
c["num_nextn_predict_layers"] = 1
json.dump(c, open(b + "/config.json", "w"))
P
ok "$BIN/moe-convert" "$T/extra" -o "$T/extra.moe"
grep -q 'left out (multi-token prediction)' "$T/err" && grep -q 'left out (kv scale)' "$T/err" || { cat "$T/err"; fail "what is left out is not named"; }
ok "$BIN/moe-convert" --to hf "$T/extra.moe" -o "$T/less"
grep -q '6 tensors of the source were not kept' "$T/err" || { cat "$T/err"; fail "what does not return is not named"; }
tidy "$T/less"

# quantized containers do not keep source.rest; a damaged one is refused; a container of an older version
# comes back with our headers
ok "$BIN/moe-convert" -q --to nvfp4 "$T/bf16" -o "$T/q.moe"; [ ! -e "$T/q.moe/source.rest" ] || fail "a quantized container keeps what only --to hf wants"
cp -r "$T/m.moe" "$T/hurt.moe"; printf x | dd of="$T/hurt.moe/source.rest" bs=1 seek=20 conv=notrunc 2>/dev/null
code 13 'source.rest' "$BIN/moe-convert" -q --to hf "$T/hurt.moe" -o "$T/x"; [ ! -e "$T/x" ] || fail "something was written"
echo "t-original: every layout comes back byte for byte"
