/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/gguf/gguf-read.h"

#include "base/grow.h"
#include "base/io.h"
#include "base/strmap.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Limits far above any model's, because what is kept for an entry can take several times the bytes that the
 * shortest entry takes in the file. */
enum {
    BUFFER = 64 << 10, /* bytes read at once */
    KEY_MAX = 65535,   /* bytes */
    NAME_MAX_BYTES = 1024,
    DEPTH_MAX = 4, /* of arrays in arrays */
    PAIRS_MAX = 1 << 16,
    TENSORS_MAX = 1 << 20,
    /* bytes that a pair takes in the file at least: the length of its key (8), the key, a type (4) */
    PAIR_LEAST = 13,
    /* and a tensor: the length of its name, the name, the number of dimensions (4), one of them (8), a type
     * (4), an offset (8) */
    TENSOR_LEAST = 33
};

/* ggml's types: values in a block, and its bytes.  Source: ggml.h and ggml-common.h. */
static const struct { const char *name; uint16_t values, bytes;
} tensor_types[] = {
    [0] = { "F32", 1, 4 },         [1] = { "F16", 1, 2 },         [2] = { "Q4_0", 32, 18 },
    [3] = { "Q4_1", 32, 20 },      [6] = { "Q5_0", 32, 22 },      [7] = { "Q5_1", 32, 24 },
    [8] = { "Q8_0", 32, 34 },      [9] = { "Q8_1", 32, 36 },      [10] = { "Q2_K", 256, 84 },
    [11] = { "Q3_K", 256, 110 },   [12] = { "Q4_K", 256, 144 },   [13] = { "Q5_K", 256, 176 },
    [14] = { "Q6_K", 256, 210 },   [15] = { "Q8_K", 256, 292 },   [16] = { "IQ2_XXS", 256, 66 },
    [17] = { "IQ2_XS", 256, 74 },  [18] = { "IQ3_XXS", 256, 98 }, [19] = { "IQ1_S", 256, 50 },
    [20] = { "IQ4_NL", 32, 18 },   [21] = { "IQ3_S", 256, 110 },  [22] = { "IQ2_S", 256, 82 },
    [23] = { "IQ4_XS", 256, 136 }, [24] = { "I8", 1, 1 },         [25] = { "I16", 1, 2 },
    [26] = { "I32", 1, 4 },        [27] = { "I64", 1, 8 },        [28] = { "F64", 1, 8 },
    [29] = { "IQ1_M", 256, 56 },   [30] = { "BF16", 1, 2 },       [34] = { "TQ1_0", 256, 54 },
    [35] = { "TQ2_0", 256, 66 },   [39] = { "MXFP4", 32, 17 },    [40] = { "NVFP4", 64, 36 },
};

const char *moe_gguf_type_name(uint32_t type)
{
    return type < sizeof tensor_types / sizeof *tensor_types ? tensor_types[type].name : NULL;
}

bool moe_gguf_block(uint32_t type, uint64_t *n, uint64_t *bytes)
{
    if (!moe_gguf_type_name(type)) return false;
    *n = tensor_types[type].values;
    *bytes = tensor_types[type].bytes;
    return true;
}

/* The types of metadata values; bytes 0: the size is not fixed. */
static const struct { const char *name; uint8_t bytes;
} value_types[MOE_GGUF_VALUES] = { { "u8", 1 },  { "i8", 1 },  { "u16", 2 },  { "i16", 2 },    { "u32", 4 },
                                   { "i32", 4 }, { "f32", 4 }, { "bool", 1 }, { "string", 0 }, { "array", 0 },
                                   { "u64", 8 }, { "i64", 8 }, { "f64", 8 } };

const char *moe_gguf_value_type_name(enum moe_gguf_value type) { return value_types[type].name; }

/* ---- a cursor over the file, from front to end ---- */

struct cursor {
    int fd;
    const char *path;
    uint64_t size, at;     /* bytes of the file; offset of the next byte */
    uint64_t base, filled; /* the buffer holds `filled` bytes of the file from offset `base` on */
    struct moe_gguf_head *h;
    struct moe_err *err;
    unsigned char buffer[BUFFER];
};

#define WRONG(c, name, ...) moe_fail_at((c)->err, MOE_CORRUPT, (c)->path, (name), __VA_ARGS__)

/* Fail because the file ends before the head does. */
static enum moe_code fail_short(struct cursor *c)
{
    return WRONG(c, NULL,
                 "its head runs past the end of the file at byte %" PRIu64 " (cut short? fetch it again)",
                 c->at);
}

/* Read the next n bytes of the file. */
static enum moe_code take(struct cursor *c, void *out, size_t n)
{
    unsigned char *to = out;
    if (n > c->size - c->at) return fail_short(c);
    while (n) {
        if (c->at < c->base || c->at >= c->base + c->filled) {
            c->base = c->at;
            c->filled = c->size - c->at < BUFFER ? c->size - c->at : BUFFER;
            MOE_TRY(moe_pread(c->fd, c->path, c->buffer, (size_t)c->filled, c->base, c->err));
        }
        size_t have = (size_t)(c->base + c->filled - c->at), part = n < have ? n : have;
        memcpy(to, c->buffer + (c->at - c->base), part);
        to += part;
        n -= part;
        c->at += part;
    }
    return MOE_OK;
}

static enum moe_code skip(struct cursor *c, uint64_t n)
{
    if (n > c->size - c->at) return fail_short(c);
    c->at += n;
    return MOE_OK;
}

static uint64_t load_little_endian(const unsigned char *b, size_t n)
{
    uint64_t v = 0;
    for (size_t i = n; i--;) v = v << 8 | b[i];
    return v;
}

static enum moe_code take_u32(struct cursor *c, uint32_t *v)
{
    unsigned char b[4];
    MOE_TRY(take(c, b, sizeof b));
    *v = (uint32_t)load_little_endian(b, sizeof b);
    return MOE_OK;
}

static enum moe_code take_u64(struct cursor *c, uint64_t *v)
{
    unsigned char b[8];
    MOE_TRY(take(c, b, sizeof b));
    *v = load_little_endian(b, sizeof b);
    return MOE_OK;
}

static enum moe_code no_memory(const struct cursor *c)
{
    return moe_fail_at(c->err, MOE_NOMEM, c->path, NULL, "no memory for its head");
}

/* Allocate n bytes that live as long as the head; NULL, with *c->err filled in, when memory ran out. */
static void *allocate(struct cursor *c, size_t n)
{
    void *p = moe_arena_alloc(&c->h->arena, n);
    if (!p) no_memory(c);
    return p;
}

/* Read a name: 1 to `most` bytes without NUL, of which all are kept. */
static enum moe_code take_name(struct cursor *c, const char *what, uint64_t most, const char **out)
{
    uint64_t n;
    MOE_TRY(take_u64(c, &n));
    if (!n || n > most) return WRONG(c, NULL, "has a %s of %" PRIu64 " bytes", what, n);
    if (n > c->size - c->at) return fail_short(c);
    char *s = allocate(c, (size_t)n + 1);
    if (!s) return MOE_NOMEM;
    MOE_TRY(take(c, s, (size_t)n));
    s[n] = 0;
    if (strlen(s) != n) return WRONG(c, NULL, "has a %s with a zero byte in it", what);
    *out = s;
    return MOE_OK;
}

/* ---- metadata ---- */

/* Read a string into *v, or skip it when v is NULL. */
static enum moe_code take_string(struct cursor *c, struct moe_gguf_scalar *v)
{
    uint64_t n;
    MOE_TRY(take_u64(c, &n));
    if (n > c->size - c->at) return fail_short(c);
    size_t kept = !v ? 0 : n < MOE_GGUF_TEXT ? (size_t)n : MOE_GGUF_TEXT;
    if (v) {
        char *s = allocate(c, kept + 1);
        if (!s) return MOE_NOMEM;
        MOE_TRY(take(c, s, kept));
        s[kept] = 0;
        *v = (struct moe_gguf_scalar){ .text = s, .kept = kept, .length = n };
    }
    return skip(c, n - kept);
}

static float as_float(uint32_t u) { float f; memcpy(&f, &u, sizeof f); return f; }
static double as_double(uint64_t u) { double d; memcpy(&d, &u, sizeof d); return d; }

static enum moe_code take_number(struct cursor *c, const char *key, enum moe_gguf_value type,
                                 struct moe_gguf_scalar *v)
{
    unsigned char b[8];
    size_t n = value_types[type].bytes;
    MOE_TRY(take(c, b, n));
    uint64_t u = load_little_endian(b, n);
    switch (type) {
    case MOE_GGUF_I8: v->whole = (int8_t)u; break;
    case MOE_GGUF_I16: v->whole = (int16_t)u; break;
    case MOE_GGUF_I32: v->whole = (int32_t)u; break;
    case MOE_GGUF_I64: v->whole = (int64_t)u; break;
    case MOE_GGUF_FLOAT32: v->number = (double)as_float((uint32_t)u); return MOE_OK;
    case MOE_GGUF_FLOAT64: v->number = as_double(u); return MOE_OK;
    default: v->whole = (int64_t)u;
    }
    if (type == MOE_GGUF_BOOL && u > 1)
        return WRONG(c, NULL, "the key '%s' has a boolean of %" PRIu64, key, u);
    v->number = type == MOE_GGUF_U64 ? (double)u : (double)v->whole;
    return MOE_OK;
}

static enum moe_code take_type(struct cursor *c, const char *key, enum moe_gguf_value *type)
{
    uint32_t t;
    MOE_TRY(take_u32(c, &t));
    if (t >= MOE_GGUF_VALUES)
        return WRONG(c, NULL, "the key '%s' has a value of type %u, which GGUF does not define", key, t);
    *type = (enum moe_gguf_value)t;
    return MOE_OK;
}

/* Read an array; its first elements are kept in `p` unless that is NULL.  An array inside an array is read
 * and not kept. */
static enum moe_code take_array(struct cursor *c, const char *key, struct moe_gguf_pair *p, int depth)
{
    enum moe_gguf_value item;
    uint64_t n, bytes;
    MOE_TRY(take_type(c, key, &item));
    MOE_TRY(take_u64(c, &n));
    int shown = !p || item == MOE_GGUF_ARRAY ? 0 : n < MOE_GGUF_SHOWN ? (int)n : MOE_GGUF_SHOWN;
    if (p) p->item = item, p->count = n, p->shown = shown;
    if (item == MOE_GGUF_ARRAY && depth == DEPTH_MAX)
        return WRONG(c, NULL, "the key '%s' has arrays in arrays, too deep", key);
    if (item != MOE_GGUF_STRING && item != MOE_GGUF_ARRAY) {
        for (int i = 0; i < shown; i++) MOE_TRY(take_number(c, key, item, &p->value[i]));
        if (__builtin_mul_overflow(n - (uint64_t)shown, value_types[item].bytes, &bytes))
            return fail_short(c);
        return skip(c, bytes);
    }
    if (n > (c->size - c->at) / 8) return fail_short(c); /* an element has at least 8 bytes: its length */
    for (uint64_t i = 0; i < n; i++)
        MOE_TRY(item == MOE_GGUF_ARRAY ? take_array(c, key, NULL, depth + 1)
                                       : take_string(c, i < (uint64_t)shown ? &p->value[i] : NULL));
    return MOE_OK;
}

static enum moe_code take_pair(struct cursor *c, struct moe_gguf_pair *p)
{
    *p = (struct moe_gguf_pair){ .count = 1, .shown = 1 };
    MOE_TRY(take_name(c, "key", KEY_MAX, &p->key));
    MOE_TRY(take_type(c, p->key, &p->type));
    p->item = p->type;
    if (p->type == MOE_GGUF_ARRAY) return take_array(c, p->key, p, 1);
    return p->type == MOE_GGUF_STRING ? take_string(c, &p->value[0])
                                      : take_number(c, p->key, p->type, &p->value[0]);
}

/* ---- tensors ---- */

/* Compute the bytes of a tensor's values; false when its rows are not whole blocks or the size overflows. */
static bool compute_bytes(const struct moe_gguf_entry *t, uint64_t *bytes)
{
    uint64_t values = tensor_types[t->type].values, n = t->ne[0] / values;
    if (t->ne[0] % values || __builtin_mul_overflow(n, tensor_types[t->type].bytes, &n)) return false;
    for (uint32_t d = 1; d < t->ndim; d++)
        if (__builtin_mul_overflow(n, t->ne[d], &n)) return false;
    *bytes = n;
    return true;
}

static enum moe_code take_tensor(struct cursor *c, struct moe_gguf_entry *t)
{
    *t = (struct moe_gguf_entry){ .ne = { 1, 1, 1, 1 } };
    MOE_TRY(take_name(c, "tensor name", NAME_MAX_BYTES, &t->name));
    MOE_TRY(take_u32(c, &t->ndim));
    if (t->ndim > 4) return WRONG(c, t->name, "has %u dimensions, more than 4", t->ndim);
    /* without dimensions it is a single value, as in ggml */
    for (uint32_t d = 0; d < t->ndim; d++) MOE_TRY(take_u64(c, &t->ne[d]));
    MOE_TRY(take_u32(c, &t->type));
    MOE_TRY(take_u64(c, &t->offset));
    if (moe_gguf_type_name(t->type) && !compute_bytes(t, &t->bytes))
        return WRONG(c, t->name, "has a shape that its type %s cannot have", moe_gguf_type_name(t->type));
    return MOE_OK;
}

/* Bytes that certainly belong to the tensor: for an unknown type at least one, unless it has no values. */
static uint64_t own_bytes(const struct moe_gguf_entry *t)
{
    bool some = t->ne[0] && t->ne[1] && t->ne[2] && t->ne[3];
    return moe_gguf_type_name(t->type) ? t->bytes : some;
}

static int compare_offsets(const void *x, const void *y)
{
    const struct moe_gguf_entry *a = *(const struct moe_gguf_entry *const *)x,
                                *b = *(const struct moe_gguf_entry *const *)y;
    return a->offset != b->offset ? (a->offset > b->offset) - (a->offset < b->offset) : (a > b) - (a < b);
}

/* Check that no byte belongs to two tensors, as far as their sizes are known. */
static enum moe_code check_overlap(struct cursor *c)
{
    const struct moe_gguf_head *h = c->h;
    enum moe_code code = MOE_OK;
    const struct moe_gguf_entry **v = malloc(((size_t)h->n_tensors + 1) * sizeof *v), *last = NULL;
    if (!v) return no_memory(c);
    for (int64_t i = 0; i < h->n_tensors; i++) v[i] = &h->tensors[i];
    qsort(v, (size_t)h->n_tensors, sizeof *v, compare_offsets);
    for (int64_t i = 0; i < h->n_tensors && code == MOE_OK; i++) {
        if (!own_bytes(v[i])) continue;
        if (last && v[i]->offset < last->offset + own_bytes(last))
            code = WRONG(c, v[i]->name, "overlaps tensor '%.100s'", last->name);
        last = v[i];
    }
    free(v);
    return code;
}

/* Make the tensors' offsets count from the start of the file, and check that all lie in it.  Where the data
 * begins is only known after all descriptions were read. */
static enum moe_code place_tensors(struct cursor *c)
{
    struct moe_gguf_head *h = c->h;
    h->data_offset = (c->at + h->alignment - 1) / h->alignment * h->alignment;
    if (h->n_tensors && h->data_offset > c->size) return fail_short(c);
    for (int64_t i = 0; i < h->n_tensors; i++) {
        struct moe_gguf_entry *t = &h->tensors[i];
        uint64_t room = c->size - h->data_offset;
        if (t->offset % h->alignment)
            return WRONG(c, t->name,
                         "its offset %" PRIu64 " is no multiple of the file's alignment, %" PRIu64, t->offset,
                         h->alignment);
        if (t->offset > room || t->bytes > room - t->offset)
            return WRONG(c, t->name, "the file ends in it or before it (cut short? fetch it again)");
        t->offset += h->data_offset;
    }
    return check_overlap(c);
}

/* ---- the head ---- */

/* Add the name of entry i to those seen, and check that it was not among them; what: "key" or "tensor". */
static enum moe_code check_unique(struct cursor *c, struct moe_strmap *seen, const char *name,
                                  const char *what, int64_t i)
{
    int added = moe_strmap_add(seen, name, strlen(name), i, NULL);
    if (added < 0) return no_memory(c);
    return added ? MOE_OK : WRONG(c, NULL, "the %s '%s' is there twice", what, name);
}

/* Read n pairs, and the alignment among them.  The array grows while they are read, since a count in the file
 * is not trusted. */
static enum moe_code take_pairs(struct cursor *c, uint64_t n, struct moe_strmap *seen)
{
    struct moe_gguf_head *h = c->h;
    size_t cap = 0;
    if (n > PAIRS_MAX || n > (c->size - c->at) / PAIR_LEAST)
        return WRONG(c, NULL, "says that it has %" PRIu64 " keys, more than fit (cut short? fetch it again)",
                     n);
    for (; (uint64_t)h->n_pairs < n; h->n_pairs++) {
        if (!MOE_GROW(h->pairs, cap, (size_t)h->n_pairs + 1)) return no_memory(c);
        MOE_TRY(take_pair(c, &h->pairs[h->n_pairs]));
        MOE_TRY(check_unique(c, seen, h->pairs[h->n_pairs].key, "key", h->n_pairs));
    }
    const struct moe_gguf_pair *a = moe_gguf_find(h, "general.alignment");
    h->alignment = 32;
    if (!a) return MOE_OK;
    if (a->type != MOE_GGUF_U32 || a->value[0].whole < 1 || a->value[0].whole > 1 << 30 ||
        a->value[0].whole & (a->value[0].whole - 1))
        return WRONG(c, NULL, "its 'general.alignment' is no power of two up to 2^30");
    h->alignment = (uint64_t)a->value[0].whole;
    return MOE_OK;
}

static enum moe_code take_tensors(struct cursor *c, uint64_t n, struct moe_strmap *seen)
{
    struct moe_gguf_head *h = c->h;
    size_t cap = 0;
    if (n > TENSORS_MAX || n > (c->size - c->at) / TENSOR_LEAST)
        return WRONG(c, NULL,
                     "says that it has %" PRIu64 " tensors, more than fit (cut short? fetch it again)", n);
    for (; (uint64_t)h->n_tensors < n; h->n_tensors++) {
        if (!MOE_GROW(h->tensors, cap, (size_t)h->n_tensors + 1)) return no_memory(c);
        MOE_TRY(take_tensor(c, &h->tensors[h->n_tensors]));
        MOE_TRY(check_unique(c, seen, h->tensors[h->n_tensors].name, "tensor", h->n_tensors));
    }
    return place_tensors(c);
}

/* Read the magic; a file that is too short to have one is no GGUF file either. */
static enum moe_code take_magic(struct cursor *c)
{
    char magic[4] = "";
    if (c->size >= sizeof magic) MOE_TRY(take(c, magic, sizeof magic));
    return memcmp(magic, "GGUF", sizeof magic) ? WRONG(c, NULL, "is no GGUF file") : MOE_OK;
}

static enum moe_code take_head(struct cursor *c)
{
    struct moe_strmap keys = { 0 }, names = { 0 };
    uint64_t tensors, pairs;
    uint32_t version;
    MOE_TRY(take_magic(c));
    MOE_TRY(take_u32(c, &version));
    c->h->version = version;
    if (version && !(version & 0xffff))
        return moe_fail_at(c->err, MOE_UNSUPPORTED, c->path, NULL,
                           "is a big-endian GGUF file, which is not supported");
    if (version != 2 && version != 3)
        return moe_fail_at(c->err, MOE_UNSUPPORTED, c->path, NULL,
                           "is GGUF version %u, which is not supported (2 and 3 are)", version);
    MOE_TRY(take_u64(c, &tensors));
    MOE_TRY(take_u64(c, &pairs));
    enum moe_code code = take_pairs(c, pairs, &keys);
    if (code == MOE_OK) code = take_tensors(c, tensors, &names);
    moe_strmap_release(&keys);
    moe_strmap_release(&names);
    return code;
}

enum moe_code moe_gguf_detect(const char *path, bool *is, struct moe_err *err)
{
    char b[4];
    int fd;
    uint64_t size;
    enum moe_exists what;
    *is = false;
    MOE_TRY(moe_look(path, &what, err));
    if (what != MOE_FILE) return MOE_OK;
    MOE_TRY(moe_open_read(path, &fd, &size, err));
    enum moe_code code = size < sizeof b ? MOE_OK : moe_pread(fd, path, b, sizeof b, 0, err);
    *is = code == MOE_OK && size >= sizeof b && !memcmp(b, "GGUF", 4);
    close(fd);
    return code;
}

enum moe_code moe_gguf_read(struct moe_gguf_head *h, const char *path, struct moe_err *err)
{
    *h = (struct moe_gguf_head){ 0 };
    struct cursor *c = malloc(sizeof *c);
    if (!c) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its head");
    c->path = path, c->h = h, c->err = err;
    c->at = c->base = c->filled = 0;
    enum moe_code code = moe_open_read(path, &c->fd, &c->size, err);
    if (code == MOE_OK) {
        h->file_bytes = c->size;
        code = take_head(c);
        close(c->fd);
    }
    free(c);
    if (code != MOE_OK) moe_gguf_head_release(h);
    return code;
}

void moe_gguf_head_release(struct moe_gguf_head *h)
{
    free(h->pairs);
    free(h->tensors);
    moe_arena_clear(&h->arena);
    *h = (struct moe_gguf_head){ 0 };
}

const struct moe_gguf_pair *moe_gguf_find(const struct moe_gguf_head *h, const char *key)
{
    for (int64_t i = 0; i < h->n_pairs; i++)
        if (!strcmp(h->pairs[i].key, key)) return &h->pairs[i];
    return NULL;
}
