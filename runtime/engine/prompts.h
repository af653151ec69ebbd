/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/prompts.h - what to go on from: token ids out of text, files,
 * standard input and chat turns. */
#ifndef MOE_RUNTIME_ENGINE_PROMPTS_H
#define MOE_RUNTIME_ENGINE_PROMPTS_H

#include "formats/text.h"
#include "runtime/engine/sequences.h"

struct moe_prompt {
    /* the last that is given counts most; none: standard input.  file "-" is standard input, too */
    const char *text, *file, *tokens;
    const char *system;               /* NULL: the model's own, "": none */
    uint64_t memory;                  /* what a file of text may take; 0: what the machine has */
    const char *chat_template;        /* NULL: the model's own, else one by name (formats/tokenizer/chat.h) */
    bool chat, special, bos;          /* one user turn; special tokens in text are tokens; begin with BOS */
};

/* free() the ids, also after a failure. */
enum moe_code moe_prompt_ids(const struct moe_prompt *o, const struct moe_engine *e, int32_t **ids, size_t *n,
                             struct moe_err *err);
/* The template of a chat with this model. */
enum moe_code moe_prompt_chat(const struct moe_prompt *o, const struct moe_engine *e, struct moe_chat **c,
                              struct moe_err *err);
/* Nothing but spaces, tabs and ends of lines. */
bool moe_prompt_is_blank(const char *s);
/* A turn behind the others: the message, which belongs to the list; NULL without memory. */
cJSON *moe_prompt_turn(cJSON *messages, const char *role, const char *content);
/* A text file whole, as moe_read_text: MOE_NOMEM above o->memory, MOE_UNSUPPORTED for what is no text
 * (moe_text_foreign). */
enum moe_code moe_prompt_file(const struct moe_prompt *o, const char *path, char **text, size_t *n,
                              struct moe_err *err);
/* The model's BOS token in front of ids (malloc'd). */
enum moe_code moe_prompt_bos(const struct moe_engine *e, int32_t **ids, size_t *n, struct moe_err *err);

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
