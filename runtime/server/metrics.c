/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/server/metrics.h"

#include <stdio.h>
#include <string.h>

static const double bounds[MOE_BUCKETS] = { 0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5,
                                            1,     2.5,   5,    10,   30,  60,   300 };

void moe_histogram_add(struct moe_histogram *h, double seconds)
{
    int i = 0;
    while (i < MOE_BUCKETS && seconds > bounds[i]) i++;
    atomic_fetch_add(&h->bucket[i], 1);
    atomic_fetch_add(&h->microseconds, (long long)(seconds * 1e6));
}

/* ---- text ---- */

/* Where numbers are printed to, and how they are called: "moe_" without labels, or "vllm:" with the model. */
struct style { struct moe_buffer *out; const char *prefix; char label[160]; };

static void head(const struct style *s, const char *name, const char *type, const char *help)
{
    moe_buffer_printf(s->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", s->prefix, name, help, s->prefix, name,
                      type);
}

/* A line; more: a label of its own, or "". */
static void line(const struct style *s, const char *name, const char *more, double v)
{
    const char *comma = *s->label && *more ? "," : "";
    moe_buffer_printf(s->out, *s->label || *more ? "%s%s{%s%s%s} %.17g\n" : "%s%s%s%s%s %.17g\n", s->prefix,
                      name, s->label, comma, more, v);
}

static void one(const struct style *s, const char *name, const char *type, const char *help, double v)
{
    head(s, name, type, help);
    line(s, name, "", v);
}

static void histogram(const struct style *s, const char *name, const char *help, struct moe_histogram *h)
{
    char full[96], more[48];
    long long n = 0;
    head(s, name, "histogram", help);
    snprintf(full, sizeof full, "%s_bucket", name);
    for (int i = 0; i <= MOE_BUCKETS; i++) {
        n += atomic_load(&h->bucket[i]);
        if (i < MOE_BUCKETS) snprintf(more, sizeof more, "le=\"%g\"", bounds[i]);
        else snprintf(more, sizeof more, "le=\"+Inf\"");
        line(s, full, more, (double)n);
    }
    snprintf(full, sizeof full, "%s_sum", name);
    line(s, full, "", (double)atomic_load(&h->microseconds) * 1e-6);
    snprintf(full, sizeof full, "%s_count", name);
    line(s, full, "", (double)n);
}

static const char *const finishes[MOE_FINISH_COUNT] = { "stop", "length", "abort", "timeout", "error" };

static void finished(const struct style *s, const char *name, const char *label, const char *help,
                     const struct moe_core_stats *t)
{
    char more[48];
    head(s, name, "counter", help);
    for (int i = 0; i < MOE_FINISH_COUNT; i++) {
        snprintf(more, sizeof more, "%s=\"%s\"", label, finishes[i]);
        line(s, name, more, (double)t->finished[i]);
    }
}

static double usage(const struct moe_core_stats *t)
{
    return t->pages ? (double)t->pages_used / (double)t->pages : 0;
}

static void print_own(const struct style *s, struct moe_metrics *m, const struct moe_core_stats *t,
                      int64_t exchanges, uint64_t bodies)
{
    char more[24];
    one(s, "requests_waiting", "gauge", "Answers that wait to be computed.", (double)t->waiting);
    one(s, "requests_running", "gauge", "Answers that have pages.", (double)t->running);
    one(s, "requests_held", "gauge", "Answers whose clients do not read.", (double)t->held);
    one(s, "requests_submitted_total", "counter", "Answers taken in.", (double)t->submitted);
    finished(s, "requests_finished_total", "reason", "Answers that have ended.", t);
    one(s, "pages", "gauge", "Pages of the cache, of 64 tokens.", (double)t->pages);
    one(s, "pages_used", "gauge", "Pages that answers have.", (double)t->pages_used);
    one(s, "pages_kept", "gauge", "Pages that no answer has, but that can be found.", (double)t->pages_kept);
    one(s, "pages_evicted_total", "counter", "Pages whose content was dropped.", (double)t->evicted);
    one(s, "preemptions_total", "counter", "Answers that lost their pages to others.",
        (double)t->preemptions);
    one(s, "prompt_tokens_computed_total", "counter", "Tokens of prompts, computed.",
        (double)t->prompt_computed);
    one(s, "prompt_tokens_found_total", "counter", "Tokens of prompts, found in the cache.",
        (double)t->prompt_found);
    one(s, "generated_tokens_total", "counter", "Tokens of answers.", (double)t->generated);
    one(s, "repeated_tokens_total", "counter", "Tokens computed again after a preemption or a hold.",
        (double)t->again);
    one(s, "steps_total", "counter", "Forward passes.", (double)t->steps);
    one(s, "plan_seconds_total", "counter", "Time of taking in and planning.", t->seconds_plan);
    one(s, "pass_seconds_total", "counter", "Time of forward passes.", t->seconds_pass);
    one(s, "sample_seconds_total", "counter", "Time of drawing tokens and making text.", t->seconds_sample);
    head(s, "http_answers_total", "counter", "Answers of HTTP by status; 0xx: the client had gone.");
    for (int i = 0; i < 6; i++) {
        snprintf(more, sizeof more, "status=\"%dxx\"", i);
        line(s, "http_answers_total", more, (double)atomic_load(&m->answers[i]));
    }
    one(s, "http_requests", "gauge", "Requests of HTTP that are not answered to their end.",
        (double)exchanges);
    one(s, "http_body_bytes", "gauge", "Bytes of bodies that are held.", (double)bodies);
    one(s, "access_log_lost_total", "counter", "Lines that could not be written to the access log.",
        (double)atomic_load(&m->unlogged));
    histogram(s, "time_to_first_token_seconds", "From a request's head to its first token.", &m->first);
    histogram(s, "request_seconds", "From a request's head to its last token.", &m->all);
}

/* What routers and dashboards for vLLM read. */
static void print_alias(const struct style *s, struct moe_metrics *m, const struct moe_core_stats *t)
{
    char more[64];
    double found = (double)t->prompt_found, all = found + (double)t->prompt_computed;
    one(s, "num_requests_running", "gauge", "moe_requests_running", (double)t->running);
    one(s, "num_requests_waiting", "gauge", "moe_requests_waiting", (double)t->waiting);
    one(s, "kv_cache_usage_perc", "gauge", "moe_pages_used / moe_pages", usage(t));
    one(s, "prefix_cache_queries_total", "counter", "Tokens of prompts.", all);
    one(s, "prefix_cache_hits_total", "counter", "moe_prompt_tokens_found_total", found);
    one(s, "num_preemptions_total", "counter", "moe_preemptions_total", (double)t->preemptions);
    one(s, "prompt_tokens_total", "counter", "Tokens of prompts.", all);
    one(s, "generation_tokens_total", "counter", "moe_generated_tokens_total", (double)t->generated);
    finished(s, "request_success_total", "finished_reason", "moe_requests_finished_total", t);
    histogram(s, "time_to_first_token_seconds", "moe_time_to_first_token_seconds", &m->first);
    histogram(s, "e2e_request_latency_seconds", "moe_request_seconds", &m->all);
    head(s, "cache_config_info", "gauge", "The cache.");
    snprintf(more, sizeof more, "block_size=\"64\",num_gpu_blocks=\"%lld\"", (long long)t->pages);
    line(s, "cache_config_info", more, 1);
}

void moe_metrics_print(struct moe_buffer *out, struct moe_metrics *m, const struct moe_core_stats *s,
                       int64_t exchanges, uint64_t bodies, const char *model)
{
    struct style own = { out, "moe_", "" }, alias = { out, "vllm:", "" };
    char name[128];
    size_t n = 0;
    for (; *model && n + 1 < sizeof name; model++)
        if (*model != '"' && *model != '\\' && *model != '\n') name[n++] = *model;
    name[n] = 0;
    snprintf(alias.label, sizeof alias.label, "model_name=\"%s\"", name);
    print_own(&own, m, s, exchanges, bodies);
    print_alias(&alias, m, s);
}
