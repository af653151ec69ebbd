/* SPDX-License-Identifier: Apache-2.0 */
/* moe/quantize.h - a model quantized to NVFP4.  What moe/convert.h says of its output holds here, too. */
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
    uint64_t memory;           /* bytes to hold at most, mapped files and all; 0: half of what is free */
    /* How scales and codes are chosen, as moe-quantize --method names it: "max", "four-over-six", "search";
     * with calibration text "weighted", "gptq", "fisher"; NULL: the best that there is */
    const char *method;
    const char *what;          /* "experts" (NULL), "mlp" or "all-linear": which weights become NVFP4 */
    const char *effort;        /* with text: "fast", "balanced" or "best" (NULL) */
    const char *const *calib;  /* n_calib files of text to calibrate with; none: without data */
    size_t n_calib;
    int64_t calib_tokens;      /* how many tokens of it are used; 0: 1048576 */
    int64_t sequence_length;   /* tokens of a sequence; 0: 2048, or the model's context if that is less */
    uint64_t seed;             /* of the answers that the Fisher pass draws */
    const char *scratch;       /* a directory for hidden states that memory does not hold; NULL: none */
    bool resume;               /* go on from OUTPUT.partial */
    bool force;                /* replace what is there, once the new one is whole */
    struct moe_cancel *cancel; /* ends it early; NULL: nobody does */
};

/* source: a container or a checkpoint; output: the directory NAME.moe.  o and w may be NULL; *w is filled in
 * on success.  MOE_USAGE for an unknown word, MOE_EXISTS without force where something stands at `output`,
 * MOE_NOMEM where the memory does not hold a calibration, MOE_UNSUPPORTED where nothing is left to
 * calibrate. */
MOE_API enum moe_code moe_quantize_model(const char *source, const char *output,
                                         const struct moe_quantize_options *o, struct moe_written *w,
                                         struct moe_err *err);

/* What a run with these options would take. */
struct moe_quantize_needs {
    size_t size;               /* sizeof(struct moe_quantize_needs), set by the caller (moe/moe.h) */
    uint64_t input_bytes, output_bytes;
    uint64_t memory_bytes;     /* held at most */
    uint64_t disk_bytes;       /* free where the output goes */
    uint64_t scratch_bytes;    /* free in scratch */
    double seconds;            /* estimated from short measurements on this machine */
    int64_t weights_quantized;
    bool fits;                 /* in the memory allowed */
};

/* Writes nothing.  o may be NULL; *n is filled in on success, also where it does not fit. */
MOE_API enum moe_code moe_quantize_estimate(const char *source, const struct moe_quantize_options *o,
                                            struct moe_quantize_needs *n, struct moe_err *err);

#ifdef __cplusplus
}
#endif
#endif
