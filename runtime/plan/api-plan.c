/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of include/moe/plan.h: plans as text, made of the same parts as the tool moe-plan. */
#include "base/api.h"
#include "runtime/plan/plan-check.h"
#include "runtime/plan/plan-json.h"

#include <moe/plan.h>

#include <stdlib.h>
#include <string.h>

/* Tokens of a rank in one step, for the proofs: the default of moe-plan's --batch. */
enum { BATCH = 128 };

/* Translates a number of the public options, where 0 means that it is not given and -1 means 0. */
static int64_t said(int64_t n) { return n == 0 ? MOE_PLAN_UNSET : n == -1 ? 0 : n; }

static struct moe_plan_request request(const struct moe_placement_options *o)
{
    struct moe_plan_request q = MOE_PLAN_REQUEST;

    if (o->ranks) q.ranks = o->ranks;
    if (o->slots) q.slots = o->slots;
    if (o->memory_per_rank) q.memory = moe_api_i64(o->memory_per_rank);
    q.survive = said(o->survive);
    q.ranks_per_node = said(o->ranks_per_node);
    q.stats = o->stats;
    q.n_stats = o->n_stats;
    q.from = o->from;
    q.written = true;
    q.cancel = o->cancel;
    return q;
}

static enum moe_code make(const struct moe_source *src, const struct moe_plan_request *q,
                          struct moe_pool *pool, char **json, struct moe_err *err)
{
    struct moe_planning p;

    enum moe_code code = moe_planning_open(&p, src, q, err);
    if (code == MOE_OK) code = moe_planning_search(&p, BATCH, pool, err);
    if (code == MOE_OK) code = moe_planning_print(&p, BATCH, json, err);
    moe_planning_close(&p);
    return code;
}

enum moe_code moe_placement_make(const char *model, const struct moe_placement_options *options, char **json,
                                 struct moe_err *err)
{
    struct moe_placement_options o;
    struct moe_source *src = NULL;
    struct moe_pool *pool = NULL;

    MOE_API_ERR(err);
    MOE_TRY(moe_api_given(json, "json", err));
    *json = NULL;
    MOE_TRY(moe_api_given(model, "model", err));
    MOE_TRY(moe_api_options(&o, sizeof o, options, "moe_placement_options", err));
    MOE_TRY(moe_api_files(o.stats, o.n_stats, "stats", err));
    if (!o.ranks && !o.from) return moe_fail(err, MOE_USAGE, "for how many ranks?");
    struct moe_plan_request q = request(&o);
    enum moe_code code = moe_plan_request_check(&q, err);
    if (code != MOE_OK) return moe_api_end(code, err);
    MOE_TRY(moe_api_pool(&pool, o.threads, err));
    struct moe_api_progress progress;
    q.progress = moe_api_progress_init(&progress, o.progress, o.ctx);
    code = moe_plan_open_model(&src, model, err);
    if (code == MOE_OK) code = make(src, &q, pool, json, err);
    moe_api_progress_release(&progress);
    moe_source_close(&src);
    moe_pool_close(&pool);
    return moe_api_end(code, err);
}

/* The sentences of a JSON array as lines of one text, which the caller frees; NULL without memory. */
static char *lines(const cJSON *problems)
{
    size_t bytes = 1;

    for (const cJSON *p = problems->child; p; p = p->next) bytes += strlen(p->valuestring) + 1;
    char *text = malloc(bytes);
    char *at = text;
    for (const cJSON *p = problems->child; text && p; p = p->next) {
        size_t n = strlen(p->valuestring);
        memcpy(at, p->valuestring, n);
        at[n] = '\n';
        at += n + 1;
    }
    if (text) *at = 0;
    return text;
}

enum moe_code moe_placement_verify(const char *plan, const struct moe_placement_verify_options *options,
                                   char **problems, struct moe_err *err)
{
    struct moe_placement_verify_options o;
    struct moe_plan_checked found;

    MOE_API_ERR(err);
    if (problems) *problems = NULL;
    MOE_TRY(moe_api_given(plan, "plan", err));
    MOE_TRY(moe_api_options(&o, sizeof o, options, "moe_placement_verify_options", err));
    MOE_TRY(moe_api_files(o.stats, o.n_stats, "stats", err));
    if (!strcmp(plan, "-")) return moe_fail(err, MOE_USAGE, "plan is a file, and no stream ('-')");
    struct moe_plan_check q = { .plan = plan,
                                .stats = o.stats,
                                .n_stats = o.n_stats,
                                .windows = moe_plan_windows(MOE_PLAN_UNSET),
                                .from = o.from,
                                .cancel = o.cancel };
    struct moe_api_progress progress;
    cJSON *list = cJSON_CreateArray();
    if (!list) return moe_fail(err, MOE_NOMEM, "no memory to verify a plan");
    q.progress = moe_api_progress_init(&progress, o.progress, o.ctx);
    enum moe_code code = moe_plan_check_file(&found, &q, list, err);
    moe_api_progress_release(&progress);
    if (code == MOE_VERIFY && problems) *problems = lines(list);
    cJSON_Delete(list);
    return moe_api_end(code, err);
}
