/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/launch.h - what every .cu file includes first: how a kernel is declared, and arithmetic that
 * kernels share.  For .cu files alone.
 *
 * A .cu file holds to what C17 and C++17 share, with CUDA's names for threads, barriers, shuffles, and
 * integer atomics. It is compiled twice: by nvcc, and by the host's C++ compiler with tests/shim/cuda/names.h
 * in place of CUDA's headers, so that it also runs on machines without a GPU. Three rules follow.
 * - No function of the mathematical library: it rounds in its own way.  Divisions, square roots and
 *   conversions round to nearest; an fma is written __fmaf_rn, and nothing else is contracted (-fmad=false).
 * - No atomic operation on floats: their order would change sums.
 * - Inline PTX stands in ptx.h, each statement with a twin for the host.
 * All 32 lanes of a warp take part in each shuffle, vote or other operation of a warp, and all threads of a
 * block in each __syncthreads(): a thread without work skips the work, not the meeting. */
#ifndef MOE_KERNELS_CUDA_LAUNCH_H
#define MOE_KERNELS_CUDA_LAUNCH_H

#include "kernels/cuda/common.h"

/* KERNEL(name, threads) (const struct name a) { ... }: a kernel whose blocks have at most `threads` threads.
 * KERNEL2(name, threads, blocks): the same, of which a multiprocessor can hold `blocks` blocks at a time.
 * SHARED(type, name, n): an array in the block's shared memory, aligned to 16 bytes, undefined at first.
 * DYNAMIC_SHARED(type, name): a pointer to the block's dynamic shared memory, aligned to 128 bytes.
 * DEVICE: goes before the type of a function that kernels call.  Under nvcc it is not static: names of static
 * functions, and of shared arrays in them, hold a hash of the directory that they are compiled in. */
#if defined(__CUDACC__)
#define KERNEL(name, threads) extern "C" __global__ void __launch_bounds__(threads) name
#define KERNEL2(name, threads, blocks) extern "C" __global__ void __launch_bounds__(threads, blocks) name
#define SHARED(type, name, n) __shared__ __align__(16) type name[n]
#define DYNAMIC_SHARED(type, name)                                     \
    extern __shared__ __align__(128) unsigned char moe_dynamic_shared[]; \
    type *name = (type *)moe_dynamic_shared
#define DEVICE __device__ __forceinline__
#else
#include "tests/shim/cuda/names.h"
#endif

#include "kernels/cuda/ptx.h"

DEVICE unsigned lane_id(void) { return threadIdx.x & 31; }
DEVICE unsigned warp_id(void) { return threadIdx.x >> 5; }

/* ---- floats as their bits say ---- */

DEVICE float abs_f32(float x) { return __uint_as_float(__float_as_uint(x) & 0x7fffffffu); }
DEVICE bool finite_f32(float x) { return (__float_as_uint(x) & 0x7fffffffu) < 0x7f800000u; }
DEVICE bool nan_f32(float x) { return (__float_as_uint(x) & 0x7fffffffu) > 0x7f800000u; }
/* The larger and the smaller of two floats as the vector instructions of a CPU choose it: y where either is
 * NaN, and where they are equal. */
DEVICE float max_f32(float x, float y) { return x > y ? x : y; }
DEVICE float min_f32(float x, float y) { return x < y ? x : y; }

/* ---- the orders of kernels/kernels.def ---- */

/* The 16 partial sums of the reduction order, one in each lane of a half warp, added by halves: every lane
 * gets the sum of its half. */
DEVICE float fold_f32(float s)
{
    s = s + __shfl_xor_sync(0xffffffffu, s, 8);
    s = s + __shfl_xor_sync(0xffffffffu, s, 4);
    s = s + __shfl_xor_sync(0xffffffffu, s, 2);
    return s + __shfl_xor_sync(0xffffffffu, s, 1);
}
DEVICE double fold_f64(double s)
{
    s = s + __shfl_xor_sync(0xffffffffu, s, 8);
    s = s + __shfl_xor_sync(0xffffffffu, s, 4);
    s = s + __shfl_xor_sync(0xffffffffu, s, 2);
    return s + __shfl_xor_sync(0xffffffffu, s, 1);
}

/* The exponential E of kernels.def; a NaN stays. */
DEVICE float exp_f32(float x)
{
    const float magic = 0x1.8p23f;
    x = min_f32(90.f, max_f32(-105.f, x));
    float shifted = __fmaf_rn(x, 0x1.715476p0f, magic), k = shifted - magic;
    float r = __fmaf_rn(k, -0x1.63p-1f, x), p = 1.f / 5040;
    r = __fmaf_rn(k, 0x1.bd0106p-13f, r);
    p = __fmaf_rn(p, r, 1.f / 720);
    p = __fmaf_rn(p, r, 1.f / 120);
    p = __fmaf_rn(p, r, 1.f / 24);
    p = __fmaf_rn(p, r, 1.f / 6);
    p = __fmaf_rn(p, r, .5f);
    float e = __fmaf_rn(p, r * r, r) + 1.f;
    int n = __float_as_int(shifted) - __float_as_int(magic), half = n >> 1;
    e = e * __uint_as_float((uint32_t)(half + 127) << 23);
    return e * __uint_as_float((uint32_t)(n - half + 127) << 23);
}

#endif
