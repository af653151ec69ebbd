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
#endif

#endif
