/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/tiktoken.c - reads a tiktoken.model into a struct moe_bpe. */
#include "base/grow.h"
#include "formats/tokenizer/tokenizer-internal.h"

#include "base/io.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct token { uint32_t offset, len; }; /* bytes of parser.out; len 0: no line had this rank yet */

struct parser {
    const char *at, *end, *file;
    unsigned char *out;      /* decoded tokens in file order */
    struct token *token;     /* by rank */
    size_t out_len, cap;     /* bytes in out; ranks for which `token` has room */
    size_t line, tokens;     /* the number of the present line, from 1; how many tokens were read */
    struct moe_err *err;
};

static enum moe_code fail_line(const struct parser *p, const char *what)
{
    return moe_fail_at(p->err, MOE_CORRUPT, p->file, NULL, "line %zu: %s", p->line, what);
}

static int base64_digit(unsigned char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A'
         : c >= 'a' && c <= 'z' ? c - 'a' + 26
         : c >= '0' && c <= '9' ? c - '0' + 52
         : c == '+'             ? 62
         : c == '/'             ? 63
                                : -1;
}

/* Decode base64 in its canonical form only: whole groups of four, padding only at the end, unused bits
 * zero. */
static bool decode_base64(const char *s, size_t n, unsigned char *out, size_t *len)
{
    size_t used = 0;
    if (n == 0 || n % 4) return false;
    size_t pad = s[n - 1] == '=' ? s[n - 2] == '=' ? 2 : 1 : 0;
    for (size_t i = 0; i < n; i += 4) {
        size_t skip = i + 4 == n ? pad : 0;
        uint32_t v = 0;
        for (size_t k = 0; k < 4; k++) {
            int d = k >= 4 - skip ? 0 : base64_digit((unsigned char)s[i + k]);
            if (d < 0) return false;
            v = v << 6 | (uint32_t)d;
        }
        if (v & ((1u << 8 * skip) - 1)) return false;
        for (size_t k = 0; k < 3 - skip; k++) out[used++] = (unsigned char)(v >> (16 - 8 * k));
    }
    *len = used;
    return true;
}

/* Parse a decimal number below 2^24 without sign and leading zeros. */
static bool parse_decimal(const char *s, const char *end, uint32_t *out)
{
    uint32_t v = 0;
    if (s == end || end - s > 8 || (*s == '0' && end - s > 1)) return false;
    for (; s < end; s++) {
        if (*s < '0' || *s > '9') return false;
        v = v * 10 + (uint32_t)(*s - '0');
    }
    *out = v;
    return v < 1u << 24;
}

/* Make room in p->token for a rank. */
static bool grow_tokens(struct parser *p, uint32_t rank)
{
    enum { FIRST = 1 << 14 };
    size_t before = p->cap, need = (size_t)rank + 1;
    if (!MOE_GROW(p->token, p->cap, need < FIRST ? FIRST : need)) return false;
    if (p->cap > before) memset(p->token + before, 0, (p->cap - before) * sizeof *p->token);
    return true;
}

static enum moe_code parse_line(struct parser *p)
{
    const char *eol = memchr(p->at, '\n', (size_t)(p->end - p->at)), *s = p->at;
    if (!eol) eol = p->end;
    p->at = eol < p->end ? eol + 1 : eol;
    p->line++;
    if (eol > s && eol[-1] == '\r') eol--;
    if (eol == s) return MOE_OK;

    const char *space = memchr(s, ' ', (size_t)(eol - s));
    uint32_t rank;
    size_t len;
    if (!space) return fail_line(p, "no space between token and rank");
    if (!decode_base64(s, (size_t)(space - s), p->out + p->out_len, &len))
        return fail_line(p, "token is not base64");
    if (!parse_decimal(space + 1, eol, &rank)) return fail_line(p, "rank is not a number below 16777216");
    if (!grow_tokens(p, rank)) return moe_fail(p->err, MOE_NOMEM, "out of memory for the vocabulary");
    if (p->token[rank].len) return fail_line(p, "rank was given before");
    p->token[rank] = (struct token){ (uint32_t)p->out_len, (uint32_t)len };
    p->out_len += len;
    p->tokens++;
    return MOE_OK;
}

/* Copy the tokens into the order of their ranks. */
static enum moe_code order_by_rank(struct moe_bpe *b, const struct parser *p)
{
    b->bytes = malloc(p->out_len + 1);
    b->start = malloc((p->tokens + 1) * sizeof *b->start);
    if (!b->bytes || !b->start) return moe_fail(p->err, MOE_NOMEM, "out of memory for the vocabulary");
    uint32_t at = 0;
    for (size_t i = 0; i < p->tokens; i++) {
        uint32_t len = i < p->cap ? p->token[i].len : 0;
        if (!len)
            return moe_fail_at(p->err, MOE_CORRUPT, p->file, NULL, "rank %zu is missing among %zu tokens", i,
                               p->tokens);
        memcpy(b->bytes + at, p->out + p->token[i].offset, len);
        b->start[i] = at;
        at += len;
        if (len > b->longest) b->longest = len;
    }
    b->start[p->tokens] = at;
    b->count = (int32_t)p->tokens;
    return MOE_OK;
}

/* Make the index by bytes, and check that each token is there once and every single byte is one. */
static enum moe_code index_tokens(struct moe_bpe *b, const char *file, struct moe_err *err)
{
    int32_t twice = -1;
    int got = moe_bpe_index(b, &twice);
    if (got < 0) return moe_fail(err, MOE_NOMEM, "out of memory for the vocabulary");
    if (got == 0)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "ranks %d and %d are the same token",
                           moe_bpe_find(b, b->bytes + b->start[twice], b->start[twice + 1] - b->start[twice]),
                           twice);
    for (int c = 0; c < 256; c++)
        if (b->single[c] < 0)
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "no token for the single byte 0x%02x",
                               (unsigned)c);
    return MOE_OK;
}

enum moe_code moe_bpe_parse(struct moe_bpe *b, const char *text, size_t size, const char *file,
                            struct moe_err *err)
{
    struct parser p = { .at = text, .end = text + size, .file = file, .err = err };
    enum moe_code code = MOE_OK;
    *b = (struct moe_bpe){ 0 };
    MOE_TRY(moe_not_lfs(text, size, file, err));
    if (size > MOE_TIKTOKEN_MAX)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "%zu bytes, more than %zu", size, MOE_TIKTOKEN_MAX);
    p.out = malloc(size / 4 * 3 + 4);
    if (!p.out) return moe_fail(err, MOE_NOMEM, "out of memory for the vocabulary");
    while (code == MOE_OK && p.at < p.end) code = parse_line(&p);
    if (code == MOE_OK && !p.tokens) code = moe_fail_at(err, MOE_CORRUPT, file, NULL, "no tokens in it");
    if (code == MOE_OK) code = order_by_rank(b, &p);
    if (code == MOE_OK) code = index_tokens(b, file, err);
    free(p.out);
    free(p.token);
    if (code != MOE_OK) moe_bpe_release(b);
    return code;
}
