/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/request.h - the request for a quantization, in the words of the command line, and the choices that
 * follow from it: method, precision map and layers. */
#ifndef MOE_QUANTIZE_REQUEST_H
#define MOE_QUANTIZE_REQUEST_H

#include "model/rewrite/rewrite-hf.h"

#define MOE_QUANTIZE_UNSET INT64_MIN /* a number that the request leaves to the default */
/* The options that --resume compares are kept as JSON, where a larger number would lose its last digits. */
#define MOE_QUANTIZE_SEED_MAX ((int64_t)1 << 53)

struct moe_quantize_request {
    const char *out;                /* the container or directory to write */
    bool estimate;                  /* only an estimate is wanted: `out` may be NULL */
    const char *to;                 /* "container" or "hf-nvfp4" */
    const char *flavor;             /* of hf-nvfp4; NULL: the default */
    int64_t shard_size;             /* of hf-nvfp4, in bytes; MOE_QUANTIZE_UNSET: the default */
    bool resume, force;
    /* bytes that the process's resident memory must not exceed; 0: half of what is free */
    int64_t memory;
    /* "max", "four-over-six", "search", "weighted", "gptq", "fisher", or "auto" */
    const char *method;
    const char *scope;              /* what becomes NVFP4: "experts", "mlp" or "all-linear" */
    const char *const *types;       /* n_types rules REGEX=TYPE; the last match wins */
    size_t n_types;
    const char *layers;             /* "A-B": a part of the model; NULL: all */
    /* calibration */
    const char *const *calib;       /* n_calib paths of text; none: no calibration */
    size_t n_calib;
    const char *chat_template;      /* for conversations; NULL: the model's */
    int64_t calib_tokens;           /* the number of tokens of the text that are used, from its beginning */
    /* tokens of a sequence; MOE_QUANTIZE_UNSET: 2048, or the model's context if that is less */
    int64_t sequence;
    const char *effort;             /* "fast", "balanced" or "best" */
    const char *activations;        /* "float", "nvfp4", "nvfp4-four-over-six" or "nvfp4-search" */
    const char *upstream;           /* "corrected", "quantized" or "source"; NULL: by method */
    int64_t sensitivity;            /* tokens of the sensitivity pass */
    int64_t seed;                   /* the seed of the labels that the sensitivity pass draws */
    const char *scratch;            /* directory for what memory does not hold; NULL: none */
    const struct moe_cancel *cancel; /* ends the work early; NULL: nobody will */
};
#define MOE_QUANTIZE_REQUEST                                                                         \
    { .to = "container", .shard_size = MOE_QUANTIZE_UNSET, .method = "auto", .scope = "experts", \
      .calib_tokens = 1 << 20, .sequence = MOE_QUANTIZE_UNSET, .effort = "best", .activations = "float", \
      .sensitivity = 16384 }

/* The methods that need text, from the cheapest to the best. */
enum moe_calibrated { MOE_NOT_CALIBRATED, MOE_WEIGHTED, MOE_GPTQ, MOE_FISHER };

struct moe_quantize_choice {
    enum moe_calibrated calibrated; /* from method, text and effort */
    const char *upstream;           /* never NULL */
    int sweeps;                     /* of coordinate descent (quantize/rounding/round.h), from the effort */
    bool hf;                        /* the output is hf-nvfp4 */
    struct moe_hf_options export;   /* its mode is used for a container, too */
    struct moe_layer_range range;   /* the request's `layers` */
    struct moe_rewrite_options rewrite; /* points into the choice and the request */
};

/* Checks the request and makes the choices.  MOE_USAGE, naming the option.  *c points into itself and must
 * not be moved; q must outlive it. */
enum moe_code moe_quantize_choose(struct moe_quantize_choice *c, const struct moe_quantize_request *q,
                                  struct moe_err *err);
/* The method's name as reports give it. */
const char *moe_quantize_method(const struct moe_quantize_choice *c);

#endif
