/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/checkkern-bench.h - checkkern -b times each kernel on shapes of Kimi K2: the fastest of five
 * runs of at least 20 ms.  GB/s counts the bytes that a kernel has to read and write; "memcpy" is a copy
 * that moves as many bytes, timed just before. */
#ifndef CHECKKERN_BENCH_H
#define CHECKKERN_BENCH_H

#include "kernels/attend.h"
#include "tests/kernels/checkkern-weight.h"
#include "tests/kernels/checkkern.h"

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* processor time, as others may use the machine */
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

struct bench {
    const char *name, *unit;
    int type;                    /* of the weight; -1 without one */
    int64_t rows, cols;          /* of the weight, or of a vector */
    int64_t n;                   /* tokens or keys */
    double work;                 /* of one run, in 1e9 of what unit counts */
    double bytes;                /* that one run has to move */
    void (*run)(const struct moe_kernels *k, const struct bench *b);
    bool slow;                   /* ref takes so long that it runs once */
};

/* What all benchmarks compute with. */
static struct {
    struct moe_weight w;
    float *x, *y, *z;
    uint8_t *bytes;
} load;

static void bench_matmul(const struct moe_kernels *k, const struct bench *b)
{
    k->matmul(&load.w, 0, b->rows, load.x, b->cols, b->n, load.y, b->rows);
}
static void bench_matmul_t(const struct moe_kernels *k, const struct bench *b)
{
    k->matmul_t(&load.w, 0, b->rows, load.x, load.y);
}
static void bench_dequantize(const struct moe_kernels *k, const struct bench *b)
{
    for (int64_t r = 0; r < b->rows; r++) k->dequantize(&load.w, r, 0, b->cols, load.y);
}
static volatile float sink;
static void bench_dot(const struct moe_kernels *k, const struct bench *b)
{
    sink = k->dot(load.x, load.y, b->cols);
}
static void bench_amax(const struct moe_kernels *k, const struct bench *b)
{
    sink = k->amax(load.x, b->cols);
}
static void bench_sqerr(const struct moe_kernels *k, const struct bench *b)
{
    double s[2] = { 0 };
    k->sqerr(load.x, load.y, b->cols, &s[0], &s[1]);
    sink = (float)s[0];
}
static void bench_rmsnorm(const struct moe_kernels *k, const struct bench *b)
{
    k->rmsnorm(load.x, load.y, 1e-6f, b->cols, load.z);
}
static void bench_swiglu(const struct moe_kernels *k, const struct bench *b)
{
    k->swiglu(load.x, load.y, b->cols, load.z);
}
static void bench_softmax(const struct moe_kernels *k, const struct bench *b)
{
    memcpy(load.z, load.x, 4 * (size_t)b->cols);
    k->softmax(load.z, b->cols);
}
static void bench_rope(const struct moe_kernels *k, const struct bench *b)
{
    memcpy(load.z, load.x, 4 * (size_t)b->cols);
    k->rope(load.z, load.y, load.y, b->cols / 2);
}
static void bench_attend(const struct moe_kernels *k, const struct bench *b)
{
    k->attend(load.x, load.y, 576, load.y, 576, b->n, 576, 512, .07f, load.z, load.z + 8192);
}
/* 64 queries, as K2 has heads, over one chunk. */
static void bench_attend_pages(const struct moe_kernels *k, const struct bench *b)
{
    enum { HEADS = 64 };
    const float *page[MOE_CHUNK_PAGES];
    int32_t seen[HEADS];
    float *max = load.z + HEADS * 512, *sum = max + HEADS;
    for (int i = 0; i < MOE_CHUNK_PAGES; i++) page[i] = load.y + i * MOE_PAGE * 576;
    for (int i = 0; i < HEADS; i++) seen[i] = (int32_t)b->n;
    k->attend_pages(load.x, 576, seen, HEADS, page, 576, 576, 512, .07f, max, sum, load.z, 512);
}
static void bench_exp(const struct moe_kernels *k, const struct bench *b)
{
    k->exp(load.x, b->cols, load.z);
}
static void bench_sigmoid(const struct moe_kernels *k, const struct bench *b)
{
    k->sigmoid(load.x, b->cols, load.z);
}
static void bench_max(const struct moe_kernels *k, const struct bench *b)
{
    k->nvfp4_quantize(MOE_NVFP4_MAX, load.x, b->cols, 1.5e-3f, load.bytes, load.bytes + b->cols / 2);
}
static void bench_46(const struct moe_kernels *k, const struct bench *b)
{
    k->nvfp4_quantize(MOE_NVFP4_FOUR_OVER_SIX, load.x, b->cols, 2.6e-3f, load.bytes,
                      load.bytes + b->cols / 2);
}
static void bench_search(const struct moe_kernels *k, const struct bench *b)
{
    k->nvfp4_quantize(MOE_NVFP4_SEARCH, load.x, b->cols, 1.5e-3f, load.bytes, load.bytes + b->cols / 2);
}
static void bench_activations(const struct moe_kernels *k, const struct bench *b)
{
    k->nvfp4_activations(load.x, b->cols, 1.5e-3f, load.y);
}
static void bench_activations_46(const struct moe_kernels *k, const struct bench *b)
{
    k->nvfp4_activations_46(load.x, b->cols, 1.5e-3f, load.y);
}
static void bench_activations_search(const struct moe_kernels *k, const struct bench *b)
{
    k->nvfp4_activations_search(load.x, b->cols, 1.5e-3f, load.y);
}

/* a is x transposed, b is y, c is z. */
static void bench_gemm(const struct moe_kernels *k, const struct bench *b)
{
    k->gemm(b->rows, b->cols, b->n, -1, load.x, 1, b->rows, load.y, b->cols, load.z, b->cols);
}
/* Factors and costs from y; weights and targets from x. */
static void bench_feedback(const struct moe_kernels *k, const struct bench *b)
{
    memcpy(load.z, load.x, sizeof(float) * (size_t)b->cols);
    k->nvfp4_feedback(load.y, b->cols, load.y + 65536, b->cols, load.x, load.z, 1.5e-3f, load.z + b->cols,
                      load.bytes);
}
static void bench_descend(const struct moe_kernels *k, const struct bench *b)
{
    float *q = load.z, *d = q + b->cols, *g = d + b->cols, *s = g + b->cols, *h = s + b->cols;
    for (int64_t i = 0; i < b->cols; i++) q[i] = 0, d[i] = 0, g[i] = load.x[i], s[i] = .5f;
    for (int64_t i = 0; i < b->cols * b->cols; i++) h[i] = i % (b->cols + 1) ? load.y[i] * .01f : 1.5f;
    k->nvfp4_descend(h, b->cols, b->cols, s, q, g, d);
}

/* Seconds that the fastest run takes. */
static double measure(const struct moe_kernels *k, const struct bench *b, bool once)
{
    double best = INFINITY, t = now();
    if (!once) b->run(k, b);
    double first = now() - t;
    int64_t times = once || first > .02 ? 1 : (int64_t)(.02 / fmax(first, 2e-8)) + 1;
    for (int i = 0; i < (once ? 1 : 5); i++) {
        t = now();
        for (int64_t j = 0; j < times; j++) b->run(k, b);
        best = fmin(best, (now() - t) / (double)times);
    }
    return best;
}

static double measure_memcpy(double bytes)
{
    size_t n = (size_t)bytes / 2 + 1; /* n are read and n written */
    uint8_t *a = malloc(n), *c = malloc(n);
    double best = INFINITY;
    assert(a && c);
    memset(a, 1, n), memset(c, 1, n);
    for (int i = 0; i < 7; i++) {
        int64_t times = (int64_t)(1 + 2e7 / bytes);
        double t = now();
        for (int64_t j = 0; j < times; j++) memcpy(c, a, n), sink = c[n / 2];
        best = fmin(best, (now() - t) / (double)times);
    }
    free(a), free(c);
    return best;
}

static void bench_one(const struct bench *b, const char *filter)
{
    char label[80];
    snprintf(label, sizeof label, "%s %s %" PRId64 "x%" PRId64 " n=%" PRId64, b->name,
             b->type < 0 ? "" : moe_dtype_name(b->type), b->rows, b->cols, b->n);
    if (filter && !strstr(label, filter)) return;
    if (b->type >= 0)
        load.w = random_weight(b->type, b->rows, b->cols, false), load.w.layout = MOE_LAYOUT_LINEAR;
    double copy = measure_memcpy(b->bytes), ref = 0;
    for (int v = 0; v < n_variants; v++) {
        double t = measure(&variants[v].k, b, v == 0 && b->slow);
        if (v == 0) ref = t;
        printf("%-38s %-9s %12.0f ns %8.2f GB/s %8.3f %-10s x%-7.1f %5.2f of memcpy\n", label,
               variants[v].name, t * 1e9, b->bytes / t * 1e-9, b->work / t, b->unit, ref / t, copy / t);
        fflush(stdout);
    }
    free_buffers();
}

static void run_bench(const char *filter)
{
    enum { R = 2048, C = 7168, V = 65536 };
    load.x = malloc(4 * 32 * C), load.y = malloc(4 << 20), load.z = malloc(4 << 20),
    load.bytes = malloc(1 << 20);
    assert(load.x && load.y && load.z && load.bytes);
    fill(load.x, 32 * C, NORMAL), fill(load.y, 1 << 20, UNIFORM);
    for (int t = 0; t < WEIGHT_TYPES; t++) {
        int type = t;
        if (moe_dtype_like(type) != type) continue; /* differs from another in its scales alone */
        static const int64_t tokens[] = { 1, 2, 4, 8, 32 };
        double planes = (double)(moe_plane_bytes(type, 0, MOE_PLANE_DATA, R, C) +
                                 moe_plane_bytes(type, 0, MOE_PLANE_SCALE, R, C));
        for (int i = 0; i < 5; i++)
            bench_one(&(struct bench){ "matmul", "GFLOPS", type, R, C, tokens[i],
                                       2e-9 * R * C * (double)tokens[i],
                                       planes + 4.0 * (R + C) * (double)tokens[i], bench_matmul, true },
                      filter);
        double small = planes / R * 32; /* in L2 */
        bench_one(&(struct bench){ "matmul", "GFLOPS", type, 32, C, 1, 2e-9 * 32 * C, small + 4.0 * (32 + C),
                                   bench_matmul, false },
                  filter);
        bench_one(&(struct bench){ "matmul", "GFLOPS", type, 32, C, 32, 2e-9 * 32 * C * 32,
                                   small + 4.0 * (32 + C) * 32, bench_matmul, false },
                  filter);
        bench_one(&(struct bench){ "matmul_t", "GFLOPS", type, 128, C, 1, 2e-9 * 128 * C,
                                   planes / R * 128 + 4.0 * (128 + C), bench_matmul_t, false },
                  filter);
        bench_one(&(struct bench){ "dequantize", "Gweights/s", type, 32, C, 1, 1e-9 * 32 * C,
                                   small + 4.0 * 32 * C, bench_dequantize, false },
                  filter);
    }
    static const struct bench vectors[] = {
        { "dot", "Gvalues/s", -1, 1, C, 1, 1e-9 * C, 8.0 * C, bench_dot, false },
        { "amax", "Gvalues/s", -1, 1, V, 1, 1e-9 * V, 4.0 * V, bench_amax, false },
        { "sqerr", "Gvalues/s", -1, 1, V, 1, 1e-9 * V, 8.0 * V, bench_sqerr, false },
        { "rmsnorm", "Gvalues/s", -1, 1, C, 1, 1e-9 * C, 12.0 * C, bench_rmsnorm, false },
        { "swiglu", "Gvalues/s", -1, 1, 2048, 1, 2048e-9, 12.0 * 2048, bench_swiglu, false },
        { "softmax", "Gvalues/s", -1, 1, 4096, 1, 4096e-9, 12.0 * 4096, bench_softmax, false },
        { "rope", "Gvalues/s", -1, 1, 4096, 1, 4096e-9, 12.0 * 4096, bench_rope, false },
        { "attend", "GFLOPS", -1, 1, 576, 1024, 2e-9 * 1024 * (576 + 512), 4.0 * 1024 * 576, bench_attend,
          false },
        { "attend_pages", "GFLOPS", -1, 64, 576, MOE_CHUNK, 2e-9 * 64 * MOE_CHUNK * (576 + 512),
          4.0 * MOE_CHUNK * 576, bench_attend_pages, true },
        { "exp", "Gvalues/s", -1, 1, 4096, 1, 4096e-9, 8.0 * 4096, bench_exp, false },
        { "sigmoid", "Gvalues/s", -1, 1, 4096, 1, 4096e-9, 8.0 * 4096, bench_sigmoid, false },
        { "gemm", "GFLOPS", -1, 384, 384, 512, 2e-9 * 384 * 384 * 512, 4.0 * (384 * 512 * 2 + 384 * 384 * 2),
          bench_gemm, true },
        { "nvfp4_feedback", "Gweights/s", -1, 1, 128, 1, 128e-9, 8.0 * 128, bench_feedback, true },
        { "nvfp4_descend", "Gweights/s", -1, 1, 128, 1, 128e-9, 16.0 * 128, bench_descend, true },
        { "nvfp4_quantize max", "Gweights/s", -1, 1, V, 1, 1e-9 * V, 4.5625 * V, bench_max, false },
        { "nvfp4_quantize 4/6", "Gweights/s", -1, 1, V, 1, 1e-9 * V, 4.5625 * V, bench_46, false },
        { "nvfp4_quantize search", "Gweights/s", -1, 1, V, 1, 1e-9 * V, 4.5625 * V, bench_search, true },
        { "nvfp4_activations", "Gvalues/s", -1, 1, C, 1, 1e-9 * C, 8.0 * C, bench_activations, false },
        { "nvfp4_activations_46", "Gvalues/s", -1, 1, C, 1, 1e-9 * C, 8.0 * C, bench_activations_46, false },
        { "nvfp4_activations_search", "Gvalues/s", -1, 1, C, 1, 1e-9 * C, 8.0 * C, bench_activations_search,
          false },
    };
    for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) bench_one(&vectors[i], filter);
    free(load.x), free(load.y), free(load.z), free(load.bytes);
}

#endif
