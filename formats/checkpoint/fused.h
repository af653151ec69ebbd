/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint/fused.h - routed experts that a checkpoint stores in two tensors a layer, as
 * transformers 5 keeps them.
 *
 *   model.layers.L.mlp.experts.gate_up_proj  [E, 2I, H]   expert e: I rows of the gate, then I rows of up
 *   model.layers.L.mlp.experts.down_proj     [E, H, I]
 *
 * Each is a sequence of ordinary matrices.  A slice is one of them, under the name that it has in a
 * checkpoint with a tensor for each.  This list of slices is all that is needed to read the layout and to
 * write it again.  Knows names and shapes, no files. */
#ifndef MOE_FORMATS_CHECKPOINT_FUSED_H
#define MOE_FORMATS_CHECKPOINT_FUSED_H

#include "formats/checkpoint/safetensors.h"
#include "formats/config.h"

/* The bytes that the name of a slice may take, with its NUL; a tensor with a longer name is not taken for
 * fused. */
enum { MOE_FUSED_NAME = 320 };

struct moe_fused {
    int layer;
    bool down;
    size_t stem;           /* bytes of the name that the slices' names share: up to the dot after "experts" */
    int64_t slices;        /* 2E, or E */
    int64_t rows, cols;    /* of a slice */
};

/* Whether this tensor of a checkpoint holds the experts of a layer that the config calls for.  MOE_OK with
 * *is: it does, and *f says how.  MOE_UNSUPPORTED (quantized, transposed) or MOE_CORRUPT (another shape): it
 * was meant to, and *err says, without naming tensor or file, what is wrong; f->layer and f->down are set. */
enum moe_code moe_fused_parse(const struct moe_config *c, const struct moe_st_entry *e, bool *is,
                              struct moe_fused *f,
                              struct moe_err *err);
/* Slice i of it: name (moves into `name`), dtype, shape, offset, bytes. */
void moe_fused_slice(const struct moe_fused *f, const struct moe_st_entry *e, int64_t i,
                     char name[MOE_FUSED_NAME],
                     struct moe_st_entry *slice);

#endif
