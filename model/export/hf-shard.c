/* SPDX-License-Identifier: Apache-2.0 */
/* The tensors of each file of an NVFP4 checkpoint in their order, and the index of all files. */
#include "model/export/hf-internal.h"

#include "base/arena.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one file ---- */

/* The place of a tensor's type in the order F32, BF16, F16, F8_E4M3, U8.  This is the safetensors library's
 * order, by which every tensor is aligned to its own type.  Global and input scales are F32. */
static int rank_of(const struct moe_hf_plan *p, const struct moe_hf_entry *e)
{
    int type = p->src->tensors[e->tensor].type;
    switch ((enum moe_hf_part)e->part) {
    case MOE_HF_PLAIN: return type == MOE_F32 ? 0 : type == MOE_BF16 ? 1 : 2;
    case MOE_HF_DECODED: return 1;
    case MOE_HF_SCALES: return 3;
    case MOE_HF_CODES: return 4;
    default: return 0;
    }
}

/* Compares two items for qsort: by type, then by name. */
static int by_rank(const void *a, const void *b)
{
    const struct moe_hf_item *x = a, *y = b;
    return x->rank != y->rank ? x->rank - y->rank : strcmp(x->name, y->name);
}

/* Fills in the header entry of an item: its name, type and shape. */
static void describe(const struct moe_hf_plan *p, const struct moe_hf_item *i, struct moe_st_entry *s)
{
    static const char *const dtypes[] = { "F32", "BF16", "F16", "F8_E4M3", "U8" }; /* by rank */
    const struct moe_tensor *t = &p->src->tensors[i->e.tensor];
    bool scalar = i->e.part == MOE_HF_GLOBAL || i->e.part == MOE_HF_INPUT;
    bool vector = t->rows == 1;

    *s = (struct moe_st_entry){ .name = i->name, .dtype = dtypes[i->rank] };
    if (scalar) { /* modelopt has no dimension here, compressed-tensors has one */
        s->ndim = p->flavor == MOE_HF_COMPRESSED_TENSORS;
        s->shape[0] = 1;
        return;
    }
    s->ndim = vector ? 1 : 2;
    s->shape[0] = vector ? t->cols : t->rows;
    s->shape[1] = i->e.part == MOE_HF_CODES ? t->cols / 2 : i->e.part == MOE_HF_SCALES ? t->cols / 16
        : t->cols;
}

enum moe_code moe_hf_items_open(struct moe_hf_items *items, const struct moe_hf_plan *p, int64_t shard,
                                struct moe_err *err)
{
    const struct moe_hf_shard *s = &p->shards[shard];

    *items = (struct moe_hf_items){ .v = malloc((size_t)s->n * sizeof *items->v),
                                    .header = malloc((size_t)s->n * sizeof *items->header), .n = s->n };
    if (!items->v || !items->header) {
        moe_hf_items_release(items);
        return moe_fail(err, MOE_NOMEM, "no memory for a header");
    }
    for (int64_t i = 0; i < s->n; i++) {
        struct moe_hf_item *item = &items->v[i];
        item->e = p->entries[s->first + i];
        item->number = s->first + i;
        item->rank = rank_of(p, &item->e);
        moe_hf_entry_name(p, &item->e, item->name);
    }
    qsort(items->v, (size_t)s->n, sizeof *items->v, by_rank);
    for (int64_t i = 0; i < s->n; i++) describe(p, &items->v[i], &items->header[i]);
    return MOE_OK;
}

void moe_hf_items_release(struct moe_hf_items *items)
{
    free(items->v);
    free(items->header);
    *items = (struct moe_hf_items){ 0 };
}

/* ---- the index ---- */

/* Lists the names of all tensors, in the arena, and the file that each is in: names[i] is in files[i]. */
static enum moe_code list_names(const struct moe_hf_plan *p, struct moe_arena *a, char (*shards)[64],
                                const char **names, const char **files,
                                struct moe_err *err)
{
    for (int64_t s = 0; s < p->n_shards; s++)
        for (int64_t i = p->shards[s].first; i < p->shards[s].first + p->shards[s].n; i++) {
            char name[160];
            size_t n = strlen(moe_hf_entry_name(p, &p->entries[i], name)) + 1;
            char *keep = moe_arena_alloc(a, n);
            if (!keep) return moe_fail(err, MOE_NOMEM, "no memory for an index");
            names[i] = memcpy(keep, name, n);
            files[i] = shards[s];
        }
    return MOE_OK;
}

enum moe_code moe_hf_write_index(const struct moe_hf_plan *p, const char *dir, struct moe_err *err)
{
    struct moe_arena a = MOE_ARENA_INIT;

    if (p->n_shards == 1) return MOE_OK;
    const char **names = malloc((size_t)p->n * sizeof *names);
    const char **files = malloc((size_t)p->n * sizeof *files);
    char (*shards)[64] = malloc((size_t)p->n_shards * sizeof *shards);
    enum moe_code code = names && files && shards ? MOE_OK : moe_fail(err, MOE_NOMEM,
                                                                      "no memory for an index");
    for (int64_t s = 0; code == MOE_OK && s < p->n_shards; s++) moe_hf_shard_name(p, s, shards[s]);
    if (code == MOE_OK) code = list_names(p, &a, shards, names, files, err);
    if (code == MOE_OK) code = moe_st_write_index(dir, names, files, p->n, p->bytes, err);
    free(names);
    free(files);
    free(shards);
    moe_arena_clear(&a);
    return code;
}

uint64_t moe_hf_index_bytes(const struct moe_hf_plan *p)
{
    char name[160], shard[64];
    if (p->n_shards == 1) return 0;
    uint64_t n = (uint64_t)snprintf(NULL, 0, MOE_ST_INDEX_HEAD MOE_ST_INDEX_TAIL,
                                    (unsigned long long)p->bytes);
    for (int64_t s = 0; s < p->n_shards; s++)
        for (int64_t i = p->shards[s].first; i < p->shards[s].first + p->shards[s].n; i++)
            n += strlen(moe_hf_entry_name(p, &p->entries[i], name)) + strlen(moe_hf_shard_name(p, s, shard)) +
                 (i > 0) + sizeof "\n    \"\": \"\"" - 1;
    return n;
}
