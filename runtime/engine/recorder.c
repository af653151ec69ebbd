/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/recorder.h"

#include <stdlib.h>
#include <string.h>

/* struct moe_hooks.routed: a batch of `tokens` tokens has chosen experts [tokens, k]. */
static void routed(void *ctx, int layer, int64_t tokens, const int32_t *experts, const float *weights)
{
    struct moe_recorder *r = ctx;
    int64_t *counts = r->counts + (int64_t)r->index[layer] * r->config->n_routed_experts,
            n = tokens * r->config->num_experts_per_tok;
    (void)weights;
    r->tokens[r->index[layer]] += tokens;
    for (int64_t i = 0; i < n; i++) counts[experts[i]]++;
}

size_t moe_recorder_bytes(const struct moe_config *c)
{
    return (size_t)moe_config_moe_layers(c) * (size_t)(c->n_routed_experts + 1) * sizeof(int64_t);
}

enum moe_code moe_recorder_open(struct moe_recorder **out, const struct moe_config *c, struct moe_forward *f,
                                struct moe_err *err)
{
    struct moe_recorder *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r) return moe_fail(err, MOE_NOMEM, "no memory to record routing");
    if (!moe_config_moe_layers(c)) {
        free(r);
        return moe_fail(err, MOE_UNSUPPORTED,
                        "the model has no layer with routed experts: there is no routing to record");
    }
    r->config = c;
    r->index = calloc((size_t)c->num_hidden_layers, sizeof *r->index);
    for (int64_t l = 0; r->index && l < c->num_hidden_layers; l++)
        if (moe_layer_is_moe(c, l)) r->index[l] = r->n_layers++;
    r->bytes = moe_recorder_bytes(c);
    r->counts = calloc(1, r->bytes + sizeof *r->counts);
    if (!r->index || !r->counts) {
        moe_recorder_close(&r);
        return moe_fail(err, MOE_NOMEM, "no memory to record routing");
    }
    r->tokens = r->counts + (int64_t)r->n_layers * c->n_routed_experts;
    moe_forward_hooks(f, &(struct moe_hooks){ .ctx = r, .routed = routed });
    *out = r;
    return MOE_OK;
}

void moe_recorder_close(struct moe_recorder **r)
{
    if (!*r) return;
    free((*r)->index);
    free((*r)->counts);
    free(*r);
    *r = NULL;
}

enum moe_code moe_recorder_write(const struct moe_config *c, const int64_t *counts, const char *path,
                                 struct moe_err *err)
{
    struct moe_routing *t;
    int32_t *layers = calloc((size_t)c->num_hidden_layers + 1, sizeof *layers), n = 0;
    if (!layers) return moe_fail(err, MOE_NOMEM, "no memory for '%s'", path);
    for (int64_t l = 0; l < c->num_hidden_layers; l++)
        if (moe_layer_is_moe(c, l)) layers[n++] = (int32_t)l;
    enum moe_code code = moe_routing_new(&t, (int32_t)c->n_routed_experts, (int32_t)c->num_experts_per_tok, n,
                                         layers, 1, err);
    free(layers);
    MOE_TRY(code);
    for (int32_t i = 0; i < n; i++)
        memcpy(moe_routing_row(t, 0, i), counts + (int64_t)i * c->n_routed_experts,
               (size_t)c->n_routed_experts * sizeof *counts);
    /* the file has one number of tokens, the largest: a run that was cut off has fewer in its last layers */
    for (int32_t i = 0; i < n; i++)
        if (counts[(int64_t)n * c->n_routed_experts + i] > t->tokens[0])
            t->tokens[0] = counts[(int64_t)n * c->n_routed_experts + i];
    code = moe_routing_write(path, t, true, err);
    moe_routing_free(&t);
    return code;
}
