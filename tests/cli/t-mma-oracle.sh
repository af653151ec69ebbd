#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Compares what the shim says of tensor cores with independent sources, where Python has them.
# - MMA-Sim, whose authors measured GPUs: 100,000 random fragments of float16 and of bfloat16, bit for bit (FRAGMENTS=
#   another number, ARCHITECTURES="Hopper Blackwell").
# - CUTLASS: the tables of tests/kernels/cutlass-layouts.h, with which check-mma makes fragments.
. tests/common.sh
need_helper check-mma
P=${PYTHON:-python3}
has() { "$P" -c "import $1" >/dev/null 2>&1; }
sanitized && skip "sanitizers are for check-mma itself"
missing=

# ---- CUTLASS: a program of its own headers prints the tables ----
cccl=$(ls -d "${CUDA_HOME:-/usr/local/cuda}"/include/cccl 2>/dev/null) || missing="$missing, CUDA's headers"
if has cutlass_library; then
    include=$("$P" -c 'import cutlass_library, os; print(os.path.dirname(cutlass_library.__file__))')/source/include
    if [ -n "$cccl" ]; then
        ok c++ -std=c++17 -w -I "$include" -I "${cccl%/cccl}" -I "$cccl" -o "$T/layouts" tests/readers/cutlass-layouts.cpp
        "$T/layouts" >"$T/layouts.h" || fail "cutlass-layouts"
        diff tests/kernels/cutlass-layouts.h "$T/layouts.h" || fail "tests/kernels/cutlass-layouts.h is not what CUTLASS says"
        echo "cutlass-layouts.h: the tables of CUTLASS"
    fi
else
    missing="$missing, nvidia-cutlass"
fi

# ---- MMA-Sim ----
"$P" -c 'import torch, mmasim.nv_ptx' >/dev/null 2>&1 || missing="$missing, mmasim"
[ -z "$missing" ] || skip "for $P there is no${missing#,} (pip install mmasim nvidia-cutlass)"
ok "$GEN/check-mma" "${FRAGMENTS:-100000}" "$T/fragments"
ok "$P" tests/readers/mma-oracle.py "$T/fragments" ${ARCHITECTURES:-Hopper}
cat "$T/out"
# It has to find a result of which one bit is another: the last word of 16 fragments.
size=$((16 * 4 * (1 + 32 * 14)))
head -c $size "$T/fragments" >"$T/wrong"
byte=$(od -An -tu1 -j $((size - 4)) -N 1 "$T/wrong" | tr -d ' ')
printf "\\$(printf %o $((byte ^ 1)))" | dd of="$T/wrong" bs=1 seek=$((size - 4)) conv=notrunc 2>/dev/null
"$P" tests/readers/mma-oracle.py "$T/wrong" >"$T/out" 2>"$T/err" && fail "a wrong bit was not found"
grep -q ': 1 results differ' "$T/out" || { cat "$T/out" "$T/err"; fail "a wrong bit was not named"; }
