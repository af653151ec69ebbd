/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/checkpoint/safetensors.h"

#include "base/grow.h"
#include "base/hash.h"
#include "base/io.h"
#include "base/show.h"
#include "base/strmap.h"
#include "formats/scan.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct { const char *name; int bits;
} dtypes[] = {
    { "BF16", 16 },   { "F32", 32 },    { "F8_E4M3", 8 }, { "I32", 32 }, { "U8", 8 },
    { "F16", 16 },    { "I64", 64 },    { "F64", 64 },    { "I8", 8 },   { "BOOL", 8 },
    { "U16", 16 },    { "I16", 16 },    { "U32", 32 },    { "U64", 64 }, { "F8_E5M2", 8 },
    { "F8_E8M0", 8 }, { "F6_E2M3", 6 }, { "F6_E3M2", 6 }, { "F4", 4 },   { "C64", 64 },
};

static int dtype_find(const char *name)
{
    for (int i = 0; i < (int)(sizeof dtypes / sizeof *dtypes); i++)
        if (!strcmp(dtypes[i].name, name)) return i;
    return -1;
}

int64_t moe_st_bytes(const char *dtype, const int64_t *shape, int ndim)
{
    int d = dtype_find(dtype);
    int64_t n = 1;
    if (d < 0) return -1;
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 0 || __builtin_mul_overflow(n, shape[i], &n)) return -1;
    if (n > INT64_MAX / 64 || n * dtypes[d].bits % 8) return -1;
    return n * dtypes[d].bits / 8;
}

/* ---- one entry: {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]} ---- */

struct parser {
    struct moe_scan s;
    const char *file;
    struct moe_arena *arena;
    struct moe_strmap names;
    struct moe_st_header *h;
    size_t cap;
    bool metadata;
};

static enum moe_code corrupt(const struct parser *p, const char *tensor, const char *why, struct moe_err *err)
{
    return moe_fail_at(err, MOE_CORRUPT, p->file, tensor, "the header is malformed: %s at byte %zu", why,
                       (size_t)(p->s.at - p->s.start) + 8);
}

static const char *numbers(struct moe_scan *s, int64_t *out, int max, int32_t *n)
{
    *n = 0;
    if (!moe_scan_take(s, '[')) return "a list is missing";
    if (moe_scan_take(s, ']')) return NULL;
    do {
        uint64_t v;
        if (*n == max) return "a list too long";
        const char *why = moe_scan_u64(s, &v);
        if (why) return why;
        out[(*n)++] = (int64_t)v;
    } while (moe_scan_take(s, ','));
    return moe_scan_take(s, ']') ? NULL : "bad syntax";
}

enum { HAS_DTYPE = 1, HAS_SHAPE = 2, HAS_OFFSETS = 4 };

static const char *member(struct moe_scan *s, struct moe_st_entry *e, int64_t offsets[2], int *has)
{
    char *key, *text;
    size_t len;
    int32_t n;
    const char *why = moe_scan_string(s, &key, &len);
    if (why) return why;
    int bit = !strcmp(key, "dtype")        ? HAS_DTYPE
            : !strcmp(key, "shape")        ? HAS_SHAPE
            : !strcmp(key, "data_offsets") ? HAS_OFFSETS
                                           : 0;
    if (!moe_scan_take(s, ':')) return "bad syntax";
    if (!bit) return "an unknown key";
    if (*has & bit) return "a duplicate key";
    *has |= bit;
    if (bit == HAS_SHAPE) return numbers(s, e->shape, MOE_ST_NDIM, &e->ndim);
    if (bit == HAS_DTYPE) {
        why = moe_scan_string(s, &text, &len);
        e->dtype = text;
        return why;
    }
    why = numbers(s, offsets, 2, &n);
    return why ? why : n == 2 ? NULL : "data_offsets is not a pair";
}

static enum moe_code entry(struct parser *p, struct moe_st_entry *e, struct moe_err *err)
{
    int64_t at[2] = { 0, 0 };
    int has = 0;
    if (!moe_scan_take(&p->s, '{')) return corrupt(p, e->name, "bad syntax", err);
    do {
        const char *why = member(&p->s, e, at, &has);
        if (why) return corrupt(p, e->name, why, err);
    } while (moe_scan_take(&p->s, ','));
    if (!moe_scan_take(&p->s, '}')) return corrupt(p, e->name, "bad syntax", err);
    if (has != 7) return corrupt(p, e->name, "dtype, shape or data_offsets is missing", err);
    int d = dtype_find(e->dtype);
    if (d < 0) return moe_fail_at(err, MOE_UNSUPPORTED, p->file, e->name, "unknown dtype '%.40s'", e->dtype);
    e->dtype = dtypes[d].name;
    int64_t want = moe_st_bytes(e->dtype, e->shape, e->ndim);
    if (want < 0) return moe_fail_at(err, MOE_CORRUPT, p->file, e->name, "its shape is too large to be true");
    if (at[1] < at[0] || at[1] > (int64_t)1 << 60)
        return moe_fail_at(err, MOE_CORRUPT, p->file, e->name, "bad offsets %lld to %lld", (long long)at[0],
                           (long long)at[1]);
    if (at[1] - at[0] != want)
        return moe_fail_at(err, MOE_CORRUPT, p->file, e->name,
                           "has %lld byte%s, its shape and type want %lld", (long long)(at[1] - at[0]),
                           moe_plural(at[1] - at[0]), (long long)want);
    e->offset = (uint64_t)at[0];
    e->bytes = (uint64_t)want;
    return MOE_OK;
}

/* ---- the header ---- */

static enum moe_code metadata(struct parser *p, struct moe_err *err)
{
    char *text;
    size_t len;
    if (p->metadata) return corrupt(p, NULL, "__metadata__ appears twice", err);
    p->metadata = true;
    if (!moe_scan_take(&p->s, '{')) return corrupt(p, NULL, "__metadata__ is not an object", err);
    if (moe_scan_take(&p->s, '}')) return MOE_OK;
    do {
        const char *why = moe_scan_string(&p->s, &text, &len);
        if (!why && !moe_scan_take(&p->s, ':')) why = "bad syntax";
        if (!why) why = moe_scan_string(&p->s, &text, &len);
        if (why) return corrupt(p, NULL, why, err);
    } while (moe_scan_take(&p->s, ','));
    return moe_scan_take(&p->s, '}') ? MOE_OK : corrupt(p, NULL, "bad syntax", err);
}

static enum moe_code add(struct parser *p, const char *name, size_t len, struct moe_err *err)
{
    struct moe_st_header *h = p->h;
    bool room = MOE_GROW(h->entries, p->cap, (size_t)h->n + 1);
    int added = room ? moe_strmap_add(&p->names, name, len, h->n, NULL) : -1;
    if (added < 0) return moe_fail_at(err, MOE_NOMEM, p->file, NULL, "no memory for its header");
    if (!added) return moe_fail_at(err, MOE_CORRUPT, p->file, name, "appears twice in the header");
    h->entries[h->n] = (struct moe_st_entry){ .name = name };
    MOE_TRY(entry(p, &h->entries[h->n], err));
    h->n++;
    return MOE_OK;
}

static enum moe_code object(struct parser *p, struct moe_err *err)
{
    char *name;
    size_t len;
    if (!moe_scan_take(&p->s, '{')) return corrupt(p, NULL, "not an object", err);
    if (!moe_scan_take(&p->s, '}')) {
        do {
            const char *why = moe_scan_string(&p->s, &name, &len);
            if (!why && !moe_scan_take(&p->s, ':')) why = "bad syntax";
            if (why) return corrupt(p, NULL, why, err);
            MOE_TRY(!strcmp(name, "__metadata__") ? metadata(p, err) : add(p, name, len, err));
        } while (moe_scan_take(&p->s, ','));
        if (!moe_scan_take(&p->s, '}')) return corrupt(p, NULL, "bad syntax", err);
    }
    const char *why = moe_scan_end(&p->s);
    return why ? corrupt(p, NULL, why, err) : MOE_OK;
}

static int by_offset(const void *x, const void *y)
{
    const struct moe_st_entry *a = x, *b = y;
    if (a->offset != b->offset) return a->offset < b->offset ? -1 : 1;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? -1 : 1;
    return strcmp(a->name, b->name);
}

/* Check that every byte of the data belongs to exactly one tensor. */
static enum moe_code check_cover(const struct parser *p, struct moe_err *err)
{
    uint64_t at = 0;
    for (int64_t i = 0; i < p->h->n; i++) {
        const struct moe_st_entry *e = &p->h->entries[i];
        if (e->offset < at)
            return moe_fail_at(err, MOE_CORRUPT, p->file, e->name, "overlaps tensor '%.100s'",
                               p->h->entries[i - 1].name);
        if (e->offset > at)
            return moe_fail_at(err, MOE_CORRUPT, p->file, e->name,
                               "%llu byte%s before it belong%s to no tensor",
                               (unsigned long long)(e->offset - at), moe_plural((int64_t)(e->offset - at)),
                               e->offset - at == 1 ? "s" : "");
        at += e->bytes;
    }
    p->h->end = at;
    return MOE_OK;
}

/* Copy the names from the text to the arena, with one allocation for the whole file. */
static enum moe_code keep(struct parser *p, struct moe_err *err)
{
    struct moe_st_header *h = p->h;
    size_t total = 1;
    for (int64_t i = 0; i < h->n; i++) total += strlen(h->entries[i].name) + 1;
    char *names = moe_arena_alloc(p->arena, total);
    if (!names) return moe_fail_at(err, MOE_NOMEM, p->file, NULL, "no memory for its header");
    for (int64_t i = 0; i < h->n; i++) {
        struct moe_st_entry *e = &h->entries[i];
        size_t n = strlen(e->name) + 1;
        e->offset += h->data_offset;
        e->name = memcpy(names, e->name, n);
        names += n;
    }
    h->end += h->data_offset;
    return MOE_OK;
}

enum moe_code moe_st_parse(char *text, size_t bytes, const char *file, struct moe_arena *arena,
                           struct moe_st_header *h, struct moe_err *err)
{
    struct parser p = { .s = { text, text, text + bytes }, .file = file, .arena = arena, .h = h };
    *h = (struct moe_st_header){ .data_offset = 8 + (uint64_t)bytes };
    enum moe_code code = object(&p, err);
    if (code == MOE_OK && h->n) qsort(h->entries, (size_t)h->n, sizeof *h->entries, by_offset);
    if (code == MOE_OK) code = check_cover(&p, err);
    if (code == MOE_OK) code = keep(&p, err);
    moe_strmap_release(&p.names);
    if (code != MOE_OK) {
        free(h->entries);
        *h = (struct moe_st_header){ 0 };
    }
    return code;
}

/* The error for a file whose first 8 bytes, `n`, cannot be the length of its header. */
static enum moe_code no_header(int fd, const char *file, uint64_t size, uint64_t n, struct moe_err *err)
{
    char head[64];
    size_t there = size < sizeof head ? (size_t)size : sizeof head;
    MOE_TRY(moe_pread(fd, file, head, there, 0, err));
    MOE_TRY(moe_not_lfs(head, there, file, err));
    return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                       "no safetensors file: a header of %llu bytes, %d are allowed", (unsigned long long)n,
                       MOE_ST_HEADER_MAX);
}

enum moe_code moe_st_read(int fd, const char *file, uint64_t size, struct moe_arena *arena,
                          struct moe_st_header *h, struct moe_err *err)
{
    unsigned char word[8];
    uint64_t n = 0;
    if (size < 8)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "%llu byte%s no safetensors file (fetch it again)",
                           (unsigned long long)size, size == 1 ? " is" : "s are");
    MOE_TRY(moe_pread(fd, file, word, 8, 0, err));
    for (int i = 7; i >= 0; i--) n = n << 8 | word[i];
    if (n > MOE_ST_HEADER_MAX) return no_header(fd, file, size, n, err);
    if (n > size - 8)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "%llu byte%s short in its header (fetch it again)",
                           (unsigned long long)(n - (size - 8)), moe_plural((int64_t)(n - (size - 8))));
    char *text = malloc((size_t)n + 9);
    if (!text)
        return moe_fail_at(err, MOE_NOMEM, file, NULL, "no memory for a header of %llu bytes",
                           (unsigned long long)n);
    memcpy(text, word, 8);
    enum moe_code code = moe_pread(fd, file, text + 8, (size_t)n, 8, err);
    if (code == MOE_OK) {
        uint64_t hash = moe_hash64(text, (size_t)n + 8);
        text[n + 8] = 0;
        code = moe_st_parse(text + 8, (size_t)n, file, arena, h, err);
        h->hash = hash;
    }
    free(text);
    return code;
}

enum moe_code moe_st_check_size(const struct moe_st_header *h, const char *file, uint64_t size,
                                struct moe_err *err)
{
    if (size > h->end)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "%llu byte%s after the last tensor belong%s to none",
                           (unsigned long long)(size - h->end), moe_plural((int64_t)(size - h->end)),
                           size - h->end == 1 ? "s" : "");
    int64_t first = 0; /* entries are sorted by offset */
    while (first < h->n && h->entries[first].offset + h->entries[first].bytes <= size) first++;
    if (first == h->n) return MOE_OK;
    char more[64] = "";
    if (first + 1 < h->n)
        snprintf(more, sizeof more, ", %lld more tensor%s cut off", (long long)(h->n - first - 1),
                 h->n - first - 1 == 1 ? " is" : "s are");
    return moe_fail_at(err, MOE_CORRUPT, file, h->entries[first].name,
                       "the file ends in it, %llu byte%s short%s (fetch the file again)",
                       (unsigned long long)(h->end - size), moe_plural((int64_t)(h->end - size)), more);
}
