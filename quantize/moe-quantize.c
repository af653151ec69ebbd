/* moe-quantize - main() only: parse, call, report. */
#include "base/io.h"
#include "base/tool.h"
#include "model/report.h"
#include "model/rewrite.h"
#include "model/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    struct moe_run run;
    const char *out, *method, *quantize, *report, *layers;
    struct moe_layer_range range;
    struct moe_strlist types;
    int64_t memory;
    bool dry_run, resume, force;
};

/* "A-B" or "A". */
static enum moe_code parse_layers(struct options *o, struct moe_rewrite_options *r, struct moe_err *err)
{
    int end = 0, n = sscanf(o->layers, "%5d%n-%5d%n", &o->range.first, &end, &o->range.last, &end);
    if (n == 1) o->range.last = o->range.first;
    if (n < 1 || o->layers[end] || o->range.first < 0 || o->range.last < o->range.first)
        return moe_fail(err, MOE_USAGE, "--layers wants A-B, a first and a last layer, not '%s'", o->layers);
    r->layers = &o->range;
    return MOE_OK;
}

static enum moe_code choose(struct options *o, struct moe_rewrite_options *r, struct moe_err *err)
{
    int scope = moe_scope_find(o->quantize), method = moe_method_find(o->method);
    if (!strcmp(o->method, "auto")) method = MOE_NVFP4_SEARCH;
    if (!strcmp(o->method, "weighted") || !strcmp(o->method, "gptq"))
        return moe_fail(err, MOE_UNSUPPORTED, "--method %s needs calibration, which this version does not do (use --method search)", o->method);
    if (method < 0) return moe_fail(err, MOE_USAGE, "unknown --method '%s' (max, four-over-six, search or auto)", o->method);
    if (scope < 0) return moe_fail(err, MOE_USAGE, "unknown --quantize '%s' (experts, mlp or all-linear)", o->quantize);
    if (o->resume && o->force) return moe_fail(err, MOE_USAGE, "--resume and --force exclude each other");
    if (!o->out && !o->dry_run) return moe_fail(err, MOE_USAGE, "where to? (-o NAME.moe)");
    *r = (struct moe_rewrite_options){ .scope = (enum moe_scope)scope, .method = (enum moe_nvfp4_method)method,
                                       .rules = o->types.v, .n_rules = o->types.n, .memory = (uint64_t)o->memory };
    return o->layers ? parse_layers(o, r, err) : MOE_OK;
}

static enum moe_code dry_run(struct options *o, const struct moe_source *src, const struct moe_rewrite_options *r, cJSON *json,
                             struct moe_err *err)
{
    struct moe_rewrite_estimate e;
    MOE_TRY(moe_rewrite_estimate(src, r, o->run.pool, &e, err));
    cJSON_AddStringToObject(json, "method", moe_method_name(r->method));
    moe_report_plan(&o->run, json, e.input_bytes, e.output_bytes, e.memory_bytes, e.seconds);
    moe_json_add_i64(json, "weights_quantized", e.weights_quantized);
    return MOE_OK;
}

static void print_errors(const struct moe_run *run, const cJSON *relative_error)
{
    char line[512];
    for (const cJSON *l = relative_error ? moe_json_get(relative_error, "layers")->child : NULL; l; l = l->next) {
        size_t n = 0;
        for (const cJSON *c = l->child; c && n + 40 < sizeof line; c = c->next)
            n += (size_t)snprintf(line + n, sizeof line - n, !strcmp(c->string, "layer") ? "%s %.0f:" : " %s %.5f", c->string, c->valuedouble);
        moe_notice(run, "relative error, %s", line);
    }
}

static enum moe_code quantize(struct options *o, const struct moe_source *src, const struct moe_rewrite_options *r, cJSON *json,
                              struct moe_err *err)
{
    struct moe_rewrite_result got;
    enum moe_write_mode mode = o->force ? MOE_WRITE_FORCE : o->resume ? MOE_WRITE_RESUME : MOE_WRITE_PLAIN;
    MOE_TRY(moe_rewrite(src, o->out, mode, r, o->run.pool, o->run.progress, &got, err));
    if (got.kept_nvfp4) moe_notice(&o->run, "%lld tensors are NVFP4 already and stay as they are", (long long)got.kept_nvfp4);
    if (got.unequal_pairs)
        moe_warn(&o->run, "%lld gate/up pairs have unequal global scales: engines that fuse them use only one", (long long)got.unequal_pairs);
    if (!got.was_done) print_errors(&o->run, got.relative_error);
    cJSON_AddStringToObject(json, "method", moe_method_name(r->method));
    moe_report_done(&o->run, json, got.input_bytes, got.output_bytes, got.tensors, o->out, got.was_done);
    moe_json_add_i64(json, "weights_quantized", got.weights_quantized);
    if (got.relative_error) cJSON_AddItemToObject(json, "relative_error", got.relative_error);
    if (got.profile) cJSON_AddItemToObject(json, "profile", got.profile);
    cJSON_AddArrayToObject(json, "cold_experts");
    if (!o->report) return MOE_OK;
    char *text = moe_json_failed() ? NULL : moe_json_print(json, 2);
    enum moe_code code = text ? moe_write_file(o->report, text, strlen(text), err) : moe_fail(err, MOE_NOMEM, "no memory for a report");
    free(text);
    return code;
}

static enum moe_code run(struct options *o, cJSON *json, struct moe_err *err)
{
    struct moe_rewrite_options r;
    struct moe_source *src;
    MOE_TRY(choose(o, &r, err));
    MOE_TRY(moe_want_model(&o->run, err));
    MOE_TRY(moe_source_open(&src, o->run.argv[0], err));
    enum moe_code code = o->dry_run ? dry_run(o, src, &r, json, err) : moe_check_vocabulary(src, err);
    if (code == MOE_OK && !o->dry_run) code = quantize(o, src, &r, json, err);
    moe_source_close(&src);
    return code;
}

int main(int argc, char **argv)
{
    struct options o = { .method = "auto", .quantize = "experts" };
    const struct moe_opt opts[] = {
        MOE_GROUP("output"),
        MOE_STR('o', "output", &o.out, "NAME.moe", "write the quantized container here"),
        MOE_BOOL('n', "dry-run", &o.dry_run, "say size, memory and time, and stop"),
        MOE_BOOL(0, "resume", &o.resume, "go on with an unfinished NAME.moe.partial"),
        MOE_BOOL('f', "force", &o.force, "replace what is there, only when the new one is complete"),
        MOE_STR(0, "report", &o.report, "FILE", "write the report here too, as JSON"),
        MOE_GROUP("quantization"),
        MOE_STR('m', "method", &o.method, "max|four-over-six|search|auto", "how block scales are chosen; auto is search"),
        MOE_STR(0, "quantize", &o.quantize, "experts|mlp|all-linear", "what becomes NVFP4: routed experts, all MLPs, or attention projections too"),
        MOE_LIST(0, "tensor-type", &o.types, "REGEX=TYPE", "type of the tensors whose name matches: nvfp4, bf16, f32 or source; the last match wins"),
        MOE_STR(0, "layers", &o.layers, "A-B", "these layers only, as a part of the model: several machines share the work, then moe-convert --merge"),
        MOE_GROUP("resources"),
        MOE_SIZE(0, "memory", &o.memory, "SIZE", "stay below this; half of the free memory by default"),
        MOE_COMMON_OPTIONS(&o.run),
        MOE_END(),
    };
    const struct moe_tool tool = {
        .name = "moe-quantize", .synopsis = "[options] MODEL -o NAME.moe",
        .about = "quantize a checkpoint or container to NVFP4", .opts = opts,
        .json =
            "method, input_bytes, output_bytes, tensors, seconds, peak_rss, output, weights_quantized, relative_error (layers: one object for each "
            "with the error of each kind of tensor, sqrt(sum (w - w')^2 / sum w^2); total), profile (seconds in read, hash, decode, quantize, "
            "error, write, summed over threads, and in sync), cold_experts. --report writes the same to a file.\n\n"
            "With --dry-run: method, input_bytes, output_bytes, scratch_bytes, memory_bytes, seconds_estimated, weights_quantized.",
    };
    if (moe_run_begin(&o.run, &tool, argc, argv)) return o.run.exit;
    cJSON *json = cJSON_CreateObject();
    enum moe_code code = json ? run(&o, json, &o.run.err) : moe_fail(&o.run.err, MOE_NOMEM, "no memory");
    return moe_run_end(&o.run, code, json);
}
