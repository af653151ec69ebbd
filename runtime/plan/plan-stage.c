/* SPDX-License-Identifier: Apache-2.0 */
/* Writes and checks the part of a container that some ranks need, as a container directory of its own. */
#include "runtime/plan/plan-out.h"

#include "base/hash.h"
#include "base/io.h"
#include "base/newdir.h"
#include "base/cancel.h"
#include "formats/container/owner.h"
#include "formats/container/staged.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 4 << 20 };

struct stage {
    const struct moe_plan *p;
    const struct moe_source *src;
    int32_t first, last;
    const char *text;     /* [bytes_of_text] of the plan */
    size_t bytes_of_text;
    const char *dir;      /* the directory that is being built */
    bool whole;           /* every file stays as it is, because of `link` or since all experts are needed */
    bool link;            /* hard links instead of copies */
    bool *there;          /* [layers][experts] the experts that the ranks need */
    unsigned char *buf;   /* [CHUNK] */
    const struct moe_cancel *cancel;
    uint64_t bytes;       /* how much was written so far */
};

static bool wanted(const struct stage *s, const struct moe_plan_layer *l, int32_t e)
{
    for (int32_t c = l->copy_first[e]; c < l->copy_first[e + 1]; c++)
        if (l->copy_rank[c] >= s->first && l->copy_rank[c] <= s->last) return true;
    return false;
}

/* Sets there and whole.  The plan fits the model (moe_plan_bind). */
static enum moe_code choose(struct stage *s, struct moe_err *err)
{
    const struct moe_config *c = &s->src->config;
    s->there = calloc((size_t)(c->num_hidden_layers * c->n_routed_experts) + 1, sizeof *s->there);
    if (!s->there) return moe_fail(err, MOE_NOMEM, "no memory to stage");
    bool all = true;
    for (int32_t i = 0; i < s->p->n_layers; i++) {
        const struct moe_plan_layer *l = &s->p->layers[i];
        for (int32_t e = 0; e < s->p->experts; e++) {
            bool want = wanted(s, l, e);
            s->there[l->layer * c->n_routed_experts + e] = want;
            all &= want;
        }
    }
    s->whole = s->link || all;
    return MOE_OK;
}

static enum moe_code copy_range(struct stage *s, int from, const char *from_path, int to, const char *to_path,
                                uint64_t at, uint64_t bytes, struct moe_err *err)
{
    while (bytes) {
        size_t n = bytes < CHUNK ? (size_t)bytes : CHUNK;
        MOE_TRY(moe_pread(from, from_path, s->buf, n, at, err));
        MOE_TRY(moe_pwrite(to, to_path, s->buf, n, at, err));
        MOE_TRY(moe_cancel_check(s->cancel, err));
        at += n;
        bytes -= n;
        s->bytes += n;
    }
    return MOE_OK;
}

/* Copies a shard: its header and table, marked as those of a staged part; of dense.moe everything else, of a
 * layer's shard the extents of the ranks' experts.  The file gets the length that it had. */
static enum moe_code copy_shard(struct stage *s, const struct moe_file *f, int to, const char *to_path,
                                struct moe_err *err)
{
    struct moe_shard_header h;
    unsigned char *head;
    size_t n;
    MOE_TRY(moe_staged_head(s->src, f, &head, &n, err));
    memcpy(&h, head, sizeof h);
    enum moe_code code = moe_pwrite(to, to_path, head, n, 0, err);
    free(head);
    MOE_TRY(code);
    s->bytes += n;
    if (h.layer < 0) return copy_range(s, f->fd, f->path, to, to_path, n, f->size - n, err);
    if (moe_ftruncate(to, f->size)) return moe_fail_errno(err, errno, to_path, "cannot extend");
    int64_t experts = s->src->config.n_routed_experts;
    const bool *there = s->there + h.layer * experts;
    for (int32_t e = 0; e < h.experts && e < experts; e++)
        if (there[e])
            MOE_TRY(copy_range(s, f->fd, f->path, to, to_path, h.extent_offset + (uint64_t)e * h.extent_bytes,
                               h.extent_bytes, err));
    return MOE_OK;
}

/* The open shard with this name; NULL: the file is no shard. */
static const struct moe_file *shard_of(const struct stage *s, const char *name)
{
    for (int32_t i = 0; i < s->src->n_files; i++)
        if (!strcmp(s->src->files[i].name, name)) return &s->src->files[i];
    return NULL;
}

static enum moe_code copy_whole(struct stage *s, const char *from_path, int to, const char *to_path,
                                struct moe_err *err)
{
    uint64_t size;
    int from;
    MOE_TRY(moe_open_read(from_path, &from, &size, err));
    enum moe_code code = copy_range(s, from, from_path, to, to_path, 0, size, err);
    close(from);
    return code;
}

static enum moe_code copy_file(struct stage *s, const char *name, const char *from_path, const char *to_path,
                               struct moe_err *err)
{
    const struct moe_file *shard = s->whole ? NULL : shard_of(s, name);
    int to = moe_open(to_path, O_WRONLY | O_CREAT | O_EXCL);
    enum moe_code code = to < 0 ? moe_fail_errno(err, errno, to_path, "cannot create") : MOE_OK;
    if (code == MOE_OK)
        code = shard ? copy_shard(s, shard, to, to_path, err) : copy_whole(s, from_path, to, to_path, err);
    if (code == MOE_OK && moe_fsync(to)) code = moe_fail_errno(err, errno, to_path, "cannot sync");
    if (to >= 0 && close(to) && code == MOE_OK) code = moe_fail_errno(err, errno, to_path, "cannot close");
    return code;
}

static enum moe_code put_file(struct stage *s, const char *name, struct moe_err *err)
{
    char from[PATH_MAX], to[PATH_MAX];
    MOE_TRY(moe_path_join(from, sizeof from, s->src->container->dir, name, err));
    MOE_TRY(moe_path_join(to, sizeof to, s->dir, name, err));
    char *slash = strrchr(to, '/');
    *slash = 0;
    MOE_TRY(moe_mkdir(to, err));
    *slash = '/';
    if (!s->link) return copy_file(s, name, from, to, err);
    if (!link(from, to)) return MOE_OK;
    int e = errno;
    return e == EXDEV || e == EPERM || e == EMLINK
             ? moe_fail_at(err, MOE_UNSUPPORTED, to, NULL,
                           "cannot be a hard link to '%s': %s (stage with --how copy)", from, strerror(e))
             : moe_fail_errno(err, e, to, "cannot link");
}

/* Writes the manifest: that of the whole container, or one that lists the experts of the part. */
static enum moe_code put_manifest(struct stage *s, struct moe_err *err)
{
    struct moe_staged part = { .first = s->first, .last = s->last, .ranks = s->p->ranks };
    char to[PATH_MAX], *text;
    if (s->whole) return put_file(s, "manifest.json", err);
    moe_hex128(moe_plan_digest(s->p), part.plan);
    MOE_TRY(moe_path_join(to, sizeof to, s->dir, "manifest.json", err));
    MOE_TRY(moe_staged_manifest(s->src, &part, s->there, &text, err));
    enum moe_code code = moe_write_file(to, text, strlen(text), err);
    free(text);
    return code;
}

static enum moe_code put_all(struct stage *s, struct moe_err *err)
{
    const cJSON *files = moe_json_get(s->src->container->manifest, "files");
    char to[PATH_MAX];
    for (const cJSON *f = files ? files->child : NULL; f; f = f->next)
        MOE_TRY(put_file(s, moe_json_get(f, "name")->valuestring, err));
    MOE_TRY(put_manifest(s, err));
    MOE_TRY(moe_path_join(to, sizeof to, s->dir, MOE_STAGED_PLAN, err));
    return moe_write_file(to, s->text, s->bytes_of_text, err);
}

/* ---- checking ---- */

static enum moe_code damaged(const struct moe_source *src, const struct moe_tensor *t, int plane,
                             const char *remedy, struct moe_err *err)
{
    char name[128];
    return moe_fail_at(err, MOE_CORRUPT, src->files[t->plane[plane].file].path,
                       moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                       "the %s plane does not match its checksum (%s)", moe_plane_word(plane), remedy);
}

/* Compares the planes of tensor i with their hashes.  src: the container from which `staged` was just copied,
 * which may be the damaged one; NULL: not known.  Both list the same tensors. */
static enum moe_code check_tensor(const struct moe_source *staged, const struct moe_source *src, int64_t i,
                                  unsigned char *buf, uint64_t *bytes, struct moe_err *err)
{
    const struct moe_tensor *t = &staged->tensors[i];
    for (int plane = 0; plane < MOE_PLANE_COUNT; plane++) {
        bool same, source_same = true;
        if (t->plane[plane].file < 0 || !t->plane[plane].bytes) continue;
        MOE_TRY(moe_container_plane_matches(staged, t, plane, buf, CHUNK, &same, err));
        if (!same && src)
            MOE_TRY(moe_container_plane_matches(src, &src->tensors[i], plane, buf, CHUNK, &source_same, err));
        if (!source_same) return damaged(src, &src->tensors[i], plane, "copy the container again", err);
        if (!same) return damaged(staged, t, plane, "stage it again", err);
        *bytes += t->plane[plane].bytes;
    }
    return MOE_OK;
}

static bool needs(const struct stage *s, const struct moe_tensor *t)
{
    const struct moe_plan_layer *l = t->expert >= 0 ? moe_plan_find(s->p, t->layer) : NULL;
    return t->expert < 0 || (l && wanted(s, l, t->expert));
}

/* The error that a staged file does not match its manifest.  src: as for check_tensor; the error names its
 * file when that is damaged. */
static enum moe_code damaged_file(const struct moe_source *src, const char *name, const char *path,
                                  struct moe_err *err)
{
    char from[PATH_MAX];
    if (src) MOE_TRY(moe_container_check_file(src, name, from, err));
    return moe_fail_at(err, MOE_CORRUPT, path, NULL, "does not match its checksum (stage it again)");
}

/* Compares the configuration, the tokenizer and all other files that are no shards with the digests of the
 * manifest. */
static enum moe_code check_small(const struct moe_source *staged, const struct moe_source *src,
                                 struct moe_err *err)
{
    const cJSON *files = moe_json_get(staged->container->manifest, "files");
    for (const cJSON *f = files ? files->child : NULL; f; f = f->next) {
        const char *name = moe_json_get(f, "name")->valuestring;
        char path[PATH_MAX];
        if (moe_ends_with(name, ".moe") && !strchr(name, '/')) continue; /* a shard */
        enum moe_code code = moe_container_check_file(staged, name, path, err);
        if (code == MOE_CORRUPT) return damaged_file(src, name, path, err);
        MOE_TRY(code);
    }
    return MOE_OK;
}

static enum moe_code check(const struct stage *s, const struct moe_source *staged,
                           const struct moe_source *src, uint64_t *bytes, struct moe_err *err)
{
    *bytes = 0;
    MOE_TRY(moe_plan_check_staged(s->p, s->first, s->last, staged, err));
    MOE_TRY(check_small(staged, src, err));
    for (int64_t i = 0; i < staged->n_tensors; i++) {
        if (needs(s, &staged->tensors[i])) MOE_TRY(check_tensor(staged, src, i, s->buf, bytes, err));
        MOE_TRY(moe_cancel_check(s->cancel, err));
    }
    return MOE_OK;
}

enum moe_code moe_plan_stage_check(const struct moe_plan *p, const struct moe_source *staged, int32_t first,
                                   int32_t last, const struct moe_cancel *cancel, uint64_t *bytes,
                                   struct moe_err *err)
{
    struct stage s = { .p = p, .first = first, .last = last, .buf = malloc(CHUNK), .cancel = cancel };
    if (!s.buf) return moe_fail(err, MOE_NOMEM, "no memory to check what was staged");
    enum moe_code code = check(&s, staged, NULL, bytes, err);
    free(s.buf);
    return code;
}

/* Opens what was written and reads it back. */
static enum moe_code check_written(const struct stage *s, struct moe_err *err)
{
    struct moe_source *staged;
    uint64_t bytes;
    MOE_TRY(moe_source_open_staged(&staged, s->dir, err));
    enum moe_code code = s->link ? check_small(staged, s->src, err) : check(s, staged, s->src, &bytes, err);
    moe_source_close(&staged);
    return code;
}

/* Makes an error name `out`, and the file in it, instead of `dir`, the directory where it was built: that is
 * gone when anybody reads the message. */
static void name_out(const char *dir, const char *out, struct moe_err *err)
{
    size_t n = strlen(dir);
    struct moe_err was = *err;
    const char *what = was.msg[0] == '\'' ? strstr(was.msg, "': ") : NULL;
    if (strncmp(was.file, dir, n) || (was.file[n] && was.file[n] != '/') || !what) return;
    moe_fail_at(err, was.code, out, NULL, "%s%s%s", was.file[n] ? was.file + n + 1 : "",
                was.file[n] ? ": " : "", what + 3);
    memcpy(err->tensor, was.tensor, sizeof err->tensor);
}

/* Refuses to replace a whole container by a part of one, since the rest would be lost. */
static enum moe_code no_part_of_more(const char *out, struct moe_err *err)
{
    bool part;
    MOE_TRY(moe_staged_is(out, &part, err));
    if (part) return MOE_OK;
    return moe_fail_at(err, MOE_EXISTS, out, NULL, "is a whole container, which no part of one replaces "
                       "(choose another name with -o, or remove it)");
}

/* Whether something may be staged at `out`: nothing is there, or, with `force`, a container, which is not the
 * one that is staged, and no whole one where a part would replace it.  sum becomes the checksum of the
 * container's manifest; "" when nothing is there. */
static enum moe_code may_stage(const struct moe_source *src, const char *out, bool force, bool whole,
                               char sum[33], struct moe_err *err)
{
    enum moe_exists there;
    *sum = 0;
    MOE_TRY(moe_no_link(out, "directory", err));
    MOE_TRY(moe_look(out, &there, err));
    if (there != MOE_ABSENT && !force)
        return moe_fail_at(err, MOE_EXISTS, out, NULL, "already exists (replace it with --force)");
    MOE_TRY(moe_source_check_overlap(src, out, err));
    if (there == MOE_ABSENT) return MOE_OK;
    MOE_TRY(moe_container_replaceable(out, sum, err));
    return whole ? MOE_OK : no_part_of_more(out, err);
}

/* Whether a directory is a finished stage that lacks only its name: a container with a plan in it.
 * (Unfinished work of another tool has no plan.) */
static enum moe_code is_stage(const char *path, const void *with, struct moe_err *err)
{
    char plan[PATH_MAX];
    enum moe_exists there;
    MOE_TRY(moe_path_join(plan, sizeof plan, path, MOE_STAGED_PLAN, err));
    MOE_TRY(moe_look(plan, &there, err));
    if (there != MOE_FILE) return moe_fail_at(err, MOE_EXISTS, path, NULL, "was not staged");
    return moe_container_is(path, with, err);
}

static enum moe_code build(struct stage *s, const char *out, struct moe_err *err)
{
    enum moe_code code = put_all(s, err);
    if (code == MOE_OK) code = check_written(s, err);
    if (code == MOE_OK) code = moe_source_check_unmodified(s->src, err);
    if (code != MOE_OK) name_out(s->dir, out, err);
    return code;
}

static enum moe_code put(struct stage *s, struct moe_newdir *d, const char *out, bool force,
                         const char *sum, struct moe_err *err)
{
    char plan[33], work[MOE_WORK_BYTES];
    moe_hex128(moe_plan_digest(s->p), plan);
    snprintf(work, sizeof work, "moe " MOE_VERSION " stage %s %d-%d by %s of %.32s",
             s->link ? "link" : "copy", (int)s->first, (int)s->last, plan,
             moe_json_get(s->src->container->manifest, "checksum")->valuestring);
    const struct moe_newdir_kind stage = { is_stage, NULL, work, moe_container_unfinished };
    const struct moe_newdir_kind old = { .look = moe_container_is, .with = sum };
    MOE_TRY(moe_newdir_begin(d, out, &stage, force ? MOE_LEFTOVER_DISCARD : MOE_LEFTOVER_RESTART, err));
    enum moe_code code = d->whole ? MOE_OK : build(s, out, err);
    if (code == MOE_OK) code = moe_newdir_publish(d, *sum ? &old : NULL, err);
    moe_newdir_end(d);
    return code;
}

enum moe_code moe_plan_stage(const struct moe_plan *p, const char *text, size_t bytes_of_text,
                             const struct moe_source *src, int32_t first, int32_t last, bool link,
                             const char *out, bool force, const struct moe_cancel *cancel, uint64_t *bytes,
                             struct moe_err *err)
{
    struct moe_newdir d;
    char sum[33];
    if (!src->container)
        return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL,
                           "is a checkpoint: only a container can be staged (moe-convert makes one)");
    if (src->staged)
        return moe_fail_at(err, MOE_MISMATCH, src->path, NULL,
                           "is a staged part: only a whole container can be staged");
    MOE_TRY(moe_newdir_name(&d, out, err));
    struct stage s = { .p = p,
                       .text = text,
                       .bytes_of_text = bytes_of_text,
                       .src = src,
                       .first = first,
                       .last = last,
                       .dir = d.path,
                       .link = link,
                       .buf = malloc(CHUNK),
                       .cancel = cancel };
    enum moe_code code = s.buf ? choose(&s, err) : moe_fail(err, MOE_NOMEM, "no memory to stage");
    if (code == MOE_OK) code = may_stage(src, d.final, force, s.whole, sum, err);
    if (code == MOE_OK) code = put(&s, &d, out, force, sum, err);
    free(s.there);
    free(s.buf);
    *bytes = s.bytes;
    return code;
}
