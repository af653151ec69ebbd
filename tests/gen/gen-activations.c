/* SPDX-License-Identifier: Apache-2.0 */
/* gen-activations OUT.safetensors
 *
 * Writes activations as this project's NVFP4 products see them: for each matrix N.x, with the input scale
 * N.scale, the result N.out. */
#undef NDEBUG
#include "formats/checkpoint/safetensors.h"
#include "kernels/kernels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 128, COLS = 512, SETS = 4 };
static const float scales[SETS] = { 0.0019f, 0.03f, 1, 3e-6f };

/* Blocks from far below what the scale resolves to beyond what it holds; one value in 64 is large. */
static float value(uint64_t *seed, int row, float scale)
{
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        *seed = *seed * 6364136223846793005u + 1442695040888963407u;
        sum += (float)((double)(*seed >> 11) * 0x1p-53 - 0.5);
    }
    return ldexpf(sum * (*seed >> 40 & 63 ? 1.0f : 9.0f) * scale, row % 24 - 9);
}

int main(int argc, char **argv)
{
    static float x[ROWS * COLS], out[ROWS * COLS];
    struct moe_err err = MOE_ERR_INIT;
    struct moe_st_writer *w;
    struct moe_st_entry e[3 * SETS];
    char names[3 * SETS][16];
    if (argc != 2) return 2;
    for (int s = 0; s < 3 * SETS; s++) {
        snprintf(names[s], sizeof names[s], "%d.%s", s / 3, s % 3 == 0 ? "x" : s % 3 == 1 ? "scale" : "out");
        e[s] = (struct moe_st_entry){ .name = names[s],
                                      .dtype = "F32",
                                      .ndim = s % 3 == 1 ? 1 : 2,
                                      .shape = { s % 3 == 1 ? 1 : ROWS, COLS } };
    }
    enum moe_code code = moe_st_create(&w, argv[1], e, 3 * SETS, &err);
    uint64_t seed = 7;
    for (int s = 0; s < SETS && code == MOE_OK; s++) {
        for (int i = 0; i < ROWS * COLS; i++) x[i] = value(&seed, i / COLS, scales[s] * 6);
        for (int r = 0; r < ROWS; r++)
            moe_kernels()->nvfp4_activations(x + r * COLS, COLS, scales[s], out + r * COLS);
        code = moe_st_write(w, x, sizeof x, &err);
        if (code == MOE_OK) code = moe_st_write(w, &scales[s], sizeof scales[s], &err);
        if (code == MOE_OK) code = moe_st_write(w, out, sizeof out, &err);
    }
    if (code == MOE_OK) code = moe_st_finish(&w, &err);
    if (code != MOE_OK) fprintf(stderr, "%s\n", err.msg);
    return code;
}
