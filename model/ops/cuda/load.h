/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/load.h - brings the bytes of a model into the memory of a GPU.
 *
 * Files are read in large pieces, by several threads, while others are copied:
 *   direct   past the page cache (O_DIRECT) into pinned slots, for files that are not in it
 *   cached   from the page cache, or into it, and into pinned slots
 *   mapped   not copied on the host at all: a kernel reads them in their mapping, where the GPU reads any
 *            host memory through the host's page tables (Grace); threads bring the pages in before
 * The driver is never asked to copy from a mapping, which it does page by page.  auto is cached where samples
 * of what is needed are in the page cache, and where the file system cannot read past it; else direct.  It is
 * never mapped, which nobody has timed yet.
 *
 * A plane of a container that is loaded whole is compared with its checksum on the way.  Knows files and
 * addresses, nothing of what the weights are for. */
#ifndef MOE_MODEL_OPS_CUDA_LOAD_H
#define MOE_MODEL_OPS_CUDA_LOAD_H

#include "base/cancel.h"
#include "base/progress.h"
#include "formats/source.h"
#include "model/ops/cuda/gpu.h"

enum moe_load_path { MOE_LOAD_AUTO, MOE_LOAD_DIRECT, MOE_LOAD_CACHED, MOE_LOAD_MAPPED, MOE_LOAD_ATTACHED };
/* "auto", "direct", "cached", "mapped", "attached" (which moe_load does not know: another process has loaded,
 * kept.h); parse: false for "attached" and for any other text. */
const char *moe_load_path_name(enum moe_load_path p);
bool moe_load_path_parse(const char *text, enum moe_load_path *p);

/* Bytes for device address `to`, a multiple of 256; the rest of the last 256 bytes there belongs to the
 * piece, too.  `from` points into a mapping of the source (moe_source_map), which says where in a file the
 * bytes are, or to other host memory.  blocks: 0; or the bytes are scales of NVFP4 in rows of `blocks`, which
 * become tiles (MOE_LAYOUT_TILE_128X4) on the way, and have the place of these. */
struct moe_load_piece { const void *from; uint64_t bytes, to; int64_t blocks; };

struct moe_load_options {
    enum moe_load_path path;
    int slots;                        /* pinned slots, and threads that fill them; 0: 4 */
    uint64_t slot_bytes;              /* a multiple of 4096; 0: 64 MiB, or less where little is loaded */
    struct moe_progress *progress;    /* may be NULL; bytes of the pieces */
    const struct moe_cancel *cancel;  /* may be NULL */
};

/* What was done.  bytes: of the pieces, as they are read; bytes_read: from files.  seconds: in all; reading,
 * checking: by the threads together; copying: how long the copies took on the GPU's side, which overlaps with
 * both. */
struct moe_load_result {
    enum moe_load_path path;          /* not AUTO */
    uint64_t bytes, bytes_read, pinned_bytes;
    double seconds, reading, checking, copying;
};

/* MOE_UNSUPPORTED where this GPU cannot load by that path. */
enum moe_code moe_load_check(const struct moe_gpu_info *info, enum moe_load_path p, struct moe_err *err);

/* Loads n pieces, in an order of its own; all bytes are there when it returns.  MOE_CORRUPT names a tensor
 * that differs from its checksum.  After a failure, or a request to end, the content of the places is
 * undefined, and nothing else is left behind.  The source may be used by others meanwhile. */
enum moe_code moe_load(struct moe_gpu *g, const struct moe_source *src, const struct moe_load_piece *piece,
                       int64_t n, const struct moe_load_options *o, struct moe_load_result *r,
                       struct moe_err *err);

#endif
