/* SPDX-License-Identifier: Apache-2.0 */
/* formats/source-parts.h - what the readers of checkpoints and containers share; for formats/ alone.
 *
 * A reader: moe_source_new, fill config, scheme, files, tensors (and raws), then moe_source_finish.
 * On failure moe_source_close frees what is there so far.  `files`, each file's name and path,
 * `tensors` and `raws` are malloc'd and freed by moe_source_close; a file not open has fd -1.  Names
 * of raws live in index->arena. */
#ifndef MOE_FORMATS_SOURCE_PARTS_H
#define MOE_FORMATS_SOURCE_PARTS_H

#include "base/arena.h"
#include "base/hash.h"
#include "formats/container/small.h"
#include "formats/source.h"

struct moe_source_index {
    struct moe_arena arena;
    /* moe_source_slot -> index of the tensor, -1: none; malloc'd by moe_source_finish */
    int32_t *slot;
    int32_t *raw_of;        /* tensor -> its first raw; NULL in a container; malloc'd */
    unsigned char *excused; /* a bit a slot: its absence was reported already; NULL: none; malloc'd */
    uint64_t form;          /* of moe_source_identity; a container's reader sets it, and its checksum */
    struct moe_hash128 checksum;
    struct moe_smalls small;      /* of a checkpoint, when it was opened */
    struct moe_hash128 manifest;  /* of a container's manifest.json, when it was opened */
};

/* What is wrong, in the order found.  list NULL: only the first is kept, and how many there are. */
struct moe_problems { cJSON *list; int64_t count; struct moe_err first; };

enum { MOE_PROBLEMS_MAX = 1000 }; /* lines in a list; a last line says how many more */

/* Note a problem.  `file` may be a path: a line shows its last component.  file and tensor may be NULL. */
__attribute__((format(printf, 5, 6))) void moe_problem(struct moe_problems *p, enum moe_code code,
                                                       const char *file, const char *tensor, const char *fmt,
                                                       ...);
/* Note what *err says. */
void moe_problem_err(struct moe_problems *p, const struct moe_err *err);
/* MOE_OK when there is none or when they are listed (*err is then the first of them); else *err is the first,
 * saying how many more there are.  Ends the list. */
enum moe_code moe_problems_end(struct moe_problems *p, struct moe_err *err);

enum moe_code moe_source_new(struct moe_source **src, enum moe_kind kind, const char *path,
                             struct moe_err *err);

/* Number of slots for this config, and the slot of a tensor; -1 for what lies outside of the config. Slots
 * ascend by (layer, expert, role). */
int64_t moe_source_slots(const struct moe_config *c);
int64_t moe_source_slot(const struct moe_config *c, enum moe_role role, int layer, int expert);

/* Sort the tensors (a reader with raws delivers them sorted), build the index, give `layout`, and check
 * against the config and the files: missing, extra, duplicate, mis-shaped, a type the role cannot have,
 * planes of wrong size or outside their file. */
enum moe_code moe_source_finish(struct moe_source *src, struct moe_problems *p, struct moe_err *err);

/* Read every NVFP4 global and input scale (4 bytes each) into its tensor.  MOE_NONFINITE for NaN and Inf,
 * MOE_CORRUPT for a global <= 0 or a negative input scale. */
enum moe_code moe_source_read_scalars(struct moe_source *src, struct moe_problems *p, struct moe_err *err);

/* The name that messages use for tensor i: as the checkpoint has it, or canonical. */
const char *moe_source_tensor_name(const struct moe_source *src, int64_t i, char out[128]);

/* Open src->files[i] (name and path set); raises the soft limit of open files to the hard one when it is
 * reached. */
enum moe_code moe_source_open_file(struct moe_source *src, int32_t i, struct moe_err *err);

/* A part of a model; MOE_MISMATCH for a whole one. */
enum moe_code moe_source_open_part(struct moe_source **src, const char *path, struct moe_err *err);

/* A checkpoint directory; formats/checkpoint/checkpoint.c. */
enum moe_code moe_checkpoint_open(struct moe_source **src, const char *path, struct moe_problems *p,
                                  struct moe_err *err);

#endif
