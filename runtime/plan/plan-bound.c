/* SPDX-License-Identifier: Apache-2.0 */
/* Lower bounds on the largest load of a layer, for any placement.  In one window let w_e be the load of
 * expert e, W the sum of all, E the number of experts, G of ranks and S of slots, c the least number of
 * copies of an expert, and k = floor(S / G) the least number of slots of a rank.  An expert with n copies
 * lies in n pieces of load w_e / n, at most one on a rank, so that n <= G.
 *
 * mean        W / G.
 * piece       the least tau so that there are enough slots for pieces of at most tau:
 *             sum_e max(c, ceil(w_e / tau)) <= S, and w_e / tau <= G.
 * packing     suppose that the largest load is L.  Then e has at least b_e = max(c, ceil(w_e / L)) copies,
 *             and the remaining f = S - sum b_e slots hold further copies.  Beside any piece lie k - 1
 *             pieces of other experts on its rank.  All but f of these belong to experts with exactly b_j
 *             copies, so the k - 1 pieces weigh at least m, the sum of the k - 1 - f smallest w_j / b_j.  So
 *             every piece is at most L - m, which demands more copies: the argument is repeated with L - m
 *             in b_e until m stays the same, or the slots do not suffice, which refutes L.  The bound is the
 *             least L that is not refuted, found by bisection.
 * pigeonhole  for S = c E, where every expert has exactly c copies.  For every j some rank holds j + 1 of
 *             the jG + 1 largest pieces.  These weigh at least as much as the j + 1 smallest of the jG + 1,
 *             and its other k - 1 - j pieces at least as much as the smallest pieces of all.  The bound is
 *             the largest sum over j.
 * after loss  when one rank is lost: W / (G - 1), and the piece bound where one copy of every expert may be
 *             lost, so that an expert with n copies has pieces of w_e / (n - 1).
 * exact       the optimum, where branch and bound finds it (plan-exact.c).
 *
 * Over several windows each bound is the largest of those of the windows. */
#include "runtime/plan/plan-internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *moe_bound_name(enum moe_bound_kind k)
{
    static const char *const names[] = { "mean", "piece", "pigeonhole", "packing", "exact" };
    return names[k];
}

/* One window of a layer.  w: loads; piece, b: scratch, [experts] like w.  lose: 1 for the bound after a
 * loss. */
struct window {
    const double *w;
    double *piece;
    int32_t *b;
    int32_t experts, ranks, slots, floor, lose;
    const struct moe_cancel *cancel;
};

/* Copies that an expert of load w needs for pieces of at most tau; more than `ranks`
 * when that is impossible. */
static int32_t need(const struct window *x, double w, double tau)
{
    if (!(w > 0)) return x->floor;
    if (!(tau > 0)) return x->ranks + 1;
    double n = ceil(w / tau * (1 - 1e-12)); /* rounding must not make a bound too high */
    return n > x->ranks ? x->ranks + 1 : n > x->floor ? (int32_t)n : x->floor;
}

/* The same, for pieces of at most tau after one copy is lost. */
static int32_t lossy_need(const struct window *x, double w, double tau)
{
    struct window one = *x;
    one.floor = x->floor - 1;
    return need(&one, w, tau) + 1;
}

/* Whether there are enough slots for pieces of at most tau. */
static bool piece_fits(const struct window *x, double tau)
{
    int64_t sum = 0;
    for (int32_t e = 0; e < x->experts; e++) {
        int32_t n = x->lose ? lossy_need(x, x->w[e], tau) : need(x, x->w[e], tau);
        if (n > x->ranks) return false;
        sum += n;
    }
    return sum <= x->slots;
}

static int rising(const void *p, const void *q)
{
    double a = *(const double *)p, b = *(const double *)q;
    return (a > b) - (a < b);
}

/* Whether the argument of "packing" does not refute a largest load of l. */
static bool packing_fits(const struct window *x, double l)
{
    int32_t others = x->slots / x->ranks - 1;
    double m = 0;
    for (int round = 0; round < 64; round++) {
        int64_t left = x->slots;
        for (int32_t e = 0; e < x->experts; e++) {
            /* m may count e's own piece.  Then another piece lies in its place, which is not among the
             * smallest and so weighs no less */
            x->b[e] = need(x, x->w[e], l - m);
            if (x->b[e] > x->ranks) return false;
            left -= x->b[e];
            x->piece[e] = x->w[e] / x->b[e];
        }
        if (left < 0) return false;
        if (left >= others) return true;
        double before = m;
        qsort(x->piece, (size_t)x->experts, sizeof *x->piece, rising);
        m = 0;
        for (int32_t i = 0; i < others - left && i < x->experts; i++) m += x->piece[i];
        if (!(m > before * (1 + 1e-12))) return true;
    }
    return true;
}

/* The least value in [lo, hi] that fits, by bisection; rounded down, so that a bound stays a bound.  hi
 * fits. */
static double least(const struct window *x, bool (*fits)(const struct window *, double), double lo, double hi)
{
    if (fits(x, lo)) return lo;
    for (int i = 0; i < 60 && hi - lo > hi * 1e-13 && !moe_is_cancelled(x->cancel); i++) {
        double mid = lo + (hi - lo) / 2;
        if (fits(x, mid)) hi = mid;
        else lo = mid;
    }
    return lo;
}

static double pigeonhole(const struct window *x)
{
    double best = 0;
    int32_t c = x->floor, n = x->experts * c, top = x->experts - 1, each = x->slots / x->ranks;
    for (int32_t e = 0; e <= top; e++) x->piece[e] = x->w[e] / c;
    qsort(x->piece, (size_t)x->experts, sizeof *x->piece, rising);
    /* every expert has c pieces, so the i-th largest piece is that of the i / c-th largest expert */
    for (int32_t j = 0; (int64_t)j * x->ranks < n; j++) {
        double sum = 0;
        for (int32_t i = 0; i <= j; i++) sum += x->piece[top - (j * x->ranks - i) / c];
        for (int32_t i = 0; i < each - 1 - j; i++) sum += x->piece[i / c];
        best = sum > best ? sum : best;
    }
    return best;
}

static void window_bounds(struct window *x, double mean, struct moe_bounds *b)
{
    double *of = b->of;
    double top = 0, sum = 0;
    for (int32_t e = 0; e < x->experts; e++) top = x->w[e] > top ? x->w[e] : top, sum += x->w[e];
    if (!(sum > 0)) return;
    double v[MOE_BOUND_COUNT] = { 0 };
    v[MOE_BOUND_MEAN] = mean;
    v[MOE_BOUND_PIECE] = least(x, piece_fits, top / x->ranks, top / x->floor);
    double lo = v[MOE_BOUND_PIECE] > mean ? v[MOE_BOUND_PIECE] : mean;
    if (x->slots == x->experts * x->floor) v[MOE_BOUND_PIGEONHOLE] = pigeonhole(x);
    else if (x->slots / x->ranks > 1) v[MOE_BOUND_PACKING] = least(x, packing_fits, lo, sum + top);
    for (int k = 0; k < MOE_BOUND_COUNT; k++) of[k] = v[k] > of[k] ? v[k] : of[k];
    if (x->floor < 2) return;
    double all = sum / (x->ranks - 1);
    x->lose = 1;
    double piece = least(x, piece_fits, top / x->ranks, top);
    if (piece > b->after_loss) b->after_loss = piece;
    if (all > b->after_loss) b->after_loss = all;
}

enum moe_code moe_plan_bounds(struct moe_bounds *b, const struct moe_plan_task *t, int32_t row,
                              struct moe_err *err)
{
    int32_t n = t->stats->experts, windows = t->stats->n_windows;
    double mean, *w = calloc((size_t)n * (size_t)windows, sizeof *w), *one = calloc((size_t)n, sizeof *one),
                 *piece = calloc((size_t)n, sizeof *piece);
    int32_t *copies = calloc((size_t)n, sizeof *copies);
    *b = (struct moe_bounds){ .best = 0 };
    bool ok = w && one && piece && copies;
    if (ok) moe_place_weights(t, row, w, &mean);
    for (int32_t k = 0; ok && k < windows; k++) {
        for (int32_t e = 0; e < n; e++) one[e] = w[(int64_t)e * windows + k];
        struct window x = { one, piece, copies, n, t->ranks, t->slots, t->survive + 1, 0, t->cancel };
        window_bounds(&x, mean, b);
    }
    for (int k = 0; k < MOE_BOUND_COUNT; k++)
        if (b->of[k] > b->best) b->best = b->of[k], b->kind = (enum moe_bound_kind)k;
    free(w);
    free(one);
    free(piece);
    free(copies);
    return ok ? moe_cancel_check(t->cancel, err) : moe_fail(err, MOE_NOMEM, "no memory for bounds");
}
