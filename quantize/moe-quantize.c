/* SPDX-License-Identifier: Apache-2.0 */
/* moe-quantize - main() only: parse, call, report. */
#include "base/io.h"
#include "base/newdir.h"
#include "base/show.h"
#include "base/cli/tool.h"
#include "kernels/kernels.h"
#include "model/rewrite/check.h"
#include "model/export/hf-tell.h"
#include "model/rewrite/report.h"
#include "model/rewrite/rewrite-hf.h"
#include "quantize/calibrate/calibrate.h"
#include "quantize/calibrate/corpus.h"
#include "quantize/calibrate/report.h"
#include "quantize/calibrate/speed.h"
#include "quantize/quantize-man.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Methods that need text, from cheap to good. */
enum calibrated { NO_CALIBRATION, WEIGHTED, GPTQ, FISHER };
static const char *const calibrated_name[] = { "", "weighted", "gptq", "fisher" };

struct options {
    struct moe_run run;
    const char *out, *method, *quantize, *layers, *effort, *scratch, *activations, *upstream, *chat_template,
        *to, *flavor;
    bool hf;                          /* --to hf-nvfp4 */
    struct moe_hf_options export;
    struct moe_calibrate *calibrate;  /* NULL: none */
    struct moe_layer_range range;
    struct moe_strlist types, calib, report;
    int64_t memory, calib_tokens, sequence, seed, sensitivity, shard_size;
    bool dry_run, resume, force;
    bool writing; /* the work that an earlier run may have left was handed on to who knows it */
    enum calibrated calibrated;       /* what --method and --calib come to */
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

static enum moe_code choose_word(const char *option, const char *word, const char *const *words, int *which,
                                 struct moe_err *err)
{
    char all[64] = "";
    for (*which = 0; words[*which]; ++*which) {
        if (!strcmp(word, words[*which])) return MOE_OK;
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", *which ? " or " : "", words[*which]);
    }
    return moe_fail(err, MOE_USAGE, "--%s wants %s, not '%s'", option, all, word);
}

/* auto: the best that the effort allows when there is text, else search. */
static enum moe_code choose_method(struct options *o, int effort, enum moe_nvfp4_method *method,
                                   struct moe_err *err)
{
    int data_free = moe_method_find(o->method);
    *method = MOE_NVFP4_SEARCH;
    if (data_free >= 0) *method = (enum moe_nvfp4_method)data_free;
    for (int i = WEIGHTED; i <= FISHER; i++)
        if (!strcmp(o->method, calibrated_name[i])) o->calibrated = (enum calibrated)i;
    if (!strcmp(o->method, "auto") && o->calib.n) o->calibrated = effort ? FISHER : GPTQ;
    if (data_free < 0 && !o->calibrated && strcmp(o->method, "auto"))
        return moe_fail(err, MOE_USAGE,
                        "unknown --method '%s' (max, four-over-six, search, weighted, gptq, fisher or auto)",
                        o->method);
    if (o->calibrated && !o->calib.n)
        return moe_fail(err, MOE_USAGE, "--method %s needs text to calibrate with (--calib FILE)", o->method);
    if (!o->calibrated && o->calib.n)
        return moe_fail(err, MOE_USAGE, "--method %s takes no --calib (leave one of them out)", o->method);
    return MOE_OK;
}

static enum moe_code check_calibration(struct options *o, struct moe_err *err)
{
    if (o->calib_tokens < 1 || o->calib_tokens > INT32_MAX)
        return moe_fail(err, MOE_USAGE, "--calib-tokens wants 1 to %d", INT32_MAX);
    if (o->sequence != MOE_UNSET && o->sequence < 1)
        return moe_fail(err, MOE_USAGE, "--sequence-length wants a positive number");
    if (o->chat_template && !moe_chat_is_name(o->chat_template))
        return moe_fail(err, MOE_USAGE, "unknown chat template '%s' (%s)", o->chat_template,
                        moe_chat_names());
    if (o->sensitivity < 1) return moe_fail(err, MOE_USAGE, "--sensitivity-tokens wants a positive number");
    if (o->seed < 0) return moe_fail(err, MOE_USAGE, "--seed wants a number from 0 on");
    if (o->calibrated && o->layers && strcmp(o->upstream, "source"))
        return moe_fail(err, MOE_USAGE,
                        "--layers with calibration needs --upstream source: a layer that is fitted to the "
                        "quantized layers before it cannot be made without them");
    return MOE_OK;
}

static enum moe_code check_to(struct options *o, struct moe_err *err)
{
    o->hf = !strcmp(o->to, "hf-nvfp4");
    if (!o->hf && strcmp(o->to, "container"))
        return moe_fail(err, MOE_USAGE,
                        "unknown --to '%s' (container or hf-nvfp4; for GGUF moe-convert NAME.moe --to gguf)",
                        o->to);
    if (!o->hf && (o->flavor || o->shard_size != MOE_UNSET))
        return moe_fail(err, MOE_USAGE, "--flavor and --shard-size go with --to hf-nvfp4");
    MOE_TRY(
        moe_hf_options_of(o->flavor, o->shard_size, moe_write_mode_of(o->force, o->resume), &o->export, err));
    if (o->hf && o->layers)
        return moe_fail(err, MOE_USAGE,
                        "--layers writes a part, which no engine loads (moe-convert --merge the parts, then "
                        "moe-convert --to hf-nvfp4)");
    return MOE_OK;
}

static enum moe_code choose(struct options *o, struct moe_rewrite_options *r, struct moe_err *err)
{
    static const char *const efforts[] = { "fast", "balanced", "best", NULL }, *const upstream[] = {
        "corrected", "quantized", "source", NULL
    };
    int scope = moe_scope_find(o->quantize), effort, word;
    enum moe_nvfp4_method method;
    MOE_TRY(choose_word("effort", o->effort, efforts, &effort, err));
    if ((word = moe_activations_find(o->activations)) < 0 || word > MOE_ACTIVATIONS_NVFP4_SEARCH)
        return moe_fail(err, MOE_USAGE,
                        "unknown --activations '%s' (float, nvfp4, nvfp4-four-over-six or nvfp4-search)",
                        o->activations);
    MOE_TRY(choose_method(o, effort, &method, err));
    if (!o->upstream) o->upstream = o->calibrated == FISHER && effort ? "corrected" : "quantized";
    MOE_TRY(choose_word("upstream", o->upstream, upstream, &word, err));
    if (word == 0 && o->calibrated < GPTQ)
        return moe_fail(err, MOE_USAGE,
                        "--upstream corrected needs --method gptq or fisher: the others do not move weights");
    MOE_TRY(check_calibration(o, err));
    if (scope < 0)
        return moe_fail(err, MOE_USAGE, "unknown --quantize '%s' (experts, mlp or all-linear)", o->quantize);
    if (o->resume && o->force) return moe_fail(err, MOE_USAGE, "--resume and --force exclude each other");
    MOE_TRY(check_to(o, err));
    MOE_TRY(moe_want_model(&o->run, err));
    if (!o->out && !o->dry_run)
        return moe_fail(err, MOE_USAGE, "where to? (-o %s)", o->hf ? "DIR" : "NAME.moe");
    *r = (struct moe_rewrite_options){ .scope = (enum moe_scope)scope, .method = method, .rules = o->types.v,
                                       .n_rules = o->types.n, .memory = (uint64_t)o->memory,
                                       .calibrated = o->calibrated != NO_CALIBRATION,
                                       .cancel = o->run.cancel };
    o->export.cancel = o->run.cancel;
    return o->layers ? parse_layers(o, r, err) : MOE_OK;
}

/* How much to do for quality: passes of descent over all codes. */
static int sweeps_of(const struct options *o)
{
    if (o->calibrated < GPTQ) return 0;
    if (!strcmp(o->method, "gptq")) return !strcmp(o->effort, "best") ? 4 : 0;
    return !strcmp(o->effort, "fast") ? 0 : !strcmp(o->effort, "balanced") ? 2 : 4;
}

static struct moe_calibration calibration_of(const struct options *o, const struct moe_source *src,
                                             const struct moe_corpus *text, const uint8_t *type)
{
    int64_t most = src->config.max_position_embeddings > 0 && src->config.max_position_embeddings < 2048
                     ? src->config.max_position_embeddings
                     : 2048;
    bool plain = o->calibrated == WEIGHTED || !strcmp(o->method, "gptq");
    return (struct moe_calibration){
        .cancel = o->run.cancel,
        .tokens = text->tokens,
        .n = text->n,
        .sequence = o->sequence == MOE_UNSET ? most : o->sequence,
        .method = { .matrix = { .diagonal = o->calibrated == WEIGHTED,
                                .fit = !plain,
                                .two_sided = o->calibrated == FISHER,
                                .sweeps = sweeps_of(o),
                                .damp = 0.01,
                                .damp_rows = 0.001 },
                    .activations = (enum moe_activations)moe_activations_find(o->activations),
                    .corrects = !strcmp(o->upstream, "corrected") },
        .fisher = o->calibrated == FISHER ? o->sensitivity : 0,
        .seed = (uint64_t)o->seed,
        .upstream_source = !strcmp(o->upstream, "source"),
        .memory = (uint64_t)o->memory,
        .scratch = o->scratch,
        .type = type,
    };
}

/* A model that is NVFP4 already, or whose types leave nothing to quantize: refused before hours are spent.  A
 * part may hold nothing of what the whole model has. */
static enum moe_code check_something(const struct moe_source *src, const struct moe_rewrite_options *r,
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

/* What changes bytes, beside method and precision map. */
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

/* What of the text was not calibrated with, and why. */
static void tell_left(const struct moe_run *run, const struct moe_corpus *c, bool named)
{
    if (c->row_keys)
        moe_notice(run, "--calib: %lld key%s of rows %s left out, the first is '%s'", (long long)c->row_keys,
                   moe_plural(c->row_keys), c->row_keys == 1 ? "is" : "are", c->row_key);
    if (c->empty)
        moe_notice(run,
                   c->empty == 1
                       ? "--calib: %lld row holds no turn, or null for its text, and is left out"
                       : "--calib: %lld rows hold no turn, or null for their text, and are left out",
                   (long long)c->empty);
    moe_chat_tell_left(run, "--calib", &c->left);
    if (named && !c->conversations)
        moe_notice(run, "--chat-template: not used, since the text of --calib holds no conversation");
}

/* memory: what making tokens of it may take with all that is there. */
static enum moe_code read_text(const struct options *o, const struct moe_source *src, uint64_t memory,
                               struct moe_corpus *text, struct moe_err *err)
{
    char dir[4096];
    int n = snprintf(dir, sizeof dir, "%s%s", src->path, src->kind == MOE_CONTAINER ? "/tokenizer" : "");
    if (n >= (int)sizeof dir) return moe_fail_at(err, MOE_IO, src->path, NULL, "the path is too long");
    const struct moe_corpus_source from = { .dir = dir, .vocab_size = src->config.vocab_size,
                                            .chat = { src->config.model_type, src->config.architecture,
                                                     o->chat_template },
                                            .memory = memory, .files = o->calib.v, .n_files = o->calib.n,
                                            .cancel = o->run.cancel };
    MOE_TRY(moe_corpus_read(text, &from, o->calib_tokens, err));
    tell_left(&o->run, text, o->chat_template != NULL);
    return MOE_OK;
}

/* Readings of the source beside the one that the data-free methods do, too: the sensitivity pass
 * goes through it forward and back, the drift's correction by the source's way and once more
 * through each layer's experts. */
static int readings(const struct moe_calibration *c)
{
    return (c->fisher ? 2 : 0) + (c->method.corrects ? 2 : 0) + 1;
}

/* What a calibration adds to an estimate, and what is to be known of its memory. */
static enum moe_code plan_calibration(struct options *o, const struct moe_source *src,
                                      const struct moe_calibration *c, struct moe_calibration_plan *p,
                                      struct moe_rewrite_estimate *e, double *speed, struct moe_err *err)
{
    struct moe_speed s;
    int threads = moe_pool_threads(o->run.pool);
    moe_calibrate_plan(src, c, threads, p);
    struct moe_speed_of of = { .config = &src->config,
                               .method = &c->method,
                               .sensitivity = c->fisher > 0,
                               .sequence = c->sequence,
                               .each = moe_calibrate_each(src, c),
                               .workers = p->workers };
    MOE_TRY(moe_speed_measure(&s, &of, o->run.pool, err));
    *speed = s.product;
    e->seconds += moe_calibrate_seconds(src, c, p, &s, threads) + 1e-9 * readings(c) * (double)e->input_bytes;
    e->memory_bytes = p->memory;
    return MOE_OK;
}

static void tell_plan(const struct options *o, cJSON *json, const struct moe_calibration_plan *p,
                      int64_t tokens, double speed)
{
    char a[16], b[16], c[16], d[16];
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
    moe_human_bytes(p->partial, a);
    if (p->scratch)
        moe_notice(&o->run, "on disk beside the output while it is written: %s, and %s in --scratch", a,
                   moe_human_bytes(p->scratch, b));
    else if (p->partial) moe_notice(&o->run, "on disk beside the output while it is written: %s", a);
    moe_notice(&o->run,
               "%lld token%s, %d expert%s at once; the least --memory that will do is %s, or %s with "
               "--scratch and %s of disk there",
               (long long)tokens, moe_plural(tokens), p->workers, moe_plural(p->workers),
               moe_human_bytes(p->least[0], a), moe_human_bytes(p->least[1], b),
               moe_human_bytes(p->least_scratch, c));
    if (!p->fits)
        moe_warn(&o->run, "this does not fit: it needs %s of memory, %s is allowed (raise --memory, %s)",
                 moe_human_bytes(p->memory, c), moe_human_bytes(p->limit, d),
                 o->scratch ? "or lower --calib-tokens" : "give --scratch DIR, or lower --calib-tokens");
}

/* What has to be free where the output goes: there is more of it while it is written. */
static void tell_disk(const struct options *o, cJSON *json, uint64_t bytes)
{
    char a[16];
    moe_json_add_i64(json, "disk_bytes", (int64_t)bytes);
    moe_notice(&o->run, "the output's disk needs at most %s free while it is written",
               moe_human_bytes(bytes, a));
}

/* A file of --calib that is not there is a mistake also before the work, as it is in it. */
static enum moe_code look_for(const char *path, struct moe_err *err)
{
    if (!strcmp(path, "-") || moe_exists(path) != MOE_ABSENT) return MOE_OK;
    return moe_fail_at(err, MOE_NOT_FOUND, path, NULL, "no such file (--calib)");
}

/* The text, as a run would read it; as many tokens as asked for where the model has no tokenizer. */
static enum moe_code count_tokens(struct options *o, const struct moe_source *src, struct moe_corpus *text,
                                  struct moe_err *err)
{
    struct moe_err why = MOE_ERR_INIT;
    for (size_t i = 0; i < o->calib.n; i++) MOE_TRY(look_for(o->calib.v[i], err));
    /* --memory may be less than any run needs */
    enum moe_code code = read_text(o, src, moe_available_memory() / 2, text, &why);
    if (code != MOE_OK && code != MOE_NOT_FOUND) return *err = why, code;
    if (code == MOE_OK) return MOE_OK;
    *text = (struct moe_corpus){ .n = o->calib_tokens };
    moe_warn(&o->run, "the text was not counted, %lld tokens are assumed: %s", (long long)o->calib_tokens,
             why.msg);
    return MOE_OK;
}

/* An export has to hold so much at its end, too. */
static void hold_end(struct moe_calibration_plan *p, uint64_t at_end)
{
    if (p->memory < at_end) p->memory = at_end;
    for (int i = 0; i < 2; i++)
        if (p->least[i] < at_end) p->least[i] = at_end;
    p->fits &= at_end <= p->limit;
}

static enum moe_code dry_run(struct options *o, const struct moe_source *src,
                             const struct moe_rewrite_options *r, cJSON *json, struct moe_err *err)
{
    struct moe_rewrite_estimate e;
    struct moe_rewrite_options rewrite = *r;
    struct moe_calibration_plan p = { 0 };
    struct moe_corpus text = { 0 };
    struct moe_hf_result exported;
    double speed = 0;
    if (o->calibrated) { /* scales are found otherwise, and memory is planned otherwise */
        rewrite.method = MOE_NVFP4_MAX;
        rewrite.memory = 0;
        MOE_TRY(count_tokens(o, src, &text, err));
    }
    uint8_t *type = NULL;
    enum moe_code code = o->hf ? moe_rewrite_hf_estimate(src, &rewrite, &o->export, o->run.pool, &e,
                                                         &exported, err)
                               : moe_rewrite_estimate(src, &rewrite, o->run.pool, &e, err);
    if (code == MOE_OK && o->calibrated) code = moe_rewrite_types(src, r, &type, err);
    if (code == MOE_OK && o->calibrated) {
        struct moe_calibration c = calibration_of(o, src, &text, type);
        code = plan_calibration(o, src, &c, &p, &e, &speed, err);
        if (code == MOE_OK && o->hf) hold_end(&p, exported.memory_bytes), e.memory_bytes = p.memory;
    }
    int64_t tokens = text.n;
    free(type);
    moe_corpus_release(&text);
    MOE_TRY(code);
    moe_json_add_str(json, "method",
                     o->calibrated ? calibrated_name[o->calibrated] : moe_method_name(r->method));
    moe_report_plan(&o->run, json, e.input_bytes, e.output_bytes, e.memory_bytes, e.seconds);
    tell_disk(o, json, e.disk_bytes + p.partial);
    if (o->calibrated) tell_plan(o, json, &p, tokens, speed);
    moe_json_add_i64(json, "weights_quantized", e.weights_quantized);
    if (o->hf) moe_hf_tell(&o->run, o->export.flavor, &exported);
    if (o->hf) moe_hf_report(json, o->export.flavor, &exported);
    return MOE_OK;
}

static void print_errors(const struct moe_run *run, const cJSON *relative_error)
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

/* cold_experts, and of a calibration what each layer's note says. */
static enum moe_code add_notes(struct options *o, cJSON *json, cJSON *notes, struct moe_err *err)
{
    cJSON *cold = notes ? moe_cold_experts(notes) : cJSON_CreateArray();
    cold = moe_json_add(json, "cold_experts", cold);
    if (!cold) {
        cJSON_Delete(notes);
        return moe_fail(err, MOE_NOMEM, "no memory for a report");
    }
    if (cJSON_GetArraySize(cold))
        moe_warn(&o->run,
                 "%d expert%s saw less than a twentieth of the mean number of tokens, the first is expert "
                 "%.0f of layer %.0f (more or other --calib text reaches them)",
                 cJSON_GetArraySize(cold), moe_plural(cJSON_GetArraySize(cold)),
                 cold->child->child->next->valuedouble, cold->child->child->valuedouble);
    if (notes && !moe_json_add(json, "calibration", notes))
        return moe_fail(err, MOE_NOMEM, "no memory for a report");
    return MOE_OK;
}

static bool is_text(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && !strcmp(path + n - 4, ".txt");
}

static enum moe_code write_report(const char *path, const cJSON *json, struct moe_err *err)
{
    char *text = !moe_json_whole(json) ? NULL
               : is_text(path)         ? moe_quantize_text(json)
                                       : moe_json_print(json, 2);
    enum moe_code code = text ? moe_output_ours(path, &moe_report_kind, err)
                              : moe_fail(err, MOE_NOMEM, "no memory for a report");
    if (code == MOE_OK) code = moe_write_file(path, text, strlen(text), err);
    free(text);
    return code;
}

static enum moe_code quantize(struct options *o, const struct moe_source *src,
                              const struct moe_rewrite_options *r, cJSON *json, struct moe_err *err)
{
    struct moe_rewrite_result got;
    struct moe_hf_result exported;
    o->writing = true;
    MOE_TRY(
        o->hf ? moe_rewrite_hf(src, o->out, r, &o->export, o->run.pool, o->run.progress, &got, &exported, err)
              : moe_rewrite(src, o->out, o->export.mode, r, o->run.pool, o->run.progress, &got, err));
    if (got.unweighed) moe_warn_unweighed(&o->run, o->out);
    if (got.kept_nvfp4)
        moe_notice(&o->run,
                   got.kept_nvfp4 == 1 ? "%lld tensor is NVFP4 already and stays as it is"
                                       : "%lld tensors are NVFP4 already and stay as they are",
                   (long long)got.kept_nvfp4);
    if (o->hf && !got.was_done) moe_hf_tell(&o->run, o->export.flavor, &exported);
    if (got.unequal_pairs && !o->hf)
        moe_warn(&o->run,
                 "%lld pair%s of gate and up or of q_a and kv_a ha%s unequal global scales: engines that "
                 "fuse them use only one",
                 (long long)got.unequal_pairs, moe_plural(got.unequal_pairs),
                 got.unequal_pairs == 1 ? "s" : "ve");
    if (!got.was_done) print_errors(&o->run, got.relative_error);
    moe_json_add_str(json, "method",
                     o->calibrated ? calibrated_name[o->calibrated] : moe_method_name(r->method));
    moe_report_done(&o->run, json, got.input_bytes, got.output_bytes, got.tensors, o->out, got.was_done);
    moe_json_add_i64(json, "weights_quantized", got.weights_quantized);
    if (o->hf) moe_hf_report(json, o->export.flavor, &exported);
    if (got.relative_error) moe_json_add(json, "relative_error", got.relative_error);
    if (got.profile) moe_json_add(json, "profile", got.profile);
    if (o->calibrate && !got.was_done)
        moe_json_add_f64(json, "flops", moe_calibrate_flops(o->calibrate));
    MOE_TRY(add_notes(o, json, got.notes, err));
    for (size_t i = 0; i < o->report.n; i++) MOE_TRY(write_report(o->report.v[i], json, err));
    return MOE_OK;
}

static enum moe_code calibrate(struct options *o, struct moe_source *src, struct moe_rewrite_options *r,
                               cJSON *json, struct moe_err *err)
{
    struct moe_corpus text;
    struct moe_calibration_plan plan;
    struct moe_calibrate *c = NULL;
    MOE_TRY(read_text(o, src, o->memory ? (uint64_t)o->memory : moe_available_memory() / 2, &text, err));
    uint8_t *type = NULL;
    enum moe_code code = moe_rewrite_types(src, r, &type, err);
    if (code != MOE_OK) {
        moe_corpus_release(&text);
        return code;
    }
    struct moe_calibration cal = calibration_of(o, src, &text, type);
    struct moe_coder coder = { .method = calibrated_name[o->calibrated],
                               .kernels = moe_kernels_level(),
                               .options = calibration_json(&cal, &text) };
    moe_calibrate_plan(src, &cal, moe_pool_threads(o->run.pool), &plan);
    code = coder.options ? moe_calibrate_fits(&plan, &cal, err)
                         : moe_fail(err, MOE_NOMEM, "no memory for the options");
    if (code == MOE_OK) code = moe_calibrate_open(&c, src, &cal, &plan, o->run.pool, o->run.progress, err);
    if (code == MOE_OK) {
        moe_calibrate_coder(c, &coder);
        r->coder = &coder;
        o->calibrate = c;
        code = quantize(o, src, r, json, err);
    }
    moe_calibrate_close(&c);
    cJSON_Delete((cJSON *)(uintptr_t)coder.options);
    free(type);
    moe_corpus_release(&text);
    return code;
}

/* The container and the reports, which are written in the end. */
static enum moe_code check_outputs(const struct options *o, struct moe_err *err)
{
    for (size_t i = 0; i < o->report.n; i++) {
        struct moe_output report = { .path = o->report.v[i], .replace = true, .kind = &moe_report_kind };
        MOE_TRY(moe_output_check(&o->run, &report, err));
    }
    return moe_output_dir_check(&o->run, o->out, err);
}

/* No position behind the context was ever trained. */
static enum moe_code check_sequence(const struct options *o, const struct moe_source *src,
                                    struct moe_err *err)
{
    int64_t most = src->config.max_position_embeddings;
    if (o->sequence == MOE_UNSET || most <= 0 || o->sequence <= most) return MOE_OK;
    return moe_fail(err, MOE_USAGE, "--sequence-length %lld is more than the model's context of %lld",
                    (long long)o->sequence, (long long)most);
}

/* Interrupted under --resume before the work was looked at: it is there. */
static enum moe_code tell_begun(const struct options *o, enum moe_code code, struct moe_err *err)
{
    bool early = o->resume && !o->dry_run && !o->writing && code != MOE_OK;
    return early ? moe_newdir_interrupted(code, o->out, NULL, err) : code;
}

static enum moe_code run(struct options *o, cJSON *json, struct moe_err *err)
{
    struct moe_rewrite_options r;
    struct moe_source *src;
    MOE_TRY(choose(o, &r, err));
    if (!o->dry_run) MOE_TRY(check_outputs(o, err));
    enum moe_code code = moe_source_open(&src, o->run.argv[0], err);
    if (code != MOE_OK) return tell_begun(o, code, err);
    moe_tell_superseded(&o->run, src);
    if (o->hf) moe_warn_no_tokenizer(&o->run, src);
    code = check_sequence(o, src, err);
    if (code == MOE_OK && o->calibrated) code = check_something(src, &r, err);
    if (code == MOE_OK) code = o->dry_run ? dry_run(o, src, &r, json, err) : moe_check_vocabulary(src, err);
    if (code == MOE_OK && !o->dry_run)
        code = o->calibrated ? calibrate(o, src, &r, json, err) : quantize(o, src, &r, json, err);
    code = moe_source_blame(src, code, err);
    moe_source_close(&src);
    return tell_begun(o, code, err);
}

static int tool_main(int argc, char **argv)
{
    struct options o = { .method = "auto",
                         .quantize = "experts",
                         .effort = "best",
                         .activations = "float",
                         .calib_tokens = 1 << 20,
                         .sequence = MOE_UNSET,
                         .sensitivity = 16384,
                         .to = "container",
                         .shard_size = MOE_UNSET };
    const struct moe_opt opts[] = {
        MOE_GROUP("output"),
        MOE_STR('o', "output", &o.out, "NAME.moe|DIR",
                "write the quantized container, or the checkpoint of --to hf-nvfp4, here"),
        MOE_STR(0, "to", &o.to, "container|hf-nvfp4",
                "a container (the default), or in the same pass the checkpoint that vLLM, SGLang and "
                "TensorRT-LLM load: the bytes that moe-convert --to hf-nvfp4 makes of the container, which "
                "is not written"),
        MOE_STR(0, "flavor", &o.flavor, "modelopt|compressed-tensors",
                "whose spelling --to hf-nvfp4 writes; modelopt by default"),
        MOE_SIZE(0, "shard-size", &o.shard_size, "SIZE",
                 "cut --to hf-nvfp4 into files of at most this; 5 GB by default"),
        MOE_WRITER_OPTIONS(&o),
        MOE_LIST(0, "report", &o.report, "FILE",
                 "write the report here too: FILE.txt as text, else as JSON; may be repeated"),
        MOE_GROUP("quantization"),
        MOE_STR('m', "method", &o.method, "max|four-over-six|search|weighted|gptq|fisher|auto",
                "how scales and codes are chosen; auto is fisher with --calib, else search"),
        MOE_STR(0, "quantize", &o.quantize, "experts|mlp|all-linear",
                "what becomes NVFP4: routed experts, all MLPs, or attention projections too (not kv_b)"),
        MOE_LIST(0, "tensor-type", &o.types, "REGEX=TYPE",
                 "type of the tensors whose name matches: nvfp4, bf16, f32 or source; the last match wins"),
        MOE_STR(0, "layers", &o.layers, "A-B",
                "these layers only, as a part of the model: several machines share the work, then "
                "moe-convert --merge"),
        MOE_GROUP("calibration"),
        MOE_INPUT_LIST(0, "calib", &o.calib, "FILE",
                       "text to calibrate with: plain, or JSON rows (\"text\", \"messages\" ...), either "
                       "gzipped; - is standard input; may be repeated"),
        MOE_STR(0, "chat-template", &o.chat_template, "NAME",
                "a built-in chat template for --calib's conversations instead of the model's: k2-first, "
                "k2-instruct, k2-thinking, k2.5, k2.6, k2.7-code, deepseek-v3 or deepseek-v3-first"),
        MOE_INT(0, "calib-tokens", &o.calib_tokens, "N", "use the first N tokens of the text"),
        MOE_INT(0, "sequence-length", &o.sequence, "N",
                "tokens of a sequence; 2048 by default, or the model's context where that is less"),
        MOE_STR(0, "effort", &o.effort, "fast|balanced|best",
                "how much to compute with --calib: fast rounds each layer once (method gptq); balanced also "
                "learns which outputs matter to the model's answer and goes over all codes twice more; best "
                "four times"),
        MOE_STR(0, "activations", &o.activations, "float|nvfp4|nvfp4-four-over-six|nvfp4-search",
                "what the weights will be multiplied with where the model is served, to fit them to: float: "
                "16-bit activations (W4A16); nvfp4: activations rounded to 4 bits, as FP4 tensor cores take "
                "them (W4A4); nvfp4-four-over-six and nvfp4-search: the same with the best of two or six "
                "scales a block"),
        MOE_STR(0, "upstream", &o.upstream, "corrected|quantized|source",
                "which inputs a layer is fitted to: quantized: those that the quantized layers before it "
                "give; corrected: those, and its outputs make up for their error (the default of method "
                "fisher); source: those of the model as it was, which is what --layers needs"),
        MOE_INT(0, "sensitivity-tokens", &o.sensitivity, "N",
                "run this many of the tokens backwards through the model, too, to learn which outputs of a "
                "layer matter to its answer (method fisher)"),
        MOE_INT(0, "seed", &o.seed, "N",
                "seed of the answers that the backward pass draws from the model: another one gives other "
                "bytes, as good"),
        MOE_STR(0, "scratch", &o.scratch, "DIR", "hidden states that memory does not hold go here"),
        MOE_COMMON_OPTIONS(&o.run),
        MOE_END(),
    };
    static const struct moe_opt_rule rules[] = {
        { "chat-template", "calib", false },
        { "calib-tokens", "calib", false },
        { "sequence-length", "calib", false },
        { "sensitivity-tokens", "calib", false },
        { "effort", "calib", false },
        { "activations", "calib", false },
        { "upstream", "calib", false },
        { "seed", "calib", false },
        { NULL, NULL, false },
    };
    const struct moe_tool tool = {
        .rules = rules,
        .name = "moe-quantize",
        .synopsis = "[options] MODEL -o NAME.moe\n       moe-quantize [options] MODEL --to hf-nvfp4 -o DIR",
        .about = "quantize a checkpoint or container to NVFP4",
        .opts = opts,
        .description = moe_quantize_description,
        .examples = moe_quantize_examples,
        .json = "method, input_bytes, output_bytes, tensors, seconds, peak_rss, output, weights_quantized, "
                "relative_error (layers: one object for each with the error of each kind of tensor, sqrt(sum "
                "(w - w')^2 / sum w^2); total), profile (seconds in read, hash, decode, quantize, error, "
                "write, summed over threads, and in sync), flops (floating-point operations of a "
                "calibration, by this run), cold_experts ([layer, expert] of those that calibration hardly "
                "reached), calibration (of each layer: tokens of each expert, cold experts, the ten worst "
                "([expert, output error, tokens]), output_error, amax_x and amax_y, clipped (activations "
                "that the input scale cannot represent: layer, input, clipped, of, largest, limit), bytes, "
                "peak_rss, seconds and flops of each phase). With --to hf-nvfp4 also flavor, files, "
                "weights_nvfp4, weights_uncalibrated (without an input scale), weights_decoded (written as "
                "BF16) and weights_requantized (under the larger global scale of a pair). --report writes "
                "the same to a file.\n\n"
                "With --dry-run: method, input_bytes, output_bytes, scratch_bytes, memory_bytes, "
                "seconds_estimated, disk_bytes (what has to be free where the output goes), "
                "weights_quantized; with --calib also calib_tokens (of the text, as many as are used), fits "
                "(whether --memory allows memory_bytes), memory_allowed_bytes, memory_least_bytes (the "
                "smallest --memory that will do), memory_least_with_scratch_bytes and "
                "scratch_with_least_bytes (the same with --scratch), partial_bytes (beside the container "
                "while it is written), flops, product_flops_per_second, experts_at_once. It exits 0 when "
                "memory is short, too. With --to hf-nvfp4 also what is named above for it.",
    };
    if (moe_run_begin(&o.run, &tool, argc, argv)) return o.run.exit;
    cJSON *json = cJSON_CreateObject();
    enum moe_code code = json ? run(&o, json, &o.run.err) : moe_fail(&o.run.err, MOE_NOMEM, "no memory");
    return moe_run_end(&o.run, code, json);
}

int main(int argc, char **argv) { return moe_main(tool_main, argc, argv); }
