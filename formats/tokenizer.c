#include "formats/tokenizer_impl.h"

#include "base/io.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_MAX ((size_t)16 << 20) /* bytes of tokenizer_config.json */
#define IDS_MAX    (1 << 24)

/* ---- opening -------------------------------------------------------------- */

struct paths { char model[4096], config[4096]; };

/* A container keeps the files in its tokenizer/ folder. */
static enum moe_code find_files(const char *dir, struct paths *p, struct moe_err *err)
{
    char sub[4096];
    enum moe_exists there;
    MOE_TRY(moe_path_join(p->model, sizeof p->model, dir, "tiktoken.model", err));
    MOE_TRY(moe_path_join(p->config, sizeof p->config, dir, "tokenizer_config.json", err));
    MOE_TRY(moe_look(p->model, &there, err));
    if (there != MOE_ABSENT) return MOE_OK;
    MOE_TRY(moe_path_join(sub, sizeof sub, dir, "tokenizer", err));
    MOE_TRY(moe_look(sub, &there, err));
    if (there == MOE_DIR) {
        MOE_TRY(moe_path_join(p->model, sizeof p->model, sub, "tiktoken.model", err));
        MOE_TRY(moe_path_join(p->config, sizeof p->config, sub, "tokenizer_config.json", err));
        MOE_TRY(moe_look(p->model, &there, err));
        if (there != MOE_ABSENT) return MOE_OK;
    }
    return moe_fail_at(err, MOE_NOT_FOUND, dir, NULL, "no tiktoken.model in it (a checkpoint or container has one)");
}

static enum moe_code read_ranks(struct moe_tokenizer *t, const char *path, struct moe_err *err)
{
    char *text = NULL;
    size_t size = 0;
    MOE_TRY(moe_read_file(path, MOE_TIKTOKEN_MAX, &text, &size, err));
    enum moe_code code = moe_bpe_parse(&t->bpe, text, size, path, err);
    free(text);
    return code;
}

/* One entry of added_tokens_decoder. */
struct added { int64_t id; const char *name; };

static enum moe_code read_added(const cJSON *item, const char *file, struct added *a, struct moe_err *err)
{
    const char *key = item->string;
    size_t n = strlen(key);
    if (n == 0 || n > 9 || strspn(key, "0123456789") != n || (n > 1 && *key == '0') || !cJSON_IsObject(item))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "added_tokens_decoder: '%.64s' is not an id with an object", key);
    a->id = strtol(key, NULL, 10); /* nine digits at most */
    MOE_TRY(moe_json_str(item, "content", true, &a->name, file, err));
    if (!*a->name) return moe_fail_at(err, MOE_CORRUPT, file, NULL, "added_tokens_decoder: token %s has an empty name", key);
    return MOE_OK;
}

static int reserved_name(char out[64], int64_t id) { return snprintf(out, 64, "<|reserved_token_%lld|>", (long long)id); }

/* K2's first tokenization code made 256 + 2 reserved tokens, two more than the model has rows; a file that lists such
 * placeholders is no larger vocabulary, and they are never produced. */
static bool placeholder(const struct added *a)
{
    char name[64];
    reserved_name(name, a->id);
    return !strcmp(name, a->name);
}

/* Decide the size: the model's, or what the files name. */
static enum moe_code decide_size(struct moe_tokenizer *t, const cJSON *added, int64_t vocab, const struct paths *p,
                                 struct moe_err *err)
{
    int64_t ranks = t->bpe.count;
    t->size = vocab ? vocab : ranks;
    if (vocab && ranks > vocab)
        return moe_fail_at(err, MOE_MISMATCH, p->model, NULL, "%lld ranks, but the model's vocab_size is %lld",
                           (long long)ranks, (long long)vocab);
    for (const cJSON *i = added ? added->child : NULL; i; i = i->next) {
        struct added a;
        MOE_TRY(read_added(i, p->config, &a, err));
        if (a.id < ranks)
            return moe_fail_at(err, MOE_MISMATCH, p->config, NULL, "added token '%.64s' has id %lld, which is a rank of '%s'",
                               a.name, (long long)a.id, p->model);
        if (a.id < t->size || placeholder(&a)) continue;
        if (vocab)
            return moe_fail_at(err, MOE_MISMATCH, p->config, NULL, "added token '%.64s' has id %lld, but the model's vocab_size is %lld",
                               a.name, (long long)a.id, (long long)vocab);
        t->size = a.id + 1;
    }
    if (t->size > IDS_MAX)
        return moe_fail_at(err, MOE_UNSUPPORTED, p->config, NULL, "a vocabulary of %lld ids, more than %d", (long long)t->size, IDS_MAX);
    return MOE_OK;
}

/* Copy every slot's name into one buffer. */
static bool store_names(struct moe_tokenizer *t, const char **given, size_t slots)
{
    char name[64];
    size_t total = 1;
    for (size_t i = 0; i < slots; i++) total += given[i] ? strlen(given[i]) : (size_t)reserved_name(name, t->bpe.count + (int64_t)i);
    t->names = malloc(total);
    t->special = calloc(slots + 1, sizeof *t->special);
    if (!t->names || !t->special) return false;
    char *at = t->names;
    for (size_t i = 0; i < slots; i++) {
        reserved_name(name, t->bpe.count + (int64_t)i);
        const char *s = given[i] ? given[i] : name;
        t->special[i] = (struct moe_special){ at, strlen(s) };
        memcpy(at, s, t->special[i].len);
        at += t->special[i].len;
        t->first[(unsigned char)*s] = true;
    }
    return true;
}

static enum moe_code name_slots(struct moe_tokenizer *t, const cJSON *added, const char *file, struct moe_err *err)
{
    size_t slots = (size_t)(t->size - t->bpe.count);
    const char **given = calloc(slots + 1, sizeof *given);
    if (!given) return moe_fail(err, MOE_NOMEM, "out of memory for the special tokens");
    for (const cJSON *i = added ? added->child : NULL; i; i = i->next) {
        struct added a;
        enum moe_code code = read_added(i, file, &a, err);
        if (code != MOE_OK) { free(given); return code; }
        if (a.id < t->size) given[a.id - t->bpe.count] = a.name;
    }
    bool ok = store_names(t, given, slots);
    free(given);
    if (!ok) return moe_fail(err, MOE_NOMEM, "out of memory for the special tokens");
    for (size_t i = 0; i < slots; i++) {
        int got = moe_strmap_add(&t->by_name, t->special[i].name, t->special[i].len, t->bpe.count + (int64_t)i, NULL);
        if (got < 0) return moe_fail(err, MOE_NOMEM, "out of memory for the special tokens");
        if (got == 0) return moe_fail_at(err, MOE_CORRUPT, file, NULL, "two special tokens are named '%.*s'",
                                         (int)(t->special[i].len < 64 ? t->special[i].len : 64), t->special[i].name);
    }
    return MOE_OK;
}

static int longer_first(const void *a, const void *b)
{
    size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static bool list_lengths(struct moe_tokenizer *t)
{
    size_t slots = (size_t)(t->size - t->bpe.count);
    t->lengths = malloc((slots + 1) * sizeof *t->lengths);
    if (!t->lengths) return false;
    for (size_t i = 0; i < slots; i++) t->lengths[i] = t->special[i].len;
    qsort(t->lengths, slots, sizeof *t->lengths, longer_first);
    for (size_t i = 0; i < slots; i++)
        if (!i || t->lengths[i] != t->lengths[t->length_count - 1]) t->lengths[t->length_count++] = t->lengths[i];
    return true;
}

static enum moe_code read_specials(struct moe_tokenizer *t, const struct paths *p, int64_t vocab, struct moe_err *err)
{
    cJSON *root = NULL;
    MOE_TRY(moe_json_read(p->config, CONFIG_MAX, &root, err));
    enum moe_code code = MOE_OK;
    const cJSON *added = cJSON_IsObject(root) ? moe_json_get(root, "added_tokens_decoder") : NULL;
    if (!cJSON_IsObject(root) || (added && !cJSON_IsObject(added)))
        code = moe_fail_at(err, MOE_CORRUPT, p->config, NULL, "added_tokens_decoder is not an object");
    if (code == MOE_OK) code = decide_size(t, added, vocab, p, err);
    if (code == MOE_OK) code = name_slots(t, added, p->config, err);
    if (code == MOE_OK && !list_lengths(t)) code = moe_fail(err, MOE_NOMEM, "out of memory for the special tokens");
    cJSON_Delete(root);
    return code;
}

enum moe_code moe_tokenizer_open(struct moe_tokenizer **out, const char *dir, int64_t vocab_size, struct moe_err *err)
{
    struct paths p;
    *out = NULL;
    MOE_TRY(find_files(dir, &p, err));
    struct moe_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return moe_fail(err, MOE_NOMEM, "out of memory for the tokenizer");
    enum moe_code code = read_ranks(t, p.model, err);
    if (code == MOE_OK) code = read_specials(t, &p, vocab_size, err);
    if (code == MOE_OK) code = moe_pretoken_open(&t->pre, err);
    if (code != MOE_OK) moe_tokenizer_close(&t);
    *out = t;
    return code;
}

void moe_tokenizer_close(struct moe_tokenizer **tp)
{
    struct moe_tokenizer *t = *tp;
    if (!t) return;
    moe_bpe_release(&t->bpe);
    moe_pretoken_close(&t->pre);
    moe_strmap_release(&t->by_name);
    free(t->special);
    free(t->names);
    free(t->lengths);
    free(t);
    *tp = NULL;
}

/* ---- looking up ----------------------------------------------------------- */

int64_t moe_tokenizer_size(const struct moe_tokenizer *t) { return t->size; }

const char *moe_token_bytes(const struct moe_tokenizer *t, int32_t id, size_t *len)
{
    *len = 0;
    if (id < 0 || id >= t->size) return NULL;
    if (id >= t->bpe.count) {
        const struct moe_special *s = &t->special[id - t->bpe.count];
        *len = s->len;
        return s->name;
    }
    *len = t->bpe.start[id + 1] - t->bpe.start[id];
    return (const char *)t->bpe.bytes + t->bpe.start[id];
}

bool moe_token_is_special(const struct moe_tokenizer *t, int32_t id) { return id >= t->bpe.count && id < t->size; }

int32_t moe_token_find_special(const struct moe_tokenizer *t, const char *name)
{
    return (int32_t)moe_strmap_get(&t->by_name, name, strlen(name));
}

enum moe_code moe_token_merge(const struct moe_tokenizer *t, int32_t id, int32_t pair[2], bool *two, struct moe_err *err)
{
    int n = 0;
    if (id >= 0 && id < t->bpe.count) MOE_TRY(moe_bpe_split(&t->bpe, id, pair, &n, err));
    *two = n == 2;
    return MOE_OK;
}

/* ---- encoding ------------------------------------------------------------- */

enum moe_code moe_encoding_init(struct moe_encoding *e, const struct moe_tokenizer *t, struct moe_err *err)
{
    *e = (struct moe_encoding){ .t = t, .scan = moe_pretoken_scan_new(t->pre) };
    return e->scan ? MOE_OK : moe_fail(err, MOE_NOMEM, "out of memory for the tokenizer");
}

void moe_encoding_release(struct moe_encoding *e)
{
    moe_pretoken_scan_free(e->scan);
    moe_bpe_work_release(&e->work);
    free(e->ids.v);
    *e = (struct moe_encoding){ 0 };
}

static enum moe_code encode_valid(struct moe_encoding *e, const char *text, size_t bytes, struct moe_err *err)
{
    for (size_t at = 0, end; at < bytes; at = end) {
        MOE_TRY(moe_pretoken_next(e->scan, text, bytes, at, &end, err));
        MOE_TRY(moe_bpe_encode(&e->t->bpe, &e->work, (const unsigned char *)text + at, end - at, &e->ids, err));
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
            if (!moe_ids_room(&e->ids, 1)) return moe_fail(err, MOE_NOMEM, "out of memory for the tokens");
            e->ids.v[e->ids.count++] = e->t->bpe.single[(unsigned char)text[at]];
        }
    }
    return MOE_OK;
}

/* The special token whose name stands at `s`, the longest one; -1 for none. */
static int32_t special_at(const struct moe_tokenizer *t, const char *s, size_t left)
{
    if (!t->first[(unsigned char)*s]) return -1;
    for (size_t i = 0; i < t->length_count; i++) {
        if (t->lengths[i] > left) continue;
        int64_t id = moe_strmap_get(&t->by_name, s, t->lengths[i]);
        if (id >= 0) return (int32_t)id;
    }
    return -1;
}

static enum moe_code encode_special(struct moe_encoding *e, const char *text, size_t bytes, struct moe_err *err)
{
    size_t from = 0;
    for (size_t at = 0; at < bytes; at++) {
        int32_t id = special_at(e->t, text + at, bytes - at);
        if (id < 0) continue;
        MOE_TRY(moe_encode_text(e, text + from, at - from, err));
        if (!moe_ids_room(&e->ids, 1)) return moe_fail(err, MOE_NOMEM, "out of memory for the tokens");
        e->ids.v[e->ids.count++] = id;
        from = at + e->t->special[id - e->t->bpe.count].len;
        at = from - 1;
    }
    return moe_encode_text(e, text + from, bytes - from, err);
}

enum moe_code moe_tokenize(const struct moe_tokenizer *t, const char *text, size_t bytes, bool special, int32_t **ids,
                           size_t *count, struct moe_err *err)
{
    struct moe_encoding e;
    *ids = NULL;
    *count = 0;
    MOE_TRY(moe_encoding_init(&e, t, err));
    enum moe_code code = special ? encode_special(&e, text, bytes, err) : moe_encode_text(&e, text, bytes, err);
    if (code == MOE_OK && !moe_ids_room(&e.ids, 1)) code = moe_fail(err, MOE_NOMEM, "out of memory for the tokens");
    if (code == MOE_OK) {
        *ids = e.ids.v;
        *count = e.ids.count;
        e.ids.v = NULL;
    }
    moe_encoding_release(&e);
    return code;
}
