/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/bench.h"

#include "base/io.h"
#include "kernels/kernels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPEAT = 5, READ_BYTES = 256 << 20, FMA_ROUNDS = 4000000 };

/* What the threads of a timed loop work on. */
struct task {
    const struct moe_weight *w;
    const float *x;
    float *y;
    int64_t n, rows;              /* inputs of a product; rows of the weight that a task computes */
    const unsigned char *memory;  /* [READ_BYTES] */
    double *done;                 /* [threads] multiply-adds that each has done */
    volatile float sink[64];      /* takes results, so that the compiler keeps the work */
};

static void product(void *ctx, int64_t i, int worker)
{
    struct task *t = ctx;
    int64_t r0 = i * t->rows, r1 = r0 + t->rows < t->w->rows ? r0 + t->rows : t->w->rows;
    (void)worker;
    moe_kernels()->matmul(t->w, r0, r1, t->x, t->w->cols, t->n, t->y + r0, t->w->rows);
}

/* amax reads each float once and does next to nothing with it. */
static void read_memory(void *ctx, int64_t i, int worker)
{
    struct task *t = ctx;
    t->sink[worker % 64] = moe_kernels()->amax((const float *)(const void *)(t->memory + i * (1 << 20)),
                                               (1 << 20) / 4);
}

static void multiply_add(void *ctx, int64_t i, int worker)
{
    struct task *t = ctx;
    float sink;
    (void)worker;
    t->done[i] = moe_kernels()->peak(FMA_ROUNDS, &sink);
    t->sink[i % 64] = sink;
}

/* The least seconds of REPEAT runs of a parallel loop. */
static double best_of(struct moe_pool *pool, int64_t n, void (*fn)(void *, int64_t, int), void *ctx)
{
    double least = 1e30;
    for (int i = 0; i < REPEAT; i++) {
        double t = moe_now();
        moe_pool_run(pool, n, fn, ctx);
        t = moe_now() - t;
        if (t < least) least = t;
    }
    return least;
}

/* Appends a row.  read, fma: the speeds of the floors in GB/s and GFLOPS; 0: this row measures that floor. */
static void row(cJSON *list, const char *op, const char *shape, double seconds, double bytes, double flops,
                double read, double fma)
{
    cJSON *o = moe_json_append(list, cJSON_CreateObject());
    double gb = bytes / seconds / 1e9, gf = flops / seconds / 1e9, a = read > 0 ? gb / read : 1,
           b = fma > 0 ? gf / fma : 1;
    moe_json_add_str(o, "op", op);
    moe_json_add_str(o, "shape", shape);
    moe_json_add_measured(o, "seconds", seconds);
    moe_json_add_measured(o, "gbytes_per_second", gb);
    moe_json_add_measured(o, "gflops", gf);
    moe_json_add_measured(o, "share_of_peak", a > b ? a : b);
}

static void products(cJSON *list, const struct moe_engine *e, struct moe_pool *pool, struct task *t,
                     double read, double fma)
{
    const struct moe_config *c = &e->model->config;
    const struct moe_layer *y = &e->model->layers[c->num_hidden_layers - 1];
    const struct moe_expert *x = y->moe ? &y->experts[0] : &y->dense;
    /* a rank maps only some experts: take the first of these */
    for (int64_t i = 0; y->moe && !x->gate.data && i < c->n_routed_experts; i++) x = &y->experts[i];
    const struct { const char *name; const struct moe_weight *w;
    } ops[] = {
        { "expert gate", &x->gate },
        { "expert down", &x->down },
        { "attention o", &y->o },
        { "head", &e->model->head },
    };
    static const int64_t sizes[] = { 1, 8, 64 };
    for (size_t i = 0; i < sizeof ops / sizeof *ops; i++)
        for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
            const struct moe_weight *w = ops[i].w;
            char shape[96];
            if (!w->data) continue; /* the rank maps no expert of this layer */
            snprintf(shape, sizeof shape, "%s %lldx%lld n=%lld", moe_dtype_name(w->type), (long long)w->rows,
                     (long long)w->cols, (long long)sizes[k]);
            t->w = w;
            t->n = sizes[k];
            t->rows = (w->rows / (4 * moe_pool_threads(pool)) + 16) / 16 * 16;
            double s = best_of(pool, (w->rows + t->rows - 1) / t->rows, product, t);
            double bytes = (double)(moe_plane_bytes(w->type, w->layout, 0, w->rows, w->cols) +
                                    moe_plane_bytes(w->type, w->layout, 1, w->rows, w->cols));
            row(list, ops[i].name, shape, s, bytes, 2.0 * (double)(w->rows * w->cols * t->n), read, fma);
        }
}

/* The largest number of values in an input or output row of the weights that are timed. */
static int64_t largest(const struct moe_config *c)
{
    int64_t n = c->vocab_size;
    const int64_t all[] = { c->hidden_size, c->intermediate_size, c->num_attention_heads * c->v_head_dim };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i] > n) n = all[i];
    return n;
}

cJSON *moe_bench_model(const struct moe_engine *e, struct moe_pool *pool)
{
    struct task t = { 0 };
    int64_t n = 64 * largest(&e->model->config);
    int threads = moe_pool_threads(pool);
    cJSON *list = cJSON_CreateArray();
    float *x = malloc((size_t)n * sizeof *x), *y = malloc((size_t)n * sizeof *y);
    unsigned char *memory = malloc(READ_BYTES);
    t.done = calloc((size_t)threads, sizeof *t.done);
    if (list && x && y && memory && t.done) {
        for (int64_t i = 0; i < n; i++) x[i] = (float)(i * 37 % 101) / 50.0f - 1.0f;
        /* not 0: a compiler makes malloc and memset 0 a calloc, whose pages are all one page of zeros */
        memset(memory, 1, READ_BYTES);
        t.x = x;
        t.y = y;
        t.memory = memory;
        double s = best_of(pool, READ_BYTES >> 20, read_memory, &t);
        double read = READ_BYTES / s / 1e9;
        row(list, "read", "256 MiB", s, READ_BYTES, 0, 0, 1);
        s = best_of(pool, threads, multiply_add, &t);
        double flops = 0;
        for (int i = 0; i < threads; i++) flops += 2 * t.done[i];
        row(list, "fma", "f32 in registers", s, 0, flops, 1, 0);
        double fma = flops / s / 1e9;
        products(list, e, pool, &t, read, fma);
    }
    free(x);
    free(y);
    free(memory);
    free(t.done);
    return list;
}
