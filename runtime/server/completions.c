/* SPDX-License-Identifier: Apache-2.0 */
/* /v1/completions: texts or ids that are gone on from. */
#include "runtime/server/server-internal.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 16 }; /* where a request does not say, as OpenAI has it */

static bool fail_prompt(struct moe_api_error *e)
{
    return moe_api_fail(e, 400, "prompt",
                        "'prompt' is neither a text, a list of ids, a list of texts nor a list of lists of "
                        "ids");
}

/* Sets *p to the ids of a text or of a list of ids; p->v is the caller's. */
static bool encode(struct moe_exchange *x, const cJSON *v, struct moe_ids *p, struct moe_api_error *e)
{
    const struct moe_tokenizer *t = x->server->engine->tokenizer;
    int64_t vocab = x->server->engine->model->config.vocab_size;
    if (cJSON_IsString(v)) {
        if (!t) return moe_api_fail(e, 400, "prompt", "the model has no tokenizer, and takes ids alone");
        return moe_tokenize(t, v->valuestring, strlen(v->valuestring), false, &p->v, &p->n, &e->err) ==
               MOE_OK || moe_api_fail_code(e, "prompt");
    }
    if (!cJSON_IsArray(v)) return fail_prompt(e);
    p->v = malloc(((size_t)cJSON_GetArraySize(v) + 1) * sizeof *p->v);
    if (!p->v) return moe_api_fail(e, 503, NULL, "no memory for the prompt");
    for (const cJSON *c = v->child; c; c = c->next) {
        double d = c->valuedouble;
        if (!cJSON_IsNumber(c) || d != (double)(int64_t)d) return fail_prompt(e);
        if (!(d >= 0 && d < (double)vocab))
            return moe_api_fail(e, 400, "prompt", "token %.0f is outside the model's vocabulary of %lld", d,
                                (long long)vocab);
        p->v[p->n++] = (int32_t)d;
    }
    return true;
}

/* Encodes all prompts of the body into prompt [MOE_HTTP_REQUESTS], which is zeroed. */
static bool encode_all(struct moe_exchange *x, const cJSON *v, struct moe_ids *prompt, int64_t *n,
                       struct moe_api_error *e)
{
    *n = 0;
    if (!v) return moe_api_fail(e, 400, "prompt", "there is no 'prompt'");
    bool several = cJSON_IsArray(v) && v->child && !cJSON_IsNumber(v->child);
    if (!several) return encode(x, v, &prompt[(*n)++], e);
    for (const cJSON *c = v->child; c; c = c->next) {
        if (*n == MOE_HTTP_REQUESTS)
            return moe_api_fail(e, 400, "prompt", "more than %d prompts", MOE_HTTP_REQUESTS);
        if (!encode(x, c, &prompt[(*n)++], e)) return false;
    }
    return true;
}

bool moe_route_completions(struct moe_exchange *x, struct moe_api_error *e)
{
    const struct moe_request defaults = { .max_tokens = MAX_TOKENS,
                                          .sampler = { .temperature = 1, .top_p = 1 },
                                          .logprobs = -1 };
    struct moe_ids prompt[MOE_HTTP_REQUESTS] = { { 0 } };
    int64_t n = 0;
    cJSON *body = moe_intake_parse(x, e);
    if (!body) return false;
    x->format = &moe_format_completion;
    bool ok = moe_submit_model(x, body, e) && encode_all(x, moe_json_get(body, "prompt"), prompt, &n, e) &&
              moe_submit(x, body, prompt, n, &defaults, "prompt", e);
    for (int64_t i = 0; i < n; i++) free(prompt[i].v);
    cJSON_Delete(body);
    return ok;
}
