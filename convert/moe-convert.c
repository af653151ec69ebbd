/* moe-convert - main() only: parse, call, report. */
#include "base/io.h"
#include "base/tool.h"
#include "convert/export.h"
#include "convert/gguf.h"
#include "model/check.h"
#include "model/rewrite.h"

#include <stdio.h>
#include <string.h>

struct options {
    struct moe_run run;
    const char *out, *to, *flavor, *outtype;
    int64_t memory;
    bool dry_run, resume, force, merge;
};

/* One notice for each reason why source tensors were left out. */
static void name_skipped(const struct moe_run *run, const struct moe_source *src)
{
    const char *seen[8];
    int n_seen = 0;
    for (int64_t i = 0; i < src->n_raws; i++) {
        const char *why = src->raws[i].skipped;
        int64_t n = 0;
        if (!why || !strcmp(why, "weight_shape")) continue;
        for (int s = 0; why && s < n_seen; s++)
            if (!strcmp(seen[s], why)) why = NULL;
        if (!why || n_seen == 8) continue;
        seen[n_seen++] = why;
        for (int64_t k = i; k < src->n_raws; k++) n += src->raws[k].skipped && !strcmp(src->raws[k].skipped, why);
        moe_notice(run, "%lld tensors left out (%s), '%s' the first", (long long)n, why, src->raws[i].name);
    }
}

static enum moe_code dry_run(struct options *o, const struct moe_source *src, const struct moe_rewrite_options *r, cJSON *json,
                             struct moe_err *err)
{
    struct moe_rewrite_estimate e;
    MOE_TRY(moe_rewrite_estimate(src, r, o->run.pool, &e, err));
    moe_report_plan(&o->run, json, e.input_bytes, e.output_bytes, e.memory_bytes, e.seconds);
    moe_json_add_i64(json, "tensors", src->n_tensors);
    return MOE_OK;
}

static enum moe_code to_container(struct options *o, const struct moe_source *src, cJSON *json, struct moe_err *err)
{
    struct moe_rewrite_result got;
    bool nvfp4 = !strcmp(o->to, "nvfp4");
    struct moe_rewrite_options r = { .scope = nvfp4 ? MOE_SCOPE_EXPERTS : MOE_SCOPE_NONE, .method = MOE_NVFP4_SEARCH,
                                     .memory = (uint64_t)o->memory };
    enum moe_write_mode mode = o->force ? MOE_WRITE_FORCE : o->resume ? MOE_WRITE_RESUME : MOE_WRITE_PLAIN;
    if (o->dry_run) return dry_run(o, src, &r, json, err);
    MOE_TRY(moe_check_vocabulary(src, err));
    name_skipped(&o->run, src);
    MOE_TRY(moe_rewrite(src, o->out, mode, &r, o->run.pool, o->run.progress, &got, err));
    if (got.relative_error) cJSON_AddItemToObject(json, "relative_error", got.relative_error);
    if (got.profile) cJSON_AddItemToObject(json, "profile", got.profile);
    if (got.unequal_pairs)
        moe_warn(&o->run, "%lld gate/up pairs have unequal global scales: engines that fuse them use only one", (long long)got.unequal_pairs);
    moe_report_done(&o->run, json, got.input_bytes, got.output_bytes, got.tensors, o->out, got.was_done);
    return MOE_OK;
}

static enum moe_code to_hf(struct options *o, const struct moe_source *src, cJSON *json, struct moe_err *err)
{
    struct moe_export_result got;
    struct moe_export_options x = { .mode = o->force ? MOE_WRITE_FORCE : o->resume ? MOE_WRITE_RESUME : MOE_WRITE_PLAIN,
                                    .dry_run = o->dry_run };
    MOE_TRY(moe_export_hf(src, o->out, &x, o->run.progress, &got, err));
    if (o->dry_run) {
        moe_report_plan(&o->run, json, got.input_bytes, got.output_bytes, got.memory_bytes, (double)got.output_bytes / 1e9);
        moe_json_add_i64(json, "tensors", got.tensors);
        return MOE_OK;
    }
    if (got.skipped) moe_notice(&o->run, "%lld tensors of the source were not kept and do not return, '%s' the first",
                                (long long)got.skipped, got.first_skipped);
    moe_report_done(&o->run, json, got.input_bytes, got.output_bytes, got.tensors, o->out, false);
    return MOE_OK;
}

/* What a GGUF file does not hold as the model does, and what llama.cpp does not take from it (docs/gguf.md: measured). */
static void say_limits(struct options *o, const struct moe_source *src, const struct moe_gguf_result *got)
{
    const struct moe_config *c = &src->config;
    if (got->no_tokenizer) moe_warn(&o->run, "the model has no tiktoken.model, so the file has no tokenizer");
    if (got->nvfp4)
        moe_warn(&o->run, "llama.cpp loads this architecture's NVFP4 but leaves out its second scales, and computes nonsense (use --outtype bf16 there)");
    if (c->yarn && (c->beta_fast != 32 || c->beta_slow != 1))
        moe_notice(&o->run, "llama.cpp does not take this model's YaRN betas from the file: give it --yarn-beta-fast %g --yarn-beta-slow %g",
                   c->beta_fast, c->beta_slow);
    if (got->decoded) moe_notice(&o->run, "%lld tensors are decoded, relative error %.2g%s", (long long)got->decoded, got->relative_error,
                                 got->relative_error > 0 ? " (--outtype f32 keeps every value)" : "");
    else if (got->rounded) moe_notice(&o->run, "%lld tensors have a scale that GGUF holds rounded", (long long)got->rounded);
}

static enum moe_code to_gguf(struct options *o, const struct moe_source *src, cJSON *json, struct moe_err *err)
{
    struct moe_gguf_result got;
    struct moe_gguf_options x = { .mode = o->force ? MOE_WRITE_FORCE : o->resume ? MOE_WRITE_RESUME : MOE_WRITE_PLAIN,
                                  .outtype = (enum moe_outtype)moe_outtype_find(o->outtype), .memory = (uint64_t)o->memory,
                                  .dry_run = o->dry_run };
    MOE_TRY(moe_export_gguf(src, o->out, &x, o->run.pool, o->run.progress, &got, err));
    say_limits(o, src, &got);
    if (o->dry_run) {
        moe_report_plan(&o->run, json, got.input_bytes, got.output_bytes, got.memory_bytes, (double)got.output_bytes / 1e9);
        moe_json_add_i64(json, "tensors", got.tensors);
        return MOE_OK;
    }
    moe_json_add_i64(json, "tensors_decoded", got.decoded);
    moe_json_add_i64(json, "tensors_rounded", got.rounded);
    cJSON_AddNumberToObject(json, "relative_error", got.relative_error);
    moe_report_done(&o->run, json, got.input_bytes, got.output_bytes, got.tensors, o->out, false);
    return MOE_OK;
}

static enum moe_code check_options(struct options *o, struct moe_err *err)
{
    static const char *const known[] = { "source", "nvfp4", "hf", "gguf" };
    bool ok = false;
    for (int i = 0; i < 4; i++) ok |= !strcmp(o->to, known[i]);
    if (!strcmp(o->to, "hf-nvfp4")) return moe_fail(err, MOE_UNSUPPORTED, "--to %s is not in this version (source, nvfp4, hf or gguf)", o->to);
    if (!ok) return moe_fail(err, MOE_USAGE, "unknown --to '%s' (source, nvfp4, hf or gguf)", o->to);
    if (moe_outtype_find(o->outtype) < 0) return moe_fail(err, MOE_USAGE, "unknown --outtype '%s' (auto, bf16 or f32)", o->outtype);
    if (o->resume && o->force) return moe_fail(err, MOE_USAGE, "--resume and --force exclude each other");
    if (!o->out && !o->dry_run) return moe_fail(err, MOE_USAGE, "where to? (-o PATH)");
    if (o->merge && strcmp(o->to, "source")) return moe_fail(err, MOE_USAGE, "--merge writes a container (convert it in a second step, without --to)");
    if (o->merge && !o->run.argc) return moe_fail(err, MOE_USAGE, "want the parts of a model");
    if (o->merge) return MOE_OK;
    if (o->run.argc != 1) return moe_fail(err, MOE_USAGE, "want one model, got %d operands", o->run.argc);
    return MOE_OK;
}

static enum moe_code run(struct options *o, cJSON *json, struct moe_err *err)
{
    struct moe_source *src;
    MOE_TRY(check_options(o, err));
    MOE_TRY(o->merge ? moe_source_merge(&src, o->run.argv, o->run.argc, err) : moe_source_open(&src, o->run.argv[0], err));
    enum moe_code code = !strcmp(o->to, "hf") ? to_hf(o, src, json, err) :
                         !strcmp(o->to, "gguf") ? to_gguf(o, src, json, err) : to_container(o, src, json, err);
    moe_source_close(&src);
    return code;
}

int main(int argc, char **argv)
{
    struct options o = { .to = "source", .outtype = "auto" };
    const struct moe_opt opts[] = {
        MOE_GROUP("output"),
        MOE_STR('o', "output", &o.out, "PATH", "write the container NAME.moe, the checkpoint directory or FILE.gguf here"),
        MOE_STR(0, "to", &o.to, "source|nvfp4|hf|gguf", "a container in source precision, one quantized without data in the same pass, a checkpoint again, or a GGUF file"),
        MOE_STR(0, "outtype", &o.outtype, "auto|bf16|f32", "with --to gguf: decode packed weights to this; auto keeps NVFP4, and INT4 as Q4_0"),
        MOE_BOOL(0, "merge", &o.merge, "put the parts that moe-quantize --layers wrote together: the bytes of one run over all layers"),
        MOE_BOOL('n', "dry-run", &o.dry_run, "say size, memory and time, and stop"),
        MOE_BOOL(0, "resume", &o.resume, "go on with an unfinished PATH.partial"),
        MOE_BOOL('f', "force", &o.force, "replace what is there, only when the new one is complete"),
        MOE_GROUP("resources"),
        MOE_SIZE(0, "memory", &o.memory, "SIZE", "stay below this; half of the free memory by default"),
        MOE_COMMON_OPTIONS(&o.run),
        MOE_END(),
    };
    const struct moe_tool tool = {
        .name = "moe-convert", .synopsis = "[options] MODEL -o PATH\n       moe-convert --merge PART.moe... -o NAME.moe",
        .about = "convert a checkpoint to an expert-sharded container, and back", .opts = opts,
        .json =
            "input_bytes, output_bytes, tensors, seconds, peak_rss, output; to a container also profile (seconds in read, hash, decode, "
            "quantize, error, write, summed over threads, and in sync); with --to nvfp4 relative_error (layers, total). With --to gguf also "
            "tensors_decoded (written as BF16 or F32 and smaller in the model), tensors_rounded (with a value or scale that the file does not "
            "hold exactly) and relative_error of the decoded ones.\n\n"
            "With --dry-run: input_bytes, output_bytes, scratch_bytes, memory_bytes, seconds_estimated, tensors.",
    };
    if (moe_run_begin(&o.run, &tool, argc, argv)) return o.run.exit;
    cJSON *json = cJSON_CreateObject();
    enum moe_code code = json ? run(&o, json, &o.run.err) : moe_fail(&o.run.err, MOE_NOMEM, "no memory");
    return moe_run_end(&o.run, code, json);
}
