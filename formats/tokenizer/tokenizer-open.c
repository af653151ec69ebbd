/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/tokenizer-open.c - opens a tokenizer's files: the ranks, and the names of the ids after
 * them. */
#include "formats/tokenizer/tokenizer-internal.h"

#include "base/io.h"
#include "base/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CONFIG_MAX ((size_t)16 << 20) /* bytes of tokenizer_config.json */
#define IDS_MAX    (1 << 24)

struct paths { char dir[4096], model[4096], config[4096]; };

/* Make the paths of the two files in p->dir; *found: tiktoken.model exists. */
static enum moe_code look_in(struct paths *p, bool *found, struct moe_err *err)
{
    enum moe_exists there;
    MOE_TRY(moe_path_join(p->model, sizeof p->model, p->dir, "tiktoken.model", err));
    MOE_TRY(moe_path_join(p->config, sizeof p->config, p->dir, "tokenizer_config.json", err));
    MOE_TRY(moe_look(p->model, &there, err));
    *found = there != MOE_ABSENT;
    return MOE_OK;
}

/* A container keeps the files in its tokenizer/ folder. */
static enum moe_code find_files(const char *dir, struct paths *p, struct moe_err *err)
{
    enum moe_exists there;
    bool found;
    if (snprintf(p->dir, sizeof p->dir, "%s", dir) >= (int)sizeof p->dir)
        return moe_fail_at(err, MOE_IO, dir, NULL, "the path is too long");
    MOE_TRY(look_in(p, &found, err));
    if (found) return MOE_OK;
    MOE_TRY(moe_path_join(p->dir, sizeof p->dir, dir, "tokenizer", err));
    MOE_TRY(moe_look(p->dir, &there, err));
    if (there == MOE_DIR) MOE_TRY(look_in(p, &found, err));
    if (!found) MOE_TRY(moe_path_join(p->config, sizeof p->config, dir, "tokenizer.json", err));
    if (!found && moe_exists(p->config) == MOE_FILE)
        return moe_fail_at(err, MOE_NOT_FOUND, dir, NULL,
                           "has a tokenizer.json and no tiktoken.model, the only vocabulary that is read "
                           "(what remains: token ids, methods without text)");
    return found ? MOE_OK : moe_fail_at(err, MOE_NOT_FOUND, dir, NULL,
                                        "no tiktoken.model in it (a checkpoint or container has one)");
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

/* ---- added tokens --------------------------------------------------------- */

/* One entry of added_tokens_decoder. */
static enum moe_code read_added(const cJSON *item, const char *file, struct moe_added *a, struct moe_err *err)
{
    const char *key = item->string, *name;
    size_t n = strlen(key);
    bool special = true; /* the default */
    if (n == 0 || n > 9 || strspn(key, "0123456789") != n || (n > 1 && *key == '0') || !cJSON_IsObject(item))
        return moe_fail_at(err, MOE_CORRUPT, file, NULL,
                           "added_tokens_decoder: '%.64s' is not an id with an object", key);
    MOE_TRY(moe_json_str(item, "content", true, &name, file, err));
    MOE_TRY(moe_json_bool(item, "special", false, &special, file, err));
    if (!*name)
        return moe_fail_at(err, MOE_CORRUPT, file, NULL, "added_tokens_decoder: token %s has an empty name",
                           key);
    /* the key has at most nine digits */
    *a = (struct moe_added){
        .id = strtol(key, NULL, 10), .name = name, .len = strlen(name), .text = !special
    };
    return MOE_OK;
}

/* K2's first tokenization code made 256 + 2 reserved tokens, two more than the model has rows.  Such
 * placeholders in a file do not make the vocabulary larger, and they are never produced. */
static bool placeholder(const struct moe_added *a) { return moe_reserved_id(a->name, a->len) == a->id; }

/* Decide the number of ids: the model's, or as many as the files name. */
static enum moe_code decide_size(struct moe_tokenizer *t, const cJSON *added, int64_t vocab,
                                 const struct paths *p, struct moe_err *err)
{
    int64_t ranks = t->bpe.count;
    t->size = vocab ? vocab : ranks;
    if (vocab && ranks > vocab)
        return moe_fail_at(err, MOE_MISMATCH, p->model, NULL,
                           "%lld ranks, but the model's vocab_size is %lld", (long long)ranks,
                           (long long)vocab);
    for (const cJSON *i = added ? added->child : NULL; i; i = i->next) {
        struct moe_added a;
        MOE_TRY(read_added(i, p->config, &a, err));
        if (a.id < ranks)
            return moe_fail_at(err, MOE_MISMATCH, p->config, NULL,
                               "added token '%.64s' has id %lld, which is a rank of '%s'", a.name,
                               (long long)a.id, p->model);
        t->n_added++;
        if (a.id < t->size || placeholder(&a)) continue;
        if (vocab)
            return moe_fail_at(err, MOE_MISMATCH, p->config, NULL,
                               "added token '%.64s' has id %lld, but the model's vocab_size is %lld", a.name,
                               (long long)a.id, (long long)vocab);
        t->size = a.id + 1;
    }
    if (t->size > IDS_MAX)
        return moe_fail_at(err, MOE_UNSUPPORTED, p->config, NULL, "a vocabulary of %lld ids, more than %d",
                           (long long)t->size, IDS_MAX);
    return MOE_OK;
}

static int lower_id(const void *a, const void *b)
{
    int64_t x = ((const struct moe_added *)a)->id, y = ((const struct moe_added *)b)->id;
    return x < y ? -1 : x > y;
}

/* Store the entries whose ids are below t->size, sorted by id, with copies of their names. */
static enum moe_code store_added(struct moe_tokenizer *t, const cJSON *added, const char *file,
                                 struct moe_err *err)
{
    size_t total = 1;
    for (const cJSON *i = added ? added->child : NULL; i; i = i->next)
        total += strlen(moe_json_get(i, "content")->valuestring);
    char *at = t->names = malloc(total);
    t->added = calloc(t->n_added + 1, sizeof *t->added);
    if (!t->names || !t->added) return moe_fail(err, MOE_NOMEM, "out of memory for the special tokens");
    t->n_added = 0;
    for (const cJSON *i = added ? added->child : NULL; i; i = i->next) {
        struct moe_added a;
        MOE_TRY(read_added(i, file, &a, err));
        if (a.id >= t->size) continue;
        memcpy(at, a.name, a.len);
        a.name = at;
        at += a.len;
        t->added[t->n_added++] = a;
    }
    qsort(t->added, t->n_added, sizeof *t->added, lower_id);
    return MOE_OK;
}

/* Index the names; two ids with one name are refused, also where the second is a placeholder's generated
 * name. */
static enum moe_code index_names(struct moe_tokenizer *t, const char *file, struct moe_err *err)
{
    for (size_t i = 0; i < t->n_added; i++) {
        const struct moe_added *a = &t->added[i];
        int64_t made = moe_reserved_id(a->name, a->len);
        int got = moe_strmap_add(&t->by_name, a->name, a->len, a->id, NULL);
        if (got < 0) return moe_fail(err, MOE_NOMEM, "out of memory for the special tokens");
        if (got == 0 || (made != a->id && moe_token_is_placeholder(t, made)))
            return moe_fail_at(err, MOE_CORRUPT, file, NULL, "two special tokens are named '%.*s'",
                               (int)(a->len < 64 ? a->len : 64), a->name);
        t->first[(unsigned char)*a->name] = true;
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
    t->lengths = malloc((t->n_added + 1) * sizeof *t->lengths);
    if (!t->lengths) return false;
    for (size_t i = 0; i < t->n_added; i++) t->lengths[i] = t->added[i].len;
    qsort(t->lengths, t->n_added, sizeof *t->lengths, longer_first);
    for (size_t i = 0; i < t->n_added; i++)
        if (!i || t->lengths[i] != t->lengths[t->length_count - 1])
            t->lengths[t->length_count++] = t->lengths[i];
    return true;
}

static enum moe_code read_specials(struct moe_tokenizer *t, const struct paths *p, int64_t vocab,
                                   struct moe_err *err)
{
    cJSON *root = NULL;
    MOE_TRY(moe_json_read(p->config, CONFIG_MAX, &root, err));
    enum moe_code code = MOE_OK;
    const cJSON *added = cJSON_IsObject(root) ? moe_json_get(root, "added_tokens_decoder") : NULL;
    if (!cJSON_IsObject(root) || (added && !cJSON_IsObject(added)))
        code = moe_fail_at(err, MOE_CORRUPT, p->config, NULL, "added_tokens_decoder is not an object");
    if (code == MOE_OK) code = decide_size(t, added, vocab, p, err);
    if (code == MOE_OK) code = store_added(t, added, p->config, err);
    if (code == MOE_OK) code = index_names(t, p->config, err);
    if (code == MOE_OK && !list_lengths(t))
        code = moe_fail(err, MOE_NOMEM, "out of memory for the special tokens");
    cJSON_Delete(root);
    return code;
}

enum moe_code moe_tokenizer_open(struct moe_tokenizer **out, const char *dir, int64_t vocab_size,
                                 struct moe_err *err)
{
    struct paths p;
    *out = NULL;
    MOE_TRY(find_files(dir, &p, err));
    struct moe_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return moe_fail(err, MOE_NOMEM, "out of memory for the tokenizer");
    t->dir = strdup(p.dir);
    enum moe_code code = t->dir ? read_ranks(t, p.model, err) :
        moe_fail(err, MOE_NOMEM, "out of memory for the tokenizer");
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
    free(t->dir);
    free(t->added);
    free(t->names);
    free(t->lengths);
    free(t);
    *tp = NULL;
}
