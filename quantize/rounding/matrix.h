/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/matrix.h - rounds one or two weights from the statistics of the inputs that they share.
 *
 * A wide weight is taken in slices of columns [c0, c0 + k).  Each slice has a Hessian of its own, as if H
 * were zero between slices, so that memory grows with the square of a slice's width and not of the
 * weight's. */
#ifndef MOE_QUANTIZE_ROUNDING_MATRIX_H
#define MOE_QUANTIZE_ROUNDING_MATRIX_H

#include "formats/dtype.h"
#include "quantize/rounding/output-hessian.h"
#include "quantize/rounding/round.h"

enum { MOE_SLICE_COLUMNS = 8192 }; /* columns of a slice at most */

/* How to round. */
struct moe_matrix_method {
    /* Use E[x^2] of each input alone: no feedback, no descent, no output Hessian. */
    bool diagonal;

    /* First replace w by the w' whose outputs on the quantized model's inputs are nearest to those of w
     * on the unquantized model's (least squares). */
    bool fit;

    bool two_sided;   /* use an output Hessian as well */
    int sweeps;       /* sweeps of descent (quantize/rounding/round.h) */
    double damp;      /* of H, as a fraction of the mean of its diagonal */
    double damp_rows; /* of G, likewise */
};

/* ---- statistics of the inputs, for one slice of columns ---- */

/* xq is an input as the quantized model computes it, x the same input in the unquantized model, both
 * multiplied by the square root of what the token weighs. */
struct moe_inputs {
    int64_t c0;                 /* the slice is columns [c0, c0 + k) */
    int64_t k;
    struct moe_hessian hessian; /* sum of xq^T xq */

    /* [k, k] sum of xq^T (x - xq); NULL: x and xq are the same. */
    float *cross;

    /* [k, outputs] sum of xq^T z, where z [outputs] is the target of a token: what the weight's output is to
     * give beside its own (quantize/calibrate/correction.h).  NULL: there are no targets. */
    float *correction;
    int64_t outputs;

    double target2; /* sum of z^2 */
    double weight1; /* sum of the weights of tokens with targets */
    double weight2; /* sum of their squares */
};

/* Bytes that moe_inputs_open takes for k columns, with `cross` or not, and with targets for so many outputs
 * (0: without targets). */
uint64_t moe_inputs_estimate(int64_t k, bool cross, int64_t outputs);
enum moe_code moe_inputs_open(struct moe_inputs *s, int64_t k, bool cross, int64_t outputs,
                              struct moe_err *err);
void moe_inputs_release(struct moe_inputs *s);

/* Starts a slice: all sums are zero.  k is at most that of moe_inputs_open. */
void moe_inputs_begin(struct moe_inputs *s, int64_t c0, int64_t k);

/* Adds n tokens.  xq, and lost = x - xq (not read without cross), have a row with all columns of the weight
 * for each token, ldx floats apart.  Both are weighed already. */
void moe_inputs_add(struct moe_inputs *s, const float *xq, const float *lost, int64_t ldx, int64_t n,
                    struct moe_pool *pool);

/* Adds the targets z [n, outputs] of n tokens that have been added.  xq and z are weighed already, by the
 * square roots of weight [n]. */
void moe_inputs_add_targets(struct moe_inputs *s, const float *xq, int64_t ldx, const float *z,
                            const float *weight, int64_t n, struct moe_pool *pool);

/* Ends a slice: damps and factors H.  Then
 *   cross       becomes (H^-1 cross)^T; w + w cross is the w' of moe_matrix_method.fit;
 *   correction  becomes c H^-1 correction, c times the ridge regression of z on xq; its transpose is added
 *               to w.
 * c shrinks a regression that chance could have given (the positive part of James and Stein's estimator).
 * With n = weight1^2 / (2 weight2) effective tokens (2, because the tokens of a text repeat each other), of
 * which k columns explain the part E of target2,
 *     c = max(0, 1 - k (1 - E) / ((n - k) E)),   and c = 0 where n <= k. */
enum moe_code moe_inputs_end(struct moe_inputs *s, const struct moe_matrix_method *how, struct moe_pool *pool,
                             struct moe_err *err);

/* ---- weights ---- */

/* Buffers for rounding one slice at a time. */
struct moe_matrix {
    struct moe_matrix_method how;
    struct moe_pool *pool;
    int64_t rows;   /* rows that are loaded */
    float *w;       /* [rows, k] the weights */
    float *q;       /* [rows, k] what they become */
    float *scratch; /* of moe_round_run */
    uint8_t *scale; /* [rows, k / 16] block scales */
};

/* Bytes that moe_matrix_open takes for up to `rows` rows (of two weights together) and slices of up to k
 * columns. */
uint64_t moe_matrix_estimate(int64_t rows, int64_t k);
enum moe_code moe_matrix_open(struct moe_matrix *m, int64_t rows, int64_t k,
                              const struct moe_matrix_method *how, struct moe_pool *pool,
                              struct moe_err *err);
void moe_matrix_release(struct moe_matrix *m);

/* Loads the slice's columns of n (1 or 2) weights, one above the other, with the rows in the order of g
 * (NULL: as they are), and applies cross and correction.  Returns the largest magnitude. */
float moe_matrix_load(struct moe_matrix *m, const struct moe_inputs *s, const struct moe_weight *const *w,
                      int n, const struct moe_output_hessian *g);

/* Where a rounded weight goes. */
struct moe_rounded {
    uint8_t *codes;  /* [rows, cols / 2] of the whole weight */
    uint8_t *scales; /* [rows, cols / 16] */
    double num;      /* each slice adds its sum of (w - q)^2, where w is the weight as stored */
    double den;      /* each slice adds its sum of w^2 */
};

/* Rounds what was loaded, under this global scale, into out[0 .. n - 1].  MOE_NONFINITE: the error is NaN or
 * Inf. */
enum moe_code moe_matrix_round(struct moe_matrix *m, const struct moe_inputs *s,
                               const struct moe_weight *const *w, int n, const struct moe_output_hessian *g,
                               float global, struct moe_rounded *const *out, struct moe_err *err);

/* y [n, rows of w] = w x for x [n, cols of w], on all threads, by moe_matmul_many (kernels/many.h). */
void moe_matrix_multiply(struct moe_pool *pool, const struct moe_weight *w, const float *x, int64_t n,
                         float *y);

#endif
