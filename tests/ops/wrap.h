/* SPDX-License-Identifier: Apache-2.0 */
/* tests/ops/wrap.h - the processor as a device, opened in a program that is linked with --wrap=moe_cpu_open:
 * where wrap_wanted() says so, the caller gets ops/checked around it. */
#ifndef MOE_TESTS_OPS_WRAP_H
#define MOE_TESTS_OPS_WRAP_H

#include "model/ops/cpu/cpu.h"
#include "tests/ops/checked.h"

bool wrap_wanted(void); /* the program defines it */

/* The linker gives these two their names: calls of moe_cpu_open come to the first, and the second is it. */
enum moe_code __wrap_moe_cpu_open(struct moe_device **d, const struct moe_model *m,
                                  const struct moe_cpu_options *o, struct moe_pool *pool,
                                  struct moe_err *err);
enum moe_code __real_moe_cpu_open(struct moe_device **d, const struct moe_model *m,
                                  const struct moe_cpu_options *o, struct moe_pool *pool,
                                  struct moe_err *err);

enum moe_code __wrap_moe_cpu_open(struct moe_device **d, const struct moe_model *m,
                                  const struct moe_cpu_options *o, struct moe_pool *pool,
                                  struct moe_err *err)
{
    MOE_TRY(__real_moe_cpu_open(d, m, o, pool, err));
    return wrap_wanted() ? checked_wrap(d, err) : MOE_OK;
}

#endif
