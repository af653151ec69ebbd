/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/attend.h - attention over pages of the latent cache, in the attention order of kernels.def.
 * Included once by each kernels/<isa>/attend.c, after its lanes.h.
 *
 * A page is read from memory once for a group of queries.  Scores are sums over the columns of a row, so a
 * tile of queries times rows keeps its sums in registers; outputs are sums over rows, so a tile of queries
 * times columns does. */
#include "base/minmax.h"
#include "kernels/attend.h"
#include "kernels/body/exp.h"

#include <math.h>
#include <string.h>

/* Queries that share a page while it is in the second-level cache: the heads of K2 for one token. */
enum { GROUP = 64 };

/* ---- scores ---- */

/* s[i * MOE_PAGE + r] = scale * (q_i . k_r) for Q queries and R rows. */
LANE void score_tile(int Q, int R, const float *q, int64_t ldq, const float *k, int64_t ldk, int64_t dk,
                     float scale, float *s)
{
    _Alignas(64) float lanes[SCORE_QUERIES * SCORE_ROWS][16];
    for (int part = 0; part < TILE_PARTS; part++) {
        int64_t c = part * TILE_LANES;
        vt sum[SCORE_QUERIES * SCORE_ROWS], query[SCORE_QUERIES];
        EACH(i, Q * R) sum[i] = vt_zero();
        for (; c + TILE_LANES <= dk; c += 16) {
            EACH(i, Q) query[i] = vt_load(q + i * ldq + c);
            EACH(r, R) {
                vt row = vt_load(k + r * ldk + c);
                EACH(i, Q) sum[i * R + r] = vt_fma(query[i], row, sum[i * R + r]);
            }
        }
        if (c < dk) {
            EACH(i, Q) query[i] = vt_loadn(q + i * ldq + c, dk - c);
            EACH(r, R) {
                vt row = vt_loadn(k + r * ldk + c, dk - c);
                EACH(i, Q) sum[i * R + r] = vt_fma(query[i], row, sum[i * R + r]);
            }
        }
        EACH(i, Q * R) vt_store(lanes[i] + part * TILE_LANES, sum[i]);
    }
    EACH(i, Q) {
        vf v[SCORE_ROWS];
        EACH(r, R) v[r] = vf_load(lanes[i * R + r]);
        if (R == 4) vf_fold4(v, scale, s + i * MOE_PAGE);
        else EACH(r, R) s[i * MOE_PAGE + r] = scale * vf_fold(v[r]);
    }
}

/* Asks for the part [i, j) of `parts` of SCORE_ROWS rows, so that they are in the cache when their turn
 * comes. */
static void fetch_rows(const float *row, int64_t ldk, int i, int j, int parts)
{
    const int64_t all = SCORE_ROWS * ldk;
    for (int64_t at = all * i / parts; at < all * j / parts; at += 16) __builtin_prefetch(row + at);
}

/* s[i * MOE_PAGE + r] for all `queries` queries and the n rows of a page at k.  next: the page after it, or
 * NULL. */
static void scores(const float *q, int64_t ldq, int queries, const float *k, int64_t ldk, int64_t n,
                   int64_t dk, float scale, const float *next, float *s)
{
    int64_t r = 0;
    for (; r + SCORE_ROWS <= n; r += SCORE_ROWS) {
        const float *then = r + 2 * SCORE_ROWS <= n ? k + (r + SCORE_ROWS) * ldk : next;
        int i = 0;
        for (; i + SCORE_QUERIES <= queries; i += SCORE_QUERIES) {
            if (then) fetch_rows(then, ldk, i, i + SCORE_QUERIES, queries);
            score_tile(SCORE_QUERIES, SCORE_ROWS, q + i * ldq, ldq, k + r * ldk, ldk, dk, scale,
                       s + i * MOE_PAGE + r);
        }
        for (; i < queries; i++)
            score_tile(1, SCORE_ROWS, q + i * ldq, ldq, k + r * ldk, ldk, dk, scale, s + i * MOE_PAGE + r);
    }
    for (; r < n; r++) {
        int i = 0;
        for (; i + SCORE_QUERIES <= queries; i += SCORE_QUERIES)
            score_tile(SCORE_QUERIES, 1, q + i * ldq, ldq, k + r * ldk, ldk, dk, scale, s + i * MOE_PAGE + r);
        for (; i < queries; i++)
            score_tile(1, 1, q + i * ldq, ldq, k + r * ldk, ldk, dk, scale, s + i * MOE_PAGE + r);
    }
}

/* ---- exponentials ---- */

static float exp_one(float x)
{
    float lane[16];
    vf_store(lane, exp_lanes(vf_set(x)));
    return lane[0];
}

static float larger(float m, float than) { return m > than ? m : than; }

/* Turns the scores s [n] of a page into their exponentials under the new maximum, and adds these to the sum.
 * Returns the factor of everything summed before. */
static float weigh(float *s, int64_t n, float *max, float *sum)
{
    float most = larger(largest(s, n), *max), factor = exp_one(*max - most);
    vf to = vf_set(most), total = vf_zero();
    for (int64_t j = 0; j < n; j += 16) {
        vf e = exp_lanes(vf_sub(load_to(s + j, n - j), to));
        if (n - j < 16) e = vf_blend(vm_first(n - j), e, vf_zero());
        total = vf_add(total, e);
        store_to(s + j, n - j, e);
    }
    *sum = fmaf(*sum, factor, vf_fold(total));
    *max = most;
    return factor;
}

/* ---- outputs ---- */

/* o_i = the sum over j of e_ij * v_j, by fma, j ascending from o_i * f_i, for Q queries and C times 16
 * columns, of which m exist. */
LANE void value_tile(int Q, int C, const float *e, const float *f, const float *v, int64_t ldv, int64_t n,
                     int64_t m, float *o, int64_t ldo)
{
    vf sum[VALUE_QUERIES * VALUE_COLS];
    EACH(i, Q)
        EACH(c, C)
            sum[i * C + c] = vf_mul(load_to(o + i * ldo + 16 * c, m - 16 * c), vf_set(f[i]));
    for (int64_t j = 0; j < n; j++)
        EACH(c, C) {
            vf value = load_to(v + j * ldv + 16 * c, m - 16 * c);
            EACH(i, Q) sum[i * C + c] = vf_fma(vf_set(e[i * MOE_PAGE + j]), value, sum[i * C + c]);
        }
    EACH(i, Q)
        EACH(c, C) store_to(o + i * ldo + 16 * c, m - 16 * c, sum[i * C + c]);
}

/* The outputs of all `queries` queries, by the n rows of a page at v. */
static void values(int queries, const float *e, const float *f, const float *v, int64_t ldv, int64_t n,
                   int64_t dv, float *o, int64_t ldo)
{
    const int64_t wide = 16 * VALUE_COLS;
    int64_t c = 0;
    for (; c + wide <= dv; c += wide) {
        int i = 0;
        for (; i + VALUE_QUERIES <= queries; i += VALUE_QUERIES)
            value_tile(VALUE_QUERIES, VALUE_COLS, e + i * MOE_PAGE, f + i, v + c, ldv, n, wide,
                       o + i * ldo + c, ldo);
        for (; i < queries; i++)
            value_tile(1, VALUE_COLS, e + i * MOE_PAGE, f + i, v + c, ldv, n, wide, o + i * ldo + c, ldo);
    }
    for (; c < dv; c += 16)
        for (int i = 0; i < queries; i++)
            value_tile(1, 1, e + i * MOE_PAGE, f + i, v + c, ldv, n, moe_min_i64(16, dv - c),
                       o + i * ldo + c, ldo);
}

/* ---- a chunk ---- */

/* How many rows of the page that begins at position `at` a query sees that sees the first `seen`. */
static int64_t rows_of(int32_t seen, int64_t at)
{
    return seen <= at ? 0 : moe_min_i64(MOE_PAGE, seen - at);
}

void VARIANT(attend_pages)(const float *q, int64_t ldq, const int32_t *seen, int64_t n,
                           const float *const *page, int64_t ldk, int64_t dk, int64_t dv, float scale,
                           float *max, float *sum, float *o, int64_t ldo)
{
    float s[GROUP * MOE_PAGE], factor[GROUP];
    for (int64_t i = 0; i < n; i++) {
        max[i] = -INFINITY, sum[i] = 0;
        memset(o + i * ldo, 0, (size_t)dv * sizeof *o);
    }
    for (int64_t g0 = 0; g0 < n; g0 += GROUP) {
        int64_t g1 = moe_min_i64(n, g0 + GROUP), most = 0;
        for (int64_t i = g0; i < g1; i++) most = moe_max_i64(most, seen[i]);
        for (int64_t at = 0; at < most; at += MOE_PAGE) {
            const float *k = page[at / MOE_PAGE];
            const float *next = most >= at + MOE_PAGE + SCORE_ROWS ? page[at / MOE_PAGE + 1] : NULL;
            for (int64_t i = g0, end; i < g1; i = end) { /* queries side by side that see equally many rows */
                int64_t rows = rows_of(seen[i], at);
                for (end = i + 1; end < g1 && rows_of(seen[end], at) == rows; end++) continue;
                if (!rows) continue;
                scores(q + i * ldq, ldq, (int)(end - i), k, ldk, rows, dk, scale, next, s);
                for (int64_t j = i; j < end; j++)
                    factor[j - i] = weigh(s + (j - i) * MOE_PAGE, rows, &max[j], &sum[j]);
                values((int)(end - i), s, factor, k, ldk, rows, dv, o + i * ldo, ldo);
            }
        }
    }
}

void VARIANT(attend_merge)(int64_t n, int64_t dv, float *max, float *sum, float *o, int64_t ldo,
                           const float *max2, const float *sum2, const float *o2, int64_t ldo2)
{
    for (int64_t i = 0; i < n; i++) {
        if (sum2[i] == 0) continue;
        float most = larger(max2[i], max[i]), f = exp_one(max[i] - most), f2 = exp_one(max2[i] - most);
        float *a = o + i * ldo;
        const float *b = o2 + i * ldo2;
        max[i] = most;
        sum[i] = fmaf(sum2[i], f2, sum[i] * f);
        for (int64_t c = 0; c < dv; c += 16)
            store_to(a + c, dv - c,
                     vf_fma(load_to(b + c, dv - c), vf_set(f2), vf_mul(load_to(a + c, dv - c), vf_set(f))));
    }
}

void VARIANT(attend_finish)(int64_t n, int64_t dv, const float *sum, float *o, int64_t ldo)
{
    for (int64_t i = 0; i < n; i++) {
        vf r = vf_set(1 / sum[i]);
        for (int64_t c = 0; c < dv; c += 16)
            store_to(o + i * ldo + c, dv - c, vf_mul(load_to(o + i * ldo + c, dv - c), r));
    }
}
