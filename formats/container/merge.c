/* SPDX-License-Identifier: Apache-2.0 */
/* Merges the parts of a model that several machines wrote into the whole. */
#include "base/grow.h"
#include "formats/container/container-internal.h"

#include "base/io.h"
#include "formats/routing.h"
#include "formats/source-parts.h"

#include <stdlib.h>
#include <string.h>

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory to merge the parts");
}

/* ---- do they belong together? ---- */

static int by_first(const void *a, const void *b)
{
    const struct moe_source *x = *(struct moe_source *const *)a, *y = *(struct moe_source *const *)b;
    return (x->part.first > y->part.first) - (x->part.first < y->part.first);
}

/* Check that the parts, in the order of their layers, hold every layer of the model once. */
static enum moe_code check_cover(struct moe_source *const *part, int n, struct moe_err *err)
{
    int32_t next = 0, layers = (int32_t)part[0]->config.num_hidden_layers;
    for (int i = 0; i <= n; i++) {
        int32_t first = i < n ? part[i]->part.first : layers;
        if (first > next)
            return moe_fail(err, MOE_MISMATCH,
                            "layers %d-%d are in none of the parts (quantize them with --layers %d-%d)", next,
                            first - 1, next, first - 1);
        if (i < n && first < next)
            return moe_fail_at(err, MOE_MISMATCH, part[i]->path, NULL,
                               "layer %d is in '%s' too (give each layer once)", first, part[i - 1]->path);
        if (i < n) next = part[i]->part.last + 1;
    }
    return MOE_OK;
}

/* The options by which a part was made, without the one that differs between parts; NULL without memory. */
static cJSON *options_of(const cJSON *manifest)
{
    cJSON *o = cJSON_Duplicate(moe_json_get(moe_json_get(manifest, "provenance"), "options"), true);
    cJSON_DeleteItemFromObjectCaseSensitive(o, "layers");
    return o;
}

static bool same_json(const cJSON *a, const cJSON *b)
{
    char *x = a ? moe_json_print(a, 0) : NULL, *y = b ? moe_json_print(b, 0) : NULL;
    bool same = (!a && !b) || (x && y && !strcmp(x, y));
    free(x);
    free(y);
    return same;
}

/* Files that each part has for itself, and which are joined in the whole. */
static bool is_joined(const char *name)
{
    return moe_is_shard_name(name) || !strcmp(name, MOE_SOURCE_NAME) || !strcmp(name, MOE_ROUTING_NAME);
}

/* Whether all other files of both parts are the same.  Both lists are sorted by name. */
static bool same_files(const cJSON *a, const cJSON *b)
{
    const cJSON *x = moe_json_get(a, "files")->child, *y = moe_json_get(b, "files")->child;
    for (;; x = x->next, y = y->next) {
        struct moe_listed_file f, g;
        for (; x && (moe_manifest_entry(x, &f), is_joined(f.name)); x = x->next) continue;
        for (; y && (moe_manifest_entry(y, &g), is_joined(g.name)); y = y->next) continue;
        if (!x || !y) return !x && !y;
        if (strcmp(f.name, g.name) || f.bytes != g.bytes || !moe_same128(f.digest, g.digest)) return false;
    }
}

static bool same_origin(const struct moe_source *a, const struct moe_source *b)
{
    struct moe_identity x = moe_source_origin(a, NULL), y = moe_source_origin(b, NULL);
    return moe_identity_same(&x, &y) &&
           moe_made_from_same(moe_source_provenance(a, "made_from"), x.has_weights,
                              moe_source_provenance(b, "made_from"), y.has_weights);
}

/* Whether both were calibrated by the same kernels; older parts do not record theirs. */
static bool same_kernels(const struct moe_source *a, const struct moe_source *b)
{
    const char *x = moe_source_kernels(a), *y = moe_source_kernels(b);
    return !x || !y || !strcmp(x, y);
}

static bool same_version(const cJSON *m, const cJSON *n)
{
    return same_json(moe_json_get(moe_json_get(m, "provenance"), "version"),
                     moe_json_get(moe_json_get(n, "provenance"), "version"));
}

static enum moe_code check_options(const struct moe_source *a, const struct moe_source *b,
                                   struct moe_err *err)
{
    char why[256];
    enum moe_code code = MOE_OK;
    cJSON *x = options_of(a->container->manifest), *y = options_of(b->container->manifest);
    if (!x || !y) code = no_memory(err);
    else if (moe_options_differ(x, y, why))
        code = moe_fail_at(err, MOE_MISMATCH, b->path, NULL, "it does not belong to '%s': %s", a->path, why);
    cJSON_Delete(x);
    cJSON_Delete(y);
    return code;
}

/* Check that two parts come from the same input, options and version and, unless `mix`, the same kernels. */
static enum moe_code check_same(const struct moe_source *a, const struct moe_source *b, bool mix,
                                struct moe_err *err)
{
    const cJSON *m = a->container->manifest, *n = b->container->manifest;
    MOE_TRY(check_options(a, b, err));
    if (!same_version(m, n))
        return moe_fail_at(err, MOE_MISMATCH, b->path, NULL, "another version wrote it than '%s'", a->path);
    if (!same_origin(a, b) || !same_json(moe_json_get(m, "config"), moe_json_get(n, "config")) ||
        !same_files(m, n))
        return moe_fail_at(err, MOE_MISMATCH, b->path, NULL, "it was made from another input than '%s'",
                           a->path);
    if (!mix && !same_kernels(a, b))
        return moe_fail_at(err, MOE_MISMATCH, b->path, NULL,
                           "'%s' kernels calibrated it, but '%s' kernels calibrated '%s', so that no single "
                           "run gives the merged bytes (merge them nevertheless with --mix-kernels)",
                           moe_source_kernels(b), moe_source_kernels(a), a->path);
    return MOE_OK;
}

/* ---- the merged source ---- */

/* The whole records what all parts record: a digest of the weights when each part has one, and their kernels
 * when all are the same. */
static bool join_provenance(const struct moe_container *c, cJSON *provenance)
{
    const char *kernels = moe_source_kernels(c->parts[0]);
    bool has_weights = true, mixed = false;
    for (int i = 0; i < c->n_parts; i++) {
        const char *k = moe_source_kernels(c->parts[i]);
        has_weights &= moe_source_origin(c->parts[i], NULL).has_weights;
        for (int j = 0; j < i; j++) mixed |= !same_kernels(c->parts[j], c->parts[i]);
        if (!k) kernels = NULL;
    }
    if (!has_weights) cJSON_DeleteItemFromObjectCaseSensitive(provenance, "weights");
    if (mixed || !kernels) cJSON_DeleteItemFromObjectCaseSensitive(provenance, "kernels");
    return !mixed || moe_json_add_str(provenance, "kernels", "mixed");
}

/* The identity of the whole is a digest of all parts' manifests. */
static enum moe_code take_identity(struct moe_source *src, struct moe_err *err)
{
    struct moe_container *c = src->container;
    struct moe_hash *headers = moe_hash_new(), *sums = moe_hash_new();
    if (headers) moe_hash_reset64(headers);
    if (sums) moe_hash_reset128(sums);
    for (int i = 0; headers && sums && i < c->n_parts; i++) {
        const struct moe_source_index *x = c->parts[i]->index;
        moe_hash_add64(headers, &x->header_digest, sizeof x->header_digest);
        moe_hash_add128(sums, &x->checksum, sizeof x->checksum);
    }
    bool ok = headers && sums;
    if (ok) src->index->header_digest = moe_hash_get64(headers), src->index->checksum = moe_hash_get128(sums);
    moe_hash_free(headers);
    moe_hash_free(sums);
    return ok ? MOE_OK : no_memory(err);
}

/* Make the manifest of the whole from that of the first part, as moe_source_merge promises. */
static enum moe_code take_manifest(struct moe_source *src, struct moe_err *err)
{
    struct moe_container *c = src->container;
    cJSON *m = c->manifest = cJSON_Duplicate(c->parts[0]->container->manifest, true);
    if (!m || !(c->dir = strdup(src->path))) return no_memory(err);
    cJSON_DeleteItemFromObjectCaseSensitive(m, "part");
    cJSON *provenance = cJSON_GetObjectItemCaseSensitive(m, "provenance");
    cJSON_DeleteItemFromObjectCaseSensitive(cJSON_GetObjectItemCaseSensitive(provenance, "options"),
                                            "layers");
    if (!join_provenance(c, provenance)) return no_memory(err);
    for (int i = 0; i < c->n_parts; i++) c->bytes += c->parts[i]->container->bytes;
    return take_identity(src, err);
}

/* Copy the descriptors of all parts' tensors and move the parts' files into the merged source. */
static enum moe_code take_tensors(struct moe_source *src, struct moe_err *err)
{
    struct moe_container *c = src->container;
    int64_t tensors = 0;
    int32_t files = 0;
    for (int i = 0; i < c->n_parts; i++) tensors += c->parts[i]->n_tensors, files += c->parts[i]->n_files;
    src->tensors = malloc((size_t)(tensors + 1) * sizeof *src->tensors);
    src->files = calloc((size_t)files + 1, sizeof *src->files);
    if (!src->tensors || !src->files) return no_memory(err);
    for (int i = 0; i < c->n_parts; i++) {
        struct moe_source *p = c->parts[i];
        for (int64_t t = 0; t < p->n_tensors; t++) {
            struct moe_tensor *to = &src->tensors[src->n_tensors++];
            *to = p->tensors[t];
            for (int k = 0; k < MOE_PLANE_COUNT; k++)
                if (to->plane[k].file >= 0) to->plane[k].file += src->n_files;
        }
        memcpy(src->files + src->n_files, p->files, (size_t)p->n_files * sizeof *p->files);
        src->n_files += p->n_files;
        p->n_files = 0; /* the merged source owns the files now */
    }
    return MOE_OK;
}

static enum moe_code open_parts(struct moe_source *src, char *const *paths, int n, bool mix,
                                struct moe_err *err)
{
    struct moe_container *c = src->container = calloc(1, sizeof *c);
    if (!c || !(c->parts = calloc((size_t)n, sizeof *c->parts))) return no_memory(err);
    for (; c->n_parts < n; c->n_parts++)
        MOE_TRY(moe_source_open_part(&c->parts[c->n_parts], paths[c->n_parts], err));
    qsort(c->parts, (size_t)n, sizeof *c->parts, by_first);
    for (int i = 1; i < n; i++)
        for (int k = 0; k < i; k++) MOE_TRY(check_same(c->parts[k], c->parts[i], mix, err));
    return check_cover(c->parts, n, err);
}

static enum moe_code open_merged(struct moe_source *src, char *const *paths, int n, bool mix,
                                 struct moe_err *err)
{
    struct moe_problems p = { .list = NULL };
    MOE_TRY(open_parts(src, paths, n, mix, err));
    free(src->path);
    if (!(src->path = strdup(src->container->parts[0]->path))) return no_memory(err);
    src->config = src->container->parts[0]->config;
    MOE_TRY(take_manifest(src, err));
    MOE_TRY(take_tensors(src, err));
    MOE_TRY(moe_source_finish(src, &p, err));
    return moe_problems_end(&p, err);
}

enum moe_code moe_source_merge(struct moe_source **src, char *const *paths, int n, bool mix_kernels,
                               struct moe_err *err)
{
    MOE_CHECK(n >= 1);
    MOE_TRY(moe_source_new(src, MOE_CONTAINER, paths[0], err));
    enum moe_code code = open_merged(*src, paths, n, mix_kernels, err);
    if (code != MOE_OK) moe_source_close(src);
    return code;
}

/* ---- source.jsonl ---- */

/* A line of source.jsonl; bytes: its length up to the comma before the ordinal, or all of it. */
struct line { int64_t ordinal; const char *text; size_t bytes; };

static int by_ordinal(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    return (x->ordinal > y->ordinal) - (x->ordinal < y->ordinal);
}

/* Take the ordinal off a line [..., ORDINAL] without its newline; false when it has none. */
static bool split_ordinal(const char *s, size_t n, struct line *l)
{
    size_t k = n ? n - 1 : 0;
    int64_t ordinal = 0;
    if (!n || s[k] != ']') return false;
    while (k && s[k - 1] >= '0' && s[k - 1] <= '9') k--;
    if (k == n - 1 || n - 1 - k > 15 || k < 2 || memcmp(s + k - 2, ", ", 2)) return false;
    for (size_t i = k; i < n - 1; i++) ordinal = 10 * ordinal + (s[i] - '0');
    *l = (struct line){ ordinal, s, k - 2 };
    return true;
}

/* The source.jsonl of each part, and the n lines of them all, which take `bytes` bytes when printed. */
struct joined { char **text; struct line *line; size_t n, cap, bytes; };

static enum moe_code add_lines(struct joined *j, const struct moe_source *part, const char *text,
                               size_t bytes, struct moe_err *err)
{
    for (const char *at = text, *end = text + bytes, *next; at < end; at = next + 1) {
        if (!(next = memchr(at, '\n', (size_t)(end - at)))) next = end;
        if (!MOE_GROW(j->line, j->cap, j->n + 1)) return no_memory(err);
        if (!split_ordinal(at, (size_t)(next - at), &j->line[j->n]))
            return moe_fail_at(err, MOE_CORRUPT, part->path, NULL,
                               "a line of its source.jsonl has no ordinal (quantize this part again)");
        j->bytes += j->line[j->n++].bytes + 2;
    }
    return MOE_OK;
}

static enum moe_code print_lines(struct joined *j, const struct moe_source *src, char **text, size_t *bytes,
                                 struct moe_err *err)
{
    char *to = *text = malloc(j->bytes + 1);
    if (!to) return no_memory(err);
    if (j->n) qsort(j->line, j->n, sizeof *j->line, by_ordinal);
    for (size_t i = 0; i < j->n; i++) {
        if (j->line[i].ordinal != (int64_t)i) {
            free(*text);
            *text = NULL;
            return moe_fail_at(err, MOE_CORRUPT, src->path, NULL,
                               "source tensor %zu of the model is in none of the parts, or in two", i);
        }
        memcpy(to, j->line[i].text, j->line[i].bytes);
        to += j->line[i].bytes;
        *to++ = ']';
        *to++ = '\n';
    }
    *bytes = (size_t)(to - *text);
    return MOE_OK;
}

/* Parts that were made from a container all have that container's source.jsonl unchanged; parts that were
 * made from a checkpoint have their own lines, with ordinals. */
static enum moe_code join_lines(struct joined *j, const struct moe_source *src, char **text, size_t *bytes,
                                struct moe_err *err)
{
    const struct moe_container *c = src->container;
    size_t *size = calloc((size_t)c->n_parts, sizeof *size);
    struct line l;
    bool whole = true;
    enum moe_code code = size && (j->text = calloc((size_t)c->n_parts, sizeof *j->text)) ? MOE_OK
                                                                                         : no_memory(err);
    /* whole: all texts are the same and their first line has no ordinal */
    for (int i = 0; code == MOE_OK && i < c->n_parts; i++) {
        code = moe_container_read_file(c->parts[i], MOE_SOURCE_NAME, &j->text[i], &size[i], err);
        if (code != MOE_OK) break;
        const char *end = memchr(j->text[i], '\n', size[i]);
        whole &= end && !split_ordinal(j->text[i], (size_t)(end - j->text[i]), &l) && size[i] == size[0] &&
                 !memcmp(j->text[i], j->text[0], size[0]);
    }
    if (code == MOE_OK && whole) {
        *text = j->text[0];
        *bytes = size[0];
        j->text[0] = NULL;
    } else {
        for (int i = 0; code == MOE_OK && i < c->n_parts; i++)
            code = add_lines(j, c->parts[i], j->text[i], size[i], err);
        if (code == MOE_OK) code = print_lines(j, src, text, bytes, err);
    }
    free(size);
    return code;
}

enum moe_code moe_source_merge_lines(const struct moe_source *src, char **text, size_t *bytes,
                                     struct moe_err *err)
{
    struct joined j = { 0 };
    *text = NULL;
    enum moe_code code = join_lines(&j, src, text, bytes, err);
    for (int i = 0; j.text && i < src->container->n_parts; i++) free(j.text[i]);
    free(j.text);
    free(j.line);
    return code;
}

/* ---- routing.json ---- */

static enum moe_code read_routing(const struct moe_source *part, struct moe_routing **r, struct moe_err *err)
{
    char *text;
    size_t bytes;
    MOE_TRY(moe_container_read_file(part, MOE_ROUTING_NAME, &text, &bytes, err));
    enum moe_code code = moe_routing_parse(text, bytes, MOE_ROUTING_NAME, NULL, r, err);
    free(text);
    return code == MOE_OK ? code : moe_wrap(err, "%s", part->path);
}

/* Join the rows of all parts; the parts are in the order of their layers. */
static enum moe_code join_routing(struct moe_routing *const *part, int n, struct moe_routing **all,
                                  struct moe_err *err)
{
    int32_t rows = 0, *layers, at = 0;
    for (int i = 0; i < n; i++) rows += part[i]->n_layers;
    if (!(layers = malloc((size_t)rows * sizeof *layers))) return no_memory(err);
    bool same = true;
    for (int i = 0; i < n; i++) {
        const struct moe_routing *p = part[i], *first = part[0];
        same &= p->layers && p->n_windows == 1 && p->experts == first->experts &&
                p->experts_per_token == first->experts_per_token && p->tokens[0] == first->tokens[0];
        for (int32_t k = 0; same && k < p->n_layers; k++) layers[at++] = p->layers[k];
    }
    enum moe_code code = same ? moe_routing_new(all, part[0]->experts, part[0]->experts_per_token, rows,
                                                layers, 1, err)
                              : moe_fail(err, MOE_MISMATCH,
                                         "the parts' routing.json count other tokens or experts (quantize "
                                         "them with the same text)");
    free(layers);
    MOE_TRY(code);
    (*all)->tokens[0] = part[0]->tokens[0];
    for (int i = 0, row = 0; i < n; row += part[i++]->n_layers)
        memcpy(moe_routing_row(*all, 0, row), part[i]->counts,
               (size_t)part[i]->n_layers * (size_t)part[i]->experts * sizeof *part[i]->counts);
    return MOE_OK;
}

enum moe_code moe_source_merge_routing(const struct moe_source *src, char **text, size_t *bytes,
                                       struct moe_err *err)
{
    const struct moe_container *c = src->container;
    struct moe_routing **part = calloc((size_t)c->n_parts, sizeof *part), *all = NULL;
    struct moe_listed_file f;
    int n = 0;
    *text = NULL;
    enum moe_code code = part ? MOE_OK : no_memory(err);
    for (int i = 0; code == MOE_OK && i < c->n_parts; i++)
        if (moe_manifest_find(c->parts[i]->container->manifest, MOE_ROUTING_NAME, &f) &&
            (code = read_routing(c->parts[i], &part[n], err)) == MOE_OK)
            n++;
    if (code == MOE_OK && n) code = join_routing(part, n, &all, err);
    if (all && !(*text = moe_routing_print(all, bytes))) code = no_memory(err);
    for (int i = 0; i < n; i++) moe_routing_free(&part[i]);
    moe_routing_free(&all);
    free(part);
    return code;
}
