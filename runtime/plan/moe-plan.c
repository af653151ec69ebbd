/* SPDX-License-Identifier: Apache-2.0 */
/* The tool moe-plan: it reads the command line, calls the functions of runtime/plan/, and reports. */
#include "base/buffer.h"
#include "base/io.h"
#include "base/newfile.h"
#include "model/rewrite/check.h"
#include "runtime/plan/plan-check.h"
#include "runtime/plan/plan-json.h"
#include "runtime/plan/plan-options.h"
#include "runtime/plan/plan-out.h"
#include "runtime/plan/plan-report.h"
#include "runtime/plan/plan-staging.h"
#include "runtime/plan/plan-tell.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum moe_code print_text(struct moe_buffer *t, bool print, struct moe_err *err)
{
    char *text;
    MOE_TRY(moe_buffer_finish(t, &text, err));
    if (print) moe_print_bytes(text, strlen(text));
    free(text);
    return MOE_OK;
}

/* ---- plan ---- */

static enum moe_code plan(const struct moe_plan_args *o, struct moe_planning *p, const struct moe_gpu *gpu,
                          struct moe_plan_sizes *sizes, struct moe_buffer *text, cJSON *json,
                          struct moe_err *err)
{
    struct moe_assessment a;
    unsigned baselines;
    MOE_TRY(moe_plan_baselines_parse(&baselines, o->baselines.v, o->baselines.n, err));
    MOE_TRY(moe_plan_baselines_check(baselines, &p->task, err));
    MOE_TRY(moe_plan_sizes_parse(sizes, o->compare, &p->task, err));
    if (!o->dry_run) MOE_TRY(moe_planning_search(p, o->step.batch, o->run.pool, err));
    enum moe_code code = moe_assess(&a, p, &o->step, gpu, sizes, baselines, !o->run.json, err);
    if (code == MOE_OK) moe_assessment_json(json, &a);
    if (code == MOE_OK && !o->run.json) moe_assessment_text(text, &a, o->layers);
    moe_assessment_close(&a);
    if (code != MOE_OK || o->dry_run) return code;
    MOE_TRY(moe_cancel_check(o->run.cancel, err)); /* for the last time: from here on the plan is written */
    if (!o->out) return MOE_OK;
    MOE_TRY(moe_planning_write(p, o->step.batch, o->out, o->force, err));
    moe_notice(&o->run, "'%s' written: %.4f %% above the bound, planned in %.3f s", o->out,
               100 * p->proofs->gap, p->seconds);
    return MOE_OK;
}

static enum moe_code run_plan(struct moe_plan_args *o, cJSON *json, struct moe_err *err)
{
    struct moe_buffer text = { 0 };
    struct moe_plan_sizes sizes = { 0 };
    struct moe_planning p;
    struct moe_source *src;
    struct moe_gpu gpu;
    MOE_TRY(moe_plan_args_check(o, &gpu, err));
    MOE_TRY(moe_plan_open_model(&src, o->run.argv[0], err));
    moe_tell_superseded(&o->run.notes, src);
    enum moe_code code = moe_planning_open(&p, src, &o->ask, err);
    if (code == MOE_OK) moe_planning_tell(&o->run.notes, &p);
    if (code == MOE_OK) code = plan(o, &p, &gpu, &sizes, &text, json, err);
    if (code == MOE_OK) code = print_text(&text, !o->run.json, err);
    else free(text.p);
    free(sizes.v);
    moe_planning_close(&p);
    moe_source_close(&src);
    return code;
}

/* ---- verify, export, plot, stage ---- */

static enum moe_code run_verify(struct moe_plan_args *o, cJSON *json, struct moe_err *err)
{
    struct moe_plan_checked c;
    struct moe_buffer text = { 0 };
    MOE_TRY(moe_plan_args_one(o, "verify", err));
    const struct moe_plan_check what = { .plan = o->run.argv[0], .stats = o->stats.v, .n_stats = o->stats.n,
                                         .windows = moe_plan_windows(o->ask.windows), .from = o->ask.from,
                                         .progress = o->run.progress, .cancel = o->run.cancel };
    cJSON *problems = moe_json_add_array(json, "problems");
    enum moe_code code = moe_plan_check_file(&c, &what, problems, err);
    const cJSON *first = problems && code == MOE_VERIFY && !o->run.json ? problems->child : NULL;
    for (const cJSON *p = first; p; p = p->next) moe_print_line("%s", p->valuestring);
    MOE_TRY(code);
    moe_json_add_bool(json, "verified", true);
    moe_plan_checked_json(json, &c);
    moe_plan_checked_text(&text, &c);
    moe_tell_verified(&o->run.notes, &c);
    return print_text(&text, !o->run.json, err);
}

/* Writes a text to -o FILE, or without -o to standard output. */
static enum moe_code put_text(const struct moe_plan_args *o, const char *text, cJSON *json,
                              struct moe_err *err)
{
    MOE_TRY(moe_plan_args_output(o, err));
    moe_json_add_str(json, "output", o->out ? o->out : "-");
    if (o->out) return moe_newfile_write(o->out, text, strlen(text), o->force, err);
    if (o->run.json)
        return moe_fail(err, MOE_USAGE, "--json needs -o FILE here: standard output can hold one of the two");
    moe_print_bytes(text, strlen(text));
    return MOE_OK;
}

static enum moe_code run_export(struct moe_plan_args *o, cJSON *json, struct moe_err *err)
{
    struct moe_plan_exported out;
    struct moe_plan_export what = { .plan = o->run.argv[0], .ranks = moe_plan_args_ranks(o),
                                    .model = o->model, .cancel = o->run.cancel };
    MOE_TRY(moe_plan_args_one(o, "export", err));
    if (!o->to || !moe_engine_find(o->to, &what.engine))
        return moe_fail(err, MOE_USAGE, "export wants --to sglang or --to tensorrt-llm");
    MOE_TRY(moe_plan_export(&out, &what, err));
    moe_tell_exported(&o->run.notes, &what, &out);
    enum moe_code code = put_text(o, out.text, json, err);
    free(out.text);
    return code;
}

static enum moe_code run_plot(struct moe_plan_args *o, cJSON *json, struct moe_err *err)
{
    char *svg;
    MOE_TRY(moe_plan_args_one(o, "plot", err));
    const struct moe_plan_picture what = { .plan = o->run.argv[0], .stats = o->stats.v, .n_stats = o->stats.n,
                                           .windows = moe_plan_windows(o->ask.windows),
                                           .progress = o->run.progress, .cancel = o->run.cancel };
    MOE_TRY(moe_plan_draw(&what, &svg, err));
    enum moe_code code = put_text(o, svg, json, err);
    free(svg);
    return code;
}

static enum moe_code stage(const struct moe_plan_args *o, struct moe_staging *s,
                           struct moe_ranks_staged *got, struct moe_err *err)
{
    MOE_TRY(moe_staging_read(s, o->run.argv[0], moe_plan_args_ranks(o), o->run.cancel, err));
    MOE_TRY(moe_rank_range_parse(o->rank, s->plan, &got->first, &got->last, err));
    MOE_TRY(moe_plan_args_stage(o, err));
    if (o->check) {
        MOE_TRY(moe_staging_open_staged(s, o->out, err));
        return moe_staging_check(s, got->first, got->last, &got->bytes, err);
    }
    MOE_TRY(moe_staging_open(s, o->model, err));
    return moe_staging_put(s, got->first, got->last, !strcmp(o->how, "link"), o->out, o->force, &got->bytes,
                           err);
}

static enum moe_code run_stage(struct moe_plan_args *o, cJSON *json, struct moe_err *err)
{
    struct moe_staging s = { 0 };
    struct moe_ranks_staged got = { .dir = o->out, .checked = o->check };
    MOE_TRY(moe_plan_args_one(o, "stage", err));
    enum moe_code code = stage(o, &s, &got, err);
    moe_staging_close(&s);
    MOE_TRY(code);
    moe_tell_staged(&o->run.notes, &got);
    moe_json_add_str(json, "output", o->out);
    moe_json_add_i64(json, "bytes", (int64_t)got.bytes);
    return MOE_OK;
}

static enum moe_code run(struct moe_plan_args *o, cJSON *json, struct moe_err *err)
{
    static const struct {
        const char *word;
        enum moe_code (*run)(struct moe_plan_args *, cJSON *, struct moe_err *);
    } all[] = {
        { "plan", run_plan }, { "verify", run_verify }, { "export", run_export },
        { "plot", run_plot }, { "stage", run_stage },
    };
    MOE_TRY(moe_plan_args_word(o, err));
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(o->run.argv[0], all[i].word)) continue;
        o->run.argv++; /* paths are left */
        o->run.argc--;
        return all[i].run(o, json, err);
    }
    return run_plan(o, json, err);
}

static int tool_main(int argc, char **argv)
{
    struct moe_plan_args *o = &moe_plan_asked;
    if (moe_tool_run_begin(&o->run, &moe_plan_tool, argc, argv)) return o->run.exit;
    o->ask.stats = o->stats.v;
    o->ask.n_stats = o->stats.n;
    o->ask.written = o->out != NULL;
    o->ask.progress = o->run.progress;
    o->ask.cancel = o->run.cancel;
    cJSON *json = cJSON_CreateObject();
    enum moe_code code = json ? run(o, json, &o->run.err) : moe_fail(&o->run.err, MOE_NOMEM, "no memory");
    return moe_tool_run_end(&o->run, code, json);
}

int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
