/* SPDX-License-Identifier: Apache-2.0 */
/* moe/convert.h - converting a model to another layout on disk.
 *
 * These rules hold for moe/quantize.h, too.  The output appears under its name complete or not at all.  A
 * container is built as NAME.partial, from which a call with the same input and options can resume one that
 * was interrupted.  Equal input and options give equal bytes, whatever the number of threads and the memory.
 * The functions keep no state: they may be called from any thread, and at the same time for different
 * outputs. */
#ifndef MOE_CONVERT_H
#define MOE_CONVERT_H

#include <moe/cancel.h>
#include <moe/progress.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What a conversion or a quantization wrote. */
struct moe_written {
    size_t size;               /* sizeof(struct moe_written), set by the caller (moe/moe.h) */
    uint64_t input_bytes, output_bytes;
    int64_t tensors;           /* in the output */
    int64_t weights_quantized; /* single weights (not tensors) that became NVFP4 */
    bool was_done;             /* an earlier call had completed the output; nothing was computed now */
};

struct moe_convert_options {
    size_t size;               /* sizeof(struct moe_convert_options), set by the caller (moe/moe.h) */
    int64_t threads;           /* 0: as many as there are processors */
    uint64_t memory;           /* most resident bytes, mapped files included; 0: half of what is free */
    /* "source" or NULL: a container whose tensors keep their types; "hf": the checkpoint that a container was
     * made from; "gguf": a file for llama.cpp */
    const char *to;
    /* go on from OUTPUT.partial; "hf" and "gguf" start over unless it is complete.  Excludes force. */
    bool resume;
    bool force;                /* replace what this library wrote there before, once the output is complete */
    struct moe_cancel *cancel; /* the token that can end the call early; NULL: none */
    /* Called with how far the call has come (moe/progress.h); NULL: not called. */
    void (*progress)(void *ctx, const struct moe_progress_report *report);
    void *ctx;                 /* the first argument of `progress` */
};

/* Converts the model at `source`, a container or a checkpoint (for "hf" a container), and writes it to the
 * path `output`.  o and w may be NULL; *w is filled in on success.  MOE_EXISTS where something stands at
 * `output` and force is not set or may not replace it, MOE_UNSUPPORTED for a model that the output's format
 * cannot represent, MOE_VERIFY or MOE_NONFINITE for damaged weights, MOE_NOSPACE where the disk does not hold
 * the output. */
MOE_API enum moe_code moe_convert_model(const char *source, const char *output,
                                        const struct moe_convert_options *o, struct moe_written *w,
                                        struct moe_err *err);

#ifdef __cplusplus
}
#endif
#endif
