/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/comm/agree.h"

#include <stdio.h>
#include <string.h>

void moe_agree_add_digest(struct moe_agreement *a, const char *name, struct moe_hash128 digest)
{
    MOE_CHECK(a->n < MOE_AGREE_MAX && strlen(name) < MOE_AGREE_NAME);
    memset(&a->item[a->n], 0, sizeof a->item[a->n]);
    snprintf(a->item[a->n].name, MOE_AGREE_NAME, "%s", name);
    a->item[a->n++].digest = digest;
}

void moe_agree_add(struct moe_agreement *a, const char *name, const void *data, size_t bytes)
{
    moe_agree_add_digest(a, name, moe_hash128(data, bytes));
}

const char *moe_agree_difference(const struct moe_agreement *a, const struct moe_agreement *b)
{
    for (uint32_t i = 0; i < a->n || i < b->n; i++) {
        if (i >= a->n) return b->item[i].name;
        if (i >= b->n) return a->item[i].name;
        if (strcmp(a->item[i].name, b->item[i].name)) return a->item[i].name;
        if (a->item[i].digest.high != b->item[i].digest.high ||
            a->item[i].digest.low != b->item[i].digest.low)
            return a->item[i].name;
    }
    return NULL;
}
