/* SPDX-License-Identifier: Apache-2.0 */
/* base/api.h - helpers that all public functions (include/moe/) use: structs whose size may grow with the
 * version, an err that may be NULL, a thread pool for one call, and its progress. */
#ifndef MOE_BASE_API_H
#define MOE_BASE_API_H

#include "base/err.h"
#include "base/pool.h"
#include "base/progress.h"

#include <stdint.h>

/* Copy a caller's struct of options, whose first member is its size.  `to` (to_bytes bytes) is the struct
 * as this version of the library declares it; members that the caller's older version lacks become zero, and
 * with `from` NULL all of them are zero.  MOE_USAGE for a size that no version had; MOE_UNSUPPORTED when the
 * caller's version is newer and sets a member that this one does not have.  `name` is the name of the struct,
 * for the message. */
enum moe_code moe_api_options(void *to, size_t to_bytes, const void *from, const char *name,
                              struct moe_err *err);

/* Check that a caller's struct of results is not NULL and begins with a plausible size. */
enum moe_code moe_api_result_check(const void *to, const char *name, struct moe_err *err);
/* Copy `bytes` bytes of `from` into that struct, as far as the caller's version has room; its size member
 * stays as it is. */
void moe_api_result(void *to, const void *from, size_t bytes);

/* MOE_USAGE when the argument p, called `name` in the message, is NULL. */
enum moe_code moe_api_given(const void *p, const char *name, struct moe_err *err);

/* MOE_USAGE when `paths`, the option called `name`, has NULL or "-" (standard input) among its n paths.  With
 * n 0 it may itself be NULL. */
enum moe_code moe_api_files(const char *const *paths, size_t n, const char *name, struct moe_err *err);

/* A size of the caller's, which the library counts in int64_t: INT64_MAX for what is larger. */
static inline int64_t moe_api_i64(uint64_t n) { return n > INT64_MAX ? INT64_MAX : (int64_t)n; }

/* The end of a public function: returns `code`.  The functions below it are also those of the tools, and
 * their messages name options as the tools spell them.  Those that are members of the structs in include/moe/
 * are renamed in the message of a failure: "(replace it with --force)" becomes "(replace it with 'force')".
 * What stands in quotes, as paths do, and command lines of tools are kept. */
enum moe_code moe_api_end(enum moe_code code, struct moe_err *err);

/* Open a thread pool for one call of a public function; the caller closes it.  threads 0 means as many as
 * there are processors.  MOE_USAGE for a number out of range; *pool is NULL after any failure. */
enum moe_code moe_api_pool(struct moe_pool **pool, int64_t threads, struct moe_err *err);

/* What a call reports to the caller's `progress` (moe/progress.h). */
typedef void moe_api_progress_fn(void *ctx, const struct moe_progress_report *report);
struct moe_api_progress {
    struct moe_progress progress;
    moe_api_progress_fn *report;
    void *ctx;
    double last; /* when it was called, by moe_now */
};

/* What to hand to the work: NULL where the caller gave no callback.  Released by the function that
 * initialised it, with or without a callback. */
struct moe_progress *moe_api_progress_init(struct moe_api_progress *p, moe_api_progress_fn *report,
                                           void *ctx);
void moe_api_progress_release(struct moe_api_progress *p);

/* Put at the start of a public function: where the caller gave NULL for `err`, the rest of the function
 * writes to a local struct instead. */
#define MOE_API_ERR(err)                  \
    struct moe_err moe_api_spare;         \
    (err) = (err) ? (err) : &moe_api_spare

#endif
