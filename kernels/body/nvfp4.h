/* kernels/body/nvfp4.h - the NVFP4 quantizers, LANES blocks at once.  Included once by each kernels/<isa>/nvfp4.c.
 *
 * Bytes as ref gives them, for any input.  Blocks lie across vectors (a lane is a block), so that no sum is horizontal, and
 * two elements of a block share a lane as 16-bit words: u = 8192 |x| / s.  What u cannot decide goes to nvfp4-exact.h, one
 * block at a time; blocks outside the range where the bounds below hold go to ref.
 *
 * BOUND.  Magnitudes are made words first, xi = round(65535 |x| / A) with A the block's largest; then u = floor(xi R / 2^16),
 * R = ceil of 2^29 A / (65535 s), at most 64512.  Against 8192 |x| / s: rounding xi adds within R / 2^17 < 1/2, R lies up to 1 too
 * high (less than 1 in u), floor up to 1 too low; float32 on the way adds less than .02: u is within 1.52.
 * - The nearest e2m1 value is looked up by the quarter that u lies in, all ties being ends of quarters.  It is ref's unless u
 *   is within 1.52 of a tie, UNSURE: ref's code is then computed as ref does.
 * - Distance to the nearest value changes by at most as much as u: with D = sum of 16 squared distances, sqrt(D) is within
 *   4 * 1.52 < NEAR of the true sqrt(error) * 8192 / s, ref's own roundings included.  Codes that this cannot tell apart are settled.
 *
 * WINDOW.  With s_c the scale of code c and c0 = code of A / 6 (so that A / s_c < 7.9 for c >= c0 - 2):
 * - From below: any c has an error of at least (A - 6 s_c)^2, which grows as c falls.  Where that of c0 - 3 is not above the
 *   least of the window, search_one goes on.
 * - From above: for c >= 16, code c - 8 is exactly half of c.  While A < 7 s_(c-8), each value that c can choose (0, .5, 1,
 *   1.5, 2, 3 times s_c) is one that c - 8 can choose (0, 1, 2, 3, 4, 6 times s_(c-8)), the same float32: c - 8 is no worse in
 *   any element, hence none in ref's sum, whose roundings are monotonic, and the lower code wins ties.  Only an element
 *   within rounding of a tie may go elsewhere.  So c is needed only if c < 16, or 3.5 s_c <= A, or c - 8 may be the best and is
 *   UNSURE: then settle tries c, c + 8 ..
 *
 * LADDER (Zen 4, one core, G weights/s of max / four-over-six / search, from float32 in L2): float32 estimates, a division a weight for
 * codes, ties in double: 1.6 / 1.1 / 0.50, AVX2 1.1 / 0.7 / 0.28. */
#include "kernels/body/nvfp4-exact.h"

#define NEAR 6.25f
#define FAST_CODE 11 /* from here on, every code of the window is a normal number */

/* ---- LANES blocks ---- */

struct batch {
    float t[16][LANES];        /* |x|, element by block */
    int32_t w[8][LANES];       /* upper halves of x, elements 2j and 2j + 1 */
    int32_t xi[8][LANES];      /* as in BOUND */
    float amax[LANES];
    unsigned ready;            /* blocks in the range where the bounds hold, not zero */
    const uint8_t *x;
    int bytes;                 /* a value of x: 2 or 4 */
    float global;
};

/* moe_f32_to_ue4m3, moe_e4m3_to_f32 of positive codes, by lane. */
OP bi to_ue4m3(bf v)
{
    v = f_min(f_max(v, f_set(0x1p-9f)), f_set(448));
    bi u = f_bits(v), low = f_round(f_mul(v, f_set(512)));
    u = i_sub(i_shr(i_add(u, i_add(i_set(0x7ffff), i_and(i_shr(u, 20), i_set(1)))), 20), i_set(120 << 3));
    return i_pick(f_lt(v, f_set(0x1p-6f)), low, u);
}
OP bf from_normal(bi c) { return i_float(i_shl(i_add(c, i_set(120 << 3)), 20)); } /* c >= 8 */
OP bf from_ue4m3(bi c) { return f_pick(i_gt(i_set(8), c), f_mul(i_value(c), f_set(0x1p-9f)), from_normal(c)); }

OP void load_bf16(struct batch *b)
{
    bi r[8], most = i_set(0);
    const bi upper = i_set((int)0xffff0000u);
    columns(b->x, 32, r);
    EACH(j, 8) {
        bi a = i_and(r[j], i_set(0x7fff7fff));
        i_store(b->w[j], r[j]);
        f_store(b->t[2 * j], i_float(i_shl(a, 16)));
        f_store(b->t[2 * j + 1], i_float(i_and(a, upper)));
        most = w_max(most, a);
    }
    f_store(b->amax, f_max(i_float(i_shl(most, 16)), i_float(i_and(most, upper))));
}

OP void load_f32(struct batch *b)
{
    bi r[16];
    bf most = f_set(0);
    columns(b->x, 64, r), columns(b->x + 32, 64, r + 8);
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

/* The values of one block. */
static const float *values(const struct batch *b, int l, float to[16])
{
    const uint8_t *p = b->x + 16 * l * b->bytes;
    if (b->bytes == 2)
        for (int i = 0; i < 16; i += LANES) f_from_bf16(to + i, p + 2 * i);
    else
        memcpy(to, p, 64);
    return to;
}
static const float *magnitudes(const struct batch *b, int l, float to[16])
{
    values(b, l, to);
    for (int i = 0; i < 16; i += LANES) f_store(to + i, f_abs(f_load(to + i)));
    return to;
}

/* |x| times f by block, elements 2j and 2j + 1, as words. */
OP bi words(const struct batch *b, int j, bf f)
{
    return w_join(f_round(f_mul(f_load(b->t[2 * j]), f)), f_round(f_mul(f_load(b->t[2 * j + 1]), f)));
}

OP bf some_amax(const struct batch *b) { return f_max(f_load(b->amax), f_set(0x1p-40f)); } /* no division by 0 */

OP void make_xi(struct batch *b)
{
    bf f = f_div(f_set(65535), some_amax(b));
    EACH(j, 8) i_store(b->xi[j], words(b, j, f));
}

/* ---- the scale of MAX ---- */

OP bi choose_max(struct batch *b)
{
    bf a = f_load(b->amax);
    bi six = to_ue4m3(f_div(a, f_set(6.0f * b->global)));
    b->ready = m_bits(f_le(f_set(0x1p-40f), a)) & m_bits(f_le(a, f_set(0x1p55f))) &
               m_bits(f_lt(a, f_mul(from_ue4m3(six), f_set(6.4f * b->global))));
    return six;
}

/* ---- candidates ---- */

/* R of normal codes c, in both words; k = 2^29 A / (65535 global). */
OP bi multiplier(bi c, bf k)
{
    static const float inverse[8] = { 1, 8.f / 9, 8.f / 10, 8.f / 11, 8.f / 12, 8.f / 13, 8.f / 14, 8.f / 15 };
    bi power = i_shl(i_and(c, i_set(0x78)), 20); /* exponent bits of 2^(e - 7 + 7) */
    bf v = i_float(i_sub(i_add(f_bits(f_of8(inverse, c)), i_set(7 << 23)), power));
    return w_twice(f_round(f_fma(v, k, f_set(.5f))));
}
OP bf multiplier_base(const struct batch *b) { return f_div(f_mul(some_amax(b), f_set(0x1p29f / 65535)), f_set(b->global)); }

/* (global / 8192)^2 of the squared error under codes c. */
OP bf estimate(const struct batch *b, bi c, bf k)
{
    bi m = multiplier(c, k), d0 = i_set(0), d1 = i_set(0);
    EACH(j, 4) {
        bi u = w_mulhi(i_load(b->xi[2 * j]), m), v = w_mulhi(i_load(b->xi[2 * j + 1]), m);
        d0 = i_add(d0, w_squares(w_sub(u, w_e2m1(u))));
        d1 = i_add(d1, w_squares(w_sub(v, w_e2m1(v))));
    }
    bf s = from_normal(c);
    return f_mul(f_mul(w_value(i_add(d0, d1)), s), s);
}

/* The most that the root of an estimate with scale at most `top` can be off. */
OP bf off(bf top) { return f_mul(top, f_set(NEAR)); }

static bi choose_four_over_six(struct batch *b)
{
    bi six = choose_max(b), four = to_ue4m3(f_mul(f_div(f_load(b->amax), f_set(6.0f * b->global)), f_set(1.5f)));
    bf k = multiplier_base(b);
    make_xi(b);
    bf e6 = f_sqrt(estimate(b, six, k)), e4 = f_sqrt(estimate(b, four, k)), slack = off(f_mul(from_ue4m3(four), f_set(2)));
    bm wins = f_lt(f_add(e4, slack), e6), loses = f_lt(f_add(e6, slack), e4);
    unsigned four_wins = m_bits(wins), fast = m_bits(i_gt(six, i_set(FAST_CODE - 1)));
    unsigned open = (~(four_wins | m_bits(loses)) | ~fast) & m_bits(i_gt(four, six)) & b->ready;
    int32_t c4[LANES], c6[LANES];
    if (!open) return i_pick(wins, four, six);
    i_store(c4, four), i_store(c6, six);
    for (; open; open &= open - 1) {
        int l = __builtin_ctz(open);
        float x[16];
        struct trial t4, t6;
        magnitudes(b, l, x);
        try_scale(x, b->global, c4[l], &t4), try_scale(x, b->global, c6[l], &t6);
        four_wins = (four_wins & ~(1u << l)) | (unsigned)better(x, &t4, &t6) << l;
    }
    return i_pick(m_of(four_wins), four, six);
}

/* ---- search ---- */

enum { BELOW = 2, WINDOW = 10 }; /* c0 - 2 .. c0 + 7 */
struct window {
    float est[WINDOW][LANES];
    int n;
    bi c0, best;
    bf least, second;
};

OP void try_window(struct window *w, const struct batch *b, bf k, bool capped)
{
    bi c = i_add(w->c0, i_set(w->n - BELOW));
    bf e = estimate(b, c, k);
    if (capped) e = f_pick(i_gt(c, i_set(126)), f_set(INFINITY), e);
    bm m = f_lt(e, w->least);
    w->second = f_min(w->second, f_max(e, w->least));
    w->least = f_min(e, w->least);
    w->best = i_pick(m, c, w->best);
    f_store(w->est[w->n++], e);
}

static int settle_lane(const struct window *w, const struct batch *b, int l, float limit, int c0)
{
    float x[16];
    struct codes in = { { 0 } };
    for (int i = 0; i < w->n; i++)
        if (w->est[i][l] <= limit) codes_add(&in, c0 + i - BELOW);
    return settle(magnitudes(b, l, x), b->global, in);
}

static bi choose_search(struct batch *b, unsigned *unsure_twin)
{
    struct window w = { .n = 0, .least = f_set(INFINITY), .second = f_set(INFINITY), .c0 = choose_max(b) };
    bf a = f_load(b->amax), g = f_set(b->global), k = multiplier_base(b);
    bf scaled = f_div(f_mul(a, f_set(1 + 0x1p-12f)), f_mul(g, f_set(3.5f)));
    bi top = i_sub(i_shr(f_bits(f_min(scaled, f_set(448))), 20), i_set(120 << 3)); /* the largest with 3.5 s <= A */
    w.best = w.c0;
    make_xi(b);
    unsigned fast = m_bits(i_gt(w.c0, i_set(FAST_CODE - 1))) & b->ready;
    bool wide = m_bits(i_gt(top, i_add(w.c0, i_set(6)))) & fast, capped = m_bits(i_gt(w.c0, i_set(126 - 7))) & fast;
    for (int i = 0; i < BELOW + 7 + wide; i++) try_window(&w, b, k, capped);
    /* limits of what is in the running, and of what lies below the window */
    bf root = f_add(f_sqrt(w.least), off(from_normal(w.best))), limit = f_add(root, off(f_min(scaled, f_set(448))));
    bf over = f_mul(f_sub(f_div(a, g), f_mul(from_normal(i_sub(w.c0, i_set(BELOW + 1))), f_set(6))), f_set(8192));
    limit = f_mul(limit, limit);
    unsigned beyond = ~m_bits(f_lt(root, over)) | ~fast, open = m_bits(f_le(w.second, limit)) | beyond;
    open &= b->ready;
    *unsure_twin = ~open;
    int32_t best[LANES], c0[LANES];
    float limits[LANES];
    if (!open) return w.best;
    i_store(best, w.best), i_store(c0, w.c0), f_store(limits, limit);
    for (; open; open &= open - 1) {
        int l = __builtin_ctz(open);
        float x[16];
        best[l] = beyond >> l & 1 ? search_one(magnitudes(b, l, x), b->global, b->amax[l], c0[l]) : settle_lane(&w, b, l, limits[l], c0[l]);
    }
    return i_load(best);
}

/* ---- codes ---- */

struct encoded { bi low, high; unsigned unsure; }; /* bytes 0-3 and 4-7 of each block */

/* Of x = u s / 8192. */
OP struct encoded encode(const struct batch *b, const bi u[8])
{
    const bi sign = i_set(0x08000800);
    bi unsure = i_set(0), least = i_set(0), half[4];
    EACH(j, 4) {
        bi c[2];
        EACH(i, 2) {
            bi v = u[2 * j + i], w = i_load(b->w[2 * j + i]);
            c[i] = i_or_and(w_code(v), w_shr(w, 4), sign); /* code and sign in the low nibble of the upper byte */
            unsure = w_max(unsure, i_and(w_less(v, w_set(2)), w_set(2047)));
            least = w_signed_min(least, w);
        }
        bi x = i_or(i_shr(c[0], 8), c[1]); /* bytes: element 4j, 4j + 2, 4j + 1, 4j + 3 */
        half[j] = i_or(x, i_shr(x, 12));   /* two bytes of codes, then remains */
    }
    struct encoded e = { .low = w_join(half[0], half[1]), .high = w_join(half[2], half[3]) };
    bi zeros = w_less(w_set(1), w_sub(least, w_set(0x8000))); /* -0.0 */
    e.unsure = m_bits(i_any(i_or(w_less(unsure, w_set(2044)), zeros)));
    return e;
}

static bi choose(enum moe_nvfp4_method method, struct batch *b, unsigned *decided)
{
    *decided = 0;
    if (method == MOE_NVFP4_MAX) return choose_max(b);
    return method == MOE_NVFP4_FOUR_OVER_SIX ? choose_four_over_six(b) : choose_search(b, decided);
}

/* Blocks whose u left a code open, and those out of range. */
static void mend(enum moe_nvfp4_method method, const struct batch *b, unsigned todo, unsigned decided, uint8_t *codes, uint8_t *scales)
{
    for (; todo; todo &= todo - 1) {
        int l = __builtin_ctz(todo);
        float x[16], m[16];
        values(b, l, x);
        if (!(b->ready >> l & 1) && b->amax[l] != 0) {
            moe_nvfp4_quantize_ref(method, x, 16, b->global, codes + 8 * l, scales + l);
            continue;
        }
        if (decided >> l & 1 && b->ready >> l & 1) {
            struct codes in = { { 0 } };
            codes_add(&in, scales[l]);
            scales[l] = (uint8_t)settle(magnitudes(b, l, m), b->global, in);
        }
        encode_one(x, moe_e4m3_to_f32(scales[l]) * b->global, codes + 8 * l);
    }
}

OP void batch_quantize(enum moe_nvfp4_method method, const uint8_t *x, int bytes, float global, uint8_t *codes, uint8_t *scales)
{
    struct batch b;
    b.x = x, b.bytes = bytes, b.global = global;
    batch_load(&b);
    unsigned decided;
    bi c = choose(method, &b, &decided), u[8];
    bm zero = f_le(f_load(b.amax), f_set(0));
    c = i_pick(zero, i_set(0x38), c);
    bf r = f_div(f_set(8192), f_mul(from_ue4m3(c), f_set(global)));
    EACH(j, 8) u[j] = words(&b, j, r);
    struct encoded e = encode(&b, u);
    i_store_bytes(scales, c);
    store_pairs(codes, e.low, e.high);
    unsigned all = (1u << LANES) - 1, todo = (e.unsure | (~b.ready & ~m_bits(zero))) & all;
    if (todo) mend(method, &b, todo, decided, codes, scales);
}

OP void quantize(enum moe_nvfp4_method method, const uint8_t *x, int bytes, int64_t n, float global, uint8_t *codes, uint8_t *scales)
{
    int64_t blocks = n / 16, b = 0;
    for (; b + LANES <= blocks; b += LANES) batch_quantize(method, x + 16 * bytes * b, bytes, global, codes + 8 * b, scales + b);
    if (b < blocks) { /* the rest, filled up with blocks of zeros */
        uint8_t rest[64 * LANES] = { 0 }, q[8 * LANES], s[LANES];
        memcpy(rest, x + 16 * bytes * b, 16 * (size_t)bytes * (size_t)(blocks - b));
        batch_quantize(method, rest, bytes, global, q, s);
        memcpy(codes + 8 * b, q, 8 * (size_t)(blocks - b));
        memcpy(scales + b, s, (size_t)(blocks - b));
    }
}

static bool in_range(float global) { return global >= 0x1p-60f && global <= 0x1p60f; }

void VARIANT(nvfp4_quantize)(enum moe_nvfp4_method method, const float *x, int64_t n, float global, uint8_t *codes, uint8_t *scales)
{
    if (!in_range(global)) moe_nvfp4_quantize_ref(method, x, n, global, codes, scales);
    else quantize(method, (const uint8_t *)x, 4, n, global, codes, scales);
}

void VARIANT(nvfp4_quantize_bf16)(enum moe_nvfp4_method method, const uint8_t *x, int64_t n, float global, uint8_t *codes, uint8_t *scales)
{
    if (!in_range(global)) moe_nvfp4_quantize_bf16_ref(method, x, n, global, codes, scales);
    else quantize(method, x, 2, n, global, codes, scales);
}
