#!/bin/sh
# A checkpoint, its container and back: the whole directory byte for byte, from every layout and every legal way to write its text.
. tests/common.sh
need_tool moe-convert moe-inspect
need_helper genmodel
need_python
F=tests/data/tiny-k2
small="--layers 2 --experts 4 --hidden 128 --inter 64"

back() # NAME: $T/NAME through a container to the same directory
{
    rm -rf "$T/m.moe" "$T/back"
    ok "$BIN/moe-convert" "$T/$1" -o "$T/m.moe"; cp "$T/err" "$T/convert.err"
    ok "$BIN/moe-inspect" -q --verify "$T/m.moe"
    ok "$BIN/moe-convert" --to hf "$T/m.moe" -o "$T/back"
    diff -r "$T/$1" "$T/back" || fail "$1 does not come back byte for byte"
    if grep 'do not return' "$T/err"; then fail "$1: something does not return"; fi
}

for l in bf16 fp8 int4; do cp -r $F/$l "$T/$l"; back $l; done
# what is written as we would write it costs a line a file
[ "$(wc -c <"$T/m.moe/source.rest")" -lt 400 ] || fail "source.rest has $(wc -c <"$T/m.moe/source.rest") bytes"
for g in f32 nvfp4 nvfp4-ct; do ok "$GEN/genmodel" -o "$T/$g" --format $g $small --seed 5; back $g; done
ok "$GEN/genmodel" -o "$T/one" --format bf16 --single-file $small --seed 7; back one
ok "$GEN/genmodel" -o "$T/apart" --format fp8 --scales-apart --shards 4 --inv-freq $small --seed 8; back apart
if grep 'left out' "$T/convert.err"; then fail "rotary buffers are a few bytes"; fi
# a container of the container, and an interrupted and a second export
ok "$BIN/moe-convert" -q "$T/m.moe" -o "$T/m2.moe"; ok diff -r "$T/m.moe" "$T/m2.moe"

# every way to write it
for how in spaces bare late shuffled loose; do
    for l in int4 one; do
        rm -rf "$T/odd"; ok python3 tests/oddcheckpoint.py "$T/$l" "$T/odd" $how; back odd
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
# other small files, in directories too; what is no part of it is named
mkdir -p "$T/bf16/docs/figures" "$T/bf16/.cache" "$T/bf16/empty.moe"
echo card >"$T/bf16/README.md"; echo attributes >"$T/bf16/.gitattributes"; : >"$T/bf16/nothing"; printf 'a\0b  ' >"$T/bf16/docs/figures/x.png"; echo x >"$T/bf16/LICENSE"
rmdir "$T/bf16/.cache" "$T/bf16/empty.moe"; back bf16
mkdir "$T/bf16/.cache" "$T/bf16/other"; echo x >"$T/bf16/.cache/x"; echo '{}' >"$T/bf16/other/config.json"; cp "$T/one/model.safetensors" "$T/bf16/consolidated.safetensors"
echo x >"$T/bf16/$(printf 'not\377text')"; echo x >"$T/bf16/$(printf 'two\nlines')"
rm -rf "$T/m.moe" "$T/back"
ok "$BIN/moe-convert" "$T/bf16" -o "$T/m.moe"
grep -q "4 other files or directories of the checkpoint are left out, '.cache' the first" "$T/err" || { cat "$T/err"; fail "what is left out is not named"; }
ok "$BIN/moe-convert" -q --to hf "$T/m.moe" -o "$T/back"
diff -r "$T/bf16" "$T/back" >"$T/diff"
[ "$(grep -ac '^Only in' "$T/diff")" = 4 ] && [ "$(wc -l <"$T/diff")" = 4 ] || { cat "$T/diff"; fail "other differences"; }

# quantized containers do not keep it; one that was damaged is refused; one of an older version goes back with our headers
ok "$BIN/moe-convert" -q --to nvfp4 "$T/bf16" -o "$T/q.moe"; [ ! -e "$T/q.moe/source.rest" ] || fail "a quantized container keeps what only --to hf wants"
cp -r "$T/m.moe" "$T/hurt.moe"; printf x | dd of="$T/hurt.moe/source.rest" bs=1 seek=20 conv=notrunc 2>/dev/null
code 13 'source.rest' "$BIN/moe-convert" -q --to hf "$T/hurt.moe" -o "$T/x"; [ ! -e "$T/x" ] || fail "something was written"
echo "t-original: every layout comes back byte for byte"
