/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench-lt.h - the yardstick of dense products: the same product by cuBLASLt, whose weights and x
 * are BF16 and whose result is float32.
 *
 * The library is opened when the bench runs, and what is used of cublasLt.h (CUDA 12 and 13) is declared
 * here, so that the bench builds and runs without it.  On the stand-in for the driver its place is taken by
 * tests/shim/lt.c, which checks arguments and computes nothing. */
#ifndef BENCH_LT_H
#define BENCH_LT_H

#include "tests/bench/bench-cuda.h"

#include <dlfcn.h>
#include <math.h>

enum { LT_F32 = 0, LT_BF16 = 14, LT_COMPUTE_F32 = 68, LT_TRANSPOSED = 1 }; /* values of its types */
enum { LT_TRANS_A = 3, LT_MOST_SPACE = 1 };                               /* names of attributes */

struct lt_algo { uint64_t data[8]; };
struct lt_found { struct lt_algo algo; size_t space; int state; float waves; int reserved[4]; };

static struct {
    void *handle;
    size_t (*version)(void);
    int (*create)(void **handle);
    int (*destroy)(void *handle);
    int (*desc)(void **desc, int compute, int scale);
    int (*desc_set)(void *desc, int attribute, const void *value, size_t bytes);
    int (*desc_free)(void *desc);
    int (*layout)(void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld);
    int (*layout_free)(void *layout);
    int (*wish)(void **wish);
    int (*wish_set)(void *wish, int attribute, const void *value, size_t bytes);
    int (*wish_free)(void *wish);
    int (*find)(void *handle, void *desc, void *a, void *b, void *c, void *d, void *wish, int most,
                struct lt_found *found, int *n);
    int (*matmul)(void *handle, void *desc, const void *alpha, const void *a, void *la, const void *b,
                  void *lb, const void *beta, const void *c, void *lc, void *d, void *ld,
                  const struct lt_algo *algo, void *space, size_t space_bytes, void *stream);
} lt;

static void lt_must(int status, const char *call)
{
    if (!status) return;
    fprintf(stderr, "bench-cuda: cuBLASLt: %s fails with status %d\n", call, status);
    exit(17);
}

/* Opens the library; a sentence where there is none, and the rows are left out. */
static void lt_open(void)
{
    static const struct { const char *name; void *to; } names[] = {
        { "cublasLtGetVersion", &lt.version },
        { "cublasLtCreate", &lt.create },
        { "cublasLtDestroy", &lt.destroy },
        { "cublasLtMatmulDescCreate", &lt.desc },
        { "cublasLtMatmulDescSetAttribute", &lt.desc_set },
        { "cublasLtMatmulDescDestroy", &lt.desc_free },
        { "cublasLtMatrixLayoutCreate", &lt.layout },
        { "cublasLtMatrixLayoutDestroy", &lt.layout_free },
        { "cublasLtMatmulPreferenceCreate", &lt.wish },
        { "cublasLtMatmulPreferenceSetAttribute", &lt.wish_set },
        { "cublasLtMatmulPreferenceDestroy", &lt.wish_free },
        { "cublasLtMatmulAlgoGetHeuristic", &lt.find },
        { "cublasLtMatmul", &lt.matmul },
    };
    void *lib = dlopen("libcublasLt.so.13", RTLD_NOW | RTLD_LOCAL);
    if (!lib) lib = dlopen("libcublasLt.so.12", RTLD_NOW | RTLD_LOCAL);
    for (size_t i = 0; lib && i < sizeof names / sizeof *names; i++) {
        void *f = dlsym(lib, names[i].name);
        if (!f) lib = NULL;
        else memcpy(names[i].to, &f, sizeof f);
    }
    if (lib) lt_must(lt.create(&lt.handle), "cublasLtCreate");
    else printf("cuBLASLt is not installed (libcublasLt.so.13 or .12): its rows are left out\n");
}

static void lt_close(void) { if (lt.handle) lt.destroy(lt.handle); }

/* y [n, rows] = x [n, cols] W^T, W [rows, cols], all row after row.  cuBLASLt's matrices are column after
 * column, so that W is [cols, rows] there, which it transposes, x [cols, n], and y [rows, n]. */
struct lt_product {
    void *desc, *layout_w, *layout_x, *layout_y;
    struct lt_found found;
    uint64_t w, x, y, space; size_t space_bytes;
    int64_t step; int turns; /* as in struct launch */
};

static void lt_run(const void *what, int turn)
{
    const struct lt_product *p = what;
    const float one = 1, zero = 0;
    const uint64_t w = p->w + (uint64_t)(turn % p->turns * p->step);
    lt_must(lt.matmul(lt.handle, p->desc, &one, (const void *)w, p->layout_w, (const void *)p->x, p->layout_x,
                      &zero, (const void *)p->y, p->layout_y, (void *)p->y, p->layout_y, &p->found.algo,
                      (void *)p->space, p->space_bytes, moe_gpu_stream(gpu)), "cublasLtMatmul");
}

/* Every weight and every x is the BF16 whose bytes the pool was filled with, so every y must be this. */
static void lt_check(const struct lt_product *p, int64_t rows, int64_t cols, int64_t n)
{
    const double v = ldexp(1 + 0x3c / 128.0, -7); /* the bits 0x3c3c */
    const int64_t at[] = { 0, n * rows - 1 };
    for (int i = 0; i < 2; i++) {
        float y;
        must(moe_gpu_read(gpu, &y, (struct moe_addr){ p->y + 4 * (uint64_t)at[i] }, sizeof y, &err));
        must(moe_gpu_wait(gpu, &err));
        if (fabs((double)y / ((double)cols * v * v) - 1) < 0.01) continue;
        fprintf(stderr, "bench-cuda: cuBLASLt computes another product: %g\n", (double)y);
        exit(1);
    }
}

/* False: the library has no way to compute such a product. */
static bool lt_make(struct lt_product *p, int64_t rows, int64_t cols, int64_t n)
{
    const int transposed = LT_TRANSPOSED;
    const uint64_t r = (uint64_t)rows, c = (uint64_t)cols;
    void *wish;
    int found = 0;
    lt_must(lt.desc(&p->desc, LT_COMPUTE_F32, LT_F32), "cublasLtMatmulDescCreate");
    lt_must(lt.desc_set(p->desc, LT_TRANS_A, &transposed, sizeof transposed),
            "cublasLtMatmulDescSetAttribute");
    lt_must(lt.layout(&p->layout_w, LT_BF16, c, r, cols), "cublasLtMatrixLayoutCreate");
    lt_must(lt.layout(&p->layout_x, LT_BF16, c, (uint64_t)n, cols), "cublasLtMatrixLayoutCreate");
    lt_must(lt.layout(&p->layout_y, LT_F32, r, (uint64_t)n, rows), "cublasLtMatrixLayoutCreate");
    lt_must(lt.wish(&wish), "cublasLtMatmulPreferenceCreate");
    lt_must(lt.wish_set(wish, LT_MOST_SPACE, &p->space_bytes, sizeof p->space_bytes),
            "cublasLtMatmulPreferenceSetAttribute");
    int status = lt.find(lt.handle, p->desc, p->layout_w, p->layout_x, p->layout_y, p->layout_y, wish, 1,
                         &p->found, &found);
    lt.wish_free(wish);
    return !status && found && !p->found.state;
}

static void lt_free(const struct lt_product *p)
{
    lt.desc_free(p->desc), lt.layout_free(p->layout_w), lt.layout_free(p->layout_x);
    lt.layout_free(p->layout_y);
    pool_used = 0;
}

static void lt_row(const char *name, int64_t rows, int64_t cols, int64_t n)
{
    const int64_t bytes = 2 * rows * cols;
    struct lt_product p = { .step = bytes, .space_bytes = quick ? 1 << 20 : 32 << 20 };
    char shape[80];
    if (!lt.handle) return;
    p.turns = quick ? 1 : (int)(((int64_t)256 << 20) / bytes) + 1;
    p.w = take(bytes * p.turns);
    p.x = take(2 * n * cols);
    p.y = take(4 * n * rows);
    p.space = take((int64_t)p.space_bytes);
    must(moe_gpu_fill(gpu, (struct moe_addr){ p.w }, 0x3c, (uint64_t)(bytes * p.turns), &err));
    must(moe_gpu_fill(gpu, (struct moe_addr){ p.x }, 0x3c, (uint64_t)(2 * n * cols), &err));
    snprintf(shape, sizeof shape, "BF16 [%lld, %lld], %lld rows, cuBLASLt", (long long)rows, (long long)cols,
             (long long)n);
    if (lt_make(&p, rows, cols, n)) {
        print_row(name, shape, time_runs(lt_run, &p, once ? 1 : 20),
                  (double)(bytes + 2 * n * cols + 4 * n * rows), (double)n * (double)rows * (double)cols);
        if (lt.version()) lt_check(&p, rows, cols, n); /* the stand-in's is 0 */
    } else {
        printf("%-14s %-44s it has no such product\n", name, shape);
    }
    lt_free(&p);
}

#endif
