/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/request.h - what a request asks for: a prompt, and how the answer is chosen and where it
 * ends.
 *
 * Every option belongs to the request, and nothing here depends on other requests: the same request with the
 * same model gives the same tokens in any company. */
#ifndef MOE_RUNTIME_ENGINE_REQUEST_H
#define MOE_RUNTIME_ENGINE_REQUEST_H

#include "base/err.h"
#include "kernels/logprob.h"
#include "kernels/penalties.h"
#include "kernels/sample.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moe_request {
    const int32_t *ids; int64_t n_ids;      /* the prompt, at least one token, and the answer so far */
    /* The last n_answer of ids are tokens of the answer, which another core has reported, with answer_bytes
     * of its text.  The answer goes on behind them as it would have there: penalties, limits, draws and stop
     * texts know them as the answer's.  What is reported begins behind them. */
    int64_t n_answer;
    size_t answer_bytes;
    int64_t max_tokens;                     /* of the answer; -1: until it ends or the context is full */
    int64_t min_tokens;                     /* before which neither end token nor stop text ends it */
    struct moe_sampler sampler;
    struct moe_penalties penalties;
    uint64_t seed; uint32_t choice;         /* of moe_draw: choices of one request differ in `choice` alone */
    const char *const *stop; size_t n_stop; /* texts before which the answer ends */
    const int32_t *stop_ids; size_t n_stop_ids; /* tokens that end it as end tokens do */
    bool ignore_eos;                        /* go on after an end token of the model */
    bool keep_special;                      /* write special tokens into the text by their names */
    int logprobs;                           /* how many alternatives are reported with each token's
                                               logarithm of its probability, 0 to 20; -1: no logarithms */
    int priority;                           /* higher is sooner */
    uint64_t tenant;                        /* tenants share fairly; priorities order the requests of one */
    double deadline;                        /* seconds by the clock of moe_core_open; 0: none */
    const void *salt; size_t salt_bytes;    /* only requests with the same salt share pages of the cache */
    bool whole;                             /* the answer is reported once, when it has ended, and its reader
                                               is never waited for */
    void *ctx;                              /* the caller's, given back with every event */
};

/* The numbers of a request that are float32. */
enum moe_request_real {
    MOE_REAL_TEMPERATURE,
    MOE_REAL_TOP_P,
    MOE_REAL_MIN_P,
    MOE_REAL_PRESENCE,
    MOE_REAL_FREQUENCY,
    MOE_REAL_REPETITION
};
enum { MOE_WANT_BYTES = 64 };

/* Rounds v to float32, as it is used, and sets *out to it where it is in range (docs/reference/request.md).
 * False: it is not, or no number; `want` then says what it has to be: "want 0 to 1". */
bool moe_request_real(enum moe_request_real which, double v, float *out, char want[MOE_WANT_BYTES]);

/* How an answer ended: with an end token or before a stop text; at the largest number of tokens, or with the
 * context full; because the caller said so; by the request's deadline; by a failure. */
enum moe_finish {
    MOE_FINISH_STOP,
    MOE_FINISH_LENGTH,
    MOE_FINISH_CANCELLED,
    MOE_FINISH_DEADLINE,
    MOE_FINISH_ERROR,
    MOE_FINISH_COUNT
};

/* An answer; the pointers are from malloc, and the caller's to free. */
struct moe_generated {
    int32_t *tokens; int64_t n;             /* the end token, when one came, is not among them */
    char *text; size_t text_bytes;          /* with a NUL after it; ends before the stop text */
    struct moe_logprobs *logprobs;          /* [n]; NULL: none were asked for */
    enum moe_finish finish;
    struct moe_err *err;                    /* of MOE_FINISH_ERROR, else NULL */
};
void moe_generated_release(struct moe_generated *g); /* frees and zeroes */

#endif
