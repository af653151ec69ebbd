#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compares NVFP4 bytes with a second implementation of the rules (refquant.py), on the fixture and on hostile
# weights.
. tests/common.sh
need_tool moe-quantize
need_helper genmodel
need_python
need_space 200

reads python3 tests/readers/refquant.py --selftest
# A model with more than one row of scale tiles and a last tile that is partly padding; and a small one for
# the slow check of the search.
ok "$GEN/genmodel" -o "$T/hostile" --hostile --layers 2 --experts 24 --top-k 2 --hidden 208 --inter 48 --seed 5
ok "$GEN/genmodel" -o "$T/hostile-small" --hostile --layers 2 --experts 24 --top-k 2 --hidden 32 --inter 32 --seed 6
ok "$GEN/genmodel" -o "$T/hostile-int4" --hostile --format int4 --layers 2 --experts 12 --top-k 2 --hidden 32 --inter 32 --seed 6
check() # CHECKPOINT METHOD ARGUMENTS...
{
    model=$1 method=$2
    shift 2
    rm -rf "$T/x.moe"
    ok "$BIN/moe-quantize" "$model" -o "$T/x.moe" --method "$method"
    reads python3 tests/readers/refquant.py "$model" "$T/x.moe" "$method" "$@"
}
check tests/data/tiny-k2/bf16 max --sample 96
check tests/data/tiny-k2/bf16 four-over-six --sample 40
for method in max four-over-six; do
    for format in fp8 int4; do check "tests/data/tiny-k2/$format" $method --sample 6; done
    check "$T/hostile" $method --sample 24
done
check tests/data/tiny-k2/bf16 search --sample 2
# engines fuse q_a and kv_a: they have one global scale, whichever of the two is quantized first
for method in search four-over-six max; do
    for threads in 1 3; do
        rm -rf "$T/all-$threads.moe"
        ok "$BIN/moe-quantize" tests/data/tiny-k2/bf16 -o "$T/all-$threads.moe" --method $method --quantize all-linear --threads $threads
    done
    ok diff -r "$T/all-1.moe" "$T/all-3.moe"
    reads python3 tests/readers/refquant.py tests/data/tiny-k2/bf16 "$T/all-1.moe" $method --sample 1 --fused # q_a and kv_a
    ok "$BIN/moe-convert" -q --json "$T/all-1.moe" --to hf-nvfp4 -o "$T/hf-$method"
    [ "$(json weights_requantized "$T/out")" = 0 ] || fail "$method: the export quantizes again"
done
rm -rf "$T/all-3.moe"
ok "$BIN/moe-quantize" tests/data/tiny-k2/bf16 -o "$T/all-3.moe" --method max --tensor-type 'q_a_proj=nvfp4' # alone: its own, here below kv_a's
ok python3 - "$T/all-3.moe" "$T/all-1.moe" <<'PY'
import sys
sys.path.insert(0, "tests/readers")
import readmoe
name = "model.layers.%d.self_attn.q_a_proj.weight"
alone, shared = ([readmoe.floats(s.plane(t, readmoe.GLOBAL))[0] for s, t in (readmoe.Container(p).find(name % l) for l in range(4))] for p in sys.argv[1:])
assert all(a < b for a, b in zip(alone, shared)), (alone, shared)
PY
check "$T/hostile-small" search --sample 24
check "$T/hostile-int4" search --sample 12
