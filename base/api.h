/* SPDX-License-Identifier: Apache-2.0 */
/* base/api.h - what the functions of include/moe/ share: structs that grow, an err that may be NULL, the pool
 * of a call. */
#ifndef MOE_BASE_API_H
#define MOE_BASE_API_H

#include "base/err.h"
#include "base/pool.h"

/* A copy of a caller's struct of options, which begins with its size.  `to` of to_bytes is the struct as this
 * version of the library has it: what the caller's version lacks is zero, and NULL is all zeros.  MOE_USAGE
 * for a size that no version had, MOE_UNSUPPORTED where the caller's version has a member that this one lacks
 * and that is not zero.  name: of the struct, for the message. */
enum moe_code moe_api_options(void *to, size_t to_bytes, const void *from, const char *name,
                              struct moe_err *err);

/* A caller's struct of results can be filled in: it is not NULL, and its size is one. */
enum moe_code moe_api_result_check(const void *to, const char *name, struct moe_err *err);
/* Fill it in from `from` of `bytes`, as far as the caller's version has room; its size stays. */
void moe_api_result(void *to, const void *from, size_t bytes);

/* MOE_USAGE when p, which is called `name`, is NULL. */
enum moe_code moe_api_given(const void *p, const char *name, struct moe_err *err);

/* The pool of one call, the caller's to close; threads 0 is as many as there are processors.  MOE_USAGE for a
 * number that cannot be; *pool is then NULL. */
enum moe_code moe_api_pool(struct moe_pool **pool, int64_t threads, struct moe_err *err);

/* At the start of a public function with a parameter err: what is written to is there. */
#define MOE_API_ERR(err)                  \
    struct moe_err moe_api_spare;         \
    (err) = (err) ? (err) : &moe_api_spare

#endif
