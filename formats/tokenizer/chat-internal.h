/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat-internal.h - what the files of the chat renderer share; for
 * formats/tokenizer/chat*.c alone. */
#ifndef MOE_FORMATS_TOKENIZER_CHAT_INTERNAL_H
#define MOE_FORMATS_TOKENIZER_CHAT_INTERNAL_H

#include "formats/tokenizer/chat.h"
#include "formats/tokenizer/tokenizer-internal.h"

/* The special tokens of all templates: constant, family, whether a chat is impossible in a vocabulary without
 * it, name. */
#define MOE_MARKS(X)                                                    \
    X(IM_SYSTEM,      MOE_KIMI,     true,  "<|im_system|>")             \
    X(IM_USER,        MOE_KIMI,     true,  "<|im_user|>")               \
    X(IM_ASSISTANT,   MOE_KIMI,     true,  "<|im_assistant|>")          \
    X(IM_MIDDLE,      MOE_KIMI,     true,  "<|im_middle|>")             \
    X(IM_END,         MOE_KIMI,     true,  "<|im_end|>")                \
    X(SECTION,        MOE_KIMI,     false, "<|tool_calls_section_begin|>") \
    X(SECTION_END,    MOE_KIMI,     false, "<|tool_calls_section_end|>") \
    X(CALL,           MOE_KIMI,     false, "<|tool_call_begin|>")       \
    X(CALL_ARGUMENT,  MOE_KIMI,     false, "<|tool_call_argument_begin|>") \
    X(CALL_END,       MOE_KIMI,     false, "<|tool_call_end|>")         \
    X(THINK,          MOE_KIMI,     false, "<think>")                   \
    X(THINK_END,      MOE_KIMI,     false, "</think>")                  \
    X(DS_BEGIN,       MOE_DEEPSEEK, true,  "<｜begin▁of▁sentence｜>")   \
    X(DS_END,         MOE_DEEPSEEK, true,  "<｜end▁of▁sentence｜>")     \
    X(DS_USER,        MOE_DEEPSEEK, true,  "<｜User｜>")                \
    X(DS_ASSISTANT,   MOE_DEEPSEEK, true,  "<｜Assistant｜>")           \
    X(DS_CALLS,       MOE_DEEPSEEK, false, "<｜tool▁calls▁begin｜>")    \
    X(DS_CALLS_END,   MOE_DEEPSEEK, false, "<｜tool▁calls▁end｜>")      \
    X(DS_CALL,        MOE_DEEPSEEK, false, "<｜tool▁call▁begin｜>")     \
    X(DS_CALL_END,    MOE_DEEPSEEK, false, "<｜tool▁call▁end｜>")       \
    X(DS_SEP,         MOE_DEEPSEEK, false, "<｜tool▁sep｜>")            \
    X(DS_OUTPUTS,     MOE_DEEPSEEK, false, "<｜tool▁outputs▁begin｜>")  \
    X(DS_OUTPUTS_END, MOE_DEEPSEEK, false, "<｜tool▁outputs▁end｜>")    \
    X(DS_OUTPUT,      MOE_DEEPSEEK, false, "<｜tool▁output▁begin｜>")   \
    X(DS_OUTPUT_END,  MOE_DEEPSEEK, false, "<｜tool▁output▁end｜>")

enum moe_chat_family { MOE_KIMI, MOE_DEEPSEEK };
enum moe_mark {
#define X(id, family, needed, name) MOE_MARK_##id,
    MOE_MARKS(X)
#undef X
    MOE_MARK_COUNT
};

/* In what the templates differ. */
struct moe_chat_style {
    const char *name;
    enum moe_chat_family family;
    const char *system;    /* the content of the default system turn; NULL: there is none */
    bool newline;          /* "\n" after the default system turn; DeepSeek: before further tool results */
    /* calls get ids by their number in the message, arguments given as a string are written as a JSON string,
     * and names of messages are not written */
    bool made_ids;
    bool calls_alone;      /* DeepSeek: see put_calls_alone in chat-deepseek.c */
    bool spaced;           /* JSON of tools has ", " and ": " between its elements */
    bool thinks;           /* assistant turns have <think></think> */
    bool opens;            /* the generation prompt has <think>, and with "thinking": false also </think> */
    bool typescript;       /* tools are written as TypeScript, not JSON */
    /* the switch "preserve_thinking" exists, which keeps the reasoning of all turns; its default */
    bool preserves, preserve_default;
};

struct moe_chat {
    const struct moe_tokenizer *t;
    struct moe_chat_style style;
    int32_t mark[MOE_MARK_COUNT]; /* ids; -1: the vocabulary has none */
};

/* ---- the output of a rendering ---- */

struct moe_chat_buf { char *p; size_t n, cap; };

/* The destination of special tokens and literal text: ids, or text when `ids` is NULL.  Pieces of literal
 * text with no special token between them are encoded together.  `code` keeps the first failure, after which
 * nothing is written. */
struct moe_chat_out {
    const struct moe_chat *chat;
    struct moe_encoding *ids;
    struct moe_chat_buf text; /* all text; with `ids` only the text since the last special token */
    struct moe_chat_left left;
    enum moe_code code;
    struct moe_err *err;
};

/* _put and _puts append literal text, _put_mark a special token; _flush encodes the text that is pending. */
void moe_chat_put(struct moe_chat_out *o, const char *s, size_t n);
void moe_chat_puts(struct moe_chat_out *o, const char *s);
void moe_chat_put_mark(struct moe_chat_out *o, enum moe_mark m);
void moe_chat_flush(struct moe_chat_out *o);
/* Write a value as Python's json.dumps(ensure_ascii=False) does; with `compact` without spaces after "," and
 * ":". */
void moe_chat_put_json(struct moe_chat_out *o, const cJSON *v, bool compact);
/* Write a number as Python does, as a float or an integer depending on its spelling. */
void moe_chat_put_number(struct moe_chat_out *o, const cJSON *v);
/* Record a failure in message i (below 0: in none of them), unless an earlier one is recorded. */
__attribute__((format(printf, 4, 5)))
void moe_chat_fail(struct moe_chat_out *o, enum moe_code code, int64_t i, const char *fmt, ...);

/* ---- parts ---- */

/* Write tools (a list that is not empty) as JSON or TypeScript, by the template's style. */
void moe_chat_put_tools(struct moe_chat_out *o, const cJSON *tools);
/* Write TypeScript declarations of tools whose keys are sorted.  False, with nothing written, when Moonshot's
 * encoder would refuse a schema or there is no function. */
bool moe_chat_put_typescript(struct moe_chat_out *o, const cJSON *tools);

/* Check the types in messages and tools; keys that no template reads are counted in o->left. */
bool moe_chat_check(struct moe_chat_out *o, const struct moe_chat_request *r);
/* _put_content writes a message's text, nothing for null.  _calls returns its tool calls, NULL for none. */
void moe_chat_put_content(struct moe_chat_out *o, const cJSON *message, int64_t i);
const cJSON *moe_chat_calls(struct moe_chat_out *o, const cJSON *message, int64_t i);
const char *moe_chat_role(const cJSON *message);
/* Of a tool call: _call_name returns the name of its function, NULL after a failure; _put_arguments writes
 * its arguments, with `quote` as JSON even if they are a string. */
const char *moe_chat_call_name(struct moe_chat_out *o, const cJSON *call, int64_t i);
void moe_chat_put_arguments(struct moe_chat_out *o, const cJSON *call, int64_t i, bool quote);

/* Render a conversation by a template of this family. */
void moe_chat_render_kimi(struct moe_chat_out *o, const struct moe_chat_request *r);
void moe_chat_render_deepseek(struct moe_chat_out *o, const struct moe_chat_request *r);

#endif
