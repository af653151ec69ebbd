/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/source.h"

#include "base/hash.h"
#include "base/io.h"
#include "base/newdir.h"
#include "formats/checkpoint/foreign.h"
#include "formats/container/owner.h"
#include "formats/container/staged.h"
#include "formats/source-parts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

enum { FOLIO = 2 << 20 };

/* ---- opening and closing ---- */

enum moe_code moe_source_new(struct moe_source **out, enum moe_kind kind, const char *path,
                             struct moe_err *err)
{
    struct moe_source *src = calloc(1, sizeof *src);
    *out = NULL;
    if (src) {
        src->kind = kind;
        src->layout = moe_dtype_name(MOE_BF16);
        src->path = strdup(path);
        src->index = calloc(1, sizeof *src->index);
    }
    if (!src || !src->path || !src->index) {
        moe_source_close(&src);
        return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to open it");
    }
    *out = src;
    return MOE_OK;
}

void moe_source_close(struct moe_source **out)
{
    struct moe_source *src = *out;
    *out = NULL;
    if (!src) return;
    if (src->container) moe_container_release(src);
    for (int32_t i = 0; i < src->n_files; i++) {
        struct moe_file *f = &src->files[i];
        moe_unmap(f->map, f->size);
        if (f->fd >= 0) close(f->fd);
        free(f->name);
        free(f->path);
    }
    if (src->index) {
        moe_arena_clear(&src->index->arena);
        free(src->index->slot);
        free(src->index->raw_of);
        free(src->index->missing_suppressed);
        moe_small_digests_release(&src->index->small_digests);
        free(src->index);
    }
    free(src->files);
    free(src->tensors);
    free(src->raws);
    free(src->staged);
    free(src->path);
    free(src);
}

static bool raise_file_limit(void)
{
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur == r.rlim_max) return false;
    r.rlim_cur = r.rlim_max;
    return !setrlimit(RLIMIT_NOFILE, &r);
}

enum moe_code moe_source_open_file(struct moe_source *src, int32_t i, struct moe_err *err)
{
    struct moe_file *f = &src->files[i];
    enum moe_code code = moe_open_read(f->path, &f->fd, &f->size, err);
    int e = errno;
    if (code == MOE_OK) return moe_written_at(f->fd, f->path, &f->written, &f->size, err);
    bool full = code == MOE_IO && e == EMFILE;
    if (full && raise_file_limit()) {
        code = moe_open_read(f->path, &f->fd, &f->size, err);
        full = code == MOE_IO && errno == EMFILE;
    }
    if (code == MOE_OK) return moe_written_at(f->fd, f->path, &f->written, &f->size, err);
    f->fd = -1;
    if (full)
        return moe_fail_at(err, MOE_IO, f->path, NULL, "too many open files: %d are needed (raise ulimit -n)",
                           src->n_files);
    return code;
}

/* ---- open ---- */

static enum moe_code open_any(struct moe_source **src, const char *path, cJSON *list, struct moe_err *err)
{
    char config[PATH_MAX];
    bool container;
    struct moe_problems p = { .list = list };
    enum moe_exists there;
    *src = NULL;
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_ABSENT)
        return moe_fail_at(err, MOE_NOT_FOUND, path, NULL,
                           "does not exist (models are directories on this machine; nothing is fetched)");
    if (there == MOE_FILE) MOE_TRY(moe_foreign_path(path, err));
    if (there != MOE_DIR)
        return moe_fail_at(
            err, MOE_NOT_FOUND, path, NULL,
            "is not a directory (give the one that holds the model's config.json or manifest.json)");
    MOE_TRY(moe_path_join(config, sizeof config, path, "config.json", err));
    MOE_TRY(moe_dir_is_container(path, &container, err));
    if (container) return moe_container_open(src, path, list, err);
    MOE_TRY(moe_look(config, &there, err));
    if (there == MOE_ABSENT) MOE_TRY(moe_foreign_path(path, err));
    if (there == MOE_ABSENT)
        return moe_fail_at(err, MOE_NOT_FOUND, path, NULL,
                           "holds neither a config.json nor a manifest.json (is it a model's directory?)");
    enum moe_code code = moe_checkpoint_open(src, path, &p, err);
    if (code == MOE_OK) code = moe_problems_end(&p, err);
    if (code != MOE_OK) moe_source_close(src);
    return code;
}

enum moe_code moe_source_check_overlap(const struct moe_source *src, const char *out, struct moe_err *err)
{
    int parts = src->container ? src->container->n_parts : 0;
    for (int i = 0; i < parts; i++) MOE_TRY(moe_source_check_overlap(src->container->parts[i], out, err));
    return parts ? MOE_OK : moe_newdir_check_overlap(out, src->path, "is read", err);
}

/* Refuse a part of a model: one with some layers only, and a staged part unless the caller accepts it. */
static enum moe_code refuse_part(const struct moe_source *src, bool staged, struct moe_err *err)
{
    if (src->is_part)
        return moe_fail_at(
            err, MOE_UNSUPPORTED, src->path, NULL,
            "holds layers %d-%d of its model only (put the parts together with moe-convert --merge)",
            src->part.first, src->part.last);
    MOE_TRY(moe_staged_check_marked(src, err));
    return staged ? MOE_OK : moe_staged_check_whole(src, err);
}

static enum moe_code open_model(struct moe_source **src, const char *path, bool staged, struct moe_err *err)
{
    MOE_TRY(open_any(src, path, NULL, err));
    enum moe_code code = refuse_part(*src, staged, err);
    if (code != MOE_OK) moe_source_close(src);
    return code;
}

enum moe_code moe_source_open(struct moe_source **src, const char *path, struct moe_err *err)
{
    return open_model(src, path, false, err);
}

enum moe_code moe_source_open_staged(struct moe_source **src, const char *path, struct moe_err *err)
{
    return open_model(src, path, true, err);
}

enum moe_code moe_source_open_part(struct moe_source **src, const char *path, struct moe_err *err)
{
    MOE_TRY(open_any(src, path, NULL, err));
    if ((*src)->is_part) return MOE_OK;
    if (moe_staged_check_whole(*src, err) == MOE_OK)
        moe_fail_at(err, MOE_MISMATCH, path, NULL,
                    "is a whole model, not a part (moe-quantize --layers writes parts)");
    moe_source_close(src);
    return err->code;
}

enum moe_code moe_source_survey(struct moe_source **src, const char *path, cJSON **problems,
                                struct moe_err *err)
{
    *src = NULL;
    *err = (struct moe_err)MOE_ERR_INIT;
    *problems = cJSON_CreateArray();
    if (!*problems) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to open it");
    enum moe_code code = open_any(src, path, *problems, err);
    if (code == MOE_OK) return code;
    cJSON_Delete(*problems);
    *problems = NULL;
    return code;
}

enum moe_code moe_source_open_config(struct moe_source **src, const char *path, struct moe_err *err)
{
    bool container;
    *src = NULL;
    MOE_TRY(moe_dir_is_container(path, &container, err));
    if (container) return moe_container_open(src, path, NULL, err);
    MOE_TRY(moe_source_new(src, MOE_CHECKPOINT, path, err));
    enum moe_code code = moe_config_read(path, &(*src)->config, &(*src)->scheme, err);
    if (code != MOE_OK) moe_source_close(src);
    return code;
}

/* ---- using a source ---- */

const struct moe_tensor *moe_source_find(const struct moe_source *src, enum moe_role role, int layer,
                                         int expert)
{
    int64_t slot = moe_source_slot(&src->config, role, layer, expert);
    if (slot < 0 || !src->index->slot) return NULL;
    int32_t i = src->index->slot[slot];
    if (i < 0 && role == MOE_ROLE_HEAD && src->config.tie_word_embeddings)
        i = src->index->slot[MOE_ROLE_EMBED];
    return i < 0 ? NULL : &src->tensors[i];
}

const struct moe_tensor *moe_source_fused_partner(const struct moe_source *src, const struct moe_tensor *t)
{
    int role = moe_role_fused_partner((enum moe_role)t->role);
    return role < 0 ? NULL : moe_source_find(src, (enum moe_role)role, t->layer, t->expert);
}

bool moe_source_has_expert(const struct moe_source *src, int layer, int expert)
{
    const struct moe_tensor *t = moe_source_find(src, MOE_ROLE_EXPERT_GATE, layer, expert);
    return t && t->plane[MOE_PLANE_DATA].file >= 0;
}

enum moe_code moe_source_map(struct moe_source *src, struct moe_err *err)
{
    for (int32_t i = 0; i < src->n_files; i++) {
        struct moe_file *f = &src->files[i];
        if (f->map || !f->size) continue;
        if (f->fd < 0) return moe_fail_at(err, MOE_IO, f->path, NULL, "is not open");
        MOE_TRY(moe_map(f->fd, f->path, f->size, &f->map, err));
    }
    return MOE_OK;
}

static const uint8_t *in_place(const struct moe_source *src, const struct moe_span *s)
{
    return s->file < 0 ? NULL : src->files[s->file].map + s->offset;
}

uint64_t moe_tensor_bytes(const struct moe_tensor *t)
{
    uint64_t n = 0;
    for (int p = 0; p < MOE_PLANE_COUNT; p++) n += t->plane[p].file >= 0 ? t->plane[p].bytes : 0;
    return n;
}

void moe_source_weight(const struct moe_source *src, const struct moe_tensor *t, struct moe_weight *w)
{
    *w = (struct moe_weight){ .type = t->type,
                              .layout = t->layout,
                              .reciprocal = t->reciprocal,
                              .rows = t->rows,
                              .cols = t->cols,
                              .data = in_place(src, &t->plane[MOE_PLANE_DATA]),
                              .scale = in_place(src, &t->plane[MOE_PLANE_SCALE]),
                              .global = t->global,
                              .input_scale = t->input_scale };
}

static enum moe_code read_span(const struct moe_source *src, const struct moe_span *s, uint64_t offset,
                               size_t bytes, void *buf, struct moe_err *err)
{
    MOE_CHECK(s->file >= 0 && bytes <= s->bytes && offset <= s->bytes - bytes);
    const struct moe_file *f = &src->files[s->file];
    if (f->fd < 0) return moe_fail_at(err, MOE_IO, f->path, NULL, "is not open");
    return moe_pread(f->fd, f->path, buf, bytes, s->offset + offset, err);
}

/* Repeat the message in *err with the tensor's name in it. */
static enum moe_code in_tensor(const struct moe_source *src, const struct moe_span *s, const char *name,
                               struct moe_err *err)
{
    const char *path = src->files[s->file].path;
    size_t n = strlen(path) + 4; /* "'path': " */
    char what[sizeof err->msg];
    memcpy(what, err->msg, sizeof what);
    return moe_fail_at(err, err->code, path, name, "%s", strlen(what) > n ? what + n : what);
}

enum moe_code moe_source_read(const struct moe_source *src, const struct moe_tensor *t, int plane,
                              uint64_t offset, size_t bytes, void *buf, struct moe_err *err)
{
    char name[128];
    if (read_span(src, &t->plane[plane], offset, bytes, buf, err) == MOE_OK) return MOE_OK;
    bool ours = t >= src->tensors && t < src->tensors + src->n_tensors;
    return in_tensor(src, &t->plane[plane], ours ? moe_source_tensor_name(src, t - src->tensors, name)
                     : moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name), err);
}

enum moe_code moe_source_read_raw(const struct moe_source *src, const struct moe_raw *r, uint64_t offset,
                                  size_t bytes, void *buf, struct moe_err *err)
{
    return read_span(src, &r->span, offset, bytes, buf, err) == MOE_OK
             ? MOE_OK
             : in_tensor(src, &r->span, r->name, err);
}

/* The kernel drops only whole folios, which may be 2 MiB and reach into the span before this one, so the end
 * of that span is dropped as well. */
void moe_source_drop(const struct moe_source *src, const struct moe_span *s)
{
    if (s->file < 0 || src->files[s->file].fd < 0) return;
    const struct moe_file *f = &src->files[s->file];
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), first = (s->offset + page - 1) / page * page,
             last = (s->offset + s->bytes) / page * page;
    if (f->map && last > first)
        madvise((void *)(uintptr_t)(f->map + first), (size_t)(last - first), MADV_DONTNEED);
    uint64_t from = s->offset < FOLIO ? 0 : s->offset - FOLIO;
    posix_fadvise(f->fd, (off_t)from, (off_t)(s->offset + s->bytes - from), POSIX_FADV_DONTNEED);
}

void moe_source_drop_file(const struct moe_source *src, int32_t file)
{
    if (file >= 0 && src->files[file].fd >= 0) posix_fadvise(src->files[file].fd, 0, 0, POSIX_FADV_DONTNEED);
}

/* ---- scalars ---- */

static void read_scalar(struct moe_source *src, int64_t i, int plane, float *out, struct moe_problems *p)
{
    struct moe_tensor *t = &src->tensors[i];
    const struct moe_span *s = &t->plane[plane];
    struct moe_err err;
    char buffer[128];
    float v = 0;
    if (s->file < 0 || s->bytes != 4 || s->offset > src->files[s->file].size ||
        src->files[s->file].size - s->offset < 4)
        return;
    if (moe_source_read(src, t, plane, 0, 4, &v, &err) != MOE_OK) {
        moe_problem_add_err(p, &err);
        return;
    }
    const char *what = plane == MOE_PLANE_GLOBAL ? "global scale" : "input scale";
    const char *name = isfinite(v) && v >= 0 && (v > 0 || plane == MOE_PLANE_INPUT)
                         ? NULL
                         : moe_source_tensor_name(src, i, buffer);
    if (name)
        moe_problem_add(p, isfinite(v) ? MOE_CORRUPT : MOE_NONFINITE, src->files[s->file].path, name,
                        "its %s is %g", what, (double)v);
    *out = v;
}

/* These are four bytes here and there: without POSIX_FADV_RANDOM each read would read ahead a whole
 * window. */
enum moe_code moe_source_read_scalars(struct moe_source *src, struct moe_problems *p, struct moe_err *err)
{
    (void)err;
    bool any = false;
    for (int64_t i = 0; i < src->n_tensors && !any; i++) any = src->tensors[i].type == MOE_NVFP4;
    for (int32_t f = 0; any && f < src->n_files; f++)
        if (src->files[f].fd >= 0) posix_fadvise(src->files[f].fd, 0, 0, POSIX_FADV_RANDOM);
    for (int64_t i = 0; any && i < src->n_tensors; i++) {
        if (src->tensors[i].type != MOE_NVFP4) continue;
        read_scalar(src, i, MOE_PLANE_GLOBAL, &src->tensors[i].global, p);
        read_scalar(src, i, MOE_PLANE_INPUT, &src->tensors[i].input_scale, p);
    }
    for (int32_t f = 0; any && f < src->n_files; f++)
        if (src->files[f].fd >= 0) posix_fadvise(src->files[f].fd, 0, 0, POSIX_FADV_NORMAL);
    return MOE_OK;
}
