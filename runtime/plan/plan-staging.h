/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-staging.h - stages by the names of files: reads the plan, finds and opens its container,
 * and writes what some ranks need of it, or checks what was written (with the functions of plan-out.h).
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

/* It owns its plan, text and source until moe_staging_close, which may follow any failure.  One thread at a
 * time may use it. */
struct moe_staging {
    const char *path;         /* of the plan; the caller's */
    char *text;               /* [bytes] of the plan's file */
    size_t bytes;
    struct moe_plan *plan;
    struct moe_source *src;   /* the container, or a staged part of it */
    const struct moe_cancel *cancel;
};

/* Reads a plan in any form (runtime/plan/plan.h); "-" is standard input.  ranks: for how many ranks the plan
 * is if its file does not say so; 0: not known.  MOE_MISMATCH when the file says another number.  cancel (may
 * be NULL) ends this call and those that follow early. */
enum moe_code moe_staging_read(struct moe_staging *s, const char *path, int64_t ranks,
                               const struct moe_cancel *cancel, struct moe_err *err);
/* Opens the container of the plan: `model`, or, if that is NULL, the one in which the plan lies or which it
 * names (moe_plan_find_model).  MOE_MISMATCH: it is of another model than the plan's. */
enum moe_code moe_staging_open(struct moe_staging *s, const char *model, struct moe_err *err);
/* Opens what was staged at `dir`, to check it.  MOE_MISMATCH: it is of another model than the plan's. */
enum moe_code moe_staging_open_staged(struct moe_staging *s, const char *dir, struct moe_err *err);
/* Writes what ranks [first, last] need to `out`, as moe_plan_stage says.  *bytes: how much was copied. */
enum moe_code moe_staging_put(struct moe_staging *s, int32_t first, int32_t last, bool link, const char *out,
                              bool force, uint64_t *bytes, struct moe_err *err);
/* Reads what ranks [first, last] need and compares it with its hashes.  *bytes: how much was read. */
enum moe_code moe_staging_check(struct moe_staging *s, int32_t first, int32_t last, uint64_t *bytes,
                                struct moe_err *err);
void moe_staging_close(struct moe_staging *s);

/* Reads "R" or "A-B", ranks of the plan counted from 0.  MOE_USAGE for another text, and for NULL. */
enum moe_code moe_rank_range_parse(const char *text, const struct moe_plan *p, int32_t *first, int32_t *last,
                                   struct moe_err *err);
#endif
