/* SPDX-License-Identifier: Apache-2.0 */
#include "model/latent.h"

#include "model/ops/ops.h"

#include <stdlib.h>

uint64_t moe_latent_estimate(const struct moe_config *g, int64_t layers, int64_t pages)
{
    return (uint64_t)pages * (uint64_t)layers * MOE_PAGE * (uint64_t)(g->kv_lora_rank + g->qk_rope_head_dim) *
               sizeof(float) +
           (uint64_t)pages * sizeof(int32_t);
}

enum moe_code moe_latent_open(struct moe_latent *c, struct moe_device *d, int64_t layers, int64_t pages,
                              struct moe_err *err)
{
    const struct moe_config *g = &d->model->config;
    *c = (struct moe_latent){ .device = d, .pages = pages, .layers = layers };
    c->width = g->kv_lora_rank + g->qk_rope_head_dim;
    c->bytes = moe_latent_estimate(g, layers, pages) - (uint64_t)pages * sizeof *c->every;
    c->every = malloc(((size_t)pages + 1) * sizeof *c->every);
    /* the system does not count it before it is written; callers size it by moe_latent_estimate */
    if (!c->every || d->ops->alloc(d, c->bytes, &c->rows, err) != MOE_OK) {
        moe_latent_release(c);
        return moe_fail(err, MOE_NOMEM, "no memory for a cache of %lld positions (try a smaller --context)",
                        (long long)pages * MOE_PAGE);
    }
    for (int64_t i = 0; i < pages; i++) c->every[i] = (int32_t)i;
    return MOE_OK;
}

void moe_latent_release(struct moe_latent *c)
{
    if (c->device) c->device->ops->free(c->device, c->rows);
    free(c->every);
    *c = (struct moe_latent){ 0 };
}

void moe_latent_export(const struct moe_latent *c, int32_t page, void *to)
{
    uint64_t bytes = moe_latent_page_bytes(c);
    c->device->ops->read(c->device, to, moe_addr_plus(c->rows, (uint64_t)page * bytes), bytes);
}

void moe_latent_import(const struct moe_latent *c, int32_t page, const void *from)
{
    uint64_t bytes = moe_latent_page_bytes(c);
    c->device->ops->write(c->device, moe_addr_plus(c->rows, (uint64_t)page * bytes), from, bytes);
}
