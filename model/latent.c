/* SPDX-License-Identifier: Apache-2.0 */
#include "model/latent.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

uint64_t moe_latent_estimate(const struct moe_config *g, int64_t layers, int64_t pages)
{
    return (uint64_t)pages * (uint64_t)layers * MOE_PAGE * (uint64_t)(g->kv_lora_rank + g->qk_rope_head_dim) *
               sizeof(float) +
           (uint64_t)pages * sizeof(int32_t);
}

enum moe_code moe_latent_open(struct moe_latent *c, const struct moe_config *g, int64_t layers, int64_t pages,
                              struct moe_err *err)
{
    *c = (struct moe_latent){ .pages = pages, .layers = layers };
    c->width = g->kv_lora_rank + g->qk_rope_head_dim;
    c->bytes = moe_latent_estimate(g, layers, pages) - (uint64_t)pages * sizeof *c->every;
    c->every = malloc(((size_t)pages + 1) * sizeof *c->every);
    /* the system does not count it before it is written; callers size it by moe_latent_estimate */
    void *p = mmap(NULL, (size_t)c->bytes, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p != MAP_FAILED) c->rows = p;
    if (!c->rows || !c->every) {
        moe_latent_release(c);
        return moe_fail(err, MOE_NOMEM, "no memory for a cache of %lld positions (try a smaller --context)",
                        (long long)pages * MOE_PAGE);
    }
    for (int64_t i = 0; i < pages; i++) c->every[i] = (int32_t)i;
    return MOE_OK;
}

void moe_latent_release(struct moe_latent *c)
{
    if (c->rows) munmap(c->rows, (size_t)c->bytes);
    free(c->every);
    *c = (struct moe_latent){ 0 };
}

void moe_latent_copy(const struct moe_latent *c, const struct moe_page_copy *copy)
{
    for (int layer = 0; layer < c->layers; layer++)
        memcpy(moe_latent_at(c, copy->to, layer), moe_latent_at(c, copy->from, layer),
               (size_t)(copy->rows * c->width) * sizeof *c->rows);
}
