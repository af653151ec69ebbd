/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/fp4-tile.h - the inner half of the products with an NVFP4 weight: prepares x as limbs, and
 * multiplies a few rows by a few tokens.  kernels/body/fp4.h, which includes it, explains the words. */
enum {
    FP4_TILE = 4,  /* tokens of a tile */
    FP4_X = 64,    /* groups of x, over all tokens, that lie prepared at once */
    FP4_LIMBS = 3, /* the most limbs of an x */
    FP4_QUARTER = 64 * (FP4_X + 1) /* bytes: 16 scales a group of four rows, and a group that is not whole */
};

/* A group of one token's x, in lane order. */
struct fp4_x {
    int8_t limb[FP4_LIMBS][4][64];  /* [limb][step][four bytes a lane] */
    int32_t bias[FP4_LIMBS][16];    /* with FP4_JOINS that of each limb; else bias[0] alone, that of X */
    int32_t power[16];
};

#if !FP4_JOINS
/* Without FP4_JOINS a limb's sum is joined as soon as it has been computed, the highest limb first: 2^8 times
 * what has been joined so far, plus u[d].  One bias serves all limbs. */
LANE words fp4_join(const words *u, int d, int D)
{
    return d == D - 1 ? u[d] : fp4_add(fp4_shift_left8(u[d + 1]), u[d]);
}
#endif

/* ---- x ---- */

/* Prepare a group of x of which `blocks` of 16 exist; the others count as 0.  Returns the bits of the largest
 * magnitude: 0x7f800000 or more where something is not finite. */
LANE uint32_t fp4_prepare_group(const float *x, int64_t blocks, int D, struct fp4_x *out)
{
    vf v[16]; /* a block a register, in lane order; then a column of all blocks a register */
    EACH(i, 16) v[i] = i / 2 + i % 2 * 8 < blocks ? vf_load(x + 16 * (i / 2 + i % 2 * 8)) : vf_zero();
    vf_transpose(v);

    vi most = vi_set(0);
    EACH(i, 16) most = vi_max(most, vi_and(vi_bits(v[i]), vi_set(0x7fffffff)));
    vi e = vi_max(vi_and(vi_bits(vf_mul(vf_bits(most), vf_set(1.004f))), vi_set(0x7f800000)),
                  vi_set(30 << 23));
    vf f = vf_bits(vi_sub(vi_set((int32_t)((252u + 8 * (uint32_t)D) << 23)), e)); /* X / x */

    vi sum = vi_set(0), c[16];
    EACH(i, 16) {
        c[i] = vi_round(vf_mul(v[i], f));
        sum = vi_add(sum, c[i]);
        c[i] = vi_add(c[i], vi_set(D == 3 ? 0x808080 : 0x8080)); /* makes the bytes limb + 128 */
    }
    EACH(s, 4) {
        vi four[4];
        EACH(i, 4) four[i] = c[s / 2 * 8 + s % 2 + 2 * i];
        EACH(d, D) vi_store(out->limb[d][s], vi_xor(fp4_bytes(four, d), vi_set((int32_t)0x80808080)));
    }
#if FP4_JOINS
    EACH(d, D) {
        words b = fp4_zero();
        EACH(s, 4) b = fp4_step(b, vi_set(0x0c0c0c0c), fp4_load(out->limb[d][s]));
        vi_store(out->bias[d], vi_sub(vi_set(0), b));
    }
#else
    vi_store(out->bias[0], vi_mul(sum, vi_set(-12)));
#endif

    vi_store(out->power, vi_sub(e, vi_set((6 + 8 * D) << 23)));
    return vi_fold_max(most);
}

/* Prepare token t of a tile of T: its groups go to out[t], out[T + t], ...  Returns whether x is finite. */
LANE bool fp4_prepare_limbs(const float *x, int64_t cols, int D, int T, int t, struct fp4_x *out)
{
    uint32_t most = 0;
    for (int64_t k = 0; k < cols; k += 256, out += T) {
        uint32_t m = cols - k >= 256 ? fp4_prepare_group(x + k, 16, D, out + t)
                                     : fp4_prepare_group(x + k, (cols - k) / 16, D, out + t);
        most = m > most ? m : most;
    }
    return most < 0x7f800000;
}

static bool fp4_prepare(const float *x, int64_t cols, int limbs, int T, int t, struct fp4_x *out)
{
    return limbs == 2 ? fp4_prepare_limbs(x, cols, 2, T, t, out)
                       : fp4_prepare_limbs(x, cols, 3, T, t, out);
}

/* ---- a tile: some rows and tokens over some groups ---- */

/* Scales of 16 rows that are taken out of their tiles and put in the order of fp4_rows.scale, while the rows
 * before them are multiplied. */
struct fp4_ahead {
    const uint8_t *tiles;
    uint8_t *out;
    int64_t soon;                    /* bytes from these tiles to the ones after them: what to prefetch */
    _Alignas(64) uint8_t most[64];   /* tells whether all are normal: see fp4_track_codes */
};

/* One or four sets of four rows, 32 rows apart. */
struct fp4_rows {
    const uint8_t *code[4];   /* codes of the rows of the first set */
    const uint8_t *scale;     /* [sets][FP4_X + 1 groups][4 rows][16 blocks] */
    int sets;
    int64_t code_step;        /* bytes of codes from a set to the next */
    int64_t ahead;            /* bytes of codes to the rows that come later: what to prefetch */
    struct fp4_ahead *next;   /* NULL, or scales to put in order meanwhile, a quarter with each set */
};

/* Put every step-th group of these scales in order, from group `first` on. */
static void fp4_untile_some(struct fp4_ahead *a, int64_t first, int64_t groups, int64_t step)
{
    codes most = fp4_load(a->most);
    for (int64_t g = first; g < groups; g += step) {
        const uint8_t *p = a->tiles + 2048 * g;
        EACH(i, 4) __builtin_prefetch((const void *)((uintptr_t)p + (uintptr_t)(512 * i + a->soon)), 0, 1);
        fp4_untile(p, 512, a->out + 64 * g, FP4_QUARTER, &most);
    }
    fp4_store(a->most, most);
}

/* R rows of each set times T tokens.  x: [groups][T]; sum: [R][T][16], that of the next set 32 * T * 16
 * floats on.  normal: whether all scales are. */
LANE void fp4_tile(int R, int T, int D, bool normal, const struct fp4_rows *a, const struct fp4_x *x,
                   int64_t groups, float *sum)
{
    int64_t ahead = a->ahead;
    for (int n = 0; n < a->sets * FP4_PARTS; n++) {
        int set = n / FP4_PARTS, part = n % FP4_PARTS;
        const struct fp4_x *at = x;
        const uint8_t *code[4], *scale = a->scale + set * FP4_QUARTER, *end = scale + 64 * groups;
        float *to = sum + set * 32 * T * 16 + part * FP4_LANES;
        vt s[4][FP4_TILE];
        if (part == 0 && a->next) fp4_untile_some(a->next, set, groups, 4);
        EACH(i, R) code[i] = a->code[i] + set * a->code_step;
        EACH(i, R) EACH(t, T) s[i][t] = vt_load(to + (i * T + t) * 16);
        for (; scale < end; scale += 64) {
            words w[4][4], f[4];
            EACH(i, R) {
                if (part == 0)
                    __builtin_prefetch(code[i] + ahead, 0, 1), __builtin_prefetch(code[i] + 64 + ahead, 0, 1);
                EACH(half, 2) {
                    codes c = fp4_codes(code[i], half, part);
                    w[i][2 * half] = fp4_even(c), w[i][2 * half + 1] = fp4_odd(c);
                }
                f[i] = fp4_scales(scale + 16 * i, part, normal);
                code[i] += 128;
            }
            EACH(t, T) {
                words u[4][FP4_LIMBS];
                EACH(e, D) { /* the highest limb first; each is a short chain of its own */
                    int d = D - 1 - e;
                    words v[4],
                        start = FP4_JOINS || !d ? fp4_load(at->bias[d] + part * FP4_LANES) : fp4_zero();
                    EACH(k, 4) v[k] = fp4_load(at->limb[d][k] + 4 * part * FP4_LANES);
                    EACH(i, R) {
                        u[i][d] = fp4_dot(start, w[i], v);
                        u[i][d] = fp4_join(u[i], d, D);
                    }
                }
                words power = fp4_load(at->power + part * FP4_LANES);
                EACH(i, R) s[i][t] = vt_fma(fp4_float(u[i][0]), fp4_factor(f[i], power, normal), s[i][t]);
                at++;
            }
        }
        EACH(i, R) EACH(t, T) vt_store(to + (i * T + t) * 16, s[i][t]);
    }
}

#if FP4_JOINS
/* The same of four rows and one token: all limbs go through a step together, so that no chain of products is
 * long. */
LANE void fp4_tile_one(int D, bool normal, const struct fp4_rows *a, const struct fp4_x *x, int64_t groups,
                       float *sum)
{
    int64_t ahead = a->ahead;
    for (int set = 0; set < a->sets; set++, sum += 32 * 16) {
        const struct fp4_x *at = x;
        const uint8_t *code[4], *scale = a->scale + set * FP4_QUARTER, *end = scale + 64 * groups;
        vt s[4];
        if (a->next) fp4_untile_some(a->next, set, groups, 4);
        EACH(i, 4) code[i] = a->code[i] + set * a->code_step;
        EACH(i, 4) s[i] = vt_load(sum + i * 16);
        for (; scale < end; scale += 64, at++) {
            words u[4][FP4_LIMBS];
            EACH(d, D) EACH(i, 4) u[i][d] = fp4_load(at->bias[d]);
            EACH(half, 2) {
                codes c[4];
                EACH(i, 4) {
                    __builtin_prefetch(code[i] + 64 * half + ahead, 0, 1);
                    c[i] = fp4_codes(code[i], half, 0);
                }
                EACH(odd, 2) {
                    words v[FP4_LIMBS];
                    EACH(d, D) v[d] = fp4_load(at->limb[d][2 * half + odd]);
                    EACH(i, 4) {
                        words w = odd ? fp4_odd(c[i]) : fp4_even(c[i]);
                        EACH(d, D) u[i][d] = fp4_step(u[i][d], w, v[d]);
                    }
                }
            }
            words power = fp4_load(at->power);
            EACH(i, 4) {
                s[i] = vt_fma(fp4_float(fp4_join(u[i], 0, D)),
                              fp4_factor(fp4_scales(scale + 16 * i, 0, normal), power, normal), s[i]);
                code[i] += 128;
            }
        }
        EACH(i, 4) vt_store(sum + i * 16, s[i]);
    }
}
#else
#define fp4_tile_one(D, normal, a, x, groups, sum) fp4_tile(FP4_ROWS(1), 1, D, normal, a, x, groups, sum)
#endif

#define FP4_ONE(T, D, name, normal) \
    static void fp4_tile##T##_##D##name(const struct fp4_rows *a, const struct fp4_x *x, int64_t groups, \
                                        float *sum) \
    { \
        if (T == 1) fp4_tile_one(D, normal, a, x, groups, sum); \
        else fp4_tile(FP4_ROWS(T), T, D, normal, a, x, groups, sum); \
    }
#define FP4_TILES(T) \
    FP4_ONE(T, 2, any, false) FP4_ONE(T, 2, normal, true) \
    FP4_ONE(T, 3, any, false) FP4_ONE(T, 3, normal, true)
FP4_TILES(1)
FP4_TILES(2)
FP4_TILES(3)
FP4_TILES(4)
#define FP4_EACH(suffix) { fp4_tile1_##suffix, fp4_tile2_##suffix, fp4_tile3_##suffix, fp4_tile4_##suffix }
static void (*const fp4_tiles[2][2][FP4_TILE])(const struct fp4_rows *a, const struct fp4_x *x,
                                               int64_t groups,
                                               float *sum) = { { FP4_EACH(2any), FP4_EACH(2normal) },
                                                               { FP4_EACH(3any), FP4_EACH(3normal) } };

/* All four rows of each set, in as many tiles as it takes. */
static void fp4_four(const struct fp4_rows *a, int limbs, bool normal, int T, const struct fp4_x *x,
                     int64_t groups, float *sum)
{
    fp4_tiles[limbs - 2][normal][T - 1](a, x, groups, sum);
    if (FP4_ROWS(T) == 4) return;
    struct fp4_rows last = *a;
    last.code[0] = a->code[2], last.code[1] = a->code[3], last.scale += 32;
    last.next = NULL;
    fp4_tiles[limbs - 2][normal][T - 1](&last, x, groups, sum + 2 * T * 16);
}
