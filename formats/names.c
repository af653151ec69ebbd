/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/names.h"

#include "base/io.h"

#include <stdio.h>
#include <string.h>

static const struct { const char *name; enum moe_class class; } roles[MOE_ROLE_COUNT] = {
#define ROLE(ID, id, class, name) [id] = { name, MOE_CLASS_##class },
#include "formats/role.def"
#undef ROLE
};

static const char *const parts[MOE_PART_COUNT] = {
    [MOE_PART_WEIGHT] = "weight",
    [MOE_PART_PACKED] = "weight_packed",
    [MOE_PART_SCALE_INV] = "weight_scale_inv",
    [MOE_PART_SCALE] = "weight_scale",
    [MOE_PART_SCALE_2] = "weight_scale_2",
    [MOE_PART_INPUT_SCALE] = "input_scale",
    [MOE_PART_GLOBAL_SCALE] = "weight_global_scale",
    [MOE_PART_INPUT_GLOBAL_SCALE] = "input_global_scale",
    [MOE_PART_SHAPE] = "weight_shape",
};

enum moe_class moe_role_class(enum moe_role role) { return roles[role].class; }

int moe_role_fused_partner(enum moe_role role)
{
    static const enum moe_role pairs[][2] = { { MOE_ROLE_GATE, MOE_ROLE_UP },
                                              { MOE_ROLE_SHARED_GATE, MOE_ROLE_SHARED_UP },
                                              { MOE_ROLE_EXPERT_GATE, MOE_ROLE_EXPERT_UP },
                                              { MOE_ROLE_Q_A, MOE_ROLE_KV_A } };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (int k = 0; k < 2; k++)
            if (pairs[i][k] == role) return (int)pairs[i][1 - k];
    return -1;
}

const char *moe_part_name(enum moe_part part) { return parts[part]; }

const char *moe_tensor_name(enum moe_role role, int layer, int expert, char out[128])
{
    const char *head = role == MOE_ROLE_HEAD ? "" : "model.";
    if (roles[role].class == MOE_CLASS_MODEL) snprintf(out, 128, "%s%s", head, roles[role].name);
    else if (roles[role].class == MOE_CLASS_EXPERT)
        snprintf(out, 128, "model.layers.%d.mlp.experts.%d.%s", layer, expert, roles[role].name);
    else snprintf(out, 128, "model.layers.%d.%s", layer, roles[role].name);
    return out;
}

const char *moe_role_word(enum moe_role role)
{
    static const char *const words[MOE_ROLE_COUNT] = {
        [MOE_ROLE_EMBED] = "embed",
        [MOE_ROLE_NORM] = "norm",
        [MOE_ROLE_HEAD] = "head",
        [MOE_ROLE_INPUT_NORM] = "input_norm",
        [MOE_ROLE_POST_NORM] = "post_norm",
        [MOE_ROLE_Q_A] = "q_a",
        [MOE_ROLE_Q_A_NORM] = "q_a_norm",
        [MOE_ROLE_Q_B] = "q_b",
        [MOE_ROLE_KV_A] = "kv_a",
        [MOE_ROLE_KV_A_NORM] = "kv_a_norm",
        [MOE_ROLE_KV_B] = "kv_b",
        [MOE_ROLE_O] = "o",
        [MOE_ROLE_GATE] = "dense_gate",
        [MOE_ROLE_UP] = "dense_up",
        [MOE_ROLE_DOWN] = "dense_down",
        [MOE_ROLE_ROUTER] = "router",
        [MOE_ROLE_ROUTER_BIAS] = "router_bias",
        [MOE_ROLE_SHARED_GATE] = "shared_gate",
        [MOE_ROLE_SHARED_UP] = "shared_up",
        [MOE_ROLE_SHARED_DOWN] = "shared_down",
        [MOE_ROLE_EXPERT_GATE] = "gate",
        [MOE_ROLE_EXPERT_UP] = "up",
        [MOE_ROLE_EXPERT_DOWN] = "down",
        [MOE_ROLE_Q] = "q",
    };
    return words[role];
}

/* moe_tensor_shape for the roles of class ATTN.  SHAPE sets both sizes and returns true. */
static bool attention_shape(const struct moe_config *c, enum moe_role role, int64_t *rows, int64_t *cols)
{
    int64_t q = c->num_attention_heads * (c->qk_nope_head_dim + c->qk_rope_head_dim);
    bool low_rank = c->q_lora_rank > 0;
#define SHAPE(r, k) return *rows = (r), *cols = (k), true
    switch (role) {
    case MOE_ROLE_INPUT_NORM:
    case MOE_ROLE_POST_NORM: SHAPE(1, c->hidden_size);
    case MOE_ROLE_Q_A: if (low_rank) SHAPE(c->q_lora_rank, c->hidden_size); return false;
    case MOE_ROLE_Q_A_NORM: if (low_rank) SHAPE(1, c->q_lora_rank); return false;
    case MOE_ROLE_Q_B: if (low_rank) SHAPE(q, c->q_lora_rank); return false;
    case MOE_ROLE_Q: if (!low_rank) SHAPE(q, c->hidden_size); return false;
    case MOE_ROLE_KV_A: SHAPE(c->kv_lora_rank + c->qk_rope_head_dim, c->hidden_size);
    case MOE_ROLE_KV_A_NORM: SHAPE(1, c->kv_lora_rank);
    case MOE_ROLE_KV_B:
        SHAPE(c->num_attention_heads * (c->qk_nope_head_dim + c->v_head_dim), c->kv_lora_rank);
    case MOE_ROLE_O: SHAPE(c->hidden_size, c->num_attention_heads * c->v_head_dim);
    default: return false;
    }
}

bool moe_tensor_shape(const struct moe_config *c, enum moe_role role, int layer, int64_t *rows, int64_t *cols)
{
    int64_t h = c->hidden_size, shared = c->n_shared_experts * c->moe_intermediate_size;
    if (roles[role].class == MOE_CLASS_MODEL) {
        if (layer != -1) return false;
        SHAPE(role == MOE_ROLE_NORM ? 1 : c->vocab_size, h);
    }
    if (layer < 0 || layer >= c->num_hidden_layers) return false;
    if (roles[role].class == MOE_CLASS_ATTN) return attention_shape(c, role, rows, cols);
    bool moe = moe_layer_is_moe(c, layer);
    if (moe == (roles[role].class == MOE_CLASS_DENSE) || (roles[role].class == MOE_CLASS_SHARED && !shared))
        return false;
    switch (role) {
    case MOE_ROLE_GATE: case MOE_ROLE_UP: SHAPE(c->intermediate_size, h);
    case MOE_ROLE_DOWN: SHAPE(h, c->intermediate_size);
    case MOE_ROLE_ROUTER: SHAPE(c->n_routed_experts, h);
    case MOE_ROLE_ROUTER_BIAS: SHAPE(1, c->n_routed_experts);
    case MOE_ROLE_SHARED_GATE: case MOE_ROLE_SHARED_UP: SHAPE(shared, h);
    case MOE_ROLE_SHARED_DOWN: SHAPE(h, shared);
    case MOE_ROLE_EXPERT_GATE: case MOE_ROLE_EXPERT_UP: SHAPE(c->moe_intermediate_size, h);
    case MOE_ROLE_EXPERT_DOWN: SHAPE(h, c->moe_intermediate_size);
    default: return false;
    }
#undef SHAPE
}

/* ---- parsing ---- */

/* Step over `head` when s begins with it. */
static bool eat(const char **s, const char *head)
{
    size_t n = strlen(head);
    if (strncmp(*s, head, n)) return false;
    *s += n;
    return true;
}

/* Read digits without leading zeros, a number below `limit`, and the dot after them. */
static bool eat_number(const char **s, int limit, int *v)
{
    const char *p = *s;
    int n = 0;
    if (*p < '0' || *p > '9' || (*p == '0' && p[1] != '.')) return false;
    for (; *p >= '0' && *p <= '9'; p++)
        if ((n = 10 * n + (*p - '0')) >= limit) return false;
    if (*p != '.') return false;
    *s = p + 1;
    *v = n;
    return true;
}

/* Find the role with this name in class `want` (MODEL or EXPERT; -1: any other class), and the name's last
 * component. */
static bool find_role(const char *name, int want, struct moe_name *n)
{
    static const char bias[] = "mlp.gate.e_score_correction_bias";
    const char *dot = strrchr(name, '.');
    if (!dot) return false;
    size_t stem = (size_t)(dot - name);
    if (want < 0 && !strcmp(name, bias)) /* the one name without a part at its end */
        return n->role = MOE_ROLE_ROUTER_BIAS, n->part = MOE_PART_WEIGHT, true;
    int part = 0, role = 0;
    while (part < MOE_PART_COUNT && strcmp(dot + 1, parts[part])) part++;
    if (part == MOE_PART_COUNT) return false;
    for (; role < MOE_ROLE_COUNT; role++) {
        bool fits = want >= 0 ? (int)roles[role].class == want
                              : roles[role].class != MOE_CLASS_MODEL && roles[role].class != MOE_CLASS_EXPERT;
        if (fits && !strncmp(roles[role].name, name, stem) && !strcmp(roles[role].name + stem, ".weight"))
            break;
    }
    n->role = (enum moe_role)role;
    n->part = (enum moe_part)part;
    return role < MOE_ROLE_COUNT;
}

/* Step over "language_model." and "model.".  *root: one of them was there; some exports have the first
 * alone. */
static void eat_prefix(const char **s, bool *root)
{
    bool wrapped = eat(s, "language_model.");
    *root = eat(s, "model.") || wrapped;
}

bool moe_name_parse(const char *name, struct moe_name *n)
{
    bool root;
    *n = (struct moe_name){ .layer = -1, .expert = -1 };
    eat_prefix(&name, &root);
    if (!strncmp(name, "lm_head.", 8)) return find_role(name, MOE_CLASS_MODEL, n);
    if (!root) return false;
    if (!eat(&name, "layers.")) return find_role(name, MOE_CLASS_MODEL, n);
    if (!eat_number(&name, 1 << 15, &n->layer)) return false;
    if (!eat(&name, "mlp.experts.")) return find_role(name, -1, n);
    return eat_number(&name, 1 << 24, &n->expert) && find_role(name, MOE_CLASS_EXPERT, n);
}

int moe_name_layer(const char *name, const char **tail)
{
    bool root;
    int layer;
    eat_prefix(&name, &root);
    if (!root || !eat(&name, "layers.") || !eat_number(&name, 1 << 15, &layer)) return -1;
    *tail = name;
    return layer;
}

int moe_name_plane(const struct moe_name *n, int type)
{
    int like = moe_dtype_like(type);
    switch (n->part) {
    case MOE_PART_WEIGHT: return like == MOE_INT4_G32 ? -1 : MOE_PLANE_DATA;
    case MOE_PART_PACKED: return like == MOE_INT4_G32 || like == MOE_NVFP4 ? MOE_PLANE_DATA : -1;
    case MOE_PART_SCALE_INV: return like == MOE_FP8_B128 ? MOE_PLANE_SCALE : -1;
    case MOE_PART_SCALE: return moe_dtype_plain(type) ? -1 : MOE_PLANE_SCALE;
    case MOE_PART_SCALE_2: case MOE_PART_GLOBAL_SCALE: return type == MOE_NVFP4 ? MOE_PLANE_GLOBAL : -1;
    case MOE_PART_INPUT_SCALE:
    case MOE_PART_INPUT_GLOBAL_SCALE: return type == MOE_NVFP4 ? MOE_PLANE_INPUT : -1;
    default: return -1;
    }
}

const char *moe_name_skip_reason(const struct moe_config *c, const char *name)
{
    const char *s = name, *tail;
    if (eat(&s, "vision_tower.") || eat(&s, "mm_projector.")) return "vision";
    if (strstr(name, "rotary_emb.inv_freq") || strstr(name, "rotary_emb.cos_cached") ||
        strstr(name, "rotary_emb.sin_cached"))
        return "rotary buffer";
    int layer = moe_name_layer(name, &tail);
    if (layer >= c->num_hidden_layers && layer < c->num_hidden_layers + c->num_nextn_predict_layers)
        return "multi-token prediction";
    if (moe_ends_with(name, ".k_scale") || moe_ends_with(name, ".v_scale")) return "kv scale";
    /* of any linear layer, such as kv_a_proj_with_mqa or lm_head */
    if (moe_ends_with(name, ".weight_shape")) return "weight_shape";
    return NULL;
}
