/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/engine.h - a model with its tokenizer and the cache of one sequence: it computes prompts and
 * generates text.
 *
 * An engine works on one sequence at a time, in one thread at a time.  It keeps the tokens of the sequence
 * and their cache, so that when the next prompt begins with the same tokens (as the next turn of a chat
 * does), only the others are computed.  When `cancel` is cancelled, prefill and generation end after the
 * present forward pass. */
#ifndef MOE_RUNTIME_ENGINE_ENGINE_H
#define MOE_RUNTIME_ENGINE_ENGINE_H

#include "formats/tokenizer/tokenizer.h"
#include "model/forward.h"
#include "runtime/engine/request.h"
#include "runtime/parallel/resident.h"

struct moe_engine {
    struct moe_source *source;
    bool borrowed;                    /* source and tokenizer are another engine's */
    struct moe_resident *resident;    /* NULL: the whole model is mapped */
    struct moe_model *model;
    struct moe_tokenizer *tokenizer;  /* NULL when the model has none and none was needed */
    struct moe_forward *forward;
    struct moe_latent cache;          /* of the sequence, whose block table is cache.every */
    int32_t *ids; int64_t n_ids;      /* the tokens that the cache holds */
    int64_t context, batch;           /* the largest number of positions; of tokens in a batch */
    uint64_t spare;                   /* bytes of the memory allowed that a full context leaves */
    uint64_t cache_bytes; int64_t max_sequences; /* as struct moe_engine_options has them */
    float *h, *logits;                /* [batch, H] hidden states, [V]; V: vocabulary of the model */
    int32_t *order; float *p;         /* [V] scratch memory for sampling */
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
    enum moe_activations activations; /* as moe_forward_activations takes them */
    const struct moe_cancel *cancel;  /* for struct moe_engine.cancel */
};

/* The bytes that an engine holds at most besides mapped files: a full cache, the buffers of a batch, hidden
 * states, logits, and memory for sampling. */
uint64_t moe_engine_estimate(const struct moe_config *c, int64_t context, int64_t batch, enum moe_mla mla,
                             int threads);

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

/* Makes room for n positions in the cache and in e->ids.  MOE_USAGE when n is larger than the context,
 * MOE_NOMEM. */
enum moe_code moe_engine_reserve(struct moe_engine *e, int64_t n, struct moe_err *err);

/* How many rows of logits [V] a caller should compute at once, so that the weights of the head are read once
 * for all of them: as many as take about 32 MiB, but at least 8. */
int64_t moe_engine_logit_rows(const struct moe_config *c);

/* Makes ids [n], n > 0, the sequence of the engine, computing those tokens of it that the cache does not hold
 * yet; e->logits are then those of the last one.  *computed (may be NULL) is set to the number of tokens
 * computed.  MOE_USAGE when n is 0 or larger than the context. */
enum moe_code moe_engine_prefill(struct moe_engine *e, const int32_t *ids, int64_t n, int64_t *computed,
                                 struct moe_err *err);

struct moe_generate {
    int64_t max_tokens;               /* -1: until an end token or stop text, or until the context is full */
    struct moe_sampler sampler;
    uint64_t seed;
    const char *const *stop; size_t n_stop; /* texts before which the answer ends */
    /* go on after an end token; write special tokens into the text by their names */
    bool ignore_eos, keep_special;
    /* called with the next bytes of the text, whole UTF-8 characters; may be NULL */
    void (*text)(void *ctx, const char *bytes, size_t n);
    void *ctx;
};

struct moe_generated {
    int32_t *tokens; int64_t n;       /* malloc'd; the end token, when one came, is not among them */
    char *text; size_t text_bytes;    /* malloc'd, with a NUL after it; ends before the stop text */
    struct moe_logprobs *logprobs;    /* [n], malloc'd; NULL: none were asked for */
    enum moe_finish finish;
};

/* Generates tokens behind the sequence of the engine, the first from e->logits.  The caller has to free()
 * out->tokens, out->text and out->logprobs, also after a failure. */
enum moe_code moe_engine_generate(struct moe_engine *e, const struct moe_generate *g,
                                  struct moe_generated *out, struct moe_err *err);

#endif
