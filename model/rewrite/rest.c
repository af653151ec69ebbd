/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/rest.c - source.rest: the headers, the index and those small files of a checkpoint that a
 * container keeps nowhere else. */
#include "model/rewrite/files.h"

#include "base/io.h"
#include "base/show.h"
#include "formats/checkpoint/safetensors.h"
#include "formats/container/original.h"
#include "formats/container/owner.h"
#include "formats/container/small.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Limits: bytes of all other files together, levels of nested directories, bytes of an index. */
enum { OTHER_BYTES = 64 << 20, DEPTH = 4, INDEX_BYTES = 1 << 30 };

/* One call of moe_keep_rest. */
struct keeper {
    const struct moe_source *src;
    struct moe_buffer out;        /* the content of source.rest */
    bool only_count;              /* only count what is left out, keep nothing */
    uint64_t others;              /* bytes of other files that were kept until now */
    struct moe_rest_left *left;
};

/* ---- headers ---- */

/* Reads the header of a file into *text, with the 8 bytes of its length before it; *n becomes its length
 * without these.  The caller frees *text after success.  MOE_CORRUPT when the file has changed since its
 * tensors were listed. */
static enum moe_code read_header(const struct moe_file *f, char **text, size_t *n, struct moe_err *err)
{
    unsigned char word[8];
    uint64_t size, bytes = 0;
    int fd;
    MOE_TRY(moe_open_read(f->path, &fd, &size, err));
    enum moe_code code = moe_pread(fd, f->path, word, 8, 0, err);
    for (int i = 7; i >= 0; i--) bytes = bytes << 8 | word[i];
    if (code == MOE_OK && bytes > MOE_ST_HEADER_MAX)
        code = moe_fail_at(err, MOE_CORRUPT, f->path, NULL, "was changed while it was read");
    *text = code == MOE_OK ? malloc((size_t)bytes + 8) : NULL;
    if (code == MOE_OK && !*text)
        code = moe_fail_at(err, MOE_NOMEM, f->path, NULL, "no memory for its header");
    if (code == MOE_OK) code = moe_pread(fd, f->path, *text, (size_t)bytes + 8, 0, err);
    close(fd);
    if (code == MOE_OK && moe_hash64(*text, (size_t)bytes + 8) != f->header_hash)
        code = moe_fail_at(err, MOE_CORRUPT, f->path, NULL, "was changed while it was read");
    if (code != MOE_OK) free(*text);
    *n = (size_t)bytes;
    return code;
}

/* Keeps the header of file i, whose tensors are src->raws [first, first + n), as its difference from the
 * header that this tool would write. */
static enum moe_code keep_header(struct keeper *k, int32_t i, int64_t first, int64_t n, struct moe_err *err)
{
    const struct moe_file *f = &k->src->files[i];
    char *plain = NULL, *text = NULL;
    size_t plain_n = 0, text_n = 0;
    struct moe_st_entry *t = calloc((size_t)n + 1, sizeof *t);

    if (!t) return moe_fail_at(err, MOE_NOMEM, f->path, NULL, "no memory for its header");
    for (int64_t r = 0; r < n; r++) {
        const struct moe_raw *raw = &k->src->raws[first + r];
        t[r] = (struct moe_st_entry){ .name = raw->name, .dtype = raw->dtype, .ndim = raw->ndim };
        memcpy(t[r].shape, raw->shape, sizeof t[r].shape);
    }
    enum moe_code code = moe_st_header_text(t, n, f->path, &plain, &plain_n, err);
    if (code == MOE_OK) code = read_header(f, &text, &text_n, err);
    if (code == MOE_OK) {
        code = moe_original_add(&k->out, MOE_ORIGINAL_HEADER, f->name, text + 8, text_n, plain, plain_n, err);
        free(text);
    }
    free(plain);
    free(t);
    return code;
}

static enum moe_code keep_headers(struct keeper *k, struct moe_err *err)
{
    int64_t at = 0;
    for (int32_t i = 0; i < k->src->n_files; i++) {
        int64_t first = at;
        while (at < k->src->n_raws && k->src->raws[at].span.file == i) at++;
        MOE_TRY(keep_header(k, i, first, at - first, err));
    }
    return MOE_OK;
}

/* ---- the index ---- */

/* Makes the index that this tool would write.  The caller frees *text. */
static enum moe_code make_plain_index(const struct moe_source *src, char **text, size_t *n,
                                      struct moe_err *err)
{
    size_t count = (size_t)src->n_raws + 1;
    const char **names = malloc(count * sizeof *names);
    const char **files = malloc(count * sizeof *files);
    enum moe_code code = names && files ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for an index");
    uint64_t bytes = 0;
    int64_t k = 0;

    for (int64_t i = 0; code == MOE_OK && i < src->n_raws; i++) {
        const struct moe_raw *r = &src->raws[i];
        if (moe_extra_kind_of(r->skipped) == MOE_EXTRA_SUPERSEDED) continue;
        names[k] = r->name;
        files[k++] = src->files[r->span.file].name;
        bytes += r->span.bytes;
    }
    if (code == MOE_OK) code = moe_st_index_text(names, files, k, bytes, text, n, err);
    free(names);
    free(files);
    return code;
}

static enum moe_code keep_index(struct keeper *k, struct moe_err *err)
{
    char path[PATH_MAX], *text, *plain;
    size_t n, plain_n;
    enum moe_exists there;

    MOE_TRY(moe_path_join(path, sizeof path, k->src->path, MOE_INDEX_NAME, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_ABSENT) return MOE_OK;
    MOE_TRY(moe_read_file(path, INDEX_BYTES, &text, &n, err));
    enum moe_code code = make_plain_index(k->src, &plain, &plain_n, err);
    if (code == MOE_OK) {
        code = moe_original_add(&k->out, MOE_ORIGINAL_INDEX, MOE_INDEX_NAME, text, n, plain, plain_n, err);
        free(plain);
    }
    free(text);
    return code;
}

/* ---- other files ---- */

static void leave_out(struct keeper *k, const char *name)
{
    struct moe_rest_left *l = k->left;
    if (l->n < (int64_t)(sizeof l->named / sizeof *l->named))
        snprintf(l->named[l->n], sizeof *l->named, "%s", name);
    l->n++;
}

/* Whether `name` is one of the model's files of weights, which are kept in other ways. */
static bool is_weight_file(const struct keeper *k, const char *name)
{
    for (int32_t i = 0; i < k->src->n_files; i++)
        if (!strcmp(k->src->files[i].name, name)) return true;
    return false;
}

static enum moe_code keep_file(struct keeper *k, const char *path, const char *name, struct moe_err *err)
{
    char *data;
    size_t n;
    uint64_t size;
    int fd;

    MOE_TRY(moe_open_read(path, &fd, &size, err));
    close(fd);
    if (size > OTHER_BYTES - k->others || moe_ends_with(name, ".safetensors")) {
        leave_out(k, name);
        return MOE_OK;
    }
    k->others += size;
    if (k->only_count) return MOE_OK;
    MOE_TRY(moe_read_file(path, OTHER_BYTES, &data, &n, err));
    enum moe_code code = moe_original_add(&k->out, MOE_ORIGINAL_FILE, name, data, n, "", 0, err);
    free(data);
    return code;
}

/* Whether the name is UTF-8, as names in source.rest must be, which are JSON strings. */
static bool is_utf8(const char *name)
{
    size_t n = strlen(name);
    return moe_utf8_prefix((const unsigned char *)name, n) == n;
}

/* Sets *foreign to whether a directory is another model or something that these tools write, or is hidden. */
static enum moe_code is_foreign(const char *path, const char *name, bool *foreign, struct moe_err *err)
{
    char config[PATH_MAX];
    enum moe_exists there;
    *foreign = *name == '.' || moe_ends_with(name, ".moe") || moe_ends_with(name, ".partial");
    if (!*foreign) MOE_TRY(moe_manifest_is_ours(path, foreign, err));
    if (!*foreign) MOE_TRY(moe_state_is_ours(path, foreign, err));
    if (*foreign) return MOE_OK;
    MOE_TRY(moe_path_join(config, sizeof config, path, "config.json", err));
    MOE_TRY(moe_look(config, &there, err));
    *foreign = there != MOE_ABSENT;
    return MOE_OK;
}

/* Keeps an empty directory; `under` is its name followed by a slash. */
static enum moe_code keep_directory(struct keeper *k, const char *under, struct moe_err *err)
{
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%.*s", (int)strlen(under) - 1, under);
    if (!moe_original_name(name) || !is_utf8(name)) leave_out(k, name);
    else if (!k->only_count)
        return moe_original_add(&k->out, MOE_ORIGINAL_DIRECTORY, name, "", 0, "", 0, err);
    return MOE_OK;
}

/* Keeps the other files in the directory `dir`, whose name within the checkpoint is `under` ("" for the
 * checkpoint itself, else "docs/"). */
static enum moe_code keep_others(struct keeper *k, const char *dir, const char *under, int depth,
                                 struct moe_err *err)
{
    struct moe_names names;
    enum moe_code code = moe_list_dir(dir, &names, err);

    if (code == MOE_OK && !names.n && *under) code = keep_directory(k, under, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++) {
        char path[PATH_MAX], name[PATH_MAX];
        enum moe_exists there;
        bool fits = snprintf(name, sizeof name, "%s%s", under, names.v[i]) < PATH_MAX;
        code = moe_path_join(path, sizeof path, dir, names.v[i], err);
        if (code == MOE_OK) code = moe_look(path, &there, err);
        if (code != MOE_OK) break;
        if (!*under && (is_weight_file(k, name) || !strcmp(name, MOE_INDEX_NAME) ||
                        (there != MOE_DIR && moe_small_folder(name)))) continue;
        bool foreign = !depth || !fits;
        if (there == MOE_DIR && !foreign) code = is_foreign(path, names.v[i], &foreign, err);
        if (code != MOE_OK) break;
        if (there == MOE_DIR && !foreign) {
            char below[PATH_MAX + 1];
            snprintf(below, sizeof below, "%s/", name);
            code = keep_others(k, path, below, depth - 1, err);
        } else if (there == MOE_FILE && fits && moe_original_name(name) && is_utf8(name)) {
            code = keep_file(k, path, name, err);
        } else {
            leave_out(k, name);
        }
    }
    moe_names_release(&names);
    return code;
}

enum moe_code moe_keep_rest(const struct moe_source *src, struct moe_writer *w, struct moe_rest_left *left,
                            struct moe_err *err)
{
    struct keeper k = { .src = src, .only_count = !w, .left = left };
    left->n = 0;
    enum moe_code code = w ? keep_headers(&k, err) : MOE_OK;
    if (code == MOE_OK && w) code = keep_index(&k, err);
    if (code == MOE_OK) code = keep_others(&k, src->path, "", DEPTH, err);
    if (code == MOE_OK && w) code = moe_writer_add_file(w, MOE_ORIGINAL_NAME, k.out.p, k.out.n, err);
    free(k.out.p);
    return code;
}
