/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/load-internal.h - what the .c files of load.h share: which reads bring which pieces. */
#ifndef MOE_MODEL_OPS_CUDA_LOAD_INTERNAL_H
#define MOE_MODEL_OPS_CUDA_LOAD_INTERNAL_H

#include "base/arena.h"
#include "model/ops/cuda/load.h"

enum { MOE_LOAD_ALIGN = 4096 };  /* of offsets, sizes and memory of direct reads */

/* A piece and where it comes from: a file (-1: host memory) and an offset; the tensor and plane that it is,
 * when its checksum is known, else NULL. */
struct moe_located {
    const struct moe_load_piece *piece;
    int32_t file, plane;
    uint64_t offset;
    const struct moe_tensor *tensor;
};

/* The part of a piece that a read brings: `at` in the slot.  A piece that one read cannot hold has several,
 * and only the last has `last` set. */
struct moe_load_part { const struct moe_located *of; uint64_t at, bytes, to; bool first, last; };

/* One read of a file, from and to a multiple of MOE_LOAD_ALIGN, and at most as large as a slot. */
struct moe_load_read { int32_t file; uint64_t offset, bytes; int64_t part, n_parts; };

struct moe_load_plan {
    struct moe_arena arena;
    struct moe_located *located;      /* [n], ascending by (file, offset): host memory first */
    int64_t n, n_host;
    struct moe_load_read *read; int64_t n_reads;
    struct moe_load_part *part; int64_t n_parts;
};

/* Plans the reads for slots of that size.  After a failure, too, the caller clears p->arena. */
enum moe_code moe_load_plan(struct moe_load_plan *p, const struct moe_source *src,
                            const struct moe_load_piece *piece, int64_t n, uint64_t slot_bytes,
                            struct moe_err *err);

/* ---- load-mapped.c ---- */

/* Makes the first `bytes` bytes of a read present in the mapping of its file, and sets *at to where they lie
 * there.  MOE_CORRUPT where they cannot be read, the file having become shorter.  Any thread. */
enum moe_code moe_load_reach(const struct moe_source *src, const struct moe_load_read *r, uint64_t bytes,
                             unsigned char **at, struct moe_err *err);
/* Copies from there by a kernel, in the order of the GPU's stream. */
enum moe_code moe_load_copy(struct moe_gpu *g, uint64_t to, const unsigned char *from, uint64_t bytes,
                            struct moe_err *err);

/* ---- load-plan.c ---- */

/* A file opened for reads past the page cache (direct) or through it; -1 with errno. */
int moe_load_open(const char *path, bool direct);
/* Whether the files of the plan can be read past the page cache, and whether what is needed of them is in it,
 * by samples. */
bool moe_load_can_be_direct(const struct moe_load_plan *p, const struct moe_source *src);
bool moe_load_is_cached(const struct moe_load_plan *p, const struct moe_source *src);

#endif
