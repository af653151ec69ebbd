/* SPDX-License-Identifier: Apache-2.0 */
#include "base/grow.h"
#include "base/hash.h"
#include "base/io.h"
#include "formats/checkpoint/checkpoint.h"
#include "formats/checkpoint/foreign.h"
#include "formats/checkpoint/safetensors.h"
#include "formats/scan.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { INDEX_BYTES = 1 << 30 };

static enum moe_code no_memory(const struct moe_checkpoint *k, struct moe_err *err)
{
    return moe_fail_at(err, MOE_NOMEM, k->src->path, NULL, "no memory for its list of tensors");
}

/* ---- which files ---- */

static enum moe_code add_file(struct moe_checkpoint *k, const char *name, struct moe_err *err)
{
    struct moe_source *src = k->src;
    char path[PATH_MAX];
    MOE_TRY(moe_path_join(path, sizeof path, src->path, name, err));
    if (src->n_files == 1 << 20) return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL, "too many files");
    if (!MOE_GROW(src->files, k->file_cap, (size_t)src->n_files + 1)) return no_memory(k, err);
    struct moe_file *f = &src->files[src->n_files++];
    *f = (struct moe_file){ .name = strdup(name), .path = strdup(path), .fd = -1 };
    return f->name && f->path ? MOE_OK : no_memory(k, err);
}

/* Order files by name, with model-2-of-61 before model-10-of-61. */
static int by_name(const void *x, const void *y)
{
    const struct moe_file *a = x, *b = y;
    int c = strverscmp(a->name, b->name);
    return c ? c : strcmp(a->name, b->name);
}

static bool is_safetensors(const char *name)
{
    size_t n = strlen(name);
    return n > 12 && !strcmp(name + n - 12, ".safetensors");
}

static enum moe_code list_directory(struct moe_checkpoint *k, struct moe_err *err)
{
    struct moe_names names;
    enum moe_code code = moe_list_dir(k->src->path, &names, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++)
        if (is_safetensors(names.v[i])) code = add_file(k, names.v[i], err);
    moe_names_release(&names);
    MOE_TRY(code);
    int32_t adapters = 0;
    for (int32_t i = 0; i < k->src->n_files; i++) adapters += !strncmp(k->src->files[i].name, "adapter_", 8);
    if (adapters == k->src->n_files) MOE_TRY(moe_foreign_path(k->src->path, err));
    if (!k->src->n_files)
        return moe_fail_at(err, MOE_NOT_FOUND, k->src->path, NULL,
                           "holds no safetensors files (is the download complete?)");
    qsort(k->src->files, (size_t)k->src->n_files, sizeof *k->src->files, by_name);
    return MOE_OK;
}

/* ---- the index ---- */

static enum moe_code bad_index(const struct moe_checkpoint *k, const struct moe_scan *s, const char *why,
                               struct moe_err *err)
{
    return moe_fail_at(err, MOE_CORRUPT, k->index_path, NULL, "malformed: %s at byte %zu", why,
                       (size_t)(s->at - s->start));
}

static enum moe_code add_index(struct moe_checkpoint *k, const char *name, size_t len, int32_t file,
                               struct moe_err *err)
{
    size_t need = (size_t)k->n_index + 1;
    bool room = MOE_GROW(k->names, k->names_cap, need) && MOE_GROW(k->file_of, k->file_of_cap, need);
    int added = room ? moe_strmap_add(&k->map, name, len, k->n_index, NULL) : -1;
    if (added < 0) return no_memory(k, err);
    if (!added) return moe_fail_at(err, MOE_CORRUPT, k->index_path, name, "is named twice");
    k->names[k->n_index] = name;
    k->file_of[k->n_index++] = file;
    return MOE_OK;
}

static enum moe_code weight_map(struct moe_checkpoint *k, struct moe_scan *s, struct moe_strmap *files,
                                struct moe_err *err)
{
    if (!moe_scan_take(s, '{')) return bad_index(k, s, "'weight_map' is not an object", err);
    if (moe_scan_take(s, '}')) return MOE_OK;
    do {
        char *name, *file;
        size_t n, m;
        const char *why = moe_scan_string(s, &name, &n);
        if (!why && !moe_scan_take(s, ':')) why = "bad syntax";
        if (!why) why = moe_scan_string(s, &file, &m);
        if (why) return bad_index(k, s, why, err);
        int64_t id = k->src->n_files;
        int added = moe_strmap_add(files, file, m, id, &id);
        if (added < 0) return no_memory(k, err);
        if (added && !moe_plain_name(file))
            return moe_fail_at(err, MOE_CORRUPT, k->index_path, name,
                               "lies in '%.200s', which is no plain file name", file);
        if (added) MOE_TRY(add_file(k, file, err));
        MOE_TRY(add_index(k, name, n, (int32_t)id, err));
    } while (moe_scan_take(s, ','));
    return moe_scan_take(s, '}') ? MOE_OK : bad_index(k, s, "bad syntax", err);
}

static enum moe_code parse_index(struct moe_checkpoint *k, size_t size, struct moe_strmap *files,
                                 struct moe_err *err)
{
    struct moe_scan s = { k->index_text, k->index_text, k->index_text + size };
    bool found = false;
    moe_scan_skip_mark(&s);
    if (!moe_scan_take(&s, '{')) return bad_index(k, &s, "not an object", err);
    if (!moe_scan_take(&s, '}')) {
        do {
            char *key;
            size_t n;
            const char *why = moe_scan_string(&s, &key, &n);
            if (!why && !moe_scan_take(&s, ':')) why = "bad syntax";
            if (!why && !strcmp(key, "weight_map")) {
                if (found) return bad_index(k, &s, "'weight_map' appears twice", err);
                found = true;
                MOE_TRY(weight_map(k, &s, files, err));
            } else if (!why) {
                why = moe_scan_skip(&s);
            }
            if (why) return bad_index(k, &s, why, err);
        } while (moe_scan_take(&s, ','));
        if (!moe_scan_take(&s, '}')) return bad_index(k, &s, "bad syntax", err);
    }
    const char *why = moe_scan_end(&s);
    if (why) return bad_index(k, &s, why, err);
    if (!found || !k->n_index)
        return moe_fail_at(err, MOE_CORRUPT, k->index_path, NULL, "has no 'weight_map'");
    return MOE_OK;
}

/* The index lists files in the order in which tensors mention them; sort them by name and adjust file_of. */
static enum moe_code sort_files(struct moe_checkpoint *k, struct moe_strmap *files, struct moe_err *err)
{
    struct moe_source *src = k->src;
    int32_t *now = malloc((size_t)src->n_files * sizeof *now);
    if (!now) return no_memory(k, err);
    qsort(src->files, (size_t)src->n_files, sizeof *src->files, by_name);
    for (int32_t i = 0; i < src->n_files; i++)
        now[moe_strmap_get(files, src->files[i].name, strlen(src->files[i].name))] = i;
    for (int64_t i = 0; i < k->n_index; i++) k->file_of[i] = now[k->file_of[i]];
    free(now);
    return MOE_OK;
}

static enum moe_code read_index(struct moe_checkpoint *k, struct moe_err *err)
{
    struct moe_strmap files = { 0 };
    size_t size;
    k->has_index = true;
    MOE_TRY(moe_read_file(k->index_path, INDEX_BYTES, &k->index_text, &size, err));
    enum moe_code code = parse_index(k, size, &files, err);
    if (code == MOE_OK) code = sort_files(k, &files, err);
    moe_strmap_release(&files);
    if (code == MOE_OK && !(k->seen = calloc((size_t)k->n_index, 1))) code = no_memory(k, err);
    return code;
}

enum moe_code moe_checkpoint_list(struct moe_checkpoint *k, struct moe_err *err)
{
    char single[PATH_MAX];
    enum moe_exists there;
    MOE_TRY(moe_path_join(k->index_path, sizeof k->index_path, k->src->path, "model.safetensors.index.json",
                          err));
    MOE_TRY(moe_path_join(single, sizeof single, k->src->path, MOE_ST_SINGLE, err));
    MOE_TRY(moe_look(k->index_path, &there, err));
    if (there != MOE_ABSENT) return read_index(k, err);
    MOE_TRY(moe_look(single, &there, err));
    if (there != MOE_ABSENT) return add_file(k, MOE_ST_SINGLE, err);
    return list_directory(k, err);
}

/* ---- headers ---- */

/* Make a linked list of the index's entries for each file, once for all files, because as many files as there
 * are tensors may be unreadable. */
static enum moe_code chain_index(struct moe_checkpoint *k, struct moe_err *err)
{
    size_t files = (size_t)k->src->n_files;
    if (k->first_in) return MOE_OK;
    k->next_in = malloc((size_t)k->n_index * sizeof *k->next_in);
    k->first_in = malloc(files * sizeof *k->first_in);
    if (!k->next_in || !k->first_in) return no_memory(k, err);
    for (size_t f = 0; f < files; f++) k->first_in[f] = -1;
    for (int64_t i = k->n_index - 1; i >= 0; i--) {
        k->next_in[i] = k->first_in[k->file_of[i]];
        k->first_in[k->file_of[i]] = i;
    }
    return MOE_OK;
}

/* The tensors of a file that cannot be read are not reported missing one by one. */
static enum moe_code suppress_file(struct moe_checkpoint *k, int32_t file, struct moe_err *err)
{
    int64_t slots = moe_source_slots(&k->src->config);
    if (!k->has_index) { /* without an index the file could have held any tensor */
        for (int64_t s = 0; !k->all_suppressed && s < slots; s++) moe_checkpoint_suppress_missing(k, s);
        k->all_suppressed = true;
        return MOE_OK;
    }
    MOE_TRY(chain_index(k, err));
    for (int64_t i = k->first_in[file]; i >= 0; i = k->next_in[i]) {
        struct moe_name n;
        k->seen[i] |= MOE_SEEN;
        if (moe_name_parse(k->names[i], &n))
            moe_checkpoint_suppress_missing(k, moe_source_slot(&k->src->config, n.role, n.layer, n.expert));
    }
    return MOE_OK;
}

/* Find the first safetensors file in the directory that the index does not name; "" when there is none. */
static enum moe_code find_stray(const struct moe_checkpoint *k, char stray[256], struct moe_err *err)
{
    struct moe_names names;
    *stray = 0;
    MOE_TRY(moe_list_dir(k->src->path, &names, err));
    for (size_t i = 0; i < names.n && !*stray; i++) {
        struct moe_file key = { .name = names.v[i] };
        if (is_safetensors(names.v[i]) &&
            !bsearch(&key, k->src->files, (size_t)k->src->n_files, sizeof key, by_name))
            snprintf(stray, 256, "%s", names.v[i]);
    }
    moe_names_release(&names);
    return MOE_OK;
}

/* Report a file that the index names and that does not exist.  A link to nothing is a download that did not
 * finish; other safetensors files beside it, which the index does not name, come from another upload. */
static enum moe_code say_absent(struct moe_checkpoint *k, const struct moe_file *f, struct moe_err *why,
                                struct moe_err *err)
{
    struct stat st;
    if (!lstat(f->path, &st)) {
        if (S_ISLNK(st.st_mode))
            moe_fail_at(
                why, MOE_NOT_FOUND, f->path, NULL,
                "is a link to a file that is not there (the download did not finish: fetch the model again)");
        return MOE_OK;
    }
    if (!k->has_index) return MOE_OK;
    if (!k->stray_looked) MOE_TRY(find_stray(k, k->stray, err));
    k->stray_looked = true;
    if (*k->stray)
        moe_fail_at(why, MOE_NOT_FOUND, f->path, NULL,
                    "is named by model.safetensors.index.json and not there, while '%s' is, which the index "
                    "does not name: the index is another upload's (fetch it again, or remove it)",
                    k->stray);
    else
        moe_fail_at(why, MOE_NOT_FOUND, f->path, NULL,
                    "is named by model.safetensors.index.json and not there (the download did not finish: "
                    "fetch the model again)");
    return MOE_OK;
}

static enum moe_code read_header(struct moe_checkpoint *k, int32_t file, struct moe_err *err)
{
    struct moe_file *f = &k->src->files[file];
    struct moe_st_header h = { 0 };
    struct moe_err why = MOE_ERR_INIT;
    enum moe_code code = moe_source_open_file(k->src, file, &why);
    if (code == MOE_OK) code = moe_st_read(f->fd, f->path, f->size, &k->src->index->arena, &h, &why);
    if (code != MOE_OK) {
        if (code == MOE_NOT_FOUND) MOE_TRY(say_absent(k, f, &why, err));
        moe_problem_add_err(k->p, &why);
        return suppress_file(k, file, err);
    }
    f->header_hash = h.hash;
    code = moe_checkpoint_add_raws(k, file, &h, err);
    if (code == MOE_OK && moe_st_check_size(&h, f->path, f->size, &why) != MOE_OK)
        moe_problem_add_err(k->p, &why);
    free(h.entries);
    return code;
}

static enum moe_code hash_config(struct moe_checkpoint *k, struct moe_hash *h, struct moe_err *err)
{
    char path[PATH_MAX], *text;
    size_t n;
    MOE_TRY(moe_path_join(path, sizeof path, k->src->path, "config.json", err));
    MOE_TRY(moe_read_file(path, INDEX_BYTES, &text, &n, err));
    moe_hash_reset64(h);
    moe_hash_add64(h, text, n);
    free(text);
    return MOE_OK;
}

static enum moe_code read_headers(struct moe_checkpoint *k, struct moe_hash *h, struct moe_err *err)
{
    MOE_TRY(hash_config(k, h, err)); /* first, since the files below may use up all descriptors */
    for (int32_t i = 0; i < k->src->n_files; i++) {
        const struct moe_file *f = &k->src->files[i];
        MOE_TRY(read_header(k, i, err));
        moe_hash_add64(h, f->name, strlen(f->name) + 1);
        moe_hash_add64(h, &f->size, sizeof f->size);
        moe_hash_add64(h, &f->header_hash, sizeof f->header_hash);
    }
    k->src->index->header_digest = moe_hash_get64(h);
    return MOE_OK;
}

enum moe_code moe_checkpoint_read_headers(struct moe_checkpoint *k, struct moe_err *err)
{
    struct moe_hash *h = moe_hash_new();
    if (!h) return no_memory(k, err);
    enum moe_code code = read_headers(k, h, err);
    moe_hash_free(h);
    return code == MOE_OK ? moe_checkpoint_check_raws(k, err) : code;
}
