/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/checkkern.h - what the checks of checkkern share: variants, seeds, guarded memory, inputs and
 * reports. */
#ifndef CHECKKERN_H
#define CHECKKERN_H

#undef NDEBUG
#include "kernels/kernels.h"
#include "kernels/scalar.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* ---- variants ---- */

/* A level with its table.  AVX512DOT is avx512 with what avx512dot/ replaces.  There are as many as this
 * processor can run, and each needs the one before. */
enum { REF, AVX2, AVX512, AVX512DOT, VARIANTS };
struct variant { const char *name; struct moe_kernels k; };
static struct variant variants[VARIANTS];
static int n_variants;

static void find_variants(void)
{
    static const struct { const char *name; unsigned need; } level[] = {
        { "ref", 0 }, { "avx2", MOE_CPU_AVX2 }, { "avx512", MOE_CPU_AVX2 | MOE_CPU_AVX512 } };
    unsigned have = moe_cpu_flags(), dot = have & (MOE_CPU_BF16 | MOE_CPU_VNNI | MOE_CPU_VBMI);
    for (int i = 0; i < 3; i++)
        if ((have & level[i].need) == level[i].need) {
            variants[n_variants].name = level[i].name;
            moe_kernels_init(&variants[n_variants++].k, level[i].need);
        }
    if (!dot) return;
    variants[n_variants].name = "avx512dot";
    moe_kernels_init(&variants[n_variants++].k, have);
}

/* ---- reports ---- */

/* What is being checked; CHECK and the signal handler print it. */
static const char *now_kernel = "none", *now_variant = "none";
static char now_case[200];
static uint64_t seed;
static int64_t checks;

#define CHECK(ok, ...) \
    do { \
        checks++; \
        if (!(ok)) { \
            fprintf(stderr, "checkkern: %s %s: %s: ", now_kernel, now_variant, now_case); \
            fprintf(stderr, __VA_ARGS__); \
            fprintf(stderr, " (seed %" PRIu64 "; repeat with -s %" PRIu64 " -f %s)\n", seed, seed, \
                    now_kernel); \
            exit(1); \
        } \
    } while (0)

/* Nothing but write(2) may be called in a signal handler. */
static void write_stderr(const char *s) { if (write(2, s, strlen(s)) < 0) return; }
static void on_fault(int sig)
{
    char digits[24] = { 0 }, *p = digits + 22;
    for (uint64_t s = seed; p == digits + 22 || s; s /= 10) *--p = (char)('0' + s % 10);
    write_stderr(sig == SIGILL ? "checkkern: illegal instruction in " : "checkkern: fault in ");
    write_stderr(now_kernel), write_stderr(" "), write_stderr(now_variant), write_stderr(": "),
        write_stderr(now_case), write_stderr(" (seed "), write_stderr(p), write_stderr(")\n");
    _exit(1);
}

/* ---- random numbers: xorshift64* (Vigna 2016) ---- */

static uint64_t rng;
static uint64_t random_bits(void)
{
    rng ^= rng >> 12, rng ^= rng << 25, rng ^= rng >> 27;
    return rng * 0x2545f4914f6cdd1dULL;
}
/* A whole number in [0, n). */
static int64_t random_below(int64_t n) { return (int64_t)((random_bits() >> 11) % (uint64_t)n); }
/* A number in [-1, 1). */
static float random_uniform(void) { return (float)((double)(random_bits() >> 11) * 0x1p-52 - 1); }
/* A normal number of mean 0 and variance 1 (Box and Muller). */
static float random_normal(void)
{
    double u = ((double)(random_bits() >> 11) + 1) * 0x1p-53, v = (double)(random_bits() >> 11) * 0x1p-53;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * v));
}

/* ---- memory that ends at a page nobody may touch ---- */

struct guarded { uint8_t *map; size_t bytes; };

/* Maps memory, and returns the `bytes` bytes that end where a guard page begins, whatever alignment that
 * gives. */
static void *guarded_end(struct guarded *g, size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    g->bytes = (bytes + page - 1) / page * page + page;
    g->map = mmap(NULL, g->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(g->map != MAP_FAILED && mprotect(g->map + g->bytes - page, page, PROT_NONE) == 0);
    return g->map + g->bytes - page - bytes;
}
static void guarded_free(struct guarded *g) { munmap(g->map, g->bytes); }

/* Up to 16 buffers at a time, which free_buffers() frees together.  off: bytes between the end of a buffer
 * and its guard page; where it is odd, the buffer is not aligned. */
static struct guarded held[16];
static int n_held;
static void *guarded_buffer(size_t bytes, size_t off)
{
    assert(n_held < 16);
    return guarded_end(&held[n_held++], bytes + off);
}
static void free_buffers(void) { while (n_held) guarded_free(&held[--n_held]); }
static float *guarded_floats(int64_t n)
{
    return guarded_buffer(sizeof(float) * (size_t)n, (size_t)random_below(3) * 4);
}

/* ---- inputs ---- */

/* TIES: multiples of 1/4, among them those that lie midway between two values of E2M1. */
enum pattern { UNIFORM, NORMAL, EXTREME, OUTLIER, ZERO, DENORMAL, TIES, PATTERNS };
static const char *const pattern_name[] = { "uniform", "normal",   "extreme", "one outlier",
                                            "zero",    "denormal", "ties" };

static void fill(float *x, int64_t n, enum pattern p)
{
    for (int64_t i = 0; i < n; i++)
        switch (p) {
        case UNIFORM: case OUTLIER: x[i] = random_uniform(); break;
        case NORMAL: x[i] = random_normal(); break;
        case EXTREME: x[i] = ldexpf(random_uniform(), (int)random_below(100) - 50); break;
        case ZERO: x[i] = random_below(2) ? 0.0f : -0.0f; break;
        case DENORMAL:
            x[i] = moe_f32_from_bits((uint32_t)random_below(0x800000) | (uint32_t)random_below(2) << 31);
            break;
        default: x[i] = (float)(random_below(49) - 24) * .25f; break;
        }
    if (p == OUTLIER && n) x[random_below(n)] = 3e4f;
}

/* Whether a and b have the same bits; any NaN is equal to any other. */
static bool same_bits(const float *a, const float *b, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (moe_f32_bits(a[i]) != moe_f32_bits(b[i]) && !(isnan(a[i]) && isnan(b[i]))) return false;
    return true;
}

#endif
