/* SPDX-License-Identifier: Apache-2.0 */
/* formats/grammar/tools.h - Kimi K2's tool calls as a grammar: only declared tools, the ids that the model
 * was trained to write, and arguments that meet the tool's schema.
 *
 *     text <|tool_calls_section_begin|><|tool_call_begin|>functions.NAME:I<|tool_call_argument_begin|>
 *     {...}<|tool_call_end|>...<|tool_calls_section_end|>
 *
 * I counts the calls of the whole conversation from 0.  Source: docs/tool_call_guidance.md of
 * moonshotai/Kimi-K2-Instruct.  Text before the section and thinking are free; nothing follows the section.
 */
#ifndef MOE_FORMATS_GRAMMAR_TOOLS_H
#define MOE_FORMATS_GRAMMAR_TOOLS_H

#include "formats/grammar/grammar.h"

/* parameters: a JSON schema as text; NULL: any object.  Arguments are an object, whatever it says. */
struct moe_grammar_tool { const char *name, *parameters; size_t bytes; };

/* Ids of the tokens that mark calls and thinking; think_begin and think_end may be -1: there are none. */
struct moe_tool_tokens {
    int32_t section_begin, section_end, call_begin, argument_begin, call_end, think_begin, think_end;
};

/* Find them by their names; MOE_UNSUPPORTED, with the name, when the vocabulary lacks one that marks calls.
 */
enum moe_code moe_tool_tokens_find(struct moe_tool_tokens *ids, const struct moe_tokenizer *t,
                                   struct moe_err *err);

struct moe_grammar_tools {
    const struct moe_grammar_tool *tools; /* at least one */
    size_t n;
    struct moe_tool_tokens ids;
    /* The text begins with thinking or within it (the prompt may end with <think>), which is free and goes on
     * to think_end or to the section.  Needs think_end. */
    bool thinking;
    /* The answer is calls, without text before them.  (A tool that the client names is declared alone.) */
    bool required;
    uint32_t first_index; /* I of the first call: how many the conversation has already */
    uint32_t max_calls;   /* 0: 128; 1 where calls may not be parallel; at most 1024 */
};

/* As moe_grammar_schema.  A failure about a tool's schema names the tool.  MOE_CORRUPT for a name that is
 * empty, longer than 256 bytes or declared twice. */
enum moe_code moe_grammar_tool_calls(struct moe_grammar **g, const struct moe_vocab *vocab,
                                     const struct moe_grammar_tools *tools,
                                     const struct moe_grammar_options *options, struct moe_err *err);

#endif
