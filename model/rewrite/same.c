/* SPDX-License-Identifier: Apache-2.0 */
/* Compares a tensor and the small files of a source with what an earlier run recorded. */
#include "model/rewrite/same.h"

#include "base/io.h"
#include "formats/container/small.h"
#include "model/rewrite/files.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Bytes: read at once; of the largest tensor that is compared; of the largest small file. */
enum { PIECE = 1 << 20, TENSOR_BYTES = 64 << 20, SMALL_FILE = 64 << 20 };

/* ---- a tensor of a unit ---- */

/* The raw tensor that a line of a unit's journal describes, and its hash.  Such a line is an array: one
 * line of source.jsonl, whose entry 0 is the name and entry 4 the hash, and behind it, as entry 7, the index
 * of the raw tensor in src->raws.  NULL for a line without a hash or an index, for one that is
 * not of this source, and for a tensor larger than TENSOR_BYTES. */
static const struct moe_raw *find_raw(const struct moe_source *src, const cJSON *line, const char **hash)
{
    const cJSON *name = cJSON_GetArrayItem(line, 0), *hex = cJSON_GetArrayItem(line, 4);
    const cJSON *ordinal = cJSON_GetArrayItem(line, 7);
    if (!cJSON_IsString(name) || !cJSON_IsString(hex) || !cJSON_IsNumber(ordinal)) return NULL;
    if (ordinal->valuedouble < 0 || ordinal->valuedouble >= (double)src->n_raws) return NULL;
    const struct moe_raw *r = &src->raws[(int64_t)ordinal->valuedouble];
    *hash = hex->valuestring;
    return strcmp(r->name, name->valuestring) || r->span.bytes > TENSOR_BYTES ? NULL : r;
}

/* Reads a raw tensor and gives its XXH3-64 in hexadecimal. */
static enum moe_code hash_raw(const struct moe_source *src, const struct moe_raw *r, char hex[17],
                              struct moe_err *err)
{
    struct moe_hash *h = moe_hash_new();

    unsigned char *piece = malloc(PIECE);
    enum moe_code code = h && piece ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory to read a tensor again");
    if (h) moe_hash_reset64(h);
    for (uint64_t at = 0; code == MOE_OK && at < r->span.bytes; at += PIECE) {
        size_t n = r->span.bytes - at < PIECE ? (size_t)(r->span.bytes - at) : PIECE;
        code = moe_source_read_raw(src, r, at, n, piece, err);
        if (code == MOE_OK) moe_hash_add64(h, piece, n);
    }
    if (code == MOE_OK) moe_hex64(moe_hash_get64(h), hex);
    free(piece);
    moe_hash_free(h);
    return code;
}

/* Checks the middle one of the raw tensors that the lines describe; there may be none. */
static enum moe_code check_middle(const struct moe_source *src, const cJSON *lines, const char *unit,
                                  struct moe_err *err)
{
    const struct moe_raw *r = NULL;
    const char *hash = NULL, *other;
    int n = 0, k = 0;
    char hex[17];
    for (const cJSON *l = lines ? lines->child : NULL; l; l = l->next) n += find_raw(src, l, &other) != NULL;
    for (const cJSON *l = n ? lines->child : NULL; l && !r; l = l->next)
        if (find_raw(src, l, &hash) && k++ == n / 2) r = find_raw(src, l, &hash);
    if (!r) return MOE_OK;
    MOE_TRY(hash_raw(src, r, hex, err));
    if (!strcmp(hex, hash)) return MOE_OK;
    return moe_fail_at(err, MOE_MISMATCH, src->files[r->span.file].path, r->name,
                       "it is not what '%s' was made from (start over with --force)", unit);
}

enum moe_code moe_check_same_unit(const struct moe_source *src, const struct moe_writer *w, const char *unit,
                                  const struct moe_cancel *cancel, struct moe_err *err)
{
    cJSON *lines;
    if (src->kind != MOE_CHECKPOINT) return MOE_OK;
    MOE_TRY(moe_writer_unit_source(w, unit, &lines, err));
    enum moe_code code = check_middle(src, lines, unit, err);
    cJSON_Delete(lines);
    return code == MOE_OK ? moe_cancel_check_resumable(cancel, err) : code;
}

/* ---- small files ---- */

/* Fails because the file `name` of the container `made` is not what src would give. */
static enum moe_code fail_differs(const struct moe_source *made, const char *name,
                                  const struct moe_source *src, struct moe_err *err)
{
    return moe_fail_at(err, MOE_MISMATCH, made->path, NULL,
                       "its '%.200s' is not that of '%.200s' (write it again with --force)", name, src->path);
}

/* Whether a container's file is a copy of a file of its checkpoint. */
static bool is_kept(const char *name) { return !strncmp(name, "tokenizer/", 10) || !strncmp(name, "hf/", 3); }

static int64_t count_kept(const struct moe_source *made)
{
    int64_t n = 0;
    for (const cJSON *e = moe_json_get(made->container->manifest, "files")->child; e; e = e->next)
        n += is_kept(moe_json_get(e, "name")->valuestring);
    return n;
}

static double bytes_of(const cJSON *entry) { return moe_json_get(entry, "bytes")->valuedouble; }
static const char *digest_of(const cJSON *entry) { return moe_json_get(entry, "xxh3_128")->valuestring; }

/* Whether the container has a file of this name with this size and digest. */
static bool lists_file(const struct moe_source *made, const char *name, double bytes, const char *digest)
{
    for (const cJSON *e = moe_json_get(made->container->manifest, "files")->child; e; e = e->next)
        if (!strcmp(moe_json_get(e, "name")->valuestring, name))
            return bytes_of(e) == bytes && !strcmp(digest_of(e), digest);
    return false;
}

/* Compares one file of a checkpoint's directory with its copy in the container; *n counts the files that have
 * such a copy.  Other files pass. */
static enum moe_code check_entry(const struct moe_source *src, const struct moe_source *made,
                                 const char *name, int64_t *n, struct moe_err *err)
{
    char path[PATH_MAX], to[PATH_MAX], hex[33], *data;
    size_t bytes;
    enum moe_exists there;
    const char *folder = moe_small_folder(name);

    if (!folder) return MOE_OK;
    snprintf(to, sizeof to, "%s/%s", folder, name);
    MOE_TRY(moe_path_join(path, sizeof path, src->path, name, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_DIR) return MOE_OK;
    MOE_TRY(moe_read_file(path, SMALL_FILE, &data, &bytes, err));
    moe_hex128(moe_hash128(data, bytes), hex);
    free(data);
    ++*n;
    return lists_file(made, to, (double)bytes, hex) ? MOE_OK : fail_differs(made, to, src, err);
}

static enum moe_code check_directory(const struct moe_source *src, const struct moe_source *made, int64_t *n,
                                     struct moe_err *err)
{
    struct moe_names names;
    enum moe_code code = moe_list_dir(src->path, &names, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++) code = check_entry(src, made, names.v[i], n, err);
    moe_names_release(&names);
    return code;
}

enum moe_code moe_check_same_files(const struct moe_source *src, const struct moe_source *made,
                                   struct moe_err *err)
{
    int64_t n = 0;
    if (src->kind == MOE_CHECKPOINT) MOE_TRY(check_directory(src, made, &n, err));
    const cJSON *listed = src->container ? moe_json_get(src->container->manifest, "files") : NULL;
    for (const cJSON *e = listed ? listed->child : NULL; e; e = e->next) {
        const char *name = moe_json_get(e, "name")->valuestring;
        if (!is_kept(name)) continue;
        n++;
        if (!lists_file(made, name, bytes_of(e), digest_of(e))) return fail_differs(made, name, src, err);
    }
    if (n == count_kept(made)) return MOE_OK;
    return moe_fail_at(err, MOE_MISMATCH, made->path, NULL,
                       "it has other small files than '%.200s' (write it again with --force)", src->path);
}
