/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/chat-write.c - writes special tokens and literal text as ids or as text, and JSON as
 * Python does. */
#include "formats/tokenizer/chat-internal.h"

#include "base/json.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void moe_chat_fail(struct moe_chat_out *o, enum moe_code code, int64_t i, const char *fmt, ...)
{
    char what[512];
    va_list ap;
    if (o->code != MOE_OK) return;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    o->code = moe_fail(o->err, code, "%s", what);
    if (i >= 0) moe_wrap(o->err, "message %lld", (long long)i);
}

/* Whether the text may grow by n bytes: text and tokens together count towards the tokenizer's limit.  *cap,
 * the size wanted for the buffer, is reduced to what is needed when it exceeds the limit. */
static bool within_limit(struct moe_chat_out *o, size_t n, size_t *cap)
{
    uint64_t limit = o->chat->t->limit, ids = o->ids ? o->ids->ids.cap * sizeof *o->ids->ids.v : 0;
    uint64_t left = limit > ids ? limit - ids : 0;
    if (!limit || *cap <= left) return true;
    *cap = o->text.n + n;
    if (*cap <= left) return true;
    moe_chat_fail(o, MOE_NOMEM, -1,
                  "a conversation of %zu bytes of text or more takes %llu bytes of memory with its tokens, "
                  "and %llu are there for it (allow more with --memory, or shorten it)",
                  *cap, (unsigned long long)(*cap + ids), (unsigned long long)limit);
    return false;
}

void moe_chat_put(struct moe_chat_out *o, const char *s, size_t n)
{
    struct moe_chat_buf *b = &o->text;
    if (o->code != MOE_OK || !n) return;
    if (n > b->cap - b->n) {
        size_t cap = b->cap + b->cap / 2 + n + 256;
        char *p = within_limit(o, n, &cap) ? realloc(b->p, cap) : NULL;
        if (!p) {
            moe_chat_fail(o, MOE_NOMEM, -1, "no memory for a conversation");
            return;
        }
        b->p = p;
        b->cap = cap;
    }
    memcpy(b->p + b->n, s, n);
    b->n += n;
}

void moe_chat_puts(struct moe_chat_out *o, const char *s) { moe_chat_put(o, s, strlen(s)); }

void moe_chat_flush(struct moe_chat_out *o)
{
    if (!o->ids || o->code != MOE_OK) return;
    moe_encoding_beside(o->ids, o->text.cap);
    o->code = moe_encode_text(o->ids, o->text.p, o->text.n, o->err);
    o->text.n = 0;
}

void moe_chat_put_mark(struct moe_chat_out *o, enum moe_mark m)
{
    static const char *const names[] = {
#define X(id, family, needed, name) name,
        MOE_MARKS(X)
#undef X
    };
    int32_t id = o->chat->mark[m];
    if (o->code != MOE_OK) return;
    o->left.spelled += id < 0;
    if (id < 0 || !o->ids) {
        moe_chat_puts(o, names[m]);
        return;
    }
    moe_chat_flush(o);
    if (o->code == MOE_OK && !moe_ids_room(&o->ids->ids, 1))
        o->code = moe_ids_refuse(&o->ids->ids, 1, o->err);
    if (o->code == MOE_OK) o->ids->ids.v[o->ids->ids.count++] = id;
}

/* ---- JSON ---- */

static void put_string(struct moe_chat_out *o, const char *s)
{
    static const char special[] = "\"\\\b\f\n\r\t", letters[] = "\"\\bfnrt";
    moe_chat_puts(o, "\"");
    while (*s) {
        size_t plain = 0;
        while ((unsigned char)s[plain] >= 0x20 && s[plain] != '"' && s[plain] != '\\') plain++;
        moe_chat_put(o, s, plain);
        s += plain;
        if (!*s) break;
        char esc[8];
        const char *k = strchr(special, *s);
        if (k) moe_chat_put(o, (char[]){ '\\', letters[k - special] }, 2);
        else moe_chat_put(o, esc, (size_t)snprintf(esc, sizeof esc, "\\u%04x", (unsigned)*s));
        s++;
    }
    moe_chat_puts(o, "\"");
}

/* Write a float as Python's repr does: the fewest digits that read back as the same value, with an exponent
 * below 1e-4 and from 1e16 on. */
static void put_float(struct moe_chat_out *o, double v)
{
    char s[40], digits[24], out[48];
    int p = 1, n = 0, e;
    if (isinf(v)) {
        moe_chat_puts(o, v < 0 ? "-Infinity" : "Infinity");
        return;
    }
    do snprintf(s, sizeof s, "%.*e", p - 1, v);
    while (p++ < 17 && strtod(s, NULL) != v);
    e = (int)strtol(strchr(s, 'e') + 1, NULL, 10);
    for (const char *c = s; *c != 'e'; c++)
        if (*c >= '0' && *c <= '9') digits[n++] = *c;
    digits[n] = 0;
    if (*s == '-') moe_chat_puts(o, "-");
    if (e < -4 || e >= 16)
        snprintf(out, sizeof out, "%c%s%se%c%02d", *digits, n > 1 ? "." : "", digits + 1, e < 0 ? '-' : '+',
                 abs(e));
    else if (e < 0) snprintf(out, sizeof out, "0.%.*s%s", -e - 1, "000", digits);
    else if (n <= e + 1) snprintf(out, sizeof out, "%s%.*s.0", digits, e + 1 - n, "000000000000000");
    else snprintf(out, sizeof out, "%.*s.%s", e + 1, digits, digits + e + 1);
    moe_chat_puts(o, out);
}

void moe_chat_put_number(struct moe_chat_out *o, const cJSON *v)
{
    const char *text = v->valuestring; /* set by moe_json_keep_numbers */
    char s[32];
    if (text && !strpbrk(text, ".eE")) moe_chat_puts(o, strcmp(text, "-0") ? text : "0");
    else if (text || v->valuedouble != floor(v->valuedouble) || fabs(v->valuedouble) >= 0x1p53)
        put_float(o, v->valuedouble);
    else
        moe_chat_put(o, s, (size_t)snprintf(s, sizeof s, "%.0f", v->valuedouble == 0 ? 0.0 : v->valuedouble));
}

void moe_chat_put_json(struct moe_chat_out *o, const cJSON *v, bool compact)
{
    bool object = cJSON_IsObject(v);
    if (cJSON_IsNumber(v)) moe_chat_put_number(o, v);
    else if (cJSON_IsString(v)) put_string(o, v->valuestring);
    else if (cJSON_IsBool(v)) moe_chat_puts(o, cJSON_IsTrue(v) ? "true" : "false");
    else if (!object && !cJSON_IsArray(v)) moe_chat_puts(o, "null");
    else {
        moe_chat_puts(o, object ? "{" : "[");
        for (const cJSON *c = v->child; c; c = c->next) {
            if (object) put_string(o, c->string);
            if (object) moe_chat_puts(o, compact ? ":" : ": ");
            moe_chat_put_json(o, c, compact);
            if (c->next) moe_chat_puts(o, compact ? "," : ", ");
        }
        moe_chat_puts(o, object ? "}" : "]");
    }
}

/* ---- entry points ---- */

static enum moe_code render(struct moe_chat_out *o, const struct moe_chat_request *r)
{
    if (o->chat->style.family == MOE_KIMI) moe_chat_render_kimi(o, r);
    else moe_chat_render_deepseek(o, r);
    moe_chat_flush(o);
    return o->code;
}

static void add_left(struct moe_chat_left *to, const struct moe_chat_left *from)
{
    if (!to) return;
    if (!to->keys && from->keys) memcpy(to->key, from->key, sizeof to->key);
    to->reasoning += from->reasoning;
    to->tools += from->tools;
    to->keys += from->keys;
    to->spelled += from->spelled;
    to->nameless += from->nameless;
}

enum moe_code moe_chat_encode(const struct moe_chat *c, const struct moe_chat_request *r, int32_t **ids,
                              size_t *n, struct moe_chat_left *left,
                              struct moe_err *err)
{
    struct moe_encoding e;
    *ids = NULL;
    *n = 0;
    MOE_TRY(moe_encoding_init(&e, c->t, 0, err));
    struct moe_chat_out o = { .chat = c, .ids = &e, .err = err };
    enum moe_code code = render(&o, r);
    if (code == MOE_OK && !moe_ids_room(&e.ids, 1))
        code = moe_ids_refuse(&e.ids, 1, err);
    if (code == MOE_OK) {
        *ids = e.ids.v;
        *n = e.ids.count;
        e.ids.v = NULL;
        add_left(left, &o.left);
    }
    free(o.text.p);
    moe_encoding_release(&e);
    return code;
}

enum moe_code moe_chat_text(const struct moe_chat *c, const struct moe_chat_request *r, char **text,
                            size_t *bytes, struct moe_chat_left *left,
                            struct moe_err *err)
{
    struct moe_chat_out o = { .chat = c, .err = err };
    *text = NULL;
    *bytes = 0;
    render(&o, r);
    moe_chat_put(&o, "", 1); /* the NUL behind it */
    if (o.code != MOE_OK) {
        free(o.text.p);
        return o.code;
    }
    *text = o.text.p;
    *bytes = o.text.n - 1;
    add_left(left, &o.left);
    return MOE_OK;
}
