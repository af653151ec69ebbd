#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that the second reader of containers agrees with the first: on whole containers of every type, value
# by value with an independent decoder of the checkpoints, and on damaged ones.
. tests/common.sh
need_tool moe-convert moe-quantize moe-inspect
need_helper genmodel
need_python

R="python3 tests/readers/readmoe.py"
ok $R selftest
for layout in bf16 fp8 int4; do
    ok "$BIN/moe-convert" "tests/data/tiny-k2/$layout" -o "$T/$layout.moe"
    ok $R check "$T/$layout.moe"
    reads $R same "$T/$layout.moe" "tests/data/tiny-k2/$layout"
done
for format in nvfp4 nvfp4-ct; do
    ok "$GEN/genmodel" -o "$T/$format" --format $format --layers 2 --experts 4 --seed 3
    ok "$BIN/moe-convert" "$T/$format" -o "$T/$format.moe/" # a trailing slash names the same
    ok $R check "$T/$format.moe"
    reads $R same "$T/$format.moe" "$T/$format"
done
ok "$BIN/moe-quantize" tests/data/tiny-k2/fp8 --method max -o "$T/q.moe"
ok $R check "$T/q.moe"

# The container made from the checkpoint, and one made from that container, are the same.
ok "$BIN/moe-quantize" "$T/fp8.moe" --method max -o "$T/q2.moe"
ok diff -r "$T/q.moe" "$T/q2.moe"

# The golden container, which was written once and is kept.
ok $R check tests/data/golden-v1.moe
ok "$BIN/moe-inspect" --verify tests/data/golden-v1.moe
$R dump tests/data/golden-v1.moe model.layers.1.mlp.experts.1.down_proj.weight >"$T/down" || fail "dump"
[ "$(cksum <"$T/down")" = "$(cat tests/data/golden-v1.cksum)" ] || fail "the golden values changed: $(cksum <"$T/down")"

# Both readers refuse the same damage: one byte is changed at a time.
flip() # FILE OFFSET
{
    python3 -c 'import sys
f = open(sys.argv[1], "r+b"); f.seek(int(sys.argv[2])); b = f.read(1); f.seek(-1, 1); f.write(bytes((b[0] ^ 0x10,)))' "$1" "$2"
}
n=0
for at in manifest.json:3 manifest.json:200 dense.moe:0 dense.moe:60 dense.moe:200 dense.moe:9000 layer-001.moe:100 layer-001.moe:1100 \
          layer-001.moe:20000 source.jsonl:5 hf/config.json:9; do
    file=${at%:*} offset=${at#*:}
    rm -rf "$T/bad.moe"
    cp -R "$T/int4.moe" "$T/bad.moe"
    flip "$T/bad.moe/$file" "$offset"
    $R check "$T/bad.moe" >"$T/out" && fail "readmoe accepts $at"
    "$BIN/moe-inspect" --verify "$T/bad.moe" >"$T/out" 2>&1 && fail "moe-inspect accepts $at"
    grep -q "$file" "$T/out" || { cat "$T/out"; fail "moe-inspect does not name $file"; }
    n=$((n + 1))
done
echo "t-readmoe: $n kinds of damage found by both readers"
