/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/fp4.h - products with an NVFP4 weight.  They go from the stored codes to the sums, without
 * dequantized weights in memory, by the reduction order of NVFP4 products of kernels.def.  Included once by
 * each file that has a variant, after the fp4.h of its instruction set.
 *
 * PICTURE.  A row of W is cut into groups of 256 columns, and a group is multiplied by integer dot products:
 *
 *     columns   0     16    32         112   128   144        240   256
 *     a group   |  0  |  1  |  ...  |  7  |  8  |  9  |  ...  | 15  |      16 blocks of 16 columns
 *
 *     lane      0     1     2     3     4     5   ...  14    15            16 lanes of 32 bits
 *     block     0     8     1     9     2     10  ...  7     15            a lane serves one block
 *
 *     step      columns of each block that its lane multiplies, a byte each
 *       0       0  2  4  6         byte  3          2          1          0
 *       1       1  3  5  7         w     w6         w4         w2         w0     0..24, of a row (step 0)
 *       2       8 10 12 14         x     limb of x6 limb of x4 limb of x2 limb of x0  -128..127, of a token
 *       3       9 11 13 15         ---------------------------------------------------------------
 *                                  lane += w0*x0 + w2*x2 + w4*x4 + w6*x6
 *
 *     limb      X = limb[0] + 2^8 limb[1] + 2^16 limb[2]: the four steps run once for each limb
 *
 * After four steps and D limbs a lane holds D integers, the products of its block with each limb of x.  They
 * are joined into one, made float32, multiplied by the block's scale, and added to the lane's partial sum:
 * the 16 lanes are the 16 partial sums of the reduction order.
 *
 * GLOSSARY
 *   limb      one of the D signed bytes of X, the fixed-point form of a value of x; limb 0 is the lowest.  D
 *             is 3 for 24 bits (matmul) and 2 for 16 bits (matmul_int16).
 *   w         2 * e2m1(code) + 12: doubling makes it an integer, 12 makes it unsigned, as the instructions
 *             want one factor.
 *   bias      -12 times the sum of x's limbs over the block: it takes away what the 12 in w adds.
 *   join      to make one integer of the limbs' sums: u[0] + 2^8 u[1] + 2^16 u[2].
 *   power     2^(e - 8 D - 7) of each block of x, as bits of a float32: what X is to be scaled by, less the 7
 *             by which the exponent of an e4m3 scale is biased.
 *   normal    said of scale codes from 8 to 126: positive and normal, so that shifts turn them into floats.
 *   part      the lanes that one register holds: all 16 (avx512), or lanes 0-7 and then 8-15 (avx2).
 *   tile      R = FP4_ROWS(T) rows times T tokens, whose sums stay in registers.
 *   set       four rows.  The tiled layout of scales keeps rows r, r + 32, r + 64 and r + 96 together, so one
 *             call may take four sets, 32 rows apart.
 *   quarter   the scales of one set: FP4_QUARTER bytes.
 *   piece     the columns whose x is prepared at once: at most FP4_X groups over all tokens.
 *   span      the rows that are multiplied with one tile's tokens over one piece.
 *   batch     the tokens and rows whose sums are kept at once: at most FP4_BATCH tokens and FP4_SUMS / tokens
 *             rows.
 *
 * LADDER: the versions tried, in GFLOPS of one core while other programs ran on the machine.
 *   float32 with AVX-512 on an EPYC (multiply-add peak 116), 32 x 7168 in cache, n = 1:
 *     values dequantized 16 at a time, global in each scale                        24
 *     a block a lane, scale once a block, 8 permutations and 7 shifts              58
 *     columns 4-7 by a masked permutation, two loads and a blend for codes         66
 *   integers on an Intel Xeon (family 6 model 207; multiply-add peak 177, int8 dot products 700; reads
 *   14 GB/s), 2048 x 7168:
 *                                                 avx512dot            avx512        avx2
 *                                                 n = 1  n = 1  n = 8  n = 1  n = 8  n = 1  n = 8
 *                                                 memory cache         cache         cache
 *     float32, as above: 16 permutations a group   33     42     83     42     83     20     42
 *     x of three limbs, one chain of 12 products   35     57     82     44     70     29     46
 *     a chain for each limb                        35     57     99     45     68     29     44
 *     scales of 16 rows out of tiles at once       40     68    104     51     68     34     47
 *     limbs joined and scales times powers of
 *     two by one dot product each; for one token
 *     all limbs of a step at once; the next 16
 *     rows' scales put in order meanwhile          46     91    116     58     68     36     49
 *   With avx512dot a row's group takes 27 instructions on two ports: 12 products of limbs, 4 look-ups, 2
 *   shifts and 2 blends of codes, 3 that join limbs, 4 for scale, conversion and sum.  Those are 13.5 cycles,
 *   or 0.64 of the measured multiply-add peak.  14.5 cycles are measured, 16.7 with scales, x and sums around
 *   them.  matmul_int16 takes 21 instructions, at best 0.83 of the peak, and reaches 109 GFLOPS at n = 1 in
 *   cache. */
#include "base/minmax.h"

#include "kernels/body/fp4-tile.h"

enum {
    FP4_BATCH = 16,     /* tokens of a batch */
    FP4_SUMS = 1 << 12, /* (row, token) pairs of a batch: each has 16 partial sums */
    FP4_NEAR = 4        /* groups of a tile's x that stay in the first-level cache */
};

/* One call of matmul or matmul_int16, with its parameters' names. */
struct fp4 {
    const struct moe_weight *w;
    const float *x;
    float *y;
    int64_t ldx, ldy, r0;
    int limbs; /* of each value of x: 3 for matmul, 2 for matmul_int16 */
};

/* ---- rows ---- */

/* Rows times the T tokens of one tile over one piece of columns. */
struct fp4_span {
    const struct moe_weight *w;
    int limbs, T;
    /* rows [base, last] are computed; base is a multiple of 4, and rows before `first` are not wanted */
    int64_t base, first, last;
    int64_t k, cols;       /* columns [k, k + cols); cols is a multiple of 256 but at the end of the row */
    const struct fp4_x *x; /* [groups][T] */
    float *sum;            /* [rows][T][16] */
};

/* Multiplies the last group of one set where it is not whole: its codes are copied and filled up with
 * zeros. */
static void fp4_multiply_rest(const struct fp4_span *s, const struct fp4_rows *a, int set, float *sum)
{
    int64_t groups = s->cols / 256, rest = s->cols % 256;
    uint8_t code[4][128] = { 0 };
    struct fp4_rows rows = { .scale = a->scale + set * FP4_QUARTER + 64 * groups, .sets = 1 };
    for (int i = 0; i < 4; i++) {
        memcpy(code[i], a->code[i] + set * a->code_step + 128 * groups, (size_t)rest / 2);
        rows.code[i] = code[i];
    }
    fp4_four(&rows, s->limbs, false, s->T, s->x + groups * s->T, 1, sum);
}

/* Multiplies rows r to r + 3, and those 32, 64 and 96 after them where there are four sets.  The caller has
 * filled in *a except for the codes, which this sets; a row that does not exist or is not wanted gets the
 * codes of one that is. */
static void fp4_multiply_set(const struct fp4_span *s, int64_t r, struct fp4_rows *a, bool normal)
{
    int64_t stride = s->w->cols / 2;
    float *sum = s->sum + (r - s->base) * s->T * 16;
    for (int i = 0; i < 4; i++)
        a->code[i] =
            s->w->data + (r + i < s->first ? s->first : moe_min_i64(r + i, s->last)) * stride + s->k / 2;
    a->code_step = 32 * stride;
    fp4_four(a, s->limbs, normal, s->T, s->x, s->cols / 256, sum);
    for (int set = 0; s->cols % 256 && set < a->sets; set++)
        fp4_multiply_rest(s, a, set, sum + set * 32 * s->T * 16);
}

/* A tile holds the scales of 16 rows together: of four rows, and of those 32, 64 and 96 after them.  This
 * puts those of the last group, which is not whole, in the order of fp4_rows.scale; fp4_untile_some does so
 * with whole groups. */
static void fp4_untile_rest(const struct fp4_span *s, const struct fp4_ahead *a)
{
    int64_t groups = s->cols / 256, rest = s->cols % 256 / 16;
    uint8_t lines[256] = { 0 };
    codes most = fp4_zero();
    for (int64_t j = 0; j < (rest + 3) / 4; j++)
        memcpy(lines + 64 * j, a->tiles + 2048 * groups + 512 * j, 64);
    if (rest) fp4_untile(lines, 64, a->out + 64 * groups, FP4_QUARTER, &most);
}

/* Points *a at the scales of the 16 rows that a tile holds together from `row` on, which are to be put in
 * order at out: of rows row to row + 3, and of those 32, 64 and 96 after them. */
static void fp4_ahead_at(const struct fp4_span *s, int64_t row, uint8_t *out, struct fp4_ahead *a)
{
    int64_t blocks = s->w->cols / 16, tile = (blocks + 3) / 4 * 512;
    *a = (struct fp4_ahead){ .tiles = s->w->scale +
                                      moe_tile_offset((size_t)row, (size_t)s->k / 16, (size_t)blocks),
                             .out = out,
                             .soon = row % 128 < 28 ? 64 : tile - 28 * 16 };
}

/* Multiplies a span of a weight whose scales lie in tiles, 16 rows at a time.  Where all of the 16 are
 * wanted, they are multiplied as four sets in one call, and the scales of the next 16 are put in order
 * meanwhile. */
static void fp4_multiply_tiled(const struct fp4_span *s)
{
    _Alignas(64) uint8_t scale[2][4 * FP4_QUARTER];
    struct fp4_ahead ahead[2];
    int now = 0;
    bool ready = false;
    for (int64_t row = s->base / 128 * 128, after; row <= s->last; row = after) {
        after = row + (row % 128 < 28 ? 4 : 100); /* the next four rows of the tile, or of the next tile */
        if (row + 99 < s->base) continue;
        bool all = row >= s->first && row + 99 <= s->last;
        if (!ready) {
            fp4_ahead_at(s, row, scale[now], &ahead[now]);
            fp4_untile_some(&ahead[now], 0, s->cols / 256, 1);
        }
        fp4_untile_rest(s, &ahead[now]);
        bool normal = fp4_is_normal(fp4_load(ahead[now].most));
        struct fp4_rows rows = { .sets = all ? 4 : 1, .ahead = (after - row) * s->w->cols / 2 };
        if ((ready = all && after <= s->last))
            rows.next = &ahead[!now], fp4_ahead_at(s, after, scale[!now], rows.next);
        for (int q = 0; q < 4; q += rows.sets) {
            int64_t r = row + 32 * q;
            rows.scale = scale[now] + q * FP4_QUARTER;
            if (r >= s->base && r <= s->last) fp4_multiply_set(s, r, &rows, normal);
        }
        if (ready) now = !now;
    }
}

/* Multiplies a span of a weight whose scales lie row by row. */
static void fp4_multiply_linear(const struct fp4_span *s)
{
    int64_t blocks = s->w->cols / 16, here = s->cols / 16;
    uint8_t scale[FP4_QUARTER];
    memset(scale, 8, sizeof scale); /* normal, also past the end of a row */
    for (int64_t r = s->base; r <= s->last; r += 4) {
        struct fp4_rows rows = { .scale = scale, .sets = 1, .ahead = 4 * s->w->cols / 2 };
        for (int i = 0; i < 4; i++) {
            const uint8_t *p = s->w->scale +
                               (r + i < s->first ? s->first : moe_min_i64(r + i, s->last)) * blocks +
                               s->k / 16;
            for (int64_t b = 0; b < here; b += 16)
                memcpy(scale + 4 * b + 16 * i, p + b, (size_t)moe_min_i64(16, here - b));
        }
        fp4_multiply_set(s, r, &rows, fp4_all_normal(scale, s->cols / 256 * 64));
    }
}

/* Adds up the results of n <= 16 rows for one token, into y.  The partial sums of a row lie `apart` floats
 * after those of the row before; 16 rows are folded at once, in the order of vf_fold. */
static void fp4_fold_rows(const struct moe_weight *w, const float *sum, int64_t apart, int64_t n, float *y)
{
    vf v[16];
    EACH(i, 16) v[i] = vf_load(sum + (i < n ? i : 0) * apart);
    vf_transpose(v);
    EACH(i, 8) v[i] = vf_add(v[i], v[i + 8]);
    EACH(i, 4) v[i] = vf_add(v[i], v[i + 4]);
    vf s = vf_add(vf_add(v[0], v[2]), vf_add(v[1], v[3])), g = vf_set(w->global);
    s = w->reciprocal ? vf_div(s, g) : vf_mul(s, g);
    if (n == 16) vf_store(y, s);
    else vf_storen(y, n, s);
}

/* Multiplies tokens [t0, t0 + n), n <= FP4_BATCH, by rows [r, r + rows).  The rows, extended to multiples of
 * 4 at both ends, times n are at most FP4_SUMS. */
static void fp4_multiply_batch(const struct fp4 *a, int64_t t0, int64_t n, int64_t r, int64_t rows)
{
    _Alignas(64) struct fp4_x x[FP4_X]; /* a load across two cache lines costs two */
    _Alignas(64) float sum[FP4_SUMS * 16];
    bool finite[FP4_BATCH];
    struct fp4_span s = {
        .w = a->w, .limbs = a->limbs, .base = r / 4 * 4, .first = r, .last = r + rows - 1
    };
    /* the rows computed are `all`, of which the first `before` are not wanted */
    int64_t before = r - s.base, all = (before + rows + 3) / 4 * 4;
    int64_t tiles = (n + FP4_TILE - 1) / FP4_TILE;
    int64_t cols = a->w->cols, groups = (cols + 255) / 256;
    int64_t most = moe_min_i64(n <= 2 ? FP4_X : FP4_NEAR, FP4_X / n); /* groups of a piece */
    int64_t pieces = (groups + most - 1) / most, piece = (groups + pieces - 1) / pieces;

    memset(sum, 0, sizeof *sum * (size_t)(all * n * 16));
    for (int64_t t = 0; t < n; t++) finite[t] = true;
    for (s.k = 0; s.k < cols; s.k += 256 * piece) {
        s.cols = moe_min_i64(256 * piece, cols - s.k);
        for (int64_t i = 0; i < tiles; i++) {
            int64_t t = i * n / tiles;
            int T = (int)((i + 1) * n / tiles - t);
            s.T = T, s.x = x + t * piece, s.sum = sum + t * all * 16;
            for (int j = 0; j < T; j++)
                finite[t + j] &= fp4_prepare(a->x + (t0 + t + j) * a->ldx + s.k, s.cols, a->limbs, T, j,
                                             x + t * piece);
            (a->w->layout == MOE_LAYOUT_TILE_128X4 ? fp4_multiply_tiled : fp4_multiply_linear)(&s);
        }
    }

    for (int64_t i = 0; i < tiles; i++) {
        int64_t t = i * n / tiles, T = (i + 1) * n / tiles - t;
        for (int64_t j = 0; j < T; j++) {
            float *y = a->y + (t0 + t + j) * a->ldy + r - a->r0;
            for (int64_t q = 0; q < rows; q += 16)
                fp4_fold_rows(a->w, sum + (t * all + (before + q) * T + j) * 16, 16 * T,
                              moe_min_i64(16, rows - q), y + q);
            for (int64_t q = 0; q < rows && !finite[t + j]; q++) y[q] = NAN;
        }
    }
}

/* Computes the call: rows [a->r0, r1) times n tokens, batch by batch. */
static void fp4_product(const struct fp4 *a, int64_t r1, int64_t n)
{
    for (int64_t t = 0; t < n; t += FP4_BATCH) {
        int64_t m = moe_min_i64(FP4_BATCH, n - t), most = FP4_SUMS / m / 128 * 128;
        for (int64_t r = a->r0, next; r < r1; r = next) {
            next = moe_min_i64(r / 4 * 4 + most, r1);
            fp4_multiply_batch(a, t, m, r, next - r);
        }
    }
}
