/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/weight.h - a stored weight in device memory, as kernels take it: struct moe_weight of
 * formats/dtype.h with addresses of the device, and with what the table of types says of its type. */
#ifndef MOE_KERNELS_CUDA_WEIGHT_H
#define MOE_KERNELS_CUDA_WEIGHT_H

#include "kernels/cuda/common.h"

/* The codes that a weight is stored in.  These numbers are in no file. */
enum moe_cuda_codes {
    MOE_CUDA_F32, MOE_CUDA_BF16, MOE_CUDA_F16, MOE_CUDA_FP8, MOE_CUDA_INT4, MOE_CUDA_NVFP4
};

/* How its scales are stored: as enum moe_scale_type. */
enum moe_cuda_scales {
    MOE_CUDA_SCALE_NONE, MOE_CUDA_SCALE_F32, MOE_CUDA_SCALE_BF16, MOE_CUDA_SCALE_F16, MOE_CUDA_SCALE_E8M0,
    MOE_CUDA_SCALE_E4M3
};

/* rows x cols values.  data and scale are the planes as a container holds them; each begins at a multiple of
 * 16 bytes. */
struct moe_cuda_weight {
    MOE_CU(const uint8_t) data;
    MOE_CU(const uint8_t) scale;   /* 0 for a type without scales */
    int64_t rows, cols;
    uint32_t codes;                /* enum moe_cuda_codes */
    uint32_t scales;               /* enum moe_cuda_scales */
    uint32_t shift;                /* 2^shift columns of a row share a scale; 31: all of them */
    uint32_t row_scales;           /* how many scales a row has (or 128 rows of FP8) */
    uint32_t tiled;                /* NVFP4: whether the scales are in tiles of 128 x 4 (formats/dtype.h) */
    uint32_t reciprocal;           /* NVFP4: whether to divide by `global` */
    float global;                  /* NVFP4 */
    uint32_t unused;               /* 0 */
};
static_assert(sizeof(struct moe_cuda_weight) == 64, "the host and the device agree on a weight");

/* For the host alone: of a weight in host memory whose planes are in device memory, too. */
#if !defined(__CUDACC__) && !defined(MOE_CUDA_SHIM)
#include "formats/dtype.h"

static inline struct moe_cuda_weight moe_cuda_weight_of(const struct moe_weight *w, uint64_t data,
                                                        uint64_t scale)
{
    static const uint8_t codes[MOE_DTYPE_COUNT] = { [MOE_F32] = MOE_CUDA_F32,
                                                    [MOE_BF16] = MOE_CUDA_BF16,
                                                    [MOE_F16] = MOE_CUDA_F16,
                                                    [MOE_FP8_B128] = MOE_CUDA_FP8,
                                                    [MOE_INT4_G32] = MOE_CUDA_INT4,
                                                    [MOE_NVFP4] = MOE_CUDA_NVFP4 };
    static_assert((int)MOE_CUDA_SCALE_NONE == (int)MOE_SCALE_NONE &&
                  (int)MOE_CUDA_SCALE_F32 == (int)MOE_SCALE_F32 &&
                  (int)MOE_CUDA_SCALE_BF16 == (int)MOE_SCALE_BF16 &&
                  (int)MOE_CUDA_SCALE_F16 == (int)MOE_SCALE_F16 &&
                  (int)MOE_CUDA_SCALE_E8M0 == (int)MOE_SCALE_E8M0 &&
                  (int)MOE_CUDA_SCALE_E4M3 == (int)MOE_SCALE_E4M3, "types of scales have the same numbers");
    const struct moe_dtype_row *t = &moe_dtypes[w->type];
    return (struct moe_cuda_weight){ .data = data,
                                     .scale = scale,
                                     .rows = w->rows,
                                     .cols = w->cols,
                                     .codes = codes[t->like],
                                     .scales = (uint32_t)t->scale,
                                     .shift = t->group ? (uint32_t)__builtin_ctz((unsigned)t->group) : 31,
                                     .row_scales = (uint32_t)moe_dtype_scales(w->type, w->cols),
                                     .tiled = w->layout == MOE_LAYOUT_TILE_128X4,
                                     .reciprocal = w->reciprocal,
                                     .global = w->global };
}
#endif

#endif
