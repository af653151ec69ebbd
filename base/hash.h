/* SPDX-License-Identifier: Apache-2.0 */
/* base/hash.h - XXH3 digests (xxHash).  Digests are written as lower-case hex of the canonical (big-endian)
 * form. */
#ifndef MOE_BASE_HASH_H
#define MOE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

/* A streaming state for XXH3-64 or XXH3-128; to get both digests of the same bytes, use two. */
struct moe_hash;
struct moe_hash128 { uint64_t high, low; };

/* The digest of bytes that are all in memory. */
uint64_t moe_hash64(const void *data, size_t bytes);
struct moe_hash128 moe_hash128(const void *data, size_t bytes);

struct moe_hash *moe_hash_new(void);          /* NULL when out of memory */
void moe_hash_free(struct moe_hash *h);       /* NULL-safe */
/* A state is used as one of the two: reset64, add64 ..., get64; or reset128, add128 ..., get128. */
void moe_hash_reset64(struct moe_hash *h);
void moe_hash_reset128(struct moe_hash *h);
void moe_hash_add64(struct moe_hash *h, const void *data, size_t bytes);
void moe_hash_add128(struct moe_hash *h, const void *data, size_t bytes);
uint64_t moe_hash_get64(const struct moe_hash *h);
struct moe_hash128 moe_hash_get128(const struct moe_hash *h);

/* The digest as 16 or 32 hex digits and a NUL. */
void moe_hex64(uint64_t v, char out[17]);
void moe_hex128(struct moe_hash128 v, char out[33]);

#endif
