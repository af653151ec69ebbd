/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/server/keys.h - the keys of those who may ask (--api-key-file).
 *
 * The file has a key a line, "KEY" or "NAME KEY"; a KEY "sha256:" and 64 hexadecimal digits is the digest of
 * a key.  Empty lines and those that begin with # are skipped.  Only digests are kept in memory, and a key is
 * looked for in a time that does not depend on which one it is, or whether it is one.
 *
 * Once open, any thread may look. */
#ifndef MOE_RUNTIME_SERVER_KEYS_H
#define MOE_RUNTIME_SERVER_KEYS_H

#include "base/err.h"
#include "base/sha256.h"

enum { MOE_KEY_MIN = 16, MOE_KEY_MAX = 256, MOE_KEY_NAME = 64 }; /* bytes */

struct moe_key { char name[MOE_KEY_NAME]; unsigned char digest[MOE_SHA256_BYTES]; };
struct moe_keys { struct moe_key *v; size_t n, cap; };

/* Reads a file that nobody but its owner can reach.  MOE_USAGE for another one, or one with no key, a key
 * that is too short or too long, or there twice; the line is named and the key is not.  On failure there is
 * nothing to release. */
enum moe_code moe_keys_read(struct moe_keys *k, const char *path, struct moe_err *err);
/* The number of the key, from 0; -1: it is none.  NULL is none. */
int moe_keys_find(const struct moe_keys *k, const char *key);
void moe_keys_release(struct moe_keys *k);

#endif
