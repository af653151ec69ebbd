/* SPDX-License-Identifier: Apache-2.0 */
/* Checks that kernels of GPUs reach what lies more than 2^32 bytes or values from where an array begins:
 * expert 383 at the stride of Kimi K2, the last rows of its head, rows of x, y and of logits, pages of the
 * latent cache.  The same work is done twice, far and near, and both results have the same bits; that they
 * are right is what the check of each family says.
 *
 * All arrays are in one range of addresses (model/ops/cuda/space.h) that has memory only where something is
 * put, so that this takes little of it on a GPU and in the stand-in, and a wrong address is a fault. */
#include "tests/kernels/cuda-weight.h"

#include "kernels/cuda/activations.h"
#include "kernels/cuda/append.h"
#include "kernels/cuda/attend.h"
#include "kernels/cuda/dense.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/nvfp4-fast.h"
#include "kernels/cuda/sample.h"
#include "model/ops/cuda/space.h"

#define MIB ((uint64_t)1 << 20)
#define GIB ((uint64_t)1 << 30)
enum { UNITS = 40 * 512, F = sizeof(float) };

static struct moe_space *space;

/* The address of `bytes` bytes that lie `offset` bytes into the range, and have memory now. */
static uint64_t room(uint64_t offset, size_t bytes)
{
    for (uint64_t u = offset / (2 * MIB); u <= (offset + bytes - 1) / (2 * MIB); u++) {
        const int32_t unit = (int32_t)u;
        assert(unit < UNITS);
        CUDA_OK(moe_space_back(space, 0, &unit, 1, &err));
    }
    return moe_space_base(space, 0).at + offset;
}
static uint64_t put(uint64_t offset, const void *from, size_t bytes)
{
    const uint64_t at = room(offset, bytes);
    CUDA_OK(moe_gpu_write(cuda_gpu, (struct moe_addr){ at }, from, bytes, &err));
    return at;
}
static void get(void *to, uint64_t at, size_t bytes)
{
    CUDA_OK(moe_gpu_read(cuda_gpu, to, (struct moe_addr){ at }, bytes, &err));
    CUDA_OK(moe_gpu_wait(cuda_gpu, &err));
}
static uint64_t base(void) { return moe_space_base(space, 0).at; }

static float *random_floats(int64_t n)
{
    float *x = malloc(F * (size_t)n);
    assert(x);
    fill(x, n, NORMAL);
    return x;
}

/* ---- products with NVFP4 weights ---- */

enum { ROWS = 144, COLS = 18432, PAIRS = 65536, HEAD = 163840 };
#define STRIDE (3 * 2048ull * (7168 / 2 + 7168 / 16) + 48) /* of K2's experts, and the globals */

/* A row of x as digits or halves, row `row` of those at 10 GiB, whose factors are at 15 GiB. */
static void put_row(const float *x, int64_t n, bool fast, int64_t row, struct moe_cuda_nvfp4 *a)
{
    const uint64_t from = cuda_in(x, F * (size_t)n);
    const uint64_t pitch = (uint64_t)(fast ? moe_cuda_halves_pitch(MOE_CUDA_HALVES_CODES, n)
                                           : moe_cuda_digit_bytes(1, n)),
                   factors = (uint64_t)(fast ? 4 : moe_cuda_factor_bytes(1, n));
    const uint64_t to = room(10 * GIB + (uint64_t)row * pitch, pitch),
                   factor = room(15 * GIB + (uint64_t)row * factors, factors);
    if (fast) {
        struct moe_cuda_halves h = { .x = from, .halves = to, .factors = factor, .rows = 1, .n = n,
                                     .ldx = n, .kind = MOE_CUDA_HALVES_CODES };
        CUDA_LAUNCH(halves, h);
    } else {
        struct moe_cuda_digits d = { .x = from, .digits = to, .factors = factor, .rows = 1, .n = n,
                                     .ldx = n, .bits = 24 };
        CUDA_LAUNCH(digits, d);
    }
    a->digits = base() + 10 * GIB, a->factors = base() + 15 * GIB;
}

/* y [2][ROWS] of two rows x, which are rows in[..], and of y out[..], of pairs `first` and the next. */
static void multiply(enum moe_cuda_kernel k, int tokens, const uint8_t *bytes, size_t size, const float *x,
                     int32_t expert, int32_t first, const int32_t in[2], const int32_t out[2], float *y)
{
    const bool fast = k >= MOE_CUDA_nvfp4_fast_8 && k <= MOE_CUDA_nvfp4_fast_64;
    const struct moe_cuda_item item = { expert, first, 2, 0 };
    const int32_t one = 1;
    struct moe_cuda_nvfp4 a = { .stride = STRIDE, .rows = ROWS, .cols = COLS, .ldy = HEAD, .most = 1,
                                .matrices = 1, .blocks = 8 };
    int32_t *maps = calloc(2 * PAIRS, sizeof *maps);
    assert(maps);
    for (int i = 0; i < 2; i++) maps[first + i] = in[i], maps[PAIRS + first + i] = out[i];
    put((uint64_t)expert * STRIDE, bytes, size);
    a.codes[0] = base(), a.scales[0] = base() + ROWS * COLS / 2;
    a.global[0] = base() + size - 16;
    a.in = cuda_in(maps, PAIRS * sizeof *maps), a.out = cuda_in(maps + PAIRS, PAIRS * sizeof *maps);
    a.items = cuda_in(&item, sizeof item), a.item_count = cuda_in(&one, sizeof one);
    a.y[0] = base() + 16 * GIB;
    for (int i = 0; i < 2; i++) {
        put_row(x + i * COLS, COLS, fast, in[i], &a);
        room(16 * GIB + (uint64_t)out[i] * HEAD * F, ROWS * F);
    }
    cuda_launch(k, fast ? moe_cuda_nvfp4_fast_grid(&a, tokens) : moe_cuda_nvfp4_grid(&a, tokens), &a,
                sizeof a);
    for (int i = 0; i < 2; i++) get(y + i * ROWS, a.y[0] + (uint64_t)out[i] * HEAD * F, ROWS * F);
    cuda_free_all();
    free(maps);
}

static void check_nvfp4(void)
{
    static const struct { enum moe_cuda_kernel k; int tokens; } of[] = {
        { MOE_CUDA_nvfp4_2, 2 },       { MOE_CUDA_nvfp4_4, 4 },         { MOE_CUDA_nvfp4_8, 8 },
        { MOE_CUDA_nvfp4_fast_8, 8 },  { MOE_CUDA_nvfp4_fast_16, 16 },  { MOE_CUDA_nvfp4_fast_32, 32 },
        { MOE_CUDA_nvfp4_fast_64, 64 } };
    static const int32_t near_rows[] = { 0, 1 }, far_in[] = { PAIRS - 1, 8191 }, far_out[] = { 29999, 8191 };
    const size_t scales = (size_t)moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, ROWS,
                                                  COLS), size = ROWS * COLS / 2 + scales + 16;
    const float global = 1 / 3000.f;
    uint8_t *bytes = calloc(1, size);
    float *x = random_floats(2 * COLS), near[2 * ROWS], far[2 * ROWS];
    assert(bytes);
    for (size_t i = 0; i < ROWS * COLS / 2; i++) bytes[i] = (uint8_t)random_bits();
    for (size_t r = 0; r < ROWS; r++)
        for (size_t b = 0; b < COLS / 16; b++)
            bytes[ROWS * COLS / 2 + moe_tile_offset(r, b, COLS / 16)] = (uint8_t)random_below(127);
    memcpy(bytes + size - 16, &global, sizeof global);
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        if (cuda_seed % 3 != i % 3) continue;
        CUDA_CASE("a product for %d rows, %s, of expert 383", of[i].tokens, i < 3 ? "exact" : "fast");
        multiply(of[i].k, of[i].tokens, bytes, size, x, 0, 0, near_rows, near_rows, near);
        multiply(of[i].k, of[i].tokens, bytes, size, x, 383, PAIRS - 2, far_in, far_out, far);
        cuda_compare("y", near, far, 2 * ROWS);
    }
    free(bytes), free(x);
}

/* y [2][128], the first and the last 128 results of a weight with that many rows.  Its first 128 rows and its
 * last are those of w, and all others are zero. */
static void multiply_head(bool fast, const struct moe_weight *w, int64_t rows, const float *x, float *y)
{
    const size_t codes = (size_t)(w->rows * w->cols / 2),
                 scales = (size_t)moe_plane_bytes(MOE_NVFP4, w->layout, MOE_PLANE_SCALE, w->rows, w->cols);
    const uint64_t blocks = (uint64_t)rows / 128, last = blocks - 1;
    struct moe_cuda_nvfp4 a = { .rows = rows, .cols = w->cols, .tokens = 1, .ldy = rows, .matrices = 1,
                                .blocks = 264 };
    const struct moe_addr whole = { room(0, codes * blocks) }, all = { room(2 * GIB, scales * blocks) };
    CUDA_OK(moe_gpu_fill(cuda_gpu, whole, 0, codes * blocks, &err));
    CUDA_OK(moe_gpu_fill(cuda_gpu, all, 0, scales * blocks, &err));
    put(0, w->data, codes), put(2 * GIB, w->scale, scales);
    put(last * codes, w->data, codes), put(2 * GIB + last * scales, w->scale, scales);
    a.codes[0] = whole.at, a.scales[0] = all.at, a.global[0] = cuda_in(&w->global, sizeof w->global);
    a.y[0] = room(16 * GIB, F * (size_t)rows);
    put_row(x, w->cols, fast, 0, &a);
    if (fast) cuda_launch(MOE_CUDA_nvfp4_fast_8, moe_cuda_nvfp4_fast_grid(&a, 8), &a, sizeof a);
    else cuda_launch(MOE_CUDA_nvfp4_2, moe_cuda_nvfp4_grid(&a, 2), &a, sizeof a);
    get(y, a.y[0], F * 128), get(y + 128, a.y[0] + last * F * 128, F * 128);
    cuda_free_all();
}

/* Under sanitizers, which make the stand-in slow, a sixteenth of the rows. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { HEAD_ROWS = HEAD / 16 };
#else
enum { HEAD_ROWS = HEAD };
#endif

/* On a GPU with all columns; the stand-in would take hours. */
static void check_nvfp4_head(void)
{
    const char *real = getenv("MOE_TEST_GPU");
    const int64_t cols = real && !strcmp(real, "1") ? 7168 : 64;
    struct moe_weight w = random_weight(MOE_NVFP4, 128, cols, false);
    while (w.layout != MOE_LAYOUT_TILE_128X4) {
        random_weight_free(&w);
        w = random_weight(MOE_NVFP4, 128, cols, false);
    }
    float *x = random_floats(cols), near[256], far[256];
    for (int fast = 0; fast < 2; fast++) {
        CUDA_CASE("a head of [%d x %d], %s", HEAD_ROWS, (int)cols, fast ? "fast" : "exact");
        multiply_head(fast, &w, 128, x, near);
        multiply_head(fast, &w, HEAD_ROWS, x, far);
        cuda_compare("y of the first rows", near, far, 128);
        cuda_compare("y of the last rows", near, far + 128, 128);
    }
    random_weight_free(&w);
    free(x);
}

/* ---- products with other weights, and the embedding ---- */

/* Puts 128 rows of a weight where rows from row0 on of a larger one are. */
static struct moe_cuda_weight put_weight(const struct moe_weight *w, int64_t row0)
{
    const size_t data = (size_t)moe_plane_bytes(w->type, w->layout, MOE_PLANE_DATA, w->rows, w->cols),
                 scale = (size_t)moe_plane_bytes(w->type, w->layout, MOE_PLANE_SCALE, w->rows, w->cols);
    struct moe_weight all = *w;
    all.rows = row0 + w->rows;
    put((uint64_t)row0 / 128 * data, w->data, data);
    if (scale) put(30 * GIB + (uint64_t)row0 / 128 * scale, w->scale, scale);
    return moe_cuda_weight_of(&all, base(), scale ? base() + 30 * GIB : 0);
}

/* y [n][rows] of rows row0 and on, with rows of x and y `apart` values from each other. */
static void multiply_dense(const struct moe_weight *w, int64_t row0, int64_t n, int64_t rows, const float *x,
                           int64_t apart, float *y)
{
    struct moe_cuda_dense a = { .w = put_weight(w, row0), .n = n, .ldx = apart, .ldy = apart, .row0 = row0,
                                .rows = rows, .items = 1, .x = base() + 6 * GIB,
                                .y = base() + 6 * GIB + MIB };
    for (int64_t t = 0; t < n; t++) {
        put(6 * GIB + (uint64_t)(t * apart) * F, x + t * w->cols, F * (size_t)w->cols);
        room(6 * GIB + MIB + (uint64_t)(t * apart) * F, F * (size_t)rows);
    }
    cuda_launch(moe_cuda_dense_kernel(&a), moe_cuda_dense_grid(&a), &a, sizeof a);
    for (int64_t t = 0; t < n; t++)
        get(y + t * rows, a.y + (uint64_t)(t * apart) * F, F * (size_t)rows);
}

/* y [rows] of one pair: expert `expert` of a list, BF16. */
static void multiply_listed(const struct moe_weight *w, int32_t expert, int32_t row, const float *x, float *y)
{
    const struct moe_cuda_item item = { expert, 0, 1, 0 };
    const int32_t one = 1;
    const size_t bytes = (size_t)(w->rows * w->cols * 2);
    const uint64_t y_at = 16 * GIB + (uint64_t)row * HEAD * F;
    struct moe_cuda_dense a = { .w = moe_cuda_weight_of(w, base(), 0), .x = base() + 16 * GIB,
                                .y = base() + 16 * GIB, .list = cuda_in(&item, sizeof item),
                                .count = cuda_in(&one, sizeof one), .in = cuda_in(&row, sizeof row), .n = 1,
                                .ldx = HEAD / 2, .ldy = HEAD, .rows = w->rows, .items = 1, .stride = STRIDE };
    a.out = a.in;
    put(expert * STRIDE, w->data, bytes);
    put(16 * GIB + (uint64_t)row * HEAD / 2 * F, x, F * (size_t)w->cols);
    room(y_at, F * (size_t)w->rows);
    cuda_launch(moe_cuda_dense_kernel(&a), moe_cuda_dense_grid(&a), &a, sizeof a);
    get(y, base() + y_at, F * (size_t)w->rows);
    cuda_free_all();
}

static void check_listed(void)
{
    struct moe_weight w = random_weight(MOE_BF16, 48, 2048, false);
    float *x = random_floats(w.cols), near[48], far[48];
    CUDA_CASE("a product of expert 383 in BF16");
    multiply_listed(&w, 0, 1, x, near);
    multiply_listed(&w, 383, 29999, x, far);
    cuda_compare("y", near, far, w.rows);
    random_weight_free(&w);
    free(x);
}

static void embed(const struct moe_weight *w, int64_t row0, float *out)
{
    const int32_t token = (int32_t)row0 + 127;
    struct moe_cuda_embed a = { .w = put_weight(w, row0), .n = 1, .token = cuda_in(&token, sizeof token),
                                .out = cuda_out(F * (size_t)w->cols) };
    CUDA_LAUNCH(embed, a);
    cuda_get(out, a.out, F * (size_t)w->cols);
    cuda_free_all();
}

/* The last rows of K2's head and embedding. */
static void check_head(void)
{
    static const int types[] = { MOE_F32, MOE_BF16, MOE_FP8_B128, MOE_INT4_G32, MOE_NVFP4, MOE_F16 };
    static const int64_t tokens[] = { 8, 4, 2, 1, 3, 64 };
    for (size_t i = 0; i < 6; i++) {
        const int64_t n = tokens[i], rows = 40, cols = n > 8 ? 1024 : 7168;
        struct moe_weight w = random_weight(types[i], 128, cols, false);
        float *x = random_floats(n * cols), *near = random_floats(n * rows), *far = random_floats(n * rows);
        float *row = random_floats(2 * cols);
        CUDA_CASE("the last rows of [163840 x %d] in %s, %d rows of x", (int)cols, moe_dtype_name(types[i]),
                  (int)n);
        multiply_dense(&w, 0, n, rows, x, MIB / 2, near);
        multiply_dense(&w, HEAD - 128, n, rows, x, n > 8 ? 100 * 1000 * 1000 : 1000 * 1000 * 1000, far);
        cuda_compare("y", near, far, n * rows);
        embed(&w, 0, row), embed(&w, HEAD - 128, row + cols);
        cuda_compare("the embedding", row, row + cols, cols);
        random_weight_free(&w);
        free(x), free(near), free(far), free(row);
    }
}

/* ---- the latent cache ---- */

enum { HEADS = 3, KL = 512, ROPE = 64, WIDTH = KL + ROPE, POSITIONS = 100 };
static const int64_t page_step = 61 * MOE_PAGE * WIDTH; /* of a model with 61 layers: 9 MB a page */

/* Appends `own` to two pages of the cache, which gives `row`, and attends to them: out [2][HEADS][KL], of
 * both kernels.  Then copies the first page, in two layers that are layer_step values apart, to behind it:
 * `copied` is what the second layer has there. */
static void attend(const int32_t page[2], const float *rows, const float *q, const float *own,
                   int64_t layer_step, float *out, float *row, float *copied)
{
    const int32_t segment = 0, pos = POSITIONS - 1;
    const uint64_t step = (uint64_t)page_step * F, first = base() + (uint64_t)page[0] * step,
                   second = base() + (uint64_t)page[1] * step;
    const struct moe_cuda_latents cache = { .rows = base(), .page = cuda_in(page, 2 * sizeof *page),
                                            .segment = cuda_in(&segment, 4), .pos = cuda_in(&pos, 4),
                                            .page_step = page_step, .table = 2, .width = WIDTH };
    put(first - base(), rows, F * MOE_PAGE * WIDTH);
    put(second - base(), rows + MOE_PAGE * WIDTH, F * MOE_PAGE * WIDTH);
    struct moe_cuda_append p = { .cache = cache, .q = cuda_inout(q, F * HEADS * WIDTH), .n = 1,
                                 .heads = HEADS, .nope = KL, .rope = ROPE, .kl = KL, .eps = 1e-6f };
    p.ckv = cuda_in(own, F * WIDTH), p.norm = cuda_in(rows, F * KL);
    p.cosine = cuda_in(q, F * ROPE / 2), p.sine = cuda_in(q + ROPE, F * ROPE / 2);
    CUDA_LAUNCH(append, p);
    get(row, second + (POSITIONS - 1 - MOE_PAGE) * WIDTH * F, F * WIDTH);
    struct moe_cuda_attend a = { .cache = cache, .q = p.q, .out = cuda_out(F * HEADS * KL), .n = 1,
                                 .heads = HEADS, .kl = KL, .chunks = 1, .scale = .1f, .few = 1 };
    for (a.few = 0; a.few < 2; a.few++) {
        cuda_launch(moe_cuda_attend_kernel(&a), moe_cuda_attend_grid(&a), &a, sizeof a);
        cuda_get(out + (int64_t)a.few * HEADS * KL, a.out, F * HEADS * KL);
    }
    struct moe_cuda_copy_page c = { .from = first, .to = first + F * MOE_PAGE * WIDTH, .layers = 2,
                                    .layer_step = layer_step, .rows = MOE_PAGE, .width = WIDTH };
    put(c.from - base() + (uint64_t)layer_step * F, rows, F * MOE_PAGE * WIDTH);
    room(c.to - base(), F * MOE_PAGE * WIDTH);
    room(c.to - base() + (uint64_t)layer_step * F, F * MOE_PAGE * WIDTH);
    CUDA_LAUNCH(copy_page, c);
    get(copied, c.to + (uint64_t)layer_step * F, F * MOE_PAGE * WIDTH);
    cuda_free_all();
}

static void check_cache(void)
{
    static const int32_t near_pages[] = { 0, 1 }, far_pages[] = { 1200, 2500 };
    float *rows = random_floats(2 * MOE_PAGE * WIDTH), *q = random_floats(HEADS * WIDTH);
    float *own = random_floats(WIDTH), *out = random_floats(4 * HEADS * KL), *row = random_floats(2 * WIDTH);
    float *copied = random_floats(2 * MOE_PAGE * WIDTH);
    CUDA_CASE("pages of the latent cache");
    attend(near_pages, rows, q, own, 2 * MOE_PAGE * WIDTH, out, row, copied);
    attend(far_pages, rows, q, own, 5000ll * 1000 * 1000, out + 2 * HEADS * KL, row + WIDTH,
           copied + MOE_PAGE * WIDTH);
    cuda_compare("the row appended", row, row + WIDTH, WIDTH);
    cuda_compare("out", out, out + 2 * HEADS * KL, 2 * HEADS * KL);
    cuda_compare("the page copied", rows, copied, MOE_PAGE * WIDTH);
    cuda_compare("the page copied far", rows, copied + MOE_PAGE * WIDTH, MOE_PAGE * WIDTH);
    free(rows), free(q), free(own), free(out), free(row), free(copied);
}

/* ---- rows ---- */

enum { N = 5008 };

/* Row 1 of two that are `apart` values from each other (a multiple of N): normed, as a row that is named;
 * rounded to NVFP4; as digits; and id [2], the largest logit of each row. */
static void use_row(const float *x, int64_t apart, float *normed, float *rounded, uint8_t *digits,
                    int32_t *id)
{
    const int32_t which = (int32_t)(apart / N);
    const size_t bytes = F * N, chunks = 2 * (size_t)moe_cuda_sample_chunks(N);
    const int64_t parts = MOE_CUDA_SAMPLE_PARTS;
    const struct moe_cuda_drawing drawing[2] = { { .temperature = 0 }, { .temperature = 0 } };
    put(0, x, bytes);
    const uint64_t second = put((uint64_t)apart * F, x + N, bytes);
    struct moe_cuda_norm r = { .h = base(), .w = cuda_in(x, bytes), .out = cuda_out(bytes), .rows = 1, .n = N,
                               .row = cuda_in(&which, 4), .eps = 1e-6f };
    CUDA_LAUNCH(norm, r);
    cuda_get(normed, r.out, bytes);
    struct moe_cuda_sample s = { .logits = base(), .drawing = cuda_in(drawing, sizeof drawing),
                                 .ids = cuda_out(8), .most = cuda_out(8 * chunks),
                                 .weight = cuda_out(8 * chunks * (size_t)parts),
                                 .count = cuda_out(4 * chunks * (size_t)parts), .rows = 2, .n = N,
                                 .ld = apart };
    cuda_launch(MOE_CUDA_sample_max, moe_cuda_sample_chunk_grid(&s), &s, sizeof s);
    cuda_launch(MOE_CUDA_sample_weigh, moe_cuda_sample_chunk_grid(&s), &s, sizeof s);
    CUDA_LAUNCH(sample_pick, s);
    cuda_get(id, s.ids, 8);
    const size_t row = (size_t)moe_cuda_digit_bytes(1, N);
    struct moe_cuda_digits d = { .x = base(), .digits = cuda_out(2 * row), .rows = 2, .n = N, .ldx = apart,
                                 .factors = cuda_out(2 * (size_t)moe_cuda_factor_bytes(1, N)), .bits = 24 };
    CUDA_LAUNCH(digits, d);
    cuda_get(digits, d.digits + row, row);
    struct moe_cuda_activations a = { .x = base(), .out = base(), .rows = 2, .n = N, .ldx = apart,
                                      .ldo = apart, .input_scale = .01f };
    CUDA_LAUNCH(activations, a);
    get(rounded, second, bytes);
    cuda_free_all();
}

static void check_rows(void)
{
    float *x = random_floats(2 * N), *normed = random_floats(2 * N), *rounded = random_floats(2 * N);
    const size_t row = (size_t)moe_cuda_digit_bytes(1, N);
    uint8_t *digits = malloc(2 * row);
    int32_t id[2][2];
    assert(digits);
    CUDA_CASE("rows far from each other");
    use_row(x, N, normed, rounded, digits, id[0]);
    use_row(x, (int64_t)N * 1000 * 1000, normed + N, rounded + N, digits + row, id[1]);
    cuda_compare("norm", normed, normed + N, N);
    cuda_compare("activations", rounded, rounded + N, N);
    CUDA_CHECK(!memcmp(digits, digits + row, row), "digits differ");
    CUDA_CHECK(!memcmp(id[0], id[1], sizeof id[0]), "ids %d and %d instead of %d and %d", id[1][0], id[1][1],
               id[0][0], id[0][1]);
    free(x), free(normed), free(rounded), free(digits);
}

static void check(void)
{
    const uint64_t unit = 2 * MIB;
    CUDA_CASE("a range of addresses");
    CUDA_OK(moe_space_open(&space, cuda_gpu, 1, &unit, UNITS, false, &err));
    CUDA_CHECK(moe_space_stride(space, 0) == unit, "units lie apart");
    check_rows();
    check_cache();
    check_head();
    check_listed();
    check_nvfp4();
    if (cuda_seed < 2) check_nvfp4_head();
    moe_space_close(&space);
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
