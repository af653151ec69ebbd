/* SPDX-License-Identifier: Apache-2.0 */
/* Compiles schemas, regular expressions and tools, and follows a text and random tokens through what is
 * accepted. The first byte says which: s, c (a schema, objects closed), r, t; a NUL ends it, and a text
 * follows.  What is refused has a sentence; from every state that is reached there is a token, or the text
 * may end; every token of a mask can be advanced over; and what is accepted in one piece is accepted byte by
 * byte. */
#undef NDEBUG
#include "formats/grammar/tools.h"
#include "tests/unit/grammar-vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { WORDS = (N_SMALL_VOCAB + 31) / 32, STEPS = 40 };

static enum moe_code compile(struct moe_grammar **g, const struct moe_vocab *v, char kind, const char *text,
                             size_t bytes, struct moe_err *err)
{
    const struct moe_grammar_tool tool = { "f", text, bytes };
    const struct moe_grammar_tools tools = { .tools = &tool, .n = 1,
                                             .ids = { FIRST_SPECIAL, FIRST_SPECIAL + 1, FIRST_SPECIAL + 2,
                                                      FIRST_SPECIAL + 3, FIRST_SPECIAL + 4, -1, -1 } };
    if (kind == 'r') return moe_grammar_regex(g, v, text, bytes, NULL, err);
    if (kind == 't') return moe_grammar_tool_calls(g, v, &tools, NULL, err);
    return moe_grammar_schema(g, v, text, bytes, &(struct moe_grammar_options){ .closed = kind == 'c' }, err);
}

static void walk(struct moe_grammar *g, uint32_t seed)
{
    struct moe_err err;
    struct moe_grammar_state *s;
    assert(moe_grammar_start(&s, g, &err) == MOE_OK);
    for (int step = 0; step < STEPS; step++) {
        uint32_t bits[WORDS];
        int32_t n = 0, id = 0;
        assert(moe_grammar_mask(s, bits, &err) == MOE_OK);
        for (int i = 0; i < WORDS; i++) n += __builtin_popcount(bits[i]);
        assert(n > 0 || moe_grammar_may_end(s));
        if (n == 0) break;
        seed = seed * 1103515245u + 12345u;
        for (int32_t skip = (int32_t)((seed >> 8) % (uint32_t)n);
             !(bits[id / 32] >> (id % 32) & 1) || skip-- > 0;)
            id++;
        assert(moe_grammar_advance(s, id, &err) == MOE_OK);
    }
    moe_grammar_stop(&s);
}

static void follow(struct moe_grammar *g, const char *text, size_t bytes)
{
    struct moe_err err;
    struct moe_grammar_state *s, *t;
    assert(moe_grammar_start(&s, g, &err) == MOE_OK && moe_grammar_copy(&t, s, &err) == MOE_OK);
    enum moe_code code = moe_grammar_feed(s, text, bytes, &err), each = MOE_OK;
    for (size_t i = 0; i < bytes && each == MOE_OK; i++) each = moe_grammar_feed(t, text + i, 1, &err);
    assert(code == each && (code != MOE_OK || moe_grammar_may_end(s) == moe_grammar_may_end(t)));
    moe_grammar_stop(&s), moe_grammar_stop(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct moe_vocab *vocab;
    struct moe_err err = MOE_ERR_INIT;
    struct moe_grammar *g;
    if (!vocab) vocab = small_vocab();
    if (size < 1) return 0;
    const char *text = (const char *)data + 1, *end = memchr(text, 0, size - 1);
    size_t bytes = end ? (size_t)(end - text) : size - 1;
    enum moe_code code = compile(&g, vocab, (char)data[0], text, bytes, &err);
    if (code != MOE_OK) {
        assert((code == MOE_UNSUPPORTED || code == MOE_CORRUPT) && err.msg[0] && !g);
        return 0;
    }
    if (end) follow(g, end + 1, size - 2 - bytes);
    for (uint32_t seed = 1; seed <= 3; seed++) walk(g, seed);
    moe_grammar_release(&g);
    return 0;
}
