/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-staging.h"

#include "base/io.h"
#include "base/stream.h"
#include "formats/container/identity.h"
#include "runtime/plan/plan-inputs.h"
#include "runtime/plan/plan-out.h"
#include "runtime/plan/plan-proof.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum moe_code moe_rank_range_parse(const char *text, const struct moe_plan *p, int32_t *first, int32_t *last,
                                   struct moe_err *err)
{
    int end = 0, n = text ? sscanf(text, "%6d%n-%6d%n", first, &end, last, &end) : 0;
    if (n == 1) *last = *first;
    if (n >= 1 && !text[end] && *first >= 0 && *last >= *first && *last < p->ranks) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "stage wants --rank R or A-B, ranks of 0 to %d%s%s", (int)p->ranks - 1,
                    text ? ", not " : "", text ? text : "");
}

enum moe_code moe_staging_read(struct moe_staging *s, const char *path, int64_t ranks,
                               const struct moe_cancel *cancel, struct moe_err *err)
{
    const char *name = moe_stream_name(path);
    *s = (struct moe_staging){ .path = path, .cancel = cancel };
    MOE_TRY(moe_read_text(path, MOE_PLAN_TEXT_MAX, cancel, &s->text, &s->bytes, err));
    MOE_TRY(moe_plan_parse(&s->plan, s->text, s->bytes, name, (int32_t)ranks, err));
    return moe_plan_check_ranks(s->plan, ranks, name, err);
}

/* Whether the plan is of the model that was opened. */
static enum moe_code fits(const struct moe_staging *s, struct moe_err *err)
{
    const char *name = moe_stream_name(s->path);
    uint64_t planned = s->plan->model.header_digest;
    if (planned && planned != moe_source_origin(s->src, NULL).header_digest)
        return moe_fail_at(err, MOE_MISMATCH, s->src->path, NULL,
                           "is another model than the one '%s' was made for", name);
    MOE_TRY(moe_plan_bind(s->plan, &s->src->config, 0, name, err));
    return moe_plan_check_model(s->plan, s->src, name, s->cancel, err);
}

enum moe_code moe_staging_open(struct moe_staging *s, const char *model, struct moe_err *err)
{
    char path[PATH_MAX] = "";
    MOE_TRY(moe_plan_find_model(s->plan, s->path, model, path, err));
    MOE_TRY(moe_source_open(&s->src, path, err));
    return moe_source_blame_change(s->src, fits(s, err), err);
}

enum moe_code moe_staging_open_staged(struct moe_staging *s, const char *dir, struct moe_err *err)
{
    char path[PATH_MAX] = "";
    MOE_TRY(moe_plan_find_model(s->plan, s->path, dir, path, err));
    MOE_TRY(moe_source_open_staged(&s->src, dir, err));
    return moe_source_blame_change(s->src, fits(s, err), err);
}

/* The part keeps the text of the plan's file, or, if that is another engine's, the plan as plan.json. */
enum moe_code moe_staging_put(struct moe_staging *s, int32_t first, int32_t last, bool link, const char *out,
                              bool force, uint64_t *bytes, struct moe_err *err)
{
    char *own = s->plan->foreign ? moe_plan_print(s->plan, NULL, NULL) : NULL;
    if (s->plan->foreign && !own) return moe_fail(err, MOE_NOMEM, "no memory for a plan's text");
    enum moe_code code = moe_plan_stage(s->plan, own ? own : s->text, own ? strlen(own) : s->bytes, s->src,
                                        first, last, link, out, force, s->cancel, bytes, err);
    free(own);
    return moe_source_blame_change(s->src, code, err);
}

enum moe_code moe_staging_check(struct moe_staging *s, int32_t first, int32_t last, uint64_t *bytes,
                                struct moe_err *err)
{
    enum moe_code code = moe_plan_stage_check(s->plan, s->src, first, last, s->cancel, bytes, err);
    return moe_source_blame_change(s->src, code, err);
}

void moe_staging_close(struct moe_staging *s)
{
    free(s->text);
    moe_plan_free(&s->plan);
    moe_source_close(&s->src);
    *s = (struct moe_staging){ .path = s->path };
}
