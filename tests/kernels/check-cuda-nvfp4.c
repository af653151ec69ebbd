/* SPDX-License-Identifier: Apache-2.0 */
/* Checks moe_cuda_digits and the products moe_cuda_nvfp4_* against matmul and matmul_int16 of AVX2, bit for
 * bit: sizes around those of a block, a tile and a step; every number of rows of x; one and two matrices,
 * joined by SwiGLU and not; experts in their extents with items and rows in any order; values that are not
 * finite, scales of every code. */
#include "tests/kernels/cuda-harness.h"

#include "formats/dtype.h"
#include "kernels/cuda/nvfp4.h"

enum { EXPERTS = 3 };

/* Experts as a shard file has them: extents with the codes of all matrices, their scales and globals. */
struct experts {
    int64_t count, matrices, rows, cols, stride;
    int64_t codes[2], scales[2], global[2]; /* where they are in an extent */
    uint8_t *bytes;
    bool reciprocal;
};

static int64_t round_up(int64_t v, int64_t to) { return (v + to - 1) / to * to; }

static struct moe_weight weight_of(const struct experts *x, int64_t e, int m)
{
    const uint8_t *at = x->bytes + e * x->stride;
    struct moe_weight w = { .type = MOE_NVFP4, .layout = MOE_LAYOUT_TILE_128X4, .reciprocal = x->reciprocal,
                            .rows = x->rows, .cols = x->cols };
    w.data = at + x->codes[m], w.scale = at + x->scales[m];
    w.global = moe_load_f32(at + x->global[m]);
    return w;
}

/* Random codes, and scales of every finite code or, where `any` says so, of every code; padding is 0. */
static void fill_experts(struct experts *x, bool any)
{
    for (int64_t e = 0; e < x->count; e++)
        for (int m = 0; m < x->matrices; m++) {
            uint8_t *at = x->bytes + e * x->stride;
            float some = 1 + random_uniform() / 2, global = x->reciprocal ? 3000 * some : some / 3000;
            int most = random_below(3) ? 126 : 1 + (int)random_below(126);
            for (int64_t i = 0; i < x->rows * x->cols / 2; i++)
                at[x->codes[m] + i] = (uint8_t)random_bits();
            for (int64_t r = 0; r < x->rows; r++)
                for (int64_t b = 0; b < x->cols / 16; b++) {
                    size_t to = moe_tile_offset((size_t)r, (size_t)b, (size_t)(x->cols / 16));
                    at[x->scales[m] + (int64_t)to] = (uint8_t)random_below(any ? 256 : most + 1);
                }
            memcpy(at + x->global[m], &global, sizeof global);
        }
}

static struct experts make_experts(int64_t count, int64_t matrices, int64_t rows, int64_t cols, bool any)
{
    struct experts x = { .count = count, .matrices = matrices, .rows = rows, .cols = cols };
    /* Codes come first, as in shards, or last, so that nobody reads past them and does not find out. */
    bool last = random_below(2);
    int64_t at = 0;
    for (int i = 0; i < 2; i++)
        for (int m = 0; m < matrices; m++) {
            bool codes = i == last;
            (codes ? x.codes : x.scales)[m] = at = round_up(at, 16);
            at += moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, codes ? MOE_PLANE_DATA : MOE_PLANE_SCALE,
                                  rows, cols);
            if (!codes) x.global[m] = at, at += 4;
        }
    x.stride = round_up(at, 16);
    x.reciprocal = random_below(2);
    x.bytes = calloc((size_t)count, (size_t)x.stride);
    assert(x.bytes);
    fill_experts(&x, any);
    return x;
}

/* What is multiplied: `pairs` rows of results, sorted by expert into items of at most `tokens`. */
struct plan {
    int tokens; /* 2, 4 or 8 */
    int64_t rows_of_x;
    int32_t pairs, items, in[64], out[64];
    struct moe_cuda_item item[16];
    bool maps_in, maps_out;
};

static struct plan make_plan(int tokens, int64_t experts)
{
    struct plan p = { .tokens = tokens, .items = 1 + (int32_t)random_below(4) };
    for (int i = 0; i < p.items; i++) {
        p.item[i] = (struct moe_cuda_item){ .expert = (int32_t)random_below(experts), .first = p.pairs,
                                            .count = 1 + (int32_t)random_below(tokens) };
        p.pairs += p.item[i].count;
    }
    p.maps_in = random_below(2), p.maps_out = random_below(2);
    p.rows_of_x = p.maps_in ? 1 + random_below(p.pairs + 3) : p.pairs;
    for (int i = 0; i < p.pairs; i++) {
        p.in[i] = p.maps_in ? (int32_t)random_below(p.rows_of_x) : i;
        p.out[i] = p.maps_out ? p.pairs - 1 - i : i; /* results come out in another order */
    }
    return p;
}

/* One expert, with all rows in order. */
static struct plan make_simple(int tokens, int rows)
{
    struct plan p = { .tokens = tokens, .rows_of_x = rows, .pairs = rows, .items = 1 };
    p.item[0] = (struct moe_cuda_item){ .count = rows };
    for (int i = 0; i < rows; i++) p.in[i] = p.out[i] = i;
    return p;
}

/* x as digits on the device: into *digits and *factors. */
static void make_digits(const float *x, int64_t rows, int64_t n, int64_t ldx, int bits, uint64_t *digits,
                        uint64_t *factors)
{
    struct moe_cuda_digits d = { .rows = rows, .n = n, .ldx = ldx, .bits = bits };
    d.x = cuda_in(x, sizeof *x * (size_t)((rows - 1) * ldx + n));
    d.digits = *digits = cuda_out((size_t)moe_cuda_digit_bytes(rows, n));
    d.factors = *factors = cuda_out((size_t)moe_cuda_factor_bytes(rows, n));
    CUDA_LAUNCH(digits, d);
}

static void launch_product(const struct moe_cuda_nvfp4 *a, int tokens)
{
    static const enum moe_cuda_kernel kernel[] = { [2] = MOE_CUDA_nvfp4_2, [4] = MOE_CUDA_nvfp4_4,
                                                   [8] = MOE_CUDA_nvfp4_8 };
    cuda_launch(kernel[tokens], moe_cuda_nvfp4_grid(a, tokens), a, sizeof *a);
}

/* The results that the kernel has to give, matrix after matrix: [pairs][ldy] each. */
static void want_of(const struct experts *x, const struct plan *p, const float *in, int64_t ldx, bool swiglu,
                    int bits, int64_t ldy, float *want)
{
    for (int i = 0; i < p->items; i++)
        for (int j = p->item[i].first; j < p->item[i].first + p->item[i].count; j++) {
            float *y[2];
            for (int m = 0; m < x->matrices; m++) {
                struct moe_weight w = weight_of(x, p->item[i].expert, m);
                y[m] = want + (m * p->pairs + p->out[j]) * ldy;
                (bits == 16 ? cuda_avx2.matmul_int16
                            : cuda_avx2.matmul)(&w, 0, w.rows, in + p->in[j] * ldx, ldx, 1, y[m], ldy);
            }
            if (swiglu) cuda_avx2.swiglu(y[0], y[1], x->rows, y[0]);
        }
}

static void compare_rows(const float *want, uint64_t at, const struct plan *p, int64_t n, int64_t ldy)
{
    size_t count = (size_t)((p->pairs - 1) * ldy + n);
    float *got = malloc(sizeof *got * count), pattern;
    assert(got);
    memset(&pattern, CUDA_PATTERN, sizeof pattern);
    cuda_get(got, at, sizeof *got * count);
    for (int64_t j = 0; j < p->pairs; j++) {
        CUDA_CHECK(same_bits(want + j * ldy, got + j * ldy, n), "row %" PRId64 " of the results differs", j);
        for (int64_t i = n; i < ldy && j < p->pairs - 1; i++)
            CUDA_CHECK(same_bits(&pattern, got + j * ldy + i, 1), "written between rows of results");
    }
    free(got);
}

/* Multiplies by `p`, and compares. */
static void check_product(struct experts *x, const struct plan *p, bool listed, bool swiglu, int bits,
                          enum pattern pattern)
{
    const int64_t ldx = round_up(x->cols, 4) + 4 * random_below(3), ldy = x->rows + random_below(5);
    float *in = malloc(sizeof *in * (size_t)(p->rows_of_x * ldx)),
          *want = calloc((size_t)(x->matrices * p->pairs * ldy), sizeof *want);
    assert(in && want);
    fill(in, p->rows_of_x * ldx, pattern);
    if (random_below(6) == 0) /* values whose block overflows, or is as small as can be */
        for (int64_t i = 0; i < ldx; i++) in[i] = ldexpf(in[i], i % 3 ? 120 : -120);
    CUDA_CASE("nvfp4_%d: %" PRId64 " of [%" PRId64 " x %" PRId64 "], %d rows in %d items%s%s%s%s, %d bits, "
              "%s%s", p->tokens, x->matrices, x->rows, x->cols, p->pairs, p->items, listed ? ", listed" : "",
              p->maps_in ? ", in mapped" : "", p->maps_out ? ", out mapped" : "", swiglu ? ", swiglu" : "",
              bits, pattern_name[pattern], x->reciprocal ? ", reciprocal" : "");

    struct moe_cuda_nvfp4 a = { .stride = x->stride, .rows = x->rows, .cols = x->cols, .ldy = ldy };
    uint64_t base = cuda_in(x->bytes, (size_t)(x->count * x->stride));
    make_digits(in, p->rows_of_x, x->cols, ldx, bits, &a.digits, &a.factors);
    for (int m = 0; m < x->matrices; m++) {
        a.codes[m] = base + (uint64_t)x->codes[m], a.scales[m] = base + (uint64_t)x->scales[m];
        a.global[m] = base + (uint64_t)x->global[m];
        if (!m || !swiglu) a.y[m] = cuda_out(sizeof(float) * (size_t)((p->pairs - 1) * ldy + x->rows));
    }
    if (listed) {
        a.items = cuda_in(p->item, sizeof *p->item * (size_t)p->items);
        a.item_count = cuda_in(&p->items, sizeof p->items);
        a.in = p->maps_in ? cuda_in(p->in, sizeof *p->in * (size_t)p->pairs) : 0;
        a.out = p->maps_out ? cuda_in(p->out, sizeof *p->out * (size_t)p->pairs) : 0;
        a.most = p->items + random_below(2);
    }
    a.tokens = p->pairs, a.matrices = (int32_t)x->matrices, a.blocks = 1 + (uint32_t)random_below(6);
    a.flags = (x->reciprocal ? MOE_CUDA_NVFP4_RECIPROCAL : 0) | (swiglu ? MOE_CUDA_NVFP4_SWIGLU : 0);
    launch_product(&a, p->tokens);

    want_of(x, p, in, ldx, swiglu, bits, ldy, want);
    for (int m = 0; m < (swiglu ? 1 : x->matrices); m++)
        compare_rows(want + m * p->pairs * ldy, a.y[m], p, x->rows, ldy);
    cuda_free_all();
    free(in);
    free(want);
}

static void check_sizes(void)
{
    static const int16_t rows[] = { 1, 16, 31, 64, 65, 127, 144, 200 };
    static const int16_t cols[] = { 16, 48, 64, 256, 272, 512, 528, 1024, 1600, 2064 };
    for (size_t i = 0; i < 40; i++) {
        const int tokens = 2 << random_below(3);
        const bool two = random_below(2);
        struct experts x = make_experts(1, two ? 2 : 1, rows[random_below(8)], cols[i % 10], i % 5 == 4);
        struct plan p = make_simple(tokens, 1 + (int)random_below(2 * tokens));
        check_product(&x, &p, false, two && random_below(2), i % 7 == 3 ? 16 : 24,
                      (enum pattern)random_below(PATTERNS));
        free(x.bytes);
    }
}

static void check_items(void)
{
    for (int i = 0; i < 24; i++) {
        const int tokens = 2 << i % 3;
        const bool two = i / 3 % 2;
        struct experts x = make_experts(EXPERTS, two ? 2 : 1, 16 * (1 + random_below(12)),
                                        16 * (1 + random_below(70)), false);
        struct plan p = make_plan(tokens, EXPERTS);
        check_product(&x, &p, true, two && i / 6 % 2, 24, (enum pattern)random_below(PATTERNS));
        free(x.bytes);
    }
}

static void check(void)
{
    check_sizes();
    check_items();
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
