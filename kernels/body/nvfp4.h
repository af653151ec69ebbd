/* kernels/body/nvfp4.h - the NVFP4 quantizers, LANES blocks at once.  Included once by each kernels/<isa>/nvfp4.c.
 *
 * Bytes as ref gives them, for any input.  Blocks lie across vectors (element i of block b is t[i][b]), so that no sum is
 * horizontal.  Errors are first estimated in float32; only codes whose estimates cannot tell them apart are settled in
 * double, one block at a time, exactly as ref does.  Blocks outside the range where the bounds below hold go to ref.
 *
 * BOUND.  est(c) = sum fl(|x| - fl(q s))^2, q near |x| / s.  Against ref's error: each difference is off by 2^-24 of itself;
 * q itself differs from ref's only where |x| / s is within 2^-21 of itself from a tie, both then give a difference of at
 * least s / 4 and, |x| being at most 5 s there, these differ by less than 2^-16 of it.  The sum of 16 squares adds 2^-19.
 * Hence est is within 2^-14 of ref's error, and twice that decides; SLACK is 2^-12.  Squares that underflow: TINY.
 *
 * WINDOW.  With A the block's largest |x| and s_c the scale of code c:
 * - From below: any c has an error of at least (A - 6 s_c)^2, which grows as c falls.  Codes are added below the window
 *   until that passes the least estimate.
 * - From above: for c >= 16, code c - 8 is exactly half of c.  While A < 7 s_(c-8), each value that c can choose (0, .5, 1,
 *   1.5, 2, 3 times s_c) is one that c - 8 can choose (0, 1, 2, 3, 4, 6 times s_(c-8)), and on a tie both go to the same:
 *   c - 8 is as good up to the rounding of fl(q s), below SLACK.  So c is needed only if c < 16, or 3.5 s_c <= A, or c - 8
 *   is itself not worse than the best by SLACK: the codes c + 8, c + 16 .. of whatever is still in the running are tried. */
#include "kernels/scalar.h"

#include <string.h>

#define SLACK (1 + 0x1p-12f)
#define TINY 0x1p-125f
enum { CODES = 127, TRIES = 160 }; /* a window of at most 20, 125 below it, one above */

/* ---- one block, as ref ---- */

static double exact_error(const float *x, float global, int c)
{
    float s = moe_e4m3_to_f32((uint8_t)c) * global;
    double err = 0;
    for (int i = 0; i < 16; i++) {
        double d = (double)x[i] - (double)(moe_e2m1_to_f32(moe_f32_to_e2m1(x[i] / s)) * s);
        err += d * d;
    }
    return err;
}

/* The best of the codes marked in `in`, each with its codes eight, sixteen .. above. */
static int settle(const float *x, float global, bool *in)
{
    double least = INFINITY;
    int best = 1;
    for (int c = 1; c <= 126; c++) {
        if (!in[c]) continue;
        double e = exact_error(x, global, c);
        if (e < least) least = e, best = c;
        if (c + 8 <= 126 && e <= least * (1 + 0x1p-12)) in[c + 8] = true;
    }
    return best;
}

/* ---- LANES blocks ---- */

struct batch {
    float t[16][LANES];    /* |x|, element by block */
    float amax[LANES];
    const float *x;
    float global;
    unsigned ready;        /* blocks of the range where the bounds hold, not zero */
};

/* out[j][i] = |in[i * stride + j]|, 8 by 8. */
OP void transpose8(const float *in, int64_t stride, float *out, int64_t to)
{
    __m256 r[8], u[8];
    const __m256 sign = _mm256_set1_ps(-0.f);
    for (int i = 0; i < 8; i++) r[i] = _mm256_andnot_ps(sign, _mm256_loadu_ps(in + i * stride));
    for (int i = 0; i < 8; i += 2) u[i] = _mm256_unpacklo_ps(r[i], r[i + 1]), u[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(u[i], u[i + 2], 0x44), r[i + 1] = _mm256_shuffle_ps(u[i], u[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(u[i + 1], u[i + 3], 0x44), r[i + 3] = _mm256_shuffle_ps(u[i + 1], u[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(out + i * to, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(out + (i + 4) * to, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

static void batch_load(struct batch *b, const float *x, float global)
{
    for (int i = 0; i < 16; i += 8)
        for (int l = 0; l < LANES; l += 8) transpose8(x + l * 16 + i, 16, &b->t[i][l], LANES);
    bf a = f_load(b->t[0]);
    for (int i = 1; i < 16; i++) a = f_max(a, f_load(b->t[i]));
    f_store(b->amax, a);
    b->x = x, b->global = global;
    b->ready = f_le(f_set(0x1p-40f), a) & f_le(a, f_set(0x1p55f));
}

/* moe_f32_to_ue4m3, moe_e4m3_to_f32 of positive codes, by lane. */
OP bi to_ue4m3(bf v)
{
    v = f_min(f_max(v, f_set(0x1p-9f)), f_set(448));
    bi u = f_bits(v), low = f_round(f_mul(v, f_set(512)));
    u = i_sub(i_shr(i_add(u, i_add(i_set(0x7ffff), i_and(i_shr(u, 20), i_set(1)))), 20), i_set(120 << 3));
    return i_pick(f_lt(v, f_set(0x1p-6f)), low, u);
}
OP bf from_ue4m3(bi c)
{
    bf normal = i_float(i_shl(i_add(c, i_set(120 << 3)), 20));
    return f_pick(i_gt(i_set(8), c), f_mul(i_value(c), f_set(0x1p-9f)), normal);
}

OP bf estimate(const struct batch *b, bi c)
{
    bf s = f_mul(from_ue4m3(c), f_set(b->global)), r = f_div(f_set(4), s), e0 = f_set(0), e1 = f_set(0);
    for (int i = 0; i < 16; i += 2) {
        bf x = f_load(b->t[i]), y = f_load(b->t[i + 1]);
        bf d = f_sub(x, f_mul(near_e2m1(f_mul(x, r)), s)), f = f_sub(y, f_mul(near_e2m1(f_mul(y, r)), s));
        e0 = f_fma(d, d, e0), e1 = f_fma(f, f, e1);
    }
    return f_add(e0, e1);
}

/* ---- choosing scales ---- */

OP bi choose_max(const struct batch *b)
{
    return to_ue4m3(f_div(f_load(b->amax), f_set(6.0f * b->global)));
}

static bi choose_four_over_six(const struct batch *b)
{
    bf q = f_div(f_load(b->amax), f_set(6.0f * b->global));
    bi six = to_ue4m3(q), four = to_ue4m3(f_mul(q, f_set(1.5f)));
    bf e6 = estimate(b, six), e4 = estimate(b, four);
    unsigned better = f_lt(f_fma(e4, f_set(SLACK), f_set(TINY)), e6), worse = f_lt(f_fma(e6, f_set(SLACK), f_set(TINY)), e4);
    unsigned open = ~(better | worse) & i_gt(four, six) & b->ready;
    int32_t c4[LANES], c6[LANES];
    if (open) i_store(c4, four), i_store(c6, six);
    for (; open; open &= open - 1) {
        int l = __builtin_ctz(open);
        const float *x = b->x + 16 * l;
        if (exact_error(x, b->global, c4[l]) < exact_error(x, b->global, c6[l])) better |= 1u << l;
    }
    return i_pick(better, four, six);
}

struct running { int32_t code[TRIES][LANES]; float est[TRIES][LANES]; int n; bf least; bi best; };

OP void try_code(struct running *r, const struct batch *b, bi c)
{
    bf e = f_pick(i_gt(c, i_set(126)), f_set(INFINITY), estimate(b, i_min(c, i_set(126))));
    i_store(r->code[r->n], c), f_store(r->est[r->n++], e);
    unsigned m = f_lt(e, r->least);
    r->least = f_pick(m, e, r->least), r->best = i_pick(m, c, r->best);
}

/* Blocks with more than one code in the running. */
static unsigned undecided(const struct running *r)
{
    bf limit = f_fma(r->least, f_set(SLACK), f_set(TINY));
    unsigned seen = 0, twice = 0;
    for (int i = 0; i < r->n; i++) {
        unsigned m = f_le(f_load(r->est[i]), limit);
        twice |= seen & m, seen |= m;
    }
    return twice;
}

static int settle_lane(const struct running *r, const struct batch *b, int l)
{
    bool in[CODES] = { false };
    float least = INFINITY;
    for (int i = 0; i < r->n; i++) least = r->est[i][l] < least ? r->est[i][l] : least;
    for (int i = 0; i < r->n; i++)
        if (r->code[i][l] <= 126 && r->est[i][l] <= least * SLACK + TINY) in[r->code[i][l]] = true;
    return settle(b->x + 16 * l, b->global, in);
}

static bi choose_search(const struct batch *b)
{
    struct running r; /* 20 KiB: only what is tried gets written */
    r.n = 0, r.least = f_set(INFINITY), r.best = i_set(1);
    bf a = f_load(b->amax), g = f_set(b->global), scaled = f_div(f_mul(a, f_set(SLACK)), f_mul(g, f_set(3.5f)));
    bi low = i_max(i_sub(choose_max(b), i_set(2)), i_set(1));
    bi top = i_sub(i_shr(f_bits(f_min(scaled, f_set(448))), 20), i_set(120 << 3));
    int32_t span[LANES], most = 0;
    i_store(span, i_sub(i_max(top, i_set(15)), low));
    for (int l = 0; l < LANES; l++)
        if (b->ready >> l & 1 && span[l] > most) most = span[l];
    bi high = i_add(low, i_set(most));
    for (int i = 0; i <= most; i++) try_code(&r, b, i_add(low, i_set(i)));
    for (;;) { /* below the window */
        bi next = i_sub(low, i_set(1));
        bf over = f_max(f_sub(a, f_mul(f_mul(from_ue4m3(i_max(next, i_set(0))), g), f_set(6))), f_set(0));
        bf limit = f_fma(r.least, f_set(SLACK), f_set(TINY));
        unsigned more = f_le(f_mul(over, over), f_mul(limit, f_set(SLACK))) & i_gt(low, i_set(1)) & b->ready;
        if (!more) break;
        low = i_pick(more, next, low);
        try_code(&r, b, i_pick(more, next, i_set(127)));
    }
    bi twin = i_add(r.best, i_set(8));
    try_code(&r, b, i_pick(i_gt(twin, high), twin, i_set(127)));
    unsigned open = undecided(&r) & b->ready;
    int32_t best[LANES];
    i_store(best, r.best);
    for (; open; open &= open - 1) {
        int l = __builtin_ctz(open);
        best[l] = settle_lane(&r, b, l);
    }
    return i_load(best);
}

/* ---- codes ---- */

/* moe_f32_to_e2m1 of x / s: below 1 to halves, from 1 on to one bit of mantissa, both to even. */
OP bi encode(bf x, bf s)
{
    bf v = f_div(x, s), a = f_abs(v);
    bi u = f_bits(a), low = f_round(f_mul(a, f_set(2)));
    bi high = i_sub(i_shr(i_add(u, i_add(i_set(0x1fffff), i_and(i_shr(u, 22), i_set(1)))), 22), i_set(252));
    bi c = i_pick(f_lt(a, f_set(1)), low, i_min(high, i_set(7)));
    return i_pick(f_lt(v, f_set(0)), i_or(c, i_set(8)), c);
}

OP void encode_block(const float *x, float scale, uint8_t *codes)
{
    int32_t c[16];
    for (int i = 0; i < 16; i += LANES) i_store(c + i, encode(f_load(x + i), f_set(scale)));
    /* 16 codes of 32 bits -> 16 bytes -> low + 16 * high nibble in 8 words -> 8 bytes */
    const __m128i *p = (const void *)c;
    __m128i lo = _mm_packs_epi32(_mm_loadu_si128(p), _mm_loadu_si128(p + 1));
    __m128i hi = _mm_packs_epi32(_mm_loadu_si128(p + 2), _mm_loadu_si128(p + 3));
    __m128i w = _mm_maddubs_epi16(_mm_packus_epi16(lo, hi), _mm_set1_epi16(0x1001));
    _mm_storel_epi64((void *)codes, _mm_packus_epi16(w, w));
}

static void batch_quantize(enum moe_nvfp4_method method, const float *x, float global, uint8_t *codes, uint8_t *scales)
{
    struct batch b;
    batch_load(&b, x, global);
    bi c = method == MOE_NVFP4_MAX ? choose_max(&b) : method == MOE_NVFP4_FOUR_OVER_SIX ? choose_four_over_six(&b)
                                                                                         : choose_search(&b);
    int32_t code[LANES];
    float s[LANES];
    c = i_pick(f_le(f_load(b.amax), f_set(0)), i_set(0x38), c);
    i_store(code, c);
    f_store(s, f_mul(from_ue4m3(c), f_set(global)));
    for (int l = 0; l < LANES; l++) {
        if (b.ready >> l & 1 || b.amax[l] == 0) {
            scales[l] = (uint8_t)code[l];
            encode_block(x + 16 * l, s[l], codes + 8 * l);
        } else
            moe_nvfp4_quantize_ref(method, x + 16 * l, 16, global, codes + 8 * l, scales + l);
    }
}

void VARIANT(nvfp4_quantize)(enum moe_nvfp4_method method, const float *x, int64_t n, float global, uint8_t *codes, uint8_t *scales)
{
    if (!(global >= 0x1p-60f && global <= 0x1p60f)) {
        moe_nvfp4_quantize_ref(method, x, n, global, codes, scales);
        return;
    }
    int64_t blocks = n / 16, b = 0;
    for (; b + LANES <= blocks; b += LANES) batch_quantize(method, x + 16 * b, global, codes + 8 * b, scales + b);
    if (b < blocks) { /* the rest, filled up with blocks of zeros */
        float rest[16 * LANES] = { 0 };
        uint8_t q[8 * LANES], s[LANES];
        memcpy(rest, x + 16 * b, sizeof(float) * 16 * (size_t)(blocks - b));
        batch_quantize(method, rest, global, q, s);
        memcpy(codes + 8 * b, q, 8 * (size_t)(blocks - b));
        memcpy(scales + b, s, (size_t)(blocks - b));
    }
}
