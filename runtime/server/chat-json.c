/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of /v1/chat/completions as JSON: thinking, content and calls, taken apart by their ids. */
#include "runtime/server/server-internal.h"

#include "base/grow.h"
#include "formats/tokenizer/chat-answer.h"
#include "runtime/engine/logprobs-json.h"

#include <stdlib.h>
#include <string.h>

/* The state of a choice.  The parser gets tokens as far as the core has released their text, which may lag
 * behind them where a stop text may have begun: `released` bytes, of which the tokens that were fed are
 * `fed`. */
struct state {
    struct moe_exchange *exchange;
    struct moe_exchange_choice *choice;
    struct moe_chat_parser parser;
    struct moe_decoder decoder;             /* as the core's, for how many bytes tokens have */
    char *room; size_t room_cap;            /* of a token's text */
    int32_t *waiting; size_t n_waiting, waiting_cap; /* tokens that were not fed so far */
    size_t released, fed;
    bool failed;                            /* memory ran out */
    /* a stream */
    bool opened;                            /* the role was sent */
    const struct moe_event *event;          /* whose tokens were not shown so far; NULL: they were */
    enum moe_chat_part part; int64_t call; struct moe_buffer text; /* a part that is put together */
    /* a whole answer */
    struct moe_chat_answer answer;
};

/* ---- feeding ---- */

/* The bytes of the text that the next token gives, as moe_decode has it. */
static size_t bytes_of(struct state *s, const struct moe_tokenizer *t, int32_t id)
{
    char room[MOE_TOKEN_ROOM];
    size_t len = 0;
    if (!moe_token_bytes(t, id, room, &len)) return 0;
    if (!MOE_GROW(s->room, s->room_cap, MOE_DECODE_BOUND(len))) {
        s->failed = true;
        return 0;
    }
    return moe_decode(t, &s->decoder, id, s->room);
}

/* Feeds tokens as far as their text was released; at the end the last one as far as it was. */
static void feed(struct state *s, const struct moe_tokenizer *t, bool end)
{
    size_t i = 0;
    for (bool cut = false; i < s->n_waiting && !cut && !s->failed;) {
        struct moe_decoder before = s->decoder;
        size_t n = bytes_of(s, t, s->waiting[i]);
        if (s->fed + n <= s->released) {
            moe_chat_parser_feed(&s->parser, &s->waiting[i++], 1);
            s->fed += n;
            continue;
        }
        if (end) moe_chat_parser_cut(&s->parser, s->waiting[i], s->released - s->fed);
        s->decoder = before; /* the token is asked again, or not at all */
        cut = true;
    }
    memmove(s->waiting, s->waiting + i, (s->n_waiting - i) * sizeof *s->waiting);
    s->n_waiting -= i;
    if (end) moe_chat_parser_finish(&s->parser);
}

static void take(struct state *s, const struct moe_event *ev)
{
    size_t n = (size_t)ev->n_tokens;
    if (!MOE_GROW(s->waiting, s->waiting_cap, s->n_waiting + n + 1)) {
        s->failed = true;
        return;
    }
    if (n) memcpy(s->waiting + s->n_waiting, ev->tokens, n * sizeof *s->waiting);
    s->n_waiting += n;
    s->released += ev->text_bytes;
    feed(s, s->exchange->server->engine->tokenizer, ev->end);
}

static const char *finish_of(const struct state *s, const struct moe_event *ev)
{
    bool calls = ev->finish == MOE_FINISH_STOP && s->parser.calls;
    return calls ? "tool_calls" : moe_answer_finish(ev->finish);
}

static void add_logprobs(const struct moe_exchange *x, cJSON *o, const struct moe_event *ev)
{
    if (x->logprobs >= 0)
        moe_logprobs_chat_json(o, ev->tokens, ev->n_tokens, ev->logprobs, x->server->engine->tokenizer);
    else moe_json_add_null(o, "logprobs");
}

/* ---- a stream ---- */

/* Adds an event with this delta, which it takes over; with the tokens of the core's event, unless an earlier
 * one had them. */
static void put_delta(struct state *s, cJSON *delta, const char *finish)
{
    struct moe_exchange *x = s->exchange;
    cJSON *o = moe_answer_head(x, "chat.completion.chunk");
    cJSON *c = moe_json_append(moe_json_add_array(o, "choices"), cJSON_CreateObject());
    moe_json_add_i64(c, "index", s->choice->index);
    moe_json_add(c, "delta", delta);
    if (s->event) {
        add_logprobs(x, c, s->event);
        moe_answer_add_ids(x, c, s->event);
    } else {
        moe_json_add_null(c, "logprobs");
    }
    if (finish) moe_json_add_str(c, "finish_reason", finish);
    else moe_json_add_null(c, "finish_reason");
    s->event = NULL;
    moe_exchange_event(x, o);
}

static void put_role(struct state *s)
{
    const struct moe_event *ev = s->event;
    cJSON *delta = cJSON_CreateObject();
    moe_json_add_str(delta, "role", "assistant");
    moe_json_add_str(delta, "content", "");
    s->event = NULL; /* it comes with what has tokens */
    s->opened = true;
    put_delta(s, delta, NULL);
    s->event = ev;
}

/* A delta of a call; its function, to which the caller adds. */
static cJSON *call_delta(cJSON **function, int64_t call)
{
    cJSON *delta = cJSON_CreateObject();
    cJSON *c = moe_json_append(moe_json_add_array(delta, "tool_calls"), cJSON_CreateObject());
    moe_json_add_i64(c, "index", call);
    *function = c;
    return delta;
}

/* Writes the part that is put together. */
static void put_text(struct state *s)
{
    cJSON *delta, *c;
    if (!s->text.n) return;
    if (s->part == MOE_PART_ARGUMENTS) {
        delta = call_delta(&c, s->call);
        moe_json_add_text(moe_json_add_object(c, "function"), "arguments", s->text.p, s->text.n);
    } else {
        delta = cJSON_CreateObject();
        moe_json_add_text(delta, s->part == MOE_PART_REASONING ? "reasoning_content" : "content", s->text.p,
                          s->text.n);
    }
    s->text.n = 0;
    put_delta(s, delta, NULL);
}

static void put_call(struct state *s, const struct moe_chat_delta *d)
{
    cJSON *c, *delta = call_delta(&c, d->call);
    moe_json_add_text(c, "id", d->id, d->id_bytes);
    moe_json_add_str(c, "type", "function");
    cJSON *f = moe_json_add_object(c, "function");
    moe_json_add_text(f, "name", d->name, d->name_bytes);
    moe_json_add_str(f, "arguments", "");
    put_delta(s, delta, NULL);
}

/* A part from the parser: texts of the same part are put together until the core's event is at its end. */
static void put_part(void *ctx, const struct moe_chat_delta *d)
{
    struct state *s = ctx;
    bool text = d->part != MOE_PART_CALL && d->part != MOE_PART_CALL_END;
    if (s->text.n && (!text || d->part != s->part || d->call != s->call)) put_text(s);
    if (d->part == MOE_PART_CALL) put_call(s, d);
    if (!text) return;
    s->part = d->part;
    s->call = d->call;
    moe_buffer_put(&s->text, d->text, d->bytes);
    s->failed |= s->text.failed;
}

static void put(struct moe_exchange *x, struct moe_exchange_choice *c, const struct moe_event *ev)
{
    struct state *s = c->state;
    s->event = ev->n_tokens && moe_answer_shows_tokens(x) ? ev : NULL;
    if (!s->opened) put_role(s);
    take(s, ev);
    put_text(s);
    if (s->failed) moe_exchange_abandon(x);
    else if (ev->end) put_delta(s, cJSON_CreateObject(), finish_of(s, ev));
    else if (s->event) put_delta(s, cJSON_CreateObject(), NULL);
    s->event = NULL;
}

/* ---- a whole answer ---- */

static cJSON *whole(struct moe_exchange *x)
{
    cJSON *o = moe_answer_head(x, "chat.completion"), *list = moe_json_add_array(o, "choices");
    for (int64_t i = 0; i < x->n_choices; i++) {
        struct moe_exchange_choice *c = &x->choice[i];
        struct state *s = c->state;
        take(s, &c->got);
        cJSON *choice = moe_json_append(list, cJSON_CreateObject());
        moe_json_add_i64(choice, "index", c->index);
        cJSON *message = moe_json_add_object(choice, "message");
        moe_json_add_str(message, "role", "assistant");
        s->answer.failed |= s->failed;
        moe_chat_answer_json(&s->answer, message);
        add_logprobs(x, choice, &c->got);
        moe_answer_add_ids(x, choice, &c->got);
        moe_json_add_str(choice, "finish_reason", finish_of(s, &c->got));
    }
    moe_answer_add_usage(x, o);
    return o;
}

static cJSON *usage(struct moe_exchange *x)
{
    cJSON *o = moe_answer_head(x, "chat.completion.chunk");
    moe_json_add_array(o, "choices");
    moe_answer_add_usage(x, o);
    return o;
}

/* ---- the state ---- */

static bool begin(struct moe_exchange *x, struct moe_exchange_choice *c)
{
    struct state *s = calloc(1, sizeof *s);
    if (!s) return false;
    s->exchange = x;
    s->choice = c;
    s->decoder.keep_special = x->keep_special;
    if (x->stream) moe_chat_parser_init(&s->parser, x->server->chat, x->thinking, put_part, s);
    else moe_chat_parser_init(&s->parser, x->server->chat, x->thinking, moe_chat_answer_put, &s->answer);
    c->state = s;
    return true;
}

static void end(struct moe_exchange_choice *c)
{
    struct state *s = c->state;
    moe_chat_answer_release(&s->answer);
    free(s->room);
    free(s->waiting);
    free(s->text.p);
    free(s);
    c->state = NULL;
}

const struct moe_format moe_format_chat = { "chatcmpl-", begin, end, whole, put, usage };
