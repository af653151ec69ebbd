/* SPDX-License-Identifier: Apache-2.0 */
/* /tokenize and /detokenize. */
#include "runtime/server/server-internal.h"

#include <stdlib.h>
#include <string.h>

static bool fail(struct moe_api_error *e, const char *param)
{
    return moe_api_fail_code(e, param);
}

/* The tokenizer; NULL: the model has none. */
static const struct moe_tokenizer *tokenizer_of(struct moe_exchange *x, struct moe_api_error *e)
{
    const struct moe_tokenizer *t = x->server->engine->tokenizer;
    if (!t) moe_api_fail(e, 400, NULL, "the model has no tokenizer");
    return t;
}

static bool answer_tokens(struct moe_exchange *x, const int32_t *ids, size_t n)
{
    cJSON *json = cJSON_CreateObject();
    moe_json_add_i64(json, "count", (int64_t)n);
    moe_json_add_i64(json, "max_model_len", x->server->info.context);
    cJSON *list = moe_json_add_array(json, "tokens");
    for (size_t i = 0; i < n; i++) moe_json_append(list, cJSON_CreateNumber(ids[i]));
    moe_exchange_answer(x, 200, json);
    return true;
}

static bool tokenize(const struct moe_tokenizer *t, const cJSON *o, struct moe_ids *p,
                     struct moe_api_error *e)
{
    const cJSON *prompt = moe_json_get(o, "prompt");
    if (!cJSON_IsString(prompt)) return moe_api_fail(e, 400, "prompt", "'prompt' is not a text");
    const char *s = prompt->valuestring;
    return moe_tokenize(t, s, strlen(s), false, &p->v, &p->n, &e->err) == MOE_OK || fail(e, "prompt");
}

bool moe_route_tokenize(struct moe_exchange *x, struct moe_api_error *e)
{
    const struct moe_tokenizer *t = tokenizer_of(x, e);
    cJSON *o = t ? moe_intake_parse(x, e) : NULL;
    if (!o) return false;
    struct moe_ids p = { 0 };
    bool ok = moe_json_get(o, "messages") ? moe_chat_prompt(x, o, &p, e) : tokenize(t, o, &p, e);
    if (ok) answer_tokens(x, p.v, p.n);
    free(p.v);
    cJSON_Delete(o);
    return ok;
}

/* Sets *ids, which the caller frees, to the list of ids under `tokens`. */
static bool read_ids(struct moe_exchange *x, const cJSON *list, int32_t **ids, size_t *n,
                     struct moe_api_error *e)
{
    int64_t vocab = x->server->engine->model->config.vocab_size;
    *ids = NULL;
    *n = 0;
    if (!cJSON_IsArray(list)) return moe_api_fail(e, 400, "tokens", "'tokens' is not a list of ids");
    *ids = malloc(((size_t)cJSON_GetArraySize(list) + 1) * sizeof **ids);
    if (!*ids) return moe_api_fail(e, 503, NULL, "no memory for the tokens");
    for (const cJSON *c = list->child; c; c = c->next) {
        double d = cJSON_IsNumber(c) ? c->valuedouble : -1;
        if (!(d >= 0 && d < (double)vocab) || d != (double)(int32_t)d)
            return moe_api_fail(e, 400, "tokens", "'tokens' has something that is no id below %lld",
                                (long long)vocab);
        (*ids)[(*n)++] = (int32_t)d;
    }
    return true;
}

bool moe_route_detokenize(struct moe_exchange *x, struct moe_api_error *e)
{
    const struct moe_tokenizer *t = tokenizer_of(x, e);
    cJSON *o = t ? moe_intake_parse(x, e) : NULL;
    if (!o) return false;
    int32_t *ids;
    char *text = NULL;
    size_t n, bytes;
    bool ok = read_ids(x, moe_json_get(o, "tokens"), &ids, &n, e);
    if (ok && moe_decode_all(t, ids, n, true, &text, &bytes, &e->err)) ok = fail(e, "tokens");
    if (ok) {
        cJSON *json = cJSON_CreateObject();
        moe_json_add_text(json, "prompt", text, bytes);
        moe_exchange_answer(x, 200, json);
    }
    free(text);
    free(ids);
    cJSON_Delete(o);
    return ok;
}
