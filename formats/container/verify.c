/* SPDX-License-Identifier: Apache-2.0 */
/* Verifies every byte of a model: a container's bytes against its manifest and tables, a checkpoint's for NaN
 * and Inf. */
#include "base/grow.h"
#include "formats/container/container-internal.h"

#include "base/cancel.h"
#include "base/io.h"
#include "base/pool.h"
#include "base/progress.h"
#include "base/show.h"
#include "base/strmap.h"
#include "formats/sane.h"
#include "formats/source-parts.h"

#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    PIECE = 4 << 20,    /* bytes that are read at once */
    PROBLEMS_MAX = 1000 /* problems in the report; all are counted */
};

/* A range of bytes to check: a plane, padding (plane -1), or a small file (file -1; then `tensor` is its
 * index in job.small). */
struct item { int64_t tensor; int32_t file; int32_t plane; uint64_t offset, bytes; };
/* A problem, and the item in which it was found, for sorting. */
struct found { int64_t item; char *file, *tensor, *what; };

struct job {
    const struct moe_source *src;
    struct moe_progress *progress;
    const struct moe_cancel *cancel;
    struct item *items;      int64_t n; size_t cap;
    struct moe_listed_file *small; int64_t n_small; size_t cap_small;
    unsigned char **buffer;  struct moe_hash **hash; /* by worker */
    int workers;
    pthread_mutex_t lock;
    struct found *found;     int64_t n_found; size_t cap_found;
    struct moe_err fatal;    /* why reading stopped: cancelled, or out of memory */
    atomic_bool stop;
};

static void stop(struct job *j, const struct moe_err *e)
{
    pthread_mutex_lock(&j->lock);
    if (j->fatal.code == MOE_OK) j->fatal = *e;
    pthread_mutex_unlock(&j->lock);
    atomic_store(&j->stop, true);
}

static void free_found(struct found *f)
{
    free(f->file);
    free(f->tensor);
    free(f->what);
}

/* Append a problem; false when memory ran out, also for one of its strings. */
static bool append_found(struct job *j, struct found f)
{
    if (!f.file || !f.tensor || !f.what) return false;
    if (!MOE_GROW(j->found, j->cap_found, (size_t)j->n_found + 1)) return false;
    j->found[j->n_found++] = f;
    return true;
}

/* Add a problem; item: the one in which it was found, -1 for the manifest, j->n for what is not an item;
 * tensor: its index, or -1. */
__attribute__((format(printf, 5, 6)))
static void add_problem(struct job *j, int64_t item, const char *file, int64_t tensor, const char *fmt, ...)
{
    char name[128], what[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    struct found f = { item, strdup(file),
                       strdup(tensor < 0 ? "" : moe_source_tensor_name(j->src, tensor, name)), strdup(what) };
    pthread_mutex_lock(&j->lock);
    bool kept = append_found(j, f);
    pthread_mutex_unlock(&j->lock);
    if (kept) return;
    free_found(&f);
    struct moe_err e;
    moe_fail(&e, MOE_NOMEM, "no memory for the list of problems");
    stop(j, &e);
}

/* ---- what to read ---- */

static bool add_item(struct job *j, struct item i)
{
    if (!MOE_GROW(j->items, j->cap, (size_t)j->n + 1)) return false;
    j->items[j->n++] = i;
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    if (x->file != y->file) return (x->file > y->file) - (x->file < y->file);
    return (x->offset > y->offset) - (x->offset < y->offset);
}

/* The offset at which the header and the table of a shard end; the size of the file when they cannot be read,
 * so that no gap is found before the first plane. */
static uint64_t table_end(const struct moe_source *src, int32_t file)
{
    struct moe_shard_header h;
    struct moe_err e;
    const struct moe_file *f = &src->files[file];
    if (f->fd < 0 || f->size < sizeof h || moe_pread(f->fd, f->path, &h, sizeof h, 0, &e) != MOE_OK)
        return f->size;
    if (h.record_count > (f->size - sizeof h) / sizeof(struct moe_shard_record)) return f->size;
    return sizeof h + h.record_count * sizeof(struct moe_shard_record);
}

/* Add the padding, which is every byte that no plane covers. */
static bool add_gaps(struct job *j)
{
    int64_t n = j->n, i = 0;
    for (int32_t f = 0; f < j->src->n_files; f++) {
        uint64_t at = table_end(j->src, f);
        bool none = i == n || j->items[i].file != f;
        /* no planes: an unusable shard, reported at open, or in a staged part a shard without experts */
        if (none && !j->src->staged) continue;
        for (; i < n && j->items[i].file == f; i++) {
            struct item *x = &j->items[i];
            if (x->offset > at && !add_item(j, (struct item){ -1, f, -1, at, x->offset - at })) return false;
            at = j->items[i].offset + j->items[i].bytes;
        }
        if (j->src->files[f].fd >= 0 && j->src->files[f].size > at &&
            !add_item(j, (struct item){ -1, f, -1, at, j->src->files[f].size - at })) return false;
    }
    return true;
}

/* Add the files beside the shards. */
static bool add_small(struct job *j)
{
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(j->src->container->manifest, "files");
    for (const cJSON *e = files->child; e; e = e->next) {
        struct moe_listed_file f;
        moe_manifest_entry(e, &f);
        if (moe_is_shard_name(f.name)) continue;
        if (!MOE_GROW(j->small, j->cap_small, (size_t)j->n_small + 1)) return false;
        j->small[j->n_small] = f;
        if (!add_item(j, (struct item){ j->n_small++, -1, -1, 0, f.bytes })) return false;
    }
    return true;
}

static bool collect(struct job *j)
{
    const struct moe_source *src = j->src;
    for (int64_t i = 0; i < src->n_tensors; i++)
        for (int p = 0; p < MOE_PLANE_COUNT; p++) {
            const struct moe_span *s = &src->tensors[i].plane[p];
            if (s->file >= 0 && !add_item(j, (struct item){ i, s->file, p, s->offset, s->bytes }))
                return false;
        }
    if (j->n) qsort(j->items, (size_t)j->n, sizeof *j->items, by_place);
    if (src->kind == MOE_CHECKPOINT) return true;
    if (!add_gaps(j) || !add_small(j)) return false;
    /* small files come first, then each shard from its beginning */
    qsort(j->items, (size_t)j->n, sizeof *j->items, by_place);
    return true;
}

/* ---- reading ---- */

static void check_plane(struct job *j, int64_t i, int worker)
{
    const struct item *x = &j->items[i];
    const struct moe_tensor *t = &j->src->tensors[x->tensor];
    const struct moe_file *f = &j->src->files[x->file];
    struct moe_hash *hash = j->hash[worker];
    struct moe_insane bad = { 0, NULL };
    struct moe_err e;
    bool sane = true;
    moe_hash_reset64(hash);
    for (uint64_t at = 0, n; at < x->bytes; at += n) {
        n = x->bytes - at < PIECE ? x->bytes - at : PIECE;
        if (moe_source_read(j->src, t, x->plane, at, (size_t)n, j->buffer[worker], &e) != MOE_OK) {
            add_problem(j, i, f->name, x->tensor, "cannot be read: %s", e.msg);
            return;
        }
        moe_hash_add64(hash, j->buffer[worker], (size_t)n);
        if (sane) sane = moe_plane_sane(t, x->plane, at, j->buffer[worker], (size_t)n, &bad);
        moe_progress_add(j->progress, n);
    }
    if (j->src->kind == MOE_CONTAINER && moe_hash_get64(hash) != t->hash[x->plane])
        add_problem(j, i, f->name, x->tensor,
                    "the %s plane does not match its checksum (copy the file again)",
                    moe_plane_word(x->plane));
    else if (!sane)
        add_problem(j, i, f->name, x->tensor, "the %s plane holds %s at byte %llu", moe_plane_word(x->plane),
                    bad.what, (unsigned long long)bad.offset);
}

/* Say for a message where padding lies: " in the extent of expert 3", or "" outside of extents. */
static const char *owner_of(const struct moe_file *f, uint64_t at, char out[64])
{
    struct moe_shard_header h;
    struct moe_err e;
    *out = 0;
    if (moe_pread(f->fd, f->path, &h, sizeof h, 0, &e) == MOE_OK && h.extent_bytes && at >= h.extent_offset)
        snprintf(out, 64, " in the extent of expert %llu",
                 (unsigned long long)((at - h.extent_offset) / h.extent_bytes));
    return out;
}

static void check_padding(struct job *j, int64_t i, int worker)
{
    const struct item *x = &j->items[i];
    const struct moe_file *f = &j->src->files[x->file];
    struct moe_err e;
    for (uint64_t at = 0, n; at < x->bytes; at += n) {
        n = j->src->staged ? moe_hole(f->fd, x->offset + at, x->bytes - at) : 0;
        if (n) {
            moe_progress_add(j->progress, n);
            continue;
        }
        n = x->bytes - at < PIECE ? x->bytes - at : PIECE;
        if (moe_pread(f->fd, f->path, j->buffer[worker], (size_t)n, x->offset + at, &e) != MOE_OK) {
            add_problem(j, i, f->name, -1, "cannot be read: %s", e.msg);
            return;
        }
        for (uint64_t k = 0; k < n; k++)
            if (j->buffer[worker][k]) {
                char owner[64];
                add_problem(j, i, f->name, -1, "padding at byte %llu%s is not zero",
                            (unsigned long long)(x->offset + at + k), owner_of(f, x->offset + at + k, owner));
                return;
            }
        moe_progress_add(j->progress, n);
    }
}

static void check_small(struct job *j, int64_t i, int worker)
{
    const struct moe_listed_file *s = &j->small[j->items[i].tensor];
    char path[PATH_MAX];
    int fd = -1;
    uint64_t size = 0;
    struct moe_err e;
    enum moe_code code = moe_path_join(path, sizeof path, j->src->path, s->name, &e);
    if (code == MOE_OK) code = moe_open_read(path, &fd, &size, &e);
    moe_hash_reset128(j->hash[worker]);
    for (uint64_t at = 0, n; code == MOE_OK && at < size; at += n) {
        n = size - at < PIECE ? size - at : PIECE;
        code = moe_pread(fd, path, j->buffer[worker], (size_t)n, at, &e);
        if (code == MOE_OK) moe_hash_add128(j->hash[worker], j->buffer[worker], (size_t)n);
        moe_progress_add(j->progress, n);
    }
    if (fd >= 0) close(fd);
    if (code != MOE_OK) add_problem(j, i, s->name, -1, "cannot be read: %s", e.msg);
    else if (size != s->bytes)
        add_problem(j, i, s->name, -1, "%llu byte%s, the manifest says %llu", (unsigned long long)size,
                    moe_plural((int64_t)size), (unsigned long long)s->bytes);
    else if (!moe_same128(moe_hash_get128(j->hash[worker]), s->digest))
        add_problem(j, i, s->name, -1, "does not match its checksum (copy the file again)");
}

static void check_item(void *ctx, int64_t i, int worker)
{
    struct job *j = ctx;
    const struct item *x = &j->items[i];
    struct moe_err e;
    if (atomic_load(&j->stop)) return;
    if (moe_cancel_check(j->cancel, &e) != MOE_OK) {
        stop(j, &e);
        return;
    }
    if (x->file < 0) {
        check_small(j, i, worker);
        return;
    }
    if (x->plane < 0) check_padding(j, i, worker);
    else check_plane(j, i, worker);
    struct moe_span s = { x->file, x->offset, x->bytes };
    moe_source_drop(j->src, &s);
}

/* ---- files that are not listed ---- */

/* Check that the manifest lists every file of a folder; names: what it lists; folder: "" or "NAME/". */
static void check_folder(struct job *j, const struct moe_strmap *names, const char *folder)
{
    char path[PATH_MAX];
    struct moe_err e;
    if (moe_path_join(path, sizeof path, j->src->path, folder, &e) != MOE_OK) return;
    struct moe_names list;
    enum moe_code code = moe_list_dir(path, &list, &e);
    if (code == MOE_NOMEM) stop(j, &e);
    else if (code != MOE_OK && code != MOE_NOT_FOUND)
        add_problem(j, j->n, *folder ? folder : j->src->path, -1, "%s", e.msg);
    for (size_t i = 0; i < list.n; i++) {
        char name[2 * NAME_MAX];
        const char *n = list.v[i];
        if (!*folder && moe_is_plan_name(n)) continue;
        if (!*folder && (!strcmp(n, MOE_MANIFEST_NAME) || !strcmp(n, "tokenizer") || !strcmp(n, "hf")))
            continue;
        snprintf(name, sizeof name, "%s%s", folder, n);
        if (moe_strmap_get(names, name, strlen(name)) < 0)
            add_problem(j, j->n, name, -1, "the manifest does not list it (remove it)");
    }
    moe_names_release(&list);
}

static void check_listing(struct job *j)
{
    struct moe_strmap names = { 0 };
    const cJSON *files = cJSON_GetObjectItemCaseSensitive(j->src->container->manifest, "files");
    bool ok = true;
    for (const cJSON *e = files->child; ok && e; e = e->next) {
        struct moe_listed_file f;
        moe_manifest_entry(e, &f);
        ok = moe_strmap_add(&names, f.name, strlen(f.name), 0, NULL) >= 0;
    }
    if (ok) {
        check_folder(j, &names, "");
        check_folder(j, &names, "tokenizer/");
        check_folder(j, &names, "hf/");
    } else {
        struct moe_err e;
        moe_fail_at(&e, MOE_NOMEM, j->src->path, NULL, "no memory to verify it");
        stop(j, &e);
    }
    moe_strmap_release(&names);
}

/* Check the manifest itself: it may have changed since the container was opened, or the container may have
 * been opened as a survey, in spite of problems. */
static void check_manifest(struct job *j)
{
    cJSON *m;
    struct moe_err e;
    enum moe_code code = moe_manifest_read(j->src->path, &m, &e);
    if (code == MOE_NOMEM) stop(j, &e);
    else if (code != MOE_OK) add_problem(j, -1, MOE_MANIFEST_NAME, -1, "%s", e.msg);
    else cJSON_Delete(m);
}

/* ---- the whole check ---- */

static bool open_workers(struct job *j, struct moe_pool *pool)
{
    j->workers = moe_pool_threads(pool);
    j->buffer = calloc((size_t)j->workers, sizeof *j->buffer);
    j->hash = calloc((size_t)j->workers, sizeof *j->hash);
    bool ok = j->buffer && j->hash;
    for (int i = 0; ok && i < j->workers; i++)
        ok = (j->buffer[i] = malloc(PIECE)) && (j->hash[i] = moe_hash_new());
    return ok;
}

static void close_job(struct job *j)
{
    for (int i = 0; j->buffer && i < j->workers; i++) free(j->buffer[i]);
    for (int i = 0; j->hash && i < j->workers; i++) moe_hash_free(j->hash[i]);
    for (int64_t i = 0; i < j->n_found; i++) free_found(&j->found[i]);
    free(j->buffer);
    free(j->hash);
    free(j->found);
    free(j->items);
    free(j->small);
    pthread_mutex_destroy(&j->lock);
}

static int by_item(const void *a, const void *b)
{
    const struct found *x = a, *y = b;
    return x->item != y->item ? (x->item > y->item) - (x->item < y->item) : strcmp(x->file, y->file);
}

static enum moe_code report(struct job *j, cJSON *problems, struct moe_err *err)
{
    if (j->fatal.code != MOE_OK) return *err = j->fatal, err->code;
    if (!j->n_found) return MOE_OK;
    qsort(j->found, (size_t)j->n_found, sizeof *j->found, by_item);
    for (int64_t i = 0; problems && i < j->n_found && i < PROBLEMS_MAX; i++) {
        const struct found *f = &j->found[i];
        char line[1024];
        snprintf(line, sizeof line, "%s: %s%s%s", f->file, f->tensor, *f->tensor ? ": " : "", f->what);
        if (!moe_json_append(problems, cJSON_CreateString(line)))
            return moe_fail(err, MOE_NOMEM, "no memory for the list of problems");
    }
    char more[64] = "";
    const struct found *f = &j->found[0];
    if (j->n_found > 1) snprintf(more, sizeof more, " (and %lld more)", (long long)j->n_found - 1);
    return moe_fail_at(err, MOE_VERIFY, f->file, *f->tensor ? f->tensor : NULL, "%s%s", f->what, more);
}

/* Gate and up of one MLP are read by one matrix product, so their global scales must be equal. */
static void check_pairs(struct job *j)
{
    for (int64_t i = 1; i < j->src->n_tensors; i++) {
        const struct moe_tensor *t = &j->src->tensors[i], *g = t - 1;
        bool up = t->role == MOE_ROLE_UP || t->role == MOE_ROLE_SHARED_UP || t->role == MOE_ROLE_EXPERT_UP;
        if (up && g->role == t->role - 1 && g->layer == t->layer && g->expert == t->expert &&
            t->type == MOE_NVFP4 && g->type == MOE_NVFP4 && g->global != t->global)
            add_problem(j, j->n, j->src->files[t->plane[0].file].name, i,
                        "its global scale is not that of the gate projection");
    }
}

enum moe_code moe_source_verify(const struct moe_source *src, struct moe_pool *pool,
                                struct moe_progress *progress, const struct moe_cancel *cancel,
                                cJSON *problems, struct moe_err *err)
{
    struct job j = {
        .src = src, .progress = progress, .cancel = cancel, .lock = PTHREAD_MUTEX_INITIALIZER
    };
    enum moe_code code = MOE_OK;
    uint64_t total = 0;
    if (!open_workers(&j, pool) || !collect(&j))
        code = moe_fail_at(err, MOE_NOMEM, src->path, NULL, "no memory to verify it");
    for (int64_t i = 0; i < j.n; i++) total += j.items[i].bytes;
    if (code == MOE_OK) {
        moe_progress_begin(progress, "verify", total, MOE_UNIT_BYTES);
        if (src->kind == MOE_CONTAINER) check_manifest(&j), check_listing(&j);
        else check_pairs(&j);
        moe_pool_run(pool, j.n, check_item, &j);
        moe_progress_end(progress);
        code = report(&j, problems, err);
    }
    close_job(&j);
    return code;
}
