/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/export-dir.h - the directory that an export writes: how it is begun and published, what it may
 * replace, and the small files that every export writes.
 *
 * An export writes a checkpoint from a container.  An export "in one pass" (model/rewrite/rewrite-hf.h)
 * quantizes a model and writes the checkpoint at the same time; until the end it keeps in its unfinished
 * directory the inner container, which has holes where the checkpoint holds the values. */
#ifndef MOE_MODEL_EXPORT_EXPORT_DIR_H
#define MOE_MODEL_EXPORT_EXPORT_DIR_H

#include "base/newdir.h"
#include "formats/container/container.h"
#include "model/export/export-state.h"

/* The name of the inner container in the unfinished directory. */
#define MOE_EXPORT_INNER "quantized.moe"

struct moe_export_dir {
    const struct moe_source *src; /* what is exported: a container; with `work` it may be a checkpoint */
    const char *options;          /* those options that change the bytes written, as words */
    enum moe_write_mode mode;
    enum moe_export_proof proof;  /* what else proves that a directory is an export */
    const char *work;             /* the work line (base/leftover.h) of an export in one pass, whose container
                                   * keeps journals, so that RESUME goes on with it; NULL: not in one pass */
    const struct moe_cancel *cancel; /* ends the checks of what may be replaced; NULL: never */
};

/* Writes the work line of an export of the container src: "moe VERSION OPTIONS of CHECKSUM". */
void moe_export_dir_work(const struct moe_source *src, const char *options, char work[MOE_WORK_BYTES]);

/* Begins the directory `out` (base/newdir.h).  On success either d->path is an empty directory to write into
 * (with e->work it may hold what the same work left), or d->whole is set and nothing is to be written.
 *
 * What stands at `out` is replaced under MOE_WRITE_FORCE alone, and only when it is an empty directory, or
 * a checkpoint of which every file is one that an export of src writes and which is proved to be an export of
 * this tool (model/export/export-state.h).  RESUME may replace the same when it goes on with a run under
 * FORCE that was killed.  When `out` is, unchanged, what the same source and options give, RESUME sets
 * d->whole.
 *
 * out.partial of an earlier run that is unfinished, and holds nothing but files of an export of src, is
 * started over under FORCE, and under RESUME when its source and options were the same (else MOE_MISMATCH).
 * An out.partial that is complete and only waits for its name is thrown away under FORCE alone; RESUME with
 * the same source and options sets d->whole, and moe_export_dir_end publishes it.
 *
 * In all other cases MOE_EXISTS; MOE_USAGE when `out` is, holds or lies in the model that is exported.  After
 * a failure moe_export_dir_end must not be called. */
enum moe_code moe_export_dir_begin(struct moe_newdir *d, const struct moe_export_dir *e, const char *out,
                                   struct moe_err *err);
/* When `code` is MOE_OK and src has not changed since it was opened (else MOE_MISMATCH), publishes the
 * directory as `out`, in the place of what begin allowed to replace.  Then, in any case, ends d.  A directory
 * that was not published is removed, unless d->keep is set, or it is complete and only its name was taken
 * meanwhile. */
enum moe_code moe_export_dir_end(struct moe_newdir *d, const struct moe_export_dir *e, enum moe_code code,
                                 struct moe_err *err);

/* For an export in one pass, when all its files are written and durable: marks the directory as complete, so
 * that from now on RESUME has only to remove the inner container and to publish.  `export_work` is the work
 * line of an export of that container (moe_export_dir_work). */
enum moe_code moe_export_dir_complete(struct moe_newdir *d, const struct moe_export_dir *e,
                                      const char *export_work, struct moe_err *err);

/* Copies the small files of a container (its hf/ and tokenizer/) into `dir`, but for those named in `except`
 * (a list that ends with NULL) and, unless `vision`, those that serve images alone. */
enum moe_code moe_export_small_files(const struct moe_source *src, const char *dir, const char *const *except,
                                     bool vision, struct moe_err *err);

#endif
