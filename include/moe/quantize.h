/* SPDX-License-Identifier: Apache-2.0 */
/* moe/quantize.h - quantizing a model to NVFP4, and what that takes.
 *
 * What the head of moe/convert.h says of outputs, threads and determinism holds here, too. */
#ifndef MOE_QUANTIZE_H
#define MOE_QUANTIZE_H

#include <moe/convert.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct moe_quantize_options {
    size_t size;               /* sizeof(struct moe_quantize_options), set by the caller (moe/moe.h) */
    int64_t threads;           /* 0: as many as there are processors */
    uint64_t memory;           /* most resident bytes, mapped files included; 0: half of what is free */
    /* How scales and codes are chosen (docs/reference/quantization.md), as moe-quantize --method names it:
     * "max", "four-over-six" or "search"; with calibration text "weighted", "gptq" or "fisher".  NULL or
     * "auto": the best that calib and effort allow. */
    const char *method;
    const char *what;          /* which weights become NVFP4: "experts" (NULL), "mlp" or "all-linear" */
    const char *effort;        /* of a calibration: "fast", "balanced" or "best" (NULL) */
    const char *const *calib;  /* n_calib paths of text files to calibrate with; none: no calibration */
    size_t n_calib;
    int64_t calib_tokens;      /* most tokens of the text that are used; 0: 1048576 */
    int64_t sequence_length;   /* tokens of a sequence; 0: 2048, or the model's context if that is less */
    uint64_t seed;             /* of the labels that the Fisher pass samples; at most 2^53 */
    const char *scratch;       /* a directory for hidden states that memory does not hold; NULL: none */
    bool resume;               /* go on from OUTPUT.partial; excludes force */
    bool force;                /* replace what this library wrote there before, once the output is complete */
    struct moe_cancel *cancel; /* the token that can end the call early; NULL: none */
    /* Called with how far the call has come (moe/progress.h); NULL: not called. */
    void (*progress)(void *ctx, const struct moe_progress_report *report);
    void *ctx;                 /* the first argument of `progress` */
};

/* Quantizes the model at `source`, a container or a checkpoint, and writes a container to the path `output`
 * (NAME.moe).  o and w may be NULL; *w is filled in on success.  MOE_USAGE for an unknown word, MOE_EXISTS
 * where something stands at `output` and force is not set or may not replace it, MOE_NOMEM where memory does
 * not hold the work, MOE_NOSPACE where the disk does not hold the output, MOE_UNSUPPORTED where a calibration
 * has nothing to quantize. */
MOE_API enum moe_code moe_quantize_model(const char *source, const char *output,
                                         const struct moe_quantize_options *o, struct moe_written *w,
                                         struct moe_err *err);

/* What a quantization would take. */
struct moe_quantize_needs {
    size_t size;               /* sizeof(struct moe_quantize_needs), set by the caller (moe/moe.h) */
    uint64_t input_bytes, output_bytes;
    uint64_t memory_bytes;     /* largest resident memory */
    uint64_t disk_bytes;       /* space that has to be free where the output goes */
    uint64_t scratch_bytes;    /* space that has to be free in the directory scratch */
    double seconds;            /* estimated from short measurements on this machine */
    int64_t weights_quantized; /* single weights (not tensors) that become NVFP4 */
    /* Whether the work fits into the memory that the options allow; if not, memory_bytes is the least memory
     * that would suffice. */
    bool fits;
};

/* Estimates what moe_quantize_model would take with these options; writes nothing.  o may be NULL; *n is
 * filled in on success, also where the work does not fit. */
MOE_API enum moe_code moe_quantize_estimate(const char *source, const struct moe_quantize_options *o,
                                            struct moe_quantize_needs *n, struct moe_err *err);

#ifdef __cplusplus
}
#endif
#endif
