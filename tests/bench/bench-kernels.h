/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench-kernels.h - times quantizers, dequantization and matrix products on one core, at Kimi
 * K2's shapes. */
#ifndef BENCH_KERNELS_H
#define BENCH_KERNELS_H

#include "kernels/scalar.h"
#include "tests/bench/bench-floors.h"

#include <unistd.h>

/* ---- inputs ---- */

static uint64_t random_state = 88172645463325252u;
static uint32_t random_bits(void)
{
    random_state ^= random_state << 13, random_state ^= random_state >> 7, random_state ^= random_state << 17;
    return (uint32_t)(random_state >> 32);
}
static float random_normal(void) /* nearly: a sum of four uniform ones */
{
    float s = 0;
    for (int i = 0; i < 4; i++) s += (float)(random_bits() >> 8) * 0x1p-24f - .5f;
    return s * 1.732f;
}

static void *get_memory(size_t bytes)
{
    void *p = aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    assert(p);
    return p;
}

/* Fills n bytes with copies of the first `unit` bytes. */
static void repeat(uint8_t *p, size_t n, size_t unit)
{
    for (size_t at = unit; at < n; at += unit) memcpy(p + at, p, n - at < unit ? n - at : unit);
}

/* n copies of one weight of random values, so that no cache holds all of them.  w is the first one; data and
 * scale are the bytes of its planes, which are as far from the next copy's. */
struct copies { struct moe_weight w; int64_t data, scale; int n; };
static struct copies make_weight(int type, int64_t rows, int64_t cols, int copies)
{
    struct copies c = { .w = { .type = (uint8_t)type,
                               .layout = type == MOE_NVFP4 ? MOE_LAYOUT_TILE_128X4 : MOE_LAYOUT_LINEAR,
                               .rows = rows,
                               .cols = cols,
                               .global = 1.0f / 3000 },
                        .n = copies };
    c.data = moe_plane_bytes(type, c.w.layout, MOE_PLANE_DATA, rows, cols);
    c.scale = moe_plane_bytes(type, c.w.layout, MOE_PLANE_SCALE, rows, cols);
    uint8_t *d = get_memory((size_t)(c.data * copies)), *s = get_memory((size_t)(c.scale * copies) + 1);
    for (int64_t i = 0; i < c.data; i++) d[i] = (uint8_t)random_bits();
    for (int64_t i = 0; i < c.scale; i++) s[i] = (uint8_t)(0x30 + random_bits() % 16); /* near 1, as e4m3 */
    for (int64_t i = 0; i < rows * cols && (type == MOE_BF16 || type == MOE_FP8_B128); i++) {
        uint16_t h = moe_f32_to_bf16(random_normal());
        if (type == MOE_BF16) memcpy(d + 2 * i, &h, 2);
        else if ((d[i] & 0x7f) == 0x7f) d[i] = 0; /* NaN */
    }
    for (int64_t i = 0; i < c.scale / 4 && type == MOE_FP8_B128; i++) memcpy(s + 4 * i, &(float){ .01f }, 4);
    for (int64_t i = 0; i < c.scale / 2 && type == MOE_INT4_G32; i++)
        memcpy(s + 2 * i, &(uint16_t){ 0x3c23 }, 2);
    repeat(d, (size_t)(c.data * copies), (size_t)c.data);
    if (c.scale) repeat(s, (size_t)(c.scale * copies), (size_t)c.scale);
    c.w.data = d, c.w.scale = s;
    return c;
}
static void free_weight(struct copies *c)
{
    free((void *)(uintptr_t)c->w.data), free((void *)(uintptr_t)c->w.scale);
}

static struct moe_weight get_copy(const struct copies *c, int i)
{
    struct moe_weight w = c->w;
    w.data += i * c->data;
    w.scale += i * c->scale;
    return w;
}

/* ---- variants ---- */

struct variant { const char *name; struct moe_kernels k; };

/* The variants with vectors that this machine runs, best first; plain C where there are none. */
static int find_variants(struct variant v[2])
{
    unsigned have = moe_cpu_flags();
    int n = 0;
    if (have & MOE_CPU_AVX512) v[n].name = "avx512", moe_kernels_init(&v[n++].k, have);
    if (have & MOE_CPU_AVX2) v[n].name = "avx2", moe_kernels_init(&v[n++].k, MOE_CPU_AVX2);
    if (!n) v[n].name = "ref", moe_kernels_init(&v[n++].k, 0);
    return n;
}

/* ---- quantizers, from bf16 in memory ---- */

struct quantizing {
    const struct moe_kernels *k;
    enum moe_nvfp4_method method;
    const uint8_t *in;
    uint8_t *out;
    int64_t n;
};

/* Quantizes as the writers do, in pieces whose output stays in the cache. */
static void quantize_all(void *ctx)
{
    const struct quantizing *q = ctx;
    enum { PIECE = 1 << 16 };
    for (int64_t i = 0; i < q->n; i += PIECE)
        q->k->nvfp4_quantize_bf16(q->method, q->in + 2 * i, q->n - i < PIECE ? q->n - i : PIECE, 4.0f / 2688,
                                  q->out, q->out + PIECE / 2);
}

static double quantize_rate[3]; /* G weights a second of one core, the best variant, by method */

static void bench_quantizers(void)
{
    static const struct {
        const char *name;
        double aim;
    } methods[] = { { "quantize bf16, max", 3 },
                    { "quantize bf16, four-over-six", 1.5 },
                    { "quantize bf16, search", 1 } };
    int64_t n = quick ? 1 << 18 : 64 << 20;
    uint8_t *in = get_memory((size_t)n * 2), *out = get_memory(1 << 17);
    struct variant v[2];
    int variants = find_variants(v);
    for (int64_t i = 0; i < 1 << 18; i++) {
        uint16_t h = moe_f32_to_bf16(random_normal());
        memcpy(in + 2 * i, &h, 2);
    }
    repeat(in, (size_t)n * 2, 1 << 19);
    put_heading("quantizers, from memory");
    for (int m = 0; m < 3; m++)
        for (int i = 0; i < variants; i++) {
            struct quantizing q = { &v[i].k, (enum moe_nvfp4_method)m, in, out, n };
            double t = least_seconds(cpu_now, quantize_all, &q), bytes = 2.0 * (double)n;
            if (!i) quantize_rate[m] = (double)n / t * 1e-9;
            put_row(&(struct row){ methods[m].name, v[i].name, t, bytes, 1e-9 * (double)n, "Gweights/s",
                                   "plain read", bytes / t / machine.read, AIM_RATE,
                                   i ? methods[m].aim / 3 : methods[m].aim });
        }
    free(in), free(out);
}

/* ---- codecs ---- */

struct dequantizing { const struct moe_kernels *k; const struct moe_weight *w; float *out; bool keep; };

static void dequantize_all(void *ctx)
{
    const struct dequantizing *d = ctx;
    if (d->keep) d->k->dequantize_nt(d->w, 0, d->w->rows, d->out);
    else
        for (int64_t r = 0; r < d->w->rows; r++) d->k->dequantize(d->w, r, 0, d->w->cols, d->out);
}

static void bench_codecs(void)
{
    static const int types[] = { MOE_FP8_B128, MOE_INT4_G32, MOE_NVFP4 };
    struct variant v[2];
    int variants = find_variants(v);
    int64_t rows = quick ? 128 : 8192, cols = 7168;
    float *out = get_memory((size_t)(rows * cols) * 4);
    memset(out, 0, (size_t)(rows * cols) * 4);
    put_heading("codecs to float32");
    for (int t = 0; t < 3; t++) {
        struct copies c = make_weight(types[t], rows, cols, 1);
        double in = (double)(c.data + c.scale), values = (double)(rows * cols);
        char what[40];
        for (int i = 0; i < variants; i++) {
            snprintf(what, sizeof what, "%s, memory to memory", moe_dtype_name(types[t]));
            double s = least_seconds(cpu_now, dequantize_all,
                                     &(struct dequantizing){ &v[i].k, &c.w, out, true }),
                   bytes = in + 4 * values;
            put_row(&(struct row){ what, v[i].name, s, bytes, 1e-9 * values, "Gweights/s", "memory copy",
                                   bytes / s / machine.copy, AIM_SHARE, .6 });
            snprintf(what, sizeof what, "%s, memory to cache", moe_dtype_name(types[t]));
            s = least_seconds(cpu_now, dequantize_all, &(struct dequantizing){ &v[i].k, &c.w, out, false });
            put_row(&(struct row){ what, v[i].name, s, in, 1e-9 * values, "Gweights/s", "plain read",
                                   in / s / machine.read, NO_AIM, 0 });
        }
        free_weight(&c);
    }
    free(out);
}

/* ---- matrix products ---- */

/* The first `rows` rows of each copy, times n tokens. */
struct product { const struct copies *c; const float *x; float *y; int64_t n, rows; bool int16; };

static void multiply_all(void *ctx)
{
    const struct product *p = ctx;
    for (int i = 0; i < p->c->n; i++) {
        struct moe_weight w = get_copy(p->c, i);
        (p->int16 ? moe_kernels()->matmul_int16 : moe_kernels()->matmul)(&w, 0, p->rows, p->x, w.cols, p->n,
                                                                         p->y, p->rows);
    }
}

/* Multiplies part i of the rows; there are 8 parts for each thread. */
static void multiply_part(void *ctx, int64_t i, int worker)
{
    const struct product *p = ctx;
    int64_t parts = 8 * machine.threads, step = (p->rows / parts + 15) / 16 * 16, r0 = i * step,
            r1 = r0 + step < p->rows ? r0 + step : p->rows;
    (void)worker;
    if (r0 < r1) moe_kernels()->matmul(&p->c->w, r0, r1, p->x, p->c->w.cols, p->n, p->y + r0, p->rows);
}
static void multiply_on_all_cores(void *ctx)
{
    moe_pool_run(machine.pool, 8 * machine.threads, multiply_part, ctx);
}
static void multiply_on_one_core(void *ctx)
{
    for (int64_t i = 0; i < 8 * machine.threads; i++) multiply_part(ctx, i, 0);
}

/* Times a product and adds its row.  peak: bytes or operations a second of the floor; aim: the share of it
 * that is aimed at; 0: none. */
static void bench_one_product(const char *type, const struct product *p, const char *how, const char *floor,
                              double peak, double aim)
{
    char what[64];
    double t = least_seconds(cpu_now, multiply_all, (void *)(uintptr_t)p) / p->c->n,
           flops = 2.0 * (double)(p->rows * p->c->w.cols * p->n);
    double bytes = (double)(p->c->data + p->c->scale) * (double)p->rows / (double)p->c->w.rows;
    bool memory = !strcmp(floor, "plain read");
    snprintf(what, sizeof what, "%s %lld x %lld, N = %lld", type, (long long)p->rows, (long long)p->c->w.cols,
             (long long)p->n);
    put_row(&(struct row){ what, how, t, bytes, flops * 1e-9, "GFLOPS", floor,
                           memory ? bytes / t / peak : flops / t / peak, aim > 0 ? AIM_SHARE : NO_AIM, aim });
}

/* Half of a core's second-level cache, in bytes. */
static double half_cache(void)
{
    long n = sysconf(_SC_LEVEL2_CACHE_SIZE);
    return n > 0 ? (double)n / 2 : 400e3;
}

static void bench_product(int type, int64_t rows, int64_t cols)
{
    static const int64_t sizes[] = { 2, 4, 8, 32, 128 };
    const char *name = moe_dtype_name(type), *dot = machine.bf16 > 0 ? "bf16 dot" : "multiply-add";
    double bytes = (double)(moe_plane_bytes(type, 0, 0, rows, cols) +
                            moe_plane_bytes(type, 0, 1, rows, cols)),
           peak = machine.bf16 > 0 ? machine.bf16 : machine.fma;
    struct copies c = make_weight(type, rows, cols, quick ? 1 : (int)(300e6 / bytes));
    float *x = get_memory((size_t)cols * 128 * 4), *y = get_memory((size_t)rows * 128 * 4);
    for (int64_t i = 0; i < cols * 128; i++) x[i] = random_normal();
    memset(y, 0, (size_t)rows * 128 * 4);
    bench_one_product(name, &(struct product){ &c, x, y, 1, rows, false }, "memory", "plain read",
                      machine.read, .8);
    c.n = 1;
    int64_t few = (int64_t)((double)rows * half_cache() / bytes) / 16 * 16; /* rows that the cache holds */
    if (few > rows) few = rows;
    bench_one_product(name, &(struct product){ &c, x, y, 1, few, false }, "cache", "multiply-add",
                      machine.fma, type == MOE_NVFP4 ? .6 : 0);
    if (type == MOE_NVFP4)
        bench_one_product("nvfp4, int16", &(struct product){ &c, x, y, 1, few, true }, "cache",
                          "multiply-add", machine.fma, .6);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        bench_one_product(name, &(struct product){ &c, x, y, sizes[i], rows, false }, "1 core", dot, peak,
                          sizes[i] == 8     ? .6
                          : sizes[i] == 128 ? .75
                                            : 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes && type == MOE_NVFP4; i++)
        if (sizes[i] >= 8)
            bench_one_product("nvfp4, int16", &(struct product){ &c, x, y, sizes[i], rows, true }, "1 core",
                              dot, peak, 0);
    free_weight(&c), free(x), free(y);
}

/* Measures, in wall time, how much faster all cores are than one. */
static void bench_scaling(void)
{
    static const int64_t sizes[] = { 1, 8, 128 };
    struct copies c = make_weight(MOE_NVFP4, 2048, 7168, 1);
    float *x = get_memory(7168 * 128 * 4), *y = get_memory(2048 * 128 * 4);
    char what[48], how[16];
    for (int64_t i = 0; i < 7168 * 128; i++) x[i] = random_normal();
    snprintf(how, sizeof how, "%d cores", machine.threads);
    for (int i = 0; i < 3 && machine.threads > 1; i++) {
        struct product p = { &c, x, y, sizes[i], 2048, false };
        double one = least_seconds(moe_now, multiply_on_one_core, &p),
               all = least_seconds(moe_now, multiply_on_all_cores, &p),
               flops = 2.0 * 2048 * 7168 * (double)sizes[i];
        snprintf(what, sizeof what, "nvfp4 2048 x 7168, N = %lld", (long long)sizes[i]);
        put_row(&(struct row){ what, how, all, (double)(c.data + c.scale), flops * 1e-9, "GFLOPS",
                               "one core's speed", one / all, AIM_SHARE, .9 * machine.threads });
    }
    free_weight(&c), free(x), free(y);
}

static void bench_products(void)
{
    put_heading("matrix products");
    for (int i = 0; i < 2; i++) {
        int type = i ? MOE_BF16 : MOE_NVFP4;
        bench_product(type, 2048, 7168);
        bench_product(type, 7168, 2048);
    }
    bench_scaling();
}

#endif
