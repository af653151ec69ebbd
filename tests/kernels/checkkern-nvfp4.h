/* SPDX-License-Identifier: Apache-2.0 */
/* tests/kernels/checkkern-nvfp4.h - checks that the quantizers give ref's bytes, whatever the input.
 *
 * ref's search tries all 126 scale codes of a block in double.  The variants try fewer, by estimates in
 * float32; where their bytes are equal, they have missed no better code. */
#ifndef CHECKKERN_NVFP4_H
#define CHECKKERN_NVFP4_H

#include "tests/kernels/checkkern.h"

/* Compares the codes and scales of all blocks.  want: ref's codes of all blocks, then their scales. */
static void compare_blocks(const uint8_t *want, const uint8_t *codes, const uint8_t *scales, size_t blocks,
                           int method, const char *from, const float *x, float global)
{
    for (size_t b = 0; b < blocks; b++)
        CHECK(scales[b] == want[8 * blocks + b] && !memcmp(codes + 8 * b, want + 8 * b, 8),
              "method %d, %s, block %zu of %zu, global %a: scale %#x, ref %#x; first %a %a, largest %a",
              method, from, b, blocks, (double)global, scales[b], want[8 * blocks + b], (double)x[16 * b],
              (double)x[16 * b + 1], (double)variants[REF].k.amax(x + 16 * b, 16));
}

/* Compares all methods, from float32 and then from bf16, with ref on the float32 values; x is rounded to
 * bf16. */
static void compare_nvfp4(const struct variant *v, float *x, int64_t n, float global)
{
    size_t blocks = (size_t)n / 16;
    uint8_t *want = malloc(9 * blocks + 1), *codes = guarded_buffer(8 * blocks, 0),
            *scales = guarded_buffer(blocks, 0), *h = guarded_buffer(2 * (size_t)n, (size_t)random_below(3));
    assert(want);
    for (int half = 0; half < 2; half++) {
        for (int64_t i = 0; half && i < n; i++) {
            uint16_t b = moe_f32_to_bf16(x[i]);
            memcpy(h + 2 * i, &b, 2);
            x[i] = moe_bf16_to_f32(b);
        }
        for (enum moe_nvfp4_method m = MOE_NVFP4_MAX; m <= MOE_NVFP4_SEARCH; m++) {
            variants[REF].k.nvfp4_quantize(m, x, n, global, want, want + 8 * blocks);
            memset(codes, 0xaa, 8 * blocks), memset(scales, 0xaa, blocks);
            if (half) v->k.nvfp4_quantize_bf16(m, h, n, global, codes, scales);
            else v->k.nvfp4_quantize(m, x, n, global, codes, scales);
            compare_blocks(want, codes, scales, blocks, (int)m, half ? "bf16" : "f32", x, global);
        }
    }
    free(want);
}

/* Fills each block with few multiples of one number, as INT4 weights are.  Then a scale code and its half tie
 * exactly, and others nearly. */
static void fill_int4(float *x, int64_t n, float global)
{
    for (int64_t b = 0; b < n; b += 16) {
        float s = moe_bf16_to_f32(
            moe_f32_to_bf16(ldexpf(global, (int)random_below(8)) * (1 + fabsf(random_uniform()))));
        int64_t most = 1 + random_below(8);
        for (int64_t i = b; i < b + 16; i++) x[i] = (float)(random_below(2 * most + 1) - most) * s;
    }
}

/* Fills with values on the grid and the ties of a random scale, or an ulp beside: where codes are hardest to
 * tell apart.  The largest scales are among them, above which there is none. */
static void fill_grid(float *x, int64_t n, float global)
{
    static const float grid[] = { 0, .25f, .5f, .75f, 1, 1.25f, 1.5f, 1.75f, 2, 2.5f, 3, 3.5f, 4, 5, 6, 7 };
    for (int64_t b = 0; b < n; b += 16) {
        float s = moe_e4m3_to_f32((uint8_t)(1 + random_below(126))) * global;
        int64_t few = 1 + random_below(16), off = random_below(3), far = random_below(3);
        for (int64_t i = b; i < b + 16; i++) {
            float f = grid[random_below(few)] * s * (random_below(2) ? 1.0f : -1.0f);
            x[i] =
                off == 0 || f == 0
                    ? f
                    : moe_f32_from_bits(moe_f32_bits(f) + (uint32_t)(off == 1 ? random_below(3) - 1
                                                                              : random_below(2001) - 1000));
        }
        /* one value past the grid, as far as a search looks and farther */
        if (far == 0) x[b + random_below(16)] = s * (6 + 3 * random_uniform());
    }
}

/* Fills blocks with several distributions, of every magnitude relative to the global scale, from far below
 * the smallest block scale to above the largest. */
static void fill_regions(float *x, int64_t n, float global)
{
    for (int64_t b = 0; b < n; b += 16) {
        float size = ldexpf(global, (int)random_below(26) - 13);
        int64_t kind = random_below(5);
        for (int64_t i = b; i < b + 16; i++) {
            float u = kind == 0 ? random_normal()
                    : kind == 1 ? random_uniform()
                    : kind == 2 ? random_uniform() * random_uniform() * random_uniform()
                    : kind == 3 ? (float)(random_below(15) - 7) / 7
                                : (random_below(4) ? 0.17f : 1.0f) * random_uniform();
            x[i] = u * size;
        }
        if (kind == 4) x[b + random_below(16)] = size;
    }
}

static void check_nvfp4_quantize(const struct variant *v)
{
    static const float globals[] = { 0x1p-126f, 0x1p-100f, 0x1p-61f, 1e-4f,    3e-7f,    1,
                                     0.00123f,  1e10f,     0x1p61f,  0x1p120f, 0x1p-140f };
    for (int64_t blocks = 0; blocks < 40; blocks++)
        for (enum pattern p = 0; p < PATTERNS; p++) {
            snprintf(now_case, sizeof now_case, "%s, %d blocks", pattern_name[p], (int)blocks);
            float *x = guarded_floats(16 * blocks);
            fill(x, 16 * blocks, p);
            compare_nvfp4(
                v, x, 16 * blocks,
                moe_nvfp4_global(v->k.amax(x, 16 * blocks), (enum moe_nvfp4_method)random_below(3)));
            compare_nvfp4(v, x, 16 * blocks, globals[random_below(sizeof globals / sizeof *globals)]);
            free_buffers();
        }
    for (int round = 0; round < 80; round++) {
        enum { BLOCKS = 1000 };
        float *x = guarded_buffer(64 * BLOCKS, 4 * (size_t)random_below(16)),
              global = ldexpf(1 + .999f * fabsf(random_uniform()), -(int)random_below(30));
        snprintf(now_case, sizeof now_case, "round %d", round);
        (round % 5 == 4 ? fill_int4 : round % 2 ? fill_grid : fill_regions)(x, 16 * BLOCKS, global);
        compare_nvfp4(v, x, 16 * BLOCKS, global);
        free_buffers();
    }
}

#endif
