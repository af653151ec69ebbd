/* SPDX-License-Identifier: Apache-2.0 */
/* base/cancel.h - a token by which somebody asks long work to end early.
 *
 * Whoever may want to end the work early owns a token and passes a `const struct moe_cancel *` down with the
 * work's other options.  Loops call moe_cancel_check between items; after a request the work fails with the
 * token's code, as it would with any other failure.  Nothing here is process-wide and nothing here installs a
 * signal handler: a program that wants a signal to end the work calls moe_cancel_request in its own handler
 * (as base/cli/tool.c does).
 *
 * A token with a parent counts as cancelled when either of the two was asked to end, so that a part of the
 * work (one answer of a chat) can be ended alone.
 *
 * Threads: all calls are safe from any thread.  Signals: moe_cancel_request and moe_is_cancelled may be
 * called in a signal handler.  A token and its parents must outlive all work that was given the token. */
#ifndef MOE_BASE_CANCEL_H
#define MOE_BASE_CANCEL_H

#include "base/err.h"

#include <moe/cancel.h>

#include <stdatomic.h>
#include <stdbool.h>

/* A zeroed token is not cancelled and has no parent. */
struct moe_cancel {
    atomic_int code;                 /* 0: nobody has asked; else an enum moe_code */
    const struct moe_cancel *parent; /* NULL: none; set before anybody else sees the token */
};

/* moe_cancel_request and moe_is_cancelled are public (include/moe/cancel.h).  A request wakes no thread: work
 * notices it at its next check.  Functions of this library that wait look at their token at least once a
 * second, and at once when a signal interrupts the wait.  moe_is_cancelled is for loops that cannot return an
 * error: their result is then incomplete, and their caller must call moe_cancel_check before using it. */

/* Returns MOE_OK, or the code of the request with a message.  It also returns MOE_IO once a page of a mapped
 * file could not be read (moe_map_check), even where c is NULL.  Long loops call it between items and before
 * they give out a result. */
enum moe_code moe_cancel_check(const struct moe_cancel *c, struct moe_err *err);
/* The same for work that writes an output and can be resumed.  It does not call moe_map_check, which the
 * writer does before it publishes.  The message says that nothing is finished; moe_cancel_left replaces it
 * where that is not so. */
enum moe_code moe_cancel_check_resumable(const struct moe_cancel *c, struct moe_err *err);
/* When `code` is the code of a request (MOE_SIGINT, MOE_SIGTERM), replaces the message in *err by
 * "interrupted: " or "terminated: " and the formatted text, which says what of the work is left.  Returns
 * `code`. */
enum moe_code moe_cancel_left(enum moe_code code, struct moe_err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
