/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/gpu-internal.h - what the .c files of model/ops/cuda/ that call the driver share. */
#ifndef MOE_MODEL_OPS_CUDA_GPU_INTERNAL_H
#define MOE_MODEL_OPS_CUDA_GPU_INTERNAL_H

#include "model/ops/cuda/driver.h"
#include "model/ops/cuda/gpu.h"

/* A copy to host memory that lies in the stage until the next wait. */
struct moe_gpu_reading { void *to; const unsigned char *from; size_t bytes; };

/* Pinned memory that moe_gpu_write and moe_gpu_read go through, filled from front to back and empty again
 * after each wait. */
struct moe_gpu_stage {
    unsigned char *at;
    size_t used;
    struct moe_gpu_reading reading[512]; int n_readings;
};
enum { MOE_GPU_STAGE_BYTES = 16 << 20 };

struct moe_gpu {
    const struct moe_driver *d;
    struct moe_gpu_info info;
    moe_cu_device device;
    moe_cu_context context;
    moe_cu_stream stream;
    moe_cu_module *modules; int n_modules;
    moe_cu_function function[MOE_CUDA_KERNELS + 1]; /* the last one keeps an empty list of kernels valid */
    uint32_t shared[MOE_CUDA_KERNELS + 1];          /* dynamic shared memory that each may use so far */
    const char *last;                               /* the kernel launched last; NULL: none since the wait */
    bool capturing, wait_each;                      /* wait_each: MOE_GPU_WAIT is set */
    struct moe_gpu_stage stage;
    struct moe_err lost;                            /* code MOE_OK, or what made the context useless */
};

/* The name of a kernel as the modules have it. */
const char *moe_cuda_kernel_name(enum moe_cuda_kernel k);

/* Makes the GPU's context the calling thread's, so that it may call the driver; fails when it is lost. */
enum moe_code moe_gpu_enter(struct moe_gpu *g, struct moe_err *err);
/* Waits before something is given back, so that nothing uses it any more; what reads have brought stays where
 * it is.  A lost context may fail here; what is given back then still counts for a driver that keeps
 * books. */
void moe_gpu_finish(struct moe_gpu *g);
/* MOE_OK for MOE_CU_OK; else fills *err for the call `doing`, and remembers a lost context. */
__attribute__((format(printf, 4, 5)))
enum moe_code moe_gpu_check(struct moe_gpu *g, moe_cu_result r, struct moe_err *err, const char *doing, ...);

#endif
