/* SPDX-License-Identifier: Apache-2.0 */
/* convert/export-internal.h - what the files that export a container to its source checkpoint share. */
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
    /* the records of source.rest; a container of an older version has none */
    struct moe_originals own;
    char *own_text;                  /* the text that the records point into */
    struct moe_left_out left;        /* kinds of tensors that are not written */
    uint64_t index_bytes;            /* bytes of the tensors that an index names */
    int extra_fd[MOE_EXTRA_COUNT];   /* vision.safetensors and superseded.safetensors; -1: not there */
    char extra_path[MOE_EXTRA_COUNT][PATH_MAX];
    int64_t at;                      /* index of the record in `own` at which the next search begins */
};

/* ---- export-find.c: where the container holds the source's tensors ---- */

/* Opens vision.safetensors or superseded.safetensors as x->extra_fd[kind], and sets where each entry of x->p
 * is in it.  Leaves -1 where the container has no such file. */
enum moe_code moe_export_find_extra(struct moe_exporter *x, enum moe_extra_kind kind, struct moe_err *err);
/* Finds every entry's plane, decides which entries are written, and counts these and the others in x->r and
 * x->left. */
enum moe_code moe_export_resolve(struct moe_exporter *x, struct moe_err *err);
/* Renames the entries as the tensors of a text model: "language_model.model.layers.0..." and
 * "language_model.layers.0..." to "model.layers.0...". */
enum moe_code moe_export_rename_as_text_model(struct moe_exporter *x, struct moe_err *err);
/* Whether an entry is a superseded copy: the index names another file for a tensor of the same name. */
bool moe_export_is_superseded(const struct moe_origin *e);

/* ---- export-shards.c ---- */

/* Writes the safetensors files and their index into x->dir. */
enum moe_code moe_export_write_shards(struct moe_exporter *x, struct moe_err *err);

#endif
