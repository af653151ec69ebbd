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
#endif

#endif
