/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/detoken.c - decodes tokens to text, one at a time. */
#include "formats/tokenizer/tokenizer-internal.h"

#include "base/show.h"

#include <stdlib.h>
#include <string.h>

/* Whether s[0..n), n in 1..3, is the beginning of a UTF-8 character. */
static bool unfinished(const unsigned char *s, int n)
{
    unsigned char try[4] = { s[0], 0x80, 0x80, 0x80 };
    int want = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (n >= want) return false;
    memcpy(try, s, (size_t)n);
    /* after some first bytes the second byte has a smaller range */
    if (n == 1) try[1] = s[0] == 0xe0 || s[0] == 0xf0 ? 0xa0 : 0x80;
    return moe_utf8_char(try, (size_t)want) == want;
}

static size_t put_stray(char *out)
{
    memcpy(out, "\xef\xbf\xbd", 3); /* U+FFFD */
    return 3;
}

static size_t put_byte(struct moe_decoder *d, unsigned char c, char *out)
{
    size_t n = 0;
    d->held[d->n++] = c;
    while (d->n) {
        int whole = moe_utf8_char(d->held, (size_t)d->n);
        if (!whole && unfinished(d->held, d->n)) break;
        if (whole) memcpy(out + n, d->held, (size_t)whole);
        n += whole ? (size_t)whole : put_stray(out + n);
        if (!whole) whole = 1;
        d->n -= whole;
        memmove(d->held, d->held + whole, (size_t)d->n);
    }
    return n;
}

size_t moe_decode_bytes(struct moe_decoder *d, const char *s, size_t len, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        if (!d->n && (unsigned char)s[i] < 0x80) out[n++] = s[i];
        else n += put_byte(d, (unsigned char)s[i], out + n);
    }
    return n;
}

size_t moe_decode(const struct moe_tokenizer *t, struct moe_decoder *d, int32_t id, char *out)
{
    char room[MOE_TOKEN_ROOM];
    size_t len;
    const char *s = moe_token_bytes(t, id, room, &len);
    if (!s || !(d->keep_special || moe_token_is_text(t, id))) return 0;
    return moe_decode_bytes(d, s, len, out);
}

size_t moe_decode_flush(struct moe_decoder *d, char out[16])
{
    size_t n = 0;
    for (int i = 0; i < d->n; i++) n += put_stray(out + n);
    d->n = 0;
    return n;
}

enum moe_code moe_decode_all(const struct moe_tokenizer *t, const int32_t *ids, size_t n, bool keep_special,
                             char **text, size_t *bytes,
                             struct moe_err *err)
{
    struct moe_decoder d = { .keep_special = keep_special };
    char room[MOE_TOKEN_ROOM];
    size_t cap = 16 + 1, len, at = 0;
    for (size_t i = 0; i < n; i++) {
        moe_token_bytes(t, ids[i], room, &len);
        cap += MOE_DECODE_BOUND(len);
    }
    *bytes = 0;
    *text = malloc(cap);
    if (!*text) return moe_fail(err, MOE_NOMEM, "no memory for the text of %zu tokens", n);
    for (size_t i = 0; i < n; i++) at += moe_decode(t, &d, ids[i], *text + at);
    at += moe_decode_flush(&d, *text + at);
    (*text)[at] = 0;
    *bytes = at;
    return MOE_OK;
}
