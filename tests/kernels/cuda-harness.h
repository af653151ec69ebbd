/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/cuda-harness.h - what the checks of GPU kernels (check-cuda-FAMILY.c) share.
 *
 * A check computes with the kernels of AVX2 and with those of kernels/cuda, through the driver as the model
 * does, and compares all bits; any NaN is equal to any other.  It runs with the stand-in for the driver that
 * lies beside it ($(B)/shim/libcuda.so.1), in three orders of threads, or with MOE_TEST_GPU=1 on the GPU of
 * the machine.  It skips (77) where the processor has no AVX2, where the build has no kernels of a GPU and
 * where the stand-in is not built; with MOE_TEST_GPU=1 a GPU that does not open is a failure (1).
 *
 * Arrays in device memory end where their allocation ends, less than 16 bytes before a page that has no
 * memory in the stand-in; the bytes around them keep a pattern, which is compared when they are freed. Inputs
 * must not change either. Where a check fails it prints what it was about and exits with 1. */
#ifndef CUDA_HARNESS_H
#define CUDA_HARNESS_H

#undef NDEBUG
#include "kernels/cuda/common.h"
#include "kernels/kernels.h"
#include "kernels/scalar.h"
#include "model/ops/cuda/gpu.h"
#include "tests/shim/cuda/open.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct moe_gpu *cuda_gpu;
static struct moe_kernels cuda_avx2; /* what results are compared with */
static uint64_t cuda_seed;           /* of inputs and of the order of threads */
static int64_t cuda_checks;
static char cuda_case[240];

__attribute__((format(printf, 1, 2), noreturn)) static void cuda_fail(const char *format, ...)
{
    va_list va;
    fprintf(stderr, "FAIL: %s: ", cuda_case);
    va_start(va, format);
    vfprintf(stderr, format, va);
    va_end(va);
    fprintf(stderr, " (repeat with -s %" PRIu64 ")\n", cuda_seed);
    exit(1);
}
/* Names what is checked from now on. */
#define CUDA_CASE(...) snprintf(cuda_case, sizeof cuda_case, __VA_ARGS__)
#define CUDA_CHECK(ok, ...) (cuda_checks++, (ok) ? (void)0 : cuda_fail(__VA_ARGS__))
/* A call that has to succeed; `err` is its last argument. */
#define CUDA_OK(call)                                          \
    do {                                                       \
        struct moe_err err = { 0 };                            \
        if ((call) != MOE_OK) cuda_fail("%s", err.msg);        \
    } while (0)

/* ---- random numbers: xorshift64* (Vigna 2016) ---- */

static uint64_t cuda_rng;
static inline uint64_t random_bits(void)
{
    cuda_rng ^= cuda_rng >> 12, cuda_rng ^= cuda_rng << 25, cuda_rng ^= cuda_rng >> 27;
    return cuda_rng * 0x2545f4914f6cdd1dULL;
}
static inline int64_t random_below(int64_t n) { return (int64_t)((random_bits() >> 11) % (uint64_t)n); }
static inline float random_uniform(void) { return (float)((double)(random_bits() >> 11) * 0x1p-52 - 1); }
static inline float random_normal(void)
{
    double u = ((double)(random_bits() >> 11) + 1) * 0x1p-53, v = (double)(random_bits() >> 11) * 0x1p-53;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* Kinds of inputs, those of checkkern and two with values that are not finite. */
enum pattern { UNIFORM, NORMAL, EXTREME, OUTLIER, ZERO, DENORMAL, TIES, WITH_NAN, WITH_INF, PATTERNS };
static const char *const pattern_name[] = { "uniform",  "normal", "extreme",    "one outlier", "zero",
                                            "denormal", "ties",   "with a NaN", "with an Inf" };
static inline void fill(float *x, int64_t n, enum pattern p)
{
    for (int64_t i = 0; i < n; i++)
        switch (p) {
        case UNIFORM: case OUTLIER: x[i] = random_uniform(); break;
        case EXTREME: x[i] = ldexpf(random_uniform(), (int)random_below(100) - 50); break;
        case ZERO: x[i] = random_below(2) ? 0.0f : -0.0f; break;
        case DENORMAL:
            x[i] = moe_f32_from_bits((uint32_t)random_below(0x800000) | (uint32_t)random_below(2) << 31);
            break;
        case TIES: x[i] = (float)(random_below(49) - 24) * .25f; break;
        default: x[i] = random_normal(); break;
        }
    if (n && p == OUTLIER) x[random_below(n)] = 3e4f;
    if (n && p == WITH_NAN) x[random_below(n)] = NAN;
    if (n && p == WITH_INF) x[random_below(n)] = random_below(2) ? INFINITY : -INFINITY;
}

static inline bool same_bits(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (moe_f32_bits(a[i]) != moe_f32_bits(b[i]) && !(isnan(a[i]) && isnan(b[i]))) return false;
    return true;
}
/* The first difference is printed. */
static inline void cuda_compare(const char *what, const float *want, const float *got, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        CUDA_CHECK(same_bits(want + i, got + i, 1), "%s[%" PRId64 "] of %" PRId64 " is %a, and has to be %a",
                   what, i, n, (double)got[i], (double)want[i]);
}

/* ---- arrays in device memory ---- */

enum { CUDA_PAGE = 4096, CUDA_PATTERN = 0xa5, CUDA_ARRAYS = 64 };
struct cuda_array { uint64_t at; size_t bytes, room, off; struct moe_addr base; void *content; };
static struct cuda_array cuda_arrays[CUDA_ARRAYS];
static int cuda_held;

/* An address (of MOE_CU) of `bytes` bytes, a multiple of 16, with the pattern around them.  from: what they
 * are, and have to stay, unless `output`; NULL: the pattern, too. */
static uint64_t cuda_new(const void *from, size_t bytes, bool output)
{
    assert(cuda_held < CUDA_ARRAYS);
    struct cuda_array *a = &cuda_arrays[cuda_held++];
    size_t whole = (bytes + 15) / 16 * 16;
    *a = (struct cuda_array){ .bytes = bytes, .room = (whole + 256 + CUDA_PAGE - 1) / CUDA_PAGE * CUDA_PAGE };
    a->off = a->room - whole;
    unsigned char *all = malloc(a->room);
    assert(all);
    memset(all, CUDA_PATTERN, a->room);
    if (from && bytes) memcpy(all + a->off, from, bytes);
    CUDA_OK(moe_gpu_alloc(cuda_gpu, a->room, &a->base, &err));
    CUDA_OK(moe_gpu_write(cuda_gpu, a->base, all, a->room, &err));
    a->at = a->base.at + a->off;
    if (output) free(all);
    else a->content = all;
    return a->at;
}
static inline uint64_t cuda_in(const void *from, size_t bytes) { return cuda_new(from, bytes, false); }
static inline uint64_t cuda_out(size_t bytes) { return cuda_new(NULL, bytes, true); }
static inline uint64_t cuda_inout(const void *from, size_t bytes) { return cuda_new(from, bytes, true); }

/* Launches, and waits. */
static inline void cuda_launch(enum moe_cuda_kernel k, struct moe_cuda_grid grid, const void *args,
                               size_t bytes)
{
    CUDA_OK(moe_gpu_launch(cuda_gpu, k, grid, args, bytes, &err));
    CUDA_OK(moe_gpu_wait(cuda_gpu, &err));
}
/* CUDA_LAUNCH(norm, args): of the kernel moe_cuda_norm. */
#define CUDA_LAUNCH(name, args) \
    cuda_launch(MOE_CUDA_##name, moe_cuda_##name##_grid(&(args)), &(args), sizeof(args))

/* Bytes of device memory, now. */
static inline void cuda_get(void *to, uint64_t at, size_t bytes)
{
    for (int i = 0; i < cuda_held; i++) {
        const struct cuda_array *a = &cuda_arrays[i];
        if (at < a->at || at + bytes > a->at + a->bytes || !bytes) continue;
        struct moe_addr from = a->base;
        from.at += at - a->base.at;
        CUDA_OK(moe_gpu_read(cuda_gpu, to, from, bytes, &err));
        CUDA_OK(moe_gpu_wait(cuda_gpu, &err));
        return;
    }
    assert(!bytes);
}

/* Frees all arrays, after a look at what has to be as it was. */
static inline void cuda_free_all(void)
{
    for (; cuda_held; cuda_held--) {
        struct cuda_array *a = &cuda_arrays[cuda_held - 1];
        unsigned char *now = malloc(a->room);
        assert(now);
        CUDA_OK(moe_gpu_read(cuda_gpu, now, a->base, a->room, &err));
        CUDA_OK(moe_gpu_wait(cuda_gpu, &err));
        for (size_t i = 0; i < a->room; i++) {
            bool inside = i >= a->off && i < a->off + a->bytes;
            unsigned char want = a->content ? ((unsigned char *)a->content)[i] : CUDA_PATTERN;
            if ((!inside || a->content) && now[i] != want)
                cuda_fail("array %d of %zu bytes: byte %td was written, and must not be", cuda_held - 1,
                          a->bytes, (ptrdiff_t)i - (ptrdiff_t)a->off);
        }
        cuda_checks++;
        moe_gpu_free(cuda_gpu, a->base);
        free(now);
        free(a->content);
    }
}

/* ---- the program ---- */

/* Runs `check` with three seeds, or with that of -s SEED. */
static int cuda_main(int argc, char **argv, void (*check)(void))
{
    const char *real = getenv("MOE_TEST_GPU");
    if (!(moe_cpu_flags() & MOE_CPU_AVX2)) {
        printf("skip: the processor has no AVX2\n");
        return 77;
    }
    moe_kernels_init(&cuda_avx2, MOE_CPU_AVX2);
    if ((!real || strcmp(real, "1")) && !standin_open()) {
        printf("skip: the stand-in for the driver cannot be opened\n");
        return 77;
    }
    struct moe_err err = { 0 };
    enum moe_code code = moe_gpu_open(&cuda_gpu, 0, &err);
    if (code != MOE_OK) {
        printf("%s: %s\n", code == MOE_UNSUPPORTED ? "skip" : "the GPU cannot be used", err.msg);
        return code == MOE_UNSUPPORTED ? 77 : 1;
    }
    uint64_t first = argc == 3 && !strcmp(argv[1], "-s") ? strtoull(argv[2], NULL, 10) : 0, n = first ? 1 : 3;
    for (uint64_t i = 0; i < n; i++) {
        char text[32];
        cuda_seed = first ? first : i + 1;
        cuda_rng = cuda_seed * 0x9e3779b97f4a7c15u;
        snprintf(text, sizeof text, "%" PRIu64, cuda_seed);
        setenv("MOE_SHIM_SEED", text, 1);
        check();
        cuda_free_all();
    }
    printf("%s: %" PRId64 " checks on %s\n", strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0],
           cuda_checks, moe_gpu_info(cuda_gpu)->name);
    moe_gpu_close(&cuda_gpu);
    return 0;
}

#endif
