/* SPDX-License-Identifier: Apache-2.0 */
/* Writes the units of a container.  The items of all units go through a pipeline as one sequence, so that
 * workers go from the end of a unit to the beginning of the next without waiting, while the unit before
 * is made durable by another thread (commit.h). */
#include "model/rewrite/rewrite-internal.h"

#include "base/io.h"
#include "model/export/hf-layout.h"
#include "model/rewrite/files.h"
#include "model/rewrite/same.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A finished item waits in its slot until those before it are finished.  With several slots a worker need
 * not wait for another one that has a larger item. */
enum { SLOTS_PER_WORKER = 8 };

/* ---- opening and finishing units ---- */

static struct moe_open_unit *open_unit(const struct moe_rewrite_run *k, int t)
{
    return &k->open_units[t % k->slots];
}

static const struct moe_unit_item *item_of(const struct moe_rewrite_run *k, int t, int64_t item)
{
    return &open_unit(k, t)->unit.items[item - k->todo[t].first];
}

/* Which unit of todo an item belongs to. */
static int find(const struct moe_rewrite_run *k, int64_t item)
{
    int low = 0, high = k->n_todo - 1;
    while (low < high) {
        int mid = low + (high - low) / 2;
        if (item < k->todo[mid].end) high = mid;
        else low = mid + 1;
    }
    return low;
}

static void release(struct moe_open_unit *l)
{
    moe_shard_abort(&l->shard);
    cJSON_Delete(l->source);
    moe_tally_release(&l->tally);
    moe_unit_release(&l->unit);
    *l = (struct moe_open_unit){ 0 };
}

static enum moe_code create_with_sink(struct moe_rewrite_run *k, struct moe_open_unit *l, const char *path,
                                      struct moe_err *err)
{
    struct moe_plane_sink sink;
    MOE_TRY(moe_hf_layout_redirect(k->o->hf_layout, &l->unit, &sink, err));
    enum moe_code code = moe_shard_create_with_sink(&l->shard, path, l->unit.out, l->unit.n, &l->unit.header,
                                                    &sink, err);
    if (code != MOE_OK) sink.close(sink.ctx);
    return code;
}

static enum moe_code create(struct moe_rewrite_run *k, struct moe_open_unit *l, struct moe_err *err)
{
    char path[4096];
    if (k->src->kind == MOE_CHECKPOINT && !(l->source = cJSON_CreateArray()))
        return moe_fail(err, MOE_NOMEM, "no memory for provenance");
    if (l->source && l->unit.layer < 0 && (!k->o->layers || !k->o->layers->first))
        MOE_TRY(moe_source_skipped(l->source, k->src, err));
    MOE_TRY(moe_writer_unit_path(k->writer, l->unit.name, path, sizeof path, err));
    if (k->o->hf_layout) return create_with_sink(k, l, path, err);
    return moe_shard_create(&l->shard, path, l->unit.out, l->unit.n, &l->unit.header, err);
}

static enum moe_code begin_unit(struct moe_rewrite_run *k, int t, struct moe_err *err)
{
    struct moe_open_unit *l = open_unit(k, t);
    enum moe_code code = moe_unit_open(&l->unit, k->src, k->type, k->todo[t].number, err);
    if (code == MOE_OK) code = create(k, l, err);
    if (code == MOE_OK) l->open = true;
    else release(l);
    return code;
}

/* Prepares an item of unit t: opens the unit if this is its first item, and takes a worker's buffers. */
static enum moe_code enter(struct moe_rewrite_run *k, int t, struct moe_emit **e, struct moe_err *err)
{
    enum moe_code code = MOE_OK;
    pthread_mutex_lock(&k->lock);
    if (!open_unit(k, t)->open) code = begin_unit(k, t, err);
    if (code == MOE_OK) *e = k->idle[--k->n_idle];
    pthread_mutex_unlock(&k->lock);
    return code;
}

/* Gives a worker's buffers back. */
static void leave(struct moe_rewrite_run *k, struct moe_emit *e)
{
    pthread_mutex_lock(&k->lock);
    k->idle[k->n_idle++] = e;
    pthread_mutex_unlock(&k->lock);
}

/* Whether a unit reads this file of the source. */
static bool reads(const struct moe_rewrite_run *k, const struct moe_open_unit *l, int32_t file)
{
    for (int64_t i = 0; i < l->unit.n; i++)
        if (k->src->tensors[l->unit.in[i]].plane[MOE_PLANE_DATA].file == file) return true;
    return false;
}

/* Drops the pages of the unit's source files that reading ahead has left in the page cache, but not of
 * files that another open unit reads: that one drops them when it ends. */
static void drop_sources(struct moe_rewrite_run *k, const struct moe_open_unit *l)
{
    int32_t last = -1;
    pthread_mutex_lock(&k->lock);
    for (int64_t i = 0; i < l->unit.n; i++) {
        int32_t file = k->src->tensors[l->unit.in[i]].plane[MOE_PLANE_DATA].file;
        bool used = file == last;
        last = file;
        for (int s = 0; s < k->slots && !used; s++)
            used = &k->open_units[s] != l && k->open_units[s].open && reads(k, &k->open_units[s], file);
        if (!used) moe_source_drop_file(k->src, file);
    }
    pthread_mutex_unlock(&k->lock);
}

/* Hands a finished unit to the committer.  note: what the chooser wants to have kept with it, or NULL; it
 * is owned by this function from now on, on failure too. */
static enum moe_code hand_over(struct moe_rewrite_run *k, struct moe_open_unit *l, cJSON *note,
                               struct moe_err *err)
{
    cJSON *report = moe_tally_json(&l->tally);

    if (!report) cJSON_Delete(note);
    if (!report || (note && !moe_report_add_note(report, note))) {
        cJSON_Delete(report);
        return moe_fail(err, MOE_NOMEM, "no memory for a report");
    }
    struct moe_finished done = { .shard = l->shard, .source = l->source, .report = report };
    memcpy(done.name, l->unit.name, sizeof done.name);
    l->shard = NULL;
    l->source = NULL;
    drop_sources(k, l);
    pthread_mutex_lock(&k->lock);
    release(l);
    pthread_mutex_unlock(&k->lock);
    return moe_commit_unit(k->commit, &done, err);
}

/* ---- one item ---- */

/* The tensor of another item with which `in` shares a global scale: q_a and kv_a, which are not side by
 * side in a unit.  NULL: there is none. */
static const struct moe_tensor *fused_elsewhere(const struct moe_rewrite_run *k, const struct moe_tensor *in)
{
    const struct moe_tensor *o = moe_source_fused_partner(k->src, in);
    return o && o->type != MOE_NVFP4 && k->type[o - k->src->tensors] == MOE_NVFP4 ? o : NULL;
}

/* *global: the global scale for a tensor, made from its largest value and that of the tensor it is fused
 * with.  Both workers compute it, so each of the two tensors is read once more for the other's sake. */
static enum moe_code own_global(struct moe_rewrite_run *k, struct moe_emit *e, const struct moe_tensor *in,
                                float *global, struct moe_emitted *d, struct moe_err *err)
{
    const struct moe_tensor *fused = fused_elsewhere(k, in);
    struct moe_emitted other;
    float amax, with = 0;
    if (fused) MOE_TRY(moe_emit_amax(e, fused, &with, &other, err));
    MOE_TRY(moe_emit_amax(e, in, &amax, d, err));
    *global = moe_nvfp4_global(with > amax ? with : amax, k->o->method);
    return MOE_OK;
}

static enum moe_code write_one(struct moe_rewrite_run *k, const struct moe_open_unit *l, struct moe_emit *e,
                               int64_t i, const float *shared, struct moe_emitted *d, struct moe_err *err)
{
    const struct moe_tensor *in = &k->src->tensors[l->unit.in[i]];
    int type = l->unit.out[i].type;
    if (type == in->type) return moe_emit_copy(e, in, l->shard, i, d, err);
    if (type != MOE_NVFP4) return moe_emit_decoded(e, in, type, l->shard, i, d, err);
    float global = shared ? *shared : 0;
    if (!shared) MOE_TRY(own_global(k, e, in, &global, d, err));
    return moe_emit_nvfp4(e, in, k->o->method, global, 1.0f, l->shard, i, d, err);
}

static enum moe_code write_item(struct moe_rewrite_run *k, const struct moe_open_unit *l,
                                const struct moe_unit_item *g, struct moe_emit *e, struct moe_emitted *d,
                                struct moe_err *err)
{
    float shared = 0;
    for (int j = 0; g->share && j < 2; j++) {
        float a;
        MOE_TRY(moe_emit_amax(e, &k->src->tensors[l->unit.in[g->first + j]], &a, &d[j], err));
        if (a > shared) shared = a;
    }
    shared = moe_nvfp4_global(shared, k->o->method);
    for (int j = 0; j < g->n; j++)
        MOE_TRY(write_one(k, l, e, g->first + j, g->share && j < 2 ? &shared : NULL, &d[j], err));
    return MOE_OK;
}

/* The pipeline calls this for each item, from several threads at once. */
static enum moe_code produce(void *ctx, int64_t i, int slot, struct moe_err *err)
{
    struct moe_rewrite_run *k = ctx;
    struct moe_emit *e;
    int t = find(k, i);
    MOE_TRY(enter(k, t, &e, err));
    enum moe_code code = write_item(k, open_unit(k, t), item_of(k, t, i), e, k->done[slot], err);
    leave(k, e);
    return code;
}

/* The pipeline calls this for each item once it is written, in order: it records what was measured, and hands
 * over the unit after its last item. */
static enum moe_code consume(void *ctx, int64_t i, int slot, struct moe_err *err)
{
    struct moe_rewrite_run *k = ctx;
    int t = find(k, i);
    struct moe_open_unit *l = open_unit(k, t);
    const struct moe_unit_item *g = item_of(k, t, i);
    uint64_t bytes = 0;

    for (int j = 0; j < g->n; j++) {
        int64_t index = l->unit.in[g->first + j];
        const struct moe_tensor *in = &k->src->tensors[index];
        const struct moe_tensor *out = &l->unit.out[g->first + j];
        const struct moe_emitted *d = &k->done[slot][j];
        bytes += moe_tensor_bytes(in);
        if (out->type != in->type) moe_tally_add(&l->tally, in, d->num, d->den);
        for (int p = 0; l->source && p < MOE_PLANE_COUNT; p++) {
            int32_t raw = k->raw_of[index * MOE_PLANE_COUNT + p];
            if (raw >= 0) MOE_TRY(moe_source_entry(l->source, k->src, raw, d->source_hash[p], err));
        }
    }
    if (!k->o->chooser) moe_progress_add(k->progress, bytes);
    if (i + 1 == k->todo[t].end && !k->o->chooser) MOE_TRY(hand_over(k, l, NULL, err));
    MOE_TRY(moe_commit_check(k->commit, err));
    return moe_cancel_check_resumable(k->o->cancel, err);
}

/* ---- units whose codes a code chooser chooses: one after the other ---- */

/* The unit that is written as number i: dense.moe last, since its quantized tensors are known only when
 * all layers have been calibrated. */
static int unit_at(const struct moe_rewrite_run *k, int i)
{
    return k->o->chooser ? (i + 1) % moe_unit_count(k->src) : i;
}

/* Whether tensor i of the unit becomes NVFP4, so that the chooser is asked for its codes. */
static bool needs_codes(const struct moe_rewrite_run *k, const struct moe_open_unit *l, int64_t i)
{
    return l->unit.out[i].type == MOE_NVFP4 && k->src->tensors[l->unit.in[i]].type != MOE_NVFP4;
}

static enum moe_code choose_item(struct moe_rewrite_run *k, const struct moe_open_unit *l, int64_t item,
                                 int worker, struct moe_emit *e, struct moe_emitted *d, struct moe_err *err)
{
    const struct moe_unit_item *g = &l->unit.items[item];
    struct moe_chosen_codes chosen[3];
    float amax[3] = { 0 };

    memset(chosen, 0, sizeof chosen);
    for (int j = 0; j < g->n; j++)
        if (needs_codes(k, l, g->first + j))
            MOE_TRY(moe_emit_amax(e, &k->src->tensors[l->unit.in[g->first + j]], &amax[j], &d[j], err));
    MOE_TRY(k->o->chooser->choose(k->o->chooser->ctx, &l->unit, item, worker, amax, chosen, err));
    for (int j = 0; j < g->n; j++) {
        const struct moe_tensor *in = &k->src->tensors[l->unit.in[g->first + j]];
        if (chosen[j].codes) MOE_TRY(moe_emit_chosen(e, in, &chosen[j], l->shard, g->first + j, &d[j], err));
        else MOE_TRY(write_one(k, l, e, g->first + j, NULL, &d[j], err));
    }
    return MOE_OK;
}

static enum moe_code produce_chosen(void *ctx, int64_t i, int slot, struct moe_err *err)
{
    struct moe_rewrite_run *k = ctx;
    struct moe_emit *e;
    MOE_TRY(enter(k, k->current, &e, err));
    enum moe_code code = choose_item(k, open_unit(k, k->current), i, slot, e, k->done[slot], err);
    leave(k, e);
    return code;
}

static enum moe_code consume_chosen(void *ctx, int64_t i, int slot, struct moe_err *err)
{
    struct moe_rewrite_run *k = ctx;
    return consume(k, k->todo[k->current].first + i, slot, err);
}

static enum moe_code end_chosen(struct moe_rewrite_run *k, struct moe_open_unit *l, struct moe_err *err)
{
    char path[4096];
    cJSON *note = NULL;
    float *input = malloc((size_t)l->unit.n * sizeof *input);

    if (!input) return moe_fail(err, MOE_NOMEM, "no memory for input scales");
    enum moe_code code = moe_writer_unit_path(k->writer, l->unit.name, path, sizeof path, err);
    if (code == MOE_OK)
        code = k->o->chooser->end(k->o->chooser->ctx, &l->unit,
                                  &(struct moe_unit_file){ path, k->o->hf_layout }, input, &note, err);
    for (int64_t i = 0; code == MOE_OK && i < l->unit.n; i++)
        if (needs_codes(k, l, i)) code = moe_emit_input(l->shard, i, input[i], err);
    free(input);
    if (code == MOE_OK) return hand_over(k, l, note, err);
    cJSON_Delete(note);
    return code;
}

static enum moe_code write_chosen(struct moe_rewrite_run *k, struct moe_err *err)
{
    struct moe_open_unit *l = open_unit(k, k->current);
    const struct moe_todo *t = &k->todo[k->current];
    MOE_TRY(begin_unit(k, k->current, err));
    MOE_TRY(k->o->chooser->begin(k->o->chooser->ctx, &l->unit, err));
    MOE_TRY(moe_pipe_run(k->pool, t->end - t->first, k->slots, produce_chosen, consume_chosen, k, err));
    return end_chosen(k, l, err);
}

static enum moe_code replay_unit(struct moe_rewrite_run *k, int number, struct moe_err *err)
{
    char path[4096];
    struct moe_shard_unit unit;
    MOE_TRY(moe_unit_open(&unit, k->src, k->type, number, err));
    int n = unit.n ? snprintf(path, sizeof path, "%s/%s.moe", moe_writer_dir(k->writer), unit.name) : 0;
    enum moe_code code = MOE_OK;
    if (n >= (int)sizeof path)
        code = moe_fail_at(err, MOE_IO, moe_writer_dir(k->writer), NULL, "the path is too long");
    else if (n)
        code = k->o->chooser->replay(k->o->chooser->ctx, &unit,
                                     &(struct moe_unit_file){ path, k->o->hf_layout }, err);
    moe_unit_release(&unit);
    return code;
}

static enum moe_code start_chooser(struct moe_rewrite_run *k, struct moe_err *err)
{
    bool *todo = calloc((size_t)moe_unit_count(k->src) + 1, sizeof *todo);
    if (!todo) return moe_fail(err, MOE_NOMEM, "no memory for %d units", moe_unit_count(k->src));
    for (int i = 0; i < k->n_todo; i++) todo[k->todo[i].number] = true;
    enum moe_code code = k->o->chooser->start(k->o->chooser->ctx, moe_writer_dir(k->writer), todo, err);
    free(todo);
    return code;
}

/* Writes the units one after the other, and replays to the chooser those that are finished already. */
static enum moe_code run_chosen(struct moe_rewrite_run *k, struct moe_err *err)
{
    int units = moe_unit_count(k->src);
    if (k->n_todo) MOE_TRY(start_chooser(k, err));
    for (int i = 0; i < units && k->current < k->n_todo; i++) {
        if (k->todo[k->current].number != unit_at(k, i)) {
            MOE_TRY(replay_unit(k, unit_at(k, i), err));
            continue;
        }
        MOE_TRY(write_chosen(k, err));
        k->current++;
    }
    return MOE_OK;
}

/* ---- all of them ---- */

/* Lists the units that are to be written.  *bytes: how much will be written to their files; *done: the bytes
 * that the source has for units that an earlier run finished. */
static enum moe_code list_units(struct moe_rewrite_run *k, uint64_t *bytes, uint64_t *done,
                                struct moe_err *err)
{
    int units = moe_unit_count(k->src);
    int64_t items = 0;

    *bytes = *done = 0;
    if (!(k->todo = malloc((size_t)units * sizeof *k->todo)))
        return moe_fail(err, MOE_NOMEM, "no memory for %d units", units);
    for (int i = 0; i < units; i++) {
        struct moe_shard_unit unit;
        enum moe_code code = MOE_OK;
        int u = unit_at(k, i);
        MOE_TRY(moe_unit_open(&unit, k->src, k->type, u, err));
        if (unit.n && !moe_writer_has_unit(k->writer, unit.name)) {
            k->todo[k->n_todo++] = (struct moe_todo){ u, items, items + unit.n_items };
            items += unit.n_items;
            *bytes += k->o->hf_layout ? moe_hf_layout_left(k->o->hf_layout, &unit) : unit.header.file_bytes;
        } else {
            for (int64_t t = 0; t < unit.n; t++) *done += moe_tensor_bytes(&k->src->tensors[unit.in[t]]);
            k->n_finished += unit.n > 0;
            if (unit.n) code = moe_check_same_unit(k->src, k->writer, unit.name, k->o->cancel, err);
        }
        moe_unit_release(&unit);
        MOE_TRY(code);
    }
    return MOE_OK;
}

static enum moe_code open_workers(struct moe_rewrite_run *k, struct moe_err *err)
{
    struct moe_rewrite_estimate memory;
    const struct moe_source *src = k->src;

    moe_rewrite_plan_memory(src, k->o, k->pool, &memory);
    MOE_TRY(moe_rewrite_fits(&memory, err));
    k->workers = memory.workers;
    /* The pipeline runs one thread more than the pool has.  Where memory is too small for so many
     * workers, there is one slot for each worker. */
    k->slots = k->workers > moe_pool_threads(k->pool) ? SLOTS_PER_WORKER * k->workers : k->workers;
    if (k->o->chooser) k->slots = k->workers < k->o->chooser->workers ? k->workers : k->o->chooser->workers;
    k->emit = calloc((size_t)k->workers, sizeof *k->emit);
    k->idle = calloc((size_t)k->workers, sizeof *k->idle);
    k->done = calloc((size_t)k->slots, sizeof *k->done);
    k->open_units = calloc((size_t)k->slots, sizeof *k->open_units);
    k->raw_of = malloc((size_t)(src->n_tensors + 1) * MOE_PLANE_COUNT * sizeof *k->raw_of);
    if (!k->emit || !k->idle || !k->done || !k->open_units || !k->raw_of)
        return moe_fail(err, MOE_NOMEM, "no memory for %d workers", k->workers);
    for (; k->n_idle < k->workers; k->n_idle++) {
        MOE_TRY(moe_emit_open(&k->emit[k->n_idle], src, err));
        k->idle[k->n_idle] = k->emit[k->n_idle];
    }
    memset(k->raw_of, 0xff, (size_t)src->n_tensors * MOE_PLANE_COUNT * sizeof *k->raw_of);
    for (int64_t i = 0; i < src->n_raws; i++)
        if (src->raws[i].tensor >= 0)
            k->raw_of[(int64_t)src->raws[i].tensor * MOE_PLANE_COUNT + src->raws[i].plane] = (int32_t)i;
    return MOE_OK;
}

static enum moe_code run(struct moe_rewrite_run *k, struct moe_err *err)
{
    struct moe_err e;

    MOE_TRY(open_workers(k, err));
    MOE_TRY(moe_commit_open(&k->commit, k->writer, moe_pool_threads(k->pool) > 1, err));
    pthread_mutex_init(&k->lock, NULL);
    enum moe_code code = k->o->chooser ? run_chosen(k, err)
                       : k->n_todo   ? moe_pipe_run(k->pool, k->todo[k->n_todo - 1].end, k->slots, produce,
                                                    consume, k, err)
                                     : MOE_OK;
    for (int s = 0; s < k->slots; s++) {
        if (k->open_units[s].open) drop_sources(k, &k->open_units[s]);
        release(&k->open_units[s]);
    }
    if (moe_commit_wait(k->commit, &e) != MOE_OK && code == MOE_OK) *err = e, code = e.code;
    k->sync += moe_commit_seconds(k->commit);
    pthread_mutex_destroy(&k->lock);
    return code;
}

enum moe_code moe_rewrite_units(struct moe_rewrite_run *k, const char *out, uint64_t input_bytes,
                                struct moe_err *err)
{
    uint64_t need, done;
    enum moe_code code = list_units(k, &need, &done, err);
    if (code == MOE_OK && k->o->hf_layout && k->n_finished)
        code = moe_rewrite_check_finished(k, moe_writer_dir(k->writer), err);
    if (!k->o->chooser)
        moe_progress_begin(k->progress, k->o->scope ? "quantize" : "convert", input_bytes, MOE_UNIT_BYTES);
    if (!k->o->chooser) moe_progress_skip(k->progress, done);
    if (code == MOE_OK) code = moe_need_space(moe_writer_dir(k->writer), need + (1 << 20), out, err);
    if (code == MOE_OK) code = run(k, err);
    moe_progress_end(k->progress);
    return code;
}

void moe_rewrite_release(struct moe_rewrite_run *k)
{
    moe_commit_close(&k->commit);
    for (int i = 0; k->emit && i < k->workers; i++) moe_emit_close(&k->emit[i]);
    free(k->emit);
    free(k->idle);
    free(k->done);
    free(k->open_units);
    free(k->raw_of);
    free(k->todo);
}
