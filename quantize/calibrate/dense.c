/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/calibrate/dense.h"

#include "base/minmax.h"
#include "kernels/kernels.h"
#include "quantize/passes/work.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* The projections of attention.  Some share an input, which is named by the role under which the forward
 * pass's hook shows it. */
static const struct { enum moe_role role, input;
} projection[] = {
    { MOE_ROLE_Q_A, MOE_ROLE_KV_A }, { MOE_ROLE_Q, MOE_ROLE_KV_A },    { MOE_ROLE_KV_A, MOE_ROLE_KV_A },
    { MOE_ROLE_Q_B, MOE_ROLE_Q_B },  { MOE_ROLE_KV_B, MOE_ROLE_KV_B }, { MOE_ROLE_O, MOE_ROLE_O },
};
enum { PROJECTIONS = sizeof projection / sizeof *projection, INPUTS = 4 };
static const enum moe_role input_role[INPUTS] = { MOE_ROLE_KV_A, MOE_ROLE_Q_B, MOE_ROLE_KV_B, MOE_ROLE_O };

/* The weight of a role in the model's layer. */
static struct moe_weight *weight_of_role(struct moe_layer *y, enum moe_role role)
{
    struct moe_expert *m = y->moe ? &y->shared : &y->dense;
    switch (role) {
    case MOE_ROLE_Q_A: return &y->q_a;
    case MOE_ROLE_Q_B: return &y->q_b;
    case MOE_ROLE_Q: return &y->q;
    case MOE_ROLE_KV_A: return &y->kv_a;
    case MOE_ROLE_KV_B: return &y->kv_b;
    case MOE_ROLE_O: return &y->o;
    case MOE_ROLE_GATE: case MOE_ROLE_SHARED_GATE: return &m->gate;
    case MOE_ROLE_UP: case MOE_ROLE_SHARED_UP: return &m->up;
    default: return &m->down;
    }
}

/* Whether a tensor that becomes `type` is calibrated here. */
static bool is_calibrated(const struct moe_tensor *t, uint8_t type)
{
    enum moe_class c = moe_role_class((enum moe_role)t->role);
    return type == MOE_NVFP4 && t->type != MOE_NVFP4 && t->layer >= 0 && t->rows > 1 &&
           (c == MOE_CLASS_ATTN || c == MOE_CLASS_DENSE || c == MOE_CLASS_SHARED);
}

bool moe_dense_wanted(const struct moe_source *src, const uint8_t *type)
{
    for (int64_t i = 0; i < src->n_tensors; i++)
        if (is_calibrated(&src->tensors[i], type[i])) return true;
    return false;
}

/* Whether the tensor of this role in the layer at hand is calibrated here. */
static bool is_wanted(const struct moe_dense *d, enum moe_role role)
{
    const struct moe_tensor *t = moe_source_find(d->walk->src, role, d->walk->layer, -1);
    return t && is_calibrated(t, d->type[t - d->walk->src->tensors]);
}

/* Replaces a weight of the model by its quantized tensor, unless the source's weights are to be kept. */
static void replace_weight(struct moe_dense *d, const struct moe_spill_tensor *t)
{
    if (!d->upstream_source)
        *weight_of_role(&d->walk->m->layers[d->walk->layer], (enum moe_role)t->role) = moe_spill_weight(t);
}

/* ---- attention ---- */

/* The calibration of one layer's attention. */
struct attention {
    struct moe_dense *d;
    struct moe_inputs in[INPUTS];       /* the statistics of each input */
    float fused_amax;                   /* of find_fused_amax */
    int64_t cols[INPUTS];               /* the width of each input; 0: no projection of it is quantized */
};

/* The forward pass's hook: adds n rows of an input to its statistics. */
static void add_input(void *ctx, int layer, enum moe_role role, int expert, const float *x, int64_t ldx,
                      int64_t n)
{
    struct attention *a = ctx;
    (void)layer, (void)expert;
    for (int i = 0; i < INPUTS; i++) {
        if (input_role[i] != role || !a->cols[i]) continue;
        moe_inputs_add(&a->in[i], x, NULL, ldx, n, a->d->walk->pool);
        moe_meter_add(a->d->walk->meter, (double)n * (double)a->cols[i] * (double)a->cols[i]);
    }
}

/* Passes a batch through the layer's attention, where the hook add_input sees it.  The states stay as they
 * are. */
static enum moe_code attend_batch(struct moe_walk *w, int64_t first, int64_t n, struct moe_err *err)
{
    moe_meter_add(w->meter, moe_work_attention(&w->src->config, (double)n, (double)w->sequence));
    return moe_walk_attend(w, first, n, err);
}

/* The operations of the layer at hand. */
static struct moe_work_dense layer_work(const struct moe_dense *d)
{
    return moe_work_dense(d->walk->src, d->type, &d->method, d->walk->layer, (double)d->walk->n,
                          (double)d->walk->sequence);
}

/* The largest |value| of w; row [cols] is scratch. */
static float amax_of(const struct moe_weight *w, float *row)
{
    float amax = 0;
    for (int64_t r = 0; r < w->rows; r++) {
        moe_kernels()->dequantize(w, r, 0, w->cols, row);
        float a = moe_kernels()->amax(row, w->cols);
        if (!(a <= amax)) amax = a;
    }
    return amax;
}

/* Sets *amax to the largest |weight| of q_a and kv_a, if both are quantized, else to 0.  Engines fuse the two
 * and read one global scale, so both get the one that the larger of them needs. */
static enum moe_code find_fused_amax(const struct moe_dense *d, float *amax, struct moe_err *err)
{
    const enum moe_role fused[2] = { MOE_ROLE_KV_A, (enum moe_role)moe_role_fused_partner(MOE_ROLE_KV_A) };
    *amax = 0;
    if (!is_wanted(d, fused[0]) || !is_wanted(d, fused[1])) return MOE_OK;
    struct moe_layer *y = &d->walk->m->layers[d->walk->layer];
    float *row = malloc((size_t)y->kv_a.cols * sizeof *row);
    if (!row) return moe_fail(err, MOE_NOMEM, "no memory for a projection");
    for (int i = 0; i < 2; i++) *amax = fmaxf(*amax, amax_of(weight_of_role(y, fused[i]), row));
    free(row);
    return MOE_OK;
}

/* Rounds one projection, whose input is number `input` of a->in, and appends it to d->tensors.  Its input
 * scale is set later, by moe_dense_set_input_scale. */
static enum moe_code round_projection(struct attention *a, enum moe_role role, int input, struct moe_err *err)
{
    struct moe_dense *d = a->d;
    const struct moe_weight *w = weight_of_role(&d->walk->m->layers[d->walk->layer], role);
    const struct moe_weight *one[1] = { w };
    const struct moe_output_hessian *rows =
        role == MOE_ROLE_O && d->method.matrix.two_sided && !d->method.matrix.diagonal ? d->f : NULL;
    struct moe_spill_tensor *t = &d->tensors.t[d->tensors.n];
    struct moe_matrix m;
    uint8_t *codes = malloc((size_t)(w->rows * w->cols / 2));
    uint8_t *scales = malloc((size_t)(w->rows * w->cols / 16));
    struct moe_rounded r = { codes, scales, 0, 0 }, *out[1] = { &r };
    enum moe_code code = codes && scales
                           ? moe_matrix_open(&m, w->rows, w->cols, &d->method.matrix, d->walk->pool, err)
                           : moe_fail(err, MOE_NOMEM, "no memory for a projection");

    if (code == MOE_OK) {
        float amax = moe_matrix_load(&m, &a->in[input], one, 1, rows);
        if (input_role[input] == MOE_ROLE_KV_A) amax = fmaxf(amax, a->fused_amax);
        float global = moe_nvfp4_global(amax, MOE_NVFP4_SEARCH);
        code = moe_matrix_round(&m, &a->in[input], one, 1, rows, global, out, err);
        *t = (struct moe_spill_tensor){ .role = role,
                                        .rows = w->rows,
                                        .cols = w->cols,
                                        .global = global,
                                        .input_scale = 1,
                                        .num = r.num,
                                        .den = r.den,
                                        .codes = codes,
                                        .scales = scales };
        moe_matrix_release(&m);
    }
    if (code == MOE_OK) d->tensors.n++;
    else free(codes), free(scales);
    return code;
}

/* Opens the statistics of those inputs that a projection to be quantized multiplies. */
static enum moe_code open_inputs(struct attention *a, struct moe_err *err)
{
    for (int i = 0; i < PROJECTIONS; i++) {
        if (!is_wanted(a->d, projection[i].role)) continue;
        for (int k = 0; k < INPUTS; k++)
            if (projection[i].input == input_role[k])
                a->cols[k] =
                    weight_of_role(&a->d->walk->m->layers[a->d->walk->layer], projection[i].role)->cols;
    }
    for (int k = 0; k < INPUTS; k++) {
        if (!a->cols[k]) continue;
        MOE_TRY(moe_inputs_open(&a->in[k], a->cols[k], false, 0, err));
        moe_inputs_begin(&a->in[k], 0, a->cols[k]);
    }
    return MOE_OK;
}

/* Sums the statistics over all tokens, and rounds the projections.  The caller releases a->in, also after a
 * failure. */
static enum moe_code calibrate_attention(struct attention *a, struct moe_err *err)
{
    struct moe_hooks hooks = { .ctx = a, .input = add_input };

    MOE_TRY(open_inputs(a, err));
    MOE_TRY(find_fused_amax(a->d, &a->fused_amax, err));
    moe_forward_hooks(a->d->walk->f, &hooks);
    enum moe_code code = moe_walk_batches(a->d->walk, attend_batch, err);
    moe_forward_hooks(a->d->walk->f, NULL);
    if (code == MOE_OK) moe_meter_add(a->d->walk->meter, layer_work(a->d).projections);
    for (int k = 0; code == MOE_OK && k < INPUTS; k++)
        if (a->cols[k]) code = moe_inputs_end(&a->in[k], &a->d->method.matrix, a->d->walk->pool, err);
    for (int i = 0; code == MOE_OK && i < PROJECTIONS; i++)
        for (int k = 0; code == MOE_OK && k < INPUTS; k++)
            if (projection[i].input == input_role[k] && a->cols[k] && is_wanted(a->d, projection[i].role))
                code = round_projection(a, projection[i].role, k, err);
    return code == MOE_OK ? code : moe_wrap(err, "layer %d, attention", a->d->walk->layer);
}

/* Empties d->tensors.  Where its tensors were computed, and not read from a file, each owns its codes and
 * scales. */
static void free_codes(struct moe_dense *d)
{
    for (int i = 0; !d->tensors.data && i < d->tensors.n; i++) {
        free((void *)(uintptr_t)d->tensors.t[i].codes);
        free((void *)(uintptr_t)d->tensors.t[i].scales);
    }
    moe_spill_release(&d->tensors);
    d->from_file = false;
}

enum moe_code moe_dense_attention(void *ctx, struct moe_err *err)
{
    struct moe_dense *d = ctx;
    struct attention a = { .d = d };
    bool any = false;
    free_codes(d);
    MOE_TRY(moe_spill_read(d->dir, d->walk->layer, &d->tensors, &d->from_file, err));
    enum moe_code code = MOE_OK;
    for (int i = 0; i < PROJECTIONS; i++) any |= is_wanted(d, projection[i].role);
    if (!d->from_file && any) code = calibrate_attention(&a, err);
    for (int k = 0; k < INPUTS; k++) moe_inputs_release(&a.in[k]);
    for (int i = 0; code == MOE_OK && i < d->tensors.n; i++)
        if (moe_role_class((enum moe_role)d->tensors.t[i].role) == MOE_CLASS_ATTN)
            replace_weight(d, &d->tensors.t[i]);
    return code;
}

void moe_dense_set_input_scale(struct moe_dense *d, enum moe_role role, float amax)
{
    for (int i = 0; !d->from_file && i < d->tensors.n; i++) /* a file has the scales already */
        if (d->tensors.t[i].role == (int)role)
            d->tensors.t[i].input_scale = moe_nvfp4_global(amax, MOE_NVFP4_MAX);
}

/* ---- the MLP that all tokens pass ---- */

/* Appends a copy of one rounded weight of the MLP to d->tensors; amax: the largest input that it
 * multiplies. */
static enum moe_code append_copy(struct moe_dense *d, enum moe_role role, const struct moe_weight *w,
                                 const struct moe_rounded *r, float global, float amax, struct moe_err *err)
{
    size_t codes = (size_t)(w->rows * w->cols / 2), scales = (size_t)(w->rows * w->cols / 16);
    struct moe_spill_tensor *t = &d->tensors.t[d->tensors.n];
    uint8_t *c = malloc(codes), *s = malloc(scales);

    if (!c || !s) {
        free(c);
        free(s);
        return moe_fail(err, MOE_NOMEM, "no memory for an MLP's codes");
    }
    memcpy(c, r->codes, codes);
    memcpy(s, r->scales, scales);
    *t = (struct moe_spill_tensor){ .role = role,
                                    .rows = w->rows,
                                    .cols = w->cols,
                                    .global = global,
                                    .input_scale = moe_nvfp4_global(amax, MOE_NVFP4_MAX),
                                    .num = r->num,
                                    .den = r->den,
                                    .codes = c,
                                    .scales = s };
    d->tensors.n++;
    return MOE_OK;
}

/* Quantizes the MLP whose gate has the role `gate`; up and down have the next two roles. */
static enum moe_code calibrate_mlp(struct moe_dense *d, enum moe_role gate, struct moe_err *err)
{
    struct moe_layer *y = &d->walk->m->layers[d->walk->layer];
    struct moe_mlp_weights w = { .quantize = { false } };
    struct moe_mlp_tokens t = moe_walk_all(d->walk);
    struct moe_mlp_result r;
    struct moe_mlp *m;
    const struct moe_weight *g = weight_of_role(y, gate);
    float *row = malloc((size_t)(g->cols + g->rows) * sizeof *row);

    if (!row) return moe_fail(err, MOE_NOMEM, "no memory for an MLP");
    for (int i = 0; i < 3; i++) {
        w.w[i] = *weight_of_role(y, (enum moe_role)(gate + i));
        w.quantize[i] = is_wanted(d, (enum moe_role)(gate + i));
        w.amax[i] = amax_of(&w.w[i], row);
    }
    free(row);
    enum moe_code code = moe_mlp_open(&m, g->cols, g->rows, &d->method, false, d->walk->pool, err);
    if (code == MOE_OK) code = moe_mlp_quantize(m, &w, &t, d->f, &r, err);
    for (int i = 0; code == MOE_OK && i < 3; i++)
        if (w.quantize[i])
            code = append_copy(d, (enum moe_role)(gate + i), &w.w[i], &r.rounded[i], r.global[i],
                               i == 2 ? r.amax_y : r.amax_x, err);
    moe_mlp_close(&m);
    moe_meter_add(d->walk->meter, layer_work(d).mlp);
    return code == MOE_OK ? code
                          : moe_wrap(err, "layer %d, %s MLP", d->walk->layer, y->moe ? "shared" : "dense");
}

enum moe_code moe_dense_mlp(void *ctx, struct moe_err *err)
{
    struct moe_dense *d = ctx;
    enum moe_role gate = d->walk->m->layers[d->walk->layer].moe ? MOE_ROLE_SHARED_GATE : MOE_ROLE_GATE;
    bool any = is_wanted(d, gate) || is_wanted(d, (enum moe_role)(gate + 1)) ||
               is_wanted(d, (enum moe_role)(gate + 2));
    if (!d->from_file && any) MOE_TRY(calibrate_mlp(d, gate, err));
    if (!d->from_file && d->tensors.n)
        MOE_TRY(moe_spill_write(d->dir, d->walk->layer, d->tensors.t, d->tensors.n, err));
    for (int i = 0; i < d->tensors.n; i++) replace_weight(d, &d->tensors.t[i]);
    return MOE_OK;
}

void moe_dense_release(struct moe_dense *d) { free_codes(d); }

/* ---- what it takes ---- */

uint64_t moe_dense_spill_bytes(const struct moe_source *src, const uint8_t *type)
{
    uint64_t bytes = 0;
    for (int64_t i = 0; i < src->n_tensors; i++)
        if (is_calibrated(&src->tensors[i], type[i]))
            bytes += (uint64_t)(src->tensors[i].rows * src->tensors[i].cols) * 9 / 16 +
                     sizeof(struct moe_spill_tensor);
    return bytes;
}

uint64_t moe_dense_estimate(const struct moe_source *src, const uint8_t *type,
                            const struct moe_mlp_method *how)
{
    const struct moe_config *c = &src->config;
    uint64_t attention = 0;
    uint64_t mlp = 0;
    uint64_t codes = 0;
    uint64_t largest = 0;

    if (!moe_dense_wanted(src, type)) return 0;
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        if (!is_calibrated(t, type[i])) continue;
        uint64_t m = moe_matrix_estimate(t->rows, t->cols);
        if (moe_role_class((enum moe_role)t->role) == MOE_CLASS_ATTN && m > largest) largest = m;
        if ((uint64_t)(t->rows * t->cols) > codes) codes = (uint64_t)(t->rows * t->cols);
    }
    if (largest)
        attention = largest + moe_inputs_estimate(c->hidden_size, false, 0) +
                    moe_inputs_estimate(c->q_lora_rank + 1, false, 0) +
                    moe_inputs_estimate(c->kv_lora_rank, false, 0) +
                    moe_inputs_estimate(c->num_attention_heads * c->v_head_dim, false, 0);
    int64_t inter = c->n_shared_experts * c->moe_intermediate_size;
    if (moe_has_dense_layers(c)) inter = moe_max_i64(inter, c->intermediate_size);
    if (inter) mlp = moe_mlp_estimate(c->hidden_size, inter, how);
    return (attention > mlp ? attention : mlp) + 4 * codes;
}
