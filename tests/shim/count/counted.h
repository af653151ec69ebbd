/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/count/counted.h - what counted.cu and its check share. */
#ifndef MOE_TESTS_SHIM_COUNTED_H
#define MOE_TESTS_SHIM_COUNTED_H

enum { COUNTED_THREADS = 64 };

/* How the lanes of a warp spread over memory. */
enum counted_form {
    COUNTED_NEIGHBOURS, COUNTED_EVERY_SECOND, COUNTED_EVERY_SECTOR, COUNTED_EVERY_BANK, COUNTED_SHIFTED,
    COUNTED_SAME, COUNTED_VECTORS, COUNTED_VECTORS_APART, COUNTED_HALF, COUNTED_PARTED, COUNTED_MATRICES,
    COUNTED_MATRICES_APART
};
struct counted_args { const float *in; float *out; int form; };

#endif
