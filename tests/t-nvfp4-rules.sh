#!/bin/sh
# NVFP4 bytes against a second implementation of the rules (refquant.py), on the fixture and on hostile weights.
. tests/common.sh
need_tool moe-quantize
need_helper genmodel
need_python
need_space 200

ok python3 tests/refquant.py --selftest
ok "$GEN/genmodel" -o "$T/hostile" --hostile --layers 2 --experts 24 --top-k 2 --hidden 64 --inter 48 --seed 5
check() # CHECKPOINT METHOD ARGUMENTS...
{
    model=$1 method=$2
    shift 2
    rm -rf "$T/x.moe"
    ok "$BIN/moe-quantize" "$model" -o "$T/x.moe" --method "$method"
    python3 tests/refquant.py "$model" "$T/x.moe" "$method" "$@" || fail "$method on $model"
}
for method in max four-over-six; do
    for format in bf16 fp8 int4; do check "tests/data/tiny-k2/$format" $method; done
    check "$T/hostile" $method --sample 48
done
check tests/data/tiny-k2/bf16 search --sample 4
check tests/data/tiny-k2/int4 search --sample 2
check "$T/hostile" search --sample 24
