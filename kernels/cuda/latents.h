/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/latents.h - where the latent cache of a layer lies in device memory, and which rows of it the
 * tokens of a batch have: struct moe_latent and struct moe_segment of model/ as kernels take them.
 *
 * A row holds `width` float32, or bfloat16 for the kernels that say so, which read `rows` as such.  Position
 * p of token t's sequence is row p % MOE_PAGE of the page whose number is page[segment[t]*table + p /
 * MOE_PAGE], and a page's rows in this layer stand one after the other, from value number * page_step of rows
 * on.  The token's own position is pos[t]. */
#ifndef MOE_KERNELS_CUDA_LATENTS_H
#define MOE_KERNELS_CUDA_LATENTS_H

#include "kernels/attend.h"
#include "kernels/cuda/common.h"

struct moe_cuda_latents {
    MOE_CU(float) rows;
    MOE_CU(const int32_t) page;      /* block tables, [segments, table] */
    MOE_CU(const int32_t) segment;   /* [T] */
    MOE_CU(const int32_t) pos;       /* [T] */
    int64_t page_step, table, width;
};
static_assert(sizeof(struct moe_cuda_latents) == 56, "the host and the device agree on where latents lie");

#if defined(__CUDACC__) || defined(MOE_CUDA_SHIM)
/* Which value of the cache, counted from `rows`, begins page p of token t. */
#define LATENT_PAGE(c, t, p) ((c)->page[(c)->segment[t] * (c)->table + (p)] * (c)->page_step)
#endif

#endif
