/* SPDX-License-Identifier: Apache-2.0 */
/* moe-inspect: parses the options, calls what they ask for, and reports. */
#include "base/io.h"
#include "convert/devices.h"
#include "convert/diff.h"
#include "convert/inspect-gguf.h"
#include "convert/inspect-options.h"
#include "convert/inspect-print.h"
#include "convert/inspect-tokens.h"
#include "convert/inspect-verify.h"
#include "convert/inspect.h"
#include "formats/gguf/gguf-read.h"
#include "model/rewrite/check.h"

#include <stdio.h>
#include <stdlib.h>

/* Adds what is wrong to the JSON, and prints it as a line on standard error. */
static void say_verdict(cJSON *json, enum moe_code verdict, const struct moe_err *why)
{
    moe_inspect_add_error(json, verdict, why);
    moe_print_bytes("", 0);
    fprintf(stderr, "moe-inspect: %s\n", why->msg);
}

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for the report");
}

static enum moe_code lists(struct moe_inspect_args *o, const struct moe_source *src, cJSON *json,
                           struct moe_err *err)
{
    cJSON *list;
    if (o->layers) {
        MOE_TRY(moe_inspect_layers(src, &list, err));
        if (!moe_json_add(json, "layer_list", list)) return no_memory(err);
        if (!o->run.json) moe_inspect_print_layers(list);
    }
    if (o->experts) {
        MOE_TRY(moe_inspect_experts(src, &list, err));
        if (!moe_json_add(json, "expert_layers", list)) return no_memory(err);
        if (!o->run.json) moe_inspect_print_experts(list);
    }
    if (o->tensors) {
        MOE_TRY(moe_inspect_tensors(src, o->tensors, &list, err));
        if (!moe_json_add(json, "tensor_list", list)) return no_memory(err);
        if (!o->run.json) moe_inspect_print_tensors(list);
    }
    return MOE_OK;
}

/* Adds "verified" to the summary; what is wrong is returned as *verdict with *why. */
static enum moe_code judge(struct moe_inspect_args *o, const struct moe_source *src, cJSON *json,
                           cJSON *problems, enum moe_code *verdict, struct moe_err *why, struct moe_err *err)
{
    if (problems->child) /* moe_source_survey found them; *why has the first */
        *verdict = o->verify ? MOE_VERIFY : why->code;
    else if (o->verify)
        MOE_TRY(moe_inspect_verify(src, o->run.pool, o->run.progress, o->run.cancel, problems, verdict, why,
                                   err));
    if (o->verify) moe_json_add_bool(json, "verified", *verdict == MOE_OK);
    else moe_json_add_null(json, "verified");
    return MOE_OK;
}

static void print_verdict(const struct moe_inspect_args *o, const struct moe_source *src,
                          const cJSON *problems, enum moe_code verdict)
{
    const cJSON *first = problems->child; /* a single problem is printed by say_verdict alone */
    for (const cJSON *p = first && first->next ? first : NULL; p; p = p->next)
        moe_print_line("problem: %s", p->valuestring);
    if (o->verify && verdict == MOE_OK)
        printf("verified: every byte %swas read, nothing is wrong\n", src->staged ? "of this part " : "");
}

static enum moe_code inspect(struct moe_inspect_args *o, cJSON **json, enum moe_code *verdict,
                             struct moe_err *err)
{
    struct moe_source *src;
    struct moe_err why = MOE_ERR_INIT;
    cJSON *problems = NULL;
    MOE_TRY(moe_source_survey(&src, o->run.argv[0], &problems, err));
    moe_tell_superseded(&o->run.notes, src);
    why = *err;
    enum moe_code code = moe_inspect_summary(src, json, err);
    if (code == MOE_OK) code = moe_inspect_model(src, *json, err);
    if (code == MOE_OK && !o->run.json) moe_inspect_print_summary(*json);
    if (code == MOE_OK) code = lists(o, src, *json, err);
    if (code == MOE_OK) code = judge(o, src, *json, problems, verdict, &why, err);
    if (code == MOE_OK && !o->run.json) print_verdict(o, src, problems, *verdict);
    if (code == MOE_OK) moe_json_add(*json, "problems", problems);
    else cJSON_Delete(problems);
    if (code == MOE_OK && *verdict != MOE_OK) say_verdict(*json, *verdict, &why);
    moe_source_close(&src);
    return code;
}

static enum moe_code no_gguf(const char *path, struct moe_err *err)
{
    bool is;
    MOE_TRY(moe_gguf_detect(path, &is, err));
    if (!is) return MOE_OK;
    return moe_fail_at(err, MOE_UNSUPPORTED, path, NULL, "is a GGUF file, which --diff does not compare "
                       "(take the checkpoint or container that it was made from)");
}

/* Compares two models; *verdict is MOE_MISMATCH when they differ. */
static enum moe_code compare(struct moe_inspect_args *o, cJSON **json, enum moe_code *verdict,
                             struct moe_err *err)
{
    struct moe_source *a, *b = NULL;
    struct moe_err why = MOE_ERR_INIT;
    MOE_TRY(no_gguf(o->diff, err));
    MOE_TRY(moe_source_open(&a, o->run.argv[0], err));
    enum moe_code code = moe_source_open(&b, o->diff, err);
    if (code == MOE_OK) moe_tell_superseded(&o->run.notes, a), moe_tell_superseded(&o->run.notes, b);
    if (code == MOE_OK)
        code = moe_inspect_diff(a, b, o->top, o->run.pool, o->run.progress, o->run.cancel, json, err);
    moe_source_close(&a);
    moe_source_close(&b);
    MOE_TRY(code);
    if (!o->run.json) moe_inspect_print_diff(o->run.argv[0], o->diff, *json, o->top);
    if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(*json, "same"))) return MOE_OK;
    *verdict = moe_fail(&why, MOE_MISMATCH, "'%s' and '%s' differ in %.0f tensors%s", o->run.argv[0], o->diff,
                        moe_json_get(*json, "tensors_different")->valuedouble,
                        moe_json_get(*json, "config")->child ? " and in their configs" : "");
    say_verdict(*json, *verdict, &why);
    return MOE_OK;
}

static enum moe_code tokenize(const struct moe_inspect_args *o, const struct moe_tokenizer *t,
                              struct moe_err *err)
{
    int32_t *ids;
    struct moe_token_counts c;
    MOE_TRY(moe_inspect_tokenize(t, o->tokenize, o->special, o->run.cancel, &ids, &c, err));
    if (o->run.json || o->run.quiet) moe_inspect_print_ids(ids, &c, o->run.json);
    else moe_inspect_print_pieces(t, ids, &c);
    free(ids);
    return MOE_OK;
}

static enum moe_code detokenize(const struct moe_inspect_args *o, const struct moe_tokenizer *t,
                                cJSON **json, struct moe_err *err)
{
    char *raw;
    size_t n;
    MOE_TRY(moe_inspect_detokenize(t, o->detokenize, json, &raw, &n, err));
    if (!o->run.json) moe_print_text(raw, n);
    free(raw);
    return MOE_OK;
}

/* --tokenize or --detokenize. */
static enum moe_code tokens(const struct moe_inspect_args *o, cJSON **json, struct moe_err *err)
{
    struct moe_tokenizer *t;
    MOE_TRY(moe_tokenizer_open(&t, o->run.argv[0], 0, err));
    moe_tokenizer_limit(t, moe_available_memory());
    enum moe_code code = o->tokenize ? tokenize(o, t, err) : detokenize(o, t, json, err);
    moe_tokenizer_close(&t);
    return code;
}

/* --devices, which needs no model. */
static enum moe_code devices(const struct moe_inspect_args *o, cJSON **json, struct moe_err *err)
{
    if (o->run.argc) return moe_fail(err, MOE_USAGE, "--devices takes no model ('%s')", o->run.argv[0]);
    MOE_TRY(moe_inspect_devices(json, err));
    if (!o->run.json) moe_inspect_print_devices(*json);
    return MOE_OK;
}

static enum moe_code work(struct moe_inspect_args *o, cJSON **json, enum moe_code *verdict,
                          struct moe_err *err)
{
    bool is_gguf;
    if (o->devices) return devices(o, json, err);
    MOE_TRY(moe_inspect_args_check(o, err)); /* before anything is printed */
    MOE_TRY(moe_gguf_detect(o->run.argv[0], &is_gguf, err));
    MOE_TRY(is_gguf ? moe_inspect_args_gguf(o, err) : moe_inspect_args_model(o, err));
    if (is_gguf) return moe_inspect_gguf(o->run.argv[0], o->tensors, !o->run.json, json, err);
    if (o->diff) return compare(o, json, verdict, err);
    return o->tokenize || o->detokenize ? tokens(o, json, err) : inspect(o, json, verdict, err);
}

static int tool_main(int argc, char **argv)
{
    struct moe_inspect_args *o = &moe_inspect_asked;
    if (moe_tool_run_begin(&o->run, &moe_inspect_tool, argc, argv)) return o->run.exit;
    cJSON *json = NULL;
    enum moe_code verdict = MOE_OK;
    enum moe_code code = work(o, &json, &verdict, &o->run.err);
    int exit_code = moe_tool_run_end(&o->run, code, json);
    return exit_code ? exit_code : (int)verdict;
}

int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
