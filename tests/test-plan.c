/* Placement plans read and refused; the split of a batch held against every cut. */
#include "runtime/plan.h"
#include "tests/ok.h"

#include <stdlib.h>
#include <string.h>

static struct moe_err err;

static uint64_t seed = 1;
static uint32_t random_below(uint32_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((seed >> 33) % n);
}

static enum moe_code parse(const char *text, int32_t ranks, struct moe_plan **p)
{
    char *copy = strdup(text);
    OK(copy);
    enum moe_code code = moe_plan_parse(p, copy, strlen(text), "plan", ranks, &err);
    free(copy);
    return code;
}

static void refuse(enum moe_code want, const char *text, int32_t ranks, const char *says)
{
    struct moe_plan *p;
    enum moe_code got = parse(text, ranks, &p);
    if (got != want || !strstr(err.msg, says)) fprintf(stderr, "'%s' gives %d '%s', not %d '%s'\n", text, got, err.msg, want, says);
    OK(got == want && !p);
    SAYS(says);
    SAYS("plan");
}

static void test_read(void)
{
    struct moe_plan *p;
    OK(parse("{\"version\":1,\"layers\":[{\"layer\":2,\"ranks\":[[0,2],[1,0]]},{\"layer\":5,\"ranks\":[[1,2],[0,1]],\"more\":1}],\"x\":{}}", 0, &p) == MOE_OK);
    OK(p->ranks == 2 && p->experts == 3 && p->n_layers == 2 && !p->survive);
    const struct moe_plan_layer *l = moe_plan_find(p, 5);
    OK(l == &p->layers[1] && l->slots == 4 && !moe_plan_find(p, 3) && !moe_plan_find(p, 6));
    OK(l->copy_first[1] == 1 && l->copy_first[2] == 3 && l->copy_rank[1] == 0 && l->copy_rank[2] == 1 && l->copy_slot[2] == 3);
    const bool dead[] = { true, false };
    int32_t lost[2] = { -1, -1 };
    OK(moe_plan_lost(p, l, dead, lost, 2) == 1 && lost[0] == 2 && moe_plan_copies(l, 1, dead) == 1 && moe_plan_copies(l, 1, NULL) == 2);
    moe_plan_free(&p);
    OK(parse("{\"version\":1,\"experts\":2,\"ranks\":3,\"survive\":1,\"layers\":[{\"layer\":0,\"ranks\":[[0],[1],[]]}]}", 0, &p) == MOE_OK);
    OK(p->ranks == 3 && p->survive == 1 && p->layers[0].first[2] == 2 && p->layers[0].first[3] == 2);
    moe_plan_free(&p);
    OK(parse("{\"physical_to_logical_map\":[[0,1,2,0],[2,1,0,1]]}", 2, &p) == MOE_OK);
    OK(p->ranks == 2 && p->n_layers == 2 && p->layers[1].first[1] == 2 && p->layers[1].slot[0] == 2);
    moe_plan_free(&p);
    OK(parse("num_slots: 4\ninitial_global_assignments:\n  3: [0, 1, 2,\n    0]\n  4: # block\n    - 2\n    - 1\n    - 0\n    - 1\nlayer_updates_per_iter: 1\n", 2, &p) == MOE_OK);
    OK(p->n_layers == 2 && p->layers[0].layer == 3 && p->layers[1].slot[3] == 1 && p->experts == 3);
    moe_plan_free(&p);
}

#define ONE(lists) "{\"version\":1,\"layers\":[{\"layer\":1,\"ranks\":[" lists "]}]}"

static void test_refused(void)
{
    refuse(MOE_CORRUPT, "{}", 0, "'version' is missing");
    refuse(MOE_CORRUPT, "[]", 0, "not a JSON object");
    refuse(MOE_UNSUPPORTED, "{\"version\":2,\"layers\":[]}", 0, "version 2");
    refuse(MOE_CORRUPT, "{\"version\":1}", 0, "'layers' is missing");
    refuse(MOE_CORRUPT, "{\"version\":1,\"layers\":[]}", 0, "empty");
    refuse(MOE_CORRUPT, ONE("[0],[0,0]"), 0, "rank 1: expert 0 is there twice");
    refuse(MOE_CORRUPT, ONE("[0],[2]"), 0, "expert 1 is on no rank");
    refuse(MOE_CORRUPT, ONE("[0],[1.5]"), 0, "not a whole number");
    refuse(MOE_CORRUPT, ONE("[0],[-1]"), 0, "not a whole number");
    refuse(MOE_CORRUPT, ONE("[0],[1e9]"), 0, "not a whole number");
    refuse(MOE_CORRUPT, ONE("[0],1"), 0, "list of experts is missing");
    refuse(MOE_CORRUPT, "{\"version\":1,\"experts\":2,\"layers\":[{\"layer\":1,\"ranks\":[[0,1,2]]}]}", 0, "expert 2 is none of the model's");
    refuse(MOE_CORRUPT, "{\"version\":1,\"ranks\":2,\"layers\":[{\"layer\":1,\"ranks\":[[0]]}]}", 0, "'ranks' says 2");
    refuse(MOE_CORRUPT, "{\"version\":1,\"layers\":[{\"layer\":1,\"ranks\":[[0],[0]]},{\"layer\":2,\"ranks\":[[0]]}]}", 0, "1 ranks, 2 are wanted");
    refuse(MOE_CORRUPT, "{\"version\":1,\"layers\":[{\"layer\":1,\"ranks\":[[0]]},{\"layer\":1,\"ranks\":[[0]]}]}", 0, "there twice");
    refuse(MOE_CORRUPT, "{\"version\":1,\"layers\":[{\"ranks\":[[0]]}]}", 0, "'layer' is missing");
    refuse(MOE_USAGE, "{\"physical_to_logical_map\":[[0,1]]}", 0, "give --ranks");
    refuse(MOE_CORRUPT, "", 2, "is no plan");
    refuse(MOE_CORRUPT, "num_slots: 2\n", 2, "is no plan");
    refuse(MOE_CORRUPT, "num_slots: 3\ninitial_global_assignments:\n 1: [0,1]\n", 2, "2 slots, num_slots is 3");
    refuse(MOE_CORRUPT, "initial_global_assignments:\n 1: [0,x]\n", 2, "line 2: not a number");
    refuse(MOE_CORRUPT, "initial_global_assignments:\n 1: [0,1\n", 2, "a list without end");
    refuse(MOE_CORRUPT, "initial_global_assignments:\n", 2, "empty");
}

static void test_trivial(void)
{
    struct moe_config c = { .num_hidden_layers = 4, .first_k_dense_replace = 1, .moe_layer_freq = 1, .n_routed_experts = 10, .num_experts_per_tok = 2 };
    struct moe_plan *p;
    for (int32_t ranks = 1; ranks < 14; ranks++) {
        OK(moe_plan_trivial(&p, &c, ranks, &err) == MOE_OK);
        OK(p->n_layers == 3 && p->layers[0].layer == 1 && moe_plan_fits(p, &c, ranks, "p", &err) == MOE_OK);
        for (int32_t e = 0; e < 10; e++) OK(p->layers[2].copy_rank[e] == e * ranks / 10);
        FAILS(MOE_MISMATCH, moe_plan_fits(p, &c, ranks + 1, "p", &err));
        c.n_routed_experts = 11;
        FAILS(MOE_MISMATCH, moe_plan_fits(p, &c, ranks, "p", &err));
        c.n_routed_experts = 10;
        c.num_hidden_layers = 5;
        FAILS(MOE_MISMATCH, moe_plan_fits(p, &c, 0, "p", &err));
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
        int32_t e = k < experts ? k : (int32_t)random_below((uint32_t)experts), r = (int32_t)random_below((uint32_t)ranks);
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

/* The largest ceil(tokens that have copies in T alone / |T|) over all sets T of living ranks. */
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
            for (int32_t c = l->copy_first[e]; c < l->copy_first[e + 1]; c++) in += !dead[l->copy_rank[c]] && set >> l->copy_rank[c] & 1;
            sum += all && in == all ? tokens[e] : 0;
        }
        if (living && (sum + size - 1) / size > best) best = (sum + size - 1) / size;
    }
    return best;
}

/* Shares add up, dead ranks get nothing, loads are below what is said; the cut holds what it claims. */
static void check_split(const struct moe_plan *p, const int64_t *tokens, const bool *dead, const int64_t *share, struct moe_split_result got)
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
        int32_t ranks = 1 + (int32_t)random_below(9), experts = 1 + (int32_t)random_below(20), most = ranks * experts;
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
            for (int32_t c = l->copy_first[e]; c < l->copy_first[e + 1]; c++) inside &= cut[l->copy_rank[c]] || dead[l->copy_rank[c]];
            in += inside ? tokens[e] : 0;
        }
        OK(n == best.cut_ranks && in == best.cut_tokens && (!n || (in + n - 1) / n == best.load_max));
        moe_split_best(s, l, tokens, dead, again, NULL);
        OK(!memcmp(share, again, (size_t)slots * sizeof *share));
        moe_split_close(&s);
        moe_plan_free(&p);
    }
}

int main(void)
{
    test_read();
    test_refused();
    test_trivial();
    test_split();
    printf("test-plan: %ld checks\n", checks);
    return 0;
}
