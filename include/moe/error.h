/* SPDX-License-Identifier: Apache-2.0 */
/* moe/error.h - how a function of libmoe reports failure.
 *
 * A function that can fail returns enum moe_code and takes `struct moe_err *err` last.  On success it returns
 * MOE_OK and leaves *err alone.  On failure it returns the code, and *err holds the code and one sentence for
 * a person.  `err` may be NULL in every public function: the caller then has only the code.  Nothing in this
 * header has state; all of it may be used from any thread. */
#ifndef MOE_ERROR_H
#define MOE_ERROR_H

/* Marks the functions that libmoe.so exports; it exports no others. */
#if defined(__GNUC__)
#define MOE_API __attribute__((visibility("default")))
#else
#define MOE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The codes, which are also the exit codes of the tools.  New codes are added; none is ever renumbered.
 * X(name, number, word, sentence) */
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
    X(BUSY,         19, "busy",          "too much work waits already")               \
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
    /* One sentence, NUL terminated, fit for a line on a terminal: lower case, no full stop, the outermost
     * context first, a remedy in brackets at the end where one is known.  Long paths in it are shortened. */
    char msg[1024];
    /* The full path of the file that the failure is about; "" when it is about none. */
    char file[MOE_PATH_BYTES];
    /* The tensor in that file; "" when the failure is about none. */
    char tensor[256];
};

#define MOE_ERR_INIT { MOE_OK, "", "", "" }

/* The word for a code ("no-space") and its sentence ("no space left"), as static strings; never NULL. */
MOE_API const char *moe_code_name(enum moe_code code);
MOE_API const char *moe_code_text(enum moe_code code);

#ifdef __cplusplus
}
#endif
#endif
