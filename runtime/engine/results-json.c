/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/results-json.h"

#include "formats/tokenizer/chat-answer.h"
#include "runtime/engine/logprobs-json.h"
#include "runtime/engine/reply.h"

#include <stdlib.h>

/* ---- answers ---- */

static const char *finish_of(const struct moe_result *s)
{
    if (s->there && s->out.err) return "error";
    return !s->there ? "lost" : s->out.finish == MOE_FINISH_STOP ? "stop" : "length";
}

/* The rank that computed an answer, or with which it was lost. */
static int64_t rank_of(const struct moe_result *s, const struct moe_sequence *q)
{
    return s->there ? s->rank : q->rank;
}

static void add_text_and_tokens(cJSON *o, const struct moe_result *s)
{
    if (s->out.err) {
        moe_json_add_err(moe_json_add_object(o, "error"), s->out.err->code, s->out.err);
        return;
    }
    moe_json_add_text(o, "text", s->there ? s->out.text : "", s->there ? s->out.text_bytes : 0);
    cJSON *tokens = moe_json_add_array(o, "tokens");
    for (int64_t i = 0; tokens && i < s->out.n; i++)
        moe_json_append(tokens, cJSON_CreateNumber(s->out.tokens[i]));
}

/* Adds the parts of an answer in a chat. */
static void add_parts(cJSON *o, const struct moe_prompts *p, const struct moe_sequence *q,
                      const struct moe_result *s)
{
    struct moe_chat_answer a = { .n_calls = 0 };
    struct moe_err err = MOE_ERR_INIT;
    if (!q->chat || !s->there || s->out.err) return;
    if (moe_reply_whole(p->chat, p->tokenizer, q->thinking, q->request.keep_special, &s->out,
                        moe_chat_answer_put, &a, &err) != MOE_OK) a.failed = true;
    moe_chat_answer_json(&a, o);
    moe_chat_answer_release(&a);
}

/* The number of sequences of a prompt. */
static int64_t choices_of(const struct moe_prompts *p, int64_t first)
{
    int64_t n = 1;
    while (first + n < p->n && p->v[first + n].prompt == p->v[first].prompt) n++;
    return n;
}

static void add_choices(cJSON *o, const struct moe_results *r, const struct moe_prompts *p, int64_t first)
{
    int64_t n = choices_of(p, first);
    cJSON *list = n > 1 ? moe_json_add_array(o, "choices") : NULL;
    for (int64_t i = 0; list && i < n; i++) {
        const struct moe_result *s = &r->sequence[first + i];
        cJSON *c = moe_json_append(list, cJSON_CreateObject());
        moe_json_add_i64(c, "index", i);
        add_text_and_tokens(c, s);
        moe_json_add_str(c, "finish_reason", finish_of(s));
        moe_json_add_i64(c, "rank", rank_of(s, &p->v[first + i]));
        if (p->v[first + i].request.logprobs >= 0 && !s->out.err)
            moe_logprobs_chat_json(c, s->out.tokens, s->out.n, s->out.logprobs, p->tokenizer);
        add_parts(c, p, &p->v[first + i], s);
    }
}

cJSON *moe_results_prompt(const struct moe_results *r, const struct moe_prompts *p, int64_t first)
{
    const struct moe_sequence *q = &p->v[first];
    const struct moe_result *s = &r->sequence[first];
    cJSON *o = cJSON_CreateObject();
    moe_json_add_i64(o, "index", q->prompt);
    moe_json_add_i64(o, "line", q->line);
    add_text_and_tokens(o, s);
    moe_json_add_i64(o, "prompt_tokens", q->request.n_ids);
    moe_json_add_str(o, "finish_reason", finish_of(s));
    moe_json_add_i64(o, "rank", rank_of(s, q));
    if (q->request.logprobs >= 0 && !s->out.err)
        moe_logprobs_chat_json(o, s->out.tokens, s->out.n, s->out.logprobs, p->tokenizer);
    add_parts(o, p, q, s);
    add_choices(o, r, p, first);
    return o;
}

void moe_results_json(const struct moe_results *r, const struct moe_prompts *p, cJSON *json)
{
    cJSON *list = moe_json_add_array(json, "sequences");
    for (int64_t i = 0; list && i < p->n; i += choices_of(p, i))
        moe_json_append(list, moe_results_prompt(r, p, i));
}

bool moe_results_whole(const struct moe_results *r, const struct moe_prompts *p, int64_t first)
{
    for (int64_t i = 0, n = choices_of(p, first); i < n; i++)
        if (!r->sequence[first + i].there) return false;
    return true;
}

void moe_results_forget(struct moe_results *r, const struct moe_prompts *p, int64_t first)
{
    for (int64_t i = 0, n = choices_of(p, first); i < n; i++) {
        struct moe_generated *g = &r->sequence[first + i].out;
        free(g->tokens);
        free(g->text);
        free(g->logprobs);
        g->tokens = NULL;
        g->text = NULL;
        g->logprobs = NULL;
    }
}
