/* SPDX-License-Identifier: Apache-2.0 */
/* moe/lm.h - a language model opened for use: tokens, generated text, the score of a text.
 *
 * The weights are mapped from their files and stay in the page cache, shared with other processes that map
 * them.  A file that shrinks while it is mapped raises SIGBUS, as it does for every mapped file.
 *
 * Threads: one struct moe_lm is used by one thread at a time; several may be open, and in use at once.  Each
 * has a pool of threads of its own; results do not depend on the number of threads.
 *
 * Ownership: memory that a call returns is malloc'd, and the caller's to free().  After a failure the caller
 * owns nothing and the pointers are NULL. */
#ifndef MOE_LM_H
#define MOE_LM_H

#include <moe/cancel.h>
#include <moe/progress.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct moe_lm;

struct moe_lm_options {
    size_t size;               /* sizeof(struct moe_lm_options), set by the caller (moe/moe.h) */
    int64_t threads;           /* 0: as many as there are processors */
    /* most tokens of prompt and answer together; 0: as many as the model was made for, or as memory holds */
    int64_t context;
    uint64_t memory;           /* most bytes besides mapped files; 0: what the machine has free */
};

/* Opens the container or checkpoint at `path`.  o may be NULL: all defaults.  Fails as moe_describe does, and
 * with MOE_USAGE for a context larger than the model's, MOE_NOMEM where memory does not hold the context; *lm
 * is then NULL. */
MOE_API enum moe_code moe_lm_open(struct moe_lm **lm, const char *path, const struct moe_lm_options *o,
                                  struct moe_err *err);
/* Frees it and sets *lm to NULL; does nothing where lm or *lm is NULL. */
MOE_API void moe_lm_close(struct moe_lm **lm);

/* ---- tokens ---- */

/* Encodes `bytes` bytes of text as *n token ids in malloc'd *ids.  special: a special token's name in the
 * text becomes that token; else all of the text is literal.  No token is added at the front.  MOE_NOT_FOUND
 * where the model has no tokenizer. */
MOE_API enum moe_code moe_lm_tokenize(struct moe_lm *lm, const char *text, size_t bytes, bool special,
                                      int32_t **ids, size_t *n, struct moe_err *err);
/* Decodes n token ids to text: malloc'd *text has *bytes bytes and a NUL behind them.  special: special
 * tokens appear by their names; else they are left out.  An id outside the vocabulary adds nothing.
 * MOE_NOT_FOUND where the model has no tokenizer. */
MOE_API enum moe_code moe_lm_detokenize(struct moe_lm *lm, const int32_t *ids, size_t n, bool special,
                                        char **text, size_t *bytes, struct moe_err *err);

/* ---- generation ---- */

struct moe_generate_options {
    size_t size;               /* sizeof(struct moe_generate_options), set by the caller (moe/moe.h) */
    int64_t max_tokens;        /* most tokens of the answer; 0: no limit but the context */
    double temperature;        /* 0: take the likeliest token; else sample at this temperature */
    /* These limit which tokens may be sampled; 0: no limit.  top_k: only the top_k most probable ones; min_p:
     * only those at least min_p times as probable as the most probable one; top_p: only the most probable
     * ones, as few as are needed for a sum of probabilities of at least top_p.  These and the temperature are
     * rounded to float32: what is out of range then is MOE_USAGE, such as a top_p of 1e-50. */
    double top_p;
    double min_p;
    int64_t top_k;
    uint64_t seed;             /* of sampling: the same seed gives the same answer */
    /* n_stop texts, none of them empty: the answer ends before the first of them that the model produces */
    const char *const *stop;
    size_t n_stop;
    /* moe_lm_generate renders the prompt as a user's turn by the model's chat template.  It may hold no
     * NUL. */
    bool chat;
    /* A special token's name in the prompt becomes that token (not with chat); those of the answer appear in
     * its text. */
    bool special;
    bool ignore_end;           /* go on when the model produces its end token */
    /* Called with each next piece of the answer, whole UTF-8 characters, by the thread that generates; NULL:
     * not called.  It may request the end through `cancel`, but may not use this moe_lm. */
    void (*text)(void *ctx, const char *bytes, size_t n);
    void *ctx;                 /* the first argument of `text` */
    struct moe_cancel *cancel; /* the token that can end the call early; NULL: none */
};

struct moe_generation {
    size_t size;               /* sizeof(struct moe_generation), set by the caller (moe/moe.h) */
    int32_t *tokens;           /* n_tokens ids of the answer, without the end token */
    size_t n_tokens;
    char *text;                /* `bytes` bytes of the answer's text, and a NUL */
    size_t bytes;
    size_t prompt_tokens;      /* tokens of the prompt, with those of its chat template */
    bool truncated;            /* max_tokens or the context ended the answer, not the model or a stop text */
};

/* Generates an answer to a prompt of `bytes` bytes of text, or of n token ids.  o may be NULL.  *g is filled
 * in on success, for moe_generation_release to free.  Tokens with which both this prompt and the last call
 * (its prompt and answer) begin are not computed again.  MOE_USAGE for a prompt that is empty or does not fit
 * the context, or an id outside the vocabulary; MOE_NOT_FOUND where text is given and the model has no
 * tokenizer, MOE_UNSUPPORTED where chat is set and the model's template is not one of those built in. */
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
    /* The text is cut into windows of this many tokens; a token is predicted from those before it in its
     * window.  0: 2048, or the context if that is less. */
    int64_t window;
    uint64_t memory;           /* most bytes besides mapped files; 0: what the machine has free */
    const char *scratch;       /* a directory for hidden states that memory does not hold; NULL: none */
    /* A special token's name in the text becomes that token, so a text may be a chat that the caller
     * has rendered by the model's template. */
    bool special;
    /* another model with the same vocabulary, to compare with, which no other thread may use meanwhile; NULL:
     * none */
    struct moe_lm *reference;
    struct moe_cancel *cancel; /* the token that can end the call early; NULL: none */
    /* Called with how far the call has come (moe/progress.h); NULL: not called. */
    void (*progress)(void *ctx, const struct moe_progress_report *report);
    void *ctx;                 /* the first argument of `progress` */
};

struct moe_score_result {
    size_t size;               /* sizeof(struct moe_score_result), set by the caller (moe/moe.h) */
    int64_t tokens;            /* how many were scored: a last window that is not full is left out */
    double nll, perplexity;    /* mean of -ln p(token) in nats, and its exponential */
    /* With a reference: its own nll and perplexity, and KL(reference || model) in nats, as the mean, the
     * quantiles and the largest value over all scored positions.  Without one: 0. */
    double nll_reference, perplexity_reference;
    double kl, kl_p50, kl_p99, kl_max;
    double top1_agreement;     /* share of positions, 0 to 1, at which both have the same likeliest token */
};

/* Measures how well the model predicts a text of `bytes` bytes.  o may be NULL; *r is filled in on success.
 * MOE_USAGE for a window larger than the context or a text that does not have more tokens than a window,
 * MOE_MISMATCH for a reference with a vocabulary of another size, MOE_NOMEM where hidden states fit neither
 * memory nor scratch, MOE_NOT_FOUND where the model has no tokenizer. */
MOE_API enum moe_code moe_lm_score(struct moe_lm *lm, const char *text, size_t bytes,
                                   const struct moe_score_options *o, struct moe_score_result *r,
                                   struct moe_err *err);

#ifdef __cplusplus
}
#endif
#endif
