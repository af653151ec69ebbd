/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/calibrate/probe.h"

#include "base/minmax.h"

/* Upper limits of the layer's widths. */
enum { HIDDEN = 1024, INTER = 512, RANK = 512, HEADS = 8, VOCABULARY = 2048 };
/* FEW tokens are enough for a layer of more than FEW_ABOVE columns; others have MOE_PROBE_TOKENS. */
enum { FEW = 512, FEW_ABOVE = 512 };

/* ---- made-up values ---- */

void *moe_probe_array(struct moe_probe *p, int64_t n, size_t size)
{
    void *array = moe_arena_array(&p->m.arena, n, size);
    if (!array) p->failed = true;
    return array;
}

/* The next made-up value, by a linear congruential generator. */
static uint32_t draw(struct moe_probe *p) { return p->random = p->random * 1664525u + 1013904223u; }

/* Makes n values between -size and size. */
static float *make_values(struct moe_probe *p, int64_t n, float size)
{
    float *x = moe_probe_array(p, n, sizeof *x);
    for (int64_t i = 0; x && i < n; i++) x[i] = size * ((float)(draw(p) >> 8) / 8388608.0f - 1.0f);
    return x;
}

float *moe_probe_ones(struct moe_probe *p, int64_t n)
{
    float *x = moe_probe_array(p, n, sizeof *x);
    for (int64_t i = 0; x && i < n; i++) x[i] = 1;
    return x;
}

/* Makes a weight in BF16 with magnitudes from 1/32 to 1/16, so that sums stay finite and no product is a
 * denormal. */
static struct moe_weight make_weight(struct moe_probe *p, int64_t rows, int64_t cols)
{
    uint16_t *w = moe_probe_array(p, rows * cols, sizeof *w);
    for (int64_t i = 0; w && i < rows * cols; i++) {
        uint32_t r = draw(p);
        w[i] = (uint16_t)((r >> 31) << 15 | 0x3d00 | ((r >> 16) & 0x7f));
    }
    return (struct moe_weight){ .type = MOE_BF16, .rows = rows, .cols = cols, .data = (const uint8_t *)w };
}

struct moe_expert moe_probe_mlp(struct moe_probe *p, int64_t hidden, int64_t inter)
{
    return (struct moe_expert){ make_weight(p, inter, hidden), make_weight(p, inter, hidden),
                                make_weight(p, hidden, inter) };
}

/* ---- the layer ---- */

/* The model's config with one layer of one expert, and with widths within the limits. */
static struct moe_config shrink_config(const struct moe_config *c)
{
    struct moe_config s = *c;
    s.hidden_size = moe_min_i64(c->hidden_size, HIDDEN);
    s.moe_intermediate_size = s.intermediate_size =
        moe_min_i64(moe_max_i64(c->moe_intermediate_size, 16), INTER);
    s.num_attention_heads = moe_min_i64(c->num_attention_heads, HEADS);
    s.q_lora_rank = moe_min_i64(c->q_lora_rank, RANK);
    s.kv_lora_rank = moe_min_i64(c->kv_lora_rank, RANK);
    s.vocab_size = moe_min_i64(c->vocab_size, VOCABULARY);
    s.num_hidden_layers = s.n_routed_experts = s.num_experts_per_tok = s.n_shared_experts = 1;
    s.first_k_dense_replace = 0;
    s.moe_layer_freq = 1;
    return s;
}

static void make_layer(struct moe_probe *p)
{
    const struct moe_config *c = &p->c;
    int64_t h = c->hidden_size;
    int64_t heads = c->num_attention_heads;
    int64_t qd = c->qk_nope_head_dim + c->qk_rope_head_dim;
    struct moe_layer *y = &p->layer;
    float *frequencies = moe_probe_array(p, c->qk_rope_head_dim / 2 + 1, sizeof *frequencies);

    p->m.config = *c;
    p->m.layers = y;
    p->m.rope = (struct moe_rope_config){ .dim = c->qk_rope_head_dim, .theta = 50000 };
    if (frequencies) moe_rope_frequencies(&p->m.rope, frequencies);
    p->m.inv_freq = frequencies;
    p->m.softmax_scale = moe_softmax_scale(&p->m.rope, qd);
    p->m.eps = p->m.lora_eps = 1e-6f;
    y->input_norm = y->post_norm = p->m.norm = moe_probe_ones(p, h);
    y->q_a_norm = moe_probe_ones(p, c->q_lora_rank + 1);
    y->kv_a_norm = moe_probe_ones(p, c->kv_lora_rank);
    if (c->q_lora_rank)
        y->q_a = make_weight(p, c->q_lora_rank, h), y->q_b = make_weight(p, heads * qd, c->q_lora_rank);
    else
        y->q = make_weight(p, heads * qd, h);
    y->kv_a = make_weight(p, c->kv_lora_rank + c->qk_rope_head_dim, h);
    y->kv_b = make_weight(p, heads * (c->qk_nope_head_dim + c->v_head_dim), c->kv_lora_rank);
    y->o = make_weight(p, h, heads * c->v_head_dim);
    y->dense = moe_probe_mlp(p, h, c->moe_intermediate_size);
    p->m.head = make_weight(p, c->vocab_size, h);
}

enum moe_code moe_probe_open(struct moe_probe *p, const struct moe_config *config, int64_t sequence,
                             bool backward, struct moe_pool *pool, struct moe_err *err)
{
    const struct moe_config *c = &p->c;

    *p = (struct moe_probe){ .c = shrink_config(config), .pool = pool, .random = 1, .err = err };
    p->m.arena = (struct moe_arena)MOE_ARENA_INIT;
    make_layer(p);
    int64_t tokens = c->hidden_size > FEW_ABOVE ? FEW : MOE_PROBE_TOKENS;
    int64_t s = moe_min_i64(sequence, tokens);
    p->n = tokens / s * s;
    p->h = make_values(p, p->n * c->hidden_size, 1);
    p->g = make_values(p, p->n * c->hidden_size, 1);
    p->work = make_values(p, p->n * c->hidden_size, 1);
    if (p->failed) return moe_fail(p->err, MOE_NOMEM, "no memory to measure this machine's speed");
    const struct moe_cpu_options o = {
        .max_tokens = p->n, .context = s, .mla = MOE_MLA_EXPANDED, .many = true
    };
    MOE_TRY(moe_cpu_open(&p->device, &p->m, &o, p->pool, p->err));
    MOE_TRY(moe_latent_open(&p->cache, p->device, 1, p->n / s * moe_latent_pages(s), p->err));
    for (int64_t i = 0; i < p->n / s; i++, p->count++) {
        p->seg[i] = (struct moe_segment){ &p->cache, p->cache.every + i * moe_latent_pages(s), 0, s };
        p->lengths[i] = s;
    }
    MOE_TRY(moe_forward_open(&p->f, p->device, p->err));
    return backward ? moe_backward_open(&p->back, &p->m, p->n, s, p->pool, p->err) : MOE_OK;
}

void moe_probe_close(struct moe_probe *p)
{
    moe_forward_close(&p->f);
    moe_latent_release(&p->cache);
    moe_device_close(&p->device);
    moe_backward_close(&p->back);
    moe_arena_clear(&p->m.arena);
}
