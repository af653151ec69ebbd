#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests the less common stored types: half precision, FP8 with BF16 and E8M0 scales, compressed-tensors'
# FP8_BLOCK, INT4 in groups of 64, 128 and whole rows, with F16 scales, and in every linear layer.  Each goes
# through every tool: its values are compared with an independent decoder (refdecode.py) and the second
# reader of containers (readmoe.py), it comes back byte for byte, and checkpoint and container quantize to
# the same bytes.
. tests/common.sh
need_tool moe-convert moe-quantize moe-inspect moe-run
need_helper genmodel
need_python
need_space 300

bytes=3000
sanitized && bytes=450
head -c $bytes tests/data/tiny-k2/valid.txt >"$T/text"
for f in bf16 fp8 int4; do
    ok "$GEN/genmodel" -o "$T/$f" --format $f --layers 2 --experts 3 --top-k 2 --hidden 256 --inter 128 --seed 11
done

through() # KIND TYPE FROM
{
    ok python3 tests/gen/retype.py "$T/$3" "$T/$1" "$1"
    ok "$BIN/moe-inspect" -q --verify "$T/$1"
    ok "$BIN/moe-convert" -q "$T/$1" -o "$T/$1.moe"
    ok "$BIN/moe-inspect" -q --verify --json "$T/$1.moe"
    holds "j['verified'] is True and j['layout'] == '$2'"
    reads python3 tests/readers/readmoe.py check "$T/$1.moe"
    reads python3 tests/readers/readmoe.py same "$T/$1.moe" "$T/$1"
    ok "$BIN/moe-convert" -q --to hf "$T/$1.moe" -o "$T/$1.hf"
    ok diff -r "$T/$1" "$T/$1.hf"
    ok "$BIN/moe-inspect" -q --diff "$T/$1" "$T/$1.moe" --json
    holds "j['same'] is True and j['values_same'] is True"
    # the results are those computed from the values that the decoder finds, written as F32
    ok python3 tests/readers/refdecode.py "$T/$1" "$T/$1.f32"
    for m in $1 $1.moe $1.f32; do ok "$BIN/moe-run" -q "$T/$m" --tokens 1,2,3,500,77,9,260,33 -n 0 --trace "$T/$m.trace"; done
    ok cmp "$T/$1.trace" "$T/$1.f32.trace"
    ok cmp "$T/$1.moe.trace" "$T/$1.f32.trace"
    MOE_CPU=ref ok "$BIN/moe-run" -q "$T/$1" --tokens 1,2,3,500,77,9,260,33 -n 2 --temperature 0
    ok "$BIN/moe-run" -q "$T/$1.moe" --score "$T/text" --window 128 --reference "$T/$1.f32" --json
    holds "abs(j['kl']) < 1e-6"
    # NVFP4: the same from checkpoint, container and the F32 values
    for m in $1 $1.moe $1.f32; do ok "$BIN/moe-quantize" -q --method search "$T/$m" -o "$T/$m.q.moe"; done
    ok cmp "$T/$1.q.moe/layer-001.moe" "$T/$1.moe.q.moe/layer-001.moe"
    ok cmp "$T/$1.q.moe/layer-001.moe" "$T/$1.f32.q.moe/layer-001.moe"
    ok "$BIN/moe-convert" -q --to hf-nvfp4 "$T/$1.q.moe" -o "$T/$1.nvfp4"
    ok "$BIN/moe-inspect" -q --verify "$T/$1.nvfp4"
    ok "$BIN/moe-convert" -q --to gguf "$T/$1.moe" -o "$T/$1.gguf"
    reads python3 tests/readers/readgguf.py same "$T/$1.gguf" "$T/$1.moe" auto
    if [ $1 = f16 ]; then # beside NVFP4, whose global scales are powers of two that other tensors take
        ok "$BIN/moe-convert" -q --to gguf "$T/$1.q.moe" -o "$T/$1.q.gguf"
        reads python3 tests/readers/readgguf.py same "$T/$1.q.gguf" "$T/$1.q.moe" auto
    fi
    rm -rf "$T/$1".* "$T/$1.moe.trace"
    echo "t-types: $1 ok"
}
through f16 f16 bf16
through fp8-bf16 fp8-block128-bf16 fp8
through fp8-e8m0 fp8-block128-e8m0 fp8
groups="row g64-f16"
sanitized || { # which see the same code with each of them
    through fp8-ct fp8-block128 fp8
    through fp8-ct-bf16 fp8-block128-bf16 fp8
    groups="g64 g128 row g32-f16 g64-f16 g128-f16 row-f16"
}
for k in $groups; do through int4-$k int4-$k int4; done
through int4-all int4-g32 int4

# A value that is not finite is found, named, and not converted.
poison() # NAME TENSOR BYTES
{
    cp -r "$T/$1" "$T/bad"
    ok python3 tests/gen/patchtensors.py "$T/bad" "^$2\$" put $3
    code 18 "${2%.weight*}" "$BIN/moe-convert" -q "$T/bad" -o "$T/bad.moe"
    rm -rf "$T/bad.moe.partial"
    code 18 "${2%.weight*}" "$BIN/moe-quantize" -q "$T/bad" -o "$T/bad.moe"
    code 16 "${2%.weight*}" "$BIN/moe-inspect" -q --verify "$T/bad"
    rm -rf "$T/bad" "$T/bad.moe.partial"
}
E=model.layers.1.mlp.experts.2
poison f16 $E.up_proj.weight 007c
poison fp8-bf16 $E.up_proj.weight_scale_inv c07f
poison fp8-e8m0 $E.up_proj.weight_scale_inv ff
poison int4-g64-f16 $E.down_proj.weight_scale 007e
