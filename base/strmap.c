/* SPDX-License-Identifier: Apache-2.0 */
#include "base/strmap.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

struct moe_strmap_slot { const void *key; size_t len; uint64_t hash; int64_t value; }; /* key NULL: free */

/* The slot of a key, or the free one where it would be put; cap is a power of two, and a slot is free. */
static struct moe_strmap_slot *find(struct moe_strmap_slot *slots, size_t cap, const void *key, size_t len,
                                    uint64_t hash)
{
    for (size_t i = hash & (cap - 1); ; i = (i + 1) & (cap - 1)) {
        struct moe_strmap_slot *s = &slots[i];
        if (!s->key || (s->hash == hash && s->len == len && !memcmp(s->key, key, len))) return s;
    }
}

/* Double the slots; -1 when out of memory. */
static int grow(struct moe_strmap *m)
{
    size_t cap = m->cap ? 2 * m->cap : 64;
    struct moe_strmap_slot *slots = calloc(cap, sizeof *slots);
    if (!slots) return -1;
    for (size_t i = 0; i < m->cap; i++)
        if (m->slots[i].key)
            *find(slots, cap, m->slots[i].key, m->slots[i].len, m->slots[i].hash) = m->slots[i];
    free(m->slots);
    m->slots = slots;
    m->cap = cap;
    return 0;
}

int moe_strmap_add(struct moe_strmap *m, const void *key, size_t len, int64_t value, int64_t *old)
{
    if (m->count * 3 >= m->cap * 2 && grow(m)) return -1;
    uint64_t hash = moe_hash64(key, len);
    struct moe_strmap_slot *s = find(m->slots, m->cap, key, len, hash);
    if (s->key) {
        if (old) *old = s->value;
        return 0;
    }
    *s = (struct moe_strmap_slot){ key, len, hash, value };
    m->count++;
    return 1;
}

int64_t moe_strmap_get(const struct moe_strmap *m, const void *key, size_t len)
{
    if (!m->cap) return -1;
    const struct moe_strmap_slot *s = find(m->slots, m->cap, key, len, moe_hash64(key, len));
    return s->key ? s->value : -1;
}

void moe_strmap_release(struct moe_strmap *m)
{
    free(m->slots);
    *m = (struct moe_strmap){ 0 };
}
