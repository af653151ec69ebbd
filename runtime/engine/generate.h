/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/generate.h - one answer on the engine's core, for those who want one at a time: a single
 * prompt, a turn of a chat, a call of the library.
 *
 * The core keeps the pages of earlier prompts and answers, so that of a prompt which begins as one of them
 * did, as the next turn of a chat does, only the rest is computed. */
#ifndef MOE_RUNTIME_ENGINE_GENERATE_H
#define MOE_RUNTIME_ENGINE_GENERATE_H

#include "runtime/engine/core.h"

/* Seconds until the first token was there, and from then on. */
struct moe_generate_seconds { double prefill, decode; };

/* Opens a core for one answer at a time, whose cache holds a full context, and a page more where memory
 * allows.  Fails as moe_core_open does. */
enum moe_code moe_generate_open(struct moe_core **core, struct moe_engine *e, struct moe_err *err);

/* Computes the answer to the prompt ids [n], which nobody else's call drives meanwhile.  When
 * `cancel`, which may be NULL, is cancelled, it ends after the present step, with what there is of the answer
 * in *out.  The
 * caller has to free() out->tokens and out->text, also after a failure.  seconds may be NULL.  Fails as
 * moe_core_submit does, or with the error that ended the request or the core. */
enum moe_code moe_generate_run(struct moe_core *core, const int32_t *ids, int64_t n,
                               const struct moe_generate *g, const struct moe_cancel *cancel,
                               struct moe_generated *out, struct moe_generate_seconds *seconds,
                               struct moe_err *err);

#endif
