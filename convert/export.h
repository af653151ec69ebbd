/* SPDX-License-Identifier: Apache-2.0 */
/* convert/export.h - writes the Hugging Face checkpoint that a container was made from: the original names,
 * types, shapes, files and bytes. */
#ifndef MOE_CONVERT_EXPORT_H
#define MOE_CONVERT_EXPORT_H

#include "base/cancel.h"
#include "base/progress.h"
#include "formats/container/container.h"

struct moe_export_options {
    enum moe_write_mode mode;
    bool dry_run;
    bool vision;                /* write vision tensors too, where the container has them */
    const struct moe_cancel *cancel; /* ends the work early; NULL: never */
};

struct moe_export_result {
    uint64_t input_bytes, output_bytes, memory_bytes;
    int64_t tensors, skipped;   /* skipped: tensors of the source that the container does not hold */
    char first_skipped[256];
    bool was_done;              /* an earlier run had finished the directory; now it at most got its name */
    bool text_only;             /* vision tensors are skipped: the text model is written, its tensors without
                                 * "language_model." */
};

/* Writes the directory `out` from the container `src`.  When the container keeps all of its source, this is
 * the source's directory, byte for byte; else it has what is kept, with a config.json and an index that
 * describe nothing else.  The directory is built as out.partial and renamed when it is complete;
 * model/export/export-dir.h says what it may replace, and anything else at `out` is MOE_EXISTS.
 * MOE_UNSUPPORTED when src is no container or has a tensor in another type than its source (a quantized
 * container).  Each tensor's bytes are checked against the hash taken when it was converted (MOE_VERIFY). */
enum moe_code moe_export_hf(const struct moe_source *src, const char *out, const struct moe_export_options *o,
                            struct moe_progress *progress, struct moe_export_result *r, struct moe_err *err);

#endif
