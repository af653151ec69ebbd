/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/list.c - the kernels of kernels/cuda/cuda.def, by name. The Makefile includes the headers
 * of kernels/cuda before it, which declare the kernels' arguments. */
#include "tests/shim/cuda/shim.h"

#include <string.h>

#define CUDA_KERNEL(name, arguments, threads)         \
    void moe_cuda_##name(const struct arguments a);   \
    static void run_##name(const void *a) { moe_cuda_##name(*(const struct arguments *)a); }
#include "kernels/cuda/cuda.def"
#undef CUDA_KERNEL

#define CUDA_KERNEL(name, arguments, threads) \
    { "moe_cuda_" #name, run_##name, sizeof(struct arguments), threads },
static const struct shim_kernel list[] = {
#include "kernels/cuda/cuda.def"
};

const struct shim_kernel *shim_find(const char *name)
{
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (!strcmp(list[i].name, name)) return &list[i];
    return NULL;
}
