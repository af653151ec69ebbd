/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/agree.h - the table of what all ranks of a run must have in common: a list of names and
 * digests, which ranks compare at the rendezvous.
 *
 * Options are taken from the tool's own table: every row takes part unless the row itself says that it need
 * not (base/cli/opt.h, enum moe_opt_scope), so a new option cannot be forgotten.  What is no option
 * (the program's version, the model's identity, the contents of files) is added by name. */
#ifndef MOE_RUNTIME_COMM_AGREE_H
#define MOE_RUNTIME_COMM_AGREE_H

#include "base/hash.h"
#include "base/cli/opt.h"

enum { MOE_AGREE_MAX = 96, MOE_AGREE_NAME = 32 };

struct moe_agreement {
    uint32_t n;
    struct {
        char name[MOE_AGREE_NAME];
        struct moe_hash128 digest;
    } item[MOE_AGREE_MAX];
};

/* Adds one entry.  The caller knows that there is room and that the name is short enough; else the program
 * stops. */
void moe_agree_add(struct moe_agreement *a, const char *name, const void *data, size_t bytes);
/* Adds the options of a table, with the values that they have now, as "--name". */
void moe_agree_options(struct moe_agreement *a, const struct moe_opt *opts);
/* The name of the first entry in which the two differ; NULL: they do not.  It points into one of them. */
const char *moe_agree_difference(const struct moe_agreement *a, const struct moe_agreement *b);

#endif
