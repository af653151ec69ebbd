/* SPDX-License-Identifier: Apache-2.0 */
/* moe/lm.h - a language model opened to compute with: its tokens, its answers, its score of a text.
 *
 * The weights are mapped and stay in the page cache, shared with whoever else maps them.  A file that shrinks
 * while it is mapped raises SIGBUS, as it does for every mapped file.
 *
 * Threads: one struct moe_lm is used by one thread at a time; several may be open, and used at once.  A model
 * has a pool of threads of its own, and what comes out does not depend on their number.
 *
 * Ownership: what a call returns in malloc'd memory is the caller's, to free().  On failure nothing is owned
 * and the pointers are NULL. */
#ifndef MOE_LM_H
#define MOE_LM_H

#include <moe/cancel.h>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct moe_lm;

struct moe_lm_options {
    size_t size;               /* sizeof(struct moe_lm_options), set by the caller (moe/moe.h) */
    int64_t threads;           /* 0: as many as there are processors */
    int64_t context;           /* positions; 0: the model's, or fewer where memory does not hold them */
    uint64_t memory;           /* bytes to hold at most besides mapped files; 0: what the machine has */
};

/* path: a container or a checkpoint.  o may be NULL: all defaults.  Fails with what moe_describe fails with,
 * MOE_USAGE for a context larger than the model's, MOE_NOMEM where memory does not hold it; *lm is then
 * NULL. */
MOE_API enum moe_code moe_lm_open(struct moe_lm **lm, const char *path, const struct moe_lm_options *o,
                                  struct moe_err *err);
/* Frees it and sets *lm to NULL; does nothing where lm or *lm is NULL. */
MOE_API void moe_lm_close(struct moe_lm **lm);

/* ---- tokens ---- */

/* The ids of `bytes` bytes of text, in malloc'd *ids.  special: the names of special tokens in the text are
 * those tokens; else all of it is literal.  No token is added at the front.  MOE_NOT_FOUND where the model
 * has no tokenizer. */
MOE_API enum moe_code moe_lm_tokenize(struct moe_lm *lm, const char *text, size_t bytes, bool special,
                                      int32_t **ids, size_t *n, struct moe_err *err);
/* The text of n ids, in malloc'd *text with a NUL behind its `bytes` bytes.  special: with the names of
 * special tokens; else without these tokens.  An id outside of the vocabulary gives nothing. */
MOE_API enum moe_code moe_lm_detokenize(struct moe_lm *lm, const int32_t *ids, size_t n, bool special,
                                        char **text, size_t *bytes, struct moe_err *err);

/* ---- generation ---- */

struct moe_generate_options {
    size_t size;               /* sizeof(struct moe_generate_options), set by the caller (moe/moe.h) */
    int64_t max_tokens;        /* 0: until the model ends, or the context is full */
    double temperature;        /* 0: always the likeliest token; else draws */
    double top_p;              /* draw among the likeliest tokens with this probability together; 0: all */
    double min_p;              /* ... among those with this share of the likeliest one's; 0: all */
    int64_t top_k;             /* ... among this many; 0: all */
    uint64_t seed;             /* the same seed gives the same draws */
    const char *const *stop;   /* n_stop texts that end the answer, which is given without them */
    size_t n_stop;
    bool chat;                 /* the prompt is one user's turn, put into the model's chat template */
    bool special;              /* special tokens' names are tokens in the prompt, and text in the answer */
    bool ignore_end;           /* go on behind the model's end token */
    /* Called with the answer's next bytes, whole UTF-8 characters, from the thread that generates; NULL: not
     * called.  It may ask `cancel` for the end, and may not use this moe_lm. */
    void (*text)(void *ctx, const char *bytes, size_t n);
    void *ctx;
    struct moe_cancel *cancel; /* ends it early; NULL: nobody does */
};

struct moe_generation {
    size_t size;               /* sizeof(struct moe_generation), set by the caller (moe/moe.h) */
    int32_t *tokens;           /* n_tokens; without the end token */
    size_t n_tokens;
    char *text;                /* `bytes`, and a NUL */
    size_t bytes;
    size_t prompt_tokens;
    bool truncated;            /* by max_tokens or by the context: the model had not ended */
};

/* Go on from a prompt of `bytes` bytes of text, or of n ids.  o may be NULL; g is filled in on success, to be
 * released.  Of a prompt that begins as the one before it and its answer only what is new is computed.
 * MOE_USAGE for a prompt that is empty or longer than the context. */
MOE_API enum moe_code moe_lm_generate(struct moe_lm *lm, const char *prompt, size_t bytes,
                                      const struct moe_generate_options *o, struct moe_generation *g,
                                      struct moe_err *err);
MOE_API enum moe_code moe_lm_generate_ids(struct moe_lm *lm, const int32_t *ids, size_t n,
                                          const struct moe_generate_options *o, struct moe_generation *g,
                                          struct moe_err *err);
/* Frees tokens and text and sets them to NULL; NULL-safe. */
MOE_API void moe_generation_release(struct moe_generation *g);

/* ---- score ---- */

struct moe_score_options {
    size_t size;               /* sizeof(struct moe_score_options), set by the caller (moe/moe.h) */
    int64_t window;            /* tokens that are scored together; 0: 2048, or the context if that is less */
    uint64_t memory;           /* bytes for hidden states; 0: what the machine has */
    const char *scratch;       /* a directory for hidden states that memory does not hold; NULL: none */
    bool special;              /* names of special tokens in the text are those tokens */
    struct moe_lm *reference;  /* another model with the same vocabulary, to compare with; NULL: none */
    struct moe_cancel *cancel; /* ends it early; NULL: nobody does */
};

struct moe_score_result {
    size_t size;               /* sizeof(struct moe_score_result), set by the caller (moe/moe.h) */
    int64_t tokens;            /* that were scored: whole windows alone */
    double nll, perplexity;    /* mean of -ln p(token) in nats, and its exponential */
    /* With a reference: the same of it, and the KL divergence of the model from it, in nats. */
    double nll_reference, perplexity_reference;
    double kl, kl_p50, kl_p99, kl_max;
    double top1_agreement;     /* share of positions at which both have the same likeliest token */
};

/* How well the model predicts a text.  o may be NULL; *r is filled in on success.  MOE_USAGE for a text that
 * is shorter than a window, MOE_MISMATCH for a reference with another vocabulary, MOE_NOMEM where hidden
 * states fit neither memory nor scratch. */
MOE_API enum moe_code moe_lm_score(struct moe_lm *lm, const char *text, size_t bytes,
                                   const struct moe_score_options *o, struct moe_score_result *r,
                                   struct moe_err *err);

#ifdef __cplusplus
}
#endif
#endif
