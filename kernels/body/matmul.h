/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/matmul.h - products with a stored weight.  Included once by each kernels/<isa>/matmul.c, after
 * its fp4.h and lanes.h.  NVFP4 weights have a path of their own, body/fp4.h.
 *
 * LADDER: the versions tried, in us of processor time for 32 rows of 7168, avx512 / avx2, on one core of an
 * EPYC with AVX-512 (family 25 model 17) while other programs ran.  It copies float32 at about 100 GB/s.
 *                                          bf16, n = 1        nvfp4, n = 1       bf16, n = 32
 *   ref                                    340                2090               10960
 *   loops over sums left to the compiler   31 / 28 (wall)     28 / 46 (wall)     912 / 525 (wall)
 *   EACH unrolls them into registers       17.4 / 14.7        26.1 / 40.7        179 / 214: 82 / 69 GFLOPS
 *   no signed division by group            17.0 / 14.8        19.7 / 30.0        180 / 206
 *   whole groups apart from the tail       7.8 / 7.9          15.4 / 26.7        unchanged code
 *                                          (63 / 62 GB/s)     (10.2 / 5.9 GB/s) */
#include "base/minmax.h"
#include "kernels/body/weights.h"

#include <string.h>


#include "kernels/body/fp4.h"

/* ---- dequantize ---- */

LANE void dequantize_as(int type, const struct moe_weight *w, int64_t row, int64_t col, int64_t n, float *out)
{
    struct chunk r;
    for (int64_t k0 = 0; k0 < n; k0 += CHUNK) {
        int64_t m = moe_min_i64(CHUNK, n - k0), k = 0;
        chunk_begin(&r, type, w, row, col + k0, m);
        if (type == MOE_FP8_B128 && r.first)
            for (; k < m; k += 16)
                vf_storen(out + k0 + k, moe_min_i64(16, m - k),
                          chunk_get_across(&r, k, moe_min_i64(16, m - k)));
        for (; k + 16 <= m; k += 16) vf_store(out + k0 + k, chunk_get(&r, type, (size_t)k, 16));
        if (k < m) vf_storen(out + k0 + k, m - k, chunk_get(&r, type, (size_t)k, m - k));
    }
}

void VARIANT(dequantize)(const struct moe_weight *w, int64_t row, int64_t col, int64_t n, float *out)
{
    BY_TYPE(w, dequantize_as(type, w, row, col, n, out))
}

/* Values that go to the first-level cache before they are stored: enough to make up for preparing the scales
 * of each piece, few enough for the write buffers. */
enum { NT_PIECE = 1024 };

void VARIANT(dequantize_nt)(const struct moe_weight *w, int64_t r0, int64_t r1, float *out)
{
    _Alignas(64) float piece[NT_PIECE];
    bool whole = (uintptr_t)out % 64 == 0 && w->cols % 16 == 0;
    for (int64_t r = r0; r < r1; r++, out += w->cols)
        for (int64_t k = 0; k < w->cols; k += NT_PIECE) {
            int64_t m = moe_min_i64(NT_PIECE, w->cols - k);
            VARIANT(dequantize)(w, r, k, m, whole ? piece : out + k);
            for (int64_t i = 0; whole && i < m; i += 16) vf_stream(out + k + i, vf_load(piece + i));
        }
    _mm_sfence(); /* non-temporal stores are not ordered before what follows otherwise */
}

/* ---- few tokens: values go from the codes to the sums without touching memory ---- */

/* One call of matmul, with its parameters' names. */
struct product {
    const struct moe_weight *w;
    const float *x;
    float *y;
    int64_t ldx, ldy, r0, r1;
};

/* R rows from `r` on times T tokens.  A row past the end repeats the last one and is not stored. */
LANE void fused_rows(int type, int R, int T, const struct product *p, int64_t r)
{
    struct chunk row[4];
    vf sum[4][3];
    EACH(i, R)
        EACH(t, T) sum[i][t] = vf_zero();
    for (int64_t k0 = 0; k0 < p->w->cols; k0 += CHUNK) {
        int64_t m = moe_min_i64(CHUNK, p->w->cols - k0);
        EACH(i, R) chunk_begin(&row[i], type, p->w, moe_min_i64(r + i, p->r1 - 1), k0, m);
        int64_t k = 0;
        for (; k + 16 <= m; k += 16) {
            vf x[3];
            EACH(t, T) x[t] = vf_load(p->x + t * p->ldx + k0 + k);
            EACH(i, R) {
                vf v = chunk_get(&row[i], type, (size_t)k, 16);
                EACH(t, T) sum[i][t] = vf_fma(v, x[t], sum[i][t]);
            }
        }
        if (k == m) continue;
        EACH(i, R) {
            vf v = chunk_get(&row[i], type, (size_t)k, m - k);
            EACH(t, T) sum[i][t] = vf_fma(v, vf_loadn(p->x + t * p->ldx + k0 + k, m - k), sum[i][t]);
        }
    }
    for (int i = 0; i < R && r + i < p->r1; i++)
        EACH(t, T) p->y[t * p->ldy + r + i - p->r0] = vf_fold(sum[i][t]);
}

LANE void fused(int type, int T, const struct product *p)
{
    for (int64_t r = p->r0; r < p->r1; r += FUSED_ROWS(T)) fused_rows(type, FUSED_ROWS(T), T, p, r);
}

/* ---- many tokens: a panel of dequantized rows, then a register tile over it ---- */

enum { PANEL_ROWS = 8, PANEL_COLS = 512, PANEL_TOKENS = 24 };

struct panel {
    float w[PANEL_ROWS][PANEL_COLS];          /* values of some columns of some rows; 0 past the end */
    float sum[PANEL_ROWS][PANEL_TOKENS][16];  /* partial sums so far */
};

/* Four rows times T tokens over the m columns of the panel.  x points at the first of these columns, for the
 * first of these tokens. */
LANE void tile(int T, struct panel *p, int row, int64_t token, const float *x, int64_t ldx, int64_t m)
{
    for (int part = 0; part < TILE_PARTS; part++) {
        int64_t lane = part * TILE_LANES, k = lane;
        vt sum[4][TILE_TOKENS], v[TILE_TOKENS];
        EACH(i, 4)
            EACH(t, T) sum[i][t] = vt_load(p->sum[row + i][token + t] + lane);
        for (; k - lane + 16 <= m; k += 16) {
            EACH(t, T) v[t] = vt_load(x + t * ldx + k);
            EACH(i, 4) {
                vt w = vt_load(p->w[row + i] + k);
                EACH(t, T) sum[i][t] = vt_fma(w, v[t], sum[i][t]);
            }
        }
        if (k - lane < m) {
            int64_t left = m - k < 0 ? 0 : moe_min_i64(m - k, TILE_LANES);
            EACH(t, T) v[t] = vt_loadn(x + t * ldx + (left ? k : 0), left);
            EACH(i, 4)
                EACH(t, T) sum[i][t] = vt_fma(vt_load(p->w[row + i] + k), v[t], sum[i][t]);
        }
        EACH(i, 4)
            EACH(t, T) vt_store(p->sum[row + i][token + t] + lane, sum[i][t]);
    }
}

static void tiles(struct panel *p, int64_t rows, int64_t tokens, const float *x, int64_t ldx, int64_t m)
{
    for (int64_t t = 0; t < tokens; t += TILE_TOKENS)
        for (int row = 0; row < rows; row += 4) {
            const float *at = x + t * ldx;
            switch (moe_min_i64(tokens - t, TILE_TOKENS)) {
            case 1: tile(1, p, row, t, at, ldx, m); break;
            case 2: tile(2, p, row, t, at, ldx, m); break;
            case 3: tile(3, p, row, t, at, ldx, m); break;
#if TILE_WIDE
            case 4: tile(4, p, row, t, at, ldx, m); break;
            case 5: tile(5, p, row, t, at, ldx, m); break;
            default: tile(6, p, row, t, at, ldx, m); break;
#endif
            }
        }
}

static void panel_product(const struct product *p, int64_t r, int64_t t0, int64_t tokens)
{
    struct panel panel;
    int64_t rows = moe_min_i64(PANEL_ROWS, p->r1 - r);
    memset(panel.sum, 0, sizeof panel.sum);
    memset(panel.w, 0, sizeof panel.w);
    for (int64_t k = 0; k < p->w->cols; k += PANEL_COLS) {
        int64_t m = moe_min_i64(PANEL_COLS, p->w->cols - k), padded = (m + 15) & ~(int64_t)15;
        for (int64_t i = 0; i < rows; i++) {
            VARIANT(dequantize)(p->w, r + i, k, m, panel.w[i]);
            memset(panel.w[i] + m, 0, sizeof(float) * (size_t)(padded - m));
        }
        tiles(&panel, rows, tokens, p->x + t0 * p->ldx + k, p->ldx, m);
    }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t t = 0; t < tokens; t++)
            p->y[(t0 + t) * p->ldy + r + i - p->r0] = vf_fold(vf_load(panel.sum[i][t]));
}

void VARIANT(matmul)(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                     int64_t n, float *y, int64_t ldy)
{
    struct product p = { w, x, y, ldx, ldy, r0, r1 };
    if (w->type == MOE_NVFP4) {
        fp4_product(&(struct fp4){ w, x, y, ldx, ldy, r0, 3 }, r1, n);
        return;
    }
    switch (n) {
    case 1: BY_TYPE(w, fused(type, 1, &p)) break;
    case 2: BY_TYPE(w, fused(type, 2, &p)) break;
    case 3: BY_TYPE(w, fused(type, 3, &p)) break;
    default:
        for (int64_t t = 0; t < n; t += PANEL_TOKENS)
            for (int64_t r = r0; r < r1; r += PANEL_ROWS)
                panel_product(&p, r, t, moe_min_i64(PANEL_TOKENS, n - t));
    }
}

void VARIANT(matmul_int16)(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                           int64_t n, float *y, int64_t ldy)
{
    if (w->type == MOE_NVFP4) fp4_product(&(struct fp4){ w, x, y, ldx, ldy, r0, 2 }, r1, n);
    else VARIANT(matmul)(w, r0, r1, x, ldx, n, y, ldy);
}

/* ---- the transposed product: y stays in cache, and four rows at once are added to it ---- */

/* R rows from `r` on, times x[0..R - 1], added to y. */
LANE void t_rows(int type, int R, const struct moe_weight *w, int64_t r, const float *x, float *y)
{
    struct chunk row[4];
    for (int64_t k0 = 0; k0 < w->cols; k0 += CHUNK) {
        int64_t m = moe_min_i64(CHUNK, w->cols - k0), k = 0;
        EACH(i, R) chunk_begin(&row[i], type, w, r + i, k0, m);
        for (; k + 16 <= m; k += 16) {
            vf sum = vf_load(y + k0 + k);
            EACH(i, R) sum = vf_fma(vf_set(x[i]), chunk_get(&row[i], type, (size_t)k, 16), sum);
            vf_store(y + k0 + k, sum);
        }
        if (k < m) {
            vf sum = vf_loadn(y + k0 + k, m - k);
            EACH(i, R) sum = vf_fma(vf_set(x[i]), chunk_get(&row[i], type, (size_t)k, m - k), sum);
            vf_storen(y + k0 + k, m - k, sum);
        }
    }
}

LANE void t_all(int type, const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, float *y)
{
    int64_t r = r0;
    for (; r + 4 <= r1; r += 4) t_rows(type, 4, w, r, x + (r - r0), y);
    for (; r < r1; r++) t_rows(type, 1, w, r, x + (r - r0), y);
}

void VARIANT(matmul_t)(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, float *y)
{
    memset(y, 0, sizeof(float) * (size_t)w->cols);
    BY_TYPE(w, t_all(type, w, r0, r1, x, y))
}
