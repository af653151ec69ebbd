/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/nvfp4-exact.h - quantizes one NVFP4 block at a time, with ref's arithmetic: for blocks whose
 * best scale or codes the estimates of kernels/body/nvfp4.h cannot tell.
 *
 * ref divides, rounds, multiplies back and adds squares in double, in ascending order.  Here errors are
 * first summed in an order that suits vectors, and again in ref's order only where the errors of two scales
 * are within a factor of 1 + 2^-40 of each other.
 *
 * Included by kernels/body/nvfp4.h, after a blocks.h, which gives OP, EACH, LANES and the vectors. */
#include "kernels/scalar.h"

#include <string.h>

struct code_set { uint64_t bits[2]; }; /* a set of scale codes: bit c of 128 */

OP void code_set_add(struct code_set *s, int c) { s->bits[c >> 6] |= (uint64_t)1 << (c & 63); }

/* Take the least code out of the set; 127 when it is empty. */
OP int code_set_take(struct code_set *s)
{
    int i = s->bits[0] ? 0 : 1;
    if (!s->bits[i]) return 127;
    int c = 64 * i + __builtin_ctzll(s->bits[i]);
    s->bits[i] &= s->bits[i] - 1;
    return c;
}

/* moe_f32_to_e2m1 of a >= 0: below 1 it rounds to halves, from 1 on to one bit of mantissa, both to even. */
OP bi e2m1_code(bf a)
{
    bi u = f_bits(a), low = f_round(f_mul(a, f_set(2)));
    bi high = i_sub(i_shr(i_add(u, i_add(i_set(0x1fffff), i_and(i_shr(u, 22), i_set(1)))), 22), i_set(252));
    return i_pick(f_lt(a, f_set(1)), low, i_min(high, i_set(7)));
}

/* The lanes, as bits, in which a >= 0 lies halfway between two e2m1 values.  A few other values are reported
 * as ties, too: then only time is lost. */
OP unsigned find_ties(bf a)
{
    /* 0 for .25 and .75 */
    bf low = f_abs(f_sub(f_abs(f_sub(a, f_set(.5f))), f_set(.25f)));
    /* 0 for 1.25, 1.75, 2.5, 3.5 and 5 */
    bi high = i_sub(i_and(f_bits(a), i_set(0x3fffff)), i_set(0x200000));
    return m_bits(f_le(low, f_set(0))) | (~m_bits(i_any(high)) & ((1u << LANES) - 1));
}

/* The sum of the squared differences of 16 values, as ref makes it. */
static double error_in_ref_order(const float *x, const float *y)
{
    double err = 0;
    for (int i = 0; i < 16; i++) {
        double d = (double)x[i] - (double)y[i];
        err += d * d;
    }
    return err;
}

/* A block under one scale: its values, their squared error, and `ties`, which is 0 where no quotient lies on
 * a tie. */
struct trial { float v[16]; double err; unsigned ties; };

/* Rounds a block, whose magnitudes are x, under scale code c. */
static void try_scale(const float *x, float global, int c, struct trial *t)
{
    static const float e2m1[8] = { 0, .5f, 1, 1.5f, 2, 3, 4, 6 };
    bf s = f_set(moe_e4m3_to_f32((uint8_t)c) * global);
    t->err = 0, t->ties = 0;
    EACH(i, 16 / LANES) {
        bf a = f_load(x + i * LANES), q = f_div(a, s), v = f_mul(f_of8(e2m1, e2m1_code(q)), s);
        f_store(t->v + i * LANES, v);
        t->ties |= find_ties(q);
        t->err += f_distance(a, v);
    }
}

/* Whether a has less error than b by ref's arithmetic. */
static bool is_better(const float *x, const struct trial *a, const struct trial *b)
{
    if (fabs(a->err - b->err) > 0x1p-40 * b->err) return a->err < b->err;
    /* a code and its half often give the same values where the source was INT4 */
    if (!memcmp(a->v, b->v, sizeof a->v)) return false;
    return error_in_ref_order(x, a->v) < error_in_ref_order(x, b->v);
}

/* Returns the best of the codes in `in`, and of those 8, 16, ... above each where they may be better (WINDOW
 * of kernels/body/nvfp4.h). */
static int choose_exact(const float *x, float global, struct code_set in)
{
    struct trial t[2] = { { .err = INFINITY } };
    int best = 1, at = 0;
    for (int c; (c = code_set_take(&in)) <= 126;) {
        struct trial *n = &t[1 - at];
        try_scale(x, global, c, n);
        if (n->ties && c + 8 <= 126 && n->err <= t[at].err * (1 + 0x1p-12)) code_set_add(&in, c + 8);
        if (t[at].err == INFINITY || is_better(x, n, &t[at])) best = c, at = 1 - at;
    }
    return best;
}

/* Returns the best of all codes.  c0: the code of amax / (6 global), from which this looks down and up as far
 * as WINDOW of kernels/body/nvfp4.h says. */
static int search_one(const float *x, float global, float amax, int c0)
{
    struct trial t;
    struct code_set in = { { 0 } };
    int low = c0;
    try_scale(x, global, c0, &t);
    for (; low > 1; low--) {
        double over = (double)amax - 6 * (double)(moe_e4m3_to_f32((uint8_t)(low - 1)) * global);
        if (over > 0 && over * over > t.err * (1 + 0x1p-12)) break;
    }
    for (int c = low; c <= 126 && (c < 16 || 3.5 * (double)(moe_e4m3_to_f32((uint8_t)c) * global) <=
                                                 (double)amax * (1 + 0x1p-12));
         c++)
        code_set_add(&in, c);
    return choose_exact(x, global, in);
}

/* Writes the E2M1 codes of a block, 8 bytes.  Returns whether a quotient may lie on a tie. */
static bool encode_one(const float *x, float scale, uint8_t *codes)
{
    int32_t c[16];
    unsigned tie = 0;
    EACH(i, 16 / LANES) {
        bf v = f_div(f_load(x + i * LANES), f_set(scale));
        bi q = e2m1_code(f_abs(v));
        tie |= find_ties(f_abs(v));
        i_store(c + i * LANES, i_pick(f_lt(v, f_set(0)), i_or(q, i_set(8)), q));
    }
    /* 16 codes of 32 bits -> 16 bytes -> low + 16 * high nibble in 8 words -> 8 bytes */
    const __m128i *p = (const void *)c;
    __m128i lo = _mm_packs_epi32(_mm_loadu_si128(p), _mm_loadu_si128(p + 1));
    __m128i hi = _mm_packs_epi32(_mm_loadu_si128(p + 2), _mm_loadu_si128(p + 3));
    __m128i w = _mm_maddubs_epi16(_mm_packus_epi16(lo, hi), _mm_set1_epi16(0x1001));
    _mm_storel_epi64((void *)codes, _mm_packus_epi16(w, w));
    return tie;
}
