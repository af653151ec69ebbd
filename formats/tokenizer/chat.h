/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat.h - conversations as a model's chat template writes them: special
 * tokens and literal text.
 *
 * The templates of Kimi K2 (Instruct, Thinking, K2.5 and later) and DeepSeek-V3 are built in; a model's own
 * has to be one of those to the letter.  The renderer gives out ids of special tokens and pieces of literal
 * text, never one text to be searched for special tokens: nothing that a message, a name, a tool or an
 * argument holds can begin a turn.  No global state; a struct moe_chat may be used by any number of threads.
 *
 *     struct moe_chat *c;
 *     int32_t *ids;
 *     size_t n;
 *     MOE_TRY(moe_chat_open(&c, tokenizer, &(struct moe_chat_hint){ .model_type = "kimi_k2" }, err));
 *     struct moe_chat_request r = { .messages = messages, .tools = tools, .ask = true };
 *     enum moe_code code = moe_chat_encode(c, &r, &ids, &n, NULL, err);
 *     ...
 *     moe_chat_close(&c); */
#ifndef MOE_FORMATS_TOKENIZER_CHAT_H
#define MOE_FORMATS_TOKENIZER_CHAT_H

#include "formats/tokenizer/tokenizer.h"

#include <cjson/cJSON.h>

struct moe_chat; /* which template, and its tokens in one vocabulary */

/* What a model without a template of its own is told by.  Any may be NULL. */
struct moe_chat_hint {
    const char *model_type, *architecture; /* of config.json */
    const char *name;                      /* a built-in template (moe_chat_names), whatever the files hold */
};

/* The template is hint->name; else chat_template.jinja beside the tokenizer's files, "chat_template" in
 * tokenizer_config.json or in chat_template.json, known by its digest; else, where there is none in any of
 * these places or in additional_chat_templates/, what fits the model type and the vocabulary.
 * MOE_UNSUPPORTED when that is none of those built in (the sentence names --chat-template and them), or the
 * vocabulary lacks a token that marks turns; MOE_USAGE for an unknown name.  The tokenizer must outlive
 * *c. */
enum moe_code moe_chat_open(struct moe_chat **c, const struct moe_tokenizer *t,
                            const struct moe_chat_hint *hint, struct moe_err *err);
void moe_chat_close(struct moe_chat **c);
const char *moe_chat_name(const struct moe_chat *c); /* "k2-instruct" */
const char *moe_chat_names(void);                    /* all of them: "k2-first, k2-instruct, ..." */
bool moe_chat_is_name(const char *name);             /* one of them */

/* Parsed JSON in OpenAI's shapes; nothing is taken or changed.  Numbers in tools and arguments are written as
 * they were if the trees went through moe_json_keep_numbers (base/json.h).
 *
 * A message has "role" (system, developer, user, assistant, tool) and may have "content" (text, null, or a
 * list of text parts), "name", "reasoning_content" (or "reasoning"; null is none), "tool_calls" and
 * "tool_call_id". A call without "id" gets the one that the model would write, functions.NAME:I.  "partial"
 * or "prefix", with which services have a model go on from a message, is MOE_UNSUPPORTED unless false; any
 * other key is counted. */
struct moe_chat_request {
    const cJSON *messages; /* a list of these */
    const cJSON *tools;    /* NULL, null or empty: none */
    const cJSON *kwargs;
          /* chat_template_kwargs: "thinking", "preserve_thinking", where there is the switch; or NULL */
    const char *system;    /* what goes first when no system turn does: NULL the template's own, "" nothing */
    bool ask;              /* end with what asks for an answer (add_generation_prompt) */
    /* the last message is an answer just given: its reasoning stays, unlike history's */
    bool answered;
};

/* What a conversation holds and its template has no place for: counts, for a notice. */
struct moe_chat_left {
    int64_t reasoning, tools; /* reasoning contents; conversations whose tools were not declared */
    int64_t keys;             /* keys of messages, their parts and calls that are not OpenAI's, */
    char key[48];             /* and the first of them */
    int64_t spelled;          /* markers that the vocabulary has no token for, written as text */
    int64_t nameless;         /* results of tools that do not say of which call, written with an empty id */
};

struct moe_notes;
/* A notice for each of these that there is, which begins with the option that the conversations are of. */
void moe_chat_tell_left(const struct moe_notes *to, const char *option, const struct moe_chat_left *left);

/* The ids of a conversation; *ids is malloc'd.  *left (may be NULL) is added to.  MOE_CORRUPT for a message
 * that is none, MOE_UNSUPPORTED for one that no template has a place for (an image), each by the message's
 * number from 0; MOE_USAGE for kwargs. */
enum moe_code moe_chat_encode(const struct moe_chat *c, const struct moe_chat_request *r, int32_t **ids,
                              size_t *n, struct moe_chat_left *left,
                              struct moe_err *err);
/* The same as text, NUL terminated (free() it): for people; tokens cannot be told from literal text in it. */
enum moe_code moe_chat_text(const struct moe_chat *c, const struct moe_chat_request *r, char **text,
                            size_t *bytes, struct moe_chat_left *left,
                            struct moe_err *err);

/* Where an answer of n ids, as it was generated behind moe_chat_encode's, ends to think: the number of ids up
 * to and with </think>, the id of <think> included when the model writes it; 0 when it has no thinking.
 * *from: the first id of the thinking itself. */
size_t moe_chat_thinking(const struct moe_chat *c, const int32_t *ids, size_t n, size_t *from);

#endif
