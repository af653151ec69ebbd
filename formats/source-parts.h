/* SPDX-License-Identifier: Apache-2.0 */
/* formats/source-parts.h - what the readers of checkpoints and containers share; for formats/ alone.
 *
 * A reader calls moe_source_new, fills in config, scheme, files, tensors (and raws), and calls
 * moe_source_finish.  On failure it calls moe_source_close, which frees what is there so far.
 * moe_source_close frees `files`, each file's name and path, `tensors` and `raws`, all of which are malloc'd;
 * a file that is not open has fd -1.  The names of raws are allocated in index->arena. */
#ifndef MOE_FORMATS_SOURCE_PARTS_H
#define MOE_FORMATS_SOURCE_PARTS_H

#include "base/arena.h"
#include "base/hash.h"
#include "formats/container/small.h"
#include "formats/source.h"

struct moe_source_index {
    struct moe_arena arena;
    /* [slots] the tensor in each slot (moe_source_slot), -1: none; malloc'd by moe_source_finish */
    int32_t *slot;
    int32_t *raw_of;             /* [n_tensors] a tensor's first raw; NULL in a container; malloc'd */
    /* a bit for each slot that must not be reported missing; NULL: none; malloc'd */
    unsigned char *missing_suppressed;
    uint64_t header_digest;      /* a part of the identity (formats/container/identity.h) */
    struct moe_hash128 checksum; /* of a container: the one in its manifest */
    struct moe_hash128 manifest; /* of a container: digest of its manifest.json when it was opened */
    struct moe_small_digests small_digests; /* of a checkpoint: its small files when it was opened */
};

/* Problems in the order in which they were found.  list NULL: only their number and the first one are
 * kept. */
struct moe_problems { cJSON *list; int64_t count; struct moe_err first; };

enum { MOE_PROBLEMS_MAX = 1000 }; /* entries of a list; one more entry says how many were left out */

/* Add a problem.  `file` may be a path, of which only the last component is shown; file and tensor may be
 * NULL. */
__attribute__((format(printf, 5, 6)))
void moe_problem_add(struct moe_problems *p, enum moe_code code, const char *file, const char *tensor,
                     const char *fmt, ...);
/* Add the problem that *err describes. */
void moe_problem_add_err(struct moe_problems *p, const struct moe_err *err);
/* End the list.  MOE_OK when there is no problem, or when there is a list (*err is then the first problem).
 * Otherwise the first problem is returned, and *err also says how many more there are. */
enum moe_code moe_problems_end(struct moe_problems *p, struct moe_err *err);

enum moe_code moe_source_new(struct moe_source **src, enum moe_kind kind, const char *path,
                             struct moe_err *err);

/* A slot is the index of a tensor among all that the config calls for, ascending by (layer, expert, role).
 * The number of slots, and the slot of a tensor; -1 for a tensor outside of the config. */
int64_t moe_source_slots(const struct moe_config *c);
int64_t moe_source_slot(const struct moe_config *c, enum moe_role role, int layer, int expert);

/* Sort the tensors (those of a reader with raws are sorted already), build the index, set `layout`, and check
 * everything against the config and the files: tensors that are missing, not called for, there twice, or of a
 * wrong shape or type, and planes of a wrong size or outside of their file. */
enum moe_code moe_source_finish(struct moe_source *src, struct moe_problems *p, struct moe_err *err);

/* Read the global and input scales of every NVFP4 tensor (4 bytes each) into its descriptor.  MOE_NONFINITE
 * for NaN and Inf, MOE_CORRUPT for a global scale <= 0 or a negative input scale. */
enum moe_code moe_source_read_scalars(struct moe_source *src, struct moe_problems *p, struct moe_err *err);

/* The name of tensor i in messages: the checkpoint's own, or the canonical one of a container's tensor. */
const char *moe_source_tensor_name(const struct moe_source *src, int64_t i, char out[128]);

/* Open src->files[i], whose name and path are set; when too many files are open, the soft limit is raised to
 * the hard one. */
enum moe_code moe_source_open_file(struct moe_source *src, int32_t i, struct moe_err *err);

/* Open a container that is a part of a model; MOE_MISMATCH for a whole one. */
enum moe_code moe_source_open_part(struct moe_source **src, const char *path, struct moe_err *err);

/* Open a checkpoint directory; in formats/checkpoint/checkpoint.c. */
enum moe_code moe_checkpoint_open(struct moe_source **src, const char *path, struct moe_problems *p,
                                  struct moe_err *err);

#endif
