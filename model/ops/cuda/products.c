/* SPDX-License-Identifier: Apache-2.0 */
/* Operations of which each row depends on one row alone: embeddings, norms, products, logits, sampling. */
#include "base/minmax.h"
#include "kernels/cuda/activations.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/dense-fast.h"
#include "kernels/cuda/dense.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/nvfp4-fast.h"
#include "kernels/cuda/sample.h"
#include "model/ops/cuda/cuda-internal.h"

/* ---- products ---- */

bool moe_cuda_quantizes(const struct moe_cuda *d, const struct moe_cuda_matrix *m)
{
    enum moe_activations a = d->o.activations;
    return moe_activations_nvfp4(a) && m->w.data &&
           (m->w.codes == MOE_CUDA_NVFP4 || (a == MOE_ACTIVATIONS_NVFP4_ALL && m->has_scale));
}

float moe_cuda_gate_scale(const struct moe_cuda *d, const struct moe_cuda_mlp *m)
{
    float gate = moe_cuda_quantizes(d, &m->gate) ? m->gate.input_scale : 0;
    float up = moe_cuda_quantizes(d, &m->up) ? m->up.input_scale : 0;
    return gate > up ? gate : up;
}

/* The kernel's word for a form of activations. */
static uint32_t method_of(enum moe_activations a)
{
    return a == MOE_ACTIVATIONS_NVFP4_46       ? MOE_CUDA_ACT_46
           : a == MOE_ACTIVATIONS_NVFP4_SEARCH ? MOE_CUDA_ACT_SEARCH
                                               : MOE_CUDA_ACT_ONE;
}

void moe_cuda_quantize_rows(struct moe_cuda *d, struct moe_cuda_activations *a)
{
    a->method = method_of(d->o.activations);
    MOE_CUDA_LAUNCH(d, activations, *a);
}

void moe_cuda_quantize(struct moe_cuda *d, uint64_t x, float scale, int64_t cols, int64_t n, uint64_t out)
{
    struct moe_cuda_activations a = {
        .x = x, .out = out, .rows = n, .n = cols, .share = 1, .ldx = cols, .ldo = cols, .input_scale = scale
    };
    moe_cuda_quantize_rows(d, &a);
}

/* at.digits and at.factors as fast products read them. */
static void make_halves(struct moe_cuda *d, uint64_t x, int64_t n, int64_t cols,
                        enum moe_cuda_halves_kind kind)
{
    const struct moe_cuda_halves a = { .x = x,
                                       .halves = d->at.digits,
                                       .factors = d->at.factors,
                                       .rows = n,
                                       .n = cols,
                                       .ldx = cols,
                                       .kind = kind };
    MOE_CUDA_LAUNCH(d, halves, a);
}

void moe_cuda_make_digits(struct moe_cuda *d, uint64_t x, int64_t n, int64_t cols)
{
    if (d->o.fast) {
        make_halves(d, x, n, cols, MOE_CUDA_HALVES_CODES);
        return;
    }
    const struct moe_cuda_digits a = { .x = x,
                                       .digits = d->at.digits,
                                       .factors = d->at.factors,
                                       .rows = n,
                                       .n = cols,
                                       .ldx = cols,
                                       .bits = 24 };
    MOE_CUDA_LAUNCH(d, digits, a);
}

int moe_cuda_nvfp4_tokens(const struct moe_cuda *d, int64_t n)
{
    int least = d->o.fast ? 8 : 2, most = d->o.fast ? 32 : 8;
    while (least < n && least < most) least *= 2;
    return least;
}

void moe_cuda_nvfp4(struct moe_cuda *d, const struct moe_cuda_matrix *m, int matrices,
                    struct moe_cuda_nvfp4 *a, int tokens)
{
    static const enum moe_cuda_kernel kernel[] = { MOE_CUDA_nvfp4_2, MOE_CUDA_nvfp4_4, MOE_CUDA_nvfp4_8 };
    static const enum moe_cuda_kernel fast[] = { MOE_CUDA_nvfp4_fast_8, MOE_CUDA_nvfp4_fast_16,
                                                 MOE_CUDA_nvfp4_fast_32, [4] = MOE_CUDA_nvfp4_fast_64 };
    static const enum moe_cuda_kernel terms[] = { MOE_CUDA_nvfp4_terms_8, MOE_CUDA_nvfp4_terms_16,
                                                  MOE_CUDA_nvfp4_terms_32 };
    for (int i = 0; i < matrices; i++) {
        a->codes[i] = m[i].w.data;
        a->scales[i] = m[i].w.scale;
        a->global[i] = m[i].global;
    }
    a->rows = m->w.rows;
    a->cols = m->w.cols;
    if (!a->digits) a->digits = d->at.digits, a->factors = d->at.factors;
    a->matrices = matrices;
    a->flags |= m->w.reciprocal ? MOE_CUDA_NVFP4_RECIPROCAL : 0;
    a->blocks = 2 * (uint32_t)moe_gpu_info(d->gpu)->multiprocessors;
    if (d->o.fast && a->items)
        moe_cuda_launch(d, fast[tokens / 16], moe_cuda_nvfp4_fast_grid(a, tokens), a, sizeof *a);
    else if (d->o.fast)
        moe_cuda_launch(d, terms[tokens / 16], moe_cuda_nvfp4_terms_grid(a, tokens), a, sizeof *a);
    else moe_cuda_launch(d, kernel[tokens / 4], moe_cuda_nvfp4_grid(a, tokens), a, sizeof *a);
}

/* What products with a weight read: x itself, or one of its forms in at.digits. */
enum form { PLAIN, DIGITS, HALVES };
static enum form form_of(const struct moe_cuda *d, const struct moe_cuda_matrix *m)
{
    if (!m->w.data) return PLAIN;
    if (m->w.codes == MOE_CUDA_NVFP4) return DIGITS;
    return d->o.fast && moe_cuda_dense_fast_has(&m->w) ? HALVES : PLAIN;
}

bool moe_cuda_read_alike(const struct moe_cuda *d, const struct moe_cuda_matrix *a,
                         const struct moe_cuda_matrix *b)
{
    const enum form form = form_of(d, a);
    return form == form_of(d, b) && a->w.cols == b->w.cols &&
           (form != HALVES || moe_cuda_dense_fast_kind(&a->w) == moe_cuda_dense_fast_kind(&b->w));
}

void moe_cuda_prepare(struct moe_cuda *d, const struct moe_cuda_matrix *m, uint64_t x, int64_t n)
{
    const enum form form = form_of(d, m);
    if (form == DIGITS && d->o.fast) make_halves(d, x, n, m->w.cols, MOE_CUDA_HALVES_CODES2);
    else if (form == DIGITS) moe_cuda_make_digits(d, x, n, m->w.cols);
    else if (form == HALVES) make_halves(d, x, n, m->w.cols, moe_cuda_dense_fast_kind(&m->w));
}

static void multiply_fast(struct moe_cuda *d, const struct moe_cuda_matrix *m, int64_t n, uint64_t y)
{
    struct moe_cuda_dense_fast a = { .w = m->w,
                                     .halves = d->at.digits,
                                     .factors = d->at.factors,
                                     .y = y,
                                     .part = d->at.part,
                                     .done = d->at.done,
                                     .n = n,
                                     .ldy = m->w.rows };
    a.split = moe_cuda_dense_fast_split(&a, moe_gpu_info(d->gpu)->multiprocessors, d->part_floats);
    moe_cuda_launch(d, moe_cuda_dense_fast_kernel(n), moe_cuda_dense_fast_grid(&a), &a, sizeof a);
}

void moe_cuda_multiply(struct moe_cuda *d, const struct moe_cuda_matrix *m, uint64_t x, int64_t n,
                       uint64_t y)
{
    const enum form form = form_of(d, m);
    if (form == DIGITS) {
        struct moe_cuda_nvfp4 a = { .y = { y }, .ldy = m->w.rows, .tokens = n };
        moe_cuda_nvfp4(d, m, 1, &a, moe_cuda_nvfp4_tokens(d, n));
        return;
    }
    if (form == HALVES) {
        multiply_fast(d, m, n, y);
        return;
    }
    const struct moe_cuda_dense a = { .w = m->w,
                                      .x = x,
                                      .y = y,
                                      .n = n,
                                      .ldx = m->w.cols,
                                      .ldy = m->w.rows,
                                      .rows = m->w.rows,
                                      .items = 1 };
    moe_cuda_launch(d, moe_cuda_dense_kernel(&a), moe_cuda_dense_grid(&a), &a, sizeof a);
}

void moe_cuda_product(struct moe_cuda *d, const struct moe_cuda_matrix *m, uint64_t x, int64_t n, uint64_t y)
{
    if (moe_cuda_quantizes(d, m)) {
        moe_cuda_quantize(d, x, m->input_scale, m->w.cols, n, d->at.quantized);
        x = d->at.quantized;
    }
    moe_cuda_prepare(d, m, x, n);
    moe_cuda_multiply(d, m, x, n, y);
}

void moe_cuda_product_exact(struct moe_cuda *d, const struct moe_cuda_matrix *m, uint64_t x, int64_t n,
                            uint64_t y)
{
    const bool fast = d->o.fast;
    d->o.fast = false;
    moe_cuda_product(d, m, x, n, y);
    d->o.fast = fast;
}

static const struct moe_cuda_matrix *matrix_of(const struct moe_cuda_layer *y, enum moe_role role)
{
    switch (role) {
    case MOE_ROLE_Q_A: return &y->q_a;
    case MOE_ROLE_Q_B: return &y->q_b;
    case MOE_ROLE_Q: return &y->q;
    case MOE_ROLE_KV_A: return &y->kv_a;
    default: MOE_CHECK(role == MOE_ROLE_O); return &y->o;
    }
}

void moe_cuda_op_linear(struct moe_device *device, int layer, enum moe_role role, struct moe_addr x,
                        struct moe_addr y)
{
    struct moe_cuda *d = moe_cuda_of(device);
    moe_cuda_product(d, matrix_of(&d->weights.layers[layer], role), x.at, d->batch.n, y.at);
}

/* ---- norms ---- */

void moe_cuda_op_norm(struct moe_device *device, int layer, enum moe_norm which, struct moe_addr h,
                      struct moe_addr add, struct moe_addr out)
{
    struct moe_cuda *d = moe_cuda_of(device);
    const struct moe_model *m = device->model;
    const struct moe_cuda_layer *y = which == MOE_NORM_FINAL ? NULL : &d->weights.layers[layer];
    const uint64_t w[] = { y ? y->input_norm : 0, y ? y->post_norm : 0, y ? y->q_a_norm : 0,
                           d->weights.norm };
    bool lora = which == MOE_NORM_Q_A;
    const struct moe_cuda_norm a = { .h = h.at,
                                     .add = add.at,
                                     .w = w[which],
                                     .out = out.at,
                                     .rows = d->batch.n,
                                     .n = lora ? m->config.q_lora_rank : m->config.hidden_size,
                                     .eps = lora ? m->lora_eps : m->eps };
    MOE_CUDA_LAUNCH(d, norm, a);
}

/* ---- the ends of the pass ---- */

void moe_cuda_op_embed(struct moe_device *device, struct moe_addr h)
{
    struct moe_cuda *d = moe_cuda_of(device);
    const struct moe_cuda_embed a = {
        .w = d->weights.embed.w, .token = d->in.tokens, .out = h.at, .n = d->batch.n
    };
    MOE_CUDA_LAUNCH(d, embed, a);
}

void moe_cuda_op_logits(struct moe_device *device, const int32_t *row, int64_t n, struct moe_addr h,
                        struct moe_addr logits)
{
    struct moe_cuda *d = moe_cuda_of(device);
    struct moe_cuda_norm a = { .h = h.at,
                               .w = d->weights.norm,
                               .out = d->at.x,
                               .row = row ? d->at.rows : 0,
                               .rows = n,
                               .n = device->model->config.hidden_size,
                               .eps = device->model->eps };
    MOE_CHECK(n <= device->max_tokens);
    if (row) moe_cuda_write(d, d->at.rows, row, (uint64_t)n * sizeof *row);
    MOE_CUDA_LAUNCH(d, norm, a);
    moe_cuda_product(d, &d->weights.head, d->at.x, n, logits.at);
}

void moe_cuda_op_sample(struct moe_device *device, const struct moe_drawing *w, int64_t n, int64_t vocab,
                        struct moe_addr logits, struct moe_addr ids)
{
    static_assert(sizeof(struct moe_drawing) == sizeof(struct moe_cuda_drawing),
                  "drawings are copied as they are");
    struct moe_cuda *d = moe_cuda_of(device);
    const struct moe_cuda_sample a = { .logits = logits.at,
                                       .drawing = d->at.drawing,
                                       .ids = ids.at,
                                       .most = d->at.most,
                                       .weight = d->at.weight,
                                       .count = d->at.count,
                                       .rows = n,
                                       .n = vocab,
                                       .ld = device->model->config.vocab_size };
    MOE_CHECK(n <= device->max_tokens);
    moe_cuda_write(d, d->at.drawing, w, (uint64_t)n * sizeof *w);
    moe_cuda_launch(d, MOE_CUDA_sample_max, moe_cuda_sample_chunk_grid(&a), &a, sizeof a);
    moe_cuda_launch(d, MOE_CUDA_sample_weigh, moe_cuda_sample_chunk_grid(&a), &a, sizeof a);
    moe_cuda_launch(d, MOE_CUDA_sample_pick, moe_cuda_sample_pick_grid(&a), &a, sizeof a);
}

void moe_cuda_op_check(struct moe_device *device, struct moe_addr x, int64_t n)
{
    struct moe_cuda *d = moe_cuda_of(device);
    const struct moe_cuda_check a = { .x = x.at, .word = d->at.word, .n = n, .note = MOE_WORD_NONFINITE };
    if (n > 0) MOE_CUDA_LAUNCH(d, check, a);
}
