/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/run-generate.h"

#include "base/io.h"
#include "base/show.h"
#include "runtime/engine/logprobs-json.h"
#include "runtime/engine/messages.h"
#include "runtime/engine/run-answer.h"
#include "runtime/engine/run-report.h"
#include "runtime/engine/trace.h"

#include <stdlib.h>

struct moe_request moe_run_request(const struct moe_run_args *o)
{
    return (struct moe_request){
        .max_tokens = o->n,
        .sampler = { (float)o->temperature, (float)o->top_p, (float)o->min_p, o->top_k },
        .seed = (uint64_t)o->seed,
        .stop = o->stop.v,
        .n_stop = o->stop.n,
        .ignore_eos = o->ignore_eos,
        .keep_special = o->prompt.special,
        .logprobs = -1,
    };
}

/* What is asked for; with --messages it points into them. */
struct work {
    struct moe_request request;
    struct moe_chat *chat;       /* the template of --chat and --messages, else NULL */
    bool thinking;               /* the answer begins with thinking */
    int32_t *ids; size_t n_ids;  /* the prompt of other options */
    struct moe_messages messages;
};

static enum moe_code read_messages(struct work *w, const struct moe_run_args *o, const struct moe_engine *e,
                                   const struct moe_request *defaults, struct moe_err *err)
{
    struct moe_messages *m = &w->messages;
    MOE_TRY(moe_messages_read(m, o->messages, &o->prompt, defaults, e, err));
    moe_chat_tell_left(&o->run.notes, "--messages", &m->left);
    w->request = m->options.request;
    w->chat = m->chat;
    w->thinking = m->thinking;
    return MOE_OK;
}

/* Reads the prompt. */
static enum moe_code read_work(struct work *w, const struct moe_run_args *o, const struct moe_engine *e,
                               struct moe_err *err)
{
    w->request = moe_run_request(o);
    if (o->messages) {
        const struct moe_request defaults = w->request;
        return read_messages(w, o, e, &defaults, err);
    }
    const struct moe_chat_request plain = { .messages = NULL };
    if (o->prompt.chat) MOE_TRY(moe_prompt_chat(&o->prompt, e, &w->chat, err));
    if (w->chat) w->thinking = moe_chat_begins_thinking(w->chat, &plain);
    enum moe_code code = moe_prompt_ids(&o->prompt, e, w->chat, &w->ids, &w->n_ids, err);
    w->request.ids = w->ids;
    w->request.n_ids = (int64_t)w->n_ids;
    return code;
}

static void release_work(const struct moe_run_args *o, struct work *w)
{
    free(w->ids);
    if (o->messages) moe_messages_release(&w->messages);
    else if (w->chat) moe_chat_close(&w->chat);
}

/* Adds what there is of an answer besides its text. */
static void report_parts(const struct moe_run_args *o, const struct moe_engine *e, const struct work *w,
                         const struct moe_run_answer *a, const struct moe_generated *g, cJSON *json)
{
    if (w->request.logprobs >= 0 && o->run.json)
        moe_logprobs_chat_json(json, g->tokens, g->n, g->logprobs, e->tokenizer);
    if (!w->chat) return;
    if (o->run.json) moe_chat_answer_json(&a->parts, json);
    if (a->reply.parser.malformed)
        moe_warn(&o->run, "the answer's tool calls are malformed in %lld place%s (docs/reference/chat.md)",
                 (long long)a->reply.parser.malformed, moe_plural(a->reply.parser.malformed));
}

static enum moe_code run(const struct moe_run_args *o, struct moe_engine *e, struct work *w, double loaded,
                         cJSON *json, struct moe_err *err)
{
    struct moe_generate set = { w->request, o->run.json ? NULL : moe_run_print, NULL, NULL, NULL, e->cancel };
    struct moe_generated g = { 0 };
    struct moe_generate_seconds took = { 0, 0 };
    struct moe_core *core = NULL;
    struct moe_run_answer answer = { .print = false };
    double t0 = moe_now();
    if (w->chat) /* --special shows the text as it is */
        moe_run_answer_begin(&answer, w->chat, e->tokenizer, w->thinking,
                             !o->run.json && !w->request.keep_special, &set);
    enum moe_code code = o->trace ? moe_trace(e, w->request.ids, w->request.n_ids, o->trace, err) : MOE_OK;
    double traced = moe_now() - t0;
    if (code == MOE_OK) code = moe_generate_open(&core, e, err);
    if (code == MOE_OK) code = moe_generate_run(core, &set, &g, &took, err);
    const double seconds[3] = { loaded, traced + took.prefill, took.decode };
    if (code == MOE_OK) {
        const struct moe_core_stats stats = moe_core_stats(core);
        const struct moe_cache_counts cache = moe_cache_counts(&stats);
        moe_run_report_generated(o, json, &g, w->request.n_ids, seconds);
        report_parts(o, e, w, &answer, &g, json);
        moe_cache_json(&cache, json);
        moe_run_warn_context(o, &e->model->config, &w->request, &g);
    }
    moe_core_close(&core);
    moe_run_answer_release(&answer);
    moe_generated_release(&g);
    return code;
}

enum moe_code moe_run_generate(const struct moe_run_args *o, struct moe_engine *e, double loaded,
                               cJSON *json, struct moe_err *err)
{
    struct work w = { .chat = NULL };
    enum moe_code code = read_work(&w, o, e, err);
    if (code == MOE_OK) code = run(o, e, &w, loaded, json, err);
    release_work(o, &w);
    return code;
}
