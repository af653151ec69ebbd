/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/copy.cu - a block copies 16 KiB, neighbouring threads side by side.  A thread has four loads
 * under way before it stores, since host memory answers late; what limits it is the link, not the kernel. */
#include "kernels/cuda/launch.h"

#include "kernels/cuda/copy.h"

/* n units of this type, of which a block copies up to 4 * 256 in a turn. */
#define COPY_UNITS(type, to, from, n)                                              \
    for (int64_t i = threadIdx.x; i < (n); i += 4 * 256) {                         \
        type v[4] = {};                                                            \
        for (int k = 0; k < 4; k++)                                                \
            if (i + k * 256 < (n)) v[k] = ((const type *)(from))[i + k * 256];     \
        for (int k = 0; k < 4; k++)                                                \
            if (i + k * 256 < (n)) ((type *)(to))[i + k * 256] = v[k];             \
    }

KERNEL(moe_cuda_copy, 256) (const struct moe_cuda_copy a)
{
    const int64_t most = MOE_CUDA_COPY_BYTES, first = blockIdx.x * most, left = a.bytes - first,
                  n = left < most ? left : most;
    const uint8_t *from = a.from + first;
    uint8_t *to = a.to + first;
    const unsigned low = ((unsigned)(uintptr_t)from | (unsigned)(uintptr_t)to) & 15;
    int64_t done = 0; /* in units that divide both addresses */
    if (!low) {
        done = n / 16 * 16;
        COPY_UNITS(uint4, to, from, n / 16)
    } else if (!(low & 7)) {
        done = n / 8 * 8;
        COPY_UNITS(uint64_t, to, from, n / 8)
    } else if (!(low & 3)) {
        done = n / 4 * 4;
        COPY_UNITS(uint32_t, to, from, n / 4)
    }
    COPY_UNITS(uint8_t, to + done, from + done, n - done)
}
