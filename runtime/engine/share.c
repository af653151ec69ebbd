/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/share.h"

#include "base/hash.h"
#include "base/minmax.h"
#include "kernels/attend.h"

#include <stdlib.h>
#include <string.h>

/* Which ranks have which beginnings: a hash table with open addressing.  A beginning of k pages is known by a
 * digest of its last page's tokens and of the digest before, which at the first page is that of the salt;
 * where two are taken for one, a prompt goes to another rank, and nothing else changes. */
struct share {
    uint64_t *key; int64_t cap;  /* [cap], a power of two; 0: free */
    uint64_t *has;               /* [cap, words] bit r: rank r has this beginning */
    int64_t words;
    int ranks;
    double *load;                /* [ranks] tokens */
    int64_t *found;              /* [ranks] pages that the present prompt shares with the rank */
};

static void close_share(struct share *h)
{
    free(h->key);
    free(h->has);
    free(h->load);
    free(h->found);
}

static enum moe_code open_share(struct share *h, int64_t pages, int ranks, struct moe_err *err)
{
    *h = (struct share){ .cap = 64, .words = (ranks + 63) / 64, .ranks = ranks };
    while (h->cap < 2 * pages) h->cap *= 2;
    h->key = calloc((size_t)h->cap, sizeof *h->key);
    h->has = calloc((size_t)(h->cap * h->words), sizeof *h->has);
    h->load = calloc((size_t)ranks, sizeof *h->load);
    h->found = calloc((size_t)ranks, sizeof *h->found);
    if (h->key && h->has && h->load && h->found) return MOE_OK;
    close_share(h);
    return moe_fail(err, MOE_NOMEM, "no memory to share the prompts out to %d ranks", ranks);
}

/* The slot of a beginning, which it takes where it has none. */
static int64_t slot_of(struct share *h, uint64_t key)
{
    int64_t i = (int64_t)(key & (uint64_t)(h->cap - 1));
    while (h->key[i] && h->key[i] != key) i = (i + 1) & (h->cap - 1);
    h->key[i] = key;
    return i;
}

/* Pages of a prompt that can be found: the last token is always computed. */
static int64_t pages_of(const struct moe_request *q) { return (q->n_ids - 1) / MOE_PAGE; }

/* The digest before the first page: requests with different salts share no pages. */
static uint64_t root_of(const struct moe_request *q)
{
    return q->salt_bytes ? moe_hash64(q->salt, q->salt_bytes) : 0;
}

/* The digest of the beginning that ends with this page; never 0. */
static uint64_t next_key(uint64_t before, const int32_t *page)
{
    struct { uint64_t before; int32_t ids[MOE_PAGE]; } of = { .before = before };
    memcpy(of.ids, page, sizeof of.ids);
    uint64_t key = moe_hash64(&of, sizeof of);
    return key ? key : 1;
}

/* Sets h->found. */
static void find(struct share *h, const struct moe_request *q)
{
    uint64_t key = root_of(q);
    memset(h->found, 0, (size_t)h->ranks * sizeof *h->found);
    for (int64_t k = 0, any = 1; k < pages_of(q) && any; k++) {
        key = next_key(key, q->ids + k * MOE_PAGE);
        const uint64_t *has = h->has + slot_of(h, key) * h->words;
        any = 0;
        for (int r = 0; r < h->ranks; r++) {
            if (h->found[r] < k || !(has[r / 64] >> r % 64 & 1)) continue;
            h->found[r] = k + 1;
            any = 1;
        }
    }
}

/* The rank for a prompt.  slack: by how much its load may exceed the least. */
static int choose(const struct share *h, double slack)
{
    double least = h->load[0];
    int best = -1;
    for (int r = 1; r < h->ranks; r++)
        if (h->load[r] < least) least = h->load[r];
    for (int r = 0; r < h->ranks; r++) {
        if (h->load[r] > least + slack) continue;
        if (best < 0 || h->found[r] > h->found[best] ||
            (h->found[r] == h->found[best] && h->load[r] < h->load[best]))
            best = r;
    }
    return best;
}

static void give(struct share *h, const struct moe_request *q, int rank, double tokens)
{
    uint64_t key = root_of(q);
    for (int64_t k = 0; k < pages_of(q); k++) {
        key = next_key(key, q->ids + k * MOE_PAGE);
        h->has[slot_of(h, key) * h->words + rank / 64] |= (uint64_t)1 << rank % 64;
    }
    h->load[rank] += tokens - (double)(h->found[rank] * MOE_PAGE);
}

static double tokens_of(const struct moe_request *q, int64_t context)
{
    int64_t rest = context - q->n_ids;
    return (double)(q->n_ids + (q->max_tokens >= 0 ? moe_min_i64(q->max_tokens, rest) : rest));
}

/* Gives all prompts away.  *first: the load of rank 0. */
static enum moe_code share_out(struct moe_sequence *s, int64_t n, int ranks, int64_t context, double slack,
                               double *first, struct moe_err *err)
{
    struct share h;
    int64_t pages = 0;
    for (int64_t i = 0; i < n; i++) pages += pages_of(&s[i].request);
    MOE_TRY(open_share(&h, pages, ranks, err));
    for (int64_t i = 0; i < n; i++) {
        find(&h, &s[i].request);
        s[i].rank = choose(&h, slack);
        give(&h, &s[i].request, s[i].rank, tokens_of(&s[i].request, context));
    }
    *first = h.load[0];
    close_share(&h);
    return MOE_OK;
}

enum moe_code moe_share_prompts(struct moe_sequence *s, int64_t n, int ranks, int64_t context,
                                struct moe_err *err)
{
    double all, first;
    MOE_TRY(share_out(s, n, 1, context, 0, &all, err)); /* what one rank would compute */
    return share_out(s, n, ranks, context, all / ranks / 2, &first, err);
}
