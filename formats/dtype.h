/* SPDX-License-Identifier: Apache-2.0 */
/* formats/dtype.h - element types, the planes of which a tensor consists, and the descriptor that kernels
 * read.
 *
 * There is no arithmetic here; formulas are in kernels/. */
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
    int bits;   /* of a weight, without scales */
    int like;   /* enum moe_dtype: the type whose codes it shares */
    int group;  /* columns that share a scale; 0: the whole row */
    enum moe_scale_type scale;
};
extern const struct moe_dtype_row moe_dtypes[MOE_DTYPE_COUNT];

/* The type whose codes `type` shares: F32, BF16, F16, FP8_B128, INT4_G32 or NVFP4. */
static inline int moe_dtype_like(int type) { return moe_dtypes[type].like; }

/* Whether values are stored without scales: F32, BF16, F16.  Vectors are always of such a type. */
static inline bool moe_dtype_plain(int type) { return moe_dtypes[type].scale == MOE_SCALE_NONE; }

/* The number of scales in a row of `cols` columns. */
static inline int64_t moe_dtype_scales(int type, int64_t cols)
{
    int64_t group = moe_dtypes[type].group;
    return group ? (cols + group - 1) / group : 1;
}

/* Bytes of one scale; 0 for MOE_SCALE_NONE. */
int moe_scale_bytes(enum moe_scale_type scale);

/* The planes of which a tensor's storage consists, at most four.  Ids are written to files: append, never
 * renumber. */
enum moe_plane {
    MOE_PLANE_DATA = 0,   /* the codes or values, row-major [rows, cols] */
    MOE_PLANE_SCALE = 1,  /* block or group scales */
    MOE_PLANE_GLOBAL = 2, /* one F32: NVFP4's second-level scale of the weights */
    MOE_PLANE_INPUT = 3,  /* one F32: NVFP4's scale of the activations */
    MOE_PLANE_COUNT
};

/* How the scale plane is laid out.  LINEAR: row-major, one row of scales for each row (or row of blocks) of
 * weights.  TILE_128X4, only for NVFP4: the tiles of 128 rows x 4 scales that tcgen05 and cuBLASLt read; rows
 * are padded to a multiple of 128 and scales of a row to a multiple of 4, with zero bytes.  The scale of row
 * m and block k (columns 16k to 16k + 15) is at byte
 *
 *   (m/128)*KT*512 + (k/4)*512 + (m%32)*16 + ((m%128)/32)*4 + k%4,   KT = ceil((cols/16)/4) */
enum moe_layout { MOE_LAYOUT_LINEAR = 0, MOE_LAYOUT_TILE_128X4 = 1 };

/* One tensor in memory (mapped or read), as kernels take it.  Pointers need no alignment (safetensors has
 * none) and are not owned.  A vector has rows 1. */
struct moe_weight {
    uint8_t type;        /* enum moe_dtype */
    uint8_t layout;      /* enum moe_layout of the scale plane */
    bool reciprocal;     /* NVFP4: divide by global scales (compressed-tensors), not multiply (modelopt) */
    int64_t rows, cols;
    const uint8_t *data;
    const uint8_t *scale;
    float global;        /* NVFP4, as stored */
    float input_scale;   /* NVFP4, as stored; 0 when absent */
};

/* The name in dtype.def; NULL for an id that this build does not know.  moe_dtype_find does the reverse: -1
 * for an unknown name. */
const char *moe_dtype_name(int type);
int moe_dtype_find(const char *name);

/* The type with the codes of `like` and scales of type `scale` for groups of `group` columns (0: whole rows);
 * -1 when there is none. */
int moe_dtype_with(int like, int64_t group, enum moe_scale_type scale);

/* What messages call a plane: "data", "scale", "global scale", "input scale". */
const char *moe_plane_word(int plane);

/* Bytes of one plane of a tensor with rows x cols values; 0 when the type has no such plane.  -1 when the
 * size overflows or rows and cols do not suit the type: both must be at least 1, and cols a multiple of 16
 * for NVFP4, and of 32 and of the group for INT4. */
int64_t moe_plane_bytes(int type, int layout, int plane, int64_t rows, int64_t cols);

/* The byte offset in a TILE_128X4 plane of the scale of row m and block k; blocks = cols / 16. */
static inline size_t moe_tile_offset(size_t m, size_t k, size_t blocks)
{
    size_t kt = (blocks + 3) / 4;
    return (m / 128) * kt * 512 + (k / 4) * 512 + (m % 32) * 16 + ((m % 128) / 32) * 4 + k % 4;
}

#endif
