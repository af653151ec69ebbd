/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/calibrate/speed.h"

#include "base/io.h"
#include "base/minmax.h"
#include "kernels/kernels.h"
#include "model/forward-parts.h"
#include "quantize/passes/backward.h"
#include "quantize/passes/work.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Upper limits of what is measured: the widths of the layer (HIDDEN to VOCABULARY) and, since quantizing
 * takes longer, of an expert (EXPERT_*); TOKENS or, where the layer has more than FEW columns, FEW tokens at
 * once; AT_ONCE experts at once. */
enum {
    HIDDEN = 1024,
    INTER = 512,
    EXPERT_HIDDEN = 768,
    EXPERT_INTER = 384,
    RANK = 512,
    HEADS = 8,
    VOCABULARY = 2048,
    TOKENS = 2048,
    FEW = 512,
    AT_ONCE = 16
};

/* A model of one layer with made-up weights, and the tokens that pass through it. */
struct probe {
    struct moe_config c;
    struct moe_model m;
    struct moe_layer layer;
    struct moe_pool *pool;
    struct moe_forward *f;
    struct moe_backward *back;
    struct moe_kv kv[TOKENS];
    struct moe_segment seg[TOKENS];
    int64_t lengths[TOKENS], count; /* tokens of each sequence; the number of sequences */
    int64_t n;                      /* tokens of all */
    float *h, *g, *work;            /* [n, H] states; gradients; the array that a measured call changes */
    uint32_t random;                /* the state of draw() */
    bool failed; /* memory ran out */
    enum moe_code code;
    struct moe_err *err;
};

/* ---- made-up values ---- */

static void *room(struct probe *p, int64_t n, size_t size)
{
    void *array = moe_arena_array(&p->m.arena, n, size);
    if (!array) p->failed = true;
    return array;
}

static uint32_t draw(struct probe *p) { return p->random = p->random * 1664525u + 1013904223u; }

static float *values(struct probe *p, int64_t n, float size)
{
    float *x = room(p, n, sizeof *x);
    for (int64_t i = 0; x && i < n; i++) x[i] = size * ((float)(draw(p) >> 8) / 8388608.0f - 1.0f);
    return x;
}

static float *ones(struct probe *p, int64_t n)
{
    float *x = room(p, n, sizeof *x);
    for (int64_t i = 0; x && i < n; i++) x[i] = 1;
    return x;
}

/* A weight in BF16 with magnitudes from 1/32 to 1/16, so that sums stay finite and no product is a
 * denormal. */
static struct moe_weight weight(struct probe *p, int64_t rows, int64_t cols)
{
    uint16_t *w = room(p, rows * cols, sizeof *w);
    for (int64_t i = 0; w && i < rows * cols; i++) {
        uint32_t r = draw(p);
        w[i] = (uint16_t)((r >> 31) << 15 | 0x3d00 | ((r >> 16) & 0x7f));
    }
    return (struct moe_weight){ .type = MOE_BF16, .rows = rows, .cols = cols, .data = (const uint8_t *)w };
}

static struct moe_expert mlp_of(struct probe *p, int64_t hidden, int64_t inter)
{
    return (struct moe_expert){ weight(p, inter, hidden), weight(p, inter, hidden),
                                weight(p, hidden, inter) };
}

/* ---- the layer ---- */

/* The model's config with one layer, and with widths within the limits. */
static struct moe_config smaller(const struct moe_config *c)
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

static void make_layer(struct probe *p)
{
    const struct moe_config *c = &p->c;
    int64_t h = c->hidden_size;
    int64_t heads = c->num_attention_heads;
    int64_t qd = c->qk_nope_head_dim + c->qk_rope_head_dim;
    struct moe_layer *y = &p->layer;
    float *frequencies = room(p, c->qk_rope_head_dim / 2 + 1, sizeof *frequencies);

    p->m.config = *c;
    p->m.layers = y;
    p->m.rope = (struct moe_rope_config){ .dim = c->qk_rope_head_dim, .theta = 50000 };
    if (frequencies) moe_rope_frequencies(&p->m.rope, frequencies);
    p->m.inv_freq = frequencies;
    p->m.softmax_scale = moe_softmax_scale(&p->m.rope, qd);
    p->m.eps = p->m.lora_eps = 1e-6f;
    y->input_norm = y->post_norm = p->m.norm = ones(p, h);
    y->q_a_norm = ones(p, c->q_lora_rank + 1);
    y->kv_a_norm = ones(p, c->kv_lora_rank);
    if (c->q_lora_rank)
        y->q_a = weight(p, c->q_lora_rank, h), y->q_b = weight(p, heads * qd, c->q_lora_rank);
    else
        y->q = weight(p, heads * qd, h);
    y->kv_a = weight(p, c->kv_lora_rank + c->qk_rope_head_dim, h);
    y->kv_b = weight(p, heads * (c->qk_nope_head_dim + c->v_head_dim), c->kv_lora_rank);
    y->o = weight(p, h, heads * c->v_head_dim);
    y->dense = mlp_of(p, h, c->moe_intermediate_size);
    p->m.head = weight(p, c->vocab_size, h);
}

static enum moe_code open_probe(struct probe *p, int64_t sequence, bool backward)
{
    const struct moe_config *c = &p->c;
    int64_t width = c->kv_lora_rank + c->qk_rope_head_dim;
    int64_t tokens = c->hidden_size > FEW ? FEW : TOKENS,
            s = moe_min_i64(sequence, tokens); /* where a layer is wide, few are enough */

    make_layer(p);
    p->n = tokens / s * s;
    p->h = values(p, p->n * c->hidden_size, 1);
    p->g = values(p, p->n * c->hidden_size, 1);
    p->work = values(p, p->n * c->hidden_size, 1);
    float *cache = room(p, p->n * width, sizeof *cache), **at = room(p, p->n / s, sizeof *at);
    if (p->failed) return moe_fail(p->err, MOE_NOMEM, "no memory to measure this machine's speed");
    for (int64_t i = 0; i < p->n / s; i++, p->count++) {
        at[i] = cache + i * s * width;
        p->kv[i] =
            (struct moe_kv){ .layer = &at[i], .layers = 1, .width = width, .cap = s, .max_positions = s };
        p->seg[i] = (struct moe_segment){ &p->kv[i], 0, s };
        p->lengths[i] = s;
    }
    MOE_TRY(moe_forward_open(&p->f, &p->m, p->n, s, MOE_MLA_EXPANDED, p->pool, p->err));
    moe_forward_use_gemm(p->f);
    return backward ? moe_backward_open(&p->back, &p->m, p->n, s, p->pool, p->err) : MOE_OK;
}

static void close_probe(struct probe *p)
{
    moe_forward_close(&p->f);
    moe_backward_close(&p->back);
    moe_arena_clear(&p->m.arena);
}

/* ---- measuring ---- */

/* Seconds of a call of fn: of the first one if that is long, else the mean over as many as take 60 ms. */
static double seconds_of(struct probe *p, void (*fn)(struct probe *))
{
    const double tells = 0.06;
    double from = moe_now(), first, all = 0;
    int64_t calls = 0;
    fn(p);
    first = moe_now() - from;
    if (first > 2 * tells) return first;
    for (from = moe_now(); all < tells; all = moe_now() - from, calls++) fn(p);
    return all / (double)calls;
}

/* Resets p->work before a call that adds to it: else its sums would grow beyond float32. */
static void refresh(struct probe *p, const float *from)
{
    memcpy(p->work, from, (size_t)(p->n * p->c.hidden_size) * sizeof *from);
}

static void run_attention(struct probe *p)
{
    refresh(p, p->h);
    moe_forward_attention(p->f, 0, p->seg, p->count, p->n, p->work);
}

static void run_attention_back(struct probe *p)
{
    refresh(p, p->g);
    moe_backward_attention(p->back, 0, p->h, p->lengths, p->count, p->work);
}

static void run_mlp_back(struct probe *p)
{
    const struct moe_weight w[3] = { p->layer.dense.gate, p->layer.dense.up, p->layer.dense.down };
    refresh(p, p->g);
    moe_backward_mlp(p->back, w, p->h, p->n, p->g, NULL, p->work, NULL);
}

static void run_head_back(struct probe *p)
{
    if (p->code == MOE_OK) p->code = moe_backward_head(p->back, p->h, p->n, 0, 0, p->work, NULL, p->err);
}

/* Operations per second of the sum that a layer's Fisher matrix is. */
static double hessian_speed(struct probe *p)
{
    struct moe_hessian f;
    if (p->code != MOE_OK || (p->code = moe_hessian_open(&f, p->c.hidden_size, p->err)) != MOE_OK) return 0;
    double from = moe_now(), all = 0;
    int64_t calls = 0;
    for (; all < 0.05; all = moe_now() - from, calls++)
        moe_hessian_add(&f, p->g, p->c.hidden_size, p->n, p->pool);
    moe_hessian_release(&f);
    return moe_work_fisher(&p->c, (double)p->n) * (double)calls / all;
}

/* Operations per second of an expert's forward pass over `each` tokens, done as a walk does it: the tokens'
 * states are gathered, and the outputs are added to states. */
static double mlp_speed(struct probe *p, int64_t each)
{
    struct moe_states h = { .fd = -1 }, sum = { .fd = -1 };
    struct moe_mlp *m = NULL;
    int64_t width = p->c.hidden_size, n = moe_min_i64(each, p->n), calls = 0;
    int32_t *row = room(p, n, sizeof *row);
    const struct moe_weight w[3] = { p->layer.dense.gate, p->layer.dense.up, p->layer.dense.down };
    const struct moe_mlp_method forward = { .matrix = { .diagonal = true } };
    struct moe_mlp_tokens t = {
        .h = &h, .norm = p->layer.post_norm, .eps = p->m.eps, .row = row, .n = n, .own = n
    };
    double from, all = 0;

    if (p->code == MOE_OK && !row)
        p->code = moe_fail(p->err, MOE_NOMEM, "no memory to measure this machine's speed");
    if (p->code == MOE_OK) p->code = moe_states_open(&h, p->n, width, NULL, p->err);
    if (p->code == MOE_OK) p->code = moe_states_open(&sum, p->n, width, NULL, p->err);
    if (p->code == MOE_OK) p->code = moe_states_write(&h, 0, p->n, p->h, p->err);
    if (p->code == MOE_OK) p->code = moe_mlp_open(&m, width, w[0].rows, &forward, true, p->pool, p->err);
    for (int64_t i = 0; p->code == MOE_OK && i < n; i++) row[i] = (int32_t)(i * (p->n / n));
    for (from = moe_now(); p->code == MOE_OK && all < 0.08; all = moe_now() - from, calls++)
        p->code = moe_mlp_forward(m, w, &t, &sum, p->err);
    moe_mlp_close(&m);
    moe_states_close(&h);
    moe_states_close(&sum);
    return all > 0 ? moe_work_mlp(width, w[0].rows, (double)n) * (double)calls / all : 0;
}

/* ---- the best product ---- */

struct sample {
    const float *a, *b;
    float *c;
    int64_t n;
};

static void sample_item(void *ctx, int64_t i, int worker)
{
    const struct sample *s = ctx;
    (void)worker;
    moe_kernels()->gemm(s->n, s->n, s->n, 1, s->a, s->n, 1, s->b, s->n, s->c + i * s->n * s->n, s->n);
}

static double product_speed(struct probe *p)
{
    enum { N = 384 };
    int threads = moe_pool_threads(p->pool);
    float *m = room(p, (int64_t)(2 + threads) * N * N, sizeof *m);
    struct sample s = { m, m, m ? m + 2 * N * N : NULL, N };
    double best = 1e9;
    if (!m) return 0;
    memset(m, 0, (size_t)(2 + threads) * N * N * sizeof *m);
    for (int i = 0; i < 4; i++) {
        double from = moe_now(), t;
        moe_pool_run(p->pool, threads, sample_item, &s);
        t = moe_now() - from;
        if (t < best) best = t;
    }
    return 2.0 * N * N * N * threads / best;
}

/* ---- quantizing an expert while others are quantized ---- */

/* The experts that are quantized at once: all have the same weights and tokens. */
struct expert {
    const struct moe_mlp_method *how;
    bool by_rows; /* f is set */
    struct moe_output_hessian f;
    struct moe_mlp_weights w;
    struct moe_mlp_tokens t;
    struct moe_states h, residual; /* of the tokens */
    int64_t hidden, inter;
    double seconds[AT_ONCE][3];
    enum moe_code code[AT_ONCE];
    struct moe_err err[AT_ONCE];
};

static void quantize_item(void *ctx, int64_t i, int worker)
{
    struct expert *e = ctx;
    struct moe_mlp *m;
    struct moe_mlp_result r;

    (void)worker;
    e->err[i] = (struct moe_err)MOE_ERR_INIT;
    e->code[i] = moe_mlp_open(&m, e->hidden, e->inter, e->how, false, NULL, &e->err[i]);
    double from = moe_now();
    if (e->code[i] == MOE_OK)
        e->code[i] = moe_mlp_quantize(m, &e->w, &e->t, e->by_rows ? &e->f : NULL, &r, &e->err[i]);
    double all = moe_now() - from;
    for (int k = 0; e->code[i] == MOE_OK && k < 3; k++) e->seconds[i][k] = r.seconds[k];
    /* Time that no phase counts (for the output Hessian of gate and up, and the error of the output) is
     * counted as statistics. */
    if (e->code[i] == MOE_OK) e->seconds[i][0] += all - r.seconds[0] - r.seconds[1] - r.seconds[2];
    moe_mlp_close(&m);
}

static bool by_rows(const struct moe_speed_of *of) { return of->sensitivity && !of->method->matrix.diagonal; }
static int64_t expert_tokens(const struct probe *p, const struct moe_speed_of *of)
{
    return moe_min_i64(moe_max_i64(of->tokens_per_expert, 1), p->n);
}

static enum moe_code make_output_hessian(struct probe *p, struct moe_output_hessian *f, int64_t hidden,
                                         double damp)
{
    MOE_TRY(moe_output_hessian_open(f, hidden, p->err));
    moe_hessian_clear(&f->hessian);
    moe_hessian_add(&f->hessian, p->g, p->c.hidden_size, p->n, p->pool);
    return moe_output_hessian_finish(f, damp, p->pool, p->err);
}

/* The states of the tokens, the first ones of the probe's; with a correction, residuals too. */
static enum moe_code make_states(struct probe *p, struct expert *e)
{
    MOE_TRY(moe_states_open(&e->h, p->n, e->hidden, NULL, p->err));
    MOE_TRY(moe_states_write(&e->h, 0, p->n, p->h, p->err));
    if (!e->how->corrects) return MOE_OK;
    MOE_TRY(moe_states_open(&e->residual, p->n, e->hidden, NULL, p->err));
    e->t.residual = &e->residual;
    e->t.share = e->t.importance;
    return moe_states_write(&e->residual, 0, p->n, p->g, p->err);
}

/* Makes the weights, the tokens and the Hessian of *e, whose method and widths are set.  close_expert is due
 * after a failure as well. */
static enum moe_code open_expert(struct probe *p, const struct moe_speed_of *of, struct expert *e)
{
    int64_t n = expert_tokens(p, of);
    struct moe_expert mlp = mlp_of(p, e->hidden, e->inter);
    int32_t *row = room(p, n, sizeof *row);
    const float *importance = ones(p, n);

    if (p->failed) return moe_fail(p->err, MOE_NOMEM, "no memory to measure this machine's speed");
    for (int64_t i = 0; i < n; i++) row[i] = (int32_t)(i * (p->n / n));
    e->w = (struct moe_mlp_weights){ .w = { mlp.gate, mlp.up, mlp.down },
                                     .quantize = { true, true, true },
                                     .amax = { 1, 1, 1 } };
    e->t = (struct moe_mlp_tokens){ .h = &e->h,
                                    .norm = p->layer.post_norm,
                                    .eps = p->m.eps,
                                    .row = row,
                                    .importance = importance,
                                    .n = n,
                                    .own = n };
    MOE_TRY(make_states(p, e));
    return by_rows(of) ? make_output_hessian(p, &e->f, e->hidden, e->how->matrix.damp_rows) : MOE_OK;
}

static void close_expert(struct expert *e)
{
    moe_output_hessian_release(&e->f);
    moe_states_close(&e->h);
    moe_states_close(&e->residual);
}

/* Seconds of each phase (statistics, factoring, rounding) of quantizing an expert of these widths: the mean
 * over as many experts as are at work at once. */
static enum moe_code expert_seconds(struct probe *p, const struct moe_speed_of *of, int64_t hidden,
                                    int64_t inter, double seconds[3])
{
    struct expert e = { .how = of->method,
                        .by_rows = by_rows(of),
                        .hidden = hidden,
                        .inter = inter,
                        .h = { .fd = -1 },
                        .residual = { .fd = -1 } };
    int at_once = (int)moe_min_i64(moe_max_i64(of->workers, 1), AT_ONCE);

    for (int k = 0; k < 3; k++) seconds[k] = 0;
    enum moe_code code = open_expert(p, of, &e);
    if (code == MOE_OK) moe_pool_run(p->pool, at_once, quantize_item, &e);
    for (int i = 0; code == MOE_OK && i < at_once; i++) {
        if (e.code[i] != MOE_OK) *p->err = e.err[i], code = e.code[i];
        for (int k = 0; k < 3; k++) seconds[k] += e.seconds[i][k] / at_once;
    }
    close_expert(&e);
    return code;
}

/* Solves seconds[i] = a * operations[i] + b * minor[i] for a cost (a, b) that was measured at two sizes.  a
 * is kept between the time of an operation in the fastest product and that at which b is 0, since noise can
 * give any a. */
static struct moe_cost solve(const double seconds[2], const double operations[2], const double minor[2],
                             double fastest)
{
    double m = minor[1] / minor[0];
    double rest = operations[1] - operations[0] * m;
    double most_a = operations[1] > 0 ? seconds[1] / operations[1] : 0;
    double a = rest > 0 ? (seconds[1] - seconds[0] * m) / rest : most_a;
    if (a < 1 / fastest) a = 1 / fastest;
    if (a > most_a) a = most_a;
    return (struct moe_cost){ a, (seconds[1] - a * operations[1]) / minor[1] };
}

static enum moe_code expert_speed(struct probe *p, const struct moe_speed_of *of, struct moe_speed *s)
{
    double fastest = s->product / moe_pool_threads(p->pool);
    double seconds[2][3], rounding[3][2], factoring[3][2];
    struct moe_work_quantize w[2];

    for (int i = 0; i < 2; i++) { /* half the widths, then all */
        int64_t hidden = moe_min_i64(p->c.hidden_size, EXPERT_HIDDEN) / (2 - i) / 16 * 16;
        int64_t inter = moe_min_i64(p->c.moe_intermediate_size, EXPERT_INTER) / (2 - i) / 16 * 16;
        hidden = moe_max_i64(hidden, 16);
        inter = moe_max_i64(inter, 16);
        MOE_TRY(expert_seconds(p, of, hidden, inter, seconds[i]));
        w[i] = moe_work_quantize(of->method, hidden, inter, by_rows(of), (double)expert_tokens(p, of));
        rounding[0][i] = seconds[i][2], rounding[1][i] = w[i].rounding,
        rounding[2][i] = moe_speed_weights(hidden, inter);
        factoring[0][i] = seconds[i][1], factoring[1][i] = w[i].factoring,
        factoring[2][i] = moe_speed_columns(hidden, inter);
    }
    s->statistics = w[1].statistics / seconds[1][0];
    s->factoring = solve(factoring[0], factoring[1], factoring[2], fastest);
    s->rounding = solve(rounding[0], rounding[1], rounding[2], fastest);
    return MOE_OK;
}

/* ---- a row of a scratch file ---- */

static double row_seconds(struct probe *p, int64_t width)
{
    enum { ROWS = 512 };
    size_t bytes = (size_t)width * sizeof(float);
    float *row = room(p, width, sizeof *row);
    int fd = memfd_create("moe", MFD_CLOEXEC);
    double from = moe_now(), seconds = 3e-6; /* taken if the file cannot be made */
    bool whole = fd >= 0 && row && !ftruncate(fd, (off_t)(ROWS * bytes));
    for (int64_t i = 0; whole && i < 2 * ROWS; i++) { /* the first ROWS accesses allocate its pages */
        if (i == ROWS) from = moe_now();
        off_t at = (off_t)((size_t)(i * 37 % ROWS) * bytes);
        whole = pread(fd, row, bytes, at) == (ssize_t)bytes && pwrite(fd, row, bytes, at) == (ssize_t)bytes;
    }
    if (whole) seconds = (moe_now() - from) / (2 * ROWS);
    if (fd >= 0) close(fd);
    return seconds;
}

/* ---- all of it ---- */

static enum moe_code measure(struct probe *p, struct moe_speed *s, const struct moe_speed_of *of)
{
    const struct moe_config *c = &p->c;
    double n = (double)p->n, sequence = (double)(p->n / p->count);

    s->product = product_speed(p);
    s->row = row_seconds(p, of->config->hidden_size);
    s->attention = moe_work_attention(c, n, sequence) / seconds_of(p, run_attention);
    s->mlp = mlp_speed(p, of->tokens_per_expert);
    if (of->sensitivity) {
        s->head_back = moe_work_head_back(c, n) / seconds_of(p, run_head_back);
        s->mlp_back =
            moe_work_mlp_back(c->hidden_size, c->moe_intermediate_size, n) / seconds_of(p, run_mlp_back);
        s->attention_back = moe_work_attention_back(c, n, sequence) / seconds_of(p, run_attention_back);
    }
    s->hessian = hessian_speed(p);
    MOE_TRY(p->code);
    return expert_speed(p, of, s);
}

enum moe_code moe_speed_measure(struct moe_speed *s, const struct moe_speed_of *of, struct moe_pool *pool,
                                struct moe_err *err)
{
    struct probe *p = calloc(1, sizeof *p);
    if (!p) return moe_fail(err, MOE_NOMEM, "no memory to measure this machine's speed");
    *p = (struct probe){ .c = smaller(of->config), .pool = pool, .random = 1, .err = err };
    p->m.arena = (struct moe_arena)MOE_ARENA_INIT;
    enum moe_code code = open_probe(p, moe_max_i64(of->sequence, 1), of->sensitivity);
    if (code == MOE_OK) code = measure(p, s, of);
    close_probe(p);
    free(p);
    return code;
}
