/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/kernels.h - the compute primitives, and how one variant of each is chosen.  What each computes, and
 * in which order it adds, stands in kernels.def. */
#ifndef MOE_KERNELS_KERNELS_H
#define MOE_KERNELS_KERNELS_H

#include "formats/dtype.h"
#include "kernels/nvfp4.h"

/* What a processor has.  AVX2 stands for AVX2, FMA and F16C; AVX512 for F, BW, VL and DQ.  Some processors
 * with AVX-512 also have BF16 (dot products of bf16 pairs), VNNI (of int8 quadruples) and VBMI (permutations
 * of bytes). */
enum moe_cpu {
    MOE_CPU_AVX2 = 1u << 0,
    MOE_CPU_AVX512 = 1u << 1,
    MOE_CPU_BF16 = 1u << 2,
    MOE_CPU_VNNI = 1u << 3,
    MOE_CPU_VBMI = 1u << 4
};

struct moe_kernels {
#define KERNEL(name, ret, params) ret (*name) params;
#include "kernels/kernels.def"
#undef KERNEL
};

/* What this machine can run, as bits of enum moe_cpu.  The environment variable MOE_CPU masks it: ref leaves
 * nothing, avx2 AVX2, and avx512 AVX-512 without BF16, VNNI and VBMI. */
unsigned moe_cpu_flags(void);

/* Fill *k with the fastest variant of each kernel that `flags` allow; 0 gives the portable C reference. */
void moe_kernels_init(struct moe_kernels *k, unsigned flags);

/* The table for this machine, filled once; safe from any thread. */
const struct moe_kernels *moe_kernels(void);
const char *moe_kernels_name(void); /* "ref", "avx2", "avx512" */

/* "ref" or "vector".  The bits of sums, and so the bytes of a calibration, depend on nothing else of the
 * machine: ref sums in double, and all levels above it agree bit for bit.  dequantize and the data-free NVFP4
 * quantizers give the same bytes in both. */
const char *moe_kernels_level(void);

#endif
