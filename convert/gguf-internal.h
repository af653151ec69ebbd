/* SPDX-License-Identifier: Apache-2.0 */
/* convert/gguf-internal.h - what the parts of the GGUF export share. */
#ifndef MOE_CONVERT_GGUF_INTERNAL_H
#define MOE_CONVERT_GGUF_INTERNAL_H

#include "convert/gguf.h"
#include "formats/gguf/gguf.h"

/* ---- gguf-fold.c: types, and where the powers of two of NVFP4's global scales go ---- */

struct moe_gguf_fold {
    uint8_t *type;     /* [src->n_tensors] enum moe_gguf_type */
    /* [src->n_tensors] the file's values are the model's times 2^this; of kv_b: v_b's are */
    int16_t *power;
    int routing;       /* the file's factor of routing weights is the model's times 2^this */
    bool *inexact;     /* [src->n_tensors] NVFP4 or Q4_0 in the file, and some of its scales may be rounded */
    struct moe_gguf_dropped dropped[MOE_GGUF_WHYS];
};

/* Reads the block scales of what may be NVFP4, Q6_K or Q4_0 in the file of outtype AUTO; in a dry run not
 * those of experts, which then fit.  pool, progress may be NULL. */
enum moe_code moe_gguf_fold(struct moe_gguf_fold *f, const struct moe_source *src,
                            const struct moe_gguf_options *o, struct moe_pool *pool,
                            struct moe_progress *progress, struct moe_err *err);
void moe_gguf_fold_release(struct moe_gguf_fold *f);
/* The exponent that the block scales of tensor `i` are shifted by: that of its
 * global scale, and its power. */
int moe_gguf_shift(const struct moe_gguf_fold *f, const struct moe_source *src, int64_t i);

/* Codes of e4m3 scales times a power of two, nearest, ties to even; NO_SCALE: above 448, or NaN. */
#define MOE_GGUF_NO_SCALE 0xff
struct moe_gguf_shift { uint8_t code[128]; bool exact[128]; int by; };
void moe_gguf_shift_of(int by, struct moe_gguf_shift *s);

/* ---- gguf-small.c: scales that are too small for F16 ---- */

/* How often each block scale occurs: by its code (NVFP4; without its sign), or by its
 * exponent as a float32 (INT4). */
void moe_gguf_count_scales(const struct moe_tensor *t, const uint8_t *scales, size_t bytes,
                           uint64_t count[256]);
/* The least power of two for which a tensor of NVFP4 times it as Q6_K, one of INT4 as Q4_0, is expected to
 * keep its values to a relative error of MOE_GGUF_ERROR_MOST; the same holds of every greater one. */
int moe_gguf_least_power(const struct moe_tensor *t, const uint64_t count[256]);
/* The least power of two for which each scale of a tensor of INT4 times it is an F16 exactly,
 * while it is not too large. */
int moe_gguf_exact_power(const struct moe_tensor *t, const uint64_t count[256]);

/* ---- gguf-plan.c: which tensor goes where ---- */

bool moe_gguf_keeps_f32(enum moe_role role); /* llama.cpp keeps it in F32 whatever the rest is */

struct moe_gguf_plan {
    struct moe_gguf_tensor *t;
    int64_t n;
    int32_t *to;      /* [src->n_tensors] the tensor each is (part of); kv_b: its k_b, v_b is the next */
    int32_t *input;   /* [n] the tensor that holds its input scales, -1: none */
    const struct moe_gguf_fold *fold; /* not owned */
};

enum moe_code moe_gguf_plan(struct moe_gguf_plan *p, const struct moe_source *src,
                            const struct moe_gguf_fold *fold, struct moe_err *err);
void moe_gguf_plan_release(struct moe_gguf_plan *p);
/* The element of its .input_scale tensor that belongs to tensor `i` of the source: that of the
 * inputs that the file gives it. */
float moe_gguf_input_scale(const struct moe_gguf_plan *p, const struct moe_source *src, int64_t i);

/* ---- gguf-meta.c: metadata and the tokenizer ---- */

enum moe_code moe_gguf_metadata(struct moe_gguf_meta *m, const struct moe_source *src,
                                const struct moe_gguf_plan *p, bool *no_tokenizer, struct moe_err *err);
enum moe_code moe_gguf_tokenizer(struct moe_gguf_meta *m, const struct moe_source *src, bool *none,
                                 struct moe_err *err);

/* ---- gguf-pack.c: rows of codes in ggml's order ---- */

/* v >= 0 as the nearest F16 has it; v itself above the largest. */
double moe_gguf_f16(double v);

/* NVFP4: `cols` (a multiple of 64) codes and their scales, shifted -> cols / 64 blocks of 36 bytes.  Adds to
 * *rounded the blocks with other values than 0 whose scale is not held exactly.  False when a scale is NaN,
 * has its sign bit set (ggml's have none) or is above 448 once shifted. */
bool moe_gguf_pack_nvfp4(const uint8_t *codes, const uint8_t *scales, const struct moe_gguf_shift *shift,
                         int64_t cols, uint8_t *out, int64_t *rounded);
/* Of the same: adds the squared error, and the squares of the values, both before the global scale. */
void moe_gguf_weigh_nvfp4(const uint8_t *codes, const uint8_t *scales, const struct moe_gguf_shift *shift,
                          int64_t cols, double *num, double *den);
/* NVFP4 as Q6_K: values are e2m1 * e4m3 * factor; `cols` (a multiple of 256) of them -> cols / 256 blocks of
 * 210 bytes, codes exact, scales of 16 values each approximated.  Adds the squared error to *num and the
 * squares of the values to *den.  False when a scale is NaN or too large for F16. */
bool moe_gguf_pack_q6_k(const uint8_t *codes, const uint8_t *scales, double factor, int64_t cols,
                        uint8_t *out, double *num, double *den);
/* INT4: `cols` (a multiple of 32) codes and a scale for every 32 of them, times 2^power -> cols / 32 blocks
 * of 18 bytes.  Returns how many scales F16 does not hold exactly (they are rounded to nearest); -1 when
 * one is too large for F16.
 * weigh: adds the squared error of the values to *num and their squares to *den. */
int64_t moe_gguf_pack_q4_0(const uint8_t *codes, const float *scales, int power, int64_t cols, uint8_t *out,
                           bool weigh, double *num, double *den);

#endif
