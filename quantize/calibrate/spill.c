/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/calibrate/spill.h"

#include "base/hash.h"
#include "base/io.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The file begins with this.  Then come n of struct moe_spill_tensor, as they are in memory (a reader ignores
 * the pointers), and then the codes and scales of each.  hash: XXH3-64 of all that follows the head.  The
 * file never leaves the machine. */
struct head { char magic[8]; int32_t layer, n; uint64_t hash; };

#define MOST_BYTES ((size_t)1 << 34) /* no layer's file is larger */

static size_t code_bytes(const struct moe_spill_tensor *t) { return (size_t)(t->rows * t->cols / 2); }
static size_t scale_bytes(const struct moe_spill_tensor *t) { return (size_t)(t->rows * t->cols / 16); }

/* Makes the path of a layer's file. */
static enum moe_code join_file_path(const char *dir, int layer, char path[PATH_MAX], struct moe_err *err)
{
    char name[32];
    snprintf(name, sizeof name, "coded-%03d.work", layer);
    return moe_path_join(path, PATH_MAX, dir, name, err);
}

enum moe_code moe_spill_write(const char *dir, int layer, const struct moe_spill_tensor *t, int n,
                              struct moe_err *err)
{
    char path[PATH_MAX];
    struct head h = { "MOECODED", layer, n, 0 };
    size_t size = sizeof h + (size_t)n * sizeof *t;

    MOE_TRY(join_file_path(dir, layer, path, err));
    for (int i = 0; i < n; i++) size += code_bytes(&t[i]) + scale_bytes(&t[i]);
    char *data = malloc(size), *p = data;
    if (!data) return moe_fail(err, MOE_NOMEM, "no memory for the quantized tensors of layer %d", layer);
    p += sizeof h;
    memcpy(p, t, (size_t)n * sizeof *t), p += (size_t)n * sizeof *t;
    for (int i = 0; i < n; i++) {
        memcpy(p, t[i].codes, code_bytes(&t[i])), p += code_bytes(&t[i]);
        memcpy(p, t[i].scales, scale_bytes(&t[i])), p += scale_bytes(&t[i]);
    }
    h.hash = moe_hash64(data + sizeof h, size - sizeof h);
    memcpy(data, &h, sizeof h);
    enum moe_code code = moe_write_file(path, data, size, err);
    free(data);
    return code;
}

/* Checks the content of the file, a->data of `size` bytes, and points a->t into it.  False: it is damaged. */
static bool check_and_bind(struct moe_spill *a, size_t size, int layer)
{
    struct head h;
    size_t at = sizeof h;

    if (size < sizeof h) return false;
    memcpy(&h, a->data, sizeof h);
    if (memcmp(h.magic, "MOECODED", 8) || h.hash != moe_hash64(a->data + at, size - at)) return false;
    if (h.layer != layer || h.n < 1 || h.n > MOE_SPILL_MAX_TENSORS || size - at < (size_t)h.n * sizeof *a->t)
        return false;
    memcpy(a->t, a->data + at, (size_t)h.n * sizeof *a->t);
    at += (size_t)h.n * sizeof *a->t;
    for (int i = 0; i < h.n; i++) {
        struct moe_spill_tensor *t = &a->t[i];
        if (t->rows < 1 || t->cols < 16 || t->rows > INT32_MAX || t->cols > INT32_MAX ||
            size - at < code_bytes(t) + scale_bytes(t))
            return false;
        t->codes = (const uint8_t *)a->data + at, at += code_bytes(t);
        t->scales = (const uint8_t *)a->data + at, at += scale_bytes(t);
    }
    a->layer = layer;
    a->n = h.n;
    return at == size;
}

enum moe_code moe_spill_exists(const char *dir, int layer, bool *there, struct moe_err *err)
{
    char path[PATH_MAX];
    enum moe_exists what;
    MOE_TRY(join_file_path(dir, layer, path, err));
    MOE_TRY(moe_look(path, &what, err));
    *there = what == MOE_FILE;
    return MOE_OK;
}

enum moe_code moe_spill_read(const char *dir, int layer, struct moe_spill *a, bool *there,
                             struct moe_err *err)
{
    char path[PATH_MAX];
    size_t size;
    moe_spill_release(a);
    MOE_TRY(moe_spill_exists(dir, layer, there, err));
    if (!*there) return MOE_OK;
    MOE_TRY(join_file_path(dir, layer, path, err));
    MOE_TRY(moe_read_file(path, MOST_BYTES, &a->data, &size, err));
    if (check_and_bind(a, size, layer)) return MOE_OK;
    moe_spill_release(a);
    return moe_fail_at(err, MOE_CORRUPT, path, NULL,
                       "is damaged, or an older version wrote it (remove it and use --resume)");
}

void moe_spill_release(struct moe_spill *a)
{
    free(a->data);
    *a = (struct moe_spill){ .layer = -1 };
}

const struct moe_spill_tensor *moe_spill_find(const struct moe_spill *a, int role)
{
    for (int i = 0; i < a->n; i++)
        if (a->t[i].role == role) return &a->t[i];
    return NULL;
}

struct moe_weight moe_spill_weight(const struct moe_spill_tensor *t)
{
    return (struct moe_weight){ .type = MOE_NVFP4,
                                .layout = MOE_LAYOUT_LINEAR,
                                .rows = t->rows,
                                .cols = t->cols,
                                .data = t->codes,
                                .scale = t->scales,
                                .global = t->global,
                                .input_scale = t->input_scale };
}
