/* SPDX-License-Identifier: Apache-2.0 */
/* An exchange: its references, its answer, and the connection that waits for it. */
#include "runtime/server/server-internal.h"

#include "base/io.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

void moe_random_id(char *out, size_t n, const char *prefix)
{
    unsigned char r[12] = { 0 };
    char digits[25];
    if (getrandom(r, sizeof r, 0) != (ssize_t)sizeof r) {
        double now = moe_now();
        memcpy(r, &now, sizeof now);
    }
    for (size_t i = 0; i < sizeof r; i++) snprintf(digits + 2 * i, 3, "%02x", r[i]);
    snprintf(out, n, "%s%s", prefix, digits);
}

/* ---- references ---- */

struct moe_exchange *moe_exchange_open(struct moe_server *s, struct MHD_Connection *c)
{
    struct moe_exchange *x = calloc(1, sizeof *x);
    if (!x) return NULL;
    x->server = s;
    x->connection = c;
    x->refs = 1;
    x->key = -1;
    x->begun = x->out_time = moe_now();
    pthread_mutex_init(&x->lock, NULL);
    pthread_mutex_lock(&s->lock);
    x->after = s->first;
    if (s->first) s->first->before = x;
    s->first = x;
    s->n_exchanges++;
    pthread_mutex_unlock(&s->lock);
    return x;
}

void moe_exchange_hold(struct moe_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    x->refs++;
    pthread_mutex_unlock(&x->lock);
}

static void forget(struct moe_exchange *x)
{
    struct moe_server *s = x->server;
    pthread_mutex_lock(&s->lock);
    if (x->before) x->before->after = x->after;
    else s->first = x->after;
    if (x->after) x->after->before = x->before;
    s->n_exchanges--;
    s->bodies -= x->body.n;
    pthread_mutex_unlock(&s->lock);
}

void moe_exchange_drop(struct moe_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    int left = --x->refs;
    pthread_mutex_unlock(&x->lock);
    if (left) return;
    moe_log_exchange(x);
    forget(x);
    for (int64_t i = 0; i < x->n_choices; i++) {
        moe_event_release(&x->choice[i].got);
        if (x->choice[i].state) x->format->end(&x->choice[i]);
    }
    free(x->choice);
    free(x->body.p);
    free(x->out.p);
    pthread_mutex_destroy(&x->lock);
    free(x);
}

/* ---- with the lock held ---- */

void moe_exchange_wake(struct moe_exchange *x)
{
    if (!x->suspended || !x->connection) return;
    x->suspended = false;
    MHD_resume_connection(x->connection);
}

void moe_exchange_abandon(struct moe_exchange *x)
{
    x->gone = x->dropped = true;
    for (int64_t i = 0; i < x->n_choices; i++) {
        struct moe_exchange_choice *c = &x->choice[i];
        if (c->live && c->id) moe_core_cancel(x->server->core, c->id);
    }
    moe_exchange_wake(x);
}

void moe_exchange_throttle(struct moe_exchange *x)
{
    bool full = x->out.n - x->out_sent >= MOE_HTTP_STREAM_BYTES;
    for (int64_t i = 0; i < x->n_choices; i++) {
        struct moe_exchange_choice *c = &x->choice[i];
        if (!c->live || !c->id || c->paused == full) continue;
        c->paused = full;
        moe_core_pause(x->server->core, c->id, full);
    }
}

/* What is answered where there is no memory for another answer. */
static const char no_memory[] =
    "{\"error\":{\"message\":\"no memory for the answer\",\"type\":\"server_error\",\"param\":null,"
    "\"code\":null}}";

void moe_exchange_answer_locked(struct moe_exchange *x, int status, cJSON *json)
{
    char *text = json ? moe_json_print(json, 0) : NULL;
    cJSON_Delete(json);
    free(x->out.p);
    x->out = (struct moe_buffer){ 0 };
    moe_buffer_put(&x->out, text ? text : no_memory, text ? strlen(text) : sizeof no_memory - 1);
    free(text);
    x->status = text ? status : 500;
    x->state = MOE_EXCHANGE_ANSWERED;
    x->finished = x->dropped = true;
    moe_exchange_wake(x);
}

void moe_exchange_answer_text(struct moe_exchange *x, int status, struct moe_buffer *text, const char *type)
{
    pthread_mutex_lock(&x->lock);
    if (text->failed) {
        free(text->p);
        moe_exchange_answer_locked(x, 500, NULL);
    } else {
        free(x->out.p);
        x->out = *text;
        x->type = type;
        x->status = status;
        x->state = MOE_EXCHANGE_ANSWERED;
        x->finished = x->dropped = true;
        moe_exchange_wake(x);
    }
    *text = (struct moe_buffer){ 0 };
    pthread_mutex_unlock(&x->lock);
}

void moe_exchange_refuse_locked(struct moe_exchange *x, const struct moe_api_error *e)
{
    x->retry_after = e->retry_after;
    moe_exchange_answer_locked(x, e->status, moe_api_error_json(e));
}

/* Adds bytes to a stream. */
static void put(struct moe_exchange *x, const char *head, const char *text, const char *tail)
{
    if (x->out_sent == x->out.n) x->out.n = x->out_sent = 0;
    moe_buffer_put(&x->out, head, strlen(head));
    moe_buffer_put(&x->out, text, strlen(text));
    moe_buffer_put(&x->out, tail, strlen(tail));
    x->out_time = moe_now();
}

void moe_exchange_event(struct moe_exchange *x, cJSON *json)
{
    char *text = json ? moe_json_print(json, 0) : NULL;
    cJSON_Delete(json);
    if (text) put(x, "data: ", text, "\n\n");
    free(text);
    if (!text || x->out.failed) moe_exchange_abandon(x); /* no end is sent: the client sees that it lacks */
    else moe_exchange_wake(x);
}

void moe_exchange_end_stream(struct moe_exchange *x)
{
    put(x, "", "data: [DONE]", "\n\n");
    x->finished = true;
    moe_exchange_wake(x);
}

/* ---- from other threads ---- */

void moe_exchange_answer(struct moe_exchange *x, int status, cJSON *json)
{
    pthread_mutex_lock(&x->lock);
    moe_exchange_answer_locked(x, status, json);
    pthread_mutex_unlock(&x->lock);
}

void moe_exchange_refuse(struct moe_exchange *x, const struct moe_api_error *e)
{
    pthread_mutex_lock(&x->lock);
    moe_exchange_refuse_locked(x, e);
    pthread_mutex_unlock(&x->lock);
}
