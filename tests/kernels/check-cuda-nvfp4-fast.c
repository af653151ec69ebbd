/* SPDX-License-Identifier: Apache-2.0 */
/* Checks moe_cuda_tiles, with experts for one warp, for several, and for more threads than a block has;
 * and the products moe_cuda_nvfp4_fast_* and nvfp4_terms_*: bit for bit against their order of sums in plain
 * C, whichever kernel and item a row is in; against the exact product within the bound that
 * kernels/cuda/nvfp4-fast.h states. */
#include "tests/kernels/cuda-harness.h"
#include "tests/kernels/cuda-mma.h"

#include "formats/dtype.h"
#include "kernels/cuda/nvfp4-fast.h"

enum { EXPERTS = 3, PAIRS = 160 };

static int64_t round_up(int64_t v, int64_t to) { return (v + to - 1) / to * to; }

/* ---- weights: experts side by side, each the codes, scales and globals of one or two matrices ---- */

struct experts {
    int64_t matrices, rows, cols, codes, scales, stride; /* bytes of a matrix's codes and scales */
    uint8_t *bytes;
    bool reciprocal;
};

static uint8_t *matrix_at(const struct experts *x, int64_t e, int64_t m)
{
    return x->bytes + e * x->stride + m * (x->codes + x->scales + 16);
}

/* any: scales of every code, NaN and negative ones among them. */
static struct experts make_experts(int64_t matrices, int64_t rows, int64_t cols, bool any)
{
    struct experts x = { .matrices = matrices, .rows = rows, .cols = cols, .reciprocal = random_below(2) };
    x.codes = round_up(rows * cols / 2, 16);
    x.scales = moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, rows, cols);
    x.stride = matrices * (x.codes + x.scales + 16);
    x.bytes = calloc(EXPERTS, (size_t)x.stride);
    assert(x.bytes);
    for (int64_t i = 0; i < EXPERTS * matrices; i++) {
        uint8_t *at = matrix_at(&x, i / matrices, i % matrices);
        float some = 1 + random_uniform() / 2, global = x.reciprocal ? 3000 * some : some / 3000;
        for (int64_t j = 0; j < rows * cols / 2; j++) at[j] = (uint8_t)random_bits();
        for (int64_t r = 0; r < rows; r++)
            for (int64_t b = 0; b < cols / 16; b++)
                at[x.codes + (int64_t)moe_tile_offset((size_t)r, (size_t)b, (size_t)(cols / 16))] =
                    (uint8_t)random_below(any ? 256 : 127);
        memcpy(at + x.codes + x.scales, &global, sizeof global);
    }
    return x;
}

static float global_of(const struct experts *x, int64_t e, int64_t m)
{
    return moe_load_f32(matrix_at(x, e, m) + x->codes + x->scales);
}

/* The row without its global. */
static void weight_row(const struct experts *x, int64_t e, int64_t m, int64_t r, float *w)
{
    const uint8_t *at = matrix_at(x, e, m);
    for (int64_t i = 0; i < x->cols; i++) {
        size_t s = moe_tile_offset((size_t)r, (size_t)i / 16, (size_t)(x->cols / 16));
        uint8_t two = at[(r * x->cols + i) / 2];
        w[i] = moe_e2m1_to_f32(i % 2 ? two >> 4 : two & 15) * moe_e4m3_to_f32(at[x->codes + (int64_t)s]);
    }
}

/* ---- the reference ---- */

/* The stored terms of a row, as floats, [terms][n]. */
static void halves_of(const float *x, int64_t n, float factor, int terms, float *h)
{
    for (int64_t i = 0; i < n; i++) {
        const float v = isnan(factor) ? 0 : x[i] / factor;
        h[i] = round_f16(v);
        if (terms == 2) h[n + i] = round_f16(v - h[i]);
    }
}

/* s of the header: W's row times 2^-7, times the terms. */
static float sum_of(const float *w, const float *h, int64_t n, int terms)
{
    float s = 0;
    for (int64_t group = 0; group < n; group += 64) {
        float c = 0;
        for (int part = 0; part < 4 * terms; part++) {
            const float *term = part < 4 * terms - 4 ? h + n : h;
            float a[16], b[16];
            for (int k = 0; k < 16; k++) {
                int64_t i = group + part % 4 / 2 * 32 + k / 2 * 4 + part % 2 * 2 + k % 2;
                a[k] = i < n ? w[i] * 0x1p-7f : 0, b[k] = i < n ? term[i] : 0;
            }
            c = mma_sum(a, b, c, -14);
        }
        s = s + c;
    }
    return s;
}

static void check_bound(const float *w, const float *x, int64_t n, int terms, double y, double global)
{
    const double lost = terms == 2 ? 0x1p-22 : 0x1p-11;
    double exact = 0, sum = 0, weights = 0, most = 0;
    for (int64_t i = 0; i < n; i++) {
        exact += (double)w[i] * (double)x[i], sum += fabs((double)w[i] * (double)x[i]);
        weights += fabs((double)w[i]), most = fmax(most, fabs((double)x[i]));
    }
    double bound = (lost + 0x1p-17 + (double)((n + 63) / 64) * 0x1p-24) * sum + 0x1p-38 * most * weights;
    /* two roundings of y, of which the last can be to a subnormal */
    double last = fabs(exact * global) * 0x1p-23 + 0x1p-149 * (1 + fabs(global));
    CUDA_CHECK(!isfinite(y) || fabs(y - exact * global) <= bound * fabs(global) + last,
               "%g instead of %g is off by more than %g", y, exact * global, bound * fabs(global));
}

/* A row of x times a matrix. */
static void want_row(const struct experts *x, int64_t e, int64_t m, int terms, const float *in, float *y)
{
    float *w = malloc(sizeof *w * (size_t)x->cols), *h = malloc(sizeof *h * 2 * (size_t)x->cols);
    const float factor = halves_factor(in, x->cols), global = global_of(x, e, m);
    assert(w && h);
    halves_of(in, x->cols, factor, terms, h);
    for (int64_t r = 0; r < x->rows; r++) {
        weight_row(x, e, m, r, w);
        y[r] = sum_of(w, h, x->cols, terms) * (factor * 128);
        y[r] = x->reciprocal ? y[r] / global : y[r] * global;
        if (factor < 0x1p100f && factor > 0x1p-60f)
            check_bound(w, in, x->cols, terms, (double)y[r],
                        x->reciprocal ? 1 / (double)global : (double)global);
    }
    free(w);
    free(h);
}

/* ---- work ---- */

/* Sorted pairs of some experts, as group leaves them, and what tiles makes of them. */
struct work {
    int64_t rows_of_x;
    int32_t pairs, first[EXPERTS + 1], in[PAIRS], out[PAIRS], count[MOE_CUDA_TILE_LISTS];
    struct moe_cuda_item item[MOE_CUDA_TILE_LISTS][PAIRS];
};

static void make_work(struct work *k, const int *of_expert)
{
    memset(k, 0, sizeof *k);
    for (int e = 0; e < EXPERTS; e++) {
        const int n = of_expert[e];
        for (int at = 0; at < n; at += 64) {
            const int count = n - at < 64 ? n - at : 64;
            const int list = count <= 8 ? 0 : count <= 16 ? 1 : count <= 32 ? 2 : 3;
            k->item[list][k->count[list]++] = (struct moe_cuda_item){ e, k->pairs + at, count, 0 };
        }
        k->first[e] = k->pairs, k->pairs += n;
    }
    k->first[EXPERTS] = k->pairs;
    assert(k->pairs <= PAIRS);
    k->rows_of_x = 1 + random_below(12);
    for (int i = 0; i < k->pairs; i++) {
        k->in[i] = (int32_t)random_below(k->rows_of_x);
        k->out[i] = k->pairs - 1 - i; /* results come out in another order */
    }
}

/* The lists of `tiles`: their address, and that of the counts. */
static void launch_tiles(const struct work *k, uint64_t *items, uint64_t *counts)
{
    struct moe_cuda_tiles a = { .pairs = k->pairs, .experts = EXPERTS };
    static struct moe_cuda_item got[MOE_CUDA_TILE_LISTS][PAIRS];
    int32_t count[MOE_CUDA_TILE_LISTS];
    a.first = cuda_in(k->first, sizeof k->first);
    a.items = *items = cuda_out(sizeof *got[0] * MOE_CUDA_TILE_LISTS * (size_t)k->pairs);
    a.item_count = *counts = cuda_out(sizeof count);
    CUDA_LAUNCH(tiles, a);
    cuda_get(count, *counts, sizeof count);
    for (int l = 0; l < MOE_CUDA_TILE_LISTS; l++) {
        size_t pitch = sizeof *got[0] * (size_t)k->pairs;
        CUDA_CHECK(count[l] == k->count[l], "list %d has %d items instead of %d", l, count[l],
                   k->count[l]);
        CUDA_CHECK(count[l] <= moe_cuda_tiles_most(k->pairs, EXPERTS, l), "list %d is too long", l);
        cuda_get(got[l], *items + (size_t)l * pitch, sizeof *got[0] * (size_t)count[l]);
        CUDA_CHECK(!memcmp(got[l], k->item[l], sizeof *got[0] * (size_t)count[l]), "list %d differs", l);
    }
}

/* ---- tiles ---- */

/* The items of so many experts in plain C, behind those counted: item [lists][pairs], count [lists]. */
static void list_tiles(const int32_t *first, int experts, struct moe_cuda_item *item, int32_t *count)
{
    for (int e = 0; e < experts; e++)
        for (int at = first[e]; at < first[e + 1]; at += MOE_CUDA_TILE_PAIRS) {
            const int n = first[e + 1] - at < MOE_CUDA_TILE_PAIRS ? first[e + 1] - at : MOE_CUDA_TILE_PAIRS;
            const int list = n <= 8 ? 0 : n <= 16 ? 1 : n <= 32 ? 2 : 3;
            item[list * first[experts] + count[list]++] = (struct moe_cuda_item){ e, at, n, 0 };
        }
}

/* Experts of more than one warp, and more experts than the block has threads.  most: pairs of an expert; a
 * third of the experts has none. */
static void check_tiles(int experts, int most)
{
    int32_t first[400] = { 0 }, want_count[MOE_CUDA_TILE_LISTS] = { 0 }, count[MOE_CUDA_TILE_LISTS];
    assert(experts < 400);
    for (int e = 0; e < experts; e++)
        first[e + 1] = first[e] + (random_below(3) || !e ? 1 + (int32_t)random_below(most) : 0);
    const int32_t pairs = first[experts];
    const size_t list = sizeof(struct moe_cuda_item) * (size_t)pairs;
    struct moe_cuda_item *want = malloc(MOE_CUDA_TILE_LISTS * list), *got = malloc(list);
    struct moe_cuda_tiles a = { .pairs = pairs, .experts = experts };
    assert(want && got);
    list_tiles(first, experts, want, want_count);
    CUDA_CASE("tiles: %d experts, %d pairs", experts, pairs);
    a.first = cuda_in(first, sizeof *first * ((size_t)experts + 1));
    a.items = cuda_out(MOE_CUDA_TILE_LISTS * list);
    a.item_count = cuda_out(sizeof count);
    CUDA_LAUNCH(tiles, a);
    cuda_get(count, a.item_count, sizeof count);
    for (int l = 0; l < MOE_CUDA_TILE_LISTS; l++) {
        const size_t items = sizeof *got * (size_t)want_count[l];
        CUDA_CHECK(count[l] == want_count[l], "list %d has %d items instead of %d", l, count[l],
                   want_count[l]);
        CUDA_CHECK(count[l] <= moe_cuda_tiles_most(pairs, experts, l), "list %d is too long", l);
        cuda_get(got, a.items + (uint64_t)l * list, items);
        CUDA_CHECK(!memcmp(got, want + l * pairs, items), "list %d differs", l);
    }
    cuda_free_all();
    free(want), free(got);
}

/* ---- products ---- */

static void launch_product(const struct moe_cuda_nvfp4 *a, int list, int terms)
{
    static const enum moe_cuda_kernel two[] = { MOE_CUDA_nvfp4_terms_8, MOE_CUDA_nvfp4_terms_16,
                                                MOE_CUDA_nvfp4_terms_32 };
    static const enum moe_cuda_kernel kernel[] = { MOE_CUDA_nvfp4_fast_8, MOE_CUDA_nvfp4_fast_16,
                                                   MOE_CUDA_nvfp4_fast_32, MOE_CUDA_nvfp4_fast_64 };
    const int tokens = moe_cuda_tile_pairs(list);
    if (terms == 2) cuda_launch(two[list], moe_cuda_nvfp4_terms_grid(a, tokens), a, sizeof *a);
    else cuda_launch(kernel[list], moe_cuda_nvfp4_fast_grid(a, tokens), a, sizeof *a);
}

/* What the device has of a product. */
struct product { struct moe_cuda_nvfp4 a; int terms; };

/* in: rows of x side by side.  results: rows of y. */
static struct product make_product(const struct experts *x, const float *in, int64_t rows, int64_t results,
                                   bool swiglu, int terms)
{
    struct product p = { .a = { .stride = x->stride, .rows = x->rows, .cols = x->cols }, .terms = terms };
    struct moe_cuda_halves h = { .rows = rows, .n = x->cols, .ldx = x->cols };
    h.kind = terms == 2 ? MOE_CUDA_HALVES_CODES2 : MOE_CUDA_HALVES_CODES;
    const uint64_t base = cuda_in(x->bytes, (size_t)(EXPERTS * x->stride));
    h.x = cuda_in(in, sizeof *in * (size_t)(rows * x->cols));
    h.halves = p.a.digits = cuda_out((size_t)(rows * moe_cuda_halves_pitch(h.kind, h.n)));
    h.factors = p.a.factors = cuda_out(sizeof(float) * (size_t)rows);
    CUDA_LAUNCH(halves, h);
    p.a.ldy = x->rows + random_below(5);
    for (int64_t m = 0; m < x->matrices; m++) {
        p.a.codes[m] = base + (uint64_t)(matrix_at(x, 0, m) - x->bytes);
        p.a.scales[m] = p.a.codes[m] + (uint64_t)x->codes;
        p.a.global[m] = p.a.scales[m] + (uint64_t)x->scales;
        if (!m || !swiglu) p.a.y[m] = cuda_out(sizeof(float) * (size_t)((results - 1) * p.a.ldy + x->rows));
    }
    p.a.matrices = (int32_t)x->matrices, p.a.blocks = 1 + (uint32_t)random_below(6);
    p.a.flags = (x->reciprocal ? MOE_CUDA_NVFP4_RECIPROCAL : 0) | (swiglu ? MOE_CUDA_NVFP4_SWIGLU : 0);
    return p;
}

/* Compares row `at` of y with the reference. */
static void compare_row(const struct experts *x, const struct product *p, int64_t e, const float *in,
                        int64_t at)
{
    float *want[2], *got = malloc(sizeof *got * (size_t)x->rows);
    const bool swiglu = p->a.flags & MOE_CUDA_NVFP4_SWIGLU;
    for (int64_t m = 0; m < x->matrices; m++) {
        want[m] = malloc(sizeof **want * (size_t)x->rows);
        assert(want[m] && got);
        want_row(x, e, m, p->terms, in, want[m]);
    }
    if (swiglu) cuda_avx2.swiglu(want[0], want[1], x->rows, want[0]);
    for (int64_t m = 0; m < x->matrices; m++) {
        if (!m || !swiglu) {
            cuda_get(got, p->a.y[m] + (uint64_t)(at * p->a.ldy) * sizeof *got, sizeof *got * (size_t)x->rows);
            cuda_compare("y", want[m], got, x->rows);
        }
    }
    for (int64_t m = 0; m < x->matrices; m++) free(want[m]);
    free(got);
}

static float *make_rows(int64_t rows, int64_t n, enum pattern pattern)
{
    float *in = malloc(sizeof *in * (size_t)(rows * n));
    assert(in);
    for (int64_t t = 0; t < rows; t++) fill(in + t * n, n, t % 3 == 2 ? NORMAL : pattern);
    return in;
}

/* One matrix or two, and so many rows in order, by every kernel. */
static void check_plain(void)
{
    static const int16_t rows[] = { 1, 31, 64, 128, 144 };
    static const int16_t cols[] = { 16, 48, 64, 128, 272, 512, 528, 1040 };
    for (int i = 0; i < 42; i++) {
        const bool two = i % 3 == 1, swiglu = two && random_below(2);
        const int terms = i % 7 < 4 ? 1 : 2, list = i % 7 % 4, tokens = moe_cuda_tile_pairs(list);
        const enum pattern pattern = (enum pattern)random_below(PATTERNS);
        struct experts x = make_experts(two ? 2 : 1, rows[random_below(5)], cols[i % 8], i % 5 == 4);
        int64_t n = 1 + random_below(list < 2 ? 2 * tokens : tokens);
        float *in = make_rows(n, x.cols, pattern);
        struct product p = make_product(&x, in, n, n, swiglu, terms);
        CUDA_CASE("nvfp4_%s_%d: %d of [%d x %d], %d rows, %s%s%s", terms == 2 ? "terms" : "fast", tokens,
                  (int)x.matrices, (int)x.rows, (int)x.cols, (int)n, pattern_name[pattern],
                  swiglu ? ", swiglu" : "", x.reciprocal ? ", reciprocal" : "");
        p.a.tokens = n;
        launch_product(&p.a, list, terms);
        for (int64_t t = 0; t < n; t += n > 8 ? 5 : 1) compare_row(&x, &p, 0, in + t * x.cols, t);
        cuda_free_all();
        free(in);
        free(x.bytes);
    }
}

/* Experts with different numbers of pairs, by the lists of tiles. */
static void check_listed(void)
{
    for (int i = 0; i < 5; i++) {
        static struct work k;
        const int counts[EXPERTS] = { (int)random_below(24), i % 2 ? 64 + (int)random_below(20) : 0,
                                      1 + (int)random_below(50) };
        const bool two = i % 2, swiglu = i % 4 == 1;
        uint64_t items, count;
        struct experts x = make_experts(two ? 2 : 1, 16 * (1 + random_below(9)), 16 * (1 + random_below(40)),
                                        false);
        make_work(&k, counts);
        float *in = make_rows(k.rows_of_x, x.cols, (enum pattern)random_below(PATTERNS));
        CUDA_CASE("nvfp4_fast of lists: %" PRId64 " of [%" PRId64 " x %" PRId64 "], %d, %d and %d pairs",
                  x.matrices, x.rows, x.cols, counts[0], counts[1], counts[2]);
        struct product p = make_product(&x, in, k.rows_of_x, k.pairs, swiglu, 1);
        launch_tiles(&k, &items, &count);
        p.a.in = cuda_in(k.in, sizeof *k.in * (size_t)k.pairs);
        p.a.out = cuda_in(k.out, sizeof *k.out * (size_t)k.pairs);
        for (int list = 0; list < MOE_CUDA_TILE_LISTS; list++) {
            p.a.items = items + (uint64_t)list * (uint64_t)k.pairs * sizeof *k.item[0];
            p.a.item_count = count + (uint64_t)list * sizeof k.count[0];
            p.a.most = moe_cuda_tiles_most(k.pairs, EXPERTS, list);
            if (p.a.most) launch_product(&p.a, list, 1);
        }
        for (int e = 0; e < EXPERTS; e++)
            for (int j = k.first[e]; j < k.first[e + 1]; j += 1 + (int)random_below(9))
                compare_row(&x, &p, e, in + k.in[j] * x.cols, k.out[j]);
        cuda_free_all();
        free(in);
        free(x.bytes);
    }
}

static void check(void)
{
    static const int experts[] = { 1, 32, 33, 255, 256, 257, 384 };
    for (int i = 0; i < 14; i++) check_tiles(experts[i / 2], i % 2 ? 200 : 20);
    check_plain();
    check_listed();
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
