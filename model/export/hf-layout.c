/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of a checkpoint, its files, the values written into them, and their check. */
#include "model/export/hf-layout.h"

#include "base/hash.h"
#include "base/io.h"
#include "kernels/nvfp4.h"
#include "model/export/hf-internal.h"
#include "model/precision.h"
#include "model/unit.h"

#include <stdlib.h>
#include <string.h>

struct moe_hf_layout {
    struct moe_source planned;   /* a copy of the source that describes its tensors as they will be */
    uint8_t *holds_values;       /* [n_tensors] whether its values go to the checkpoint's files */
    int64_t *first;              /* [n_tensors] the index of its first entry in the plan */
    uint64_t *at;                /* [plan.n] the offset of an entry in its file */
    struct moe_hf_plan plan;
    struct moe_hf_result result;
    struct moe_hf_files *files;
};

/* ---- the plan ---- */

/* A stand-in for the input scale that a tensor will have: 1 stands for none, any other value for one from
 * a calibration, which gives input scales to the weights of layers. */
static float expected_input(const struct moe_tensor *t, bool inputs)
{
    return inputs && t->layer >= 0 ? 2.0f : 1.0f;
}

/* Changes the descriptor of a tensor to what it will be as `type`. */
static void describe(struct moe_tensor *t, uint8_t type, bool inputs)
{
    if (t->type != type && type == MOE_NVFP4) {
        t->global = 1.0f; /* any value does, because its fused partner gets the same */
        t->input_scale = expected_input(t, inputs);
        t->reciprocal = false;
    }
    t->type = type;
    for (int p = 0; p < MOE_PLANE_COUNT; p++) {
        int64_t bytes = moe_plane_bytes(type, MOE_LAYOUT_TILE_128X4, p, t->rows, t->cols);
        t->plane[p].bytes = bytes > 0 ? (uint64_t)bytes : 0;
    }
}

/* Whether the values that quantizing gives are those that the checkpoint holds.  They are not when the export
 * decodes the tensor, nor when it may have to be quantized again under its partner's global scale. */
static bool as_made(const struct moe_hf_layout *p, const struct moe_source *src, int64_t i,
                    enum moe_hf_part part)
{
    const struct moe_tensor *t = &p->planned.tensors[i], *o = moe_source_fused_partner(&p->planned, t);
    if (part == MOE_HF_DECODED) return false;
    if (part == MOE_HF_PLAIN || !o) return true;
    bool kept = src->tensors[i].type == MOE_NVFP4;
    bool other = src->tensors[o - p->planned.tensors].type == MOE_NVFP4;
    if (kept && other) return moe_hf_multiplier(moe_hf_global_owner(&p->planned, t)) == moe_hf_multiplier(t);
    return !kept && !other; /* both are quantized now, under one global scale */
}

/* Sets the offsets of the entries of one file. */
static enum moe_code place_file(struct moe_hf_layout *p, int64_t shard, struct moe_err *err)
{
    struct moe_hf_items items;
    char *head;
    size_t bytes;
    uint64_t all;

    MOE_TRY(moe_hf_items_open(&items, &p->plan, shard, err));
    enum moe_code code = moe_st_head(items.header, items.n, MOE_ST_SINGLE, &head, &bytes, &all, err);
    if (code == MOE_OK) {
        for (int64_t i = 0; i < items.n; i++) p->at[items.v[i].number] = items.header[i].offset;
        p->result.output_bytes += all;
        free(head);
    }
    moe_hf_items_release(&items);
    return code;
}

static enum moe_code place_all(struct moe_hf_layout *p, const struct moe_source *src, struct moe_err *err)
{
    for (int64_t i = 0; i < p->plan.n; i++) {
        const struct moe_hf_entry *e = &p->plan.entries[i];
        if (e->part > MOE_HF_CODES) continue;
        p->first[e->tensor] = i;
        p->holds_values[e->tensor] = as_made(p, src, e->tensor, (enum moe_hf_part)e->part);
    }
    p->result.output_bytes = moe_hf_index_bytes(&p->plan);
    for (int64_t s = 0; s < p->plan.n_shards; s++) MOE_TRY(place_file(p, s, err));
    return MOE_OK;
}

static enum moe_code plan(struct moe_hf_layout *p, const struct moe_source *src, const uint8_t *type,
                          const struct moe_hf_options *o, bool inputs, struct moe_err *err)
{
    size_t n = (size_t)src->n_tensors;

    p->planned = *src;
    p->planned.tensors = malloc(n * sizeof *p->planned.tensors);
    p->holds_values = calloc(n, sizeof *p->holds_values);
    p->first = calloc(n, sizeof *p->first);
    if (!p->planned.tensors || !p->holds_values || !p->first)
        return moe_fail(err, MOE_NOMEM, "no memory for %zu tensors", n);
    memcpy(p->planned.tensors, src->tensors, n * sizeof *p->planned.tensors);
    for (size_t i = 0; i < n; i++) {
        MOE_CHECK(type[i] != MOE_TYPE_LEFT_OUT);
        describe(&p->planned.tensors[i], type[i], inputs);
    }
    enum moe_code code = moe_hf_plan_open(&p->plan, &p->planned, o, &p->result, err);
    if (code == MOE_UNSUPPORTED && !p->result.nvfp4)
        return moe_fail_at(err, code, src->path, NULL, "has no NVFP4 weights as --quantize and --tensor-type "
                           "name them (name some that engines read as NVFP4)");
    MOE_TRY(code);
    p->at = malloc((size_t)p->plan.n * sizeof *p->at);
    return p->at ? place_all(p, src, err)
        : moe_fail(err, MOE_NOMEM, "no memory for %lld places", (long long)p->plan.n);
}

enum moe_code moe_hf_layout_open(struct moe_hf_layout **out, const struct moe_source *src,
                                 const uint8_t *type,
                                 const struct moe_hf_options *o, bool inputs, struct moe_err *err)
{
    struct moe_hf_layout *p = calloc(1, sizeof *p);
    *out = p;
    if (!p) return moe_fail(err, MOE_NOMEM, "no memory for a plan");
    MOE_CHECK(o->shard_bytes >= MOE_HF_SHARD_MIN);
    enum moe_code code = plan(p, src, type, o, inputs, err);
    if (code != MOE_OK) moe_hf_layout_close(out);
    return code;
}

void moe_hf_layout_close(struct moe_hf_layout **pp)
{
    struct moe_hf_layout *p = *pp;
    if (!p) return;
    moe_hf_files_close(&p->files);
    moe_hf_plan_release(&p->plan);
    free(p->planned.tensors);
    free(p->holds_values);
    free(p->first);
    free(p->at);
    free(p);
    *pp = NULL;
}

const struct moe_hf_result *moe_hf_layout_result(const struct moe_hf_layout *p) { return &p->result; }
struct moe_hf_files *moe_hf_layout_files(const struct moe_hf_layout *p) { return p->files; }

static bool is_value(int plane) { return plane == MOE_PLANE_DATA || plane == MOE_PLANE_SCALE; }

bool moe_hf_layout_holds(const struct moe_hf_layout *p, int64_t index, int plane)
{
    return is_value(plane) && p->holds_values[index];
}

/* Bytes of weights that moe_hf_layout_finish has to write. */
static uint64_t bytes_left(const struct moe_hf_layout *p)
{
    uint64_t n = 0;
    for (int64_t i = 0; i < p->plan.n; i++) {
        const struct moe_hf_entry *e = &p->plan.entries[i];
        if (e->part < MOE_HF_GLOBAL && !p->holds_values[e->tensor]) n += moe_hf_entry_bytes(&p->plan, e);
    }
    return n;
}

/* The container's descriptors, all names, and a chunk of a weight where weights are left to be written. */
uint64_t moe_hf_layout_memory(const struct moe_hf_layout *p)
{
    uint64_t chunk = bytes_left(p) ? moe_hf_write_memory(&p->planned) : 0;
    return chunk + moe_hf_names_memory(&p->plan) +
           (uint64_t)p->planned.n_tensors * (sizeof *p->planned.tensors + 64) + (2 << 20);
}

/* ---- the files ---- */

/* Names one file and, where it does not exist, adds its bytes to *need; with need NULL it is created.  begun:
 * MOE_MISMATCH where it does not exist. */
static enum moe_code look_at_file(struct moe_hf_layout *p, int64_t shard, bool begun, uint64_t *need,
                                  struct moe_err *err)
{
    struct moe_hf_items items;
    char *head, name[MOE_ST_NAME_BYTES];
    size_t bytes;
    uint64_t all;
    bool is = true;

    MOE_TRY(moe_hf_files_set_name(p->files, shard, moe_hf_shard_name(&p->plan, shard, name), err));
    MOE_TRY(moe_hf_items_open(&items, &p->plan, shard, err));
    enum moe_code code = moe_st_head(items.header, items.n, name, &head, &bytes, &all, err);
    if (code == MOE_OK) {
        code = begun ? moe_hf_files_check(p->files, shard, head, bytes, all, err)
                     : moe_hf_files_matches(p->files, shard, head, bytes, all, &is, err);
        if (code == MOE_OK && !is && need) *need += all;
        else if (code == MOE_OK && !is) code = moe_hf_files_make(p->files, shard, head, bytes, all, err);
        free(head);
    }
    moe_hf_items_release(&items);
    return code == MOE_OK ? moe_cancel_check(p->plan.cancel, err) : code;
}

enum moe_code moe_hf_layout_make(struct moe_hf_layout *p, const char *dir, bool begun, const char *shown,
                                 struct moe_err *err)
{
    uint64_t need = 0;
    MOE_TRY(moe_hf_files_open(&p->files, dir, p->plan.n_shards, err));
    for (int64_t s = 0; s < p->plan.n_shards; s++) MOE_TRY(look_at_file(p, s, begun, &need, err));
    if (!need) return MOE_OK;
    MOE_TRY(moe_need_space(dir, need + (1 << 20), shown, err));
    for (int64_t s = 0; s < p->plan.n_shards; s++) MOE_TRY(look_at_file(p, s, false, NULL, err));
    return MOE_OK;
}

/* The file that has an entry of the plan. */
static int64_t shard_of(const struct moe_hf_layout *p, int64_t entry)
{
    int64_t low = 0, high = p->plan.n_shards - 1;
    while (low < high) {
        int64_t mid = low + (high - low + 1) / 2;
        if (p->plan.shards[mid].first <= entry) low = mid;
        else high = mid - 1;
    }
    return low;
}

/* ---- the planes of a unit ---- */

/* What the functions of a struct moe_plane_sink get. */
struct unit_sink {
    struct moe_hf_layout *p;
    int64_t *in;         /* [n] the unit's tensors, as indices into the source's */
    int64_t n;
};

static bool takes(void *ctx, int64_t tensor, int plane)
{
    const struct unit_sink *d = ctx;
    return moe_hf_layout_holds(d->p, d->in[tensor], plane);
}

/* Writes scales that come in tiles, whole stripes of 128 rows or the last one, row by row as a checkpoint has
 * them.  offset and bytes are those of the tiled plane. */
static enum moe_code write_scales(struct moe_hf_layout *p, int64_t index, uint64_t offset, const void *data,
                                  size_t bytes, struct moe_err *err)
{
    const struct moe_tensor *t = &p->planned.tensors[index];
    int64_t blocks = t->cols / 16;
    int64_t stripe = moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, 1, t->cols);
    int64_t row = (int64_t)offset / stripe * 128;
    int64_t rows = (int64_t)bytes / stripe * 128;
    int64_t entry = p->first[index] + 1;

    MOE_CHECK(!((int64_t)offset % stripe) && !((int64_t)bytes % stripe));
    if (rows > t->rows - row) rows = t->rows - row;
    uint8_t *linear = malloc((size_t)(rows * blocks));
    if (!linear) return moe_fail(err, MOE_NOMEM, "no memory for a stripe of scales");
    moe_scales_from_tile(data, 0, rows, blocks, linear);
    enum moe_code code = moe_hf_files_write(p->files, shard_of(p, entry), p->at[entry] +
                                            (uint64_t)(row * blocks), linear, (size_t)(rows * blocks), err);
    free(linear);
    return code;
}

static enum moe_code write_values(void *ctx, int64_t tensor, int plane, uint64_t offset, const void *data,
                                  size_t bytes, struct moe_err *err)
{
    const struct unit_sink *d = ctx;
    int64_t entry = d->p->first[d->in[tensor]];
    if (plane == MOE_PLANE_SCALE) return write_scales(d->p, d->in[tensor], offset, data, bytes, err);
    return moe_hf_files_write(d->p->files, shard_of(d->p, entry), d->p->at[entry] + offset, data, bytes, err);
}

/* Syncs all files that hold values of these tensors.  The entries of a layer are next to each other, so few
 * files are synced for more than one unit. */
static enum moe_code sync_files(const struct moe_hf_layout *p, const int64_t *in, int64_t n_in,
                                struct moe_err *err)
{
    int64_t n = p->plan.n_shards;
    bool *has = calloc((size_t)n, sizeof *has);
    if (!has) return moe_fail(err, MOE_NOMEM, "no memory to sync %lld files", (long long)n);
    for (int64_t i = 0; i < n_in; i++)
        if (p->holds_values[in[i]]) has[shard_of(p, p->first[in[i]])] = true;
    enum moe_code code = MOE_OK;
    for (int64_t s = 0; code == MOE_OK && s < n; s++)
        if (has[s]) code = moe_hf_files_sync(p->files, s, err);
    free(has);
    return code;
}

static enum moe_code sync_values(void *ctx, struct moe_err *err)
{
    const struct unit_sink *d = ctx;
    return sync_files(d->p, d->in, d->n, err);
}

static void forget(void *ctx)
{
    struct unit_sink *d = ctx;
    free(d->in);
    free(d);
}

enum moe_code moe_hf_layout_redirect(struct moe_hf_layout *p, const struct moe_shard_unit *u,
                                     struct moe_plane_sink *to, struct moe_err *err)
{
    struct unit_sink *d = calloc(1, sizeof *d);
    if (d) d->in = malloc((size_t)u->n * sizeof *d->in);
    if (!d || !d->in) {
        free(d);
        return moe_fail(err, MOE_NOMEM, "no memory for a unit of %lld tensors", (long long)u->n);
    }
    d->p = p;
    d->n = u->n;
    memcpy(d->in, u->in, (size_t)u->n * sizeof *d->in);
    *to = (struct moe_plane_sink){ d, takes, write_values, sync_values, forget };
    return MOE_OK;
}

/* The header, a page of scalars for each item, and the values that the checkpoint's files do not hold. */
uint64_t moe_hf_layout_left(const struct moe_hf_layout *p, const struct moe_shard_unit *u)
{
    uint64_t n = u->header.data_offset + (uint64_t)u->n_items * 4096;
    for (int64_t i = 0; i < u->n; i++)
        for (int k = 0; k < MOE_PLANE_COUNT; k++)
            if (is_value(k) && !p->holds_values[u->in[i]]) n += u->out[i].plane[k].bytes;
    return n;
}

enum moe_code moe_hf_layout_read(const struct moe_hf_layout *p, int64_t index, int plane, void *to,
                                 struct moe_err *err)
{
    const struct moe_tensor *t = &p->planned.tensors[index];
    int64_t entry = p->first[index] + (plane == MOE_PLANE_SCALE), shard = shard_of(p, entry);
    size_t bytes = (size_t)(t->rows * t->cols / 16);
    if (plane == MOE_PLANE_DATA)
        return moe_hf_files_read(p->files, shard, p->at[entry], to, (size_t)t->plane[plane].bytes, err);
    uint8_t *linear = malloc(bytes);
    if (!linear) return moe_fail(err, MOE_NOMEM, "no memory for a weight's scales");
    enum moe_code code = moe_hf_files_read(p->files, shard, p->at[entry], linear, bytes, err);
    if (code == MOE_OK) moe_scales_to_tile(linear, t->rows, t->cols / 16, to);
    free(linear);
    return code;
}

/* ---- what an earlier run wrote ---- */

enum { CHECK_PIECE = 1 << 20 };

struct checker { const struct moe_hf_layout *p; struct moe_hash *hash; uint8_t *piece; };

static enum moe_code hash_data(struct checker *c, int64_t index, struct moe_err *err)
{
    int64_t entry = c->p->first[index], shard = shard_of(c->p, entry);
    uint64_t bytes = c->p->planned.tensors[index].plane[MOE_PLANE_DATA].bytes;
    for (uint64_t at = 0; at < bytes; at += CHECK_PIECE) {
        size_t n = bytes - at < CHECK_PIECE ? (size_t)(bytes - at) : CHECK_PIECE;
        MOE_TRY(moe_hf_files_read(c->p->files, shard, c->p->at[entry] + at, c->piece, n, err));
        moe_hash_add64(c->hash, c->piece, n);
        MOE_TRY(moe_cancel_check_resumable(c->p->plan.cancel, err));
    }
    return MOE_OK;
}

/* Room for a stripe of 128 rows of scales as a checkpoint has it, and after it as a container has it. */
static size_t stripe_bytes(const struct moe_tensor *t)
{
    return 128 * (size_t)(t->cols / 16) +
           (size_t)moe_plane_bytes(MOE_NVFP4, MOE_LAYOUT_TILE_128X4, MOE_PLANE_SCALE, 1, t->cols);
}

static enum moe_code hash_scales(struct checker *c, int64_t index, struct moe_err *err)
{
    const struct moe_tensor *t = &c->p->planned.tensors[index];
    int64_t entry = c->p->first[index] + 1;
    int64_t shard = shard_of(c->p, entry);
    int64_t blocks = t->cols / 16;
    uint8_t *tile = c->piece + 128 * blocks;

    for (int64_t row = 0; row < t->rows; row += 128) {
        int64_t rows = t->rows - row < 128 ? t->rows - row : 128;
        MOE_TRY(moe_hf_files_read(c->p->files, shard, c->p->at[entry] + (uint64_t)(row * blocks), c->piece,
                                  (size_t)(rows * blocks), err));
        moe_scales_to_tile(c->piece, rows, blocks, tile);
        moe_hash_add64(c->hash, tile, stripe_bytes(t) - 128 * (size_t)blocks);
    }
    return moe_cancel_check_resumable(c->p->plan.cancel, err);
}

static enum moe_code check_plane(struct checker *c, int64_t index, const struct moe_tensor *t, int plane,
                                 struct moe_err *err)
{
    char name[128];
    int64_t entry = c->p->first[index] + (plane == MOE_PLANE_SCALE);
    moe_hash_reset64(c->hash);
    MOE_TRY(plane == MOE_PLANE_DATA ? hash_data(c, index, err) : hash_scales(c, index, err));
    if (moe_hash_get64(c->hash) == t->hash[plane]) return MOE_OK;
    return moe_fail_at(err, MOE_VERIFY, moe_hf_files_path(c->p->files, shard_of(c->p, entry)),
                       moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name),
                       "its %s are not those that were written there: the file was damaged since (start over "
                       "with --force)", plane == MOE_PLANE_DATA ? "values" : "scales");
}

uint64_t moe_hf_layout_bytes(const struct moe_hf_layout *p, const struct moe_shard_unit *u)
{
    uint64_t n = 0;
    for (int64_t i = 0; i < u->n; i++)
        for (int k = 0; k < MOE_PLANE_COUNT; k++)
            if (moe_hf_layout_holds(p, u->in[i], k)) n += u->out[i].plane[k].bytes;
    return n;
}

static enum moe_code check_all(struct checker *c, const struct moe_shard_unit *u,
                               struct moe_progress *progress, struct moe_err *err)
{
    for (int64_t i = 0; i < u->n; i++)
        for (int k = 0; k < MOE_PLANE_COUNT; k++) {
            if (!u->out[i].plane[k].bytes || !moe_hf_layout_holds(c->p, u->in[i], k)) continue;
            MOE_TRY(check_plane(c, u->in[i], &u->out[i], k, err));
            moe_progress_add(progress, u->out[i].plane[k].bytes);
        }
    return sync_files(c->p, u->in, u->n, err); /* this also drops what was read from the page cache */
}

enum moe_code moe_hf_layout_check(const struct moe_hf_layout *p, const struct moe_shard_unit *u,
                                  struct moe_progress *progress, struct moe_err *err)
{
    struct checker c = { .p = p, .hash = moe_hash_new() };
    size_t room = CHECK_PIECE;
    for (int64_t i = 0; i < u->n; i++)
        if (u->out[i].type == MOE_NVFP4 && stripe_bytes(&u->out[i]) > room) room = stripe_bytes(&u->out[i]);
    c.piece = malloc(room);
    enum moe_code code = c.hash && c.piece ? check_all(&c, u, progress, err)
                                           : moe_fail(err, MOE_NOMEM, "no memory to check a unit");
    moe_hash_free(c.hash);
    free(c.piece);
    return code;
}

/* ---- the rest ---- */

/* Asserts that the two have the same tensors in the same order. */
static void check_same(const struct moe_source *a, const struct moe_source *b)
{
    MOE_CHECK(a->n_tensors == b->n_tensors);
    for (int64_t i = 0; i < a->n_tensors; i++) {
        const struct moe_tensor *x = &a->tensors[i], *y = &b->tensors[i];
        MOE_CHECK(x->role == y->role && x->layer == y->layer && x->expert == y->expert && x->type == y->type);
    }
}

static enum moe_code finish(const struct moe_hf_layout *p, const struct moe_hf_plan *plan, const char *dir,
                            struct moe_progress *progress, struct moe_hf_result *r, struct moe_err *err)
{
    /* An input scale of 1 stands for none, so when a calibration gives that value to every weight, the
     * checkpoint would be another one than was planned. */
    if (plan->weight_only != p->plan.weight_only)
        return moe_fail_at(err, MOE_UNSUPPORTED, plan->src->path, NULL,
                           "calibration gave every input scale the value 1, which stands for none "
                           "(moe-quantize -o Q.moe, then moe-convert Q.moe --to hf-nvfp4)");
    moe_progress_begin(progress, "export", bytes_left(p), MOE_UNIT_BYTES);
    enum moe_code code = moe_hf_write_all(plan, p, dir, progress, r, err);
    moe_progress_end(progress);
    return code;
}

enum moe_code moe_hf_layout_finish(const struct moe_hf_layout *p, const struct moe_source *inner,
                                   const char *dir, struct moe_progress *progress, struct moe_hf_result *r,
                                   struct moe_err *err)
{
    struct moe_hf_plan plan;
    const struct moe_hf_options o = { .flavor = p->plan.flavor, .shard_bytes = p->plan.shard_bytes,
                                      .cancel = p->plan.cancel };
    *r = (struct moe_hf_result){ 0 };
    check_same(&p->planned, inner);
    MOE_TRY(moe_hf_plan_open(&plan, inner, &o, r, err));
    r->output_bytes = p->result.output_bytes;
    enum moe_code code = finish(p, &plan, dir, progress, r, err);
    moe_hf_plan_release(&plan);
    return code;
}
