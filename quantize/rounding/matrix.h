/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/rounding/matrix.h - weights rounded from the statistics of their inputs.
 *
 * A weight may be taken in slices of columns [c0, c0 + k): each has its own form, as if H were zero between
 * slices.  That bounds memory by the square of a slice's width, for weights that are very wide. */
#ifndef MOE_QUANTIZE_ROUNDING_MATRIX_H
#define MOE_QUANTIZE_ROUNDING_MATRIX_H

#include "formats/dtype.h"
#include "quantize/rounding/output-hessian.h"
#include "quantize/rounding/round.h"

enum { MOE_SLICE_COLUMNS = 8192 };   /* at most, of a slice */

/* How to round. */
struct moe_matrix_method {
    /* judge by E[x^2] of each input alone: no feedback, no descent, no output Hessian */
    bool diagonal;
    /* move a weight first to where it does with its inputs what it did with the unquantized ones */
    bool fit;
    bool two_sided;                       /* rows by an output Hessian too */
    int sweeps;                       /* of descent */
    double damp, damp_rows;           /* of the mean of a form's diagonal: H, G */
};

/* ---- statistics of a slice of columns ---- */

struct moe_inputs {
    int64_t c0, k;
    struct moe_hessian hessian;             /* of the inputs as the quantized model has them */
    /* [k, k] sum of xq^T (x - xq), x the unquantized inputs; NULL: inputs are what they were */
    float *cross;
    /* [k, outputs] sum of xq^T z, z what outputs are to have beside; NULL: nothing */
    float *correction; int64_t outputs;
    /* sum of z^2; of the weights of rows that asked, and of their squares */
    double target2, weight1, weight2;
};
uint64_t moe_inputs_estimate(int64_t k, bool cross, int64_t outputs);
/* Room for k columns, and for z of so many outputs (0: none). */
enum moe_code moe_inputs_open(struct moe_inputs *s, int64_t k, bool cross, int64_t outputs,
                              struct moe_err *err);
void moe_inputs_release(struct moe_inputs *s);
void moe_inputs_begin(struct moe_inputs *s, int64_t c0, int64_t k);
/* Add n rows [n, ldx]: xq as they will be, lost = x - xq (ignored without cross); both already weighed. */
void moe_inputs_add(struct moe_inputs *s, const float *xq, const float *lost, int64_t ldx, int64_t n,
                    struct moe_pool *pool);
/* Rows that were added ask for z [n, outputs] beside, weighed as they are: by the
 * square roots of weight[n]. */
void moe_inputs_add_targets(struct moe_inputs *s, const float *xq, int64_t ldx, const float *z,
                            const float *weight, int64_t n, struct moe_pool *pool);
/* Factor, by the method; cross becomes (H^-1 cross)^T, what w is multiplied by to move it; more becomes
 * c H^-1 more, whose transpose is added to w.  c shrinks a regression that chance could have given
 * (James and Stein's estimator, its positive part): with n = n1^2 / (2 n2) rows (tokens of a text
 * repeat each other), of z^2 a part E explained by k columns in these rows, c = max(0, 1 - k (1 - E) /
 * ((n - k) E)); 0 where n <= k. */
enum moe_code moe_inputs_end(struct moe_inputs *s, const struct moe_matrix_method *how, struct moe_pool *pool,
                             struct moe_err *err);

/* ---- weights ---- */

struct moe_matrix {
    struct moe_matrix_method how;
    struct moe_pool *pool;
    float *w, *q, *scratch; uint8_t *scale;
    int64_t rows;                     /* loaded */
};

/* Bytes for weights stacked to up to `rows` rows, in slices of up to k columns. */
uint64_t moe_matrix_estimate(int64_t rows, int64_t k);
enum moe_code moe_matrix_open(struct moe_matrix *m, int64_t rows, int64_t k,
                              const struct moe_matrix_method *how, struct moe_pool *pool,
                              struct moe_err *err);
void moe_matrix_release(struct moe_matrix *m);

/* The slice's columns of up to two weights, one above the other, in the output Hessian's order (NULL: as
 * they are), moved when the method says so.  Returns the largest |value|. */
float moe_matrix_load(struct moe_matrix *m, const struct moe_inputs *s, const struct moe_weight *const *w,
                      int n, const struct moe_output_hessian *g);

/* Where a weight goes: codes [rows, cols / 2] and scales [rows, cols / 16] of all its columns.  num += sum of
 * (w - q)^2, den += that of w^2, w as stored. */
struct moe_rounded { uint8_t *codes, *scales; double num, den; };
/* Round what was loaded.  MOE_NONFINITE when the error is no number. */
enum moe_code moe_matrix_round(struct moe_matrix *m, const struct moe_inputs *s,
                               const struct moe_weight *const *w, int n, const struct moe_output_hessian *g,
                               float global, struct moe_rounded *const *out, struct moe_err *err);

/* y [n, rows] = w x [n, cols], on all threads, by moe_matmul_many (kernels/many.h). */
void moe_matrix_multiply(struct moe_pool *pool, const struct moe_weight *w, const float *x, int64_t n,
                         float *y);

#endif
