/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/passes/work.h"

/* ---- forward ---- */

/* Multiply-adds of one token in attention's projections. */
static double projections(const struct moe_config *c)
{
    double h = (double)c->hidden_size;
    double heads = (double)c->num_attention_heads;
    double qd = (double)(c->qk_nope_head_dim + c->qk_rope_head_dim);
    double kv = (double)c->kv_lora_rank;
    double ql = (double)c->q_lora_rank;
    double v = (double)c->v_head_dim;
    return h * (kv + (double)c->qk_rope_head_dim + ql) + (ql > 0 ? ql : h) * heads * qd +
           kv * heads * ((double)c->qk_nope_head_dim + v) + heads * v * h;
}

/* Those in its scores and the weighted sum of values: a token has half of the sequence before it on
 * average. */
static double scores(const struct moe_config *c, double sequence)
{
    return (double)c->num_attention_heads *
           (double)(c->qk_nope_head_dim + c->qk_rope_head_dim + c->v_head_dim) * sequence / 2;
}

double moe_work_attention(const struct moe_config *c, double n, double sequence)
{
    return 2 * n * (projections(c) + scores(c, sequence));
}
double moe_work_router(const struct moe_config *c, double n)
{
    return 2 * n * (double)c->hidden_size * (double)c->n_routed_experts;
}
double moe_work_mlp(int64_t hidden, int64_t inter, double n)
{
    return 6 * n * (double)hidden * (double)inter;
}

int64_t moe_work_common_width(const struct moe_config *c, int64_t layer)
{
    return moe_layer_is_moe(c, layer) ? c->n_shared_experts * c->moe_intermediate_size : c->intermediate_size;
}

double moe_work_experts(const struct moe_config *c, double n)
{
    return moe_work_mlp(c->hidden_size, c->moe_intermediate_size, n * (double)c->num_experts_per_tok);
}

double moe_work_forward(const struct moe_config *c, int64_t layer, double n, double sequence)
{
    double work = moe_work_attention(c, n, sequence) +
                  moe_work_mlp(c->hidden_size, moe_work_common_width(c, layer), n);
    if (!moe_layer_is_moe(c, layer)) return work;
    return work + moe_work_router(c, n) + moe_work_experts(c, n);
}

double moe_work_correction(const struct moe_config *c, int64_t layer, double n, double sequence)
{
    return moe_work_forward(c, layer, n, sequence) +
           (moe_layer_is_moe(c, layer) ? moe_work_experts(c, n) : 0);
}

/* ---- quantizing ---- */

static double slice(double k) { return k < MOE_SLICE_COLUMNS ? k : MOE_SLICE_COLUMNS; }
static double slices(double k) { return (double)((int64_t)(k + MOE_SLICE_COLUMNS - 1) / MOE_SLICE_COLUMNS); }

/* Rounding a weight [r, k] (quantize/rounding/round.h): feedback costs half a product with each Hessian, the
 * gradient a whole one, and each sweep of descent another. */
static double rounding(const struct moe_matrix_method *how, double r, double k, bool rows)
{
    double sweeps = how->sweeps;
    if (how->diagonal) return 0;
    return r * k * slice(k) * (sweeps > 0 ? 3 + 2 * sweeps : 1) + (rows ? r * r * k * (1 + 2 * sweeps) : 0);
}

static double factors(const struct moe_matrix_method *how, double k)
{
    return how->diagonal ? 0 : k * slice(k) * slice(k) / 3;
}

struct moe_work_quantize moe_work_quantize(const struct moe_mlp_method *how, int64_t hidden, int64_t inter,
                                           bool rows, double n)
{
    const struct moe_matrix_method *m = &how->matrix;
    double h = (double)hidden, i = (double)inter;
    bool fit = m->fit && !m->diagonal;
    bool two_sided =
        m->two_sided && !m->diagonal && 2 * inter <= MOE_SLICE_COLUMNS && hidden <= MOE_SLICE_COLUMNS;
    struct moe_work_quantize w = { 0 };

    rows = rows && !m->diagonal;
    bool corrects = how->corrects && !m->diagonal && inter <= MOE_SLICE_COLUMNS;
    w.statistics = (corrects ? 2 * n * h * i : 0) + n * (h * slice(h) + i * slice(i)) +
                   n * 8 * h * i * (slices(i) + (how->activations ? 1 : 0)) +
                   (fit ? 2 * n * i * slice(i) : 0) + (two_sided ? n * (4 * h * i + 4 * i * i) : 0);
    w.factoring = (corrects ? 2 * h * i * i : 0) + factors(m, h) + factors(m, i) +
                  (fit ? 2 * i * slice(i) * slice(i) : 0) +
                  (two_sided ? 8 * i * i * i / 3 + (rows ? 2 * h * h * i : 0) + 2 * h * i * i : 0);
    w.rounding =
        rounding(m, 2 * i, h, two_sided) + rounding(m, h, i, rows) + (fit ? 2 * h * i * slice(i) : 0);
    return w;
}

double moe_work_sum(struct moe_work_quantize w) { return w.statistics + w.factoring + w.rounding; }

/* ---- attention and the MLP of all tokens ---- */

static const struct moe_tensor *wanted(const struct moe_source *src, const uint8_t *type, int role,
                                       int64_t layer)
{
    const struct moe_tensor *t = moe_source_find(src, (enum moe_role)role, (int)layer, -1);
    return t && t->rows > 1 && t->type != MOE_NVFP4 && type[t - src->tensors] == MOE_NVFP4 ? t : NULL;
}

struct moe_work_dense moe_work_dense(const struct moe_source *src, const uint8_t *type,
                                     const struct moe_mlp_method *how, int64_t layer, double n,
                                     double sequence)
{
    /* projections with the same inputs stand together: their Hessian is summed once */
    static const enum moe_role attention[] = { MOE_ROLE_KV_A, MOE_ROLE_Q_A,  MOE_ROLE_Q,
                                               MOE_ROLE_Q_B,  MOE_ROLE_KV_B, MOE_ROLE_O };
    const struct moe_config *c = &src->config;
    struct moe_work_dense w = { 0 };
    bool moe = moe_layer_is_moe(c, layer), first = true;
    for (size_t i = 0; i < sizeof attention / sizeof *attention; i++) {
        const struct moe_tensor *t = wanted(src, type, (int)attention[i], layer);
        if (i == 0 || i > 2) first = true;
        if (!t) continue;
        double r = (double)t->rows, k = (double)t->cols;
        if (first) w.pass += n * k * k, w.projections += how->matrix.diagonal ? 0 : k * k * k / 3;
        w.projections +=
            rounding(&how->matrix, r, k, attention[i] == MOE_ROLE_O && moe && how->matrix.two_sided);
        first = false;
    }
    if (w.pass > 0) w.pass += moe_work_attention(c, n, sequence);
    for (int role = moe ? MOE_ROLE_SHARED_GATE : MOE_ROLE_GATE, i = 0; i < 3; i++)
        if (wanted(src, type, role + i, layer))
            w.mlp = moe_work_sum(moe_work_quantize(how, c->hidden_size, moe_work_common_width(c, layer),
                                                   moe && how->matrix.two_sided, n));
    return w;
}

/* ---- the sensitivity pass ---- */

/* The logits are computed twice, then the product with the transposed head. */
double moe_work_head_back(const struct moe_config *c, double n)
{
    return 6 * n * (double)c->hidden_size * (double)c->vocab_size;
}
double moe_work_fisher(const struct moe_config *c, double n)
{
    return n * (double)c->hidden_size * (double)c->hidden_size;
}
/* gate x and up x again, then backward through all three weights. */
double moe_work_mlp_back(int64_t hidden, int64_t inter, double n)
{
    return 10 * n * (double)hidden * (double)inter;
}
double moe_work_router_back(const struct moe_config *c, double n)
{
    return 4 * n * (double)c->hidden_size * (double)c->num_experts_per_tok;
}
double moe_work_attention_back(const struct moe_config *c, double n, double sequence)
{
    return 2 * n * (2 * projections(c) + 3 * scores(c, sequence));
}

/* The backward half in layer l: its Fisher matrix and, if l is after the first layer with experts, at which
 * gradients end, the layer forward again without its routed experts, and backward. */
static double back(const struct moe_config *c, int64_t l, double n, double sequence)
{
    int64_t common = moe_work_common_width(c, l);
    double chosen = moe_layer_is_moe(c, l) ? n * (double)c->num_experts_per_tok : 0;
    double work = moe_layer_is_moe(c, l) ? moe_work_fisher(c, n) : 0;
    if (l <= moe_config_first_moe(c)) return work;
    work += moe_work_attention(c, n, sequence) + moe_work_mlp(c->hidden_size, common, n) +
            (chosen > 0 ? moe_work_router(c, n) : 0);
    return work + moe_work_mlp_back(c->hidden_size, common, n) +
           moe_work_mlp_back(c->hidden_size, c->moe_intermediate_size, chosen) +
           (chosen > 0 ? moe_work_router_back(c, n) : 0) + moe_work_attention_back(c, n, sequence);
}

double moe_work_sensitivity_from(const struct moe_config *c, double n, double sequence, int layer)
{
    double work = 0;
    for (int64_t l = 0; layer > moe_config_first_moe(c) && l < layer; l++)
        work += moe_work_forward(c, l, n, sequence);
    for (int64_t l = 0; l <= layer; l++) work += back(c, l, n, sequence);
    return work;
}

double moe_work_sensitivity(const struct moe_config *c, double n, double sequence)
{
    double work = moe_work_head_back(c, n);
    for (int64_t l = 0; l < c->num_hidden_layers; l++)
        work += moe_work_forward(c, l, n, sequence) + back(c, l, n, sequence);
    return work;
}

/* ---- progress ---- */

void moe_meter_init(struct moe_meter *m, struct moe_progress *p)
{
    *m = (struct moe_meter){ .progress = p };
    pthread_mutex_init(&m->lock, NULL);
}

void moe_meter_release(struct moe_meter *m) { pthread_mutex_destroy(&m->lock); }

void moe_meter_begin(struct moe_meter *m, const char *label, double total)
{
    m->done = 0;
    m->told = 0;
    moe_progress_begin(m->progress, label, (uint64_t)(total / 1e6), MOE_UNIT_MFLOP);
}

/* Adds to the sum; returns by how many whole millions it has grown. */
static uint64_t tell(struct moe_meter *m, double operations)
{
    pthread_mutex_lock(&m->lock);
    m->done += operations;
    uint64_t all = (uint64_t)(m->done / 1e6), more = all - m->told;
    m->told = all;
    pthread_mutex_unlock(&m->lock);
    return more;
}

void moe_meter_add(struct moe_meter *m, double operations)
{
    if (m) moe_progress_add(m->progress, tell(m, operations));
}

void moe_meter_skip(struct moe_meter *m, double operations)
{
    if (m) moe_progress_skip(m->progress, tell(m, operations));
}

void moe_meter_label(struct moe_meter *m, const char *label)
{
    if (m) moe_progress_label(m->progress, label);
}
