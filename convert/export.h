/* SPDX-License-Identifier: Apache-2.0 */
/* convert/export.h - a container back to a Hugging Face checkpoint: the original names, types,
 * shapes, files and bytes. */
#ifndef MOE_CONVERT_EXPORT_H
#define MOE_CONVERT_EXPORT_H

#include "base/cancel.h"
#include "base/progress.h"
#include "formats/container/container.h"

struct moe_export_options {
    enum moe_write_mode mode;
    bool dry_run;
    bool vision;                /* vision tensors too, where the container has them */
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};

struct moe_export_result {
    uint64_t input_bytes, output_bytes, memory_bytes;
    int64_t tensors, skipped;   /* skipped: tensors of the source that the container does not hold */
    char first_skipped[256];
    bool was_done;              /* an earlier run left it whole: it got its name, and nothing was read now */
    bool text_only;             /* vision is among them: what is written is the text model, its tensors
                                 * without "language_model." */
};

/* Write `out`, a directory, from the container `src`: the source's own, byte for byte, when the container
 * keeps all of it; else what is kept, with a config.json and an index that speak of nothing else.  Every file
 * appears under its final name complete or not at all; the directory is built as out.partial and renamed
 * (under MOE_WRITE_FORCE exchanged; model/export/export-dir.h says what is ever replaced, anything else
 * is MOE_EXISTS).  MOE_UNSUPPORTED when a tensor is stored in another type than the source had (a quantized
 * container), or src is no container.  Each tensor's bytes are checked against the hash taken when it was
 * converted (MOE_VERIFY). */
enum moe_code moe_export_hf(const struct moe_source *src, const char *out, const struct moe_export_options *o,
                            struct moe_progress *progress, struct moe_export_result *r, struct moe_err *err);

#endif
