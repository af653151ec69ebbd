/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the products of kernels/cuda/dense.h against matmul of AVX2, bit for bit: every stored type, one
 * token to more than a block's, heads as items, experts of any stored type, and results beside which nothing
 * else is written. */
#include "tests/kernels/cuda-weight.h"

#include "kernels/cuda/dense.h"

enum { EXPERTS = 4, PAIRS = 24 };

/* One launch: its arguments, and what the host has of its arrays. */
struct product {
    struct moe_cuda_dense a;
    struct moe_weight w[EXPERTS];  /* one, or that of each expert */
    int weights;
    float *x, *y, every;           /* every: what all of x is, unless 0 */
    int64_t x_floats, y_floats;
    struct moe_cuda_item list[8];
    int32_t count, in[PAIRS], out[PAIRS];
};

/* y as the launch has to leave it: of heads, or of a list. */
static void want_of_heads(const struct product *p)
{
    const struct moe_cuda_dense *a = &p->a;
    for (int64_t i = 0; i < a->items; i++) {
        int64_t r = a->row0 + i * a->row_step;
        cuda_avx2.matmul(&p->w[0], r, r + a->rows, p->x + i * a->x_step, a->ldx, a->n, p->y + i * a->y_step,
                         a->ldy);
    }
}
static void want_of_list(const struct product *p)
{
    const struct moe_cuda_dense *a = &p->a;
    for (int i = 0; i < p->count; i++)
        for (int32_t j = p->list[i].first; j < p->list[i].first + p->list[i].count; j++)
            cuda_avx2.matmul(&p->w[p->list[i].expert], a->row0, a->row0 + a->rows,
                             p->x + (a->in ? p->in[j] : j) * a->ldx, a->ldx, 1,
                             p->y + (a->out ? p->out[j] : j) * a->ldy, a->ldy);
}

/* Fills x and y, launches and compares.  p->a has its shapes and its weight. */
static void run(struct product *p, enum pattern pattern)
{
    struct moe_cuda_dense *a = &p->a;
    const size_t x = sizeof(float) * (size_t)p->x_floats, y = sizeof(float) * (size_t)p->y_floats;
    float *got = malloc(y);
    p->x = malloc(x), p->y = malloc(y);
    assert(p->x && p->y && got);
    fill(p->x, p->x_floats, pattern);
    const float size = random_below(3) ? 1 : ldexpf(1, (int)random_below(240) - 120);
    for (int64_t i = 0; i < p->x_floats; i++) p->x[i] = p->every != 0 ? p->every : p->x[i] * size;
    for (int64_t i = 0; i < p->y_floats; i++) p->y[i] = 77;
    a->x = cuda_in(p->x, x), a->y = cuda_inout(p->y, y);
    cuda_launch(moe_cuda_dense_kernel(a), moe_cuda_dense_grid(a), a, sizeof *a);
    if (a->list) want_of_list(p);
    else want_of_heads(p);
    cuda_get(got, a->y, y);
    cuda_compare("y", p->y, got, p->y_floats);
    cuda_free_all();
    for (int i = 0; i < p->weights; i++) random_weight_free(&p->w[i]);
    free(p->x), free(p->y), free(got);
}

/* Some rows of a weight times n tokens. */
static void check_plain(int type, int64_t n, int64_t rows, int64_t cols, enum pattern pattern, bool any)
{
    struct product p = { .weights = 1 };
    const int64_t r0 = random_below(4) ? 0 : random_below(rows);
    p.w[0] = random_weight(type, rows, cols, any);
    p.a = (struct moe_cuda_dense){ .w = cuda_weight(&p.w[0]), .n = n, .ldx = cols + random_below(4),
                                   .ldy = rows - r0 + random_below(3), .row0 = r0, .rows = rows - r0,
                                   .items = 1 };
    p.x_floats = (n - 1) * p.a.ldx + cols, p.y_floats = (n - 1) * p.a.ldy + rows - r0;
    CUDA_CASE("dense: %s%s [%d x %d] from row %d, %d tokens, %s", moe_dtype_name(type),
              p.w[0].layout ? " in tiles" : "", (int)rows, (int)cols, (int)r0, (int)n, pattern_name[pattern]);
    run(&p, pattern);
}

/* FP8 whose rows end within 16 columns, beside sums of -0 (from products that are too small) and of Inf: what
 * is missing counts as +0, whatever the scale is. */
static void check_tail(int64_t n, float scale)
{
    struct product p = { .weights = 1, .every = 0x1p-10f };
    const int64_t rows = 5, cols = 16 + 1 + random_below(15);
    p.w[0] = random_weight(MOE_FP8_B128, rows, cols, false);
    memset((void *)(uintptr_t)p.w[0].data, 1, (size_t)(rows * cols));
    memcpy((void *)(uintptr_t)p.w[0].scale, &scale, sizeof scale);
    p.a = (struct moe_cuda_dense){ .w = cuda_weight(&p.w[0]), .n = n, .ldx = cols, .ldy = rows, .rows = rows,
                                   .items = 1 };
    p.x_floats = n * cols, p.y_floats = n * rows;
    CUDA_CASE("dense: FP8 [%d x %d] with a scale of %g, %d tokens", (int)rows, (int)cols, (double)scale,
              (int)n);
    run(&p, NORMAL);
}

/* Heads: items whose rows are parts of the same weight, from outputs of attention [n, heads, cols]. */
static void check_heads(int type)
{
    struct product p = { .weights = 1 };
    const int64_t heads = 1 + random_below(4), each = 1 + random_below(40), from = random_below(each);
    const int64_t cols = odd_size(140, weight_unit(type));
    const int64_t n = 1 + random_below(10) + (random_below(4) ? 0 : MOE_CUDA_DENSE_MANY);
    p.w[0] = random_weight(type, heads * each, cols, false);
    p.a = (struct moe_cuda_dense){ .w = cuda_weight(&p.w[0]), .n = n, .ldx = heads * cols,
                                   .ldy = heads * (each - from), .row0 = from, .rows = each - from,
                                   .row_step = each, .items = heads, .x_step = cols, .y_step = each - from };
    p.x_floats = n * p.a.ldx, p.y_floats = n * p.a.ldy;
    CUDA_CASE("dense: %s, %d heads of %d rows of %d, %d tokens", moe_dtype_name(type), (int)heads,
              (int)p.a.rows, (int)cols, (int)n);
    run(&p, (enum pattern)random_below(PATTERNS));
}

/* The planes of all experts in one block of memory, each expert's data and then its scales. */
static struct moe_cuda_weight upload_experts(struct product *p, int64_t rows, int64_t cols, int64_t *stride)
{
    const int type = p->w[0].type;
    const int64_t bytes = moe_plane_bytes(type, MOE_LAYOUT_LINEAR, MOE_PLANE_DATA, rows, cols),
                  scales = moe_plane_bytes(type, MOE_LAYOUT_LINEAR, MOE_PLANE_SCALE, rows, cols),
                  second = (bytes + 255) / 256 * 256;
    *stride = second + (scales + 255) / 256 * 256;
    uint8_t *all = calloc(EXPERTS, (size_t)*stride);
    assert(all);
    for (int e = 0; e < EXPERTS; e++) {
        memcpy(all + e * *stride, p->w[e].data, (size_t)bytes);
        memcpy(all + e * *stride + second, p->w[e].scale, (size_t)scales);
    }
    const uint64_t at = cuda_in(all, EXPERTS * (size_t)*stride);
    free(all);
    return moe_cuda_weight_of(&p->w[0], at, scales ? at + (uint64_t)second : 0);
}

/* A list of experts, each with up to `most` pairs, whose rows of x and y are in any order. */
static void check_list(int type, int most)
{
    struct product p = { .weights = EXPERTS };
    const int64_t rows = 1 + random_below(40), cols = odd_size(320, weight_unit(type));
    int32_t pairs = 0;
    for (int e = 0; e < EXPERTS; e++) p.w[e] = random_weight(type, rows, cols, false);
    p.count = (int32_t)random_below(4);
    for (int i = 0; i < p.count; i++) {
        const int32_t n = 1 + (int32_t)random_below(most);
        p.list[i] = (struct moe_cuda_item){ (int32_t)random_below(EXPERTS), pairs, n, 0 };
        pairs += n;
    }
    for (int32_t i = 0; i < PAIRS; i++) p.in[i] = (int32_t)random_below(PAIRS), p.out[i] = PAIRS - 1 - i;
    p.a = (struct moe_cuda_dense){ .n = most, .ldx = cols, .ldy = rows, .rows = rows, .items = 5,
                                   .list = cuda_in(p.list, sizeof p.list),
                                   .count = cuda_in(&p.count, sizeof p.count),
                                   .in = random_below(2) ? cuda_in(p.in, sizeof p.in) : 0,
                                   .out = random_below(2) ? cuda_in(p.out, sizeof p.out) : 0 };
    p.a.w = upload_experts(&p, rows, cols, &p.a.stride);
    p.x_floats = PAIRS * cols, p.y_floats = PAIRS * rows;
    CUDA_CASE("dense: %d experts of %s [%d x %d], %d pairs", p.count, moe_dtype_name(type), (int)rows,
              (int)cols, pairs);
    run(&p, (enum pattern)random_below(PATTERNS));
}

/* Which kernel serves how many tokens, and that its blocks cover them and fit a multiprocessor. */
static void check_division(void)
{
    static const struct { int64_t n; enum moe_cuda_kernel kernel; } of[] = {
        { 1, MOE_CUDA_dense_1 }, { 2, MOE_CUDA_dense_2 },  { 3, MOE_CUDA_dense_4 },   { 4, MOE_CUDA_dense_4 },
        { 5, MOE_CUDA_dense_8 }, { 63, MOE_CUDA_dense_8 }, { 64, MOE_CUDA_dense_16 },
        { 999, MOE_CUDA_dense_16 } };
    for (size_t i = 0; i < sizeof of / sizeof *of; i++)
        for (uint32_t codes = MOE_CUDA_F32; codes <= MOE_CUDA_NVFP4; codes++) {
            struct moe_cuda_dense a = { .w = { .codes = codes }, .n = of[i].n, .rows = 577, .items = 1 };
            const enum moe_cuda_kernel k = moe_cuda_dense_kernel(&a);
            const struct moe_cuda_grid g = moe_cuda_dense_grid(&a);
            CUDA_CASE("dense: %d tokens, codes %u", (int)of[i].n, codes);
            CUDA_CHECK(k == (codes == MOE_CUDA_NVFP4 ? MOE_CUDA_dense_nvfp4 : of[i].kernel), "kernel %d",
                       (int)k);
            CUDA_CHECK(g.x * moe_cuda_dense_tokens(k) >= of[i].n && g.y * moe_cuda_dense_rows(k) >= 577,
                       "a grid of %u x %u", g.x, g.y);
            CUDA_CHECK(g.shared <= 227 << 10, "%u bytes of shared memory", g.shared);
        }
}

static void check(void)
{
    check_division();
    /* First of all launches: dense_8 has 48 KiB of dynamic shared memory for F32 and static memory besides,
     * and no other type has asked for more before. */
    check_plain(MOE_F32, 8, 33, 200, NORMAL, false);
    for (int64_t n = 1; n <= 17; n++) {
        check_tail(n, -0x1p-140f);
        check_tail(n, n % 2 ? INFINITY : -INFINITY);
    }
    static const int64_t tokens[] = { 1, 2, 3, 4, 5, 8, 9, 17 };
    for (int i = 0; i < 8 * MOE_DTYPE_COUNT; i++) {
        const int type = i % MOE_DTYPE_COUNT;
        const int64_t rows = 1 + random_below(i % 3 ? 40 : 150),
                      cols = odd_size(i % 4 ? 300 : 900, weight_unit(type));
        check_plain(type, tokens[random_below(8)], rows, cols, (enum pattern)random_below(PATTERNS),
                    i % 5 == 4);
    }
    for (int type = 0; type < MOE_DTYPE_COUNT; type++) {
        check_plain(type, MOE_CUDA_DENSE_MANY + random_below(30), 1 + random_below(80),
                    odd_size(300, weight_unit(type)), (enum pattern)random_below(PATTERNS), false);
        check_heads(type);
        for (int most = 1; type != MOE_NVFP4 && most <= 8; most *= 2) check_list(type, most);
    }
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
