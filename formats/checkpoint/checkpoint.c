/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/checkpoint/checkpoint.h"

#include <stdlib.h>

void moe_checkpoint_suppress_missing(struct moe_checkpoint *k, int64_t slot)
{
    unsigned char **bits = &k->src->index->missing_suppressed;
    if (slot < 0) return;
    /* when there is no memory for the bits, a tensor may be reported twice */
    if (!*bits) *bits = calloc((size_t)moe_source_slots(&k->src->config) / 8 + 1, 1);
    if (*bits) (*bits)[slot / 8] |= (unsigned char)(1 << slot % 8);
}

bool moe_checkpoint_missing_suppressed(const struct moe_checkpoint *k, int64_t slot)
{
    const unsigned char *bits = k->src->index->missing_suppressed;
    return bits && (bits[slot / 8] >> slot % 8 & 1);
}

static enum moe_code read_all(struct moe_checkpoint *k, struct moe_err *err)
{
    struct moe_source *src = k->src;
    MOE_TRY(moe_small_digests_read(&src->index->small_digests, src->path, err));
    MOE_TRY(moe_config_read(src->path, &src->config, &src->scheme, err));
    MOE_TRY(moe_checkpoint_list(k, err));
    MOE_TRY(moe_checkpoint_read_headers(k, err));
    MOE_TRY(moe_checkpoint_make_tensors(k, err));
    MOE_TRY(moe_source_finish(src, k->p, err));
    return moe_source_read_scalars(src, k->p, err);
}

enum moe_code moe_checkpoint_open(struct moe_source **src, const char *path, struct moe_problems *p,
                                  struct moe_err *err)
{
    struct moe_checkpoint *k = calloc(1, sizeof *k);
    *src = NULL;
    if (!k) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to open it");
    k->p = p;
    enum moe_code code = moe_source_new(&k->src, MOE_CHECKPOINT, path, err);
    if (code == MOE_OK) code = read_all(k, err);
    moe_strmap_release(&k->map);
    free(k->index_text);
    free(k->names);
    free(k->file_of);
    free(k->first_in);
    free(k->next_in);
    free(k->seen);
    free(k->parts);
    if (code == MOE_OK) *src = k->src;
    else moe_source_close(&k->src);
    free(k);
    return code;
}
