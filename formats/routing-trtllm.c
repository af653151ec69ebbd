/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the files of TensorRT-LLM's expert statistics recorder: meta_info.json and rank*.safetensors, whose
 * tensors "<iteration>_<layer>" hold counts that are added up over all ranks. */
#include "formats/routing.h"

#include "base/grow.h"
#include "base/io.h"
#include "formats/checkpoint/safetensors.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { META_BYTES = 16 << 20 }; /* largest meta_info.json that is read */
static const int64_t SUM_MAX = (int64_t)1 << 53; /* below this, sums are exact as JSON numbers, too */

/* The counts that were added up so far. */
struct sums {
    const char *file;                              /* the path of the file that is being read */
    int32_t experts;                               /* of a layer */
    int32_t n_layers;                              /* layers that have counts */
    int64_t **of_layer;                            /* [cap][experts]; NULL: no counts of this layer yet */
    size_t cap;
    unsigned char *raw;                            /* room for one tensor */
};

/* Parse a tensor's name: "12_3" is iteration 12, layer 3. */
static bool parse_key(const char *name, int32_t *layer)
{
    int end = 0;
    unsigned iteration, l;
    if (sscanf(name, "%9u_%9u%n", &iteration, &l, &end) != 2 || name[end] || l > MOE_ROUTING_LAYERS_MAX)
        return false;
    *layer = (int32_t)l;
    return true;
}

/* A little-endian integer of 4 or 8 bytes, which has a sign. */
static int64_t load_count(const unsigned char *p, int bytes)
{
    uint64_t v = 0;
    for (int i = bytes - 1; i >= 0; i--) v = v << 8 | p[i];
    if (bytes == 4 && v >> 31) v |= ~(uint64_t)0 << 32;
    return (int64_t)v;
}

/* Grow s->of_layer so that it has an entry for this layer. */
static enum moe_code make_room(struct sums *s, int32_t layer, struct moe_err *err)
{
    size_t before = s->cap;
    if (!MOE_GROW(s->of_layer, s->cap, (size_t)layer + 1))
        return moe_fail_at(err, MOE_NOMEM, s->file, NULL, "no memory for its counts");
    for (size_t l = before; l < s->cap; l++) s->of_layer[l] = NULL;
    return MOE_OK;
}

/* Add the counts in one tensor to those of its layer. */
static enum moe_code add_tensor(struct sums *s, int fd, const struct moe_st_entry *t, struct moe_err *err)
{
    int32_t layer;
    int size = !strcmp(t->dtype, "I32") ? 4 : !strcmp(t->dtype, "I64") ? 8 : 0;
    if (!parse_key(t->name, &layer))
        return moe_fail_at(err, MOE_CORRUPT, s->file, t->name, "not named ITERATION_LAYER");
    if (!size)
        return moe_fail_at(err, MOE_UNSUPPORTED, s->file, t->name, "counts of type %s (I32 and I64 are read)",
                           t->dtype);
    if (t->ndim != 1 || t->shape[0] != s->experts)
        return moe_fail_at(err, MOE_CORRUPT, s->file, t->name, "is not a list of %d counts", (int)s->experts);
    MOE_TRY(moe_pread(fd, s->file, s->raw, (size_t)t->bytes, t->offset, err));
    MOE_TRY(make_room(s, layer, err));
    int64_t **c = &s->of_layer[layer];
    if (!*c) {
        *c = calloc((size_t)s->experts, sizeof **c);
        if (!*c) return moe_fail_at(err, MOE_NOMEM, s->file, NULL, "no memory for its counts");
        s->n_layers++;
    }
    for (int32_t e = 0; e < s->experts; e++) {
        int64_t v = load_count(s->raw + (size_t)e * (size_t)size, size);
        if (v < 0 || v >= SUM_MAX - (*c)[e])
            return moe_fail_at(err, MOE_CORRUPT, s->file, t->name, "expert %d: a count out of range", (int)e);
        (*c)[e] += v;
    }
    return MOE_OK;
}

static enum moe_code add_file(struct sums *s, const char *path, struct moe_err *err)
{
    struct moe_arena arena = MOE_ARENA_INIT;
    struct moe_st_header h;
    uint64_t size;
    int fd;
    s->file = path;
    MOE_TRY(moe_open_read(path, &fd, &size, err));
    enum moe_code code = moe_st_read(fd, path, size, &arena, &h, err);
    if (code == MOE_OK) {
        code = moe_st_check_size(&h, path, size, err);
        for (int64_t i = 0; code == MOE_OK && i < h.n; i++) code = add_tensor(s, fd, &h.entries[i], err);
        free(h.entries);
    }
    moe_arena_clear(&arena);
    close(fd);
    return code;
}

/* Whether a file has counts: rank0.safetensors has, but rank0_raw.safetensors lists the chosen experts token
 * by token. */
static bool has_counts(const char *name)
{
    size_t n = strlen(name);
    return !strncmp(name, "rank", 4) && n > 12 && !strcmp(name + n - 12, ".safetensors") &&
           !(n > 16 && !strcmp(name + n - 16, "_raw.safetensors"));
}

static enum moe_code add_files(struct sums *s, const char *dir, struct moe_err *err)
{
    struct moe_names names;
    char path[PATH_MAX];
    int files = 0;
    MOE_TRY(moe_list_dir(dir, &names, err));
    enum moe_code code = MOE_OK;
    for (size_t i = 0; code == MOE_OK && i < names.n; i++) {
        if (!has_counts(names.v[i])) continue;
        files++;
        code = moe_path_join(path, sizeof path, dir, names.v[i], err);
        if (code == MOE_OK) code = add_file(s, path, err);
    }
    moe_names_release(&names);
    if (code == MOE_OK && !files)
        return moe_fail_at(err, MOE_NOT_FOUND, dir, NULL, "no rank*.safetensors in it");
    if (code == MOE_OK && !s->n_layers)
        return moe_fail_at(err, MOE_CORRUPT, dir, NULL, "there are no counts in it");
    return code;
}

static enum moe_code make_routing(const struct sums *s, int32_t per_token, struct moe_routing **r,
                                  struct moe_err *err)
{
    int32_t n = 0, *layers = malloc((size_t)s->n_layers * sizeof *layers);
    if (!layers) return moe_fail(err, MOE_NOMEM, "no memory for routing statistics");
    for (int32_t l = 0; l < (int32_t)s->cap; l++)
        if (s->of_layer[l]) layers[n++] = l;
    enum moe_code code = moe_routing_new(r, s->experts, per_token, n, layers, 1, err);
    for (int32_t i = 0; code == MOE_OK && i < n; i++)
        memcpy(moe_routing_row(*r, 0, i), s->of_layer[layers[i]], (size_t)s->experts * sizeof(int64_t));
    free(layers);
    return code;
}

static enum moe_code read_meta(const char *dir, int64_t *experts, int64_t *per_token, struct moe_err *err)
{
    char path[PATH_MAX];
    cJSON *j;
    MOE_TRY(moe_path_join(path, sizeof path, dir, "meta_info.json", err));
    if (moe_exists(path) == MOE_ABSENT)
        return moe_fail_at(err, MOE_NOT_FOUND, path, NULL,
                           "not found (is '%s' a directory of TensorRT-LLM's expert statistics?)", dir);
    MOE_TRY(moe_json_read(path, META_BYTES, &j, err));
    enum moe_code code = moe_json_i64(j, "num_experts", true, 1, MOE_ROUTING_EXPERTS_MAX, experts, path, err);
    if (code == MOE_OK)
        code = moe_json_i64(j, "num_experts_per_token", true, 1, *experts, per_token, path, err);
    cJSON_Delete(j);
    return code;
}

enum moe_code moe_routing_read_trtllm(const char *dir, struct moe_routing **r, struct moe_err *err)
{
    int64_t experts = 0, per_token = 0;
    *r = NULL;
    MOE_TRY(read_meta(dir, &experts, &per_token, err));
    struct sums s = { .experts = (int32_t)experts, .raw = malloc((size_t)experts * 8) };
    if (!s.raw) return moe_fail(err, MOE_NOMEM, "no memory for routing statistics");
    enum moe_code code = add_files(&s, dir, err);
    if (code == MOE_OK) code = make_routing(&s, (int32_t)per_token, r, err);
    if (code == MOE_OK) code = moe_routing_check(*r, dir, err);
    if (code != MOE_OK) moe_routing_free(r);
    for (size_t l = 0; l < s.cap; l++) free(s.of_layer[l]);
    free(s.of_layer);
    free(s.raw);
    return code;
}
