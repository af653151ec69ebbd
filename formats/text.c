#include "formats/text.h"

#include "base/json.h"
#include "base/stream.h"
#include "formats/pretoken.h"

#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 20, LINE_MOST = 64 << 20, PIECE_LEAST = 64 };

struct moe_text {
    struct moe_stream *stream;
    char *path;
    bool json, ended;                 /* ended: the stream has no more */
    size_t piece;
    char *buf; size_t from, to, cap;  /* read and not given yet: [from, to) */
    int64_t line;                     /* of buf[from] */
    int64_t given;                    /* pieces */
    bool torn;                        /* the last piece ended inside of what might be a token */
    cJSON *object;                    /* what the last piece of JSON points into, */
    struct moe_message *messages;     /* its turns */
    char **joined; size_t n_joined;   /* and contents that were put together from parts */
};

/* ---- life ---- */

static bool ends_in(const char *s, const char *tail)
{
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && !strcmp(s + n - m, tail);
}

enum moe_code moe_text_open(struct moe_text **out, const char *path, size_t piece, struct moe_err *err)
{
    struct moe_text *t = calloc(1, sizeof *t);
    *out = NULL;
    if (!t) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to read it");
    *t = (struct moe_text){ .json = ends_in(path, ".jsonl") || ends_in(path, ".jsonl.gz"), .line = 1,
                            .piece = !piece ? PIECE : piece < PIECE_LEAST ? PIECE_LEAST : piece };
    enum moe_code code = moe_stream_open(&t->stream, path, err);
    t->path = strdup(path);
    if (code == MOE_OK && !t->path) code = moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to read it");
    if (code != MOE_OK) moe_text_close(&t);
    *out = t;
    return code;
}

/* What the last document held. */
static void drop(struct moe_text *t)
{
    for (size_t i = 0; i < t->n_joined; i++) free(t->joined[i]);
    free(t->joined);
    free(t->messages);
    cJSON_Delete(t->object);
    t->object = NULL;
    t->messages = NULL;
    t->joined = NULL;
    t->n_joined = 0;
}

void moe_text_close(struct moe_text **pt)
{
    struct moe_text *t = *pt;
    if (!t) return;
    drop(t);
    moe_stream_close(&t->stream);
    free(t->path);
    free(t->buf);
    free(t);
    *pt = NULL;
}

uint64_t moe_text_size(const struct moe_text *t) { return moe_stream_size(t->stream); }
uint64_t moe_text_at(const struct moe_text *t) { return moe_stream_at(t->stream); }

/* Have at least `want` bytes from `from` on, or all there are. */
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

/* ---- plain text ---- */

static bool letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
/* Certainly not white space: printable ASCII, or the first byte of a character of which none is. */
static bool visible(char c)
{
    unsigned char u = (unsigned char)c;
    return (u > 0x20 && u < 0x7f) || (u >= 0xc3 && u != 0xe1 && u != 0xe2 && u != 0xe3);
}

/* The last place in p[0..n) where no token can cross; 0: none.  p[n] is not read. */
static size_t safe_cut(const char *p, size_t n)
{
    for (size_t i = n - 1; i > 1; i--)
        if ((p[i] == ' ' && letter(p[i - 1]) && i + 1 < n && letter(p[i + 1])) || (p[i - 1] == '\n' && visible(p[i]))) return i;
    return 0;
}

/* n, less the bytes of a character that does not end before n. */
static size_t last_character(const char *p, size_t n)
{
    size_t i = n - 1;
    while (i > n - 4 && ((unsigned char)p[i] & 0xc0) == 0x80) i--;
    return (unsigned char)p[i] >= 0xc0 && !moe_utf8_char((const unsigned char *)p + i, n - i) ? i : n;
}

static enum moe_code next_text(struct moe_text *t, struct moe_text_piece *p, bool *more, struct moe_err *err)
{
    MOE_TRY(fill(t, t->piece, err));
    size_t n = t->to - t->from, cut = n;
    if (!n) return MOE_OK;
    const char *text = t->buf + t->from;
    bool whole = n < t->piece || t->ended, torn = false;
    if (!whole) {
        cut = safe_cut(text, n);
        torn = !cut;
        if (torn) cut = last_character(text, n);
    }
    *p = (struct moe_text_piece){ .text = text, .bytes = cut, .begins = !t->given, .torn = t->torn, .line = t->line };
    t->torn = torn;
    take(t, cut);
    *more = true;
    return MOE_OK;
}

/* ---- lines of JSON ---- */

/* The end of the line at `from`, without its newline; the whole of it is in the buffer then. */
static enum moe_code find_line(struct moe_text *t, size_t *n, struct moe_err *err)
{
    for (size_t seen = 0, want = t->piece; ; want *= 2) {
        MOE_TRY(fill(t, want < LINE_MOST ? want : LINE_MOST + 1, err));
        size_t have = t->to - t->from;
        const char *end = have > seen ? memchr(t->buf + t->from + seen, '\n', have - seen) : NULL;
        *n = end ? (size_t)(end - (t->buf + t->from)) : have;
        if (*n > LINE_MOST)
            return moe_fail_at(err, MOE_UNSUPPORTED, t->path, NULL, "line %lld is longer than %d MiB", (long long)t->line, LINE_MOST >> 20);
        if (end || t->ended) return MOE_OK;
        seen = have;
    }
}

static enum moe_code bad(const struct moe_text *t, struct moe_err *err, const char *what)
{
    return moe_fail_at(err, MOE_CORRUPT, t->path, NULL, "line %lld: %s", (long long)t->line, what);
}

/* The texts of a list of parts, one behind the other. */
static enum moe_code join(struct moe_text *t, const cJSON *parts, const char **out, struct moe_err *err)
{
    size_t n = 0, at = 0;
    const cJSON *part, *type, *text;
    cJSON_ArrayForEach(part, parts) {
        type = moe_json_get(part, "type");
        text = moe_json_get(part, "text");
        if (!cJSON_IsString(text) || (type && (!cJSON_IsString(type) || strcmp(type->valuestring, "text"))))
            return bad(t, err, "a part of a message's content is not {\"type\": \"text\", \"text\": TEXT}");
        n += strlen(text->valuestring);
    }
    char **list = realloc(t->joined, (t->n_joined + 1) * sizeof *list), *s = malloc(n + 1);
    if (list) t->joined = list;
    if (!list || !s) {
        free(s);
        return moe_fail_at(err, MOE_NOMEM, t->path, NULL, "no memory for a message");
    }
    cJSON_ArrayForEach(part, parts) {
        const char *from = moe_json_get(part, "text")->valuestring;
        size_t len = strlen(from);
        memcpy(s + at, from, len);
        at += len;
    }
    s[n] = 0;
    t->joined[t->n_joined++] = s;
    *out = s;
    return MOE_OK;
}

static enum moe_code message(struct moe_text *t, const cJSON *o, struct moe_message *m, struct moe_err *err)
{
    static const char *const roles[] = { "system", "user", "assistant", "tool" };
    const cJSON *role = moe_json_get(o, "role"), *content = moe_json_get(o, "content");
    *m = (struct moe_message){ NULL, "" };
    if (!cJSON_IsString(role)) return bad(t, err, "a message has no 'role'");
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (!strcmp(role->valuestring, roles[i])) m->role = roles[i];
    if (!m->role)
        return moe_fail_at(err, MOE_CORRUPT, t->path, NULL, "line %lld: a message has the role '%.64s' (system, user, assistant or tool)",
                           (long long)t->line, role->valuestring);
    if (cJSON_IsString(content)) m->content = content->valuestring;
    else if (cJSON_IsArray(content)) return join(t, content, &m->content, err);
    else if (content) return bad(t, err, "a message's 'content' is neither text nor a list of parts");
    return MOE_OK;
}

static enum moe_code turns(struct moe_text *t, const cJSON *list, struct moe_text_piece *p, struct moe_err *err)
{
    size_t n = (size_t)cJSON_GetArraySize(list);
    const cJSON *o;
    if (!n) return bad(t, err, "'messages' is empty");
    t->messages = calloc(n, sizeof *t->messages);
    if (!t->messages) return moe_fail_at(err, MOE_NOMEM, t->path, NULL, "no memory for %zu messages", n);
    cJSON_ArrayForEach(o, list) MOE_TRY(message(t, o, &t->messages[p->n_messages++], err));
    p->messages = t->messages;
    return MOE_OK;
}

static enum moe_code document(struct moe_text *t, size_t n, struct moe_text_piece *p, struct moe_err *err)
{
    if (moe_json_parse(t->buf + t->from, n, NULL, &t->object, err) != MOE_OK) {
        char what[sizeof err->msg];
        memcpy(what, err->msg, sizeof what);
        return moe_fail_at(err, err->code, t->path, NULL, "line %lld: %s", (long long)t->line, what);
    }
    *p = (struct moe_text_piece){ .begins = true, .line = t->line };
    const cJSON *text = moe_json_get(t->object, "text"), *messages = moe_json_get(t->object, "messages");
    if (cJSON_IsString(text)) {
        p->text = text->valuestring;
        p->bytes = strlen(text->valuestring);
        return MOE_OK;
    }
    if (text) return bad(t, err, "'text' is not a string");
    if (!cJSON_IsArray(messages)) return bad(t, err, "neither a 'text' string nor a 'messages' list");
    return turns(t, messages, p, err);
}

static bool blank(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] != ' ' && p[i] != '\t' && p[i] != '\r') return false;
    return true;
}

static enum moe_code next_json(struct moe_text *t, struct moe_text_piece *p, bool *more, struct moe_err *err)
{
    for (;;) {
        size_t n;
        drop(t);
        MOE_TRY(find_line(t, &n, err));
        if (t->from == t->to && t->ended) return MOE_OK;
        if (t->line == 1 && n >= 3 && !memcmp(t->buf + t->from, "\xef\xbb\xbf", 3)) t->from += 3, n -= 3; /* a byte order mark */
        bool empty = blank(t->buf + t->from, n);
        if (!empty) MOE_TRY(document(t, n, p, err));
        take(t, n < t->to - t->from ? n + 1 : n);
        if (!empty && (!p->text || p->bytes)) break;
    }
    *more = true;
    return MOE_OK;
}

enum moe_code moe_text_next(struct moe_text *t, struct moe_text_piece *p, bool *more, struct moe_err *err)
{
    *p = (struct moe_text_piece){ .text = NULL };
    *more = false;
    MOE_TRY(t->json ? next_json(t, p, more, err) : next_text(t, p, more, err));
    if (*more) t->given++;
    else *p = (struct moe_text_piece){ .text = NULL };
    return *more || t->given ? MOE_OK : moe_fail_at(err, MOE_CORRUPT, t->path, NULL, "holds no text");
}

/* ---- tokens ---- */

enum moe_code moe_text_encode(const struct moe_tokenizer *t, const struct moe_text_piece *p, const char *default_system, int32_t **ids,
                              size_t *count, struct moe_err *err)
{
    if (p->text) return moe_tokenize(t, p->text, p->bytes, false, ids, count, err);
    int32_t *head;
    size_t n;
    MOE_TRY(moe_chat_encode(t, NULL, 0, NULL, &head, &n, err)); /* what asks for an answer, alone */
    free(head);
    MOE_TRY(moe_chat_encode(t, p->messages, p->n_messages, default_system, ids, count, err));
    *count -= n;
    return MOE_OK;
}
