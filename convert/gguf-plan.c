/* SPDX-License-Identifier: Apache-2.0 */
/* convert/gguf-plan.c - the tensors of the GGUF file, with llama.cpp's names and shapes. */
#include "convert/gguf-internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The name of each role, for those in layers without "blk.L.".  f32: llama.cpp keeps it in F32, whatever the
 * file's type.  inputs: llama.cpp's loader accepts input scales for it. */
static const struct { const char *name; bool vector, f32, inputs; } table[MOE_ROLE_COUNT] = {
    [MOE_ROLE_EMBED]       = { "token_embd.weight",         false, false, false },
    [MOE_ROLE_NORM]        = { "output_norm.weight",        true,  true,  false },
    [MOE_ROLE_HEAD]        = { "output.weight",             false, false, true },
    [MOE_ROLE_INPUT_NORM]  = { "attn_norm.weight",          true,  true,  false },
    [MOE_ROLE_POST_NORM]   = { "ffn_norm.weight",           true,  true,  false },
    [MOE_ROLE_Q_A]         = { "attn_q_a.weight",           false, false, false },
    [MOE_ROLE_Q_A_NORM]    = { "attn_q_a_norm.weight",      true,  true,  false },
    [MOE_ROLE_Q_B]         = { "attn_q_b.weight",           false, false, false },
    [MOE_ROLE_KV_A]        = { "attn_kv_a_mqa.weight",      false, false, false },
    [MOE_ROLE_KV_A_NORM]   = { "attn_kv_a_norm.weight",     true,  true,  false },
    [MOE_ROLE_KV_B]        = { "attn_k_b.weight",           false, false, false }, /* + attn_v_b.weight */
    [MOE_ROLE_O]           = { "attn_output.weight",        false, false, true },
    [MOE_ROLE_GATE]        = { "ffn_gate.weight",           false, false, true },
    [MOE_ROLE_UP]          = { "ffn_up.weight",             false, false, true },
    [MOE_ROLE_DOWN]        = { "ffn_down.weight",           false, false, true },
    [MOE_ROLE_ROUTER]      = { "ffn_gate_inp.weight",       false, true,  false },
    [MOE_ROLE_ROUTER_BIAS] = { "exp_probs_b.bias",          true,  true,  false },
    [MOE_ROLE_SHARED_GATE] = { "ffn_gate_shexp.weight",     false, false, true },
    [MOE_ROLE_SHARED_UP]   = { "ffn_up_shexp.weight",       false, false, true },
    [MOE_ROLE_SHARED_DOWN] = { "ffn_down_shexp.weight",     false, false, true },
    [MOE_ROLE_EXPERT_GATE] = { "ffn_gate_exps.weight",      false, false, true },
    [MOE_ROLE_EXPERT_UP]   = { "ffn_up_exps.weight",        false, false, true },
    [MOE_ROLE_EXPERT_DOWN] = { "ffn_down_exps.weight",      false, false, true },
    [MOE_ROLE_Q]           = { "attn_q.weight",             false, false, true },
};

bool moe_gguf_keeps_f32(enum moe_role role) { return table[role].f32; }

/* Where a weight is divided by a power of two its inputs are multiplied by it.  This does not hold of
 * experts' down, whose output is multiplied instead, by the factor of routing weights. */
float moe_gguf_input_scale(const struct moe_gguf_plan *p, const struct moe_source *src, int64_t i)
{
    const struct moe_tensor *t = &src->tensors[i];
    bool down = t->role == MOE_ROLE_EXPERT_DOWN; /* other weights of the role down have power 0 */
    if (t->plane[MOE_PLANE_INPUT].file < 0) return 1.0f;
    float v = t->reciprocal ? 1.0f / t->input_scale : t->input_scale;
    return v == 1.0f ? v : ldexpf(v, down ? 0 : -p->powers->power[i]); /* 1 stands for no calibration */
}

/* Adds a tensor of shape [a], [a, b] or [a, b, c] in ggml's order; b or c 0: fewer dimensions. */
static struct moe_gguf_tensor *add(struct moe_gguf_plan *p, int layer, const char *name, uint32_t type,
                                   uint64_t a, uint64_t b, uint64_t c)
{
    struct moe_gguf_tensor *t = &p->t[p->n];
    *t = (struct moe_gguf_tensor){ .type = type,
                                   .ndim = c ? 3
                                         : b ? 2
                                             : 1,
                                   .ne = { a, b ? b : 1, c ? c : 1, 1 } };
    if (layer < 0) snprintf(t->name, sizeof t->name, "%s", name);
    else snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, name);
    p->input[p->n] = -1;
    p->n++;
    return t;
}

/* Adds the F32 tensor "X.input_scale" [n] for tensor number `of`, "X.weight", which is made from n tensors of
 * the model, `first` and every stride-th after it.  Adds nothing when all input scales are 1, which stands
 * for no calibration. */
static void add_inputs(struct moe_gguf_plan *p, const struct moe_source *src, int64_t of, int64_t first,
                       int64_t stride, int64_t n)
{
    bool any = false;
    for (int64_t i = 0; i < n; i++) any |= moe_gguf_input_scale(p, src, first + i * stride) != 1.0f;
    if (!any || p->t[of].type != MOE_GGUF_NVFP4 || !table[src->tensors[first].role].inputs) return;
    struct moe_gguf_tensor *t = add(p, -1, p->t[of].name, MOE_GGUF_F32, (uint64_t)n, 0, 0);
    size_t stem = strlen(t->name) - strlen("weight");
    snprintf(t->name + stem, sizeof t->name - stem, "input_scale");
    p->input[of] = (int32_t)(p->n - 1);
}

static void add_dense(struct moe_gguf_plan *p, const struct moe_source *src, int64_t i)
{
    const struct moe_tensor *t = &src->tensors[i];
    const struct moe_config *c = &src->config;
    uint64_t rows = (uint64_t)t->rows, cols = (uint64_t)t->cols;
    uint32_t type = p->powers->type[i];
    p->to[i] = (int32_t)p->n;
    if (t->role == MOE_ROLE_KV_B) {
        uint64_t heads = (uint64_t)c->num_attention_heads, nope = (uint64_t)c->qk_nope_head_dim,
                 v = (uint64_t)c->v_head_dim;
        add(p, t->layer, table[t->role].name, type, nope, cols, heads);
        add(p, t->layer, "attn_v_b.weight", type, cols, v, heads);
        return;
    }
    add(p, t->layer, table[t->role].name, type, cols, table[t->role].vector ? 0 : rows, 0);
    add_inputs(p, src, p->to[i], i, 1, 1);
}

/* The experts of a layer follow each other in the source, three tensors each.  Expert 0 adds the stack of all
 * experts; the others must have its type. */
static enum moe_code add_expert(struct moe_gguf_plan *p, const struct moe_source *src, int64_t i,
                                struct moe_err *err)
{
    const struct moe_tensor *t = &src->tensors[i], *first = t - 3 * (int64_t)t->expert;
    uint32_t type = p->powers->type[i];
    char name[128];
    if (t->expert == 0) {
        p->to[i] = (int32_t)p->n;
        add(p, t->layer, table[t->role].name, type, (uint64_t)t->cols, (uint64_t)t->rows,
            (uint64_t)src->config.n_routed_experts);
        add_inputs(p, src, p->to[i], i, 3, src->config.n_routed_experts);
        return MOE_OK;
    }
    MOE_CHECK(first >= src->tensors && first->expert == 0 && first->role == t->role &&
              first->layer == t->layer);
    p->to[i] = p->to[first - src->tensors];
    if (type == p->t[p->to[i]].type) return MOE_OK;
    return moe_fail_at(
        err, MOE_UNSUPPORTED, src->path, moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
        "is stored as %s, expert 0 of its layer as %s: GGUF stacks experts, which takes one type a layer",
        moe_dtype_name(t->type), moe_dtype_name(first->type));
}

enum moe_code moe_gguf_make_plan(struct moe_gguf_plan *p, const struct moe_source *src,
                                 const struct moe_gguf_powers *powers, struct moe_err *err)
{
    int64_t most = 0;
    /* each tensor may bring a second one, v_b or its input scales */
    for (int64_t i = 0; i < src->n_tensors; i++) most += src->tensors[i].expert > 0 ? 0 : 2;
    *p = (struct moe_gguf_plan){ .t = calloc((size_t)most + 1, sizeof *p->t),
                                 .to = malloc(((size_t)src->n_tensors + 1) * sizeof *p->to),
                                 .input = malloc(((size_t)most + 1) * sizeof *p->input),
                                 .powers = powers };
    bool ok = p->t && p->to && p->input;
    enum moe_code code = ok ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for a list of tensors");
    for (int64_t i = 0; code == MOE_OK && i < src->n_tensors; i++) {
        if (src->tensors[i].expert >= 0) code = add_expert(p, src, i, err);
        else add_dense(p, src, i);
    }
    if (code != MOE_OK) moe_gguf_plan_release(p);
    return code;
}

void moe_gguf_plan_release(struct moe_gguf_plan *p)
{
    free(p->t);
    free(p->to);
    free(p->input);
    *p = (struct moe_gguf_plan){ 0 };
}
