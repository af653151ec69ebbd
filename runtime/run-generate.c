/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/run-generate.h"

#include "base/io.h"
#include "runtime/ep.h"
#include "runtime/run-report.h"
#include "runtime/trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- generation ---- */

struct moe_generate moe_run_settings(const struct moe_run_options *o)
{
    return (struct moe_generate){
        .max_tokens = o->n, .sampler = { o->temperature, o->top_p, o->min_p, o->top_k }, .seed = (uint64_t)o->seed,
        .stop = o->stop.v, .n_stop = o->stop.n, .ignore_eos = o->ignore_eos, .keep_special = o->prompt.special,
        .text = o->run.json ? NULL : moe_run_print,
    };
}

enum moe_code moe_run_generate(const struct moe_run_options *o, struct moe_engine *e, double loaded, cJSON *json,
                               struct moe_err *err)
{
    int32_t *ids;
    size_t n;
    struct moe_generate set = moe_run_settings(o);
    struct moe_generated g = { 0 };
    enum moe_code code = moe_prompt_ids(&o->prompt, e, &ids, &n, err);
    double t0 = moe_now(), t1 = t0;
    if (code == MOE_OK) code = o->trace ? moe_trace(e, ids, (int64_t)n, o->trace, err) : moe_engine_prefill(e, ids, (int64_t)n, NULL, err);
    t1 = moe_now();
    if (code == MOE_OK) code = moe_engine_generate(e, &set, &g, err);
    const double seconds[3] = { loaded, t1 - t0, moe_now() - t1 };
    if (code == MOE_OK) moe_run_report_generated(o, json, &g, (int64_t)n, seconds);
    free(g.tokens);
    free(g.text);
    free(ids);
    return code;
}

/* ---- chat on a terminal: turns until the end of input ---- */

/* The answer becomes a turn: its thinking apart, which the template drops or keeps. */
static enum moe_code remember(const struct moe_engine *e, const struct moe_chat *c, cJSON *messages,
                              const struct moe_generated *g, struct moe_err *err)
{
    char *thought = NULL, *said = NULL;
    size_t from, n, end = moe_chat_thinking(c, g->tokens, (size_t)g->n, &from);
    enum moe_code code = MOE_OK;
    if (end) code = moe_decode_all(e->tokenizer, g->tokens + from, end - 1 - from, false, &thought, &n, err);
    if (end && code == MOE_OK)
        code = moe_decode_all(e->tokenizer, g->tokens + end, (size_t)g->n - end, false, &said, &n, err);
    cJSON *m = code == MOE_OK ? moe_prompt_turn(messages, "assistant", end ? said : g->text) : NULL;
    if (code == MOE_OK && (!m || (end && !cJSON_AddStringToObject(m, "reasoning_content", thought))))
        code = moe_fail(err, MOE_NOMEM, "no memory for the conversation");
    free(thought);
    free(said);
    return code;
}

static enum moe_code one_turn(const struct moe_run_options *o, struct moe_engine *e, const struct moe_chat *c,
                              cJSON *messages, struct moe_err *err)
{
    int32_t *ids = NULL;
    size_t n_ids;
    struct moe_generate set = moe_run_settings(o);
    struct moe_generated g = { 0 };
    struct moe_chat_request r = { .messages = messages, .system = o->prompt.system, .ask = true };
    enum moe_code code = moe_chat_encode(c, &r, &ids, &n_ids, NULL, err);
    if (code == MOE_OK) code = moe_engine_prefill(e, ids, (int64_t)n_ids, NULL, err);
    if (code == MOE_OK) code = moe_engine_generate(e, &set, &g, err);
    if (code == MOE_OK) code = remember(e, c, messages, &g, err);
    if (code == MOE_OK) fputc('\n', stdout);
    free(ids);
    free(g.tokens);
    free(g.text);
    return code;
}

static enum moe_code turns(const struct moe_run_options *o, struct moe_rank *r, const struct moe_chat *c,
                           cJSON *messages, struct moe_err *err)
{
    char *line = NULL;
    size_t room = 0;
    enum moe_code code = MOE_OK;
    while (code == MOE_OK) {
        /* a person may take longer than ranks wait */
        if (r->ep && (code = moe_ep_rest(r->ep, err)) != MOE_OK) break;
        fputs("> ", stderr);
        if (getline(&line, &room, stdin) <= 0) break;
        line[strcspn(line, "\n")] = 0;
        code = moe_prompt_turn(messages, "user", line) ? one_turn(o, r->engine, c, messages, err) :
            moe_fail(err, MOE_NOMEM, "no memory for the conversation");
    }
    free(line);
    return code;
}

enum moe_code moe_run_chat(const struct moe_run_options *o, struct moe_rank *r, struct moe_err *err)
{
    struct moe_chat *c;
    MOE_TRY(moe_prompt_chat(&o->prompt, r->engine, &c, err));
    cJSON *messages = cJSON_CreateArray();
    moe_notice(&o->run, "chat: one line is one turn; end with control-D");
    enum moe_code code = messages ? turns(o, r, c, messages, err) :
        moe_fail(err, MOE_NOMEM, "no memory for the conversation");
    cJSON_Delete(messages);
    moe_chat_close(&c);
    return code;
}
