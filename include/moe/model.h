/* SPDX-License-Identifier: Apache-2.0 */
/* moe/model.h - what a model on disk is: a checkpoint as it was published, or a container NAME.moe.
 *
 * moe_describe reads headers only, never weights, so that it takes milliseconds to seconds for a model of any
 * size.  It has no state and may be called from any thread. */
#ifndef MOE_MODEL_H
#define MOE_MODEL_H

#include <moe/error.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct moe_description {
    size_t size;                   /* sizeof(struct moe_description), set by the caller (moe/moe.h) */
    bool container;                /* true: a container; false: a checkpoint */
    char architecture[64];         /* as config.json has it: "DeepseekV3ForCausalLM" */
    char model_type[32];           /* as config.json has it: "kimi_k2" */
    /* The type that most expert weights have: "bf16", "fp8-block128", "int4-g32", "nvfp4" or "f32". */
    char layout[32];
    int64_t layers, moe_layers;    /* all layers, and those that have routed experts */
    int64_t hidden_size;           /* numbers in the hidden state of a token */
    int64_t experts;               /* routed experts of a layer; 0: the model has none */
    int64_t experts_per_token, shared_experts; /* of a layer: routed experts that a token uses; shared ones */
    int64_t vocab_size;            /* tokens in the vocabulary */
    int64_t context;               /* positions that the model was made for */
    uint64_t parameters, parameters_active; /* of the whole model, and those that one token uses */
    /* The number of weight tensors.  Scales are not counted, nor tensors that the library does not use: those
     * of vision and of prediction layers. */
    int64_t tensors;
    uint64_t bytes;                /* size of the files that hold tensors */
};

/* Describes the model in the directory `path`, and checks that every tensor that its config calls for is
 * there, once, with the right shape.  Fails with MOE_USAGE for NULL, MOE_NOT_FOUND where there is no model,
 * MOE_CORRUPT for one that is damaged or incomplete, MOE_UNSUPPORTED for another architecture or for a
 * container with only some layers of a model, MOE_MISMATCH for a container with only the experts that some
 * ranks need (moe-plan stage).  A failure leaves *d as it was. */
MOE_API enum moe_code moe_describe(const char *path, struct moe_description *d, struct moe_err *err);

#ifdef __cplusplus
}
#endif
#endif
