/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/kernels.h - the compute primitives and how one variant of each is chosen. */
#ifndef MOE_KERNELS_KERNELS_H
#define MOE_KERNELS_KERNELS_H

#include "formats/dtype.h"
#include "kernels/nvfp4.h"

/* Some CPUs with AVX-512 have BF16 and VNNI: dot products of bf16 pairs, of int8 quadruples;
 * VBMI: permutations of bytes. */
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

/* What this machine can run, as enum moe_cpu bits, less what the environment variable MOE_CPU masks: no more
 * than ref, avx2 or avx512 (AVX-512 without BF16, VNNI and VBMI). */
unsigned moe_cpu_flags(void);

/* Fill every slot with the best variant that `flags` allows; 0 gives the portable C reference. */
void moe_kernels_init(struct moe_kernels *k, unsigned flags);

/* The table for this machine, filled once; safe from any thread. */
const struct moe_kernels *moe_kernels(void);
const char *moe_kernels_name(void); /* "ref", "avx2", "avx512" */
/* What results that are sums depend on, and so the bytes of a calibration: "ref" accumulates in double,
 * all variants of "vector" agree bit for bit.  Codecs and the data-free NVFP4 quantizers give the same
 * bytes in both. */
const char *moe_kernels_level(void);

#endif
