/* SPDX-License-Identifier: Apache-2.0 */
/* moe/model.h - what a model on disk is: a checkpoint as it was published, or a container NAME.moe.
 *
 * Reads headers only, never weights, so it takes milliseconds to seconds whatever the size.  Has no state and
 * may be called from any thread. */
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
    bool container;                /* else a checkpoint */
    char architecture[64];         /* as config.json has it: "DeepseekV3ForCausalLM" */
    char model_type[32];
    /* The type that most expert weights have: "bf16", "fp8-block128", "int4-g32", "nvfp4" or "f32". */
    char layout[32];
    int64_t layers, moe_layers;    /* all, and those with routed experts */
    int64_t hidden_size;           /* values of a token's state */
    int64_t experts;               /* routed experts of a layer; 0: the model has none */
    int64_t experts_per_token, shared_experts;
    int64_t vocab_size;            /* tokens */
    int64_t context;               /* positions that the model was made for */
    uint64_t parameters, parameters_active; /* of all, and of those that one token uses */
    int64_t tensors;               /* canonical weights: without scales and what is skipped */
    uint64_t bytes;                /* of the files that hold tensors */
};

/* path: the model's directory.  It is checked that every tensor that the config calls for is there, once,
 * with the right shape.  Fails with MOE_USAGE for NULL, MOE_NOT_FOUND where there is no model, MOE_CORRUPT
 * for one that is damaged or incomplete, MOE_UNSUPPORTED for another architecture or a part of a model; *d is
 * then as it was. */
MOE_API enum moe_code moe_describe(const char *path, struct moe_description *d, struct moe_err *err);

#ifdef __cplusplus
}
#endif
#endif
