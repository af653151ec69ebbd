/* convert/gguf-plan.c - llama.cpp's names, shapes and types for our tensors. */
#include "convert/gguf-internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The name after "blk.L.".  f32: llama.cpp keeps it in F32 whatever the rest is.  second: its loader has a place for the
 * second scale of NVFP4. */
static const struct { const char *name; bool vector, f32, second; } table[MOE_ROLE_COUNT] = {
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
    [MOE_ROLE_KV_B]        = { "attn_k_b.weight",           false, false, false }, /* and attn_v_b.weight */
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

/* kv_b is cut by rows and one half transposed, which blocks along a row do not survive. */
static uint32_t type_for(const struct moe_tensor *t, enum moe_outtype o)
{
    uint32_t decoded = o == MOE_OUT_F32 ? MOE_GGUF_F32 : MOE_GGUF_BF16;
    if (table[t->role].f32 || t->type == MOE_F32) return MOE_GGUF_F32;
    if (t->type == MOE_BF16) return MOE_GGUF_BF16;
    if (t->role == MOE_ROLE_KV_B || o != MOE_OUT_AUTO) return decoded;
    if (t->type == MOE_NVFP4 && table[t->role].second) return MOE_GGUF_NVFP4;
    return t->type == MOE_INT4_G32 ? MOE_GGUF_Q4_0 : decoded;
}

/* modelopt multiplies by the global scale, compressed-tensors divides. */
float moe_gguf_scale(const struct moe_tensor *t) { return t->reciprocal ? 1.0f / t->global : t->global; }

float moe_gguf_input_scale(const struct moe_tensor *t)
{
    if (t->plane[MOE_PLANE_INPUT].file < 0) return 1.0f;
    return t->reciprocal ? 1.0f / t->input_scale : t->input_scale;
}

static struct moe_gguf_tensor *add(struct moe_gguf_plan *p, int layer, const char *name, uint32_t type, uint64_t a, uint64_t b, uint64_t c)
{
    struct moe_gguf_tensor *t = &p->t[p->n];
    *t = (struct moe_gguf_tensor){ .type = type, .ndim = c ? 3 : b ? 2 : 1, .ne = { a, b ? b : 1, c ? c : 1, 1 } };
    if (layer < 0) snprintf(t->name, sizeof t->name, "%s", name);
    else snprintf(t->name, sizeof t->name, "blk.%d.%s", layer, name);
    p->scale[p->n] = p->input[p->n] = -1;
    p->n++;
    return t;
}

/* The F32 tensor "X.scale" or "X.input_scale" of tensor number `of`, "X.weight". */
static void add_scales(struct moe_gguf_plan *p, int64_t of, const char *suffix, int32_t *at, uint64_t n)
{
    struct moe_gguf_tensor *t = add(p, -1, p->t[of].name, MOE_GGUF_F32, n, 0, 0);
    size_t stem = strlen(t->name) - strlen("weight");
    snprintf(t->name + stem, sizeof t->name - stem, "%s", suffix);
    *at = (int32_t)(p->n - 1);
}

/* Input scales are written where one is other than 1: without activations that were looked at there is nothing to say. */
static void add_second(struct moe_gguf_plan *p, int64_t of, const struct moe_tensor *first, int64_t stride, int64_t n)
{
    bool any = false;
    add_scales(p, of, "scale", &p->scale[of], (uint64_t)n);
    for (int64_t i = 0; i < n; i++) any |= moe_gguf_input_scale(&first[i * stride]) != 1.0f;
    if (any) add_scales(p, of, "input_scale", &p->input[of], (uint64_t)n);
}

static enum moe_code add_dense(struct moe_gguf_plan *p, const struct moe_source *src, int64_t i, enum moe_outtype o)
{
    const struct moe_tensor *t = &src->tensors[i];
    const struct moe_config *c = &src->config;
    uint64_t rows = (uint64_t)t->rows, cols = (uint64_t)t->cols;
    uint32_t type = type_for(t, o);
    p->to[i] = (int32_t)p->n;
    if (t->role == MOE_ROLE_KV_B) {
        uint64_t heads = (uint64_t)c->num_attention_heads, nope = (uint64_t)c->qk_nope_head_dim, v = (uint64_t)c->v_head_dim;
        add(p, t->layer, table[t->role].name, type, nope, cols, heads);
        add(p, t->layer, "attn_v_b.weight", type, cols, v, heads);
        return MOE_OK;
    }
    add(p, t->layer, table[t->role].name, type, cols, table[t->role].vector ? 0 : rows, 0);
    if (type == MOE_GGUF_NVFP4) add_second(p, p->to[i], t, 1, 1);
    return MOE_OK;
}

/* Experts of a layer lie one after the other, three tensors each; the first of them makes the stack. */
static enum moe_code add_expert(struct moe_gguf_plan *p, const struct moe_source *src, int64_t i, enum moe_outtype o, struct moe_err *err)
{
    const struct moe_tensor *t = &src->tensors[i], *first = t - 3 * (int64_t)t->expert;
    char name[128];
    if (t->expert == 0) {
        p->to[i] = (int32_t)p->n;
        add(p, t->layer, table[t->role].name, type_for(t, o), (uint64_t)t->cols, (uint64_t)t->rows, (uint64_t)src->config.n_routed_experts);
        if (type_for(t, o) == MOE_GGUF_NVFP4) add_second(p, p->to[i], t, 3, src->config.n_routed_experts);
        return MOE_OK;
    }
    MOE_CHECK(first >= src->tensors && first->expert == 0 && first->role == t->role && first->layer == t->layer);
    p->to[i] = p->to[first - src->tensors];
    if (type_for(t, o) == p->t[p->to[i]].type) return MOE_OK;
    return moe_fail_at(err, MOE_UNSUPPORTED, src->path, moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                       "is stored as %s, expert 0 of its layer as %s: GGUF stacks experts, which takes one type a layer",
                       moe_dtype_name(t->type), moe_dtype_name(first->type));
}

enum moe_code moe_gguf_plan(struct moe_gguf_plan *p, const struct moe_source *src, enum moe_outtype outtype, struct moe_err *err)
{
    int64_t most = 0;
    for (int64_t i = 0; i < src->n_tensors; i++) most += src->tensors[i].expert > 0 ? 0 : 3; /* itself, scale, input scale */
    *p = (struct moe_gguf_plan){ .t = calloc((size_t)most + 1, sizeof *p->t), .to = malloc(((size_t)src->n_tensors + 1) * sizeof *p->to),
                                 .scale = malloc(((size_t)most + 1) * sizeof *p->scale), .input = malloc(((size_t)most + 1) * sizeof *p->input) };
    enum moe_code code = p->t && p->to && p->scale && p->input ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for a list of tensors");
    for (int64_t i = 0; code == MOE_OK && i < src->n_tensors; i++)
        code = src->tensors[i].expert >= 0 ? add_expert(p, src, i, outtype, err) : add_dense(p, src, i, outtype);
    for (int64_t i = 0; code == MOE_OK && i < p->n; i++)
        if (moe_gguf_row_bytes(p->t[i].type, p->t[i].ne[0]) < 0)
            code = moe_fail_at(err, MOE_UNSUPPORTED, src->path, p->t[i].name, "has rows of %llu values, GGUF's NVFP4 needs a multiple of 64 (write --outtype bf16)",
                               (unsigned long long)p->t[i].ne[0]); /* Q4_0's 32 are INT4's own */
    if (code != MOE_OK) moe_gguf_plan_release(p);
    return code;
}

void moe_gguf_plan_release(struct moe_gguf_plan *p)
{
    free(p->t);
    free(p->to);
    free(p->scale);
    free(p->input);
    *p = (struct moe_gguf_plan){ 0 };
}
