/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/nvfp4.h - the NVFP4 quantizers, LANES blocks at once.  Included once by each
 * kernels/<isa>/nvfp4.c, after its blocks.h.
 *
 * They give ref's bytes for any input, without ref's divisions and sums in double.  Each lane has one block,
 * whose elements lie in successive vectors, so that no sum goes across lanes.  Two elements share a lane, as
 * 16-bit words u = 8192 |x| / s, where s is the block's scale times the global.  Where these words are too
 * inexact to choose between two scales or codes, nvfp4-exact.h chooses with ref's arithmetic.  A
 * block outside the range where the bounds below hold goes to ref.
 *
 * BOUND.  How far an error estimated from words may be off.  Let A be the block's largest magnitude.
 * - Magnitudes become words first: xi = round(65535 |x| / A).  Then u = floor(xi R / 2^16), where R = the
 *   ceiling of 2^29 A / (65535 s), at most 64512.
 * - Against 8192 |x| / s: rounding xi adds at most R / 2^17 < 1/2; R is up to 1 too high, which adds less
 *   than 1; floor takes up to 1; float32 arithmetic on the way adds less than .02.  So u is within 1.52.
 * - The nearest e2m1 value is looked up by the quarter that u lies in, as all ties are ends of quarters.  The
 *   distance to the nearest value changes by at most as much as u.  So with D = the sum of the 16 squared
 *   distances, sqrt(D) is within 4 * 1.52 < NEAR of the true sqrt(error) * 8192 / s; NEAR also covers ref's
 *   own roundings and the four bits that an estimate gives up to its index.
 * Where estimates are too close for this bound, the scale code is chosen with ref's arithmetic.
 *
 * CODES.  Once the scale is chosen, elements' codes are looked up by u = round(8192 |x| / s), which one
 * float32 operation gives within .52: only a u exactly on a tie leaves a code undecided.  A block with
 * such a u is encoded again with ref's arithmetic (requantize_exact).
 *
 * WINDOW.  Which scale codes a search has to try.  Let s_c be the scale of code c, and top the largest code
 * with 3.5 s_top <= A.  For the nine codes top - 8 to top, A / s < 7.9.
 * - Below the window: code c has an error of at least (A - 6 s_c)^2, which grows as c falls.  Where that of
 *   top - 9 is not above the least error of the window, choose_exact_in_window tries what lies below, too.
 * - Above it: for c >= 16 the scale of code c - 8 is exactly half of that of c.  While A < 7 s_(c-8), each
 *   value that c can choose (0, .5, 1, 1.5, 2, 3 times s_c) is one that c - 8 can choose (0, 1, 2, 3, 4, 6
 *   times s_(c-8)), the same float32.  So c - 8 is no worse in any element, and hence not in ref's sum, whose
 *   roundings are monotonic; and the lower code wins ties.  The one exception is an element whose quotient in
 *   float32 is a tie, as it may be rounded to the other side (beside a tie, the rounding of a stored value is
 *   smaller than the difference that the quotient shows).  So c is needed only if c < 16, or 3.5 s_c <= A, or
 *   c - 8 may be the best and has such a tie: then choose_exact tries c, c + 8, ...
 *
 * LADDER: the versions tried, in 10^9 weights/s of one core: max / four over six / search.
 *   Zen 4, float32 in the second-level cache          avx512                 avx2
 *     float32 estimates, a division a weight for
 *     codes, ties in double                           1.6 / 1.1 / 0.50       1.1 / 0.7 / 0.28
 *   Intel Xeon (family 6 model 207), normal bf16 in the second-level cache
 *     words, ten codes, blocks below the window
 *     one by one                                      3.0 / 1.7 / 0.49       1.9 / 1.0 / 0.29
 *     a window of nine from the top, factors from
 *     tables, words by an fma, only a u on a tie
 *     leaves a code undecided                              3.4 / 1.9 / 0.88       2.1 / 1.1 / 0.50
 *     c + 8 only for ties, two codes below the
 *     window instead of ten                           3.5 / 1.9 / 0.92       2.1 / 1.1 / 0.52
 *     codes of one batch made while the next
 *     chooses, prefetch                               3.8 / 2.1 / 1.01       2.3 / 1.2 / 0.56
 *     squares by VNNI (avx512dot)                     3.8 / 2.1 / 1.08
 *     bf16 kept as words alone, |x| made from
 *     them twice                                      5 % more / 2 % more / the same (beside other
 *     programs) */
#include "kernels/body/nvfp4-exact.h"

#define NEAR 6.375f /* see BOUND */
#define FAST_CODE 8 /* from this code on scales are normal numbers */
#define FAST_TOP 17 /* with a top from here on, all codes that a search tries or bounds are normal */
#define AHEAD 4096  /* bytes by which input is prefetched */

/* ---- LANES blocks ---- */

/* A set of the batch's blocks is an unsigned, in which bit l stands for block l. */
struct batch {
    float t[16][LANES];        /* |x|, [element][block]; of float32 alone */
    int32_t w[8][LANES];       /* upper halves of x, which are bf16: elements 2j and 2j + 1 */
    int32_t xi[8][LANES];      /* words as in BOUND: elements 2j and 2j + 1 */
    float amax[LANES];         /* of each block */

    unsigned bounded;          /* blocks for which BOUND holds, and whose amax is not 0 */
    unsigned zero;             /* blocks of zeros */
    unsigned decided;          /* search: blocks whose scale only a quotient on a tie can change */
    unsigned beyond;           /* search: blocks whose amax may exceed 7.9 scales, which no u holds */
    int32_t code[LANES];       /* the code that the scale gets */

    const uint8_t *x;
    int bytes;                 /* of a value of x: 2 (bf16) or 4 (float32) */
    float global;
};

/* moe_f32_to_ue4m3 in each lane, and moe_e4m3_to_f32 of positive codes. */
OP bi to_ue4m3(bf v)
{
    v = f_min(f_max(v, f_set(0x1p-9f)), f_set(448));
    bi u = f_bits(v), low = f_round(f_mul(v, f_set(512)));
    u = i_sub(i_shr(i_add(u, i_add(i_set(0x7ffff), i_and(i_shr(u, 20), i_set(1)))), 20), i_set(120 << 3));
    return i_pick(f_lt(v, f_set(0x1p-6f)), low, u);
}
OP bf from_normal(bi c) { return i_float(i_shl(i_add(c, i_set(120 << 3)), 20)); } /* c >= 8 */
OP bf from_ue4m3(bi c)
{
    return f_pick(i_gt(i_set(8), c), f_mul(i_value(c), f_set(0x1p-9f)), from_normal(c));
}

OP void load_bf16(struct batch *b)
{
    bi r[8], most = i_set(0);
    const bi upper = i_set((int)0xffff0000u);
    load_columns(b->x, 32, r);
    EACH(j, 8) {
        bi a = i_and(r[j], i_set(0x7fff7fff));
        i_store(b->w[j], r[j]);
        most = w_max(most, a);
    }
    f_store(b->amax, f_max(i_float(i_shl(most, 16)), i_float(i_and(most, upper))));
}

OP void load_f32(struct batch *b)
{
    bi r[16];
    bf most = f_set(0);
    load_columns(b->x, 64, r), load_columns(b->x + 32, 64, r + 8);
    EACH(j, 16) {
        bf a = f_abs(i_float(r[j]));
        f_store(b->t[j], a);
        most = f_max(most, a);
    }
    EACH(j, 8) i_store(b->w[j], w_join(i_shr(r[2 * j], 16), i_shr(r[2 * j + 1], 16)));
    f_store(b->amax, most);
}

static void batch_load(struct batch *b)
{
    if (b->bytes == 2) load_bf16(b);
    else load_f32(b);
}

/* Copy the values of block l, or their magnitudes, to `to`, and return `to`. */
static const float *copy_values(const struct batch *b, int l, float to[16])
{
    const uint8_t *p = b->x + 16 * l * b->bytes;
    if (b->bytes == 2)
        for (int i = 0; i < 16; i += LANES) f_from_bf16(to + i, p + 2 * i);
    else
        memcpy(to, p, 64);
    return to;
}
static const float *copy_magnitudes(const struct batch *b, int l, float to[16])
{
    copy_values(b, l, to);
    for (int i = 0; i < 16; i += LANES) f_store(to + i, f_abs(f_load(to + i)));
    return to;
}

/* Make words of |x| times f, for elements 2j and 2j + 1 of each block.  Adding 2^23 rounds to an integer,
 * which then stands in the lowest bits; as an fma this rounds once. */
OP bi words(const struct batch *b, int bytes, int j, bf f)
{
    const bf ones = f_set(0x1p23f);
    bf x, y;
    if (bytes == 2) {
        bi w = i_load(b->w[j]);
        x = f_abs(i_float(i_shl(w, 16))), y = i_float(i_and(w, i_set(0x7fff0000)));
    } else {
        x = f_load(b->t[2 * j]), y = f_load(b->t[2 * j + 1]);
    }
    return w_join(f_bits(f_fma(x, f, ones)), f_bits(f_fma(y, f, ones)));
}

/* The largest magnitudes, but never 0, so that one can divide by them. */
OP bf nonzero_amax(const struct batch *b) { return f_max(f_load(b->amax), f_set(0x1p-40f)); }

/* Sets b->xi to the words of BOUND. */
OP void make_xi(struct batch *b)
{
    bf f = f_div(f_set(65535), nonzero_amax(b));
    if (b->bytes == 2) EACH(j, 8) i_store(b->xi[j], words(b, 2, j, f));
    else EACH(j, 8) i_store(b->xi[j], words(b, 4, j, f));
}

/* ---- the scale of MAX ---- */

/* The scale codes that put the largest magnitude on 6.  Sets b->bounded. */
OP bi choose_max(struct batch *b)
{
    bf a = f_load(b->amax);
    bi six = to_ue4m3(f_div(a, f_set(6.0f * b->global)));
    b->bounded = m_bits(f_le(f_set(0x1p-40f), a)) & m_bits(f_le(a, f_set(0x1p55f))) &
               m_bits(f_lt(a, f_mul(from_ue4m3(six), f_set(6.4f * b->global))));
    return six;
}

/* ---- candidates ---- */

/* 2^29 A / (65535 global).  R is this divided by the code's scale. */
OP bf multiplier_base(const struct batch *b)
{
    return f_div(f_mul(nonzero_amax(b), f_set(0x1p29f / 65535)), f_set(b->global));
}

/* R for scales of 1 / inverse, in both words of each lane.  k: see multiplier_base. */
OP bi multiplier(bf inverse, bf k) { return w_twice(f_round(f_fma(inverse, k, f_set(.5f)))); }

/* The squared error of each block under the scale that its multiplier m stands for, in units of
 * (s / 8192)^2: D of BOUND. */
OP bf distance(const struct batch *b, bi m)
{
    bi d0 = i_set(0), d1 = i_set(0);
    EACH(j, 4) {
        bi u = w_mulhi(i_load(b->xi[2 * j]), m), v = w_mulhi(i_load(b->xi[2 * j + 1]), m);
        d0 = w_add_squares(d0, w_sub(u, w_e2m1(u)));
        d1 = w_add_squares(d1, w_sub(v, w_e2m1(v)));
    }
    return w_value(i_add(d0, d1));
}

/* The same under normal codes c, in units of (global / 8192)^2, which do not depend on c. */
OP bf estimate(const struct batch *b, bi c, bf k)
{
    bf s = from_normal(c);
    return f_mul(f_mul(distance(b, multiplier(f_div(f_set(1), s), k)), s), s);
}

/* How far the root of an estimate can be off, at scales of at most `top`. */
OP bf root_slack(bf top) { return f_mul(top, f_set(NEAR)); }

/* The scale codes that put the largest magnitude on 6, or on 4 where that is better.  Blocks whose two
 * estimates are too close, or whose codes are subnormal, are decided one by one with ref's arithmetic. */
static bi choose_four_over_six(struct batch *b)
{
    bi six = choose_max(b),
       four = to_ue4m3(f_mul(f_div(f_load(b->amax), f_set(6.0f * b->global)), f_set(1.5f)));
    bf k = multiplier_base(b);
    make_xi(b);
    bf e6 = f_sqrt(estimate(b, six, k)), e4 = f_sqrt(estimate(b, four, k)),
       slack = root_slack(f_mul(from_ue4m3(four), f_set(2)));
    bm wins = f_lt(f_add(e4, slack), e6), loses = f_lt(f_add(e6, slack), e4);
    unsigned four_wins = m_bits(wins), fast = m_bits(i_gt(six, i_set(FAST_CODE - 1)));
    unsigned undecided = (~(four_wins | m_bits(loses)) | ~fast) & m_bits(i_gt(four, six)) & b->bounded;
    int32_t c4[LANES], c6[LANES];
    if (!undecided) return i_pick(wins, four, six);
    i_store(c4, four), i_store(c6, six);
    for (; undecided; undecided &= undecided - 1) {
        int l = __builtin_ctz(undecided);
        float x[16];
        struct trial t4, t6;
        copy_magnitudes(b, l, x);
        try_scale(x, b->global, c4[l], &t4), try_scale(x, b->global, c6[l], &t6);
        four_wins = (four_wins & ~(1u << l)) | (unsigned)is_better(x, &t4, &t6) << l;
    }
    return i_pick(m_of(four_wins), four, six);
}

/* ---- search ---- */

/* The scales of codes top, top - 1, ... in units of top's power of two, their inverses and squares: row i is
 * for top - i, column m for top % 8 = m.  SCALE(n) is that of code n for a top of 32 to 39. */
#define SCALE(n) ((float)((8 + (n) % 8) << (n) / 8) / 128)
#define INVERSE(n) (1 / SCALE(n))
#define SQUARE(n) (SCALE(n) * SCALE(n))
#define STEP(f, i) \
    { \
        f(32 - (i)), f(33 - (i)), f(34 - (i)), f(35 - (i)), f(36 - (i)), f(37 - (i)), f(38 - (i)), \
            f(39 - (i)) \
    }
#define STEPS(f) \
    { \
        STEP(f, 0), STEP(f, 1), STEP(f, 2), STEP(f, 3), STEP(f, 4), STEP(f, 5), STEP(f, 6), STEP(f, 7), \
            STEP(f, 8), STEP(f, 9) \
    }
static const float step_scale[10][8] = STEPS(SCALE), step_inverse[10][8] = STEPS(INVERSE),
                   step_square[10][8] = STEPS(SQUARE);

enum { WINDOW = 9 }; /* codes top to top - 8 */
struct window {
    float est[WINDOW][LANES]; /* estimates of code top - i, in units of (unit * global / 8192)^2; the lowest
                               * four bits hold i */
    bi top, index;            /* index: in all lanes the i of the next estimate */
    bf unit;                  /* the power of two in the scale of top */
    bf k;                     /* R times scale, divided by unit: what `multiplier` wants */
    bf least, second;         /* the two smallest estimates, with their i */
};

/* Estimate code top - i of each block.  capped: some block's top is above 126, where there are no codes. */
OP void try_window(struct window *w, const struct batch *b, int i, bool capped)
{
    bf e = f_mul(distance(b, multiplier(f_of8(step_inverse[i], w->top), w->k)),
                 f_of8(step_square[i], w->top));
    /* top is at most 132, the code that 6.4 * 448 / 3.5 would have */
    if (capped && i < 6) e = f_pick(i_gt(w->top, i_set(126 + i)), f_set(0x1p120f), e);
    e = i_float(i_tag(f_bits(e), w->index));
    w->index = i_add(w->index, i_set(1));
    w->second = f_min(w->second, f_max(e, w->least));
    w->least = f_min(e, w->least);
    f_store(w->est[i], e);
}

/* Find the top of each block, the largest code with 3.5 s <= A, and begin with no estimates. */
static void window_open(struct window *w, const struct batch *b)
{
    bf scaled = f_div(f_mul(f_load(b->amax), f_set(1 + 0x1p-12f)), f_set(3.5f * b->global));
    bi power = i_and(f_bits(scaled), i_set(0x7f800000));
    w->least = w->second = f_set(0x1p125f);
    w->top = i_sub(i_shr(f_bits(scaled), 20), i_set(120 << 3));
    w->index = i_set(0);
    w->unit = i_float(power);
    w->k = i_float(i_sub(i_add(f_bits(multiplier_base(b)), i_set(127 << 23)), power));
}

/* Fill `limit`: a code whose estimate is above it cannot be the best one.  Return the blocks in which code
 * top - WINDOW, below the window, might be the best. */
OP unsigned window_limit(const struct window *w, bf *limit)
{
    bf best = i_float(
        i_sub(i_add(f_bits(from_normal(i_sub(w->top, i_low4(f_bits(w->least))))), i_set(127 << 23)),
              f_bits(w->unit)));
    bf root = f_add(f_sqrt(w->least), root_slack(best)),
       most = f_add(root, root_slack(f_of8(step_scale[0], w->top)));
    bf over = f_sub(f_mul(w->k, f_set(65535.f / 65536)),
                    f_mul(f_of8(step_scale[WINDOW], w->top), f_set(6 * 8192)));
    *limit = f_mul(most, most);
    return ~m_bits(f_lt(root, over));
}

/* The best code for block l, with ref's arithmetic, of the window's codes that `limit` does not exclude
 * and of those below the window down to where amax - 6 s alone makes a greater error than `limit`. */
static int choose_exact_in_window(const struct window *w, const struct batch *b, int l, float limit, int top,
                                  float unit)
{
    float x[16];
    struct code_set in = { { 0 } };
    double most = (double)limit * (double)unit * (double)unit * (double)b->global * (double)b->global *
                  (0x1p-26 * (1 + 0x1p-12));
    for (int i = 0; i < WINDOW; i++)
        if (w->est[i][l] <= limit) code_set_add(&in, top - i);
    for (int c = top - WINDOW; c > 0; c--) {
        double over = (double)b->amax[l] - 6 * (double)(moe_e4m3_to_f32((uint8_t)c) * b->global);
        if (over > 0 && over * over > most) break;
        code_set_add(&in, c);
    }
    return choose_exact(copy_magnitudes(b, l, x), b->global, in);
}

/* The codes of least error.  Sets b->decided and b->beyond. */
static bi choose_search(struct batch *b)
{
    struct window w;
    bi six = choose_max(b);
    make_xi(b);
    window_open(&w, b);
    unsigned fast = m_bits(i_gt(w.top, i_set(FAST_TOP - 1))) & b->bounded;
    bool capped = m_bits(i_gt(w.top, i_set(126))) & fast;
    if (capped) EACH(i, WINDOW) try_window(&w, b, i, true);
    else EACH(i, WINDOW) try_window(&w, b, i, false);
    bf limit;
    unsigned beyond = (window_limit(&w, &limit) | ~fast) & b->bounded;
    unsigned undecided = (m_bits(f_le(w.second, limit)) & b->bounded) | beyond;
    bi best = i_sub(w.top, i_low4(f_bits(w.least)));
    b->decided = ~undecided, b->beyond = beyond;
    if (!undecided) return best;
    int32_t code[LANES], from[LANES], top[LANES];
    float limits[LANES], unit[LANES];
    i_store(code, best), i_store(from, six), i_store(top, w.top);
    f_store(limits, limit), f_store(unit, w.unit);
    for (; undecided; undecided &= undecided - 1) {
        int l = __builtin_ctz(undecided);
        float x[16];
        if (fast >> l & 1) code[l] = choose_exact_in_window(&w, b, l, limits[l], top[l], unit[l]);
        else code[l] = search_one(copy_magnitudes(b, l, x), b->global, b->amax[l], from[l]);
    }
    return i_load(code);
}

/* ---- codes ---- */

/* The codes of each block, bytes 0-3 and 4-7, and the blocks in which a code is undecided (CODES above). */
struct encoded { bi low, high; unsigned undecided; };

/* Find the codes of each block's values, from the words u = round(8192 |x| / s) and the signs in b->w. */
OP struct encoded encode(const struct batch *b, const bi u[8])
{
    const bi sign = i_set(0x08000800);
    bi undecided = i_set(0), least = i_set(0), half[4];
    EACH(j, 4) {
        bi c[2];
        EACH(i, 2) {
            bi v = u[2 * j + i], w = i_load(b->w[2 * j + i]);
            /* code and sign in the low nibble of the upper byte */
            c[i] = i_or_and(w_code(v), w_shr(w, 4), sign);
            undecided = w_max(undecided, i_and(w_less(v, w_set(1)), w_set(2047)));
            least = w_signed_min(least, w);
        }
        bi x = i_or(i_shr(c[0], 8), c[1]); /* bytes: element 4j, 4j + 2, 4j + 1, 4j + 3 */
        half[j] = i_or(x, i_shr(x, 12));   /* two bytes of codes; w_join drops the upper half */
    }
    struct encoded e = { .low = w_join(half[0], half[1]), .high = w_join(half[2], half[3]) };
    bi zeros = w_less(w_set(1), w_sub(least, w_set(0x8000))); /* -0.0 */
    e.undecided = m_bits(i_any(i_or(w_less(undecided, w_set(2046)), zeros)));
    return e;
}

/* The scale code of each block, by the method; of blocks that are not bounded it means nothing. */
static bi choose_scales(enum moe_nvfp4_method method, struct batch *b)
{
    b->decided = b->beyond = 0;
    if (method == MOE_NVFP4_MAX) return choose_max(b);
    return method == MOE_NVFP4_FOUR_OVER_SIX ? choose_four_over_six(b) : choose_search(b);
}

/* Quantize the blocks in `todo` again, one by one, with ref's arithmetic: those in which u left a code
 * undecided, and those out of range. */
static void requantize_exact(enum moe_nvfp4_method method, const struct batch *b, unsigned todo,
                             uint8_t *codes, uint8_t *scales)
{
    for (; todo; todo &= todo - 1) {
        int l = __builtin_ctz(todo);
        float x[16], m[16];
        copy_values(b, l, x);
        if (!(b->bounded >> l & 1) && b->amax[l] != 0) {
            moe_nvfp4_quantize_ref(method, x, 16, b->global, codes + 8 * l, scales + l);
            continue;
        }
        bool tie = encode_one(x, moe_e4m3_to_f32(scales[l]) * b->global, codes + 8 * l);
        if (tie && (b->decided & b->bounded) >> l & 1) {
            struct code_set in = { { 0 } };
            code_set_add(&in, scales[l]);
            scales[l] = (uint8_t)choose_exact(copy_magnitudes(b, l, m), b->global, in);
            encode_one(x, moe_e4m3_to_f32(scales[l]) * b->global, codes + 8 * l);
        }
    }
}

/* A batch is quantized in two calls, so that its codes are made while the next batch's scales are chosen: the
 * processor runs both at once. */
OP void batch_choose(struct batch *b, enum moe_nvfp4_method method, const uint8_t *x, int bytes, float global)
{
    b->x = x, b->bytes = bytes, b->global = global;
    batch_load(b);
    bi c = choose_scales(method, b);
    bm zero = f_le(f_load(b->amax), f_set(0));
    b->zero = m_bits(zero);
    i_store(b->code, i_pick(zero, i_set(0x38), c));
}

OP void batch_encode(const struct batch *b, enum moe_nvfp4_method method, int bytes, uint8_t *codes,
                     uint8_t *scales)
{
    bi c = i_load(b->code), u[8];
    bf r = f_div(f_set(8192), f_mul(from_ue4m3(c), f_set(b->global)));
    EACH(j, 8) u[j] = words(b, bytes, j, r);
    struct encoded e = encode(b, u);
    i_store_bytes(scales, c);
    store_pairs(codes, e.low, e.high);
    unsigned all = (1u << LANES) - 1, todo = (e.undecided | b->beyond | (~b->bounded & ~b->zero)) & all;
    if (todo) requantize_exact(method, b, todo, codes, scales);
}

OP void quantize(enum moe_nvfp4_method method, const uint8_t *x, int bytes, int64_t n, float global,
                 uint8_t *codes, uint8_t *scales)
{
    struct batch b[2];
    int64_t blocks = n / 16, batches = blocks / LANES, left = blocks % LANES, done = batches * LANES;
    for (int64_t i = 0; i < batches; i++) {
        const uint8_t *at = x + 16 * LANES * bytes * i;
        for (int k = 0; k < 16 * LANES * bytes; k += 64)
            __builtin_prefetch((const void *)((uintptr_t)at + AHEAD + (unsigned)k));
        batch_choose(&b[i & 1], method, at, bytes, global);
        if (i) batch_encode(&b[~i & 1], method, bytes, codes + 8 * LANES * (i - 1), scales + LANES * (i - 1));
    }
    if (batches)
        batch_encode(&b[~batches & 1], method, bytes, codes + 8 * LANES * (batches - 1),
                     scales + LANES * (batches - 1));
    if (!left) return;
    uint8_t rest[64 * LANES] = { 0 }, q[8 * LANES], s[LANES]; /* filled up with blocks of zeros */
    memcpy(rest, x + 16 * bytes * done, 16 * (size_t)bytes * (size_t)left);
    batch_choose(b, method, rest, bytes, global);
    batch_encode(b, method, bytes, q, s);
    memcpy(codes + 8 * done, q, 8 * (size_t)left);
    memcpy(scales + done, s, (size_t)left);
}

/* Whether BOUND holds for this global; choose_max looks at the blocks. */
static bool in_range(float global) { return global >= 0x1p-60f && global <= 0x1p60f; }

void VARIANT(nvfp4_quantize)(enum moe_nvfp4_method method, const float *x, int64_t n, float global,
                             uint8_t *codes, uint8_t *scales)
{
    if (!in_range(global)) moe_nvfp4_quantize_ref(method, x, n, global, codes, scales);
    else quantize(method, (const uint8_t *)x, 4, n, global, codes, scales);
}

void VARIANT(nvfp4_quantize_bf16)(enum moe_nvfp4_method method, const uint8_t *x, int64_t n, float global,
                                  uint8_t *codes, uint8_t *scales)
{
    if (!in_range(global)) moe_nvfp4_quantize_bf16_ref(method, x, n, global, codes, scales);
    else quantize(method, x, 2, n, global, codes, scales);
}
