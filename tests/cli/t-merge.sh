#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests merging of parts that were quantized separately (moe-quantize --layers): the bytes are those of one
# run; parts that do not belong together are refused.
. tests/common.sh
need_tool moe-convert moe-quantize moe-inspect moe-run
need_helper genmodel
F=tests/data/tiny-k2

part() { from=$1 to=$2 range=$3; shift 3; ok "$BIN/moe-quantize" -q "$from" -o "$T/$to" --layers "$range" "$@"; }
same() { ok "$BIN/moe-inspect" -q --verify "$T/$2"; diff -r "$T/$1" "$T/$2" >/dev/null || { diff -r "$T/$1" "$T/$2" | head -5; fail "$2 is not $1"; }; }

# one run, compared with three parts merged in any order: each layout, all kinds of tensors changed
all="--quantize all-linear --tensor-type lm_head=bf16 --tensor-type norm=f32"
for l in bf16 fp8 int4; do
    ok "$BIN/moe-quantize" -q $F/$l -o "$T/$l.moe" -m search $all
    part $F/$l $l-b.moe 1-2 -m search $all
    part $F/$l $l-a.moe 0 -m search $all
    part $F/$l $l-c.moe 3-3 -m search $all
    ok "$BIN/moe-convert" -q --merge "$T/$l-c.moe" "$T/$l-a.moe" "$T/$l-b.moe" -o "$T/$l-m.moe"
    same $l.moe $l-m.moe
done
# from a container, experts only; one part that holds all layers
ok "$BIN/moe-convert" -q $F/bf16 -o "$T/src.moe"
ok "$BIN/moe-quantize" -q "$T/src.moe" -o "$T/one.moe" -m max
part "$T/src.moe" p0.moe 0-1 -m max; part "$T/src.moe" p1.moe 2-3 -m max; part "$T/src.moe" p.moe 0-3 -m max
ok "$BIN/moe-convert" -q --merge "$T/p0.moe" "$T/p1.moe" -o "$T/two.moe"; same one.moe two.moe
ok "$BIN/moe-convert" -q --merge "$T/p.moe" -o "$T/three.moe"; same one.moe three.moe
# tied embeddings, skipped tensors, INT4 weight_shape
ok "$GEN/genmodel" -o "$T/vision" --format int4 --prefix language_model --vision --layers 3 --experts 4 --hidden 128 --inter 64 --seed 6
ok "$BIN/moe-quantize" -q "$T/vision" -o "$T/v.moe"
part "$T/vision" v0.moe 0-0; part "$T/vision" v1.moe 1-2
ok "$BIN/moe-convert" -q --merge "$T/v1.moe" "$T/v0.moe" -o "$T/vm.moe"; same v.moe vm.moe

if command -v python3 >/dev/null; then
    for m in bf16-b bf16-m p1; do ok python3 tests/readers/readmoe.py check "$T/$m.moe"; done
fi

# a part can be inspected as such, and used for nothing else
ok "$BIN/moe-inspect" --json --verify "$T/p1.moe"
grep -q '"part": *\[ *2, *3 *\]' "$T/out" || { cat "$T/out"; fail "inspect does not say which part"; }
ok "$BIN/moe-inspect" "$T/p1.moe"; grep -q 'layers 2-3 only' "$T/out" || { cat "$T/out"; fail "inspect does not say which part"; }
code 14 'moe-convert --merge' "$BIN/moe-run" -q "$T/p1.moe" --prompt x
code 14 'moe-convert --merge' "$BIN/moe-convert" -q "$T/p1.moe" -o "$T/x.moe"
# parts that do not belong together
code 15 'layers 0-1 are in none of the parts' "$BIN/moe-convert" -q --merge "$T/p1.moe" -o "$T/x.moe"
code 15 'layers 2-3 are in none of the parts' "$BIN/moe-convert" -q --merge "$T/p0.moe" -o "$T/x.moe"
code 15 'layer 2 is in' "$BIN/moe-convert" -q --merge "$T/p0.moe" "$T/p1.moe" "$T/p1.moe" -o "$T/x.moe"
code 15 'is a whole model' "$BIN/moe-convert" -q --merge "$T/p0.moe" "$T/one.moe" -o "$T/x.moe"
part "$T/src.moe" o1.moe 2-3 -m search
code 15 "option 'method'" "$BIN/moe-convert" -q --merge "$T/p0.moe" "$T/o1.moe" -o "$T/x.moe"
part $F/fp8 o2.moe 2-3 -m max
code 15 'another input' "$BIN/moe-convert" -q --merge "$T/p0.moe" "$T/o2.moe" -o "$T/x.moe"
for r in 4-5 2-1 x 1-2-3 -1; do code 2 'layers' "$BIN/moe-quantize" -q "$T/src.moe" -o "$T/x.moe" --layers=$r; done
code 2 'parts' "$BIN/moe-convert" -q --merge -o "$T/x.moe"
# a damaged part, and resuming: as with every writer
cp -r "$T/p1.moe" "$T/hurt.moe"
size=$(stat -c %s "$T/hurt.moe/layer-003.moe")
dd if=/dev/zero of="$T/hurt.moe/layer-003.moe" bs=1 seek=$((size / 2)) count=64 conv=notrunc 2>/dev/null
code 13 'layers.3.mlp.experts.*checksum' "$BIN/moe-convert" -q --merge "$T/p0.moe" "$T/hurt.moe" -o "$T/x.moe"
[ -e "$T/x.moe" ] && fail "a merge of a damaged part was published"
code 15 'another input' "$BIN/moe-convert" -q --resume --merge "$T/p.moe" -o "$T/x.moe"
rm -rf "$T/x.moe.partial"
ok "$BIN/moe-convert" --json --dry-run --merge "$T/p0.moe" "$T/p1.moe"
[ -e "$T/x.moe" ] && fail "a dry run wrote"
ok "$BIN/moe-convert" -q --merge "$T/p0.moe" "$T/p1.moe" -o "$T/two.moe" --resume; same one.moe two.moe
echo "t-merge: parts merge to the bytes of one run"
