/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/driver.h - NVIDIA's driver library libcuda.so.1, opened when it is first needed, so that one
 * binary runs with and without a GPU.
 *
 * Only model/ops/cuda/ includes this header.  Any thread may call what is here. */
#ifndef MOE_MODEL_OPS_CUDA_DRIVER_H
#define MOE_MODEL_OPS_CUDA_DRIVER_H

#include "base/err.h"
#include "model/ops/cuda/api.h"

struct moe_driver {
    int version;            /* of the API that the driver has: 1000 times major plus 10 times minor */
#define X(name, params) moe_cu_result(*name) params;
    MOE_CU_FUNCTIONS(X)
#undef X
};

/* Opens the library and starts the driver at the first call that succeeds, and gives its functions to every
 * caller; it is never closed.  MOE_DEVICE where there is no driver, it is too old for this program or for
 * itself (its library and its kernel module differ), or it finds no GPU. */
enum moe_code moe_driver(const struct moe_driver **d, struct moe_err *err);

/* Fills *err for a call of the driver that returned `r`, which is not MOE_CU_OK.  `doing` is what the call
 * was for ("GPU 0: cuMemAlloc of 3 bytes"); the driver's own words and name for the result follow.  Returns
 * MOE_DEVICE. */
__attribute__((format(printf, 4, 5)))
enum moe_code moe_driver_fail(const struct moe_driver *d, moe_cu_result r, struct moe_err *err,
                              const char *doing, ...);

/* Whether a result means that the context is lost: every later call of this process on this GPU fails. */
int moe_driver_is_sticky(moe_cu_result r);

#endif
