/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/grammar/vocab-internal.h"

#include "base/grow.h"

#include <stdlib.h>
#include <string.h>

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "out of memory for the vocabulary's tries");
}

const char *moe_vocab_bytes(const struct moe_vocab *v, int64_t id, size_t *n)
{
    *n = v->start[id + 1] - v->start[id];
    return v->pool + v->start[id];
}

int64_t moe_vocab_size(const struct moe_vocab *v) { return v->n; }
size_t moe_vocab_words(const struct moe_vocab *v) { return v->words; }

/* The number of characters of a plain token; 0 for any other. */
static uint32_t plain_chars(const char *p, size_t n)
{
    const unsigned char *s = (const unsigned char *)p;
    uint32_t chars = 0;
    for (size_t i = 0; i < n; chars++) {
        unsigned c = s[i];
        size_t len = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
        if (c < 0x20 || c == '"' || c == '\\' || (c >= 0x80 && c < 0xc2) || c > 0xf4 || n - i < len) return 0;
        for (size_t k = 1; k < len; k++)
            if ((s[i + k] & 0xc0) != 0x80) return 0;
        if ((c == 0xe0 && s[i + 1] < 0xa0) || (c == 0xed && s[i + 1] > 0x9f) ||
            (c == 0xf0 && s[i + 1] < 0x90) || (c == 0xf4 && s[i + 1] > 0x8f))
            return 0;
        if (len == 3 && c == 0xe2 && s[i + 1] == 0x80 && (s[i + 2] & 0xfe) == 0xa8) return 0;
        i += len;
    }
    return chars;
}

/* ---- tries ---- */

struct sorted { const char *p; uint32_t n, chars; int32_t id; };

static int by_bytes(const void *a, const void *b)
{
    const struct sorted *x = a, *y = b;
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    if (c) return c;
    if (x->n != y->n) return x->n < y->n ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Append the token's path below that of the token before it; open[d]: the node of the present path at depth
 * d. */
static bool append(struct moe_trie *t, const struct sorted *x, const struct sorted *before, uint32_t *open)
{
    uint32_t same = 0, n_before = before ? before->n : 0;
    while (same < x->n && same < n_before && x->p[same] == before->p[same]) same++;
    if (same == x->n) same--; /* the same bytes again get a node of their own */
    for (uint32_t d = same; d < n_before; d++) t->nodes[open[d]].skip = (uint32_t)t->n;
    if (!MOE_GROW(t->nodes, t->cap, t->n + x->n)) return false;
    for (uint32_t d = same; d < x->n; d++) {
        open[d] = (uint32_t)t->n;
        t->nodes[t->n++] = (struct moe_trie_node){ 0, d + 1 == x->n ? x->id : -1, (uint16_t)d,
                                                   (uint8_t)x->p[d] };
    }
    if ((int)x->n > t->depth) t->depth = (int)x->n;
    return true;
}

/* The trie of the tokens that are plain, or of those that are not. */
static bool make_trie(struct moe_trie *t, const struct sorted *x, size_t n, bool plain, uint32_t *open)
{
    const struct sorted *before = NULL;
    for (size_t i = 0; i < n; i++) {
        if ((x[i].chars > 0) != plain) continue;
        if (!append(t, &x[i], before, open)) return false;
        before = &x[i];
    }
    for (uint32_t d = 0; before && d < before->n; d++) t->nodes[open[d]].skip = (uint32_t)t->n;
    return true;
}

/* ---- sets of plain tokens ---- */

static void set_bit(uint32_t *bits, int32_t id) { bits[id / 32] |= UINT32_C(1) << (id % 32); }

static bool make_sets(struct moe_vocab *v, const struct sorted *x, size_t n)
{
    static const uint32_t chars[] = { 1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11,
                                      12, 13, 14, 15, 16, 20, 24, 32, 48, 64 };
    for (size_t i = 0; i < n; i++)
        if (x[i].chars > v->max_chars) v->max_chars = x[i].chars;
    v->first = calloc((size_t)v->max_chars + 3, sizeof *v->first);
    v->by_chars = calloc(n + 1, sizeof *v->by_chars);
    if (!v->first || !v->by_chars) return false;
    for (size_t i = 0; i < n; i++)
        if (x[i].chars) v->first[x[i].chars + 1]++;
    for (uint32_t c = 1; c <= v->max_chars + 1; c++) v->first[c] += v->first[c - 1];
    uint32_t *next = calloc((size_t)v->max_chars + 2, sizeof *next);
    if (!next) return false;
    memcpy(next, v->first, ((size_t)v->max_chars + 2) * sizeof *next);
    for (size_t i = 0; i < n; i++)
        if (x[i].chars) v->by_chars[next[x[i].chars]++] = x[i].id;
    free(next);
    for (int i = 0; i <= (int)(sizeof chars / sizeof *chars); i++) {
        uint32_t most = i == (int)(sizeof chars / sizeof *chars) ? v->max_chars : chars[i];
        if (most >= v->max_chars) most = v->max_chars;
        struct moe_plain_set *s = &v->sets[v->n_sets++];
        *s = (struct moe_plain_set){ most, calloc(v->words, 4) };
        if (!s->bits) return false;
        for (uint32_t k = 0; k < v->first[most + 1]; k++) set_bit(s->bits, v->by_chars[k]);
        if (most == v->max_chars) break;
    }
    return true;
}

/* ---- opening ---- */

static enum moe_code check_bytes(const struct sorted *x, size_t n, struct moe_err *err)
{
    bool seen[256] = { false };
    for (size_t i = 0; i < n; i++)
        if (x[i].n == 1) seen[(unsigned char)*x[i].p] = true;
    for (int b = 0; b < 256; b++)
        if (!seen[b])
            return moe_fail(err, MOE_UNSUPPORTED,
                            "the vocabulary has no token for byte 0x%02x alone, without "
                            "which constrained text may come to no end",
                            (unsigned)b);
    return MOE_OK;
}

static enum moe_code build(struct moe_vocab *v, struct sorted *x, struct moe_err *err)
{
    size_t n = 0;
    for (int64_t id = 0; id < v->n; id++) {
        size_t bytes;
        const char *p = moe_vocab_bytes(v, id, &bytes);
        if (!bytes) continue;
        if (bytes > UINT16_MAX) return moe_fail(err, MOE_UNSUPPORTED, "a token of %zu bytes", bytes);
        x[n++] = (struct sorted){ p, (uint32_t)bytes, plain_chars(p, bytes), (int32_t)id };
        if (bytes > v->longest) v->longest = (uint32_t)bytes;
        if (!x[n - 1].chars) {
            uint32_t k = 0;
            while (k < bytes && (unsigned char)p[k] >= 0x20) k++;
            if (k > v->longest_other) v->longest_other = k;
        }
        set_bit(v->any, (int32_t)id);
    }
    MOE_TRY(check_bytes(x, n, err));
    qsort(x, n, sizeof *x, by_bytes);
    uint32_t *open = calloc((size_t)v->longest + 1, sizeof *open);
    bool ok = open && make_trie(&v->plain, x, n, true, open) && make_trie(&v->other, x, n, false, open) &&
              make_sets(v, x, n);
    free(open);
    return ok ? MOE_OK : no_memory(err);
}

enum moe_code moe_vocab_make(struct moe_vocab **out, const struct moe_vocab_token *tokens, int64_t n,
                             struct moe_err *err)
{
    uint64_t bytes = 0;
    *out = NULL;
    for (int64_t i = 0; i < n; i++) bytes += tokens[i].bytes;
    if (n < 1 || n > INT32_MAX - 64 || bytes > UINT32_MAX)
        return moe_fail(err, MOE_UNSUPPORTED, "a vocabulary of this size");
    struct moe_vocab *v = calloc(1, sizeof *v);
    struct sorted *x = calloc((size_t)n, sizeof *x);
    enum moe_code code = MOE_NOMEM;
    if (v && x) {
        v->n = n, v->words = ((size_t)n + 31) / 32;
        v->pool = malloc(bytes + 1);
        v->start = calloc((size_t)n + 1, sizeof *v->start);
        v->any = calloc(v->words, 4);
    }
    if (v && x && v->pool && v->start && v->any) {
        for (int64_t i = 0; i < n; i++) {
            if (tokens[i].bytes) memcpy(v->pool + v->start[i], tokens[i].p, tokens[i].bytes);
            v->start[i + 1] = v->start[i] + (uint32_t)tokens[i].bytes;
        }
        code = build(v, x, err);
    } else {
        no_memory(err);
    }
    free(x);
    if (code != MOE_OK) moe_vocab_close(&v);
    *out = v;
    return code;
}

enum moe_code moe_vocab_open(struct moe_vocab **v, const struct moe_tokenizer *t, struct moe_err *err)
{
    int64_t n = moe_tokenizer_size(t);
    struct moe_vocab_token *tokens = calloc((size_t)n + 1, sizeof *tokens);
    *v = NULL;
    if (!tokens) return no_memory(err);
    for (int64_t i = 0; i < n; i++) {
        char room[MOE_TOKEN_ROOM];
        if (!moe_token_is_special(t, (int32_t)i))
            tokens[i].p = moe_token_bytes(t, (int32_t)i, room, &tokens[i].bytes);
    }
    enum moe_code code = moe_vocab_make(v, tokens, n, err);
    free(tokens);
    return code;
}

void moe_vocab_close(struct moe_vocab **vp)
{
    struct moe_vocab *v = *vp;
    *vp = NULL;
    if (!v) return;
    for (int i = 0; i < v->n_sets; i++) free(v->sets[i].bits);
    free(v->plain.nodes), free(v->other.nodes), free(v->by_chars), free(v->first);
    free(v->pool), free(v->start), free(v->any);
    free(v);
}
