/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/quantize.h"

#include "base/io.h"
#include "base/newdir.h"
#include "formats/container/identity.h"
#include "kernels/kernels.h"
#include "model/rewrite/check.h"
#include "quantize/calibrate/speed.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the model ---- */

/* Refuses sequences longer than the model's context, as the model was never trained on later positions. */
static enum moe_code check_sequence(const struct moe_quantizing *z, struct moe_err *err)
{
    int64_t most = z->src->config.max_position_embeddings;
    if (z->ask->sequence == MOE_QUANTIZE_UNSET || most <= 0 || z->ask->sequence <= most) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "--sequence-length %lld is more than the model's context of %lld",
                    (long long)z->ask->sequence, (long long)most);
}

/* Refuses a run that would quantize nothing, before hours are spent: all that the options name is NVFP4
 * already, or cannot be quantized.  The whole model is looked at, since a part of it (--layers) may well have
 * nothing to quantize. */
static enum moe_code check_anything_left(const struct moe_source *src, const struct moe_rewrite_options *r,
                                         struct moe_err *err)
{
    struct moe_rewrite_options whole = *r;
    int64_t kept = 0;
    uint8_t *type;
    bool any = false;
    whole.layers = NULL;
    MOE_TRY(moe_rewrite_types(src, &whole, &type, err));
    for (int64_t i = 0; i < src->n_tensors; i++) {
        kept += type[i] == MOE_NVFP4 && src->tensors[i].type == MOE_NVFP4;
        any |= type[i] == MOE_NVFP4 && src->tensors[i].type != MOE_NVFP4;
    }
    free(type);
    if (any) return MOE_OK;
    return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL,
                       "nothing is left to calibrate: %s (calibrate the model it was quantized from, or name "
                       "more with --quantize or --tensor-type)",
                       kept ? "what --quantize and --tensor-type name is NVFP4 already, which stays as it is"
                            : "--quantize and --tensor-type name no tensor that can be quantized");
}

/* If a run with --resume was interrupted before it looked at the work of an earlier run, the error says that
 * this work is still there.  Returns code. */
static enum moe_code tell_begun(const struct moe_quantizing *z, enum moe_code code, struct moe_err *err)
{
    bool early = z->ask->resume && !z->ask->estimate && !z->writing && code != MOE_OK;
    return early ? moe_newdir_interrupted(code, z->ask->out, NULL, err) : code;
}

enum moe_code moe_quantizing_begin(struct moe_quantizing *z, const struct moe_quantize_request *ask,
                                   struct moe_err *err)
{
    *z = (struct moe_quantizing){ .ask = ask };
    return moe_quantize_choose(&z->choice, ask, err);
}

enum moe_code moe_quantizing_open(struct moe_quantizing *z, const char *model, struct moe_err *err)
{
    if (!z->ask->out && !z->ask->estimate)
        return moe_fail(err, MOE_USAGE, "where to? (-o %s)", z->choice.hf ? "DIR" : "NAME.moe");
    return tell_begun(z, moe_source_open(&z->src, model, err), err);
}

/* Every step after the model is open returns through this.  If a step failed because the source has been
 * changed, the error says that instead; it also says what an earlier run has left.  Returns code. */
static enum moe_code explain_failure(const struct moe_quantizing *z, enum moe_code code, struct moe_err *err)
{
    return tell_begun(z, moe_source_blame_change(z->src, code, err), err);
}

enum moe_code moe_quantizing_check(const struct moe_quantizing *z, struct moe_err *err)
{
    enum moe_code code = check_sequence(z, err);
    if (code == MOE_OK && z->choice.calibrated) code = check_anything_left(z->src, &z->choice.rewrite, err);
    if (code == MOE_OK && !z->ask->estimate) code = moe_check_vocabulary(z->src, err);
    return explain_failure(z, code, err);
}

void moe_quantizing_close(struct moe_quantizing *z)
{
    moe_corpus_release(&z->text);
    moe_source_close(&z->src);
}

/* ---- the text ---- */

/* Reads the text of --calib into z->text.  memory: the bytes of memory that the process may have while it
 * reads. */
static enum moe_code read_text(struct moe_quantizing *z, uint64_t memory, struct moe_err *err)
{
    const struct moe_source *src = z->src;
    char dir[PATH_MAX];
    int n = snprintf(dir, sizeof dir, "%s%s", src->path, src->kind == MOE_CONTAINER ? "/tokenizer" : "");
    if (n >= (int)sizeof dir) return moe_fail_at(err, MOE_IO, src->path, NULL, "the path is too long");
    const struct moe_corpus_source from = { .dir = dir, .vocab_size = src->config.vocab_size,
                                            .chat = { src->config.model_type, src->config.architecture,
                                                     z->ask->chat_template },
                                            .memory = memory, .files = z->ask->calib,
                                            .n_files = z->ask->n_calib,
                                            .cancel = z->ask->cancel };
    return moe_corpus_read(&z->text, &from, z->ask->calib_tokens, err);
}

enum moe_code moe_quantizing_read_text(struct moe_quantizing *z, struct moe_err *err)
{
    int64_t memory = z->ask->memory;
    if (!z->choice.calibrated) return MOE_OK;
    return explain_failure(z, read_text(z, memory ? (uint64_t)memory : moe_available_memory() / 2, err), err);
}

/* MOE_NOT_FOUND for a missing file of --calib.  It is checked by itself since that is an error in an
 * estimate, too, while a missing tokenizer, for which read_text returns the same code, is not. */
static enum moe_code check_calib_file(const char *path, struct moe_err *err)
{
    if (!strcmp(path, "-") || moe_exists(path) != MOE_ABSENT) return MOE_OK;
    return moe_fail_at(err, MOE_NOT_FOUND, path, NULL, "no such file (--calib)");
}

enum moe_code moe_quantizing_count_text(struct moe_quantizing *z, bool *counted, struct moe_err *why,
                                        struct moe_err *err)
{
    *why = (struct moe_err)MOE_ERR_INIT;
    *counted = true;
    if (!z->choice.calibrated) return MOE_OK;
    for (size_t i = 0; i < z->ask->n_calib; i++) MOE_TRY(check_calib_file(z->ask->calib[i], err));
    /* --memory is not the limit here: it may be less than any run needs, which the estimate is to tell */
    enum moe_code code = read_text(z, moe_available_memory() / 2, why);
    if (code == MOE_NOT_FOUND) {
        *counted = false;
        z->text = (struct moe_corpus){ .n = z->ask->calib_tokens };
        return MOE_OK;
    }
    if (code != MOE_OK) *err = *why;
    return explain_failure(z, code, err);
}

/* ---- calibration ---- */

/* The calibration that the request asks for.  It points to type, the precision map, and into z, which both
 * must outlive it. */
static struct moe_calibration calibration_of(const struct moe_quantizing *z, const uint8_t *type)
{
    const struct moe_source *src = z->src;
    const struct moe_corpus *text = &z->text;
    int64_t most = src->config.max_position_embeddings > 0 && src->config.max_position_embeddings < 2048
                     ? src->config.max_position_embeddings
                     : 2048;
    bool fit = z->choice.calibrated != MOE_WEIGHTED && strcmp(z->ask->method, "gptq");
    return (struct moe_calibration){
        .cancel = z->ask->cancel,
        .tokens = text->tokens,
        .n = text->n,
        .sequence = z->ask->sequence == MOE_QUANTIZE_UNSET ? most : z->ask->sequence,
        .method = { .matrix = { .diagonal = z->choice.calibrated == MOE_WEIGHTED,
                                .fit = fit,
                                .two_sided = z->choice.calibrated == MOE_FISHER,
                                .sweeps = z->choice.sweeps,
                                .damp = 0.01,
                                .damp_rows = 0.001 },
                    .activations = (enum moe_activations)moe_activations_find(z->ask->activations),
                    .corrects = !strcmp(z->choice.upstream, "corrected") },
        .fisher = z->choice.calibrated == MOE_FISHER ? z->ask->sensitivity : 0,
        .seed = (uint64_t)z->ask->seed,
        .upstream_source = !strcmp(z->choice.upstream, "source"),
        .memory = (uint64_t)z->ask->memory,
        .scratch = z->ask->scratch,
        .type = type,
    };
}

/* Lists the options of a calibration that change the bytes of the output, other than method and precision
 * map.  The caller deletes the object; NULL without memory. */
static cJSON *calibration_json(const struct moe_calibration *c, const struct moe_corpus *text)
{
    char hash[20];
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)text->hash);
    cJSON *j = cJSON_CreateObject();
    bool ok = j && moe_json_add_f64(j, "tokens", (double)c->n) &&
              moe_json_add_str(j, "tokens_xxh3_64", hash) &&
              moe_json_add_f64(j, "sequence_length", (double)c->sequence) &&
              moe_json_add_f64(j, "sweeps", c->method.matrix.sweeps) &&
              moe_json_add_bool(j, "fit", c->method.matrix.fit) &&
              moe_json_add_f64(j, "damping", c->method.matrix.damp) &&
              moe_json_add_f64(j, "sensitivity_tokens",
                               (double)(c->fisher < c->n ? c->fisher : c->n)) &&
              moe_json_add_f64(j, "seed", (double)c->seed) &&
              moe_json_add_str(j, "activations", moe_activations_name(c->method.activations)) &&
              moe_json_add_str(j, "upstream",
                               c->upstream_source   ? "source"
                               : c->method.corrects ? "corrected"
                                                           : "quantized");
    if (ok) return j;
    cJSON_Delete(j);
    return NULL;
}

/* How often a calibration reads the source, beside the one time that methods without data read it, too: once
 * in its own passes; forward and backward in the sensitivity pass; and for the correction once for the
 * source's own states and once more for the unquantized experts. */
static int count_readings(const struct moe_calibration *c)
{
    return (c->fisher ? 2 : 0) + (c->method.corrects ? 2 : 0) + 1;
}

/* Adds what a calibration takes to the estimate: its plan, its seconds and its memory. */
static enum moe_code plan_calibration(const struct moe_source *src, const struct moe_calibration *c,
                                      struct moe_pool *pool, struct moe_quantize_estimate *e,
                                      struct moe_err *err)
{
    struct moe_speed s;
    int threads = moe_pool_threads(pool);
    moe_calibrate_plan(src, c, threads, &e->plan);
    struct moe_speed_of of = { .config = &src->config,
                               .method = &c->method,
                               .sensitivity = c->fisher > 0,
                               .sequence = c->sequence,
                               .tokens_per_expert = moe_calibrate_tokens_per_expert(src, c),
                               .workers = e->plan.workers };
    MOE_TRY(moe_speed_measure(&s, &of, pool, err));
    e->speed = s.product;
    e->rewrite.seconds += moe_calibrate_seconds(src, c, &e->plan, &s, threads) +
                          1e-9 * count_readings(c) * (double)e->rewrite.input_bytes;
    e->rewrite.memory_bytes = e->plan.memory;
    return MOE_OK;
}

/* ---- the estimate ---- */

/* Raises the plan's memory to what an export needs at its end, at_end bytes. */
static void include_export_memory(struct moe_calibration_plan *p, uint64_t at_end)
{
    if (p->memory < at_end) p->memory = at_end;
    for (int i = 0; i < 2; i++)
        if (p->least[i] < at_end) p->least[i] = at_end;
    p->fits &= at_end <= p->limit;
}

/* Adds what the request's calibration takes to the estimate, with the memory of an export at the end. */
static enum moe_code add_calibration(struct moe_quantizing *z, struct moe_quantize_estimate *e,
                                     struct moe_pool *pool, struct moe_err *err)
{
    uint8_t *type;
    MOE_TRY(moe_rewrite_types(z->src, &z->choice.rewrite, &type, err));
    struct moe_calibration c = calibration_of(z, type);
    enum moe_code code = plan_calibration(z->src, &c, pool, e, err);
    free(type);
    if (code == MOE_OK && z->choice.hf) {
        include_export_memory(&e->plan, e->exported.memory_bytes);
        e->rewrite.memory_bytes = e->plan.memory;
    }
    return code;
}

enum moe_code moe_quantizing_estimate(struct moe_quantizing *z, struct moe_quantize_estimate *e,
                                      struct moe_pool *pool, struct moe_err *err)
{
    struct moe_rewrite_options r = z->choice.rewrite;
    *e = (struct moe_quantize_estimate){ 0 };
    if (z->choice.calibrated) { /* the calibration finds scales and plans memory itself */
        r.method = MOE_NVFP4_MAX;
        r.memory = 0;
    }
    enum moe_code code = z->choice.hf ? moe_rewrite_hf_estimate(z->src, &r, &z->choice.export, pool,
                                                                &e->rewrite, &e->exported, err)
                                      : moe_rewrite_estimate(z->src, &r, pool, &e->rewrite, err);
    if (code == MOE_OK && z->choice.calibrated) code = add_calibration(z, e, pool, err);
    return explain_failure(z, code, err);
}

/* ---- the run ---- */

/* Writes the output: a container, or a checkpoint in one pass. */
static enum moe_code rewrite(struct moe_quantizing *z, struct moe_quantize_result *got, struct moe_pool *pool,
                             struct moe_progress *progress, struct moe_err *err)
{
    const struct moe_quantize_choice *c = &z->choice;
    const char *out = z->ask->out;
    z->writing = true;
    if (c->hf)
        return moe_rewrite_hf(z->src, out, &c->rewrite, &c->export, pool, progress, &got->rewrite,
                              &got->exported, err);
    return moe_rewrite(z->src, out, c->export.mode, &c->rewrite, pool, progress, &got->rewrite, err);
}

/* Rewrites the model with codes that a calibration chooses. */
static enum moe_code calibrate(struct moe_quantizing *z, const struct moe_calibration *cal,
                               struct moe_quantize_result *got, struct moe_pool *pool,
                               struct moe_progress *progress, struct moe_err *err)
{
    struct moe_calibration_plan plan;
    struct moe_calibrate *c = NULL;
    cJSON *options = calibration_json(cal, &z->text);
    struct moe_code_chooser chooser = { .method = moe_quantize_method(&z->choice),
                                        .kernels = moe_kernels_level(),
                                        .options = options };
    moe_calibrate_plan(z->src, cal, moe_pool_threads(pool), &plan);
    enum moe_code code = options ? moe_calibrate_fits(&plan, cal, err)
                                 : moe_fail(err, MOE_NOMEM, "no memory for the options");
    if (code == MOE_OK) code = moe_calibrate_open(&c, z->src, cal, &plan, pool, progress, err);
    if (code == MOE_OK) {
        moe_calibrate_chooser(c, &chooser);
        z->choice.rewrite.chooser = &chooser;
        code = rewrite(z, got, pool, progress, err);
        z->choice.rewrite.chooser = NULL;
    }
    if (code == MOE_OK) got->flops = moe_calibrate_flops(c);
    moe_calibrate_close(&c);
    cJSON_Delete(options);
    return code;
}

enum moe_code moe_quantizing_run(struct moe_quantizing *z, struct moe_quantize_result *got,
                                 struct moe_pool *pool, struct moe_progress *progress, struct moe_err *err)
{
    uint8_t *type;
    *got = (struct moe_quantize_result){ 0 };
    if (!z->choice.calibrated) return explain_failure(z, rewrite(z, got, pool, progress, err), err);
    enum moe_code code = moe_rewrite_types(z->src, &z->choice.rewrite, &type, err);
    if (code == MOE_OK) {
        struct moe_calibration cal = calibration_of(z, type);
        code = calibrate(z, &cal, got, pool, progress, err);
    }
    free(type);
    return explain_failure(z, code, err);
}
