/* SPDX-License-Identifier: Apache-2.0 */
/* The paths, and those that say something of the server. */
#include "runtime/server/server-internal.h"

#include <string.h>

static bool answer(struct moe_exchange *x, int status, cJSON *json)
{
    moe_exchange_answer(x, status, json);
    return true;
}

/* ---- of the server ---- */

static bool health(struct moe_exchange *x, struct moe_api_error *e)
{
    static const char *const names[] = { "starting", "ready", "draining" };
    int state = atomic_load(&x->server->state);
    cJSON *json = cJSON_CreateObject();
    (void)e;
    moe_json_add_str(json, "status", names[state]);
    if (state != MOE_SERVER_READY) x->retry_after = 5;
    return answer(x, state == MOE_SERVER_READY ? 200 : 503, json);
}

static bool version(struct moe_exchange *x, struct moe_api_error *e)
{
    cJSON *json = cJSON_CreateObject();
    (void)e;
    moe_json_add_str(json, "version", MOE_VERSION);
    return answer(x, 200, json);
}

static cJSON *model_json(const struct moe_server *s, const char *name)
{
    cJSON *o = cJSON_CreateObject();
    moe_json_add_str(o, "id", name);
    moe_json_add_str(o, "object", "model");
    moe_json_add_i64(o, "created", s->created);
    moe_json_add_str(o, "owned_by", "moe");
    moe_json_add_str(o, "root", s->o.names[0]);
    moe_json_add_i64(o, "max_model_len", s->info.context);
    return o;
}

static bool models(struct moe_exchange *x, struct moe_api_error *e)
{
    const struct moe_server *s = x->server;
    cJSON *json = cJSON_CreateObject();
    (void)e;
    moe_json_add_str(json, "object", "list");
    cJSON *list = moe_json_add_array(json, "data");
    for (size_t i = 0; i < s->o.n_names; i++) moe_json_append(list, model_json(s, s->o.names[i]));
    return answer(x, 200, json);
}

static bool one_model(struct moe_exchange *x, struct moe_api_error *e)
{
    const struct moe_server *s = x->server;
    for (size_t i = 0; i < s->o.n_names; i++)
        if (!strcmp(x->tail, s->o.names[i])) return answer(x, 200, model_json(s, s->o.names[i]));
    moe_api_fail(e, 404, "model", "there is no model '%.100s' here", x->tail);
    e->code = "model_not_found";
    return false;
}

/* What the server is, and what it has to do now. */
static bool server_info(struct moe_exchange *x, struct moe_api_error *e)
{
    struct moe_server *s = x->server;
    struct moe_core_stats t = moe_core_stats(s->core);
    cJSON *json = cJSON_CreateObject();
    (void)e;
    pthread_mutex_lock(&s->lock);
    int64_t requests = s->n_exchanges;
    uint64_t bodies = s->bodies;
    pthread_mutex_unlock(&s->lock);
    moe_json_add_str(json, "version", MOE_VERSION);
    moe_json_add_str(json, "model_path", s->o.model);
    moe_json_add_str(json, "served_model_name", s->o.names[0]);
    moe_json_add_str(json, "role", "both");
    moe_json_add_i64(json, "context", s->info.context);
    moe_json_add_i64(json, "cache_tokens", s->info.cache_tokens);
    moe_json_add_i64(json, "requests", requests); /* this one, too */
    moe_json_add_i64(json, "body_bytes", (int64_t)bodies);
    moe_json_add_i64(json, "waiting", t.waiting);
    moe_json_add_i64(json, "running", t.running);
    moe_json_add_i64(json, "held", t.held);
    moe_json_add_i64(json, "pages", t.pages);
    moe_json_add_i64(json, "pages_used", t.pages_used);
    moe_json_add_i64(json, "preemptions", t.preemptions);
    return answer(x, 200, json);
}

static bool metrics(struct moe_exchange *x, struct moe_api_error *e)
{
    struct moe_server *s = x->server;
    struct moe_core_stats t = moe_core_stats(s->core);
    struct moe_buffer out = { 0 };
    (void)e;
    pthread_mutex_lock(&s->lock);
    int64_t exchanges = s->n_exchanges;
    uint64_t bodies = s->bodies;
    pthread_mutex_unlock(&s->lock);
    moe_metrics_print(&out, &s->metrics, &t, exchanges, bodies, s->o.names[0]);
    moe_exchange_answer_text(x, 200, &out, "text/plain; version=0.0.4; charset=utf-8");
    return true;
}

/* What routers of SGLang ask before they send requests. */
static bool model_info(struct moe_exchange *x, struct moe_api_error *e)
{
    const struct moe_server *s = x->server;
    cJSON *json = cJSON_CreateObject();
    (void)e;
    moe_json_add_str(json, "model_path", s->o.model);
    moe_json_add_str(json, "tokenizer_path", s->o.model);
    moe_json_add_bool(json, "is_generation", true);
    moe_json_add_i64(json, "max_model_len", s->info.context);
    return answer(x, 200, json);
}

/* ---- the table ---- */

enum { GET = 1, POST = 2, MODEL = 4, OPEN = 8 };
#define ROUTE(path, is, fn) { path, !!((is) & GET), !!((is) & POST), !!((is) & MODEL), !!((is) & OPEN), fn }

static const struct moe_route routes[] = {
    ROUTE("/health", GET | OPEN, health),
    ROUTE("/version", GET | OPEN, version),
    ROUTE("/metrics", GET | MODEL, metrics),
    ROUTE("/server_info", GET | MODEL, server_info),
    ROUTE("/get_server_info", GET | MODEL, server_info),
    ROUTE("/model_info", GET | MODEL, model_info),
    ROUTE("/get_model_info", GET | MODEL, model_info),
    ROUTE("/v1/models", GET | MODEL, models),
    ROUTE("/v1/models/", GET | MODEL, one_model),
    ROUTE("/v1/chat/completions", POST | MODEL, moe_route_chat),
    ROUTE("/v1/completions", POST | MODEL, moe_route_completions),
    ROUTE("/apply-template", POST | MODEL, moe_route_template),
    ROUTE("/tokenize", POST | MODEL, moe_route_tokenize),
    ROUTE("/detokenize", POST | MODEL, moe_route_detokenize),
};

const struct moe_route *moe_route_find(const char *url)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        const char *path = routes[i].path;
        size_t n = strlen(path);
        if (!strcmp(path, url) || (path[n - 1] == '/' && !strncmp(path, url, n))) return &routes[i];
    }
    return NULL;
}

const char *moe_route_tail(const struct moe_route *r, const char *url)
{
    size_t n = strlen(r->path);
    return r->path[n - 1] == '/' && strlen(url) >= n ? url + n : "";
}
