/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-staging.h - staging by files: the plan is read, its container found and opened, and what
 * some ranks need of it written or checked (plan-out.h does both).
 *
 *     struct moe_staging s;
 *     code = moe_staging_read(&s, "plan.json", 0, NULL, err);
 *     if (code == MOE_OK) code = moe_staging_open(&s, NULL, err);
 *     if (code == MOE_OK) code = moe_staging_put(&s, 0, 3, false, "node0.moe", false, &bytes, err);
 *     moe_staging_close(&s);
 */
#ifndef MOE_RUNTIME_PLAN_PLAN_STAGING_H
#define MOE_RUNTIME_PLAN_PLAN_STAGING_H

#include "formats/source.h"
#include "runtime/plan/plan.h"

/* Whatever is in it belongs to it, until moe_staging_close, which may follow any failure. */
struct moe_staging {
    const char *path;         /* of the plan, as given */
    char *text;               /* the plan's, `bytes` */
    size_t bytes;
    struct moe_plan *plan;
    struct moe_source *src;   /* the container, or a staged part of it */
    const struct moe_cancel *cancel;
};

/* Read a plan in any form (runtime/plan/plan.h); "-" is standard input.  ranks: how many the plan of a file
 * that does not say is for; 0: not known.  MOE_MISMATCH when the file says another number.  cancel
 * (may be NULL) ends this and all that follows early. */
enum moe_code moe_staging_read(struct moe_staging *s, const char *path, int64_t ranks,
                               const struct moe_cancel *cancel, struct moe_err *err);
/* Open the container of the plan: `model`, or NULL: the one that the plan lies in or names. */
enum moe_code moe_staging_open(struct moe_staging *s, const char *model, struct moe_err *err);
/* Open what was staged at `dir`, to check it.  Of both MOE_MISMATCH: of another model than the plan's. */
enum moe_code moe_staging_open_staged(struct moe_staging *s, const char *dir, struct moe_err *err);
/* What ranks [first, last] need, written to `out` as moe_plan_stage says.  *bytes: what was copied. */
enum moe_code moe_staging_put(struct moe_staging *s, int32_t first, int32_t last, bool link, const char *out,
                              bool force, uint64_t *bytes, struct moe_err *err);
/* What ranks [first, last] need, read and compared with its hashes.  *bytes: what was read. */
enum moe_code moe_staging_check(struct moe_staging *s, int32_t first, int32_t last, uint64_t *bytes,
                                struct moe_err *err);
void moe_staging_close(struct moe_staging *s);

/* "R" or "A-B", ranks of the plan counted from 0.  MOE_USAGE; `text` may be NULL, which is none. */
enum moe_code moe_rank_range_parse(const char *text, const struct moe_plan *p, int32_t *first, int32_t *last,
                                   struct moe_err *err);
#endif
