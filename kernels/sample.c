/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sample.h"

#include "kernels/kernels.h"
#include "kernels/scalar.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

/* ---- random numbers ---- */

static uint64_t splitmix(uint64_t z)
{
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint64_t moe_draw(uint64_t seed, uint32_t choice, int64_t position)
{
    const uint64_t step = 0x9e3779b97f4a7c15u;
    if (choice) seed = splitmix(splitmix(seed + step) ^ choice);
    return splitmix(seed + ((uint64_t)position + 1) * step);
}

/* ---- ranks ---- */

static int32_t largest(const float *x, int64_t n)
{
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return (int32_t)best;
}

static int by_logit(const void *a, const void *b, void *logits)
{
    int32_t i = *(const int32_t *)a, k = *(const int32_t *)b;
    float x = ((const float *)logits)[i], y = ((const float *)logits)[k];
    return x > y ? -1 : x < y ? 1 : (i > k) - (i < k);
}

/* The ids order[0 .. n - 1] in descending order of their logits, sorted no further than asked for:
 * incremental quicksort (Paredes and Navarro 2006).  order[0 .. done - 1] stand in order.  After them come
 * parts that end at edge[depth - 1], then at edge[depth - 2] and so on: every id of a part ranks before those
 * of the parts after it. */
enum { EDGES = 96 };
struct ranking {
    const float *logits;
    int32_t *order;
    int64_t done, edge[EDGES];
    int depth;
};

static void rank_begin(struct ranking *r, const float *logits, int64_t n, int32_t *order)
{
    *r = (struct ranking){ .logits = logits, .order = order, .edge = { n }, .depth = 1 };
}

static bool ahead(const float *x, int32_t i, int32_t k) { return x[i] > x[k] || (x[i] == x[k] && i < k); }

/* Put the id at `pivot` where it belongs in [from, to): ids that rank before it to its left.  Returns its
 * place. */
static int64_t partition(const struct ranking *r, int64_t from, int64_t to, int64_t pivot)
{
    int32_t *o = r->order, id = o[pivot];
    int64_t at = from;
    o[pivot] = o[to - 1];
    for (int64_t i = from; i < to - 1; i++) {
        int32_t k = o[i]; /* no branch: the comparison goes either way as often */
        bool first = ahead(r->logits, k, id);
        o[i] = o[at];
        o[at] = k;
        at += first;
    }
    o[to - 1] = o[at];
    o[at] = id;
    return at;
}

/* The id of rank i.  Calls ask for ascending i. */
static int32_t rank_at(struct ranking *r, int64_t i)
{
    while (r->done <= i) {
        int64_t end = r->edge[r->depth - 1], from = r->done;
        if (end - from <= 32 || r->depth == EDGES) {
            qsort_r(r->order + from, (size_t)(end - from), sizeof *r->order, by_logit,
                    (void *)(uintptr_t)r->logits);
            r->done = end;
            r->depth--;
            continue;
        }
        int64_t at = partition(r, from, end, from + (end - from) / 2);
        if (at > from) r->edge[r->depth++] = at; /* that part is next; the pivot begins the one after it */
        else r->done = at + 1;
    }
    return r->order[i];
}

/* ---- sampling ---- */

/* Which ids stay: those that do not rank behind `last`; -1: all. */
struct sample {
    const struct moe_sampler *s;
    const float *logits, *e;            /* e [n]: the exponentials */
    int64_t n;
    int32_t best, last;
    int32_t *order;
};

static bool stays(const struct sample *a, int32_t id)
{
    return a->last < 0 || !ahead(a->logits, a->last, id);
}

static uint64_t weight_of(const struct sample *a, int32_t id)
{
    return a->e[id] < a->s->min_p ? 0 : (uint64_t)(a->e[id] * 0x1p40f);
}

static uint64_t total_of(const struct sample *a)
{
    uint64_t total = 0;
    for (int32_t i = 0; i < a->n; i++)
        if (stays(a, i)) total += weight_of(a, i);
    return total;
}

/* Ids by how far their logits are below the largest: exponent and three more bits of the difference.  An id
 * of a lower bin ranks before one of a higher bin. */
enum { BINS = 1 << 11 };

static uint32_t bin_of(const struct sample *a, int32_t id)
{
    return moe_f32_bits(a->logits[a->best] - a->logits[id]) >> 20 & (BINS - 1);
}

/* What an id counts: its weight, or 1 where ids themselves are counted. */
static uint64_t counts(const struct sample *a, int32_t id, bool ids)
{
    return ids ? 1 : weight_of(a, id);
}

/* Lets as few ids stay as count at least goal / 2^32, in order of rank; those that stay now count as much.
 * Returns what they count.  Only the bin in which the last of them is has to be sorted. */
static uint64_t cut(struct sample *a, bool ids, unsigned __int128 goal)
{
    uint64_t in_bin[BINS] = { 0 }, part = 0;
    struct ranking rank;
    uint32_t bin = 0;
    int64_t n = 0, i = 0;

    for (int32_t id = 0; id < a->n; id++)
        if (stays(a, id)) in_bin[bin_of(a, id)] += counts(a, id, ids);
    while ((unsigned __int128)(part + in_bin[bin]) << 32 < goal) part += in_bin[bin++];
    for (int32_t id = 0; id < a->n; id++)
        if (bin_of(a, id) == bin && stays(a, id)) a->order[n++] = id;
    rank_begin(&rank, a->logits, n, a->order);
    do {
        a->last = rank_at(&rank, i++);
        part += counts(a, a->last, ids);
    } while ((unsigned __int128)part << 32 < goal);
    return part;
}

int32_t moe_sample(const struct moe_sampler *s, uint64_t draw, const float *logits, int64_t n, int32_t *order,
                   float *e)
{
    struct sample a = { s, logits, e, n, largest(logits, n), -1, order };
    if (!(s->temperature > 0) || !isfinite(logits[a.best])) return a.best;
    for (int64_t i = 0; i < n; i++) e[i] = (logits[i] - logits[a.best]) / s->temperature;
    moe_kernels()->exp(e, n, e);

    if (s->top_k > 0 && s->top_k < n) cut(&a, true, (unsigned __int128)s->top_k << 32);
    uint64_t total = total_of(&a);
    if (s->top_p > 0 && s->top_p < 1)
        total = cut(&a, false, (unsigned __int128)(uint64_t)((double)s->top_p * 0x1p32) * total);

    uint64_t at = (uint64_t)((unsigned __int128)draw * total >> 64), part = 0;
    for (int32_t i = 0; i < n; i++) {
        if (stays(&a, i)) part += weight_of(&a, i);
        if (part > at) return i;
    }
    return a.best; /* total is 0, since min_p is above 1 */
}
