/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint/fused.h - routed experts that a checkpoint stores in two tensors for each layer, as
 * transformers 5 does.
 *
 *   model.layers.L.mlp.experts.gate_up_proj  [E, 2I, H]   expert e: I rows of the gate, then I rows of up
 *   model.layers.L.mlp.experts.down_proj     [E, H, I]
 *
 * Each is a sequence of ordinary matrices, here called slices.  A slice gets the name that it has in a
 * checkpoint with one tensor for each expert's matrix.  To read this layout and to write it, the list of
 * slices is all that is needed.  Knows names and shapes, no files. */
#ifndef MOE_FORMATS_CHECKPOINT_FUSED_H
#define MOE_FORMATS_CHECKPOINT_FUSED_H

#include "formats/checkpoint/safetensors.h"
#include "formats/config.h"

/* Bytes of a slice's name with its NUL; a tensor with a longer name is not considered fused. */
enum { MOE_FUSED_NAME = 320 };

struct moe_fused {
    int layer;
    bool down;             /* it is down_proj; else gate_up_proj */
    size_t stem;           /* bytes that the slices' names have in common: up to the dot after "experts" */
    int64_t slices;        /* 2E for gate_up_proj, E for down_proj */
    int64_t rows, cols;    /* of one slice */
};

/* Find out whether this tensor of a checkpoint holds the fused experts of a layer: *is_fused; if it does, *f
 * describes it.  When it has the name of such a tensor but cannot be read as one, the function fails:
 * MOE_UNSUPPORTED (it is quantized or transposed) or MOE_CORRUPT (it has another shape); *err says what is
 * wrong without naming tensor or file, and f->layer and f->down are set. */
enum moe_code moe_fused_parse(const struct moe_config *c, const struct moe_st_entry *e, bool *is_fused,
                              struct moe_fused *f, struct moe_err *err);
/* Describe slice i of the tensor `e`: sets name (its text is stored in `name`), dtype, shape, offset and
 * bytes. */
void moe_fused_slice(const struct moe_fused *f, const struct moe_st_entry *e, int64_t i,
                     char name[MOE_FUSED_NAME], struct moe_st_entry *slice);

#endif
