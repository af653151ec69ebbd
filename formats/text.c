/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/text-internal.h"

#include "base/show.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20, ROW_MOST = 64 << 20, PIECE_LEAST = 64, HEAD = 512 };

/* ---- opening and closing ---- */

static enum moe_code fill(struct moe_text *t, size_t want, struct moe_err *err);

/* Find out what the file is; a byte order mark is skipped. */
static enum moe_code begin(struct moe_text *t, struct moe_err *err)
{
    MOE_TRY(fill(t, t->piece > HEAD ? t->piece : HEAD, err));
    if (t->to >= 3 && !memcmp(t->buf, "\xef\xbb\xbf", 3)) t->from = 3;
    return moe_text_detect_kind(t->path, t->buf + t->from, t->to - t->from, &t->kind, err);
}

enum moe_code moe_text_open(struct moe_text **out, const char *path, size_t piece, uint64_t memory,
                            const struct moe_cancel *cancel, struct moe_err *err)
{
    struct moe_text *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to read it");
    *t = (struct moe_text){ .line = 1,
                            .memory = memory,
                            .piece = !piece              ? PIECE
                                   : piece < PIECE_LEAST ? PIECE_LEAST
                                                         : piece };
    enum moe_code code = moe_stream_open(&t->stream, path, cancel, err);
    t->path = strdup(moe_stream_name(path));
    if (code == MOE_OK && !t->path) code = moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to read it");
    if (code == MOE_OK) code = begin(t, err);
    if (code != MOE_OK) moe_text_close(&t);
    *out = t;
    return code;
}

void moe_text_close(struct moe_text **pt)
{
    struct moe_text *t = *pt;
    if (!t) return;
    moe_text_drop_row(t);
    moe_stream_close(&t->stream);
    free(t->path);
    free(t->buf);
    free(t);
    *pt = NULL;
}

uint64_t moe_text_size(const struct moe_text *t) { return moe_stream_size(t->stream); }
uint64_t moe_text_at(const struct moe_text *t) { return moe_stream_at(t->stream); }

uint64_t moe_text_held(const struct moe_text *t) { return t->cap + t->row_need; }

int64_t moe_text_empty_rows(const struct moe_text *t) { return t->empty; }

int64_t moe_text_unread_keys(const struct moe_text *t, const char **first)
{
    *first = t->unread_key;
    return t->unread_keys;
}

/* Read on until there are at least `want` bytes in the buffer, or all that are left. */
static enum moe_code fill(struct moe_text *t, size_t want, struct moe_err *err)
{
    if (t->to - t->from >= want || t->ended) return MOE_OK;
    if (t->from) memmove(t->buf, t->buf + t->from, t->to - t->from);
    t->to -= t->from;
    t->from = 0;
    if (want > t->cap) {
        char *more = realloc(t->buf, want);
        if (!more) return moe_fail_at(err, MOE_NOMEM, t->path, NULL, "no memory for %zu bytes of text", want);
        t->buf = more;
        t->cap = want;
    }
    size_t n;
    MOE_TRY(moe_stream_read(t->stream, t->buf + t->to, want - t->to, &n, err));
    t->ended = n < want - t->to;
    t->to += n;
    return MOE_OK;
}

static void take(struct moe_text *t, size_t n)
{
    const char *p = t->buf + t->from, *end = p + n;
    while ((p = memchr(p, '\n', (size_t)(end - p)))) t->line++, p++;
    t->from += n;
}

static enum moe_code bad(const struct moe_text *t, struct moe_err *err, int64_t line, const char *what)
{
    return moe_fail_at(err, MOE_CORRUPT, t->path, NULL, "line %lld: %s", (long long)line, what);
}

/* ---- pieces of text ---- */

static bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
/* Whether c is certainly not white space: printable ASCII, or the first byte of characters none of which is
 * white space. */
static bool visible(char c)
{
    unsigned char u = (unsigned char)c;
    return (u > 0x20 && u < 0x7f) || (u >= 0xc3 && u != 0xe1 && u != 0xe2 && u != 0xe3);
}

/* The last place in p[0..n) that no token can cross; 0 when there is none.  p[n] is not read. */
static size_t safe_cut(const char *p, size_t n)
{
    for (size_t i = n - 1; i > 1; i--)
        if ((p[i] == ' ' && letter(p[i - 1]) && i + 1 < n && letter(p[i + 1])) ||
            (p[i - 1] == '\n' && visible(p[i])))
            return i;
    return 0;
}

/* n, less the bytes of a character that is incomplete at n. */
static size_t last_character(const char *p, size_t n)
{
    size_t i = n - 1;
    while (i > n - 4 && ((unsigned char)p[i] & 0xc0) == 0x80) i--;
    return (unsigned char)p[i] >= 0xc0 && !moe_utf8_char((const unsigned char *)p + i, n - i) ? i : n;
}

/* The length of the next piece, when there are n > PIECE_LEAST bytes and more after them. */
static size_t cut_of(const char *text, size_t n, bool *cut_in_token)
{
    size_t cut = safe_cut(text, n);
    *cut_in_token = !cut;
    return cut ? cut : last_character(text, n);
}

static enum moe_code next_plain(struct moe_text *t, struct moe_text_piece *p, bool *more, struct moe_err *err)
{
    MOE_TRY(fill(t, t->piece, err));
    size_t n = t->to - t->from, cut = n;
    if (!n) return MOE_OK;
    const char *text = t->buf + t->from;
    bool cut_in_token = false, whole = n < t->piece || (t->ended && n == t->piece);
    if (!whole) cut = cut_of(text, n < t->piece ? n : t->piece, &cut_in_token);
    MOE_TRY(moe_text_check(t->path, t->line, text, cut, err));
    *p = (struct moe_text_piece){
        .text = text, .bytes = cut, .begins = !t->given, .cut_in_token = t->cut_in_token, .line = t->line
    };
    t->cut_in_token = cut_in_token;
    take(t, cut);
    *more = true;
    return MOE_OK;
}

/* The rest of a row's text, or the next piece of it. */
static void next_of_row(struct moe_text *t, struct moe_text_piece *p)
{
    bool cut_in_token = false;
    size_t cut = t->n_rest > t->piece ? cut_of(t->rest, t->piece, &cut_in_token) : t->n_rest;
    p->text = t->rest;
    p->bytes = cut;
    p->cut_in_token = t->cut_in_token;
    t->cut_in_token = cut_in_token;
    t->rest += cut;
    t->n_rest -= cut;
}

/* ---- rows of JSON ---- */

/* A function that finds the end of an element that begins at p: it returns its length, or 0 when n bytes are
 * too few; *seen keeps how far it has looked. */
typedef size_t end_fn(const char *p, size_t n, size_t *seen, void *state);

/* Find the end of the next element, so that all of it is in the buffer.  The buffer is searched before more
 * is read, so that a file is read only once, however long its rows are. */
static enum moe_code find_end(struct moe_text *t, end_fn *end_of, void *state, size_t *n, struct moe_err *err)
{
    for (size_t seen = 0; ; ) {
        size_t have = t->to - t->from, want = have < t->piece ? t->piece : 2 * have;
        *n = end_of(t->buf + t->from, have, &seen, state);
        if ((*n ? *n : have) > ROW_MOST)
            return moe_fail_at(err, MOE_UNSUPPORTED, t->path, NULL, "line %lld: an object longer than %d MiB",
                               (long long)t->line, ROW_MOST >> 20);
        if (*n || t->ended) return MOE_OK;
        if (t->memory && have >= t->memory)
            return moe_fail_at(err, MOE_NOMEM, t->path, NULL,
                               "line %lld: has more bytes than the %llu of memory that are allowed (try a "
                               "larger --memory, or shorter rows)", (long long)t->line,
                               (unsigned long long)t->memory);
        if (t->memory && want > t->memory) want = (size_t)t->memory;
        MOE_TRY(fill(t, want < ROW_MOST ? want : ROW_MOST + 1, err));
    }
}

/* An element that is a line, with its newline. */
static size_t end_of_line(const char *p, size_t n, size_t *seen, void *state)
{
    (void)state;
    const char *end = n > *seen ? memchr(p + *seen, '\n', n - *seen) : NULL;
    *seen = n;
    return end ? (size_t)(end - p) + 1 : 0;
}

struct nesting { int depth; bool in_string, escaped; };

/* An element that is an object or list; its contents are checked when it is parsed. */
static size_t end_of_value(const char *p, size_t n, size_t *seen, void *state)
{
    struct nesting *s = state;
    for (; *seen < n; ++*seen) {
        char c = p[*seen];
        if (s->escaped) s->escaped = false;
        else if (s->in_string) s->escaped = c == '\\', s->in_string = c != '"';
        else if (c == '"') s->in_string = true;
        else if (c == '{' || c == '[') s->depth++;
        else if ((c == '}' || c == ']') && --s->depth <= 0) return *seen + 1;
    }
    return 0;
}

/* Skip white space; *c is the next byte, 0 at the end. */
static enum moe_code next_byte(struct moe_text *t, char *c, struct moe_err *err)
{
    for (;;) {
        if (t->from == t->to) MOE_TRY(fill(t, t->piece, err));
        *c = t->from < t->to ? t->buf[t->from] : 0;
        if (t->from == t->to || !*c || !strchr(" \t\r\n", *c)) return MOE_OK;
        take(t, 1);
    }
}

/* Find the next object of the array; *n is its length, 0 at the end. */
static enum moe_code find_element(struct moe_text *t, size_t *n, struct moe_err *err)
{
    struct nesting s = { 0 };
    char c;
    *n = 0;
    MOE_TRY(next_byte(t, &c, err));
    if (t->array != BEHIND && (t->array == BEFORE ? c == '[' : c == ',')) {
        take(t, 1);
        MOE_TRY(next_byte(t, &c, err));
    } else if (t->array == BETWEEN && c != ']') {
        return bad(t, err, t->line, c ? "no comma between the objects of the array" : "the array has no end");
    }
    if (c == ']' && t->array != BEHIND) {
        take(t, 1);
        t->array = BEHIND;
        MOE_TRY(next_byte(t, &c, err));
    }
    if (t->array == BEHIND) return t->from == t->to ? MOE_OK : bad(t, err, t->line, "text behind the array");
    if (t->from == t->to) return bad(t, err, t->line, "the array has no end");
    if (c != '{') return bad(t, err, t->line, "an element of the array is not an object");
    t->array = BETWEEN;
    MOE_TRY(find_end(t, end_of_value, &s, n, err));
    return *n ? MOE_OK : bad(t, err, t->line, "the object has no end");
}

static bool blank(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!p[i] || !strchr(" \t\r\n", p[i])) return false;
    return true;
}

/* Find the next line that is not blank; *n is its length, 0 at the end. */
static enum moe_code find_line(struct moe_text *t, size_t *n, struct moe_err *err)
{
    for (;;) {
        MOE_TRY(find_end(t, end_of_line, NULL, n, err));
        if (!*n) *n = t->to - t->from;
        if (!*n || !blank(t->buf + t->from, *n)) return MOE_OK;
        take(t, *n);
    }
}

static enum moe_code next_row(struct moe_text *t, struct moe_text_piece *p, bool *more, struct moe_err *err)
{
    while (!t->n_rest) {
        size_t n;
        moe_text_drop_row(t);
        t->cut_in_token = false;
        MOE_TRY(t->kind == MOE_TEXT_ARRAY ? find_element(t, &n, err) : find_line(t, &n, err));
        if (!n) return MOE_OK;
        t->row_line = t->line;
        MOE_TRY(moe_text_convert_row(t, t->buf + t->from, n, p, err));
        take(t, n);
        if (p->messages) break;
    }
    p->line = t->row_line;
    if (!p->messages) next_of_row(t, p);
    *more = true;
    return MOE_OK;
}

enum moe_code moe_text_next(struct moe_text *t, struct moe_text_piece *p, bool *more, struct moe_err *err)
{
    *p = (struct moe_text_piece){ .text = NULL };
    *more = false;
    MOE_TRY(t->kind == MOE_TEXT_PLAIN ? next_plain(t, p, more, err) : next_row(t, p, more, err));
    if (*more) t->given++;
    else *p = (struct moe_text_piece){ .text = NULL };
    return *more || t->given ? MOE_OK : moe_fail_at(err, MOE_CORRUPT, t->path, NULL, "holds no text");
}

/* ---- tokens ---- */

enum moe_code moe_text_encode(const struct moe_tokenizer *t, const struct moe_chat *chat,
                              const struct moe_text_piece *p, int32_t **ids,
                              size_t *count, struct moe_chat_left *left, struct moe_err *err)
{
    if (p->text) return moe_tokenize(t, p->text, p->bytes, false, ids, count, err);
    struct moe_chat_request r = { .messages = p->messages, .tools = p->tools, .answered = true };
    return moe_chat_encode(chat, &r, ids, count, left, err);
}
