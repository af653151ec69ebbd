/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/run-report.h"

#include "base/io.h"
#include "base/show.h"
#include "runtime/engine/results-json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void moe_run_print(void *ctx, const char *s, size_t n)
{
    (void)ctx;
    moe_print_text(s, n);
}

void moe_run_warn_activations(const struct moe_run_args *o, const struct moe_source *s)
{
    int64_t all = 0, uncalibrated = 0;
    for (int64_t i = 0; i < s->n_tensors; i++) {
        const struct moe_tensor *t = &s->tensors[i];
        if (t->type != MOE_NVFP4) continue;
        all++;
        uncalibrated += t->plane[MOE_PLANE_INPUT].file < 0 || t->input_scale == 1;
    }
    if (!all)
        moe_warn(&o->run, "--activations %s: no weight of the model is NVFP4, so activations stay float",
                 o->activations);
    if (uncalibrated)
        moe_warn(&o->run,
                 "--activations %s: %lld of %lld NVFP4 weights are uncalibrated (input scale 1.0): small "
                 "activations lose precision",
                 o->activations, (long long)uncalibrated, (long long)all);
}

bool moe_run_warn_context(const struct moe_run_args *o, const struct moe_config *c,
                          const struct moe_request *q, const struct moe_generated *g)
{
    int64_t context = q->n_ids + g->n;
    bool full = g->finish == MOE_FINISH_LENGTH && (q->max_tokens < 0 || g->n < q->max_tokens);
    if (!full || o->context > 0 || context >= c->max_position_embeddings) return false;
    moe_warn(&o->run,
             "an answer ended at %lld positions, since memory holds no longer context; the model's is %lld "
             "(raise --memory, or give --context to have a run that does not hold it refused)",
             (long long)context, (long long)c->max_position_embeddings);
    return true;
}

/* Adds the peaks of memory; before: a peak_anonymous that was measured earlier, or 0. */
static void add_memory(cJSON *json, uint64_t before)
{
    uint64_t now = moe_peak_anonymous();
    moe_json_add_i64(json, "peak_rss", (int64_t)moe_peak_rss());
    moe_json_add_i64(json, "peak_anonymous", (int64_t)(now > before ? now : before));
}

static double rate(double n, double seconds) { return seconds > 0 ? n / seconds : 0; }

void moe_run_report_generated(const struct moe_run_args *o, cJSON *json, const struct moe_generated *g,
                              int64_t prompt, const double seconds[3])
{
    cJSON *tokens, *s;
    char peak[16];
    moe_json_add_text(json, "text", g->text ? g->text : "", g->text ? g->text_bytes : 0);
    tokens = moe_json_add_array(json, "tokens");
    for (int64_t i = 0; tokens && i < g->n; i++)
        moe_json_append(tokens, cJSON_CreateNumber(g->tokens[i]));
    moe_json_add_i64(json, "prompt_tokens", prompt);
    if ((s = moe_json_add_object(json, "seconds"))) {
        moe_json_add_measured(s, "load", seconds[0]);
        moe_json_add_measured(s, "prefill", seconds[1]);
        moe_json_add_measured(s, "decode", seconds[2]);
    }
    double decoded = (double)(g->n > 0 ? g->n - 1 : 0);
    moe_json_add_measured(json, "prefill_tokens_per_second", rate((double)prompt, seconds[1]));
    moe_json_add_measured(json, "decode_tokens_per_second", rate(decoded, seconds[2]));
    add_memory(json, 0);
    moe_json_add_str(json, "finish_reason", g->finish == MOE_FINISH_STOP ? "stop" : "length");
    if (!o->run.json && g->n) moe_run_print(NULL, "\n", 1);
    moe_notice(
        &o->run, "%lld + %lld tokens (%s); load %.2f s, prefill %.1f tokens/s, decode %.1f tokens/s; peak %s",
        (long long)prompt, (long long)g->n, g->finish == MOE_FINISH_STOP ? "stop" : "length", seconds[0],
        rate((double)prompt, seconds[1]), rate(decoded, seconds[2]), moe_human_bytes(moe_peak_rss(), peak));
}

/* How the weights came onto the GPU, for people; rates of one thread, where several worked. */
static void tell_load(const struct moe_run_args *o, const struct moe_load_result *l, int gpu)
{
    char size[16];
    if (l->path == MOE_LOAD_ATTACHED)
        moe_notice(&o->run, "the weights were on GPU %d, and attached to in %.2f s", gpu, l->seconds);
    if (l->seconds <= 0 || l->copying <= 0 || l->reading <= 0) return;
    moe_notice(&o->run, "%s came onto GPU %d in %.2f s (%s, %.2f GB/s; a thread read %.2f GB/s, the GPU "
               "copied %.2f GB/s)", moe_human_bytes(l->bytes, size), gpu, l->seconds,
               moe_load_path_name(l->path), (double)l->bytes / l->seconds * 1e-9,
               (double)l->bytes_read / l->reading * 1e-9, (double)l->bytes_read / l->copying * 1e-9);
}

void moe_run_report_load(const struct moe_run_args *o, const struct moe_load_result *l, int gpu, cJSON *json)
{
    cJSON *to = o->run.json ? moe_json_add_object(json, "load") : NULL;
    if (!o->run.json) tell_load(o, l, gpu);
    if (!to) return;
    moe_json_add_str(to, "path", moe_load_path_name(l->path));
    moe_json_add_i64(to, "bytes", (int64_t)l->bytes);
    moe_json_add_measured(to, "seconds", l->seconds);
    moe_json_add_i64(to, "bytes_read", (int64_t)l->bytes_read);
    moe_json_add_i64(to, "pinned_bytes", (int64_t)l->pinned_bytes);
    moe_json_add_measured(to, "seconds_reading", l->reading);
    moe_json_add_measured(to, "seconds_checking", l->checking);
    moe_json_add_measured(to, "seconds_copying", l->copying);
}

void moe_run_device_json(const struct moe_run_args *o, const struct moe_engine *e, cJSON *json)
{
    cJSON *d = o->run.json ? moe_json_add_object(json, "device") : NULL;
    struct moe_load_result load = { 0 };
    if (e->cuda) load = moe_cuda_loaded(e->device);
    if (e->cuda && !d) moe_run_report_load(o, &load, moe_cuda_info(e->device)->index, json);
    if (!d) return;
    moe_json_add_str(d, "kind", e->device->ops->name);
    /* a GPU is taken only when it is asked for by name, for no kernel has been timed on one; whether one is
     * there is not looked up: the driver takes a second, and may be broken */
    if (!strcmp(o->device, "auto")) moe_json_add_str(d, "reason", "not measured");
    if (!e->cuda) return;
    const struct moe_gpu_info *info = moe_cuda_info(e->device);
    moe_json_add_i64(d, "index", info->index);
    moe_json_add_str(d, "name", info->name);
    moe_json_add_str(d, "arithmetic", o->arithmetic);
    moe_json_add_str(d, "cache_type", o->cache_type);
    const struct moe_cuda_counts counts = moe_cuda_counts(e->device);
    moe_json_add_i64(d, "launches", counts.launches);
    moe_json_add_i64(d, "graphs", counts.graphs);
    moe_json_add_i64(d, "graph_launches", counts.graph_launches);
    moe_run_report_load(o, &load, info->index, json);
}

/* Writes what a sequence is called into name[NAME]: the prompt's number (its index in JSON), its line and,
 * where there are several, the number of the choice. */
enum { NAME = 128 };
static void name_of(const struct moe_prompts *p, int64_t i, char *name)
{
    const struct moe_sequence *s = &p->v[i];
    char choice[32] = "";
    bool several = s->request.choice || (i + 1 < p->n && p->v[i + 1].request.choice);
    if (several) snprintf(choice, sizeof choice, ", choice %u", s->request.choice);
    snprintf(name, NAME, "prompt %lld (line %lld)%s", (long long)s->prompt, (long long)s->line, choice);
}

/* Prints an answer behind a heading, in the manner of head(1). */
static void print_answer(const char *name, bool first, const struct moe_generated *out)
{
    char heading[NAME + 16];
    int n = snprintf(heading, sizeof heading, "%s==> %s <==\n", first ? "" : "\n", name);
    moe_run_print(NULL, heading, (size_t)n);
    moe_run_print(NULL, out->text, out->text_bytes);
    moe_run_print(NULL, "\n", 1);
}

enum moe_code moe_run_print_record(const struct moe_prompts *p, const struct moe_results *r, int64_t first,
                                   struct moe_err *err)
{
    cJSON *o = moe_results_prompt(r, p, first);
    char *line = moe_json_print(o, 0);
    cJSON_Delete(o);
    if (!line) return moe_fail(err, MOE_NOMEM, "no memory for the answer to a prompt");
    size_t n = strlen(line);
    line[n] = '\n'; /* in the place of the NUL */
    enum moe_code code = moe_print_record(line, n + 1, err);
    free(line);
    return code;
}

/* Prints all answers, or warns of those that were lost. */
static enum moe_code print_answers(const struct moe_run_args *o, const struct moe_prompts *p,
                                   const struct moe_results *r, struct moe_err *err)
{
    for (int64_t i = 0; i < p->n; i++) {
        const struct moe_sequence *q = &p->v[i];
        char name[NAME];
        name_of(p, i, name);
        if (!r->sequence[i].there)
            moe_warn(&o->run, "%s was lost with rank %lld", name, (long long)q->rank);
        else if (r->sequence[i].out.err && !o->run.json && !o->jsonl)
            moe_warn(&o->run, "%s: %s", name, r->sequence[i].out.err->msg);
        else if (!o->run.json && !o->jsonl) print_answer(name, !q->index, &r->sequence[i].out);
        if (o->jsonl && r->ranks > 1 && !q->request.choice) MOE_TRY(moe_run_print_record(p, r, i, err));
    }
    return MOE_OK;
}

enum moe_code moe_run_first_error(const struct moe_prompts *p, const struct moe_results *r,
                                  struct moe_err *err)
{
    for (int64_t i = 0; i < p->n; i++) {
        char name[NAME];
        if (!r->sequence[i].out.err) continue;
        name_of(p, i, name);
        *err = *r->sequence[i].out.err;
        moe_wrap(err, "%s", name);
        return err->code;
    }
    return MOE_OK;
}

enum moe_code moe_run_report_prompts(const struct moe_run_args *o, const struct moe_config *c,
                                     const struct moe_prompts *p, const struct moe_results *r, cJSON *json,
                                     struct moe_err *err)
{
    int64_t read = 0, made = 0;
    bool warned = false;
    MOE_TRY(print_answers(o, p, r, err));
    for (int64_t i = 0; i < p->n; i++) {
        if (!p->v[i].request.choice) read += p->v[i].request.n_ids;
        made += r->sequence[i].out.n;
        if (r->sequence[i].there && !warned)
            warned = moe_run_warn_context(o, c, &p->v[i].request, &r->sequence[i].out);
    }
    moe_notice(&o->run, "%lld prompt%s, %lld + %lld tokens in %.2f s", (long long)p->n_prompts,
               moe_plural(p->n_prompts), (long long)read, (long long)made, moe_now() - o->run.start);
    if (o->run.json) moe_results_json(r, p, json);
    moe_json_add_measured(json, "seconds", moe_now() - o->run.start);
    add_memory(json, 0);
    const struct moe_cache_counts cache = moe_results_cache(r);
    moe_cache_json(&cache, json);
    return MOE_OK;
}

void moe_run_report_score(const struct moe_run_args *o, struct moe_score_sums *sums, int64_t window,
                          FILE *out, cJSON *json)
{
    struct moe_score s;
    double seconds = moe_now() - o->run.start;
    moe_score_total(&s, sums);
    moe_json_add_i64(json, "tokens", s.tokens);
    moe_json_add_f64(json, "nll", s.nll);
    moe_json_add_f64(json, "perplexity", s.perplexity);
    if (o->reference) {
        moe_json_add_f64(json, "kl", s.kl);
        moe_json_add_f32(json, "kl_p50", (float)s.kl_p50);
        moe_json_add_f32(json, "kl_p99", (float)s.kl_p99);
        moe_json_add_f32(json, "kl_max", (float)s.kl_max);
        moe_json_add_f64(json, "top1_agreement", s.top1_agreement);
        moe_json_add_f64(json, "perplexity_reference", s.perplexity_reference);
        moe_json_add_f64(json, "perplexity_ratio", s.perplexity_ratio);
    }
    moe_json_add_measured(json, "seconds", seconds);
    add_memory(json, s.anonymous);
    if (o->run.json) return;
    fprintf(out, "perplexity %.4f (nll %.5f nats, %lld token%s, window %lld)\n", s.perplexity, s.nll,
            (long long)s.tokens, moe_plural(s.tokens), (long long)window);
    if (o->reference)
        fprintf(out,
                "reference  %.4f\nKL(reference || model) %.5f nats: median %.5f, 99%% %.4f, largest %.3f; "
                "same first choice %.2f%%\n",
                s.perplexity_reference, s.kl, s.kl_p50, s.kl_p99, s.kl_max, 100 * s.top1_agreement);
}

void moe_run_print_bench(FILE *out, const cJSON *rows)
{
    for (const cJSON *r = rows->child; r; r = r->next) {
        const cJSON *share = moe_json_get(r, "share_of_peak");
        fprintf(out, "%-12s %-26s %9.1f us %8.2f GB/s %9.2f GFLOPS", moe_json_get(r, "op")->valuestring,
                moe_json_get(r, "shape")->valuestring, 1e6 * moe_json_get(r, "seconds")->valuedouble,
                moe_json_get(r, "gbytes_per_second")->valuedouble, moe_json_get(r, "gflops")->valuedouble);
        if (share) fprintf(out, " %5.1f %%", 100 * share->valuedouble);
        fputc('\n', out);
    }
}
