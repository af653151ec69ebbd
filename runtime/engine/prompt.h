/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/prompt.h - the prompt of a single completion: a text, a file, standard input, a chat turn or
 * a list of ids, turned into token ids.
 *
 * *err may name options of moe-run (--bos, --tokens, --memory).  Any number of threads may call these. */
#ifndef MOE_RUNTIME_ENGINE_PROMPT_H
#define MOE_RUNTIME_ENGINE_PROMPT_H

#include "base/json.h"
#include "formats/text.h"
#include "runtime/engine/engine.h"

struct moe_prompt {
    /* The prompt: `tokens` (ids such as "1,2,3") if it is given, else `file`, else `text`, else standard
     * input; file "-" is standard input, too. */
    const char *text, *file, *tokens;
    const char *system;               /* the system turn; NULL: the template's own, "": none */
    uint64_t memory;                  /* bytes that a file of text may take; 0: what the machine has */
    const char *chat_template;        /* a name (formats/tokenizer/chat.h); NULL: the model's own template */
    const struct moe_cancel *cancel;  /* ends reading early; NULL: nobody will */
    /* the text is one user turn of a chat; names of special tokens in the text are those tokens; the model's
     * BOS token goes in front */
    bool chat, special, bos;
};

/* The ids of the prompt; c: the chat template where o->chat is set, else NULL.  The caller has to free()
 * *ids, also after a failure. */
enum moe_code moe_prompt_ids(const struct moe_prompt *o, const struct moe_engine *e, const struct moe_chat *c,
                             int32_t **ids, size_t *n, struct moe_err *err);
/* The ids of a text of `bytes` bytes with a NUL behind it: of one user turn where c, a chat template, is not
 * NULL.  MOE_USAGE for a turn that is blank or holds a NUL.  The caller has to free() *ids, also after a
 * failure. */
enum moe_code moe_prompt_encode(const struct moe_prompt *o, const struct moe_engine *e,
                                const struct moe_chat *c, const char *text, size_t bytes, int32_t **ids,
                                size_t *n, struct moe_err *err);
/* Opens the template of a chat with this model; the caller closes it. */
enum moe_code moe_prompt_chat(const struct moe_prompt *o, const struct moe_engine *e, struct moe_chat **c,
                              struct moe_err *err);
/* Whether s holds nothing but spaces, tabs and ends of lines. */
bool moe_prompt_is_blank(const char *s);
/* Appends a turn to a list of messages.  Returns the new message, which belongs to the list; NULL: no memory,
 * also when `messages` is NULL. */
cJSON *moe_prompt_turn(cJSON *messages, const char *role, const char *content);
/* The bytes that a file of text may take: o->memory, or what the machine has available; 0: unknown. */
uint64_t moe_prompt_memory(const struct moe_prompt *o);
/* Reads a whole text file, as moe_read_text does, into malloc'd *text without its byte order mark.  MOE_NOMEM
 * when it is larger than o->memory, MOE_UNSUPPORTED when it is no text (moe_text_refuse_foreign). */
enum moe_code moe_prompt_file(const struct moe_prompt *o, const char *path, char **text, size_t *n,
                              struct moe_err *err);
/* The ids of a whole text file, subject to o->special and o->bos.  Fails with what moe_prompt_file fails
 * with, and MOE_CORRUPT for an empty file.  The caller has to free() *ids, also after a failure. */
enum moe_code moe_prompt_file_ids(const struct moe_prompt *o, const char *path, const struct moe_engine *e,
                                  int32_t **ids, size_t *n, struct moe_err *err);
/* Puts the model's BOS token in front of *ids, which is malloc'd and may move.  MOE_UNSUPPORTED when the
 * model has none, MOE_NOMEM; *ids is then as before. */
enum moe_code moe_prompt_bos(const struct moe_engine *e, int32_t **ids, size_t *n, struct moe_err *err);

#endif
