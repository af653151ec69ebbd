/* SPDX-License-Identifier: Apache-2.0 */
/* model/unit.h - a container's units: which tensors go into which shard file, in which
 * type, and in which items.
 * Inside model/: what rewrite.c and later the calibrating quantizer share. */
#ifndef MOE_MODEL_UNIT_H
#define MOE_MODEL_UNIT_H

#include "formats/container/container.h"

/* What one worker writes at a time: tensors [first, first + n) of the unit.  An expert's three, a gate/up
 * pair, or a single one. */
struct moe_unit_item {
    int64_t first;
    int n;
    bool share; /* tensors 0 and 1 are a gate/up pair that becomes NVFP4 under one global scale */
};

struct moe_shard_unit {
    char name[24];               /* "dense", "layer-001" */
    int layer;                   /* -1: dense */
    int64_t *in;                 /* [n] indices into src->tensors */
    struct moe_tensor *out;      /* [n] as written: type, layout, planes */
    int64_t n;
    struct moe_unit_item *items;
    int64_t n_items;
    struct moe_shard_header header;
};

/* Unit number u in [0, moe_unit_count): dense first, then every layer with experts, ascending.  type as from
 * moe_precision_map; n is 0 when all of its tensors are left out. */
int moe_unit_count(const struct moe_source *src);
enum moe_code moe_unit_open(struct moe_shard_unit *u, const struct moe_source *src, const uint8_t *type,
                            int number, struct moe_err *err);
void moe_unit_release(struct moe_shard_unit *u);

/* "gate", "shared_up", "q_a": a role in reports and manifests. */
const char *moe_role_word(enum moe_role role);

#endif
