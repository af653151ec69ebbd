/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/prompts.h - a file of prompts: every line is one, as text or as a request in JSON. */
#ifndef MOE_RUNTIME_ENGINE_PROMPTS_H
#define MOE_RUNTIME_ENGINE_PROMPTS_H

#include "formats/text.h"
#include "runtime/engine/prompt.h"
#include "runtime/engine/sequences.h"

/* bytes: what they take with what is kept of their answers, less the answers' tokens. */
struct moe_prompts { struct moe_sequence *v; int64_t n; uint64_t bytes; struct moe_chat_left left; };

/* Every line is a prompt of its own, without its line end; the file may be gzipped, path "-" is standard
 * input, and what it is, formats/text.h tells.  An empty line is an empty prompt where --bos gives it a
 * token; else it is MOE_USAGE, naming the line, unless nothing but such lines is behind it.  Where the text
 * is JSON, blank lines are no prompts, and the others are objects with "messages", "prompt" (text) or
 * "tokens" (ids): with "tools" and "chat_template_kwargs", and no option of sampling, which is
 * MOE_UNSUPPORTED.  MOE_USAGE for a file without any, and for a system turn or a template by name where no
 * line is a conversation.  Nothing is owned on failure. */
enum moe_code moe_prompts_read(struct moe_prompts *p, const char *path, const struct moe_prompt *o,
                               const struct moe_engine *e, struct moe_err *err);
void moe_prompts_release(struct moe_prompts *p);

#endif
