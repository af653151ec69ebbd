/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/agree.h - the table of what all ranks of a run must have in common: a list of names and
 * digests, which ranks compare at the rendezvous.
 *
 * The caller adds what it wants compared: options, the program's version, the model's identity, the contents
 * of files.  A struct moe_agreement is plain memory, which begins zeroed. */
#ifndef MOE_RUNTIME_COMM_AGREE_H
#define MOE_RUNTIME_COMM_AGREE_H

#include "base/err.h"
#include "base/hash.h"

enum { MOE_AGREE_MAX = 96, MOE_AGREE_NAME = 32 };

struct moe_agreement {
    uint32_t n;
    struct {
        char name[MOE_AGREE_NAME];
        struct moe_hash128 digest;
    } item[MOE_AGREE_MAX];
};

/* Adds one entry: the digest of data [bytes] under this name.  The program stops when there are
 * MOE_AGREE_MAX entries already or the name has MOE_AGREE_NAME characters or more. */
void moe_agree_add(struct moe_agreement *a, const char *name, const void *data, size_t bytes);
/* Adds a digest that was computed already. */
void moe_agree_add_digest(struct moe_agreement *a, const char *name, struct moe_hash128 digest);
/* The name of the first entry in which the two differ; NULL: they do not.  The name lies in one of
 * the two tables. */
const char *moe_agree_difference(const struct moe_agreement *a, const struct moe_agreement *b);

#endif
