/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/quantize-tell.h"

#include "base/file-kind.h"
#include "base/io.h"
#include "base/show.h"
#include "model/export/hf-tell.h"
#include "model/rewrite/report.h"
#include "quantize/calibrate/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the text ---- */

void moe_tell_text(const struct moe_tool_run *run, const struct moe_quantizing *z)
{
    const struct moe_corpus *c = &z->text;
    if (c->row_keys)
        moe_notice(run, "--calib: %lld key%s of rows %s left out, the first is '%s'", (long long)c->row_keys,
                   moe_plural(c->row_keys), c->row_keys == 1 ? "is" : "are", c->row_key);
    if (c->empty)
        moe_notice(run,
                   c->empty == 1
                       ? "--calib: %lld row holds no turn, or null for its text, and is left out"
                       : "--calib: %lld rows hold no turn, or null for their text, and are left out",
                   (long long)c->empty);
    moe_chat_tell_left(&run->notes, "--calib", &c->left);
    if (z->ask->chat_template && !c->conversations)
        moe_notice(run, "--chat-template: not used, since the text of --calib holds no conversation");
}

void moe_tell_uncounted(const struct moe_tool_run *run, const struct moe_quantizing *z,
                        const struct moe_err *why)
{
    moe_warn(run, "the text was not counted, %lld tokens are assumed: %s", (long long)z->text.n, why->msg);
}

/* ---- an estimate ---- */

/* Adds the plan of a calibration to the JSON object. */
static void add_plan(cJSON *json, const struct moe_calibration_plan *p, int64_t tokens, double speed)
{
    cJSON_SetNumberValue(cJSON_GetObjectItemCaseSensitive(json, "scratch_bytes"), (double)p->scratch);
    moe_json_add_bool(json, "fits", p->fits);
    moe_json_add_i64(json, "memory_allowed_bytes", (int64_t)p->limit);
    moe_json_add_i64(json, "memory_least_bytes", (int64_t)p->least[0]);
    moe_json_add_i64(json, "memory_least_with_scratch_bytes", (int64_t)p->least[1]);
    moe_json_add_i64(json, "scratch_with_least_bytes", (int64_t)p->least_scratch);
    moe_json_add_i64(json, "partial_bytes", (int64_t)p->partial);
    moe_json_add_i64(json, "calib_tokens", tokens);
    moe_json_add_f64(json, "flops", p->work);
    moe_json_add_measured(json, "product_flops_per_second", speed);
    moe_json_add_i64(json, "experts_at_once", p->workers);
}

/* Tells the plan: disk, tokens and memory, and what to do where it does not fit. */
static void tell_plan(const struct moe_tool_run *run, const struct moe_calibration_plan *p, int64_t tokens,
                      const char *scratch)
{
    char a[16], b[16], c[16], d[16];
    moe_human_bytes(p->partial, a);
    if (p->scratch)
        moe_notice(run, "on disk beside the output while it is written: %s, and %s in --scratch", a,
                   moe_human_bytes(p->scratch, b));
    else if (p->partial) moe_notice(run, "on disk beside the output while it is written: %s", a);
    moe_notice(run,
               "%lld token%s, %d expert%s at once; the least --memory that will do is %s, or %s with "
               "--scratch and %s of disk there",
               (long long)tokens, moe_plural(tokens), p->workers, moe_plural(p->workers),
               moe_human_bytes(p->least[0], a), moe_human_bytes(p->least[1], b),
               moe_human_bytes(p->least_scratch, c));
    if (!p->fits)
        moe_warn(run, "this does not fit: it needs %s of memory, %s is allowed (raise --memory, %s)",
                 moe_human_bytes(p->memory, c), moe_human_bytes(p->limit, d),
                 scratch ? "or lower --calib-tokens" : "give --scratch DIR, or lower --calib-tokens");
}

/* Says how many bytes must be free where the output goes; more lies there while it is written than at the
 * end. */
static void tell_disk(const struct moe_tool_run *run, cJSON *json, uint64_t bytes)
{
    char a[16];
    moe_json_add_i64(json, "disk_bytes", (int64_t)bytes);
    moe_notice(run, "the output's disk needs at most %s free while it is written",
               moe_human_bytes(bytes, a));
}

void moe_report_estimate(const struct moe_tool_run *run, cJSON *json, const struct moe_quantizing *z,
                         const struct moe_quantize_estimate *e)
{
    const struct moe_rewrite_estimate *r = &e->rewrite;
    moe_json_add_str(json, "method", moe_quantize_method(&z->choice));
    moe_report_dry_run(run, json, r->input_bytes, r->output_bytes, r->memory_bytes, r->seconds);
    tell_disk(run, json, r->disk_bytes + e->plan.partial);
    if (z->choice.calibrated) {
        add_plan(json, &e->plan, z->text.n, e->speed);
        tell_plan(run, &e->plan, z->text.n, z->ask->scratch);
    }
    moe_json_add_i64(json, "weights_quantized", r->weights_quantized);
    if (!z->choice.hf) return;
    moe_hf_tell(&run->notes, z->choice.export.flavor, &e->exported);
    moe_hf_report(json, z->choice.export.flavor, &e->exported);
}

/* ---- a result ---- */

/* Tells the relative errors of the weights, one line a layer. */
static void tell_errors(const struct moe_tool_run *run, const cJSON *relative_error)
{
    char line[1024];
    for (const cJSON *l = relative_error ? moe_json_get(relative_error, "layers")->child : NULL; l;
         l = l->next) {
        int layer = (int)moe_json_get(l, "layer")->valuedouble;
        char name[128];
        size_t n = layer < 0 ? 0 : (size_t)snprintf(line, sizeof line, " layer %d:", layer);
        for (const cJSON *c = l->child; c && n + 160 < sizeof line; c = c->next)
            if (strcmp(c->string, "layer"))
                n += (size_t)snprintf(line + n, sizeof line - n, " %s %.5f",
                                      moe_error_name(layer, c->string, name), c->valuedouble);
        moe_notice(run, "relative error,%s", line);
    }
}

/* Adds "cold_experts" and, after a calibration, "calibration": the notes of all layers (NULL: there was no
 * calibration), which become json's, or are deleted on failure.  Warns of cold experts. */
static enum moe_code add_notes(const struct moe_tool_run *run, cJSON *json, cJSON *notes, struct moe_err *err)
{
    cJSON *cold = notes ? moe_cold_experts(notes) : cJSON_CreateArray();
    cold = moe_json_add(json, "cold_experts", cold);
    if (!cold) {
        cJSON_Delete(notes);
        return moe_fail(err, MOE_NOMEM, "no memory for a report");
    }
    if (cJSON_GetArraySize(cold))
        moe_warn(run,
                 "%d expert%s saw less than a twentieth of the mean number of tokens, the first is expert "
                 "%.0f of layer %.0f (more or other --calib text reaches them)",
                 cJSON_GetArraySize(cold), moe_plural(cJSON_GetArraySize(cold)),
                 cold->child->child->next->valuedouble, cold->child->child->valuedouble);
    if (notes && !moe_json_add(json, "calibration", notes))
        return moe_fail(err, MOE_NOMEM, "no memory for a report");
    return MOE_OK;
}

static void tell_result(const struct moe_tool_run *run, const struct moe_quantizing *z,
                        const struct moe_quantize_result *q)
{
    const struct moe_rewrite_result *got = &q->rewrite;
    if (got->no_samples) moe_warn_no_samples(run, z->ask->out);
    if (got->kept_nvfp4)
        moe_notice(run,
                   got->kept_nvfp4 == 1 ? "%lld tensor is NVFP4 already and stays as it is"
                                        : "%lld tensors are NVFP4 already and stay as they are",
                   (long long)got->kept_nvfp4);
    if (z->choice.hf && !got->was_done) moe_hf_tell(&run->notes, z->choice.export.flavor, &q->exported);
    if (got->unequal_pairs && !z->choice.hf)
        moe_warn(run,
                 "%lld pair%s of gate and up or of q_a and kv_a ha%s unequal global scales: engines that "
                 "fuse them use only one",
                 (long long)got->unequal_pairs, moe_plural(got->unequal_pairs),
                 got->unequal_pairs == 1 ? "s" : "ve");
    if (!got->was_done) tell_errors(run, got->relative_error);
}

enum moe_code moe_report_quantized(const struct moe_tool_run *run, cJSON *json,
                                   const struct moe_quantizing *z, struct moe_quantize_result *q,
                                   struct moe_err *err)
{
    struct moe_rewrite_result *got = &q->rewrite;
    tell_result(run, z, q);
    moe_json_add_str(json, "method", moe_quantize_method(&z->choice));
    moe_report_done(run, json, got->input_bytes, got->output_bytes, got->tensors, z->ask->out, got->was_done);
    moe_json_add_i64(json, "weights_quantized", got->weights_quantized);
    if (z->choice.hf) moe_hf_report(json, z->choice.export.flavor, &q->exported);
    if (got->relative_error) moe_json_add(json, "relative_error", got->relative_error);
    if (got->profile) moe_json_add(json, "profile", got->profile);
    if (z->choice.calibrated && !got->was_done) moe_json_add_f64(json, "flops", q->flops);
    return add_notes(run, json, got->notes, err);
}

static bool ends_in_txt(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && !strcmp(path + n - 4, ".txt");
}

enum moe_code moe_write_report(const char *path, const cJSON *json, struct moe_err *err)
{
    char *text = !moe_json_whole(json) ? NULL
               : ends_in_txt(path)     ? moe_quantize_text(json)
                                       : moe_json_print(json, 2);
    enum moe_code code = text ? moe_file_kind_check(path, &moe_report_kind, err)
                              : moe_fail(err, MOE_NOMEM, "no memory for a report");
    if (code == MOE_OK) code = moe_write_file(path, text, strlen(text), err);
    free(text);
    return code;
}
