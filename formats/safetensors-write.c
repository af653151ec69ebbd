#include "base/io.h"
#include "base/writeback.h"
#include "formats/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct moe_st_writer { int fd; uint64_t at, end; char *path, *tmp; struct moe_writeback *behind; };

/* ---- text of any length ---- */

struct text { char *p; size_t n, cap; bool failed; };

static void put(struct text *t, const char *s, size_t n)
{
    if (t->n + n + 1 > t->cap && !t->failed) {
        size_t cap = 2 * t->cap + n + 4096;
        char *p = realloc(t->p, cap);
        if (p) t->p = p, t->cap = cap;
        else t->failed = true;
    }
    if (t->failed) return;
    memcpy(t->p + t->n, s, n);
    t->n += n;
}

__attribute__((format(printf, 2, 3)))
static void putf(struct text *t, const char *fmt, ...)
{
    char s[128];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(s, sizeof s, fmt, ap);
    va_end(ap);
    put(t, s, (size_t)n);
}

static void put_string(struct text *t, const char *s)
{
    put(t, "\"", 1);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') put(t, "\\", 1);
        if (c < 0x20) putf(t, "\\u%04x", c);
        else put(t, s, 1);
    }
    put(t, "\"", 1);
}

/* ---- the file ---- */

static enum moe_code place(struct moe_st_entry *t, int64_t n, uint64_t *end, const char *path, struct moe_err *err)
{
    *end = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t bytes = t[i].ndim <= MOE_ST_NDIM ? moe_st_bytes(t[i].dtype, t[i].shape, t[i].ndim) : -1;
        if (bytes < 0 || *end > UINT64_MAX / 4) return moe_fail_at(err, MOE_UNSUPPORTED, path, t[i].name, "cannot be written as '%s'", t[i].dtype);
        t[i].offset = *end;
        t[i].bytes = (uint64_t)bytes;
        *end += (uint64_t)bytes;
    }
    return MOE_OK;
}

static void put_header(struct text *h, const struct moe_st_entry *t, int64_t n)
{
    put(h, "\0\0\0\0\0\0\0\0{\"__metadata__\":{\"format\":\"pt\"}", 8 + 31);
    for (int64_t i = 0; i < n; i++) {
        put(h, ",", 1);
        put_string(h, t[i].name);
        putf(h, ":{\"dtype\":\"%s\",\"shape\":[", t[i].dtype);
        for (int k = 0; k < t[i].ndim; k++) putf(h, "%s%lld", k ? "," : "", (long long)t[i].shape[k]);
        putf(h, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)t[i].offset, (unsigned long long)(t[i].offset + t[i].bytes));
    }
    put(h, "}", 1);
    while (h->n % 8 && !h->failed) put(h, " ", 1);
    for (int i = 0; i < 8 && !h->failed; i++) h->p[i] = (char)((uint64_t)(h->n - 8) >> 8 * i);
}

static enum moe_code start(struct moe_st_writer *w, const char *path, const struct text *h, struct moe_err *err)
{
    size_t n = strlen(path);
    w->path = malloc(n + 1);
    w->tmp = malloc(n + 5);
    if (!w->path || !w->tmp || h->failed) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its header");
    if (h->n - 8 > MOE_ST_HEADER_MAX) return moe_fail_at(err, MOE_UNSUPPORTED, path, NULL, "too many tensors for one safetensors file");
    memcpy(w->path, path, n + 1);
    snprintf(w->tmp, n + 5, "%s.tmp", path);
    w->fd = moe_open(w->tmp, O_WRONLY | O_CREAT | O_TRUNC);
    if (w->fd < 0) return moe_fail_errno(err, errno, w->tmp, "cannot create");
    w->behind = moe_writeback_open(w->fd, MOE_WRITEBACK_WINDOW);
    w->at = h->n;
    w->end += h->n;
    return moe_pwrite(w->fd, w->tmp, h->p, h->n, 0, err);
}

enum moe_code moe_st_create(struct moe_st_writer **out, const char *path, struct moe_st_entry *t, int64_t n, struct moe_err *err)
{
    struct moe_st_writer *w = calloc(1, sizeof *w);
    struct text h = { 0 };
    *out = NULL;
    if (!w) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to write it");
    w->fd = -1;
    enum moe_code code = place(t, n, &w->end, path, err);
    if (code == MOE_OK) {
        put_header(&h, t, n);
        code = start(w, path, &h, err);
    }
    if (code == MOE_OK) for (int64_t i = 0; i < n; i++) t[i].offset += h.n;
    free(h.p);
    if (code != MOE_OK) moe_st_abort(&w);
    *out = w;
    return code;
}

enum moe_code moe_st_write(struct moe_st_writer *w, const void *data, size_t bytes, struct moe_err *err)
{
    if (bytes > w->end - w->at) return moe_fail_at(err, MOE_INTERNAL, w->path, NULL, "more data than its header has room for");
    MOE_TRY(moe_pwrite(w->fd, w->tmp, data, bytes, w->at, err));
    moe_writeback_add(w->behind, w->at, bytes);
    w->at += bytes;
    return MOE_OK;
}

static void release(struct moe_st_writer **w)
{
    moe_writeback_close(&(*w)->behind);
    free((*w)->path);
    free((*w)->tmp);
    free(*w);
    *w = NULL;
}

void moe_st_abort(struct moe_st_writer **w)
{
    if (!*w) return;
    if ((*w)->fd >= 0) {
        close((*w)->fd);
        unlink((*w)->tmp);
    }
    release(w);
}

enum moe_code moe_st_finish(struct moe_st_writer **out, struct moe_err *err)
{
    struct moe_st_writer *w = *out;
    enum moe_code code = MOE_OK;
    if (w->at != w->end) code = moe_fail_at(err, MOE_INTERNAL, w->path, NULL, "%llu bytes were never written", (unsigned long long)(w->end - w->at));
    if (code == MOE_OK) {
        if (moe_fsync(w->fd)) code = moe_fail_errno(err, errno, w->tmp, "cannot sync");
        else moe_writeback_drop(w->behind, w->end);
    }
    if (close(w->fd) && code == MOE_OK) code = moe_fail_errno(err, errno, w->tmp, "cannot close");
    if (code == MOE_OK) code = moe_rename(w->tmp, w->path, err);
    if (code != MOE_OK) unlink(w->tmp);
    release(out);
    return code;
}

enum moe_code moe_st_write_index(const char *dir, const struct moe_st_entry *t, const char *const *files, int64_t n,
                                 uint64_t total_size, struct moe_err *err)
{
    char path[PATH_MAX];
    struct text x = { 0 };
    MOE_TRY(moe_path_join(path, sizeof path, dir, "model.safetensors.index.json", err));
    putf(&x, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {", (unsigned long long)total_size);
    for (int64_t i = 0; i < n; i++) {
        putf(&x, "%s\n    ", i ? "," : "");
        put_string(&x, t[i].name);
        put(&x, ": ", 2);
        put_string(&x, files[i]);
    }
    putf(&x, "\n  }\n}\n");
    enum moe_code code = x.failed ? moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to write it") : moe_write_file(path, x.p, x.n, err);
    free(x.p);
    return code;
}
