/* SPDX-License-Identifier: Apache-2.0 */
/* Reads any text as a placement plan in each of the three forms.  It has to be refused with a sentence, or
 * give a whole plan, by which a batch can be split.  The first byte is the number of ranks. */
#undef NDEBUG
#include "runtime/plan/plan.h"

#include <assert.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void split(const struct moe_plan *p, const struct moe_plan_layer *l)
{
    struct moe_err err;
    struct moe_split *s;
    int64_t *tokens = calloc((size_t)p->experts, sizeof *tokens),
            *share = calloc((size_t)l->slots, sizeof *share), *load = calloc((size_t)p->ranks, sizeof *load);
    assert(tokens && share && load && moe_split_open(&s, p, &err) == MOE_OK);
    for (int32_t e = 0; e < p->experts; e++) tokens[e] = e * 7919 % 97;
    struct moe_split_result best = moe_split_best(s, l, tokens, NULL, share, NULL);
    moe_split_loads(p, l, share, load);
    for (int32_t r = 0; r < p->ranks; r++) assert(load[r] <= best.load_max);
    assert(best.load_max <= moe_split_equal(s, l, tokens, NULL, share).load_max && !best.lost);
    moe_split_close(&s);
    free(tokens);
    free(share);
    free(load);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_plan *p;
    if (!size) return 0;
    enum moe_code code = moe_plan_parse(&p, (const char *)data + 1, size - 1, "fuzz", data[0], &err);
    if (code != MOE_OK) {
        assert(err.msg[0] && !p);
        return 0;
    }
    for (int32_t i = 0; i < p->n_layers && i < 4; i++) {
        const struct moe_plan_layer *l = &p->layers[i];
        assert(moe_plan_find(p, l->layer) == l && !moe_plan_lost(p, l, NULL, NULL, 0) &&
               l->first[p->ranks] == l->slots && l->copy_first[p->experts] == l->slots);
        split(p, l);
    }
    moe_plan_free(&p);
    return 0;
}
