/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/fragments.h - what fragments.cu and its check share. */
#ifndef MOE_TESTS_SHIM_CUDA_FRAGMENTS_H
#define MOE_TESTS_SHIM_CUDA_FRAGMENTS_H

#include <stdint.h>

enum fragments_form { FRAGMENTS_X4, FRAGMENTS_X2, FRAGMENTS_TRANS, FRAGMENTS_MOVE };
struct fragments_part { uint32_t a[4], b[2]; float c[4]; }; /* of one lane */
struct fragments {
    const struct fragments_part *part; /* [8 * blocks, 32] */
    float *d;                          /* [8 * blocks, 32, 4] */
    const uint32_t *rows;              /* [32, 4] */
    uint32_t *words;                   /* [4, 32] */
    int bf16, form;
};

#endif
