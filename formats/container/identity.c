/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/container/identity.h"

#include "base/io.h"
#include "base/cancel.h"
#include "formats/container/container-internal.h"
#include "formats/source-parts.h"

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
    SAMPLE = 4096,  /* bytes of a sample: a page */
    BUDGET = 2048,  /* samples of a file with fewer tensors than this */
    AHEAD = 64,     /* samples that the kernel is asked for before they are read, so that a disk that serves
                       many requests at once is used well */
    CONFIG_BYTES = 1 << 30
};

/* ---- which bytes are samples ---- */

/* The raw tensors of one file, sorted by offset; most: the number of samples that each may have at most. */
struct range { const struct moe_raw *raw; int64_t n; uint64_t most; };
/* The position in a range: the next sample to read. */
struct cursor { int64_t raw; uint64_t sample; };
struct piece { const struct moe_raw *raw; uint64_t offset; size_t bytes; };

static uint64_t whole(uint64_t bytes) { return bytes / SAMPLE + (bytes % SAMPLE > 0); }
static uint64_t samples(const struct moe_raw *r, uint64_t most)
{
    return whole(r->span.bytes) < most ? whole(r->span.bytes) : most;
}

static uint64_t samples_of_all(const struct range *f, uint64_t most)
{
    uint64_t n = 0;
    for (int64_t i = 0; i < f->n; i++) n += samples(&f->raw[i], most);
    return n;
}

/* Set f->most to the largest power of two with which the file's samples stay within the budget; at least to
 * 1, and not higher once all bytes are covered. */
static void choose(struct range *f)
{
    uint64_t now = samples_of_all(f, 1), more;
    f->most = 1;
    for (; (more = samples_of_all(f, 2 * f->most)) > now && more <= BUDGET; now = more) f->most *= 2;
}

/* range * k / n for k <= n, without overflow of the product. */
static uint64_t spread(uint64_t range, uint64_t k, uint64_t n) { return range / n * k + range % n * k / n; }

/* Fill in the piece at the cursor and move the cursor on; false at the end. */
static bool next(const struct range *f, struct cursor *c, struct piece *p)
{
    for (; c->raw < f->n; c->raw++, c->sample = 0) {
        const struct moe_raw *r = &f->raw[c->raw];
        uint64_t n = samples(r, f->most), bytes = r->span.bytes, k = c->sample;
        if (k == n) continue;
        uint64_t at = n == whole(bytes) ? k * SAMPLE : k ? spread(bytes - SAMPLE, k, n - 1) : 0;
        *p = (struct piece){ r, at, (size_t)(bytes - at < SAMPLE ? bytes - at : SAMPLE) };
        c->sample++;
        return true;
    }
    return false;
}

/* ---- reading them ---- */

static void ask_for(const struct moe_source *src, const struct piece *p)
{
    posix_fadvise(src->files[p->raw->span.file].fd, (off_t)(p->raw->span.offset + p->offset),
                  (off_t)p->bytes, POSIX_FADV_WILLNEED);
}

static enum moe_code read_samples(const struct moe_source *src, const struct range *f, struct moe_hash *h,
                                  const struct moe_cancel *cancel, struct moe_err *err)
{
    unsigned char page[SAMPLE];
    struct cursor ahead = { 0 }, at = { 0 };
    struct piece p;
    for (int i = 0; i < AHEAD && next(f, &ahead, &p); i++) ask_for(src, &p);
    while (next(f, &at, &p)) {
        MOE_TRY(moe_source_read_raw(src, p.raw, p.offset, p.bytes, page, err));
        moe_hash_add128(h, page, p.bytes);
        if (next(f, &ahead, &p)) ask_for(src, &p);
        if (!(at.sample % 256)) MOE_TRY(moe_cancel_check(cancel, err));
    }
    return moe_cancel_check(cancel, err);
}

/* POSIX_FADV_RANDOM, because otherwise each read of a page would read ahead a whole window. */
static enum moe_code read_file(const struct moe_source *src, struct range *f, struct moe_hash *h,
                               const struct moe_cancel *cancel, struct moe_err *err)
{
    int fd = src->files[f->raw->span.file].fd;
    choose(f);
    if (fd >= 0) posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
    enum moe_code code = read_samples(src, f, h, cancel, err);
    if (fd >= 0) posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL);
    return code;
}

/* Hash the files from which the model's shape and its end-of-sequence tokens were read; a file that does not
 * exist adds nothing. */
static enum moe_code read_configs(const struct moe_source *src, struct moe_hash *h, struct moe_err *err)
{
    static const char *const names[] = { "config.json", "generation_config.json", "hf_quant_config.json" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[PATH_MAX], *text;
        size_t n;
        enum moe_exists there;
        MOE_TRY(moe_path_join(path, sizeof path, src->path, names[i], err));
        MOE_TRY(moe_look(path, &there, err));
        if (there == MOE_ABSENT) continue;
        MOE_TRY(moe_read_file(path, CONFIG_BYTES, &text, &n, err));
        moe_hash_add128(h, names[i], strlen(names[i]) + 1);
        moe_hash_add128(h, text, n);
        free(text);
    }
    return MOE_OK;
}

static enum moe_code read_weights(const struct moe_source *src, struct moe_hash *h,
                                  const struct moe_cancel *cancel, struct moe_err *err)
{
    moe_hash_reset128(h);
    for (int64_t i = 0, n; i < src->n_raws; i += n) {
        n = 1;
        while (i + n < src->n_raws && src->raws[i + n].span.file == src->raws[i].span.file) n++;
        MOE_TRY(read_file(src, &(struct range){ .raw = &src->raws[i], .n = n }, h, cancel, err));
    }
    return MOE_OK;
}

enum moe_code moe_source_identity(const struct moe_source *src, const struct moe_cancel *cancel,
                                  struct moe_identity *id, struct moe_err *err)
{
    *id = (struct moe_identity){ .header_digest = src->index->header_digest,
                                 .weights = src->index->checksum,
                                 .has_weights = true };
    if (src->kind == MOE_CONTAINER) return MOE_OK;
    struct moe_hash *h = moe_hash_new();
    if (!h) return moe_fail_at(err, MOE_NOMEM, src->path, NULL, "no memory to read samples of it");
    enum moe_code code = read_weights(src, h, cancel, err);
    id->samples = moe_hash_get128(h);
    moe_hash_reset128(h);
    moe_hash_add128(h, &id->samples, sizeof id->samples);
    if (code == MOE_OK) code = read_configs(src, h, err);
    id->weights = moe_hash_get128(h);
    id->has_weights = src->n_raws > 0; /* a source with only a config has no tensors */
    moe_hash_free(h);
    return code;
}

/* ---- comparing ---- */

struct moe_identity moe_source_origin(const struct moe_source *src, const struct moe_identity *own)
{
    struct moe_identity id;
    const cJSON *p = src->container ? moe_json_get(src->container->manifest, "provenance") : NULL;
    if (p && moe_identity_get(p, "origin", "weights", &id)) return id;
    return own ? *own : (struct moe_identity){ .header_digest = src->index->header_digest };
}

const char *moe_source_provenance(const struct moe_source *src, const char *key)
{
    const cJSON *p = src->container ? moe_json_get(src->container->manifest, "provenance") : NULL;
    const cJSON *v = p ? moe_json_get(p, key) : NULL;
    return cJSON_IsString(v) ? v->valuestring : NULL;
}

const char *moe_source_kernels(const struct moe_source *src) { return moe_source_provenance(src, "kernels"); }

const char *moe_source_made_from(const struct moe_source *src)
{
    const struct moe_container *c = src->container;
    bool quantized = c && !c->n_parts && cJSON_IsObject(moe_json_get(c->manifest, "quantization"));
    return quantized ? moe_json_get(c->manifest, "checksum")->valuestring
                     : moe_source_provenance(src, "made_from");
}

bool moe_made_from_same(const char *a, bool a_knows, const char *b, bool b_knows)
{
    if (a && b) return !strcmp(a, b);
    return (!a && !b) || !(a ? b_knows : a_knows);
}

bool moe_identity_same(const struct moe_identity *a, const struct moe_identity *b)
{
    bool comparable = a->has_weights && b->has_weights;
    return a->header_digest == b->header_digest && (!comparable || moe_same128(a->weights, b->weights));
}

struct moe_hash128 moe_identity_digest(const struct moe_identity *id)
{
    uint64_t v[] = { id->header_digest, id->weights.high, id->weights.low, id->has_weights };
    return moe_hash128(v, sizeof v);
}

bool moe_identity_put(cJSON *o, const char *headers, const char *weights, const struct moe_identity *id)
{
    char h[17], w[33];
    moe_hex64(id->header_digest, h);
    moe_hex128(id->weights, w);
    return moe_json_add_str(o, headers, h) &&
           (!id->has_weights || moe_json_add_str(o, weights, w));
}

bool moe_identity_get(const cJSON *o, const char *headers, const char *weights, struct moe_identity *id)
{
    const cJSON *h = moe_json_get(o, headers), *w = moe_json_get(o, weights);
    *id = (struct moe_identity){ 0 };
    if (!cJSON_IsString(h) || !moe_parse_hex64(h->valuestring, &id->header_digest)) return false;
    if (!w) return true;
    id->has_weights = true;
    return cJSON_IsString(w) && moe_parse_hex128(w->valuestring, &id->weights);
}

/* ---- whether a source has changed ---- */

/* The first file that was written to or truncated since it was opened; NULL when there is none. */
static enum moe_code written_to(const struct moe_source *src, const struct moe_file **file,
                                struct moe_err *err)
{
    *file = NULL;
    for (int32_t i = 0; i < src->n_files && !*file; i++) {
        const struct moe_file *f = &src->files[i];
        int64_t now;
        uint64_t size;
        if (f->fd < 0) continue;
        MOE_TRY(moe_written_at(f->fd, f->path, &now, &size, err));
        if (now != f->written || size != f->size) *file = f;
    }
    return MOE_OK;
}

static enum moe_code gone(const struct moe_source *src, const char *what, struct moe_err *err)
{
    return moe_fail_at(err, MOE_MISMATCH, src->path, NULL,
                       "%s while it was read (start again when nobody writes to it)", what);
}

static enum moe_code check_small_files(const struct moe_source *src, struct moe_err *err)
{
    struct moe_small_digests now;
    /* without small files, the source was opened for its config alone */
    if (src->kind != MOE_CHECKPOINT || !src->index->small_digests.n) return MOE_OK;
    enum moe_code code = moe_small_digests_read(&now, src->path, err);
    if (code == MOE_NOT_FOUND) return gone(src, "the checkpoint was moved or removed", err);
    MOE_TRY(code);
    const char *name = moe_small_digests_differ(&src->index->small_digests, &now);
    if (name)
        moe_fail_at(err, MOE_MISMATCH, src->path, NULL,
                    "'%.200s' changed, came or went while the model was read (put it back and go on with "
                    "--resume, or start over with --force)",
                    name);
    moe_small_digests_release(&now);
    return name ? MOE_MISMATCH : MOE_OK;
}

static enum moe_code check_manifest(const struct moe_source *src, struct moe_err *err)
{
    char path[PATH_MAX];
    enum moe_exists there;
    struct moe_hash128 now;
    uint64_t bytes;
    const struct moe_container *c = src->container;
    if (!c) return MOE_OK;
    for (int i = 0; i < c->n_parts; i++) MOE_TRY(check_manifest(c->parts[i], err));
    if (c->n_parts) return MOE_OK;
    MOE_TRY(moe_path_join(path, sizeof path, src->path, MOE_MANIFEST_NAME, err));
    MOE_TRY(moe_look(path, &there, err));
    if (there != MOE_ABSENT) MOE_TRY(moe_file_digest(path, &bytes, &now, err));
    if (there != MOE_ABSENT && moe_same128(now, src->index->manifest)) return MOE_OK;
    return gone(
        src, there == MOE_ABSENT ? "the container was moved or removed" : "the container was replaced", err);
}

enum moe_code moe_source_check_unmodified(const struct moe_source *src, struct moe_err *err)
{
    const struct moe_file *f;
    MOE_TRY(written_to(src, &f, err));
    if (f)
        return moe_fail_at(err, MOE_MISMATCH, f->path, NULL,
                           "it was written to while it was read (start again when nobody writes to it)");
    MOE_TRY(check_manifest(src, err));
    return check_small_files(src, err);
}

enum moe_code moe_source_blame_change(const struct moe_source *src, enum moe_code code, struct moe_err *err)
{
    struct moe_err changed;
    bool may = code == MOE_NOT_FOUND || code == MOE_IO || code == MOE_CORRUPT || code == MOE_UNSUPPORTED ||
               code == MOE_VERIFY || code == MOE_NONFINITE;
    if (!src || !may || moe_source_check_unmodified(src, &changed) != MOE_MISMATCH) return code;
    *err = changed;
    return MOE_MISMATCH;
}

enum moe_code moe_source_unchanged(const struct moe_source *src, const struct moe_identity *before,
                                   const struct moe_cancel *cancel, bool *spoiled, struct moe_err *err)
{
    struct moe_identity now;
    const struct moe_file *f;
    *spoiled = false;
    if (src->kind == MOE_CONTAINER) return check_manifest(src, err);
    enum moe_code code = moe_source_identity(src, cancel, &now, err);
    /* A source that is read once should leave nothing in the page cache, but sampling has brought pages
     * back. */
    for (int32_t i = 0; i < src->n_files; i++) moe_source_drop_file(src, i);
    MOE_TRY(moe_source_blame_change(src, code, err));
    MOE_TRY(written_to(src, &f, err));
    *spoiled = before->header_digest != now.header_digest || !moe_same128(before->samples, now.samples);
    if (*spoiled)
        return moe_fail_at(err, MOE_MISMATCH, f ? f->path : src->path, NULL,
                           "its weights changed while they were read (start again when nobody writes to it)");
    MOE_TRY(check_small_files(src, err));
    if (!moe_identity_same(before, &now))
        return moe_fail_at(err, MOE_MISMATCH, src->path, NULL,
                           "config.json or another of its configurations changed while the weights were read "
                           "(put it back and go on with --resume, or start over with --force)");
    if (f)
        return moe_fail_at(err, MOE_MISMATCH, f->path, NULL,
                           "it was written to while it was read, though no sample of its weights differs (if "
                           "it is what it was, go on with --resume)");
    return MOE_OK;
}
