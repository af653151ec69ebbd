/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/gguf/gguf.h"

#include "base/io.h"
#include "base/newfile.h"
#include "base/show.h"
#include "base/writeback.h"
#include "formats/gguf/gguf-read.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    ALIGN = 32, /* bytes */
    VERSION = 3,
    FIXED_BYTES = 24 /* magic, version, numbers of tensors and of pairs */
};
#define MAGIC "GGUF"
#define PRODUCER_KEY "moe.producer" /* the first pair of every file; it marks the file as ours */
#define PRODUCER "moe-convert"
#define FILE_MAX_BYTES ((uint64_t)1 << 60)

int64_t moe_gguf_row_bytes(uint32_t type, uint64_t n)
{
    uint64_t values, bytes;
    if (!moe_gguf_block(type, &values, &bytes) || n % values || n >= FILE_MAX_BYTES) return -1;
    return (int64_t)(n / values * bytes);
}

/* ---- metadata ---- */

static void put(struct moe_gguf_meta *m, const void *data, size_t n)
{
    moe_buffer_put(&m->bytes, data, n);
}

static void put_int(struct moe_gguf_meta *m, uint64_t v, int bytes)
{
    unsigned char b[8];
    for (int i = 0; i < bytes; i++) b[i] = (unsigned char)(v >> 8 * i);
    put(m, b, (size_t)bytes);
}

static void put_str(struct moe_gguf_meta *m, const char *s, size_t len)
{
    put_int(m, len, 8);
    put(m, s, len);
}

/* Begin a pair: its value must follow. */
static void put_key(struct moe_gguf_meta *m, const char *name, uint32_t type)
{
    put_str(m, name, strlen(name));
    put_int(m, type, 4);
    m->pairs++;
}

void moe_gguf_put_u32(struct moe_gguf_meta *m, const char *name, uint64_t v)
{
    put_key(m, name, MOE_GGUF_U32);
    put_int(m, v, 4);
}

void moe_gguf_put_f32(struct moe_gguf_meta *m, const char *name, double v)
{
    float f = (float)v;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    put_key(m, name, MOE_GGUF_FLOAT32);
    put_int(m, u, 4);
}

void moe_gguf_put_bool(struct moe_gguf_meta *m, const char *name, bool v)
{
    put_key(m, name, MOE_GGUF_BOOL);
    put_int(m, v, 1);
}

void moe_gguf_put_str(struct moe_gguf_meta *m, const char *name, const char *s, size_t len)
{
    put_key(m, name, MOE_GGUF_STRING);
    put_str(m, s, len);
}

static void put_array_head(struct moe_gguf_meta *m, const char *name, uint32_t type, uint64_t n)
{
    put_key(m, name, MOE_GGUF_ARRAY);
    put_int(m, type, 4);
    put_int(m, n, 8);
}

void moe_gguf_begin_strings(struct moe_gguf_meta *m, const char *name, uint64_t n)
{
    put_array_head(m, name, MOE_GGUF_STRING, n);
}
void moe_gguf_begin_i32s(struct moe_gguf_meta *m, const char *name, uint64_t n)
{
    put_array_head(m, name, MOE_GGUF_I32, n);
}
void moe_gguf_put_item_str(struct moe_gguf_meta *m, const char *s, size_t len) { put_str(m, s, len); }
void moe_gguf_put_item_i32(struct moe_gguf_meta *m, int32_t v) { put_int(m, (uint32_t)v, 4); }

void moe_gguf_meta_release(struct moe_gguf_meta *m)
{
    free(m->bytes.p);
    *m = (struct moe_gguf_meta){ 0 };
}

/* ---- layout ---- */

static uint64_t round_up(uint64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

/* Bytes of everything before the data, padding included. */
static uint64_t head_bytes(const struct moe_gguf_tensor *t, int64_t n, const struct moe_gguf_meta *m)
{
    uint64_t at = FIXED_BYTES + m->bytes.n;
    for (int64_t i = 0; i < n; i++) at += 8 + strlen(t[i].name) + 4 + 8 * t[i].ndim + 4 + 8;
    return round_up(at);
}

enum moe_code moe_gguf_place(struct moe_gguf_tensor *t, int64_t n, const struct moe_gguf_meta *m,
                             uint64_t *file_bytes, struct moe_err *err)
{
    uint64_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t row = moe_gguf_row_bytes(t[i].type, t[i].ne[0]);
        uint64_t bytes = (uint64_t)row;
        if (row < 0)
            return moe_fail_at(err, MOE_UNSUPPORTED, NULL, t[i].name,
                               "has rows of %llu values, GGUF's type for them needs a multiple of %d",
                               (unsigned long long)t[i].ne[0], t[i].type == MOE_GGUF_NVFP4 ? 64 : 32);
        for (int d = 1; d < 4; d++)
            if (__builtin_mul_overflow(bytes, t[i].ne[d], &bytes) || bytes > FILE_MAX_BYTES ||
                at > FILE_MAX_BYTES)
                return moe_fail_at(err, MOE_UNSUPPORTED, NULL, t[i].name, "is too large for a file");
        t[i].offset = at;
        t[i].bytes = bytes;
        at += round_up(bytes);
    }
    *file_bytes = head_bytes(t, n, m) + at;
    return MOE_OK;
}

/* ---- the file ---- */

struct moe_gguf_writer {
    struct moe_newfile file;
    uint64_t data, end;           /* offset of the data; size of the file */
    unsigned char first[MOE_RECORD_BYTES]; /* the file's first bytes, written last */
    struct moe_writeback *writeback;
};

/* Whether an open file begins with the head of a GGUF file that this tool wrote. */
static bool is_our_head(int fd)
{
    struct moe_gguf_meta h = { 0 };
    unsigned char head[96];
    struct moe_err e;
    put(&h, MAGIC, 4);
    put_int(&h, VERSION, 4);
    put_int(&h, 0, 8); /* the numbers of tensors and of pairs, which are not compared */
    put_int(&h, 0, 8);
    moe_gguf_put_str(&h, PRODUCER_KEY, PRODUCER, strlen(PRODUCER));
    const struct moe_buffer *b = &h.bytes;
    bool is = !b->failed && b->n <= sizeof head && moe_pread(fd, "", head, b->n, 0, &e) == MOE_OK &&
              !memcmp(head, b->p, 8) &&
              !memcmp(head + FIXED_BYTES, b->p + FIXED_BYTES, b->n - FIXED_BYTES);
    moe_gguf_meta_release(&h);
    return is;
}

static bool is_our_file(const char *path)
{
    int fd;
    uint64_t size;
    struct moe_err e;
    if (moe_open_read(path, &fd, &size, &e) != MOE_OK) return false;
    bool is = is_our_head(fd);
    close(fd);
    return is;
}

/* Format the line that records a file's size, the time of its last write, and its work.  A copy of the file,
 * or the file once it is changed, has another line. */
static void format_made_line(int fd, const char *work, char line[MOE_WORK_BYTES])
{
    struct stat st;
    if (fstat(fd, &st)) st = (struct stat){ .st_size = -1 };
    snprintf(line, MOE_WORK_BYTES, "gguf %lld %lld.%09ld by %s", (long long)st.st_size,
             (long long)st.st_mtim.tv_sec, (long)st.st_mtim.tv_nsec, work);
}

bool moe_gguf_is_made(const char *path, const char *work)
{
    char was[MOE_WORK_BYTES], now[MOE_WORK_BYTES];
    uint64_t size;
    int fd;
    struct moe_err e;
    if (moe_exists(path) != MOE_FILE || moe_open_read(path, &fd, &size, &e) != MOE_OK) return false;
    moe_made_state_get(fd, was);
    format_made_line(fd, work, now);
    bool is = is_our_head(fd) && !strcmp(was, now);
    close(fd);
    return is;
}

void moe_gguf_put_producer(struct moe_gguf_meta *m)
{
    moe_gguf_put_str(m, PRODUCER_KEY, PRODUCER, strlen(PRODUCER));
}

enum moe_code moe_gguf_may_write(const char *path, enum moe_leftover_policy policy, struct moe_err *err)
{
    size_t n = strlen(path);
    if (!n || path[n - 1] == '/')
        return moe_fail_at(err, MOE_USAGE, path, NULL, "is no name for a file (-o FILE.gguf)");
    enum moe_exists there;
    /* A model is large, and the maker of a link chose the disk for it: a file must not take the link's
     * place. */
    MOE_TRY(moe_no_link(path, "file", err));
    MOE_TRY(moe_look(path, &there, err));
    if (there == MOE_ABSENT) return MOE_OK;
    if (there != MOE_FILE || !is_our_file(path))
        return moe_fail_at(err, MOE_EXISTS, path, NULL,
                           "already exists and is not a GGUF file that this tool wrote (move it away, or "
                           "choose another name with -o)");
    bool may = policy == MOE_LEFTOVER_DISCARD ||
               (policy == MOE_LEFTOVER_RESTART && moe_newfile_resumes(path));
    return may ? MOE_OK
               : moe_fail_at(err, MOE_EXISTS, path, NULL, "already exists (replace it with --force)");
}

static enum moe_code reserve(struct moe_gguf_writer *w, uint64_t bytes, struct moe_err *err)
{
    if (!moe_reserve(w->file.fd, bytes)) return MOE_OK;
    char size[16];
    if (errno == ENOSPC || errno == EDQUOT)
        return moe_fail_at(err, MOE_NOSPACE, w->file.path, NULL,
                           "no space left: this file needs %s (free some, and run it again)",
                           moe_human_bytes(bytes, size));
    return moe_fail_errno(err, errno, w->file.tmp, "cannot reserve space");
}

/* Write the head except its first bytes, which are kept in w->first until the file is complete. */
static enum moe_code write_head(struct moe_gguf_writer *w, const struct moe_gguf_meta *m,
                                const struct moe_gguf_tensor *t, int64_t n, struct moe_err *err)
{
    struct moe_gguf_meta h = { 0 };
    put(&h, MAGIC, 4);
    put_int(&h, VERSION, 4);
    put_int(&h, (uint64_t)n, 8);
    put_int(&h, m->pairs, 8);
    put(&h, m->bytes.p, m->bytes.n);
    for (int64_t i = 0; i < n; i++) {
        put_str(&h, t[i].name, strlen(t[i].name));
        put_int(&h, t[i].ndim, 4);
        for (uint32_t d = 0; d < t[i].ndim; d++) put_int(&h, t[i].ne[d], 8);
        put_int(&h, t[i].type, 4);
        put_int(&h, t[i].offset, 8);
    }
    while (h.bytes.n < w->data && !h.bytes.failed) put_int(&h, 0, 1);
    enum moe_code code = MOE_OK;
    size_t first = sizeof w->first;
    if (h.bytes.failed || m->bytes.failed) {
        code = moe_fail_at(err, MOE_NOMEM, w->file.path, NULL, "no memory for its header");
    } else {
        MOE_CHECK(h.bytes.n >= first);
        memcpy(w->first, h.bytes.p, first);
        code = moe_pwrite(w->file.fd, w->file.tmp, h.bytes.p + first, h.bytes.n - first, first, err);
    }
    moe_gguf_meta_release(&h);
    return code;
}

enum moe_code moe_gguf_create(struct moe_gguf_writer **out, const char *path, enum moe_leftover_policy policy,
                              const char *work, bool *whole, const struct moe_gguf_meta *m,
                              const struct moe_gguf_tensor *t, int64_t n, struct moe_err *err)
{
    *out = NULL;
    MOE_TRY(moe_gguf_may_write(path, policy, err));
    struct moe_gguf_writer *w = calloc(1, sizeof *w);
    if (!w) return moe_fail(err, MOE_NOMEM, "no memory to write a file");
    w->data = head_bytes(t, n, m);
    enum moe_code code = moe_newfile_open_partial(&w->file, path, is_our_head, policy, work, err);
    w->end = n ? w->data + t[n - 1].offset + round_up(t[n - 1].bytes) : w->data;
    *whole = code == MOE_OK && w->file.whole;
    if (*whole) return *out = w, MOE_OK;
    if (code == MOE_OK) code = reserve(w, w->end, err);
    if (code == MOE_OK) w->writeback = moe_writeback_open(w->file.fd, MOE_WRITEBACK_WINDOW);
    if (code == MOE_OK) code = write_head(w, m, t, n, err);
    if (code != MOE_OK) moe_gguf_abort(&w);
    *out = w;
    return code;
}

enum moe_code moe_gguf_write(struct moe_gguf_writer *w, const struct moe_gguf_tensor *t, uint64_t offset,
                             const void *data, size_t bytes, struct moe_err *err)
{
    MOE_CHECK(offset <= t->bytes && bytes <= t->bytes - offset);
    MOE_TRY(moe_pwrite(w->file.fd, w->file.tmp, data, bytes, w->data + t->offset + offset, err));
    moe_writeback_add(w->writeback, w->data + t->offset + offset, bytes);
    return MOE_OK;
}

static void release(struct moe_gguf_writer **w)
{
    moe_writeback_close(&(*w)->writeback);
    moe_newfile_abort(&(*w)->file); /* does nothing to a file that was published */
    free(*w);
    *w = NULL;
}

void moe_gguf_abort(struct moe_gguf_writer **w)
{
    if (*w) release(w);
}

/* What exists at the path now may be replaced if it is a GGUF file of ours. */
enum moe_code moe_gguf_finish(struct moe_gguf_writer **out, struct moe_err *err)
{
    struct moe_gguf_writer *w = *out;
    enum moe_exists there;
    char made[MOE_WORK_BYTES];
    enum moe_code code = w->file.whole
                           ? MOE_OK
                           : moe_pwrite(w->file.fd, w->file.tmp, w->first, sizeof w->first, 0, err);
    if (code == MOE_OK) code = moe_newfile_sync(&w->file, err);
    if (code == MOE_OK) moe_writeback_drop(w->writeback, w->end);
    format_made_line(w->file.fd, w->file.record.work, made);
    if (code == MOE_OK) moe_made_state_put(w->file.fd, made);
    if (code == MOE_OK) code = moe_look(w->file.path, &there, err);
    if (code == MOE_OK)
        code = moe_newfile_publish(&w->file, there == MOE_FILE && is_our_file(w->file.path), err);
    release(out);
    return code;
}
