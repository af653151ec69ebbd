/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/planted.h - what planted.cu and its check share. */
#ifndef MOE_TESTS_SHIM_CUDA_PLANTED_H
#define MOE_TESTS_SHIM_CUDA_PLANTED_H

enum { PLANTED_THREADS = 256 };

enum planted_fault {
    FAULT_NONE, FAULT_NO_BARRIER, FAULT_NO_SYNCWARP, FAULT_NO_WAIT, FAULT_WAIT_FEWER, FAULT_REFILL,
    FAULT_LEAVES, FAULT_DIVERGENT, FAULT_OTHER_OPERATION, FAULT_MASK, FAULT_ALIGNMENT, FAULT_READ_BOUNDS,
    FAULT_SHARED_BOUNDS, FAULT_FRAGMENT, FAULT_RESULT
};
struct planted { const float *in, *in2; float *out; int n, fault; };

#endif
