/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat.h - renders conversations by a model's chat template, as special tokens and literal
 * text.
 *
 * The templates of Kimi K2 (Instruct, Thinking, K2.5 and later) and DeepSeek-V3 are built in; a model's own
 * template must be identical to one of them.  The renderer emits ids of special tokens and pieces of literal
 * text, never one text that is searched for special tokens: nothing in a message, a name, a tool or an
 * argument can begin a turn.  There is no global state; any number of threads may use one struct moe_chat.
 *
 *     struct moe_chat *c;
 *     int32_t *ids;
 *     size_t n;
 *     MOE_TRY(moe_chat_open(&c, tokenizer, &(struct moe_chat_hint){ .model_type = "kimi_k2" }, err));
 *     struct moe_chat_request r = { .messages = messages, .tools = tools, .add_generation_prompt = true };
 *     enum moe_code code = moe_chat_encode(c, &r, &ids, &n, NULL, err);
 *     ...
 *     moe_chat_close(&c); */
#ifndef MOE_FORMATS_TOKENIZER_CHAT_H
#define MOE_FORMATS_TOKENIZER_CHAT_H

#include "formats/tokenizer/tokenizer.h"

#include <cjson/cJSON.h>

struct moe_chat; /* a template, and the ids of its special tokens in one vocabulary */

/* What decides about the template of a model that has none of its own.  Any member may be NULL. */
struct moe_chat_hint {
    const char *model_type, *architecture; /* of config.json */
    const char *name;                      /* use this built-in template, whatever the files say */
};

/* The template is hint->name, if given.  Otherwise it is the one in chat_template.jinja beside the
 * tokenizer's files, or under "chat_template" in tokenizer_config.json or chat_template.json, recognised by
 * its digest.  Where there is none in any of these places or in additional_chat_templates/, the model type
 * and the vocabulary decide.  MOE_UNSUPPORTED when this is not a built-in template (the message lists these
 * and names --chat-template), or when the vocabulary lacks a token that marks turns; MOE_USAGE for an unknown
 * name.  The tokenizer must outlive *c. */
enum moe_code moe_chat_open(struct moe_chat **c, const struct moe_tokenizer *t,
                            const struct moe_chat_hint *hint, struct moe_err *err);
void moe_chat_close(struct moe_chat **c);
const char *moe_chat_name(const struct moe_chat *c); /* "k2-instruct" */
const char *moe_chat_names(void);                    /* all of them: "k2-first, k2-instruct, ..." */
bool moe_chat_is_name(const char *name);             /* whether it is one of them */

/* A conversation as parsed JSON in OpenAI's format; nothing of it is kept or changed.  Numbers in tools and
 * arguments keep their spelling if the trees went through moe_json_keep_numbers (base/json.h).
 *
 * A message has "role" (system, developer, user, assistant, tool) and may have "content" (text, null, or a
 * list of text parts), "name", "reasoning_content" (or "reasoning"; null means none), "tool_calls" and
 * "tool_call_id".  A call without "id" gets the one that the model would write, functions.NAME:I.  "partial"
 * or "prefix", by which some services let a model continue a message, is MOE_UNSUPPORTED unless it is false;
 * any other key is counted. */
struct moe_chat_request {
    const cJSON *messages; /* a list of messages */
    const cJSON *tools;    /* NULL, null or empty: none */
    /* chat_template_kwargs: "thinking", "preserve_thinking", where the template has such a switch; or NULL */
    const cJSON *kwargs;
    /* the system turn of a chat that begins without one; NULL: the template's default, "": none */
    const char *system;
    bool add_generation_prompt; /* end with the generation prompt, as templates call it */
    /* the last message is an answer that was just given: its reasoning is kept, unlike that of earlier
     * turns */
    bool answered;
};

/* Counts of what conversations contain but their template cannot express, for notices. */
struct moe_chat_left {
    int64_t reasoning, tools; /* texts of reasoning; conversations whose tools were not declared */
    int64_t keys;             /* keys of messages, their parts and calls that are not OpenAI's, */
    char key[48];             /* and the first of them */
    int64_t spelled;          /* special tokens that the vocabulary lacks, which were written as text */
    int64_t nameless;         /* tool results that do not name their call, written with an empty id */
};

struct moe_notes;
/* Print a notice for each count that is not zero; it begins with `option`, which gave the conversations. */
void moe_chat_tell_left(const struct moe_notes *to, const char *option, const struct moe_chat_left *left);

/* The ids of a conversation; *ids is malloc'd.  The counts in *left (may be NULL) are added to.  MOE_CORRUPT
 * for a message that is malformed and MOE_UNSUPPORTED for content that no template can express (an image),
 * both with the message's number, counted from 0; MOE_USAGE for kwargs that the template does not have. */
enum moe_code moe_chat_encode(const struct moe_chat *c, const struct moe_chat_request *r, int32_t **ids,
                              size_t *n, struct moe_chat_left *left,
                              struct moe_err *err);
/* The same as text, NUL terminated (free() it).  It is for people: special tokens cannot be told from literal
 * text in it. */
enum moe_code moe_chat_text(const struct moe_chat *c, const struct moe_chat_request *r, char **text,
                            size_t *bytes, struct moe_chat_left *left,
                            struct moe_err *err);

#endif
