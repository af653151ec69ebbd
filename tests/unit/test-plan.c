/* SPDX-License-Identifier: Apache-2.0 */
/* Tests placement plans that are read and plans that are refused; compares the split of a batch with every
 * cut. */
#include "runtime/plan/plan-internal.h"
#include "runtime/plan/plan-proof.h"
#include "tests/ok.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct moe_err err;

static uint64_t seed = 1;
static uint32_t random_below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % n);
}

static enum moe_code parse(const char *text, int32_t ranks, struct moe_plan **p)
{
    return moe_plan_parse(p, text, strlen(text), "plan", ranks, &err);
}

static void refuse(enum moe_code want, const char *text, int32_t ranks, const char *says)
{
    struct moe_plan *p;
    enum moe_code got = parse(text, ranks, &p);
    if (got != want || !strstr(err.msg, says))
        fprintf(stderr, "'%s' gives %d '%s', not %d '%s'\n", text, got, err.msg, want, says);
    OK(got == want && !p);
    SAYS(says);
    SAYS("plan");
}

static void test_read(void)
{
    struct moe_plan *p;
    OK(parse("{\"version\":1,\"layers\":[{\"layer\":2,\"ranks\":[[0,2],[1,0]]},{\"layer\":5,\"ranks\":[[1,2],"
             "[0,1]],\"more\":1}],\"x\":{}}",
             0, &p) == MOE_OK);
    OK(p->ranks == 2 && p->experts == 3 && p->n_layers == 2 && !p->survive);
    const struct moe_plan_layer *l = moe_plan_find(p, 5);
    OK(l == &p->layers[1] && l->slots == 4 && !moe_plan_find(p, 3) && !moe_plan_find(p, 6));
    OK(l->copy_first[1] == 1 && l->copy_first[2] == 3 && l->copy_rank[1] == 0 && l->copy_rank[2] == 1 &&
       l->copy_slot[2] == 3);
    const bool dead[] = { true, false };
    int32_t lost[2] = { -1, -1 };
    OK(moe_plan_lost(p, l, dead, lost, 2) == 1 && lost[0] == 2 && moe_plan_copies(l, 1, dead) == 1 &&
       moe_plan_copies(l, 1, NULL) == 2);
    moe_plan_free(&p);
    OK(parse("{\"version\":1,\"experts\":2,\"ranks\":3,\"survive\":1,\"layers\":[{\"layer\":0,\"ranks\":[[0],"
             "[1],[]]}]}",
             0, &p) == MOE_OK);
    OK(p->ranks == 3 && p->survive == 1 && p->layers[0].first[2] == 2 && p->layers[0].first[3] == 2);
    moe_plan_free(&p);
    OK(parse("{\"physical_to_logical_map\":[[0,1,2,0],[2,1,0,1]]}", 2, &p) == MOE_OK);
    OK(p->ranks == 2 && p->n_layers == 2 && p->layers[1].first[1] == 2 && p->layers[1].slot[0] == 2);
    moe_plan_free(&p);
    OK(parse("num_slots: 4\ninitial_global_assignments:\n  3: [0, 1, 2,\n    0]\n  4: # block\n    - 2\n    "
             "- 1\n    - 0\n    - 1\nlayer_updates_per_iter: 1\n",
             2, &p) == MOE_OK);
    OK(p->n_layers == 2 && p->layers[0].layer == 3 && p->layers[1].slot[3] == 1 && p->experts == 3);
    moe_plan_free(&p);
}

#define ONE(lists) "{\"version\":1,\"layers\":[{\"layer\":1,\"ranks\":[" lists "]}]}"

static void test_refused(void)
{
    static const char *const predictions[] = { "1e300", "-1e300", "0",   "32768",
                                               "1.5",   "\"1\"",  "1,3", "1,1e300" };
    char text[128];
    refuse(MOE_CORRUPT, "{}", 0, "is no plan: it has neither");
    refuse(MOE_CORRUPT, "[]", 0, "not a JSON object");
    refuse(MOE_UNSUPPORTED, "{\"version\":2,\"layers\":[]}", 0, "version 2");
    refuse(MOE_CORRUPT, "{\"version\":1}", 0, "is no plan: it has neither");
    refuse(MOE_CORRUPT, "{\"version\":1,\"layers\":[]}", 0, "empty");
    refuse(MOE_CORRUPT, ONE("[0],[0,0]"), 0, "rank 1: expert 0 is there twice");
    refuse(MOE_CORRUPT, ONE("[0],[2]"), 0, "expert 1 is on no rank");
    refuse(MOE_CORRUPT, ONE("[0],[1.5]"), 0, "not a whole number");
    refuse(MOE_CORRUPT, ONE("[0],[-1]"), 0, "not a whole number");
    refuse(MOE_CORRUPT, ONE("[0],[1e9]"), 0, "not a whole number");
    refuse(MOE_CORRUPT, ONE("[0],1"), 0, "list of experts is missing");
    for (size_t i = 0; i < sizeof predictions / sizeof *predictions; i++) {
        snprintf(text, sizeof text,
                 "{\"version\":1,\"prediction_layers\":[%s],\"layers\":[{\"layer\":0,\"ranks\":[[0]]}]}",
                 predictions[i]);
        refuse(MOE_CORRUPT, text, 0, "'prediction_layers' is no list of layers one after the other");
    }
    refuse(MOE_CORRUPT, "{\"version\":1,\"experts\":2,\"layers\":[{\"layer\":1,\"ranks\":[[0,1,2]]}]}", 0,
           "expert 2 is none of the model's");
    refuse(MOE_CORRUPT, "{\"version\":1,\"ranks\":2,\"layers\":[{\"layer\":1,\"ranks\":[[0]]}]}", 0,
           "'ranks' says 2");
    refuse(MOE_CORRUPT,
           "{\"version\":1,\"layers\":[{\"layer\":1,\"ranks\":[[0],[0]]},{\"layer\":2,\"ranks\":[[0]]}]}", 0,
           "1 rank, 2 are wanted");
    refuse(MOE_CORRUPT,
           "{\"version\":1,\"layers\":[{\"layer\":1,\"ranks\":[[0]]},{\"layer\":1,\"ranks\":[[0]]}]}", 0,
           "there twice");
    refuse(MOE_CORRUPT, "{\"version\":1,\"layers\":[{\"ranks\":[[0]]}]}", 0, "'layer' is missing");
    refuse(MOE_USAGE, "{\"physical_to_logical_map\":[[0,1]]}", 0, "give --ranks");
    refuse(MOE_CORRUPT, "", 2, "is no plan");
    refuse(MOE_CORRUPT, "num_slots: 2\n", 2, "is no plan");
    refuse(MOE_CORRUPT, "num_slots: 3\ninitial_global_assignments:\n 1: [0,1]\n", 2,
           "2 slots, num_slots is 3");
    refuse(MOE_CORRUPT, "initial_global_assignments:\n 1: [0,x]\n", 2, "line 2: not a number");
    refuse(MOE_CORRUPT, "initial_global_assignments:\n 1: [0,1\n", 2, "a list without end");
    refuse(MOE_CORRUPT, "initial_global_assignments:\n", 2, "empty");
}

static void test_trivial(void)
{
    struct moe_config c = { .num_hidden_layers = 4,
                            .first_k_dense_replace = 1,
                            .moe_layer_freq = 1,
                            .n_routed_experts = 10,
                            .num_experts_per_tok = 2 };
    struct moe_plan *p;
    for (int32_t ranks = 1; ranks < 14; ranks++) {
        OK(moe_plan_trivial(&p, &c, ranks, &err) == MOE_OK);
        OK(p->n_layers == 3 && p->layers[0].layer == 1 && moe_plan_bind(p, &c, ranks, "p", &err) == MOE_OK);
        for (int32_t e = 0; e < 10; e++) OK(p->layers[2].copy_rank[e] == e * ranks / 10);
        FAILS(MOE_MISMATCH, moe_plan_bind(p, &c, ranks + 1, "p", &err));
        c.n_routed_experts = 11;
        FAILS(MOE_MISMATCH, moe_plan_bind(p, &c, ranks, "p", &err));
        c.n_routed_experts = 10;
        c.num_hidden_layers = 5;
        FAILS(MOE_MISMATCH, moe_plan_bind(p, &c, 0, "p", &err));
        c.num_hidden_layers = 4;
        moe_plan_free(&p);
    }
}

/* A plan of one layer: one copy of each expert, then more at random where there is none yet. */
static struct moe_plan *random_plan(int32_t ranks, int32_t experts, int32_t slots)
{
    static const int32_t layer = 3;
    struct moe_plan *p;
    OK(moe_plan_new(&p, ranks, experts, 1, &layer, slots, &err) == MOE_OK);
    struct moe_plan_layer *l = &p->layers[0];
    bool has[16][64] = { { false } };
    int32_t n[16] = { 0 }, list[16][64];
    for (int32_t k = 0, tries = 0; k < slots; tries++) {
        int32_t e = k < experts ? k : (int32_t)random_below((uint32_t)experts),
                r = (int32_t)random_below((uint32_t)ranks);
        OK(tries < 100000);
        if (has[r][e]) continue;
        has[r][e] = true;
        list[r][n[r]++] = e;
        k++;
    }
    for (int32_t r = 0; r < ranks; r++) {
        memcpy(l->slot + l->first[r], list[r], (size_t)n[r] * sizeof(int32_t));
        l->first[r + 1] = l->first[r] + n[r];
    }
    OK(moe_plan_index(p, "random", &err) == MOE_OK);
    return p;
}

/* The largest ceil(tokens whose copies all lie in T / |T|) over all sets T of living ranks. */
static int64_t best_by_cuts(const struct moe_plan *p, const int64_t *tokens, const bool *dead)
{
    const struct moe_plan_layer *l = &p->layers[0];
    int64_t best = 0;
    for (unsigned set = 1; set < 1u << p->ranks; set++) {
        int64_t sum = 0, size = __builtin_popcount(set);
        bool living = true;
        for (int32_t r = 0; r < p->ranks; r++) living &= !(set >> r & 1 && dead[r]);
        for (int32_t e = 0; living && e < p->experts; e++) {
            int32_t in = 0, all = moe_plan_copies(l, e, dead);
            for (int32_t c = l->copy_first[e]; c < l->copy_first[e + 1]; c++)
                in += !dead[l->copy_rank[c]] && set >> l->copy_rank[c] & 1;
            sum += all && in == all ? tokens[e] : 0;
        }
        if (living && (sum + size - 1) / size > best) best = (sum + size - 1) / size;
    }
    return best;
}

/* Checks that shares add up, dead ranks get nothing, loads are at most what is claimed, and the cut
 * carries what it claims. */
static void check_split(const struct moe_plan *p, const int64_t *tokens, const bool *dead,
                        const int64_t *share, struct moe_split_result got)
{
    const struct moe_plan_layer *l = &p->layers[0];
    int64_t load[16], max = 0;
    int32_t lost = 0;
    for (int32_t e = 0; e < p->experts; e++) {
        int64_t sum = 0;
        for (int32_t c = l->copy_first[e]; c < l->copy_first[e + 1]; c++) {
            OK(share[c] >= 0 && (!dead[l->copy_rank[c]] || !share[c]));
            sum += share[c];
        }
        bool gone = !moe_plan_copies(l, e, dead);
        lost += gone && tokens[e];
        OK(sum == (gone ? 0 : tokens[e]));
        for (int64_t i = 0; i < tokens[e]; i += 1 + tokens[e] / 7) {
            int32_t c = moe_split_copy(l, share, e, i);
            OK(gone ? c == -1 : c >= l->copy_first[e] && c < l->copy_first[e + 1] && share[c] > 0);
        }
    }
    moe_split_loads(p, l, share, load);
    for (int32_t r = 0; r < p->ranks; r++) max = load[r] > max ? load[r] : max;
    OK(max <= got.load_max && lost == got.lost);
    if (!got.cut_ranks) OK(max == got.load_max);
}

static void test_split(void)
{
    for (int round = 0; round < 1500; round++) {
        int32_t ranks = 1 + (int32_t)random_below(9), experts = 1 + (int32_t)random_below(20),
                most = ranks * experts;
        int32_t slots = experts + (int32_t)random_below((uint32_t)(most - experts) / 2 + 1);
        uint32_t scale = round % 3 ? 1u << random_below(20) : 3;
        struct moe_plan *p = random_plan(ranks, experts, slots);
        const struct moe_plan_layer *l = &p->layers[0];
        int64_t tokens[64], share[512], again[512];
        bool dead[16] = { false }, cut[16];
        struct moe_split *s;
        for (int32_t e = 0; e < experts; e++) tokens[e] = random_below(4) ? random_below(scale) : 0;
        tokens[0] *= random_below(10);
        for (int32_t r = 0; r < ranks && round % 2; r++) dead[r] = !random_below(4);
        OK(moe_split_open(&s, p, &err) == MOE_OK);
        struct moe_split_result equal = moe_split_equal(s, l, tokens, dead, share);
        check_split(p, tokens, dead, share, equal);
        struct moe_split_result best = moe_split_best(s, l, tokens, dead, share, cut);
        check_split(p, tokens, dead, share, best);
        OK(best.load_max == best_by_cuts(p, tokens, dead) && best.load_max <= equal.load_max);
        int64_t in = 0;
        int32_t n = 0;
        for (int32_t r = 0; r < ranks; r++) n += cut[r];
        for (int32_t e = 0; e < experts; e++) {
            bool inside = moe_plan_copies(l, e, dead) > 0;
            for (int32_t c = l->copy_first[e]; c < l->copy_first[e + 1]; c++)
                inside &= cut[l->copy_rank[c]] || dead[l->copy_rank[c]];
            in += inside ? tokens[e] : 0;
        }
        OK(n == best.cut_ranks && in == best.cut_tokens && (!n || (in + n - 1) / n == best.load_max));
        moe_split_best(s, l, tokens, dead, again, NULL);
        OK(!memcmp(share, again, (size_t)slots * sizeof *share));
        moe_split_close(&s);
        moe_plan_free(&p);
    }
}

/* The example of EPLB's README, which its own tests and those of vLLM check, too. */
static void test_eplb(void)
{
    static const float load[2][12] = { { 90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86 },
                                       { 20, 107, 104, 64, 19, 197, 187, 157, 172, 86, 16, 27 } };
    static const int32_t want[2][16] = { { 5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1 },
                                         { 7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1 } };
    int32_t got[16];
    for (int i = 0; i < 2; i++) {
        OK(moe_eplb(got, load[i], 12, 16, 4, 2, 8, &err) == MOE_OK);
        OK(!memcmp(got, want[i], sizeof got));
    }
    FAILS(MOE_UNSUPPORTED, moe_eplb(got, load[0], 12, 15, 4, 2, 8, &err));
    FAILS(MOE_UNSUPPORTED, moe_eplb(got, load[0], 12, 8, 4, 2, 8, &err));
}

static struct moe_routing *random_stats(int32_t experts, int32_t windows, uint32_t scale)
{
    static const int32_t layer = 3;
    struct moe_routing *r;
    OK(moe_routing_new(&r, experts, 1, 1, &layer, windows, &err) == MOE_OK);
    for (int32_t i = 0; i < experts * windows; i++)
        r->counts[i] = 1 + (random_below(3) ? random_below(scale) : random_below(scale / 8 + 1));
    return r;
}

/* The smallest largest load of any placement, by trying all: expert by expert, every set of ranks. */
struct all { const struct moe_plan_task *t; const double *w; double load[4], best; int32_t room[4]; };

static void try_all(struct all *x, int32_t e)
{
    const struct moe_plan_task *t = x->t;
    double max = 0;
    int32_t room = 0;
    for (int32_t r = 0; r < t->ranks; r++) max = x->load[r] > max ? x->load[r] : max, room += x->room[r];
    if (max >= x->best) return;
    if (e == t->stats->experts) {
        if (!room) x->best = max;
        return;
    }
    for (unsigned set = 1; set < 1u << t->ranks; set++) {
        int n = __builtin_popcount(set);
        bool fits = n > t->survive;
        for (int32_t r = 0; r < t->ranks; r++) fits &= !(set >> r & 1) || x->room[r];
        if (!fits) continue;
        double keep[4];
        memcpy(keep, x->load, sizeof keep);
        for (int32_t r = 0; r < t->ranks; r++)
            if (set >> r & 1) x->load[r] += x->w[e] / n, x->room[r]--;
        try_all(x, e + 1);
        memcpy(x->load, keep, sizeof keep);
        for (int32_t r = 0; r < t->ranks; r++)
            if (set >> r & 1) x->room[r]++;
    }
}

static double optimum(const struct moe_plan_task *t)
{
    double w[64], mean;
    struct all x = { .t = t, .w = w, .best = 1e300 };
    moe_place_weights(t, 0, w, &mean);
    for (int32_t r = 0; r < t->ranks; r++) x.room[r] = t->slots / t->ranks + (r < t->slots % t->ranks);
    try_all(&x, 0);
    return x.best;
}

/* Small tasks: the plan is the optimum, no bound is above it, and the bound "exact" is the optimum. */
static void test_small(void)
{
    for (int round = 0; round < 120; round++) {
        int32_t ranks = 2 + (int32_t)random_below(3), experts = 3 + (int32_t)random_below(4),
                survive = ranks > 2 && !random_below(4);
        int32_t slots = experts * (1 + survive) +
                        (int32_t)random_below((uint32_t)(experts * (ranks - 1 - survive)) + 1);
        struct moe_routing *r = random_stats(experts, 1, 1000);
        struct moe_plan_task t = { .ranks = ranks, .slots = slots, .survive = survive, .stats = r };
        struct moe_plan *p;
        struct moe_plan_proofs *f;
        OK(moe_plan_search(&p, &t, NULL, &err) == MOE_OK &&
           moe_plan_prove(&f, p, &t, 16, NULL, &err) == MOE_OK);
        double best = optimum(&t);
        const struct moe_plan_proof *l = &f->layers[0];
        OK(l->load_max >= best * (1 - 1e-9) && l->load_max <= best * (1 + 4e-4));
        for (int k = 0; k < MOE_BOUND_COUNT; k++) OK(l->bounds.of[k] <= best * (1 + 1e-9));
        if (l->bounds.kind == MOE_BOUND_EXACT) OK(l->bounds.best >= best * (1 - 1e-9));
        OK(l->gap <= 4e-4 && l->copies_min > survive && l->lost_worst == 0 + (survive ? 0 : l->lost_worst));
        OK(l->split <= l->load_max * (1 + 1e-9) && l->split >= l->load_mean * (1 - 1e-9));
        moe_plan_proofs_free(&f);
        moe_plan_free(&p);
        moe_routing_free(&r);
    }
}

/* Any task: the result is a whole plan with the slots, copies and nodes asked for, also from an old plan
 * of another shape, and its bounds are below its loads. */
static void test_any(void)
{
    struct moe_plan *old = NULL;
    struct moe_routing *r = random_stats(40, 3, 5000);
    for (int round = 0; round < 150; round++) {
        int32_t ranks = 2 + (int32_t)random_below(14), survive = (int32_t)random_below(3) % ranks,
                least = 40 * (survive + 1);
        int32_t most = 40 * ranks,
                slots = least + (int32_t)random_below((uint32_t)(most - least < 60 ? most - least + 1 : 60));
        int32_t node = ranks % 2 || random_below(2) ? 0 : ranks / 2;
        struct moe_plan_task t = { .ranks = ranks,
                                   .slots = slots,
                                   .survive = survive,
                                   .ranks_per_node = node,
                                   .stats = r,
                                   .target = 0.05,
                                   .from = old && random_below(3) ? old : NULL };
        struct moe_plan *p;
        struct moe_plan_proofs *f;
        for (int32_t i = 0; i < 120; i++) r->counts[i] += random_below(50);
        OK(moe_plan_search(&p, &t, NULL, &err) == MOE_OK &&
           moe_plan_prove(&f, p, &t, 16, NULL, &err) == MOE_OK);
        const struct moe_plan_proof *l = &f->layers[0];
        OK(p->layers[0].slots == slots && l->copies_min > survive && l->gap >= 0 &&
           l->load_max >= l->load_mean * (1 - 1e-9));
        for (int32_t q = 0; q < ranks; q++)
            OK(p->layers[0].first[q + 1] - p->layers[0].first[q] == slots / ranks + (q < slots % ranks));
        if (survive) OK(!l->lost_worst && l->load_max_after_loss >= l->bounds.after_loss * (1 - 1e-6));
        moe_plan_proofs_free(&f);
        moe_plan_free(&old);
        old = p;
    }
    moe_plan_free(&old);
    moe_routing_free(&r);
}

/* From a plan whose loads have not changed nothing moves; a plan whose ranks were renamed is recognized. */
static void test_from(void)
{
    struct moe_routing *r = random_stats(96, 1, 100000);
    struct moe_plan_task t = { .ranks = 12, .slots = 120, .stats = r, .target = 0.01 };
    struct moe_plan *p, *q;
    struct moe_plan_proofs *f;
    OK(moe_plan_search(&p, &t, NULL, &err) == MOE_OK);
    t.from = p;
    OK(moe_plan_search(&q, &t, NULL, &err) == MOE_OK && moe_plan_prove(&f, q, &t, 16, NULL, &err) == MOE_OK);
    OK(!f->moves && !memcmp(p->layers[0].slot, q->layers[0].slot, 120 * sizeof(int32_t)));
    moe_plan_proofs_free(&f);
    struct moe_place *s;
    OK(moe_place_open(&s, &t, 0, &err) == MOE_OK);
    /* every rank three places on */
    for (int32_t k = 0; k < 120; k++) s->slot[k] = p->layers[0].slot[(k + 30) % 120];
    moe_place_loads(s);
    OK(moe_place_moves(s, p, &p->layers[0]) > 60);
    OK(moe_place_relabel(s, p, &p->layers[0], &err) == MOE_OK && !moe_place_moves(s, p, &p->layers[0]));
    moe_place_order(s, p, &p->layers[0]);
    OK(!memcmp(p->layers[0].slot, s->slot, 120 * sizeof(int32_t)));
    moe_place_close(&s);
    moe_plan_free(&q);
    moe_plan_free(&p);
    moe_routing_free(&r);
}

static void test_task(void)
{
    struct moe_routing *r = random_stats(8, 1, 100);
    struct moe_plan *p;
    const struct moe_plan_task bad[] = { { .ranks = 0, .slots = 8 },
                                         { .ranks = 2, .slots = 7 },
                                         { .ranks = 2, .slots = 17 },
                                         { .ranks = 2, .slots = 16, .survive = 2 },
                                         { .ranks = 4, .slots = 15, .survive = 1 },
                                         { .ranks = 9, .slots = 9, .ranks_per_node = 2 } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct moe_plan_task t = bad[i];
        t.stats = r;
        FAILS(MOE_USAGE, moe_plan_search(&p, &t, NULL, &err));
        OK(!p);
    }
    for (int32_t i = 0; i < 8; i++) r->counts[i] = 0; /* a layer that nothing was routed in */
    struct moe_plan_task t = { .ranks = 3, .slots = 9, .stats = r };
    struct moe_plan_proofs *f;
    OK(moe_plan_search(&p, &t, NULL, &err) == MOE_OK && moe_plan_prove(&f, p, &t, 16, NULL, &err) == MOE_OK);
    OK(!f->layers[0].load_max && !f->gap);
    moe_plan_proofs_free(&f);
    moe_plan_free(&p);
    moe_routing_free(&r);
}

/* A plan of n layers of two experts on so many ranks, its proof, and the processor time of both. */
static double time_of(int32_t ranks)
{
    static const int32_t layers[] = { 1, 2, 3, 4 };
    struct moe_routing *r;
    struct moe_plan *p;
    struct moe_plan_proofs *f;
    double best = 1e9;
    OK(moe_routing_new(&r, 2, 1, 4, layers, 1, &err) == MOE_OK);
    for (int32_t i = 0; i < 8; i++) r->counts[i] = 100 + 37 * i;
    struct moe_plan_task t = { .ranks = ranks, .slots = ranks, .stats = r };
    for (int round = 0; round < 3; round++) {
        clock_t start = clock();
        OK(moe_plan_search(&p, &t, NULL, &err) == MOE_OK &&
           moe_plan_prove(&f, p, &t, 16, NULL, &err) == MOE_OK);
        double took = (double)(clock() - start) / CLOCKS_PER_SEC;
        best = took < best ? took : best;
        OK(f->layers[0].copies_min > 1 && f->layers[0].load_max_after_loss >= f->layers[0].split);
        moe_plan_proofs_free(&f);
        moe_plan_free(&p);
    }
    moe_routing_free(&r);
    return best;
}

/* Few experts on many ranks: the loss of each rank was a flow over all pairs of
 * copies, the cube of the ranks. */
static void test_many_ranks(void)
{
    double few = time_of(128), many = time_of(1024);
    if (many > 150 * few && many > 0.1)
        fprintf(stderr, "128 ranks: %.4f s, 1,024 ranks: %.4f s\n", few, many);
    OK(many <= 150 * few || many <= 0.1); /* the square is 64 times, the cube 512 */
}

int main(void)
{
    test_eplb();
    test_task();
    test_small();
    test_any();
    test_from();
    test_read();
    test_refused();
    test_trivial();
    test_split();
    test_many_ranks();
    printf("test-plan: %ld checks\n", checks);
    return 0;
}
