/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/bench-pass.h"

#include "base/io.h"
#include "base/json.h"
#include "kernels/kernels.h"
#include "runtime/engine/bench.h"
#include "runtime/engine/generate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Rounds of decoding; bytes of memory that the floor of decoding reads, and that one task of it reads; tokens
 * of the context at which decoding begins; tokens of the prompt. */
enum { ROUNDS = 9, READ_BYTES = 256 << 20, PIECE = 1 << 20, CONTEXT = 64, PROMPT = 256 };

/* Seconds of wall time and of processor time: when a round began, or the least that a round took. */
struct least { double wall, processor; };

struct bench {
    struct moe_engine *e;
    struct moe_pool *pool;
    unsigned char *memory;            /* [READ_BYTES] */
    float *x, *y;                     /* inputs and outputs of matrix products */
    int32_t ids[CONTEXT + PROMPT + 2 * ROUNDS];
    volatile float sink[64];          /* takes results, so that the compiler keeps the work */
};

static struct least begin(void) { return (struct least){ moe_now(), moe_cpu_seconds() }; }

static void end(struct least from, struct least *best)
{
    double wall = moe_now() - from.wall, cpu = moe_cpu_seconds() - from.processor;
    if (wall < best->wall) best->wall = wall;
    if (cpu < best->processor) best->processor = cpu;
}

static const struct least never = { 1e30, 1e30 };

/* ---- the floor of decoding: memory read on all threads ---- */

static void read_piece(void *ctx, int64_t i, int worker)
{
    struct bench *b = ctx;
    b->sink[worker % 64] = moe_kernels()->amax((const float *)(const void *)(b->memory + i * PIECE),
                                               PIECE / 4);
}

static double weight_bytes(const struct moe_weight *w)
{
    if (!w->data) return 0;
    return (double)(moe_plane_bytes(w->type, w->layout, 0, w->rows, w->cols) +
                    moe_plane_bytes(w->type, w->layout, 1, w->rows, w->cols));
}

static double expert_bytes(const struct moe_expert *e)
{
    return weight_bytes(&e->gate) + weight_bytes(&e->up) + weight_bytes(&e->down);
}

/* Bytes of the weights that one token uses; all experts of a layer have the same size. */
static double active_bytes(const struct moe_model *m)
{
    double sum = weight_bytes(&m->head);
    for (int64_t l = 0; l < m->config.num_hidden_layers; l++) {
        const struct moe_layer *y = &m->layers[l];
        const struct moe_weight *const w[] = {
            &y->q_a, &y->q_b, &y->q, &y->kv_a, &y->kv_b, &y->o, &y->router
        };
        for (size_t i = 0; i < sizeof w / sizeof *w; i++) sum += weight_bytes(w[i]);
        sum += y->moe ? expert_bytes(&y->shared) +
                            (double)m->config.num_experts_per_tok * expert_bytes(&y->experts[0])
                      : expert_bytes(&y->dense);
    }
    return sum;
}

/* ---- the floor of a prompt: its matrix products one by one, with tokens spread evenly over experts ---- */

/* The product of a weight with n inputs; each task computes `rows` rows of the weight. */
struct product { const struct moe_weight *w; const struct bench *b; int64_t n, rows; };

static void product(void *ctx, int64_t i, int worker)
{
    const struct product *p = ctx;
    int64_t r0 = i * p->rows, r1 = r0 + p->rows < p->w->rows ? r0 + p->rows : p->w->rows;
    (void)worker;
    moe_kernels()->matmul(p->w, r0, r1, p->b->x, p->w->cols, p->n, p->b->y + r0, p->w->rows);
}

/* Times the product of a weight with n inputs, and adds `times` times its seconds and operations to the
 * sums. */
static void add_product(struct bench *b, const struct moe_weight *w, int64_t n, double times,
                        struct least *sum, double *flops)
{
    if (!w->data || n < 1) return;
    struct product p = { w, b, n, 128 };
    struct least best = never;
    for (int i = 0; i < 3; i++) {
        struct least t = begin();
        moe_pool_run(b->pool, (w->rows + p.rows - 1) / p.rows, product, &p);
        end(t, &best);
    }
    sum->wall += times * best.wall;
    sum->processor += times * best.processor;
    *flops += times * 2.0 * (double)(w->rows * w->cols * n);
}

static void add_expert(struct bench *b, const struct moe_expert *x, int64_t n, double times,
                       struct least *sum, double *flops)
{
    add_product(b, &x->gate, n, times, sum, flops);
    add_product(b, &x->up, n, times, sum, flops);
    add_product(b, &x->down, n, times, sum, flops);
}

/* Adds the products of `times` layers like *y, for n tokens. */
static void add_layer(struct bench *b, const struct moe_layer *y, int64_t n, double times, struct least *sum,
                      double *flops)
{
    const struct moe_config *c = &b->e->model->config;
    const struct moe_weight *const w[] = { &y->q_a, &y->q_b, &y->q, &y->kv_a, &y->o, &y->router };
    for (size_t i = 0; i < sizeof w / sizeof *w; i++) add_product(b, w[i], n, times, sum, flops);
    add_expert(b, y->moe ? &y->shared : &y->dense, n, times, sum, flops);
    if (!y->moe) return;
    /* tokens of each expert, k n / experts rounded up; with k experts a token, k n / each experts have any */
    int64_t each = (n * c->num_experts_per_tok + c->n_routed_experts - 1) / c->n_routed_experts;
    add_expert(b, &y->experts[0], each, times * (double)(n * c->num_experts_per_tok) / (double)each, sum,
               flops);
}

/* Seconds of all products of a pass over n tokens; the last dense and the last MoE layer stand for all of
 * their kind. */
static struct least products(struct bench *b, int64_t n, double *flops)
{
    const struct moe_model *m = b->e->model;
    int64_t layers = m->config.num_hidden_layers, moe = 0;
    const struct moe_layer *kind[2] = { NULL, NULL };
    struct least sum = { 0, 0 };
    for (int64_t l = 0; l < layers; l++) {
        kind[m->layers[l].moe] = &m->layers[l];
        moe += m->layers[l].moe;
    }
    if (kind[0]) add_layer(b, kind[0], n, (double)(layers - moe), &sum, flops);
    if (kind[1]) add_layer(b, kind[1], n, (double)moe, &sum, flops);
    add_product(b, &m->head, 1, 1, &sum, flops);
    return sum;
}

/* ---- rows ---- */

static cJSON *row(cJSON *list, const char *op, const char *shape, double seconds, double bytes, double flops)
{
    cJSON *o = moe_json_append(list, cJSON_CreateObject());
    moe_json_add_str(o, "op", op);
    moe_json_add_str(o, "shape", shape);
    moe_json_add_measured(o, "seconds", seconds);
    moe_json_add_measured(o, "gbytes_per_second", bytes / seconds / 1e9);
    moe_json_add_measured(o, "gflops", flops / seconds / 1e9);
    return o;
}

/* Adds to a row how much of the time that it took the floor is. */
static void shares(cJSON *o, struct least floor, struct least took)
{
    moe_json_add_measured(o, "share_of_peak", floor.wall / took.wall);
    moe_json_add_measured(o, "processor_share", floor.processor / took.processor);
}

/* Computes a prompt of n tokens and the first of `answer` tokens; *core stays open. */
static enum moe_code begin_answer(struct bench *b, struct moe_core **core, int64_t n, int64_t answer,
                                  struct moe_err *err)
{
    const struct moe_request q = { .ids = b->ids,
                                   .n_ids = n,
                                   .max_tokens = answer,
                                   .logprobs = -1,
                                   .ignore_eos = true };
    uint64_t id;
    bool worked;
    MOE_TRY(moe_generate_open(core, b->e, err));
    MOE_TRY(moe_core_submit(*core, &q, &id, err));
    return moe_core_step(*core, &worked, err);
}

static enum moe_code time_steps(struct bench *b, struct moe_core *core, struct least *reading,
                                struct least *step, struct moe_err *err)
{
    bool worked;
    for (int i = 1; i <= ROUNDS; i++) {
        struct least t = begin();
        moe_pool_run(b->pool, READ_BYTES / PIECE, read_piece, b);
        end(t, reading);
        t = begin();
        MOE_TRY(moe_core_step(core, &worked, err));
        end(t, step);
    }
    return MOE_OK;
}

static enum moe_code decode(struct bench *b, cJSON *list, struct least *step, struct moe_err *err)
{
    struct least reading = never;
    struct moe_core *core = NULL;
    double active = active_bytes(b->e->model);
    char shape[64];
    *step = never;
    enum moe_code code = begin_answer(b, &core, CONTEXT, ROUNDS + 1, err);
    if (code == MOE_OK) code = time_steps(b, core, &reading, step, err);
    moe_core_close(&core);
    MOE_TRY(code);
    reading.wall *= active / READ_BYTES;
    reading.processor *= active / READ_BYTES;
    snprintf(shape, sizeof shape, "n=1 %.0f MB active", active / 1e6);
    shares(row(list, "decode", shape, step->wall, active, 0), reading, *step);
    return MOE_OK;
}

static enum moe_code prefill(struct bench *b, cJSON *list, struct moe_err *err)
{
    int64_t n = b->e->batch < PROMPT ? b->e->batch : PROMPT;
    struct least took = never, floor;
    double flops = 0;
    char shape[64];
    if (n > b->e->context) n = b->e->context;
    for (int i = 0; i < 2; i++) {
        struct moe_core *core = NULL;
        struct least t = begin();
        enum moe_code code = begin_answer(b, &core, n, 1, err);
        end(t, &took);
        moe_core_close(&core);
        MOE_TRY(code);
    }
    floor = products(b, n, &flops);
    snprintf(shape, sizeof shape, "n=%lld", (long long)n);
    shares(row(list, "prefill", shape, took.wall, 0, flops), floor, took);
    return MOE_OK;
}

/* Times opening an engine and its first token, with the files in the page cache. */
static enum moe_code time_opening(cJSON *list, const char *path, const struct moe_engine_options *o,
                                  struct moe_pool *pool, struct least step, struct moe_err *err)
{
    struct least opened = never, first = never;
    for (int i = 0; i < 5; i++) {
        struct bench b = { .ids = { 1 } };
        struct moe_core *core = NULL;
        struct least t = begin();
        MOE_TRY(moe_engine_open(&b.e, path, o, pool, err));
        end(t, &opened);
        enum moe_code code = begin_answer(&b, &core, 1, 1, err);
        end(t, &first);
        moe_core_close(&core);
        moe_engine_close(&b.e);
        MOE_TRY(code);
    }
    moe_json_add_measured(row(list, "open", "", opened.wall, 0, 0), "processor_seconds", opened.processor);
    cJSON *r = row(list, "first token", "open, then one token", first.wall, 0, 0);
    moe_json_add_measured(r, "overhead_seconds", first.wall - step.wall);
    moe_json_add_measured(r, "processor_overhead_seconds",
                          (first.processor - step.processor) / moe_pool_threads(pool));
    return MOE_OK;
}

/* The largest number of values in an input or output row of any weight. */
static int64_t widest(const struct moe_config *c)
{
    int64_t n = c->vocab_size;
    const int64_t all[] = { c->hidden_size, c->intermediate_size,
                            c->num_attention_heads * (c->qk_nope_head_dim + c->qk_rope_head_dim),
                            c->num_attention_heads * c->v_head_dim,
                            c->n_shared_experts * c->moe_intermediate_size };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] > n) n = all[i];
    return n;
}

enum moe_code moe_bench_pass(cJSON *list, const char *path, const struct moe_engine_options *o,
                             struct moe_pool *pool, struct moe_err *err)
{
    struct bench b = { .pool = pool };
    struct least step;
    MOE_TRY(moe_engine_open(&b.e, path, o, pool, err));
    int64_t n = PROMPT * widest(&b.e->model->config);
    enum moe_code code = MOE_OK;
    b.memory = malloc(READ_BYTES);
    b.x = malloc((size_t)n * sizeof *b.x);
    b.y = malloc((size_t)n * sizeof *b.y);
    if (!b.memory || !b.x || !b.y) {
        code = moe_fail(err, MOE_NOMEM, "no memory for a benchmark");
    } else {
        memset(b.memory, 1, READ_BYTES);
        for (int64_t i = 0; i < n; i++) b.x[i] = (float)(i * 37 % 101) / 50.0f - 1.0f;
        for (size_t i = 0; i < sizeof b.ids / sizeof *b.ids; i++)
            b.ids[i] = (int32_t)((int64_t)i * 131 % b.e->model->config.vocab_size);
        code = b.e->context > CONTEXT + ROUNDS
                 ? decode(&b, list, &step, err)
                 : moe_fail(err, MOE_USAGE, "--bench needs a context of %d", CONTEXT + ROUNDS + 1);
        if (code == MOE_OK) code = prefill(&b, list, err);
        if (code == MOE_OK) code = time_opening(list, path, o, pool, step, err);
    }
    free(b.memory);
    free(b.x);
    free(b.y);
    moe_engine_close(&b.e);
    return code;
}

enum moe_code moe_bench_all(cJSON **rows, const struct moe_engine *e, const char *path,
                            const struct moe_engine_options *o, struct moe_pool *pool, struct moe_err *err)
{
    *rows = moe_bench_model(e, pool);
    enum moe_code code = moe_json_whole(*rows) ? moe_bench_pass(*rows, path, o, pool, err)
                                               : moe_fail(err, MOE_NOMEM, "no memory for a benchmark");
    if (code == MOE_OK) return MOE_OK;
    cJSON_Delete(*rows);
    *rows = NULL;
    return code;
}
