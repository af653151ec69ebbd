/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/cuda-count-rows.h - what check-cuda-count launches besides products with NVFP4 weights: every
 * kernel at the widths of Kimi K2, with as few rows, heads and experts as show how it reads and writes. */
#ifndef CUDA_COUNT_ROWS_H
#define CUDA_COUNT_ROWS_H

#include "tests/kernels/cuda-count.h"

#include "kernels/cuda/absorb.h"
#include "kernels/cuda/activations.h"
#include "kernels/cuda/append.h"
#include "kernels/cuda/attend-fast.h"
#include "kernels/cuda/check.h"
#include "kernels/cuda/combine.h"
#include "kernels/cuda/copy.h"
#include "kernels/cuda/dense-fast.h"
#include "kernels/cuda/dense.h"
#include "kernels/cuda/digits.h"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/group.h"
#include "kernels/cuda/halves.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/probe.h"
#include "kernels/cuda/route.h"
#include "kernels/cuda/sample.h"
#include "kernels/cuda/swiglu.h"
#include "kernels/cuda/tiles.h"

enum { HIDDEN = 7168, INTER = 2048, NOPE = 128, ROPE = 64, VALUE = 128, KL = 512, WIDTH = KL + ROPE,
       HEADS = 64, EXPERTS = 384, TOP_K = 8, VOCAB = 163840 };

/* A weight of zeros, of which `part` rows are needed. */
static struct moe_cuda_weight count_weight(int type, int64_t rows, int64_t cols, int64_t part)
{
    struct moe_weight w = { .type = (uint8_t)type, .rows = rows, .cols = cols };
    w.layout = type == MOE_NVFP4 ? MOE_LAYOUT_TILE_128X4 : MOE_LAYOUT_LINEAR;
    const int64_t bytes = moe_plane_bytes(type, w.layout, MOE_PLANE_DATA, rows, cols),
                  scales = moe_plane_bytes(type, w.layout, MOE_PLANE_SCALE, rows, cols);
    const uint64_t data = count_take(bytes, bytes / rows * part);
    return moe_cuda_weight_of(&w, data, scales ? count_take(scales, scales * part / rows) : 0);
}

/* ---- rows of states ---- */

static void count_states(int64_t n)
{
    struct moe_cuda_norm norm = { .rows = n, .n = HIDDEN, .eps = 1e-6f };
    norm.h = count_take(4 * n * HIDDEN, 8 * n * HIDDEN);
    norm.add = count_zeros(4 * n * HIDDEN);
    norm.w = count_zeros(4 * HIDDEN);
    norm.out = count_out(4 * n * HIDDEN);
    COUNT_LAUNCH(norm, COUNT_SHAPE("%d rows of %d", (int)n, HIDDEN), norm);

    struct moe_cuda_check check = { .n = n * HIDDEN, .note = 1 };
    check.x = count_floats(check.n);
    check.word = count_out(4);
    COUNT_LAUNCH(check, COUNT_SHAPE("%d rows of %d", (int)n, HIDDEN), check);

    struct moe_cuda_combine combine = { .tokens = n, .n = HIDDEN, .k = TOP_K };
    combine.rows = count_floats(n * TOP_K * HIDDEN);
    combine.weights = count_floats(n * TOP_K);
    combine.common = count_floats(n * HIDDEN);
    combine.h = count_take(4 * n * HIDDEN, 8 * n * HIDDEN);
    COUNT_LAUNCH(combine, COUNT_SHAPE("%d tokens, %d rows of %d each", (int)n, TOP_K, HIDDEN), combine);

    struct moe_cuda_swiglu swiglu = { .n = n * INTER };
    swiglu.gate = count_floats(swiglu.n);
    swiglu.up = count_floats(swiglu.n);
    swiglu.out = count_out(4 * swiglu.n);
    COUNT_LAUNCH(swiglu, COUNT_SHAPE("%d rows of %d", (int)n, INTER), swiglu);

    struct moe_cuda_digits digits = { .rows = n, .n = HIDDEN, .ldx = HIDDEN, .bits = 24 };
    digits.x = count_floats(n * HIDDEN);
    digits.digits = count_out(moe_cuda_digit_bytes(n, HIDDEN));
    digits.factors = count_out(moe_cuda_factor_bytes(n, HIDDEN));
    COUNT_LAUNCH(digits, COUNT_SHAPE("%d rows of %d", (int)n, HIDDEN), digits);

    struct moe_cuda_halves halves = { .rows = n, .n = HIDDEN, .ldx = HIDDEN, .kind = MOE_CUDA_HALVES_CODES };
    halves.x = count_floats(n * HIDDEN);
    halves.halves = count_out(n * moe_cuda_halves_pitch(halves.kind, HIDDEN));
    halves.factors = count_out(4 * n);
    COUNT_LAUNCH(halves, COUNT_SHAPE("%d rows of %d", (int)n, HIDDEN), halves);

    struct moe_cuda_activations act = { .rows = n, .n = HIDDEN, .share = 1, .ldx = HIDDEN, .ldo = HIDDEN,
                                        .method = MOE_CUDA_ACT_SEARCH, .input_scale = .01f };
    act.x = count_floats(n * HIDDEN);
    act.out = count_out(4 * n * HIDDEN);
    COUNT_LAUNCH(activations, COUNT_SHAPE("%d rows of %d, best of six scales", (int)n, HIDDEN), act);
}

static void count_embed(int32_t n)
{
    int32_t token[64];
    struct moe_cuda_embed a = { .n = n };
    for (int32_t i = 0; i < n; i++) token[i] = (i * 37 + 5) % 64;
    a.w = count_weight(MOE_BF16, 64, HIDDEN, n);
    a.token = count_put(token, 4 * n);
    a.out = count_out(4 * n * HIDDEN);
    COUNT_LAUNCH(embed, COUNT_SHAPE("BF16, %d tokens, rows of %d", n, HIDDEN), a);
}

/* ---- dense products ---- */

static void count_dense(int type, int64_t rows, int64_t n)
{
    struct moe_cuda_dense a = { .n = n, .ldx = HIDDEN, .ldy = rows, .rows = rows, .items = 1 };
    a.w = count_weight(type, rows, HIDDEN, rows);
    a.x = count_floats(n * HIDDEN);
    a.y = count_out(4 * n * rows);
    count_launch(moe_cuda_dense_kernel(&a),
                 COUNT_SHAPE("%s [%d, %d], %d rows", moe_dtypes[type].name, (int)rows, HIDDEN, (int)n),
                 moe_cuda_dense_grid(&a), &a);
}

static void count_denses(void)
{
    static const int64_t n[] = { 1, 2, 4, 8, 64 };
    for (int i = 0; i < 5; i++) count_dense(MOE_BF16, 64, n[i]);
    count_dense(MOE_F32, 64, 1);
    count_dense(MOE_FP8_B128, 128, 1);
    count_dense(MOE_FP8_B128, 128, 8);
    count_dense(MOE_INT4_G32, 64, 1);
    count_dense(MOE_INT4_G32, 64, 8);
    count_dense(MOE_NVFP4, 128, 4);
}

static struct counted count_dense_fast(int type, int64_t cols, int64_t n, int split)
{
    const int64_t rows = MOE_CUDA_DENSE_FAST_ROWS;
    struct moe_cuda_dense_fast a = { .n = n, .ldy = rows, .split = split };
    a.w = count_weight(type, rows, cols, rows);
    a.halves = count_zeros(n * moe_cuda_halves_pitch(moe_cuda_dense_fast_kind(&a.w), cols));
    a.factors = count_floats(n);
    a.y = count_out(4 * n * rows);
    if (split > 1) {
        const int64_t parts = 4 * MOE_CUDA_DENSE_FAST_PARTS * n * rows;
        a.part = count_take(parts, 2 * parts);
        a.done = count_take(4, 8);
    }
    return count_launch(moe_cuda_dense_fast_kernel(n),
                        COUNT_SHAPE("%s [%d, %d], %d rows%s", moe_dtypes[type].name, (int)rows, (int)cols,
                                    (int)n, split > 1 ? ", 4 blocks" : ""),
                        moe_cuda_dense_fast_grid(&a), &a);
}

/* ---- attention ---- */

/* A cache of n sequences of `rows` rows of values of so many bytes; the last row is the token's own.  must:
 * bytes of the floor. */
static struct moe_cuda_latents count_latents(int32_t n, int64_t rows, int bytes, int64_t must)
{
    const int64_t pages = (rows + MOE_PAGE - 1) / MOE_PAGE;
    struct moe_cuda_latents c = { .page_step = MOE_PAGE * WIDTH, .table = pages, .width = WIDTH };
    int32_t page[256], segment[64], pos[64];
    assert(n * pages <= 256 && n <= 64);
    for (int32_t i = 0; i < n * pages; i++) page[i] = (int32_t)(n * pages) - 1 - i;
    for (int32_t t = 0; t < n; t++) segment[t] = t, pos[t] = (int32_t)rows - 1;
    c.rows = count_take(bytes * n * pages * MOE_PAGE * WIDTH, must);
    c.page = count_put(page, 4 * n * pages);
    c.segment = count_put(segment, 4 * n);
    c.pos = count_put(pos, 4 * n);
    return c;
}

static void count_append(int32_t n)
{
    struct moe_cuda_append a = { .n = n, .heads = HEADS, .nope = NOPE, .rope = ROPE, .kl = KL };
    a.cache = count_latents(n, 100, 4, 4 * n * WIDTH);
    a.q = count_take(4 * n * HEADS * (NOPE + ROPE), 8 * n * HEADS * ROPE);
    a.ckv = count_floats(n * WIDTH);
    a.norm = count_floats(KL);
    a.cosine = count_floats(n * ROPE / 2);
    a.sine = count_floats(n * ROPE / 2);
    COUNT_LAUNCH(append, COUNT_SHAPE("%d tokens, %d heads", n, HEADS), a);

    struct moe_cuda_copy_page c = { .layers = 2, .layer_step = MOE_PAGE * WIDTH, .rows = 50, .width = WIDTH };
    c.from = count_take(4 * 2 * MOE_PAGE * WIDTH, 4 * 2 * 50 * WIDTH);
    c.to = count_take(4 * 2 * MOE_PAGE * WIDTH, 4 * 2 * 50 * WIDTH);
    COUNT_LAUNCH(copy_page, COUNT_SHAPE("2 layers, 50 rows of %d", WIDTH), c);
}

static void count_absorb(int64_t n)
{
    const int64_t heads = 4;
    struct moe_cuda_absorb a = { .n = n, .heads = heads, .nope = NOPE, .rope = ROPE };
    a.head_rows = NOPE + VALUE;
    a.w = count_weight(MOE_BF16, heads * a.head_rows, KL, heads * NOPE);
    a.q = count_floats(n * heads * (NOPE + ROPE));
    a.out = count_out(4 * n * heads * WIDTH);
    count_launch(moe_cuda_absorb_kernel(&a),
                 COUNT_SHAPE("BF16, %d heads, %d tokens", (int)heads, (int)n), moe_cuda_absorb_grid(&a), &a);
}

static void count_attend(int32_t n, int64_t heads, int64_t rows, bool split, bool few)
{
    struct moe_cuda_attend a = { .n = n, .heads = heads, .kl = KL, .scale = .07f };
    a.split = split, a.few = few;
    a.cache = count_latents(n, rows, 4, 4 * n * rows * WIDTH);
    a.chunks = moe_cuda_attend_chunks(rows);
    a.q = count_floats(n * heads * WIDTH);
    if (split) {
        a.max = count_out(4 * n * a.chunks * heads);
        a.sum = count_out(4 * n * a.chunks * heads);
        a.part = count_out(4 * n * a.chunks * heads * KL);
    } else {
        a.out = count_out(4 * n * heads * KL);
    }
    count_launch(moe_cuda_attend_kernel(&a),
                 COUNT_SHAPE("%d heads, %d sequences of %d%s", (int)heads, n, (int)rows,
                             split ? ", split" : ""),
                 moe_cuda_attend_grid(&a), &a);
    if (!split) return;
    a.cache = count_latents(n, rows, 4, 0);
    count_must[1] = count_must[2] = 0; /* the merge needs neither pages nor segments */
    a.max = count_floats(n * a.chunks * heads);
    a.sum = count_floats(n * a.chunks * heads);
    a.part = count_floats(n * a.chunks * heads * KL);
    a.out = count_out(4 * n * heads * KL);
    COUNT_LAUNCH(attend_merge, COUNT_SHAPE("%d heads, %d sequences of %d", (int)heads, n, (int)rows), a);
}

/* few: blocks of 16 heads. */
static void count_attend_fast(int64_t heads, int64_t rows, bool bf16, bool few)
{
    struct moe_cuda_attend a = { .n = 1, .heads = heads, .kl = KL, .scale = .07f, .few = few };
    const int bytes = bf16 ? 2 : 4;
    a.cache = count_latents(1, rows, bytes, bytes * rows * WIDTH);
    a.chunks = moe_cuda_attend_fast_chunks(rows);
    a.q = count_floats(heads * WIDTH);
    for (int merge = 0; merge < 2; merge++) {
        a.max = count_out(4 * a.chunks * heads);
        a.sum = count_out(4 * a.chunks * heads);
        a.part = count_out(4 * a.chunks * heads * KL);
        if (!merge)
            count_launch(moe_cuda_attend_fast_kernel(&a, bf16),
                         COUNT_SHAPE("%d heads, 1 sequence of %d", (int)heads, (int)rows),
                         moe_cuda_attend_fast_grid(&a, bf16), &a);
        if (!bf16 || !few) return;
        if (!merge) a.cache = count_latents(1, rows, 2, 0), count_must[1] = count_must[2] = 0;
    }
    a.out = count_out(4 * heads * KL);
    COUNT_LAUNCH(attend_fast_merge, COUNT_SHAPE("%d heads, 1 sequence of %d", (int)heads, (int)rows), a);
}

/* ---- the router and its lists ---- */

static void count_route(int32_t n)
{
    struct moe_cuda_route a = { .n = n, .n_experts = EXPERTS, .top_k = TOP_K, .n_group = 1, .topk_group = 1,
                                .norm_topk_prob = 1, .scale = 2.827f };
    a.logits = count_floats(n * EXPERTS);
    a.bias = count_zeros(4 * EXPERTS);
    a.experts = count_out(4 * n * TOP_K);
    a.weights = count_out(4 * n * TOP_K);
    COUNT_LAUNCH(route, COUNT_SHAPE("%d rows, %d of %d experts", n, TOP_K, EXPERTS), a);
}

static void count_group(int32_t n)
{
    struct moe_cuda_group a = { .pairs = n * TOP_K, .k = TOP_K, .experts = EXPERTS };
    struct moe_cuda_tiles t = { .pairs = a.pairs, .experts = EXPERTS };
    int32_t id[64 * TOP_K], first[EXPERTS + 1] = { 0 }, items = 0;
    for (int32_t i = 0; i < a.pairs; i++) {
        id[i] = (i / TOP_K * 11 + i % TOP_K * 47) % EXPERTS;
        items += !first[id[i]]++; /* no expert has more pairs than an item */
    }
    a.ids = count_put(id, 4 * a.pairs);
    a.first = count_out(4 * (EXPERTS + 1));
    a.pair = count_out(4 * a.pairs);
    a.token = count_out(4 * a.pairs);
    a.items = count_take(16 * MOE_CUDA_BUCKETS * a.pairs, 16 * items);
    a.item_count = count_out(4 * MOE_CUDA_BUCKETS);
    COUNT_LAUNCH(group, COUNT_SHAPE("%d tokens, %d of %d experts", n, TOP_K, EXPERTS), a);

    for (int32_t e = 0, at = 0; e <= EXPERTS; e++) {
        const int32_t here = first[e];
        first[e] = at, at += here;
    }
    t.first = count_put(first, sizeof first);
    t.items = count_take(16 * MOE_CUDA_TILE_LISTS * t.pairs, 16 * items);
    t.item_count = count_out(4 * MOE_CUDA_TILE_LISTS);
    COUNT_LAUNCH(tiles, COUNT_SHAPE("%d pairs, %d experts", t.pairs, EXPERTS), t);
}

/* ---- samples ---- */

/* n rows of logits, of which few are near the largest, as a model's are, or none stands out. */
static uint64_t count_logits(int64_t n, bool flat)
{
    const uint64_t at = count_zeros(4 * n * VOCAB);
    float *logits = (float *)(uintptr_t)at;
    for (int64_t i = 0; i < n * VOCAB; i++) {
        const uint32_t r = (uint32_t)i * 2654435761u;
        logits[i] = (float)(r >> 16 & 255) / 64 + (float)(r >> 24) / 64 + (!flat && r % 50000 == 7 ? 16 : 0);
    }
    return at;
}

/* The three kernels share the arrays, which the next one finds as the one before left them. */
static void count_sample(int64_t n, bool flat)
{
    static const enum moe_cuda_kernel kernel[] = { MOE_CUDA_sample_max, MOE_CUDA_sample_weigh,
                                                   MOE_CUDA_sample_pick };
    struct moe_cuda_drawing d[8] = { { 0 } };
    for (int64_t i = 0; i < n; i++)
        d[i] = (struct moe_cuda_drawing){ .temperature = 1, .top_p = .95f, .draw = 0x9e3779b97f4a7c15u };
    struct moe_cuda_sample a = { .rows = n, .n = VOCAB, .ld = VOCAB };
    const int64_t chunks = n * moe_cuda_sample_chunks(VOCAB), parts = chunks * MOE_CUDA_SAMPLE_PARTS;
    /* of what each kernel needs */
    const int64_t most[] = { 8 * chunks, 8 * chunks, 8 * chunks }, weights[] = { 0, 12 * parts, 12 * parts };
    for (int i = 0; i < 3; i++) {
        a.logits = count_logits(n, flat);
        a.drawing = count_put(d, n * (int64_t)sizeof *d);
        a.ids = count_take(4 * n, i == 2 ? 4 * n : 0);
        count_keep = i > 0;
        a.most = count_take(8 * chunks, most[i]);
        a.weight = count_take(8 * parts, weights[i] / 12 * 8);
        a.count = count_take(4 * parts, weights[i] / 12 * 4);
        count_keep = false;
        count_launch(kernel[i],
                     COUNT_SHAPE("%d rows of %d, top_p, %s", (int)n, VOCAB, flat ? "flat" : "steep"),
                     i < 2 ? moe_cuda_sample_chunk_grid(&a) : moe_cuda_sample_pick_grid(&a), &a);
    }
}

static void count_copy(int64_t bytes)
{
    struct moe_cuda_copy a = { .bytes = bytes };
    a.from = count_zeros(bytes);
    a.to = count_out(bytes);
    COUNT_LAUNCH(copy, COUNT_SHAPE("%d bytes", (int)bytes), a);
}

static void count_probe(int64_t n)
{
    struct moe_cuda_probe a = { .n = n, .what = MOE_CUDA_PROBE_MMA_F16 };
    a.in = count_zeros(4 * 32 * n * MOE_CUDA_PROBE_IN);
    a.out = count_out(4 * 32 * n * MOE_CUDA_PROBE_OUT);
    COUNT_LAUNCH(probe, COUNT_SHAPE("%d products of tensor cores", (int)n), a);
}

static void count_rows(void)
{
    count_denses();
    count_absorb(1);
    count_absorb(8);
    count_append(4);
    count_attend(2, 16, 300, false, false);
    count_attend(1, 16, 600, true, true);
    count_attend_fast(32, 600, false, false);
    count_attend_fast(16, 600, false, true);
    count_attend_fast(64, 600, true, false);
    count_attend_fast(16, 600, true, true);
    count_embed(4);
    count_states(4);
    count_route(4);
    count_group(16);
    count_sample(1, false);
    count_sample(1, true);
    count_copy(1 << 20);
    count_probe(8);
}

#endif
