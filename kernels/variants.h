/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/variants.h - the variants of each primitive; for kernels/ only. */
#ifndef MOE_KERNELS_VARIANTS_H
#define MOE_KERNELS_VARIANTS_H

#include "kernels/kernels.h"

#define KERNEL(name, ret, params) ret moe_##name##_ref params;
#include "kernels/kernels.def"
#undef KERNEL

#if defined(__x86_64__)
#define KERNEL(name, ret, params) ret moe_##name##_avx2 params; ret moe_##name##_avx512 params;
#include "kernels/kernels.def"
#undef KERNEL

/* avx512dot/: the few that gain from MOE_CPU_BF16 or MOE_CPU_VNNI. */
double moe_peak_bf16_dot(int64_t rounds, float *sink);
double moe_peak_vnni_dot(int64_t rounds, float *sink);
void moe_matmul_vnni(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                     int64_t n, float *y, int64_t ldy);
void moe_matmul_int16_vnni(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                           int64_t n, float *y, int64_t ldy);
void moe_nvfp4_quantize_vnni(enum moe_nvfp4_method method, const float *x, int64_t n, float global,
                             uint8_t *codes, uint8_t *scales);
void moe_nvfp4_quantize_bf16_vnni(enum moe_nvfp4_method method, const uint8_t *x, int64_t n, float global,
                                  uint8_t *codes, uint8_t *scales);
#endif

#endif
