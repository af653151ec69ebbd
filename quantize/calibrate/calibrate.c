/* SPDX-License-Identifier: Apache-2.0 */
/* The run: a code chooser (struct moe_code_chooser) that takes all tokens through the model, quantizes each
 * expert when moe_rewrite asks for it, and reports on each layer. */
#include "quantize/calibrate/calibrate-internal.h"

#include "base/io.h"
#include "base/minmax.h"
#include "formats/routing.h"
#include "model/unit.h"
#include "quantize/calibrate/dense.h"
#include "quantize/calibrate/report.h"
#include "quantize/calibrate/clip-monitor.h"
#include "quantize/passes/work.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct moe_calibrate {
    struct moe_calibration o;
    struct moe_calibration_plan plan;
    struct moe_source *src;
    struct moe_pool *pool;
    /* progress in operations; of these, what earlier runs did, and what the copying of dense.moe counts as */
    struct moe_meter meter; double done_before, copied;
    const char *dir;                /* the partial directory, where F and quantized tensors are kept */
    struct moe_walk walk;
    struct moe_correction correction;
    struct moe_dense dense;
    bool walking;                   /* the walk is open */
    struct moe_expert_worker *workers;        /* [plan.workers] */
    struct moe_output_hessian f; int f_layer; /* the Fisher matrix F of layer f_layer; -1: none yet */
    struct moe_expert_stats *stats; /* [experts] of the layer at hand */
    struct moe_clip_monitor monitor;
};

/* *work: the operations that earlier runs have done and this one need not repeat, for the sensitivity pass,
 * whole units and the layers whose quantized tensors were spilled.  *complete: F of every layer is
 * there and undamaged (all its files are read).  *resume_layer: if not, the layer from which the pass goes
 * on; -1: it starts anew. */
static enum moe_code done_before(const struct moe_calibrate *c, const bool *todo, bool *complete,
                                 int *resume_layer, double *work, struct moe_err *err)
{
    struct moe_fisher f = moe_calibrate_sensitivity(&c->o);

    *complete = false;
    *resume_layer = -1;
    if (c->o.fisher) MOE_TRY(moe_fisher_complete(c->src, c->dir, c->o.cancel, complete, err));
    if (c->o.fisher && !*complete)
        MOE_TRY(moe_fisher_resume_layer(c->src, &f, c->dir, resume_layer, err));
    *work = *complete            ? moe_work_sensitivity(&c->src->config, (double)f.n, (double)f.sequence)
            : *resume_layer >= 0 ? moe_fisher_done_work(c->src, &f, *resume_layer)
                                 : 0;
    for (int l = 0, unit = 0, n = (int)moe_calibrate_layers(c->src, c->o.type); l < n; l++) {
        bool spilled;
        MOE_TRY(moe_spill_exists(c->dir, l, &spilled, err));
        if (spilled) *work += moe_calibrate_dense_work(c->src, &c->o, l);
        if (moe_layer_is_moe(&c->src->config, l) && !todo[++unit])
            *work += moe_calibrate_experts_work(c->src, &c->o, l) +
                     (c->o.method.corrects ? moe_work_experts(&c->src->config, (double)c->o.n) : 0);
    }
    return MOE_OK;
}

/* ---- experts ---- */

static enum moe_code name_expert(const struct moe_calibrate *c, int64_t e, struct moe_err *err)
{
    return moe_wrap(err, "layer %d, expert %lld", c->walk.layer, (long long)e);
}

static void note_expert(struct moe_calibrate *c, int64_t e, const struct moe_mlp_tokens *t,
                        const struct moe_mlp_result *r)
{
    int64_t n = c->src->config.n_routed_experts;
    int64_t mean = c->o.n * c->src->config.num_experts_per_tok / n;
    c->stats[e] = (struct moe_expert_stats){ t->own,
                                             r->amax_x,
                                             r->amax_y,
                                             t->own * MOE_COLD_SHARE < mean || !t->own,
                                             r->out_num,
                                             r->out_den,
                                             { r->seconds[0], r->seconds[1], r->seconds[2] } };
}

/* The tokens t of an expert that has few, followed by borrowed ones, in b's arrays. */
static struct moe_mlp_tokens with_borrowed(struct moe_calibrate *c, struct moe_expert_worker *b,
                                           struct moe_mlp_tokens t)
{
    int64_t n = moe_min_i64(MOE_BORROWED_TOKENS, c->walk.n), step = c->walk.n / n;
    double own = 0;

    for (int64_t i = 0; i < t.n; i++) {
        b->row[i] = t.row[i];
        b->importance[i] = t.importance[i];
        own += (double)t.importance[i] * (double)t.importance[i];
    }
    /* A token's weight is the square of its importance.  The borrowed ones weigh together as much as
     * MOE_BORROWED_WEIGHT mean tokens of the expert's own.  If it has none, each weighs by its 1 / rms. */
    float weight = t.n ? (float)sqrt(own / (double)t.n * MOE_BORROWED_WEIGHT / (double)n)
                       : (float)sqrt((double)MOE_BORROWED_WEIGHT / (double)n);
    for (int64_t i = 0; i < n; i++) {
        b->row[t.n + i] = (int32_t)(i * step);
        b->importance[t.n + i] = t.n ? weight : weight * c->walk.importance[i * step];
    }
    t.row = b->row;
    t.importance = b->importance;
    t.n += n;
    return t;
}

static enum moe_code code_expert(struct moe_calibrate *c, const struct moe_shard_unit *u,
                                 const struct moe_unit_item *g, int worker, const float *amax,
                                 struct moe_chosen_codes *out, struct moe_err *err)
{
    struct moe_mlp_weights w = { .quantize = { false } };
    struct moe_mlp_result r;
    struct moe_expert_worker *b = &c->workers[worker];
    int64_t e = u->out[g->first].expert;

    for (int i = 0; i < 3; i++) {
        const struct moe_tensor *in = &c->src->tensors[u->in[g->first + i]];
        MOE_TRY(moe_walk_read(&c->walk, &b->stored, in, i, &w.w[i], err));
        w.quantize[i] = u->out[g->first + i].type == MOE_NVFP4 && in->type != MOE_NVFP4;
        w.amax[i] = amax[i];
    }
    struct moe_mlp_tokens t = moe_walk_expert(&c->walk, e);
    if (c->correction.open) moe_correction_expert(&c->correction, &c->walk, e, &t);
    if (t.n < MOE_FEW_TOKENS) t = with_borrowed(c, b, t);
    if (moe_mlp_quantize(b->mlp, &w, &t, c->o.fisher ? &c->f : NULL, &r, err) != MOE_OK)
        return name_expert(c, e, err);
    note_expert(c, e, &t, &r);
    if (w.quantize[0] || w.quantize[1] || w.quantize[2])
        moe_meter_add(&c->meter, moe_calibrate_expert_work(c->src, &c->o, (double)t.own));
    for (int i = 0; i < 3; i++)
        if (w.quantize[i])
            out[i] = (struct moe_chosen_codes){ r.rounded[i].codes, r.rounded[i].scales, r.global[i],
                                                r.rounded[i].num, r.rounded[i].den };
    return MOE_OK;
}

/* ---- the code chooser ---- */

/* Reads and factors F of the layer into c->f, unless it is there already. */
static enum moe_code load_fisher(struct moe_calibrate *c, int layer, struct moe_err *err)
{
    if (!c->o.fisher || !moe_layer_is_moe(&c->src->config, layer) || c->f_layer == layer) return MOE_OK;
    c->f.hessian.k = c->src->config.hidden_size;
    MOE_TRY(moe_fisher_read(c->dir, layer, &c->f, err));
    MOE_TRY(moe_output_hessian_finish(&c->f, c->o.method.matrix.damp_rows, c->pool, err));
    c->f_layer = layer;
    return MOE_OK;
}

/* ---- the walk's callbacks ---- */

static enum moe_code before_attention(void *ctx, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    moe_clip_monitor_common_passed(&c->monitor);
    MOE_TRY(load_fisher(c, c->walk.layer, err));
    c->dense.f = c->f_layer == c->walk.layer ? &c->f : NULL;
    MOE_TRY(moe_dense_attention(&c->dense, err));
    moe_clip_monitor_attention(&c->monitor);
    return MOE_OK;
}

static enum moe_code before_mlp(void *ctx, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    moe_clip_monitor_attention_passed(&c->monitor);
    MOE_TRY(moe_dense_mlp(&c->dense, err));
    moe_clip_monitor_common(&c->monitor);
    return MOE_OK;
}

/* Allocates what the run holds to its end.  Called after the sensitivity pass, whose memory is free by
 * then. */
static enum moe_code take_all(struct moe_calibrate *c, struct moe_err *err)
{
    const struct moe_config *g = &c->src->config;

    c->workers = calloc((size_t)c->plan.workers, sizeof *c->workers);
    c->stats = calloc((size_t)g->n_routed_experts + 1, sizeof *c->stats);
    if (!c->workers || !c->stats) return moe_fail(err, MOE_NOMEM, "no memory for calibration");
    for (int i = 0; i < c->plan.workers; i++)
        MOE_TRY(moe_mlp_open(&c->workers[i].mlp, g->hidden_size, g->moe_intermediate_size, &c->o.method,
                             false, NULL, err));
    if (c->o.fisher) MOE_TRY(moe_output_hessian_open(&c->f, g->hidden_size, err));
    MOE_TRY(moe_walk_open(&c->walk, c->src, c->o.tokens, c->o.n, c->o.sequence,
                          c->plan.in_files ? c->o.scratch : NULL, c->pool, c->o.cancel, err));
    c->walking = true;
    c->walk.meter = &c->meter;
    if (c->o.method.corrects)
        MOE_TRY(moe_correction_open(&c->correction, &c->walk, c->plan.in_files ? c->o.scratch : NULL, err));
    for (int i = 0; i < c->plan.workers; i++) c->workers[i].spill.layer = -1;
    c->dense = (struct moe_dense){ .walk = &c->walk,
                                   .type = c->o.type,
                                   .method = moe_calibrate_dense_method(&c->o),
                                   .dir = c->dir,
                                   .upstream_source = c->o.upstream_source,
                                   .tensors = { .layer = -1 } };
    MOE_TRY(moe_clip_monitor_open(&c->monitor, &c->walk, &c->dense, err));
    if (!moe_dense_wanted(c->src, c->o.type)) return MOE_OK;
    c->walk.ctx = c;
    c->walk.before[0] = before_attention;
    c->walk.before[1] = before_mlp;
    return MOE_OK;
}

static enum moe_code start(void *ctx, const char *dir, const bool *todo, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    struct moe_fisher f = moe_calibrate_sensitivity(&c->o);
    bool complete;
    int resume_layer;

    c->dir = dir;
    MOE_TRY(done_before(c, todo, &complete, &resume_layer, &c->done_before, err));
    moe_meter_begin(&c->meter, c->o.fisher ? "sensitivity" : "calibrate",
                    c->plan.work + moe_calibrate_copy_work_total(c->src, c->o.type));
    moe_meter_skip(&c->meter, c->done_before);
    if (c->o.fisher && !complete)
        MOE_TRY(moe_fisher_run(c->src, &f, dir, resume_layer, c->plan.in_files ? c->o.scratch : NULL, c->pool,
                               &c->meter, err));
    return take_all(c, err);
}

/* Takes the tokens through the layers without experts that follow the last layer with experts, if tensors of
 * dense.moe are quantized.  These layers have no unit of their own, so nothing else would reach them. */
static enum moe_code finish_layers(struct moe_calibrate *c, struct moe_err *err)
{
    while (c->walk.before[0] && c->walk.layer < c->src->config.num_hidden_layers &&
           !moe_layer_is_moe(&c->src->config, c->walk.layer))
        MOE_TRY(moe_walk_pass_dense_layer(&c->walk, err));
    return MOE_OK;
}

/* Takes the tokens to the experts of `layer`.  Layers with experts that are still before it have no unit in
 * this run (--layers): their experts are passed by the source's weights. */
static enum moe_code to_experts(struct moe_calibrate *c, int layer, struct moe_err *err)
{
    while (c->walk.layer < layer) MOE_TRY(moe_walk_pass_layer_by_source(&c->walk, err));
    return moe_walk_to_experts(&c->walk, layer, err);
}

static void name_phase(struct moe_calibrate *c, int layer)
{
    char label[48];
    snprintf(label, sizeof label, "calibrate, layer %d of %lld", layer,
             (long long)c->src->config.num_hidden_layers);
    moe_meter_label(&c->meter, layer < 0 ? "write dense.moe" : label);
}

static enum moe_code begin(void *ctx, const struct moe_shard_unit *u, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    name_phase(c, u->layer);
    if (u->layer < 0) return finish_layers(c, err);
    memset(c->stats, 0, (size_t)c->src->config.n_routed_experts * sizeof *c->stats);
    MOE_TRY(load_fisher(c, u->layer, err));
    MOE_TRY(to_experts(c, u->layer, err));
    moe_clip_monitor_common_passed(&c->monitor);
    return c->correction.open ? moe_correction_measure(&c->correction, &c->walk, u, err) : MOE_OK;
}

/* Reads the quantized tensors that were spilled of a layer into `a`, unless they are there already. */
static enum moe_code fetch(struct moe_calibrate *c, struct moe_spill *a, int layer, struct moe_err *err)
{
    bool there;
    return a->layer == layer ? MOE_OK : moe_spill_read(c->dir, layer, a, &there, err);
}

static enum moe_code code_dense(struct moe_calibrate *c, const struct moe_shard_unit *u,
                                const struct moe_unit_item *g, int worker, struct moe_chosen_codes *out,
                                struct moe_err *err)
{
    struct moe_spill *a = &c->workers[worker].spill;
    for (int i = 0; i < g->n; i++) {
        const struct moe_tensor *t = &u->out[g->first + i];
        const struct moe_tensor *in = &c->src->tensors[u->in[g->first + i]];
        moe_meter_add(&c->meter, moe_calibrate_copy_work(in, (uint8_t)t->type));
        if (t->type != MOE_NVFP4 || in->type == MOE_NVFP4 || t->layer < 0) continue;
        MOE_TRY(fetch(c, a, t->layer, err));
        const struct moe_spill_tensor *k = moe_spill_find(a, t->role);
        if (k) out[i] = (struct moe_chosen_codes){ k->codes, k->scales, k->global, k->num, k->den };
    }
    return MOE_OK;
}

static enum moe_code choose(void *ctx, const struct moe_shard_unit *u, int64_t item, int worker,
                            const float *amax, struct moe_chosen_codes *out, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    return u->layer < 0 ? code_dense(c, u, &u->items[item], worker, out, err)
                        : code_expert(c, u, &u->items[item], worker, amax, out, err);
}

/* The largest input over all experts of the layer, of gate and up or (of_y) of down.  Engines use one input
 * scale for all experts, and an expert without tokens has no inputs of its own. */
static float peer_amax(const struct moe_calibrate *c, bool of_y)
{
    float amax = 0;
    for (int64_t e = 0; e < c->src->config.n_routed_experts; e++)
        amax = fmaxf(amax, of_y ? c->stats[e].amax_y : c->stats[e].amax_x);
    return amax;
}

/* The magnitude above which inputs of gate and up, or (of_y) of down, are clipped.  It follows from the input
 * scale that calibration gave or, where nothing was quantized, from that of the source's NVFP4 weights; of
 * several, engines take the largest.  Without either there is no limit. */
static struct moe_clip clip_of(const struct moe_calibrate *c, const struct moe_shard_unit *u, bool of_y)
{
    float kept = 0;
    for (int64_t i = 0; i < u->n; i++) {
        const struct moe_tensor *in = &c->src->tensors[u->in[i]];
        if (u->out[i].type != MOE_NVFP4 || (u->out[i].role == MOE_ROLE_EXPERT_DOWN) != of_y) continue;
        if (in->type != MOE_NVFP4) return moe_clip_under(moe_nvfp4_global(peer_amax(c, of_y), MOE_NVFP4_MAX));
        if (in->input_scale > 0 && in->input_scale != 1)
            kept = fmaxf(kept, in->reciprocal ? 1 / in->input_scale : in->input_scale);
    }
    return kept > 0 ? moe_clip_under(kept) : (struct moe_clip){ .limit = INFINITY };
}

/* seen [2]: counts of the inputs of the experts as they were written, of gate and up and of down. */
static cJSON *layer_note(const struct moe_calibrate *c, const struct moe_shard_unit *u,
                         const struct moe_clip *seen)
{
    const struct moe_config *g = &c->src->config;
    double n = (double)c->o.n;
    struct moe_layer_stats s = { .layer = u->layer,
                                 .n = g->n_routed_experts,
                                 .experts = c->stats,
                                 .amax_x = peer_amax(c, false),
                                 .amax_y = peer_amax(c, true),
                                 .state_error = -1,
                                 .bytes = u->header.file_bytes,
                                 .peak_rss = moe_peak_rss(),
                                 .clipped = c->monitor.clipped,
                                 .n_clipped = c->monitor.n };

    for (int i = 0; i < 3; i++) s.seconds[i] = c->walk.seconds[i];
    if (c->correction.open) {
        s.seconds[MOE_PHASE_CORRECTION] = c->correction.seconds;
        s.flops[MOE_PHASE_CORRECTION] = moe_work_correction(g, u->layer, n, (double)c->o.sequence);
        s.state_error = c->correction.state2 > 0 ? sqrt(c->correction.residual2 / c->correction.state2) : 0;
    }
    s.flops[MOE_PHASE_ATTENTION] = moe_work_attention(g, n, (double)c->o.sequence);
    s.flops[MOE_PHASE_ROUTER] = moe_work_router(g, n);
    s.flops[MOE_PHASE_FORWARD] = moe_work_mlp(g->hidden_size, moe_work_common_width(g, u->layer), n) +
                                 moe_work_experts(g, n);
    if (!s.amax_x) s.amax_x = seen[0].largest; /* nothing was quantized */
    if (!s.amax_y) s.amax_y = seen[1].largest;
    for (int64_t e = 0; e < s.n; e++) {
        struct moe_work_quantize w = moe_work_quantize(&c->o.method, g->hidden_size, g->moe_intermediate_size,
                                                       c->o.fisher > 0, (double)c->stats[e].tokens);
        const double *t = c->stats[e].seconds;
        for (int i = 0; i < 3; i++) s.seconds[MOE_PHASE_STATISTICS + i] += t[i];
        if (t[0] + t[1] + t[2] <= 0) continue; /* it was not quantized */
        s.flops[MOE_PHASE_STATISTICS] += w.statistics;
        s.flops[MOE_PHASE_FACTORING] += w.factoring;
        s.flops[MOE_PHASE_ROUNDING] += w.rounding;
    }
    return moe_layer_note(&s);
}

static enum moe_code end(void *ctx, const struct moe_shard_unit *u, const struct moe_unit_file *file,
                         float *input_scale, cJSON **note, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;

    *note = NULL;
    for (int64_t i = 0; i < u->n; i++) input_scale[i] = 1;
    for (int64_t i = 0; u->layer < 0 && i < u->n; i++) {
        struct moe_spill *a = &c->workers[0].spill;
        if (u->out[i].type != MOE_NVFP4 || u->out[i].layer < 0) continue;
        MOE_TRY(fetch(c, a, u->out[i].layer, err));
        const struct moe_spill_tensor *k = moe_spill_find(a, u->out[i].role);
        if (k) input_scale[i] = k->input_scale;
    }
    if (u->layer < 0) {
        c->copied = moe_calibrate_copy_work_total(c->src, c->o.type);
        return MOE_OK;
    }
    float x = moe_nvfp4_global(peer_amax(c, false), MOE_NVFP4_MAX);
    float y = moe_nvfp4_global(peer_amax(c, true), MOE_NVFP4_MAX);
    for (int64_t i = 0; i < u->n; i++) input_scale[i] = u->out[i].role == MOE_ROLE_EXPERT_DOWN ? y : x;
    struct moe_clip clip[2] = { clip_of(c, u, false), clip_of(c, u, true) };
    MOE_TRY(moe_clip_monitor_experts(&c->monitor, u, c->o.upstream_source ? NULL : file, clip, err));
    *note = layer_note(c, u, clip);
    c->monitor.n = 0;
    if (!*note) return moe_fail(err, MOE_NOMEM, "no memory for a report");
    return moe_walk_next(&c->walk, err);
}

static enum moe_code replay(void *ctx, const struct moe_shard_unit *u, const struct moe_unit_file *file,
                            struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    if (u->layer < 0) return MOE_OK;
    name_phase(c, u->layer);
    MOE_TRY(to_experts(c, u->layer, err));
    moe_clip_monitor_common_passed(&c->monitor);
    c->monitor.n = 0; /* the layer's note has these counts already */
    if (c->correction.open) MOE_TRY(moe_correction_pass(&c->correction, u->layer, err));
    MOE_TRY(moe_walk_experts(&c->walk, u, c->o.upstream_source ? NULL : file, NULL, err));
    return moe_walk_next(&c->walk, err);
}

/* Adds routing.json, unless no layer has a note. */
static enum moe_code publish(void *ctx, struct moe_writer *w, const cJSON *notes, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    struct moe_routing *r;
    size_t bytes;

    if (!notes->child) return MOE_OK;
    MOE_TRY(moe_notes_check(notes, &c->src->config, moe_writer_dir(w), err));
    MOE_TRY(moe_notes_routing(notes, &c->src->config, c->o.n, &r, err));
    char *text = moe_routing_print(r, &bytes);
    enum moe_code code = text ? moe_writer_add_file(w, "routing.json", text, bytes, err)
                              : moe_fail(err, MOE_NOMEM, "no memory for routing.json");
    free(text);
    moe_routing_free(&r);
    return code;
}

void moe_calibrate_chooser(struct moe_calibrate *c, struct moe_code_chooser *chooser)
{
    chooser->ctx = c;
    chooser->workers = c->plan.workers;
    chooser->start = start;
    chooser->begin = begin;
    chooser->choose = choose;
    chooser->end = end;
    chooser->replay = replay;
    chooser->publish = publish;
}

/* ---- open and close ---- */

enum moe_code moe_calibrate_open(struct moe_calibrate **out, struct moe_source *src,
                                 const struct moe_calibration *o, const struct moe_calibration_plan *p,
                                 struct moe_pool *pool, struct moe_progress *progress, struct moe_err *err)
{
    struct moe_calibrate *c = calloc(1, sizeof *c);
    *out = c;
    if (!c) return moe_fail(err, MOE_NOMEM, "no memory for calibration");
    *c = (struct moe_calibrate){ .o = *o, .plan = *p, .src = src, .pool = pool, .f_layer = -1 };
    moe_meter_init(&c->meter, progress);
    return MOE_OK;
}

double moe_calibrate_flops(const struct moe_calibrate *c)
{
    return c->meter.done - c->done_before - c->copied;
}

void moe_calibrate_close(struct moe_calibrate **pc)
{
    struct moe_calibrate *c = *pc;

    if (!c) return;
    for (int i = 0; c->workers && i < c->plan.workers; i++) {
        moe_mlp_close(&c->workers[i].mlp);
        moe_stored_expert_release(&c->workers[i].stored);
        moe_spill_release(&c->workers[i].spill);
    }
    moe_output_hessian_release(&c->f);
    if (c->walking) moe_dense_release(&c->dense);
    moe_correction_close(&c->correction);
    if (c->walking) moe_walk_close(&c->walk);
    free(c->workers);
    free(c->stats);
    moe_clip_monitor_release(&c->monitor);
    moe_meter_release(&c->meter);
    free(c);
    *pc = NULL;
}
