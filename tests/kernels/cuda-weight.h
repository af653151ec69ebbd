/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/cuda-weight.h - stored weights for the checks of GPU kernels: random codes and scales of
 * every type, in host memory for the kernels of AVX2 and in device memory. */
#ifndef CUDA_WEIGHT_H
#define CUDA_WEIGHT_H

#include "tests/kernels/cuda-harness.h"

#include "kernels/cuda/weight.h"

/* The columns of a weight of this type are a multiple of it. */
static inline int64_t weight_unit(int type)
{
    int64_t group = moe_dtypes[type].group;
    return type == MOE_NVFP4 ? 16 : moe_dtype_like(type) == MOE_INT4_G32 ? (group ? group : 32) : 1;
}

/* n scales: of any size, finite unless `any`. */
static inline void random_scales(enum moe_scale_type type, int64_t n, bool any, uint8_t *s)
{
    for (int64_t i = 0; i < n; i++) {
        float f = random_uniform();
        uint16_t b = moe_f32_to_bf16(f), h = (uint16_t)random_below(any && i % 3 == 0 ? 1 << 16 : 0x7c00);
        if (type == MOE_SCALE_F32) memcpy(s + 4 * i, &f, 4);
        if (type == MOE_SCALE_BF16) memcpy(s + 2 * i, &b, 2);
        if (type == MOE_SCALE_F16) memcpy(s + 2 * i, &h, 2);
        if (type == MOE_SCALE_E8M0) s[i] = (uint8_t)(any && i % 3 == 0 ? random_below(256)
                                                     : 100 + random_below(50));
        if (type == MOE_SCALE_E4M3) s[i] = (uint8_t)random_below(any ? 256 : 127);
    }
}

/* A weight of random codes, which random_weight_free frees.  Its values are finite unless `any`: then codes
 * and scales have any bits. */
static inline struct moe_weight random_weight(int type, int64_t rows, int64_t cols, bool any)
{
    struct moe_weight w = { .type = (uint8_t)type, .rows = rows, .cols = cols };
    w.layout = type == MOE_NVFP4 && random_below(2) ? MOE_LAYOUT_TILE_128X4 : MOE_LAYOUT_LINEAR;
    w.reciprocal = random_below(2);
    w.global = w.reciprocal ? 3000.0f : 1.0f / 3000;
    int64_t bytes = moe_plane_bytes(type, w.layout, MOE_PLANE_DATA, rows, cols),
            scales = moe_plane_bytes(type, w.layout, MOE_PLANE_SCALE, rows, cols);
    assert(bytes > 0 && scales >= 0);
    uint8_t *d = malloc((size_t)bytes), *s = malloc((size_t)scales + 1);
    assert(d && s);
    for (int64_t i = 0; i < bytes; i++) d[i] = (uint8_t)random_bits();
    if (scales)
        random_scales(moe_dtypes[type].scale, scales / moe_scale_bytes(moe_dtypes[type].scale), any, s);
    for (int64_t i = 0; !any && i < rows * cols; i++) {
        float f = random_normal();
        uint16_t h = moe_f32_to_bf16(f);
        if (type == MOE_F32) memcpy(d + 4 * i, &f, 4);
        if (type == MOE_BF16) memcpy(d + 2 * i, &h, 2);
        if (type == MOE_F16 && (d[2 * i + 1] & 0x7c) == 0x7c) d[2 * i + 1] ^= 0x40;
        if (moe_dtype_like(type) == MOE_FP8_B128 && (d[i] & 0x7f) == 0x7f) d[i] = 0;
    }
    /* what pads tiles of scales is 0 */
    for (int64_t r = 0; w.layout == MOE_LAYOUT_TILE_128X4 && r < (rows + 127) / 128 * 128; r++)
        for (int64_t b = r < rows ? cols / 16 : 0; b < (cols / 16 + 3) / 4 * 4; b++)
            s[moe_tile_offset((size_t)r, (size_t)b, (size_t)cols / 16)] = 0;
    w.data = d, w.scale = s;
    return w;
}
static inline void random_weight_free(struct moe_weight *w)
{
    free((void *)(uintptr_t)w->data);
    free((void *)(uintptr_t)w->scale);
}

/* The weight in device memory, as an input. */
static inline struct moe_cuda_weight cuda_weight(const struct moe_weight *w)
{
    int64_t bytes = moe_plane_bytes(w->type, w->layout, MOE_PLANE_DATA, w->rows, w->cols),
            scales = moe_plane_bytes(w->type, w->layout, MOE_PLANE_SCALE, w->rows, w->cols);
    uint64_t data = cuda_in(w->data, (size_t)bytes);
    return moe_cuda_weight_of(w, data, scales ? cuda_in(w->scale, (size_t)scales) : 0);
}

/* A random multiple of `of` that is at most `most`, or `of`. */
static inline int64_t odd_size(int64_t most, int64_t of)
{
    return (most < of ? 1 : 1 + random_below(most / of)) * of;
}

#endif
