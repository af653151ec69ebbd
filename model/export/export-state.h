/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/export-state.h - whether a directory is an export that this tool made, unchanged since.
 *
 * The names of the files do not show this, because a fine-tune of the same base has the same names.  So an
 * export keeps a line of text as an extended attribute of its directory (base/leftover.h): a digest of every
 * file's name, size and time, and the work line.  cp does not copy the attribute by default, and after a file
 * was changed the digest is another one. */
#ifndef MOE_MODEL_EXPORT_EXPORT_STATE_H
#define MOE_MODEL_EXPORT_EXPORT_STATE_H

#include "base/cancel.h"
#include "formats/source.h"

#define MOE_EXPORT_PRODUCER "moe" /* the producer's name in a quantization config */

/* What else proves it where that line is missing (a copy, the export of an older version, a file system
 * without extended attributes). */
enum moe_export_proof {
    MOE_PROOF_NONE,
    /* The export gives back the checkpoint that the container was made from, and the directory is that
     * checkpoint too (formats/container/identity.h), so that replacing it loses nothing. */
    MOE_PROOF_SAME,
    /* The directory's quantization config names this tool as its producer, and there is no line. */
    MOE_PROOF_PRODUCER
};

/* Sets the line of the directory `path`, which is open as fd and complete now, with the work line `work`.
 * Where the file system keeps no attributes nothing happens.  Fails when the directory cannot be read. */
enum moe_code moe_export_state_put(const char *path, int fd, const char *work, struct moe_err *err);

/* *is: whether the line says that `work` made the directory, and it is unchanged since. */
enum moe_code moe_export_state_is(const char *path, const char *work, bool *is, struct moe_err *err);

/* The same for an export in one pass: its first line is that of an export of the container, so `work` is
 * compared with the second one (moe_made_command_put). */
enum moe_code moe_export_command_is(const char *path, const char *work, bool *is, struct moe_err *err);

/* MOE_EXISTS, with a message that says what to do, when neither the line nor `proof` shows that `path`, whose
 * files have the right names, is an export.  src is the container whose export is to replace it.
 * MOE_PROOF_SAME reads small files and samples of weights.  Another code: the directory could not be read, or
 * the check was cancelled. */
enum moe_code moe_export_state_check(const char *path, const struct moe_source *src,
                                     enum moe_export_proof proof, const struct moe_cancel *cancel,
                                     struct moe_err *err);

#endif
