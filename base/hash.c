/* SPDX-License-Identifier: Apache-2.0 */
#include "base/hash.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

struct moe_hash { XXH3_state_t *state; };

uint64_t moe_hash64(const void *data, size_t bytes) { return XXH3_64bits(data, bytes); }

struct moe_hash128 moe_hash128(const void *data, size_t bytes)
{
    XXH128_hash_t h = XXH3_128bits(data, bytes);
    return (struct moe_hash128){ h.high64, h.low64 };
}

struct moe_hash *moe_hash_new(void)
{
    struct moe_hash *h = malloc(sizeof *h);
    if (h && !(h->state = XXH3_createState())) {
        free(h);
        h = NULL;
    }
    return h;
}

void moe_hash_free(struct moe_hash *h)
{
    if (!h) return;
    XXH3_freeState(h->state);
    free(h);
}

void moe_hash_reset64(struct moe_hash *h) { XXH3_64bits_reset(h->state); }
void moe_hash_reset128(struct moe_hash *h) { XXH3_128bits_reset(h->state); }
void moe_hash_add64(struct moe_hash *h, const void *data, size_t bytes)
{
    XXH3_64bits_update(h->state, data, bytes);
}
void moe_hash_add128(struct moe_hash *h, const void *data, size_t bytes)
{
    XXH3_128bits_update(h->state, data, bytes);
}
uint64_t moe_hash_get64(const struct moe_hash *h) { return XXH3_64bits_digest(h->state); }

struct moe_hash128 moe_hash_get128(const struct moe_hash *h)
{
    XXH128_hash_t v = XXH3_128bits_digest(h->state);
    return (struct moe_hash128){ v.high64, v.low64 };
}

void moe_hex64(uint64_t v, char out[17]) { snprintf(out, 17, "%016llx", (unsigned long long)v); }

void moe_hex128(struct moe_hash128 v, char out[33])
{
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)v.high, (unsigned long long)v.low);
}
