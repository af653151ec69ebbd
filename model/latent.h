/* SPDX-License-Identifier: Apache-2.0 */
/* model/latent.h - the memory of the latent cache on a device: pages of MOE_PAGE positions, each in all
 * layers.
 *
 * A row is what attention keeps of a token in one layer: `width` = kv_lora_rank + qk_rope_head_dim values,
 * the latent after its norm and then the rotary key after rotation.  They are float32, or rounded to
 * bfloat16, to nearest, ties to even, on a device that was opened so.  Who uses which page, and which pages
 * hold the same tokens, are the books of model/pages.h; a sequence that shares nothing needs no books and
 * takes its block table from `every`.
 *
 * Memory is address space until rows are written, where the device has such memory. */
#ifndef MOE_MODEL_LATENT_H
#define MOE_MODEL_LATENT_H

#include "formats/config.h"
#include "model/ops/address.h"
#include "model/pages.h"

#include <assert.h>

struct moe_device;

/* What a row's values are stored as.  Packets hold these numbers: they never change. */
enum moe_latent_type { MOE_LATENT_F32, MOE_LATENT_BF16, MOE_LATENT_TYPES };
static inline uint64_t moe_latent_value_bytes(enum moe_latent_type t) { return t == MOE_LATENT_BF16 ? 2 : 4; }

struct moe_latent {
    struct moe_device *device;
    struct moe_addr rows;       /* [pages, layers, MOE_PAGE, width] */
    int64_t pages, layers, width;
    enum moe_latent_type type;  /* the device's */
    int32_t *every;             /* [pages] 0, 1, 2, ... */
    uint64_t bytes;             /* of rows */
};

/* How many pages hold so many positions. */
static inline int64_t moe_latent_pages(int64_t positions) { return (positions + MOE_PAGE - 1) / MOE_PAGE; }

/* layers: as many as the model has; or 1, for passes that compute one layer for all tokens before the next
 * begins: all layers then share the same rows.  The device must stay open until release.  MOE_NOMEM; or
 * MOE_DEVICE, as the device says. */
enum moe_code moe_latent_open(struct moe_latent *c, struct moe_device *d, int64_t layers, int64_t pages,
                              struct moe_err *err);
void moe_latent_release(struct moe_latent *c);
uint64_t moe_latent_estimate(const struct moe_config *g, enum moe_latent_type type, int64_t layers,
                             int64_t pages); /* bytes */

/* Where the rows of a page in a layer begin. */
static inline struct moe_addr moe_latent_at(const struct moe_latent *c, int32_t page, int layer)
{
    int64_t block = (int64_t)page * c->layers + (c->layers == 1 ? 0 : layer);
    return moe_addr_plus(c->rows, (uint64_t)(block * MOE_PAGE * c->width) * moe_latent_value_bytes(c->type));
}

/* Bytes of a page in all layers, as it lies on the device: [layers, MOE_PAGE, width] values. */
static inline uint64_t moe_latent_page_bytes(const struct moe_latent *c)
{
    return (uint64_t)(c->layers * MOE_PAGE * c->width) * moe_latent_value_bytes(c->type);
}

/* ---- moving pages ----
 *
 * A page moves from one cache to another, of another process or host too, as a packet in host memory: this
 * head, and behind it [layers, rows, width] values, the first `rows` positions of the page in all layers.
 * Other rows, which may be another sequence's, are not in it.  Numbers are little-endian.  The bits of the
 * rows stay as they are, so a sequence goes on as it would have where it came from, if the model is the same.
 * Neither the model nor the tokens are in a packet: who sends it says which they are. */
struct moe_latent_head {
    char magic[8];              /* MOE_LATENT_MAGIC */
    uint32_t layers, rows, width;
    uint32_t type;              /* enum moe_latent_type */
    uint64_t hash;              /* XXH3-64 of this head, with that of the rows in this field: it finds
                                   accidents, and not whoever wants to deceive */
};
static_assert(sizeof(struct moe_latent_head) == 32, "moe_latent_head is what hosts exchange");
#define MOE_LATENT_MAGIC "moelat1"

/* Bytes of the packet of so many rows, 1 to MOE_PAGE. */
uint64_t moe_latent_packet_bytes(const struct moe_latent *c, int64_t rows);
/* Exports a page: first asks the device for its first `rows` rows, 1 to MOE_PAGE, which must be written; and
 * after the device's next wait, seals the packet.  Before that, the packet may not be read or moved. */
void moe_latent_export(const struct moe_latent *c, int32_t page, int64_t rows, void *packet);
void moe_latent_seal(const struct moe_latent *c, int64_t rows, void *packet);
/* Imports a packet of so many bytes into a page, whose other rows stay as they are.  *rows: how many there
 * were.  The packet may change as soon as the call returns; the rows are there for operations that are asked
 * for later.  MOE_CORRUPT for what is no whole, undamaged packet, MOE_MISMATCH where it has the rows of
 * another shape of model, or of another type; nothing is written then. */
enum moe_code moe_latent_import(const struct moe_latent *c, int32_t page, const void *packet, uint64_t bytes,
                                int64_t *rows, struct moe_err *err);

#endif
