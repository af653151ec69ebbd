/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/body/gemm.h - the general matrix product.  Included once by each kernels/<isa>/gemm.c, after its
 * lanes.h and after it has set GEMM_ROWS and GEMM_WIDE: the register tile is GEMM_ROWS rows of c by
 * GEMM_WIDE * 16 columns.
 *
 * Both operands are first copied into panels that the tile reads in order: a by GEMM_ROWS rows, b by
 * GEMM_WIDE * 16 columns, each with zeros past its end.  This is the scheme of Goto and van de Geijn, Anatomy
 * of High-Performance Matrix Multiplication, 2008. */
#include <string.h>

enum {
    GEMM_DEPTH = 256, /* columns of a, and rows of b, of a panel */
    GEMM_M = 96,      /* rows of a of a panel */
    GEMM_N = 192,     /* columns of b of a panel */
    GEMM_LANES = 16 * GEMM_WIDE
};

struct gemm_panels {
    float a[GEMM_M * GEMM_DEPTH]; /* [m / GEMM_ROWS][k][GEMM_ROWS] */
    float b[GEMM_N * GEMM_DEPTH]; /* [n / GEMM_LANES][k][GEMM_LANES] */
};

static void gemm_pack_a(float *to, const float *a, int64_t ai, int64_t ap, int64_t m, int64_t k)
{
    for (int64_t i0 = 0; i0 < m; i0 += GEMM_ROWS)
        for (int64_t p = 0; p < k; p++)
            for (int64_t i = i0; i < i0 + GEMM_ROWS; i++) *to++ = i < m ? a[i * ai + p * ap] : 0;
}

static void gemm_pack_b(float *to, const float *b, int64_t bp, int64_t n, int64_t k)
{
    for (int64_t j0 = 0; j0 < n; j0 += GEMM_LANES)
        for (int64_t p = 0; p < k; p++, to += GEMM_LANES)
            EACH(v, GEMM_WIDE) {
                int64_t left = n - j0 - v * 16;
                vf_store(to + v * 16, left >= 16 ? vf_load(b + p * bp + j0 + v * 16)
                                      : left > 0 ? vf_loadn(b + p * bp + j0 + v * 16, left)
                                                 : vf_zero());
            }
}

/* One register tile: c [m <= GEMM_ROWS][n <= GEMM_LANES] += alpha * a b over k, of panels' strips a and b. */
LANE void gemm_tile(const float *a, const float *b, int64_t k, float alpha, float *c, int64_t ldc, int64_t m,
                    int64_t n)
{
    vf sum[GEMM_ROWS][GEMM_WIDE], x = vf_set(alpha);
    EACH(i, GEMM_ROWS)
        EACH(v, GEMM_WIDE) sum[i][v] = vf_zero();
    for (int64_t p = 0; p < k; p++) {
        vf w[GEMM_WIDE];
        EACH(v, GEMM_WIDE) w[v] = vf_load(b + p * GEMM_LANES + v * 16);
        EACH(i, GEMM_ROWS) {
            vf s = vf_set(a[p * GEMM_ROWS + i]);
            EACH(v, GEMM_WIDE) sum[i][v] = vf_fma(s, w[v], sum[i][v]);
        }
    }
    EACH(i, GEMM_ROWS) {
        if (i >= m) continue;
        EACH(v, GEMM_WIDE) {
            int64_t left = n - v * 16;
            float *at = c + i * ldc + v * 16;
            if (left >= 16) vf_store(at, vf_add(vf_load(at), vf_mul(x, sum[i][v])));
            else if (left > 0) vf_storen(at, left, vf_add(vf_loadn(at, left), vf_mul(x, sum[i][v])));
        }
    }
}

void VARIANT(gemm)(int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t ai, int64_t ap,
                   const float *b, int64_t bp, float *c, int64_t ldc)
{
    struct gemm_panels s;
    for (int64_t j0 = 0; j0 < n; j0 += GEMM_N)
        for (int64_t p0 = 0; p0 < k; p0 += GEMM_DEPTH) {
            int64_t nn = n - j0 < GEMM_N ? n - j0 : GEMM_N, kk = k - p0 < GEMM_DEPTH ? k - p0 : GEMM_DEPTH;
            gemm_pack_b(s.b, b + p0 * bp + j0, bp, nn, kk);
            for (int64_t i0 = 0; i0 < m; i0 += GEMM_M) {
                int64_t mm = m - i0 < GEMM_M ? m - i0 : GEMM_M;
                gemm_pack_a(s.a, a + i0 * ai + p0 * ap, ai, ap, mm, kk);
                for (int64_t j = 0; j < nn; j += GEMM_LANES)
                    for (int64_t i = 0; i < mm; i += GEMM_ROWS)
                        gemm_tile(s.a + i * kk, s.b + j * kk, kk, alpha, c + (i0 + i) * ldc + j0 + j, ldc,
                                  mm - i, nn - j);
            }
        }
}
