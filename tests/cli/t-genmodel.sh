#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests the generator: published tensor counts and sizes of the full-size checkpoints, and the same model
# behind every layout.
. tests/common.sh
need_helper genmodel
need_space 400

count() # NAME TENSORS BYTES ARGUMENTS...
{
    name=$1 tensors=$2 bytes=$3
    shift 3
    ok "$GEN/genmodel" -o "$T/$name" --sparse "$@"
    got=$(grep -c 'safetensors"' "$T/$name/model.safetensors.index.json")
    [ "$got" = "$tensors" ] || fail "$name: $got tensors, not $tensors"
    grep -q "\"total_size\": $bytes}" "$T/$name/model.safetensors.index.json" || fail "$name: total_size is not $bytes"
    rm -rf "${T:?}/$name"
}
count k2 139644 1029173256720 --preset k2
count k2-thinking 208215 594205904896 --preset k2-thinking
count k2.6 208550 595148192736 --preset k2-thinking --vision --prefix language_model
count k2-nvfp4 277335 594205904896 --preset k2-nvfp4

# Options that only change the layout leave the values alone; the number of threads changes nothing at all.
small="--layers 2 --experts 5 --cold 1 --top-k 2 --seed 7"
ok "$GEN/genmodel" -o "$T/a" $small --format int4 --threads 1
ok "$GEN/genmodel" -o "$T/b" $small --format int4 --threads 5
ok diff -r "$T/a" "$T/b"
command -v python3 >/dev/null || { echo "t-genmodel: counts only, no python3"; exit 0; }
for format in bf16 f32 fp8 int4 nvfp4 nvfp4-ct; do ok "$GEN/genmodel" -o "$T/$format" $small --format $format; done
ok "$GEN/genmodel" -o "$T/fp8-other" $small --format fp8 --vision --inv-freq --prefix language_model --shards 4 --scales-apart
cat >"$T/check.py" <<'P'
import math, os, sys
sys.path.insert(0, "tests/readers")
from refdecode import Checkpoint
top, n = sys.argv[1], 0
base = Checkpoint(os.path.join(top, "f32"))
names = {base.canonical(x): x for x in base.weights}
fp8 = {}
# largest relative error of each format: 8, 4 and 4 significant bits; INT4 and NVFP4 by their step for
# heavy-tailed weights
for form, limit in (("bf16", .003), ("fp8", .03), ("fp8-other", .03), ("int4", .2), ("nvfp4", .11), ("nvfp4-ct", .11)):
    c = Checkpoint(os.path.join(top, form))
    assert {c.canonical(x) for x in c.weights} == set(names), form
    for x in c.weights:
        (shape, v), (_, w) = c.decode(x), base.decode(names[c.canonical(x)])
        error = math.sqrt(sum((a - b) ** 2 for a, b in zip(v, w)) / sum(b * b for b in w))
        assert error < limit, (form, x, error)
        if form == "fp8":
            fp8[c.canonical(x)] = v
        assert form != "fp8-other" or v == fp8[c.canonical(x)], x
        n += 1
print("t-genmodel: %d tensors agree" % n)
P
ok python3 "$T/check.py" "$T"
cat "$T/out"
[ -x "$BIN/moe-run" ] || { echo "t-genmodel: routing not looked at, no moe-run"; exit 0; }

# A skewed model runs, and routes as asked: to dead experts never, to cold ones hardly ever, to popular ones
# often.
ok "$GEN/genmodel" -o "$T/skew" --layers 3 --experts 32 --top-k 4 --hidden 96 --inter 32 --skew 1.2 --cold 3 --dead 2
ok "$BIN/moe-run" "$T/skew" --tokens "$(awk 'BEGIN { for (i = 0; i < 600; i++) printf "%s%d", i ? "," : "", (i * 7919) % 1000 }')" -n 0 --trace "$T/trace"
cat >"$T/routing.py" <<'P'
import array, math, sys
sys.path.insert(0, "tests/readers")
from refdecode import Checkpoint
c = Checkpoint.__new__(Checkpoint)
c.tensors = {}
c._read_header(sys.argv[1])
logits = c.floats("logits")[1]
assert all(map(math.isfinite, logits)) and max(logits) < 1000
for layer in (1, 2):
    dtype, (tokens, k), data = c.raw("experts.%d" % layer)
    chosen = array.array("i", data)
    load = [chosen.count(e) for e in range(32)]
    assert sum(load) == 600 * 4, load
    assert load[30:] == [0, 0] and sum(load[27:30]) < 60 and max(load) > 3 * 75, load
print("t-genmodel: routing is skewed as asked")
P
python3 "$T/routing.py" "$T/trace"
