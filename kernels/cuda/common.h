/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/common.h - what the arguments of GPU kernels are made of, for the host and for device code.
 *
 * A kernel takes one argument, a struct by value, which a header FAMILY.h of this folder declares together
 * with inline functions that give its grid. These headers are read by three compilers: the host's C compiler,
 * nvcc, and the host's C++ compiler, which builds the same .cu files for machines without a GPU
 * (tests/shim/cuda/). So they hold to what C17 and C++17 share, every field is 4 or 8 bytes wide with no
 * padding before the last, and a static_assert states the size of each struct, which is at most 4 KB. */
#ifndef MOE_KERNELS_CUDA_COMMON_H
#define MOE_KERNELS_CUDA_COMMON_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* An address in device memory. Device code sees a pointer. The host sees a number, which it cannot follow by
 * mistake; 0 means none. */
#if defined(__CUDACC__) || defined(MOE_CUDA_SHIM)
#define MOE_CU(type) type *
#else
#define MOE_CU(type) uint64_t
#endif

/* Goes before the type of an inline function that both the host and kernels call. */
#if defined(__CUDACC__)
#define MOE_CUDA_BOTH static __host__ __device__ __forceinline__
#else
#define MOE_CUDA_BOTH static inline
#endif

enum { MOE_CUDA_GRID_YZ = 65535 };
/* The shape of a launch: blocks in three directions (x below 2^31, y and z at most MOE_CUDA_GRID_YZ), the
 * threads of a block (a multiple of 32), and the bytes of its dynamic shared memory. */
struct moe_cuda_grid { uint32_t x, y, z, threads, shared; };

/* The number of blocks of `size` that cover n; n is not negative. */
static inline uint32_t moe_cuda_blocks(int64_t n, int64_t size) { return (uint32_t)((n + size - 1) / size); }

/* The kernels: MOE_CUDA_norm is the kernel moe_cuda_norm, which takes a struct moe_cuda_norm. */
enum moe_cuda_kernel {
#define CUDA_KERNEL(name, arguments, threads) MOE_CUDA_##name,
#include "kernels/cuda/cuda.def"
#undef CUDA_KERNEL
    MOE_CUDA_KERNELS
};

#endif
