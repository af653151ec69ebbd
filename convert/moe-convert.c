/* SPDX-License-Identifier: Apache-2.0 */
/* moe-convert: parses the options, calls the conversion, and reports. */
#include "base/newdir.h"
#include "base/cli/output.h"
#include "base/show.h"
#include "convert/convert-options.h"
#include "convert/convert-report.h"
#include "convert/export.h"
#include "convert/gguf.h"
#include "model/rewrite/check.h"
#include "model/export/hf-tell.h"
#include "model/rewrite/rewrite.h"

#include <string.h>

static enum moe_code dry_run(struct moe_convert_args *o, const struct moe_source *src,
                             const struct moe_rewrite_options *r, cJSON *json, struct moe_err *err)
{
    struct moe_rewrite_estimate e;
    MOE_TRY(moe_rewrite_estimate(src, r, o->run.pool, &e, err));
    MOE_TRY(moe_rewrite_fits(&e, err));
    moe_report_dry_run(&o->run, json, e.input_bytes, e.output_bytes, e.memory_bytes, e.seconds);
    moe_json_add_i64(json, "tensors", src->n_tensors);
    return MOE_OK;
}

static enum moe_code to_container(struct moe_convert_args *o, const struct moe_source *src, cJSON *json,
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
    moe_convert_name_skipped(&o->run, src, r.vision);
    if (r.rest) MOE_TRY(moe_convert_name_files(&o->run, src, err));
    MOE_TRY(moe_rewrite(src, o->out, mode, &r, o->run.pool, o->run.progress, &got, err));
    if (got.no_samples) moe_warn_no_samples(&o->run, o->out);
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

static enum moe_code to_hf(struct moe_convert_args *o, const struct moe_source *src, cJSON *json,
                           struct moe_err *err)
{
    struct moe_export_result got;
    struct moe_export_options x = { .mode = moe_write_mode_of(o->force, o->resume),
                                    .dry_run = o->dry_run, .vision = o->keep_vision,
                                    .cancel = o->run.cancel };
    MOE_TRY(moe_export_hf(src, o->out, &x, o->run.progress, &got, err));
    if (o->dry_run) {
        moe_report_dry_run(&o->run, json, got.input_bytes, got.output_bytes, got.memory_bytes,
                           (double)got.output_bytes / 1e9);
        moe_json_add_i64(json, "tensors", got.tensors);
        return MOE_OK;
    }
    moe_convert_name_missing(&o->run, &got);
    moe_report_done(&o->run, json, got.input_bytes, got.output_bytes, got.tensors, o->out, got.was_done);
    return MOE_OK;
}

static enum moe_code to_gguf(struct moe_convert_args *o, const struct moe_source *src, cJSON *json,
                             struct moe_err *err)
{
    struct moe_gguf_result got;
    struct moe_gguf_options x = { .mode = moe_write_mode_of(o->force, o->resume),
                                  .outtype = (enum moe_outtype)moe_outtype_find(o->outtype),
                                  .memory = (uint64_t)o->memory,
                                  .dry_run = o->dry_run,
                                  .cancel = o->run.cancel };
    MOE_TRY(moe_export_gguf(src, o->out, &x, o->run.pool, o->run.progress, &got, err));
    moe_convert_say_gguf(o, src, &got);
    if (o->dry_run) {
        moe_report_dry_run(&o->run, json, got.input_bytes, got.output_bytes, got.memory_bytes,
                           (double)got.output_bytes / 1e9);
        moe_json_add_i64(json, "tensors", got.tensors);
        return MOE_OK;
    }
    moe_json_add_i64(json, "tensors_nvfp4", got.nvfp4);
    moe_json_add_i64(json, "tensors_q6_k", got.q6_k);
    if (!got.was_done) moe_convert_add_gguf(src, &got, json);
    moe_report_done(&o->run, json, got.input_bytes, got.output_bytes, got.tensors, o->out, got.was_done);
    return MOE_OK;
}

static enum moe_code to_hf_nvfp4(struct moe_convert_args *o, const struct moe_source *src, cJSON *json,
                                 struct moe_err *err)
{
    struct moe_hf_result got;
    enum moe_hf_flavor flavor = o->nvfp4.flavor;
    MOE_TRY(moe_export_hf_nvfp4(src, o->out, &o->nvfp4, o->run.progress, &got, err));
    moe_hf_report(json, flavor, &got);
    if (o->dry_run) {
        moe_hf_tell(&o->run.notes, flavor, &got);
        moe_report_dry_run(&o->run, json, got.input_bytes, got.output_bytes, got.memory_bytes,
                           (double)got.output_bytes / 1e9);
        moe_json_add_i64(json, "tensors", got.tensors);
        return MOE_OK;
    }
    if (!got.was_done && got.reencoded) moe_json_add_f64(json, "relative_error", got.relative_error);
    if (!got.was_done) moe_hf_tell(&o->run.notes, flavor, &got);
    moe_report_done(&o->run, json, got.input_bytes, got.output_bytes, got.tensors, o->out, got.was_done);
    return MOE_OK;
}

static enum moe_code run(struct moe_convert_args *o, cJSON *json, struct moe_err *err)
{
    struct moe_source *src;
    MOE_TRY(moe_convert_args_check(o, err));
    if (!o->dry_run) MOE_TRY(moe_output_partial_check(&o->run, o->out, err));
    enum moe_code code = o->merge ? moe_source_merge(&src, o->run.argv, o->run.argc, o->mix_kernels, err)
                                  : moe_source_open(&src, o->run.argv[0], err);
    bool keeps = o->resume && !o->dry_run && (!strcmp(o->to, "source") || !strcmp(o->to, "nvfp4"));
    if (code != MOE_OK) return keeps ? moe_newdir_interrupted(code, o->out, NULL, err) : code;
    moe_tell_superseded(&o->run.notes, src);
    if (!strcmp(o->to, "hf") || !strcmp(o->to, "hf-nvfp4")) moe_warn_no_tokenizer(&o->run.notes, src);
    code = !strcmp(o->to, "hf")       ? to_hf(o, src, json, err)
         : !strcmp(o->to, "hf-nvfp4") ? to_hf_nvfp4(o, src, json, err)
         : !strcmp(o->to, "gguf")     ? to_gguf(o, src, json, err)
                                      : to_container(o, src, json, err);
    code = moe_source_blame_change(src, code, err);
    moe_source_close(&src);
    return code;
}

static int tool_main(int argc, char **argv)
{
    struct moe_convert_args *o = &moe_convert_asked;
    if (moe_tool_run_begin(&o->run, &moe_convert_tool, argc, argv)) return o->run.exit;
    cJSON *json = cJSON_CreateObject();
    enum moe_code code = json ? run(o, json, &o->run.err) : moe_fail(&o->run.err, MOE_NOMEM, "no memory");
    return moe_tool_run_end(&o->run, code, json);
}

int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
