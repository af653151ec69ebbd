/* SPDX-License-Identifier: Apache-2.0 */
/* convert/gguf-internal.h - what the files of the GGUF export share. */
#ifndef MOE_CONVERT_GGUF_INTERNAL_H
#define MOE_CONVERT_GGUF_INTERNAL_H

#include "convert/gguf.h"
#include "formats/gguf/gguf.h"

/* ---- gguf-powers.c: types, and where the powers of two of NVFP4's global scales go ---- */

struct moe_gguf_powers {
    uint8_t *type;     /* [src->n_tensors] enum moe_gguf_type */
    /* [src->n_tensors] the file's values are the model's times 2^power; for kv_b this holds of v_b alone */
    int16_t *power;
    int routing;       /* the file's factor of routing weights is the model's times 2^routing */
    bool *inexact;     /* [src->n_tensors] NVFP4 or Q4_0 in the file, with scales that may be rounded */
    struct moe_gguf_dropped dropped[MOE_GGUF_WHYS];
};

/* Chooses types and powers.  With outtype AUTO it reads the block scales of all weights that may be NVFP4,
 * Q6_K or Q4_0 in the file; in a dry run not those of experts, which are then assumed to fit.  pool and
 * progress may be NULL.  After a failure there is nothing to release. */
enum moe_code moe_gguf_place_powers(struct moe_gguf_powers *p, const struct moe_source *src,
                                    const struct moe_gguf_options *o, struct moe_pool *pool,
                                    struct moe_progress *progress, struct moe_err *err);
void moe_gguf_powers_release(struct moe_gguf_powers *p);
/* The power of two that the block scales of tensor `i` are multiplied by: the exponent of its global scale
 * plus p->power[i]. */
int moe_gguf_shift_power(const struct moe_gguf_powers *p, const struct moe_source *src, int64_t i);

/* For each e4m3 code c without sign, code[c] is the code of its value times 2^by, rounded to nearest, ties to
 * even, or MOE_GGUF_NO_SCALE when the product is above 448 or NaN.  exact[c]: nothing was rounded. */
#define MOE_GGUF_NO_SCALE 0xff
struct moe_gguf_shift_table { uint8_t code[128]; bool exact[128]; int by; };
void moe_gguf_fill_shift_table(int by, struct moe_gguf_shift_table *s);

/* ---- gguf-small.c: scales that are too small for F16 ---- */

/* Adds to count[] how often each block scale occurs in `bytes` bytes of them: those of NVFP4 by their code
 * without sign, those of INT4 by their exponent as float32. */
void moe_gguf_count_scales(const struct moe_tensor *t, const uint8_t *scales, size_t bytes,
                           uint64_t count[256]);
/* The least p for which an NVFP4 tensor times 2^p, stored as Q6_K, or an INT4 tensor times 2^p, stored as
 * Q4_0, is expected to have a relative error of at most MOE_GGUF_ERROR_MOST; so has every greater p. */
int moe_gguf_least_power(const struct moe_tensor *t, const uint64_t count[256]);
/* The least p for which every scale of an INT4 tensor times 2^p is exact in F16, unless it is too large for
 * F16. */
int moe_gguf_exact_power(const struct moe_tensor *t, const uint64_t count[256]);

/* ---- gguf-plan.c: the tensors of the file ---- */

bool moe_gguf_keeps_f32(enum moe_role role); /* llama.cpp keeps this role in F32, whatever the file's type */

struct moe_gguf_plan {
    struct moe_gguf_tensor *t;
    int64_t n;
    int32_t *to;      /* [src->n_tensors] the index in t of what each goes into; for kv_b: k_b, v_b is next */
    int32_t *input;   /* [n] the index in t of the tensor with its input scales; -1: none */
    const struct moe_gguf_powers *powers; /* not owned */
};

enum moe_code moe_gguf_make_plan(struct moe_gguf_plan *p, const struct moe_source *src,
                                 const struct moe_gguf_powers *powers, struct moe_err *err);
void moe_gguf_plan_release(struct moe_gguf_plan *p);
/* The input scale of tensor `i` of the source as the file has it, which takes account of the power of two
 * that the tensor's inputs are multiplied by. */
float moe_gguf_input_scale(const struct moe_gguf_plan *p, const struct moe_source *src, int64_t i);

/* ---- gguf-meta.c: metadata and the tokenizer ---- */

/* Sets *m to all metadata, which the caller releases, after a failure, too.  *no_tokenizer: the model has no
 * tiktoken.model, so the file says "none". */
enum moe_code moe_gguf_make_metadata(struct moe_gguf_meta *m, const struct moe_source *src,
                                     const struct moe_gguf_plan *p, bool *no_tokenizer, struct moe_err *err);
enum moe_code moe_gguf_put_tokenizer(struct moe_gguf_meta *m, const struct moe_source *src, bool *none,
                                     struct moe_err *err);

/* ---- gguf-pack.c: rows of codes in ggml's order ---- */

/* v >= 0 rounded to the nearest F16; v itself when it is above the largest. */
double moe_gguf_round_f16(double v);

/* Packs a row of NVFP4, `cols` (a multiple of 64) codes and their scales, with the scales shifted, into
 * cols / 64 blocks of 36 bytes.  Adds to *rounded the number of scales that are rounded and have a value
 * other than 0 under them.  False when a scale is NaN, has its sign bit set (ggml's scales have no sign) or
 * is above 448 once shifted. */
bool moe_gguf_pack_nvfp4(const uint8_t *codes, const uint8_t *scales,
                         const struct moe_gguf_shift_table *shift, int64_t cols, uint8_t *out,
                         int64_t *rounded);
/* Adds the squared error of the same packing to *num and the squares of the values to *den, both without the
 * global scale. */
void moe_gguf_add_error_nvfp4(const uint8_t *codes, const uint8_t *scales,
                              const struct moe_gguf_shift_table *shift, int64_t cols, double *num,
                              double *den);
/* Packs a row of NVFP4 as Q6_K: `cols` (a multiple of 256) values e2m1 * e4m3 * factor become cols / 256
 * blocks of 210 bytes.  Codes are exact; the scale of each 16 values is approximated.  Adds the squared
 * error to *num and the squares of the values to *den.  False when a scale is NaN or too large for F16. */
bool moe_gguf_pack_q6_k(const uint8_t *codes, const uint8_t *scales, double factor, int64_t cols,
                        uint8_t *out, double *num, double *den);
/* Packs a row of INT4 as Q4_0: `cols` (a multiple of 32) codes and a scale for every 32 of them, times
 * 2^power, become cols / 32 blocks of 18 bytes.  Returns how many scales F16 does not hold exactly (they are
 * rounded to nearest), or -1 when one is too large for F16.  add_error: adds the squared error of the values
 * to *num and their squares to *den. */
int64_t moe_gguf_pack_q4_0(const uint8_t *codes, const float *scales, int power, int64_t cols, uint8_t *out,
                           bool add_error, double *num, double *den);

#endif
