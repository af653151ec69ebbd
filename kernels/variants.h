/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/variants.h - a declaration of every kernel for every level: moe_NAME_LEVEL.  A level defines those
 * that kernels.c names in its row, ref all.  For kernels/ only. */
#ifndef MOE_KERNELS_VARIANTS_H
#define MOE_KERNELS_VARIANTS_H

#include "kernels/kernels.h"

#define KERNEL(name, ret, params) ret moe_##name##_ref params;
#include "kernels/kernels.def"
#undef KERNEL

#if defined(__x86_64__)
#define KERNEL(name, ret, params) \
    ret moe_##name##_avx2 params; \
    ret moe_##name##_avx512 params; \
    ret moe_##name##_avx512dot params;
#include "kernels/kernels.def"
#undef KERNEL
#endif

#endif
