/* SPDX-License-Identifier: Apache-2.0 */
/* bench-cuda [--quick | --once | --gpu]
 *
 * Times the main kernels of a step of Kimi K2 on GPU 0, exact and fast, beside a copy within the GPU and
 * products of cuBLASLt, where it is installed, in the same run: a table on stdout.  Left out are halves,
 * tiles, embed, append, group, check, combine and swiglu.  Bytes are those that a kernel has to read and
 * write at least, so the share of the copy says how much of the memory's speed it attains. --quick: tiny
 * shapes, to see that all rows run; their numbers mean nothing. --once: a single run of each, for profilers.
 * --gpu: only says which GPU is there.  Exit 17 where there is none. tests/device.sh runs it. */
#include "tests/bench/bench-cuda.h"
#include "tests/bench/bench-lt.h"

#include "kernels/cuda/absorb.h"
#include "kernels/cuda/activations.h"
#include "kernels/cuda/attend-fast.h"
#include "kernels/cuda/attend.h"
#include "kernels/cuda/dense-fast.h"
#include "kernels/cuda/dense.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/nvfp4-fast.h"
#include "kernels/cuda/nvfp4.h"
#include "kernels/cuda/route.h"
#include "kernels/cuda/sample.h"

#include <stddef.h>

/* Kimi K2's widths, and small ones. */
struct widths { int64_t hidden, inter, q_lora, heads, nope, rope, v, kl, experts, k, vocab, resident; };
static const struct widths k2 = { 7168, 2048, 1536, 64, 128, 64, 128, 512, 384, 8, 163840, 48 },
                           tiny = { 256, 128, 64, 4, 16, 16, 16, 64, 8, 2, 512, 2 };
static const struct widths *w = &k2;

static char shape[80];
#define SHAPE(...) (snprintf(shape, sizeof shape, __VA_ARGS__), shape)

/* ---- the yardsticks ---- */

static void copy_rows(void)
{
    const int64_t bytes = quick ? 1 << 20 : 1 << 30;
    const struct moe_addr from = { take(bytes) }, to = { take(bytes) };
    void *pinned;
    double least = 1e9;
    for (int i = 0; i < 4; i++) {
        double start = now();
        for (int k = 0; k < 4; k++) must(moe_gpu_copy(gpu, to, from, (uint64_t)bytes, &err));
        must(moe_gpu_wait(gpu, &err));
        double took = (now() - start) / 4;
        if (took < least) least = took;
    }
    copied = 2 * (double)bytes / least;
    print_row("copy", "within the GPU, read and written", least, 2 * (double)bytes, 0);

    const int64_t part = bytes / 4;
    must(moe_gpu_pin(gpu, (uint64_t)part, &pinned, &err));
    memset(pinned, 1, (size_t)part);
    least = 1e9;
    for (int i = 0; i < 4; i++) {
        double start = now();
        must(moe_gpu_copy_in(gpu, to, pinned, (uint64_t)part, &err));
        must(moe_gpu_wait(gpu, &err));
        double took = now() - start;
        if (took < least) least = took;
    }
    print_row("copy", "from pinned memory of the host", least, (double)part, 0);
    moe_gpu_unpin(gpu, pinned);
    pool_used = 0;
}

/* ---- routed experts ---- */

/* An extent of an expert in a container: codes and scales of gate, up and down. */
static int64_t matrix_bytes(void) { return w->hidden * w->inter / 2; }
static int64_t scales_bytes(void) { return w->hidden * w->inter / 16; }

/* Every resident expert gets `tokens` rows: an item each. */
static uint64_t make_items(int64_t tokens)
{
    struct moe_cuda_item *item = calloc((size_t)w->resident, sizeof *item);
    if (!item) exit(10);
    for (int64_t e = 0; e < w->resident; e++)
        item[e] = (struct moe_cuda_item){ (int32_t)e, (int32_t)(e * tokens), (int32_t)tokens, 0 };
    uint64_t at = put(item, w->resident * (int64_t)sizeof *item);
    free(item);
    return at;
}

/* fast: tokens is 8, 16, 32 or 64. */
static void experts_row(int64_t tokens, bool down, bool fast)
{
    const int64_t matrix = matrix_bytes(), scales = scales_bytes(),
                  stride = (3 * (matrix + scales) + (1 << 20)) >> 20 << 20, pairs = tokens * w->resident;
    const int64_t rows = down ? w->hidden : w->inter, cols = down ? w->inter : w->hidden;
    const int32_t count = (int32_t)w->resident;
    const uint64_t experts = take(stride * w->resident),
                   globals = take(12 + stride * w->resident); /* each 4 bytes, a stride apart */
    struct moe_cuda_nvfp4 a = { .stride = stride, .rows = rows, .cols = cols };
    a.matrices = down ? 1 : 2;
    a.flags = down ? 0 : MOE_CUDA_NVFP4_SWIGLU;
    for (int i = 0; i < a.matrices; i++) {
        const int part = down ? 2 : i;
        a.codes[i] = experts + (uint64_t)(part * (matrix + scales));
        a.scales[i] = a.codes[i] + (uint64_t)matrix;
        a.global[i] = globals;
        a.y[i] = take(4 * pairs * rows);
    }
    a.items = make_items(tokens);
    a.item_count = put(&count, 4);
    a.digits = take(moe_cuda_digit_bytes(pairs, cols));
    a.factors = take(moe_cuda_factor_bytes(pairs, cols));
    a.ldy = rows;
    a.tokens = pairs;
    a.most = w->resident;
    a.blocks = 2 * (uint32_t)moe_gpu_info(gpu)->multiprocessors;
    static const enum moe_cuda_kernel many[] = { MOE_CUDA_nvfp4_fast_8, MOE_CUDA_nvfp4_fast_16,
                                                 MOE_CUDA_nvfp4_fast_32, [4] = MOE_CUDA_nvfp4_fast_64 };
    const int width = tokens <= 2 ? 2 : tokens <= 4 ? 4 : 8;
    struct launch l = { .kernel = fast         ? many[tokens / 16]
                                  : width == 2 ? MOE_CUDA_nvfp4_2
                                  : width == 4 ? MOE_CUDA_nvfp4_4
                                               : MOE_CUDA_nvfp4_8,
                        .grid = fast ? moe_cuda_nvfp4_fast_grid(&a, (int)tokens)
                                     : moe_cuda_nvfp4_grid(&a, width),
                        .args = &a,
                        .bytes = sizeof a };
    const double madds = (double)pairs * (double)rows * (double)cols * a.matrices;
    row(down ? "experts down" : "experts up",
        SHAPE("NVFP4, %lld experts, %lld rows each%s", (long long)w->resident, (long long)tokens,
              fast ? ", fast" : ""), &l, 1,
        (double)(w->resident * a.matrices * (matrix + scales)), madds);
}

/* Gate and up of the shared expert, one after the other in the same memory, and the digits of their input. */
static void shared_row(int64_t n)
{
    const int64_t matrix = matrix_bytes(), scales = scales_bytes(), step = 2 * (matrix + scales);
    const int turns = quick ? 1 : 24, width = n <= 2 ? 2 : n <= 4 ? 4 : 8;
    struct moe_cuda_nvfp4 a = { .rows = w->inter, .cols = w->hidden, .matrices = 2, .ldy = w->inter,
                                .tokens = n, .flags = MOE_CUDA_NVFP4_SWIGLU,
                                .blocks = 2 * (uint32_t)moe_gpu_info(gpu)->multiprocessors };
    struct moe_cuda_digits d = { .rows = n, .n = w->hidden, .ldx = w->hidden, .bits = 24 };
    d.x = take(4 * n * w->hidden);
    d.digits = a.digits = take(moe_cuda_digit_bytes(n, w->hidden));
    d.factors = a.factors = take(moe_cuda_factor_bytes(n, w->hidden));
    const uint64_t weights = take(step * turns), global = take(4);
    for (int i = 0; i < 2; i++) {
        a.codes[i] = weights + (uint64_t)(i * (matrix + scales));
        a.scales[i] = a.codes[i] + (uint64_t)matrix;
        a.global[i] = global;
    }
    a.y[0] = take(4 * n * w->inter);
    const struct launch l[2] = {
        { .kernel = MOE_CUDA_digits, .grid = moe_cuda_digits_grid(&d), .args = &d, .bytes = sizeof d },
        { .kernel = width == 2 ? MOE_CUDA_nvfp4_2 : width == 4 ? MOE_CUDA_nvfp4_4 : MOE_CUDA_nvfp4_8,
          .grid = moe_cuda_nvfp4_grid(&a, width),
          .args = &a,
          .bytes = sizeof a,
          .moving = { offsetof(struct moe_cuda_nvfp4, codes), offsetof(struct moe_cuda_nvfp4, codes) + 8,
                      offsetof(struct moe_cuda_nvfp4, scales), offsetof(struct moe_cuda_nvfp4, scales) + 8 },
          .n_moving = 4,
          .step = step,
          .turns = turns } };
    row("shared up", SHAPE("NVFP4, %lld rows, with their digits", (long long)n), l, 2, (double)step,
        2.0 * (double)(n * w->inter * w->hidden));
}

/* ---- dense products ---- */

static void dense_row(const char *name, int64_t rows, int64_t cols, int64_t n)
{
    const int64_t bytes = 2 * rows * cols;
    struct moe_cuda_dense a = { .n = n, .ldx = cols, .ldy = rows, .rows = rows, .items = 1 };
    int turns = quick ? 1 : (int)(((int64_t)256 << 20) / bytes) + 1;
    a.w = (struct moe_cuda_weight){ .rows = rows, .cols = cols, .codes = MOE_CUDA_BF16 };
    a.w.data = take(bytes * turns);
    a.x = take(4 * n * cols);
    a.y = take(4 * n * rows);
    struct launch l = { .kernel = moe_cuda_dense_kernel(&a), .grid = moe_cuda_dense_grid(&a), .args = &a,
                        .bytes = sizeof a, .moving = { offsetof(struct moe_cuda_dense, w.data) },
                        .n_moving = 1, .step = bytes, .turns = turns };
    row(name, SHAPE("BF16 [%lld, %lld], %lld rows", (long long)rows, (long long)cols, (long long)n), &l, 1,
        (double)(bytes + 4 * n * (rows + cols)), (double)n * (double)rows * (double)cols);
}

static void dense_fast_row(const char *name, int64_t rows, int64_t cols, int64_t n)
{
    const int64_t bytes = 2 * rows * cols, parts = MOE_CUDA_DENSE_FAST_PARTS * n * rows;
    struct moe_cuda_dense_fast a = { .n = n, .ldy = rows };
    int32_t none[MOE_CUDA_DENSE_FAST_TILES] = { 0 };
    int turns = quick ? 1 : (int)(((int64_t)256 << 20) / bytes) + 1;
    a.w = (struct moe_cuda_weight){ .rows = rows, .cols = cols, .codes = MOE_CUDA_BF16 };
    a.w.data = take(bytes * turns);
    a.halves = take(n * moe_cuda_halves_pitch(MOE_CUDA_HALVES_BF16, cols));
    a.factors = take(4 * n);
    a.y = take(4 * n * rows);
    a.split = moe_cuda_dense_fast_split(&a, moe_gpu_info(gpu)->multiprocessors, parts);
    if (a.split > 1) a.part = take(4 * parts), a.done = put(none, sizeof none);
    struct launch l = { .kernel = moe_cuda_dense_fast_kernel(n), .grid = moe_cuda_dense_fast_grid(&a),
                        .args = &a, .bytes = sizeof a,
                        .moving = { offsetof(struct moe_cuda_dense_fast, w.data) }, .n_moving = 1,
                        .step = bytes, .turns = turns };
    row(name, SHAPE("BF16 [%lld, %lld], %lld rows, fast", (long long)rows, (long long)cols, (long long)n), &l,
        1, (double)(bytes + 4 * n * (rows + cols)), (double)n * (double)rows * (double)cols);
}

static void dense_fast_rows(void (*one)(const char *name, int64_t rows, int64_t cols, int64_t n))
{
    static const int64_t tokens[] = { 1, 16, 64, 1024 };
    for (int i = 0; i < (quick ? 3 : 4); i++) {
        one("q_a", w->q_lora, w->hidden, tokens[i]);
        one("q_b", w->heads * (w->nope + w->rope), w->q_lora, tokens[i]);
        one("kv_a", w->kl + w->rope, w->hidden, tokens[i]);
        one("o", w->hidden, w->heads * w->v, tokens[i]);
        if (tokens[i] <= 64) one("head", w->vocab, w->hidden, tokens[i]);
    }
}

static void dense_rows(void)
{
    static const int64_t tokens[] = { 1, 8, 64 };
    for (int i = 0; i < 3; i++) {
        dense_row("q_a", w->q_lora, w->hidden, tokens[i]);
        dense_row("q_b", w->heads * (w->nope + w->rope), w->q_lora, tokens[i]);
        dense_row("kv_a", w->kl + w->rope, w->hidden, tokens[i]);
        dense_row("o", w->hidden, w->heads * w->v, tokens[i]);
        dense_row("router", w->experts, w->hidden, tokens[i]);
        dense_row("head", w->vocab, w->hidden, tokens[i]);
    }
}

/* ---- attention ---- */

/* The cache and the queries of so many sequences of so many rows. */
static struct moe_cuda_attend attend_of(int64_t sequences, int64_t rows, int64_t value_bytes)
{
    const int64_t pages = (rows + MOE_PAGE - 1) / MOE_PAGE, width = w->kl + w->rope;
    int32_t *page = calloc((size_t)(sequences * pages), 4), *at = calloc((size_t)sequences * 2, 4);
    if (!page || !at) exit(10);
    for (int64_t i = 0; i < sequences * pages; i++) page[i] = (int32_t)i;
    for (int64_t s = 0; s < sequences; s++) at[s] = (int32_t)s, at[sequences + s] = (int32_t)(rows - 1);
    struct moe_cuda_attend a = { .n = sequences, .heads = w->heads, .kl = w->kl, .scale = 0.07f };
    a.cache = (struct moe_cuda_latents){ .rows = take(value_bytes * sequences * pages * MOE_PAGE * width),
                                         .page = put(page, 4 * sequences * pages),
                                         .segment = put(at, 4 * sequences),
                                         .pos = put(at + sequences, 4 * sequences),
                                         .page_step = MOE_PAGE * width,
                                         .table = pages,
                                         .width = width };
    free(page), free(at);
    a.q = take(4 * a.n * a.heads * width);
    a.out = take(4 * a.n * a.heads * a.kl);
    return a;
}

/* Room for what chunks leave for their merge. */
static void take_parts(struct moe_cuda_attend *a)
{
    a->max = take(4 * a->n * a->chunks * a->heads);
    a->sum = take(4 * a->n * a->chunks * a->heads);
    a->part = take(4 * a->n * a->chunks * a->heads * a->kl);
}

static void attend_row(int64_t sequences, int64_t rows)
{
    struct moe_cuda_attend a = attend_of(sequences, rows, 4);
    a.chunks = moe_cuda_attend_chunks(rows);
    a.split = moe_cuda_attend_split(a.n, a.heads, a.chunks, moe_gpu_info(gpu)->multiprocessors);
    a.few = moe_cuda_attend_few(a.n, a.heads, a.split ? a.chunks : 1, moe_gpu_info(gpu)->multiprocessors);
    if (a.split) take_parts(&a);
    const struct launch l[2] = {
        { .kernel = moe_cuda_attend_kernel(&a), .grid = moe_cuda_attend_grid(&a), .args = &a,
          .bytes = sizeof a },
        { .kernel = MOE_CUDA_attend_merge, .grid = moe_cuda_attend_merge_grid(&a), .args = &a,
          .bytes = sizeof a } };
    row("attention", SHAPE("%lld sequences of %lld%s", (long long)sequences, (long long)rows,
                           a.split ? ", split" : ""),
        l, a.split ? 2 : 1, 4.0 * (double)(sequences * rows * a.cache.width),
        (double)(sequences * rows * w->heads) * (double)(a.cache.width + w->kl));
}

static void attend_fast_row(int64_t sequences, int64_t rows, bool bf16)
{
    const int64_t value_bytes = bf16 ? 2 : 4;
    struct moe_cuda_attend a = attend_of(sequences, rows, value_bytes);
    a.chunks = moe_cuda_attend_fast_most(rows);
    a.few = moe_cuda_attend_fast_few(&a, bf16, moe_gpu_info(gpu)->multiprocessors);
    if (a.chunks > 1) take_parts(&a);
    const struct launch l[2] = {
        { .kernel = moe_cuda_attend_fast_kernel(&a, bf16), .grid = moe_cuda_attend_fast_grid(&a, bf16),
          .args = &a, .bytes = sizeof a },
        { .kernel = MOE_CUDA_attend_fast_merge, .grid = moe_cuda_attend_fast_merge_grid(&a), .args = &a,
          .bytes = sizeof a } };
    row("attention, fast", SHAPE("%lld sequences of %lld, %s", (long long)sequences, (long long)rows,
                                 bf16 ? "bf16" : "float32"),
        l, a.chunks > 1 ? 2 : 1, (double)(value_bytes * sequences * rows * a.cache.width),
        (double)(sequences * rows * w->heads) * (double)(a.cache.width + w->kl));
}

static void absorb_row(int64_t n)
{
    const int64_t head = w->nope + w->v, bytes = 2 * w->heads * head * w->kl;
    struct moe_cuda_absorb a = { .n = n, .heads = w->heads, .nope = w->nope, .rope = w->rope };
    const int turns = quick ? 1 : 16;
    a.head_rows = head;
    a.w = (struct moe_cuda_weight){ .rows = w->heads * head, .cols = w->kl, .codes = MOE_CUDA_BF16 };
    a.w.data = take(bytes * turns);
    a.q = take(4 * n * w->heads * (w->nope + w->rope));
    a.out = take(4 * n * w->heads * (w->kl + w->rope));
    struct launch l = { .kernel = moe_cuda_absorb_kernel(&a), .grid = moe_cuda_absorb_grid(&a), .args = &a,
                        .bytes = sizeof a, .moving = { offsetof(struct moe_cuda_absorb, w.data) },
                        .n_moving = 1, .step = bytes, .turns = turns };
    row("absorb", SHAPE("BF16, %lld tokens", (long long)n), &l, 1,
        (double)(2 * w->heads * w->nope * w->kl + 4 * n * w->heads * (w->nope + w->kl)),
        (double)(n * w->heads * w->nope) * (double)w->kl);
}

/* ---- small operations ---- */

static void norm_row(int64_t n)
{
    struct moe_cuda_norm a = { .rows = n, .n = w->hidden, .eps = 1e-6f };
    a.h = take(4 * n * w->hidden);
    a.add = take(4 * n * w->hidden);
    a.w = take(4 * w->hidden);
    a.out = take(4 * n * w->hidden);
    const struct launch l = { .kernel = MOE_CUDA_norm, .grid = moe_cuda_norm_grid(&a), .args = &a,
                              .bytes = sizeof a };
    row("norm", SHAPE("%lld rows", (long long)n), &l, 1, 16.0 * (double)(n * w->hidden), 0);
}

static void route_row(int64_t n)
{
    struct moe_cuda_route a = { .n = n, .n_experts = (int32_t)w->experts, .top_k = (int32_t)w->k,
                                .n_group = 1, .topk_group = 1, .norm_topk_prob = 1, .scale = 2.827f };
    a.logits = take(4 * n * w->experts);
    a.bias = take(4 * w->experts);
    a.experts = take(4 * n * w->k);
    a.weights = take(4 * n * w->k);
    const struct launch l = { .kernel = MOE_CUDA_route, .grid = moe_cuda_route_grid(&a), .args = &a,
                              .bytes = sizeof a };
    row("route", SHAPE("%lld rows", (long long)n), &l, 1, 4.0 * (double)(n * w->experts), 0);
}

static void activations_row(int64_t n)
{
    struct moe_cuda_activations a = { .rows = n, .n = w->hidden, .share = 1, .ldx = w->hidden,
                                      .ldo = w->hidden, .method = MOE_CUDA_ACT_SEARCH, .input_scale = .01f };
    a.x = take(4 * n * w->hidden);
    a.out = take(4 * n * w->hidden);
    const struct launch l = { .kernel = MOE_CUDA_activations, .grid = moe_cuda_activations_grid(&a),
                              .args = &a, .bytes = sizeof a };
    row("activations", SHAPE("%lld rows, best of six scales", (long long)n), &l, 1,
        8.0 * (double)(n * w->hidden), 0);
}

/* Logits of which few are near the largest, as a model's are. */
static void sample_row(int64_t n, float top_p)
{
    float *logits = calloc((size_t)(n * w->vocab), 4);
    struct moe_cuda_drawing *d = calloc((size_t)n, sizeof *d);
    if (!logits || !d) exit(10);
    for (int64_t i = 0; i < n * w->vocab; i++) {
        const uint32_t r = (uint32_t)i * 2654435761u;
        logits[i] = (float)(r >> 16 & 255) / 64 + (float)(r >> 24) / 64 + (r % 50000 == 7 ? 12 : 0);
    }
    for (int64_t i = 0; i < n; i++)
        d[i] = (struct moe_cuda_drawing){ .temperature = top_p > 0, .top_p = top_p,
                                          .draw = 0x9e3779b97f4a7c15u * (uint64_t)(i + 1) };
    struct moe_cuda_sample a = { .rows = n, .n = w->vocab, .ld = w->vocab };
    const int64_t chunks = n * moe_cuda_sample_chunks(w->vocab);
    a.logits = put(logits, 4 * n * w->vocab);
    a.drawing = put(d, n * (int64_t)sizeof *d);
    free(logits), free(d);
    a.ids = take(4 * n);
    a.most = take(8 * chunks);
    a.weight = take(8 * chunks * MOE_CUDA_SAMPLE_PARTS);
    a.count = take(4 * chunks * MOE_CUDA_SAMPLE_PARTS);
    struct launch l[3] = { { .kernel = MOE_CUDA_sample_max, .grid = moe_cuda_sample_chunk_grid(&a) },
                           { .kernel = MOE_CUDA_sample_weigh, .grid = moe_cuda_sample_chunk_grid(&a) },
                           { .kernel = MOE_CUDA_sample_pick, .grid = moe_cuda_sample_pick_grid(&a) } };
    for (int i = 0; i < 3; i++) l[i].args = &a, l[i].bytes = sizeof a;
    row("sample", SHAPE("%lld rows, top_p %g", (long long)n, (double)top_p), l, 3,
        4.0 * (double)(n * w->vocab), 0);
}

/* ---- the run ---- */

static void open_gpu(void)
{
    must(moe_gpu_open(&gpu, 0, &err));
    const struct moe_gpu_info *i = moe_gpu_info(gpu);
    printf("%s, compute capability %d.%d, %d multiprocessors, %.1f GiB\n", i->name, i->major, i->minor,
           i->multiprocessors, (double)i->bytes / (1 << 30));
}

static void take_memory(void)
{
    uint64_t room;
    const uint64_t most = quick ? 64 << 20 : (uint64_t)8 << 30;
    must(moe_gpu_free_now(gpu, &room, &err));
    pool_bytes = room / 8 * 7 < most ? room / 8 * 7 : most;
    must(moe_gpu_alloc(gpu, pool_bytes, &pool, &err));
    /* 0.0115 as float32 and as bfloat16, -2 and 1.5 as codes of E2M1 */
    must(moe_gpu_fill(gpu, pool, 0x3c, pool_bytes, &err));
}

static void all_rows(void)
{
    static const int64_t few[] = { 1, 2, 4, 8 }, some[] = { 1, 16, 64 }, lengths[] = { 2048, 8192, 32768 };
    copy_rows();
    for (int i = 0; i < 4; i++) experts_row(few[i], false, false);
    for (int i = 0; i < 4; i++) experts_row(few[i], true, false);
    for (int i = 0; i < 4; i++)
        for (int down = 0; down < 2; down++) experts_row(8 << i, down, true);
    for (int i = 0; i < 3; i++) shared_row(some[i]);
    for (int i = 0; i < 3; i++) attend_row(1, quick ? 600 : lengths[i]);
    attend_row(quick ? 2 : 32, quick ? 70 : 8192);
    for (int bf16 = 0; bf16 < 2; bf16++) {
        for (int i = 0; i < 3; i++) attend_fast_row(1, quick ? 600 : lengths[i], bf16);
        attend_fast_row(quick ? 2 : 32, quick ? 70 : 8192, bf16);
    }
    for (int i = 0; i < 2; i++) absorb_row(some[i]);
    dense_rows();
    dense_fast_rows(dense_fast_row);
    for (int i = 0; i < 3; i++) norm_row(some[i]);
    for (int i = 0; i < 3; i++) route_row(some[i]);
    for (int i = 0; i < 3; i++) activations_row(some[i]);
    for (int i = 0; i < 3; i++) sample_row(some[i], i % 2 ? 0.f : .95f);
    lt_open();
    dense_fast_rows(lt_row);
    lt_close();
}

int main(int argc, char **argv)
{
    const char *option = argc > 1 ? argv[1] : "";
    quick = !strcmp(option, "--quick");
    once = quick || !strcmp(option, "--once");
    if (quick) w = &tiny;
    open_gpu();
    if (strcmp(option, "--gpu")) {
        take_memory();
        heading();
        all_rows();
        moe_gpu_free(gpu, pool);
    }
    moe_gpu_close(&gpu);
    return 0;
}
