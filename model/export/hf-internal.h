/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/hf-internal.h - what hf-plan.c decides, hf-config.c declares and hf-shard.c and hf-write.c
 * write; for model/export/ alone. */
#ifndef MOE_MODEL_EXPORT_HF_INTERNAL_H
#define MOE_MODEL_EXPORT_HF_INTERNAL_H

#include "base/arena.h"
#include "formats/checkpoint/safetensors.h"
#include "model/export/hf-files.h"
#include "model/export/hf-nvfp4.h"
#include "model/export/hf-place.h"

/* What of a weight one tensor of the checkpoint holds. */
enum moe_hf_part { MOE_HF_PLAIN, MOE_HF_DECODED, MOE_HF_CODES, MOE_HF_SCALES, MOE_HF_GLOBAL, MOE_HF_INPUT };

struct moe_hf_entry { int32_t tensor /* index in src->tensors */; uint8_t part; };
struct moe_hf_shard { int64_t first, n; uint64_t bytes; };  /* entries [first, first + n) */

struct moe_hf_plan {
    const struct moe_source *src;
    enum moe_hf_flavor flavor;
    bool weight_only;
    uint64_t shard_bytes;        /* as asked for */
    const struct moe_cancel *cancel;
    struct moe_hf_entry *entries; int64_t n;
    struct moe_hf_shard *shards;  int64_t n_shards;
    uint64_t bytes;
};

/* Decide everything, and count into *r.  On failure nothing is owned. */
enum moe_code moe_hf_plan_open(struct moe_hf_plan *p, const struct moe_source *src,
                               const struct moe_hf_options *o, struct moe_hf_result *r, struct moe_err *err);
void moe_hf_plan_release(struct moe_hf_plan *p);

/* True when the tensor is written as NVFP4: it is NVFP4, and no engine wants it otherwise (embedding, router,
 * norms, and kv_b, which engines split into W_UK and W_UV: SGLang and TensorRT-LLM fail on it in NVFP4, vLLM
 * derives them through the W4A4 layer). */
bool moe_hf_is_nvfp4(const struct moe_tensor *t);
/* The tensor whose global scale this one is written under: of the two that engines fuse (gate and up, q_a and
 * kv_a), the one with the larger; itself when it is alone or they agree. */
const struct moe_tensor *moe_hf_lead(const struct moe_source *src, const struct moe_tensor *t);
/* its global as a factor, whatever the spelling */
float moe_hf_multiplier(const struct moe_tensor *t);
/* Its two scalars as this flavor stores them. */
float moe_hf_global(const struct moe_hf_plan *p, const struct moe_tensor *t);
float moe_hf_input_scale(const struct moe_hf_plan *p, const struct moe_tensor *t);

/* "model.layers.0.mlp.up_proj.weight_packed"; returns out. */
const char *moe_hf_entry_name(const struct moe_hf_plan *p, const struct moe_hf_entry *e, char out[160]);
/* The name of a weight's module: the canonical name without ".weight". */
const char *moe_hf_module_name(const struct moe_tensor *t, char out[128]);
uint64_t moe_hf_entry_bytes(const struct moe_hf_plan *p, const struct moe_hf_entry *e);
/* "model.safetensors", or "model-00002-of-00014.safetensors"; returns out. */
const char *moe_hf_shard_name(const struct moe_hf_plan *p, int64_t shard, char out[64]);

/* What one file holds, in its order, and as its header says it. number: of the entry in the plan. */
struct moe_hf_item { struct moe_hf_entry e; int64_t number; int rank; char name[160]; };
struct moe_hf_items { struct moe_hf_item *v; struct moe_st_entry *header; int64_t n; };
enum moe_code moe_hf_items_open(struct moe_hf_items *items, const struct moe_hf_plan *p, int64_t shard,
                                struct moe_err *err);
void moe_hf_items_release(struct moe_hf_items *items);

/* Modules that the config must name as not quantized, as each tool would; an array of
 * strings, the caller deletes it. */
enum moe_code moe_hf_ignore(const struct moe_hf_plan *p, cJSON **list, struct moe_err *err);
/* SGLang takes an attention projection that the list names in one layer for excluded in all: true, with the
 * entry, when another layer's is NVFP4. */
bool moe_hf_spreads(const struct moe_hf_plan *p, const cJSON *ignore, char first[160]);
/* config.json and, for modelopt, hf_quant_config.json in `dir`.  Fills in r->text_only. */
enum moe_code moe_hf_write_configs(const struct moe_hf_plan *p, const char *dir, struct moe_hf_result *r,
                                   struct moe_err *err);

/* The index, when there are several shards; and its size. */
enum moe_code moe_hf_write_index(const struct moe_hf_plan *p, const char *dir, struct moe_err *err);
uint64_t moe_hf_index_bytes(const struct moe_hf_plan *p);
/* Bytes that writing weights of such a source holds. */
uint64_t moe_hf_write_memory(const struct moe_source *src);
/* Bytes that the names of all entries take, in the index with their places, or in a header. */
uint64_t moe_hf_names_memory(const struct moe_hf_plan *p);
/* All shards and the index.  place, unless NULL: the weights that it takes lie in the shards already, so that
 * scalars and the other tensors are written there; MOE_MISMATCH when a shard's header
 * is not that of the plan. */
enum moe_code moe_hf_write_shards(const struct moe_hf_plan *p, const struct moe_hf_place *place,
                                  const char *dir, struct moe_progress *progress, struct moe_hf_result *r,
                                  struct moe_err *err);
/* These, after the configurations and the small files of p's container. */
enum moe_code moe_hf_write_all(const struct moe_hf_plan *p, const struct moe_hf_place *place, const char *dir,
                               struct moe_progress *progress, struct moe_hf_result *r, struct moe_err *err);


#endif
