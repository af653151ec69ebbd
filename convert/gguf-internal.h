/* convert/gguf-internal.h - what the parts of the GGUF export share. */
#ifndef MOE_CONVERT_GGUF_INTERNAL_H
#define MOE_CONVERT_GGUF_INTERNAL_H

#include "convert/gguf.h"
#include "formats/gguf.h"

/* ---- gguf-plan.c: which tensor goes where ---- */

struct moe_gguf_plan {
    struct moe_gguf_tensor *t;
    int64_t n;
    int32_t *to;      /* [src->n_tensors] the tensor each is (part of); kv_b: its k_b, v_b is the next */
    int32_t *scale;   /* [n] the tensor that holds its second scales, -1: none */
    int32_t *input;   /* [n] the same of its input scales */
};

enum moe_code moe_gguf_plan(struct moe_gguf_plan *p, const struct moe_source *src, enum moe_outtype outtype, struct moe_err *err);
void moe_gguf_plan_release(struct moe_gguf_plan *p);
/* The element of its .scale and .input_scale tensors that belongs to `t`. */
float moe_gguf_scale(const struct moe_tensor *t);
float moe_gguf_input_scale(const struct moe_tensor *t);

/* ---- gguf-meta.c: metadata and the tokenizer ---- */

enum moe_code moe_gguf_metadata(struct moe_gguf_meta *m, const struct moe_source *src, const struct moe_gguf_plan *p, bool *no_tokenizer,
                                struct moe_err *err);
enum moe_code moe_gguf_tokenizer(struct moe_gguf_meta *m, const struct moe_source *src, bool *none, struct moe_err *err);

/* ---- gguf-pack.c: rows of codes in ggml's order ---- */

/* NVFP4: `cols` (a multiple of 64) codes and their scales -> cols / 64 blocks of 36 bytes.  False when a scale is NaN or has
 * its sign bit set: ggml's have none. */
bool moe_gguf_pack_nvfp4(const uint8_t *codes, const uint8_t *scales, int64_t cols, uint8_t *out);
/* INT4: `cols` (a multiple of 32) codes and their BF16 scales -> cols / 32 blocks of 18 bytes.  Returns how many scales F16
 * does not hold exactly (they are rounded to nearest); -1 when one is too large for F16. */
int64_t moe_gguf_pack_q4_0(const uint8_t *codes, const uint8_t *scales, int64_t cols, uint8_t *out);

#endif
