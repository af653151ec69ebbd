/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/append.cu - rotates queries and keys, norms latents, and writes rows of the latent cache. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/append.h"
#include "kernels/cuda/rms.h"

/* A row of the cache, from its value number `at` on, of float32 or of bfloat16. */
struct row { float *all; int64_t at; bool bf16; };

DEVICE void put(const struct row *r, int64_t i, float v)
{
    if (r->bf16) ((uint16_t *)r->all)[r->at + i] = (uint16_t)bf16x2_from_f32(v, 0);
    else r->all[r->at + i] = v;
}

/* Pair i of x, rotated: each result is a product and then an fma. */
DEVICE void rotated(const float *x, const float *cosine, const float *sine, int64_t i, float out[2])
{
    const float a = x[2 * i], b = x[2 * i + 1], c = cosine[i], s = sine[i];
    out[0] = __fmaf_rn(a, c, -(b * s));
    out[1] = __fmaf_rn(b, c, a * s);
}

/* The row = { rmsnorm(ckv), the rest of ckv rotated }, by the whole block. */
DEVICE void make_row(const struct moe_cuda_append *a, const float *ckv, const float *cosine,
                     const float *sine, const struct row *row)
{
    const float scale = rms_scale(ckv, NULL, NULL, a->kl, a->eps);
    for (int64_t i = threadIdx.x; i < a->kl; i += blockDim.x) put(row, i, ckv[i] * scale * a->norm[i]);
    for (int64_t i = threadIdx.x; i < a->rope / 2; i += blockDim.x) {
        float pair[2];
        rotated(ckv + a->kl, cosine, sine, i, pair);
        put(row, a->kl + 2 * i, pair[0]), put(row, a->kl + 2 * i + 1, pair[1]);
    }
}

KERNEL(moe_cuda_append, 256) (const struct moe_cuda_append a)
{
    const int64_t t = blockIdx.x, half = a.rope / 2, pos = a.cache.pos[t];
    const float *cosine = a.cosine + t * half, *sine = a.sine + t * half;

    if (blockIdx.y + 1 < gridDim.y) {
        const int64_t h = (int64_t)blockIdx.y * MOE_CUDA_APPEND_HEADS + warp_id();
        float *q = a.q + (t * a.heads + h) * (a.nope + a.rope) + a.nope;
        for (int64_t i = lane_id(); h < a.heads && i < half; i += 32) {
            float pair[2];
            rotated(q, cosine, sine, i, pair);
            q[2 * i] = pair[0], q[2 * i + 1] = pair[1];
        }
        return;
    }
    const int64_t at = LATENT_PAGE(&a.cache, t, pos / MOE_PAGE) + pos % MOE_PAGE * a.cache.width;
    const struct row row = { a.cache.rows, at, a.bf16 != 0 };
    make_row(&a, a.ckv + t * (a.kl + a.rope), cosine, sine, &row);
}

KERNEL(moe_cuda_copy_page, 128) (const struct moe_cuda_copy_page a)
{
    const int64_t at = (int64_t)blockIdx.y * a.layer_step + (int64_t)blockIdx.x * a.width;
    if (a.bf16) {
        const uint16_t *from = (const uint16_t *)a.from + at;
        uint16_t *to = (uint16_t *)a.to + at;
        for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) to[i] = from[i];
    } else
        for (int64_t i = threadIdx.x; i < a.width; i += blockDim.x) a.to[at + i] = a.from[at + i];
}
