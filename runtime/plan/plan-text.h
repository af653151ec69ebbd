/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-text.h - a text that grows at its end; for runtime/plan/ and moe-plan.c. */
#ifndef MOE_RUNTIME_PLAN_PLAN_TEXT_H
#define MOE_RUNTIME_PLAN_PLAN_TEXT_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct moe_text { char *v; size_t n, cap; bool failed; }; /* zero-initialised is empty */

/* Once memory has run out nothing more is added; moe_text_finish says so. */
void moe_text_add(struct moe_text *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Ends the text: *out is the text, which the caller frees.  On failure *out is NULL and the text freed. */
enum moe_code moe_text_finish(struct moe_text *t, char **out, struct moe_err *err);

#endif
