/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/export-made.h - is a directory an export that this tool made, as it made it?
 *
 * The names of its files do not tell: a fine-tune of the same base has the same ones.  An export leaves a
 * line with its directory (base/leftover.h), a digest of every file's name, size and time; cp does not take
 * it along by default, and a file that was changed or written over since is not what it speaks of. */
#ifndef MOE_MODEL_EXPORT_EXPORT_MADE_H
#define MOE_MODEL_EXPORT_EXPORT_MADE_H

#include "base/cancel.h"
#include "formats/source.h"

#define MOE_EXPORT_PRODUCER "moe" /* the producer's name in a quantization config */

/* What proves it without that line (a copy, an older version's export, a file system that keeps none). */
enum moe_export_proof {
    MOE_PROOF_NONE,
    /* the export is the very checkpoint that the container was made from, and so is the directory: nothing is
     * lost (formats/container/identity.h) */
    MOE_PROOF_SAME,
    /* the directory's quantization config has this tool as producer, and there is no line */
    MOE_PROOF_PRODUCER
};

/* Leave the line with the directory `path`, open as fd, that is whole now; it names the `work`
 * (base/leftover.h), too.  Fails when it cannot be read. */
enum moe_code moe_export_made_put(const char *path, int fd, const char *work, struct moe_err *err);

/* Whether the line says that `work` made what is there, as it is. */
enum moe_code moe_export_made_is(const char *path, const char *work, bool *is, struct moe_err *err);

/* The same of an export in one pass, whose line is that of an export of the container: `work` is in the
 * second line (moe_made_by_put). */
enum moe_code moe_export_made_by(const char *path, const char *work, bool *is, struct moe_err *err);

/* MOE_EXISTS, saying what to do, when nothing proves that `path`, with files of the right names, is an
 * export.  src: the container that is to take its place.  For MOE_PROOF_SAME small files and samples of
 * weights are read.  Other
 * codes: it could not be looked at. */
enum moe_code moe_export_made_check(const char *path, const struct moe_source *src,
                                    enum moe_export_proof proof, const struct moe_cancel *cancel,
                                    struct moe_err *err);

#endif
