/* runtime/prompts.h - what to go on from: token ids out of text, files, standard input and chat turns. */
#ifndef MOE_RUNTIME_PROMPTS_H
#define MOE_RUNTIME_PROMPTS_H

#include "runtime/sequences.h"

struct moe_prompt {
    const char *text, *file, *tokens; /* the last that is given counts most; none: standard input.  file "-" is standard input, too */
    const char *system;               /* NULL: the model's own */
    bool chat, special, bos;          /* one user turn; special tokens in text are tokens; begin with BOS */
};

/* free() the ids, also after a failure. */
enum moe_code moe_prompt_ids(const struct moe_prompt *o, const struct moe_engine *e, int32_t **ids, size_t *n, struct moe_err *err);
/* The system turn of a chat: nothing (NULL) for an empty one; without the option what the model's own template would put there. */
const char *moe_prompt_system(const struct moe_prompt *o, const struct moe_engine *e);
/* The model's BOS token in front of ids (malloc'd). */
enum moe_code moe_prompt_bos(const struct moe_engine *e, int32_t **ids, size_t *n, struct moe_err *err);

struct moe_prompts { struct moe_sequence *v; int64_t n; };

/* Every line that is not empty is a prompt of its own, without its line end; the file may be gzipped.  MOE_USAGE for a file without any.
 * Nothing is owned on failure. */
enum moe_code moe_prompts_read(struct moe_prompts *p, const char *path, const struct moe_prompt *o, const struct moe_engine *e, struct moe_err *err);
void moe_prompts_release(struct moe_prompts *p);

#endif
