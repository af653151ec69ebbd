/* SPDX-License-Identifier: Apache-2.0 */
/* Draws the file of a plan, with the loads that another placement would have for the same statistics. */
#include "base/hash.h"
#include "runtime/plan/plan-baselines.h"
#include "runtime/plan/plan-check.h"
#include "runtime/plan/plan-out.h"

#include <stdlib.h>
#include <string.h>

/* MOE_MISMATCH unless the plan has the digest of these statistics, as it does if it was made from them. */
static enum moe_code same_stats(const struct moe_plan_text *plan, const struct moe_routing *stats,
                                struct moe_err *err)
{
    const cJSON *said = moe_json_get(plan->root, "statistics");
    uint64_t digest;
    char hex[17];
    MOE_TRY(moe_routing_digest(stats, &digest, err));
    moe_hex64(digest, hex);
    if (cJSON_IsString(said) && !strcmp(said->valuestring, hex)) return MOE_OK;
    return moe_fail_at(err, MOE_MISMATCH, plan->path, NULL,
                       "was made from other statistics than these (give the same --stats and --windows)");
}

/* Computes the loads of EPLB's placement for these statistics, or, where EPLB has none, of experts in order.
 * The caller frees *most, also after a failure. */
static enum moe_code place(const struct moe_plan *p, const struct moe_routing *stats,
                           const struct moe_plan_picture *q, struct moe_plot_beside *b, double **most,
                           struct moe_err *err)
{
    struct moe_baseline_sum sum;
    struct moe_plan_task t = { .ranks = p->ranks,
                               .slots = p->layers[0].slots,
                               .survive = p->survive,
                               .ranks_per_node = p->ranks_per_node,
                               .stats = stats,
                               .progress = q->progress,
                               .cancel = q->cancel };
    bool even = t.slots % t.ranks == 0;
    *most = calloc((size_t)p->n_layers, sizeof **most);
    if (!*most) return moe_fail(err, MOE_NOMEM, "no memory for baselines");
    *b = (struct moe_plot_beside){ even ? "EPLB" : "experts in order", *most };
    return moe_plan_baseline_sum(&sum, even ? MOE_BASE_EPLB : MOE_BASE_TRIVIAL, &t, 0, *most, err);
}

static enum moe_code beside(const struct moe_plan_picture *q, const struct moe_plan_text *plan,
                            struct moe_plot_beside *b, double **most, struct moe_err *err)
{
    struct moe_plan *p;
    struct moe_routing *stats = NULL;
    MOE_TRY(moe_plan_parse(&p, plan->text, plan->bytes, plan->path, 0, err));
    enum moe_code code = moe_plan_read_stats(&stats, p, q->stats, q->n_stats, q->windows, q->cancel, err);
    if (code == MOE_OK) code = same_stats(plan, stats, err);
    if (code == MOE_OK) code = place(p, stats, q, b, most, err);
    moe_routing_free(&stats);
    moe_plan_free(&p);
    return code;
}

enum moe_code moe_plan_draw(const struct moe_plan_picture *q, char **svg, struct moe_err *err)
{
    struct moe_plan_text plan;
    struct moe_plot_beside other;
    double *most = NULL;
    *svg = NULL;
    MOE_TRY(moe_plan_text_read(&plan, q->plan, q->cancel, err));
    enum moe_code code = moe_plan_check_alone(&plan, q->progress, q->cancel, err);
    if (code == MOE_OK && q->n_stats) code = beside(q, &plan, &other, &most, err);
    if (code == MOE_OK) code = moe_plan_plot(plan.root, plan.path, most ? &other : NULL, svg, err);
    free(most);
    moe_plan_text_release(&plan);
    return code;
}
