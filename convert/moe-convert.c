/* SPDX-License-Identifier: Apache-2.0 */
/* moe-convert - main() only: parse, call, report. */
#include "base/io.h"
#include "base/newdir.h"
#include "base/cli/output.h"
#include "base/show.h"
#include "convert/convert-man.h"
#include "convert/export.h"
#include "convert/gguf.h"
#include "model/rewrite/check.h"
#include "model/rewrite/files.h"
#include "model/rewrite/hf-tell.h"
#include "model/rewrite/rewrite.h"

#include <stdio.h>
#include <string.h>

struct options {
    struct moe_run run;
    const char *out, *to, *flavor, *outtype;
    int64_t memory, shard_size;
    bool dry_run, resume, force, merge, mix_kernels, keep_vision;
    struct moe_hf_options nvfp4; /* of --to hf-nvfp4 */
};

static bool is_left_out(const struct moe_raw *r, const char *why)
{
    return r->skipped && !strcmp(r->skipped, why) && !moe_raw_is_kept(r);
}

/* One notice for each reason why source tensors were left out. */
static void name_skipped(const struct moe_run *run, const struct moe_source *src, bool vision)
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

static enum moe_code dry_run(struct options *o, const struct moe_source *src,
                             const struct moe_rewrite_options *r, cJSON *json, struct moe_err *err)
{
    struct moe_rewrite_estimate e;
    MOE_TRY(moe_rewrite_estimate(src, r, o->run.pool, &e, err));
    moe_report_plan(&o->run, json, e.input_bytes, e.output_bytes, e.memory_bytes, e.seconds);
    moe_json_add_i64(json, "tensors", src->n_tensors);
    return MOE_OK;
}

/* A notice about files of a checkpoint that no container keeps. */
static enum moe_code name_left_out(const struct moe_run *run, const struct moe_source *src,
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

static enum moe_code to_container(struct options *o, const struct moe_source *src, cJSON *json,
                                  struct moe_err *err)
{
    struct moe_rewrite_result got;
    bool nvfp4 = !strcmp(o->to, "nvfp4");
    struct moe_rewrite_options r = { .scope = nvfp4 ? MOE_SCOPE_EXPERTS : MOE_SCOPE_NONE,
                                     .method = MOE_NVFP4_SEARCH,
                                     .rest = !nvfp4,
                                     .vision = !nvfp4 && o->keep_vision,
                                     .memory = (uint64_t)o->memory,
                                     .cancel = o->run.cancel };
    enum moe_write_mode mode = moe_write_mode_of(o->force, o->resume);
    if (o->dry_run) return dry_run(o, src, &r, json, err);
    MOE_TRY(moe_check_vocabulary(src, err));
    name_skipped(&o->run, src, r.vision);
    if (r.rest) MOE_TRY(name_left_out(&o->run, src, err));
    MOE_TRY(moe_rewrite(src, o->out, mode, &r, o->run.pool, o->run.progress, &got, err));
    if (got.unweighed) moe_warn_unweighed(&o->run, o->out);
    if (o->merge && !moe_source_origin(src, NULL).has_weights)
        moe_warn(&o->run, "parts of an older version record no digest of the weights: that they are of one "
                          "model is known by names, sizes and headers alone");
    if (got.relative_error) moe_json_add(json, "relative_error", got.relative_error);
    if (got.profile) moe_json_add(json, "profile", got.profile);
    if (got.unequal_pairs)
        moe_warn(&o->run,
                 "%lld pair%s of gate and up or of q_a and kv_a ha%s unequal global scales: engines that "
                 "fuse them use only one",
                 (long long)got.unequal_pairs, moe_plural(got.unequal_pairs),
                 got.unequal_pairs == 1 ? "s" : "ve");
    moe_report_done(&o->run, json, got.input_bytes, got.output_bytes, got.tensors, o->out, got.was_done);
    return MOE_OK;
}

static void tell_left_out(const struct moe_run *run, const struct moe_export_result *got)
{
    if (!got->skipped) return;
    moe_notice(run,
               "%lld tensor%s of the source %s not kept and do%s not return, '%s' the first: config.json and "
               "the index say what is there%s",
               (long long)got->skipped, moe_plural(got->skipped), got->skipped == 1 ? "was" : "were",
               got->skipped == 1 ? "es" : "", got->first_skipped,
               got->text_only ? ", the text model under its own names" : "");
}

static enum moe_code to_hf(struct options *o, const struct moe_source *src, cJSON *json, struct moe_err *err)
{
    struct moe_export_result got;
    struct moe_export_options x = { .mode = moe_write_mode_of(o->force, o->resume),
                                    .dry_run = o->dry_run, .vision = o->keep_vision,
                                    .cancel = o->run.cancel };
    MOE_TRY(moe_export_hf(src, o->out, &x, o->run.progress, &got, err));
    if (o->dry_run) {
        moe_report_plan(&o->run, json, got.input_bytes, got.output_bytes, got.memory_bytes,
                        (double)got.output_bytes / 1e9);
        moe_json_add_i64(json, "tensors", got.tensors);
        return MOE_OK;
    }
    tell_left_out(&o->run, &got);
    moe_report_done(&o->run, json, got.input_bytes, got.output_bytes, got.tensors, o->out, got.was_done);
    return MOE_OK;
}

/* What is NVFP4 in the model and not in the file. */
static void say_dropped(struct options *o, const struct moe_source *src, const struct moe_gguf_result *got,
                        enum moe_gguf_why why)
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

/* What would have lost its small scales, and is BF16 therefore. */
static void say_small(struct options *o, const struct moe_source *src, const struct moe_gguf_dropped *d)
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

/* How far the file's values are off, and where most. */
static void say_error(struct options *o, const struct moe_source *src, const struct moe_gguf_result *got)
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

/* What a GGUF file does not hold as the model does, and what llama.cpp does not take from it
 * (docs/reference/gguf.md: measured). */
static void say_limits(struct options *o, const struct moe_source *src, const struct moe_gguf_result *got)
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

/* What is known once every tensor was written. */
static void told_by_writing(const struct moe_source *src, const struct moe_gguf_result *got, cJSON *json)
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

static enum moe_code to_gguf(struct options *o, const struct moe_source *src, cJSON *json,
                             struct moe_err *err)
{
    struct moe_gguf_result got;
    struct moe_gguf_options x = { .mode = moe_write_mode_of(o->force, o->resume),
                                  .outtype = (enum moe_outtype)moe_outtype_find(o->outtype),
                                  .memory = (uint64_t)o->memory,
                                  .dry_run = o->dry_run,
                                  .cancel = o->run.cancel };
    MOE_TRY(moe_export_gguf(src, o->out, &x, o->run.pool, o->run.progress, &got, err));
    say_limits(o, src, &got);
    if (o->dry_run) {
        moe_report_plan(&o->run, json, got.input_bytes, got.output_bytes, got.memory_bytes,
                        (double)got.output_bytes / 1e9);
        moe_json_add_i64(json, "tensors", got.tensors);
        return MOE_OK;
    }
    moe_json_add_i64(json, "tensors_nvfp4", got.nvfp4);
    moe_json_add_i64(json, "tensors_q6_k", got.q6_k);
    if (!got.was_done) told_by_writing(src, &got, json);
    moe_report_done(&o->run, json, got.input_bytes, got.output_bytes, got.tensors, o->out, got.was_done);
    return MOE_OK;
}

static enum moe_code to_hf_nvfp4(struct options *o, const struct moe_source *src, cJSON *json,
                                 struct moe_err *err)
{
    struct moe_hf_result got;
    enum moe_hf_flavor flavor = o->nvfp4.flavor;
    MOE_TRY(moe_export_hf_nvfp4(src, o->out, &o->nvfp4, o->run.progress, &got, err));
    moe_hf_report(json, flavor, &got);
    if (o->dry_run) {
        moe_hf_tell(&o->run, flavor, &got);
        moe_report_plan(&o->run, json, got.input_bytes, got.output_bytes, got.memory_bytes,
                        (double)got.output_bytes / 1e9);
        moe_json_add_i64(json, "tensors", got.tensors);
        return MOE_OK;
    }
    if (!got.was_done && got.reencoded) moe_json_add_f64(json, "relative_error", got.relative_error);
    if (!got.was_done) moe_hf_tell(&o->run, flavor, &got);
    moe_report_done(&o->run, json, got.input_bytes, got.output_bytes, got.tensors, o->out, got.was_done);
    return MOE_OK;
}

static enum moe_code check_options(struct options *o, struct moe_err *err)
{
    static const char *const known[] = { "source", "nvfp4", "hf", "hf-nvfp4", "gguf" };
    bool ok = false, hf_nvfp4 = !strcmp(o->to, "hf-nvfp4");
    for (int i = 0; i < 5; i++) ok |= !strcmp(o->to, known[i]);
    if (!ok)
        return moe_fail(err, MOE_USAGE, "unknown --to '%s' (source, nvfp4, hf, hf-nvfp4 or gguf)", o->to);
    if (moe_outtype_find(o->outtype) < 0)
        return moe_fail(err, MOE_USAGE, "unknown --outtype '%s' (auto, q6_k, bf16 or f32)", o->outtype);
    MOE_TRY(moe_hf_options_of(o->flavor, hf_nvfp4 ? o->shard_size : MOE_UNSET,
                              moe_write_mode_of(o->force, o->resume), &o->nvfp4, err));
    o->nvfp4.dry_run = o->dry_run;
    o->nvfp4.cancel = o->run.cancel;
    if (!hf_nvfp4 && (o->flavor || o->shard_size != MOE_UNSET))
        return moe_fail(err, MOE_USAGE, "--flavor and --shard-size go with --to hf-nvfp4");
    if (o->resume && o->force) return moe_fail(err, MOE_USAGE, "--resume and --force exclude each other");
    if (!o->merge) MOE_TRY(moe_want_model(&o->run, err));
    if (!o->out && !o->dry_run) return moe_fail(err, MOE_USAGE, "where to? (-o PATH)");
    if (o->merge && strcmp(o->to, "source"))
        return moe_fail(err, MOE_USAGE,
                        "--merge writes a container (convert it in a second step, without --to)");
    if (o->mix_kernels && !o->merge) return moe_fail(err, MOE_USAGE, "--mix-kernels goes with --merge");
    if (o->merge && !o->run.argc) return moe_fail(err, MOE_USAGE, "want the parts of a model");
    return MOE_OK;
}

static enum moe_code run(struct options *o, cJSON *json, struct moe_err *err)
{
    struct moe_source *src;
    MOE_TRY(check_options(o, err));
    if (!o->dry_run) MOE_TRY(moe_output_dir_check(&o->run, o->out, err));
    enum moe_code code = o->merge ? moe_source_merge(&src, o->run.argv, o->run.argc, o->mix_kernels, err)
                                  : moe_source_open(&src, o->run.argv[0], err);
    bool keeps = o->resume && !o->dry_run && (!strcmp(o->to, "source") || !strcmp(o->to, "nvfp4"));
    if (code != MOE_OK) return keeps ? moe_newdir_interrupted(code, o->out, NULL, err) : code;
    moe_tell_superseded(&o->run, src);
    if (!strcmp(o->to, "hf") || !strcmp(o->to, "hf-nvfp4")) moe_warn_no_tokenizer(&o->run, src);
    code = !strcmp(o->to, "hf")       ? to_hf(o, src, json, err)
         : !strcmp(o->to, "hf-nvfp4") ? to_hf_nvfp4(o, src, json, err)
         : !strcmp(o->to, "gguf")     ? to_gguf(o, src, json, err)
                                      : to_container(o, src, json, err);
    code = moe_source_blame(src, code, err);
    moe_source_close(&src);
    return code;
}

static int tool_main(int argc, char **argv)
{
    struct options o = { .to = "source", .keep_vision = true, .outtype = "auto", .shard_size = MOE_UNSET };
    const struct moe_opt opts[] = {
        MOE_GROUP("output"),
        MOE_STR('o', "output", &o.out, "PATH",
                "write the container NAME.moe, the checkpoint directory or FILE.gguf here"),
        MOE_STR(0, "to", &o.to, "source|nvfp4|hf|hf-nvfp4|gguf",
                "a container in source precision, one quantized without data in the same pass, the "
                "checkpoint again, one in NVFP4 for other engines, or a GGUF file"),
        MOE_STR(0, "flavor", &o.flavor, "modelopt|compressed-tensors",
                "whose spelling --to hf-nvfp4 writes; modelopt by default"),
        MOE_SIZE(0, "shard-size", &o.shard_size, "SIZE",
                 "cut --to hf-nvfp4 into files of at most this; 5 GB by default"),
        MOE_STR(0, "outtype", &o.outtype, "auto|q6_k|bf16|f32",
                "with --to gguf: decode packed weights to this; auto keeps NVFP4 where llama.cpp takes it, "
                "and INT4 as Q4_0; q6_k: without NVFP4"),
        MOE_BOOL(0, "keep-vision", &o.keep_vision,
                 "a container in source precision keeps the vision tensors, and --to hf brings them back "
                 "(the default); --no-keep-vision: the text model alone"),
        MOE_BOOL(
            0, "merge", &o.merge,
            "put the parts that moe-quantize --layers wrote together: the bytes of one run over all layers"),
        MOE_BOOL(0, "mix-kernels", &o.mix_kernels,
                 "with --merge: take parts that different kernels calibrated (MOE_CPU=ref and others), "
                 "though no single run gives these bytes"),
        MOE_WRITER_OPTIONS(&o),
        MOE_COMMON_OPTIONS(&o.run),
        MOE_END(),
    };
    const struct moe_tool tool = {
        .name = "moe-convert",
        .synopsis = "[options] MODEL -o PATH\n       moe-convert --merge PART.moe... -o NAME.moe",
        .about = "convert a checkpoint to an expert-sharded container, and back",
        .opts = opts,
        .description = moe_convert_description,
        .examples = moe_convert_examples,
        .json = "input_bytes, output_bytes, tensors, seconds, peak_rss, output; to a container also profile "
                "(seconds in read, hash, decode, quantize, error, write, summed over threads, and in sync); "
                "with --to nvfp4 relative_error (layers, total). With --to gguf also tensors_nvfp4 and "
                "tensors_q6_k (of the file), nvfp4_blocks_rounded (whose scale was), tensors_decoded "
                "(written as BF16, F32 or Q6_K and smaller in the model), tensors_rounded (with a value or "
                "scale that the file does not hold exactly), relative_error of those, and worst_error and "
                "worst_tensor: of the one tensor or expert that is held worst.\n\n"
                "With --dry-run: input_bytes, output_bytes, scratch_bytes, memory_bytes, seconds_estimated, "
                "tensors.",
    };
    if (moe_run_begin(&o.run, &tool, argc, argv)) return o.run.exit;
    cJSON *json = cJSON_CreateObject();
    enum moe_code code = json ? run(&o, json, &o.run.err) : moe_fail(&o.run.err, MOE_NOMEM, "no memory");
    return moe_run_end(&o.run, code, json);
}

int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
