/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/small.h - the small files of a checkpoint that describe the weights and how text becomes
 * tokens.
 *
 * Tokenizer, template, configurations and code are opened by their paths when they are needed, while weights
 * are read from files that stay open.  To make sure that both belong to one model, digests of the small files
 * are taken when the checkpoint is opened and compared when the work is done (moe_source_check_unmodified in
 * formats/container/identity.h).  Notes, logs and pictures are not among them. */
#ifndef MOE_FORMATS_CONTAINER_SMALL_H
#define MOE_FORMATS_CONTAINER_SMALL_H

#include "base/err.h"
#include "base/hash.h"

/* The folder of the container that keeps a checkpoint's file of this name, "hf" or "tokenizer"; NULL: neither
 * does. */
const char *moe_small_folder(const char *name);

struct moe_small_digest { char *name; struct moe_hash128 digest; };
struct moe_small_digests { struct moe_small_digest *v; size_t n, cap; };

/* Take the digests of a directory's files that have a folder, and of the index.  Uses 1 MiB of memory and the
 * names.  Nothing is owned on failure. */
enum moe_code moe_small_digests_read(struct moe_small_digests *s, const char *dir, struct moe_err *err);
void moe_small_digests_release(struct moe_small_digests *s); /* zero-initialised is fine */
/* The name of the first file that only one of the two has or that differs; NULL when they are equal.  a or b
 * owns the name. */
const char *moe_small_digests_differ(const struct moe_small_digests *a, const struct moe_small_digests *b);

#endif
