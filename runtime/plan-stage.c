/* The part of a container that some ranks need, as a container directory of its own. */
#include "runtime/plan-out.h"

#include "base/hash.h"
#include "base/io.h"
#include "base/newdir.h"
#include "formats/container.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PLAN_NAME "plan-staged.json"

enum { CHUNK = 4 << 20 };

struct stage {
    const struct moe_plan *p;
    const struct moe_source *src;
    int32_t first, last;
    const char *dir;      /* what is being built */
    bool link;
    unsigned char *buf;   /* [CHUNK] */
    uint64_t bytes;
};

static bool wanted(const struct stage *s, const struct moe_plan_layer *l, int32_t e)
{
    for (int32_t c = l->copy_first[e]; c < l->copy_first[e + 1]; c++)
        if (l->copy_rank[c] >= s->first && l->copy_rank[c] <= s->last) return true;
    return false;
}

static enum moe_code copy_range(struct stage *s, int from, const char *from_path, int to, const char *to_path, uint64_t at, uint64_t bytes, struct moe_err *err)
{
    while (bytes) {
        size_t n = bytes < CHUNK ? (size_t)bytes : CHUNK;
        MOE_TRY(moe_pread(from, from_path, s->buf, n, at, err));
        MOE_TRY(moe_pwrite(to, to_path, s->buf, n, at, err));
        at += n;
        bytes -= n;
        s->bytes += n;
    }
    return MOE_OK;
}

/* Header, table, and the extents of the ranks' experts; the file as long as it was. */
static enum moe_code copy_layer(struct stage *s, const struct moe_plan_layer *l, int from, const char *from_path, int to, const char *to_path, uint64_t size,
                                struct moe_err *err)
{
    struct moe_shard_header h;
    MOE_TRY(moe_pread(from, from_path, &h, sizeof h, 0, err));
    if (moe_ftruncate(to, size)) return moe_fail_errno(err, errno, to_path, "cannot extend");
    MOE_TRY(copy_range(s, from, from_path, to, to_path, 0, h.extent_offset, err)); /* the reader has checked the header */
    for (int32_t e = 0; e < h.experts && e < s->p->experts; e++)
        if (wanted(s, l, e)) MOE_TRY(copy_range(s, from, from_path, to, to_path, h.extent_offset + (uint64_t)e * h.extent_bytes, h.extent_bytes, err));
    return MOE_OK;
}

static enum moe_code copy_file(struct stage *s, const char *from_path, const char *to_path, const struct moe_plan_layer *l, struct moe_err *err)
{
    uint64_t size;
    int from, to;
    MOE_TRY(moe_open_read(from_path, &from, &size, err));
    to = moe_open(to_path, O_WRONLY | O_CREAT | O_EXCL);
    enum moe_code code = to < 0 ? moe_fail_errno(err, errno, to_path, "cannot create") : MOE_OK;
    if (code == MOE_OK) code = l ? copy_layer(s, l, from, from_path, to, to_path, size, err) : copy_range(s, from, from_path, to, to_path, 0, size, err);
    if (code == MOE_OK && moe_fsync(to)) code = moe_fail_errno(err, errno, to_path, "cannot sync");
    if (to >= 0 && close(to) && code == MOE_OK) code = moe_fail_errno(err, errno, to_path, "cannot close");
    close(from);
    return code;
}

static enum moe_code put_file(struct stage *s, const char *name, const struct moe_plan_layer *l, struct moe_err *err)
{
    char from[PATH_MAX], to[PATH_MAX];
    MOE_TRY(moe_path_join(from, sizeof from, s->src->container->dir, name, err));
    MOE_TRY(moe_path_join(to, sizeof to, s->dir, name, err));
    char *slash = strrchr(to, '/');
    *slash = 0;
    MOE_TRY(moe_mkdir(to, err));
    *slash = '/';
    if (!s->link) return copy_file(s, from, to, l, err);
    if (!link(from, to)) return MOE_OK;
    int e = errno;
    return e == EXDEV || e == EPERM || e == EMLINK ? moe_fail_at(err, MOE_UNSUPPORTED, to, NULL, "cannot be a hard link to '%s': %s (stage with --how copy)", from, strerror(e))
                                                   : moe_fail_errno(err, e, to, "cannot link");
}

/* "layer-012.moe" -> 12; -1: another file. */
static int layer_of(const char *name)
{
    int n = -1, end = 0;
    return sscanf(name, "layer-%d.moe%n", &n, &end) == 1 && !name[end] ? n : -1;
}

static enum moe_code put_all(struct stage *s, const char *plan_path, struct moe_err *err)
{
    const cJSON *files = moe_json_get(s->src->container->manifest, "files");
    char to[PATH_MAX];
    char *text;
    size_t n;
    for (const cJSON *f = files ? files->child : NULL; f; f = f->next) {
        const char *name = moe_json_get(f, "name")->valuestring;
        int layer = layer_of(name);
        MOE_TRY(put_file(s, name, layer >= 0 ? moe_plan_find(s->p, layer) : NULL, err));
    }
    MOE_TRY(put_file(s, "manifest.json", NULL, err));
    MOE_TRY(moe_read_file(plan_path, INT_MAX, &text, &n, err));
    enum moe_code code = moe_path_join(to, sizeof to, s->dir, PLAN_NAME, err);
    if (code == MOE_OK) code = moe_write_file(to, text, n, err);
    free(text);
    return code;
}

static enum moe_code check_tensor(const struct stage *s, const struct moe_tensor *t, uint64_t *bytes, struct moe_err *err)
{
    char name[128];
    for (int plane = 0; plane < MOE_PLANE_COUNT; plane++) {
        const struct moe_span *span = &t->plane[plane];
        if (span->file < 0 || !span->bytes) continue;
        struct moe_hash *h = moe_hash_new();
        enum moe_code code = h ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory to check what was staged");
        if (h) moe_hash_reset64(h);
        for (uint64_t at = 0; code == MOE_OK && at < span->bytes;) {
            size_t n = span->bytes - at < CHUNK ? (size_t)(span->bytes - at) : CHUNK;
            code = moe_source_read(s->src, t, plane, at, n, s->buf, err);
            if (code == MOE_OK) moe_hash_add64(h, s->buf, n);
            at += n;
        }
        bool same = h && moe_hash_get64(h) == t->hash[plane];
        moe_hash_free(h);
        MOE_TRY(code);
        if (!same)
            return moe_fail_at(err, MOE_CORRUPT, s->src->files[span->file].path, moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                               "%s: does not match its checksum (stage it again)", moe_plane_word(plane));
        *bytes += span->bytes;
        moe_source_drop(s->src, span);
    }
    return MOE_OK;
}

static enum moe_code check(struct stage *s, uint64_t *bytes, struct moe_err *err)
{
    *bytes = 0;
    for (int64_t i = 0; i < s->src->n_tensors; i++) {
        const struct moe_tensor *t = &s->src->tensors[i];
        const struct moe_plan_layer *l = t->expert >= 0 ? moe_plan_find(s->p, t->layer) : NULL;
        if (t->expert >= 0 && (!l || !wanted(s, l, t->expert))) continue;
        MOE_TRY(check_tensor(s, t, bytes, err));
    }
    return MOE_OK;
}

enum moe_code moe_plan_stage_check(const struct moe_plan *p, const struct moe_source *staged, int32_t first, int32_t last, uint64_t *bytes, struct moe_err *err)
{
    struct stage s = { .p = p, .src = staged, .first = first, .last = last, .buf = malloc(CHUNK) };
    if (!s.buf) return moe_fail(err, MOE_NOMEM, "no memory to check what was staged");
    enum moe_code code = check(&s, bytes, err);
    free(s.buf);
    return code;
}

/* Something may be staged at `out`: nothing is there, or a container under --force, and it is not the one that is staged. */
static enum moe_code may_stage(const struct moe_source *src, const char *out, bool force, struct moe_err *err)
{
    enum moe_exists there;
    MOE_TRY(moe_look(out, &there, err));
    if (there != MOE_ABSENT && !force) return moe_fail_at(err, MOE_EXISTS, out, NULL, "already exists (replace it with --force)");
    MOE_TRY(moe_source_apart(src, out, err));
    return there == MOE_ABSENT ? MOE_OK : moe_container_replaceable(out, err);
}

/* What was staged, whole but without its name: a container with a plan in it.  (Unfinished work of another tool has none.) */
static enum moe_code is_stage(const char *path, struct moe_err *err)
{
    char plan[PATH_MAX];
    enum moe_exists there;
    MOE_TRY(moe_path_join(plan, sizeof plan, path, PLAN_NAME, err));
    MOE_TRY(moe_look(plan, &there, err));
    return there == MOE_FILE ? moe_container_replaceable(path, err) : moe_fail_at(err, MOE_EXISTS, path, NULL, "was not staged");
}

static enum moe_code build(struct stage *s, const char *plan_path, struct moe_err *err)
{
    struct moe_source *staged = NULL;
    uint64_t checked;
    enum moe_code code = put_all(s, plan_path, err);
    if (code == MOE_OK) code = moe_source_open(&staged, s->dir, err);
    if (code == MOE_OK && !s->link) code = moe_plan_stage_check(s->p, staged, s->first, s->last, &checked, err);
    moe_source_close(&staged);
    return code;
}

enum moe_code moe_plan_stage(const struct moe_plan *p, const char *plan_path, const struct moe_source *src, int32_t first, int32_t last, bool link,
                             const char *out, bool force, uint64_t *bytes, struct moe_err *err)
{
    struct moe_newdir d;
    if (!src->container) return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL, "is a checkpoint: only a container can be staged (moe-convert makes one)");
    MOE_TRY(moe_newdir_name(&d, out, err));
    MOE_TRY(may_stage(src, d.final, force, err));
    struct stage s = { .p = p, .src = src, .first = first, .last = last, .dir = d.path, .link = link, .buf = malloc(CHUNK) };
    if (!s.buf) return moe_fail(err, MOE_NOMEM, "no memory to stage");
    enum moe_code code = moe_newdir_begin(&d, out, is_stage, true, err);
    if (code == MOE_OK) {
        code = build(&s, plan_path, err);
        if (code == MOE_OK) code = moe_newdir_publish(&d, force ? moe_container_replaceable : NULL, err);
        moe_newdir_end(&d);
    }
    free(s.buf);
    *bytes = s.bytes;
    return code;
}
