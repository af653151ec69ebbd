/* SPDX-License-Identifier: Apache-2.0 */
/* What a calibration needs: the floating-point operations of its parts, memory and files. */
#include "quantize/calibrate/calibrate-internal.h"

#include "base/io.h"
#include "base/minmax.h"
#include "model/rewrite/emit.h"
#include "quantize/calibrate/dense.h"
#include "quantize/passes/gradient.h"
#include "quantize/passes/work.h"

static uint64_t stored_bytes(const struct moe_tensor *t)
{
    uint64_t bytes = 0;
    for (int k = 0; k < MOE_PLANE_COUNT; k++) bytes += t->plane[k].file >= 0 ? t->plane[k].bytes : 0;
    return bytes;
}

/* ---- operations ---- */

int64_t moe_calibrate_coded_experts(const struct moe_source *src, const uint8_t *type, int64_t layer)
{
    int64_t n = 0, last = -1;
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        if (t->layer != layer || t->expert < 0 || t->expert == last || t->type == MOE_NVFP4 ||
            type[i] != MOE_NVFP4)
            continue;
        last = t->expert;
        n++;
    }
    return n;
}

double moe_calibrate_expert_work(const struct moe_source *src, const struct moe_calibration *o, double tokens)
{
    return moe_work_sum(moe_work_quantize(&o->method, src->config.hidden_size,
                                          src->config.moe_intermediate_size, o->fisher > 0, tokens));
}

double moe_calibrate_experts_work(const struct moe_source *src, const struct moe_calibration *o,
                                  int64_t layer)
{
    double each = (double)o->n * (double)src->config.num_experts_per_tok /
                  (double)src->config.n_routed_experts;
    int64_t n = moe_layer_is_moe(&src->config, layer) ? moe_calibrate_coded_experts(src, o->type, layer) : 0;
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
        if (type[i] != MOE_TYPE_LEFT_OUT && src->tensors[i].layer >= layers)
            layers = src->tensors[i].layer + 1;
    while (layers && !moe_dense_wanted(src, type) && !moe_layer_is_moe(&src->config, layers - 1)) layers--;
    return layers;
}

static double work_of(const struct moe_source *src, const struct moe_calibration *o)
{
    double work = o->fisher ? moe_work_sensitivity(&src->config, (double)moe_min_i64(o->fisher, o->n),
                                                   (double)o->sequence)
                            : 0;
    for (int64_t l = 0, n = moe_calibrate_layers(src, o->type); l < n; l++)
        work += moe_work_forward(&src->config, l, (double)o->n, (double)o->sequence) +
                moe_calibrate_experts_work(src, o, l) + moe_calibrate_dense_work(src, o, l) +
                (o->method.corrects ? moe_work_correction(&src->config, l, (double)o->n, (double)o->sequence)
                                    : 0);
    return work;
}

/* A copied byte counts as so many operations: it takes as long as they do if the disk does 1 GB/s and the
 * processors 100 GFLOP/s. */
enum { COPY = 100 };

double moe_calibrate_copy_work(const struct moe_tensor *t, uint8_t type)
{
    return type == MOE_TYPE_LEFT_OUT ? 0 : COPY * (double)stored_bytes(t);
}

double moe_calibrate_copy_work_total(const struct moe_source *src, const uint8_t *type)
{
    double work = 0;
    for (int64_t i = 0; i < src->n_tensors; i++)
        work += src->tensors[i].expert < 0 ? moe_calibrate_copy_work(&src->tensors[i], type[i]) : 0;
    return work;
}

/* ---- memory ---- */

struct moe_fisher moe_calibrate_sensitivity(const struct moe_calibration *o)
{
    return (struct moe_fisher){ o->tokens, moe_min_i64(o->fisher, o->n), o->sequence, o->seed,
                                o->cancel };
}

/* Bytes as stored in the source.  *expert: the largest expert.  *mapped: the most that is mapped at once of
 * what is no expert: all of one layer, or one tensor outside of the layers. */
static void stored_most(const struct moe_source *src, uint64_t *expert, uint64_t *mapped)
{
    uint64_t here = 0;
    *expert = *mapped = 0;
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        uint64_t bytes = stored_bytes(t);
        if (i && t->layer != t[-1].layer) here = 0;
        if (t->expert >= 0 && 3 * bytes > *expert) *expert = 3 * bytes;
        if (t->expert < 0) here = t->layer < 0 ? bytes : here + bytes;
        if (here > *mapped) *mapped = here;
    }
}

/* The memory of a run in bytes, with hidden states in memory [0] or in files [1].
 *   fixed   what the process holds now, and what depends neither on files nor on workers
 *   each    for each worker
 *   walk    hidden states and the buffers of the passes through layers
 *   fisher  the whole process in the sensitivity pass, which ends before the rest begins
 *   files   not memory: the files in the scratch directory during the sensitivity pass */
struct parts { uint64_t fixed, each, walk[2], fisher[2], files; };

static struct parts parts_of(const struct moe_source *src, const struct moe_calibration *o, int threads)
{
    const struct moe_config *c = &src->config;
    struct moe_fisher f = moe_calibrate_sensitivity(o);
    struct moe_mlp_method dense = moe_calibrate_dense_method(o);
    uint64_t base = moe_peak_rss();
    uint64_t raw, mapped, ignored;
    struct parts p = { .files = 0 };

    stored_most(src, &raw, &mapped);
    p.each = moe_mlp_estimate(c->hidden_size, c->moe_intermediate_size, &o->method) + raw +
             sizeof(struct moe_expert_worker) + moe_emit_estimate(src) + (256 << 10);
    /* Beside that: the descriptors and journals of two units, an expert as stored, what is mapped, and what
     * libraries keep. */
    base += (uint64_t)src->n_tensors * 64 + (uint64_t)c->n_routed_experts * 3 * 8192 + raw + mapped +
            (3 << 20);
    p.fixed = base + (o->fisher ? moe_output_hessian_estimate(c->hidden_size) : 0) +
              moe_dense_estimate(src, o->type, &dense);
    for (int in_files = 0; in_files < 2; in_files++) {
        p.walk[in_files] = moe_walk_estimate(src, o->n, o->sequence, in_files, threads) +
                           (o->method.corrects ? moe_correction_estimate(src, o->n, in_files) : 0);
        if (!o->fisher) continue;
        moe_fisher_estimate(src, &f, in_files, threads, &p.fisher[in_files], in_files ? &p.files : &ignored);
        p.fisher[in_files] += base;
    }
    return p;
}

static uint64_t memory_of(const struct parts *p, int workers, int in_files)
{
    uint64_t memory = p->fixed + p->walk[in_files] + (uint64_t)workers * p->each;
    return p->fisher[in_files] > memory ? p->fisher[in_files] : memory;
}

void moe_calibrate_plan(const struct moe_source *src, const struct moe_calibration *o, int threads,
                        struct moe_calibration_plan *p)
{
    const struct moe_config *c = &src->config;
    struct parts parts = parts_of(src, o, threads);

    *p = (struct moe_calibration_plan){ .work = work_of(src, o),
                                        .limit = o->memory ? o->memory
                                                           : moe_peak_rss() + moe_available_memory() / 2 };
    p->least_scratch = (o->method.corrects ? 4 : 2) * (uint64_t)(o->n * c->hidden_size) * sizeof(float);
    /* the files of the sensitivity pass are deleted before the others are made */
    if (p->least_scratch < parts.files) p->least_scratch = parts.files;
    for (int in_files = 0; in_files < 2; in_files++) p->least[in_files] = memory_of(&parts, 1, in_files);
    for (int in_files = 0; in_files <= (o->scratch != NULL) && !p->fits; in_files++) {
        p->workers = threads;
        while (p->workers > 1 && memory_of(&parts, p->workers, in_files) > p->limit) p->workers--;
        p->in_files = in_files;
        p->memory = memory_of(&parts, p->workers, in_files);
        p->scratch = in_files ? p->least_scratch : 0;
        p->fits = p->memory <= p->limit;
    }
    /* The files beside the container are largest at one of two moments.  At the end, they are the Fisher
     * matrices of all layers and the spilled tensors.  In the last step of the sensitivity pass, they are all
     * Fisher matrices but one, and the gradients twice, since their file is replaced by a new one. */
    uint64_t one = (uint64_t)c->hidden_size * (uint64_t)c->hidden_size * sizeof(float);
    uint64_t matrices = o->fisher ? (uint64_t)moe_config_moe_layers(c) * one : 0;
    uint64_t spilled = moe_dense_spill_bytes(src, o->type);
    uint64_t gradients =
        matrices > one ? matrices - one + 2 * moe_gradient_bytes(moe_min_i64(o->fisher, o->n), c->hidden_size)
                       : 0;
    p->partial = matrices + spilled > gradients ? matrices + spilled : gradients;
}

enum moe_code moe_calibrate_fits(const struct moe_calibration_plan *p, const struct moe_calibration *o,
                                 struct moe_err *err)
{
    if (p->fits) return MOE_OK;
    return moe_fail(err, MOE_NOMEM,
                    "calibration needs %llu MiB of memory, %llu MiB allowed (raise --memory, %s)",
                    (unsigned long long)(p->memory >> 20) + 1, (unsigned long long)(p->limit >> 20),
                    o->scratch ? "or lower --calib-tokens" : "give --scratch DIR, or lower --calib-tokens");
}
