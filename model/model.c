/* SPDX-License-Identifier: Apache-2.0 */
/* Opens a model: finds its weights by role, converts small vectors to float32, and computes tables. */
#include "model/model.h"

#include "kernels/kernels.h"
#include "kernels/many.h"

#include <math.h>
#include <stdlib.h>

/* A model that is being opened; code: the first error, whose message is in *err. */
struct opener { struct moe_model *m; enum moe_code code; struct moe_err *err; };

/* Sets *w to the weight of this role; leaves it as it is when the source has none. */
static void find_weight(struct opener *o, enum moe_role role, int layer, int expert, struct moe_weight *w)
{
    const struct moe_tensor *t = moe_source_find(o->m->source, role, layer, expert);
    if (t) moe_source_weight(o->m->source, t, w);
}

/* Converts a norm or a router bias to floats in the arena.  NULL when the source has none, or after a
 * failure, which o->code tells. */
static const float *load_vector(struct opener *o, enum moe_role role, int layer)
{
    struct moe_weight w = { 0 };

    find_weight(o, role, layer, -1, &w);
    if (!w.data || o->code != MOE_OK) return NULL;
    float *v = MOE_NEWN(&o->m->arena, float, w.rows * w.cols);
    if (!v) {
        o->code = moe_fail(o->err, MOE_NOMEM, "no memory for the norms");
        return NULL;
    }
    moe_dequantize_many(&w, 0, w.rows, v);
    if (!isfinite(moe_kernels()->amax(v, w.rows * w.cols))) {
        const struct moe_tensor *t = moe_source_find(o->m->source, role, layer, -1);
        char name[128];
        o->code = moe_fail_at(o->err, MOE_NONFINITE, o->m->source->files[t->plane[0].file].name,
                              moe_tensor_name(role, layer, -1, name),
                              "holds a NaN or Inf (the model is damaged)");
    }
    return v;
}

/* Finds the three weights of an MLP; the roles of up and down are the two after `gate`. */
static void find_mlp(struct opener *o, enum moe_role gate, int layer, int expert, struct moe_expert *e)
{
    find_weight(o, gate, layer, expert, &e->gate);
    find_weight(o, (enum moe_role)(gate + 1), layer, expert, &e->up);
    find_weight(o, (enum moe_role)(gate + 2), layer, expert, &e->down);
}

/* Finds the weights of layer l, and converts its norms and its router bias. */
static void find_layer(struct opener *o, int l)
{
    struct moe_layer *y = &o->m->layers[l];
    const struct moe_config *c = &o->m->config;

    y->moe = moe_layer_is_moe(c, l);
    y->input_norm = load_vector(o, MOE_ROLE_INPUT_NORM, l);
    y->post_norm = load_vector(o, MOE_ROLE_POST_NORM, l);
    if (c->q_lora_rank) {
        find_weight(o, MOE_ROLE_Q_A, l, -1, &y->q_a);
        y->q_a_norm = load_vector(o, MOE_ROLE_Q_A_NORM, l);
        find_weight(o, MOE_ROLE_Q_B, l, -1, &y->q_b);
    } else {
        find_weight(o, MOE_ROLE_Q, l, -1, &y->q);
    }
    find_weight(o, MOE_ROLE_KV_A, l, -1, &y->kv_a);
    y->kv_a_norm = load_vector(o, MOE_ROLE_KV_A_NORM, l);
    find_weight(o, MOE_ROLE_KV_B, l, -1, &y->kv_b);
    find_weight(o, MOE_ROLE_O, l, -1, &y->o);
    if (!y->moe) {
        find_mlp(o, MOE_ROLE_GATE, l, -1, &y->dense);
        return;
    }
    find_weight(o, MOE_ROLE_ROUTER, l, -1, &y->router);
    y->router_bias = load_vector(o, MOE_ROLE_ROUTER_BIAS, l);
    if (c->n_shared_experts) find_mlp(o, MOE_ROLE_SHARED_GATE, l, -1, &y->shared);
    y->experts = MOE_NEWN(&o->m->arena, struct moe_expert, c->n_routed_experts);
    if (!y->experts) {
        o->code = moe_fail(o->err, MOE_NOMEM, "no memory for the descriptors of %lld experts",
                           (long long)c->n_routed_experts);
        return;
    }
    for (int64_t e = 0; e < c->n_routed_experts; e++)
        find_mlp(o, MOE_ROLE_EXPERT_GATE, l, (int)e, &y->experts[e]);
}

/* Sets the parameters of rotary embedding and of routing from the config, and computes the rotary
 * frequencies. */
static void compute_tables(struct opener *o)
{
    struct moe_model *m = o->m;
    const struct moe_config *c = &m->config;

    m->rope = (struct moe_rope_config){ .dim = c->qk_rope_head_dim,
                                        .theta = c->rope_theta,
                                        .yarn = c->yarn,
                                        .factor = c->yarn_factor,
                                        .beta_fast = c->beta_fast,
                                        .beta_slow = c->beta_slow,
                                        .mscale = c->mscale,
                                        .mscale_all_dim = c->mscale_all_dim,
                                        .original_max = c->original_max_position_embeddings };
    m->route = (struct moe_router){ .n_experts = c->n_routed_experts,
                                    .top_k = c->num_experts_per_tok,
                                    .n_group = c->n_group,
                                    .topk_group = c->topk_group,
                                    .norm_topk_prob = c->norm_topk_prob,
                                    .scale = (float)c->routed_scaling_factor };
    m->softmax_scale = moe_softmax_scale(&m->rope, c->qk_nope_head_dim + c->qk_rope_head_dim);
    float *f = MOE_NEWN(&m->arena, float, c->qk_rope_head_dim / 2 + 1);
    if (f) moe_rope_frequencies(&m->rope, f);
    else o->code = moe_fail(o->err, MOE_NOMEM, "no memory for rotary tables");
    m->inv_freq = f;
}

enum moe_code moe_model_open(struct moe_model **out, struct moe_source *src, double lora_eps,
                             struct moe_err *err)
{
    *out = NULL;
    MOE_TRY(moe_source_map(src, err));
    struct moe_model *m = calloc(1, sizeof *m);
    if (!m) return moe_fail(err, MOE_NOMEM, "no memory for a model");
    struct opener o = { m, MOE_OK, err };
    m->config = src->config;
    m->source = src;
    m->eps = (float)src->config.rms_norm_eps;
    m->lora_eps = lora_eps > 0 ? (float)lora_eps : m->eps;
    m->layers = MOE_NEWN(&m->arena, struct moe_layer, src->config.num_hidden_layers);
    if (!m->layers) o.code = moe_fail(err, MOE_NOMEM, "no memory for a model");
    if (o.code == MOE_OK) compute_tables(&o);
    find_weight(&o, MOE_ROLE_EMBED, -1, -1, &m->embed);
    find_weight(&o, MOE_ROLE_HEAD, -1, -1, &m->head);
    m->norm = load_vector(&o, MOE_ROLE_NORM, -1);
    for (int64_t l = 0; o.code == MOE_OK && l < src->config.num_hidden_layers; l++) find_layer(&o, (int)l);
    if (o.code != MOE_OK) moe_model_close(&m);
    *out = m;
    return o.code;
}

void moe_model_close(struct moe_model **m)
{
    if (!*m) return;
    moe_arena_clear(&(*m)->arena);
    free(*m);
    *m = NULL;
}
