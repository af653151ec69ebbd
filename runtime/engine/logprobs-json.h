/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/logprobs-json.h - logarithms of probabilities as JSON, in the two forms of OpenAI's API.
 *
 * Where memory runs out the tree is marked as incomplete (base/json.h). */
#ifndef MOE_RUNTIME_ENGINE_LOGPROBS_JSON_H
#define MOE_RUNTIME_ENGINE_LOGPROBS_JSON_H

#include "base/json.h"
#include "formats/tokenizer/tokenizer.h"
#include "kernels/logprob.h"

#include <stdint.h>

/* Adds "logprobs" as in answers to chat: "content", an array with an object for each of n tokens: id, token,
 * bytes, logprob, top_logprobs.  l [n] may be NULL, which is no tokens; t may be NULL: no texts. */
void moe_logprobs_chat_json(cJSON *o, const int32_t *tokens, int64_t n, const struct moe_logprobs *l,
                            const struct moe_tokenizer *t);
/* Adds "logprobs" as in completions: tokens, token_logprobs, top_logprobs (an object each, of texts; of
 * several with the same text the likeliest), text_offset.  *at: characters before the first token; those
 * after the last one on return. */
void moe_logprobs_legacy_json(cJSON *o, const int32_t *tokens, int64_t n, const struct moe_logprobs *l,
                              const struct moe_tokenizer *t, int64_t *at);

#endif
