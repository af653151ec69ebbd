/* SPDX-License-Identifier: Apache-2.0 */
/* The intake thread: works on bodies, one after the other. */
#include "runtime/server/server-internal.h"

#include "base/thread.h"

#include <stdlib.h>
#include <string.h>

void moe_intake_take(struct moe_exchange *x)
{
    struct moe_server *s = x->server;
    pthread_mutex_lock(&s->intake_lock);
    x->next_taken = NULL;
    *s->taken_end = x;
    s->taken_end = &x->next_taken;
    pthread_cond_signal(&s->intake_work);
    pthread_mutex_unlock(&s->intake_lock);
}

/* The next exchange; NULL: there will be none. */
static struct moe_exchange *next(struct moe_server *s)
{
    pthread_mutex_lock(&s->intake_lock);
    while (!s->taken && !s->stop_intake) pthread_cond_wait(&s->intake_work, &s->intake_lock);
    struct moe_exchange *x = s->taken;
    if (x) s->taken = x->next_taken;
    if (!s->taken) s->taken_end = &s->taken;
    pthread_mutex_unlock(&s->intake_lock);
    return x;
}

static bool is_wanted(struct moe_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    bool wanted = !x->gone;
    pthread_mutex_unlock(&x->lock);
    return wanted;
}

/* Frees the body, which nobody needs any more. */
static void drop_body(struct moe_exchange *x)
{
    struct moe_server *s = x->server;
    pthread_mutex_lock(&s->lock);
    s->bodies -= x->body.n;
    free(x->body.p);
    x->body = (struct moe_buffer){ 0 };
    pthread_mutex_unlock(&s->lock);
}

static void *run(void *arg)
{
    struct moe_server *s = arg;
    for (struct moe_exchange *x; (x = next(s)); moe_exchange_drop(x)) {
        struct moe_api_error e = { 0 };
        if (is_wanted(x) && !x->route->answer(x, &e)) moe_exchange_refuse(x, &e);
        drop_body(x);
    }
    return NULL;
}

enum moe_code moe_intake_open(struct moe_server *s, struct moe_err *err)
{
    int e = moe_thread_start(&s->intake_thread, run, s);
    if (e) return moe_fail(err, MOE_NOMEM, "cannot start a thread: %s", strerror(e));
    s->has_intake = true;
    return MOE_OK;
}

void moe_intake_close(struct moe_server *s)
{
    if (!s->has_intake) return;
    pthread_mutex_lock(&s->intake_lock);
    s->stop_intake = true;
    pthread_cond_signal(&s->intake_work);
    pthread_mutex_unlock(&s->intake_lock);
    pthread_join(s->intake_thread, NULL);
    s->has_intake = false;
}

cJSON *moe_intake_parse(struct moe_exchange *x, struct moe_api_error *e)
{
    const struct moe_buffer *b = &x->body;
    cJSON *json = NULL;
    enum moe_code code = moe_json_parse(b->p ? b->p : "", b->n, "body", &json, &e->err);
    if (code == MOE_OK) code = moe_json_keep_numbers(json, b->p, b->n, &e->err);
    if (code != MOE_OK) {
        cJSON_Delete(json);
        moe_api_fail_code(e, NULL);
        return NULL;
    }
    if (cJSON_IsObject(json)) return json;
    cJSON_Delete(json);
    moe_api_fail(e, 400, NULL, "the body is not an object of JSON");
    return NULL;
}
