/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/engine.h - a model, its tokenizer and one sequence: prefill, decode, text.
 *
 * One engine serves one sequence at a time; the tokens it holds are kept, so that a next prompt that begins
 * with them (a chat's next turn) computes only what is new.  A token that is cancelled ends
 * prefill and generation between two passes. */
#ifndef MOE_RUNTIME_ENGINE_ENGINE_H
#define MOE_RUNTIME_ENGINE_ENGINE_H

#include "formats/tokenizer/tokenizer.h"
#include "model/forward.h"
#include "runtime/parallel/resident.h"

struct moe_engine {
    struct moe_source *source;
    bool borrowed;                    /* source and tokenizer are another engine's */
    struct moe_resident *resident;            /* NULL: the whole model is mapped */
    struct moe_model *model;
    struct moe_tokenizer *tokenizer;  /* NULL when the model has none and none was needed */
    struct moe_forward *forward;
    struct moe_kv kv;
    int32_t *ids; int64_t n_ids;      /* what kv holds */
    int64_t context, batch;           /* most positions, most tokens in a batch */
    uint64_t spare;                   /* of the memory allowed, what a full context leaves */
    float *h, *logits;                /* [batch, H], [V] */
    int32_t *order; float *p;         /* [V]: sampling */
    /* ids that may be produced: the smaller of the model's and the tokenizer's */
    int64_t vocab;
    const struct moe_cancel *cancel;  /* ends its work early; NULL: nobody will.  May be set between calls */
};

struct moe_engine_options {
    bool tokenizer;                   /* a model without one is MOE_NOT_FOUND */
    /* map no routed expert: struct moe_engine.resident does that (runtime/parallel/ep.h) */
    bool dense_only;
    int sharers;                      /* engines in this process that the memory is for; 0 is 1 */
    const struct moe_engine *lender;  /* whose source and tokenizer to use (it stays open); NULL: open them */
    int64_t batch;                    /* most tokens in a batch; 0: what is of use */
    int64_t context;                  /* 0: the model's, or less where memory does not hold it */
    int64_t max_context;                     /* positions that are of use where context is 0; 0: all */
    /* bytes the engine may hold besides mapped files; 0: what the machine has available */
    uint64_t memory;
    double lora_eps;                  /* moe_model_open */
    enum moe_mla mla;
    enum moe_activations activations; /* moe_forward_activations */
    const struct moe_cancel *cancel;  /* struct moe_engine */
};

/* Bytes that an engine holds at most, besides mapped files: a full cache, the buffers of a batch, hidden
 * states, logits, sampling. */
uint64_t moe_engine_estimate(const struct moe_config *c, int64_t context, int64_t batch, enum moe_mla mla,
                             int threads);

/* path: a container or checkpoint.  MOE_USAGE when the context asked for is larger than the model's,
 * MOE_NOMEM when memory does not hold it.  The batch is as large as is of use and memory allows. */
enum moe_code moe_engine_open(struct moe_engine **e, const char *path, const struct moe_engine_options *o,
                              struct moe_pool *pool, struct moe_err *err);
/* Source and tokenizer alone, for others to use (moe_engine_options.lender): no model, no buffers.  A staged
 * part is taken: whoever borrows it holds its experts against the plan (moe_plan_check_staged). */
enum moe_code moe_engine_open_lender(struct moe_engine **e, const char *path,
                                     const struct moe_engine_options *o, struct moe_err *err);
void moe_engine_close(struct moe_engine **e);

/* Room for n positions, in the cache and in ids; MOE_USAGE beyond the context. */
enum moe_code moe_engine_reserve(struct moe_engine *e, int64_t n, struct moe_err *err);

/* Rows of logits that keep near 32 MiB: the head is read once for that many tokens.  At least 8. */
int64_t moe_engine_logit_rows(const struct moe_config *c);

/* Make the sequence be ids [n]; e->logits is then of its last token.  *computed (may be
 * NULL) gets how many were new. */
enum moe_code moe_engine_prefill(struct moe_engine *e, const int32_t *ids, int64_t n, int64_t *computed,
                                 struct moe_err *err);

enum moe_finish { MOE_FINISH_STOP, MOE_FINISH_LENGTH };

struct moe_generate {
    int64_t max_tokens;               /* -1: until the end or the context is full */
    struct moe_sampler sampler;
    uint64_t seed;
    const char *const *stop; size_t n_stop;
    bool ignore_eos, keep_special;
    /* called with whole characters as they come; may be NULL */
    void (*text)(void *ctx, const char *bytes, size_t n);
    void *ctx;
};

struct moe_generated {
    int32_t *tokens; int64_t n;       /* malloc'd; the end token, when one came, is not among them */
    char *text; size_t text_bytes;    /* malloc'd, NUL after; without the stop text */
    enum moe_finish finish;
};

/* Go on from e->logits.  free() tokens and text in any case. */
enum moe_code moe_engine_generate(struct moe_engine *e, const struct moe_generate *g,
                                  struct moe_generated *out, struct moe_err *err);

#endif
