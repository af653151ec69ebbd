#include "quantize/calibrate.h"

#include "base/io.h"
#include "formats/routing.h"
#include "model/unit.h"
#include "quantize/dense.h"
#include "quantize/fisher.h"
#include "quantize/least.h"
#include "quantize/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* An expert is cold below 1/20 of the mean number of tokens (modelopt's 5 %).  One with fewer than FEW tokens borrows the statistics of up to LENT
 * tokens of the layer, evenly spaced, which together count as MASS tokens of its own. */
enum { COLD_SHARE = 20, FEW = 512, LENT = 512, MASS = 16 };

enum { ATTENTION_INPUTS = 4 };

/* What one expert at work needs. */
struct bench {
    struct moe_mlp *mlp;
    struct moe_held held;
    struct moe_aside aside;         /* of the layer of dense.moe at hand */
    int32_t row[FEW + LENT]; float importance[FEW + LENT];
};

struct moe_calibrate {
    struct moe_calibration o;
    struct moe_calibration_plan plan;
    struct moe_source *src;
    struct moe_pool *pool;
    struct moe_meter meter; double done_before, copied; /* progress; of it, what earlier runs did and what was only copied */
    const char *dir;                /* for files of our own */
    struct moe_walk walk;
    struct moe_dense dense;
    bool walking;
    struct bench *bench;            /* [workers] */
    struct moe_metric f; int f_layer; /* F of that layer; -1: none yet */
    struct moe_expert_stats *stats; /* [E] of the layer at hand */
    struct moe_clip attention[ATTENTION_INPUTS], common[2]; int common_layer;
    struct moe_hooks hooks;
    struct moe_clipped *clipped; int n_clipped; /* since the last layer's note; at most 8 a layer */
};

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

/* What a layer takes beside its way forward: its experts; attention and the MLP of all tokens. */
static double expert_work(const struct moe_source *src, const struct moe_calibration *o, double tokens)
{
    return moe_work_sum(moe_work_quantize(&o->method, src->config.hidden_size, src->config.moe_intermediate_size, o->fisher > 0, tokens));
}

static double layer_work(const struct moe_source *src, const struct moe_calibration *o, int64_t layer)
{
    double each = (double)o->n * (double)src->config.num_experts_per_tok / (double)src->config.n_routed_experts;
    int64_t n = moe_layer_is_moe(&src->config, layer) ? coded_experts(src, o->type, layer) : 0;
    return n ? (double)n * expert_work(src, o, each) : 0;
}

static double dense_work(const struct moe_source *src, const struct moe_calibration *o, int64_t layer)
{
    struct moe_work_dense w = moe_work_dense(src, o->type, &o->method, layer, (double)o->n, (double)o->sequence);
    return w.pass + w.projections + w.mlp;
}

/* Layers that tokens pass: up to the last of which anything is written. */
static int64_t layers_passed(const struct moe_source *src, const uint8_t *type)
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
    for (int64_t l = 0, n = layers_passed(src, o->type); l < n; l++)
        work += moe_work_forward(&src->config, l, (double)o->n, (double)o->sequence) + layer_work(src, o, l) + dense_work(src, o, l);
    return work;
}

/* As long as a product of so many operations: a byte that is copied, where the disk does 1 GB/s and the processors 100 GFLOP/s. */
enum { COPY = 100 };

static double copy_work(const struct moe_tensor *t, uint8_t type) { return type == MOE_TYPE_LEFT_OUT ? 0 : COPY * (double)stored_bytes(t); }

static double copies(const struct moe_source *src, const uint8_t *type)
{
    double work = 0;
    for (int64_t i = 0; i < src->n_tensors; i++) work += src->tensors[i].expert < 0 ? copy_work(&src->tensors[i], type[i]) : 0;
    return work;
}

/* What earlier runs left: the sensitivity pass, whole units, what was put aside of layers. */
static enum moe_code done_before(const struct moe_calibrate *c, const bool *todo, double *work, struct moe_err *err)
{
    bool there = false;
    if (c->o.fisher) MOE_TRY(moe_fisher_there(c->src, c->dir, &there, err));
    *work = there ? moe_work_sensitivity(&c->src->config, (double)least(c->o.fisher, c->o.n), (double)c->o.sequence) : 0;
    for (int l = 0, unit = 0, n = (int)layers_passed(c->src, c->o.type); l < n; l++) {
        MOE_TRY(moe_aside_there(c->dir, l, &there, err));
        if (there) *work += dense_work(c->src, &c->o, l);
        if (moe_layer_is_moe(&c->src->config, l) && !todo[++unit]) *work += layer_work(c->src, &c->o, l);
    }
    return MOE_OK;
}

/* ---- experts ---- */

static enum moe_code name_expert(const struct moe_calibrate *c, int64_t e, struct moe_err *err)
{
    return moe_wrap(err, "layer %d, expert %lld", c->walk.layer, (long long)e);
}

static void note_expert(struct moe_calibrate *c, int64_t e, const struct moe_mlp_tokens *t, const struct moe_mlp_result *r)
{
    int64_t n = c->src->config.n_routed_experts, mean = c->o.n * c->src->config.num_experts_per_tok / n;
    c->stats[e] = (struct moe_expert_stats){ t->own, r->amax_x, r->amax_y, t->own * COLD_SHARE < mean || !t->own, r->out_num, r->out_den,
                                         { r->seconds[0], r->seconds[1], r->seconds[2] } };
}

/* The tokens of an expert that has few, and some that others chose. */
static struct moe_mlp_tokens with_lent(struct moe_calibrate *c, struct bench *b, struct moe_mlp_tokens t)
{
    int64_t n = least(LENT, c->walk.n), step = c->walk.n / n;
    double own = 0;
    for (int64_t i = 0; i < t.n; i++) {
        b->row[i] = t.row[i];
        b->importance[i] = t.importance[i];
        own += (double)t.importance[i] * (double)t.importance[i];
    }
    /* a lent token weighs what the mean of its own does, or its own 1 / rms where it has none */
    float weight = t.n ? (float)sqrt(own / (double)t.n * MASS / (double)n) : (float)sqrt((double)MASS / (double)n);
    for (int64_t i = 0; i < n; i++) {
        b->row[t.n + i] = (int32_t)(i * step);
        b->importance[t.n + i] = t.n ? weight : weight * c->walk.importance[i * step];
    }
    t.row = b->row;
    t.importance = b->importance;
    t.n += n;
    return t;
}

static enum moe_code code_expert(struct moe_calibrate *c, const struct moe_shard_unit *u, const struct moe_group *g, int worker, const float *amax,
                                 struct moe_coded *out, struct moe_err *err)
{
    struct moe_mlp_weights w = { .quantize = { false } };
    struct moe_mlp_result r;
    struct bench *b = &c->bench[worker];
    int64_t e = u->out[g->first].expert;
    for (int i = 0; i < 3; i++) {
        const struct moe_tensor *in = &c->src->tensors[u->in[g->first + i]];
        MOE_TRY(moe_walk_read(&c->walk, &b->held, in, i, &w.w[i], err));
        w.quantize[i] = u->out[g->first + i].type == MOE_NVFP4 && in->type != MOE_NVFP4;
        w.amax[i] = amax[i];
    }
    struct moe_mlp_tokens t = moe_walk_expert(&c->walk, e);
    if (t.n < FEW) t = with_lent(c, b, t);
    if (moe_mlp_quantize(b->mlp, &w, &t, c->o.fisher ? &c->f : NULL, &r, err) != MOE_OK) return name_expert(c, e, err);
    note_expert(c, e, &t, &r);
    if (w.quantize[0] || w.quantize[1] || w.quantize[2]) moe_meter_add(&c->meter, expert_work(c->src, &c->o, (double)t.own));
    for (int i = 0; i < 3; i++)
        if (w.quantize[i]) out[i] = (struct moe_coded){ r.rounded[i].codes, r.rounded[i].scales, r.global[i], r.rounded[i].num, r.rounded[i].den };
    return MOE_OK;
}

/* ---- the coder ---- */

/* F of the layer at hand, once. */
static enum moe_code load_metric(struct moe_calibrate *c, int layer, struct moe_err *err)
{
    if (!c->o.fisher || !moe_layer_is_moe(&c->src->config, layer) || c->f_layer == layer) return MOE_OK;
    c->f.form.k = c->src->config.hidden_size;
    MOE_TRY(moe_fisher_read(c->dir, layer, &c->f, err));
    MOE_TRY(moe_metric_finish(&c->f, c->o.method.matrix.damp_rows, c->pool, err));
    c->f_layer = layer;
    return MOE_OK;
}

/* ---- what static input scales clip (quantize/clip.h) ---- */

static void add_clipped(struct moe_calibrate *c, int layer, const char *input, const struct moe_clip *clip)
{
    if (clip->seen && isfinite(clip->limit)) c->clipped[c->n_clipped++] = (struct moe_clipped){ layer, input, *clip };
}

/* The inputs of attention's projections, by the role that shows them. */
static const struct { enum moe_role role, projection[3]; const char *name; } seen[ATTENTION_INPUTS] = {
    { MOE_ROLE_KV_A, { MOE_ROLE_KV_A, MOE_ROLE_Q_A, MOE_ROLE_Q }, "q_a_kv_a" }, { MOE_ROLE_Q_B, { MOE_ROLE_Q_B, MOE_ROLE_Q_B, MOE_ROLE_Q_B }, "q_b" },
    { MOE_ROLE_KV_B, { MOE_ROLE_KV_B, MOE_ROLE_KV_B, MOE_ROLE_KV_B }, "kv_b" }, { MOE_ROLE_O, { MOE_ROLE_O, MOE_ROLE_O, MOE_ROLE_O }, "o" },
};

static const struct moe_aside_tensor *written(const struct moe_calibrate *c, int input)
{
    const struct moe_aside_tensor *t = NULL;
    for (int i = 0; !t && i < 3; i++) t = moe_aside_find(&c->dense.here, seen[input].projection[i]);
    return t;
}

static void see_input(void *ctx, int layer, enum moe_role role, int expert, const float *x, int64_t ldx, int64_t n)
{
    struct moe_calibrate *c = ctx;
    (void)layer, (void)expert;
    for (int i = 0; i < ATTENTION_INPUTS; i++)
        if (seen[i].role == role && c->attention[i].limit > 0) moe_clip_count(&c->attention[i], x, ldx, written(c, i)->cols, n);
}

static void watch_attention(struct moe_calibrate *c)
{
    bool any = false;
    for (int i = 0; i < ATTENTION_INPUTS; i++) {
        const struct moe_aside_tensor *t = written(c, i);
        c->attention[i] = t ? moe_clip_under(t->input_scale) : (struct moe_clip){ 0 };
        any |= t != NULL;
    }
    c->hooks = (struct moe_hooks){ .ctx = c, .input = see_input };
    if (any) moe_forward_hooks(c->walk.f, &c->hooks);
}

/* Then the MLP that all tokens pass. */
static void watch_common(struct moe_calibrate *c)
{
    enum moe_role gate = moe_layer_is_moe(&c->src->config, c->walk.layer) ? MOE_ROLE_SHARED_GATE : MOE_ROLE_GATE;
    const struct moe_aside_tensor *x = moe_aside_find(&c->dense.here, (int)gate), *y = moe_aside_find(&c->dense.here, (int)gate + 2);
    for (int i = 0; i < ATTENTION_INPUTS; i++) add_clipped(c, c->walk.layer, seen[i].name, &c->attention[i]);
    c->common_layer = c->walk.layer;
    c->common[0] = x ? moe_clip_under(x->input_scale) : (struct moe_clip){ .limit = INFINITY };
    c->common[1] = y ? moe_clip_under(y->input_scale) : (struct moe_clip){ .limit = INFINITY };
    c->walk.clip = x || y ? c->common : NULL;
}

static void common_passed(struct moe_calibrate *c)
{
    static const char *const name[2][2] = { { "gate_up", "down" }, { "shared_gate_up", "shared_down" } };
    bool moe = moe_layer_is_moe(&c->src->config, c->common_layer);
    for (int i = 0; c->walk.clip && i < 2; i++) add_clipped(c, c->common_layer, name[moe][i], &c->common[i]);
    c->walk.clip = NULL;
}

/* ---- the walk's callbacks ---- */

static enum moe_code before_attention(void *ctx, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    common_passed(c);
    MOE_TRY(load_metric(c, c->walk.layer, err));
    c->dense.f = c->f_layer == c->walk.layer ? &c->f : NULL;
    MOE_TRY(moe_dense_attention(&c->dense, err));
    watch_attention(c);
    return MOE_OK;
}

static enum moe_code before_mlp(void *ctx, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    moe_forward_hooks(c->walk.f, NULL);
    MOE_TRY(moe_dense_mlp(&c->dense, err));
    watch_common(c);
    return MOE_OK;
}

/* Everything that is held, once the sensitivity pass has let go of what it held. */
static enum moe_code take_all(struct moe_calibrate *c, struct moe_err *err)
{
    const struct moe_config *g = &c->src->config;
    c->bench = calloc((size_t)c->plan.workers, sizeof *c->bench);
    c->stats = calloc((size_t)g->n_routed_experts + 1, sizeof *c->stats);
    c->clipped = calloc(8 * (size_t)g->num_hidden_layers, sizeof *c->clipped);
    if (!c->bench || !c->stats || !c->clipped) return moe_fail(err, MOE_NOMEM, "no memory for calibration");
    for (int i = 0; i < c->plan.workers; i++) MOE_TRY(moe_mlp_open(&c->bench[i].mlp, g->hidden_size, g->moe_intermediate_size, &c->o.method, false, NULL, err));
    if (c->o.fisher) MOE_TRY(moe_metric_open(&c->f, g->hidden_size, err));
    MOE_TRY(moe_walk_open(&c->walk, c->src, c->o.tokens, c->o.n, c->o.sequence, c->plan.in_files ? c->o.scratch : NULL, c->pool, err));
    c->walking = true;
    c->walk.meter = &c->meter;
    for (int i = 0; i < c->plan.workers; i++) c->bench[i].aside.layer = -1;
    c->dense = (struct moe_dense){ .walk = &c->walk, .type = c->o.type, .method = c->o.method, .dir = c->dir, .upstream_source = c->o.upstream_source, .here = { .layer = -1 } };
    if (!moe_dense_wanted(c->src, c->o.type)) return MOE_OK;
    c->walk.ctx = c;
    c->walk.before[0] = before_attention;
    c->walk.before[1] = before_mlp;
    return MOE_OK;
}

static struct moe_fisher sensitivity(const struct moe_calibration *o)
{
    return (struct moe_fisher){ o->tokens, least(o->fisher, o->n), o->sequence, o->seed };
}

static enum moe_code start(void *ctx, const char *dir, const bool *todo, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    struct moe_fisher f = sensitivity(&c->o);
    c->dir = dir;
    MOE_TRY(done_before(c, todo, &c->done_before, err));
    moe_meter_begin(&c->meter, c->o.fisher ? "sensitivity" : "calibrate", c->plan.work + copies(c->src, c->o.type));
    moe_meter_skip(&c->meter, c->done_before);
    if (c->o.fisher) MOE_TRY(moe_fisher_run(c->src, &f, dir, c->plan.in_files ? c->o.scratch : NULL, c->pool, &c->meter, err));
    return take_all(c, err);
}

/* Layers without experts behind the last one that has some: nothing else asks for them. */
static enum moe_code finish_layers(struct moe_calibrate *c, struct moe_err *err)
{
    while (c->walk.before[0] && c->walk.layer < c->src->config.num_hidden_layers && !moe_layer_is_moe(&c->src->config, c->walk.layer)) MOE_TRY(moe_walk_through(&c->walk, err));
    return MOE_OK;
}

/* Layers of which nothing is written go through the source's weights. */
static enum moe_code reach(struct moe_calibrate *c, int layer, struct moe_err *err)
{
    while (c->walk.layer < layer) MOE_TRY(moe_walk_pass(&c->walk, err));
    return moe_walk_reach(&c->walk, layer, err);
}

static void name_phase(struct moe_calibrate *c, int layer)
{
    char label[48];
    snprintf(label, sizeof label, "calibrate, layer %d of %lld", layer, (long long)c->src->config.num_hidden_layers);
    moe_meter_label(&c->meter, layer < 0 ? "write dense.moe" : label);
}

static enum moe_code begin(void *ctx, const struct moe_shard_unit *u, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    name_phase(c, u->layer);
    if (u->layer < 0) return finish_layers(c, err);
    memset(c->stats, 0, (size_t)c->src->config.n_routed_experts * sizeof *c->stats);
    MOE_TRY(load_metric(c, u->layer, err));
    MOE_TRY(reach(c, u->layer, err));
    common_passed(c);
    return MOE_OK;
}

/* What was put aside of a layer, in a worker's hands. */
static enum moe_code fetch(struct moe_calibrate *c, struct moe_aside *a, int layer, struct moe_err *err)
{
    bool there;
    return a->layer == layer ? MOE_OK : moe_aside_read(c->dir, layer, a, &there, err);
}

static enum moe_code code_dense(struct moe_calibrate *c, const struct moe_shard_unit *u, const struct moe_group *g, int worker, struct moe_coded *out, struct moe_err *err)
{
    struct moe_aside *a = &c->bench[worker].aside;
    for (int i = 0; i < g->n; i++) {
        const struct moe_tensor *t = &u->out[g->first + i], *in = &c->src->tensors[u->in[g->first + i]];
        moe_meter_add(&c->meter, copy_work(in, (uint8_t)t->type));
        if (t->type != MOE_NVFP4 || in->type == MOE_NVFP4 || t->layer < 0) continue;
        MOE_TRY(fetch(c, a, t->layer, err));
        const struct moe_aside_tensor *k = moe_aside_find(a, t->role);
        if (k) out[i] = (struct moe_coded){ k->codes, k->scales, k->global, k->num, k->den };
    }
    return MOE_OK;
}

static enum moe_code code(void *ctx, const struct moe_shard_unit *u, int64_t group, int worker, const float *amax, struct moe_coded *out, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    return u->layer < 0 ? code_dense(c, u, &u->groups[group], worker, out, err) : code_expert(c, u, &u->groups[group], worker, amax, out, err);
}

/* The largest over the layer's experts: engines use one scale for all, and a cold expert has none of its own. */
static float peer_amax(const struct moe_calibrate *c, bool of_y)
{
    float amax = 0;
    for (int64_t e = 0; e < c->src->config.n_routed_experts; e++) amax = fmaxf(amax, of_y ? c->stats[e].amax_y : c->stats[e].amax_x);
    return amax;
}

static cJSON *layer_note(const struct moe_calibrate *c, const struct moe_shard_unit *u)
{
    const struct moe_config *g = &c->src->config;
    double n = (double)c->o.n, choices = n * (double)g->num_experts_per_tok;
    struct moe_layer_stats s = { .layer = u->layer, .n = g->n_routed_experts, .experts = c->stats, .amax_x = peer_amax(c, false), .amax_y = peer_amax(c, true),
                                 .bytes = u->header.file_bytes, .peak_rss = moe_peak_rss(), .clipped = c->clipped, .n_clipped = c->n_clipped };
    for (int i = 0; i < 3; i++) s.seconds[i] = c->walk.seconds[i];
    s.flops[MOE_PHASE_ATTENTION] = moe_work_attention(g, n, (double)c->o.sequence);
    s.flops[MOE_PHASE_ROUTER] = moe_work_router(g, n);
    s.flops[MOE_PHASE_FORWARD] = moe_work_mlp(g->hidden_size, moe_work_common(g, u->layer), n) + moe_work_mlp(g->hidden_size, g->moe_intermediate_size, choices);
    for (int64_t e = 0; e < s.n; e++) {
        struct moe_work_quantize w = moe_work_quantize(&c->o.method, g->hidden_size, g->moe_intermediate_size, c->o.fisher > 0, (double)c->stats[e].tokens);
        const double *t = c->stats[e].seconds;
        for (int i = 0; i < 3; i++) s.seconds[MOE_PHASE_STATISTICS + i] += t[i];
        if (t[0] + t[1] + t[2] <= 0) continue; /* it was not quantized */
        s.flops[MOE_PHASE_STATISTICS] += w.statistics;
        s.flops[MOE_PHASE_FACTORING] += w.factoring;
        s.flops[MOE_PHASE_ROUNDING] += w.rounding;
    }
    return moe_layer_note(&s);
}

/* Experts as they were written, over all tokens; counting what their input scales clip. */
static enum moe_code experts_as_written(struct moe_calibrate *c, const struct moe_shard_unit *u, const char *path, float x, float y, struct moe_err *err)
{
    struct moe_clip clip[2] = { moe_clip_under(x), moe_clip_under(y) };
    c->walk.clip = clip;
    enum moe_code code = moe_walk_experts(&c->walk, u, c->o.upstream_source ? NULL : path, err);
    c->walk.clip = NULL;
    add_clipped(c, u->layer, "gate_up", &clip[0]);
    add_clipped(c, u->layer, "down", &clip[1]);
    return code;
}

static enum moe_code end(void *ctx, const struct moe_shard_unit *u, const char *path, float *input_scale, cJSON **note, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    *note = NULL;
    for (int64_t i = 0; i < u->n; i++) input_scale[i] = 1;
    for (int64_t i = 0; u->layer < 0 && i < u->n; i++) {
        struct moe_aside *a = &c->bench[0].aside;
        if (u->out[i].type != MOE_NVFP4 || u->out[i].layer < 0) continue;
        MOE_TRY(fetch(c, a, u->out[i].layer, err));
        const struct moe_aside_tensor *k = moe_aside_find(a, u->out[i].role);
        if (k) input_scale[i] = k->input_scale;
    }
    if (u->layer < 0) {
        c->copied = copies(c->src, c->o.type);
        return MOE_OK;
    }
    float x = moe_nvfp4_global(peer_amax(c, false), MOE_NVFP4_MAX), y = moe_nvfp4_global(peer_amax(c, true), MOE_NVFP4_MAX);
    for (int64_t i = 0; i < u->n; i++) input_scale[i] = u->out[i].role == MOE_ROLE_EXPERT_DOWN ? y : x;
    MOE_TRY(experts_as_written(c, u, path, x, y, err));
    *note = layer_note(c, u);
    c->n_clipped = 0;
    if (!*note) return moe_fail(err, MOE_NOMEM, "no memory for a report");
    return moe_walk_next(&c->walk, err);
}

static enum moe_code replay(void *ctx, const struct moe_shard_unit *u, const char *path, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    if (u->layer < 0) return MOE_OK;
    name_phase(c, u->layer);
    MOE_TRY(reach(c, u->layer, err));
    common_passed(c);
    c->n_clipped = 0; /* the layer's note has them */
    MOE_TRY(moe_walk_experts(&c->walk, u, c->o.upstream_source ? NULL : path, err));
    return moe_walk_next(&c->walk, err);
}

/* routing.json: how many calibration tokens went to each expert. */
static enum moe_code publish(void *ctx, struct moe_writer *w, const cJSON *notes, struct moe_err *err)
{
    struct moe_calibrate *c = ctx;
    struct moe_routing *r;
    int32_t *layers = malloc((size_t)(cJSON_GetArraySize(notes) + 1) * sizeof *layers), n = 0;
    if (!layers) return moe_fail(err, MOE_NOMEM, "no memory for routing.json");
    for (const cJSON *j = notes->child; j; j = j->next) layers[n++] = (int32_t)cJSON_GetObjectItemCaseSensitive(j, "layer")->valuedouble;
    enum moe_code code = n ? moe_routing_new(&r, (int32_t)c->src->config.n_routed_experts, (int32_t)c->src->config.num_experts_per_tok, n, layers, 1, err) : MOE_OK;
    free(layers);
    if (code != MOE_OK || !n) return code;
    r->tokens[0] = c->o.n;
    n = 0;
    for (const cJSON *j = notes->child; j; j = j->next, n++) {
        int64_t *row = moe_routing_row(r, 0, n), e = 0;
        for (const cJSON *t = cJSON_GetObjectItemCaseSensitive(j, "tokens")->child; t && e < r->experts; t = t->next) row[e++] = (int64_t)t->valuedouble;
    }
    size_t bytes;
    char *text = moe_routing_print(r, &bytes);
    code = text ? moe_writer_add_file(w, "routing.json", text, bytes, err) : moe_fail(err, MOE_NOMEM, "no memory for routing.json");
    free(text);
    moe_routing_free(&r);
    return code;
}

void moe_calibrate_coder(struct moe_calibrate *c, struct moe_coder *coder)
{
    coder->ctx = c;
    coder->workers = c->plan.workers;
    coder->start = start;
    coder->begin = begin;
    coder->code = code;
    coder->end = end;
    coder->replay = replay;
    coder->publish = publish;
}

/* ---- what it takes ---- */

enum moe_code moe_calibrate_plan(const struct moe_source *src, const struct moe_calibration *o, int threads, struct moe_calibration_plan *p, struct moe_err *err)
{
    const struct moe_config *c = &src->config;
    struct moe_fisher f = sensitivity(o);
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
    uint64_t each = moe_mlp_estimate(c->hidden_size, c->moe_intermediate_size, &o->method) + most_raw + sizeof(struct bench) + (4 << 20);
    uint64_t fixed = base + (o->fisher ? moe_metric_estimate(c->hidden_size) : 0) + most_raw + layer + (uint64_t)src->n_tensors * 64 + (16 << 20) +
                     moe_dense_estimate(src, o->type, &o->method);
    for (int in_files = 0; in_files <= (o->scratch != NULL); in_files++) {
        uint64_t walk = moe_walk_estimate(src, o->n, o->sequence, in_files, threads), left = limit > fixed + walk ? limit - fixed - walk : 0;
        if (o->fisher) moe_fisher_estimate(src, &f, in_files, threads, &fisher, &files);
        fisher += base + most_raw + layer;
        p->workers = (int)least((int64_t)(left / each), threads);
        p->in_files = in_files;
        p->memory = fixed + walk + (uint64_t)(p->workers ? p->workers : 1) * each;
        if (o->fisher && fisher > p->memory) p->memory = fisher;
        p->scratch = in_files ? 2 * (uint64_t)(o->n * c->hidden_size) * sizeof(float) + (o->fisher ? files : 0) : 0;
        if (p->workers && p->memory <= limit) break;
    }
    for (int64_t l = 0; o->fisher && l < c->num_hidden_layers; l++)
        p->partial += moe_layer_is_moe(c, l) ? (uint64_t)c->hidden_size * (uint64_t)c->hidden_size * sizeof(float) : 0;
    if (p->workers && p->memory <= limit) return MOE_OK;
    return moe_fail(err, MOE_NOMEM, "calibration needs %llu MiB of memory, %llu MiB allowed (raise --memory, %s)", (unsigned long long)(p->memory >> 20) + 1,
                    (unsigned long long)(limit >> 20), o->scratch ? "or lower --calib-tokens" : "give --scratch DIR, or lower --calib-tokens");
}

/* ---- open and close ---- */

enum moe_code moe_calibrate_open(struct moe_calibrate **out, struct moe_source *src, const struct moe_calibration *o, const struct moe_calibration_plan *p,
                                 struct moe_pool *pool, struct moe_progress *progress, struct moe_err *err)
{
    struct moe_calibrate *c = calloc(1, sizeof *c);
    *out = c;
    if (!c) return moe_fail(err, MOE_NOMEM, "no memory for calibration");
    *c = (struct moe_calibrate){ .o = *o, .plan = *p, .src = src, .pool = pool, .f_layer = -1 };
    moe_meter_init(&c->meter, progress);
    return MOE_OK;
}

double moe_calibrate_flops(const struct moe_calibrate *c) { return c->meter.done - c->done_before - c->copied; }

void moe_calibrate_close(struct moe_calibrate **pc)
{
    struct moe_calibrate *c = *pc;
    if (!c) return;
    for (int i = 0; c->bench && i < c->plan.workers; i++) {
        moe_mlp_close(&c->bench[i].mlp);
        moe_held_release(&c->bench[i].held);
        moe_aside_release(&c->bench[i].aside);
    }
    moe_metric_release(&c->f);
    if (c->walking) moe_dense_release(&c->dense);
    if (c->walking) moe_walk_close(&c->walk);
    free(c->bench);
    free(c->stats);
    free(c->clipped);
    moe_meter_release(&c->meter);
    free(c);
    *pc = NULL;
}
