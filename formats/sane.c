/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/sane.h"

#include <string.h>

/* Each loop first finds out whether there is any such value, which vectorizes, and then where it is. */

static size_t find_e4m3(const uint8_t *p, size_t n)
{
    unsigned any = 0;
    for (size_t i = 0; i < n; i++) any |= (p[i] & 0x7f) == 0x7f;
    for (size_t i = 0; any && i < n; i++)
        if ((p[i] & 0x7f) == 0x7f) return i;
    return n;
}

static size_t find_bf16(const uint8_t *p, size_t n)
{
    unsigned any = 0;
    for (size_t i = 0; i + 2 <= n; i += 2) any |= (p[i + 1] & 0x7f) == 0x7f && p[i] & 0x80;
    for (size_t i = 0; any && i + 2 <= n; i += 2)
        if ((p[i + 1] & 0x7f) == 0x7f && p[i] & 0x80) return i;
    return n;
}

static size_t find_f16(const uint8_t *p, size_t n)
{
    unsigned any = 0;
    for (size_t i = 0; i + 2 <= n; i += 2) any |= (p[i + 1] & 0x7c) == 0x7c;
    for (size_t i = 0; any && i + 2 <= n; i += 2)
        if ((p[i + 1] & 0x7c) == 0x7c) return i;
    return n;
}

static size_t find_e8m0(const uint8_t *p, size_t n)
{
    const uint8_t *at = n ? memchr(p, 0xff, n) : NULL;
    return at ? (size_t)(at - p) : n;
}

static size_t find_f32(const uint8_t *p, size_t n)
{
    unsigned any = 0;
    for (size_t i = 0; i + 4 <= n; i += 4) any |= (p[i + 3] & 0x7f) == 0x7f && p[i + 2] & 0x80;
    for (size_t i = 0; any && i + 4 <= n; i += 4)
        if ((p[i + 3] & 0x7f) == 0x7f && p[i + 2] & 0x80) return i;
    return n;
}

/* The reverse of moe_tile_offset: a byte whose row or block lies beyond the end is padding and must be
 * zero. */
static size_t find_padding(const struct moe_tensor *t, uint64_t offset, const uint8_t *p, size_t n)
{
    uint64_t blocks = (uint64_t)t->cols / 16, kt = (blocks + 3) / 4, rows = (uint64_t)t->rows;
    if (rows % 128 == 0 && blocks % 4 == 0) return n;
    for (size_t i = 0; i < n; i++) {
        if (!p[i]) continue;
        uint64_t tile = (offset + i) / 512, in = (offset + i) % 512;
        uint64_t m = tile / kt * 128 + in % 16 / 4 * 32 + in / 16, k = tile % kt * 4 + in % 4;
        if (m >= rows || k >= blocks) return i;
    }
    return n;
}

/* The type of a plane's elements, as a type of scales; NONE when every bit pattern is a value. */
static enum moe_scale_type kind_of(const struct moe_tensor *t, int plane)
{
    if (plane >= MOE_PLANE_GLOBAL) return MOE_SCALE_F32;
    if (plane == MOE_PLANE_SCALE) return moe_dtypes[t->type].scale;
    switch (moe_dtype_like(t->type)) {
    case MOE_F32: return MOE_SCALE_F32;
    case MOE_BF16: return MOE_SCALE_BF16;
    case MOE_F16: return MOE_SCALE_F16;
    case MOE_FP8_B128: return MOE_SCALE_E4M3;
    }
    return MOE_SCALE_NONE;
}

static size_t find(enum moe_scale_type kind, const uint8_t *p, size_t n)
{
    switch (kind) {
    case MOE_SCALE_NONE: return n;
    case MOE_SCALE_F32: return find_f32(p, n);
    case MOE_SCALE_BF16: return find_bf16(p, n);
    case MOE_SCALE_F16: return find_f16(p, n);
    case MOE_SCALE_E8M0: return find_e8m0(p, n);
    case MOE_SCALE_E4M3: return find_e4m3(p, n);
    }
    return n;
}

bool moe_plane_sane(const struct moe_tensor *t, int plane, uint64_t offset, const uint8_t *p, size_t n,
                    struct moe_insane *bad)
{
    enum moe_scale_type kind = kind_of(t, plane);
    bool code = kind == MOE_SCALE_E4M3 || kind == MOE_SCALE_E8M0;
    size_t at = find(kind, p, n);
    *bad = (struct moe_insane){ offset + at, code ? "a NaN code" : "a NaN or Inf value" };
    if (at < n) return false;
    if (plane != MOE_PLANE_SCALE || t->type != MOE_NVFP4 || t->layout != MOE_LAYOUT_TILE_128X4) return true;
    at = find_padding(t, offset, p, n);
    *bad = (struct moe_insane){ offset + at, "padding that is not zero" };
    return at == n;
}
