/* SPDX-License-Identifier: Apache-2.0 */
/* moe/convert.h - models written anew in another layout; what holds for moe/quantize.h, too.
 *
 * The output appears under its name whole or not at all.  A container is built as NAME.partial, from which a
 * call that was interrupted can be resumed with the same input and options.  Equal input and options give
 * equal bytes, whatever the number of threads and the memory.  Has no state; may be called from any thread,
 * for different outputs at once. */
#ifndef MOE_CONVERT_H
#define MOE_CONVERT_H

#include <moe/cancel.h>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* What was written. */
struct moe_written {
    size_t size;               /* sizeof(struct moe_written), set by the caller (moe/moe.h) */
    uint64_t input_bytes, output_bytes;
    int64_t tensors;           /* in the output */
    int64_t weights_quantized; /* single weights that became NVFP4 */
    bool was_done;             /* resume found it complete: nothing was read now */
};

struct moe_convert_options {
    size_t size;               /* sizeof(struct moe_convert_options), set by the caller (moe/moe.h) */
    int64_t threads;           /* 0: as many as there are processors */
    uint64_t memory;           /* bytes to hold at most, mapped files and all; 0: half of what is free */
    /* "source" (NULL): a container in source precision; "hf": a container back as the checkpoint that it was
     * made of; "gguf": a file for llama.cpp */
    const char *to;
    bool resume;               /* go on from OUTPUT.partial (containers alone) */
    bool force;                /* replace what is there, once the new one is whole */
    struct moe_cancel *cancel; /* ends it early; NULL: nobody does */
};

/* source: a container or a checkpoint.  o and w may be NULL; *w is filled in on success.  MOE_EXISTS without
 * force where something stands at `output`; MOE_UNSUPPORTED for what the output's format cannot say.  What
 * force does not replace: anything but what this library wrote. */
MOE_API enum moe_code moe_convert_model(const char *source, const char *output,
                                        const struct moe_convert_options *o, struct moe_written *w,
                                        struct moe_err *err);

#ifdef __cplusplus
}
#endif
#endif
