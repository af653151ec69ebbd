/* SPDX-License-Identifier: Apache-2.0 */
/* moe/cancel.h - a token by which a program ends long work of the library early.
 *
 * The program owns the token, gives it to a call with the call's options, and asks for the end from another
 * thread, from a callback or from its own signal handler.  The call then fails with the code that was asked
 * with, within about a second; what it had begun to write stays as NAME.partial, so that it can be resumed.
 * The library installs no signal handler.
 *
 * Threads: all of these may be called at once from any thread, except that a token is closed only after every
 * call that was given it has returned.  moe_cancel_request and moe_is_cancelled are async-signal-safe. */
#ifndef MOE_CANCEL_H
#define MOE_CANCEL_H

#include <moe/error.h>

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct moe_cancel;

/* A token that nobody has asked with.  On failure *c is NULL and the code is MOE_NOMEM. */
MOE_API enum moe_code moe_cancel_open(struct moe_cancel **c, struct moe_err *err);
/* Frees the token and sets *c to NULL; does nothing where c or *c is NULL. */
MOE_API void moe_cancel_close(struct moe_cancel **c);

/* Ask for the end with MOE_SIGINT ("interrupted") or MOE_SIGTERM ("terminated"); the first request stays.  c
 * is not NULL. */
MOE_API void moe_cancel_request(struct moe_cancel *c, enum moe_code code);
/* Whether the end was asked for; false for NULL. */
MOE_API bool moe_is_cancelled(const struct moe_cancel *c);

#ifdef __cplusplus
}
#endif
#endif
