/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/rms.h - the RMS norm of a row by a block of at least 32 threads; for .cu files alone.
 *
 * The reduction order has 16 sums, so half a warp makes them, from pieces of the row that the whole block
 * brings into shared memory. */
#ifndef MOE_KERNELS_CUDA_RMS_H
#define MOE_KERNELS_CUDA_RMS_H

#include "kernels/cuda/launch.h"

enum { RMS_PIECE = 2048 }; /* values of a row in shared memory at a time */

/* Brings values [at, at + RMS_PIECE) of the row into shared memory, after adding where add is given; the sum
 * is stored in `sum`, which may be x. */
DEVICE void rms_fetch(const float *x, const float *add, float *sum, int64_t n, int64_t at, float *piece)
{
    for (int64_t i = threadIdx.x; i < RMS_PIECE && at + i < n; i += blockDim.x) {
        float v = x[at + i];
        if (add) sum[at + i] = v = v + add[at + i];
        piece[i] = v;
    }
}

/* The sum of squares, in the first half warp; in double where `twice`. */
DEVICE double rms_squares(const float *x, const float *add, float *sum, int64_t n, bool twice, float *piece)
{
    float s = 0;
    double d = 0;
    for (int64_t at = 0; at < n; at += RMS_PIECE) {
        __syncthreads();
        rms_fetch(x, add, sum, n, at, piece);
        __syncthreads();
        int m = n - at < RMS_PIECE ? (int)(n - at) : RMS_PIECE;
        if (threadIdx.x >= 16) continue;
        for (int i = (int)threadIdx.x; i < m; i += 16)
            if (twice) d = __fma_rn((double)piece[i], (double)piece[i], d);
            else s = __fmaf_rn(piece[i], piece[i], s);
    }
    if (threadIdx.x >= 32) return 0;
    return twice ? fold_f64(d) : (double)fold_f32(s);
}

/* What the values of the row x [n] are multiplied with, as kernels.def defines rmsnorm. Where add is given, x
 * + add, rounded, is normed in place of x, and stored in `sum`. */
DEVICE float rms_scale(const float *x, const float *add, float *sum, int64_t n, float eps)
{
    SHARED(float, piece, RMS_PIECE);
    SHARED(double, total, 1);
    double q = rms_squares(x, add, sum, n, false, piece);
    if (threadIdx.x == 0) total[0] = q;
    __syncthreads();
    if (!finite_f32((float)total[0])) { /* where float32 overflows, the sum is made again in double */
        /* it begins with a barrier, before which everybody has read the total */
        q = rms_squares(add ? sum : x, NULL, NULL, n, true, piece);
        if (threadIdx.x == 0) total[0] = q;
        __syncthreads();
    }
    return (float)(1.0 / __dsqrt_rn(total[0] / (double)n + (double)eps));
}

#endif
