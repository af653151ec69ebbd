/* SPDX-License-Identifier: Apache-2.0 */
/* A stand-in for libcublasLt.so.13 beside the stand-in for the driver, for bench-cuda alone (tests/bench/
 * bench-lt.h).  It holds the order and the arguments of calls against the manual, and computes nothing; its
 * version is 0.  Status 7 is CUBLAS_STATUS_INVALID_VALUE, 15 is CUBLAS_STATUS_NOT_SUPPORTED. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { INVALID = 7, NOT_SUPPORTED = 15, F32 = 0, BF16 = 14, COMPUTE_F32 = 68, TRANS_A = 3, MOST_SPACE = 1 };

struct desc { int compute, scale, trans_a; };
struct layout { int type; uint64_t rows, cols; int64_t ld; };
struct wish { size_t space; };
struct found { uint64_t algo[8]; size_t space; int state; float waves; int reserved[4]; };

size_t cublasLtGetVersion(void);
int cublasLtCreate(void **handle), cublasLtDestroy(void *handle);
int cublasLtMatmulDescCreate(struct desc **d, int compute, int scale);
int cublasLtMatmulDescDestroy(struct desc *d);
int cublasLtMatmulDescSetAttribute(struct desc *d, int attribute, const void *value, size_t bytes);
int cublasLtMatrixLayoutCreate(struct layout **l, int type, uint64_t rows, uint64_t cols, int64_t ld);
int cublasLtMatrixLayoutDestroy(struct layout *l);
int cublasLtMatmulPreferenceCreate(struct wish **w), cublasLtMatmulPreferenceDestroy(struct wish *w);
int cublasLtMatmulPreferenceSetAttribute(struct wish *w, int attribute, const void *value, size_t bytes);
int cublasLtMatmulAlgoGetHeuristic(void *handle, struct desc *d, struct layout *a, struct layout *b,
                                   struct layout *c, struct layout *y, struct wish *w, int most,
                                   struct found *found, int *n);
int cublasLtMatmul(void *handle, struct desc *d, const void *alpha, const void *a, struct layout *la,
                   const void *b, struct layout *lb, const void *beta, const void *c, struct layout *lc,
                   void *y, struct layout *ly, const uint64_t *algo, void *space, size_t bytes, void *stream);

static int made; /* what has the address of this is our handle */

size_t cublasLtGetVersion(void) { return 0; }
int cublasLtCreate(void **handle) { *handle = &made; return 0; }
int cublasLtDestroy(void *handle) { return handle == &made ? 0 : INVALID; }

int cublasLtMatmulDescCreate(struct desc **d, int compute, int scale)
{
    *d = calloc(1, sizeof **d);
    if (!*d) return INVALID;
    **d = (struct desc){ compute, scale, 0 };
    return compute == COMPUTE_F32 && scale == F32 ? 0 : NOT_SUPPORTED;
}
int cublasLtMatmulDescSetAttribute(struct desc *d, int attribute, const void *value, size_t bytes)
{
    if (!d || attribute != TRANS_A || bytes != sizeof(int)) return INVALID;
    memcpy(&d->trans_a, value, bytes);
    return 0;
}
int cublasLtMatmulDescDestroy(struct desc *d) { free(d); return 0; }

int cublasLtMatrixLayoutCreate(struct layout **l, int type, uint64_t rows, uint64_t cols, int64_t ld)
{
    *l = malloc(sizeof **l);
    if (!*l) return INVALID;
    **l = (struct layout){ type, rows, cols, ld };
    return rows && cols && ld >= (int64_t)rows ? 0 : INVALID;
}
int cublasLtMatrixLayoutDestroy(struct layout *l) { free(l); return 0; }

int cublasLtMatmulPreferenceCreate(struct wish **w)
{
    *w = calloc(1, sizeof **w);
    return *w ? 0 : INVALID;
}
int cublasLtMatmulPreferenceSetAttribute(struct wish *w, int attribute, const void *value, size_t bytes)
{
    if (!w || attribute != MOST_SPACE || bytes != sizeof w->space) return INVALID;
    memcpy(&w->space, value, bytes);
    return 0;
}
int cublasLtMatmulPreferenceDestroy(struct wish *w) { free(w); return 0; }

/* y [m, n] = a b, with a [m, k], or [k, m] where it is transposed, and b [k, n]. */
static int fits(const struct desc *d, const struct layout *a, const struct layout *b, const struct layout *c,
                const struct layout *y)
{
    const uint64_t m = d->trans_a ? a->cols : a->rows, k = d->trans_a ? a->rows : a->cols;
    if (b->rows != k || y->rows != m || y->cols != b->cols) return INVALID;
    if (c->rows != m || c->cols != b->cols) return INVALID;
    return a->type == BF16 && b->type == BF16 && y->type == F32 && c->type == F32 ? 0 : NOT_SUPPORTED;
}

int cublasLtMatmulAlgoGetHeuristic(void *handle, struct desc *d, struct layout *a, struct layout *b,
                                   struct layout *c, struct layout *y, struct wish *w, int most,
                                   struct found *found, int *n)
{
    if (handle != &made || most < 1 || !w) return INVALID;
    *found = (struct found){ .algo = { 1 }, .space = w->space, .waves = 1 };
    *n = 1;
    return fits(d, a, b, c, y);
}

int cublasLtMatmul(void *handle, struct desc *d, const void *alpha, const void *a, struct layout *la,
                   const void *b, struct layout *lb, const void *beta, const void *c, struct layout *lc,
                   void *y, struct layout *ly, const uint64_t *algo, void *space, size_t bytes, void *stream)
{
    const uintptr_t all = (uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)y | (uintptr_t)space;
    if (handle != &made || !alpha || !beta || !a || !b || !y || !stream || algo[0] != 1) return INVALID;
    if (all % 16 || (bytes && !space)) return INVALID;
    return fits(d, la, lb, lc, ly);
}
