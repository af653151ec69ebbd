/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/plan/plan-model.h - a model of what a placement costs in memory, and of how long a decode step and
 * a prefill step take (a roofline).  It is arithmetic on published figures of the hardware, not a
 * measurement: docs/reference/placement.md has the formulas, and how far they are from published
 * measurements.  Any thread may call these functions. */
#ifndef MOE_RUNTIME_PLAN_PLAN_MODEL_H
#define MOE_RUNTIME_PLAN_PLAN_MODEL_H

#include "formats/source.h"

/* Bytes of a model's weights, by kind of weight. */
struct moe_weight_bytes {
    double expert;                /* one routed expert of one layer */
    double attention, shared, router, dense, embed, head; /* of all layers together */
    int64_t moe_layers, layers;
};

/* Counts the bytes of the model's tensors; for a directory with only config.json, of the tensors that the
 * config implies, in the quantization that it names.  expert_type: the type of routed experts to count with,
 * "bf16", "fp8", "int4" or "nvfp4"; "source": the type that they have.  dense_bytes: bytes per weight of
 * attention, shared experts and dense layers; 0: as stored.  MOE_USAGE for another word. */
enum moe_code moe_weight_bytes_of(struct moe_weight_bytes *w, const struct moe_source *src,
                                  const char *expert_type, double dense_bytes, struct moe_err *err);
/* Bytes per weight of a type: "source" (0), "bf16" or "fp8".  MOE_USAGE for another word. */
enum moe_code moe_dense_bytes(const char *type, double *bytes, struct moe_err *err);
double moe_weight_bytes_replicated(const struct moe_weight_bytes *w); /* all weights that every rank holds */

/* Figures of one GPU, which runs one rank.  A domain is a group of ranks with fast links between them, such
 * as NVLink; domains are connected by a network. */
struct moe_gpu {
    const char *name, *source;    /* source: where the figures come from */
    double memory, bandwidth;     /* bytes; bytes/s */
    double link, domain_link;     /* bytes/s one way: between ranks of a domain; between domains */
    int32_t domain;               /* ranks in one domain */
    double fp4, fp8, bf16;        /* dense FLOP/s; fp4 0: such weights are computed in bf16 */
    double dispatch_base, combine_base; /* seconds per layer with an empty batch */
};
extern const struct moe_gpu moe_gpus[];
extern const int moe_gpu_count;
const struct moe_gpu *moe_gpu_find(const char *name); /* NULL: none */
/* Reads NAME or NAME,key=value,...: a known GPU, with figures changed.  Keys: memory in GB; bandwidth, link
 * and network (domain_link) in GB/s; fp4, fp8 and bf16 in TFLOP/s; domain in ranks.  MOE_USAGE for an unknown
 * name or key, or a figure of 0. */
enum moe_code moe_gpu_parse(struct moe_gpu *g, const char *text, struct moe_err *err);

/* What a user may choose for the model of a step. */
struct moe_step_options {
    const char *gpu;              /* as moe_gpu_parse takes it */
    const char *kv_type;          /* the type of cached values: "fp8" or "bf16" */
    int64_t batch, context, prefill, reserve; /* as in struct moe_step_task */
};
#define MOE_STEP_OPTIONS                                                                             \
    { .gpu = "gb200-nvl72", .kv_type = "fp8", .batch = 128, .context = 8192, .prefill = 8192,          \
      .reserve = 14000000000 }
/* MOE_USAGE, naming the option, when a value is out of range.  *gpu becomes the GPU that `gpu` names. */
enum moe_code moe_step_options_check(const struct moe_step_options *o, struct moe_gpu *gpu,
                                     struct moe_err *err);

struct moe_step_task {
    const struct moe_config *c;
    const struct moe_weight_bytes *w;
    struct moe_gpu gpu;
    int32_t ranks, slots;
    int64_t batch, context;       /* sequences that a rank decodes at once; tokens of context of each */
    int64_t prefill;              /* tokens of one prefill step of a rank */
    /* bytes of a cached value; bytes of a rank that neither weights nor the cache may use */
    double kv_bytes, reserve;
    /* largest load / mean load; slots of a rank with a token in a step (0: computed for equal loads) */
    double imbalance, activated;
};

struct moe_step {
    /* bytes of a rank: routed experts, other weights, buffers for dispatch and combine, and what is left for
     * the cache (below 0: the model does not fit) */
    double routed, replicated, buffers, cache;
    double cache_tokens, sequences;  /* what the cache holds: tokens; sequences of the given context */
    double moe, attention, shared, kv, dispatch, combine; /* seconds per layer of a decode step */
    double decode, decode_floor;     /* seconds of a decode step; if it only read memory at peak bandwidth */
    double tokens_per_second, tokens_per_second_user;     /* decoded by a rank; for one of its sequences */
    double prefill, prefill_tokens_per_second;            /* seconds of a prefill step; of a rank */
};

/* Computes *s from *t. */
void moe_step_model(struct moe_step *s, const struct moe_step_task *t);
cJSON *moe_step_json(const struct moe_step *s, int32_t ranks, int32_t slots); /* NULL when out of memory */

#endif
