#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Tests how GPU kernels are compiled: without warnings, spills or accesses to local memory, with the registers they may
# have; nothing is contracted that is not written as fma; what has no place in a kernel does not compile; inline PTX
# stands in ptx.h alone.  With cuobjdump (nvidia-cuda-cuobjdump on PyPI) also how many instructions products take.
. tests/common.sh
B=$(dirname "$BIN")
kernels=$(sed -n 's/^CUDA_KERNEL(\([a-z0-9_]*\),.*/\1/p' kernels/cuda/cuda.def)
[ -n "$kernels" ] || fail "cuda.def has no kernels"

# ---- sources ----
for f in kernels/cuda/*.cu kernels/cuda/*.h; do
    [ "$f" != kernels/cuda/ptx.h ] || continue
    ! grep -nE '(^|[^a-z_])asm( volatile)? *\(|__CUDA_ARCH' "$f" /dev/null || fail "$f: PTX stands in ptx.h, with a twin for the host"
done
! grep -n '__CUDACC__\|MOE_CUDA_SHIM' kernels/cuda/*.cu || fail "a kernel is not the same for every compiler"
for f in kernels/cuda/*.cu; do
    grep -m 1 '^#include' "$f" | grep -q '"kernels/cuda/launch.h"' || fail "$f does not include launch.h first"
done

# ---- the shim's compiler refuses what rounds in its own way, or adds in any order ----
shimcc=$(sed -n 's/^.*| *\(-DMOE_CUDA_SHIM [^|]*\)|.*/\1/p' "$B/flags")
[ -n "$shimcc" ] || fail "$B/flags has no flags for the shim"
refuses() # WHETHER STATEMENT
{
    printf '#include "kernels/cuda/launch.h"\nKERNEL(k, 32) (float *p) { %s }\n' "$2" >"$T/k.cu"
    r=0
    eval "${CC:-cc} -x c++ -std=c++17 -fsyntax-only $shimcc -MF '$T/k.d' '$T/k.cu'" >"$T/out" 2>&1 || r=1
    [ $r = "$1" ] || { cat "$T/out"; fail "compiled: $2"; }
}
refuses 0 '*p = __fsqrt_rn(*p) + exp_f32(*p) + __fmaf_rn(*p, *p, *p);'
for f in 'sqrtf(*p)' 'expf(*p)' '__expf(*p)' 'fmaf(*p, *p, *p)' 'fmaxf(*p, 1)' 'max(*p, 1.f)' 'rsqrtf(*p)' 'floorf(*p)' \
    'atomicAdd(p, 1.f)' 'powf(*p, 2)'; do
    refuses 1 "*p = $f;"
done

# ---- nvcc ----
nvcc=$(sed -n 's/^[^|]*| *\([^|]*-fatbin[^|]*\)|.*/\1/p' "$B/flags")
for flag in -fmad=false -ftz=false -prec-div=true -prec-sqrt=true; do
    case $nvcc in *" $flag "*) ;; *) fail "nvcc is called without $flag: $nvcc" ;; esac
done
[ -s "$B/kernels/cuda/images.inc" ] || skip "this build has no nvcc; sources are as they should be"
for k in $kernels; do
    [ "$(cat "$B"/kernels/cuda/*.ptxas | grep -c "entry function 'moe_cuda_$k' ")" = 2 ] ||
        fail "kernel $k is not compiled for two targets"
done
! grep -h warning "$B"/kernels/cuda/*.ptxas || fail "ptxas warns"
# KERNEL TARGET REGISTERS SHARED SPILLED, by ptxas -v
awk -F"'" '/entry function/ { k = $2; t = $4 }
    /spill stores/ { split($0, n, " "); s = n[1] + n[5] + n[9] }
    /: Used/ { r = m = 0; for (i = split($0, n, /[ ,]+/); i > 1; i--) { if (n[i] ~ /^registers/) r = n[i - 1]; if (n[i] == "smem") m = n[i - 2] }
        print k, t, r, m, s }' "$B"/kernels/cuda/*.ptxas | sort >"$T/table"
[ "$(wc -l <"$T/table")" = $((2 * $(echo $kernels | wc -w))) ] || { cat "$T/table"; fail "ptxas -v says something else"; }
awk '{ printf "%-24s %-8s %3d registers, %5d bytes shared, %d spilled\n", $1, $2, $3, $4, $5 }' "$T/table"
! awk '$5 > 0 { print; bad = 1 } END { exit !bad }' "$T/table" ||
    fail "registers are spilled, or an array is in local memory"
# two blocks of 256 threads on a multiprocessor
! awk '$1 ~ /nvfp4_([248]|fast.*|terms.*)$|dense_fast_(8|32)$/ && $3 > 128 { print; bad = 1 } END { exit !bad }' "$T/table" || fail "too many registers"

# PTX is compiled once more by the driver of a later GPU, which may contract what is not marked .rn.
for f in kernels/cuda/*.cu; do
    name=$(basename "$f" .cu)
    eval "$(echo "$nvcc" | sed 's/-gencode [^ ]*//g; s/ -fatbin / -ptx -arch=compute_90 /')" -o "'$T/$name.ptx'" "$f" || fail "no PTX of $f"
    ! grep -nE '^[^/]*(mul|add|sub|fma|div|sqrt|rcp)(\.ftz|\.approx|\.full|\.sat)*\.f(32|64)' "$T/$name.ptx" ||
        fail "$f: an operation is not rounded to nearest, or may be contracted"
    ! grep -nE '^[^/]*\.(approx|ftz|full)\.' "$T/$name.ptx" || fail "$f: an approximate operation"
    ! grep -n _INTERNAL_ "$T/$name.ptx" || fail "$f: a static function or array, whose name depends on the directory"
done
fused=$(cat "$T"/swiglu.ptx | grep -c 'fma\.rn\.f32')
[ "$fused" -gt 0 ] || fail "the exponential is written with fma, and none is in the PTX of swiglu"

# ---- machine instructions ----
dump=$(command -v "${CUOBJDUMP:-cuobjdump}" || true)
[ -n "$dump" ] && command -v nvdisasm >/dev/null && command -v python3 >/dev/null ||
    { echo "t-cuda-build: $(wc -l <"$T/table") compilations; no cuobjdump and nvdisasm, so instructions were not counted"; exit 0; }
for arch in sm_90 sm_100f; do
    for f in "$B"/kernels/cuda/*.fatbin; do
        # Of exact products 24.6, 30.6 and 44.4 instructions were counted by hand for 2, 4 and 8 rows on sm_90, 14.1, 20.0 and 34.6 on
        # sm_100f; 15 % more at most.  Of fast ones 22.9, 24.4 and 27.6 on sm_90 for 8, 16 and 32 rows, and 15 %; on
        # sm_100f and with two terms what they take, and a little more.  The loop of these is without ring and barrier.
        # The number is what sass.py divides by: twice the rows of x, of both terms, that a warp has, in eights.
        bars=
        case $arch-$(basename "$f") in
        sm_90-nvfp4.fatbin) bars="moe_cuda_nvfp4_2:2:28.3 moe_cuda_nvfp4_4:4:35.2 moe_cuda_nvfp4_8:8:51.0" ;;
        sm_100f-nvfp4.fatbin) bars="moe_cuda_nvfp4_2:2:16.2 moe_cuda_nvfp4_4:4:23.0 moe_cuda_nvfp4_8:8:39.8" ;;
        sm_90-nvfp4-fast.fatbin)
            bars="moe_cuda_nvfp4_fast_8:2:26.3 moe_cuda_nvfp4_fast_16:4:28.1 moe_cuda_nvfp4_fast_32:8:31.7"
            bars="$bars moe_cuda_nvfp4_terms_8:4:26.3 moe_cuda_nvfp4_terms_16:8:30.5" ;;
        sm_100f-nvfp4-fast.fatbin)
            bars="moe_cuda_nvfp4_fast_8:2:16.5 moe_cuda_nvfp4_fast_16:4:19.0 moe_cuda_nvfp4_fast_32:8:24.5"
            bars="$bars moe_cuda_nvfp4_terms_8:4:18.0 moe_cuda_nvfp4_terms_16:8:22.5" ;;
        esac
        python3 tests/readers/sass.py "$dump" "$f" $arch $bars || fail "the machine code of $f"
    done
done
echo "t-cuda-build: $(wc -l <"$T/table") compilations, instructions counted"
