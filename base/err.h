/* SPDX-License-Identifier: Apache-2.0 */
/* base/err.h - the one way a function reports failure.
 *
 * A fallible function returns enum moe_code and takes `struct moe_err *err` last.  On success it returns
 * MOE_OK and leaves *err alone.  On failure it returns the code and *err holds one sentence: lower case,
 * no full stop, outermost context first, subject quoted, the remedy in brackets at the end if there is one:
 *
 *     'model-00012.safetensors': tensor 'model.norm.weight': 48 bytes short (fetch the file again)
 *
 * The codes and struct moe_err are public (include/moe/error.h).  Inside the library err is never NULL.
 * Library code never prints and never exits; only a tool's main() does. */
#ifndef MOE_BASE_ERR_H
#define MOE_BASE_ERR_H

#include <moe/error.h>

#include <stddef.h>

/* Set *err and return `code`, so that `return moe_fail(err, ...)` reads well.  Clears file and tensor. */
__attribute__((format(printf, 3, 4)))
enum moe_code moe_fail(struct moe_err *err, enum moe_code code, const char *fmt, ...);

/* The same about a file and, when not NULL, a tensor in it: the message becomes "'file': tensor 'tensor':
 * what".  `file` may be NULL, too. */
__attribute__((format(printf, 5, 6)))
enum moe_code moe_fail_at(struct moe_err *err, enum moe_code code, const char *file, const char *tensor,
                          const char *fmt, ...);

/* Put "context: " in front of the message already in *err; returns its code. */
__attribute__((format(printf, 2, 3)))
enum moe_code moe_wrap(struct moe_err *err, const char *fmt, ...);

/* Make `remedy` the text in brackets at the end of the message, replacing the one that is there.  For a
 * caller who knows better what the user should do.  Returns the code. */
enum moe_code moe_err_remedy(struct moe_err *err, const char *remedy);

/* moe_fail_at with the code and text of `errno_value`: ENOSPC and EDQUOT give MOE_NOSPACE, ENOENT
 * MOE_NOT_FOUND, ENOMEM MOE_NOMEM, the rest MOE_IO.  `what` is a verb: "cannot open". */
enum moe_code moe_fail_errno(struct moe_err *err, int errno_value, const char *file, const char *what);

/* Pass a failure up unchanged. */
#define MOE_TRY(call)                                    \
    do {                                                 \
        enum moe_code moe_try_code = (call);             \
        if (moe_try_code != MOE_OK) return moe_try_code; \
    } while (0)

/* An assertion that stays in release builds: where it fails, the code of this project is wrong. */
#define MOE_CHECK(cond) ((cond) ? (void)0 : moe_bug(#cond, __FILE__, __LINE__))
_Noreturn void moe_bug(const char *cond, const char *file, int line);

#endif
