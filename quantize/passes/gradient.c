/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/passes/gradient.h"

#include "base/hash.h"
#include "base/io.h"
#include "base/minmax.h"
#include "base/newfile.h"

#include <assert.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The file begins with this; then the gradients [n, width] in float32 follow.  hash: XXH3-64 of the head,
 * with 0 for the hash, and of what follows it.  It is in the byte order of the machine, since it never
 * leaves it. */
struct head {
    char magic[8];
    int64_t layer, n, width;
    uint64_t hash;
};
static_assert(sizeof(struct head) == 40, "no padding");
enum { PIECE = 256 };

uint64_t moe_gradient_bytes(int64_t tokens, int64_t width)
{
    return sizeof(struct head) + (uint64_t)(tokens * width) * sizeof(float);
}

static struct head head_of(int layer, int64_t n, int64_t width)
{
    return (struct head){ "MOEGRAD", layer, n, width, 0 };
}

/* Rows are read and written in pieces, and each piece is added to the hash. */
struct pass {
    struct moe_hash *hash;
    float *rows;
};

static enum moe_code begin(struct pass *p, const struct head *h, struct moe_err *err)
{
    struct head zero = *h;
    zero.hash = 0;
    p->hash = moe_hash_new();
    p->rows = malloc((size_t)(PIECE * h->width) * sizeof *p->rows);
    if (!p->hash || !p->rows)
        return moe_fail(err, MOE_NOMEM, "no memory for the gradients of the sensitivity pass");
    moe_hash_reset64(p->hash);
    moe_hash_add64(p->hash, &zero, sizeof zero);
    return MOE_OK;
}

static void end(struct pass *p)
{
    moe_hash_free(p->hash);
    free(p->rows);
}

static enum moe_code write_rows(struct pass *p, int fd, const char *path, struct head *h,
                                const struct moe_states *dh, struct moe_err *err)
{
    MOE_TRY(begin(p, h, err));
    for (int64_t at = 0, n; at < h->n; at += n) {
        n = moe_min_i64(PIECE, h->n - at);
        size_t bytes = (size_t)(n * h->width) * sizeof *p->rows;
        MOE_TRY(moe_states_read(dh, at, n, p->rows, err));
        moe_hash_add64(p->hash, p->rows, bytes);
        MOE_TRY(moe_pwrite(fd, path, p->rows, bytes, moe_gradient_bytes(at, h->width), err));
    }
    h->hash = moe_hash_get64(p->hash);
    return moe_pwrite(fd, path, h, sizeof *h, 0, err);
}

enum moe_code moe_gradient_save(const char *dir, int layer, const struct moe_states *dh, struct moe_err *err)
{
    char path[PATH_MAX];
    struct moe_newfile f;
    struct pass p = { NULL, NULL };
    struct head h = head_of(layer, dh->n, dh->width);
    MOE_TRY(moe_path_join(path, sizeof path, dir, MOE_GRADIENT_NAME, err));
    MOE_TRY(moe_newfile_open(&f, path, err));
    enum moe_code code = write_rows(&p, f.fd, path, &h, dh, err);
    end(&p);
    if (code == MOE_OK) return moe_newfile_publish(&f, true, err);
    moe_newfile_abort(&f);
    return code;
}

/* *fd is -1 when there is no such file or its sizes are others. */
static enum moe_code open_file(const char *dir, char path[PATH_MAX], int64_t n, int64_t width, int *fd,
                               struct head *h, struct moe_err *err)
{
    enum moe_exists there;
    uint64_t size;

    *fd = -1;
    MOE_TRY(moe_path_join(path, PATH_MAX, dir, MOE_GRADIENT_NAME, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there != MOE_FILE) return MOE_OK;
    MOE_TRY(moe_open_read(path, fd, &size, err));
    enum moe_code code = MOE_OK;
    bool fits = size == moe_gradient_bytes(n, width);
    if (fits) code = moe_pread(*fd, path, h, sizeof *h, 0, err);
    const struct head want = head_of(fits && code == MOE_OK ? (int)h->layer : 0, n, width);
    if (code == MOE_OK && fits && h->layer >= 0 && h->layer < INT_MAX &&
        !memcmp(h, &want, offsetof(struct head, hash)))
        return MOE_OK;
    close(*fd);
    *fd = -1;
    return code;
}

/* dh NULL: reads only to compute the hash. */
static enum moe_code read_rows(struct pass *p, int fd, const char *path, const struct head *h,
                               struct moe_states *dh, struct moe_err *err)
{
    MOE_TRY(begin(p, h, err));
    for (int64_t at = 0, n; at < h->n; at += n) {
        n = moe_min_i64(PIECE, h->n - at);
        size_t bytes = (size_t)(n * h->width) * sizeof *p->rows;
        MOE_TRY(moe_pread(fd, path, p->rows, bytes, moe_gradient_bytes(at, h->width), err));
        moe_hash_add64(p->hash, p->rows, bytes);
        if (dh) MOE_TRY(moe_states_write(dh, at, n, p->rows, err));
    }
    return MOE_OK;
}

static enum moe_code read_all(const char *dir, int64_t n, int64_t width, struct moe_states *dh, int *layer,
                              struct moe_err *err)
{
    char path[PATH_MAX];
    struct head h;
    struct pass p = { NULL, NULL };
    int fd;
    *layer = -1;
    MOE_TRY(open_file(dir, path, n, width, &fd, &h, err));
    if (fd < 0) return MOE_OK;
    enum moe_code code = read_rows(&p, fd, path, &h, dh, err);
    if (code == MOE_OK && moe_hash_get64(p.hash) == h.hash) *layer = (int)h.layer;
    end(&p);
    close(fd);
    return code;
}

enum moe_code moe_gradient_layer(const char *dir, int64_t n, int64_t width, int *layer, struct moe_err *err)
{
    return read_all(dir, n, width, NULL, layer, err);
}

enum moe_code moe_gradient_read(const char *dir, struct moe_states *dh, struct moe_err *err)
{
    int layer;
    MOE_TRY(read_all(dir, dh->n, dh->width, dh, &layer, err));
    return layer >= 0
               ? MOE_OK
               : moe_fail_at(err, MOE_CORRUPT, dir, NULL,
                             "its " MOE_GRADIENT_NAME " changed while it was read (use --resume again)");
}

enum moe_code moe_gradient_drop(const char *dir, struct moe_err *err)
{
    char path[PATH_MAX];
    MOE_TRY(moe_path_join(path, sizeof path, dir, MOE_GRADIENT_NAME, err));
    return moe_remove_tree(path, err);
}
