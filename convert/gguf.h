/* SPDX-License-Identifier: Apache-2.0 */
/* convert/gguf.h - writes a model as one GGUF file of the architecture "deepseek2", as llama.cpp's
 * convert_hf_to_gguf.py does.  docs/reference/gguf.md says which bits go where, and what is exact. */
#ifndef MOE_CONVERT_GGUF_H
#define MOE_CONVERT_GGUF_H

#include "base/cancel.h"
#include "base/pool.h"
#include "base/progress.h"
#include "formats/container/container.h"

/* The type of weights that are neither BF16, F16 nor F32 in the model (those keep their type).
 * AUTO: an NVFP4 weight stays NVFP4 where its global scale can go into other numbers (gguf-powers.c), and
 *   becomes Q6_K elsewhere, or BF16 where rows are not a multiple of 256.  INT4 becomes Q4_0, all other
 *   types BF16.
 * Q6_K: the same, but no weight is NVFP4.
 * BF16, F32: all are decoded to this type. */
enum moe_outtype { MOE_OUT_AUTO, MOE_OUT_BF16, MOE_OUT_F32, MOE_OUT_Q6_K };

/* Why a weight that is NVFP4 in the model is another type in the file.
 * ASKED: outtype is Q6_K.
 * ROWS: its rows are not a multiple of 64 (for Q6_K: of 256).
 * GLOBAL: its global scale is not a power of two.
 * RANGE: the global scale is a power of two, but neither block scales nor other numbers can take it.
 * SMALL: its scales, or those of an INT4 weight, are too small for Q6_K's or Q4_0's F16 scales, so it is
 *   BF16. */
enum moe_gguf_why {
    MOE_GGUF_ASKED,
    MOE_GGUF_ROWS,
    MOE_GGUF_GLOBAL,
    MOE_GGUF_RANGE,
    MOE_GGUF_SMALL,
    MOE_GGUF_WHYS
};
/* n: how many tensors of the file this concerns; first: the first of them in the model, as an index (SMALL:
 * the first tensor whose scales are too small). */
struct moe_gguf_dropped { int64_t n, first; };

/* The largest relative error of a tensor of the model (one expert of a stack) that AUTO accepts before it
 * chooses another type, and above which callers warn.  For comparison, NVFP4 has one of about 0.095 to the
 * values that it was quantized from. */
#define MOE_GGUF_ERROR_MOST 0.01

struct moe_gguf_options {
    enum moe_write_mode mode;  /* RESUME starts over what is unfinished */
    enum moe_outtype outtype;
    /* the peak resident memory of the process stays below so many bytes; 0: below what it has now and half of
     * what the machine has free */
    uint64_t memory;
    bool dry_run;              /* write nothing; of the result only what the plan gives is set */
    const struct moe_cancel *cancel; /* ends the work early; NULL: never */
};

struct moe_gguf_result {
    uint64_t input_bytes, output_bytes, memory_bytes;
    int64_t tensors;           /* tensors of the file, those of input scales included */
    int64_t nvfp4, q6_k;       /* tensors of the file with these types */
    int64_t blocks_rounded;    /* NVFP4 blocks whose scale the file does not hold exactly */
    /* tensors of the model that are BF16, F32 or Q6_K in the file and of a smaller type in the model */
    int64_t decoded;
    struct moe_gguf_dropped dropped[MOE_GGUF_WHYS];
    /* tensors of the model with a value or scale that the file does not hold exactly */
    int64_t rounded;
    /* over all tensors that are decoded or have a scale rounded: sqrt(sum (w - w')^2 / sum w^2) */
    double relative_error;
    double worst_error;        /* the largest relative error of a single tensor of the model */
    int64_t worst;             /* the index of that tensor; -1: all are exact */
    /* an earlier run had finished the file, which now at most got its name; nothing was decoded */
    bool was_done;
    bool no_tokenizer;         /* the model has no tiktoken.model: the file says "none" */
};

/* Writes the file `out`, complete or not at all; its bytes do not depend on the number of threads.
 * MOE_UNSUPPORTED for a shape, a rotary scaling or a mix of types that GGUF cannot express; MOE_VERIFY and
 * MOE_NONFINITE when the model is damaged.  pool and progress may be NULL. */
enum moe_code moe_export_gguf(const struct moe_source *src, const char *out, const struct moe_gguf_options *o,
                              struct moe_pool *pool, struct moe_progress *progress, struct moe_gguf_result *r,
                              struct moe_err *err);

int moe_outtype_find(const char *name); /* "auto", "bf16", "f32", "q6_k"; -1 when it is none of these */

#endif
