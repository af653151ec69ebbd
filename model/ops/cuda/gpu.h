/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/gpu.h - one GPU: what it is, its memory, copies, launches, waiting, and graphs.
 *
 * It knows the CUDA driver and the list of kernels (kernels/cuda/cuda.def), and nothing of models.
 *
 * ORDER.  A GPU has one stream.  Copies, fills, launches and graphs are done one after the other in the order
 * of the calls, and most calls return before that.
 *
 * FAILURES.  MOE_NOMEM: ordinary host memory.  MOE_DEVICE: everything else, too little memory of the GPU and
 * of host memory that stays in place included, with the call of the driver and, where it may be to blame, the
 * kernel that was launched last.  Once an error has made the context useless (an access to an address that
 * has no memory, an ECC error that cannot be corrected), every later call fails with the first message; close
 * still works.  After a failure nothing comes any more of what was to be read.
 *
 * THREADS.  One thread at a time uses a GPU; it need not be the one that opened it. */
#ifndef MOE_MODEL_OPS_CUDA_GPU_H
#define MOE_MODEL_OPS_CUDA_GPU_H

#include "base/err.h"
#include "kernels/cuda/common.h"
#include "model/ops/address.h"

#include <stdbool.h>
#include <stdint.h>

/* The shared memory in bytes that a GPU must give a block: the most that any kernel takes (dense_fast_128),
 * with its static part.  Hopper and the Blackwell of data centres give 227 KiB, other Blackwells 99. */
enum { MOE_GPU_SHARED_MOST = 212 << 10 };

/* What a GPU is.  bytes: of all its memory. */
struct moe_gpu_info {
    int index;
    char name[128], bus[24];              /* "NVIDIA H100 80GB HBM3", "0000:18:00.0" */
    char uuid[48];                        /* "GPU-" and hex digits, as nvidia-smi -L prints; "": unknown */
    int driver;                           /* the version of CUDA that its driver has: 12040 is 12.4 */
    int major, minor;                     /* compute capability */
    int multiprocessors, numa_node;       /* numa_node: of the host memory next to it, -1 when unknown */
    int shared_bytes;                     /* of shared memory that a block may have */
    uint64_t bytes;
    bool integrated, ecc;
    bool host_pages;                      /* kernels read any host memory through the host's page tables */
    bool virtual_memory;                  /* address ranges can be reserved and backed piece by piece */
    bool posix_fd, fabric;                /* how memory can be handed to another process */
    bool rdma;                            /* its virtual memory can be reached by other devices of the bus */
};

/* MOE_UNSUPPORTED where this build has no GPU kernels (no nvcc was there when it was made). */
enum moe_code moe_gpu_check_build(struct moe_err *err);
/* MOE_DEVICE where the kernels cannot run on such a GPU: its driver is for an older major version of CUDA
 * than the kernels were made with, it is older than Hopper, or it gives a block less than
 * MOE_GPU_SHARED_MOST bytes of shared memory. */
enum moe_code moe_gpu_check_usable(const struct moe_gpu_info *info, struct moe_err *err);
/* How many GPUs there are, at least one; what GPU `index` is.  Neither touches a GPU. */
enum moe_code moe_gpus_found(int *n, struct moe_err *err);
enum moe_code moe_gpu_describe(int index, struct moe_gpu_info *info, struct moe_err *err);
/* The free and the whole memory of GPU `index`, in bytes; the driver sets the GPU up for this process, which
 * takes a moment and some hundred MiB of its memory until the call returns. */
enum moe_code moe_gpu_free_bytes(int index, uint64_t *bytes, struct moe_err *err);

struct moe_gpu;

/* Opens GPU `index` and loads all kernels.  MOE_UNSUPPORTED where this build has none; MOE_DEVICE where there
 * is no driver, no such GPU, or one that is not usable.  After a failure *g is NULL. */
enum moe_code moe_gpu_open(struct moe_gpu **g, int index, struct moe_err *err);
/* Waits for the GPU and gives everything back but what alloc, pin and capture gave; NULL-safe, nulls. */
void moe_gpu_close(struct moe_gpu **g);
const struct moe_gpu_info *moe_gpu_info(const struct moe_gpu *g);
/* Whether every launch outside a graph is waited for, to find the kernel that fails (MOE_GPU_WAIT); whether
 * the context is useless, so that every call fails. */
bool moe_gpu_waits(const struct moe_gpu *g);
bool moe_gpu_is_lost(const struct moe_gpu *g);
/* Its stream, a CUstream, for libraries that take one. */
void *moe_gpu_stream(struct moe_gpu *g);
/* The bytes of its memory that are free now. */
enum moe_code moe_gpu_free_now(struct moe_gpu *g, uint64_t *bytes, struct moe_err *err);

/* ---- memory ---- */

/* Memory of the GPU, aligned to 256 bytes, its content undefined; MOE_DEVICE when it has too little left,
 * with the bytes that are.  0 bytes give the address 0.  free: waits until everything is done, then gives it
 * back; nothing for the address 0. */
enum moe_code moe_gpu_alloc(struct moe_gpu *g, uint64_t bytes, struct moe_addr *out, struct moe_err *err);
void moe_gpu_free(struct moe_gpu *g, struct moe_addr a);
/* Host memory that cannot be paged out, on the NUMA node of the GPU where the system lets us choose. */
enum moe_code moe_gpu_pin(struct moe_gpu *g, uint64_t bytes, void **out, struct moe_err *err);
void moe_gpu_unpin(struct moe_gpu *g, void *p); /* waits like moe_gpu_free; NULL is fine */

/* ---- copies; none of them within a capture but fill, copy, copy_in and copy_out ---- */

/* From host memory, which may change as soon as the call returns; to host memory, which is undefined until
 * the next moe_gpu_wait.  Both pass through pinned memory of the GPU's own; large ones wait in between. */
enum moe_code moe_gpu_write(struct moe_gpu *g, struct moe_addr to, const void *from, uint64_t bytes,
                            struct moe_err *err);
enum moe_code moe_gpu_read(struct moe_gpu *g, void *to, struct moe_addr from, uint64_t bytes,
                           struct moe_err *err);
/* The same at full speed, from and to memory that moe_gpu_pin gave; it must stay as it is until the wait. */
enum moe_code moe_gpu_copy_in(struct moe_gpu *g, struct moe_addr to, const void *pinned, uint64_t bytes,
                              struct moe_err *err);
enum moe_code moe_gpu_copy_out(struct moe_gpu *g, void *pinned, struct moe_addr from, uint64_t bytes,
                               struct moe_err *err);
/* Within the GPU; the two places must not overlap. */
enum moe_code moe_gpu_copy(struct moe_gpu *g, struct moe_addr to, struct moe_addr from, uint64_t bytes,
                           struct moe_err *err);
/* Sets every byte. */
enum moe_code moe_gpu_fill(struct moe_gpu *g, struct moe_addr to, uint8_t byte, uint64_t bytes,
                           struct moe_err *err);

/* ---- work ---- */

/* Launches a kernel with its argument struct of `bytes` bytes, which is copied.  An empty grid does
 * nothing. */
enum moe_code moe_gpu_launch(struct moe_gpu *g, enum moe_cuda_kernel k, struct moe_cuda_grid grid,
                             const void *args, size_t bytes, struct moe_err *err);
/* Until everything is done; what failed since the last wait fails here. */
enum moe_code moe_gpu_wait(struct moe_gpu *g, struct moe_err *err);

/* ---- graphs: launches recorded once and started together ---- */

struct moe_gpu_graph;

/* Between the two, launches and copies are recorded and not done.  After a failure of either nothing is
 * recorded any more. */
enum moe_code moe_gpu_capture_begin(struct moe_gpu *g, struct moe_err *err);
enum moe_code moe_gpu_capture_end(struct moe_gpu *g, struct moe_gpu_graph **out, struct moe_err *err);
enum moe_code moe_gpu_graph_launch(struct moe_gpu *g, struct moe_gpu_graph *graph, struct moe_err *err);
void moe_gpu_graph_free(struct moe_gpu *g, struct moe_gpu_graph **graph); /* NULL-safe; nulls */

#endif
