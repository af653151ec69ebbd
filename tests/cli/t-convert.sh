#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests conversion and the way back: byte-identical tensors for every layout, from prefixed and single-file
# checkpoints; damaged input.
. tests/common.sh
need_tool moe-convert moe-inspect
need_helper genmodel
F=tests/data/tiny-k2
need_python

round() # NAME CHECKPOINT
{
    ok "$BIN/moe-convert" -q "$2" -o "$T/$1.moe"
    ok "$BIN/moe-inspect" -q --verify "$T/$1.moe"
    ok "$BIN/moe-convert" -q --to hf "$T/$1.moe" -o "$T/$1.hf"
    ok python3 tests/readers/sametensors.py "$2" "$T/$1.hf"
    ok "$BIN/moe-convert" -q "$T/$1.hf" -o "$T/$1-2.moe"
    for f in "$T/$1.moe"/*.moe; do ok cmp "$f" "$T/$1-2.moe/$(basename "$f")"; done
}
for l in bf16 fp8 int4; do round $l $F/$l; done
for g in f32 nvfp4 nvfp4-ct; do
    ok "$GEN/genmodel" -o "$T/g-$g" --format $g --layers 3 --experts 4 --hidden 256 --inter 160 --seed 5
    round $g "$T/g-$g"
done
ok "$GEN/genmodel" -o "$T/vision" --format int4 --prefix language_model --vision --layers 2 --experts 4 --hidden 128 --inter 64 --seed 6
round vision "$T/vision"
ok "$GEN/genmodel" -o "$T/one" --format bf16 --single-file --inv-freq --layers 2 --experts 4 --hidden 128 --inter 64 --seed 7
round one "$T/one"

gone() { [ ! -e "$T/x.moe" ] || fail "$1: something stands under the final name"; rm -rf "$T/x.moe.partial"; }

ok "$GEN/genmodel" -o "$T/nan" --format bf16 --layers 2 --experts 4 --hidden 128 --inter 64 --seed 8 --nan model.layers.1.mlp.experts.2.up_proj.weight
code 18 'experts.2.up_proj' "$BIN/moe-convert" -q "$T/nan" -o "$T/x.moe"; gone nan
code 18 'experts.2.up_proj' "$BIN/moe-convert" -q --to nvfp4 "$T/nan" -o "$T/x.moe"; gone nan
cp -r $F/bf16 "$T/cut"; truncate -s -1000 "$T/cut/model-00003-of-000003.safetensors"
code 13 'model-00003' "$BIN/moe-convert" -q "$T/cut" -o "$T/x.moe"; gone cut
cp -r $F/bf16 "$T/less"; rm "$T/less/model-00002-of-000003.safetensors"
code 3 'model-00002' "$BIN/moe-convert" -q "$T/less" -o "$T/x.moe"; gone less
mkdir "$T/empty"; code 3 'config.json' "$BIN/moe-convert" -q "$T/empty" -o "$T/x.moe"
code 14 'is a checkpoint already' "$BIN/moe-convert" -q --to hf $F/bf16 -o "$T/x"
ok "$BIN/moe-convert" -q --to nvfp4 $F/bf16 -o "$T/q.moe"
code 14 'quantized container' "$BIN/moe-convert" -q --to hf "$T/q.moe" -o "$T/x"
code 4 'already exists' "$BIN/moe-convert" -q $F/bf16 -o "$T/q.moe"
cp -r $F/bf16 "$T/vocab"; sed -i 's/"vocab_size": 1024/"vocab_size": 1000/' "$T/vocab/config.json"
code 13 'embed_tokens' "$BIN/moe-convert" -q "$T/vocab" -o "$T/x.moe"; gone vocab
if [ "$(id -u)" != 0 ]; then
    mkdir "$T/ro"; chmod a-w "$T/ro"; code 11 'ro' "$BIN/moe-convert" -q $F/bf16 -o "$T/ro/x.moe"
fi
# damaged weights in a container are not written again under a new checksum
flip() { printf 'import sys\nf = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2])); b = f.read(1)[0]; f.seek(-1, 1); f.write(bytes([b ^ 1]))\n' >"$T/flip.py"
    ok python3 "$T/flip.py" "$@"; }
cp -r "$T/bf16.moe" "$T/hurt.moe"; flip "$T/hurt.moe/layer-002.moe" $(($(stat -c %s "$T/hurt.moe/layer-002.moe") - 65536))
for to in source nvfp4; do code 13 'layers.2.mlp.experts.30.*checksum' "$BIN/moe-convert" -q --to $to "$T/hurt.moe" -o "$T/x.moe"; gone hurt; done
cp -r "$T/bf16.moe" "$T/hurt2.moe"; flip "$T/hurt2.moe/hf/config.json" 100
code 13 'config.json.*checksum' "$BIN/moe-convert" -q "$T/hurt2.moe" -o "$T/x.moe"; gone hurt2
# --force replaces a checkpoint and nothing else: not a stranger's directory, not the container that it reads
mkdir -p "$T/precious/sub"; echo mine >"$T/precious/sub/file"; cp -r "$T/bf16.moe" "$T/keep.moe"
code 4 'not a checkpoint' "$BIN/moe-convert" -q --force --to hf "$T/keep.moe" -o "$T/precious"
code 2 'which is read' "$BIN/moe-convert" -q --force --to hf "$T/keep.moe" -o "$T/keep.moe"
cmp -s "$T/precious/sub/file" - <<EOF || fail "--force touched a stranger's directory"
mine
EOF
ok diff -r "$T/bf16.moe" "$T/keep.moe"
cp -r "$T/precious" "$T/x.partial"
for how in --resume --force; do code 4 'not from an export' "$BIN/moe-convert" -q $how --to hf "$T/keep.moe" -o "$T/x"; done
[ -f "$T/x.partial/sub/file" ] || fail "$how touched a directory that only has the name"
rm -rf "$T/x.partial"; cp -r "$T/bf16.hf" "$T/x"; mkdir "$T/x.partial"; : >"$T/x.partial/.moe-export"; echo junk >"$T/x.partial/model.safetensors.tmp"
code 4 'already exists' "$BIN/moe-convert" -q --to hf "$T/keep.moe" -o "$T/x"
ok "$BIN/moe-convert" -q --force --to hf "$T/keep.moe" -o "$T/x"
ok diff -r "$T/bf16.hf" "$T/x"
[ ! -e "$T/x.partial" ] || fail "an export left its partial directory"
rm -rf "$T/x"
# a lock: another process holds the partial directory
mkdir "$T/x.moe.partial"
( exec 9<"$T/x.moe.partial"; flock -n 9 || exit 1; code 4 'another process' "$BIN/moe-convert" -q --force $F/bf16 -o "$T/x.moe" ) || fail "the lock"
rm -rf "$T/x.moe.partial"
# a full disk, where a small file system can be had
if mkdir "$T/small" && mount -t tmpfs -o size=2m none "$T/small" 2>/dev/null; then
    code 12 'free' "$BIN/moe-convert" -q $F/bf16 -o "$T/small/x.moe"
    [ ! -e "$T/small/x.moe" ] || fail "full disk"
    umount "$T/small"
fi
