/* SPDX-License-Identifier: Apache-2.0 */
/* base/strmap.h - a hash map from byte strings to integers, for look-ups by name in files of any size. */
#ifndef MOE_BASE_STRMAP_H
#define MOE_BASE_STRMAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zero-initialised it is empty.  cap: slots, 0 or a power of two; count: keys. */
struct moe_strmap { struct moe_strmap_slot *slots; size_t cap, count; };

/* Add key -> value (0 or more); the key is not copied and must outlive the map.  Returns 1 when it was added,
 * 0 when the key exists already (its value is kept and stored in *old unless NULL), -1 when out of memory. */
int moe_strmap_add(struct moe_strmap *m, const void *key, size_t len, int64_t value, int64_t *old);
/* The value of a key; -1 when the map does not have it. */
int64_t moe_strmap_get(const struct moe_strmap *m, const void *key, size_t len);
void moe_strmap_release(struct moe_strmap *m);

#endif
