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
struct bench {
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

static void *room(struct bench *b, int64_t n, size_t size)
{
    void *p = moe_arena_array(&b->m.arena, n, size);
    if (!p) b->failed = true;
    return p;
}

static uint32_t draw(struct bench *b) { return b->random = b->random * 1664525u + 1013904223u; }

static float *values(struct bench *b, int64_t n, float size)
{
    float *x = room(b, n, sizeof *x);
    for (int64_t i = 0; x && i < n; i++) x[i] = size * ((float)(draw(b) >> 8) / 8388608.0f - 1.0f);
    return x;
}

static float *ones(struct bench *b, int64_t n)
{
    float *x = room(b, n, sizeof *x);
    for (int64_t i = 0; x && i < n; i++) x[i] = 1;
    return x;
}

/* A weight in BF16 with magnitudes from 1/32 to 1/16, so that sums stay finite and no product is a
 * denormal. */
static struct moe_weight weight(struct bench *b, int64_t rows, int64_t cols)
{
    uint16_t *w = room(b, rows * cols, sizeof *w);
    for (int64_t i = 0; w && i < rows * cols; i++) {
        uint32_t r = draw(b);
        w[i] = (uint16_t)((r >> 31) << 15 | 0x3d00 | ((r >> 16) & 0x7f));
    }
    return (struct moe_weight){ .type = MOE_BF16, .rows = rows, .cols = cols, .data = (const uint8_t *)w };
}

static struct moe_expert mlp_of(struct bench *b, int64_t hidden, int64_t inter)
{
    return (struct moe_expert){ weight(b, inter, hidden), weight(b, inter, hidden),
                                weight(b, hidden, inter) };
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

static void make_layer(struct bench *b)
{
    const struct moe_config *c = &b->c;
    int64_t h = c->hidden_size;
    int64_t heads = c->num_attention_heads;
    int64_t qd = c->qk_nope_head_dim + c->qk_rope_head_dim;
    struct moe_layer *y = &b->layer;
    float *frequencies = room(b, c->qk_rope_head_dim / 2 + 1, sizeof *frequencies);

    b->m.config = *c;
    b->m.layers = y;
    b->m.rope = (struct moe_rope_config){ .dim = c->qk_rope_head_dim, .theta = 50000 };
    if (frequencies) moe_rope_frequencies(&b->m.rope, frequencies);
    b->m.inv_freq = frequencies;
    b->m.softmax_scale = moe_softmax_scale(&b->m.rope, qd);
    b->m.eps = b->m.lora_eps = 1e-6f;
    y->input_norm = y->post_norm = b->m.norm = ones(b, h);
    y->q_a_norm = ones(b, c->q_lora_rank + 1);
    y->kv_a_norm = ones(b, c->kv_lora_rank);
    if (c->q_lora_rank)
        y->q_a = weight(b, c->q_lora_rank, h), y->q_b = weight(b, heads * qd, c->q_lora_rank);
    else
        y->q = weight(b, heads * qd, h);
    y->kv_a = weight(b, c->kv_lora_rank + c->qk_rope_head_dim, h);
    y->kv_b = weight(b, heads * (c->qk_nope_head_dim + c->v_head_dim), c->kv_lora_rank);
    y->o = weight(b, h, heads * c->v_head_dim);
    y->dense = mlp_of(b, h, c->moe_intermediate_size);
    b->m.head = weight(b, c->vocab_size, h);
}

static enum moe_code open_bench(struct bench *b, int64_t sequence, bool backward)
{
    const struct moe_config *c = &b->c;
    int64_t width = c->kv_lora_rank + c->qk_rope_head_dim;
    int64_t tokens = c->hidden_size > FEW ? FEW : TOKENS,
            s = moe_min_i64(sequence, tokens); /* where a layer is wide, few are enough */

    make_layer(b);
    b->n = tokens / s * s;
    b->h = values(b, b->n * c->hidden_size, 1);
    b->g = values(b, b->n * c->hidden_size, 1);
    b->work = values(b, b->n * c->hidden_size, 1);
    float *cache = room(b, b->n * width, sizeof *cache), **at = room(b, b->n / s, sizeof *at);
    if (b->failed) return moe_fail(b->err, MOE_NOMEM, "no memory to measure this machine's speed");
    for (int64_t i = 0; i < b->n / s; i++, b->count++) {
        at[i] = cache + i * s * width;
        b->kv[i] =
            (struct moe_kv){ .layer = &at[i], .layers = 1, .width = width, .cap = s, .max_positions = s };
        b->seg[i] = (struct moe_segment){ &b->kv[i], 0, s };
        b->lengths[i] = s;
    }
    MOE_TRY(moe_forward_open(&b->f, &b->m, b->n, s, MOE_MLA_EXPANDED, b->pool, b->err));
    moe_forward_many(b->f);
    return backward ? moe_backward_open(&b->back, &b->m, b->n, s, b->pool, b->err) : MOE_OK;
}

static void close_bench(struct bench *b)
{
    moe_forward_close(&b->f);
    moe_backward_close(&b->back);
    moe_arena_clear(&b->m.arena);
}

/* ---- measuring ---- */

/* Seconds of a call of fn: of the first one if that is long, else the mean over as many as take 60 ms. */
static double seconds_of(struct bench *b, void (*fn)(struct bench *))
{
    const double tells = 0.06;
    double from = moe_now(), first, all = 0;
    int64_t calls = 0;
    fn(b);
    first = moe_now() - from;
    if (first > 2 * tells) return first;
    for (from = moe_now(); all < tells; all = moe_now() - from, calls++) fn(b);
    return all / (double)calls;
}

/* Resets b->work before a call that adds to it: else its sums would grow beyond float32. */
static void refresh(struct bench *b, const float *from)
{
    memcpy(b->work, from, (size_t)(b->n * b->c.hidden_size) * sizeof *from);
}

static void run_attention(struct bench *b)
{
    refresh(b, b->h);
    moe_forward_attention(b->f, 0, b->seg, b->count, b->n, b->work);
}

static void run_attention_back(struct bench *b)
{
    refresh(b, b->g);
    moe_backward_attention(b->back, 0, b->h, b->lengths, b->count, b->work);
}

static void run_mlp_back(struct bench *b)
{
    const struct moe_weight w[3] = { b->layer.dense.gate, b->layer.dense.up, b->layer.dense.down };
    refresh(b, b->g);
    moe_backward_mlp(b->back, w, b->h, b->n, b->g, NULL, b->work, NULL);
}

static void run_head_back(struct bench *b)
{
    if (b->code == MOE_OK) b->code = moe_backward_head(b->back, b->h, b->n, 0, 0, b->work, NULL, b->err);
}

/* Operations per second of the sum that a layer's Fisher matrix is. */
static double hessian_speed(struct bench *b)
{
    struct moe_hessian f;
    if (b->code != MOE_OK || (b->code = moe_hessian_open(&f, b->c.hidden_size, b->err)) != MOE_OK) return 0;
    double from = moe_now(), all = 0;
    int64_t calls = 0;
    for (; all < 0.05; all = moe_now() - from, calls++)
        moe_hessian_add(&f, b->g, b->c.hidden_size, b->n, b->pool);
    moe_hessian_release(&f);
    return moe_work_fisher(&b->c, (double)b->n) * (double)calls / all;
}

/* Operations per second of an expert's forward pass over `each` tokens, done as a walk does it: the tokens'
 * states are gathered, and the outputs are added to states. */
static double mlp_speed(struct bench *b, int64_t each)
{
    struct moe_states h = { .fd = -1 }, sum = { .fd = -1 };
    struct moe_mlp *m = NULL;
    int64_t width = b->c.hidden_size, n = moe_min_i64(each, b->n), calls = 0;
    int32_t *row = room(b, n, sizeof *row);
    const struct moe_weight w[3] = { b->layer.dense.gate, b->layer.dense.up, b->layer.dense.down };
    const struct moe_mlp_method forward = { .matrix = { .diagonal = true } };
    struct moe_mlp_tokens t = {
        .h = &h, .norm = b->layer.post_norm, .eps = b->m.eps, .row = row, .n = n, .own = n
    };
    double from, all = 0;

    if (b->code == MOE_OK && !row)
        b->code = moe_fail(b->err, MOE_NOMEM, "no memory to measure this machine's speed");
    if (b->code == MOE_OK) b->code = moe_states_open(&h, b->n, width, NULL, b->err);
    if (b->code == MOE_OK) b->code = moe_states_open(&sum, b->n, width, NULL, b->err);
    if (b->code == MOE_OK) b->code = moe_states_write(&h, 0, b->n, b->h, b->err);
    if (b->code == MOE_OK) b->code = moe_mlp_open(&m, width, w[0].rows, &forward, true, b->pool, b->err);
    for (int64_t i = 0; b->code == MOE_OK && i < n; i++) row[i] = (int32_t)(i * (b->n / n));
    for (from = moe_now(); b->code == MOE_OK && all < 0.08; all = moe_now() - from, calls++)
        b->code = moe_mlp_forward(m, w, &t, &sum, b->err);
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

static double product_speed(struct bench *b)
{
    enum { N = 384 };
    int threads = moe_pool_threads(b->pool);
    float *m = room(b, (int64_t)(2 + threads) * N * N, sizeof *m);
    struct sample s = { m, m, m ? m + 2 * N * N : NULL, N };
    double best = 1e9;
    if (!m) return 0;
    memset(m, 0, (size_t)(2 + threads) * N * N * sizeof *m);
    for (int i = 0; i < 4; i++) {
        double from = moe_now(), t;
        moe_pool_run(b->pool, threads, sample_item, &s);
        t = moe_now() - from;
        if (t < best) best = t;
    }
    return 2.0 * N * N * N * threads / best;
}

/* ---- quantizing an expert while others are quantized ---- */

/* The experts that are quantized at once: all have the same weights and tokens. */
struct expert {
    const struct moe_mlp_method *how;
    const struct moe_output_hessian *f;
    struct moe_mlp_weights w;
    struct moe_mlp_tokens t;
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
    if (e->code[i] == MOE_OK) e->code[i] = moe_mlp_quantize(m, &e->w, &e->t, e->f, &r, &e->err[i]);
    double all = moe_now() - from;
    for (int k = 0; e->code[i] == MOE_OK && k < 3; k++) e->seconds[i][k] = r.seconds[k];
    /* Time that no phase counts (for the output Hessian of gate and up, and the error of the output) is
     * counted as statistics. */
    if (e->code[i] == MOE_OK) e->seconds[i][0] += all - r.seconds[0] - r.seconds[1] - r.seconds[2];
    moe_mlp_close(&m);
}

static bool by_rows(const struct moe_speed_of *of) { return of->sensitivity && !of->method->matrix.diagonal; }
static int64_t expert_tokens(const struct bench *b, const struct moe_speed_of *of)
{
    return moe_min_i64(moe_max_i64(of->tokens_per_expert, 1), b->n);
}

static enum moe_code make_output_hessian(struct bench *b, struct moe_output_hessian *f, int64_t hidden,
                                         double damp)
{
    MOE_TRY(moe_output_hessian_open(f, hidden, b->err));
    moe_hessian_clear(&f->hessian);
    moe_hessian_add(&f->hessian, b->g, b->c.hidden_size, b->n, b->pool);
    return moe_output_hessian_finish(f, damp, b->pool, b->err);
}

/* Seconds of each phase (statistics, factoring, rounding) of quantizing an expert of these widths: the mean
 * over as many experts as are at work at once. */
static enum moe_code expert_seconds(struct bench *b, const struct moe_speed_of *of, int64_t hidden,
                                    int64_t inter, double seconds[3])
{
    struct moe_states h = { .fd = -1 }, residual = { .fd = -1 };
    struct moe_output_hessian f = { .order = NULL };
    struct expert e = { .how = of->method, .hidden = hidden, .inter = inter };
    int64_t n = expert_tokens(b, of);
    int at_once = (int)moe_min_i64(moe_max_i64(of->workers, 1), AT_ONCE);
    struct moe_expert mlp = mlp_of(b, hidden, inter);
    int32_t *row = room(b, n, sizeof *row);
    float *share = ones(b, n);

    if (b->failed) return moe_fail(b->err, MOE_NOMEM, "no memory to measure this machine's speed");
    e.w = (struct moe_mlp_weights){ .w = { mlp.gate, mlp.up, mlp.down },
                                    .quantize = { true, true, true },
                                    .amax = { 1, 1, 1 } };
    e.t = (struct moe_mlp_tokens){ .h = &h,
                                   .norm = b->layer.post_norm,
                                   .eps = b->m.eps,
                                   .row = row,
                                   .importance = share,
                                   .n = n,
                                   .own = n };
    for (int64_t i = 0; i < n; i++) row[i] = (int32_t)(i * (b->n / n));
    enum moe_code code = moe_states_open(&h, b->n, hidden, NULL, b->err);
    if (code == MOE_OK) code = moe_states_write(&h, 0, b->n, b->h, b->err);
    if (code == MOE_OK && of->method->corrects) {
        code = moe_states_open(&residual, b->n, hidden, NULL, b->err);
        if (code == MOE_OK) code = moe_states_write(&residual, 0, b->n, b->g, b->err);
        e.t.residual = &residual;
        e.t.share = share;
    }
    if (code == MOE_OK && by_rows(of)) {
        code = make_output_hessian(b, &f, hidden, of->method->matrix.damp_rows);
        e.f = &f;
    }
    if (code == MOE_OK) moe_pool_run(b->pool, at_once, quantize_item, &e);
    for (int k = 0; k < 3; k++) seconds[k] = 0;
    for (int i = 0; code == MOE_OK && i < at_once; i++) {
        if (e.code[i] != MOE_OK) *b->err = e.err[i], code = e.code[i];
        for (int k = 0; k < 3; k++) seconds[k] += e.seconds[i][k] / at_once;
    }
    moe_output_hessian_release(&f);
    moe_states_close(&h);
    moe_states_close(&residual);
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

static enum moe_code expert_speed(struct bench *b, const struct moe_speed_of *of, struct moe_speed *s)
{
    double fastest = s->product / moe_pool_threads(b->pool);
    double seconds[2][3], rounding[3][2], factoring[3][2];
    struct moe_work_quantize w[2];

    for (int i = 0; i < 2; i++) { /* half the widths, then all */
        int64_t hidden = moe_min_i64(b->c.hidden_size, EXPERT_HIDDEN) / (2 - i) / 16 * 16;
        int64_t inter = moe_min_i64(b->c.moe_intermediate_size, EXPERT_INTER) / (2 - i) / 16 * 16;
        hidden = moe_max_i64(hidden, 16);
        inter = moe_max_i64(inter, 16);
        MOE_TRY(expert_seconds(b, of, hidden, inter, seconds[i]));
        w[i] = moe_work_quantize(of->method, hidden, inter, by_rows(of), (double)expert_tokens(b, of));
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

static double row_seconds(struct bench *b, int64_t width)
{
    enum { ROWS = 512 };
    size_t bytes = (size_t)width * sizeof(float);
    float *row = room(b, width, sizeof *row);
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

static enum moe_code measure(struct bench *b, struct moe_speed *s, const struct moe_speed_of *of)
{
    const struct moe_config *c = &b->c;
    double n = (double)b->n, sequence = (double)(b->n / b->count);

    s->product = product_speed(b);
    s->row = row_seconds(b, of->config->hidden_size);
    s->attention = moe_work_attention(c, n, sequence) / seconds_of(b, run_attention);
    s->mlp = mlp_speed(b, of->tokens_per_expert);
    if (of->sensitivity) {
        s->head_back = moe_work_head_back(c, n) / seconds_of(b, run_head_back);
        s->mlp_back =
            moe_work_mlp_back(c->hidden_size, c->moe_intermediate_size, n) / seconds_of(b, run_mlp_back);
        s->attention_back = moe_work_attention_back(c, n, sequence) / seconds_of(b, run_attention_back);
    }
    s->hessian = hessian_speed(b);
    MOE_TRY(b->code);
    return expert_speed(b, of, s);
}

enum moe_code moe_speed_measure(struct moe_speed *s, const struct moe_speed_of *of, struct moe_pool *pool,
                                struct moe_err *err)
{
    struct bench *b = calloc(1, sizeof *b);
    if (!b) return moe_fail(err, MOE_NOMEM, "no memory to measure this machine's speed");
    *b = (struct bench){ .c = smaller(of->config), .pool = pool, .random = 1, .err = err };
    b->m.arena = (struct moe_arena)MOE_ARENA_INIT;
    enum moe_code code = open_bench(b, moe_max_i64(of->sequence, 1), of->sensitivity);
    if (code == MOE_OK) code = measure(b, s, of);
    close_bench(b);
    free(b);
    return code;
}
