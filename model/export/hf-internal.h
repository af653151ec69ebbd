/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/hf-internal.h - what the files that write an NVFP4 checkpoint share: hf-plan.c decides its
 * tensors, hf-config.c writes its configs, hf-shard.c orders each file, hf-write.c writes the bytes. */
#ifndef MOE_MODEL_EXPORT_HF_INTERNAL_H
#define MOE_MODEL_EXPORT_HF_INTERNAL_H

#include "base/arena.h"
#include "formats/checkpoint/safetensors.h"
#include "model/export/hf-files.h"
#include "model/export/hf-nvfp4.h"
#include "model/export/hf-layout.h"

/* What a tensor of the checkpoint holds of a weight: a weight that is not NVFP4 as it is, or as BF16; of an
 * NVFP4 weight the codes, the block scales, the global scale or the input scale. */
enum moe_hf_part { MOE_HF_PLAIN, MOE_HF_DECODED, MOE_HF_CODES, MOE_HF_SCALES, MOE_HF_GLOBAL, MOE_HF_INPUT };

/* One tensor of the checkpoint, and one of its files. */
struct moe_hf_entry { int32_t tensor /* index in src->tensors */; uint8_t part; };
struct moe_hf_shard { int64_t first, n; uint64_t bytes; };  /* entries [first, first + n) */

struct moe_hf_plan {
    const struct moe_source *src;
    enum moe_hf_flavor flavor;
    bool weight_only;            /* no weight has a calibrated input scale, so none is written */
    uint64_t shard_bytes;        /* the limit that was asked for */
    const struct moe_cancel *cancel;
    struct moe_hf_entry *entries; int64_t n;
    struct moe_hf_shard *shards;  int64_t n_shards;
    uint64_t bytes;              /* of all entries */
};

/* Decides which tensors are written and into which files, and counts them in *r.  src must outlive p.
 * MOE_UNSUPPORTED as for moe_export_hf_nvfp4.  After a failure there is nothing to release. */
enum moe_code moe_hf_plan_open(struct moe_hf_plan *p, const struct moe_source *src,
                               const struct moe_hf_options *o, struct moe_hf_result *r, struct moe_err *err);
void moe_hf_plan_release(struct moe_hf_plan *p);

/* True when the tensor is written as NVFP4: it is NVFP4, and engines read its role as NVFP4.  This is not so
 * for embedding, router and norms, nor for kv_b, which engines split into W_UK and W_UV: SGLang and
 * TensorRT-LLM fail on an NVFP4 kv_b, and vLLM derives the two through its W4A4 layer, which quantizes
 * activations. */
bool moe_hf_is_nvfp4(const struct moe_tensor *t);
/* The tensor whose global scale t is written under: of two weights that engines fuse (gate and up, q_a and
 * kv_a) the one with the larger global scale; t itself when it has no partner or the two scales agree. */
const struct moe_tensor *moe_hf_global_owner(const struct moe_source *src, const struct moe_tensor *t);
/* The global scale of t as a factor of values; compressed-tensors stores the reciprocal of this. */
float moe_hf_multiplier(const struct moe_tensor *t);
/* The global scale and the input scale of t as the plan's flavor stores them; for a fused pair both are the
 * larger of the two. */
float moe_hf_global(const struct moe_hf_plan *p, const struct moe_tensor *t);
float moe_hf_input_scale(const struct moe_hf_plan *p, const struct moe_tensor *t);

/* The name of an entry in the checkpoint: "model.layers.0.mlp.up_proj.weight_packed"; returns out. */
const char *moe_hf_entry_name(const struct moe_hf_plan *p, const struct moe_hf_entry *e, char out[160]);
/* The name of a weight's module: the canonical name without ".weight". */
const char *moe_hf_module_name(const struct moe_tensor *t, char out[128]);
uint64_t moe_hf_entry_bytes(const struct moe_hf_plan *p, const struct moe_hf_entry *e);
/* The name of one of the plan's files (moe_st_shard_name); returns out. */
const char *moe_hf_shard_name(const struct moe_hf_plan *p, int64_t shard, char out[MOE_ST_NAME_BYTES]);

/* The entries of one file, in the order of their bytes, and its header.  number: the index of the entry in
 * the plan; rank: its type's place in that order. */
struct moe_hf_item { struct moe_hf_entry e; int64_t number; int rank; char name[160]; };
struct moe_hf_items { struct moe_hf_item *v; struct moe_st_entry *header; int64_t n; };
enum moe_code moe_hf_items_open(struct moe_hf_items *items, const struct moe_hf_plan *p, int64_t shard,
                                struct moe_err *err);
void moe_hf_items_release(struct moe_hf_items *items);

/* The modules that the config must name as not quantized, spelled as modelopt or compressed-tensors would; an
 * array of strings, which the caller deletes. */
enum moe_code moe_hf_ignore(const struct moe_hf_plan *p, cJSON **list, struct moe_err *err);
/* Whether the list `ignore` names a projection of attention for one layer that is NVFP4 in another; `first`
 * gets the first entry that does.  SGLang takes such a projection for excluded in all layers. */
bool moe_hf_find_partly_excluded(const struct moe_hf_plan *p, const cJSON *ignore, char first[160]);
/* Writes config.json and, for modelopt, hf_quant_config.json into `dir`.  Sets r->text_only. */
enum moe_code moe_hf_write_configs(const struct moe_hf_plan *p, const char *dir, struct moe_hf_result *r,
                                   struct moe_err *err);

/* Writes the index (model.safetensors.index.json) when there are several shards; moe_hf_index_bytes is its
 * size. */
enum moe_code moe_hf_write_index(const struct moe_hf_plan *p, const char *dir, struct moe_err *err);
uint64_t moe_hf_index_bytes(const struct moe_hf_plan *p);
/* Bytes of memory that writing the weights of this source takes. */
uint64_t moe_hf_write_memory(const struct moe_source *src);
/* Bytes of memory that the names of all entries take, while an index or a header is made. */
uint64_t moe_hf_names_memory(const struct moe_hf_plan *p);
/* Writes all shards and the index.  layout, unless NULL: the shards exist and hold the weights that `layout`
 * holds, so only scalars and the other tensors are written; MOE_MISMATCH when a shard's header is not that of
 * the plan. */
enum moe_code moe_hf_write_shards(const struct moe_hf_plan *p, const struct moe_hf_layout *layout,
                                  const char *dir, struct moe_progress *progress, struct moe_hf_result *r,
                                  struct moe_err *err);
/* Writes the configurations and the small files of p's container, then all shards and the index. */
enum moe_code moe_hf_write_all(const struct moe_hf_plan *p, const struct moe_hf_layout *layout,
                               const char *dir,
                               struct moe_progress *progress, struct moe_hf_result *r, struct moe_err *err);

#endif
