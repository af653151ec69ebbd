/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/agree.h - what the ranks of a run must have in common, as a list of names and digests,
 * and which of them differs.
 *
 * Options come from the tool's own table: every row takes part unless the row itself says that it need not
 * (base/cli/opt.h, enum moe_opt_scope), so a new option is compared without anybody thinking of it.  What is
 * no option (the model's identity, what is in a file) is added by name. */
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

/* A bug when there is no room, or the name is too long: both are known when the program is written. */
void moe_agree_add(struct moe_agreement *a, const char *name, const void *data, size_t bytes);
/* The options of a table, with the values that they have now, as "--name". */
void moe_agree_options(struct moe_agreement *a, const struct moe_opt *opts);
/* The name of the first item in which they differ; NULL: in none.  Stands as long as the two do. */
const char *moe_agree_difference(const struct moe_agreement *a, const struct moe_agreement *b);

#endif
