/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench-grammar.h - times constrained decoding with a vocabulary of K2's size: compiling schemas,
 * and the mask and the step of each token. */
#ifndef BENCH_GRAMMAR_H
#define BENCH_GRAMMAR_H

#include "formats/grammar/tools.h"
#include "tests/bench/bench-table.h"
#include "tests/unit/tokenizer-vocab.h"

/* A schema, and a text that meets it, as a model would write it. */
static const struct { const char *name, *schema, *text;
} bench_schemas[] = {
    { "an agent's file tool",
      "{\"type\":\"object\",\"properties\":{\"path\":{\"type\":\"string\",\"description\":\"where\"},"
      "\"content\":{\"type\":"
      "\"string\"},\"mode\":{\"enum\":[\"create\",\"append\",\"replace\"]},\"lines\":{\"type\":\"array\","
      "\"items\":{\"type\":"
      "\"integer\",\"minimum\":1,\"maximum\":100000}}},\"required\":[\"path\",\"content\"],"
      "\"additionalProperties\":false}",
      "{\"path\": \"src/main.c\", \"content\": \"#include <stdio.h>\\n\\nint main(void)\\n{\\n    "
      "puts(\\\"Hello\\\");\\n}\\n\", "
      "\"mode\": \"create\", \"lines\": [1, 20, 300]}" },
    { "orders with addresses",
      "{\"type\":\"object\",\"properties\":{\"customer\":{\"$ref\":\"#/$defs/"
      "person\"},\"items\":{\"type\":\"array\",\"minItems\":1,"
      "\"maxItems\":50,\"items\":{\"type\":\"object\",\"properties\":{\"sku\":{\"type\":\"string\","
      "\"pattern\":\"^[A-Z]{2}-[0-9]{4}$\"},"
      "\"count\":{\"type\":\"integer\",\"minimum\":1},\"price\":{\"type\":\"number\",\"minimum\":0},\"note\":"
      "{\"type\":\"string\","
      "\"maxLength\":80}},\"required\":[\"sku\",\"count\"]}},\"due\":{\"type\":\"string\",\"format\":\"date-"
      "time\"}},\"required\":"
      "[\"customer\",\"items\"],\"$defs\":{\"person\":{\"type\":\"object\",\"properties\":{\"name\":{"
      "\"type\":\"string\",\"minLength\":1,"
      "\"maxLength\":60},\"email\":{\"type\":\"string\",\"format\":\"email\"},\"city\":{\"type\":[\"string\","
      "\"null\"]}},\"required\":"
      "[\"name\"]}}}",
      "{\"customer\":{\"name\":\"Ada "
      "Lovelace\",\"email\":\"ada@example.org\",\"city\":null},\"items\":[{\"sku\":\"AB-1234\",\"count\":2,"
      "\"price\":19.95,\"note\":\"a gift, please wrap it "
      "well\"},{\"sku\":\"ZX-0001\",\"count\":1}],\"due\":\"2026-11-28T12:00:00Z\"}" },
    { "any JSON object", "{\"type\":\"object\"}",
      "{\"title\": \"A tree\", \"children\": [{\"title\": \"left\", \"children\": []}, {\"title\": "
      "\"right\", \"value\": 1.5e3, "
      "\"flags\": [true, false, null]}], \"text\": \"words in a longer text, with \\\"quotes\\\" and \\n "
      "line ends\"}" },
    { "a tree by reference",
      "{\"$defs\":{\"node\":{\"type\":\"object\",\"properties\":{\"value\":{\"anyOf\":[{\"type\":\"string\"},"
      "{\"type\":\"number\"},"
      "{\"type\":\"null\"}]},\"children\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/"
      "node\"}}},\"required\":[\"value\"],"
      "\"additionalProperties\":false}},\"$ref\":\"#/$defs/node\"}",
      "{\n  \"value\": \"root\",\n  \"children\": [\n    {\n      \"value\": 12.5\n    },\n    {\n      "
      "\"value\": null,\n"
      "      \"children\": []\n    }\n  ]\n}" },
};
enum { BENCH_SCHEMAS = sizeof bench_schemas / sizeof *bench_schemas, BENCH_TOKENS_MAX = 4096 };

static struct moe_vocab *bench_vocab(void)
{
    struct moe_err err;
    struct vocab *v = get_memory(sizeof *v);
    struct moe_vocab_token *t = get_memory(K2_VOCAB * sizeof *t);
    struct moe_vocab *out;
    char *text;
    size_t bytes;
    memset(v, 0, sizeof *v), memset(t, 0, K2_VOCAB * sizeof *t);
    assert(moe_read_file("tests/data/tiny-k2/calib.txt", 1 << 24, &text, &bytes, &err) == MOE_OK);
    vocab_fill(v, text, bytes);
    for (int i = 0; i < v->n; i++) t[i] = (struct moe_vocab_token){ (const char *)v->bytes[i], v->len[i] };
    assert(moe_vocab_make(&out, t, K2_VOCAB, &err) == MOE_OK);
    free(text), free(v), free(t);
    return out;
}

static int by_seconds(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Follows the texts of all schemas byte by byte, each byte a token with its mask; the seconds of each go to
 * `seconds`.  Returns their number. */
static size_t follow_schemas(struct moe_grammar *const *g, uint32_t *bits, double *seconds)
{
    struct moe_err err;
    size_t n = 0;
    for (int i = 0; i < BENCH_SCHEMAS; i++) {
        struct moe_grammar_state *s;
        assert(moe_grammar_start(&s, g[i], &err) == MOE_OK);
        for (const char *p = bench_schemas[i].text; *p; p++) {
            double from = cpu_now();
            assert(moe_grammar_mask(s, bits, &err) == MOE_OK);
            int32_t id = ((unsigned char)*p + 256 - '!') % 256; /* as the vocabulary numbers the bytes */
            assert(bits[id / 32] >> (id % 32) & 1);
            assert(moe_grammar_advance(s, id, &err) == MOE_OK);
            assert(n < BENCH_TOKENS_MAX);
            seconds[n++] = cpu_now() - from;
        }
        assert(moe_grammar_may_end(s));
        moe_grammar_stop(&s);
    }
    return n;
}

static void put_mask_rows(const char *how, double *seconds, size_t n)
{
    qsort(seconds, n, sizeof *seconds, by_seconds);
    put_row(&(struct row){ "mask and step of a token, median", how, seconds[n / 2], 0, 1, "tokens/s", NULL, 0,
                           AIM_RATE, 20000 });
    put_row(&(struct row){ "mask and step of a token, worst", how, seconds[n - 1], 0, 1, "tokens/s", NULL, 0,
                           AIM_RATE, 1000 });
}

static void bench_grammar(void)
{
    struct moe_grammar *g[BENCH_SCHEMAS];
    struct moe_err err;
    put_heading("constrained decoding, 163,840 ids");
    double from = cpu_now();
    struct moe_vocab *v = bench_vocab();
    uint32_t *bits = get_memory(moe_vocab_words(v) * 4);
    double *seconds = get_memory(BENCH_TOKENS_MAX * sizeof *seconds);
    from = cpu_now();
    for (int i = 0; i < BENCH_SCHEMAS; i++)
        assert(moe_grammar_schema(&g[i], v, bench_schemas[i].schema, strlen(bench_schemas[i].schema), NULL,
                                  &err) == MOE_OK);
    put_row(&(struct row){ "compile a schema", "mean", (cpu_now() - from) / BENCH_SCHEMAS, 0, 1, "schemas/s",
                           NULL, 0, NO_AIM, 0 });
    put_mask_rows("new", seconds, follow_schemas(g, bits, seconds));
    put_mask_rows("seen", seconds, follow_schemas(g, bits, seconds));
    for (int i = 0; i < BENCH_SCHEMAS; i++) moe_grammar_release(&g[i]);
    free(bits), free(seconds);
    moe_vocab_close(&v);
}

#endif
