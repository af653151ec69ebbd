/* SPDX-License-Identifier: Apache-2.0 */
/* moe/cancel.h - a token by which a program ends long work of the library early.
 *
 * The program owns the token, passes it to a call in the call's options, and requests the end from another
 * thread, from a callback or from its own signal handler.  Within about a second the call then fails with the
 * code of the request (MOE_SIGINT or MOE_SIGTERM).  A container that it was writing stays as NAME.partial and
 * can be resumed.  The library installs no signal handler.
 *
 * Threads: these functions may be called from any thread at any time, but a token may be closed only after
 * every call that was given it has returned.  moe_cancel_request and moe_is_cancelled are
 * async-signal-safe. */
#ifndef MOE_CANCEL_H
#define MOE_CANCEL_H

#include <moe/error.h>

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

struct moe_cancel;

/* A new token, which is not cancelled; the caller closes it.  MOE_NOMEM without memory; *c is then NULL. */
MOE_API enum moe_code moe_cancel_open(struct moe_cancel **c, struct moe_err *err);
/* Frees the token and sets *c to NULL; does nothing where c or *c is NULL. */
MOE_API void moe_cancel_close(struct moe_cancel **c);

/* Request the end.  code is MOE_SIGINT ("interrupted") or MOE_SIGTERM ("terminated"), and any other code is
 * taken for MOE_SIGTERM; a second request changes nothing.  c is not NULL. */
MOE_API void moe_cancel_request(struct moe_cancel *c, enum moe_code code);
/* Whether the end was requested; false for NULL. */
MOE_API bool moe_is_cancelled(const struct moe_cancel *c);

#ifdef __cplusplus
}
#endif
#endif
