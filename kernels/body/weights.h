/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/weights.h - one row of a stored weight, 16 values at a time.  Included after a lanes.h. */
#ifndef MOE_KERNELS_BODY_WEIGHTS_H
#define MOE_KERNELS_BODY_WEIGHTS_H

#include "kernels/scales.h"

#include <string.h>

/* Scales are made float32 once for CHUNK columns.  A chunk starts at a multiple of 32 columns (of
 * 1 for F32, BF16 and F16). */
enum { CHUNK = 256 };

struct row {
    const uint8_t *data;  /* of the first column of the chunk */
    int64_t first;        /* that column, relative to its scale block (FP8 alone: col % 128) */
    float s[CHUNK / 16];  /* scales of the chunk's blocks */
};

/* The four scales of a tile's row lie together; the next four are 512 bytes on. */
LANE vf nvfp4_scale_codes(const struct moe_weight *w, int64_t row, int64_t block, int64_t n)
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

/* INT4: the scales of n <= CHUNK columns from col on, one for every 32 of them, so that
 * products read all groups alike. */
LANE void int4_scales(const struct moe_weight *w, int64_t row, int64_t col, int64_t n, float *s)
{
    const struct moe_dtype_row *t = &moe_dtypes[w->type];
    float stored[16];
    int64_t first = moe_scale_index(w, row, col), group = t->group ? t->group : w->cols,
            in = t->group ? col % group : 0;
    int64_t count = t->group ? (in + n + group - 1) / group : 1;
    const uint8_t *p = w->scale + 2 * first; /* BF16 and F16 alike */
    vf_store(stored, t->scale == MOE_SCALE_F16 ? vf_f16n(p, count) : vf_bf16n(p, count));
    for (int b = 0; b < CHUNK / 32; b++) s[b] = stored[t->group ? (in + 32 * b) / group : 0];
}

/* Make `r` stand at W[row][col], for n <= CHUNK columns. */
LANE void row_at(struct row *r, int type, const struct moe_weight *w, int64_t row, int64_t col, int64_t n)
{
    int64_t i = row * w->cols + col;
    if (type == MOE_F32) r->data = w->data + 4 * i;
    if (type == MOE_BF16 || type == MOE_F16) r->data = w->data + 2 * i;
    if (type == MOE_FP8_B128) {
        int64_t per = (w->cols + 127) / 128;
        r->data = w->data + i;
        r->first = col % 128;
        int64_t at = row / 128 * per + col / 128;
        if (w->type == MOE_FP8_B128) /* the common one: the type of scales is not looked up for each */
            for (int64_t b = 0; b * 128 < r->first + n; b++) r->s[b] = moe_load_f32(w->scale + 4 * (at + b));
        else
            for (int64_t b = 0; b * 128 < r->first + n; b++)
                r->s[b] = moe_scale_value(moe_dtypes[w->type].scale, w->scale, at + b);
    }
    if (type == MOE_INT4_G32) {
        r->data = w->data + i / 2;
        if (w->type == MOE_INT4_G32) vf_store(r->s, vf_bf16n(w->scale + i / 32 * 2, (n + 31) / 32));
        else int4_scales(w, row, col, n, r->s);
    }
    if (type == MOE_NVFP4) {
        vf s = nvfp4_scale_codes(w, row, col / 16, (n + 15) / 16), g = vf_set(w->global);
        r->data = w->data + i / 2;
        vf_store(r->s, w->reciprocal ? vf_div(s, g) : vf_mul(s, g));
    }
}

/* Values k..k+15 of the chunk, of which m (<= 16) exist; a block-scaled type of whole blocks reads all 16.
 * An FP8 chunk starts at a scale block; see row_get_anywhere. */
LANE vf row_get(const struct row *r, int type, size_t k, int64_t m)
{
    if (type == MOE_F32) return m == 16 ? vf_load(r->data + 4 * k) : vf_loadn(r->data + 4 * k, m);
    if (type == MOE_BF16) return m == 16 ? vf_bf16(r->data + 2 * k) : vf_bf16n(r->data + 2 * k, m);
    if (type == MOE_F16) return m == 16 ? vf_f16(r->data + 2 * k) : vf_f16n(r->data + 2 * k, m);
    if (type == MOE_INT4_G32) return vf_mul(vf_int4(r->data + k / 2), vf_set(r->s[k / 32]));
    if (type == MOE_NVFP4) return vf_mul(vf_e2m1(r->data + k / 2), vf_set(r->s[k / 16]));
    return vf_mul(m == 16 ? vf_e4m3(r->data + k) : vf_e4m3n(r->data + k, m), vf_set(r->s[k / 128]));
}

/* The same of FP8 where a group may lie across the edge of a scale block: only when
 * decode starts off the grid. */
LANE vf row_get_anywhere(const struct row *r, int64_t k, int64_t m)
{
    float s[16];
    for (int i = 0; i < 16; i++) s[i] = r->s[(r->first + k + (i < m ? i : 0)) / 128];
    return vf_mul(vf_e4m3n(r->data + k, m), vf_load(s));
}

/* Runs `body` with `type` a constant, so that each stored type gets code of its own; types
 * that are alike share it. */
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
