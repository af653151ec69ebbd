/* SPDX-License-Identifier: Apache-2.0 */
/* Checks what a layer's experts are computed with, from the choices of the router to the residual stream:
 * group, digits, nvfp4, swiglu and combine together, against the kernels of AVX2, bit for bit. Experts have
 * from no row to more than one item takes. */
#include "tests/kernels/cuda-harness.h"

#include "formats/dtype.h"
#include "kernels/cuda/combine.h"
#include "kernels/cuda/nvfp4.h"

struct layer { int64_t experts, hidden, inter, stride, codes[3], scales[3], global[3]; uint8_t *bytes; };

static int64_t rows_of(const struct layer *y, int m) { return m == 2 ? y->hidden : y->inter; }
static int64_t cols_of(const struct layer *y, int m) { return m == 2 ? y->inter : y->hidden; }

/* Gate, up and down of each expert, as format.md lays them out in an extent. */
static struct layer make_layer(int64_t experts, int64_t hidden, int64_t inter)
{
    struct layer y = { .experts = experts, .hidden = hidden, .inter = inter };
    int64_t at = 0;
    for (int plane = MOE_PLANE_DATA; plane <= MOE_PLANE_SCALE; plane++)
        for (int m = 0; m < 3; m++) {
            (plane == MOE_PLANE_DATA ? y.codes : y.scales)[m] = at = (at + 255) / 256 * 256;
            at += moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, plane, rows_of(&y, m), cols_of(&y, m));
        }
    for (int m = 0; m < 3; m++, at += 4) y.global[m] = at;
    y.stride = (at + 255) / 256 * 256;
    y.bytes = calloc((size_t)experts, (size_t)y.stride);
    assert(y.bytes);
    for (int64_t e = 0; e < experts; e++)
        for (int m = 0; m < 3; m++) {
            uint8_t *to = y.bytes + e * y.stride;
            float global = (1 + random_uniform() / 2) / 2000;
            memcpy(to + y.global[m], &global, sizeof global);
            for (int64_t i = 0; i < rows_of(&y, m) * cols_of(&y, m) / 2; i++)
                to[y.codes[m] + i] = (uint8_t)random_bits();
            for (int64_t r = 0; r < rows_of(&y, m); r++)
                for (int64_t b = 0; b < cols_of(&y, m) / 16; b++)
                    to[y.scales[m] +
                       (int64_t)moe_tile_offset((size_t)r, (size_t)b, (size_t)cols_of(&y, m) / 16)] =
                        (uint8_t)(40 + random_below(40));
        }
    return y;
}

static struct moe_weight weight_of(const struct layer *y, int64_t e, int m)
{
    const uint8_t *at = y->bytes + e * y->stride;
    return (struct moe_weight){ .type = MOE_NVFP4, .layout = MOE_LAYOUT_TILE_128X4, .rows = rows_of(y, m),
                                .cols = cols_of(y, m), .data = at + y->codes[m], .scale = at + y->scales[m],
                                .global = moe_load_f32(at + y->global[m]) };
}

static void product(const struct layer *y, int64_t e, int m, const float *x, float *out)
{
    struct moe_weight w = weight_of(y, e, m);
    cuda_avx2.matmul(&w, 0, w.rows, x, w.cols, 1, out, w.rows);
}

/* h += the weighted sum of the chosen experts' outputs. */
static void want_of(const struct layer *y, const float *x, const int32_t *ids, const float *weights,
                    int tokens, int k, float *h)
{
    float *gate = malloc(sizeof *gate * (size_t)y->inter), *up = malloc(sizeof *up * (size_t)y->inter),
          *out = malloc(sizeof *out * (size_t)y->hidden), *sum = malloc(sizeof *sum * (size_t)y->hidden);
    assert(gate && up && out && sum);
    for (int t = 0; t < tokens; t++) {
        memset(sum, 0, sizeof *sum * (size_t)y->hidden);
        for (int j = t * k; j < (t + 1) * k; j++) {
            product(y, ids[j], 0, x + t * y->hidden, gate);
            product(y, ids[j], 1, x + t * y->hidden, up);
            cuda_avx2.swiglu(gate, up, y->inter, gate);
            product(y, ids[j], 2, gate, out);
            for (int64_t i = 0; i < y->hidden; i++) {
                volatile float p = weights[j] * out[i];
                sum[i] += p;
            }
        }
        for (int64_t i = 0; i < y->hidden; i++) h[t * y->hidden + i] += sum[i];
    }
    free(gate), free(up), free(out), free(sum);
}

/* Launches the products of all lists of items. */
static void launch_lists(struct moe_cuda_nvfp4 a, const struct moe_cuda_group *g)
{
    static const enum moe_cuda_kernel kernel[] = { MOE_CUDA_nvfp4_2, MOE_CUDA_nvfp4_4, MOE_CUDA_nvfp4_8 };
    for (int b = 0; b < MOE_CUDA_BUCKETS; b++) {
        a.items = g->items + sizeof(struct moe_cuda_item) * (size_t)(b * g->pairs);
        a.item_count = g->item_count + sizeof(int32_t) * (size_t)b;
        a.most = moe_cuda_group_most(g->pairs, g->experts, b);
        if (a.most) cuda_launch(kernel[b], moe_cuda_nvfp4_grid(&a, 2 << b), &a, sizeof a);
    }
}

/* Digits of rows on the device, into *a. */
static void launch_digits(uint64_t x, int64_t rows, int64_t n, struct moe_cuda_nvfp4 *a)
{
    struct moe_cuda_digits d = { .x = x, .rows = rows, .n = n, .ldx = n, .bits = 24 };
    a->digits = d.digits = cuda_out((size_t)moe_cuda_digit_bytes(rows, n));
    a->factors = d.factors = cuda_out((size_t)moe_cuda_factor_bytes(rows, n));
    CUDA_LAUNCH(digits, d);
}

static struct moe_cuda_group launch_group(const int32_t *ids, int tokens, int k, int64_t experts)
{
    struct moe_cuda_group g = { .pairs = tokens * k, .k = k, .experts = (int32_t)experts, .bit = 1 };
    const size_t some = sizeof(int32_t) * (size_t)g.pairs;
    uint32_t word = 0;
    g.ids = cuda_in(ids, some), g.word = cuda_inout(&word, sizeof word);
    g.first = cuda_out(sizeof(int32_t) * (size_t)(experts + 1));
    g.pair = cuda_out(some), g.token = cuda_out(some);
    g.items = cuda_out(sizeof(struct moe_cuda_item) * MOE_CUDA_BUCKETS * (size_t)g.pairs);
    g.item_count = cuda_out(sizeof(int32_t) * MOE_CUDA_BUCKETS);
    CUDA_LAUNCH(group, g);
    return g;
}

/* An address of zeros. */
static uint64_t zeros(int64_t n)
{
    void *p = calloc((size_t)n, 1);
    assert(p);
    uint64_t at = cuda_inout(p, (size_t)n);
    free(p);
    return at;
}

/* The inputs of down: made by the kernel that multiplies gate and up, or from its results. */
static void launch_up(struct moe_cuda_nvfp4 up, const struct moe_cuda_group *g, bool fused,
                      struct moe_cuda_nvfp4 *down)
{
    if (fused) {
        up.digits_out = down->digits = zeros(moe_cuda_digit_bytes(g->pairs, up.rows));
        up.factors_out = down->factors = zeros(moe_cuda_factor_bytes(g->pairs, up.rows));
    }
    if (!fused || random_below(2)) up.y[0] = cuda_out(sizeof(float) * (size_t)(g->pairs * up.rows));
    launch_lists(up, g);
    if (!fused) launch_digits(up.y[0], g->pairs, up.rows, down);
}

/* Computes h += experts of x on the device: h's address. */
static uint64_t compute(const struct layer *y, const float *x, const int32_t *ids, const float *weights,
                        int tokens, int k, const float *h, bool fused)
{
    const size_t values = sizeof(float) * (size_t)(tokens * y->hidden);
    const uint64_t base = cuda_in(y->bytes, (size_t)(y->experts * y->stride));
    struct moe_cuda_group g = launch_group(ids, tokens, k, y->experts);
    struct moe_cuda_nvfp4 up = { .stride = y->stride, .rows = y->inter, .cols = y->hidden, .ldy = y->inter,
                                 .matrices = 2, .flags = MOE_CUDA_NVFP4_SWIGLU, .blocks = 5 },
                          down = { .stride = y->stride, .rows = y->hidden, .cols = y->inter, .ldy = y->hidden,
                                   .matrices = 1, .blocks = 5 };
    for (int m = 0; m < 3; m++) {
        struct moe_cuda_nvfp4 *a = m == 2 ? &down : &up;
        a->codes[m % 2] = base + (uint64_t)y->codes[m], a->scales[m % 2] = base + (uint64_t)y->scales[m];
        a->global[m % 2] = base + (uint64_t)y->global[m];
    }
    launch_digits(cuda_in(x, values), tokens, y->hidden, &up);
    up.in = g.token;
    launch_up(up, &g, fused, &down);
    down.out = g.pair, down.y[0] = cuda_out(values * (size_t)k);
    launch_lists(down, &g);

    struct moe_cuda_combine c = { .rows = down.y[0], .tokens = tokens, .n = y->hidden, .k = k };
    c.weights = cuda_in(weights, sizeof *weights * (size_t)g.pairs), c.h = cuda_inout(h, values);
    CUDA_LAUNCH(combine, c);
    return c.h;
}

static void check_layer(int64_t experts, int64_t hidden, int64_t inter, int tokens, int k, int crowd,
                        bool fused)
{
    struct layer y = make_layer(experts, hidden, inter);
    const size_t values = (size_t)(tokens * hidden);
    float *x = malloc(sizeof *x * values), *h = malloc(sizeof *h * values),
          *got = malloc(sizeof *got * values), *weights = malloc(sizeof *weights * (size_t)(tokens * k));
    int32_t *ids = malloc(sizeof *ids * (size_t)(tokens * k));
    assert(x && h && got && weights && ids);
    fill(x, (int64_t)values, NORMAL), fill(h, (int64_t)values, NORMAL), fill(weights, tokens * k, UNIFORM);
    for (int t = 0; t < tokens; t++) /* k neighbours, of which none is chosen twice */
        for (int j = 0, e = (int)random_below(crowd); j < k; j++)
            ids[t * k + j] = (int32_t)((e + j) % experts);
    if (tokens > 2) x[random_below((int64_t)values)] = NAN;
    CUDA_CASE("experts: %" PRId64 " of [%" PRId64 " x %" PRId64 "], %d tokens, %d each%s", experts, inter,
              hidden, tokens, k, fused ? ", fused" : "");
    uint64_t at = compute(&y, x, ids, weights, tokens, k, h, fused);
    want_of(&y, x, ids, weights, tokens, k, h);
    cuda_get(got, at, sizeof *got * values);
    cuda_compare("h", h, got, (int64_t)values);
    cuda_free_all();
    free(y.bytes), free(x), free(h), free(got), free(weights), free(ids);
}

static void check(void)
{
    check_layer(8, 256, 128, 1, 2, 8, false);
    check_layer(8, 272, 144, 3, 3, 4, true);
    check_layer(6, 512, 80, 13, 2, 2, false); /* some experts have more rows than an item */
    check_layer(12, 128, 592, 6, 4, 12, true);
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
