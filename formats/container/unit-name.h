/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/unit-name.h - the names of a container's units, and of the shard file and the journal of
 * each: "dense" has dense.moe and dense.json, layer 1 is "layer-001". */
#ifndef MOE_FORMATS_CONTAINER_UNIT_NAME_H
#define MOE_FORMATS_CONTAINER_UNIT_NAME_H

#include <stdbool.h>
#include <stddef.h>

enum { MOE_UNIT_NAME_BYTES = 24 }; /* with the NUL */

/* Write the name of the unit of a layer; -1 is dense. */
void moe_unit_name(int layer, char name[MOE_UNIT_NAME_BYTES]);
/* Whether n bytes at s are the name of a unit. */
bool moe_is_unit_name(const char *s, size_t n);
/* Order names of units: dense, then layers by number; as strcmp. */
int moe_unit_name_compare(const char *a, const char *b);

/* Whether a file of this name was written for a unit, by this version or an older one. */
bool moe_is_unit_file(const char *name);
/* The layer in the name of a shard file, -1 for dense.moe; -2 for a name that no shard has. */
int moe_shard_name_layer(const char *name);

#endif
