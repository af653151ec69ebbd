/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of /v1/completions as JSON. */
#include "runtime/engine/logprobs-json.h"
#include "runtime/server/server-internal.h"

#include <string.h>

/* ---- what all answers share ---- */

const char *moe_answer_finish(enum moe_finish finish)
{
    switch (finish) {
    case MOE_FINISH_STOP: return "stop";
    case MOE_FINISH_LENGTH: return "length";
    case MOE_FINISH_DEADLINE: return "timeout";
    case MOE_FINISH_CANCELLED: return "cancelled";
    default: return "error";
    }
}

/* The object around choices. */
cJSON *moe_answer_head(const struct moe_exchange *x, const char *object)
{
    cJSON *o = cJSON_CreateObject();
    moe_json_add_str(o, "id", x->answer_id);
    moe_json_add_str(o, "object", object);
    moe_json_add_i64(o, "created", x->created);
    moe_json_add_str(o, "model", x->model);
    return o;
}

void moe_answer_add_usage(const struct moe_exchange *x, cJSON *o)
{
    cJSON *u = moe_json_add_object(o, "usage");
    moe_json_add_i64(u, "prompt_tokens", x->prompt_tokens);
    moe_json_add_i64(u, "completion_tokens", x->generated_tokens);
    moe_json_add_i64(u, "total_tokens", x->prompt_tokens + x->generated_tokens);
    moe_json_add_i64(moe_json_add_object(u, "prompt_tokens_details"), "cached_tokens", x->cached_tokens);
}

static void add_finish(cJSON *o, const struct moe_event *ev)
{
    if (ev->end) moe_json_add_str(o, "finish_reason", moe_answer_finish(ev->finish));
    else moe_json_add_null(o, "finish_reason");
}

void moe_answer_add_ids(const struct moe_exchange *x, cJSON *o, const struct moe_event *ev)
{
    cJSON *list = x->token_ids ? moe_json_add_array(o, "token_ids") : NULL;
    for (int64_t i = 0; list && i < ev->n_tokens; i++)
        moe_json_append(list, cJSON_CreateNumber(ev->tokens[i]));
}

/* ---- completions ---- */

static void add_choice(struct moe_exchange *x, struct moe_exchange_choice *c, const struct moe_event *ev,
                       cJSON *list)
{
    cJSON *o = moe_json_append(list, cJSON_CreateObject());
    moe_json_add_i64(o, "index", c->index);
    moe_json_add_text(o, "text", ev->text ? ev->text : "", ev->text_bytes);
    if (x->logprobs < 0)
        moe_json_add_null(o, "logprobs");
    else
        moe_logprobs_legacy_json(o, ev->tokens, ev->n_tokens, ev->logprobs, x->server->engine->tokenizer,
                                 &c->text_at);
    moe_answer_add_ids(x, o, ev);
    add_finish(o, ev);
}

static cJSON *whole(struct moe_exchange *x)
{
    cJSON *o = moe_answer_head(x, "text_completion"), *list = moe_json_add_array(o, "choices");
    for (int64_t i = 0; i < x->n_choices; i++) add_choice(x, &x->choice[i], &x->choice[i].got, list);
    moe_answer_add_usage(x, o);
    return o;
}

static void put(struct moe_exchange *x, struct moe_exchange_choice *c, const struct moe_event *ev)
{
    if (!ev->text_bytes && !ev->end && !(moe_answer_shows_tokens(x) && ev->n_tokens)) return;
    cJSON *o = moe_answer_head(x, "text_completion");
    add_choice(x, c, ev, moe_json_add_array(o, "choices"));
    moe_exchange_event(x, o);
}

static cJSON *usage(struct moe_exchange *x)
{
    cJSON *o = moe_answer_head(x, "text_completion");
    moe_json_add_array(o, "choices");
    moe_answer_add_usage(x, o);
    return o;
}

const struct moe_format moe_format_completion = { "cmpl-", NULL, NULL, whole, put, usage };
