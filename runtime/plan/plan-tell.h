/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-tell.h - what moe-plan says beside its results: notices and warnings. */
#ifndef MOE_RUNTIME_PLAN_PLAN_TELL_H
#define MOE_RUNTIME_PLAN_PLAN_TELL_H

#include "base/notes.h"
#include "runtime/plan/plan-check.h"
#include "runtime/plan/plan-make.h"
#include "runtime/plan/plan-out.h"

/* Of the statistics of a planning that was opened: what of them was left out or is doubtful, one notice or
 * warning for each kind. */
void moe_planning_tell(const struct moe_notes *to, const struct moe_planning *p);
/* Of a verification that found no problem: what it did not compare. */
void moe_tell_verified(const struct moe_notes *to, const struct moe_plan_checked *c);
/* What an engine will make of layers that the plan does not place. */
void moe_tell_exported(const struct moe_notes *to, const struct moe_plan_export *q,
                       const struct moe_plan_exported *got);

struct moe_ranks_staged { const char *dir; int32_t first, last; uint64_t bytes; bool checked; };
/* Ranks [first, last] were staged at `dir`, or only checked. */
void moe_tell_staged(const struct moe_notes *to, const struct moe_ranks_staged *s);

#endif
