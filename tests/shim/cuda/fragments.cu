/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/fragments.cu - single operations on fragments, for tests/kernels/check-mma.c: each warp
 * takes what one row of `in` has for each of its lanes, and stores what the lane gets. */
#include "kernels/cuda/launch.h"

#include "tests/shim/cuda/fragments.h"

KERNEL(fragments_mma, 256) (const struct fragments a)
{
    int64_t at = ((int64_t)blockIdx.x * 8 + warp_id()) * 32 + lane_id();
    const struct fragments_part *p = a.part + at;
    float d[4];
    for (int i = 0; i < 4; i++) d[i] = p->c[i];
    if (a.bf16) mma_16816_bf16(d, p->a, p->b);
    else mma_16816_f16(d, p->a, p->b);
    for (int i = 0; i < 4; i++) a.d[at * 4 + i] = d[i];
}

/* words [4, 32]: what lane l gets of each of the four matrices, whose rows are the 32 rows of 16 bytes. */
KERNEL(fragments_load, 32) (const struct fragments a)
{
    SHARED(uint32_t, rows, 32 * 4);
    uint32_t m[4] = { 0, 0, 0, 0 };
    unsigned l = threadIdx.x;
    for (int i = 0; i < 4; i++) rows[l * 4 + i] = a.rows[l * 4 + i];
    __syncwarp();
    if (a.form == FRAGMENTS_X4) ldmatrix_x4(m, rows + l * 4);
    else if (a.form == FRAGMENTS_X2) ldmatrix_x2(m, rows + l % 16 * 4);
    else if (a.form == FRAGMENTS_TRANS) ldmatrix_x4_trans(m, rows + l * 4);
    else m[0] = movmatrix_trans(a.rows[l / 4 * 4 + l % 4]);
    for (int i = 0; i < 4; i++) a.words[i * 32 + l] = m[i];
}
