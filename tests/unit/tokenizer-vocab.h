/* SPDX-License-Identifier: Apache-2.0 */
/* tests/unit/tokenizer-vocab.h - writes a vocabulary of K2's size and shape: 163,584 ranks and K2's special
 * tokens, the same every time.  Its tokens are not K2's: single bytes, what a text's words begin with, Han
 * characters, joined tokens. */
#ifndef MOE_TESTS_UNIT_TOKENIZER_VOCAB_H
#define MOE_TESTS_UNIT_TOKENIZER_VOCAB_H

#include "tests/unit/tokenizer-texts.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#define K2_RANKS 163584
#define K2_VOCAB 163840

/* n tokens; `slot` is a hash table of 1 + their ids, 0 where a slot is free. */
struct vocab { unsigned char bytes[K2_RANKS][16]; uint8_t len[K2_RANKS]; int32_t slot[1 << 19]; int n; };

/* Adds a token unless it is there already, is empty or longer than 16 bytes, or the vocabulary is full. */
static inline void vocab_add(struct vocab *v, const void *s, size_t len)
{
    uint32_t h = 2166136261u;
    if (v->n == K2_RANKS || len == 0 || len > 16) return;
    for (size_t i = 0; i < len; i++) h = (h ^ ((const unsigned char *)s)[i]) * 16777619u;
    for (h ^= h >> 15; v->slot[h &= (1 << 19) - 1]; h++) {
        int id = v->slot[h] - 1;
        if (v->len[id] == len && !memcmp(v->bytes[id], s, len)) return;
    }
    memcpy(v->bytes[v->n], s, len);
    v->len[v->n] = (uint8_t)len;
    v->slot[h] = ++v->n;
}

/* Adds all prefixes of each word of a text, so that merges can reach the whole word. */
static inline void vocab_add_words(struct vocab *v, const char *text, size_t size)
{
    for (size_t from = 0, at = 1; at <= size; at++) {
        if (at < size && ((text[at] | 32) >= 'a' && (text[at] | 32) <= 'z')) continue;
        for (size_t n = 2; n <= at - from; n++) vocab_add(v, text + from, n);
        from = at;
    }
}

/* Adds single bytes, Han characters and the words of a text; the rest are joined pairs of tokens. */
static inline void vocab_fill(struct vocab *v, const char *text, size_t size)
{
    uint64_t state = 0x9e3779b97f4a7c15u;
    for (int i = 0; i < 256; i++) vocab_add(v, &(unsigned char){ (unsigned char)(i + '!') }, 1);
    for (int c = 0x3000; c < 0xa000; c++) {
        unsigned char u[3] = { (unsigned char)(0xe0 | c >> 12), (unsigned char)(0x80 | (c >> 6 & 63)),
                               (unsigned char)(0x80 | (c & 63)) };
        vocab_add(v, u, 2);
        vocab_add(v, u, 3);
    }
    vocab_add_words(v, text, size);
    while (v->n < K2_RANKS) {
        unsigned char both[32];
        int a = (int)(next_random(&state) % (uint32_t)v->n), b = (int)(next_random(&state) % (uint32_t)v->n);
        memcpy(both, v->bytes[a], v->len[a]);
        memcpy(both + v->len[a], v->bytes[b], v->len[b]);
        vocab_add(v, both, (size_t)v->len[a] + v->len[b]);
    }
}

static inline void put_base64(FILE *f, const unsigned char *s, size_t len)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < len; i += 3) {
        uint32_t v = (uint32_t)s[i] << 16 | (i + 1 < len ? (uint32_t)s[i + 1] << 8 : 0) |
                     (i + 2 < len ? s[i + 2] : 0);
        fprintf(f, "%c%c%c%c", digits[v >> 18], digits[v >> 12 & 63], i + 1 < len ? digits[v >> 6 & 63] : '=',
                i + 2 < len ? digits[v & 63] : '=');
    }
}

static inline FILE *create_in(const char *dir, const char *name)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert(f);
    return f;
}

/* Writes DIR/tiktoken.model and DIR/tokenizer_config.json; the vocabulary's words come from text [size]. */
static inline void write_k2_vocabulary(const char *dir, const char *text, size_t size)
{
    static const struct { int id; const char *name;
    } special[] = {
        { 163584, "[BOS]" },
        { 163585, "[EOS]" },
        { 163586, "<|im_end|>" },
        { 163587, "<|im_user|>" },
        { 163588, "<|im_assistant|>" },
        { 163590, "<|start_header_id|>" },
        { 163591, "<|end_header_id|>" },
        { 163593, "[EOT]" },
        { 163594, "<|im_system|>" },
        { 163595, "<|tool_calls_section_begin|>" },
        { 163596, "<|tool_calls_section_end|>" },
        { 163597, "<|tool_call_begin|>" },
        { 163598, "<|tool_call_argument_begin|>" },
        { 163599, "<|tool_call_end|>" },
        { 163601, "<|im_middle|>" },
        { 163838, "[UNK]" },
        { 163839, "[PAD]" },
    };
    struct vocab *v = calloc(1, sizeof *v);
    assert(v);
    vocab_fill(v, text, size);
    FILE *f = create_in(dir, "tiktoken.model");
    for (int i = 0; i < v->n; i++) {
        put_base64(f, v->bytes[i], v->len[i]);
        fprintf(f, " %d\n", i);
    }
    assert(fclose(f) == 0);
    free(v);
    f = create_in(dir, "tokenizer_config.json");
    fputs("{\"added_tokens_decoder\": {", f);
    for (size_t i = 0; i < sizeof special / sizeof *special; i++)
        fprintf(f, "%s\"%d\": {\"content\": \"%s\", \"special\": true}", i ? ", " : "", special[i].id,
                special[i].name);
    fputs("}}\n", f);
    assert(fclose(f) == 0);
}

#endif
