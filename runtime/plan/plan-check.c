/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-check.h"

#include "base/buffer.h"

#include <stdlib.h>

/* stats [q->n_stats]: all NULL before; the caller frees what was read, also after a failure. */
static enum moe_code read_stats(struct moe_routing **stats, const struct moe_plan_check *q,
                                struct moe_err *err)
{
    for (size_t i = 0; i < q->n_stats; i++) {
        MOE_TRY(moe_routing_read(q->stats[i], q->cancel, &stats[i], err));
        moe_routing_merge(stats[i], q->windows);
    }
    return MOE_OK;
}

enum moe_code moe_plan_check_file(struct moe_plan_checked *out, const struct moe_plan_check *q,
                                  cJSON *problems, struct moe_err *err)
{
    struct moe_plan_text plan = { 0 }, from = { 0 };
    struct moe_routing **stats = calloc(q->n_stats + 1, sizeof *stats);
    enum moe_code code = stats && problems ? read_stats(stats, q, err)
                                           : moe_fail(err, MOE_NOMEM, "no memory to verify a plan");
    if (code == MOE_OK) code = moe_plan_text_read(&plan, q->plan, q->cancel, err);
    if (code == MOE_OK && q->from) code = moe_plan_text_read(&from, q->from, q->cancel, err);
    if (code == MOE_OK)
        code = moe_plan_verify(out, plan.path, plan.root, (const struct moe_routing *const *)stats,
                               (int)q->n_stats, from.root, problems, q->progress, q->cancel, err);
    for (size_t i = 0; stats && i < q->n_stats; i++) moe_routing_free(&stats[i]);
    free(stats);
    moe_plan_text_release(&plan);
    moe_plan_text_release(&from);
    return code;
}

enum moe_code moe_plan_check_alone(const struct moe_plan_text *plan, struct moe_progress *progress,
                                   const struct moe_cancel *cancel, struct moe_err *err)
{
    struct moe_plan_checked c;
    cJSON *problems = cJSON_CreateArray();
    enum moe_code code = problems ? moe_plan_verify(&c, plan->path, plan->root, NULL, 0, NULL, problems,
                                                    progress, cancel, err)
                                  : moe_fail(err, MOE_NOMEM, "no memory to verify a plan");
    cJSON_Delete(problems);
    return code;
}

void moe_plan_checked_json(cJSON *json, const struct moe_plan_checked *c)
{
    if (c->had_statistics) moe_json_add_bool(json, "same_statistics", c->same_statistics);
    else moe_json_add_null(json, "same_statistics"); /* there were no statistics */
    moe_json_add_i64(json, "claims", c->claims);
    moe_json_add_i64(json, "copies_min", c->copies_min);
    moe_json_add_i64(json, "experts_lost_worst", c->lost_worst);
    moe_json_add_i64(json, "experts_lost_worst_node", c->lost_worst_node);
    if (c->had_statistics) moe_json_add_f64(json, "load_max", c->load_max);
    if (c->had_statistics) moe_json_add_f64(json, "load_mean", c->load_mean);
}

void moe_plan_checked_text(struct moe_buffer *t, const struct moe_plan_checked *c)
{
    moe_buffer_printf(t,
                      "verified: %lld claims, at least %d cop%s of each expert, %d lost with the worst rank",
                      (long long)c->claims, (int)c->copies_min, c->copies_min == 1 ? "y" : "ies",
                      (int)c->lost_worst);
    if (c->ranks_per_node)
        moe_buffer_printf(t, ", %d with the worst node of %d ranks", (int)c->lost_worst_node,
                          (int)c->ranks_per_node);
    if (c->had_statistics)
        moe_buffer_printf(t, ", the fullest ranks compute %.0f tokens in all layers together, %.4f x mean",
                          c->load_max, c->load_mean > 0 ? c->load_max / c->load_mean : 1);
    moe_buffer_printf(t, "%s\n", c->had_statistics ? "" : " (loads and bounds need --stats)");
}
