/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/results-json.h - the answers to prompts as JSON. */
#ifndef MOE_RUNTIME_ENGINE_RESULTS_JSON_H
#define MOE_RUNTIME_ENGINE_RESULTS_JSON_H

#include "runtime/engine/prompts.h"
#include "runtime/engine/results.h"

/* The object of a prompt, whose first sequence is `first`: index, line, text, tokens, prompt_tokens,
 * finish_reason and rank; with logprobs where they were asked for, in the form of OpenAI's chat API; of a
 * conversation with content, reasoning_content and tool_calls (formats/tokenizer/chat-answer.h).  A
 * prompt with several choices has those of the first, and "choices", all of them.  finish_reason is "lost"
 * where no answer has come: the rank of the sequence died.  Where the request has ended with an error,
 * "error" is in the place of text, tokens and logprobs.  NULL when out of memory. */
cJSON *moe_results_prompt(const struct moe_results *r, const struct moe_prompts *p, int64_t first);
/* Adds "sequences" to `json`: an array of these objects. */
void moe_results_json(const struct moe_results *r, const struct moe_prompts *p, cJSON *json);
/* Whether the answers to all choices of that prompt have come. */
bool moe_results_whole(const struct moe_results *r, const struct moe_prompts *p, int64_t first);
/* Frees what these answers point to; they stay there, and their numbers. */
void moe_results_forget(struct moe_results *r, const struct moe_prompts *p, int64_t first);

#endif
