/* SPDX-License-Identifier: Apache-2.0 */
/* base/minmax.h - the smaller and the larger of two numbers. */
#ifndef MOE_BASE_MINMAX_H
#define MOE_BASE_MINMAX_H

#include <stdint.h>

/* Always inlined rather than at the compiler's choice, so that kernels, which use them in their loops, keep
 * the machine code that was measured. */
#define MOE_INLINE static inline __attribute__((always_inline))
MOE_INLINE int64_t moe_min_i64(int64_t a, int64_t b) { return a < b ? a : b; }
MOE_INLINE int64_t moe_max_i64(int64_t a, int64_t b) { return a > b ? a : b; }
MOE_INLINE double moe_max_f64(double a, double b) { return a > b ? a : b; } /* b when either is NaN */
#undef MOE_INLINE

#endif
