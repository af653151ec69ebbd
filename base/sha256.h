/* SPDX-License-Identifier: Apache-2.0 */
/* base/sha256.h - SHA-256 (FIPS 180-4) and HMAC with it (RFC 2104), for messages that an attacker must not be
 * able to forge.
 *
 * XXH3 (base/hash.h) detects accidental damage; this resists an attacker.  It is plain C and slow: for
 * messages, not for tensors. */
#ifndef MOE_BASE_SHA256_H
#define MOE_BASE_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOE_SHA256_BYTES = 32, MOE_SHA256_BLOCK = 64 };

struct moe_sha256 {
    uint32_t state[8];
    uint64_t bytes;
    unsigned char block[MOE_SHA256_BLOCK];
};

void moe_sha256_init(struct moe_sha256 *s);
void moe_sha256_add(struct moe_sha256 *s, const void *data, size_t bytes);
/* The digest of everything that was added; afterwards the state must be initialised again. */
void moe_sha256_end(struct moe_sha256 *s, unsigned char out[MOE_SHA256_BYTES]);

struct moe_hmac {
    struct moe_sha256 inner, outer;
};

/* Begin a message.  The key may have any number of bytes and is not needed afterwards. */
void moe_hmac_init(struct moe_hmac *h, const void *key, size_t bytes);
void moe_hmac_add(struct moe_hmac *h, const void *data, size_t bytes);
/* The authentication code of everything that was added; afterwards the state must be initialised again. */
void moe_hmac_end(struct moe_hmac *h, unsigned char out[MOE_SHA256_BYTES]);

/* Whether both are equal.  The time taken depends on `bytes` alone, so that somebody who measures it does not
 * learn how much of a forged code was right, as with memcmp. */
bool moe_equal_constant_time(const void *a, const void *b, size_t bytes);

#endif
