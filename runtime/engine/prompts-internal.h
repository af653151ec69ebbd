/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/prompts-internal.h - what the .c files of prompts.h share: the state of reading a file of
 * prompts.  prompts.c reads its lines, prompts-kind.c finds out whether they are JSON, prompts-request.c
 * makes ids and options of a line of JSON, and prompts-memory.c counts what all prompts and answers take.
 * messages.c reads a file that is one request by the same functions. */
#ifndef MOE_RUNTIME_ENGINE_PROMPTS_INTERNAL_H
#define MOE_RUNTIME_ENGINE_PROMPTS_INTERNAL_H

#include "base/json.h"
#include "runtime/engine/prompts.h"

/* What logarithms of probabilities may take, in bytes: of all prompts so far, and of the one that takes the
 * most; kept while the run computes, and as JSON. */
struct moe_prompts_logprobs { uint64_t all, most, json_all, json_most; };

/* The state of reading a file of prompts. */
struct moe_prompts_reading {
    const struct moe_prompt *o;
    const struct moe_request *defaults;
    const struct moe_answers_use *use;
    const struct moe_engine *e;
    const char *path;
    struct moe_chat *chat;       /* the chat template; NULL: not needed so far */
    bool talks, thinking;        /* the present line is a conversation; its answer begins with thinking */
    struct moe_chat_left *left;
    uint64_t memory, held;       /* bytes allowed; bytes taken by the text and the prompts so far */
    struct moe_prompts_logprobs logprobs; /* besides */
    /* the present line, from 1, or 0 where the file is one request; the last blank line before it, 0: none */
    int64_t line, blank;
};

/* Opens the chat template unless it is open. */
enum moe_code moe_prompts_need_chat(struct moe_prompts_reading *r, struct moe_err *err);

/* The present line is a conversation with these chat_template_kwargs, for the open template. */
void moe_prompts_talk(struct moe_prompts_reading *r, const cJSON *kwargs);

/* ---- prompts-memory.c ---- */

/* Bytes of memory left when `more` bytes are taken in addition; at least 1, since 0 would mean no limit. */
uint64_t moe_prompts_memory_left(const struct moe_prompts_reading *r, uint64_t more);
/* Limits the memory that the tokenizer may take for one text. */
void moe_prompts_limit_tokens(const struct moe_prompts_reading *r, uint64_t bytes);
/* Fails when not even a prompt without ids fits; n: there are so many prompts already.  It is asked before
 * the tokenizer is, which would say of the few bytes that are left only that they are too few for its
 * tokens. */
enum moe_code moe_prompts_check_room(struct moe_prompts_reading *r, int64_t n, struct moe_err *err);
/* Counts the memory of a prompt with n_ids ids and these options, behind n others.  MOE_NOMEM when all now
 * take more than is allowed. */
enum moe_code moe_prompts_count(struct moe_prompts_reading *r, int64_t n, size_t n_ids,
                                const struct moe_request_options *o, struct moe_err *err);
/* What logarithms of probabilities take while the run computes. */
uint64_t moe_prompts_logprobs_held(const struct moe_prompts_reading *r);

/* ---- prompts-kind.c ---- */

/* Sets *json to whether the lines are JSON, by the rules for calibration text (moe_text_detect_kind): what
 * begins as JSON, even if it is damaged, is never taken for plain text, so that a damaged request does not
 * become a prompt. */
enum moe_code moe_prompts_detect_json(const struct moe_prompts_reading *r, const char *text, size_t bytes,
                                      bool *json, struct moe_err *err);
/* Fails when a line of a file of plain text is a request: the file's first line, which decides what all are,
 * is then probably a damaged one. */
enum moe_code moe_prompts_check_no_request(const struct moe_prompts_reading *r, const char *line, size_t n,
                                           struct moe_err *err);

/* ---- prompts-request.c ---- */

/* How many of the three keys that can hold the prompt an object has. */
int moe_prompts_count_inputs(const cJSON *o);
/* Sets *ids, which the caller frees even on failure, and *options, which are then empty, to what a request
 * says.  need: bytes of memory that o takes. */
enum moe_code moe_prompts_read_request(struct moe_prompts_reading *r, const cJSON *o, uint64_t need,
                                       int32_t **ids, size_t *n, struct moe_request_options *options,
                                       struct moe_err *err);
/* The same for a line of JSON. */
enum moe_code moe_prompts_encode_json(struct moe_prompts_reading *r, const char *line, size_t bytes,
                                      int32_t **ids, size_t *n, struct moe_request_options *options,
                                      struct moe_err *err);

#endif
