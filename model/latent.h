/* SPDX-License-Identifier: Apache-2.0 */
/* model/latent.h - the memory of the latent cache on a device: pages of MOE_PAGE positions, each in all
 * layers.
 *
 * A row is what attention keeps of a token in one layer: `width` = kv_lora_rank + qk_rope_head_dim float32,
 * the latent after its norm and then the rotary key after rotation.  Who uses which page, and which pages
 * hold the same tokens, are the books of model/pages.h; a sequence that shares nothing needs no books and
 * takes its block table from `every`.
 *
 * Memory is address space until rows are written, where the device has such memory. */
#ifndef MOE_MODEL_LATENT_H
#define MOE_MODEL_LATENT_H

#include "formats/config.h"
#include "model/ops/address.h"
#include "model/pages.h"

struct moe_device;

struct moe_latent {
    struct moe_device *device;
    struct moe_addr rows;       /* [pages, layers, MOE_PAGE, width] */
    int64_t pages, layers, width;
    int32_t *every;             /* [pages] 0, 1, 2, ... */
    uint64_t bytes;             /* of rows */
};

/* How many pages hold so many positions. */
static inline int64_t moe_latent_pages(int64_t positions) { return (positions + MOE_PAGE - 1) / MOE_PAGE; }

/* layers: as many as the model has; or 1, for passes that compute one layer for all tokens before the next
 * begins: all layers then share the same rows.  The device must stay open until release.  MOE_NOMEM. */
enum moe_code moe_latent_open(struct moe_latent *c, struct moe_device *d, int64_t layers, int64_t pages,
                              struct moe_err *err);
void moe_latent_release(struct moe_latent *c);
uint64_t moe_latent_estimate(const struct moe_config *g, int64_t layers, int64_t pages); /* bytes */

/* Where the rows of a page in a layer begin. */
static inline struct moe_addr moe_latent_at(const struct moe_latent *c, int32_t page, int layer)
{
    int64_t block = (int64_t)page * c->layers + (c->layers == 1 ? 0 : layer);
    return moe_addr_plus(c->rows, (uint64_t)(block * MOE_PAGE * c->width) * sizeof(float));
}

/* Bytes of a page in all layers, as export and import move it: [layers, MOE_PAGE, width] float32. */
static inline uint64_t moe_latent_page_bytes(const struct moe_latent *c)
{
    return (uint64_t)(c->layers * MOE_PAGE * c->width) * sizeof(float);
}
/* Copies a page to host memory, which is undefined until the device's next wait; and from host memory. */
void moe_latent_export(const struct moe_latent *c, int32_t page, void *to);
void moe_latent_import(const struct moe_latent *c, int32_t page, const void *from);

#endif
