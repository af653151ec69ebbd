/* SPDX-License-Identifier: Apache-2.0 */
/* The general matrix product, one element at a time. */
#include "kernels/variants.h"

void moe_gemm_ref(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t ai, int64_t ap,
                  const float *b, int64_t bp, float *c, int64_t ldc)
{
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < n; j++) {
            double sum = 0;
            for (int64_t p = 0; p < k; p++) sum += (double)a[i * ai + p * ap] * (double)b[p * bp + j];
            c[i * ldc + j] = (float)((double)c[i * ldc + j] + (double)alpha * sum);
        }
}
