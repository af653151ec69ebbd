/* SPDX-License-Identifier: Apache-2.0 */
/* Checks that a GPU reads rows of an embedding as `dequantize` of AVX2 does, bit for bit, of every stored
 * type and with every code; and that a token outside the vocabulary gives NaN. */
#include "tests/kernels/cuda-harness.h"

#include "formats/dtype.h"
#include "kernels/cuda/embed.h"

enum { TOKENS = 7, MOST_COLS = 2600, MOST_ROWS = 300, BYTES = MOST_ROWS * MOST_COLS * 4 };
static uint8_t data[BYTES], scale[BYTES];
static float got[TOKENS * MOST_COLS], want[MOST_COLS];


/* A weight of random bytes, so of any code and any scale, NaN among them. */
static struct moe_weight random_weight(int type, int64_t most_cols)
{
    const int64_t group = moe_dtypes[type].group,
                  unit = type == MOE_NVFP4                        ? 16
                       : moe_dtype_like(type) != MOE_INT4_G32 ? 1
                       : group                                  ? group
                                                                : 32;
    struct moe_weight w = { .type = (uint8_t)type, .data = data, .scale = scale };
    w.rows = 1 + random_below(MOST_ROWS);
    w.cols = (1 + random_below(most_cols / unit)) * unit;
    w.layout = type == MOE_NVFP4 && random_below(2) ? MOE_LAYOUT_TILE_128X4 : MOE_LAYOUT_LINEAR;
    w.reciprocal = random_below(2);
    w.global = w.reciprocal ? 3000.0f : 1.0f / 3000;
    for (int64_t i = 0; i < moe_plane_bytes(type, w.layout, MOE_PLANE_DATA, w.rows, w.cols); i++)
        data[i] = (uint8_t)random_below(256);
    for (int64_t i = 0; i < moe_plane_bytes(type, w.layout, MOE_PLANE_SCALE, w.rows, w.cols); i++)
        scale[i] = (uint8_t)random_below(256);
    return w;
}

static void run(const struct moe_weight *w, const int32_t *token, int64_t n)
{
    const int64_t bytes = moe_plane_bytes(w->type, w->layout, MOE_PLANE_DATA, w->rows, w->cols),
                  scales = moe_plane_bytes(w->type, w->layout, MOE_PLANE_SCALE, w->rows, w->cols);
    struct moe_cuda_embed a = { .n = n };
    a.w = moe_cuda_weight_of(w, cuda_in(data, (size_t)bytes), scales ? cuda_in(scale, (size_t)scales) : 0);
    a.token = cuda_in(token, 4 * (size_t)n);
    a.out = cuda_out(4 * (size_t)(n * w->cols));
    CUDA_LAUNCH(embed, a);
    cuda_get(got, a.out, 4 * (size_t)(n * w->cols));
    cuda_free_all();
}

static void check_type(int type, int64_t most_cols)
{
    struct moe_weight w = random_weight(type, most_cols);
    const int64_t n = 1 + random_below(TOKENS);
    int32_t token[TOKENS];
    for (int64_t t = 0; t < n; t++) token[t] = (int32_t)(t ? random_below(w.rows) : w.rows - 1);
    if (n > 2) token[1] = random_below(2) ? -1 : (int32_t)w.rows;
    CUDA_CASE("embed: %s%s%s [%" PRId64 ", %" PRId64 "]", moe_dtype_name(type), w.layout ? " in tiles" : "",
              w.reciprocal ? ", reciprocal" : "", w.rows, w.cols);
    run(&w, token, n);
    for (int64_t t = 0; t < n; t++) {
        const bool there = token[t] >= 0 && token[t] < w.rows;
        if (there) cuda_avx2.dequantize(&w, token[t], 0, w.cols, want);
        for (int64_t i = 0; i < w.cols; i++) {
            const float g = got[t * w.cols + i];
            CUDA_CHECK(there ? same_bits(&g, &want[i], 1) : isnan(g),
                       "token %d, column %" PRId64 " is %a, and has to be %a", token[t], i, (double)g,
                       there ? (double)want[i] : (double)NAN);
        }
    }
}

static void check(void)
{
    for (int type = 0; type < MOE_DTYPE_COUNT; type++)
        for (int i = 0; i < 9; i++) check_type(type, i ? 700 : MOST_COLS);
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
