/* kernels/body/fp4.h - products with an NVFP4 weight, from its codes to the sums without decoded weights in memory: the NVFP4 order
 * of kernels.def.  Included once by each matmul.c, after its fp4.h.
 *
 * A group is 16 blocks (256 columns, 128 bytes of codes).  Lane i of every register belongs to one block of the group; step s
 * multiplies one column of each block, for FP4_ROWS rows and up to TILE tokens.  x is laid out once for all rows so that a step
 * reads it in order.
 *
 * Ladder, AVX-512, the same EPYC, one core, processor time, other work on the machine, FMA peak 116 GFLOPS, read 15-18 GB/s; 32 x 7168,
 * in cache, n = 1 (GFLOPS):
 *   values decoded 16 at a time, global in each scale (body/matmul.h before)     24
 *   a block a lane, scale once a block, 8 permutations and 7 shifts              58    8 rows at once: 61
 *   columns 4-7 by a masked permutation of words: half of the shifts             63    64
 *   two loads and a blend instead of a permutation of two registers              66    68 without, 60 with all of the call
 * n = 4, tile in L1: 4 rows x 4 tokens 86-92, 2 x 4 98-106 (loads of x kept in registers, x and sums on cache lines).
 * 2048 x 7168 from memory, n = 1: prefetching 2 KiB ahead 22, the same columns of the next rows 48. */

enum {
    FP4_TILE = 4,         /* tokens in registers at once */
    FP4_BATCH = 16,       /* tokens for which x lies prepared */
    FP4_X = 1 << 14,      /* floats of prepared x */
    FP4_SUMS = 1 << 12,   /* (row, token) pairs that have sums: 16 floats each */
    FP4_NEAR = 1024,      /* columns of a tile's x that stay in L1 */
    FP4_AT_ONCE = 8,      /* most rows of a tile */
};

struct fp4 { const struct moe_weight *w; const float *x; float *y; int64_t ldx, ldy, r0; bool bf16; };

/* ---- x, in the order of steps ---- */

/* A group of one token, `blocks` of its 16 blocks: columns of a block by step, within eight 4 0 5 1 6 2 7 3.  `apart`: floats between steps. */
LANE void fp4_prepare_group(const float *x, int64_t blocks, bool bf16, float *out, int64_t apart)
{
    vf v[16];
    EACH(i, 16) {
        v[i] = i / 2 + i % 2 * 8 < blocks ? vf_load(x + 16 * (i / 2 + i % 2 * 8)) : vf_zero();
        if (bf16) v[i] = vf_round_bf16(v[i]);
    }
    vf_transpose(v);
    EACH(s, 16) vf_store(out + s * apart, v[s / 8 * 8 + s % 8 / 2 + (s % 2 ? 0 : 4)]);
}

/* Token t of a tile of T. */
static void fp4_prepare(const struct fp4 *a, const float *x, int64_t cols, int T, int t, float *out)
{
    int64_t k = 0;
    for (; k + 256 <= cols && a->bf16; k += 256) fp4_prepare_group(x + k, 16, true, out + (k * T + t * 16), 16 * T);
    for (; k + 256 <= cols; k += 256) fp4_prepare_group(x + k, 16, false, out + (k * T + t * 16), 16 * T);
    if (k < cols) fp4_prepare_group(x + k, (cols - k) / 16, a->bf16, out + (k * T + t * 16), 16 * T);
}

/* ---- some rows and tokens over some groups ---- */

struct fp4_rows { const uint8_t *code[FP4_AT_ONCE], *scale[FP4_AT_ONCE]; int64_t ahead; /* bytes of codes to the next rows */ };

/* x: [groups, 16, T, 16]; sum: [R, T, 16]. */
LANE void fp4_tile(int R, int T, bool plain, const struct fp4_rows *a, const float *x, int64_t groups, float *sum)
{
    for (int part = 0; part < FP4_PARTS; part++)
        for (int64_t g = 0; g < groups; g++) {
            const float *at = x + g * 256 * T + part * FP4_LANES;
            vt u[FP4_AT_ONCE][FP4_TILE], v[FP4_TILE];
            codes c[FP4_AT_ONCE];
            EACH(i, R) {
                EACH(t, T) u[i][t] = vt_zero();
                if (part == 0) __builtin_prefetch(a->code[i] + 128 * g + a->ahead, 0, 2), __builtin_prefetch(a->code[i] + 128 * g + 64 + a->ahead, 0, 2);
            }
            EACH(half, 2) {
                EACH(i, R) c[i] = fp4_codes(a->code[i] + 128 * g, half, part);
                EACH(s, 4) {
                    EACH(t, T) v[t] = fp4_load(at + ((half * 8 + 2 * s) * T + t) * 16);
                    EACH(i, R) {
                        vt w = fp4_value4(c[i]);
                        EACH(t, T) u[i][t] = vt_fma(w, v[t], u[i][t]);
                    }
                    EACH(t, T) v[t] = fp4_load(at + ((half * 8 + 2 * s + 1) * T + t) * 16);
                    EACH(i, R) {
                        vt w = fp4_value0(c[i]);
                        EACH(t, T) u[i][t] = vt_fma(w, v[t], u[i][t]);
                        if (s < 3) c[i] = fp4_next(c[i]);
                    }
                }
            }
            EACH(i, R) {
                vt scale = fp4_scales(a->scale[i] + 16 * g, part, plain);
                EACH(t, T) {
                    float *to = sum + (i * T + t) * 16 + part * FP4_LANES;
                    vt_store(to, vt_fma(u[i][t], scale, vt_load(to)));
                }
            }
        }
}

#define FP4_TILES(T) \
    static void fp4_tile##T##_plain(const struct fp4_rows *a, const float *x, int64_t groups, float *sum) { fp4_tile(FP4_ROWS(T), T, true, a, x, groups, sum); } \
    static void fp4_tile##T##_any(const struct fp4_rows *a, const float *x, int64_t groups, float *sum) { fp4_tile(FP4_ROWS(T), T, false, a, x, groups, sum); }
FP4_TILES(1)
FP4_TILES(2)
FP4_TILES(3)
FP4_TILES(4)
static void (*const fp4_tiles[2][FP4_TILE])(const struct fp4_rows *a, const float *x, int64_t groups, float *sum) = {
    { fp4_tile1_any, fp4_tile2_any, fp4_tile3_any, fp4_tile4_any }, { fp4_tile1_plain, fp4_tile2_plain, fp4_tile3_plain, fp4_tile4_plain } };

/* ---- scales ---- */

/* The scale codes of R rows from row r on (those past `last` repeat it), blocks [b, b + n): in place, or gathered into `out`, n bytes a row
 * (`room` apart), when they lie in tiles of four. */
static void fp4_find_scales(const struct moe_weight *w, int64_t r, int64_t last, int R, int64_t b, int64_t n, struct fp4_rows *a, uint8_t *out, int64_t room)
{
    int64_t blocks = w->cols / 16, tiles = (n + 3) / 4;
    for (int i = 0; i < R; i++) {
        int64_t row = r + i < last ? r + i : last;
        a->scale[i] = w->scale + row * blocks + b;
        if (w->layout != MOE_LAYOUT_TILE_128X4) continue;
        const uint8_t *from = w->scale + moe_tile_offset((size_t)row, (size_t)b, (size_t)blocks);
        a->scale[i] = out + i * room;
        for (int64_t j = 0; j < tiles; j++) memcpy(out + i * room + 4 * j, from + 512 * j, 4);
    }
}

/* ---- all ---- */

/* Rows [r, r + R) over columns [k, k + cols), cols a multiple of 256 but for the last ones of the row. */
static void fp4_block(const struct fp4 *a, int64_t r, int64_t last, int T, int64_t k, int64_t cols, const float *x, float *sum)
{
    const struct moe_weight *w = a->w;
    int R = FP4_ROWS(T);
    int64_t groups = cols / 256, rest = cols % 256, stride = w->cols / 2;
    struct fp4_rows rows = { .ahead = R * stride };
    uint8_t gathered[FP4_AT_ONCE * (FP4_X / 16 + 16)];
    fp4_find_scales(w, r, last, R, k / 16, cols / 16, &rows, gathered, FP4_X / 16 + 16);
    bool plain = true;
    for (int i = 0; i < R; i++) {
        rows.code[i] = w->data + (r + i < last ? r + i : last) * stride + k / 2;
        plain = plain && fp4_all_plain(rows.scale[i], 16 * groups);
    }
    fp4_tiles[plain][T - 1](&rows, x, groups, sum);
    if (!rest) return;
    uint8_t code[FP4_AT_ONCE][128] = { 0 }, scale[FP4_AT_ONCE][16] = { 0 };
    for (int i = 0; i < R; i++) {
        memcpy(code[i], rows.code[i] + 128 * groups, (size_t)rest / 2);
        memcpy(scale[i], rows.scale[i] + 16 * groups, (size_t)rest / 16);
        rows.code[i] = code[i], rows.scale[i] = scale[i];
    }
    fp4_tiles[0][T - 1](&rows, x + groups * 256 * T, 1, sum);
}

/* The sums of n <= 16 rows of one token, `apart` floats from row to row, into y: 16 folds at once, in the order of vf_fold. */
static void fp4_finish(const struct moe_weight *w, const float *sum, int64_t apart, int64_t n, float *y)
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

/* Tokens [t0, t0 + n), n <= FP4_BATCH, and rows [r, r + rows), n * rows <= FP4_SUMS with rows rounded up to FP4_AT_ONCE. */
static void fp4_batch(const struct fp4 *a, int64_t t0, int64_t n, int64_t r, int64_t rows)
{
    _Alignas(64) float x[FP4_X], sum[FP4_SUMS * 16]; /* a load across two lines costs two */
    int64_t all = (rows + FP4_AT_ONCE - 1) / FP4_AT_ONCE * FP4_AT_ONCE, tiles = (n + FP4_TILE - 1) / FP4_TILE, cols = a->w->cols;
    int64_t most = least(n <= 2 ? FP4_X : FP4_NEAR, FP4_X / n / 256 * 256), pieces = (cols + most - 1) / most, piece = ((cols + pieces - 1) / pieces + 255) / 256 * 256;
    memset(sum, 0, sizeof *sum * (size_t)(all * n * 16));
    for (int64_t k = 0; k < cols; k += piece) {
        int64_t m = least(piece, cols - k), padded = (m + 255) / 256 * 256;
        for (int64_t i = 0; i < tiles; i++) {
            int64_t t = i * n / tiles;
            int T = (int)((i + 1) * n / tiles - t);
            for (int j = 0; j < T; j++) fp4_prepare(a, a->x + (t0 + t + j) * a->ldx + k, m, T, j, x + t * padded);
            for (int64_t q = 0; q < rows; q += FP4_ROWS(T)) fp4_block(a, r + q, r + rows - 1, T, k, m, x + t * padded, sum + (t * all + q * T) * 16);
        }
    }
    for (int64_t i = 0; i < tiles; i++) {
        int64_t t = i * n / tiles, T = (i + 1) * n / tiles - t;
        for (int64_t j = 0; j < T; j++)
            for (int64_t q = 0; q < rows; q += 16)
                fp4_finish(a->w, sum + (t * all + q * T + j) * 16, 16 * T, least(16, rows - q), a->y + (t0 + t + j) * a->ldy + r + q - a->r0);
    }
}

static void fp4_product(const struct fp4 *a, int64_t r1, int64_t n)
{
    for (int64_t t = 0; t < n; t += FP4_BATCH) {
        int64_t m = least(FP4_BATCH, n - t), most = FP4_SUMS / m / FP4_AT_ONCE * FP4_AT_ONCE;
        for (int64_t r = a->r0; r < r1; r += most) fp4_batch(a, t, m, r, least(most, r1 - r));
    }
}
