/* SPDX-License-Identifier: Apache-2.0 */
/* formats/container/small.h - the small files of a checkpoint that say what its weights are and how text
 * becomes tokens.
 *
 * Tokenizer, template, configurations and code are read by their paths while weights are read from files
 * that are held open.  So that the two are of one model, their digests are taken when the checkpoint is
 * opened and compared when the work is done (moe_source_still, formats/container/identity.h).  Notes, logs
 * and pictures are none of them. */
#ifndef MOE_FORMATS_CONTAINER_SMALL_H
#define MOE_FORMATS_CONTAINER_SMALL_H

#include "base/err.h"
#include "base/hash.h"

/* Where a checkpoint's file goes in the container, "hf" or "tokenizer"; NULL: to neither. */
const char *moe_small_folder(const char *name);

struct moe_small { char *name; struct moe_hash128 digest; };
struct moe_smalls { struct moe_small *v; size_t n, cap; };

/* The files of a directory that have a folder, and the index.  Memory: a MiB, and the names.
 * Nothing is owned on failure. */
enum moe_code moe_smalls_read(struct moe_smalls *s, const char *dir, struct moe_err *err);
void moe_smalls_release(struct moe_smalls *s); /* zero-initialised is fine */
/* The name of the first file that is in one only, or is another in both; NULL: there is none.  a or b owns
 * it. */
const char *moe_smalls_differ(const struct moe_smalls *a, const struct moe_smalls *b);

#endif
