/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the tensor core of the shim (tests/shim/cuda/mma.c) on random fragments: check-mma [FRAGMENTS
 * [FILE]], by default 10000 of each type.
 *
 * The shim computes with integers and takes fragments apart as the PTX manual says. Here the published model
 * of Hopper's sum (MMA-Sim 2.1.1, function t_fdpa with F = 25, e_zero = -133, RZ-FP32) is computed in
 * doubles, on matrices, and fragments are made by another source's tables: the layouts of CUTLASS.
 *
 * FILE gets the fragments and what the shim made of them, for a reader that has MMA-Sim itself
 * (t-mma-oracle): of each, in words of 32 bits, 1 for bfloat16 or 0, then of each lane a [4], b [2], c [4]
 * and d [4]. */
#include "tests/ok.h"
#include "kernels/scalar.h"
#include "tests/kernels/cutlass-layouts.h"
#include "tests/shim/cuda/fragments.h"
#include "tests/shim/cuda/shim.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { M = 16, N = 8, K = 16, WARPS = 8 };

static uint64_t rng = 0x9e3779b97f4a7c15u;
static uint64_t random_bits(void)
{
    rng ^= rng >> 12, rng ^= rng << 25, rng ^= rng >> 27;
    return rng * 0x2545f4914f6cdd1dULL;
}
static unsigned below(unsigned n) { return (unsigned)((random_bits() >> 33) % n); }

/* ---- the model, in doubles ---- */

static void parts_of(double x, int least, double *s, int *e)
{
    *s = frexp(x, e) * 2;
    *e -= 1;
    if (x == 0) *e = least;
    if (*e < least) *s = ldexp(*s, *e - least), *e = least;
}

static float model(const double *a, const double *b, float c, int least)
{
    double s[K + 1], sum = 0, plain = c;
    int e[K + 1], most;
    for (int k = 0; k < K; k++) plain += a[k] * b[k];
    if (!isfinite(plain)) return isnan(plain) ? moe_f32_from_bits(0x7fffffff) : (float)plain;
    parts_of(c, -126, &s[K], &e[K]);
    for (int k = 0; k < K; k++) {
        double x, y;
        int ex, ey;
        parts_of(a[k], least, &x, &ex), parts_of(b[k], least, &y, &ey);
        s[k] = x * y, e[k] = ex + ey;
    }
    for (int k = 0; k <= K; k++) if (s[k] == 0) e[k] = -133;
    most = e[0];
    for (int k = 1; k <= K; k++) most = e[k] > most ? e[k] : most;
    for (int k = 0; k <= K; k++) sum += trunc(ldexp(s[k], 25 + e[k] - most));
    double value = ldexp(sum, most - 25), t;
    int f;
    parts_of(value, -126, &t, &f);
    return (float)ldexp(trunc(ldexp(t, 23)), f - 23) + 0.f;
}

/* ---- fragments by CUTLASS's tables ---- */

/* Matrices stored column after column: a [16, 16], b [8, 16] (n, k), c [16, 8]. */
struct matrices { uint16_t a[M * K], b[N * K]; float c[M * N]; };

static void take_apart(const struct matrices *m, struct fragments_part p[32])
{
    memset(p, 0, 32 * sizeof *p);
    for (unsigned l = 0; l < 32; l++) {
        for (unsigned v = 0; v < 8; v++) p[l].a[v / 2] |= (uint32_t)m->a[cutlass_a[l][v]] << v % 2 * 16;
        for (unsigned v = 0; v < 4; v++) p[l].b[v / 2] |= (uint32_t)m->b[cutlass_b[l][v]] << v % 2 * 16;
        for (unsigned v = 0; v < 4; v++) p[l].c[v] = m->c[cutlass_c[l][v]];
    }
}

/* ---- inputs ---- */

/* What fragments are made of. TINY: bfloat16 whose products lie around the smallest float32; WITH_SPECIAL:
 * some are NaN and Inf. */
enum kind { WHOLE, DIGITS, NORMAL, ANY, SUBNORMAL, TINY, CANCEL, WITH_SPECIAL, KINDS };

static uint16_t half(enum kind k, bool bf16)
{
    unsigned bits = bf16 ? 7 : 10, bias = bf16 ? 127 : 15, top = bf16 ? 255 : 31, sign = below(2) << 15;
    unsigned m = below(1u << bits);
    switch (k) {
    case WHOLE: return (uint16_t)(below(4) ? sign | (bias + below(8)) << bits | (m >> 3 << 3) : sign);
    case DIGITS: return (uint16_t)(below(8) ? sign | (bias + below(11)) << bits | m : 0);
    case NORMAL: return (uint16_t)(sign | (bias - 3 + below(6)) << bits | m);
    case SUBNORMAL: return (uint16_t)(sign | below(3) << bits | m);
    case TINY: return (uint16_t)(below(8) ? sign | (bf16 ? 54 + below(8) : below(2)) << bits | m : sign);
    case WITH_SPECIAL: return (uint16_t)(sign | (below(40) ? below(top) : top) << bits | (below(2) ? m : 0));
    default: return (uint16_t)(sign | below(top) << bits | m);
    }
}

static float start(enum kind k)
{
    uint32_t sign = (uint32_t)below(2) << 31, m = below(1 << 23);
    switch (k) {
    case TINY: return below(2) ? 0 : moe_f32_from_bits(sign | below(1 << 10));
    case WHOLE: case DIGITS: return below(2) ? 0 : (float)(int)(below(1 << 20)) - 0x1p19f;
    case NORMAL: case CANCEL: return moe_f32_from_bits(sign | (120 + below(16)) << 23 | m);
    case SUBNORMAL: return moe_f32_from_bits(sign | below(110) << 23 | m);
    case WITH_SPECIAL:
        if (below(40) == 0) return moe_f32_from_bits(sign | 255u << 23 | m * below(2)); /* fall through */
    default: return moe_f32_from_bits(sign | below(255) << 23 | m);
    }
}

static void make(struct matrices *m, enum kind k, bool bf16)
{
    for (int i = 0; i < M * K; i++) m->a[i] = half(k, bf16);
    for (int i = 0; i < N * K; i++) m->b[i] = half(k, bf16);
    for (int i = 0; i < M * N; i++) m->c[i] = start(k);
    if (k != CANCEL) return;
    /* the second half of k takes the first away, but for one value */
    for (int i = 0; i < M * K / 2; i++) m->a[M * K / 2 + i] = m->a[i] ^ 0x8000;
    for (int i = 0; i < N * K / 2; i++) m->b[N * K / 2 + i] = m->b[i];
    for (int i = 0; i < M; i++) m->a[i] ^= 1;
}

static double value(uint16_t h, bool bf16)
{
    return bf16 ? (double)moe_bf16_to_f32(h) : (double)moe_f16_to_f32(h);
}

/* ---- the kernels ---- */

void fragments_mma(const struct fragments a);
void fragments_load(const struct fragments a);
static void run_mma(const void *a) { fragments_mma(*(const struct fragments *)a); }
static void run_load(const void *a) { fragments_load(*(const struct fragments *)a); }
static const struct shim_kernel mma = { "fragments_mma", run_mma, sizeof(struct fragments), 256 };
static const struct shim_kernel load = { "fragments_load", run_load, sizeof(struct fragments), 32 };

static void write_fragment(FILE *f, bool bf16, const struct fragments_part p[32], float d[32][4])
{
    const uint32_t type = bf16;
    OK(fwrite(&type, sizeof type, 1, f) == 1);
    for (unsigned l = 0; l < 32; l++)
        OK(fwrite(&p[l], sizeof *p, 1, f) == 1 && fwrite(d[l], sizeof d[l], 1, f) == 1);
}

static void check_products(enum kind k, bool bf16, FILE *f)
{
    static struct matrices m[WARPS];
    static struct fragments_part p[WARPS][32];
    static float d[WARPS][32][4];
    for (int w = 0; w < WARPS; w++) make(&m[w], k, bf16), take_apart(&m[w], p[w]);
    struct fragments a = { .part = p[0], .d = d[0][0], .bf16 = bf16 };
    shim_launch(&mma, (const unsigned[3]){ 1, 1, 1 }, 256, 0, SHIM_NOT_ALLOWED, &a);
    for (int w = 0; f && w < WARPS; w++) write_fragment(f, bf16, p[w], d[w]);
    for (int w = 0; w < WARPS; w++)
        for (unsigned l = 0; l < 32; l++)
            for (unsigned v = 0; v < 4; v++) {
                unsigned at = cutlass_c[l][v], r = at % M, c = at / M;
                double x[K], y[K];
                for (unsigned i = 0; i < K; i++)
                    x[i] = value(m[w].a[i * M + r], bf16), y[i] = value(m[w].b[i * N + c], bf16);
                float want = model(x, y, m[w].c[at], bf16 ? -126 : -14);
                if (moe_f32_bits(want) != moe_f32_bits(d[w][l][v]))
                    fprintf(stderr, "check-mma: kind %d, %s: %a, and has to be %a\n", k,
                            bf16 ? "bf16" : "f16", (double)d[w][l][v], (double)want);
                OK(moe_f32_bits(want) == moe_f32_bits(d[w][l][v]));
            }
}

/* Each value of the matrices is its own number, so that a wrong place shows. */
static void check_matrices(void)
{
    uint16_t rows[32][8];
    uint32_t words[4][32];
    for (int r = 0; r < 32; r++) for (int c = 0; c < 8; c++) rows[r][c] = (uint16_t)(r * 8 + c + 1);
    for (int form = FRAGMENTS_X4; form <= FRAGMENTS_MOVE; form++) {
        const void *from = rows;
        struct fragments a = { .rows = from, .words = words[0], .form = form };
        shim_launch(&load, (const unsigned[3]){ 1, 1, 1 }, 32, 0, SHIM_NOT_ALLOWED, &a);
        unsigned n = form == FRAGMENTS_X2 ? 2 : form == FRAGMENTS_MOVE ? 1 : 4;
        for (unsigned i = 0; i < n; i++)
            for (unsigned l = 0; l < 32; l++)
                for (unsigned h = 0; h < 2; h++) {
                    unsigned v = 2 * i + h; /* movmatrix is in no table: row and column change places */
                    unsigned at = form == FRAGMENTS_X4 ? cutlass_x4[l][v]
                                : form == FRAGMENTS_X2 ? cutlass_x2[l][v]
                                : form == FRAGMENTS_TRANS ? cutlass_x4_trans[l][v]
                                                          : (2 * (l % 4) + h) * 8 + l / 4;
                    uint16_t want = rows[at / 8][at % 8];
                    OK((words[i][l] >> 16 * h & 0xffff) == want);
                }
    }
}

/* Conversions, against those of kernels/scalar.h. */
static void check_numbers(void)
{
    for (uint32_t h = 0; h < 0x10000; h++) {
        float f = shim_f32_from_f16((uint16_t)h), want = moe_f16_to_f32((uint16_t)h);
        OK(isnan(f) ? isnan(want) : moe_f32_bits(f) == moe_f32_bits(want));
        if (!isnan(f)) OK(shim_f16_from_f32(f) == h);
        /* between two neighbours to the nearer one, and from the middle to the even one */
        float next = moe_f16_to_f32((uint16_t)(h + 1)), middle = (f + next) / 2;
        if ((h & 0x7fff) >= 0x7bff) continue;
        OK(shim_f16_from_f32(middle) == (h & 1 ? h + 1 : h));
        OK(shim_f16_from_f32(nextafterf(middle, f)) == h);
        OK(shim_f16_from_f32(nextafterf(middle, next)) == h + 1);
    }
    OK(shim_f16_from_f32(65519.996f) == 0x7bff && shim_f16_from_f32(65520) == 0x7c00);
    OK(shim_f16_from_f32(-1e30f) == 0xfc00 && shim_f16_from_f32(NAN) == 0x7fff);
    for (unsigned c = 0; c < 256; c++) {
        float f = shim_f32_from_f16(shim_f16_from_e4m3(c)), want = moe_e4m3_to_f32((uint8_t)c);
        OK(isnan(want) ? isnan(f) : moe_f32_bits(f) == moe_f32_bits(want));
    }
}

int main(int argc, char **argv)
{
    long fragments = argc > 1 ? atol(argv[1]) : 10000;
    FILE *f = argc > 2 ? fopen(argv[2], "wb") : NULL;
    OK(f || argc <= 2);
    for (long i = 0; i < fragments; i += WARPS)
        for (int bf16 = 0; bf16 < 2; bf16++) check_products((enum kind)(i / WARPS % KINDS), bf16, f);
    if (f) OK(!fclose(f));
    check_matrices();
    check_numbers();
    printf("check-mma: %ld fragments of each type, %ld checks\n", fragments, checks);
    return 0;
}
