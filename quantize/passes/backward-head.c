/* SPDX-License-Identifier: Apache-2.0 */
/* The start of a backward pass: draws a label for each token from the model's own distribution, and computes
 * the gradient of -log p(label) with respect to the states after the last layer.
 *
 *   x = rms(h, norm);  l = head x;  p = softmax(l);  label drawn from p
 *   dl = p - onehot(label);  dh = J^T head^T dl, with J the Jacobian of the norm
 *
 * There are two passes over the vocabulary, PIECE ids at a time.  The first gives the largest logit and the
 * sum of exponentials of each piece; from them follow the sum over all ids and the piece in which the label
 * lies.  The second gives p, the label within its piece, and head^T dl. */
#include "quantize/passes/backward-internal.h"

#include <math.h>
#include <string.h>

enum { PIECE = 2048 };

/* What is known of one row (token) after the first pass over the vocabulary. */
struct row {
    double largest; /* of all its logits */
    double total;   /* sum of e^(l - largest) over all ids */
    double rest;    /* the uniform draw times total, less the sums of the pieces before the label's */
    int64_t piece;  /* in which the label lies */
};

struct head {
    struct moe_backward *b;
    int64_t n;      /* rows of this call */
    int64_t first;  /* index of the first one among all rows */
    int64_t pieces; /* of the vocabulary */
    int64_t piece;  /* the one at hand */
    int64_t ids;    /* ... and its ids */
    uint64_t seed;
    float *x, *dx, *logits;               /* [n, H], [n, H], [n, PIECE] */
    double *largest, *sum;                /* [n, pieces] */
    struct row *row;                      /* [n] */
    int32_t *labels;                      /* [n] or NULL */
};

static void head_room(struct head *a, struct moe_backward_room *r, const struct moe_config *c, int64_t n)
{
    a->pieces = (c->vocab_size + PIECE - 1) / PIECE;
    a->x = moe_backward_take(r, n * c->hidden_size);
    a->dx = moe_backward_take(r, n * c->hidden_size);
    a->logits = moe_backward_take(r, n * PIECE);
    a->largest = (double *)(void *)moe_backward_take(r, 2 * n * a->pieces);
    a->sum = (double *)(void *)moe_backward_take(r, 2 * n * a->pieces);
    a->row = (struct row *)(void *)moe_backward_take(r, n * (int64_t)(sizeof *a->row / sizeof(float)));
}

int64_t moe_backward_head_floats(const struct moe_config *c, int64_t n)
{
    struct moe_backward_room r = { 0 };
    struct head a = { 0 };
    head_room(&a, &r, c, n);
    return r.used;
}

static void logits_item(void *ctx, int64_t item, int worker)
{
    enum { ROWS = 64 };
    struct head *a = ctx;
    const struct moe_weight *w = &a->b->m->head;
    int64_t r0 = a->piece * PIECE + item * ROWS;
    int64_t end = a->piece * PIECE + a->ids;
    int64_t r1 = r0 + ROWS < end ? r0 + ROWS : end;
    (void)worker;
    a->b->k->matmul(w, r0, r1, a->x, w->cols, a->n, a->logits + item * ROWS, PIECE);
}

static void logits_of(struct head *a, int64_t piece)
{
    const struct moe_weight *w = &a->b->m->head;
    a->piece = piece;
    a->ids = w->rows - piece * PIECE < PIECE ? w->rows - piece * PIECE : PIECE;
    moe_backward_each(a->b, (a->ids + 63) / 64, a->ids * w->cols * a->n, logits_item, a);
}

/* Finds the largest logit and the sum of exponentials of row t in the piece at hand. */
static void measure(void *ctx, int64_t t, int worker)
{
    struct head *a = ctx;
    const float *l = a->logits + t * PIECE;
    float largest = l[0];
    double sum = 0;
    (void)worker;
    for (int64_t i = 1; i < a->ids; i++) largest = l[i] > largest ? l[i] : largest;
    /* the sum becomes NaN when a logit is NaN or all are -Inf */
    for (int64_t i = 0; i < a->ids; i++) sum += exp((double)l[i] - (double)largest);
    a->largest[t * a->pieces + a->piece] = (double)largest;
    a->sum[t * a->pieces + a->piece] = sum;
}

/* Fills a->row[t].  The label's piece is the first at which the running sum of the pieces exceeds the
 * draw; where rounding leaves none, the last piece with a positive sum. */
static void choose_piece(void *ctx, int64_t t, int worker)
{
    struct head *a = ctx;
    const double *largest = a->largest + t * a->pieces, *sum = a->sum + t * a->pieces;
    struct row *r = &a->row[t];

    /* the state of the stream from `seed` after as many draws as there are rows before this one */
    struct moe_rng rng = { a->seed + (uint64_t)(a->first + t) * 0x9e3779b97f4a7c15u };
    (void)worker;
    *r = (struct row){ .largest = largest[0] };
    for (int64_t i = 1; i < a->pieces; i++) r->largest = fmax(r->largest, largest[i]);
    for (int64_t i = 0; i < a->pieces; i++) r->total += sum[i] * exp(largest[i] - r->largest);
    r->rest = moe_rng_next(&rng) * r->total;
    for (int64_t i = 0; i < a->pieces; i++) {
        double part = sum[i] * exp(largest[i] - r->largest);
        if (!(part > 0)) continue;
        r->piece = i;
        if (r->rest < part) break;
        r->rest -= part;
    }
}

/* Replaces row t's logits in the piece at hand by p - onehot(label). */
static void differentiate(void *ctx, int64_t t, int worker)
{
    struct head *a = ctx;
    struct row *r = &a->row[t];
    float *l = a->logits + t * PIECE;
    int64_t label = -1;

    (void)worker;
    for (int64_t i = 0; i < a->ids; i++) {
        double e = exp((double)l[i] - r->largest);
        l[i] = (float)(e / r->total);
        if (r->piece != a->piece || r->rest < 0 || !(e > 0)) continue;
        label = i; /* rounding may leave a rest after the last id, which is the label then */
        r->rest -= e;
    }
    if (label < 0) return;
    l[label] -= 1;
    if (a->labels) a->labels[t] = (int32_t)(a->piece * PIECE + label);
}

static bool all_finite(const struct head *a)
{
    for (int64_t t = 0; t < a->n; t++)
        if (!isfinite(a->row[t].total) || !isfinite(a->row[t].largest)) return false;
    return true;
}

static enum moe_code head_part(struct head *a, const float *h, float *dh, struct moe_err *err)
{
    struct moe_backward *b = a->b;
    const struct moe_weight *w = &b->m->head;
    int64_t hidden = b->m->config.hidden_size;
    struct moe_backward_room room = { b->rows, 0 };

    head_room(a, &room, &b->m->config, a->n);
    moe_backward_recompute_norm(b, h, b->m->norm, b->m->eps, hidden, hidden, a->n, a->x);
    for (int64_t i = 0; i < a->pieces; i++) {
        logits_of(a, i);
        moe_backward_each(b, a->n, 16 * a->n * a->ids, measure, a);
    }
    moe_backward_each(b, a->n, 32 * a->n * a->pieces, choose_piece, a);
    if (!all_finite(a)) return moe_model_blame(b->m, -1, err);
    for (int64_t i = 0; i < a->pieces; i++) {
        logits_of(a, i);
        moe_backward_each(b, a->n, 16 * a->n * a->ids, differentiate, a);
        moe_backward_transposed(&(struct moe_backward_transposed){
            b, w, i * PIECE, i * PIECE + a->ids, a->logits, PIECE, a->n, a->dx, hidden, i == 0 });
    }
    memset(dh, 0, (size_t)(a->n * hidden) * sizeof *dh);
    moe_backward_norm(b, h, b->m->norm, b->m->eps, hidden, hidden, a->n, a->dx, dh);
    return MOE_OK;
}

enum moe_code moe_backward_head(struct moe_backward *b, const float *h, int64_t n, int64_t first,
                                uint64_t seed, float *dh, int32_t *labels, struct moe_err *err)
{
    int64_t hidden = b->m->config.hidden_size;
    for (int64_t t = 0; t < n; t += b->max_tokens) {
        struct head a = { .b = b,
                          .n = n - t < b->max_tokens ? n - t : b->max_tokens,
                          .first = first + t,
                          .seed = seed,
                          .labels = labels ? labels + t : NULL };
        MOE_TRY(head_part(&a, h + t * hidden, dh + t * hidden, err));
    }
    return MOE_OK;
}
