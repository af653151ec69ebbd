/* SPDX-License-Identifier: Apache-2.0 */
/* model/unit.h - a container's units: which tensors go into which shard file, in which type, and which of
 * them are written together.
 *
 * A unit is what one shard file holds: the routed experts of one layer, or, in the first, all other tensors
 * ("dense").  A unit is divided into items, which threads write independently. */
#ifndef MOE_MODEL_UNIT_H
#define MOE_MODEL_UNIT_H

#include "formats/container/container.h"

/* What one worker writes at a time: the tensors [first, first + n) of the unit.  These are the three tensors
 * of an expert, gate and up of another MLP, or a single tensor. */
struct moe_unit_item {
    int64_t first;
    int n;
    bool share; /* the first two tensors, gate and up, are quantized under one global scale */
};

struct moe_shard_unit {
    char name[MOE_UNIT_NAME_BYTES];
    int layer;                   /* -1: dense */
    int64_t *in;                 /* [n] indices into src->tensors */
    struct moe_tensor *out;      /* [n] as written: type, layout, planes */
    int64_t n;
    struct moe_unit_item *items;
    int64_t n_items;
    struct moe_shard_header header; /* of the shard file */
};

/* The number of units of the container that src becomes. */
int moe_unit_count(const struct moe_source *src);

/* Describes unit `number`, one of [0, moe_unit_count): 0 is dense, then comes every layer with experts,
 * ascending.  type is a precision map of src (moe_precision_map).  u->n is 0 when the map leaves out all of
 * the unit's tensors.  After a failure there is nothing to release. */
enum moe_code moe_unit_open(struct moe_shard_unit *u, const struct moe_source *src, const uint8_t *type,
                            int number, struct moe_err *err);
void moe_unit_release(struct moe_shard_unit *u);

#endif
