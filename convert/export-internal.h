/* SPDX-License-Identifier: Apache-2.0 */
/* convert/export-internal.h - what the parts of the way back to a checkpoint share. */
#ifndef MOE_CONVERT_EXPORT_INTERNAL_H
#define MOE_CONVERT_EXPORT_INTERNAL_H

#include "base/hash.h"
#include "base/progress.h"
#include "convert/export.h"
#include "convert/provenance.h"
#include "formats/container/original.h"
#include "model/export/model-config.h"

#include <limits.h>

enum { MOE_EXPORT_PIECE = 4 << 20 }; /* bytes that are read and written at once */

struct moe_exporter {
    const struct moe_source *src;
    const char *dir;                 /* out.partial */
    struct moe_provenance *p;
    struct moe_progress *progress;
    const struct moe_cancel *cancel;
    struct moe_export_result *r;
    unsigned char *buffer;           /* [MOE_EXPORT_PIECE] */
    struct moe_hash *hash;
    struct moe_originals own;        /* records of source.rest; none in a container of an older version */
    char *own_text;
    struct moe_left_out left;        /* kinds of tensors that do not go out */
    uint64_t index_bytes;            /* of the tensors that an index names */
    int aside_fd[MOE_ASIDE_COUNT];   /* vision.safetensors, superseded.safetensors, or -1 */
    char aside_path[MOE_ASIDE_COUNT][PATH_MAX];
    int64_t at;                      /* where the search for the next record begins */
};

/* ---- export-find.c: what a source tensor was made of ---- */

/* Opens what the container keeps of tensors beside its own: x->aside_fd[kind], and where each entry of
 * x->p lies in it.  Leaves -1 where the container has none. */
enum moe_code moe_export_find_aside(struct moe_exporter *x, enum moe_aside kind, struct moe_err *err);
/* Finds every entry's plane and counts what goes out and what does not, into x->r and x->left. */
enum moe_code moe_export_resolve(struct moe_exporter *x, struct moe_err *err);
/* Gives tensors the names of a text model: "model.layers.0..." for "language_model.model.layers.0..." or
 * "language_model.layers.0...". */
enum moe_code moe_export_text_names(struct moe_exporter *x, struct moe_err *err);
/* Whether an entry is a copy that another one supersedes. */
bool moe_export_is_superseded(const struct moe_origin *e);

/* ---- export-shards.c ---- */

/* Writes the safetensors files and their index into x->dir. */
enum moe_code moe_export_shards(struct moe_exporter *x, struct moe_err *err);

#endif
