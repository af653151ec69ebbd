/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/container/staged.h"

#include "base/io.h"
#include "base/show.h"
#include "formats/container/container-internal.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum moe_code no_memory(const char *path, struct moe_err *err)
{
    return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory for the list of its experts");
}

/* ---- reading "staged" of a manifest ---- */

static bool whole_number(const cJSON *v, int64_t least, int64_t most)
{
    return cJSON_IsNumber(v) && v->valuedouble >= (double)least && v->valuedouble <= (double)most &&
           v->valuedouble == floor(v->valuedouble);
}

/* Read [a, b] with least <= a <= b <= most. */
static bool range(const cJSON *v, int64_t least, int64_t most, int64_t *a, int64_t *b)
{
    const cJSON *x = cJSON_IsArray(v) ? v->child : NULL, *y = x ? x->next : NULL;
    if (!y || y->next || !whole_number(x, least, most) || !whole_number(y, (int64_t)x->valuedouble, most))
        return false;
    *a = (int64_t)x->valuedouble;
    *b = (int64_t)y->valuedouble;
    return true;
}

/* Read {"layer": L, "experts": [[first, last], ...]}: the ranges ascend, and at least one expert is absent
 * between two of them. */
static bool take_layer(const cJSON *v, const struct moe_config *c, int64_t *next_layer, bool *present)
{
    const cJSON *layer = moe_json_get(v, "layer"), *experts = moe_json_get(v, "experts");
    int64_t next = 0, a, b;
    if (!whole_number(layer, *next_layer, c->num_hidden_layers - 1) || !cJSON_IsArray(experts)) return false;
    int64_t l = (int64_t)layer->valuedouble;
    if (!moe_layer_is_moe(c, (int)l)) return false;
    for (const cJSON *r = experts->child; r; r = r->next) {
        if (!range(r, next, c->n_routed_experts - 1, &a, &b)) return false;
        for (int64_t e = a; e <= b; e++) present[l * c->n_routed_experts + e] = true;
        next = b + 2;
    }
    *next_layer = l + 1;
    return true;
}

/* Read a digest of 32 hex digits. */
static bool take_digest(const cJSON *staged, const char *key, char out[33])
{
    const cJSON *v = moe_json_get(staged, key);
    struct moe_hash128 h;
    if (!cJSON_IsString(v) || !moe_parse_hex128(v->valuestring, &h)) return false;
    memcpy(out, v->valuestring, 33);
    return true;
}

static bool take_ranks(const cJSON *staged, struct moe_staged *s)
{
    const cJSON *of = moe_json_get(staged, "of");
    int64_t a, b;
    if (!whole_number(of, 1, INT32_MAX) ||
        !range(moe_json_get(staged, "ranks"), 0, (int64_t)of->valuedouble - 1, &a, &b))
        return false;
    s->first = (int32_t)a;
    s->last = (int32_t)b;
    s->ranks = (int32_t)of->valuedouble;
    return true;
}

enum moe_code moe_staged_read(struct moe_source *src, const char *path, bool **present, struct moe_err *err)
{
    const struct moe_config *c = &src->config;
    const cJSON *staged = moe_json_get(src->container->manifest, "staged"),
                *layers = moe_json_get(staged, "layers");
    int64_t next = 0;
    *present = NULL;
    if (!staged) return MOE_OK;
    if (src->is_part) return moe_fail_at(err, MOE_CORRUPT, path, NULL, "it has both 'part' and 'staged'");
    *present = calloc((size_t)(c->num_hidden_layers * c->n_routed_experts) + 1, sizeof **present);
    src->staged = calloc(1, sizeof *src->staged);
    if (!*present || !src->staged) return no_memory(path, err);
    if (!take_digest(staged, "from", src->staged->from) || !take_digest(staged, "plan", src->staged->plan))
        return moe_fail_at(err, MOE_CORRUPT, path, NULL,
                           "'staged' does not say from which container, or by which plan");
    if (!take_ranks(staged, src->staged))
        return moe_fail_at(err, MOE_CORRUPT, path, NULL, "'staged' does not say for which ranks");
    bool ok = cJSON_IsArray(layers);
    for (const cJSON *l = ok ? layers->child : NULL; l && ok; l = l->next)
        ok = take_layer(l, c, &next, *present);
    return ok ? MOE_OK
              : moe_fail_at(err, MOE_CORRUPT, path, NULL,
                            "'staged' does not say which experts of which layers are there");
}

void moe_staged_mark_absent(struct moe_source *src, const bool *present)
{
    const struct moe_config *c = &src->config;
    for (int64_t i = 0; i < src->n_tensors; i++) {
        struct moe_tensor *t = &src->tensors[i];
        if (t->expert < 0) continue;
        bool known = t->layer >= 0 && t->layer < c->num_hidden_layers && t->expert < c->n_routed_experts;
        if (known && present[t->layer * c->n_routed_experts + t->expert]) continue;
        src->staged->absent += t->role == MOE_ROLE_EXPERT_GATE;
        for (int p = 0; p < MOE_PLANE_COUNT; p++) t->plane[p] = (struct moe_span){ -1, 0, 0 };
    }
}

/* Whether a hole, which reads as zeros, is the plane itself, because the plane's hash is that of zeros (a
 * whole container may have been copied with holes). */
static enum moe_code hole_is_plane(const struct moe_source *src, const struct moe_tensor *t, bool *is,
                                   struct moe_err *err)
{
    enum { PIECE = 1 << 16 };
    unsigned char *buf = malloc(PIECE);
    if (!buf) return no_memory(src->path, err);
    enum moe_code code = moe_container_plane_matches(src, t, MOE_PLANE_DATA, buf, PIECE, is, err);
    free(buf);
    return code;
}

static bool is_hole(const struct moe_source *src, const struct moe_tensor *t)
{
    const struct moe_span *s = &t->plane[MOE_PLANE_DATA];
    return t->expert >= 0 && moe_hole(src->files[s->file].fd, s->offset, s->bytes) == s->bytes;
}

enum moe_code moe_staged_check_marked(const struct moe_source *src, struct moe_err *err)
{
    char path[PATH_MAX];
    enum moe_exists there;
    if (!src->container || src->container->n_parts || src->staged) return MOE_OK;
    MOE_TRY(moe_path_join(path, sizeof path, src->path, MOE_STAGED_PLAN, err));
    MOE_TRY(moe_look(path, &there, err));
    for (int64_t i = 0; there != MOE_ABSENT && i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        bool plane = true;
        if (is_hole(src, t)) MOE_TRY(hole_is_plane(src, t, &plane, err));
        if (!plane)
            return moe_fail_at(err, MOE_MISMATCH, src->path, NULL,
                               "expert %d of layer %d is not in it: an older version staged it, and did not "
                               "say so (stage it again)",
                               (int)t->expert, (int)t->layer);
    }
    return MOE_OK;
}

enum moe_code moe_staged_check_whole(const struct moe_source *src, struct moe_err *err)
{
    const struct moe_staged *s = src->staged;
    const struct moe_tensor *t = src->tensors;
    char more[64] = "", ranks[64];
    if (!s || !s->absent) return MOE_OK;
    /* the first of the absent experts */
    while (t->expert < 0 || t->plane[MOE_PLANE_DATA].file >= 0) t++;
    if (s->absent > 1) snprintf(more, sizeof more, ", nor %s %lld other%s", s->absent == 2 ? "was" : "were",
                                (long long)s->absent - 1, moe_plural(s->absent - 1));
    if (s->first == s->last)
        snprintf(ranks, sizeof ranks, "rank %d of %d needs", (int)s->first, (int)s->ranks);
    else
        snprintf(ranks, sizeof ranks, "ranks %d to %d of %d need", (int)s->first, (int)s->last,
                 (int)s->ranks);
    return moe_fail_at(err, MOE_MISMATCH, src->path, NULL,
                       "expert %d of layer %d was not staged into it%s: it holds what %s (run it as such a "
                       "rank, or take the whole container)",
                       (int)t->expert, (int)t->layer, more, ranks);
}

/* ---- writing ---- */

enum moe_code moe_staged_is(const char *dir, bool *part, struct moe_err *err)
{
    cJSON *m;
    MOE_TRY(moe_manifest_read(dir, &m, err));
    *part = moe_json_get(m, "staged");
    cJSON_Delete(m);
    return MOE_OK;
}

enum moe_code moe_staged_head(const struct moe_source *whole, const struct moe_file *shard,
                              unsigned char **head, size_t *bytes, struct moe_err *err)
{
    struct moe_shard_header h;
    MOE_CHECK(whole->container && !whole->staged);
    MOE_TRY(moe_shard_read_head(shard->fd, shard->path, shard->size, head, bytes, err));
    memcpy(&h, *head, sizeof h);
    h.incompatible |= MOE_SHARD_STAGED;
    h.header_hash = 0;
    h.header_hash = moe_hash64(&h, sizeof h);
    memcpy(*head, &h, sizeof h);
    return MOE_OK;
}

static enum moe_code set_digest(const struct moe_source *whole, const struct moe_file *f, cJSON *files,
                                struct moe_err *err)
{
    unsigned char *head;
    size_t bytes;
    char hex[33];
    cJSON *e = files->child;
    /* the reader found the shard in this list, so the name is in it */
    while (strcmp(moe_json_get(e, "name")->valuestring, f->name)) e = e->next;
    MOE_TRY(moe_staged_head(whole, f, &head, &bytes, err));
    moe_hex128(moe_hash128(head, bytes), hex);
    free(head);
    return cJSON_SetValuestring(cJSON_GetObjectItemCaseSensitive(e, "xxh3_128"), hex)
             ? MOE_OK
             : no_memory(whole->path, err);
}

static bool add_pair(cJSON *pair, int64_t a, int64_t b)
{
    return moe_json_append(pair, cJSON_CreateNumber((double)a)) &&
           moe_json_append(pair, cJSON_CreateNumber((double)b));
}

static bool add_range(cJSON *list, int64_t a, int64_t b)
{
    return add_pair(moe_json_append(list, cJSON_CreateArray()), a, b);
}

static bool add_layer(cJSON *layers, int layer, const bool *present, int64_t n)
{
    cJSON *l = moe_json_append(layers, cJSON_CreateObject()), *list;
    if (!moe_json_add_i64(l, "layer", layer) || !(list = moe_json_add_array(l, "experts"))) return false;
    for (int64_t a = 0, b; a < n; a = b) {
        for (; a < n && !present[a]; a++) continue;
        for (b = a; b < n && present[b]; b++) continue;
        if (b > a && !add_range(list, a, b - 1)) return false;
    }
    return true;
}

static bool add_staged(cJSON *m, const struct moe_source *whole, const struct moe_staged *s,
                       const bool *present)
{
    const struct moe_config *c = &whole->config;
    cJSON *o = moe_json_add_object(m, "staged"), *layers = NULL;
    bool ok = o && moe_json_add_str(o, "from", s->from) &&
              moe_json_add_str(o, "plan", s->plan) &&
              add_pair(moe_json_add_array(o, "ranks"), s->first, s->last) &&
              moe_json_add_i64(o, "of", s->ranks) && (layers = moe_json_add_array(o, "layers"));
    for (int l = 0; ok && l < c->num_hidden_layers; l++)
        if (moe_layer_is_moe(c, l))
            ok = add_layer(layers, l, present + l * c->n_routed_experts, c->n_routed_experts);
    return ok;
}

enum moe_code moe_staged_manifest(const struct moe_source *whole, struct moe_staged *s, const bool *present,
                                  char **text, struct moe_err *err)
{
    cJSON *m = cJSON_Duplicate(whole->container->manifest, true);
    enum moe_code code = m ? MOE_OK : no_memory(whole->path, err);
    *text = NULL;
    snprintf(s->from, sizeof s->from, "%s",
             moe_json_get(whole->container->manifest, "checksum")->valuestring);
    for (int32_t i = 0; code == MOE_OK && i < whole->n_files; i++)
        code = set_digest(whole, &whole->files[i], cJSON_GetObjectItemCaseSensitive(m, "files"), err);
    cJSON_DeleteItemFromObjectCaseSensitive(m, "checksum");
    if (code == MOE_OK && !add_staged(m, whole, s, present)) code = no_memory(whole->path, err);
    if (code == MOE_OK && !(*text = moe_json_seal(m, 2))) code = no_memory(whole->path, err);
    cJSON_Delete(m);
    return code;
}

enum moe_code moe_staged_fail_absent(const struct moe_source *src, int layer, int64_t expert, int rank,
                                     struct moe_err *err)
{
    char who[32] = "this rank", ranks[64];
    const struct moe_staged *s = src->staged;
    if (rank >= 0) snprintf(who, sizeof who, "rank %d", rank);
    if (s->first == s->last) snprintf(ranks, sizeof ranks, "rank %d", (int)s->first);
    else snprintf(ranks, sizeof ranks, "ranks %d to %d", (int)s->first, (int)s->last);
    return moe_fail_at(err, MOE_MISMATCH, src->path, NULL,
                       "expert %lld of layer %d was not staged into it, and %s needs it (it was staged for "
                       "%s of %d; stage it for this one, or take the whole container)",
                       (long long)expert, layer, who, ranks, (int)s->ranks);
}
