/* SPDX-License-Identifier: Apache-2.0 */
/* tests/ops/checked-batch.h - what ops/checked (checked.h) keeps of the host's memory that it is given:
 * copies of arrays, and of batches with all that they point to. */
#ifndef MOE_TESTS_OPS_CHECKED_BATCH_H
#define MOE_TESTS_OPS_CHECKED_BATCH_H

#include "model/ops/ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What addresses of memory have besides, so that the host cannot follow them. */
#define CHECKED_TAG ((uint64_t)1 << 62)

static void checked_fail(const char *why)
{
    fprintf(stderr, "ops/checked: %s\n", why);
    abort();
}

static struct moe_addr checked_plain(struct moe_addr a)
{
    if (a.at && !(a.at & CHECKED_TAG)) checked_fail("an address that this device did not give");
    return (struct moe_addr){ a.at & ~CHECKED_TAG };
}

static void *checked_blob(const void *from, uint64_t bytes)
{
    void *p = malloc((size_t)bytes + 1);
    if (!p) checked_fail("no memory");
    if (bytes) memcpy(p, from, (size_t)bytes);
    return p;
}

/* A batch as it was when it was named, for the inner device: the caches have plain addresses. */
struct checked_batch {
    const struct moe_batch *given;      /* the caller's */
    struct moe_batch batch;
    int32_t *tokens;                    /* [T]; NULL: none */
    struct moe_segment *segment;        /* with caches and page numbers of its own */
    struct moe_latent *latent;
    int32_t *pages;                     /* of all segments, one after the other */
    struct checked_batch *before;
};

static int64_t checked_pages_of(const struct moe_segment *s) { return moe_latent_pages(s->first + s->n); }

static struct checked_batch *checked_batch_new(const struct moe_batch *b)
{
    struct checked_batch *k = calloc(1, sizeof *k);
    int64_t pages = 0;
    for (int64_t i = 0; i < b->n_segments; i++) pages += checked_pages_of(&b->segment[i]);
    if (!k) checked_fail("no memory");
    k->given = b;
    k->batch = *b;
    k->tokens = b->tokens ? checked_blob(b->tokens, (uint64_t)b->n * sizeof *k->tokens) : NULL;
    k->segment = checked_blob(b->segment, (uint64_t)b->n_segments * sizeof *k->segment);
    k->latent = calloc((size_t)b->n_segments + 1, sizeof *k->latent);
    k->pages = malloc((size_t)(pages + 1) * sizeof *k->pages);
    if (!k->latent || !k->pages) checked_fail("no memory");
    pages = 0;
    for (int64_t i = 0; i < b->n_segments; i++) {
        const struct moe_segment *s = &b->segment[i];
        memcpy(k->pages + pages, s->page, (size_t)checked_pages_of(s) * sizeof *k->pages);
        k->latent[i] = *s->cache;
        k->latent[i].rows = checked_plain(s->cache->rows);
        k->segment[i].cache = &k->latent[i];
        k->segment[i].page = k->pages + pages;
        pages += checked_pages_of(s);
    }
    k->batch.tokens = k->tokens;
    k->batch.segment = k->segment;
    return k;
}

static void checked_batch_free(struct checked_batch *k)
{
    free(k->tokens);
    free(k->segment);
    free(k->latent);
    free(k->pages);
    free(k);
}

/* Whether the caller's batch is what it was when it was named. */
static bool checked_unchanged(const struct checked_batch *k)
{
    const struct moe_batch *b = k->given;
    if (b->n != k->batch.n || b->n_segments != k->batch.n_segments) return false;
    if (k->tokens && memcmp(b->tokens, k->tokens, (size_t)b->n * sizeof *k->tokens) != 0) return false;
    for (int64_t i = 0; i < b->n_segments; i++) {
        const struct moe_segment *s = &b->segment[i], *was = &k->segment[i];
        if (s->first != was->first || s->n != was->n ||
            s->cache->rows.at != (was->cache->rows.at | CHECKED_TAG) ||
            memcmp(s->page, was->page, (size_t)checked_pages_of(s) * sizeof *s->page) != 0)
            return false;
    }
    return true;
}

#endif
