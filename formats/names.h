/* SPDX-License-Identifier: Apache-2.0 */
/* formats/names.h - which tensor and plane the name of a tensor in a checkpoint stands for.
 *
 * A name may begin with `model.`, `language_model.model.` or `language_model.`, which mean the same.  Knows
 * names, no files. */
#ifndef MOE_FORMATS_NAMES_H
#define MOE_FORMATS_NAMES_H

#include "formats/source.h"

/* The last component of a name. */
enum moe_part {
    MOE_PART_WEIGHT,
    MOE_PART_PACKED,
    MOE_PART_SCALE_INV,
    MOE_PART_SCALE,
    MOE_PART_SCALE_2,
    MOE_PART_INPUT_SCALE,
    MOE_PART_GLOBAL_SCALE,
    MOE_PART_INPUT_GLOBAL_SCALE,
    MOE_PART_SHAPE,
    MOE_PART_COUNT
};

struct moe_name {
    enum moe_role role;
    int layer, expert; /* -1: the tensor belongs to no layer, or to no expert */
    enum moe_part part;
};

/* Parse a tensor's name; false for one that no tensor of the K2 family has.  It is not compared with a
 * config: layer may be any number below 2^15, expert any below 2^24. */
bool moe_name_parse(const char *name, struct moe_name *n);

/* The layer in a name; -1 when it has none.  *tail: the rest of the name after the layer's number and its
 * dot. */
int moe_name_layer(const char *name, const char **tail);

/* The plane that a name stands for in a tensor of this type; -1 for none. */
int moe_name_plane(const struct moe_name *n, int type);

const char *moe_part_name(enum moe_part part); /* "weight_scale_inv" */

/* The reason why a tensor of this name is not used: "vision", "rotary buffer", "multi-token prediction", "kv
 * scale", "weight_shape".  NULL when no such reason applies. */
const char *moe_name_skip_reason(const struct moe_config *c, const char *name);

#endif
