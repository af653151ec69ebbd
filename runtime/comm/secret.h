/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/secret.h - the secret that only the ranks of a run know (--secret-file), and signatures made
 * with it.  Any thread may call these functions. */
#ifndef MOE_RUNTIME_COMM_SECRET_H
#define MOE_RUNTIME_COMM_SECRET_H

#include "base/err.h"
#include "runtime/comm/wire.h"

enum { MOE_SECRET_MIN = 16, MOE_SECRET_MAX = 4096 };

struct moe_secret {
    size_t bytes;
    unsigned char key[MOE_SECRET_MAX];
};

/* Reads the bytes of a file, without the line end behind them.  MOE_USAGE for a file that is no plain file,
 * is of another user (root may own it), can be read or written by others, has fewer than MOE_SECRET_MIN
 * bytes, or has MOE_SECRET_MAX or more with its line end.  The caller frees *s, which is NULL on failure. */
enum moe_code moe_secret_read(struct moe_secret **s, const char *path, struct moe_err *err);
void moe_secret_free(struct moe_secret **s); /* NULL-safe; nulls; the memory is cleared first */

/* Writes random bytes of the system's cryptographic generator (getrandom). */
enum moe_code moe_secret_random(void *out, size_t bytes, struct moe_err *err);

/* The nonces of both sides of a connection.  They are signed too, so that a signature of an old connection
 * is worth nothing in a new one. */
struct moe_nonces {
    unsigned char client[MOE_WIRE_NONCE], host[MOE_WIRE_NONCE];
};
/* mac becomes HMAC-SHA-256, with the secret as its key, over the name of the protocol, MOE_WIRE_VERSION, the
 * type, both nonces, the frame and body [bytes]; zeros when s is NULL (there is no secret). */
void moe_secret_sign(const struct moe_secret *s, enum moe_wire_type type, const struct moe_nonces *n,
                     const unsigned char frame[MOE_WIRE_FRAME_BYTES], const void *body, size_t bytes,
                     unsigned char mac[MOE_WIRE_MAC]);
/* Whether mac is what moe_secret_sign writes, compared in constant time; true when s is NULL. */
bool moe_secret_signed(const struct moe_secret *s, enum moe_wire_type type, const struct moe_nonces *n,
                       const unsigned char frame[MOE_WIRE_FRAME_BYTES], const void *body, size_t bytes,
                       const unsigned char mac[MOE_WIRE_MAC]);

#endif
