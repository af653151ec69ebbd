/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/chat-vocab.h - a vocabulary for chats: the fixture's ranks, and the special tokens of every
 * template or some of them. */
#ifndef MOE_TESTS_UNIT_CHAT_VOCAB_H
#define MOE_TESTS_UNIT_CHAT_VOCAB_H

#include "base/io.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHAT_RANKS = 1008, CHAT_VOCAB = 1040 };

static const char *const chat_marks[] = {
    "[BOS]", "[EOS]", "<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>",
        "<|tool_calls_section_begin|>",
    "<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>",
        "<think>", "</think>",
    "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>", "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁outputs▁begin｜>",
        "<｜tool▁outputs▁end｜>",
    "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>",
};
enum { CHAT_MARKS = sizeof chat_marks / sizeof *chat_marks };

static inline void chat_put(const char *dir, const char *name, const void *text, size_t n)
{
    char path[4200];
    struct moe_err err = MOE_ERR_INIT;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert(moe_write_file(path, text, n, &err) == MOE_OK);
}

/* tiktoken.model and tokenizer_config.json in dir, without the mark `less` (NULL: with all) and with `more`
 * behind the added tokens. */
static inline void chat_vocabulary(const char *dir, const char *less, const char *more)
{
    struct moe_err err = MOE_ERR_INIT;
    char *ranks, config[16384];
    size_t n, at = 0;
    assert(moe_read_file("tests/data/tiny-k2/bf16/tiktoken.model", 1 << 20, &ranks, &n, &err) == MOE_OK);
    chat_put(dir, "tiktoken.model", ranks, n);
    free(ranks);
    at += (size_t)snprintf(config, sizeof config, "{\"added_tokens_decoder\": {");
    for (int i = 0; i < CHAT_MARKS; i++)
        if (!less || strcmp(less, chat_marks[i]))
            at += (size_t)snprintf(config + at, sizeof config - at,
                                   "%s\"%d\": {\"content\": \"%s\", \"special\": %s}", i ? ", " : "",
                                   CHAT_RANKS + i,
                                   chat_marks[i], strstr(chat_marks[i], "tool") ||
                                       strstr(chat_marks[i], "think") ? "false" : "true");
    at += (size_t)snprintf(config + at, sizeof config - at, "}%s}", more ? more : "");
    assert(at < sizeof config);
    chat_put(dir, "tokenizer_config.json", config, at);
}

#endif
