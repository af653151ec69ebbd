/* SPDX-License-Identifier: Apache-2.0 */
/* A run that writes a container: its estimate, its options as --resume compares them, and its result. */
#include "model/rewrite/rewrite-internal.h"

#include "base/io.h"
#include "base/minmax.h"
#include "base/newdir.h"
#include "kernels/kernels.h"
#include "model/rewrite/files.h"
#include "model/rewrite/report.h"
#include "model/rewrite/same.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t input_bytes(const struct moe_source *src, const uint8_t *type)
{
    uint64_t n = 0;
    for (int64_t i = 0; i < src->n_tensors; i++)
        n += type[i] == MOE_TYPE_LEFT_OUT ? 0 : moe_tensor_bytes(&src->tensors[i]);
    return n;
}

/* The memory of two units, the one that is being written and the one that is being made durable. */
static uint64_t unit_memory(const struct moe_source *src)
{
    int64_t most = 0, dense = 0, c = src->config.n_routed_experts * 3;
    for (int64_t i = 0; i < src->n_tensors; i++) dense += src->tensors[i].expert < 0;
    most = c > dense ? c : dense;
    /* descriptors, the journal as a tree and as text: about 3 KB a tensor were measured */
    return (uint64_t)most * 2 * 4096;
}

void moe_rewrite_plan_memory(const struct moe_source *src, const struct moe_rewrite_options *o,
                             struct moe_pool *pool, struct moe_rewrite_estimate *e)
{
    uint64_t base = moe_peak_rss() + unit_memory(src);
    uint64_t each = moe_emit_estimate(src) + (256 << 10);
    uint64_t limit = o->memory ? o->memory : moe_peak_rss() + moe_available_memory() / 2;
    int64_t fit = limit > base ? (int64_t)((limit - base) / each) : 0;
    int64_t most = moe_pool_threads(pool) + (moe_pool_threads(pool) > 1);

    e->fits = fit >= 1;
    e->workers = (int)moe_max_i64(1, moe_min_i64(fit, most));
    e->memory_bytes = base + (uint64_t)e->workers * each;
    e->memory_limit = limit;
}

enum moe_code moe_rewrite_fits(const struct moe_rewrite_estimate *e, struct moe_err *err)
{
    if (e->fits) return MOE_OK;
    return moe_fail(err, MOE_NOMEM, "needs at least %llu MiB of memory, %llu MiB allowed (raise --memory)",
                    (unsigned long long)(e->memory_bytes >> 20) + 1,
                    (unsigned long long)(e->memory_limit >> 20));
}

enum moe_code moe_rewrite_types(const struct moe_source *src, const struct moe_rewrite_options *o,
                                uint8_t **type, struct moe_err *err)
{
    *type = malloc((size_t)src->n_tensors + 1);
    if (!*type) return moe_fail(err, MOE_NOMEM, "no memory for a precision map");
    enum moe_code code = moe_precision_map(src, o->scope, o->rules, o->n_rules, *type, err);
    int64_t layers = src->config.num_hidden_layers;
    if (code == MOE_OK && o->layers &&
        (o->layers->first < 0 || o->layers->first > o->layers->last || o->layers->last >= layers))
        code = moe_fail(err, MOE_USAGE, "layers %d-%d are not within 0-%lld", o->layers->first,
                        o->layers->last, (long long)layers - 1);
    for (int64_t i = 0; code == MOE_OK && o->layers && i < src->n_tensors; i++)
        if (!moe_range_has(o->layers, &src->config, (enum moe_role)src->tensors[i].role,
                           src->tensors[i].layer))
            (*type)[i] = MOE_TYPE_LEFT_OUT;
    if (code != MOE_OK) {
        free(*type);
        *type = NULL;
    }
    return code;
}

/* The seconds that one thread takes to quantize a weight, measured on a sample. */
static double seconds_per_weight(const struct moe_rewrite_options *o)
{
    enum { N = 1 << 18 };
    float *x = malloc(N * sizeof *x);
    uint8_t *codes = malloc(N);
    if (!x || !codes) {
        free(x);
        free(codes);
        return 1e-9;
    }
    for (int i = 0; i < N; i++) x[i] = (float)((i * 2654435761u >> 8) % 65537) / 32768.0f - 1.0f;
    double best = 1;
    for (int pass = 0; pass < 4; pass++) {
        double t = moe_now();
        moe_kernels()->nvfp4_quantize(o->method, x, N, 1.0f / 2688, codes, codes + N / 2);
        t = moe_now() - t;
        if (t < best) best = t;
    }
    free(x);
    free(codes);
    return best / N;
}

static enum moe_code shard_bytes(const struct moe_source *src, const uint8_t *type, uint64_t *bytes,
                                 struct moe_err *err)
{
    *bytes = 0;
    for (int u = 0; u < moe_unit_count(src); u++) {
        struct moe_shard_unit unit;
        MOE_TRY(moe_unit_open(&unit, src, type, u, err));
        if (unit.n) *bytes += unit.header.file_bytes;
        moe_unit_release(&unit);
    }
    return MOE_OK;
}

static int64_t weights_to_quantize(const struct moe_source *src, const uint8_t *type)
{
    int64_t n = 0;
    for (int64_t i = 0; i < src->n_tensors; i++)
        if (type[i] == MOE_NVFP4 && src->tensors[i].type != MOE_NVFP4)
            n += src->tensors[i].rows * src->tensors[i].cols;
    return n;
}

enum moe_code moe_rewrite_estimate(const struct moe_source *src, const struct moe_rewrite_options *o,
                                   struct moe_pool *pool, struct moe_rewrite_estimate *e, struct moe_err *err)
{
    uint8_t *type;

    *e = (struct moe_rewrite_estimate){ 0 };
    MOE_TRY(moe_rewrite_types(src, o, &type, err));
    e->input_bytes = input_bytes(src, type);
    moe_rewrite_plan_memory(src, o, pool, e);
    enum moe_code code = shard_bytes(src, type, &e->output_bytes, err);
    if (o->vision) e->output_bytes += moe_extra_bytes(src, MOE_EXTRA_VISION);
    if (o->rest) e->output_bytes += moe_extra_bytes(src, MOE_EXTRA_SUPERSEDED);
    e->disk_bytes = e->output_bytes + moe_other_files_bytes(src, 1);
    e->weights_quantized = weights_to_quantize(src, type);
    free(type);
    MOE_TRY(code);
    const double disk = 1e9;
    double compute = ((double)e->weights_quantized * seconds_per_weight(o) + (double)e->input_bytes / 2e9) /
                     e->workers;
    double io = fmax((double)e->input_bytes, (double)e->output_bytes) / disk;
    e->seconds = fmax(compute, io);
    return MOE_OK;
}

void moe_rewrite_count(const struct moe_source *src, const uint8_t *type, struct moe_rewrite_result *r)
{
    r->input_bytes = input_bytes(src, type);
    for (int64_t i = 0; i < src->n_tensors; i++) r->tensors += type[i] != MOE_TYPE_LEFT_OUT;
    r->weights_quantized = weights_to_quantize(src, type);
    for (int64_t i = 0; i < src->n_tensors; i++) {
        const struct moe_tensor *t = &src->tensors[i];
        if (t->type != MOE_NVFP4 || type[i] != MOE_NVFP4) continue;
        r->kept_nvfp4++;
        const struct moe_tensor *o = moe_source_fused_partner(src, t);
        if (!o || o->role > t->role) continue; /* a pair is counted once, at its second weight */
        r->unequal_pairs += o->type == MOE_NVFP4 && type[o - src->tensors] == MOE_NVFP4 &&
            o->global != t->global;
    }
}

static enum moe_code set_part(struct moe_rewrite_run *k, const cJSON *reports, struct moe_err *err)
{
    cJSON *part = moe_part_json(k->o->layers, reports);
    enum moe_code code = part ? moe_writer_set_part(k->writer, part, err)
                              : moe_fail(err, MOE_NOMEM, "no memory for the manifest");
    cJSON_Delete(part);
    return code;
}

static bool is_merged(const struct moe_source *src) { return src->container && src->container->n_parts; }

static cJSON *options_json(const struct moe_source *src, const struct moe_rewrite_options *o)
{
    return is_merged(src)
             ? cJSON_Duplicate(moe_json_get(moe_json_get(src->container->manifest, "provenance"), "options"),
                               true)
             : moe_rewrite_options_json(o);
}

static enum moe_code publish_notes(struct moe_rewrite_run *k, const cJSON *reports,
                                   struct moe_rewrite_result *r, struct moe_err *err)
{
    cJSON *notes = moe_report_notes(reports);
    if (!notes) return moe_fail(err, MOE_NOMEM, "no memory for a report");
    enum moe_code code = k->o->chooser->publish(k->o->chooser->ctx, k->writer, notes, err);
    if (code == MOE_OK && !(r->notes = cJSON_Duplicate(notes, 1)))
        code = moe_fail(err, MOE_NOMEM, "no memory for a report");
    cJSON_Delete(notes);
    return code;
}

static enum moe_code publish(struct moe_rewrite_run *k, struct moe_rewrite_result *r, struct moe_err *err)
{
    char *jsonl = NULL;
    size_t jsonl_bytes = 0;
    cJSON *reports = NULL, *types = moe_types_json(k->src, k->type), *quantization = NULL;
    enum moe_code code = moe_copy_files(k->src, k->writer, k->o->rest, &jsonl, &jsonl_bytes, err);

    if (code == MOE_OK && k->o->vision)
        code = moe_keep_extra(k->src, MOE_EXTRA_VISION, k->writer, k->o->cancel, err);
    if (code == MOE_OK && k->o->rest)
        code = moe_keep_extra(k->src, MOE_EXTRA_SUPERSEDED, k->writer, k->o->cancel, err);
    if (code == MOE_OK && !(reports = moe_writer_reports(k->writer, err))) code = err->code;
    if (code == MOE_OK && is_merged(k->src))
        code = moe_merged_quantization_json(k->src, &quantization, &r->relative_error, err);
    else if (code == MOE_OK)
        code = moe_quantization_json(k->src, k->o, reports, &quantization, &r->relative_error, err);
    if (code == MOE_OK && k->o->chooser) code = publish_notes(k, reports, r, err);
    if (code == MOE_OK && k->o->layers) code = set_part(k, reports, err);
    if (code == MOE_OK && !types) code = moe_fail(err, MOE_NOMEM, "no memory for the manifest");
    if (code == MOE_OK)
        code = moe_writer_publish(&k->writer, &k->src->config, types, quantization, jsonl, jsonl_bytes,
                                  &r->output_bytes, err);
    free(jsonl);
    cJSON_Delete(reports);
    cJSON_Delete(types);
    cJSON_Delete(quantization);
    return code;
}

/* The seconds of each phase (moe_rewrite_result.profile); NULL without memory. */
static cJSON *profile_json(const struct moe_rewrite_run *k)
{
    static const char *const names[MOE_EMIT_PHASES] = {
        [MOE_EMIT_READ] = "read",         [MOE_EMIT_HASH] = "hash",   [MOE_EMIT_DECODE] = "decode",
        [MOE_EMIT_QUANTIZE] = "quantize", [MOE_EMIT_ERROR] = "error", [MOE_EMIT_WRITE] = "write"
    };
    cJSON *o = cJSON_CreateObject();

    for (int p = 0; o && p < MOE_EMIT_PHASES; p++) {
        double sum = 0;
        for (int i = 0; k->emit && i < k->workers; i++)
            sum += k->emit[i] ? moe_emit_seconds(k->emit[i])[p] : 0;
        moe_json_add_measured(o, names[p], sum);
    }
    if (o) moe_json_add_measured(o, "sync", k->sync);
    return o;
}

/* Fills in the result for a container that an earlier run finished, as its manifest tells it. */
static enum moe_code report_done(const struct moe_source *src, const char *out, struct moe_rewrite_result *r,
                                 struct moe_err *err)
{
    struct moe_source *made;
    MOE_TRY(moe_source_open_config(&made, out, err));
    const cJSON *q = moe_json_get(made->container->manifest, "quantization"),
                *e = q ? moe_json_get(q, "relative_error") : NULL;
    r->output_bytes = made->container->bytes;
    enum moe_code code = !e || !r->weights_quantized || (r->relative_error = cJSON_Duplicate(e, true))
                           ? MOE_OK
                           : moe_fail(err, MOE_NOMEM, "no memory for a report");
    if (code == MOE_OK) code = moe_check_same_files(src, made, err);
    moe_source_close(&made);
    return code;
}

/* The name of the kernels that the bytes depend on: the chooser's, and those that calibrated the source;
 * "mixed" when these differ, NULL when there are none. */
static const char *kernels_of(const struct moe_source *src, const struct moe_rewrite_options *o)
{
    const char *own = o->chooser ? o->chooser->kernels : NULL, *before = moe_source_kernels(src);
    if (own && before && strcmp(own, before)) return "mixed";
    return own ? own : before;
}

enum moe_code moe_rewrite_work_init(const struct moe_source *src, const struct moe_rewrite_options *o,
                                    struct moe_work *work, struct moe_err *err)
{
    *work = (struct moe_work){ .kernels = kernels_of(src, o), .made_from = moe_source_made_from(src) };
    if (src->kind == MOE_CONTAINER && !is_merged(src)) work->from = src;
    MOE_TRY(moe_source_identity(src, o->cancel, &work->input, err));
    work->origin = moe_source_origin(src, &work->input);
    work->options = options_json(src, o);
    return work->options ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for the options");
}

void moe_rewrite_work_release(struct moe_work *work)
{
    cJSON_Delete((cJSON *)(uintptr_t)work->options);
    work->options = NULL;
}

/* Opens the writer; what --resume found is in *r. */
static enum moe_code open_writer(struct moe_rewrite_run *k, const char *out, enum moe_write_mode mode,
                                 struct moe_rewrite_result *r,
                                 struct moe_err *err)
{
    struct moe_writer_found found;
    struct moe_work work;
    MOE_TRY(moe_rewrite_work_init(k->src, k->o, &work, err));
    k->before = work.input;
    enum moe_code code = moe_writer_open(&k->writer, out, mode, &work, &found, err);
    moe_rewrite_work_release(&work);
    r->was_done = code == MOE_OK && found.done;
    r->no_samples = code == MOE_OK && found.no_samples;
    return code;
}

/* Adds to the message of an interruption what is kept of the work and how to go on. */
static void tell_kept(const struct moe_rewrite_run *k, const char *out, enum moe_write_mode mode,
                      enum moe_code code, struct moe_err *err)
{
    int done = k->writer ? (int)moe_writer_units(k->writer) : 0;
    const char *dir = k->writer ? moe_writer_dir(k->writer) : NULL;
    char outer[PATH_MAX] = ""; /* the directory of an export in one pass, which holds the container */

    if (k->o->hf_layout) snprintf(outer, sizeof outer, "%.*s", (int)(strrchr(out, '/') - out), out);
    if (dir && *outer) dir = outer;
    if (done)
        moe_cancel_left(code, err,
                        "%d of %d %s are finished and kept in '%s' (go on with the same command and "
                        "--resume)",
                        done, k->n_finished + k->n_todo, k->o->hf_layout ? "parts" : "files", dir);
    else if (dir && moe_writer_has_work(k->writer))
        moe_cancel_left(code, err,
                        "no file is finished yet, what was computed for them is kept in '%s' (go on "
                        "with the same command and --resume)",
                        dir);
    else if (!dir && mode == MOE_WRITE_RESUME)
        moe_newdir_interrupted(code, out, *outer ? outer : NULL, err);
    else
        moe_cancel_left(code, err, "nothing was finished yet%s", dir ? "" : " by this run");
}

enum moe_code moe_rewrite(const struct moe_source *src, const char *out, enum moe_write_mode mode,
                          const struct moe_rewrite_options *o, struct moe_pool *pool,
                          struct moe_progress *progress, struct moe_rewrite_result *r, struct moe_err *err)
{
    struct moe_rewrite_run k = { .src = src, .o = o, .pool = pool, .progress = progress };
    struct moe_err ignored;
    bool spoiled = false; /* the source changed meanwhile: nothing that was written is kept */

    *r = (struct moe_rewrite_result){ 0 };
    MOE_TRY(moe_source_check_overlap(src, out, err));
    MOE_TRY(moe_rewrite_types(src, o, &k.type, err));
    moe_rewrite_count(src, k.type, r);
    enum moe_code code = open_writer(&k, out, mode, r, err);
    if (code == MOE_OK && !r->was_done) code = moe_rewrite_units(&k, out, r->input_bytes, err);
    if (code == MOE_OK && r->was_done && o->hf_layout) code = moe_rewrite_check_finished(&k, out, err);
    double from = moe_now();
    if (code == MOE_OK && !r->was_done) code = moe_source_unchanged(src, &k.before, o->cancel, &spoiled, err);
    if (code == MOE_OK) code = r->was_done ? report_done(src, out, r, err) : publish(&k, r, err);
    k.sync += moe_now() - from;
    if (code == MOE_OK && !r->was_done && !(r->profile = profile_json(&k)))
        code = moe_fail(err, MOE_NOMEM, "no memory for a report");
    moe_rewrite_release(&k);
    tell_kept(&k, out, mode, code, err);
    if (spoiled) moe_writer_discard(&k.writer);
    else moe_writer_close(&k.writer, moe_cancel_check(o->cancel, &ignored) != MOE_OK);
    free(k.type);
    if (code != MOE_OK) moe_rewrite_result_release(r);
    return code;
}

void moe_rewrite_result_release(struct moe_rewrite_result *r)
{
    cJSON_Delete(r->relative_error);
    cJSON_Delete(r->notes);
    cJSON_Delete(r->profile);
    r->relative_error = r->notes = r->profile = NULL;
}
