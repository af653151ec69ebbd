/* SPDX-License-Identifier: Apache-2.0 */
/* gengrammar <CASES
 *
 * Each line of CASES is a JSON object: "schema" or "regex" (text), or "tools" (a list of {name, parameters as
 * text}); "texts", for each of which is printed whether the grammar accepts it; "walks", how many texts are
 * made by random choices from the masks, from "seed" on; "closed".  For each line one is printed: {"code",
 * "message"} when it is refused, else {"accepts": [...], "walks": [...]}.  In texts with calls of tools, the
 * special tokens are the characters U+E000 to U+E006. */
#undef NDEBUG
#include "base/buffer.h"
#include "base/json.h"
#include "formats/grammar/tools.h"
#include "tests/unit/grammar-vocab.h"

#include <stdio.h>

enum { WORDS = (N_SMALL_VOCAB + 31) / 32, FREE_TOKENS = 40, TOKENS_MAX = 20000 };

static struct moe_vocab *vocab;

static const char *text_of(const cJSON *o, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

static enum moe_code compile(const cJSON *o, struct moe_grammar **g, struct moe_err *err)
{
    const struct moe_grammar_options options = { .closed = cJSON_IsTrue(cJSON_GetObjectItem(o, "closed")) };
    const char *schema = text_of(o, "schema"), *regex = text_of(o, "regex");
    const cJSON *list = cJSON_GetObjectItem(o, "tools"), *v;
    struct moe_grammar_tool tools[64];
    size_t n = 0;
    if (schema) return moe_grammar_schema(g, vocab, schema, strlen(schema), &options, err);
    if (regex) return moe_grammar_regex(g, vocab, regex, strlen(regex), &options, err);
    cJSON_ArrayForEach(v, list) {
        const char *parameters = text_of(v, "parameters");
        assert(n < 64);
        tools[n++] = (struct moe_grammar_tool){ text_of(v, "name"), parameters, strlen(parameters) };
    }
    const struct moe_grammar_tools t = { .tools = tools,
                                         .n = n,
                                         .required = true,
                                         .max_calls = 4,
                                         .ids = { FIRST_SPECIAL, FIRST_SPECIAL + 1, FIRST_SPECIAL + 2,
                                                  FIRST_SPECIAL + 3, FIRST_SPECIAL + 4, -1, -1 } };
    return moe_grammar_tool_calls(g, vocab, &t, &options, err);
}

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return z ^ z >> 27;
}

static bool is_set(const uint32_t *bits, int32_t id) { return bits[id / 32] >> (id % 32) & 1; }

/* One of the allowed tokens: any at first, later one that brings the text to its end, where there is one. */
static int32_t choose(const uint32_t *bits, int step, uint64_t *random)
{
    static const unsigned char ends[] = "\"0}]nt:,{[";
    int32_t allowed[N_SMALL_VOCAB], n = 0;
    bool end = step > FREE_TOKENS && next_random(random) % 8; /* not always: a pattern may need other bytes */
    if (end)
        for (int32_t id = N_SMALL_VOCAB - 1; id >= FIRST_SPECIAL; id--)
            if (is_set(bits, id) && id != FIRST_SPECIAL + 2) return id;
    for (const unsigned char *p = ends; end && *p; p++)
        if (is_set(bits, *p)) return *p;
    for (int32_t id = 0; id < N_SMALL_VOCAB; id++)
        if (is_set(bits, id)) allowed[n++] = id;
    assert(n > 0);
    return allowed[next_random(random) % (uint64_t)n];
}

/* What a token adds to the text. */
static void put_token(struct moe_buffer *b, int32_t id)
{
    static const char *const marks[] = { "\xee\x80\x80", "\xee\x80\x81", "\xee\x80\x82", "\xee\x80\x83",
                                         "\xee\x80\x84", "\xee\x80\x85", "\xee\x80\x86" };
    if (id >= FIRST_SPECIAL) moe_buffer_put(b, marks[id - FIRST_SPECIAL], 3);
    else moe_buffer_put(b, small_tokens[id].p, small_tokens[id].bytes);
}

static cJSON *walk(struct moe_grammar *g, uint64_t seed)
{
    struct moe_err err;
    struct moe_grammar_state *s;
    struct moe_buffer b = { 0 };
    uint32_t bits[WORDS];
    assert(moe_grammar_start(&s, g, &err) == MOE_OK);
    for (int step = 0;; step++) {
        assert(step < TOKENS_MAX);
        assert(moe_grammar_mask(s, bits, &err) == MOE_OK);
        bool none = true;
        for (int i = 0; i < WORDS; i++) none = none && !bits[i];
        if (moe_grammar_may_end(s) && (none || step > FREE_TOKENS || next_random(&seed) % 4 == 0)) break;
        int32_t id = choose(bits, step, &seed);
        assert(moe_grammar_advance(s, id, &err) == MOE_OK);
        put_token(&b, id);
    }
    moe_grammar_stop(&s);
    cJSON *v = cJSON_CreateString(b.n ? b.p : "");
    free(b.p);
    return v;
}

static cJSON *run(const cJSON *o)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_grammar *g;
    cJSON *answer = cJSON_CreateObject(), *list;
    const cJSON *v;
    enum moe_code code = compile(o, &g, &err);
    if (code != MOE_OK) {
        moe_json_add_i64(answer, "code", code);
        moe_json_add_str(answer, "message", err.msg);
        return answer;
    }
    list = moe_json_add_array(answer, "accepts");
    cJSON_ArrayForEach(v, cJSON_GetObjectItem(o, "texts"))
        moe_json_append(list, cJSON_CreateBool(accepts(g, v->valuestring)));
    list = moe_json_add_array(answer, "walks");
    const cJSON *walks = cJSON_GetObjectItem(o, "walks"), *seed = cJSON_GetObjectItem(o, "seed");
    for (int i = 0; walks && i < walks->valueint; i++)
        moe_json_append(list, walk(g, (uint64_t)(seed ? seed->valueint : 0) + (uint64_t)i * 7919));
    moe_grammar_release(&g);
    return answer;
}

int main(void)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    vocab = small_vocab();
    while ((n = getline(&line, &cap, stdin)) > 0) {
        struct moe_err err;
        cJSON *o;
        if (moe_json_parse(line, (size_t)n, NULL, &o, &err) != MOE_OK)
            return fprintf(stderr, "%s\n", err.msg), 1;
        cJSON *answer = run(o);
        char *text = moe_json_print(answer, 0);
        puts(text);
        free(text);
        cJSON_Delete(answer), cJSON_Delete(o);
    }
    free(line);
    moe_vocab_close(&vocab);
    return 0;
}
