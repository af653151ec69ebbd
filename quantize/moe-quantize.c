/* SPDX-License-Identifier: Apache-2.0 */
/* moe-quantize - main() only: parse, call, report. */
#include "model/rewrite/check.h"
#include "quantize/quantize-options.h"
#include "quantize/quantize-tell.h"

static enum moe_code dry_run(const struct moe_quantize_args *o, struct moe_quantizing *z, cJSON *json,
                             struct moe_err *err)
{
    struct moe_quantize_estimate e;
    struct moe_err why;
    bool counted;
    MOE_TRY(moe_quantizing_count_text(z, &counted, &why, err));
    if (!counted) moe_tell_uncounted(&o->run, z, &why);
    else if (z->choice.calibrated) moe_tell_text(&o->run, z);
    MOE_TRY(moe_quantizing_estimate(z, &e, o->run.pool, err));
    if (!z->choice.calibrated) MOE_TRY(moe_rewrite_fits(&e.rewrite, err));
    moe_report_estimate(&o->run, json, z, &e);
    return MOE_OK;
}

static enum moe_code quantize(const struct moe_quantize_args *o, struct moe_quantizing *z, cJSON *json,
                              struct moe_err *err)
{
    struct moe_quantize_result got;
    MOE_TRY(moe_quantizing_read_text(z, err));
    if (z->choice.calibrated) moe_tell_text(&o->run, z);
    MOE_TRY(moe_quantizing_run(z, &got, o->run.pool, o->run.progress, err));
    MOE_TRY(moe_report_quantized(&o->run, json, z, &got, err));
    for (size_t i = 0; i < o->report.n; i++) MOE_TRY(moe_write_report(o->report.v[i], json, err));
    return MOE_OK;
}

static enum moe_code work(const struct moe_quantize_args *o, struct moe_quantizing *z, cJSON *json,
                          struct moe_err *err)
{
    MOE_TRY(moe_check_model_operand(&o->run, err));
    if (!o->dry_run) MOE_TRY(moe_quantize_args_outputs(o, err));
    MOE_TRY(moe_quantizing_open(z, o->run.argv[0], err));
    moe_tell_superseded(&o->run.notes, z->src);
    if (z->choice.hf) moe_warn_no_tokenizer(&o->run.notes, z->src);
    MOE_TRY(moe_quantizing_check(z, err));
    return o->dry_run ? dry_run(o, z, json, err) : quantize(o, z, json, err);
}

static enum moe_code run(struct moe_quantize_args *o, cJSON *json, struct moe_err *err)
{
    struct moe_quantizing z;
    enum moe_code code = moe_quantizing_begin(&z, moe_quantize_args_request(o), err);
    if (code == MOE_OK) code = work(o, &z, json, err);
    moe_quantizing_close(&z);
    return code;
}

static int tool_main(int argc, char **argv)
{
    struct moe_quantize_args *o = &moe_quantize_asked;
    if (moe_tool_run_begin(&o->run, &moe_quantize_tool, argc, argv)) return o->run.exit;
    cJSON *json = cJSON_CreateObject();
    enum moe_code code = json ? run(o, json, &o->run.err) : moe_fail(&o->run.err, MOE_NOMEM, "no memory");
    return moe_tool_run_end(&o->run, code, json);
}

int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
