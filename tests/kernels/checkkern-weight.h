/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/checkkern-weight.h - checks of the kernels that read stored weights: dequantize,
 * dequantize_nt, matmul, matmul_int16, matmul_t and, on top of them, moe_matmul_many. */
#ifndef CHECKKERN_WEIGHT_H
#define CHECKKERN_WEIGHT_H

#include "kernels/many.h"
#include "tests/kernels/checkkern.h"

enum { WEIGHT_TYPES = MOE_DTYPE_COUNT }; /* round i checks type i % WEIGHT_TYPES */

/* The columns of a weight are a multiple of unit(type), and `dequantize` starts at multiples of
 * step_of(type). */
static int64_t unit(int type)
{
    int64_t group = moe_dtypes[type].group;
    return type == MOE_NVFP4 ? 16 : moe_dtype_like(type) == MOE_INT4_G32 ? (group ? group : 32) : 1;
}
static int64_t step_of(int type)
{
    return type == MOE_NVFP4 || moe_dtype_like(type) == MOE_INT4_G32 ? 32 : 1;
}

/* n scales of this type: finite and of any size or, where `any` says so, of any bits. */
static void random_scales(enum moe_scale_type type, int64_t n, bool any, uint8_t *s)
{
    for (int64_t i = 0; i < n * moe_scale_bytes(type); i++) s[i] = (uint8_t)random_bits();
    for (int64_t i = 0; i < n; i++) {
        float f = random_uniform();
        uint16_t b = moe_f32_to_bf16(f), h = (uint16_t)random_below(any && i % 3 == 0 ? 1 << 16 : 0x7c00);
        if (type == MOE_SCALE_F32) memcpy(s + 4 * i, &f, 4);
        if (type == MOE_SCALE_BF16) memcpy(s + 2 * i, &b, 2);
        if (type == MOE_SCALE_F16) memcpy(s + 2 * i, &h, 2);
        if (type == MOE_SCALE_E8M0)
            s[i] = (uint8_t)(any && i % 3 == 0 ? random_below(256) : 100 + random_below(50));
        if (type == MOE_SCALE_E4M3) s[i] = (uint8_t)random_below(any ? 256 : 127);
    }
}

/* A weight of random codes whose planes end at guard pages.  Its values are finite unless `any` asks for
 * every code. */
static struct moe_weight random_weight(int type, int64_t rows, int64_t cols, bool any)
{
    struct moe_weight w = { .type = (uint8_t)type, .rows = rows, .cols = cols };
    w.layout = type == MOE_NVFP4 && random_below(2) ? MOE_LAYOUT_TILE_128X4 : MOE_LAYOUT_LINEAR;
    w.reciprocal = random_below(2);
    w.global = w.reciprocal ? 3000.0f : 1.0f / 3000;
    int64_t bytes = moe_plane_bytes(type, w.layout, MOE_PLANE_DATA, rows, cols),
            scales = moe_plane_bytes(type, w.layout, MOE_PLANE_SCALE, rows, cols);
    uint8_t *d = guarded_buffer((size_t)bytes, (size_t)random_below(4)),
            *s = guarded_buffer((size_t)scales, (size_t)random_below(4));
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
    w.data = d, w.scale = s;
    return w;
}

/* A random multiple of `of` that is at most `most`, or `of`. */
static int64_t odd_size(int64_t most, int64_t of)
{
    return (most < of ? 1 : 1 + random_below(most / of)) * of;
}

static void check_dequantize(const struct variant *v)
{
    for (int i = 0; i < 24 * WEIGHT_TYPES; i++) {
        int type = i % WEIGHT_TYPES;
        int64_t rows = 1 + random_below(200), cols = odd_size(900, unit(type));
        struct moe_weight w = random_weight(type, rows, cols, true);
        for (int j = 0; j < 8; j++) {
            int64_t step = step_of(type);
            int64_t row = j ? random_below(rows) : rows - 1,
                    col = j & 1 ? random_below((cols + step - 1) / step) * step : 0;
            int64_t n = j < 2 ? cols - col : 1 + random_below(cols - col);
            float *want = guarded_floats(n), *got = guarded_floats(n);
            snprintf(now_case, sizeof now_case,
                     "%s%s%s [%" PRId64 " x %" PRId64 "] row %" PRId64 " col %" PRId64 " n %" PRId64,
                     moe_dtype_name(type), w.layout ? " tile" : "", w.reciprocal ? " reciprocal" : "", rows,
                     cols, row, col, n);
            variants[REF].k.dequantize(&w, row, col, n, want);
            v->k.dequantize(&w, row, col, n, got);
            CHECK(same_bits(want, got, n), "differs from ref");
            guarded_free(&held[--n_held]), guarded_free(&held[--n_held]);
        }
        free_buffers();
    }
}

static void check_dequantize_nt(const struct variant *v)
{
    for (int i = 0; i < 24 * WEIGHT_TYPES; i++) {
        /* rows of a multiple of 64 bytes, and others */
        int type = i % WEIGHT_TYPES, u = i % 3 ? unit(type) : 16 * unit(type);
        int64_t rows = 1 + random_below(50), cols = odd_size(i % 5 ? 900 : 3000, u), r0 = random_below(rows),
                r1 = r0 + random_below(rows - r0) + 1;
        struct moe_weight w = random_weight(type, rows, cols, true);
        float *want = guarded_floats(cols), *got = guarded_floats((r1 - r0) * cols);
        snprintf(now_case, sizeof now_case, "%s%s [%" PRId64 " x %" PRId64 "] rows %" PRId64 " to %" PRId64,
                 moe_dtype_name(type), w.layout ? " tile" : "", rows, cols, r0, r1);
        v->k.dequantize_nt(&w, r0, r1, got);
        for (int64_t r = r0; r < r1; r++) {
            variants[REF].k.dequantize(&w, r, 0, cols, want);
            CHECK(same_bits(want, got + (r - r0) * cols, cols), "row %lld differs from ref", (long long)r);
        }
        free_buffers();
    }
    /* moe_dequantize_many of more than 16 MiB */
    struct moe_weight w = random_weight(MOE_NVFP4, 4097, 1024, true);
    float *want = guarded_floats(1024), *got = guarded_floats(4097 * 1024);
    snprintf(now_case, sizeof now_case, "dequantize_many");
    moe_dequantize_many(&w, 0, 4097, got);
    for (int64_t r = 0; r < 4097; r += 64) {
        variants[REF].k.dequantize(&w, r, 0, 1024, want);
        CHECK(same_bits(want, got + r * 1024, 1024), "row %lld differs from ref", (long long)r);
    }
    free_buffers();
}

/* The error bound of the reduction order.  A partial sum has ceil(K/16) fma, and 4 additions follow; each is
 * off by 2^-24 relative to the sum of magnitudes, or 2^-150 absolute where it is subnormal.  ref adds 2^-24
 * when it rounds its sum. */
static double dot_bound(int64_t k, double magnitude)
{
    return ((double)((k + 15) / 16) + 6) * 0x1p-24 * magnitude + (double)(k + 16) * 0x1p-149;
}

/* Adds up 16 partial sums in the order of kernels.def: each half to the other. */
static float fold(float *s)
{
    for (int n = 8; n; n /= 2)
        for (int i = 0; i < n; i++) s[i] += s[i + n];
    return s[0];
}

static int x_bits = 24; /* of the fixed-point X of kernels.def: 24 for matmul, 16 for matmul_int16 */

/* One result by the reduction order of NVFP4 products of kernels.def, from the stored bytes. */
static float nvfp4_order(const struct moe_weight *w, int64_t r, const float *x)
{
    float s[16] = { 0 };
    for (int64_t b = 0, blocks = w->cols / 16; b < (blocks + 15) / 16 * 16; b++) {
        float scale = 0;
        double p = 0, size = 0;
        int e;
        if (b < blocks)
            scale = moe_e4m3_to_f32(
                w->scale[w->layout ? (int64_t)moe_tile_offset((size_t)r, (size_t)b, (size_t)blocks)
                                   : r * blocks + b]);
        for (int64_t k = 16 * b; k < 16 * b + 16 && b < blocks; k++) {
            if (!isfinite(x[k])) return NAN;
            size = fmax(size, (double)fabsf(x[k]));
        }
        float top = (float)size * 1.004f;
        if (isinf(top)) e = 129;
        else frexp((double)top, &e);
        if (e < -96 || size == 0) e = -96;
        for (int64_t k = 16 * b; k < 16 * b + 16 && b < blocks; k++)
            /* p is exact */
            p += (double)moe_e2m1_to_f32(w->data[(r * w->cols + k) / 2] >> k % 2 * 4 & 15) * 2 *
                 rint(ldexp((double)x[k], x_bits - 1 - e));
        int to = (int)(b % 8 * 2 + b / 8 % 2);
        s[to] = fmaf((float)p, scale * ldexpf(1, e - x_bits), s[to]);
    }
    return w->reciprocal ? fold(s) / w->global : fold(s) * w->global;
}

/* The largest |x| of the block of column k. */
static double block_amax(const float *x, int64_t k)
{
    double m = 0;
    for (int64_t i = k / 16 * 16; i < k / 16 * 16 + 16; i++) m = fmax(m, (double)fabsf(x[i]));
    return m;
}

/* The error bound of nvfp4_order.  An x is off by at most half of a unit, where 2^e is at most 2.008 times
 * its block's largest magnitude, or e is -96; its weight multiplies that.  Sums are off relative to the sum
 * of magnitudes, by 2^-24 each time: a block's sum is rounded to float32, then come one fma for each block of
 * a partial sum, 4 additions and the global; ref rounds a value twice and its sum once.  Subnormal sums are
 * off by 2^-150 each, which the global may multiply. */
static double nvfp4_bound(const struct moe_weight *w, const float *row, const float *x)
{
    double global = w->reciprocal ? 1 / (double)w->global : (double)w->global, magnitude = 0, fixed = 0;
    for (int64_t k = 0; k < w->cols; k++) {
        double off = fmax(ldexp(1.004 * block_amax(x, k), 1 - x_bits), ldexp(1, -96 - x_bits)) *
                     fabs((double)row[k]);
        fixed += x_bits == 24 ? off : 0; /* with 16 bits ref rounds x, too */
        magnitude += fabs((double)row[k] * (double)x[k]) + off;
    }
    return fixed + (1 + (double)((w->cols + 255) / 256) + 4 + 1 + 3) * 0x1p-24 * magnitude +
           (double)(w->cols + 16) * 0x1p-149 * (1 + global);
}

typedef void (*product_fn)(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                           int64_t n, float *y, int64_t ldy);
/* matmul or matmul_int16, as x_bits says. */
static product_fn product(const struct variant *v) { return x_bits == 16 ? v->k.matmul_int16 : v->k.matmul; }

/* Rows [r0,r1) times n tokens: within the bound of ref, bit for bit as the order gives it, and the same as
 * one token alone with all rows, and as avx2. */
static void compare_matmul(const struct variant *v, const struct moe_weight *w, int64_t r0, int64_t r1,
                           int64_t n, int64_t ldx, const float *x)
{
    int64_t rows = r1 - r0, ldy = rows + random_below(3);
    float *want = guarded_floats(n * ldy), *got = guarded_floats((n - 1) * ldy + rows),
          *one = guarded_floats(w->rows), *row = guarded_floats(w->cols), *other = guarded_floats(n * ldy);
    product(&variants[REF])(w, r0, r1, x, ldx, n, want, ldy);
    product(v)(w, r0, r1, x, ldx, n, got, ldy);
    if (v >= &variants[AVX512]) product(&variants[AVX2])(w, r0, r1, x, ldx, n, other, ldy);
    for (int64_t t = 0; t < n; t++) {
        for (int64_t r = 0; r < rows; r++) {
            double size = 0;
            variants[REF].k.dequantize(w, r0 + r, 0, w->cols, row);
            for (int64_t k = 0; k < w->cols; k++) size += fabs((double)row[k] * (double)x[t * ldx + k]);
            double d = fabs((double)want[t * ldy + r] - (double)got[t * ldy + r]);
            CHECK(d <= (w->type == MOE_NVFP4 ? nvfp4_bound(w, row, x + t * ldx) : dot_bound(w->cols, size)),
                  "row %" PRId64 " token %" PRId64 ": %g, ref %g", r0 + r, t, (double)got[t * ldy + r],
                  (double)want[t * ldy + r]);
            if (n_variants > 1 && v != &variants[REF]) {
                float d1 = w->type == MOE_NVFP4 ? nvfp4_order(w, r0 + r, x + t * ldx)
                                                : v->k.dot(row, x + t * ldx, w->cols);
                CHECK(same_bits(&d1, &got[t * ldy + r], 1),
                      "row %" PRId64 " token %" PRId64 ": %a, by the order %a", r0 + r, t,
                      (double)got[t * ldy + r], (double)d1);
            }
        }
        if (v == &variants[REF]) continue;
        product(v)(w, 0, w->rows, x + t * ldx, ldx, 1, one, w->rows);
        CHECK(same_bits(one + r0, got + t * ldy, rows), "token %" PRId64 " alone, of all rows, differs", t);
        if (v >= &variants[AVX512])
            CHECK(same_bits(other + t * ldy, got + t * ldy, rows), "differs from avx2");
    }
}

/* A NaN or Inf makes the results of its token NaN, and no others.  Values near the ends of float32 give the
 * results of the order, infinite ones among them. */
static void check_matmul_hostile(const struct variant *v)
{
    for (int i = 0; i < 40; i++) {
        int64_t rows = 1 + random_below(150), cols = odd_size(900, 16), n = 1 + random_below(9),
                r0 = random_below(rows), bad = random_below(n), at = random_below(cols);
        struct moe_weight w = random_weight(MOE_NVFP4, rows, cols, false);
        float *x = guarded_floats(n * cols), *want = guarded_floats(n * (rows - r0)),
              *got = guarded_floats(n * (rows - r0));
        fill(x, n * cols, NORMAL);
        for (int64_t k = 0; k < cols && i % 4 == 3; k++) x[bad * cols + k] *= k % 3 ? 1e38f : 1e-38f;
        snprintf(now_case, sizeof now_case,
                 "nvfp4 [%" PRId64 " x %" PRId64 "] rows from %" PRId64 ", of %" PRId64 " tokens the %" PRId64
                 "th not finite or large",
                 rows, cols, r0, n, bad);
        product(v)(&w, r0, rows, x, cols, n, want, rows - r0);
        if (i % 4 < 3) x[bad * cols + at] = i % 4 == 0 ? NAN : i % 4 == 1 ? INFINITY : -INFINITY;
        product(v)(&w, r0, rows, x, cols, n, got, rows - r0);
        for (int64_t t = 0; t < n; t++)
            for (int64_t r = 0; r < rows - r0; r++) {
                float y = got[t * (rows - r0) + r], order = nvfp4_order(&w, r0 + r, x + t * cols);
                if (t == bad && i % 4 < 3) CHECK(isnan(y), "row %" PRId64 ": %g", r0 + r, (double)y);
                else
                    CHECK(same_bits(&y, &order, 1), "row %" PRId64 " token %" PRId64 ": %a, by the order %a",
                          r0 + r, t, (double)y, (double)order);
                if (t != bad)
                    CHECK(same_bits(&y, want + t * (rows - r0) + r, 1),
                          "row %" PRId64 " token %" PRId64 " depends on another", r0 + r, t);
            }
        free_buffers();
    }
}

/* Elements that a row's tail lacks count as +0, whatever the scale of its block is: beside sums of -0 (from
 * products that are too small) and of Inf, for as many tokens as each way of computing takes. */
static void check_matmul_tail(const struct variant *v)
{
    static const float scales[] = { -0x1p-140f, 0x1p-140f, INFINITY, -INFINITY };
    for (int i = 0; i < 4 * 9; i++) {
        int64_t rows = 5, cols = 16 + 1 + random_below(15), n = 1 + i / 4;
        struct moe_weight w = random_weight(MOE_FP8_B128, rows, cols, false);
        float *x = guarded_floats(n * cols), *y = guarded_floats(n * rows), *row = guarded_floats(cols);
        memset((void *)(uintptr_t)w.data, 1, (size_t)(rows * cols));
        memcpy((void *)(uintptr_t)w.scale, &scales[i % 4], sizeof *scales);
        for (int64_t k = 0; k < n * cols; k++) x[k] = i % 4 == 1 ? -0x1p-10f : 0x1p-10f;
        snprintf(now_case, sizeof now_case, "fp8 [%" PRId64 " x %" PRId64 "] with a scale of %g, %" PRId64
                 " tokens", rows, cols, (double)scales[i % 4], n);
        variants[REF].k.dequantize(&w, 0, 0, cols, row);
        product(v)(&w, 0, rows, x, cols, n, y, rows);
        float want = v->k.dot(row, x, cols);
        for (int64_t k = 0; k < n * rows; k++)
            CHECK(same_bits(&want, &y[k], 1), "result %" PRId64 ": %a, by the order %a", k, (double)y[k],
                  (double)want);
        free_buffers();
    }
}

static void check_matmul(const struct variant *v)
{
    if (v != &variants[REF]) check_matmul_hostile(v), check_matmul_tail(v);
    static const int64_t tokens[] = { 1, 2, 3, 4, 5, 7, 9, 13, 24, 31 };
    for (int i = 0; i < 270; i++) {
        int type = i < 250 ? i % WEIGHT_TYPES : MOE_NVFP4;
        int64_t rows = 1 + random_below(i < 200 ? 21 : 150), cols = odd_size(i % 3 ? 700 : 80, unit(type)),
                n = tokens[random_below(i < 200 ? 10 : 4)];
        if (i >= 260) {        /* so many columns that they are taken in pieces */
            rows = 1 + random_below(8);
            cols += 16384;
        } else if (i >= 250) { /* rows of several tiles, each with its 16 rows at once */
            rows += 240;
            cols = odd_size(1200, 16);
        }
        int64_t ldx = cols + random_below(4);
        int64_t r0 = random_below(rows), r1 = r0 + 1 + random_below(rows - r0);
        enum pattern p = (enum pattern)random_below(PATTERNS);
        struct moe_weight w = random_weight(type, rows, cols, false);
        float *x = guarded_floats((n - 1) * ldx + cols);
        fill(x, (n - 1) * ldx + cols, p);
        snprintf(now_case, sizeof now_case,
                 "%s%s [%" PRId64 " x %" PRId64 "] rows %" PRId64 "..%" PRId64 " of %" PRId64 " tokens, %s",
                 moe_dtype_name(type), w.layout ? " tile" : "", rows, cols, r0, r1, n, pattern_name[p]);
        compare_matmul(v, &w, r0, r1, n, ldx, x);
        free_buffers();
    }
}

static void check_matmul_int16(const struct variant *v)
{
    x_bits = 16;
    check_matmul(v);
    x_bits = 24;
}

/* One result by the order of kernels/many.h. */
static float many_order(const float *row, const float *x, int64_t k)
{
    float y = 0;
    for (int64_t p = 0; p < k; p += 256) {
        float s = 0;
        for (int64_t i = p; i < k && i < p + 256; i++) s = fmaf(x[i], row[i], s);
        y += s;
    }
    return y;
}

/* moe_matmul_many, which takes this machine's kernels: each result follows its order, whatever rows and
 * tokens it is computed with, and nothing is written between rows of results. */
static void check_matmul_many(const struct variant *v)
{
    for (int i = 0; i < 5 * WEIGHT_TYPES && v == &variants[AVX2]; i++) {
        int type = i % WEIGHT_TYPES;
        int64_t rows = 1 + random_below(i % 2 ? 420 : 40), cols = odd_size(i % 3 ? 1100 : 80, unit(type)),
                n = 1 + random_below(i % 2 ? 20 : 130), ldx = cols + random_below(4);
        int64_t r0 = random_below(rows), r1 = r0 + 1 + random_below(rows - r0),
                ldy = r1 - r0 + random_below(3);
        struct moe_weight w = random_weight(type, rows, cols, false);
        float *x = guarded_floats((n - 1) * ldx + cols), *y = guarded_floats((n - 1) * ldy + r1 - r0),
              *row = guarded_floats(cols);
        fill(x, (n - 1) * ldx + cols, (enum pattern)random_below(PATTERNS));
        for (int64_t k = 0; k < (n - 1) * ldy + r1 - r0; k++) y[k] = 77;
        snprintf(now_case, sizeof now_case,
                 "%s%s [%" PRId64 " x %" PRId64 "] rows %" PRId64 "..%" PRId64 " of %" PRId64 " tokens",
                 moe_dtype_name(type), w.layout ? " tile" : "", rows, cols, r0, r1, n);
        moe_matmul_many(&w, r0, r1, x, ldx, n, y, ldy);
        for (int64_t r = r0; r < r1; r++) {
            variants[REF].k.dequantize(&w, r, 0, cols, row);
            for (int64_t t = 0; t < n; t++) {
                float want = many_order(row, x + t * ldx, cols), got = y[t * ldy + r - r0];
                CHECK(same_bits(&want, &got, 1) || (want == 0 && got == 0),
                      "row %" PRId64 " token %" PRId64 ": %a, by the order %a", r, t, (double)got,
                      (double)want);
            }
        }
        for (int64_t t = 0; t < n - 1; t++)
            for (int64_t k = r1 - r0; k < ldy; k++)
                CHECK(y[t * ldy + k] == 77, "token %" PRId64 ": written past row %" PRId64, t, r1);
        free_buffers();
    }
}

/* A result has one fma a row, each off by 2^-24 of the sum of magnitudes, and ref adds its own rounding. */
static void check_matmul_t(const struct variant *v)
{
    for (int i = 0; i < 10 * WEIGHT_TYPES; i++) {
        int type = i % WEIGHT_TYPES;
        int64_t rows = 1 + random_below(40), cols = odd_size(700, unit(type)), r0 = random_below(rows),
                r1 = r0 + random_below(rows - r0 + 1);
        struct moe_weight w = random_weight(type, rows, cols, false);
        float *x = guarded_floats(r1 - r0), *want = guarded_floats(cols), *got = guarded_floats(cols),
              *row = guarded_floats(cols), *other = guarded_floats(cols);
        double *size = calloc((size_t)cols, sizeof *size);
        assert(size);
        fill(x, r1 - r0, (enum pattern)(i % PATTERNS));
        snprintf(now_case, sizeof now_case, "%s [%" PRId64 " x %" PRId64 "] rows %" PRId64 "..%" PRId64,
                 moe_dtype_name(type), rows, cols, r0, r1);
        variants[REF].k.matmul_t(&w, r0, r1, x, want);
        v->k.matmul_t(&w, r0, r1, x, got);
        for (int64_t r = r0; r < r1; r++) {
            variants[REF].k.dequantize(&w, r, 0, cols, row);
            for (int64_t k = 0; k < cols; k++) size[k] += fabs((double)row[k] * (double)x[r - r0]);
        }
        for (int64_t k = 0; k < cols; k++)
            CHECK(fabs((double)want[k] - (double)got[k]) <=
                      ((double)(r1 - r0) + 2) * 0x1p-24 * size[k] + (double)(r1 - r0 + 2) * 0x1p-149,
                  "column %" PRId64 ": %g, ref %g", k, (double)got[k], (double)want[k]);
        if (v == &variants[AVX512]) {
            variants[AVX2].k.matmul_t(&w, r0, r1, x, other);
            CHECK(same_bits(other, got, cols), "avx2 and avx512 differ");
        }
        free(size);
        free_buffers();
    }
}

#endif
