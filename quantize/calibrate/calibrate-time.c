/* SPDX-License-Identifier: Apache-2.0 */
/* How long a calibration takes: the operations of each of its parts, divided by the speed of that part. */
#include "quantize/calibrate/calibrate-internal.h"

#include "base/minmax.h"
#include "quantize/calibrate/dense.h"
#include "quantize/calibrate/speed.h"
#include "quantize/passes/work.h"

int64_t moe_calibrate_tokens_per_expert(const struct moe_source *src, const struct moe_calibration *o)
{
    int64_t each = o->n * src->config.num_experts_per_tok / moe_max_i64(src->config.n_routed_experts, 1);
    return each < MOE_FEW_TOKENS ? each + moe_min_i64(MOE_BORROWED_TOKENS, o->n) : each;
}

/* Seconds in which n tokens pass a layer, with 1 + again passes through its routed experts. */
static double forward(const struct moe_config *c, int64_t layer, const struct moe_speed *s, double n,
                      double sequence, int again)
{
    bool moe = moe_layer_is_moe(c, layer);
    double mlps = moe_work_mlp(c->hidden_size, moe_work_common_width(c, layer), n) +
                  (moe ? moe_work_router(c, n) + (1 + again) * moe_work_experts(c, n) : 0);
    return moe_work_attention(c, n, sequence) / s->attention + mlps / s->mlp;
}

/* Seconds in which one thread quantizes an MLP over n tokens; rows: down has an output Hessian. */
static double quantizing(const struct moe_mlp_method *how, int64_t hidden, int64_t inter, bool rows, double n,
                         const struct moe_speed *s)
{
    struct moe_work_quantize w = moe_work_quantize(how, hidden, inter, rows, n);
    return w.statistics / s->statistics + w.factoring * s->factoring.operation +
           moe_speed_columns(hidden, inter) * s->factoring.minor + w.rounding * s->rounding.operation +
           moe_speed_weights(hidden, inter) * s->rounding.minor;
}

/* Seconds in which the routed experts of a layer are quantized, as many at once as there are workers. */
static double experts(const struct moe_source *src, const struct moe_calibration *o,
                      const struct moe_calibration_plan *p, int64_t layer, const struct moe_speed *s)
{
    const struct moe_config *c = &src->config;
    int64_t n = moe_layer_is_moe(c, layer) ? moe_calibrate_coded_experts(src, o->type, layer) : 0;
    int64_t at_once = moe_min_i64(moe_max_i64(p->workers, 1), moe_max_i64(n, 1));
    double one = quantizing(&o->method, c->hidden_size, c->moe_intermediate_size, o->fisher > 0,
                            (double)moe_calibrate_tokens_per_expert(src, o), s);
    return one * (double)((n + at_once - 1) / at_once);
}

/* Seconds in which the attention projections of a layer and the MLP that all tokens pass are quantized, by
 * all threads together. */
static double dense(const struct moe_source *src, const struct moe_calibration *o, int64_t layer,
                    const struct moe_speed *s, int threads)
{
    const struct moe_config *c = &src->config;
    struct moe_mlp_method how = moe_calibrate_dense_method(o);
    double n = (double)o->n;
    double sequence = (double)o->sequence;
    double attention = moe_work_attention(c, n, sequence);
    struct moe_work_dense w = moe_work_dense(src, o->type, &how, layer, n, sequence);
    double seconds = w.pass > 0 ? attention / s->attention + (w.pass - attention) / s->hessian : 0;

    if (w.projections > 0) seconds += w.projections * s->rounding.operation / threads;
    bool moe = moe_layer_is_moe(c, layer);
    if (w.mlp > 0)
        seconds +=
            quantizing(&how, c->hidden_size, moe_work_common_width(c, layer), moe && how.matrix.two_sided,
                       n, s) /
            threads;
    return seconds;
}

/* Seconds of the sensitivity pass over n tokens.  Before gradients go back through a layer, its attention,
 * router and shared or dense MLP are computed forward again. */
static double sensitivity(const struct moe_config *c, double n, double sequence, const struct moe_speed *s)
{
    double seconds = moe_work_head_back(c, n) / s->head_back;
    int64_t first = moe_config_first_moe(c);

    for (int64_t l = 0; l < c->num_hidden_layers; l++) {
        int64_t common = moe_work_common_width(c, l);
        bool moe = moe_layer_is_moe(c, l);
        double chosen = moe ? n * (double)c->num_experts_per_tok : 0;
        seconds += forward(c, l, s, n, sequence, 0) + (moe ? moe_work_fisher(c, n) / s->hessian : 0);
        if (l <= first) continue;
        seconds += forward(c, l, s, n, sequence, -1);
        seconds += (moe_work_mlp_back(c->hidden_size, common, n) +
                    moe_work_mlp_back(c->hidden_size, c->moe_intermediate_size, chosen)) /
                   s->mlp_back;
        seconds += moe_work_attention_back(c, n, sequence) / s->attention_back;
    }
    return seconds;
}

/* Rows of a file on a disk take longer by this factor than those of the file in memory that moe_speed.row was
 * measured with, though both are in the page cache. */
#define DISK 1.3

/* How often a row of hidden states is read or written, if they are in files: when the tokens pass the layers
 * (for an expert, a token's row is read as input, and one is read and written to which the output is added),
 * in the backward half of the sensitivity pass, and for the experts' statistics. */
static double rows(const struct moe_config *c, const struct moe_calibration *o)
{
    double n = (double)o->n, k = (double)c->num_experts_per_tok, all = 0;
    for (int64_t l = 0; l < c->num_hidden_layers; l++) {
        bool moe = moe_layer_is_moe(c, l);
        double pass = n * (moe ? 3 * k + 2 : 2);
        double back = (double)moe_min_i64(o->fisher, o->n) * (moe ? 7 * k + 4 : 4);
        all += pass + (o->method.corrects ? pass + (moe ? 3 * n * k : 0) : 0) +
               (moe ? (o->method.corrects ? 4 : 3) * n * k : 0) + back;
    }
    return all;
}

double moe_calibrate_seconds(const struct moe_source *src, const struct moe_calibration *o,
                             const struct moe_calibration_plan *p, const struct moe_speed *s, int threads)
{
    const struct moe_config *c = &src->config;
    double n = (double)o->n, sequence = (double)o->sequence;
    double seconds = o->fisher ? sensitivity(c, (double)moe_min_i64(o->fisher, o->n), sequence, s) : 0;
    for (int64_t l = 0, layers = moe_calibrate_layers(src, o->type); l < layers; l++) {
        seconds +=
            forward(c, l, s, n, sequence, 0) + (o->method.corrects ? forward(c, l, s, n, sequence, 1) : 0);
        seconds += experts(src, o, p, l, s) + dense(src, o, l, s, threads);
    }
    return seconds + (p->in_files ? DISK * rows(c, o) * s->row : 0);
}
