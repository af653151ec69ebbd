/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-tell.h - the notices and warnings of moe-plan. */
#ifndef MOE_RUNTIME_PLAN_PLAN_TELL_H
#define MOE_RUNTIME_PLAN_PLAN_TELL_H

#include "base/notes.h"
#include "runtime/plan/plan-check.h"
#include "runtime/plan/plan-make.h"
#include "runtime/plan/plan-out.h"

/* Tells, after moe_planning_open, what of the statistics was left out or is doubtful: one notice or warning
 * for each kind. */
void moe_planning_tell(const struct moe_notes *to, const struct moe_planning *p);
/* Tells what a verification that found no problem did not compare. */
void moe_tell_verified(const struct moe_notes *to, const struct moe_plan_checked *c);
/* Tells what an engine will do with layers that the plan does not place. */
void moe_tell_exported(const struct moe_notes *to, const struct moe_plan_export *q,
                       const struct moe_plan_exported *got);

struct moe_ranks_staged { const char *dir; int32_t first, last; uint64_t bytes; bool checked; };
/* Tells that ranks first to last, both included, were staged at `dir`, which holds so many bytes; or, with
 * `checked`, that they were only checked. */
void moe_tell_staged(const struct moe_notes *to, const struct moe_ranks_staged *s);

#endif
