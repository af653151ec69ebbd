/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-make.h"

#include "base/io.h"
#include "base/progress.h"
#include "base/show.h"
#include "base/stream.h"

#include <math.h>

/* ---- the request ---- */

int32_t moe_plan_windows(int64_t asked)
{
    return asked == MOE_PLAN_UNSET ? MOE_PLAN_WINDOWS : (int32_t)asked;
}

static enum moe_code in_range(const char *name, int64_t v, int64_t min, int64_t max, struct moe_err *err)
{
    if (v == MOE_PLAN_UNSET || (v >= min && v <= max)) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "--%s %lld: want %lld to %lld", name, (long long)v, (long long)min,
                    (long long)max);
}

enum moe_code moe_plan_request_check(const struct moe_plan_request *q, struct moe_err *err)
{
    double dense;
    MOE_TRY(in_range("ranks", q->ranks, 1, MOE_PLAN_RANKS_MAX, err));
    MOE_TRY(in_range("slots", q->slots, 1, (int64_t)1 << 24, err));
    MOE_TRY(in_range("ranks-per-node", q->ranks_per_node, 0, MOE_PLAN_RANKS_MAX, err));
    MOE_TRY(in_range("survive", q->survive, 0, MOE_PLAN_RANKS_MAX - 1, err));
    MOE_TRY(in_range("windows", q->windows, 1, MOE_ROUTING_WINDOWS_MAX, err));
    if (q->slots != MOE_PLAN_UNSET && q->memory != MOE_PLAN_UNSET)
        return moe_fail(err, MOE_USAGE, "--slots and --memory-per-rank exclude each other");
    if (!(q->target >= 0 && q->target < 100))
        return moe_fail(err, MOE_USAGE, "--target %g: want a share of 0 or more, 0.02 is 2 %%", q->target);
    return moe_dense_bytes(q->dense_type, &dense, err);
}

/* ---- ranks and slots ---- */

/* *slots becomes the number of slots that --memory-per-rank allows.  need: one slot for each copy that every
 * expert must have. */
static enum moe_code slots_in_memory(const struct moe_planning *p, int64_t need, int64_t *slots,
                                     struct moe_err *err)
{
    const struct moe_plan_task *t = &p->task;
    int64_t experts = p->stats->experts, ranks = t->ranks, memory = p->ask->memory;
    double each = p->bytes.expert * (double)p->bytes.moe_layers;
    double fixed = moe_weight_bytes_replicated(&p->bytes);
    double room = floor(((double)memory - fixed) / each);
    char a[16], b[16];
    if (room < 0) room = 0;
    *slots = room * (double)ranks > (double)(experts * ranks) ? experts * ranks : (int64_t)room * ranks;
    if (*slots >= need) return MOE_OK;
    int64_t least = (need + ranks - 1) / ranks;
    return moe_fail(err, MOE_USAGE,
                    "--memory-per-rank %s is too little: so a rank holds %lld expert%s of each layer, and %d "
                    "cop%s of %lld experts on %lld ranks need %lld, which take %s",
                    moe_human_bytes((uint64_t)memory, a), (long long)room, room >= 2 || room < 1 ? "s" : "",
                    (int)t->survive + 1, t->survive ? "ies" : "y", (long long)experts, (long long)ranks,
                    (long long)least, moe_human_bytes((uint64_t)(fixed + each * (double)least), b));
}

static enum moe_code choose_slots(struct moe_planning *p, struct moe_err *err)
{
    const struct moe_plan_request *q = p->ask;
    int64_t need = (int64_t)p->stats->experts * (p->task.survive + 1), ranks = p->task.ranks;
    int64_t slots = q->slots;
    if (q->memory != MOE_PLAN_UNSET) MOE_TRY(slots_in_memory(p, need, &slots, err));
    else if (slots == MOE_PLAN_UNSET) slots = p->from ? p->from->layers[0].slots : 0;
    if (slots < 1 || (q->slots == MOE_PLAN_UNSET && slots < need))
        slots = (need + ranks - 1) / ranks * ranks;
    if (slots > INT32_MAX) return moe_fail(err, MOE_USAGE, "%lld slots are too many", (long long)slots);
    p->task.slots = (int32_t)slots;
    return MOE_OK;
}

/* Refuses a number of copies that comes from the old plan and is not possible now. */
static enum moe_code check_inherited_copies(const struct moe_planning *p, const char *old,
                                            struct moe_err *err)
{
    const struct moe_plan_task *t = &p->task;
    int32_t copies = t->survive + 1;
    if (t->survive >= t->ranks)
        return moe_fail(err, MOE_USAGE,
                        "%d rank%s cannot survive the loss of %d, as '%s' does (--survive R says how many "
                        "may be lost now)",
                        (int)t->ranks, t->ranks == 1 ? "" : "s", (int)t->survive, old);
    if (t->slots >= (int64_t)copies * p->stats->experts) return MOE_OK;
    return moe_fail(err, MOE_USAGE,
                    "%d slots are too few: '%s' has %d copies of each expert, and those of %d experts need "
                    "%lld (--survive R says how many ranks may be lost now, 0: one copy is enough)",
                    (int)t->slots, old, (int)copies, (int)p->stats->experts,
                    (long long)copies * p->stats->experts);
}

/* What the request does not say is taken from the old plan.  Where that is not possible now, the message says
 * that it comes from the old plan. */
static enum moe_code check_inherited(const struct moe_planning *p, struct moe_err *err)
{
    const struct moe_plan_request *q = p->ask;
    const struct moe_plan_task *t = &p->task;
    int32_t node = t->ranks_per_node;
    if (q->ranks_per_node != MOE_PLAN_UNSET && q->ranks_per_node > t->ranks)
        return moe_fail(err, MOE_USAGE, "%d rank%s no whole number of nodes of %lld", (int)t->ranks,
                        t->ranks == 1 ? " is" : "s are", (long long)q->ranks_per_node);
    if (!p->from) return MOE_OK;
    const char *old = moe_stream_name(q->from);
    if (q->ranks_per_node == MOE_PLAN_UNSET && node > 0 && node < t->ranks && t->ranks % node)
        return moe_fail(err, MOE_USAGE,
                        "%d ranks are no whole number of nodes of %d, which '%s' has (--ranks-per-node N "
                        "says how many ranks a node has now, 0: all are one)",
                        (int)t->ranks, (int)node, old);
    return q->survive == MOE_PLAN_UNSET && t->survive > 0 ? check_inherited_copies(p, old, err) : MOE_OK;
}

/* Sets the task from the request, and from the old plan what the request does not say. */
static void set_task(struct moe_planning *p)
{
    const struct moe_plan_request *q = p->ask;
    const struct moe_plan *from = p->from;
    p->task = (struct moe_plan_task){ .ranks = (int32_t)q->ranks,
                                      .survive = (int32_t)q->survive,
                                      .ranks_per_node = (int32_t)q->ranks_per_node,
                                      .stats = p->stats,
                                      .from = from,
                                      .target = q->target,
                                      .progress = q->progress,
                                      .cancel = q->cancel };
    if (q->ranks == MOE_PLAN_UNSET) p->task.ranks = from->ranks;
    if (q->survive == MOE_PLAN_UNSET) p->task.survive = from ? from->survive : 0;
    if (q->ranks_per_node == MOE_PLAN_UNSET) p->task.ranks_per_node = from ? from->ranks_per_node : 0;
    if (p->task.ranks_per_node == 1) p->task.ranks_per_node = 0; /* copies are on different ranks anyway */
}

/* ---- planning ---- */

static enum moe_code read_inputs(struct moe_planning *p, struct moe_err *err)
{
    const struct moe_plan_request *q = p->ask;
    double dense;
    MOE_TRY(moe_dense_bytes(q->dense_type, &dense, err));
    MOE_TRY(moe_weight_bytes_of(&p->bytes, p->src, q->expert_type, dense, err));
    MOE_TRY(moe_plan_gather_stats(&p->stats, &p->origin, p->src, q->stats, q->n_stats,
                                  moe_plan_windows(q->windows), q->cancel, err));
    if (q->from) {
        int32_t ranks = q->ranks == MOE_PLAN_UNSET ? 0 : (int32_t)q->ranks;
        MOE_TRY(moe_plan_read(&p->from, q->from, ranks, q->cancel, err));
        MOE_TRY(moe_plan_check_model(p->from, p->src, q->from, q->cancel, err));
    }
    if (q->written && p->src->kind == MOE_CHECKPOINT)
        return moe_source_identity(p->src, q->cancel, &p->model, err);
    p->model = moe_source_origin(p->src, NULL);
    return MOE_OK;
}

enum moe_code moe_planning_open(struct moe_planning *p, const struct moe_source *src,
                                const struct moe_plan_request *ask, struct moe_err *err)
{
    *p = (struct moe_planning){ .ask = ask, .src = src };
    MOE_TRY(moe_plan_request_check(ask, err));
    MOE_TRY(read_inputs(p, err));
    if (ask->ranks == MOE_PLAN_UNSET && !p->from)
        return moe_fail(err, MOE_USAGE, "for how many ranks? (--ranks N)");
    set_task(p);
    MOE_TRY(choose_slots(p, err));
    MOE_TRY(check_inherited(p, err));
    MOE_TRY(moe_plan_task_check(&p->task, err));
    if (p->origin == MOE_STATS_NONE && ask->windows != MOE_PLAN_UNSET)
        return moe_fail(err, MOE_USAGE, "--windows is for statistics, and there are none (--stats FILE)");
    return MOE_OK;
}

enum moe_code moe_planning_bounds(const struct moe_planning *p, double *bound, double *mean,
                                  struct moe_err *err)
{
    *bound = *mean = 0;
    for (int32_t i = 0; i < p->stats->n_layers; i++) {
        struct moe_bounds b;
        MOE_TRY(moe_plan_bounds(&b, &p->task, i, err));
        *bound += b.best;
        *mean += b.of[MOE_BOUND_MEAN];
    }
    return MOE_OK;
}

enum moe_code moe_planning_search(struct moe_planning *p, int64_t batch, struct moe_pool *pool,
                                  struct moe_err *err)
{
    MOE_TRY(moe_routing_digest(p->stats, &p->digest, err));
    double start = moe_now(), cpu = moe_cpu_seconds();
    MOE_TRY(moe_plan_search(&p->plan, &p->task, pool, err));
    p->seconds = moe_now() - start;
    p->cpu = moe_cpu_seconds() - cpu;
    return moe_plan_prove(&p->proofs, p->plan, &p->task, batch, pool, err);
}

void moe_planning_close(struct moe_planning *p)
{
    moe_plan_proofs_free(&p->proofs);
    moe_plan_free(&p->plan);
    moe_plan_free(&p->from);
    moe_routing_free(&p->stats);
}

double moe_planning_bytes_per_rank(const struct moe_planning *p)
{
    double most = ceil((double)p->task.slots / p->task.ranks);
    return moe_weight_bytes_replicated(&p->bytes) + most * (double)p->bytes.moe_layers * p->bytes.expert;
}
