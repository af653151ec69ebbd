/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/engine.h - a model that is open for work, with its tokenizer and its forward pass, and what
 * memory leaves for a cache.
 *
 * Its work is done by others, of which one at a time uses it, in one thread: the core, which answers requests
 * (core.h), scores and traces.  When `cancel` is cancelled, they end after the present forward pass. */
#ifndef MOE_RUNTIME_ENGINE_ENGINE_H
#define MOE_RUNTIME_ENGINE_ENGINE_H

#include "formats/tokenizer/tokenizer.h"
#include "model/forward.h"
#include "model/ops/cpu/cpu.h"
#include "model/ops/cuda/cuda.h"
#include "runtime/engine/request.h"
#include "runtime/parallel/resident.h"

struct moe_engine {
    struct moe_source *source;
    bool borrowed;                    /* source and tokenizer are another engine's */
    struct moe_resident *resident;    /* NULL: the whole model is mapped */
    struct moe_model *model;
    struct moe_tokenizer *tokenizer;  /* NULL when the model has none and none was needed */
    struct moe_device *device;
    struct moe_forward *forward;
    int64_t context, batch;           /* the largest number of positions; of tokens in a batch */
    bool cuda;                        /* buffers and caches are in a GPU's memory, not the host's */
    /* bytes of the memory allowed, or of the GPU's, that a full context leaves */
    uint64_t spare;
    uint64_t cache_bytes; int64_t max_sequences; /* as struct moe_engine_options has them */
    /* only ids below it are generated: the smaller of the model's and the tokenizer's vocabulary */
    int64_t vocab;
    const struct moe_cancel *cancel;  /* ends work early; NULL: nobody will.  May be set between calls */
};

struct moe_engine_options {
    bool tokenizer;                   /* open fails with MOE_NOT_FOUND for a model without a tokenizer */
    /* map no routed expert: a rank maps its own later, by moe_engine.resident (runtime/parallel/ep.h) */
    bool dense_only;
    int sharers;                      /* engines of this process that share `memory` equally; 0 means 1 */
    const struct moe_engine *lender;  /* whose source and tokenizer to use (it stays open); NULL: open them */
    int64_t batch;                    /* at most this many tokens in a batch; 0: as large as is of use */
    /* of moe_sequences_run: bytes of its cache, sequences at once; 0: as many as memory holds */
    uint64_t cache_bytes; int64_t max_sequences;
    int64_t context;                  /* positions; 0: the model's, or as many as memory holds */
    int64_t max_context;              /* where context is 0: at most this many positions; 0: no limit */
    /* bytes the engine may hold besides mapped files; 0: what the machine has available */
    uint64_t memory;
    double lora_eps;                  /* as moe_model_open takes it */
    enum moe_mla mla;
    enum moe_activations activations; /* as moe_cpu_options.activations */
    bool fast; enum moe_latent_type latents; /* of a GPU: those of moe_cuda_options */
    /* compute on GPU number `gpu`, whose memory then holds the model, the buffers and the cache, and is what
     * bounds the context in the place of `memory`; not with EXPANDED, INT16 or dense_only */
    bool cuda; int gpu;
    enum moe_load_path load;          /* how the weights come onto it */
    const char *attach;               /* the socket of a keeper that has them there (attach.h); NULL: none */
    struct moe_progress *progress;    /* of that; may be NULL */
    const struct moe_cancel *cancel;  /* for struct moe_engine.cancel */
};

/* Opens the model at `path`, a container or checkpoint; the pool must stay open as long as the engine.  The
 * batch is as large as is of use and memory allows.  MOE_USAGE when the context asked for is larger than the
 * model's, MOE_NOMEM when memory does not hold it, or what opening the source fails with; *e is then NULL. */
enum moe_code moe_engine_open(struct moe_engine **e, const char *path, const struct moe_engine_options *o,
                              struct moe_pool *pool, struct moe_err *err);
/* Opens source and tokenizer only, for other engines to use (moe_engine_options.lender): no model, no
 * buffers.  The source may be a staged part of a model; the caller then has to check that the part has the
 * experts that the plan needs (moe_plan_check_staged).  Fails as moe_engine_open does. */
enum moe_code moe_engine_open_lender(struct moe_engine **e, const char *path,
                                     const struct moe_engine_options *o, struct moe_err *err);
void moe_engine_close(struct moe_engine **e); /* NULL-safe; nulls */

#endif
