/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/export-dir.h - the directory of an export: what it may replace; the
 * small files of every export. */
#ifndef MOE_MODEL_EXPORT_EXPORT_DIR_H
#define MOE_MODEL_EXPORT_EXPORT_DIR_H

#include "base/newdir.h"
#include "formats/container/container.h"
#include "model/export/export-made.h"

/* The container that an export in one pass writes beside its files, inside its unfinished directory. */
#define MOE_EXPORT_WITHIN "quantized.moe"

/* options: a word for each that changes bytes. */
struct moe_export_dir {
    const struct moe_source *src; /* a container; with `work` a checkpoint, too */
    const char *options;
    enum moe_write_mode mode;
    enum moe_export_proof proof;
    const char *work;             /* NULL: `options` of the container src.  Else what is written, by a writer
                                   * that keeps a journal in MOE_EXPORT_WITHIN: RESUME keeps what it left */
    const struct moe_cancel *cancel; /* ends reading what stands there; NULL: nobody will */
};

/* "moe VERSION OPTIONS of CHECKSUM": what an export of the container src is, and one in one pass, too. */
void moe_export_dir_work(const struct moe_source *src, const char *options, char work[MOE_WORK_BYTES]);

/* Begin the directory `out` (base/newdir.h): its d->path is empty.  MOE_WRITE_FORCE may replace a
 * checkpoint in which every file is one that an export of src writes and that is shown to be an export of
 * this tool (model/export/export-made.h), or an empty directory, and nothing else; so may RESUME of such a
 * run that was killed, while what stood there then still does.  An unfinished directory that holds nothing
 * but files of an export of src is started over under FORCE, and under RESUME when its source and options
 * were the same (MOE_MISMATCH: not); an export is a copy and keeps no journal.  One that is finished and
 * waits for its name goes under FORCE alone, and RESUME with the same source and options publishes it:
 * d->whole is set, and nothing is to be written; nor is it when such a run's export stands at `out` already,
 * unchanged.  MOE_EXISTS otherwise; MOE_USAGE when `out` is, holds or lies in the model that is exported.
 * After a failure nothing is to be ended. */
enum moe_code moe_export_dir_begin(struct moe_newdir *d, const struct moe_export_dir *e, const char *out,
                                   struct moe_err *err);
/* When `code` is MOE_OK and src is still what was opened (MOE_MISMATCH: not) publish it as `out`, or exchange
 * it with what was there when begin allowed that; then, in any case, end it.  What was not published is
 * removed, unless only its name was taken meanwhile. */
enum moe_code moe_export_dir_end(struct moe_newdir *d, const struct moe_export_dir *e, enum moe_code code,
                                 struct moe_err *err);

/* For a writer with `work`: all but MOE_EXPORT_WITHIN is written and durable, `made` is what it is as an
 * export of that container.  From here on RESUME has nothing to write. */
enum moe_code moe_export_dir_whole(struct moe_newdir *d, const struct moe_export_dir *e, const char *made,
                                   struct moe_err *err);

/* Copy the small files of a container (its hf/ and tokenizer/) into `dir`, but for those named in `except`
 * (ends with NULL) and, without `vision`, those that speak of images alone. */
enum moe_code moe_export_small_files(const struct moe_source *src, const char *dir, const char *const *except,
                                     bool vision, struct moe_err *err);

#endif
