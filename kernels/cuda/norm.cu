/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/norm.cu - a block normalizes a row. The reduction order has 16 sums, so half a warp makes
 * them, from pieces of the row that the whole block brings into shared memory. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/norm.h"

enum { PIECE = 2048 }; /* values of a row in shared memory at a time */

/* Brings values [at, at + PIECE) of the row into shared memory, after adding where add is given. */
DEVICE void fetch(float *h, const float *add, int64_t n, int64_t at, float *piece)
{
    for (int64_t i = threadIdx.x; i < PIECE && at + i < n; i += blockDim.x) {
        float v = h[at + i];
        if (add) h[at + i] = v = v + add[at + i];
        piece[i] = v;
    }
}

/* The sum of squares, in the first half warp, and in double where `twice`. */
DEVICE double squares(float *h, const float *add, int64_t n, bool twice, float *piece)
{
    float s = 0;
    double d = 0;
    for (int64_t at = 0; at < n; at += PIECE) {
        __syncthreads();
        fetch(h, add, n, at, piece);
        __syncthreads();
        int m = n - at < PIECE ? (int)(n - at) : PIECE;
        if (threadIdx.x >= 16) continue;
        for (int i = (int)threadIdx.x; i < m; i += 16)
            if (twice) d = __fma_rn((double)piece[i], (double)piece[i], d);
            else s = __fmaf_rn(piece[i], piece[i], s);
    }
    if (threadIdx.x >= 32) return 0;
    return twice ? fold_f64(d) : (double)fold_f32(s);
}

KERNEL(moe_cuda_norm, 256) (const struct moe_cuda_norm a)
{
    SHARED(float, piece, PIECE);
    SHARED(double, sum, 1);
    const int64_t t = blockIdx.x, r = a.row ? a.row[t] : t;
    float *h = a.h + r * a.n, *out = a.out + t * a.n;

    double q = squares(h, a.add ? a.add + t * a.n : NULL, a.n, false, piece);
    if (threadIdx.x == 0) sum[0] = q;
    __syncthreads();
    /* where float32 overflows, the sum is made again in double */
    bool again = !finite_f32((float)sum[0]);
    if (again) {
        q = squares(h, NULL, a.n, true, piece);
        __syncthreads();
        if (threadIdx.x == 0) sum[0] = q;
        __syncthreads();
    }
    const float scale = (float)(1.0 / __dsqrt_rn(sum[0] / (double)a.n + (double)a.eps));
    for (int64_t i = threadIdx.x; i < a.n; i += blockDim.x) out[i] = h[i] * scale * a.w[i];
}
