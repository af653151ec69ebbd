/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/tokenizer/tokenizer-internal.h"

#include "base/show.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- looking up ----------------------------------------------------------- */

int64_t moe_tokenizer_size(const struct moe_tokenizer *t) { return t->size; }

#define RESERVED "<|reserved_token_"

int64_t moe_reserved_id(const char *s, size_t len)
{
    size_t n = sizeof RESERVED - 1, end = n;
    int64_t id = 0;
    if (len < n || memcmp(s, RESERVED, n)) return -1;
    for (; end < len && end - n < 9 && s[end] >= '0' && s[end] <= '9'; end++) id = 10 * id + (s[end] - '0');
    bool digits = end > n && (s[n] != '0' || end == n + 1);
    return digits && len - end == 2 && !memcmp(s + end, "|>", 2) ? id : -1;
}

static const struct moe_added *added(const struct moe_tokenizer *t, int64_t id)
{
    size_t from = 0, to = t->n_added;
    while (from < to) {
        size_t mid = from + (to - from) / 2;
        if (t->added[mid].id < id) from = mid + 1;
        else to = mid;
    }
    return from < t->n_added && t->added[from].id == id ? &t->added[from] : NULL;
}

bool moe_token_is_placeholder(const struct moe_tokenizer *t, int64_t id)
{
    return id >= t->bpe.count && id < t->size && !added(t, id);
}

const char *moe_token_bytes(const struct moe_tokenizer *t, int32_t id, char room[MOE_TOKEN_ROOM], size_t *len)
{
    *len = 0;
    if (id < 0 || id >= t->size) return NULL;
    if (id < t->bpe.count) {
        *len = t->bpe.start[id + 1] - t->bpe.start[id];
        return (const char *)t->bpe.bytes + t->bpe.start[id];
    }
    const struct moe_added *a = added(t, id);
    *len = a ? a->len : (size_t)snprintf(room, MOE_TOKEN_ROOM, RESERVED "%d|>", id);
    return a ? a->name : room;
}

bool moe_token_is_special(const struct moe_tokenizer *t, int32_t id)
{
    return id >= t->bpe.count && id < t->size;
}

bool moe_token_is_text(const struct moe_tokenizer *t, int32_t id)
{
    const struct moe_added *a = moe_token_is_special(t, id) ? added(t, id) : NULL;
    return id >= 0 && (id < t->bpe.count || (a && a->text));
}

static int32_t find_special(const struct moe_tokenizer *t, const char *name, size_t len)
{
    int64_t id = moe_strmap_get(&t->by_name, name, len), made = id < 0 ? moe_reserved_id(name, len) : -1;
    return (int32_t)(id < 0 && moe_token_is_placeholder(t, made) ? made : id);
}

int32_t moe_token_find_special(const struct moe_tokenizer *t, const char *name)
{
    return find_special(t, name, strlen(name));
}

enum moe_code moe_token_merge(const struct moe_tokenizer *t, int32_t id, int32_t pair[2], bool *two,
                              struct moe_err *err)
{
    int n = 0;
    if (id >= 0 && id < t->bpe.count) MOE_TRY(moe_bpe_split(&t->bpe, id, pair, &n, err));
    *two = n == 2;
    return MOE_OK;
}

/* ---- encoding ------------------------------------------------------------- */

void moe_tokenizer_limit(struct moe_tokenizer *t, uint64_t bytes) { t->limit = bytes; }

void moe_encoding_beside(struct moe_encoding *e, size_t bytes)
{
    e->limit = !e->t->limit ? 0 : e->t->limit > bytes ? e->t->limit - bytes : 1;
    e->ids.most = e->limit / sizeof *e->ids.v + (e->limit != 0);
}

enum moe_code moe_encoding_init(struct moe_encoding *e, const struct moe_tokenizer *t, size_t bytes,
                                struct moe_err *err)
{
    *e = (struct moe_encoding){ .t = t, .scan = moe_pretoken_scan_new(t->pre) };
    moe_encoding_beside(e, bytes);
    return e->scan ? MOE_OK : moe_fail(err, MOE_NOMEM, "out of memory for the tokenizer");
}

void moe_encoding_release(struct moe_encoding *e)
{
    moe_pretoken_scan_free(e->scan);
    moe_bpe_work_release(&e->work);
    free(e->ids.v);
    *e = (struct moe_encoding){ 0 };
}

/* Check the limit for merging a long pre-token, which needs memory beside the ids. */
static enum moe_code check_limit(const struct moe_encoding *e, size_t piece, struct moe_err *err)
{
    uint64_t need = (uint64_t)piece * MOE_BPE_BYTES + e->ids.cap * sizeof *e->ids.v;
    if (!e->limit || need <= e->limit) return MOE_OK;
    return moe_fail(err, MOE_NOMEM,
                    "a run of %zu bytes of text needs %llu bytes of memory to become tokens, and "
                    "%llu are allowed (break it with spaces or lines, or allow more with --memory)", piece,
                    (unsigned long long)need, (unsigned long long)e->limit);
}

static enum moe_code encode_valid(struct moe_encoding *e, const char *text, size_t bytes, struct moe_err *err)
{
    for (size_t at = 0, end; at < bytes; at = end) {
        MOE_TRY(moe_pretoken_next(e->scan, text, bytes, at, &end, err));
        if (end - at > 4096) MOE_TRY(check_limit(e, end - at, err));
        /* refused with what the rest of the text can take, which says more than the next word's few bytes */
        if (!moe_ids_room(&e->ids, MOE_BPE_SHORT))
            return moe_ids_refuse(&e->ids, bytes - at > MOE_BPE_SHORT ? bytes - at : MOE_BPE_SHORT, err);
        MOE_TRY(
            moe_bpe_encode(&e->t->bpe, &e->work, (const unsigned char *)text + at, end - at, &e->ids, err));
    }
    return MOE_OK;
}

enum moe_code moe_encode_text(struct moe_encoding *e, const char *text, size_t bytes, struct moe_err *err)
{
    for (size_t at = 0; at < bytes;) {
        size_t valid = moe_utf8_prefix((const unsigned char *)text + at, bytes - at);
        MOE_TRY(encode_valid(e, text + at, valid, err));
        at += valid;
        for (; at < bytes && !moe_utf8_char((const unsigned char *)text + at, bytes - at); at++) {
            if (!moe_ids_room(&e->ids, 1)) return moe_ids_refuse(&e->ids, 1, err);
            e->ids.v[e->ids.count++] = e->t->bpe.single[(unsigned char)text[at]];
        }
    }
    return MOE_OK;
}

/* The length of a placeholder's name at the beginning of s; 0 when there is none. */
static size_t reserved_at(const char *s, size_t left)
{
    size_t n = left < MOE_TOKEN_ROOM ? left : MOE_TOKEN_ROOM;
    const char *end = n > 2 && *s == '<' ? memchr(s, '>', n) : NULL;
    return end && moe_reserved_id(s, (size_t)(end - s) + 1) >= 0 ? (size_t)(end - s) + 1 : 0;
}

/* The special token with the longest name at the beginning of s, and that name's length; -1 for none. */
static int32_t special_at(const struct moe_tokenizer *t, const char *s, size_t left, size_t *len)
{
    size_t made = reserved_at(s, left);
    int32_t id = made ? find_special(t, s, made) : -1;
    if (id < 0) made = 0;
    *len = made;
    if (!t->first[(unsigned char)*s]) return id;
    for (size_t i = 0; i < t->length_count && t->lengths[i] > made; i++) {
        int64_t got = t->lengths[i] > left ? -1 : moe_strmap_get(&t->by_name, s, *len = t->lengths[i]);
        if (got >= 0) return (int32_t)got;
    }
    *len = made;
    return id;
}

static enum moe_code encode_special(struct moe_encoding *e, const char *text, size_t bytes,
                                    struct moe_err *err)
{
    size_t from = 0, len;
    for (size_t at = 0; at < bytes; at++) {
        int32_t id = special_at(e->t, text + at, bytes - at, &len);
        if (id < 0) continue;
        MOE_TRY(moe_encode_text(e, text + from, at - from, err));
        if (!moe_ids_room(&e->ids, 1)) return moe_ids_refuse(&e->ids, 1, err);
        e->ids.v[e->ids.count++] = id;
        from = at + len;
        at = from - 1;
    }
    return moe_encode_text(e, text + from, bytes - from, err);
}

enum moe_code moe_tokenize(const struct moe_tokenizer *t, const char *text, size_t bytes, bool special,
                           int32_t **ids, size_t *count, struct moe_err *err)
{
    struct moe_encoding e;
    *ids = NULL;
    *count = 0;
    MOE_TRY(moe_encoding_init(&e, t, bytes, err));
    enum moe_code code = special ? encode_special(&e, text, bytes, err)
                                 : moe_encode_text(&e, text, bytes, err);
    if (code == MOE_OK && !moe_ids_room(&e.ids, 1)) code = moe_ids_refuse(&e.ids, 1, err);
    if (code == MOE_OK) {
        *ids = e.ids.v;
        *count = e.ids.count;
        e.ids.v = NULL;
    }
    moe_encoding_release(&e);
    return code;
}
