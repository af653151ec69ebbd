/* SPDX-License-Identifier: Apache-2.0 */
/* The GGUF export: each tensor of the model encoded chunk by chunk, and the file as a whole. */
#include "convert/gguf.h"

#include "base/io.h"
#include "base/newfile.h"
#include "convert/gguf-internal.h"
#include "convert/rows.h"
#include "kernels/kernels.h"
#include "kernels/scales.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A worker's buffers, and what it measured of the present tensor. */
struct worker {
    struct moe_rows rows;
    uint8_t *out;           /* a chunk as it is written */
    float *row;             /* a row of it, decoded again */
    uint8_t *head;          /* one attention head of k_b, transposed */
    bool decoded, rounded;  /* it has another type in the file; a value or scale of it was rounded */
    int64_t blocks;         /* NVFP4 blocks whose scale was rounded */
    double num, den;        /* sums of (w - w')^2 and of w^2, whose quotient's root is the relative error */
};

struct work {
    const struct moe_source *src;
    const struct moe_gguf_plan *plan;
    struct moe_gguf_writer *w;
    char name[MOE_WORK_BYTES]; /* the work line (base/leftover.h) */
    struct moe_progress *progress;
    const struct moe_cancel *cancel;
    struct moe_gguf_result *r;
    struct worker *worker;  /* [workers] */
    int workers;
    double num, den;        /* the sums of all tensors that were decoded or have an error */
    struct moe_identity before; /* the source's identity when the work began */
};

/* ---- a chunk in another form ---- */

/* Encodes `n` values as F32 or BF16 (nearest, ties to even). */
static void encode(uint32_t type, const float *x, int64_t n, uint8_t *out)
{
    if (type == MOE_GGUF_F32) {
        memcpy(out, x, (size_t)n * sizeof *x);
        return;
    }
    for (int64_t i = 0; i < n; i++) {
        uint16_t b = moe_f32_to_bf16(x[i]);
        out[2 * i] = (uint8_t)b;
        out[2 * i + 1] = (uint8_t)(b >> 8);
    }
}

/* Whether the tensor is stored in fewer bits than BF16 and so is decoded for the file. */
static bool smaller_than_bf16(const struct moe_tensor *t) { return !moe_dtype_plain(t->type); }

/* Encodes `rows` rows of the decoded chunk, from first_row on, times 2^power, and leaves the products in
 * k->rows.values.  This is exact for values that stay in float32's normal range. */
static enum moe_code encode_scaled(struct worker *k, uint32_t type, int64_t first_row, int64_t rows,
                                   int power, struct moe_err *err)
{
    const struct moe_tensor *t = k->rows.t;
    int64_t n = rows * k->rows.w.cols;
    float *x = k->rows.values + first_row * k->rows.w.cols, by = ldexpf(1, power);
    char name[128];
    for (int64_t i = 0; i < n; i++) {
        float v = x[i] * by;
        k->rounded |= v != 0 ? fabsf(v) < FLT_MIN : x[i] != 0;
        x[i] = v;
    }
    encode(type, x, n, k->out + (size_t)(first_row * k->rows.w.cols) * (type == MOE_GGUF_F32 ? 4 : 2));
    if (moe_kernels()->amax(x, n) < 0x1p127f) return MOE_OK;
    return moe_fail_at(err, MOE_UNSUPPORTED, k->rows.src->files[t->plane[0].file].name,
                       moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                       "has values that are too large times 2^%d, from a global scale (write --outtype bf16)",
                       power);
}

/* Adds to k->num and k->den the error of the chunk that is encoded in k->out. */
static void add_error(struct worker *k, uint32_t type)
{
    const struct moe_kernels *kernels = moe_kernels();
    const struct moe_weight *w = &k->rows.w;
    struct moe_weight q = {
        .type = type == MOE_GGUF_F32 ? MOE_F32 : MOE_BF16, .rows = w->rows, .cols = w->cols, .data = k->out
    };
    double before = k->num;
    for (int64_t r = 0; r < w->rows; r++) {
        kernels->dequantize(&q, r, 0, w->cols, k->row);
        kernels->sqerr(k->rows.values + r * w->cols, k->row, w->cols, &k->num, &k->den);
    }
    k->rounded |= k->num > before;
}

/* Encodes the chunk as F32, BF16 or F16 times 2^power. */
static enum moe_code encode_chunk(struct worker *k, uint32_t type, int power, struct moe_err *err)
{
    MOE_TRY(moe_rows_decode(&k->rows, true, err));
    int64_t n = k->rows.w.rows * k->rows.w.cols;
    /* a tensor is F16 in the file only if it is F16 in the model */
    if (type == MOE_GGUF_F16) memcpy(k->out, k->rows.w.data, 2 * (size_t)n);
    else encode(type, k->rows.values, n, k->out);
    if (smaller_than_bf16(k->rows.t)) {
        add_error(k, type);
        k->decoded = true;
    }
    return power ? encode_scaled(k, type, 0, k->rows.w.rows, power, err) : MOE_OK;
}

/* Fails with MOE_UNSUPPORTED and the sentence `what` about the present tensor. */
static enum moe_code refuse(struct worker *k, const char *what, struct moe_err *err)
{
    const struct moe_tensor *t = k->rows.t;
    char name[128];
    MOE_TRY(moe_rows_decode(&k->rows, true, err)); /* fails when there is a NaN or Inf, which is the reason */
    return moe_fail_at(err, MOE_UNSUPPORTED, k->rows.src->files[t->plane[0].file].name,
                       moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name), "%s", what);
}

/* The number by which all values of the weight are multiplied. */
static double global_of(const struct moe_weight *w)
{
    return w->reciprocal ? 1 / (double)w->global : (double)w->global;
}

/* Packs the chunk into k->out.  inexact: block scales may be rounded, so the error is measured. */
static enum moe_code pack_nvfp4_chunk(struct worker *k, const struct moe_gguf_shift_table *shift,
                                      bool inexact, size_t row_bytes, struct moe_err *err)
{
    const struct moe_weight *w = &k->rows.w;
    const uint8_t *scales = moe_rows_scales(&k->rows);
    double global = global_of(w), num = 0, den = 0;
    bool ok = true;
    for (int64_t r = 0; ok && r < w->rows; r++) {
        const uint8_t *codes = w->data + r * w->cols / 2, *s = scales + r * w->cols / 16;
        ok = moe_gguf_pack_nvfp4(codes, s, shift, w->cols, k->out + (size_t)r * row_bytes, &k->blocks);
        if (inexact) moe_gguf_add_error_nvfp4(codes, s, shift, w->cols, &num, &den);
    }
    k->num += num * global * global;
    k->den += den * global * global;
    k->rounded |= k->blocks > 0;
    if (ok) return MOE_OK;
    return refuse(k, "has a block scale below zero: GGUF's NVFP4 has none (write --outtype q6_k)", err);
}

static enum moe_code pack_q6_k_chunk(struct worker *k, int power, size_t row_bytes, struct moe_err *err)
{
    const struct moe_weight *w = &k->rows.w;
    const uint8_t *scales = moe_rows_scales(&k->rows);
    double factor = ldexp(global_of(w), power);
    double to_model = ldexp(1, -2 * power), num = 0, den = 0;
    bool ok = isfinite(factor);
    for (int64_t r = 0; ok && r < w->rows; r++)
        ok = moe_gguf_pack_q6_k(w->data + r * w->cols / 2, scales + r * w->cols / 16, factor, w->cols,
                                k->out + (size_t)r * row_bytes, &num, &den);
    k->num += num * to_model;
    k->den += den * to_model;
    k->decoded = true;
    k->rounded |= num > 0;
    if (ok) return MOE_OK;
    return refuse(k, "has a scale above 65504 * 127, the largest of GGUF's Q6_K (write --outtype bf16)", err);
}

static enum moe_code pack_q4_0_chunk(struct worker *k, int power, bool inexact, size_t row_bytes,
                                     struct moe_err *err)
{
    const struct moe_weight *w = &k->rows.w;
    double to_model = ldexp(1, -2 * power), num = 0, den = 0;
    for (int64_t r = 0; r < w->rows; r++) {
        for (int64_t b = 0; b < w->cols / 32; b++)
            k->row[b] = moe_scale_value(moe_dtypes[w->type].scale, w->scale, moe_scale_index(w, r, 32 * b));
        int64_t rounded = moe_gguf_pack_q4_0(w->data + r * w->cols / 2, k->row, power,
                                             w->cols, k->out + (size_t)r * row_bytes, inexact, &num, &den);
        if (rounded < 0)
            return refuse(
                k, "has a scale above 65504, the largest that GGUF's Q4_0 holds (write --outtype bf16)", err);
        k->rounded |= rounded > 0;
    }
    k->num += num * to_model;
    k->den += den * to_model;
    return MOE_OK;
}

/* Writes rows of kv_b: the qk_nope rows of a head become columns of its part of k_b, its v rows are rows of
 * v_b. */
static enum moe_code write_kv_b_chunk(struct work *x, struct worker *k, const struct moe_gguf_tensor *kb,
                                      struct moe_err *err)
{
    const struct moe_weight *w = &k->rows.w;
    int64_t nope = x->src->config.qk_nope_head_dim, v = x->src->config.v_head_dim, rank = w->cols;
    size_t e = kb->type == MOE_GGUF_F32 ? 4 : 2;
    int power = x->plan->powers->power[k->rows.t - x->src->tensors];
    MOE_TRY(encode_chunk(k, kb->type, 0, err));
    for (int64_t r = 0, n; r < w->rows; r += n) {
        int64_t h = (k->rows.first + r) / (nope + v), i = (k->rows.first + r) % (nope + v);
        const uint8_t *row = k->out + (size_t)(r * rank) * e;
        /* the v rows of a head are consecutive in v_b too, so they are written at once */
        n = i < nope ? 1 : nope + v - i < w->rows - r ? nope + v - i : w->rows - r;
        if (i >= nope) {
            if (power) MOE_TRY(encode_scaled(k, kb->type, r, n, power, err));
            MOE_TRY(moe_gguf_write(x->w, kb + 1, (uint64_t)((h * v + i - nope) * rank) * e, row,
                                   (size_t)(n * rank) * e, err));
            continue;
        }
        for (int64_t c = 0; c < rank; c++)
            memcpy(k->head + (size_t)(c * nope + i) * e, row + (size_t)c * e, e);
        if (i == nope - 1)
            MOE_TRY(moe_gguf_write(x->w, kb, (uint64_t)(h * rank * nope) * e, k->head,
                                   (size_t)(rank * nope) * e, err));
    }
    return MOE_OK;
}

/* ---- tensors ---- */

static enum moe_code produce(void *ctx, int64_t i, int slot, struct moe_err *err)
{
    struct work *x = ctx;
    struct worker *k = &x->worker[slot];
    const struct moe_tensor *t = &x->src->tensors[i];
    const struct moe_gguf_tensor *to = &x->plan->t[x->plan->to[i]];
    uint64_t row_bytes = (uint64_t)moe_gguf_row_bytes(to->type, (uint64_t)t->cols);
    uint64_t base = t->expert > 0 ? (uint64_t)t->expert * (uint64_t)t->rows * row_bytes : 0;
    bool more = true;
    int power = x->plan->powers->power[i];
    struct moe_gguf_shift_table shift;
    if (to->type == MOE_GGUF_NVFP4)
        moe_gguf_fill_shift_table(moe_gguf_shift_power(x->plan->powers, x->src, i), &shift);
    k->decoded = k->rounded = false;
    k->num = k->den = 0;
    k->blocks = 0;
    moe_rows_begin(&k->rows, t);
    for (;;) {
        MOE_TRY(moe_rows_next(&k->rows, &more, err));
        if (!more) break;
        if (t->role == MOE_ROLE_KV_B) {
            MOE_TRY(write_kv_b_chunk(x, k, to, err));
            continue;
        }
        if (to->type == MOE_GGUF_NVFP4)
            MOE_TRY(pack_nvfp4_chunk(k, &shift, x->plan->powers->inexact[i], row_bytes, err));
        else if (to->type == MOE_GGUF_Q6_K) MOE_TRY(pack_q6_k_chunk(k, power, row_bytes, err));
        else if (to->type == MOE_GGUF_Q4_0)
            MOE_TRY(pack_q4_0_chunk(k, power, x->plan->powers->inexact[i], row_bytes, err));
        else MOE_TRY(encode_chunk(k, to->type, power, err));
        MOE_TRY(moe_gguf_write(x->w, to, base + (uint64_t)k->rows.first * row_bytes, k->out,
                               (size_t)k->rows.w.rows * row_bytes, err));
    }
    return MOE_OK;
}

static enum moe_code consume(void *ctx, int64_t i, int slot, struct moe_err *err)
{
    struct work *x = ctx;
    const struct worker *k = &x->worker[slot];
    x->r->decoded += k->decoded;
    x->r->rounded += k->rounded;
    x->r->blocks_rounded += k->blocks;
    if (k->decoded || k->num > 0) x->num += k->num, x->den += k->den;
    if (k->num > 0 && sqrt(k->num / k->den) > x->r->worst_error) {
        x->r->worst_error = sqrt(k->num / k->den);
        x->r->worst = i;
    }
    moe_progress_add(x->progress, moe_tensor_bytes(&x->src->tensors[i]));
    return moe_cancel_check(x->cancel, err);
}

/* Writes the F32 tensors of input scales: one value for a matrix, or one for each expert of a stack. */
static enum moe_code write_input_scales(struct work *x, struct moe_err *err)
{
    const struct moe_gguf_plan *p = x->plan;
    for (int64_t i = 0; i < x->src->n_tensors; i++) {
        const struct moe_tensor *t = &x->src->tensors[i];
        int32_t input = p->input[p->to[i]];
        uint8_t b[4];
        if (input < 0) continue;
        float v = moe_gguf_input_scale(p, x->src, i);
        encode(MOE_GGUF_F32, &v, 1, b);
        uint64_t at = t->expert > 0 ? 4 * (uint64_t)t->expert : 0;
        MOE_TRY(moe_gguf_write(x->w, &p->t[input], at, b, sizeof b, err));
    }
    return MOE_OK;
}

/* ---- workers ---- */

struct buffers { size_t out, row, head; };

static size_t round_up(size_t n) { return (n + 63) / 64 * 64; }

/* The bytes that a worker's buffers need for the largest tensor of the model. */
static struct buffers measure_buffers(const struct moe_source *src)
{
    const struct moe_config *c = &src->config;
    struct buffers b = { 0, 0, round_up((size_t)(c->kv_lora_rank * c->qk_nope_head_dim) * 4) };
    for (int64_t i = 0; i < src->n_tensors; i++) {
        size_t row = round_up((size_t)src->tensors[i].cols * 4),
               out = round_up((size_t)moe_chunk_rows(&src->tensors[i]) * (size_t)src->tensors[i].cols * 4);
        if (row > b.row) b.row = row;
        if (out > b.out) b.out = out;
    }
    return b;
}

/* Decides how many workers the memory allows, each with its buffers; at most as many as moe_pipe_run uses. */
static enum moe_code plan_workers(struct work *x, const struct moe_gguf_options *o,
                                  const struct moe_pool *pool, struct moe_err *err)
{
    struct buffers b = measure_buffers(x->src);
    uint64_t base = moe_peak_rss() + (8 << 20),
             each = moe_rows_estimate(x->src) + b.out + b.row + b.head + (256 << 10);
    uint64_t limit = o->memory ? o->memory : moe_peak_rss() + moe_available_memory() / 2;
    int64_t fit = limit > base ? (int64_t)((limit - base) / each) : 0;
    x->workers = moe_pool_threads(pool) + (moe_pool_threads(pool) > 1);
    if (fit < x->workers) x->workers = (int)fit;
    x->r->memory_bytes = base + (uint64_t)x->workers * each;
    if (x->workers > 0) return MOE_OK;
    return moe_fail(err, MOE_NOMEM, "needs at least %llu MiB of memory, %llu MiB allowed (raise --memory)",
                    (unsigned long long)((base + each) >> 20) + 1, (unsigned long long)(limit >> 20));
}

static enum moe_code open_workers(struct work *x, struct moe_err *err)
{
    struct buffers b = measure_buffers(x->src);
    x->worker = calloc((size_t)x->workers, sizeof *x->worker);
    if (!x->worker) return moe_fail(err, MOE_NOMEM, "no memory for workers");
    for (int i = 0; i < x->workers; i++) {
        struct worker *k = &x->worker[i];
        MOE_TRY(moe_rows_open(&k->rows, x->src, err));
        k->out = aligned_alloc(64, b.out + b.row + b.head);
        if (!k->out)
            return moe_fail(err, MOE_NOMEM, "no memory for a worker's buffers (try fewer --threads)");
        k->row = (float *)(void *)(k->out + b.out);
        k->head = k->out + b.out + b.row;
    }
    return MOE_OK;
}

static void close_workers(struct work *x)
{
    for (int i = 0; x->worker && i < x->workers; i++) {
        moe_rows_release(&x->worker[i].rows);
        free(x->worker[i].out);
    }
    free(x->worker);
}

/* ---- the file ---- */

/* Fails, before anything of the model is read, when a file at `out` would prevent the end.  Under --resume
 * such a file may be what this same work wrote, which sets was_done, unless a --force run that was killed
 * was about to replace it. */
static enum moe_code begin_work(struct work *x, const char *out, const struct moe_gguf_options *o,
                                struct moe_err *err)
{
    char id[33];
    bool resume = o->mode == MOE_WRITE_RESUME;
    if (o->dry_run) return MOE_OK;
    if (!resume) MOE_TRY(moe_gguf_may_write(out, moe_leftover_of(o->mode), err));
    MOE_TRY(moe_source_check_overlap(x->src, out, err));
    MOE_TRY(moe_source_identity(x->src, x->cancel, &x->before, err));
    moe_hex128(moe_identity_digest(&x->before), id);
    snprintf(x->name, sizeof x->name, "moe " MOE_VERSION " gguf %d of %s", (int)o->outtype, id);
    x->r->was_done = resume && !moe_newfile_resumes(out) && moe_gguf_is_made(out, x->name);
    return !resume || x->r->was_done ? MOE_OK : moe_gguf_may_write(out, moe_leftover_of(o->mode), err);
}

static enum moe_code write_file(struct work *x, const char *out, const struct moe_gguf_options *o,
                                struct moe_pool *pool, const struct moe_gguf_meta *m, struct moe_err *err)
{
    bool spoiled;
    if (x->r->was_done) return MOE_OK;
    if (o->mode != MOE_WRITE_RESUME) MOE_TRY(moe_need_space(out, x->r->output_bytes, out, err));
    MOE_TRY(moe_gguf_create(&x->w, out, moe_leftover_of(o->mode), x->name, &x->r->was_done, m, x->plan->t,
                            x->plan->n, err));
    if (x->r->was_done) return moe_gguf_finish(&x->w, err);
    enum moe_code code = open_workers(x, err);
    moe_progress_begin(x->progress, "export", x->r->input_bytes, MOE_UNIT_BYTES);
    if (code == MOE_OK) code = moe_pipe_run(pool, x->src->n_tensors, x->workers, produce, consume, x, err);
    moe_progress_end(x->progress);
    if (code == MOE_OK) code = write_input_scales(x, err);
    if (code == MOE_OK) code = moe_source_unchanged(x->src, &x->before, x->cancel, &spoiled, err);
    close_workers(x);
    if (code == MOE_OK) return moe_gguf_finish(&x->w, err);
    moe_gguf_abort(&x->w);
    return moe_cancel_left(code, err, "nothing was finished yet (an export is a copy, and starts over)");
}

enum moe_code moe_export_gguf(const struct moe_source *src, const char *out, const struct moe_gguf_options *o,
                              struct moe_pool *pool, struct moe_progress *progress, struct moe_gguf_result *r,
                              struct moe_err *err)
{
    struct moe_gguf_plan plan = { 0 };
    struct moe_gguf_powers powers;
    struct moe_gguf_meta meta = { 0 };
    struct work x = { .src = src, .plan = &plan, .progress = progress, .cancel = o->cancel, .r = r };
    *r = (struct moe_gguf_result){ .worst = -1 };
    MOE_TRY(begin_work(&x, out, o, err));
    MOE_TRY(moe_gguf_place_powers(&powers, src, o, pool, progress, err));
    enum moe_code code = moe_gguf_make_plan(&plan, src, &powers, err);
    r->tensors = plan.n;
    memcpy(r->dropped, powers.dropped, sizeof r->dropped);
    for (int64_t i = 0; i < plan.n; i++) {
        r->nvfp4 += plan.t[i].type == MOE_GGUF_NVFP4;
        r->q6_k += plan.t[i].type == MOE_GGUF_Q6_K;
    }
    for (int64_t i = 0; i < src->n_tensors; i++) r->input_bytes += moe_tensor_bytes(&src->tensors[i]);
    if (code == MOE_OK) code = moe_gguf_make_metadata(&meta, src, &plan, &r->no_tokenizer, err);
    if (code == MOE_OK) code = moe_gguf_place(plan.t, plan.n, &meta, &r->output_bytes, err);
    if (code == MOE_OK) code = plan_workers(&x, o, pool, err);
    if (code == MOE_OK && !o->dry_run) code = write_file(&x, out, o, pool, &meta, err);
    if (x.den > 0) r->relative_error = sqrt(x.num / x.den);
    moe_gguf_meta_release(&meta);
    moe_gguf_plan_release(&plan);
    moe_gguf_powers_release(&powers);
    return code;
}

int moe_outtype_find(const char *name)
{
    static const char *const names[] = {
        [MOE_OUT_AUTO] = "auto", [MOE_OUT_BF16] = "bf16", [MOE_OUT_F32] = "f32", [MOE_OUT_Q6_K] = "q6_k"
    };
    for (int i = 0; i < 4; i++)
        if (!strcmp(names[i], name)) return i;
    return -1;
}
