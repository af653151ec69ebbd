/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/weights.h - loads one row of a stored weight, 16 values at a time.  It is included after a
 * lanes.h.  `type` is a constant wherever these functions are inlined: see BY_TYPE. */
#ifndef MOE_KERNELS_BODY_WEIGHTS_H
#define MOE_KERNELS_BODY_WEIGHTS_H

#include "kernels/scales.h"

#include <string.h>

/* A row is read in chunks of at most CHUNK columns, whose scales are made float32 once.  A chunk starts at a
 * multiple of 32 columns (of 1 for F32, BF16, F16 and FP8). */
enum { CHUNK = 256 };

struct chunk {
    const uint8_t *data;  /* the code or value of the chunk's first column */
    int64_t first;        /* FP8: the first column's place in its scale block of 128; else unused */
    float s[CHUNK / 16];  /* the scales of the chunk's blocks */
};

/* Loads the scales of n <= 16 blocks of a row, from `block` on, without the global.  In a tile the four
 * scales of a row lie together, and the next four are 512 bytes on (formats/dtype.h). */
LANE vf load_nvfp4_scales(const struct moe_weight *w, int64_t row, int64_t block, int64_t n)
{
    int64_t blocks = w->cols / 16;
    if (w->layout != MOE_LAYOUT_TILE_128X4) {
        const uint8_t *p = w->scale + row * blocks + block;
        return n == 16 ? vf_e4m3(p) : vf_e4m3n(p, n);
    }
    uint8_t c[16] = { 0 };
    if (block % 4 == 0) {
        const uint8_t *p = w->scale + moe_tile_offset((size_t)row, (size_t)block, (size_t)blocks);
        if (n == 16) EACH(i, 4) memcpy(c + 4 * i, p + 512 * i, 4);
        else for (int64_t i = 0; i < n; i += 4, p += 512) memcpy(c + i, p, 4);
        return vf_e4m3(c);
    }
    for (int64_t i = 0; i < n; i++)
        c[i] = w->scale[moe_tile_offset((size_t)row, (size_t)(block + i), (size_t)blocks)];
    return vf_e4m3(c);
}

/* INT4: puts the scales of n <= CHUNK columns, from col on, into s: one for every 32 columns, whatever the
 * size of the type's groups, so that chunk_get need not know that size. */
LANE void load_int4_scales(const struct moe_weight *w, int64_t row, int64_t col, int64_t n, float *s)
{
    const struct moe_dtype_row *t = &moe_dtypes[w->type];
    float stored[16];
    int64_t first = moe_scale_index(w, row, col), group = t->group ? t->group : w->cols;
    int64_t in = t->group ? col % group : 0; /* the place of col in its group */
    int64_t count = t->group ? (in + n + group - 1) / group : 1;
    const uint8_t *p = w->scale + 2 * first; /* two bytes: BF16 or F16 */
    vf_store(stored, t->scale == MOE_SCALE_F16 ? vf_f16n(p, count) : vf_bf16n(p, count));
    for (int b = 0; b < CHUNK / 32; b++) s[b] = stored[t->group ? (in + 32 * b) / group : 0];
}

/* Make `r` the chunk of n <= CHUNK columns that starts at W[row][col]. */
LANE void chunk_begin(struct chunk *r, int type, const struct moe_weight *w, int64_t row, int64_t col,
                      int64_t n)
{
    int64_t i = row * w->cols + col;
    if (type == MOE_F32) r->data = w->data + 4 * i;
    if (type == MOE_BF16 || type == MOE_F16) r->data = w->data + 2 * i;
    if (type == MOE_FP8_B128) {
        int64_t per = (w->cols + 127) / 128;
        r->data = w->data + i;
        r->first = col % 128;
        int64_t at = row / 128 * per + col / 128;
        if (w->type == MOE_FP8_B128) /* the common type; for others the type of each scale is looked up */
            for (int64_t b = 0; b * 128 < r->first + n; b++) r->s[b] = moe_load_f32(w->scale + 4 * (at + b));
        else
            for (int64_t b = 0; b * 128 < r->first + n; b++)
                r->s[b] = moe_scale_value(moe_dtypes[w->type].scale, w->scale, at + b);
    }
    if (type == MOE_INT4_G32) {
        r->data = w->data + i / 2;
        if (w->type == MOE_INT4_G32) vf_store(r->s, vf_bf16n(w->scale + i / 32 * 2, (n + 31) / 32));
        else load_int4_scales(w, row, col, n, r->s);
    }
    if (type == MOE_NVFP4) {
        vf s = load_nvfp4_scales(w, row, col / 16, (n + 15) / 16), g = vf_set(w->global);
        r->data = w->data + i / 2;
        vf_store(r->s, w->reciprocal ? vf_div(s, g) : vf_mul(s, g));
    }
}

/* Values k .. k + 15 of the chunk, of which m <= 16 exist; the others are 0.  INT4 and NVFP4 have whole
 * blocks, and read all 16.  An FP8 chunk has to start at a scale block here: see chunk_get_across. */
LANE vf chunk_get(const struct chunk *r, int type, size_t k, int64_t m)
{
    if (type == MOE_F32) return m == 16 ? vf_load(r->data + 4 * k) : vf_loadn(r->data + 4 * k, m);
    if (type == MOE_BF16) return m == 16 ? vf_bf16(r->data + 2 * k) : vf_bf16n(r->data + 2 * k, m);
    if (type == MOE_F16) return m == 16 ? vf_f16(r->data + 2 * k) : vf_f16n(r->data + 2 * k, m);
    if (type == MOE_INT4_G32) return vf_mul(vf_int4(r->data + k / 2), vf_set(r->s[k / 32]));
    if (type == MOE_NVFP4) return vf_mul(vf_e2m1(r->data + k / 2), vf_set(r->s[k / 16]));
    if (m == 16) return vf_mul(vf_e4m3(r->data + k), vf_set(r->s[k / 128]));
    /* a code of 0 is -0 where the scale is negative, and NaN where it is infinite */
    return vf_keep(vf_mul(vf_e4m3n(r->data + k, m), vf_set(r->s[k / 128])), m);
}

/* What chunk_get does, for an FP8 chunk that may start inside a scale block, so that the 16 values may need
 * the scales of two blocks.  Only `dequantize` may be asked for such columns. */
LANE vf chunk_get_across(const struct chunk *r, int64_t k, int64_t m)
{
    float s[16];
    for (int i = 0; i < 16; i++) s[i] = r->s[(r->first + k + (i < m ? i : 0)) / 128];
    return vf_mul(vf_e4m3n(r->data + k, m), vf_load(s));
}

/* Runs `body` with `type` a constant, so that the compiler makes code for each stored type; types that differ
 * in their scales alone (moe_dtype_like) share it. */
#define BY_TYPE(w, body) \
    switch (moe_dtype_like((w)->type)) { \
    case MOE_F32: { enum { type = MOE_F32 }; body; break; } \
    case MOE_BF16: { enum { type = MOE_BF16 }; body; break; } \
    case MOE_F16: { enum { type = MOE_F16 }; body; break; } \
    case MOE_FP8_B128: { enum { type = MOE_FP8_B128 }; body; break; } \
    case MOE_INT4_G32: { enum { type = MOE_INT4_G32 }; body; break; } \
    default: { enum { type = MOE_NVFP4 }; body; break; } \
    }

#endif
