/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over pages of the latent cache, in double. */
#include "kernels/attend.h"
#include "kernels/variants.h"

#include <math.h>

/* Row j of a chunk. */
static const float *row_of(const float *const *page, int64_t ldk, int64_t j)
{
    return page[j / MOE_PAGE] + j % MOE_PAGE * ldk;
}

void moe_attend_pages_ref(const float *q, int64_t ldq, const int32_t *seen, int64_t n,
                          const float *const *page, int64_t ldk, int64_t dk, int64_t dv, float scale,
                          float *max, float *sum, float *o, int64_t ldo)
{
    for (int64_t i = 0; i < n; i++) {
        double w[MOE_CHUNK], total = 0;
        float most = -INFINITY;
        for (int64_t j = 0; j < seen[i]; j++) {
            float s = scale * moe_dot_ref(q + i * ldq, row_of(page, ldk, j), dk);
            if (s > most) most = s;
            w[j] = (double)s;
        }
        for (int64_t j = 0; j < seen[i]; j++) total += w[j] = exp(w[j] - (double)most);
        max[i] = most;
        sum[i] = (float)total;
        for (int64_t c = 0; c < dv; c++) {
            double out = 0;
            for (int64_t j = 0; j < seen[i]; j++) out += w[j] * (double)row_of(page, ldk, j)[c];
            o[i * ldo + c] = (float)out;
        }
    }
}

void moe_attend_merge_ref(int64_t n, int64_t dv, float *max, float *sum, float *o, int64_t ldo,
                          const float *max2, const float *sum2, const float *o2, int64_t ldo2)
{
    for (int64_t i = 0; i < n; i++) {
        if (sum2[i] == 0) continue;
        float most = max2[i] > max[i] ? max2[i] : max[i];
        double f = exp((double)max[i] - (double)most), f2 = exp((double)max2[i] - (double)most);
        max[i] = most;
        sum[i] = (float)((double)sum[i] * f + (double)sum2[i] * f2);
        for (int64_t c = 0; c < dv; c++)
            o[i * ldo + c] = (float)((double)o[i * ldo + c] * f + (double)o2[i * ldo2 + c] * f2);
    }
}

void moe_attend_finish_ref(int64_t n, int64_t dv, const float *sum, float *o, int64_t ldo)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t c = 0; c < dv; c++) o[i * ldo + c] = (float)((double)o[i * ldo + c] / (double)sum[i]);
}
