/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cpu/cpu.h - the processor as a device: its threads and the kernels of this machine.
 *
 * Every operation is done when its call returns.  Addresses are those of host memory. */
#ifndef MOE_MODEL_OPS_CPU_CPU_H
#define MOE_MODEL_OPS_CPU_CPU_H

#include "base/pool.h"
#include "model/activations.h"
#include "model/ops/ops.h"

enum moe_mla { MOE_MLA_ABSORBED, MOE_MLA_EXPANDED }; /* the formulas are in attention.c */

struct moe_cpu_options {
    int64_t max_tokens;               /* of a batch */
    int64_t context;                  /* positions of a sequence */
    enum moe_mla mla;
    enum moe_activations activations; /* no form needs more memory than another */
    /* products are computed by moe_matmul_many (kernels/many.h), which is faster for the hundreds of tokens
     * of a calibration batch; not with INT16 */
    bool many;
    bool serves;                      /* moe_ops.serve will be called */
    const struct moe_kernels *kernels; /* for tests: other kernels than this machine's; NULL: these */
};

/* Bytes of address space that moe_cpu_open asks for.  Pages are touched only as far as batches and contexts
 * reach. */
uint64_t moe_cpu_estimate(const struct moe_config *c, const struct moe_cpu_options *o, int threads);
/* m and pool (NULL: the calling thread alone) must stay open until close.  MOE_NOMEM, and then *d is NULL. */
enum moe_code moe_cpu_open(struct moe_device **d, const struct moe_model *m,
                           const struct moe_cpu_options *o, struct moe_pool *pool, struct moe_err *err);
/* From now on d, which moe_cpu_open gave, computes with m, another model of the same shapes. */
void moe_cpu_use(struct moe_device *d, const struct moe_model *m);

#endif
