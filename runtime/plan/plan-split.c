/* SPDX-License-Identifier: Apache-2.0 */
/* Splits a batch over replicas with the least largest load, by maximum flow over the ranks.
 *
 * The nodes of the graph are ranks.  Tokens of expert e can move from rank a to rank b when both hold e and a
 * has such tokens: that is an arc of capacity share(e at a).  For a bound L, ranks above L push their excess
 * to ranks below it, by Dinic's algorithm: levels from all ranks above L at once, then a blocking flow.  If
 * excess is left that cannot be pushed, the set T of ranks that it can reach is a cut: T holds all copies of
 * the experts whose tokens lie on it, so every split has a load of at least tokens(T) / |T|.  L becomes that,
 * rounded up, and the flow goes on.  This is Newton's method on the cuts: L only rises, and it ends at the
 * largest such bound.  The first L is ceil(all tokens / living ranks). */
#include "runtime/plan/plan.h"

#include <stdlib.h>
#include <string.h>

struct moe_split {
    int32_t ranks, experts;
    struct moe_arena arena;
    int64_t *load;               /* [ranks] */
    int32_t *level, *queue;      /* [ranks] */
    int32_t *arc_slot;           /* [ranks] the next slot to try */
    int32_t *arc_copy;           /* [experts] the next copy to which its tokens are pushed */
    int32_t *reached;            /* [experts] the level of the ranks that push its tokens; -1: none does */
    int64_t *sorted;             /* [ranks] loads of the ranks that hold one expert */
    int32_t *slot_copy;          /* [slots] the copy in each slot */
    int32_t *order;              /* [experts] the experts while they are sorted */
    int64_t *key;                /* [experts] and their tokens */
    const struct moe_plan_layer *l;
    const bool *dead;
    int64_t *share;
};

enum moe_code moe_split_open(struct moe_split **out, const struct moe_plan *p, struct moe_err *err)
{
    int32_t slots = 0;
    struct moe_split *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return moe_fail(err, MOE_NOMEM, "no memory to split batches");
    for (int32_t i = 0; i < p->n_layers; i++) slots = p->layers[i].slots > slots ? p->layers[i].slots : slots;
    struct moe_arena *a = &s->arena;
    s->ranks = p->ranks;
    s->experts = p->experts;
    s->load = MOE_NEWN(a, int64_t, p->ranks);
    s->level = MOE_NEWN(a, int32_t, p->ranks);
    s->queue = MOE_NEWN(a, int32_t, p->ranks);
    s->arc_slot = MOE_NEWN(a, int32_t, p->ranks);
    s->arc_copy = MOE_NEWN(a, int32_t, p->experts);
    s->reached = MOE_NEWN(a, int32_t, p->experts);
    s->sorted = MOE_NEWN(a, int64_t, p->ranks);
    s->slot_copy = MOE_NEWN(a, int32_t, slots);
    s->order = MOE_NEWN(a, int32_t, p->experts);
    s->key = MOE_NEWN(a, int64_t, p->experts);
    if (!s->load || !s->level || !s->queue || !s->arc_slot || !s->arc_copy || !s->reached || !s->sorted ||
        !s->slot_copy || !s->order || !s->key) {
        moe_split_close(&s);
        return moe_fail(err, MOE_NOMEM, "no memory to split batches");
    }
    *out = s;
    return MOE_OK;
}

void moe_split_close(struct moe_split **s)
{
    if (!*s) return;
    moe_arena_clear(&(*s)->arena);
    free(*s);
    *s = NULL;
}

static bool lives(const struct moe_split *s, int32_t rank) { return !s->dead || !s->dead[rank]; }

static void begin(struct moe_split *s, const struct moe_plan_layer *l, const bool *dead, int64_t *share)
{
    s->l = l;
    s->dead = dead;
    s->share = share;
    memset(s->load, 0, (size_t)s->ranks * sizeof *s->load);
    memset(share, 0, (size_t)l->slots * sizeof *share);
}

static int32_t living_copies(const struct moe_split *s, int32_t e)
{
    int32_t n = 0;
    for (int32_t c = s->l->copy_first[e]; c < s->l->copy_first[e + 1]; c++) n += lives(s, s->l->copy_rank[c]);
    return n;
}

static void give(struct moe_split *s, int32_t copy, int64_t tokens)
{
    s->share[copy] += tokens;
    s->load[s->l->copy_rank[copy]] += tokens;
}

static int64_t fullest(const struct moe_split *s)
{
    int64_t max = 0;
    for (int32_t r = 0; r < s->ranks; r++) max = s->load[r] > max ? s->load[r] : max;
    return max;
}

/* Gives the n living copies of e equal shares of its tokens. */
static void give_equal(struct moe_split *s, int32_t e, int64_t tokens, int32_t n)
{
    int64_t part = tokens / n, more = tokens % n;
    for (int32_t c = s->l->copy_first[e]; c < s->l->copy_first[e + 1]; c++)
        if (lives(s, s->l->copy_rank[c])) {
            give(s, c, part + (more > 0));
            more--;
        }
}

struct moe_split_result moe_split_equal(struct moe_split *s, const struct moe_plan_layer *l,
                                        const int64_t *tokens, const bool *dead, int64_t *share)
{
    struct moe_split_result got = { 0 };
    begin(s, l, dead, share);
    for (int32_t e = 0; e < s->experts; e++) {
        if (!tokens[e]) continue;
        int32_t n = living_copies(s, e);
        if (n) give_equal(s, e, tokens[e], n);
        else got.lost++;
    }
    got.load_max = fullest(s);
    return got;
}

/* ---- the start ----
 *
 * First the experts with one living copy get their tokens; then the others, by falling tokens, each on its
 * least loaded copies. */

static int rising(const void *p, const void *q)
{
    int64_t a = *(const int64_t *)p, b = *(const int64_t *)q;
    return (a > b) - (a < b);
}

/* Stores the loads of the ranks with living copies of e in s->sorted, rising; returns how many. */
static int32_t sort_loads(struct moe_split *s, int32_t e)
{
    const struct moe_plan_layer *l = s->l;
    int32_t n = 0;
    bool in_order = true;
    for (int32_t c = l->copy_first[e]; c < l->copy_first[e + 1]; c++) {
        if (!lives(s, l->copy_rank[c])) continue;
        int64_t v = s->load[l->copy_rank[c]];
        int32_t i = n++;
        in_order &= !i || s->sorted[i - 1] <= v;
        for (; n <= 16 && i > 0 && s->sorted[i - 1] > v; i--) s->sorted[i] = s->sorted[i - 1];
        s->sorted[i] = v;
    }
    if (n > 16 && !in_order) qsort(s->sorted, (size_t)n, sizeof *s->sorted, rising);
    return n;
}

/* Gives the tokens of e to the ranks with its least loaded living copies, so that their loads become equal;
 * the remainder of the division goes to the first of them. */
static void give_level(struct moe_split *s, int32_t e, int64_t tokens)
{
    const struct moe_plan_layer *l = s->l;
    int32_t copies = sort_loads(s, e), n = 1;
    int64_t highest = s->sorted[0];
    /* raise the n least loaded ranks to the load of the next one, while the tokens suffice */
    for (; n < copies && (s->sorted[n] - highest) <= tokens / n; n++) {
        tokens -= n * (s->sorted[n] - highest);
        highest = s->sorted[n];
    }
    int64_t level = highest + tokens / n, more = tokens % n;
    for (int32_t c = l->copy_first[e]; c < l->copy_first[e + 1]; c++) {
        int64_t load = s->load[l->copy_rank[c]];
        if (!lives(s, l->copy_rank[c]) || load > highest) continue;
        give(s, c, level - load + (more-- > 0));
    }
}

static void sift(struct moe_split *s, int32_t i, int32_t n)
{
    for (int32_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && s->key[child + 1] < s->key[child]) child++;
        if (s->key[i] <= s->key[child]) return;
        int64_t k = s->key[i];
        int32_t o = s->order[i];
        s->key[i] = s->key[child], s->key[child] = k;
        s->order[i] = s->order[child], s->order[child] = o;
    }
}

/* Sorts the first n of `order` by falling key; the order of equal keys depends on the input alone. */
static void sort_falling(struct moe_split *s, int32_t n)
{
    for (int32_t i = n / 2 - 1; i >= 0; i--) sift(s, i, n);
    for (int32_t end = n - 1; end > 0; end--) {
        int64_t k = s->key[0];
        int32_t o = s->order[0];
        s->key[0] = s->key[end], s->key[end] = k;
        s->order[0] = s->order[end], s->order[end] = o;
        sift(s, 0, end);
    }
}

/* Splits all tokens in that way; returns how many tokens have a living copy. */
static int64_t start(struct moe_split *s, const int64_t *tokens, int32_t *lost)
{
    int64_t all = 0;
    int32_t n = 0;
    for (int32_t e = 0; e < s->experts; e++) {
        if (!tokens[e]) continue;
        int32_t copies = living_copies(s, e);
        if (!copies) {
            ++*lost;
            continue;
        }
        all += tokens[e];
        if (copies == 1) give_equal(s, e, tokens[e], 1);
        else s->key[n] = tokens[e], s->order[n++] = e;
    }
    sort_falling(s, n);
    for (int32_t i = 0; i < n; i++) give_level(s, s->order[i], tokens[s->order[i]]);
    return all;
}

/* ---- flow ---- */

/* Computes the levels of all ranks: 0 for ranks above `bound`, -1 for ranks that they do not reach.  True
 * when a rank below `bound` is reached.  The first rank with tokens of an expert reaches all other copies of
 * it, so each expert is looked at once. */
static bool find_levels(struct moe_split *s, int64_t bound)
{
    const struct moe_plan_layer *l = s->l;
    int32_t n = 0;
    bool reached = false;
    for (int32_t e = 0; e < s->experts; e++) s->reached[e] = -1;
    for (int32_t r = 0; r < s->ranks; r++) {
        s->level[r] = s->load[r] > bound ? 0 : -1;
        if (!s->level[r]) s->queue[n++] = r;
        s->arc_slot[r] = l->first[r];
    }
    for (int32_t i = 0; i < n; i++) {
        int32_t a = s->queue[i];
        reached |= s->load[a] < bound;
        for (int32_t k = l->first[a]; k < l->first[a + 1]; k++) {
            int32_t e = l->slot[k];
            if (s->reached[e] >= 0 || l->copy_first[e + 1] - l->copy_first[e] < 2 ||
                !s->share[s->slot_copy[k]])
                continue;
            s->reached[e] = s->level[a];
            s->arc_copy[e] = l->copy_first[e];
            for (int32_t c = l->copy_first[e]; c < l->copy_first[e + 1]; c++) {
                int32_t b = l->copy_rank[c];
                if (s->level[b] >= 0 || !lives(s, b)) continue;
                s->level[b] = s->level[a] + 1;
                s->queue[n++] = b;
            }
        }
    }
    return reached;
}

/* Pushes up to `want` tokens, which come to rank a, into the room of ranks below `bound`: of a itself, or
 * along rising levels of others.  Returns how many went.
 *
 * No copy of an expert is more than one level above the first rank with tokens of it, so only ranks of that
 * level push them, all to the same copies.  These ranks share one place in the list of copies (arc_copy): a
 * copy that takes no more from one of them takes no more from any. */
static int64_t push(struct moe_split *s, int32_t a, int64_t want, int64_t bound)
{
    const struct moe_plan_layer *l = s->l;
    int64_t gone = 0;
    if (s->load[a] < bound) {
        gone = bound - s->load[a] < want ? bound - s->load[a] : want;
        s->load[a] += gone;
        if (gone == want) return gone;
    }
    for (; s->arc_slot[a] < l->first[a + 1]; s->arc_slot[a]++) {
        int32_t e = l->slot[s->arc_slot[a]], from = s->slot_copy[s->arc_slot[a]];
        if (s->reached[e] != s->level[a]) continue;
        for (; s->share[from] && s->arc_copy[e] < l->copy_first[e + 1]; s->arc_copy[e]++) {
            int32_t b = l->copy_rank[s->arc_copy[e]];
            if (s->level[b] != s->level[a] + 1 || !lives(s, b)) continue;
            int64_t limit = s->share[from] < want - gone ? s->share[from] : want - gone,
                    went = push(s, b, limit, bound);
            s->share[from] -= went;
            s->share[s->arc_copy[e]] += went;
            gone += went;
            if (gone == want) return gone;
            if (!s->share[from]) break; /* the copy may take more from other ranks */
        }
    }
    return gone;
}

/* Pushes as many tokens as possible from the ranks above `bound` to those below; true when no rank is above
 * it any more. */
static bool flow(struct moe_split *s, int64_t bound)
{
    while (find_levels(s, bound)) {
        for (int32_t r = 0; r < s->ranks; r++)
            if (!s->level[r] && s->load[r] > bound) s->load[r] -= push(s, r, s->load[r] - bound, bound);
    }
    for (int32_t r = 0; r < s->ranks; r++)
        if (s->load[r] > bound) return false;
    return true;
}

static int64_t ceil_div(int64_t a, int64_t b) { return a / b + (a % b != 0); }

struct moe_split_result moe_split_best(struct moe_split *s, const struct moe_plan_layer *l,
                                       const int64_t *tokens, const bool *dead, int64_t *share, bool *cut)
{
    struct moe_split_result got = { 0 };
    begin(s, l, dead, share);
    for (int32_t c = 0; c < l->slots; c++) s->slot_copy[l->copy_slot[c]] = c;
    got.cut_tokens = start(s, tokens, &got.lost);
    for (int32_t r = 0; r < s->ranks; r++) {
        got.cut_ranks += lives(s, r);
        if (cut) cut[r] = lives(s, r);
    }
    if (!got.cut_ranks) return got;
    got.load_max = ceil_div(got.cut_tokens, got.cut_ranks);
    while (!flow(s, got.load_max)) {
        got.cut_tokens = got.cut_ranks = 0;
        for (int32_t r = 0; r < s->ranks; r++) {
            bool in = s->level[r] >= 0;
            if (cut) cut[r] = in;
            got.cut_ranks += in;
            got.cut_tokens += in ? s->load[r] : 0;
        }
        got.load_max = ceil_div(got.cut_tokens, got.cut_ranks);
    }
    return got;
}

void moe_split_loads(const struct moe_plan *p, const struct moe_plan_layer *l, const int64_t *share,
                     int64_t *load)
{
    memset(load, 0, (size_t)p->ranks * sizeof *load);
    for (int32_t c = 0; c < l->slots; c++) load[l->copy_rank[c]] += share[c];
}
