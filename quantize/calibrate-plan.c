/* SPDX-License-Identifier: Apache-2.0 */
/* What a calibration takes: operations of its parts, and memory. */
#include "quantize/calibrate-internal.h"

#include "base/io.h"
#include "quantize/dense.h"
#include "quantize/least.h"
#include "quantize/work.h"

static uint64_t stored_bytes(const struct moe_tensor *t)
{
    uint64_t bytes = 0;
    for (int k = 0; k < MOE_PLANE_COUNT; k++) bytes += t->plane[k].file >= 0 ? t->plane[k].bytes : 0;
    return bytes;
}

/* ---- operations ---- */

/* Routed experts of a layer that are to be quantized. */
static int64_t coded_experts(const struct moe_source *src, const uint8_t *type, int64_t layer)
{
    int64_t n = 0, last = -1;
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        if (t->layer != layer || t->expert < 0 || t->expert == last || t->type == MOE_NVFP4 || type[i] != MOE_NVFP4) continue;
        last = t->expert;
        n++;
    }
    return n;
}

double moe_calibrate_expert_work(const struct moe_source *src, const struct moe_calibration *o, double tokens)
{
    return moe_work_sum(moe_work_quantize(&o->method, src->config.hidden_size, src->config.moe_intermediate_size, o->fisher > 0, tokens));
}

double moe_calibrate_experts_work(const struct moe_source *src, const struct moe_calibration *o, int64_t layer)
{
    double each = (double)o->n * (double)src->config.num_experts_per_tok / (double)src->config.n_routed_experts;
    int64_t n = moe_layer_is_moe(&src->config, layer) ? coded_experts(src, o->type, layer) : 0;
    return n ? (double)n * moe_calibrate_expert_work(src, o, each) : 0;
}

struct moe_mlp_method moe_calibrate_dense_method(const struct moe_calibration *o)
{
    struct moe_mlp_method m = o->method;
    m.corrects = false;
    return m;
}

double moe_calibrate_dense_work(const struct moe_source *src, const struct moe_calibration *o, int64_t layer)
{
    struct moe_mlp_method how = moe_calibrate_dense_method(o);
    struct moe_work_dense w = moe_work_dense(src, o->type, &how, layer, (double)o->n, (double)o->sequence);
    return w.pass + w.projections + w.mlp;
}

int64_t moe_calibrate_layers(const struct moe_source *src, const uint8_t *type)
{
    int64_t layers = 0;
    for (int64_t i = 0; i < src->n_tensors; i++)
        if (type[i] != MOE_TYPE_LEFT_OUT && src->tensors[i].layer >= layers) layers = src->tensors[i].layer + 1;
    while (layers && !moe_dense_wanted(src, type) && !moe_layer_is_moe(&src->config, layers - 1)) layers--;
    return layers;
}

static double work_of(const struct moe_source *src, const struct moe_calibration *o)
{
    double work = o->fisher ? moe_work_sensitivity(&src->config, (double)least(o->fisher, o->n), (double)o->sequence) : 0;
    for (int64_t l = 0, n = moe_calibrate_layers(src, o->type); l < n; l++)
        work += moe_work_forward(&src->config, l, (double)o->n, (double)o->sequence) + moe_calibrate_experts_work(src, o, l) + moe_calibrate_dense_work(src, o, l) +
                (o->method.corrects ? moe_work_drift(&src->config, l, (double)o->n, (double)o->sequence) : 0);
    return work;
}

/* As long as a product of so many operations: a byte that is copied, where the disk does 1 GB/s and the processors 100 GFLOP/s. */
enum { COPY = 100 };

double moe_calibrate_copy_work(const struct moe_tensor *t, uint8_t type) { return type == MOE_TYPE_LEFT_OUT ? 0 : COPY * (double)stored_bytes(t); }

double moe_calibrate_copies(const struct moe_source *src, const uint8_t *type)
{
    double work = 0;
    for (int64_t i = 0; i < src->n_tensors; i++) work += src->tensors[i].expert < 0 ? moe_calibrate_copy_work(&src->tensors[i], type[i]) : 0;
    return work;
}

/* ---- memory ---- */

struct moe_fisher moe_calibrate_sensitivity(const struct moe_calibration *o)
{
    return (struct moe_fisher){ o->tokens, least(o->fisher, o->n), o->sequence, o->seed };
}

enum moe_code moe_calibrate_plan(const struct moe_source *src, const struct moe_calibration *o, int threads, struct moe_calibration_plan *p, struct moe_err *err)
{
    const struct moe_config *c = &src->config;
    struct moe_fisher f = moe_calibrate_sensitivity(o);
    uint64_t base = moe_peak_rss(), limit = o->memory ? o->memory : base + moe_available_memory() / 2, most_raw = 0, layer = 0, fisher = 0, files = 0;
    for (int64_t i = 0; i < src->n_tensors; i++) {
        uint64_t bytes = stored_bytes(&src->tensors[i]);
        if (src->tensors[i].expert >= 0 && 3 * bytes > most_raw) most_raw = 3 * bytes;
        if (src->tensors[i].expert < 0 && src->tensors[i].layer < 0 && bytes > layer) layer = bytes;
    }
    uint64_t dense[2] = { 0, 0 }; /* bytes mapped of a layer: the one at hand, the largest */
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        if (i && t->layer != t[-1].layer) dense[0] = 0;
        dense[0] += t->expert < 0 && t->layer >= 0 ? stored_bytes(t) : 0;
        if (dense[0] > dense[1]) dense[1] = dense[0];
    }
    if (dense[1] > layer) layer = dense[1];
    *p = (struct moe_calibration_plan){ .work = work_of(src, o) };
    struct moe_mlp_method dense_method = moe_calibrate_dense_method(o);
    uint64_t each = moe_mlp_estimate(c->hidden_size, c->moe_intermediate_size, &o->method) + most_raw + sizeof(struct moe_bench) + (4 << 20);
    uint64_t fixed = base + (o->fisher ? moe_metric_estimate(c->hidden_size) : 0) + most_raw + layer + (uint64_t)src->n_tensors * 64 + (16 << 20) +
                     moe_dense_estimate(src, o->type, &dense_method);
    for (int in_files = 0; in_files <= (o->scratch != NULL); in_files++) {
        uint64_t walk = moe_walk_estimate(src, o->n, o->sequence, in_files, threads) + (o->method.corrects ? moe_drift_estimate(src, o->n, in_files) : 0);
        uint64_t left = limit > fixed + walk ? limit - fixed - walk : 0;
        if (o->fisher) moe_fisher_estimate(src, &f, in_files, threads, &fisher, &files);
        fisher += base + most_raw + layer;
        p->workers = (int)least((int64_t)(left / each), threads);
        p->in_files = in_files;
        p->memory = fixed + walk + (uint64_t)(p->workers ? p->workers : 1) * each;
        if (o->fisher && fisher > p->memory) p->memory = fisher;
        p->scratch = in_files ? (o->method.corrects ? 4 : 2) * (uint64_t)(o->n * c->hidden_size) * sizeof(float) + (o->fisher ? files : 0) : 0;
        if (p->workers && p->memory <= limit) break;
    }
    for (int64_t l = 0; o->fisher && l < c->num_hidden_layers; l++)
        p->partial += moe_layer_is_moe(c, l) ? (uint64_t)c->hidden_size * (uint64_t)c->hidden_size * sizeof(float) : 0;
    if (p->workers && p->memory <= limit) return MOE_OK;
    return moe_fail(err, MOE_NOMEM, "calibration needs %llu MiB of memory, %llu MiB allowed (raise --memory, %s)", (unsigned long long)(p->memory >> 20) + 1,
                    (unsigned long long)(limit >> 20), o->scratch ? "or lower --calib-tokens" : "give --scratch DIR, or lower --calib-tokens");
}
