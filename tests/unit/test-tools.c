/* SPDX-License-Identifier: Apache-2.0 */
/* The grammar of tool calls: what it lets a model write, token by token, and what it refuses. */
#include "tests/ok.h"
#include "tests/unit/chat-vocab.h"
#include "tests/unit/grammar-vocab.h"

#include "formats/grammar/tools.h"

#include <unistd.h>

static struct moe_err err = MOE_ERR_INIT;
static struct moe_vocab *vocab;

/* In these tests, the special tokens are written as these bytes. */
enum { SECTION = FIRST_SPECIAL, SECTION_END, CALL, ARGUMENT, CALL_END, THINK, THINK_END };
static const char marks[] = "\x01\x02\x03\x04\x05\x06\x07";

static const char weather[] =
    "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"maxLength\":9}},"
    "\"required\":[\"city\"],\"additionalProperties\":false}";

static struct moe_grammar_tools declared(void)
{
    static const struct moe_grammar_tool two[] = { { "get_weather", weather, sizeof weather - 1 },
                                                   { "get.time-2", NULL, 0 } };
    return (struct moe_grammar_tools){
        .tools = two, .n = 2,
        .ids = { SECTION, SECTION_END, CALL, ARGUMENT, CALL_END, THINK, THINK_END } };
}

static struct moe_grammar *compile(const struct moe_grammar_tools *t)
{
    struct moe_grammar *g;
    OK(moe_grammar_tool_calls(&g, vocab, t, NULL, &err) == MOE_OK);
    return g;
}

/* Whether the grammar takes a text with marks, and lets it end. */
static bool takes(struct moe_grammar *g, const char *text)
{
    struct moe_grammar_state *s;
    enum moe_code code = MOE_OK;
    assert(moe_grammar_start(&s, g, &err) == MOE_OK);
    for (; *text && code == MOE_OK; text++) {
        const char *mark = strchr(marks, *text);
        code = mark ? moe_grammar_advance(s, FIRST_SPECIAL + (int32_t)(mark - marks), &err)
                    : moe_grammar_feed(s, text, 1, &err);
        assert(code == MOE_OK || code == MOE_MISMATCH);
    }
    bool is = code == MOE_OK && moe_grammar_may_end(s);
    moe_grammar_stop(&s);
    return is;
}

static void test_answers(void)
{
    struct moe_grammar_tools t = declared();
    struct moe_grammar *g = compile(&t);
    OK(takes(g, "") && takes(g, "Just text, {not JSON"));
    OK(takes(g, "\x01\x03" "functions.get_weather:0\x04{\"city\": \"Bonn\"}\x05\x02"));
    OK(takes(g, "I look.\x01\x03"
                "functions.get.time-2:0\x04{}\x05\x03"
                "functions.get_weather:1\x04{\"city\":\"\"}\x05\x02"));
    OK(!takes(g, "\x01") && !takes(g, "\x01\x02")); /* a section without calls */
    OK(!takes(g, "\x01\x03"
                 "functions.get_weather:0\x04{\"city\":\"Bonn\"}\x05")); /* or without an end */
    OK(!takes(g, "\x01\x03" "functions.get_weather:1\x04{\"city\":\"Bonn\"}\x05\x02")); /* the wrong index */
    OK(!takes(g, "\x01\x03" "functions.get_rain:0\x04{}\x05\x02"));                     /* not declared */
    OK(!takes(g, "\x01\x03" "functions.get_weather:0\x04{}\x05\x02"));                  /* not its schema */
    OK(!takes(g, "\x01\x03" "functions.get_weather:0\x04{\"city\":\"0123456789\"}\x05\x02"));
    OK(!takes(g, "\x01\x03" "functions.get.time-2:0\x04[]\x05\x02"));                   /* not an object */
    OK(!takes(g, "\x01\x03"
                 "functions.get.time-2:0\x04{}\x05\x02 text")); /* text after the section */
    OK(!takes(g, "\x03" "functions.get.time-2:0\x04{}\x05"));                           /* no section */
    OK(!takes(g, "\x06thought\x07text"));                                               /* no thinking */
    moe_grammar_release(&g);
}

static void test_options(void)
{
    struct moe_grammar_tools t = declared();
    const char *one = "\x01\x03" "functions.get.time-2:7\x04{}\x05\x02";
    const char *two = "\x01\x03"
                      "functions.get.time-2:7\x04{}\x05\x03"
                      "functions.get.time-2:8\x04{}\x05\x02";
    char text[200];
    t.required = true, t.max_calls = 1, t.first_index = 7;
    struct moe_grammar *g = compile(&t);
    OK(takes(g, one) && !takes(g, two) && !takes(g, "") && !takes(g, "text"));
    moe_grammar_release(&g);
    t.max_calls = 0, t.thinking = true;
    g = compile(&t);
    OK(takes(g, "\x06thought\x07\x01\x03"
                "functions.get.time-2:7\x04{}\x05\x02") &&
       !takes(g, "thought\x07"));
    snprintf(text, sizeof text, "free \xff thought%s", two); /* the section ends thinking */
    OK(takes(g, text));
    moe_grammar_release(&g);
    t.required = false;
    g = compile(&t);
    OK(takes(g, "\x06thought\x07") && takes(g, "thought\x07text") && !takes(g, "thought"));
    snprintf(text, sizeof text, "thought\x07text%s", two);
    OK(takes(g, text));
    moe_grammar_release(&g);
}

/* The 128th call is the last, and its index is 127. */
static void test_many(void)
{
    struct moe_grammar_tools t = declared();
    struct moe_grammar *g = compile(&t);
    struct moe_grammar_state *s;
    uint32_t bits[(N_SMALL_VOCAB + 31) / 32];
    OK(moe_grammar_start(&s, g, &err) == MOE_OK && moe_grammar_advance(s, SECTION, &err) == MOE_OK);
    for (int i = 0; i < 128; i++) {
        char text[64];
        OK(moe_grammar_mask(s, bits, &err) == MOE_OK);
        OK(i > 0 || moe_grammar_only(bits, moe_vocab_words(vocab)) == CALL);
        OK(moe_grammar_advance(s, CALL, &err) == MOE_OK);
        int n = snprintf(text, sizeof text, "functions.get.time-2:%d", i);
        OK(moe_grammar_feed(s, text, (size_t)n, &err) == MOE_OK &&
           moe_grammar_advance(s, ARGUMENT, &err) == MOE_OK);
        OK(moe_grammar_feed(s, "{}", 2, &err) == MOE_OK && moe_grammar_advance(s, CALL_END, &err) == MOE_OK);
    }
    FAILS(MOE_MISMATCH, moe_grammar_advance(s, CALL, &err));
    OK(moe_grammar_advance(s, SECTION_END, &err) == MOE_OK && moe_grammar_may_end(s));
    OK(moe_grammar_mask(s, bits, &err) == MOE_OK && moe_grammar_only(bits, moe_vocab_words(vocab)) == -1);
    moe_grammar_stop(&s);
    moe_grammar_release(&g);
}

/* Masks have exactly the special tokens that can be advanced over, and free text allows all others. */
static void test_masks(void)
{
    struct moe_grammar_tools t = declared();
    t.thinking = true;
    struct moe_grammar *g = compile(&t);
    struct moe_grammar_state *s, *copy;
    uint32_t bits[(N_SMALL_VOCAB + 31) / 32];
    unsigned seed = 5;
    OK(moe_grammar_start(&s, g, &err) == MOE_OK);
    for (int i = 0; i < 60; i++) {
        int32_t allowed[N_SMALL_VOCAB], n = 0, special = -1;
        OK(moe_grammar_mask(s, bits, &err) == MOE_OK);
        for (int32_t id = 0; id < N_SMALL_VOCAB; id++) {
            assert(moe_grammar_copy(&copy, s, &err) == MOE_OK);
            bool can = moe_grammar_advance(copy, id, &err) == MOE_OK;
            OK(can == (bits[id / 32] >> (id % 32) & 1));
            if (can) allowed[n++] = id;
            if (can && id >= FIRST_SPECIAL) special = id;
            moe_grammar_stop(&copy);
        }
        if (n == 0) break;
        seed = seed * 1103515245u + 12345u;
        int32_t next = special >= 0 && special != THINK ? special : allowed[(seed >> 8) % (unsigned)n];
        OK(moe_grammar_advance(s, next, &err) == MOE_OK);
    }
    moe_grammar_stop(&s);
    moe_grammar_release(&g);
}

static void test_refusals(void)
{
    struct moe_grammar_tools t = declared();
    struct moe_grammar *g;
    struct moe_grammar_tool tools[] = { { "a", NULL, 0 }, { "a", NULL, 0 } };
    t.tools = tools;
    FAILS(MOE_CORRUPT, moe_grammar_tool_calls(&g, vocab, &t, NULL, &err));
    SAYS("'a' is declared twice");
    tools[1] = (struct moe_grammar_tool){ "b", "{\"not\":{}}", 10 };
    FAILS(MOE_UNSUPPORTED, moe_grammar_tool_calls(&g, vocab, &t, NULL, &err));
    SAYS("tool 'b': the schema keyword 'not'");
    tools[1] = (struct moe_grammar_tool){ "b", "{\"type\":\"string\"}", 17 };
    FAILS(MOE_UNSUPPORTED, moe_grammar_tool_calls(&g, vocab, &t, NULL, &err));
    SAYS("tool 'b': its schema allows no object");
    tools[1] = (struct moe_grammar_tool){ "", NULL, 0 };
    FAILS(MOE_CORRUPT, moe_grammar_tool_calls(&g, vocab, &t, NULL, &err));
    t.n = 0;
    FAILS(MOE_CORRUPT, moe_grammar_tool_calls(&g, vocab, &t, NULL, &err));
    t = declared(), t.thinking = true, t.ids.think_end = -1;
    FAILS(MOE_UNSUPPORTED, moe_grammar_tool_calls(&g, vocab, &t, NULL, &err));
}

static void test_tokens(void)
{
    struct moe_tokenizer *tokenizer;
    struct moe_tool_tokens ids;
    struct moe_vocab *v;
    char dir[] = "/tmp/moe-tools.XXXXXX", file[64];
    OK(mkdtemp(dir));
    chat_vocabulary(dir, NULL, NULL);
    OK(moe_tokenizer_open(&tokenizer, dir, 0, &err) == MOE_OK);
    OK(moe_tool_tokens_find(&ids, tokenizer, &err) == MOE_OK);
    OK(ids.section_begin == CHAT_RANKS + 7 && ids.section_end == CHAT_RANKS + 8 &&
       ids.call_begin == CHAT_RANKS + 9);
    OK(ids.argument_begin == CHAT_RANKS + 10 && ids.call_end == CHAT_RANKS + 11 &&
       ids.think_end == CHAT_RANKS + 13);
    OK(moe_vocab_open(&v, tokenizer, &err) == MOE_OK && moe_vocab_size(v) == moe_tokenizer_size(tokenizer));
    moe_vocab_close(&v);
    moe_tokenizer_close(&tokenizer);
    chat_vocabulary(dir, "<|tool_call_end|>", NULL);
    OK(moe_tokenizer_open(&tokenizer, dir, 0, &err) == MOE_OK);
    FAILS(MOE_UNSUPPORTED, moe_tool_tokens_find(&ids, tokenizer, &err));
    SAYS("no token <|tool_call_end|>");
    moe_tokenizer_close(&tokenizer);
    for (int i = 0; i < 2; i++) {
        snprintf(file, sizeof file, "%s/%s", dir, i ? "tiktoken.model" : "tokenizer_config.json");
        OK(unlink(file) == 0);
    }
    OK(rmdir(dir) == 0);
}

int main(void)
{
    vocab = small_vocab();
    test_answers();
    test_options();
    test_many();
    test_masks();
    test_refusals();
    test_tokens();
    moe_vocab_close(&vocab);
    printf("test-tools: %ld checks\n", checks);
    return 0;
}
