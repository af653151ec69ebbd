/* SPDX-License-Identifier: Apache-2.0 */
/* A container as a source: everything is checked here when it is opened, so that nothing has to be checked
 * later. */
#include "base/grow.h"
#include "formats/container/container-internal.h"

#include "base/io.h"
#include "base/show.h"
#include "formats/source-parts.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct reader { struct moe_source *src; struct moe_problems *p; size_t cap; };

static enum moe_code no_memory(const struct moe_source *src, struct moe_err *err)
{
    return moe_fail_at(err, MOE_NOMEM, src->path, NULL, "no memory to open it");
}

/* A problem with this tensor was reported, so it is not reported missing, too. */
static enum moe_code suppress_missing(struct reader *r, enum moe_role role, int layer, int expert,
                                      struct moe_err *err)
{
    struct moe_source *src = r->src;
    int64_t slot = moe_source_slot(&src->config, role, layer, expert);
    if (slot < 0) return MOE_OK;
    if (!src->index->missing_suppressed &&
        !(src->index->missing_suppressed = calloc((size_t)moe_source_slots(&src->config) / 8 + 1, 1)))
        return no_memory(src, err);
    src->index->missing_suppressed[slot / 8] |= (unsigned char)(1u << slot % 8);
    return MOE_OK;
}

/* The same for everything in a file that cannot be used; layer -1: dense.moe. */
static enum moe_code suppress_file(struct reader *r, int layer, struct moe_err *err)
{
    const struct moe_config *c = &r->src->config;
    if (layer >= c->num_hidden_layers) return MOE_OK; /* the model has no such layer */
    for (int role = 0; role < MOE_ROLE_COUNT; role++) {
        enum moe_class class = moe_role_class((enum moe_role)role);
        if ((class == MOE_CLASS_EXPERT) != (layer >= 0)) continue;
        if (class == MOE_CLASS_MODEL) MOE_TRY(suppress_missing(r, (enum moe_role)role, -1, -1, err));
        else if (class != MOE_CLASS_EXPERT)
            for (int l = 0; l < c->num_hidden_layers; l++)
                MOE_TRY(suppress_missing(r, (enum moe_role)role, l, -1, err));
        else
            for (int e = 0; e < c->n_routed_experts; e++)
                MOE_TRY(suppress_missing(r, (enum moe_role)role, layer, e, err));
    }
    return MOE_OK;
}

static enum moe_code add_tensor(struct reader *r, const struct moe_tensor *t, struct moe_err *err)
{
    struct moe_source *src = r->src;
    if (!MOE_GROW(src->tensors, r->cap, (size_t)src->n_tensors + 1)) return no_memory(src, err);
    src->tensors[src->n_tensors++] = *t;
    return MOE_OK;
}

static enum moe_code take_table(struct reader *r, int32_t file, const struct moe_shard_header *h,
                                const struct moe_shard_record *rec, struct moe_err *err)
{
    const char *path = r->src->files[file].path;
    for (uint64_t i = 0, used; i < h->record_count; i += used) {
        struct moe_tensor t;
        enum moe_code code = moe_shard_tensor(h, rec + i, h->record_count - i, file, path, &t, &used, err);
        if (code == MOE_NOMEM) return code;
        if (code == MOE_OK) {
            MOE_TRY(add_tensor(r, &t, err));
            continue;
        }
        moe_problem_add_err(r->p, err);
        if (t.role >= 0 && t.role < MOE_ROLE_COUNT)
            MOE_TRY(suppress_missing(r, (enum moe_role)t.role, t.layer, t.expert, err));
    }
    enum moe_code code = moe_shard_check_overlap(rec, h->record_count, path, err);
    if (code == MOE_CORRUPT) moe_problem_add_err(r->p, err), code = MOE_OK;
    return code;
}

static enum moe_code read_shard(struct reader *r, int32_t file, const struct moe_listed_file *f,
                                struct moe_err *err)
{
    struct moe_file *mf = &r->src->files[file];
    unsigned char *head;
    size_t n;
    struct moe_shard_header h;
    MOE_TRY(moe_source_open_file(r->src, file, err));
    if (mf->size != f->bytes)
        return moe_fail_at(
            err, MOE_CORRUPT, mf->path, NULL, "%llu byte%s, the manifest says %llu (copy the file again)",
            (unsigned long long)mf->size, moe_plural((int64_t)mf->size), (unsigned long long)f->bytes);
    MOE_TRY(moe_shard_read_head(mf->fd, mf->path, mf->size, &head, &n, err));
    memcpy(&h, head, sizeof h);
    mf->header_hash = moe_hash64(head, n);
    enum moe_code code = MOE_OK;
    if (!moe_same128(moe_hash128(head, n), f->digest))
        code = moe_fail_at(err, MOE_CORRUPT, mf->path, NULL,
                           "header and table are not those of the manifest (copy the file again)");
    else if (h.layer != moe_shard_name_layer(f->name))
        code = moe_fail_at(err, MOE_CORRUPT, mf->path, NULL, "it holds layer %d, which its name does not say",
                           h.layer);
    else if (!(h.incompatible & MOE_SHARD_STAGED) != !r->src->staged)
        code = moe_fail_at(err, MOE_CORRUPT, mf->path, NULL,
                           "it is a file of %s, and the manifest is one of %s (stage it again)",
                           r->src->staged ? "a whole container" : "a staged part",
                           r->src->staged ? "a staged part" : "a whole container");
    else
        code = take_table(r, file, &h, (const struct moe_shard_record *)(const void *)(head + sizeof h), err);
    free(head);
    return code;
}

static bool is_fatal(enum moe_code code) { return code == MOE_NOMEM || code == MOE_INTERNAL; }

static enum moe_code check_small(struct reader *r, const struct moe_listed_file *f, struct moe_err *err)
{
    char path[PATH_MAX];
    int fd;
    uint64_t size;
    MOE_TRY(moe_path_join(path, sizeof path, r->src->path, f->name, err));
    MOE_TRY(moe_open_read(path, &fd, &size, err));
    moe_unlock(fd);
    if (size != f->bytes)
        return moe_fail_at(err, MOE_CORRUPT, path, NULL,
                           "%llu byte%s, the manifest says %llu (copy the file again)",
                           (unsigned long long)size, moe_plural((int64_t)size), (unsigned long long)f->bytes);
    return MOE_OK;
}

static enum moe_code add_file(struct reader *r, const char *name, struct moe_err *err)
{
    struct moe_source *src = r->src;
    char path[PATH_MAX];
    MOE_TRY(moe_path_join(path, sizeof path, src->path, name, err));
    struct moe_file *f = &src->files[src->n_files];
    *f = (struct moe_file){ .name = strdup(name), .path = strdup(path), .fd = -1 };
    src->n_files++;
    return f->name && f->path ? MOE_OK : no_memory(src, err);
}

static enum moe_code read_files(struct reader *r, struct moe_err *err)
{
    struct moe_source *src = r->src;
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(src->container->manifest, "files");
    size_t n = 0;
    for (const cJSON *e = files->child; e; e = e->next) n++;
    if (!(src->files = calloc(n, sizeof *src->files))) return no_memory(src, err);
    for (const cJSON *e = files->child; e; e = e->next) {
        struct moe_listed_file f;
        enum moe_code code;
        moe_manifest_entry(e, &f);
        src->container->bytes += f.bytes;
        if (moe_is_shard_name(f.name)) {
            MOE_TRY(add_file(r, f.name, err));
            code = read_shard(r, src->n_files - 1, &f, err);
            int layer = moe_shard_name_layer(f.name);
            if (code != MOE_OK && !is_fatal(code) && layer >= -1) {
                struct moe_err e2;
                MOE_TRY(suppress_file(r, layer, &e2) == MOE_OK ? MOE_OK : no_memory(src, err));
            }
        } else {
            code = check_small(r, &f, err);
        }
        if (is_fatal(code)) return code;
        if (code == MOE_NOT_FOUND)
            code = moe_fail_at(err, MOE_CORRUPT, f.name, NULL,
                               "the file is missing (copy the container again)");
        if (code != MOE_OK) moe_problem_add_err(r->p, err);
    }
    return MOE_OK;
}

static enum moe_code read_part(struct moe_source *src, const char *path, struct moe_err *err)
{
    const cJSON *part = moe_json_get(src->container->manifest, "part"),
                *layers = moe_json_get(part, "layers");
    int64_t n = src->config.num_hidden_layers;
    if (!part) return MOE_OK;
    const cJSON *a = layers ? layers->child : NULL, *b = a ? a->next : NULL;
    bool ok = cJSON_IsArray(layers) && cJSON_IsNumber(a) && cJSON_IsNumber(b) && !b->next &&
              a->valuedouble >= 0 && a->valuedouble <= b->valuedouble && b->valuedouble < (double)n &&
              a->valuedouble == floor(a->valuedouble) && b->valuedouble == floor(b->valuedouble);
    if (ok) src->part = (struct moe_layer_range){ (int32_t)a->valuedouble, (int32_t)b->valuedouble };
    if (!ok)
        return moe_fail_at(err, MOE_CORRUPT, path, NULL,
                           "'part' does not give its first and last layer within %lld", (long long)n);
    src->is_part = true;
    return MOE_OK;
}

static enum moe_code read_manifest(struct moe_source *src, bool **there, struct moe_err *err)
{
    char path[PATH_MAX];
    enum moe_scheme scheme;
    uint64_t size;
    struct moe_container *c = src->container = calloc(1, sizeof *c);
    if (!c || !(c->dir = strdup(src->path))) return no_memory(src, err);
    MOE_TRY(moe_path_join(path, sizeof path, src->path, MOE_MANIFEST_NAME, err));
    MOE_TRY(moe_file_digest(path, &size, &src->index->manifest, err));
    c->bytes = size;
    MOE_TRY(moe_manifest_read(src->path, &c->manifest, err));
    MOE_TRY(moe_config_parse(moe_json_get(c->manifest, "config"), path, &src->config, &scheme, err));
    MOE_TRY(read_part(src, path, err));
    MOE_TRY(moe_staged_read(src, path, there, err));
    const char *sum = src->staged ? src->staged->from
                                  : cJSON_GetObjectItemCaseSensitive(c->manifest, "checksum")->valuestring;
    src->index->header_digest = moe_hash64(sum, strlen(sum));
    /* For a staged part this is the checksum of the whole container, because the part has the identity of the
     * whole. */
    MOE_CHECK(moe_parse_hex128(sum, &src->index->checksum));
    return MOE_OK;
}

static enum moe_code read_tensors(struct moe_source *src, const bool *there, struct moe_problems *p,
                                  struct moe_err *err)
{
    struct reader r = { .src = src, .p = p };
    MOE_TRY(read_files(&r, err));
    MOE_TRY(moe_source_finish(src, p, err));
    if (src->staged) moe_staged_mark_absent(src, there);
    return moe_source_read_scalars(src, p, err);
}

static enum moe_code open_all(struct moe_source *src, struct moe_problems *p, struct moe_err *err)
{
    bool *there = NULL;
    enum moe_code code = read_manifest(src, &there, err);
    if (code == MOE_OK) code = read_tensors(src, there, p, err);
    free(there);
    return code;
}

enum moe_code moe_container_open(struct moe_source **out, const char *path, cJSON *list, struct moe_err *err)
{
    struct moe_problems p = { .list = list };
    *out = NULL;
    struct moe_source *src;
    MOE_TRY(moe_source_new(&src, MOE_CONTAINER, path, err));
    enum moe_code code = open_all(src, &p, err);
    if (code == MOE_OK) code = moe_problems_end(&p, err);
    if (code != MOE_OK) moe_source_close(&src);
    else *out = src;
    return code;
}

void moe_container_release(struct moe_source *src)
{
    struct moe_container *c = src->container;
    if (!c) return;
    for (int i = 0; i < c->n_parts; i++) moe_source_close(&c->parts[i]);
    free(c->parts);
    cJSON_Delete(c->manifest);
    free(c->dir);
    free(c);
    src->container = NULL;
}

enum moe_code moe_file_digest(const char *path, uint64_t *bytes, struct moe_hash128 *digest,
                              struct moe_err *err)
{
    enum { PIECE = 1 << 20 };
    int fd;
    MOE_TRY(moe_open_read(path, &fd, bytes, err));
    struct moe_hash *h = moe_hash_new();
    unsigned char *piece = malloc(PIECE);
    enum moe_code code = h && piece ? MOE_OK : moe_fail_at(err, MOE_NOMEM, path, NULL,
                                                           "no memory to read it");
    if (h) moe_hash_reset128(h);
    for (uint64_t at = 0, n; code == MOE_OK && at < *bytes; at += n) {
        n = *bytes - at < PIECE ? *bytes - at : PIECE;
        code = moe_pread(fd, path, piece, (size_t)n, at, err);
        if (code == MOE_OK) moe_hash_add128(h, piece, (size_t)n);
    }
    if (code == MOE_OK) *digest = moe_hash_get128(h);
    close(fd);
    moe_hash_free(h);
    free(piece);
    return code;
}

enum moe_code moe_container_check_file(const struct moe_source *src, const char *name, char path[PATH_MAX],
                                       struct moe_err *err)
{
    struct moe_listed_file f;
    struct moe_hash128 digest;
    uint64_t bytes;
    if (!moe_manifest_find(src->container->manifest, name, &f))
        return moe_fail_at(err, MOE_NOT_FOUND, src->path, NULL, "its manifest lists no '%.100s'", name);
    MOE_TRY(moe_path_join(path, PATH_MAX, src->path, name, err));
    MOE_TRY(moe_file_digest(path, &bytes, &digest, err));
    if (bytes == f.bytes && moe_same128(digest, f.digest)) return MOE_OK;
    return moe_fail_at(err, MOE_CORRUPT, path, NULL, "does not match its checksum (copy the file again)");
}

enum moe_code moe_container_plane_matches(const struct moe_source *src, const struct moe_tensor *t, int plane,
                                          unsigned char *buf, size_t cap, bool *matches, struct moe_err *err)
{
    const struct moe_span *span = &t->plane[plane];
    struct moe_hash *h = moe_hash_new();
    enum moe_code code = MOE_OK;
    if (!h) return moe_fail_at(err, MOE_NOMEM, src->path, NULL, "no memory to check it");
    moe_hash_reset64(h);
    for (uint64_t at = 0, n; code == MOE_OK && at < span->bytes; at += n) {
        n = span->bytes - at < cap ? span->bytes - at : cap;
        code = moe_source_read(src, t, plane, at, (size_t)n, buf, err);
        if (code == MOE_OK) moe_hash_add64(h, buf, (size_t)n);
    }
    *matches = code == MOE_OK && moe_hash_get64(h) == t->hash[plane];
    moe_hash_free(h);
    moe_source_drop(src, span);
    return code;
}

bool moe_container_lists(const struct moe_source *src, const char *name)
{
    struct moe_listed_file f;
    return src->container && moe_manifest_find(src->container->manifest, name, &f);
}

enum moe_code moe_container_read_file(const struct moe_source *src, const char *name, char **data,
                                      size_t *bytes, struct moe_err *err)
{
    char path[PATH_MAX];
    struct moe_listed_file f;
    if (!moe_manifest_find(src->container->manifest, name, &f))
        return moe_fail_at(err, MOE_NOT_FOUND, src->path, NULL, "its manifest lists no '%.100s'", name);
    MOE_TRY(moe_path_join(path, sizeof path, src->path, name, err));
    MOE_TRY(moe_read_file(path, (size_t)1 << 30, data, bytes, err));
    if (*bytes == f.bytes && moe_same128(moe_hash128(*data, *bytes), f.digest)) return MOE_OK;
    free(*data);
    *data = NULL;
    return moe_fail_at(err, MOE_CORRUPT, path, NULL, "does not match its checksum (copy the file again)");
}
