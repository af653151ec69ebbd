/* SPDX-License-Identifier: Apache-2.0 */
/* The notices and warnings of moe-convert. */
#include "convert/convert-report.h"

#include "base/show.h"
#include "model/rewrite/files.h"

#include <stdio.h>
#include <string.h>

/* ---- what is left out ---- */

static bool is_left_out(const struct moe_raw *r, const char *why)
{
    return r->skipped && !strcmp(r->skipped, why) && !moe_raw_is_kept(r);
}

void moe_convert_name_skipped(const struct moe_tool_run *run, const struct moe_source *src, bool vision)
{
    const char *seen[8];
    int n_seen = 0;
    for (int64_t i = 0; i < src->n_raws; i++) {
        const char *why = src->raws[i].skipped;
        int64_t n = 0;
        if (!why || moe_raw_is_kept(&src->raws[i]) || !strcmp(why, MOE_SUPERSEDED) ||
            (vision && !strcmp(why, "vision"))) continue;
        for (int s = 0; why && s < n_seen; s++)
            if (!strcmp(seen[s], why)) why = NULL;
        if (!why || n_seen == 8) continue;
        seen[n_seen++] = why;
        for (int64_t k = i; k < src->n_raws; k++) n += is_left_out(&src->raws[k], why);
        moe_notice(run, "%lld tensor%s left out (%s), '%s' the first", (long long)n, moe_plural(n), why,
                   src->raws[i].name);
    }
}

enum moe_code moe_convert_name_files(const struct moe_tool_run *run, const struct moe_source *src,
                                     struct moe_err *err)
{
    enum { FEW = sizeof ((struct moe_rest_left *)0)->named / 256 };
    struct moe_rest_left left = { 0 };
    char list[FEW * 260 + 32] = "";
    size_t at = 0;
    if (src->kind == MOE_CHECKPOINT) MOE_TRY(moe_keep_rest(src, NULL, &left, err));
    for (int64_t i = 0; i < left.n && i < FEW; i++)
        at += (size_t)snprintf(list + at, sizeof list - at, "%s'%s'", i ? ", " : "", left.named[i]);
    if (left.n > FEW) snprintf(list + at, sizeof list - at, " and %lld more", (long long)left.n - FEW);
    if (left.n)
        moe_notice(run, "%lld other files or directories of the checkpoint are left out: %s",
                   (long long)left.n, list);
    return MOE_OK;
}

void moe_convert_name_missing(const struct moe_tool_run *run, const struct moe_export_result *got)
{
    if (!got->skipped) return;
    moe_notice(run,
               "%lld tensor%s of the source %s not kept and do%s not return, '%s' the first: config.json and "
               "the index say what is there%s",
               (long long)got->skipped, moe_plural(got->skipped), got->skipped == 1 ? "was" : "were",
               got->skipped == 1 ? "es" : "", got->first_skipped,
               got->text_only ? ", the text model under its own names" : "");
}

/* ---- GGUF ---- */

/* Tells which tensors are NVFP4 in the model and not in the file, for this reason. */
static void say_dropped(const struct moe_convert_args *o, const struct moe_source *src,
                        const struct moe_gguf_result *got, enum moe_gguf_why why)
{
    bool q6_k = !strcmp(o->outtype, "q6_k");
    const char *const because[MOE_GGUF_WHYS] = {
        [MOE_GGUF_ROWS] = q6_k ? "their rows are not a multiple of 256 long"
                               : "their rows are not a multiple of 64 long",
        [MOE_GGUF_GLOBAL] = "their global scales are not powers of two, and llama.cpp multiplies by none",
        [MOE_GGUF_RANGE] = "their global scales have no place that llama.cpp reads, and their block scales "
                           "no room for them",
    };
    const struct moe_gguf_dropped *d = &got->dropped[why];
    char name[128];
    if (!d->n || !because[why]) return;
    const struct moe_tensor *t = &src->tensors[d->first];
    moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name);
    moe_notice(&o->run, "%lld tensor%s of the file %s not %s but %s, '%s' the first: %s", (long long)d->n,
               moe_plural(d->n), d->n == 1 ? "is" : "are",
               q6_k ? "Q6_K" : "NVFP4", t->cols % 256 ? "BF16" : "Q6_K", name, because[why]);
}

/* Tells which tensors are BF16 because their scales are too small for the F16 scales of Q6_K or Q4_0. */
static void say_small(const struct moe_convert_args *o, const struct moe_source *src,
                      const struct moe_gguf_dropped *d)
{
    char name[128];
    if (!d->n) return;
    const struct moe_tensor *t = &src->tensors[d->first];
    moe_notice(&o->run,
               "%lld tensor%s of the file %s BF16 and not %s: '%s', the first that is why, has scales too "
               "small for F16",
               (long long)d->n, moe_plural(d->n), d->n == 1 ? "is" : "are",
               t->type == MOE_NVFP4 ? "Q6_K" : "Q4_0",
               moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name));
}

/* Tells the error of the file's values, and which tensor has the largest. */
static void say_error(const struct moe_convert_args *o, const struct moe_source *src,
                      const struct moe_gguf_result *got)
{
    char name[128] = "", worst[192] = "";
    const struct moe_tensor *t = got->worst >= 0 ? &src->tensors[got->worst] : NULL;
    if (t) {
        moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name);
        snprintf(worst, sizeof worst, ", at most %.2g ('%s')", got->worst_error, name);
    }
    if (got->decoded)
        moe_notice(&o->run, "%lld tensor%s decoded, relative error %.2g%s%s", (long long)got->decoded,
                   got->decoded == 1 ? " is" : "s are", got->relative_error, worst,
                   got->relative_error > 0 ? " (--outtype f32 keeps every value)" : "");
    else if (got->rounded)
        moe_notice(&o->run, "%lld tensor%s a scale that GGUF holds rounded, relative error %.2g%s",
                   (long long)got->rounded, got->rounded == 1 ? " has" : "s have", got->relative_error,
                   worst);
    if (got->worst_error > MOE_GGUF_ERROR_MOST)
        moe_warn(&o->run,
                 "'%s' has a relative error of %.2g in the file: its scales are too small for the type it "
                 "has there (write --outtype bf16)",
                 name, got->worst_error);
}

void moe_convert_say_gguf(const struct moe_convert_args *o, const struct moe_source *src,
                          const struct moe_gguf_result *got)
{
    const struct moe_config *c = &src->config;
    if (got->no_tokenizer) moe_warn(&o->run, "the model has no tiktoken.model, so the file has no tokenizer");
    for (int why = 0; why < MOE_GGUF_WHYS; why++) say_dropped(o, src, got, (enum moe_gguf_why)why);
    say_small(o, src, &got->dropped[MOE_GGUF_SMALL]);
    if (got->blocks_rounded)
        moe_notice(&o->run,
                   "%lld NVFP4 blocks have their scale rounded, for at most 0.0001 of a tensor's values",
                   (long long)got->blocks_rounded);
    if (c->yarn && (c->beta_fast != 32 || c->beta_slow != 1))
        moe_notice(&o->run,
                   "llama.cpp does not take this model's YaRN betas from the file: give it --yarn-beta-fast "
                   "%g --yarn-beta-slow %g",
                   c->beta_fast, c->beta_slow);
    say_error(o, src, got);
}

void moe_convert_add_gguf(const struct moe_source *src, const struct moe_gguf_result *got, cJSON *json)
{
    char name[128];
    moe_json_add_i64(json, "nvfp4_blocks_rounded", got->blocks_rounded);
    moe_json_add_i64(json, "tensors_decoded", got->decoded);
    moe_json_add_i64(json, "tensors_rounded", got->rounded);
    moe_json_add_f64(json, "relative_error", got->relative_error);
    moe_json_add_f64(json, "worst_error", got->worst_error);
    if (got->worst < 0) return;
    const struct moe_tensor *t = &src->tensors[got->worst];
    moe_json_add_str(json, "worst_tensor",
                     moe_tensor_name((enum moe_role)t->role, t->layer, t->expert, name));
}
