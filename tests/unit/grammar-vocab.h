/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/grammar-vocab.h - a small vocabulary for tests of grammars: the single bytes, pieces of JSON and
 * words, and some special tokens; and helpers that follow texts through grammars. */
#ifndef MOE_TESTS_UNIT_GRAMMAR_VOCAB_H
#define MOE_TESTS_UNIT_GRAMMAR_VOCAB_H

#include "formats/grammar/grammar.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { FIRST_SPECIAL = 512, N_SMALL_VOCAB = 528 };

static const char *const pieces[] = {
    "\"",
    "{\"",
    "\"}",
    "\":",
    "\": ",
    "\",",
    "\", \"",
    "[\"",
    "\"]",
    "{}",
    "[]",
    "}}",
    "]}",
    "},",
    "[{",
    "}]",
    "],",
    ": ",
    ", ",
    ",\n",
    "{\n",
    "\n  ",
    "\n    ",
    "\n}",
    " \"",
    "true",
    "false",
    "null",
    "tr",
    "ue",
    "fal",
    "se",
    "nu",
    "ll",
    " true",
    "12",
    "123",
    "0.",
    ".5",
    "-1",
    "e5",
    "E+",
    "00",
    "10",
    "name",
    "city",
    "Bonn",
    "Paris",
    "temp",
    "a",
    "aa",
    "aaa",
    "aaaa",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "ab",
    "abc",
    "b\"",
    "b\":",
    "c\", \"",
    "\\n",
    "\\\"",
    "\\u00",
    "\\ud8",
    "3d\\u",
    "\xc3\xa4",
    "\xc3",
    "\xe2\x82",
    "\xe2\x82\xac",
    "\xac\"",
    "\xf0\x9f\x98\x80",
    "\xf0\x9f",
    "\x98\x80",
    "functions",
    ".",
    "get",
    "_weather",
    "functions.get_weather",
    ":0",
    ":1",
    "red",
    "green",
    "blue",
    "\"red\"",
    "red\",",
    "kind",
    "cat",
    "dog",
    "value",
    "next",
    "2024",
    "-02",
    "-29",
    "T12",
    ":30",
    "Z\"",
    "hello world",
    " ",
    "  ",
    "    ",
    "\n",
    "\t",
    "},{",
    "\"},{\"",
    "\"a\"",
    "\"b\":",
    "{\"a\":1}",
    "[1,2",
    ",3",
    "]",
};

static struct moe_vocab_token small_tokens[N_SMALL_VOCAB]; /* filled in by small_vocab() */

/* The tokens: 0 to 255 single bytes, then the pieces, then words that are made up. */
static inline struct moe_vocab *small_vocab(void)
{
    static char words[FIRST_SPECIAL][8];
    struct moe_vocab_token *t = small_tokens;
    struct moe_err err = MOE_ERR_INIT;
    struct moe_vocab *v;
    int n = 0;
    for (; n < 256; n++) words[n][0] = (char)n, t[n] = (struct moe_vocab_token){ words[n], 1 };
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        t[n++] = (struct moe_vocab_token){ pieces[i], strlen(pieces[i]) };
    assert(n < FIRST_SPECIAL);
    for (unsigned x = 7; n < FIRST_SPECIAL; n++) {
        size_t len = 2 + n % 5;
        for (size_t k = 0; k < len; k++)
            x = x * 1103515245u + 12345u, words[n][k] = (char)('a' + (x >> 16) % 26);
        t[n] = (struct moe_vocab_token){ words[n], len };
    }
    assert(moe_vocab_make(&v, t, N_SMALL_VOCAB, &err) == MOE_OK);
    return v;
}

/* 1: the grammar accepts the text, 0: it does not. */
static inline bool accepts(struct moe_grammar *g, const char *text)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_grammar_state *s;
    assert(moe_grammar_start(&s, g, &err) == MOE_OK);
    enum moe_code code = moe_grammar_feed(s, text, strlen(text), &err);
    assert(code == MOE_OK || code == MOE_MISMATCH);
    bool is = code == MOE_OK && moe_grammar_may_end(s);
    moe_grammar_stop(&s);
    return is;
}

#endif
