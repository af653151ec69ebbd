/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-model.h - what a placement costs in memory, and a roofline of its decode and prefill step
 * (docs/reference/placement.md: formulas and how far they are from published measurements).  A model, not a
 * measurement: nothing here has seen the hardware. */
#ifndef MOE_RUNTIME_PLAN_PLAN_MODEL_H
#define MOE_RUNTIME_PLAN_PLAN_MODEL_H

#include "formats/source.h"

/* Bytes of a model's weights, as they are stored, by what a rank reads of them. */
struct moe_weight_bytes {
    double expert;                /* one routed expert of one layer */
    double attention, shared, router, dense, embed, head; /* of all layers together */
    int64_t moe_layers, layers;
};

/* From the tensors; or for a directory with only a config from its quantization (`expert_type` says another:
 * "bf16", "fp8", "int4", "nvfp4"; "source": as it is).  `dense_bytes`: bytes a weight of attention, shared
 * experts and dense layers; 0: as stored.  MOE_USAGE for another word. */
enum moe_code moe_weight_bytes_of(struct moe_weight_bytes *w, const struct moe_source *src,
                                  const char *expert_type, double dense_bytes, struct moe_err *err);
/* Bytes of a weight of the type named: "source" (0), "bf16" or "fp8".  MOE_USAGE for another word. */
enum moe_code moe_dense_bytes(const char *type, double *bytes, struct moe_err *err);
double moe_weight_bytes_replicated(const struct moe_weight_bytes *w); /* what every rank holds */

struct moe_gpu {
    const char *name, *source;    /* where the numbers come from */
    double memory, bandwidth;     /* bytes; bytes/s */
    double link, domain_link;     /* bytes/s one way: between ranks of a domain, between domains */
    int32_t domain;               /* ranks in one link domain */
    double fp4, fp8, bf16;        /* dense FLOP/s; fp4 0: such weights are computed as bf16 */
    double dispatch_base, combine_base; /* s a layer at an empty batch */
};
extern const struct moe_gpu moe_gpus[];
extern const int moe_gpu_count;
const struct moe_gpu *moe_gpu_find(const char *name); /* NULL: none */
/* NAME or NAME,key=value...: memory in GB, bandwidth, link and network in GB/s, fp4, fp8 and bf16 in TFLOP/s,
 * domain in ranks.  MOE_USAGE. */
enum moe_code moe_gpu_parse(struct moe_gpu *g, const char *text, struct moe_err *err);

/* What a user says of a step. */
struct moe_step_options {
    const char *gpu;              /* as moe_gpu_parse takes it */
    const char *kv_type;          /* of a cached value: "fp8" or "bf16" */
    int64_t batch, context, prefill, reserve; /* as in the task below */
};
#define MOE_STEP_OPTIONS                                                                             \
    { .gpu = "gb200-nvl72", .kv_type = "fp8", .batch = 128, .context = 8192, .prefill = 8192,          \
      .reserve = 14000000000 }
/* MOE_USAGE in a sentence that names the option.  *gpu is the one that is named. */
enum moe_code moe_step_options_check(const struct moe_step_options *o, struct moe_gpu *gpu,
                                     struct moe_err *err);

struct moe_step_task {
    const struct moe_config *c;
    const struct moe_weight_bytes *w;
    struct moe_gpu gpu;
    int32_t ranks, slots;
    int64_t batch, context;       /* sequences a rank decodes; tokens of context each */
    int64_t prefill;              /* tokens of one prefill step of a rank */
    /* bytes a cached value; bytes of a rank that are not for weights and cache */
    double kv_bytes, reserve;
    /* largest load / mean; slots of a rank with a token in a step (0: computed for equal loads) */
    double imbalance, activated;
};

struct moe_step {
    /* bytes a rank; cache: what is left for it, below 0: it does not fit */
    double routed, replicated, buffers, cache;
    double cache_tokens, sequences;                /* of the given context */
    double moe, attention, shared, kv, dispatch, combine; /* s a layer, decode */
    double decode, decode_floor;                   /* s a step; only reading memory at peak bandwidth */
    double tokens_per_second, tokens_per_second_user;
    double prefill, prefill_tokens_per_second;     /* s a step; a rank */
};

void moe_step_model(struct moe_step *s, const struct moe_step_task *t);
cJSON *moe_step_json(const struct moe_step *s, int32_t ranks, int32_t slots); /* NULL when out of memory */

#endif
