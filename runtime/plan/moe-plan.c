/* SPDX-License-Identifier: Apache-2.0 */
/* moe-plan - main() only: parse, call, report. */
#include "base/hash.h"
#include "base/io.h"
#include "base/newfile.h"
#include "base/cli/output.h"
#include "base/show.h"
#include "base/stream.h"
#include "formats/container/container.h"
#include "formats/container/identity.h"
#include "model/rewrite/check.h"
#include "runtime/plan/plan-baselines.h"
#include "runtime/plan/plan-check.h"
#include "runtime/plan/plan-inputs.h"
#include "runtime/plan/plan-model.h"
#include "runtime/plan/plan-options.h"
#include "runtime/plan/plan-out.h"
#include "runtime/plan/plan-proof.h"
#include "runtime/plan/plan-report.h"
#include "runtime/plan/plan-staging.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the task ---- */

struct work {
    struct moe_plan_options *o;
    struct moe_source *src;
    struct moe_routing *stats;
    struct moe_plan *from, *plan;
    struct moe_plan_proofs *proofs;
    struct moe_plan_task task;
    struct moe_weight_bytes bytes;
    struct moe_gpu gpu;
    uint64_t digest;          /* of the statistics */
    struct moe_identity model; /* its checkpoint; a checkpoint's weights are looked at for a plan that is
                                  written */
    struct moe_text *text;    /* the report for people */
    double seconds, cpu;      /* of planning alone: wall, and of all threads */
    bool measured;            /* there are statistics */
};

static enum moe_code dense_bytes(const char *t, double *b, struct moe_err *err)
{
    *b = !strcmp(t, "source") ? 0 : !strcmp(t, "bf16") ? 2 : !strcmp(t, "fp8") ? 1 : -1;
    return *b >= 0 ? MOE_OK : moe_fail(err, MOE_USAGE, "unknown --dense-type '%s' (source, bf16 or fp8)", t);
}

static enum moe_code choose_slots(struct work *w, struct moe_err *err)
{
    struct moe_plan_options *o = w->o;
    int64_t experts = w->stats->experts, need = experts * (w->task.survive + 1), ranks = w->task.ranks,
            slots = o->slots;
    if (o->memory != MOE_UNSET) {
        double each = w->bytes.expert * (double)w->bytes.moe_layers,
               fixed = moe_weight_bytes_replicated(&w->bytes),
               room = floor(((double)o->memory - fixed) / each);
        if (room < 0) room = 0;
        slots = room * (double)ranks > (double)(experts * ranks) ? experts * ranks : (int64_t)room * ranks;
        if (slots < need) {
            char a[16], b[16];
            int64_t least = (need + ranks - 1) / ranks;
            return moe_fail(err, MOE_USAGE,
                            "--memory-per-rank %s is too little: so a rank holds %lld expert%s of each "
                            "layer, and %d cop%s of %lld experts on %lld ranks need %lld, which take %s",
                            moe_human_bytes((uint64_t)o->memory, a), (long long)room,
                            room >= 2 || room < 1 ? "s" : "", (int)w->task.survive + 1,
                            w->task.survive ? "ies" : "y", (long long)experts, (long long)ranks,
                            (long long)least, moe_human_bytes((uint64_t)(fixed + each * (double)least), b));
        }
    } else if (slots == MOE_UNSET) slots = w->from ? w->from->layers[0].slots : 0;
    if (slots < 1 || (o->slots == MOE_UNSET && slots < need)) slots = (need + ranks - 1) / ranks * ranks;
    if (slots > INT32_MAX) return moe_fail(err, MOE_USAGE, "%lld slots are too many", (long long)slots);
    w->task.slots = (int32_t)slots;
    return MOE_OK;
}

/* Once for each kind of doubt: a plan of such statistics may be right, but proves
 * little of what will come. */
static void tell_doubts(const struct moe_run *run, const struct moe_routing *r)
{
    struct moe_stats_doubts d;
    moe_plan_doubt_stats(r, &d);
    if (d.rounded)
        moe_notice(run,
                   d.rounded == 1 ? "%lld count of the statistics is a fraction and was rounded"
                                  : "%lld counts of the statistics are fractions and were rounded",
                   (long long)d.rounded);
    if (d.beyond)
        moe_notice(run,
                   "the statistics have %d row%s of layers for multi-token prediction: no plan places their "
                   "experts",
                   (int)d.beyond, d.beyond > 1 ? "s" : "");
    if (d.empty == d.layers)
        moe_warn(run, "all counts of the statistics are zero: nothing is known of how busy experts are, so "
                      "the plan spreads them evenly, as without statistics, and its loads and gaps say "
                      "nothing (record some traffic: moe-run --record-routing)");
    else if (d.empty)
        moe_warn(run,
                 "%d of %d layers %s no count in the statistics: %s experts are spread evenly, and balance "
                 "is known of the other %d layer%s only",
                 (int)d.empty, (int)d.layers, d.empty == 1 ? "has" : "have", d.empty == 1 ? "its" : "their",
                 (int)(d.layers - d.empty), moe_plural(d.layers - d.empty));
    if (d.never > d.experts / 2)
        moe_warn(
            run,
            "%d of %d experts of a layer never got a token in the statistics, as when they are of one rank "
            "only or of a few prompts: the plan takes these experts to be idle and puts them together, so a "
            "rank that has them is overloaded once they are used (add up the statistics of all ranks)",
            (int)d.never, (int)d.experts);
}

/* What the old plan asks for goes on where the command does not say otherwise.  Where that cannot be,
 * the message says who asks. */
static enum moe_code check_inherited(const struct work *w, struct moe_err *err)
{
    const struct moe_plan_options *o = w->o;
    const struct moe_plan_task *t = &w->task;
    int32_t node = t->ranks_per_node, copies = t->survive + 1;
    if (o->per_node != MOE_UNSET && o->per_node > t->ranks)
        return moe_fail(err, MOE_USAGE, "%d rank%s no whole number of nodes of %lld", (int)t->ranks,
                        t->ranks == 1 ? " is" : "s are", (long long)o->per_node);
    if (!w->from) return MOE_OK;
    const char *old = moe_stream_name(o->from);
    if (o->per_node == MOE_UNSET && node > 0 && node < t->ranks && t->ranks % node)
        return moe_fail(err, MOE_USAGE,
                        "%d ranks are no whole number of nodes of %d, which '%s' has (--ranks-per-node N "
                        "says how many ranks a node has now, 0: all are one)",
                        (int)t->ranks, (int)node, old);
    if (o->survive != MOE_UNSET || t->survive < 1) return MOE_OK;
    if (t->survive >= t->ranks)
        return moe_fail(err, MOE_USAGE,
                        "%d rank%s cannot survive the loss of %d, as '%s' does (--survive R says how many "
                        "may be lost now)",
                        (int)t->ranks, t->ranks == 1 ? "" : "s", (int)t->survive, old);
    if (t->slots < (int64_t)copies * w->stats->experts)
        return moe_fail(err, MOE_USAGE,
                        "%d slots are too few: '%s' has %d copies of each expert, and those of %d experts "
                        "need %lld (--survive R says how many ranks may be lost now, 0: one copy is enough)",
                        (int)t->slots, old, (int)copies, (int)w->stats->experts,
                        (long long)copies * w->stats->experts);
    return MOE_OK;
}

static enum moe_code prepare(struct work *w, struct moe_err *err)
{
    struct moe_plan_options *o = w->o;
    enum moe_stats_origin origin;
    double dense;
    MOE_TRY(moe_plan_options_check(o, err));
    MOE_TRY(moe_gpu_parse(&w->gpu, o->gpu, err));
    MOE_TRY(dense_bytes(o->dense_type, &dense, err));
    if (strcmp(o->kv_type, "fp8") && strcmp(o->kv_type, "bf16"))
        return moe_fail(err, MOE_USAGE, "unknown --kv-type '%s' (fp8 or bf16)", o->kv_type);
    MOE_TRY(moe_plan_open_model(&w->src, o->run.argv[0], err));
    moe_tell_superseded(&o->run, w->src);
    MOE_TRY(moe_weight_bytes_of(&w->bytes, w->src, o->expert_type, dense, err));
    MOE_TRY(moe_plan_gather_stats(&w->stats, &origin, w->src, o->stats.v, o->stats.n, moe_plan_windows(o),
                                  o->run.cancel, err));
    if (o->from)
        MOE_TRY(moe_plan_read(&w->from, o->from, o->ranks == MOE_UNSET ? 0 : (int32_t)o->ranks,
                              o->run.cancel, err));
    if (o->from) MOE_TRY(moe_plan_check_model(w->from, w->src, o->from, o->run.cancel, err));
    if (o->out && w->src->kind == MOE_CHECKPOINT)
        MOE_TRY(moe_source_identity(w->src, o->run.cancel, &w->model, err));
    else w->model = moe_source_origin(w->src, NULL);
    if (o->ranks == MOE_UNSET && !w->from) return moe_fail(err, MOE_USAGE, "for how many ranks? (--ranks N)");
    w->task = (struct moe_plan_task){ .ranks = o->ranks == MOE_UNSET ? w->from->ranks : (int32_t)o->ranks,
                                      .survive = (int32_t)o->survive,
                                      .ranks_per_node = (int32_t)o->per_node,
                                      .stats = w->stats,
                                      .from = w->from,
                                      .target = o->target,
                                      .progress = o->run.progress,
                                      .cancel = o->run.cancel };
    if (o->survive == MOE_UNSET) w->task.survive = w->from ? w->from->survive : 0;
    if (o->per_node == MOE_UNSET) w->task.ranks_per_node = w->from ? w->from->ranks_per_node : 0;
    if (w->task.ranks_per_node == 1) w->task.ranks_per_node = 0; /* copies are on different ranks anyway */
    MOE_TRY(choose_slots(w, err));
    MOE_TRY(check_inherited(w, err));
    MOE_TRY(moe_plan_task_check(&w->task, err));
    w->measured = origin != MOE_STATS_NONE;
    if (!w->measured && o->windows != MOE_UNSET)
        return moe_fail(err, MOE_USAGE, "--windows is for statistics, and there are none (--stats FILE)");
    if (!w->measured)
        moe_notice(&o->run,
                   "no statistics: every expert is taken to be as busy as the others (--stats FILE)");
    else tell_doubts(&o->run, w->stats);
    return MOE_OK;
}

/* ---- memory and time ---- */

static struct moe_step_task step_task(const struct work *w, int32_t ranks, int32_t slots, double imbalance,
                                      double active)
{
    const struct moe_plan_options *o = w->o;
    return (struct moe_step_task){ .c = &w->src->config,
                                   .w = &w->bytes,
                                   .gpu = w->gpu,
                                   .ranks = ranks,
                                   .slots = slots,
                                   .batch = o->batch,
                                   .context = o->context,
                                   .prefill = o->prefill,
                                   .kv_bytes = strcmp(o->kv_type, "fp8") ? 2 : 1,
                                   .reserve = (double)o->reserve,
                                   .imbalance = imbalance,
                                   .activated = active };
}

/* --compare 8,16,72 or 8x384,72x432; `list` NULL: only checked. */
static enum moe_code compare(const struct work *w, cJSON *list, struct moe_err *err)
{
    const struct moe_plan_options *o = w->o;
    for (const char *at = o->compare; *at; at += *at == ',') {
        char *end;
        struct moe_step s;
        long ranks = strtol(at, &end, 10), need = w->stats->experts * (w->task.survive + 1L),
             slots = ranks > 0 ? (need + ranks - 1) / ranks * ranks : 0;
        if (*end == 'x') slots = strtol(end + 1, &end, 10);
        if (ranks < 1 || ranks > MOE_PLAN_RANKS_MAX || (*end && *end != ','))
            return moe_fail(err, MOE_USAGE, "--compare wants ranks, or ranks x slots (8,16x400,72), not '%s'",
                            at);
        if (slots < need || slots > (long)w->stats->experts * ranks)
            return moe_fail(
                err, MOE_USAGE,
                "--compare %.*s: %ld slots are too %s, %d cop%s of %d experts on %ld ranks take %ld to %ld",
                (int)(end - at), at, slots, slots < need ? "few" : "many", (int)w->task.survive + 1,
                w->task.survive ? "ies" : "y", (int)w->stats->experts, ranks, need,
                (long)w->stats->experts * ranks);
        at = end;
        if (!list) continue;
        struct moe_step_task t = step_task(w, (int32_t)ranks, (int32_t)slots, 1, 0);
        moe_step_model(&s, &t);
        moe_report_step(w->text, &s, (int32_t)ranks, (int32_t)slots);
        moe_json_append(list, moe_step_json(&s, (int32_t)ranks, (int32_t)slots));
    }
    return MOE_OK;
}

/* Sentences of memory and speed; the table where several are compared, or all is to be seen. */
static enum moe_code report_model(const struct work *w, cJSON *json, double imbalance, double active,
                                  struct moe_err *err)
{
    struct moe_step s;
    struct moe_step_task t = step_task(w, w->task.ranks, w->task.slots, imbalance, active);
    moe_step_model(&s, &t);
    moe_json_add_str(json, "gpu", w->gpu.name);
    moe_json_add_str(json, "gpu_source", w->gpu.source);
    moe_json_add(json, "model", moe_step_json(&s, w->task.ranks, w->task.slots));
    moe_report_memory(w->text, &s, &t);
    moe_report_speed(w->text, &s, &t);
    if (w->proofs) moe_report_moves(w->text, &w->task, w->proofs, w->bytes.expert, w->o->from);
    if (w->proofs && w->o->layers) moe_report_layers(w->text, &w->task, w->proofs);
    if (!w->o->compare && !w->o->layers) return MOE_OK;
    moe_report_steps(w->text, &w->gpu, w->o->batch, w->o->context, w->o->prefill, w->o->kv_type);
    moe_report_step(w->text, &s, w->task.ranks, w->task.slots);
    if (!w->o->compare) return MOE_OK;
    MOE_TRY(compare(w, moe_json_add_array(json, "compare"), err));
    moe_text_add(w->text, "  The first row is this plan with its own balance; the others are taken to be "
                          "balanced perfectly.\n");
    return MOE_OK;
}

/* ---- report ---- */

/* What could fail only in the report, before any work. */
static enum moe_code check_report(const struct work *w, struct moe_err *err)
{
    const struct moe_plan_options *o = w->o;
    MOE_TRY(moe_plan_baselines_check(&o->baselines, &w->task, err));
    return o->compare ? compare(w, NULL, err) : MOE_OK;
}

static double bytes_per_rank(const struct work *w)
{
    double most = ceil((double)w->task.slots / w->task.ranks);
    return moe_weight_bytes_replicated(&w->bytes) + most * (double)w->bytes.moe_layers * w->bytes.expert;
}

/* What plan.json and --json both say. */
static void add_totals(const struct work *w, cJSON *j)
{
    const struct moe_plan_proofs *f = w->proofs;
    char hex[17];
    moe_json_add_f64(j, "gap_total", f->gap);
    moe_json_add_i64(j, "experts_lost_worst", f->lost_worst);
    moe_json_add_i64(j, "experts_lost_worst_node", f->lost_worst_node);
    moe_json_add_i64(j, "copies_min", f->copies_min);
    moe_json_add_f64(j, "bytes_per_rank", bytes_per_rank(w));
    moe_json_add_f64(j, "expert_bytes", w->bytes.expert);
    moe_json_add_f64(j, "replicated_bytes", moe_weight_bytes_replicated(&w->bytes));
    moe_json_add_i64(j, "slots_moved", f->moves);
    moe_json_add_f64(j, "bytes_moved", (double)f->moves * w->bytes.expert);
    moe_hex64(w->digest, hex);
    moe_json_add_str(j, "statistics", hex);
    moe_json_add_i64(j, "windows", w->stats->n_windows);
    moe_json_add_i64(j, "batch", w->o->batch);
    moe_json_add_str(j, "model", w->o->run.argv[0]);
    moe_identity_put(j, MOE_PLAN_ORIGIN, MOE_PLAN_WEIGHTS, &w->model);
}

/* For engines that run the layers for multi-token prediction, which a plan does not place. */
static void add_prediction_layers(cJSON *head, const struct moe_config *c)
{
    cJSON *list = moe_json_add_array(head, MOE_PLAN_PREDICTION);
    for (int64_t i = 0; list && i < c->num_nextn_predict_layers; i++)
        moe_json_append(list, cJSON_CreateNumber((double)(c->num_hidden_layers + i)));
}

static enum moe_code write_plan(const struct work *w, struct moe_err *err)
{
    cJSON *head = cJSON_CreateObject();
    if (head) add_totals(w, head);
    if (head && w->src->config.num_nextn_predict_layers) add_prediction_layers(head, &w->src->config);
    char *text = moe_json_whole(head) ? moe_plan_print(w->plan, w->proofs, head) : NULL;
    cJSON_Delete(head);
    enum moe_code code = text ? moe_newfile_write(w->o->out, text, strlen(text), w->o->force, err)
                              : moe_fail(err, MOE_NOMEM, "no memory for a plan's text");
    free(text);
    return code;
}

/* The plan's balance beside that of EPLB. */
static enum moe_code tell_balance(const struct work *w, double bound, struct moe_err *err)
{
    struct moe_baseline_sum eplb;
    bool placed = w->task.slots % w->task.ranks == 0;
    if (placed) MOE_TRY(moe_plan_baseline_sum(&eplb, MOE_BASE_EPLB, &w->task, bound, NULL, err));
    moe_report_balance(w->text, &w->task, w->proofs, placed ? &eplb : NULL, w->measured);
    return MOE_OK;
}

static enum moe_code report(const struct work *w, cJSON *json, struct moe_err *err)
{
    const struct moe_plan_proofs *f = w->proofs;
    const struct moe_strlist *asked = &w->o->baselines;
    double active = 0, bound = 0;
    if (!moe_json_add(json, "layers", moe_plan_proofs_json(w->plan, f)))
        return moe_fail(err, MOE_NOMEM, "no memory for a report");
    for (int32_t i = 0; i < f->n_layers; i++) active += f->layers[i].activated_max / f->n_layers;
    if (asked->n || !w->o->run.json) MOE_TRY(moe_plan_baseline_bound(&bound, &w->task, f, err));
    moe_text_add(w->text, "%d layer%s of %d experts in %d slots on %d rank%s.\n", (int)f->n_layers,
                 f->n_layers == 1 ? "" : "s", (int)w->stats->experts, (int)w->task.slots, (int)w->task.ranks,
                 w->task.ranks == 1 ? "" : "s");
    if (!w->o->run.json) MOE_TRY(tell_balance(w, bound, err));
    moe_report_losses(w->text, &w->task, f);
    MOE_TRY(moe_plan_baselines(asked, &w->task, f, bound, w->text, json, err));
    add_totals(w, json);
    cJSON_DeleteItemFromObjectCaseSensitive(json, "model");
    moe_json_add_i64(json, "ranks", w->task.ranks);
    moe_json_add_i64(json, "slots", w->task.slots);
    const struct {
        const char *key;
        double v;
    } sums[] = { { "load_max", f->load_max },
                 { "load_mean", f->load_mean },
                 { "bound", f->bound },
                 { "min_cut", f->split },
                 { "load_max_after_loss", f->load_max_after_loss },
                 { "seconds", w->seconds },
                 { "cpu_seconds", w->cpu } };
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        moe_json_add_f64(json, sums[i].key, sums[i].v);
    MOE_TRY(report_model(w, json, f->load_mean > 0 ? f->load_max / f->load_mean : 1, active, err));
    moe_json_add_i64(json, "peak_rss", (int64_t)moe_peak_rss());
    return MOE_OK;
}

static enum moe_code dry_run(const struct work *w, cJSON *json, struct moe_err *err)
{
    double bound = 0, mean = 0;
    for (int32_t i = 0; i < w->stats->n_layers; i++) {
        struct moe_bounds b;
        MOE_TRY(moe_plan_bounds(&b, &w->task, i, err));
        bound += b.best;
        mean += b.of[MOE_BOUND_MEAN];
    }
    moe_json_add_i64(json, "ranks", w->task.ranks);
    moe_json_add_i64(json, "slots", w->task.slots);
    moe_json_add_f64(json, "bytes_per_rank", bytes_per_rank(w));
    moe_json_add_f64(json, "bound", bound);
    moe_json_add_f64(json, "load_mean", mean);
    moe_text_add(w->text,
                 "%d slots on %d rank%s: no placement takes the fullest rank below %.4f times the mean "
                 "load.\n",
                 (int)w->task.slots, (int)w->task.ranks, w->task.ranks == 1 ? "" : "s",
                 mean > 0 ? bound / mean : 1);
    return report_model(w, json, mean > 0 ? bound / mean : 1, 0, err);
}

static enum moe_code plan(struct work *w, cJSON *json, struct moe_err *err)
{
    MOE_TRY(prepare(w, err));
    MOE_TRY(check_report(w, err));
    if (w->o->dry_run) return dry_run(w, json, err);
    MOE_TRY(moe_routing_digest(w->stats, &w->digest, err));
    double start = moe_now(), cpu = moe_cpu_seconds();
    MOE_TRY(moe_plan_search(&w->plan, &w->task, w->o->run.pool, err));
    w->seconds = moe_now() - start;
    w->cpu = moe_cpu_seconds() - cpu;
    MOE_TRY(moe_plan_prove(&w->proofs, w->plan, &w->task, w->o->batch, w->o->run.pool, err));
    MOE_TRY(report(w, json, err));
    /* the last time: whoever stops it later finds the plan written */
    MOE_TRY(moe_cancel_check(w->o->run.cancel, err));
    if (!w->o->out) return MOE_OK;
    MOE_TRY(write_plan(w, err));
    moe_notice(&w->o->run, "'%s' written: %.4f %% above the bound, planned in %.3f s", w->o->out,
               100 * w->proofs->gap, w->seconds);
    return MOE_OK;
}

static enum moe_code run_plan(struct moe_plan_options *o, cJSON *json, struct moe_err *err)
{
    struct moe_text text = { 0 };
    struct work w = { .o = o, .text = &text };
    char *said = NULL;
    enum moe_code code = plan(&w, json, err);
    if (code == MOE_OK) code = moe_text_finish(&text, &said, err);
    else free(text.v);
    if (code == MOE_OK && !o->run.json) moe_print_bytes(said, strlen(said));
    free(said);
    moe_plan_proofs_free(&w.proofs);
    moe_plan_free(&w.plan);
    moe_plan_free(&w.from);
    moe_routing_free(&w.stats);
    moe_source_close(&w.src);
    return code;
}

/* ---- verify, export, plot, stage ---- */

/* How many ranks a plan that does not say is for; 0: the command does not say either. */
static int64_t asked_ranks(const struct moe_plan_options *o) { return o->ranks == MOE_UNSET ? 0 : o->ranks; }

static enum moe_code print_text(struct moe_text *t, bool print, struct moe_err *err)
{
    char *text;
    MOE_TRY(moe_text_finish(t, &text, err));
    if (print) moe_print_bytes(text, strlen(text));
    free(text);
    return MOE_OK;
}

static enum moe_code tell_verified(const struct moe_plan_options *o, const struct moe_plan_checked *c,
                                   struct moe_err *err)
{
    struct moe_text text = { 0 };
    if (c->had_statistics && !c->same_statistics)
        moe_warn(&o->run,
                 "the plan was made from other statistics: its claims about loads were not compared");
    if (c->unproven) moe_warn(&o->run, "%d bound%s too large to be found again", (int)c->unproven,
                              c->unproven == 1 ? " claimed as exact is" : "s claimed as exact are");
    moe_plan_checked_text(&text, c);
    return print_text(&text, !o->run.json, err);
}

static enum moe_code run_verify(struct moe_plan_options *o, cJSON *json, struct moe_err *err)
{
    struct moe_plan_checked c;
    MOE_TRY(moe_plan_options_one(o, "verify", err));
    const struct moe_plan_check what = { .plan = o->run.argv[0],
                                         .stats = o->stats.v,
                                         .n_stats = o->stats.n,
                                         .windows = moe_plan_windows(o),
                                         .from = o->from,
                                         .progress = o->run.progress,
                                         .cancel = o->run.cancel };
    cJSON *problems = moe_json_add_array(json, "problems");
    enum moe_code code = moe_plan_check_file(&c, &what, problems, err);
    const cJSON *first = problems && code == MOE_VERIFY && !o->run.json ? problems->child : NULL;
    for (const cJSON *p = first; p; p = p->next) moe_print_line("%s", p->valuestring);
    MOE_TRY(code);
    moe_json_add_bool(json, "verified", true);
    moe_plan_checked_json(json, &c);
    return tell_verified(o, &c, err);
}

/* To -o FILE, else to standard output. */
static enum moe_code put_text(const struct moe_plan_options *o, const char *text, cJSON *json,
                              struct moe_err *err)
{
    MOE_TRY(moe_plan_options_output(o, err));
    moe_json_add_str(json, "output", o->out ? o->out : "-");
    if (o->out) return moe_newfile_write(o->out, text, strlen(text), o->force, err);
    if (o->run.json)
        return moe_fail(err, MOE_USAGE, "--json needs -o FILE here: standard output can hold one of the two");
    moe_print_bytes(text, strlen(text));
    return MOE_OK;
}

static void tell_prediction(const struct moe_plan_options *o, const struct moe_plan *p)
{
    if (!p->n_prediction) return;
    moe_notice(&o->run, strcmp(o->to, "sglang")
               ? "layer %d is for multi-token prediction: it has a row with its experts in order, which "
                 "TensorRT-LLM reads when it runs that layer"
               : "layer %d is for multi-token prediction and has no row: SGLang reads that of layer 0 for it",
               (int)p->prediction);
}

static enum moe_code export_plan(const struct moe_plan_options *o, struct moe_plan *p, enum moe_engine engine,
                                 char **text, struct moe_err *err)
{
    const char *name = moe_stream_name(o->run.argv[0]);
    MOE_TRY(moe_plan_check_ranks(p, asked_ranks(o), name, err));
    if (!o->model && p->foreign && engine != MOE_ENGINE_SGLANG)
        moe_notice(&o->run,
                   "'%s' does not say which layers have no experts: rows of such, as SGLang's files have "
                   "them, are taken along (--model MODEL leaves them out)",
                   name);
    if (o->model) MOE_TRY(moe_plan_fit_model(p, o->model, name, err));
    MOE_TRY(moe_plan_export(p, engine, text, err));
    tell_prediction(o, p);
    return MOE_OK;
}

static enum moe_code run_export(struct moe_plan_options *o, cJSON *json, struct moe_err *err)
{
    struct moe_plan *p;
    enum moe_engine engine;
    char *text = NULL;
    MOE_TRY(moe_plan_options_one(o, "export", err));
    if (!o->to || !moe_engine_find(o->to, &engine))
        return moe_fail(err, MOE_USAGE, "export wants --to sglang or --to tensorrt-llm");
    MOE_TRY(moe_plan_read(&p, o->run.argv[0], (int32_t)asked_ranks(o), o->run.cancel, err));
    enum moe_code code = export_plan(o, p, engine, &text, err);
    moe_plan_free(&p);
    if (code == MOE_OK) code = put_text(o, text, json, err);
    free(text);
    return code;
}

static enum moe_code run_plot(struct moe_plan_options *o, cJSON *json, struct moe_err *err)
{
    char *svg;
    MOE_TRY(moe_plan_options_one(o, "plot", err));
    const struct moe_plan_picture what = { .plan = o->run.argv[0],
                                           .stats = o->stats.v,
                                           .n_stats = o->stats.n,
                                           .windows = moe_plan_windows(o),
                                           .progress = o->run.progress,
                                           .cancel = o->run.cancel };
    MOE_TRY(moe_plan_draw(&what, &svg, err));
    enum moe_code code = put_text(o, svg, json, err);
    free(svg);
    return code;
}

static enum moe_code stage(const struct moe_plan_options *o, struct moe_staging *s, int32_t first,
                           int32_t last, uint64_t *bytes, struct moe_err *err)
{
    if (strcmp(o->how, "link") && strcmp(o->how, "copy"))
        return moe_fail(err, MOE_USAGE, "unknown --how '%s' (copy or link)", o->how);
    if (!o->out) return moe_fail(err, MOE_USAGE, "where to? (-o DIR)");
    if (o->check) {
        MOE_TRY(moe_staging_open_staged(s, o->out, err));
        return moe_staging_check(s, first, last, bytes, err);
    }
    MOE_TRY(moe_output_dir_check(&o->run, o->out, err));
    MOE_TRY(moe_staging_open(s, o->model, err));
    return moe_staging_put(s, first, last, !strcmp(o->how, "link"), o->out, o->force, bytes, err);
}

static void tell_staged(const struct moe_plan_options *o, int32_t first, int32_t last, uint64_t bytes)
{
    char which[32], size[16];
    if (first == last) snprintf(which, sizeof which, "rank %d", (int)first);
    else snprintf(which, sizeof which, "ranks %d to %d", (int)first, (int)last);
    moe_human_bytes(bytes, size);
    if (o->check)
        moe_notice(&o->run, "'%s' holds what %s need%s: %s match their checksums", o->out, which,
                   first == last ? "s" : "", size);
    else moe_notice(&o->run, "'%s' written for %s: %s copied", o->out, which, size);
}

static enum moe_code run_stage(struct moe_plan_options *o, cJSON *json, struct moe_err *err)
{
    struct moe_staging s;
    int32_t first = 0, last = 0;
    uint64_t bytes = 0;
    MOE_TRY(moe_plan_options_one(o, "stage", err));
    enum moe_code code = moe_staging_read(&s, o->run.argv[0], asked_ranks(o), o->run.cancel, err);
    if (code == MOE_OK) code = moe_rank_range_parse(o->rank, s.plan, &first, &last, err);
    if (code == MOE_OK) code = stage(o, &s, first, last, &bytes, err);
    moe_staging_close(&s);
    MOE_TRY(code);
    tell_staged(o, first, last, bytes);
    moe_json_add_str(json, "output", o->out);
    moe_json_add_i64(json, "bytes", (int64_t)bytes);
    return MOE_OK;
}

static enum moe_code run(struct moe_plan_options *o, cJSON *json, struct moe_err *err)
{
    static const struct {
        const char *word;
        enum moe_code (*run)(struct moe_plan_options *, cJSON *, struct moe_err *);
    } all[] = {
        { "plan", run_plan }, { "verify", run_verify }, { "export", run_export },
        { "plot", run_plot }, { "stage", run_stage },
    };
    const char *word = o->run.argc ? o->run.argv[0] : "";
    if (!o->run.argc)
        return moe_fail(err, MOE_USAGE, "want a model, or verify, export, plot or stage and a plan");
    const char *near = moe_exists(word) == MOE_ABSENT ? moe_opt_near_verb(o->run.tool, word) : NULL;
    if (near) return moe_fail(err, MOE_USAGE, "unknown verb '%s' (did you mean '%s'?)", word, near);
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(word, all[i].word)) continue;
        o->run.argv++; /* what is left are paths */
        o->run.argc--;
        return all[i].run(o, json, err);
    }
    return run_plan(o, json, err);
}

static int tool_main(int argc, char **argv)
{
    struct moe_plan_options *o = &moe_plan_asked;
    if (moe_run_begin(&o->run, &moe_plan_tool, argc, argv)) return o->run.exit;
    cJSON *json = cJSON_CreateObject();
    enum moe_code code = json ? run(o, json, &o->run.err) : moe_fail(&o->run.err, MOE_NOMEM, "no memory");
    return moe_run_end(&o->run, code, json);
}

int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
