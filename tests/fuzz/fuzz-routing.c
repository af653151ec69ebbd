/* SPDX-License-Identifier: Apache-2.0 */
/* Reads any text as routing statistics, ours or SGLang's.  They have to be refused with a sentence, or lie
 * within every limit and be the same after they were written and read again. */
#undef NDEBUG
#include "formats/routing.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void same(const struct moe_routing *a, const struct moe_routing *b)
{
    size_t n = (size_t)a->n_windows * (size_t)a->n_layers * (size_t)a->experts;
    assert(a->experts == b->experts && a->experts_per_token == b->experts_per_token &&
           a->n_layers == b->n_layers && a->n_windows == b->n_windows);
    assert(!memcmp(a->layers, b->layers, (size_t)a->n_layers * sizeof *a->layers));
    assert(!memcmp(a->tokens, b->tokens, (size_t)a->n_windows * sizeof *a->tokens));
    assert(!memcmp(a->counts, b->counts, n * sizeof *a->counts));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_routing *r, *again;
    char *text = malloc(size + 1);
    assert(text);
    if (size) memcpy(text, data, size);
    enum moe_code code = moe_routing_parse(text, size, "fuzz", NULL, &r, &err);
    free(text);
    if (code != MOE_OK) {
        assert(err.msg[0] && !r);
        return 0;
    }
    assert(moe_routing_check(r, "fuzz", &err) == MOE_OK);
    if (r->layers) {
        assert((text = moe_routing_print(r, &size)));
        assert(moe_routing_parse(text, size, "again", NULL, &again, &err) == MOE_OK);
        same(r, again);
        moe_routing_free(&again);
        free(text);
    }
    moe_routing_merge(r, 2);
    assert(r->n_windows <= 2);
    moe_routing_free(&r);
    return 0;
}
