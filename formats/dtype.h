/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dtype.h - element types, the planes a tensor is made of, and the descriptor that kernels read.
 *
 * No arithmetic here.  Formulas are in kernels/. */
#ifndef MOE_FORMATS_DTYPE_H
#define MOE_FORMATS_DTYPE_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum moe_dtype {
#define DTYPE(ID, name, id, bits, like, group, scale) MOE_##ID = id,
#include "formats/dtype.def"
#undef DTYPE
    MOE_DTYPE_COUNT
};

/* How block and group scales are stored. */
enum moe_scale_type {
    MOE_SCALE_NONE, MOE_SCALE_F32, MOE_SCALE_BF16, MOE_SCALE_F16,
    MOE_SCALE_E8M0, /* a byte: the exponent of a power of two, bias 127; 255 is NaN */
    MOE_SCALE_E4M3
};

/* A row of dtype.def. */
struct moe_dtype_row {
    const char *name;
    int bits;   /* a weight without scales */
    int like;   /* enum moe_dtype: the type whose codes it shares */
    int group;  /* columns that share a scale; 0: a whole row */
    enum moe_scale_type scale;
};
extern const struct moe_dtype_row moe_dtypes[MOE_DTYPE_COUNT];

/* Of a type below MOE_DTYPE_COUNT: F32, BF16, F16, FP8_B128, INT4_G32 or NVFP4. */
static inline int moe_dtype_like(int type) { return moe_dtypes[type].like; }

/* Whether a value is stored by itself, without scales: F32, BF16, F16.  Vectors are of no other type. */
static inline bool moe_dtype_plain(int type) { return moe_dtypes[type].scale == MOE_SCALE_NONE; }

/* Scales in a row of `cols` columns. */
static inline int64_t moe_dtype_scales(int type, int64_t cols)
{
    int64_t group = moe_dtypes[type].group;
    return group ? (cols + group - 1) / group : 1;
}

/* Bytes of one scale; 0 for MOE_SCALE_NONE. */
int moe_scale_bytes(enum moe_scale_type scale);

/* A tensor is stored as up to four planes.  Ids are written to files: append, never renumber. */
enum moe_plane {
    MOE_PLANE_DATA = 0,   /* the codes or values, row-major [rows, cols] */
    MOE_PLANE_SCALE = 1,  /* block or group scales */
    MOE_PLANE_GLOBAL = 2, /* F32: NVFP4 second-level scale */
    MOE_PLANE_INPUT = 3,  /* F32: NVFP4 activation scale */
    MOE_PLANE_COUNT
};

/* How the scale plane lies.  LINEAR: row-major, one row of scales for each row (or row of blocks) of weights.
 * TILE_128X4, of NVFP4 alone: the 128x4 tiles that tcgen05 and cuBLASLt read, with rows padded to a multiple
 * of 128 and blocks to one of 4 by zero bytes.  The scale of row m and block k (16 columns) lies at byte
 *
 *   (m/128)*KT*512 + (k/4)*512 + (m%32)*16 + ((m%128)/32)*4 + k%4,   KT = ceil((cols/16)/4) */
enum moe_layout { MOE_LAYOUT_LINEAR = 0, MOE_LAYOUT_TILE_128X4 = 1 };

/* One tensor as it lies in memory (mapped or read): what kernels take.  Pointers need no alignment
 * (safetensors has none) and are not owned.  A vector is rows 1. */
struct moe_weight {
    uint8_t type;        /* enum moe_dtype */
    uint8_t layout;      /* enum moe_layout of the scale plane */
    bool reciprocal;     /* NVFP4: globals divide (compressed-tensors) and do not multiply (modelopt) */
    int64_t rows, cols;
    const uint8_t *data;
    const uint8_t *scale;
    float global;        /* NVFP4, as stored */
    float input_scale;   /* NVFP4, as stored; 0 when absent */
};

/* The name in dtype.def; NULL for an id this build does not know.  And back: -1 when unknown. */
const char *moe_dtype_name(int type);
int moe_dtype_find(const char *name);

/* The type that has the codes of `like`, and scales of type `scale` for groups of `group` columns (0: for
 * rows).  There may be none: -1. */
int moe_dtype_with(int like, int64_t group, enum moe_scale_type scale);

/* What messages call a plane: "data", "scale", "global scale", "input scale". */
const char *moe_plane_word(int plane);

/* Bytes of one plane of a rows x cols tensor, 0 when the type has no such plane; -1 when the size overflows,
 * or rows and cols do not suit the type: both are at least 1, and cols a multiple of 16 for NVFP4, of 32 and
 * of the group for INT4. */
int64_t moe_plane_bytes(int type, int layout, int plane, int64_t rows, int64_t cols);

/* The byte offset in a TILE_128X4 plane of the scale of row m and block k; blocks = cols / 16. */
static inline size_t moe_tile_offset(size_t m, size_t k, size_t blocks)
{
    size_t kt = (blocks + 3) / 4;
    return (m / 128) * kt * 512 + (k / 4) * 512 + (m % 32) * 16 + ((m % 128) / 32) * 4 + k % 4;
}

#endif
