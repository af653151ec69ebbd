/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/generate.h - one answer on the engine's core, for those who want one at a time: a single
 * prompt, a turn of a chat, a call of the library.
 *
 * The core keeps the pages of earlier prompts and answers, so that of a prompt which begins as one of them
 * did, as the next turn of a chat does, only the rest is computed. */
#ifndef MOE_RUNTIME_ENGINE_GENERATE_H
#define MOE_RUNTIME_ENGINE_GENERATE_H

#include "runtime/engine/core.h"

struct moe_generate {
    struct moe_request request;         /* its `whole` and `ctx` are ignored */
    /* called with the next bytes of the text, whole UTF-8 characters; may be NULL */
    void (*text)(void *ctx, const char *bytes, size_t n);
    void *ctx;
    /* called with each event, before `text`; may be NULL.  A failure ends the answer and is returned. */
    enum moe_code (*event)(void *ctx, const struct moe_event *ev, struct moe_err *err);
    void *event_ctx;
    const struct moe_cancel *cancel;    /* ends the answer after the present step; NULL: nobody will */
};

/* Seconds until the first token was there, and from then on. */
struct moe_generate_seconds { double prefill, decode; };

/* Opens a core for one answer at a time, whose cache holds a full context.  Fails as moe_core_open does. */
enum moe_code moe_generate_open(struct moe_core **core, struct moe_engine *e, struct moe_err *err);

/* Computes the answer, in this thread, which is the only one that uses the core.  After a cancellation *out
 * has what there is of the answer.  The caller has to free() what it points to, also after a failure.
 * seconds may be NULL.  Fails as moe_core_submit does, with the error that ended the request or the core, or
 * with the code of the cancellation. */
enum moe_code moe_generate_run(struct moe_core *core, const struct moe_generate *g, struct moe_generated *out,
                               struct moe_generate_seconds *seconds, struct moe_err *err);

#endif
