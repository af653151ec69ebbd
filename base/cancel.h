/* SPDX-License-Identifier: Apache-2.0 */
/* base/cancel.h - a token by which somebody asks long work to end early.
 *
 * Who may want to end the work owns a token and hands a `const struct moe_cancel *` down with the work's
 * other options; loops call moe_cancel_check between items, and the work fails with the token's code as it
 * would with any other.  Nothing here is process-wide and nothing here installs a signal handler: a program
 * that wants a signal to end the work calls moe_cancel_request in its own handler (as base/cli/tool.c does).
 *
 * A token with a parent is cancelled when it is asked to be or when its parent is, so that a part of the work
 * (one answer of a chat) can be ended alone.
 *
 * Threads: all calls are safe from any thread at once.  Signals: moe_cancel_request and moe_is_cancelled may
 * be called in a signal handler.  A token and its parents live until all work that was given it has ended. */
#ifndef MOE_BASE_CANCEL_H
#define MOE_BASE_CANCEL_H

#include "base/err.h"

#include <moe/cancel.h>

#include <stdatomic.h>
#include <stdbool.h>

/* Zeroed: not cancelled, without a parent. */
struct moe_cancel {
    atomic_int code;                 /* 0: nobody has asked; else an enum moe_code */
    const struct moe_cancel *parent; /* NULL: none; set before anybody else sees the token */
};

/* moe_cancel_request and moe_is_cancelled are public (include/moe/cancel.h).  Work sees a request at its next
 * check: it wakes no thread, but waits of this library look at their token again after a second at most, and
 * at once where a signal has ended the wait.  moe_is_cancelled is for loops that have no error to return:
 * what they leave is of no use, and whoever called them calls moe_cancel_check before using it. */

/* MOE_OK, or the code of the request with a message; MOE_IO once a mapped file could not be read
 * (moe_map_check), which is looked at for NULL too.  Long loops call it between items, and before a result is
 * given out. */
enum moe_code moe_cancel_check(const struct moe_cancel *c, struct moe_err *err);
/* The same where something is being written, without moe_map_check, which its writer calls before it
 * publishes.  The message says that nothing is finished until moe_cancel_left says otherwise. */
enum moe_code moe_cancel_check_resumable(const struct moe_cancel *c, struct moe_err *err);
/* When `code` is that of a request, its sentence from now on: "interrupted: " or "terminated: ", and what is
 * left of the work.  Returns code. */
enum moe_code moe_cancel_left(enum moe_code code, struct moe_err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
