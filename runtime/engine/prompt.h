/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/prompt.h - what to go on from, once: token ids out of a text, a file, standard input or a
 * chat turn. */
#ifndef MOE_RUNTIME_ENGINE_PROMPT_H
#define MOE_RUNTIME_ENGINE_PROMPT_H

#include "base/json.h"
#include "formats/text.h"
#include "runtime/engine/engine.h"

struct moe_prompt {
    /* the last that is given counts most; none: standard input.  file "-" is standard input, too */
    const char *text, *file, *tokens;
    const char *system;               /* NULL: the model's own, "": none */
    uint64_t memory;                  /* what a file of text may take; 0: what the machine has */
    const char *chat_template;        /* NULL: the model's own, else one by name (formats/tokenizer/chat.h) */
    const struct moe_cancel *cancel;  /* ends reading early; NULL: nobody will */
    bool chat, special, bos;          /* one user turn; special tokens in text are tokens; begin with BOS */
};

/* free() the ids, also after a failure. */
enum moe_code moe_prompt_ids(const struct moe_prompt *o, const struct moe_engine *e, int32_t **ids, size_t *n,
                             struct moe_err *err);
/* The ids of a text of `bytes` bytes with a NUL behind it; as one user turn when there is a template, `c`.
 * free() the ids, also after a failure. */
enum moe_code moe_prompt_encode(const struct moe_prompt *o, const struct moe_engine *e,
                                const struct moe_chat *c, const char *text, size_t bytes, int32_t **ids,
                                size_t *n, struct moe_err *err);
/* The template of a chat with this model. */
enum moe_code moe_prompt_chat(const struct moe_prompt *o, const struct moe_engine *e, struct moe_chat **c,
                              struct moe_err *err);
/* Nothing but spaces, tabs and ends of lines. */
bool moe_prompt_is_blank(const char *s);
/* A turn behind the others: the message, which belongs to the list; NULL without memory. */
cJSON *moe_prompt_turn(cJSON *messages, const char *role, const char *content);
/* Bytes that a file of text may take: o->memory, or what the machine has. */
uint64_t moe_prompt_memory(const struct moe_prompt *o);
/* A text file whole, as moe_read_text: MOE_NOMEM above o->memory, MOE_UNSUPPORTED for what is no text
 * (moe_text_foreign). */
enum moe_code moe_prompt_file(const struct moe_prompt *o, const char *path, char **text, size_t *n,
                              struct moe_err *err);
/* The tokens of a text file, whole, as --special and --bos (o->special, o->bos) take it: what moe_prompt_file
 * says, and MOE_CORRUPT for a file without a byte.  free() the ids, also after a failure. */
enum moe_code moe_prompt_file_ids(const struct moe_prompt *o, const char *path, const struct moe_engine *e,
                                  int32_t **ids, size_t *n, struct moe_err *err);
/* The model's BOS token in front of ids (malloc'd). */
enum moe_code moe_prompt_bos(const struct moe_engine *e, int32_t **ids, size_t *n, struct moe_err *err);

#endif
