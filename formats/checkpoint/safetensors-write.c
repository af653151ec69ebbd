/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buffer.h"
#include "base/io.h"
#include "base/newfile.h"
#include "base/writeback.h"
#include "formats/checkpoint/safetensors.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct moe_st_writer {
    struct moe_newfile file;
    uint64_t at, end; /* the offset of the next byte, and the size of the file */
    struct moe_writeback *writeback;
};

/* ---- names ---- */

const char *moe_st_shard_name(int64_t i, int64_t n, char name[MOE_ST_NAME_BYTES])
{
    const char *many = "model-%05lld-of-%05lld.safetensors";
    if (n == 1) snprintf(name, MOE_ST_NAME_BYTES, MOE_ST_SINGLE);
    else snprintf(name, MOE_ST_NAME_BYTES, many, (long long)i + 1, (long long)n);
    return name;
}

bool moe_st_is_shard_name(const char *name)
{
    static const char *const parts[] = { "model-", "-of-" };
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(parts[i]);
        if (strncmp(name, parts[i], n)) return false;
        name += n;
        if (!(n = strspn(name, "0123456789"))) return false;
        name += n;
    }
    return !strcmp(name, ".safetensors");
}

/* ---- the header's text ---- */

static void put_string(struct moe_buffer *t, const char *s)
{
    moe_buffer_put(t, "\"", 1);
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if (c == '"' || c == '\\') moe_buffer_put(t, "\\", 1);
        if (c < 0x20) moe_buffer_printf(t, "\\u%04x", c);
        else moe_buffer_put(t, s, 1);
    }
    moe_buffer_put(t, "\"", 1);
}

/* ---- the file ---- */

/* Fill in the entries' sizes, and their offsets from the first byte of the data; *end: bytes of all data. */
static enum moe_code lay_out(struct moe_st_entry *t, int64_t n, uint64_t *end, const char *path,
                             struct moe_err *err)
{
    *end = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t bytes = t[i].ndim <= MOE_ST_NDIM ? moe_st_bytes(t[i].dtype, t[i].shape, t[i].ndim) : -1;
        if (bytes < 0 || *end > UINT64_MAX / 4)
            return moe_fail_at(err, MOE_UNSUPPORTED, path, t[i].name, "cannot be written as '%s'",
                               t[i].dtype);
        t[i].offset = *end;
        t[i].bytes = (uint64_t)bytes;
        *end += (uint64_t)bytes;
    }
    return MOE_OK;
}

static void put_header(struct moe_buffer *h, const struct moe_st_entry *t, int64_t n)
{
    moe_buffer_put(h, "{\"__metadata__\":{\"format\":\"pt\"}", 31);
    for (int64_t i = 0; i < n; i++) {
        moe_buffer_put(h, ",", 1);
        put_string(h, t[i].name);
        moe_buffer_printf(h, ":{\"dtype\":\"%s\",\"shape\":[", t[i].dtype);
        for (int k = 0; k < t[i].ndim; k++)
            moe_buffer_printf(h, "%s%lld", k ? "," : "", (long long)t[i].shape[k]);
        moe_buffer_printf(h, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)t[i].offset,
                          (unsigned long long)(t[i].offset + t[i].bytes));
    }
    moe_buffer_put(h, "}", 1);
}

/* Hand the text over to the caller, with a NUL behind its *n bytes. */
static enum moe_code hand_over(struct moe_buffer *t, const char *path, char **out, size_t *n,
                               struct moe_err *err)
{
    moe_buffer_put(t, "", 1);
    if (t->failed) {
        free(t->p);
        return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its text");
    }
    *out = t->p;
    *n = t->n - 1;
    return MOE_OK;
}

enum moe_code moe_st_header_text(struct moe_st_entry *t, int64_t n, const char *file, char **out,
                                 size_t *bytes, struct moe_err *err)
{
    struct moe_buffer h = { 0 };
    uint64_t end;
    MOE_TRY(lay_out(t, n, &end, file, err));
    put_header(&h, t, n);
    return hand_over(&h, file, out, bytes, err);
}

/* Append the length of the header as the file has it: 8 bytes, little-endian. */
static void put_length(struct moe_buffer *h, uint64_t n)
{
    for (int i = 0; i < 8; i++) moe_buffer_put(h, (const char[]){ (char)(n >> 8 * i) }, 1);
}

static enum moe_code too_many(const char *path, struct moe_err *err)
{
    return moe_fail_at(err, MOE_UNSUPPORTED, path, NULL, "too many tensors for one safetensors file");
}

/* Open the file and write h, the length and the header. */
static enum moe_code begin_file(struct moe_st_writer *w, const char *path, const struct moe_buffer *h,
                                struct moe_err *err)
{
    if (h->failed) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its header");
    if (h->n - 8 > MOE_ST_HEADER_MAX) return too_many(path, err);
    MOE_TRY(moe_newfile_open(&w->file, path, err));
    w->writeback = moe_writeback_open(w->file.fd, MOE_WRITEBACK_WINDOW);
    w->at = h->n;
    w->end += h->n;
    return moe_pwrite(w->file.fd, path, h->p, h->n, 0, err);
}

enum moe_code moe_st_create_as(struct moe_st_writer **out, const char *path, const char *header, size_t n,
                               uint64_t data_bytes, struct moe_err *err)
{
    struct moe_st_writer *w = calloc(1, sizeof *w);
    struct moe_buffer h = { 0 };
    *out = NULL;
    if (!w) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to write it");
    w->file.fd = -1;
    w->end = data_bytes;
    put_length(&h, n);
    moe_buffer_put(&h, header, n);
    enum moe_code code = begin_file(w, path, &h, err);
    free(h.p);
    if (code != MOE_OK) moe_st_abort(&w);
    *out = w;
    return code;
}

/* Put the JSON text with its padding into *h; the entries get their offsets in the file. */
static enum moe_code padded_header(struct moe_buffer *h, struct moe_st_entry *t, int64_t n, uint64_t *end,
                                   const char *path, struct moe_err *err)
{
    MOE_TRY(lay_out(t, n, end, path, err));
    put_header(h, t, n);
    while (h->n % 8 && !h->failed) moe_buffer_put(h, " ", 1);
    for (int64_t i = 0; i < n; i++) t[i].offset += h->n + 8;
    return h->failed ? moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for its header") : MOE_OK;
}

enum moe_code moe_st_create(struct moe_st_writer **out, const char *path, struct moe_st_entry *t, int64_t n,
                            struct moe_err *err)
{
    struct moe_buffer h = { 0 };
    uint64_t end;
    *out = NULL;
    enum moe_code code = padded_header(&h, t, n, &end, path, err);
    if (code == MOE_OK) code = moe_st_create_as(out, path, h.p, h.n, end, err);
    free(h.p);
    return code;
}

enum moe_code moe_st_head(struct moe_st_entry *t, int64_t n, const char *path, char **head, size_t *bytes,
                          uint64_t *file_bytes, struct moe_err *err)
{
    struct moe_buffer h = { 0 }, all = { 0 };
    uint64_t end;
    enum moe_code code = padded_header(&h, t, n, &end, path, err);
    if (code == MOE_OK && h.n > MOE_ST_HEADER_MAX) code = too_many(path, err);
    if (code == MOE_OK) {
        put_length(&all, h.n);
        moe_buffer_put(&all, h.p, h.n);
        code = hand_over(&all, path, head, bytes, err);
        *file_bytes = 8 + h.n + end;
    }
    free(h.p);
    return code;
}

enum moe_code moe_st_write(struct moe_st_writer *w, const void *data, size_t bytes, struct moe_err *err)
{
    if (bytes > w->end - w->at)
        return moe_fail_at(err, MOE_INTERNAL, w->file.path, NULL, "more data than its header has room for");
    MOE_TRY(moe_pwrite(w->file.fd, w->file.path, data, bytes, w->at, err));
    moe_writeback_add(w->writeback, w->at, bytes);
    w->at += bytes;
    return MOE_OK;
}

static void release(struct moe_st_writer **w)
{
    moe_writeback_close(&(*w)->writeback);
    moe_newfile_abort(&(*w)->file); /* does nothing to a file that was published */
    free(*w);
    *w = NULL;
}

void moe_st_abort(struct moe_st_writer **w)
{
    if (*w) release(w);
}

/* The file is published before the writer closes its descriptor, because the page cache can only be dropped
 * after the data is on the disk. */
enum moe_code moe_st_finish(struct moe_st_writer **out, struct moe_err *err)
{
    struct moe_st_writer *w = *out;
    enum moe_code code = MOE_OK;
    if (w->at != w->end)
        code = moe_fail_at(err, MOE_INTERNAL, w->file.path, NULL, "%llu bytes were never written",
                           (unsigned long long)(w->end - w->at));
    if (code == MOE_OK) code = moe_newfile_sync(&w->file, err);
    if (code == MOE_OK) moe_writeback_drop(w->writeback, w->end);
    if (code == MOE_OK) code = moe_newfile_publish(&w->file, true, err);
    release(out);
    return code;
}

/* An entry of an index: the tensor `name` lies in `file`. */
struct located { const char *name, *file; };

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct located *)a)->name, ((const struct located *)b)->name);
}

enum moe_code moe_st_index_text(const char *const *names, const char *const *files, int64_t n,
                                uint64_t total_size, char **out, size_t *bytes, struct moe_err *err)
{
    struct moe_buffer x = { 0 };
    struct located *p = malloc((size_t)(n ? n : 1) * sizeof *p);
    if (!p) return moe_fail(err, MOE_NOMEM, "no memory for an index");
    for (int64_t i = 0; i < n; i++) p[i] = (struct located){ names[i], files[i] };
    if (n) qsort(p, (size_t)n, sizeof *p, by_name);
    moe_buffer_printf(&x, MOE_ST_INDEX_HEAD, (unsigned long long)total_size);
    for (int64_t i = 0; i < n; i++) {
        moe_buffer_printf(&x, "%s\n    ", i ? "," : "");
        put_string(&x, p[i].name);
        moe_buffer_put(&x, ": ", 2);
        put_string(&x, p[i].file);
    }
    moe_buffer_printf(&x, MOE_ST_INDEX_TAIL);
    free(p);
    return hand_over(&x, "model.safetensors.index.json", out, bytes, err);
}

enum moe_code moe_st_write_index(const char *dir, const char *const *names, const char *const *files,
                                 int64_t n, uint64_t total_size, struct moe_err *err)
{
    char path[PATH_MAX], *text;
    size_t bytes;
    MOE_TRY(moe_path_join(path, sizeof path, dir, "model.safetensors.index.json", err));
    MOE_TRY(moe_st_index_text(names, files, n, total_size, &text, &bytes, err));
    enum moe_code code = moe_write_file(path, text, bytes, err);
    free(text);
    return code;
}
