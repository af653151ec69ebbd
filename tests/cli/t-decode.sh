#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests that the values of quantized checkpoints are exactly those that their bytes stand for: the logits
# computed from a checkpoint equal, byte for byte, those computed from its weights as an independent decoder
# (refdecode.py) writes them in float32.  NVFP4 products add in an order of their own (kernels.def); there
# the chosen experts are the same and every value lies within 5e-6 of its tensor's largest (float32 rounding
# of two layers; a code decoded wrong is off by far more).
. tests/common.sh
need_tool moe-run
need_helper genmodel
need_python
need_space 200

cat >"$T/same.py" <<'P'
import array, sys
sys.path.insert(0, "tests/readers")
from refdecode import Checkpoint
def trace(path):
    c = Checkpoint.__new__(Checkpoint)
    c.tensors = {}
    c._read_header(path)
    return {n: c.raw(n) for n in c.tensors}
a, b = trace(sys.argv[1]), trace(sys.argv[2])
assert set(a) == set(b) and "logits" in a, sorted(a)
assert len(set(a["logits"][2])) > 16, "logits are all alike"
def floats(t):
    x = array.array("f")
    x.frombytes(t[2])
    return x
def near(n):
    if a[n][:2] != b[n][:2] or a[n][0] != "F32":
        return a[n] == b[n]
    x, y = floats(a[n]), floats(b[n])
    return max(abs(p - q) for p, q in zip(x, y)) <= 5e-6 * max(map(abs, y))
bad = [n for n in a if (not near(n) if sys.argv[3] == "near" else a[n] != b[n])]
sys.exit("differ: " + ", ".join(bad) if bad else 0)
P
compare() # NAME CHECKPOINT exact|near
{
    ok python3 tests/readers/refdecode.py "$2" "$T/$1.f32"
    ok "$BIN/moe-run" "$2" --tokens 1,2,3,500,77,9,260,33 -n 0 --trace "$T/$1.a"
    ok "$BIN/moe-run" "$T/$1.f32" --tokens 1,2,3,500,77,9,260,33 -n 0 --trace "$T/$1.b"
    ok python3 "$T/same.py" "$T/$1.a" "$T/$1.b" $3
    echo "t-decode: $1 ok"
}
compare fp8 tests/data/tiny-k2/fp8 exact
compare int4 tests/data/tiny-k2/int4 exact
for format in nvfp4 nvfp4-ct; do
    ok "$GEN/genmodel" -o "$T/$format" --format $format --layers 2 --experts 8 --seed 3
    compare $format "$T/$format" near
done
# An awkward checkpoint: partial blocks, scales in another shard, nested config, vision tensors.
ok "$GEN/genmodel" -o "$T/odd" --format fp8 --layers 2 --experts 6 --hidden 160 --inter 72 --vision --inv-freq --prefix language_model \
    --shards 5 --scales-apart --q-lora 0
compare odd "$T/odd" exact
