/* SPDX-License-Identifier: Apache-2.0 */
/* convert/gguf.h - a model as one GGUF file of the "deepseek2" architecture, as llama.cpp's
 * convert_hf_to_gguf.py writes it.  docs/reference/gguf.md says which bits go where, and what is exact. */
#ifndef MOE_CONVERT_GGUF_H
#define MOE_CONVERT_GGUF_H

#include "base/cancel.h"
#include "base/pool.h"
#include "base/progress.h"
#include "formats/container/container.h"

/* What becomes of weights that are not BF16 or F32 (those stay what they are).  AUTO: NVFP4 stays NVFP4
 * where its global scale can go into other exponents, and is Q6_K elsewhere, or BF16 where rows are not a
 * multiple of 256; INT4 is Q4_0, the rest is decoded to BF16.  Q6_K: the same without NVFP4.  BF16 and F32:
 * all are decoded to that. */
enum moe_outtype { MOE_OUT_AUTO, MOE_OUT_BF16, MOE_OUT_F32, MOE_OUT_Q6_K };

/* Why what is NVFP4 in the model is not what was asked for: Q6_K was; its rows are not a multiple of
 * 64 (Q6_K: 256); its global scale is not a power of two; it is one, and neither block scales nor
 * anything else can take it.  SMALL: it would be Q6_K, or INT4 would be Q4_0, but scales are too
 * small for F16: it is BF16. */
enum moe_gguf_why {
    MOE_GGUF_ASKED,
    MOE_GGUF_ROWS,
    MOE_GGUF_GLOBAL,
    MOE_GGUF_RANGE,
    MOE_GGUF_SMALL,
    MOE_GGUF_WHYS
};
/* Tensors of the file; the first one in the model (SMALL: the first expert that is why). */
struct moe_gguf_dropped { int64_t n, first; };

/* The relative error of one tensor of the model (one expert of a stack) above which AUTO writes another type,
 * and callers warn.  NVFP4 itself has one of about 0.095 to what it was quantized from. */
#define MOE_GGUF_ERROR_MOST 0.01

struct moe_gguf_options {
    enum moe_write_mode mode;  /* RESUME starts over: a copy keeps no journal */
    enum moe_outtype outtype;
    uint64_t memory;           /* bytes of peak_rss to stay below; 0: half of what the machine has free */
    bool dry_run;              /* fill in the first line of the result, and stop */
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};

struct moe_gguf_result {
    uint64_t input_bytes, output_bytes, memory_bytes;
    int64_t tensors;           /* in the file, scales counted */
    int64_t nvfp4, q6_k;       /* tensors in the file of these types */
    int64_t blocks_rounded;    /* NVFP4 blocks whose scale the file does not hold exactly */
    /* tensors of the model that become BF16, F32 or Q6_K and were something smaller */
    int64_t decoded;
    struct moe_gguf_dropped dropped[MOE_GGUF_WHYS];
    /* tensors of the model with a value or scale that the file does not hold exactly */
    int64_t rounded;
    /* over all tensors that are decoded or have a scale rounded: sqrt(sum (w - w')^2 / sum w^2) */
    double relative_error;
    double worst_error;        /* the same of the one tensor of the model that is held worst */
    int64_t worst;             /* which; -1: all are held exactly */
    /* an earlier run left the file whole: it got its name, and nothing was decoded now */
    bool was_done;
    bool no_tokenizer;         /* the model has no tiktoken.model: the file says "none" */
};

/* Write `out`: whole or not at all, the same bytes at any number of threads.  MOE_UNSUPPORTED: a shape,
 * rotary scaling or mix of types that GGUF cannot say.  MOE_VERIFY, MOE_NONFINITE: the model is damaged.
 * pool and progress may be NULL. */
enum moe_code moe_export_gguf(const struct moe_source *src, const char *out, const struct moe_gguf_options *o,
                              struct moe_pool *pool, struct moe_progress *progress, struct moe_gguf_result *r,
                              struct moe_err *err);

int moe_outtype_find(const char *name); /* "auto", "bf16", "f32", "q6_k"; -1 when it is none of these */

#endif
