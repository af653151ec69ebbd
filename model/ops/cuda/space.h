/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/space.h - where the routed experts of a model lie on a GPU: an address range for each layer,
 * indexed by the expert's number in the whole model, of which only a part has memory (ADR 14).
 *
 * Expert e of a layer lies at base + e * stride, whichever experts are here, so that what kernels and graphs
 * know of addresses never changes.  Memory comes in units of the GPU's granularity (2 MiB): an expert is one
 * unit of one or several of these, or, where experts are small, a power of two of them share a unit.
 *
 * An expert without memory is a hole, and to touch it ends the context.  So there is a bitmap of the experts
 * that may be used, in device memory, which the kernel that groups tokens by expert looks at.  An expert
 * comes by back, loading, show, and leaves by hide and drop; show and hide are done in the order of the
 * stream, and drop waits for what was launched before.
 *
 * Knows nothing of models and files.  Errors and threads are as in model/ops/cuda/gpu.h. */
#ifndef MOE_MODEL_OPS_CUDA_SPACE_H
#define MOE_MODEL_OPS_CUDA_SPACE_H

#include "model/ops/cuda/gpu.h"

struct moe_space;

/* How far apart experts of `bytes` bytes lie, for a granularity that is a power of two; the memory that n
 * neighbours take at most, of which the first may lie anywhere. */
uint64_t moe_space_stride_for(uint64_t bytes, uint64_t granularity);
uint64_t moe_space_estimate(uint64_t bytes, int64_t n, uint64_t granularity);
/* The GPU's granularity in bytes; MOE_DEVICE where it has no address ranges. */
enum moe_code moe_space_granularity(struct moe_gpu *g, uint64_t *bytes, struct moe_err *err);

/* Reserves the ranges of n layers for `experts` experts each; bytes [n]: the size of an expert of each layer,
 * 0 for layers without experts.  No expert has memory yet.  shared: other processes may be given the memory
 * (moe_space_export).  g stays the caller's, and open until the close. */
enum moe_code moe_space_open(struct moe_space **s, struct moe_gpu *g, int n, const uint64_t *bytes,
                             int experts, bool shared, struct moe_err *err);
/* Waits for the GPU, and gives all memory and all ranges back; NULL-safe, nulls. */
void moe_space_close(struct moe_space **s);

struct moe_addr moe_space_base(const struct moe_space *s, int layer);     /* 0: no experts */
uint64_t moe_space_stride(const struct moe_space *s, int layer);          /* bytes */
/* The bitmap of a layer in device memory: bit e % 32 of word e / 32 is set where expert e may be used. */
struct moe_addr moe_space_resident(const struct moe_space *s, int layer);
bool moe_space_has(const struct moe_space *s, int layer, int expert);     /* whether it is shown */
uint64_t moe_space_bytes(const struct moe_space *s);                      /* memory that ranges have now */
/* The units of a layer's range, with and without memory (0: no experts), and the first expert of one. */
int64_t moe_space_units(const struct moe_space *s, int layer);
int32_t moe_space_unit_first(const struct moe_space *s, int layer, int64_t unit);

/* Gives memory to n experts, ascending, whose content is then undefined; those that have memory keep it.
 * After a failure the experts have what they had before. */
enum moe_code moe_space_back(struct moe_space *s, int layer, const int32_t *expert, int64_t n,
                             struct moe_err *err);
/* The experts may be used by what is launched from now on; must not be used by it. */
enum moe_code moe_space_show(struct moe_space *s, int layer, const int32_t *expert, int64_t n,
                             struct moe_err *err);
enum moe_code moe_space_hide(struct moe_space *s, int layer, const int32_t *expert, int64_t n,
                             struct moe_err *err);
/* Takes the memory of n experts back, which are hidden; waits for everything that was launched. */
enum moe_code moe_space_drop(struct moe_space *s, int layer, const int32_t *expert, int64_t n,
                             struct moe_err *err);

/* A descriptor, which the caller closes, of the memory of the unit that expert e lies in, for another process
 * on this machine; of a shared space alone.  import: gives expert e, which has none, such memory, which must
 * have the size of its unit, together with what the other process put there, to be read and not written; *fd
 * stays the caller's.  The other experts of the unit get it by back. */
enum moe_code moe_space_export(struct moe_space *s, int layer, int expert, int *fd, struct moe_err *err);
enum moe_code moe_space_import(struct moe_space *s, int layer, int expert, int fd, struct moe_err *err);

#endif
