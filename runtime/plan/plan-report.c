/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-report.h"

#include "base/buffer.h"
#include "base/show.h"

#include <stdio.h>
#include <string.h>

static const char *const LEGEND =
    "    load max       tokens of the statistics that the fullest rank computes; / mean: as a multiple of "
    "what a rank computes on average\n"
    "    bound, gap     which proof of the least possible load max is the strongest here, and how far above "
    "it this layer is\n"
    "    min-cut        load of the fullest rank / mean when every batch is shared out over the copies as "
    "well as can be\n"
    "    after loss     the same with the worst rank dead; lost: experts of the layer that have no copy "
    "then\n"
    "    active         how many slots of the worst rank are expected to get a token in a step (--batch)\n"
    "    noise          load max / mean to expect in one step even of a perfect placement, because tokens "
    "choose by chance\n"
    "    moved          slots that hold an expert which was not on that rank in the old plan\n";

static void report_layers(struct moe_buffer *t, const struct moe_plan_task *task,
                          const struct moe_plan_proofs *f)
{
    double total_mean = f->load_mean > 0 ? f->load_mean : 1;
    moe_buffer_printf(t, "\n  layer    load max   / mean  bound           gap %%  min-cut/mean  after "
                         "loss/mean  lost  active  noise  moved\n");
    for (int32_t i = 0; i < f->n_layers; i++) {
        const struct moe_plan_proof *p = &f->layers[i];
        double mean = p->load_mean > 0 ? p->load_mean : 1;
        moe_buffer_printf(t, "  %5d %11.6g %8.4f  %-10s %9.4f %13.4f %16.4f %5d %7.2f %6.3f %6d\n",
                          (int)p->layer, p->load_max, p->load_max / mean, moe_bound_name(p->bounds.kind),
                          100 * p->gap, p->split / mean, p->load_max_after_loss / mean, (int)p->lost_worst,
                          p->activated_max, p->noise_floor, (int)p->moves);
    }
    moe_buffer_printf(t, "  total %11.6g %8.4f  %-10s %9.4f %13.4f %16.4f %5d %22lld\n%s", f->load_max,
                      f->load_max / total_mean, "", 100 * f->gap, f->split / total_mean,
                      f->load_max_after_loss / total_mean, (int)f->lost_worst,
                      (long long)(task->from ? f->moves : 0), LEGEND);
}

/* ---- sentences ---- */

/* The ending of the noun behind a number that is printed rounded to a whole one. */
static const char *plural(double n) { return n >= 0.5 && n < 1.5 ? "" : "s"; }

/* Adds the comparison with EPLB.  EPLB does not know --survive: with that option it has an easier task, and
 * is compared with the bound of that task, which is lower. */
static void report_eplb(struct moe_buffer *t, const struct moe_plan_task *task,
                        const struct moe_plan_proofs *f, const struct moe_baseline_sum *eplb)
{
    double load = eplb->load_max;
    moe_buffer_printf(t, "; by DeepSeek's EPLB");
    if (task->survive && eplb->lost)
        moe_buffer_printf(t,
                          ", which knows nothing of --survive and loses up to %d expert%s of a layer with a "
                          "rank,",
                          (int)eplb->lost, eplb->lost == 1 ? "" : "s");
    else if (task->survive) moe_buffer_printf(t, ", which knows nothing of --survive,");
    moe_buffer_printf(t,
                      " it would compute %.0f, %.3f %% above the bound%s, so that a layer's experts take "
                      "%.2f %% %s here%s.\n",
                      load / f->n_layers, 100 * eplb->gap, task->survive ? " without --survive" : "",
                      100 * (f->load_max > load ? f->load_max / load - 1 : 1 - f->load_max / load),
                      f->load_max > load ? "more time" : "less time",
                      task->from && f->load_max > load ? " (a smaller --target moves more slots and comes "
                                                         "closer; a plan without --from, closest)"
                                                       : "");
}

/* eplb: EPLB's placement; NULL: it has none.  measured: there are statistics; otherwise all experts are taken
 * to be equally busy. */
static void report_balance(struct moe_buffer *t, const struct moe_plan_task *task,
                           const struct moe_plan_proofs *f, const struct moe_baseline_sum *eplb,
                           bool measured)
{
    double n = f->n_layers;
    if (!(f->load_mean > 0)) {
        moe_buffer_printf(t, "Balance is unknown, because the statistics hold no token: experts are "
                             "spread evenly.\n");
        return;
    }
    if (!measured)
        moe_buffer_printf(t, "Balance, as if all experts were equally busy, which real ones are not "
                             "(--stats FILE): ");
    else if (task->stats->n_windows > 1)
        moe_buffer_printf(t, "Balance in the worst of %d windows of statistics: ",
                          (int)task->stats->n_windows);
    else moe_buffer_printf(t, "Balance: ");
    moe_buffer_printf(t,
                      "the fullest rank, for which all others wait, computes %.0f token%s a layer, %.2f %% "
                      "more than the mean and %.3f %% (%.0f token%s) more than the bound that no placement ",
                      f->load_max / n, plural(f->load_max / n), 100 * (f->load_max / f->load_mean - 1),
                      100 * f->gap, (f->load_max - f->bound) / n, plural((f->load_max - f->bound) / n));
    if (task->survive)
        moe_buffer_printf(t, "which survives the loss of %d rank%s ", (int)task->survive,
                          task->survive == 1 ? "" : "s");
    moe_buffer_printf(t, "can beat");
    if (!eplb)
        moe_buffer_printf(t, "; DeepSeek's EPLB has no placement of %d slots on %d ranks.\n",
                          (int)task->slots, (int)task->ranks);
    else report_eplb(t, task, f, eplb);
}

/* Adds what is lost with a node, and why. */
static void report_nodes(struct moe_buffer *t, const struct moe_plan_task *task,
                         const struct moe_plan_proofs *f)
{
    int32_t node = task->ranks_per_node, lost = f->lost_worst_node, more = task->slots % task->ranks;
    int64_t max_slots = (int64_t)node * (task->slots / task->ranks) + (more < node ? more : node);
    if (!lost) {
        moe_buffer_printf(t, "; no expert is lost with any node of %d rank%s", (int)node,
                          node == 1 ? "" : "s");
        return;
    }
    moe_buffer_printf(t, "; with the worst node of %d rank%s %d expert%s of a layer %s lost", (int)node,
                      node == 1 ? "" : "s", (int)lost, lost == 1 ? "" : "s", lost == 1 ? "is" : "are");
    if (f->copies_min < 2) moe_buffer_printf(t, ", since not all have two copies (--survive 1)");
    else if (task->slots - max_slots < task->stats->experts)
        moe_buffer_printf(t, ", since the other nodes have %lld slots for %d experts",
                          (long long)(task->slots - max_slots), (int)task->stats->experts);
}

static void report_losses(struct moe_buffer *t, const struct moe_plan_task *task,
                          const struct moe_plan_proofs *f)
{
    double after = f->load_mean > 0 ? f->load_max_after_loss / f->load_mean : 1;
    moe_buffer_printf(t, "Losses: ");
    if (task->ranks < 2) moe_buffer_printf(t, "there is one rank, and without it nothing is left");
    else if (f->lost_worst)
        moe_buffer_printf(t,
                          "when one rank dies, up to %d expert%s of a layer %s lost with it (--survive 1 "
                          "keeps a copy of each elsewhere, in %lld slots or more)",
                          (int)f->lost_worst, f->lost_worst == 1 ? "" : "s",
                          f->lost_worst == 1 ? "is" : "are", 2LL * task->stats->experts);
    else
        moe_buffer_printf(t,
                          "no expert is lost with any %d rank%s, since each has at least %d copies; with one "
                          "rank dead, and tokens shared out best over the copies, the fullest computes %.2f "
                          "times today's mean",
                          (int)f->copies_min - 1, f->copies_min == 2 ? "" : "s", (int)f->copies_min, after);
    if (task->ranks_per_node > 0 && task->ranks_per_node < task->ranks) report_nodes(t, task, f);
    moe_buffer_printf(t, ".\n");
}

static void report_memory(struct moe_buffer *t, const struct moe_step *s, const struct moe_step_task *task)
{
    char a[16], b[16], c[16], d[16], e[16], g[16];
    double want = (double)task->batch * (double)task->context; /* tokens in the cache */
    double need = s->cache_tokens > 0 ? s->cache * want / s->cache_tokens : 0, left = s->cache - need;
    moe_human_bytes((uint64_t)(s->routed + s->replicated), a);
    moe_human_bytes((uint64_t)s->routed, b);
    moe_human_bytes((uint64_t)s->replicated, c);
    moe_human_bytes((uint64_t)task->gpu.memory, d);
    moe_human_bytes((uint64_t)task->reserve, e);
    moe_buffer_printf(t,
                      "Memory: a rank holds %s of weights (%s of routed experts, %s of everything else), and "
                      "of the %s of %s %s are set aside (--reserve)",
                      a, b, c, d, task->gpu.name, e);
    if (s->cache < 0) {
        moe_buffer_printf(t,
                          ": that is %s too much, and the model does not fit (more ranks, fewer slots or "
                          "another --expert-type).\n",
                          moe_human_bytes((uint64_t)-s->cache, g));
        return;
    }
    moe_buffer_printf(t, "; %s are left for the cache", moe_human_bytes((uint64_t)s->cache, g));
    if (left >= 0)
        moe_buffer_printf(t, ", of which %lld sequence%s of %lld token%s take%s %s and %s stay free.\n",
                          (long long)task->batch, moe_plural(task->batch), (long long)task->context,
                          moe_plural(task->context), task->batch == 1 ? "s" : "",
                          moe_human_bytes((uint64_t)need, a), moe_human_bytes((uint64_t)left, b));
    else
        moe_buffer_printf(t,
                          ", but %lld sequence%s of %lld token%s need%s %s: %.0f fit (--batch, --context).\n",
                          (long long)task->batch, moe_plural(task->batch), (long long)task->context,
                          moe_plural(task->context), task->batch == 1 ? "s" : "",
                          moe_human_bytes((uint64_t)need, a), s->sequences);
}

static void report_speed(struct moe_buffer *t, const struct moe_step *s, const struct moe_step_task *task)
{
    if (s->cache < 0) {
        moe_buffer_printf(t, "Speed: none is modelled, since the model does not fit.\n");
        return;
    }
    moe_buffer_printf(t,
                      "Speed, modelled and not measured: a rank decodes %.0f tokens/s (%lld sequence%s at "
                      "%.1f tokens/s each, %.1f ms a step), %d rank%s %.0f tokens/s; a rank prefills %.0f "
                      "tokens/s.\n",
                      s->tokens_per_second, (long long)task->batch, moe_plural(task->batch),
                      s->tokens_per_second_user, 1e3 * s->decode, (int)task->ranks, moe_plural(task->ranks),
                      s->tokens_per_second * task->ranks, s->prefill_tokens_per_second);
}

/* from: the path of the old plan, which may contain any characters. */
static void report_moves(struct moe_buffer *t, const struct moe_plan_task *task,
                         const struct moe_plan_proofs *f, double expert_bytes, const char *from)
{
    char a[16], b[16];
    double all = (double)f->n_layers * task->slots, bytes = (double)f->moves * expert_bytes;
    if (!task->from) {
        moe_buffer_printf(t, "Moves: none are told, because this plan starts from no other (--from PLAN "
                             "keeps most slots of one).\n");
        return;
    }
    int32_t beyond = 0;
    for (int32_t i = 0; i < f->n_layers; i++) beyond += f->layers[i].gap > task->target + 1e-9;
    char name[256];
    snprintf(name, sizeof name, strcmp(from, "-") ? "'%s'" : "the plan of standard input", from);
    moe_show(name, sizeof name);
    moe_buffer_printf(t,
                      "Moves: %lld of %.0f slots (%.1f %%) change against %s: %s to copy, %s a rank on "
                      "average",
                      (long long)f->moves, all, 100 * (double)f->moves / all, name,
                      moe_human_bytes((uint64_t)bytes, a),
                      moe_human_bytes((uint64_t)(bytes / task->ranks), b));
    if (beyond)
        moe_buffer_printf(t,
                          "; %d layer%s above --target: planning anew does not reach it, and was done only "
                          "where it halves the excess (a plan without --from comes closest)",
                          (int)beyond, beyond == 1 ? " stays" : "s stay");
    moe_buffer_printf(t, ".\n");
}

/* ---- the model's table ---- */

static void report_steps(struct moe_buffer *t, const struct moe_gpu *g, int64_t batch, int64_t context,
                         int64_t prefill, const char *kv_type)
{
    moe_buffer_printf(t,
                      "\nModel of memory and time on %s (not a measurement): %lld sequences a rank, %lld "
                      "tokens of context, %s cache; prefill of %lld tokens\n",
                      g->name, (long long)batch, (long long)context, kv_type, (long long)prefill);
    moe_buffer_printf(t, "              |   GB of weights    | left for cache  |        us a layer of a "
                         "decode step     |       decode                    | prefill\n");
    moe_buffer_printf(t, "  ranks slots | experts     others | cache GB   seqs |  moe attn shared cache "
                         "dispatch combine |  ms/step  tok/s/rank tok/s/user | tok/s/rank\n");
}

static void report_step(struct moe_buffer *t, const struct moe_step *s, int32_t ranks, int32_t slots)
{
    moe_buffer_printf(t,
                      "  %5d %5d | %7.1f %10.1f | %8.1f %6.0f | %4.0f %4.0f %6.0f %5.0f %8.0f %7.0f | %8.2f "
                      "%11.0f %10.1f | %10.0f%s\n",
                      (int)ranks, (int)slots, s->routed / 1e9, s->replicated / 1e9, s->cache / 1e9,
                      s->sequences, s->moe * 1e6, s->attention * 1e6, s->shared * 1e6, s->kv * 1e6,
                      s->dispatch * 1e6, s->combine * 1e6, s->decode * 1e3, s->tokens_per_second,
                      s->tokens_per_second_user, s->prefill_tokens_per_second,
                      s->cache < 0 ? "  does not fit" : "");
}

static void report_baseline(struct moe_buffer *t, const struct moe_assessment *a, enum moe_baseline kind)
{
    const struct moe_baseline_sum *s = &a->baseline[kind];
    double mean = a->p->proofs->load_mean;
    int32_t survive = a->p->task.survive;
    moe_buffer_printf(t,
                      "Placed as %s: load %.6g, %.4f x mean, %.4f %% above the bound%s; "
                      "%lld slot%s rank has already.\n",
                      moe_baseline_name(kind), s->load_max, mean > 0 ? s->load_max / mean : 1, 100 * s->gap,
                      survive ? " without --survive" : "", (long long)s->duplicates,
                      s->duplicates == 1 ? " holds an expert that its" : "s hold an expert that their");
    if (survive && s->lost)
        moe_buffer_printf(t,
                          "    It knows nothing of --survive: up to %d expert%s of a layer would be lost "
                          "with a rank.\n",
                          (int)s->lost, s->lost == 1 ? "" : "s");
}

/* Adds the table of the model, for this plan and for the sizes to compare with. */
static void report_sizes(struct moe_buffer *t, const struct moe_assessment *a)
{
    struct moe_step s;
    report_steps(t, a->gpu, a->with->batch, a->with->context, a->with->prefill, a->with->kv_type);
    report_step(t, &a->step, a->p->task.ranks, a->p->task.slots);
    if (!a->sizes->v) return;
    for (int32_t i = 0; i < a->sizes->n; i++) {
        moe_assess_size(a, a->sizes->v[i], &s);
        report_step(t, &s, a->sizes->v[i].ranks, a->sizes->v[i].slots);
    }
    moe_buffer_printf(t, "  The first row is this plan with its own balance; the others are taken to be "
                         "balanced perfectly.\n");
}

/* Adds what is known without a placement: what no placement can beat. */
static void report_bounds(struct moe_buffer *t, const struct moe_assessment *a)
{
    const struct moe_plan_task *task = &a->p->task;
    moe_buffer_printf(t,
                      "%d slots on %d rank%s: no placement takes the fullest rank below %.4f times the mean "
                      "load.\n",
                      (int)task->slots, (int)task->ranks, task->ranks == 1 ? "" : "s",
                      a->mean > 0 ? a->bound / a->mean : 1);
}

static void report_plan(struct moe_buffer *t, const struct moe_assessment *a)
{
    const struct moe_planning *p = a->p;
    const struct moe_plan_proofs *f = p->proofs;
    bool placed = a->placed & 1u << MOE_BASE_EPLB;
    moe_buffer_printf(t, "%d layer%s of %d experts in %d slots on %d rank%s.\n", (int)f->n_layers,
                      f->n_layers == 1 ? "" : "s", (int)p->stats->experts, (int)p->task.slots,
                      (int)p->task.ranks, p->task.ranks == 1 ? "" : "s");
    report_balance(t, &p->task, f, placed ? &a->baseline[MOE_BASE_EPLB] : NULL, p->origin != MOE_STATS_NONE);
    report_losses(t, &p->task, f);
    for (int k = 0; k < MOE_BASE_COUNT; k++)
        if (a->asked & 1u << k) report_baseline(t, a, (enum moe_baseline)k);
}

void moe_assessment_text(struct moe_buffer *t, const struct moe_assessment *a, bool layers)
{
    const struct moe_planning *p = a->p;
    if (p->plan) report_plan(t, a);
    else report_bounds(t, a);
    report_memory(t, &a->step, &a->task);
    report_speed(t, &a->step, &a->task);
    if (p->plan) report_moves(t, &p->task, p->proofs, p->bytes.expert, p->ask->from);
    if (p->plan && layers) report_layers(t, &p->task, p->proofs);
    if (a->sizes->v || layers) report_sizes(t, a);
}
