/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/many.h"

#include "base/minmax.h"
#include "kernels/kernels.h"

#include <string.h>

/* A panel of w is transposed to [COLUMNS][ROWS], as gemm wants it; ROWS is what gemm packs at once.  It is
 * dequantized by strips of rows. */
enum { ROWS = 192, COLUMNS = 256, STRIP = 16 };

void moe_dequantize_many(const struct moe_weight *w, int64_t r0, int64_t r1, float *out)
{
    const struct moe_kernels *k = moe_kernels();
    if ((r1 - r0) * w->cols > 4 << 20) k->dequantize_nt(w, r0, r1, out);
    else
        for (int64_t r = r0; r < r1; r++) k->dequantize(w, r, 0, w->cols, out + (r - r0) * w->cols);
}


/* Columns [c0, c0 + columns) of rows [r0, r0 + rows), transposed, into the panel. */
static void load(const struct moe_kernels *k, const struct moe_weight *w, int64_t r0, int64_t rows,
                 int64_t c0, int64_t columns, float *panel)
{
    float strip[STRIP][COLUMNS];
    for (int64_t r = 0; r < rows; r += STRIP) {
        int64_t m = moe_min_i64(STRIP, rows - r);
        for (int64_t i = 0; i < m; i++) k->dequantize(w, r0 + r + i, c0, columns, strip[i]);
        for (int64_t c = 0; c < columns; c++)
            for (int64_t i = 0; i < m; i++) panel[c * ROWS + r + i] = strip[i][c];
    }
}

void moe_matmul_many(const struct moe_weight *w, int64_t r0, int64_t r1, const float *x, int64_t ldx,
                     int64_t n, float *y, int64_t ldy)
{
    const struct moe_kernels *k = moe_kernels();
    float panel[COLUMNS * ROWS];
    for (int64_t t = 0; t < n; t++) memset(y + t * ldy, 0, (size_t)(r1 - r0) * sizeof *y);
    for (int64_t r = r0; r < r1; r += ROWS)
        for (int64_t c = 0; c < w->cols; c += COLUMNS) {
            int64_t rows = moe_min_i64(ROWS, r1 - r), columns = moe_min_i64(COLUMNS, w->cols - c);
            load(k, w, r, rows, c, columns, panel);
            k->gemm(n, rows, columns, 1, x + c, ldx, 1, panel, ROWS, y + r - r0, ldy);
        }
}
