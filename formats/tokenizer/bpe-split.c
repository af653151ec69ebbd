/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/bpe-split.c - finds the merge that makes a token, for tokenizer formats that store
 * merges. */
#include "formats/tokenizer/bpe.h"

#include <string.h>

/* The work below is quadratic in a token's length; K2 has no token above 128 bytes. */
enum { LONGEST = 1024 };

/* The rank of part i joined with part i + 1; -1 when that is no token.  Part i is
 * s[start[i] .. start[i+1]). */
static int32_t rank_of(const struct moe_bpe *b, const unsigned char *s, const uint16_t *start, size_t i)
{
    return moe_bpe_find(b, s + start[i], (size_t)(start[i + 2] - start[i]));
}

enum moe_code moe_bpe_split(const struct moe_bpe *b, int32_t id, int32_t parts[2], int *n_parts,
                            struct moe_err *err)
{
    const unsigned char *s = b->bytes + b->start[id];
    size_t n = b->start[id + 1] - b->start[id];
    uint16_t start[LONGEST + 2];
    int32_t rank[LONGEST + 1]; /* rank_of part i */
    if (n > LONGEST)
        return moe_fail(err, MOE_UNSUPPORTED, "token %d has %zu bytes, more than %d", id, n, LONGEST);
    for (size_t i = 0; i <= n; i++) start[i] = (uint16_t)i;
    for (size_t i = 0; i + 1 < n; i++) rank[i] = rank_of(b, s, start, i);
    while (n > 1) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++)
            if (rank[i] >= 0 && rank[i] < id && (best == n || rank[i] < rank[best])) best = i;
        if (best == n) break;
        memmove(start + best + 1, start + best + 2, (n - best - 1) * sizeof *start);
        memmove(rank + best, rank + best + 1, (n - best - 2) * sizeof *rank);
        n--;
        if (best + 1 < n) rank[best] = rank_of(b, s, start, best);
        if (best > 0) rank[best - 1] = rank_of(b, s, start, best - 1);
    }
    *n_parts = (int)n;
    for (size_t i = 0; i < n && i < 2; i++)
        parts[i] = moe_bpe_find(b, s + start[i], (size_t)(start[i + 1] - start[i]));
    return MOE_OK;
}
