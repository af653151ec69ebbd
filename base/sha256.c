/* SPDX-License-Identifier: Apache-2.0 */
#include "base/sha256.h"

#include <string.h>

/* The first 32 bits of the fractions of the cube roots of the first 64 primes. */
static const uint32_t k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotated(uint32_t x, int n) { return x >> n | x << (32 - n); }

static uint32_t load_be32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void store_be32(unsigned char *p, uint32_t v)
{
    p[0] = (unsigned char)(v >> 24);
    p[1] = (unsigned char)(v >> 16);
    p[2] = (unsigned char)(v >> 8);
    p[3] = (unsigned char)v;
}

static void expand(uint32_t w[64], const unsigned char block[MOE_SHA256_BLOCK])
{
    for (int i = 0; i < 16; i++) w[i] = load_be32(block + 4 * i);
    for (int i = 16; i < 64; i++) {
        uint32_t a = rotated(w[i - 15], 7) ^ rotated(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t b = rotated(w[i - 2], 17) ^ rotated(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + a + w[i - 7] + b;
    }
}

static void compress(uint32_t state[8], const unsigned char block[MOE_SHA256_BLOCK])
{
    uint32_t w[64], v[8];
    expand(w, block);
    memcpy(v, state, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t e = v[4], a = v[0];
        uint32_t choice = (e & v[5]) ^ (~e & v[6]), majority = (a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]);
        uint32_t t1 = v[7] + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + choice + k[i] + w[i];
        uint32_t t2 = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + majority;
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++) state[i] += v[i];
}

void moe_sha256_init(struct moe_sha256 *s)
{
    /* The first 32 bits of the fractions of the square roots of the first 8 primes. */
    static const uint32_t first[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                       0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    memcpy(s->state, first, sizeof first);
    s->bytes = 0;
}

void moe_sha256_add(struct moe_sha256 *s, const void *data, size_t bytes)
{
    const unsigned char *p = data;
    while (bytes) {
        size_t at = s->bytes % MOE_SHA256_BLOCK,
               n = MOE_SHA256_BLOCK - at < bytes ? MOE_SHA256_BLOCK - at : bytes;
        memcpy(s->block + at, p, n);
        s->bytes += n;
        p += n;
        bytes -= n;
        if (at + n == MOE_SHA256_BLOCK) compress(s->state, s->block);
    }
}

void moe_sha256_end(struct moe_sha256 *s, unsigned char out[MOE_SHA256_BYTES])
{
    static const unsigned char padding[MOE_SHA256_BLOCK] = { 0x80 };
    uint64_t bits = s->bytes * 8;
    unsigned char length[8];
    store_be32(length, (uint32_t)(bits >> 32));
    store_be32(length + 4, (uint32_t)bits);
    size_t at = s->bytes % MOE_SHA256_BLOCK;
    moe_sha256_add(s, padding, (at < 56 ? 56 : 56 + MOE_SHA256_BLOCK) - at);
    moe_sha256_add(s, length, sizeof length);
    for (int i = 0; i < 8; i++) store_be32(out + 4 * i, s->state[i]);
}

void moe_hmac_init(struct moe_hmac *h, const void *key, size_t bytes)
{
    unsigned char block[MOE_SHA256_BLOCK] = { 0 }, pad[MOE_SHA256_BLOCK];
    moe_sha256_init(&h->inner);
    if (bytes > sizeof block) {
        moe_sha256_add(&h->inner, key, bytes);
        moe_sha256_end(&h->inner, block);
        moe_sha256_init(&h->inner);
    } else if (bytes) {
        memcpy(block, key, bytes);
    }
    moe_sha256_init(&h->outer);
    for (int i = 0; i < MOE_SHA256_BLOCK; i++) pad[i] = block[i] ^ 0x36;
    moe_sha256_add(&h->inner, pad, sizeof pad);
    for (int i = 0; i < MOE_SHA256_BLOCK; i++) pad[i] = block[i] ^ 0x5c;
    moe_sha256_add(&h->outer, pad, sizeof pad);
}

void moe_hmac_add(struct moe_hmac *h, const void *data, size_t bytes)
{
    moe_sha256_add(&h->inner, data, bytes);
}

void moe_hmac_end(struct moe_hmac *h, unsigned char out[MOE_SHA256_BYTES])
{
    unsigned char inner[MOE_SHA256_BYTES];
    moe_sha256_end(&h->inner, inner);
    moe_sha256_add(&h->outer, inner, sizeof inner);
    moe_sha256_end(&h->outer, out);
}

bool moe_equal_constant_time(const void *a, const void *b, size_t bytes)
{
    const volatile unsigned char *p = a, *q = b;
    unsigned char differs = 0;
    for (size_t i = 0; i < bytes; i++) differs |= p[i] ^ q[i];
    return !differs;
}
