/* SPDX-License-Identifier: Apache-2.0 */
/* The lines of source.jsonl, and the small files of a source. */
#include "model/rewrite/files.h"

#include "base/io.h"
#include "formats/container/original.h"
#include "formats/container/small.h"
#include "formats/routing.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SMALL_FILE = 64 << 20, KEEP_BYTES = 1024 };

#define SOURCE "source.jsonl"

/* Appends [name, dtype, shape, file, hash or null, reason why it is skipped or null, bytes in hexadecimal or
 * null, index of the raw tensor]. */
static enum moe_code entry(cJSON *source, const struct moe_source *src, int64_t raw, const char *hash,
                           const char *bytes, struct moe_err *err)
{
    const struct moe_raw *r = &src->raws[raw];
    double shape[8];

    for (int i = 0; i < r->ndim; i++) shape[i] = (double)r->shape[i];
    cJSON *a = cJSON_CreateArray();
    bool ok = a && moe_json_append(a, cJSON_CreateString(r->name)) &&
              moe_json_append(a, cJSON_CreateString(r->dtype)) &&
              moe_json_append(a, r->ndim ? cJSON_CreateDoubleArray(shape, r->ndim) : cJSON_CreateArray()) &&
              moe_json_append(a, cJSON_CreateString(src->files[r->span.file].name)) &&
              moe_json_append(a, hash ? cJSON_CreateString(hash) : cJSON_CreateNull()) &&
              moe_json_append(a, r->skipped ? cJSON_CreateString(r->skipped) : cJSON_CreateNull()) &&
              moe_json_append(a, bytes ? cJSON_CreateString(bytes) : cJSON_CreateNull()) &&
              moe_json_append(a, cJSON_CreateNumber((double)raw));
    if (ok && moe_json_append(source, a)) return MOE_OK;
    if (!ok) cJSON_Delete(a);
    return moe_fail(err, MOE_NOMEM, "no memory for provenance");
}

enum moe_code moe_source_entry(cJSON *source, const struct moe_source *src, int64_t raw, uint64_t hash,
                               struct moe_err *err)
{
    char hex[17];
    moe_hex64(hash, hex);
    return entry(source, src, raw, hex, NULL, err);
}

bool moe_raw_is_kept(const struct moe_raw *r)
{
    static const char *const small[] = { "weight_shape", "kv scale", "rotary buffer" };
    bool kept = r->tensor >= 0;
    for (size_t i = 0; !kept && r->skipped && i < sizeof small / sizeof *small; i++)
        kept = !strcmp(r->skipped, small[i]) && r->span.bytes && r->span.bytes <= KEEP_BYTES;
    return kept;
}

enum moe_code moe_source_skipped(cJSON *source, const struct moe_source *src, struct moe_err *err)
{
    for (int64_t i = 0; i < src->n_raws; i++) {
        const struct moe_raw *r = &src->raws[i];
        unsigned char b[KEEP_BYTES];
        char hex[17], text[2 * KEEP_BYTES + 1];
        if (r->tensor >= 0) continue;
        if (!moe_raw_is_kept(r)) {
            MOE_TRY(entry(source, src, i, NULL, NULL, err));
            continue;
        }
        MOE_TRY(moe_source_read_raw(src, r, 0, (size_t)r->span.bytes, b, err));
        for (size_t k = 0; k < r->span.bytes; k++) snprintf(text + 2 * k, 3, "%02x", b[k]);
        text[2 * r->span.bytes] = 0;
        moe_hex64(moe_hash64(b, (size_t)r->span.bytes), hex);
        MOE_TRY(entry(source, src, i, hex, text, err));
    }
    return MOE_OK;
}

static enum moe_code copy_one(const char *dir, const char *name, struct moe_writer *w, const char *to,
                              struct moe_err *err)
{
    char path[PATH_MAX];
    char *data;
    size_t n;
    enum moe_exists there;
    MOE_TRY(moe_path_join(path, sizeof path, dir, name, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_DIR) return MOE_OK; /* a pipe or a broken link makes the next call fail */
    MOE_TRY(moe_read_file(path, SMALL_FILE, &data, &n, err));
    enum moe_code code = moe_writer_add_file(w, to, data, n, err);
    free(data);
    return code;
}

static enum moe_code copy_checkpoint(const char *dir, struct moe_writer *w, struct moe_err *err)
{
    char to[PATH_MAX];
    struct moe_names names;
    enum moe_code code = moe_list_dir(dir, &names, err);
    for (size_t i = 0; code == MOE_OK && i < names.n; i++) {
        const char *folder = moe_small_folder(names.v[i]);
        if (!folder) continue;
        snprintf(to, sizeof to, "%s/%s", folder, names.v[i]);
        code = copy_one(dir, names.v[i], w, to, err);
    }
    moe_names_release(&names);
    return code;
}

/* Copies all files that the manifest lists but shards, source.jsonl and what other functions write. */
static enum moe_code copy_container(const struct moe_source *src, struct moe_writer *w, bool rest,
                                    struct moe_err *err)
{
    const cJSON *files = moe_json_get(src->container->manifest, "files");

    for (const cJSON *e = files ? files->child : NULL; e; e = e->next) {
        const char *name = cJSON_GetObjectItemCaseSensitive(e, "name")->valuestring;
        char *data;
        size_t n;
        if (moe_ends_with(name, ".moe") || !strcmp(name, SOURCE) ||
            (src->container->n_parts && !strcmp(name, MOE_ROUTING_NAME)))
            continue;
        /* moe_keep_extra copies vision.safetensors and superseded.safetensors */
        if ((!rest && !strcmp(name, MOE_ORIGINAL_NAME)) || moe_extra_is_file(name)) continue;
        MOE_TRY(moe_container_read_file(src, name, &data, &n, err));
        enum moe_code code = moe_writer_add_file(w, name, data, n, err);
        free(data);
        MOE_TRY(code);
    }
    return MOE_OK;
}

static enum moe_code add_merged_routing(const struct moe_source *src, struct moe_writer *w,
                                        struct moe_err *err)
{
    char *text;
    size_t bytes;
    MOE_TRY(moe_source_merge_routing(src, &text, &bytes, err));
    enum moe_code code = text ? moe_writer_add_file(w, MOE_ROUTING_NAME, text, bytes, err) : MOE_OK;
    free(text);
    return code;
}

enum moe_code moe_copy_files(const struct moe_source *src, struct moe_writer *w, bool rest, char **jsonl,
                             size_t *jsonl_bytes,
                             struct moe_err *err)
{
    *jsonl = NULL;
    *jsonl_bytes = 0;
    if (src->kind == MOE_CHECKPOINT) {
        struct moe_rest_left left;
        MOE_TRY(copy_checkpoint(src->path, w, err));
        return rest ? moe_keep_rest(src, w, &left, err) : MOE_OK;
    }
    MOE_TRY(copy_container(src, w, rest, err));
    if (src->container->n_parts) MOE_TRY(add_merged_routing(src, w, err));
    if (src->container->n_parts) return moe_source_merge_lines(src, jsonl, jsonl_bytes, err);
    return moe_container_read_file(src, SOURCE, jsonl, jsonl_bytes, err);
}

static uint64_t small_bytes(const struct moe_source *src)
{
    uint64_t sum = 0;
    char path[PATH_MAX];
    struct moe_names names;
    struct moe_err ignored; /* a file that cannot be read is an error only when it is copied */
    struct stat st;
    const cJSON *files = src->container ? moe_json_get(src->container->manifest, "files") : NULL;

    for (const cJSON *e = files ? files->child : NULL; e; e = e->next)
        if (!moe_ends_with(moe_json_get(e, "name")->valuestring, ".moe"))
            sum += (uint64_t)moe_json_get(e, "bytes")->valuedouble;
    if (src->container || moe_list_dir(src->path, &names, &ignored) != MOE_OK) return sum;
    for (size_t i = 0; i < names.n; i++)
        if (moe_small_folder(names.v[i]) &&
            moe_path_join(path, sizeof path, src->path, names.v[i], &ignored) == MOE_OK && !stat(path, &st))
            sum += (uint64_t)st.st_size;
    moe_names_release(&names);
    return sum;
}

/* Bytes for a raw tensor: its lines in a journal and in source.jsonl, about 140 each with short names. */
enum { LINES_BYTES = 640 };

uint64_t moe_other_files_bytes(const struct moe_source *src, int copies)
{
    return (uint64_t)copies * small_bytes(src) + (uint64_t)src->n_raws * LINES_BYTES + (1 << 20);
}
