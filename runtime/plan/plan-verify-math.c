/* SPDX-License-Identifier: Apache-2.0 */
/* The verifier's own arithmetic: a split by maximum flow on the graph experts - slots - ranks, bounds, and a
 * search for a better placement. */
#include "runtime/plan/plan-verify-internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

bool moe_check_layer_init(struct check_layer *l, struct moe_arena *a, int32_t experts, int32_t ranks,
                          int32_t slots)
{
    int32_t nodes = experts + ranks;
    *l = (struct check_layer){ .cap = slots };
    return (l->rank_of = MOE_NEWN(a, int32_t, slots)) && (l->expert_of = MOE_NEWN(a, int32_t, slots)) &&
           (l->copies = MOE_NEWN(a, int32_t, experts)) && (l->left = MOE_NEWN(a, int32_t, experts)) &&
           (l->weight = MOE_NEWN(a, double, experts)) && (l->sorted = MOE_NEWN(a, double, experts)) &&
           (l->rank_load = MOE_NEWN(a, double, ranks)) && (l->dead = MOE_NEWN(a, uint8_t, ranks)) &&
           (l->max_load = MOE_NEWN(a, double, ranks)) && (l->lost = MOE_NEWN(a, int32_t, ranks)) &&
           (l->twin = MOE_NEWN(a, uint8_t, ranks)) && (l->supply = MOE_NEWN(a, int64_t, experts)) &&
           (l->room = MOE_NEWN(a, int64_t, ranks)) && (l->sent = MOE_NEWN(a, int64_t, slots)) &&
           (l->by_expert = MOE_NEWN(a, int32_t, slots)) &&
           (l->expert_first = MOE_NEWN(a, int32_t, experts + 1)) &&
           (l->rank_first = MOE_NEWN(a, int32_t, ranks + 1)) && (l->depth = MOE_NEWN(a, int32_t, nodes)) &&
           (l->queue = MOE_NEWN(a, int32_t, nodes)) && (l->next = MOE_NEWN(a, int32_t, nodes));
}

/* Sets where the slots of each expert and of each rank begin.  Those of a rank are consecutive slots; those
 * of an expert are consecutive in by_expert. */
static void index_slots(struct check_layer *l, int32_t experts, int32_t ranks)
{
    memset(l->expert_first, 0, ((size_t)experts + 1) * sizeof *l->expert_first);
    memset(l->rank_first, 0, ((size_t)ranks + 1) * sizeof *l->rank_first);
    for (int32_t k = 0; k < l->slots; k++)
        l->expert_first[l->expert_of[k] + 1]++, l->rank_first[l->rank_of[k] + 1]++;
    for (int32_t e = 0; e < experts; e++) l->expert_first[e + 1] += l->expert_first[e];
    for (int32_t r = 0; r < ranks; r++) l->rank_first[r + 1] += l->rank_first[r];
    for (int32_t e = 0; e < experts; e++) l->next[e] = l->expert_first[e];
    for (int32_t k = 0; k < l->slots; k++) l->by_expert[l->next[l->expert_of[k]]++] = k;
}

/* ---- ranks that hold the same experts ---- */

static int by_number(const void *p, const void *q)
{
    int32_t a = *(const int32_t *)p, b = *(const int32_t *)q;
    return (a > b) - (a < b);
}

/* Orders ranks by their experts, which moe_check_mark_twins has sorted. */
static int by_experts(const void *p, const void *q, void *layer)
{
    const struct check_layer *l = layer;
    int32_t a = *(const int32_t *)p, b = *(const int32_t *)q, i = l->rank_first[a], j = l->rank_first[b];
    int32_t n = l->rank_first[a + 1] - i, m = l->rank_first[b + 1] - j;
    return n != m ? by_number(&n, &m)
                  : memcmp(l->by_expert + i, l->by_expert + j, (size_t)n * sizeof *l->by_expert);
}

static int by_experts_then_rank(const void *p, const void *q, void *layer)
{
    int order = by_experts(p, q, layer);
    return order ? order : by_number(p, q);
}

void moe_check_mark_twins(struct check_layer *l, int32_t experts, int32_t ranks)
{
    int32_t *sorted = l->by_expert, *order = l->queue; /* not used between two flows */
    index_slots(l, experts, ranks);
    memcpy(sorted, l->expert_of, (size_t)l->slots * sizeof *sorted);
    for (int32_t r = 0; r < ranks; r++) {
        order[r] = r;
        qsort(sorted + l->rank_first[r], (size_t)(l->rank_first[r + 1] - l->rank_first[r]), sizeof *sorted,
              by_number);
    }
    qsort_r(order, (size_t)ranks, sizeof *order, by_experts_then_rank, l);
    memset(l->twin, 0, (size_t)ranks);
    for (int32_t i = 1; i < ranks; i++) l->twin[order[i]] = !by_experts(&order[i - 1], &order[i], l);
}

/* ---- flow (Dinic's algorithm) ---- */

/* Node x < experts is expert x, any other node is rank x - experts.  An arc k goes from the expert of slot k
 * to its rank, and back where the slot carries flow. */

/* Finds the depths of all nodes from the experts with supply, breadth first; true when a rank with room is
 * reached. */
static bool find_depths(struct check_layer *l, int32_t experts, int32_t ranks, int32_t dead)
{
    int32_t n = 0;
    bool found = false;
    for (int32_t i = 0; i < experts + ranks; i++) l->depth[i] = -1;
    for (int32_t e = 0; e < experts; e++)
        if (l->supply[e] > 0) l->depth[e] = 0, l->queue[n++] = e;
    for (int32_t i = 0; i < n; i++) {
        int32_t x = l->queue[i];
        bool expert = x < experts;
        int32_t first = expert ? l->expert_first[x] : l->rank_first[x - experts],
                end = expert ? l->expert_first[x + 1] : l->rank_first[x - experts + 1];
        if (!expert && l->room[x - experts] > 0) found = true;
        for (int32_t j = first; j < end; j++) {
            int32_t k = expert ? l->by_expert[j] : j, y = expert ? experts + l->rank_of[k] : l->expert_of[k];
            if (l->rank_of[k] == dead || l->depth[y] >= 0 || (!expert && !l->sent[k])) continue;
            l->depth[y] = l->depth[x] + 1;
            l->queue[n++] = y;
        }
    }
    for (int32_t e = 0; e < experts; e++) l->next[e] = l->expert_first[e];
    for (int32_t r = 0; r < ranks; r++) l->next[experts + r] = l->rank_first[r];
    return found;
}

/* Sends up to `amount` from node x to ranks with room, depth first; returns how much was sent.  Each arc is
 * tried once between two calls of find_depths. */
static int64_t send_flow(struct check_layer *l, int32_t experts, int32_t x, int64_t amount, int32_t dead)
{
    bool expert = x < experts;
    int64_t done = 0;
    if (!expert && l->room[x - experts] > 0) {
        done = l->room[x - experts] < amount ? l->room[x - experts] : amount;
        l->room[x - experts] -= done;
    }
    int32_t end = expert ? l->expert_first[x + 1] : l->rank_first[x - experts + 1];
    for (; done < amount && l->next[x] < end; l->next[x]++) {
        int32_t k = expert ? l->by_expert[l->next[x]] : l->next[x],
                y = expert ? experts + l->rank_of[k] : l->expert_of[k];
        if (l->rank_of[k] == dead || l->depth[y] != l->depth[x] + 1) continue;
        int64_t want = amount - done;
        if (!expert && l->sent[k] < want) want = l->sent[k];
        if (!want) continue;
        int64_t went = send_flow(l, experts, y, want, dead);
        l->sent[k] += expert ? went : -went;
        done += went;
        if (done == amount) break; /* this arc may take more later */
    }
    return done;
}

bool moe_check_split_fits(struct check_layer *l, int32_t experts, int32_t ranks, int32_t dead,
                          double max_load)
{
    double total = 0;
    if (!(max_load >= 0)) return false;
    for (int32_t e = 0; e < experts; e++) total += l->weight[e];
    if (!(total > 0)) return true;
    /* The flow is of whole numbers, 2^42 in all.  Room for 2^44 is no limit. */
    double scale = 0x1p42 / total;
    index_slots(l, experts, ranks);
    memset(l->sent, 0, (size_t)l->slots * sizeof *l->sent);
    for (int32_t r = 0; r < ranks; r++)
        l->room[r] = r == dead ? 0 : max_load >= total ? (int64_t)1 << 44 : (int64_t)(max_load * scale) + 1;
    for (int32_t e = 0; e < experts; e++) {
        bool lives = false;
        for (int32_t j = l->expert_first[e]; j < l->expert_first[e + 1]; j++)
            lives |= l->rank_of[l->by_expert[j]] != dead;
        l->supply[e] = lives ? (int64_t)(l->weight[e] * scale) : 0;
    }
    while (find_depths(l, experts, ranks, dead))
        for (int32_t e = 0; e < experts; e++)
            if (l->supply[e] > 0) l->supply[e] -= send_flow(l, experts, e, l->supply[e], dead);
    for (int32_t e = 0; e < experts; e++)
        if (l->supply[e] > 0) return false;
    return true;
}

/* ---- bounds ---- */

static int by_load(const void *p, const void *q)
{
    double a = *(const double *)p, b = *(const double *)q;
    return (a > b) - (a < b);
}

/* The least number of copies, `floor` or more, by which each copy of an expert of load w gets at most
 * `piece` of it. */
static double copies_for(double w, double piece, int32_t floor, int32_t ranks)
{
    if (!(w > 0)) return floor;
    if (!(piece > 0)) return ranks + 1.0;
    double n = ceil(w / piece - 1e-9);
    return n < floor ? floor : n;
}

/* Whether a largest load of max_load leads to a contradiction, by the argument of "packing" in plan-bound.c.
 * Every piece shares its rank with as many pieces as that has further slots.  Spare copies can make some of
 * these smaller.  The others, `untouched` of them, together weigh at least as much as so many of the smallest
 * pieces, which is `beside`; so no piece is larger than max_load - beside. */
static bool is_impossible(struct check_layer *l, int32_t experts, int32_t ranks, int32_t floor,
                          double max_load)
{
    double beside = 0;
    for (int i = 0; i < 100; i++) {
        double used = 0, sum = 0;
        for (int32_t e = 0; e < experts; e++) {
            double n = copies_for(l->weight[e], max_load - beside, floor, ranks);
            if (n > ranks) return true;
            used += n;
            l->sorted[e] = l->weight[e] / n;
        }
        if (used > l->slots) return true;
        double untouched = l->slots / ranks - 1 - (l->slots - used);
        if (untouched <= 0) return false;
        qsort(l->sorted, (size_t)experts, sizeof *l->sorted, by_load);
        for (int32_t e = 0; e < experts && e < untouched; e++) sum += l->sorted[e];
        if (sum <= beside * (1 + 1e-12)) return false;
        beside = sum;
    }
    return false;
}

/* The bound that plan-bound.c calls pigeonhole, where there are just enough slots for `floor` copies of each
 * expert, so that all pieces are known: for every j, some rank holds j + 1 of the j x ranks + 1 largest
 * pieces, and its other pieces weigh at least as much as the smallest of all. */
static double pigeonhole(struct check_layer *l, int32_t experts, int32_t ranks, int32_t floor)
{
    double best = 0;
    int32_t each = l->slots / ranks;
    for (int32_t e = 0; e < experts; e++) l->sorted[e] = l->weight[e] / floor;
    qsort(l->sorted, (size_t)experts, sizeof *l->sorted, by_load);
    /* the i-th largest piece is that of the i / floor-th largest expert */
    for (int32_t j = 0; (int64_t)j * ranks < l->slots; j++) {
        double sum = 0;
        for (int32_t i = j * ranks - j; i <= j * ranks; i++) sum += l->sorted[experts - 1 - i / floor];
        for (int32_t i = 0; i < each - 1 - j; i++) sum += l->sorted[i / floor];
        best = sum > best ? sum : best;
    }
    return best;
}

double moe_check_bound(struct check_layer *l, int32_t experts, int32_t ranks, int32_t floor)
{
    double total = 0, lo, hi;
    for (int32_t e = 0; e < experts; e++) total += l->weight[e];
    if (!(total > 0)) return 0;
    lo = total / ranks; /* the mean */
    hi = 2 * total;
    if (is_impossible(l, experts, ranks, floor, lo))
        for (int i = 0; i < 100; i++) {
            double mid = (lo + hi) / 2;
            if (is_impossible(l, experts, ranks, floor, mid)) lo = mid;
            else hi = mid;
        }
    if (l->slots == experts * floor) {
        double m = pigeonhole(l, experts, ranks, floor);
        lo = m > lo ? m : lo;
    }
    return lo;
}

/* ---- a better placement: every expert is tried on every set of ranks that stay below max_load ---- */

/* A partial placement.  A set of ranks is a mask, so that 8 ranks are the most. */
struct trial {
    struct check_layer *l;
    int32_t experts, ranks, floor;
    double max_load;
    int32_t room[8]; /* free slots of each rank */
    double load[8];  /* of the experts placed so far */
    long left; /* how many partial placements may still be tried */
};

/* Tries all placements of experts e and later on the ranks with room; true when one of them fills all slots
 * and every load stays below max_load.  False also when `left` has come to 0. */
static bool try_placements(struct trial *t, int32_t e)
{
    int32_t room = 0;
    if (t->left-- <= 0) return false;
    for (int r = 0; r < t->ranks; r++) room += t->room[r];
    if (e == t->experts) return !room;
    for (unsigned set = (1u << t->ranks) - 1; set; set--) {
        int n = __builtin_popcount(set), r = 0;
        double part = t->l->weight[e] / n;
        if (n < t->floor || room - n < (t->experts - e - 1) * t->floor) continue;
        while (r < t->ranks && (!(set >> r & 1) || (t->room[r] && t->load[r] + part < t->max_load))) r++;
        if (r < t->ranks) continue;
        for (r = 0; r < t->ranks; r++)
            if (set >> r & 1) t->room[r]--, t->load[r] += part;
        bool found = try_placements(t, e + 1);
        for (r = 0; r < t->ranks; r++)
            if (set >> r & 1) t->room[r]++, t->load[r] -= part;
        if (found || t->left <= 0) return found;
    }
    return false;
}

int moe_check_better_exists(struct check_layer *l, int32_t experts, int32_t ranks, int32_t floor,
                            double max_load)
{
    struct trial t = {
        .l = l, .experts = experts, .ranks = ranks, .floor = floor, .max_load = max_load, .left = 20000000
    };
    if (ranks > 8) return -1;
    for (int32_t k = 0; k < l->slots; k++) t.room[l->rank_of[k]]++;
    bool found = try_placements(&t, 0);
    return found ? 1 : t.left > 0 ? 0 : -1;
}
