/* SPDX-License-Identifier: Apache-2.0 */
/* From a body to requests of the core. */
#include "runtime/server/server-internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

bool moe_submit_model(struct moe_exchange *x, const cJSON *body, struct moe_api_error *e)
{
    const struct moe_server *s = x->server;
    const cJSON *model = moe_json_get(body, "model");
    if (model && !cJSON_IsString(model)) return moe_api_fail(e, 400, "model", "'model' is not a text");
    const char *name = model && *model->valuestring ? model->valuestring : s->o.names[0];
    for (size_t i = 0; i < s->o.n_names; i++) {
        if (strcmp(name, s->o.names[i])) continue;
        snprintf(x->model, sizeof x->model, "%s", name);
        return true;
    }
    moe_api_fail(e, 404, "model", "there is no model '%.100s' here; '%.100s' is served", name, s->o.names[0]);
    e->code = "model_not_found";
    return false;
}

static bool check_prompt(const struct moe_exchange *x, const struct moe_ids *p, const char *param,
                         struct moe_api_error *e)
{
    const struct moe_server *s = x->server;
    if (!p->n) return moe_api_fail(e, 400, param, "the prompt is empty, and has no token to go on from");
    if ((int64_t)p->n <= s->info.context) return true;
    moe_api_fail(e, 400, param, "the prompt has %zu tokens, and the context holds %lld", p->n,
                 (long long)s->info.context);
    e->code = "context_length_exceeded";
    return false;
}

static bool check(struct moe_exchange *x, const struct moe_ids *prompt, int64_t n, const char *param,
                  const struct moe_request_options *o, struct moe_api_error *e)
{
    for (int64_t i = 0; i < n; i++)
        if (!check_prompt(x, &prompt[i], param, e)) return false;
    if (n * o->n <= MOE_HTTP_REQUESTS) return true;
    return moe_api_fail(e, 400, "n", "%lld prompts with %lld choices each are more than %d answers",
                        (long long)n, (long long)o->n, MOE_HTTP_REQUESTS);
}

/* Takes back the choices from `from` on, which were not submitted, and cancels the others. */
static void take_back(struct moe_exchange *x, int64_t from)
{
    pthread_mutex_lock(&x->lock);
    x->dropped = true;
    for (int64_t i = 0; i < from; i++)
        if (x->choice[i].live) moe_core_cancel(x->server->core, x->choice[i].id);
    for (int64_t i = from; i < x->n_choices; i++) {
        x->choice[i].live = false;
        x->n_live--;
        x->refs--;
    }
    pthread_mutex_unlock(&x->lock);
}

/* Notes in the exchange what is going to be answered.  False: no memory. */
static bool prepare(struct moe_exchange *x, int64_t n, const struct moe_request_options *o)
{
    struct moe_exchange_choice *choice = calloc((size_t)(n * o->n), sizeof *choice);
    if (!choice) return false;
    pthread_mutex_lock(&x->lock);
    moe_random_id(x->answer_id, sizeof x->answer_id, x->format->prefix);
    x->created = (int64_t)time(NULL);
    x->stream = o->stream;
    x->include_usage = o->include_usage;
    x->token_ids = o->return_token_ids;
    x->keep_special = o->request.keep_special;
    x->logprobs = o->request.logprobs;
    x->choice = choice;
    x->per_prompt = o->n;
    x->n_live = x->n_choices = n * o->n;
    x->refs += (int)x->n_live;
    bool ok = true;
    for (int64_t i = 0; i < x->n_choices; i++) {
        choice[i] = (struct moe_exchange_choice){ .exchange = x, .index = i, .live = true };
        if (x->format->begin && !x->format->begin(x, &choice[i])) ok = false;
    }
    pthread_mutex_unlock(&x->lock);
    if (!ok) take_back(x, 0);
    return ok;
}

/* Submits a choice, unless the client has gone.  *gone: it has. */
static enum moe_code submit_choice(struct moe_exchange_choice *c, struct moe_request *q, bool *gone,
                                   struct moe_err *err)
{
    struct moe_exchange *x = c->exchange;
    uint64_t id = 0;
    pthread_mutex_lock(&x->lock);
    *gone = x->gone;
    pthread_mutex_unlock(&x->lock);
    if (*gone) return MOE_OK;
    q->ctx = c;
    MOE_TRY(moe_core_submit(x->server->core, q, &id, err));
    pthread_mutex_lock(&x->lock);
    c->id = id;
    if (x->gone) moe_core_cancel(x->server->core, id);
    pthread_mutex_unlock(&x->lock);
    return MOE_OK;
}

static void begin_stream(struct moe_exchange *x)
{
    pthread_mutex_lock(&x->lock);
    if (x->state == MOE_EXCHANGE_WORKING) {
        x->state = MOE_EXCHANGE_STREAMING;
        x->status = 200;
        moe_exchange_wake(x);
    }
    pthread_mutex_unlock(&x->lock);
}

static bool submit_all(struct moe_exchange *x, const struct moe_ids *prompt, struct moe_request *q,
                       const char *param, struct moe_api_error *e)
{
    for (int64_t i = 0; i < x->n_choices; i++) {
        bool gone;
        q->ids = prompt[i / x->per_prompt].v;
        q->n_ids = (int64_t)prompt[i / x->per_prompt].n;
        q->choice = (uint32_t)(i % x->per_prompt);
        enum moe_code code = submit_choice(&x->choice[i], q, &gone, &e->err);
        if (code == MOE_OK && !gone) continue;
        take_back(x, i);
        return gone || moe_api_fail_code(e, param);
    }
    if (x->stream) begin_stream(x);
    return true;
}

/* Those who have keys take turns, and share no pages of the cache unless all do: from the time that an answer
 * takes somebody could learn what others have asked. */
static void share_out(const struct moe_exchange *x, struct moe_request *q, char *salt)
{
    const struct moe_server *s = x->server;
    if (x->key < 0) return;
    q->tenant = (uint64_t)x->key + 1;
    if (s->o.share_cache) return;
    memcpy(salt, s->keys.v[x->key].digest, MOE_SHA256_BYTES);
    if (q->salt_bytes) memcpy(salt + MOE_SHA256_BYTES, q->salt, q->salt_bytes);
    q->salt = salt;
    q->salt_bytes += MOE_SHA256_BYTES;
}

bool moe_submit(struct moe_exchange *x, const cJSON *body, const struct moe_ids *prompt, int64_t n,
                const struct moe_request *defaults, const char *param, struct moe_api_error *e)
{
    struct moe_request_options o;
    const char *key = NULL;
    int64_t vocab = x->server->engine->model->config.vocab_size;
    if (moe_request_read_body(&o, body, defaults, vocab, &key, &e->err) != MOE_OK)
        return moe_api_fail_code(e, key);
    struct moe_request q = o.request;
    q.whole = !o.stream;
    char salt[MOE_SHA256_BYTES + MOE_SALT_BYTES_MAX];
    share_out(x, &q, salt);
    if (!moe_json_get(body, "seed") && getrandom(&q.seed, sizeof q.seed, 0) != (ssize_t)sizeof q.seed)
        q.seed = (uint64_t)time(NULL);
    bool ok = check(x, prompt, n, param, &o, e);
    if (ok && !prepare(x, n, &o)) ok = moe_api_fail(e, 503, NULL, "no memory for the request");
    if (ok) ok = submit_all(x, prompt, &q, param, e);
    moe_request_options_release(&o);
    return ok;
}
