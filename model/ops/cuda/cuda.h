/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/cuda.h - one GPU as a device: the operations of model/ops/ops.h as launches of kernels
 * (kernels/cuda/), on weights that lie in the GPU's memory.
 *
 * Every result has the bits of the processor's AVX2 kernels, whatever the batch.  With `fast`, products are
 * those of kernels/cuda/nvfp4-fast.h and dense-fast.h instead, for the types that these have, but for
 * routers, and attention is that of attend-fast.h: near these bits, and the same whatever the batch, too.
 * Addresses are those of the GPU.  All segments of a batch have the same cache.  Of the observers there is
 * `routed` alone, and `serve` must not be called: one GPU has all experts.  The host keeps nothing of the
 * model but its descriptors once it is loaded.
 *
 * A GPU that fails, at any call, is reported by the next wait, and by every one after it (MOE_DEVICE). */
#ifndef MOE_MODEL_OPS_CUDA_CUDA_H
#define MOE_MODEL_OPS_CUDA_CUDA_H

#include "model/activations.h"
#include "model/ops/cuda/load.h"
#include "model/ops/ops.h"

struct moe_cuda_options {
    int index;                        /* of the GPU, as the driver counts */
    enum moe_activations activations; /* any but INT16 */
    bool fast;
    enum moe_latent_type latents;     /* BF16 goes with fast, and not with activations in NVFP4 */
    bool attached;                    /* another process keeps the weights in the GPU's memory (kept.h) */
};

/* Opens the GPU for `m`, whose source must stay open and mapped until moe_cuda_begin returns, and m itself
 * until close.  Nothing is read yet.  MOE_UNSUPPORTED for a model that the kernels cannot compute, MOE_NOMEM
 * when the GPU does not hold its weights, or what moe_gpu_open fails with; *d is then NULL. */
enum moe_code moe_cuda_open(struct moe_device **d, const struct moe_model *m,
                            const struct moe_cuda_options *o, struct moe_err *err);
/* Bytes that the weights leave for buffers and caches on this GPU; those of another process are there
 * already. */
uint64_t moe_cuda_room(const struct moe_device *d);
/* Bytes of the buffers of a device for batches of so many tokens and sequences of so many positions, and of
 * what the driver takes for the graphs of steps. */
uint64_t moe_cuda_estimate(const struct moe_config *c, enum moe_activations a, int64_t max_tokens,
                           int64_t context);
/* How a device begins: for batches of max_tokens and sequences of `context` positions, with weights that come
 * by `path`, or, where moe_cuda_options.attached is set, from the lender (kept.h).  shared: their memory can
 * be handed to other processes.  progress, cancel and lender may be NULL. */
struct moe_cuda_start {
    int64_t max_tokens, context;
    enum moe_load_path path;
    bool shared;
    const struct moe_cuda_lender *lender;
    struct moe_progress *progress;
    const struct moe_cancel *cancel;
};
/* Takes the buffers, and then reads the weights onto the GPU.  Must be called once, before any operation.
 * MOE_NOMEM, MOE_DEVICE, MOE_UNSUPPORTED for a path that the GPU does not have, what moe_load fails with, or
 * the code of a cancelled `cancel`; the device can then only be closed. */
enum moe_code moe_cuda_begin(struct moe_device *d, const struct moe_cuda_start *start, struct moe_err *err);

/* What a device has done since it was opened: launches of kernels one by one or into a graph, graphs that
 * were recorded, and launches of graphs. */
struct moe_cuda_counts { int64_t launches, graphs, graph_launches; };
struct moe_cuda_counts moe_cuda_counts(const struct moe_device *d);
/* How the weights came onto the GPU. */
struct moe_load_result moe_cuda_loaded(const struct moe_device *d);
const struct moe_gpu_info *moe_cuda_info(const struct moe_device *d);

#endif
