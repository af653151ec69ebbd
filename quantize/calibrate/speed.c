/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/calibrate/speed.h"

#include "base/io.h"
#include "base/minmax.h"
#include "kernels/kernels.h"
#include "quantize/calibrate/probe.h"
#include "quantize/passes/work.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Upper limits of the widths of an expert that is quantized, which are smaller than those of the probe since
 * quantizing takes longer; and of the experts at once. */
enum { EXPERT_HIDDEN = 768, EXPERT_INTER = 384, AT_ONCE = 16 };

/* ---- measuring ---- */

/* Seconds of a call of fn: of the first one if that is long, else the mean over as many as take 60 ms. */
static double seconds_of(struct moe_probe *p, void (*fn)(struct moe_probe *))
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
static void refresh(struct moe_probe *p, const float *from)
{
    memcpy(p->work, from, (size_t)(p->n * p->c.hidden_size) * sizeof *from);
}

static void run_attention(struct moe_probe *p)
{
    refresh(p, p->h);
    const struct moe_batch b = { NULL, p->n, p->seg, p->count };
    moe_forward_put(p->f, p->work, p->n);
    moe_forward_attention(p->f, 0, &b);
    enum moe_code code = moe_forward_get(p->f, p->work, p->n, p->err);
    if (p->code == MOE_OK) p->code = code;
}

static void run_attention_back(struct moe_probe *p)
{
    refresh(p, p->g);
    moe_backward_attention(p->back, 0, p->h, p->lengths, p->count, p->work);
}

static void run_mlp_back(struct moe_probe *p)
{
    const struct moe_weight w[3] = { p->layer.dense.gate, p->layer.dense.up, p->layer.dense.down };
    refresh(p, p->g);
    moe_backward_mlp(p->back, w, p->h, p->n, p->g, NULL, p->work, NULL);
}

static void run_head_back(struct moe_probe *p)
{
    if (p->code == MOE_OK) p->code = moe_backward_head(p->back, p->h, p->n, 0, 0, p->work, NULL, p->err);
}

/* Operations per second of the sum that a layer's Fisher matrix is. */
static double hessian_speed(struct moe_probe *p)
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
static double mlp_speed(struct moe_probe *p, int64_t each)
{
    struct moe_states h = { .fd = -1 }, sum = { .fd = -1 };
    struct moe_mlp *m = NULL;
    int64_t width = p->c.hidden_size, n = moe_min_i64(each, p->n), calls = 0;
    int32_t *row = moe_probe_array(p, n, sizeof *row);
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

static double product_speed(struct moe_probe *p)
{
    enum { N = 384 };
    int threads = moe_pool_threads(p->pool);
    float *m = moe_probe_array(p, (int64_t)(2 + threads) * N * N, sizeof *m);
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
static int64_t expert_tokens(const struct moe_probe *p, const struct moe_speed_of *of)
{
    return moe_min_i64(moe_max_i64(of->tokens_per_expert, 1), p->n);
}

static enum moe_code make_output_hessian(struct moe_probe *p, struct moe_output_hessian *f, int64_t hidden,
                                         double damp)
{
    MOE_TRY(moe_output_hessian_open(f, hidden, p->err));
    moe_hessian_clear(&f->hessian);
    moe_hessian_add(&f->hessian, p->g, p->c.hidden_size, p->n, p->pool);
    return moe_output_hessian_finish(f, damp, p->pool, p->err);
}

/* The states of the tokens, the first ones of the probe's; with a correction, residuals too. */
static enum moe_code make_states(struct moe_probe *p, struct expert *e)
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
static enum moe_code open_expert(struct moe_probe *p, const struct moe_speed_of *of, struct expert *e)
{
    int64_t n = expert_tokens(p, of);
    struct moe_expert mlp = moe_probe_mlp(p, e->hidden, e->inter);
    int32_t *row = moe_probe_array(p, n, sizeof *row);
    const float *importance = moe_probe_ones(p, n);

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
static enum moe_code expert_seconds(struct moe_probe *p, const struct moe_speed_of *of, int64_t hidden,
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

static enum moe_code expert_speed(struct moe_probe *p, const struct moe_speed_of *of, struct moe_speed *s)
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

static double row_seconds(struct moe_probe *p, int64_t width)
{
    enum { ROWS = 512 };
    size_t bytes = (size_t)width * sizeof(float);
    float *row = moe_probe_array(p, width, sizeof *row);
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

static enum moe_code measure(struct moe_probe *p, struct moe_speed *s, const struct moe_speed_of *of)
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
    struct moe_probe *p = calloc(1, sizeof *p);
    if (!p) return moe_fail(err, MOE_NOMEM, "no memory to measure this machine's speed");
    enum moe_code code =
        moe_probe_open(p, of->config, moe_max_i64(of->sequence, 1), of->sensitivity, pool, err);
    if (code == MOE_OK) code = measure(p, s, of);
    moe_probe_close(p);
    free(p);
    return code;
}
