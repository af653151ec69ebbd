/* SPDX-License-Identifier: Apache-2.0 */
/* base/err.h - the one way a function reports failure.
 *
 * A fallible function returns enum moe_code and takes `struct moe_err *err` last.  On success it returns
 * MOE_OK and leaves *err alone.  On failure it returns the code and *err holds one sentence: lower case,
 * no full stop, outermost context first, subject quoted, the remedy in brackets at the end if there is one:
 *
 *     'model-00012.safetensors': tensor 'model.norm.weight': 48 bytes short (fetch the file again)
 *
 * Library code never prints and never exits; only a tool's main() does. */
#ifndef MOE_BASE_ERR_H
#define MOE_BASE_ERR_H

#include <stddef.h>

/* The codes are the exit codes of every tool, and part of the command-line
 * contract: append, never renumber. */
#define MOE_CODES(X)                                                                  \
    X(OK,            0, "ok",            "done")                                      \
    X(INTERNAL,      1, "internal",      "internal error")                            \
    X(USAGE,         2, "usage",         "bad command line")                          \
    X(NOT_FOUND,     3, "not-found",     "not found")                                 \
    X(EXISTS,        4, "exists",        "already exists")                            \
    X(NOMEM,        10, "out-of-memory", "out of memory")                             \
    X(IO,           11, "io",            "input or output failed")                    \
    X(NOSPACE,      12, "no-space",      "no space left")                             \
    X(CORRUPT,      13, "corrupt",       "corrupt or malformed input")                \
    X(UNSUPPORTED,  14, "unsupported",   "valid, but not supported")                  \
    X(MISMATCH,     15, "mismatch",      "two inputs that do not belong together")    \
    X(VERIFY,       16, "verify",        "verification failed")                       \
    X(DEVICE,       17, "device",        "a device or communicator failed")           \
    X(NONFINITE,    18, "non-finite",    "a NaN or Inf value")                        \
    X(SIGINT,      130, "interrupted",   "interrupted")                               \
    X(SIGTERM,     143, "terminated",    "terminated")

enum moe_code {
#define X(name, value, word, text) MOE_##name = value,
    MOE_CODES(X)
#undef X
};

/* Room for a path with its NUL: Linux's PATH_MAX, which <limits.h> hides from programs in strict C17. */
enum { MOE_PATH_BYTES = 4096 };

struct moe_err {
    enum moe_code code;
    char msg[1024];   /* NUL terminated; a line fit for a terminal; long paths are shortened (base/show.h) */
    /* the file the failure is about, as it is called and whole, "" when none; for --json */
    char file[MOE_PATH_BYTES];
    char tensor[256]; /* the tensor, "" when none; for --json */
};

#define MOE_ERR_INIT { MOE_OK, "", "", "" }

/* The word ("no-space") and the sentence for a code; never NULL. */
const char *moe_code_name(enum moe_code code);
const char *moe_code_text(enum moe_code code);

/* Set *err and return `code`, so that `return moe_fail(err, ...)` reads well.  Clears file and tensor. */
__attribute__((format(printf, 3, 4)))
enum moe_code moe_fail(struct moe_err *err, enum moe_code code, const char *fmt, ...);

/* The same about a file and, when not NULL, a tensor in it: the message becomes
 * "'file': tensor 'tensor': what".  Either may be NULL. */
__attribute__((format(printf, 5, 6)))
enum moe_code moe_fail_at(struct moe_err *err, enum moe_code code, const char *file, const char *tensor,
                          const char *fmt, ...);

/* Put "context: " in front of the message already in *err; returns its code. */
__attribute__((format(printf, 2, 3)))
enum moe_code moe_wrap(struct moe_err *err, const char *fmt, ...);

/* What is to be done is something else, which this caller alone knows: `remedy` takes the place of the one in
 * brackets at the end of the message, or is put there.  Returns the code. */
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

/* A broken promise of our own: kept in release builds. */
#define MOE_CHECK(cond) ((cond) ? (void)0 : moe_bug(#cond, __FILE__, __LINE__))
_Noreturn void moe_bug(const char *cond, const char *file, int line);

#endif
