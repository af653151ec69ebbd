/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/append.cu - rotates queries and keys, norms latents, and writes rows of the latent cache. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/append.h"

enum { PIECE = 1024 }; /* values of a latent in shared memory at a time */

/* Pair i of x, rotated into out: each result is a product and then an fma. */
DEVICE void rotate(const float *x, float *out, const float *cosine, const float *sine, int64_t i)
{
    const float a = x[2 * i], b = x[2 * i + 1], c = cosine[i], s = sine[i];
    out[2 * i] = __fmaf_rn(a, c, -(b * s));
    out[2 * i + 1] = __fmaf_rn(b, c, a * s);
}

/* The sum of squares of x [n] in the reduction order, or in double where `twice`: in the first half warp. */
DEVICE double squares(const float *x, int64_t n, bool twice, float *piece)
{
    float s = 0;
    double d = 0;
    for (int64_t at = 0; at < n; at += PIECE) {
        const int m = n - at < PIECE ? (int)(n - at) : PIECE;
        __syncthreads();
        for (int i = (int)threadIdx.x; i < m; i += (int)blockDim.x) piece[i] = x[at + i];
        __syncthreads();
        if (threadIdx.x >= 16) continue;
        for (int i = (int)threadIdx.x; i < (m + 15) / 16 * 16; i += 16) {
            const float v = i < m ? piece[i] : 0;
            if (twice) d = __fma_rn((double)v, (double)v, d);
            else s = __fmaf_rn(v, v, s);
        }
    }
    if (threadIdx.x >= 32) return 0;
    return twice ? fold_f64(d) : (double)fold_f32(s);
}

/* out = rmsnorm(x, w), by the whole block. */
DEVICE void normalize(const float *x, const float *w, float eps, int64_t n, float *out)
{
    SHARED(float, piece, PIECE);
    SHARED(double, sum, 1);
    double q = squares(x, n, false, piece);
    if (threadIdx.x == 0) sum[0] = q;
    __syncthreads();
    if (!finite_f32((float)sum[0])) { /* the sum is made again where float32 overflows */
        q = squares(x, n, true, piece);
        __syncthreads();
        if (threadIdx.x == 0) sum[0] = q;
        __syncthreads();
    }
    const float scale = (float)(1.0 / __dsqrt_rn(sum[0] / (double)n + (double)eps));
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) out[i] = x[i] * scale * w[i];
}

KERNEL(moe_cuda_append, 256) (const struct moe_cuda_append a)
{
    const int64_t t = blockIdx.x, half = a.rope / 2;
    const float *cosine = a.cosine + t * half, *sine = a.sine + t * half;

    if (blockIdx.y + 1 < gridDim.y) {
        const int64_t h = (int64_t)blockIdx.y * MOE_CUDA_APPEND_HEADS + warp_id();
        float *q = a.q + (t * a.heads + h) * (a.nope + a.rope) + a.nope;
        for (int64_t i = lane_id(); h < a.heads && i < half; i += 32) rotate(q, q, cosine, sine, i);
        return;
    }
    const int64_t pos = a.cache.pos[t];
    float *row = LATENT_PAGE(&a.cache, t, pos / MOE_PAGE) + pos % MOE_PAGE * a.cache.width;
    const float *ckv = a.ckv + t * (a.kl + a.rope);
    normalize(ckv, a.norm, a.eps, a.kl, row);
    for (int64_t i = threadIdx.x; i < half; i += blockDim.x) rotate(ckv + a.kl, row + a.kl, cosine, sine, i);
}

KERNEL(moe_cuda_copy_page, 128) (const struct moe_cuda_copy_page a)
{
    const int64_t at = (int64_t)blockIdx.y * a.layer_step + (int64_t)blockIdx.x * a.width;
    for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) a.to[at + i] = a.from[at + i];
}
