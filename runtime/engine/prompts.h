/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/prompts.h - reads a file of prompts (--prompts): every line is a prompt, either plain text
 * or a request in JSON; the first line decides which (docs/reference/request.md). */
#ifndef MOE_RUNTIME_ENGINE_PROMPTS_H
#define MOE_RUNTIME_ENGINE_PROMPTS_H

#include "formats/text.h"
#include "runtime/engine/prompt.h"
#include "runtime/engine/request-json.h"
#include "runtime/engine/sequences.h"

/* What a run does with answers, which says how much memory logarithms of probabilities take. */
struct moe_answers_use {
    int copies;                         /* of all answers: one for each rank in this process */
    bool printed;                       /* as JSON; else their text alone */
    bool each;                          /* the JSON of each is freed before that of the next is made */
    bool leave;                         /* each is printed, and freed, when it has ended */
};

/* v [n]: the prompts in the order of the file, each with all its choices one after the other, which share
 * its ids.  bytes: memory for their ids and for all that a run keeps of their answers, while it computes,
 * except the answers' tokens.  left: counts what the chat template could not express. */
struct moe_prompts {
    struct moe_sequence *v;
    int64_t n, n_prompts;
    size_t cap;
    struct moe_request_options *options; size_t n_options, options_cap; /* that own something */
    const struct moe_tokenizer *tokenizer; /* the engine's, or NULL */
    struct moe_chat *chat;              /* the template of those that are conversations; NULL: none is */
    uint64_t bytes;
    struct moe_chat_left left;
};

/* Reads the prompts of a file, which may be gzipped; path "-" is standard input.  Whether the lines are plain
 * text or JSON is found by moe_text_detect_kind (formats/text.h).
 *
 * Plain text: a line without its line end is a prompt; with o->chat it is one user turn.  An empty line is an
 * empty prompt where o->bos gives it a token; elsewhere empty lines may only stand at the end of the file,
 * and others are MOE_USAGE.
 *
 * JSON: blank lines are skipped, and every other line is an object with one of "messages" (a conversation,
 * with "tools" and "chat_template_kwargs" if need be), "prompt" (text or ids) and "tokens" (ids), and with
 * options of its own (request-json.h), which win over `defaults`, those of all.  MOE_CORRUPT for any other
 * line, MOE_UNSUPPORTED for an object with other keys.  What defaults points to has to live as long as *p.
 *
 * MOE_USAGE for a file without prompts, and when o->system or o->chat_template is given and no line is a
 * conversation; MOE_NOMEM when the prompts take more than moe_prompt_memory, with the logarithms of
 * probabilities that their answers may have.  On failure there is nothing to release. */
enum moe_code moe_prompts_read(struct moe_prompts *p, const char *path, const struct moe_prompt *o,
                               const struct moe_request *defaults, const struct moe_answers_use *use,
                               const struct moe_engine *e, struct moe_err *err);
void moe_prompts_release(struct moe_prompts *p);

#endif
