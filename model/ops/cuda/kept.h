/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/kept.h - the weights of a GPU as memory that other processes use, too: one loads and keeps
 * them, others attach to them and start without reading.
 *
 * The memory is a row of units: the block of what belongs to no routed expert, and then, layer by layer, the
 * units of the experts' ranges (space.h), all of them with memory.  A unit is handed over as a descriptor.
 * Whoever has a unit keeps its memory alive: the process that loaded it may end.  Others can read it and not
 * write.
 *
 * What both sides must have in common is in struct moe_cuda_kept; this header does not know how descriptors
 * pass from one process to another.  Errors and threads are as in model/ops/cuda/gpu.h. */
#ifndef MOE_MODEL_OPS_CUDA_KEPT_H
#define MOE_MODEL_OPS_CUDA_KEPT_H

#include "model/ops/cuda/cuda.h"

/* What a device keeps, or looks for.  Both sides must have the same texts, units and bytes; whether they have
 * the same model is for the caller to compare. */
struct moe_cuda_kept {
    char gpu[48];                     /* moe_gpu_info.uuid */
    char experts[48];                 /* which experts have memory: "all 384 in 60 layers" */
    char layout[33];                  /* a digest, in hex, of where every weight lies in the units */
    int64_t units;
    uint64_t bytes;                   /* of all units */
};
/* May be asked once the device is open.  MOE_DEVICE where the driver does not say which GPU it is. */
enum moe_code moe_cuda_kept(const struct moe_device *d, struct moe_cuda_kept *k, struct moe_err *err);

/* In the place of moe_cuda_begin, for a process that only keeps: reads the weights into memory that can be
 * handed over, without buffers.  The device can then export, and be closed.  Fails as moe_cuda_begin does;
 * MOE_DEVICE where the GPU's memory cannot be handed over. */
enum moe_code moe_cuda_keep(struct moe_device *d, enum moe_load_path path, struct moe_progress *progress,
                            const struct moe_cancel *cancel, struct moe_err *err);
/* A descriptor, which the caller closes, of a unit of a device that keeps. */
enum moe_code moe_cuda_kept_export(struct moe_device *d, int64_t unit, int *fd, struct moe_err *err);
/* Whether the GPU is lost, so that every export fails. */
bool moe_cuda_kept_is_lost(const struct moe_device *d);

/* Where a device that attaches gets descriptors from.  take: sets fd[0] to fd[n - 1] to those of the units
 * from `first` on, for 1 <= n <= MOE_CUDA_TAKE; whoever calls it closes them.  After a failure there are
 * none. */
enum { MOE_CUDA_TAKE = 64 };
struct moe_cuda_lender {
    void *ctx;
    enum moe_code (*take)(void *ctx, int64_t first, int n, int *fd, struct moe_err *err);
};

#endif
