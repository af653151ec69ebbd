/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/append.cu - rotates queries and keys, norms latents, and writes rows of the latent cache. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/append.h"
#include "kernels/cuda/rms.h"

/* Pair i of x, rotated into out: each result is a product and then an fma. */
DEVICE void rotate(const float *x, float *out, const float *cosine, const float *sine, int64_t i)
{
    const float a = x[2 * i], b = x[2 * i + 1], c = cosine[i], s = sine[i];
    out[2 * i] = __fmaf_rn(a, c, -(b * s));
    out[2 * i + 1] = __fmaf_rn(b, c, a * s);
}

/* out = rmsnorm(x, w), by the whole block. */
DEVICE void normalize(const float *x, const float *w, float eps, int64_t n, float *out)
{
    const float scale = rms_scale(x, NULL, NULL, n, eps);
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
