/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat-internal.h - what the parts of the chat renderer share;
 * for formats/chat*.c alone. */
#ifndef MOE_FORMATS_TOKENIZER_CHAT_INTERNAL_H
#define MOE_FORMATS_TOKENIZER_CHAT_INTERNAL_H

#include "formats/tokenizer/chat.h"
#include "formats/tokenizer/tokenizer-internal.h"

/* The special tokens of all templates: constant, family, whether turns cannot be marked without it, name. */
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

/* What one template does differently from another. */
struct moe_chat_style {
    const char *name;
    enum moe_chat_family family;
    const char *system;    /* the default system turn; NULL: none */
    bool newline;          /* "\n" behind it; DeepSeek: before every result of a tool but the first */
    /* calls are numbered here, arguments are JSON even of a string, roles have no names */
    bool made_ids;
    bool calls_alone;      /* calls are those of a message without text, and the first has no end */
    bool spaced;           /* tools with ", " and ": " */
    bool thinks;           /* <think></think> in assistant turns */
    bool opens;            /* the question for an answer ends with <think>, and "thinking": false closes it */
    bool typescript;       /* tools as TypeScript */
    bool preserves, preserve_default; /* "preserve_thinking" keeps all reasoning; what it is by default */
};

struct moe_chat {
    const struct moe_tokenizer *t;
    struct moe_chat_style style;
    int32_t mark[MOE_MARK_COUNT]; /* ids; -1: the vocabulary has none */
};

/* ---- what a rendering is written to ---- */

struct moe_chat_buf { char *p; size_t n, cap; };

/* Special tokens and literal text, to ids or, with ids NULL, to text.  Pieces of literal text beside one
 * another become one.  The first failure stays in `code`, and nothing is written after it. */
struct moe_chat_out {
    const struct moe_chat *chat;
    struct moe_encoding *ids;
    struct moe_chat_buf text; /* all of it; for ids what came since the last special token */
    struct moe_chat_left left;
    enum moe_code code;
    struct moe_err *err;
};

void moe_chat_put(struct moe_chat_out *o, const char *s, size_t n);
void moe_chat_puts(struct moe_chat_out *o, const char *s);
void moe_chat_mark(struct moe_chat_out *o, enum moe_mark m);
void moe_chat_flush(struct moe_chat_out *o);
/* A value as Python's json.dumps(ensure_ascii=False) writes it, compact or with ", " and ": ". */
void moe_chat_json(struct moe_chat_out *o, const cJSON *v, bool compact);
/* A number as Python writes it, float or integer as it was spelled. */
void moe_chat_number(struct moe_chat_out *o, const cJSON *v);
/* Fail for message i (below 0: of none) unless something failed before. */
__attribute__((format(printf, 4, 5)))
void moe_chat_fail(struct moe_chat_out *o, enum moe_code code, int64_t i, const char *fmt, ...);

/* ---- parts ---- */

/* Tools (not empty) as text: JSON or TypeScript, as the template's style has it. */
void moe_chat_tools(struct moe_chat_out *o, const cJSON *tools);
/* TypeScript declarations of tools whose keys are sorted; false, and nothing is written, when Moonshot's
 * encoder would refuse a schema or finds no function. */
bool moe_chat_typescript(struct moe_chat_out *o, const cJSON *tools);

/* Are messages and tools lists of what they must be?  Keys that nothing reads are counted. */
bool moe_chat_check(struct moe_chat_out *o, const struct moe_chat_request *r);
/* A message's text, an empty one for null; and its calls, NULL for none. */
void moe_chat_content(struct moe_chat_out *o, const cJSON *message, int64_t i);
const cJSON *moe_chat_calls(struct moe_chat_out *o, const cJSON *message, int64_t i);
const char *moe_chat_role(const cJSON *message);
/* The function of a call and a string in it; NULL, and a failure, without. */
const char *moe_chat_call_name(struct moe_chat_out *o, const cJSON *call, int64_t i);
void moe_chat_arguments(struct moe_chat_out *o, const cJSON *call, int64_t i, bool quote);

void moe_chat_kimi(struct moe_chat_out *o, const struct moe_chat_request *r);
void moe_chat_deepseek(struct moe_chat_out *o, const struct moe_chat_request *r);

#endif
