/* SPDX-License-Identifier: Apache-2.0 */
#include "model/latent.h"

#include "base/hash.h"
#include "model/ops/ops.h"

#include <stdlib.h>
#include <string.h>

uint64_t moe_latent_estimate(const struct moe_config *g, enum moe_latent_type type, int64_t layers,
                             int64_t pages)
{
    return (uint64_t)pages * (uint64_t)layers * MOE_PAGE * (uint64_t)(g->kv_lora_rank + g->qk_rope_head_dim) *
               moe_latent_value_bytes(type) +
           (uint64_t)pages * sizeof(int32_t);
}

enum moe_code moe_latent_open(struct moe_latent *c, struct moe_device *d, int64_t layers, int64_t pages,
                              struct moe_err *err)
{
    const struct moe_config *g = &d->model->config;
    *c = (struct moe_latent){ .device = d, .pages = pages, .layers = layers, .type = d->latents };
    c->width = g->kv_lora_rank + g->qk_rope_head_dim;
    c->bytes = moe_latent_estimate(g, c->type, layers, pages) - (uint64_t)pages * sizeof *c->every;
    c->every = malloc(((size_t)pages + 1) * sizeof *c->every);
    /* the system does not count it before it is written; callers size it by moe_latent_estimate */
    enum moe_code code = c->every ? d->ops->alloc(d, c->bytes, &c->rows, err)
                                  : moe_fail(err, MOE_NOMEM, "no memory for the numbers of its pages");
    if (code != MOE_OK) {
        moe_latent_release(c);
        moe_wrap(err, "a cache of %lld positions", (long long)pages * MOE_PAGE);
        return code == MOE_NOMEM ? moe_err_remedy(err, "try a smaller --context") : code;
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

/* ---- moving pages ---- */

static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "packets are sent as they lie: little-endian only");

static uint64_t row_bytes(const struct moe_latent *c)
{
    return (uint64_t)c->width * moe_latent_value_bytes(c->type);
}

uint64_t moe_latent_packet_bytes(const struct moe_latent *c, int64_t rows)
{
    return sizeof(struct moe_latent_head) + (uint64_t)(c->layers * rows) * row_bytes(c);
}

void moe_latent_export(const struct moe_latent *c, int32_t page, int64_t rows, void *packet)
{
    unsigned char *to = (unsigned char *)packet + sizeof(struct moe_latent_head);
    uint64_t bytes = (uint64_t)rows * row_bytes(c);
    for (int layer = 0; layer < c->layers; layer++, to += bytes)
        c->device->ops->read(c->device, to, moe_latent_at(c, page, layer), bytes);
}

static uint64_t hash_of(struct moe_latent_head h, const void *packet, uint64_t bytes)
{
    h.hash = moe_hash64((const unsigned char *)packet + sizeof h, (size_t)(bytes - sizeof h));
    return moe_hash64(&h, sizeof h);
}

void moe_latent_seal(const struct moe_latent *c, int64_t rows, void *packet)
{
    struct moe_latent_head h = { .magic = MOE_LATENT_MAGIC,
                                 .layers = (uint32_t)c->layers,
                                 .rows = (uint32_t)rows,
                                 .width = (uint32_t)c->width,
                                 .type = (uint32_t)c->type };
    h.hash = hash_of(h, packet, moe_latent_packet_bytes(c, rows));
    memcpy(packet, &h, sizeof h);
}

static enum moe_code check_packet(const struct moe_latent *c, const struct moe_latent_head *h,
                                  const void *packet, uint64_t bytes, struct moe_err *err)
{
    if (memcmp(h->magic, MOE_LATENT_MAGIC, sizeof h->magic) != 0 || h->type >= MOE_LATENT_TYPES)
        return moe_fail(err, MOE_CORRUPT, "these bytes are not a page of the latent cache");
    if ((int64_t)h->layers != c->layers || (int64_t)h->width != c->width)
        return moe_fail(err, MOE_MISMATCH,
                        "a page of %u layers and %u values a token does not fit a cache of %lld and %lld",
                        h->layers, h->width, (long long)c->layers, (long long)c->width);
    static const char *const name[] = { "float32", "bfloat16" };
    if (h->type != (uint32_t)c->type)
        return moe_fail(err, MOE_MISMATCH, "a page of %s values does not fit a cache of %s", name[h->type],
                        name[c->type]);
    if (h->rows < 1 || h->rows > MOE_PAGE)
        return moe_fail(err, MOE_CORRUPT, "a page of the latent cache has %u rows: want 1 to %d", h->rows,
                        MOE_PAGE);
    uint64_t want = moe_latent_packet_bytes(c, h->rows);
    if (bytes != want)
        return moe_fail(err, MOE_CORRUPT, "a page of the latent cache has %llu bytes, not %llu",
                        (unsigned long long)bytes, (unsigned long long)want);
    if (h->hash != hash_of(*h, packet, bytes))
        return moe_fail(err, MOE_CORRUPT, "a page of the latent cache was damaged on its way");
    return MOE_OK;
}

enum moe_code moe_latent_import(const struct moe_latent *c, int32_t page, const void *packet, uint64_t bytes,
                                int64_t *rows, struct moe_err *err)
{
    const unsigned char *from = (const unsigned char *)packet + sizeof(struct moe_latent_head);
    struct moe_latent_head h;
    if (bytes < sizeof h)
        return moe_fail(err, MOE_CORRUPT, "a page of the latent cache has %llu bytes, fewer than its head",
                        (unsigned long long)bytes);
    memcpy(&h, packet, sizeof h);
    MOE_TRY(check_packet(c, &h, packet, bytes, err));
    *rows = h.rows;
    uint64_t part = h.rows * row_bytes(c);
    for (int layer = 0; layer < c->layers; layer++, from += part)
        c->device->ops->write(c->device, moe_latent_at(c, page, layer), from, part);
    return MOE_OK;
}
