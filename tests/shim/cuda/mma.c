/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/mma.c - tensor cores, and the fragments of the PTX manual (shim.h).
 *
 * The sum of a tensor core of Hopper or Blackwell, as MMA-Sim models it bit for bit (arXiv 2511.10909;
 * github.com/microsoft/MMA-Sim): the 16 products are exact, and each has the sum of its operands' exponents
 * as its own. All of them and c are cut, toward zero, 25 bits below the largest exponent, then added exactly,
 * and the sum is rounded toward zero to float32. Subnormals count in full, with the smallest exponent of
 * their type; a product that is zero has the exponent -133. A sum of zero is +0, and NaN is 0x7fffffff.
 * tests/kernels/check-mma.c states the same again, in doubles, and compares. */
#include "tests/shim/cuda/internal.h"

#include <string.h>

/* ---- numbers ---- */

/* m * 2^(e - bits of the type), where the whole part of m is one bit. */
struct number { int32_t m, e; };
enum { NOT_FINITE = 1 << 20, ZERO = -133 };

static struct number number_of_f16(uint32_t h)
{
    int32_t e = h >> 10 & 31, m = h & 1023;
    if (e == 31) return (struct number){ 0, NOT_FINITE };
    if (e) m |= 1024;
    return (struct number){ h & 0x8000 ? -m : m, e ? e - 15 : -14 };
}
static struct number number_of_bf16(uint32_t h)
{
    int32_t e = h >> 7 & 255, m = h & 127;
    if (e == 255) return (struct number){ 0, NOT_FINITE };
    if (e) m |= 128;
    return (struct number){ h & 0x8000 ? -m : m, e ? e - 127 : -126 };
}

static uint32_t bits_of(float f)
{
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
static float float_of(uint32_t u)
{
    float f;
    memcpy(&f, &u, 4);
    return f;
}

float shim_f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
    if (e == 31) return float_of(sign | 0x7f800000 | m << 13);
    if (e) return float_of(sign | (e + 112) << 23 | m << 13);
    float f = (float)m * 0x1p-24f;
    return sign ? -f : f;
}

uint16_t shim_f16_from_f32(float f)
{
    uint32_t u = bits_of(f), sign = u >> 16 & 0x8000, mag = u & 0x7fffffff;
    if (mag > 0x7f800000) return 0x7fff;
    if (mag >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* rounds to 2^16 or more */
    /* adding a power of two rounds at the last bit of a float16 of that size, to even */
    int32_t e = (int32_t)(mag >> 23) - 127;
    if (e < -14) e = -14;
    float unit = float_of((uint32_t)(e - 10 + 127 + 23) << 23), sum = float_of(mag) + unit;
    uint32_t m = bits_of(sum) - bits_of(unit);
    return (uint16_t)(sign | (((uint32_t)(e + 14) << 10) + m));
}

uint16_t shim_f16_from_e4m3(unsigned code)
{
    unsigned sign = code << 8 & 0x8000, mag = code & 127;
    if (mag == 127) return (uint16_t)(sign | 0x7fff);
    return shim_f16_from_f32((sign ? -256.f : 256.f) * shim_f32_from_f16((uint16_t)(mag << 7)));
}

/* ---- sums ---- */

/* s * 2^e, rounded toward zero. */
static float toward_zero(int64_t s, int32_t e)
{
    uint64_t mag = s < 0 ? (uint64_t)-s : (uint64_t)s;
    if (!mag) return 0;
    int32_t drop = 40 - __builtin_clzll(mag);
    if (e + drop < -149) drop = -149 - e;
    if (drop > 63) return 0;
    if (drop > 0) mag = mag >> drop << drop;
    /* what is left has at most 24 bits: the products are exact, or infinite, or the cut number was 0 */
    double v = (double)mag;
    union { uint64_t u; double d; } power = { .u = (uint64_t)(e + 1023) << 52 };
    v *= power.d;
    return mag ? (float)(s < 0 ? -v : v) : 0;
}

/* The sum where an operand is not finite. */
static float special(const float *a, const float *b, float c)
{
    double s = c;
    for (int k = 0; k < 16; k++) s += (double)a[k] * (double)b[k];
    return s != s ? float_of(0x7fffffff) : (float)s;
}

/* `up`: what products have to be shifted by to have 25 bits behind the point. */
static float fused(const struct number *a, const struct number *b, float c, int up)
{
    int32_t m[16], e[16], most = ZERO;
    uint32_t u = bits_of(c);
    int32_t ce = u >> 23 & 255, cm = u & 0x7fffff;
    if (ce) cm |= 0x800000;
    ce = ce ? ce - 127 : -126;
    if (cm) most = ce;
    for (int k = 0; k < 16; k++) {
        m[k] = a[k].m * b[k].m;
        e[k] = m[k] ? a[k].e + b[k].e : ZERO;
        most = e[k] > most ? e[k] : most;
    }
    int64_t sum = 0;
    for (int k = 0; k < 16; k++) {
        int32_t down = most - e[k], mag = (m[k] < 0 ? -m[k] : m[k]) << up;
        mag = down > 31 ? 0 : mag >> down;
        sum += m[k] < 0 ? -mag : mag;
    }
    if (cm) {
        int32_t down = most - ce, mag = down > 31 ? 0 : cm << 2 >> down;
        sum += u >> 31 ? -mag : mag;
    }
    return toward_zero(sum, most - 25);
}

/* ---- mma.m16n8k16 ---- */

/* What a lane hands over: its parts of a, b and c, as the manual's figures have them.  Register i of a holds
 * row lane / 4 + 8 (i % 2), columns 2 (lane % 4) + 8 (i / 2) and the next; register i of b the same of rows
 * and columns exchanged; c0 and c1 row lane / 4, columns 2 (lane % 4) and the next, c2 and c3 row lane / 4 +
 * 8. */
struct part { uint32_t a[4], b[2]; float c[4]; };

static void multiply(const unsigned char (*in)[64], unsigned char (*out)[64], bool bf16)
{
    static struct number a[16][16], b[8][16];
    static float fa[16][16], fb[8][16];
    struct part p[32];
    bool odd_a[16] = { false }, odd_b[8] = { false }; /* rows and columns with values that are not finite */
    for (unsigned l = 0; l < 32; l++) {
        memcpy(&p[l], in[l], sizeof *p);
        for (unsigned i = 0; i < 12; i++) {
            uint32_t word = i < 8 ? p[l].a[i / 2] : p[l].b[(i - 8) / 2];
            uint32_t h = word >> 16 * (i % 2) & 0xffff;
            unsigned r = l / 4 + (i < 8 ? i / 2 % 2 * 8 : 0);
            unsigned k = l % 4 * 2 + i % 2 + (i < 8 ? i / 4 : (i - 8) / 2) * 8;
            struct number *n = i < 8 ? &a[r][k] : &b[r][k];
            *n = bf16 ? number_of_bf16(h) : number_of_f16(h);
            if (n->e == NOT_FINITE) *(i < 8 ? &odd_a[r] : &odd_b[r]) = true;
            *(i < 8 ? &fa[r][k] : &fb[r][k]) = bf16 ? float_of(h << 16) : shim_f32_from_f16((uint16_t)h);
        }
    }
    for (unsigned l = 0; l < 32; l++) {
        float d[4];
        for (unsigned i = 0; i < 4; i++) {
            unsigned r = l / 4 + i / 2 * 8, n = l % 4 * 2 + i % 2;
            float c = p[l].c[i];
            bool odd = odd_a[r] || odd_b[n] || (bits_of(c) >> 23 & 255) == 255;
            d[i] = odd ? special(fa[r], fb[n], c) : fused(a[r], b[n], c, bf16 ? 11 : 5);
        }
        memcpy(out[l], d, sizeof d);
    }
}
static void multiply_f16(const unsigned char (*in)[64], unsigned char (*out)[64])
{
    multiply(in, out, false);
}
static void multiply_bf16(const unsigned char (*in)[64], unsigned char (*out)[64])
{
    multiply(in, out, true);
}

static void mma(const char *what, shim_compute *compute, float d[4], const uint32_t a[4], const uint32_t b[2])
{
    struct part p;
    memcpy(p.a, a, sizeof p.a), memcpy(p.b, b, sizeof p.b), memcpy(p.c, d, sizeof p.c);
    shim_meet(what, compute, &p, sizeof p, d, 4 * sizeof *d);
}
static const char name_f16[] = "mma.m16n8k16 of f16", name_bf16[] = "mma.m16n8k16 of bf16";
void shim_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    mma(name_f16, multiply_f16, d, a, b);
}
void shim_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2])
{
    mma(name_bf16, multiply_bf16, d, a, b);
}

/* ---- matrices of 8 rows of 16 bytes ---- */

struct address { const unsigned char *row; int matrices, transposed; };

static void load_matrices(const unsigned char (*in)[64], unsigned char (*out)[64])
{
    struct address a[32];
    for (unsigned l = 0; l < 32; l++) memcpy(&a[l], in[l], sizeof *a);
    for (unsigned l = 0; l < 32; l++)
        for (unsigned m = 0; m < (unsigned)a[l].matrices; m++)
            for (unsigned h = 0; h < 2; h++) {
                unsigned r = l / 4, c = l % 4 * 2 + h;
                unsigned row = a[0].transposed ? c : r, column = a[0].transposed ? r : c;
                memcpy(out[l] + 4 * m + 2 * h, a[m * 8 + row].row + 2 * column, 2);
            }
}
void shim_ldmatrix(uint32_t *m, const void *row, int matrices, int transposed)
{
    struct address a = { row, matrices, transposed };
    static const char *const name[] = { "ldmatrix", "ldmatrix.trans" };
    if ((int)(shim_here.thread.x % 32) < 8 * matrices) {
        if ((uintptr_t)row % 16) shim_fail("ldmatrix has a row that does not begin at a multiple of 16");
        if (!shim_is_shared(row, 16)) shim_fail("ldmatrix has a row that is not in shared memory");
    }
    shim_meet(name[transposed], load_matrices, &a, sizeof a, m, 4 * (size_t)matrices);
}

static void transpose(const unsigned char (*in)[64], unsigned char (*out)[64])
{
    for (unsigned l = 0; l < 32; l++)
        for (unsigned h = 0; h < 2; h++) { /* row and column change places */
            unsigned r = l % 4 * 2 + h, c = l / 4;
            memcpy(out[l] + 2 * h, in[r * 4 + c / 2] + c % 2 * 2, 2);
        }
}
uint32_t shim_movmatrix(uint32_t m)
{
    static const char name[] = "movmatrix";
    uint32_t t;
    shim_meet(name, transpose, &m, sizeof m, &t, sizeof t);
    return t;
}
