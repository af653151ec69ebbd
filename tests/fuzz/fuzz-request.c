/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the options of requests from any JSON.  Each object has to be refused with a sentence and the key to
 * blame, or its options have to be within their ranges.  With penalties as they were read, no logit becomes
 * NaN. */
#undef NDEBUG
#include "kernels/logprob.h"
#include "runtime/engine/request-json.h"

#include <assert.h>
#include <math.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { VOCAB = 1000 };

static void check_edits(const struct moe_request *q)
{
    struct moe_err err = MOE_ERR_INIT;
    const int32_t prompt[] = { 1, 2, 3, 2 };
    float row[VOCAB];
    struct moe_logit_edits e;
    for (int i = 0; i < VOCAB; i++) row[i] = (float)(i % 7 - 3) * 100;
    row[5] = -INFINITY;
    assert(moe_logit_edits_begin(&e, &q->penalties, VOCAB, prompt, 4, q->stop_ids, q->n_stop_ids,
                                 q->min_tokens, &err) == MOE_OK);
    for (int32_t i = 0; i < 5; i++) assert(moe_logit_edits_add(&e, 2 * i, &err) == MOE_OK);
    moe_logit_edits_apply(&e, row);
    for (int i = 0; i < VOCAB; i++) assert(!isnan(row[i]));
    moe_logit_edits_release(&e);
}

static void check(const struct moe_request_options *o)
{
    const struct moe_request *q = &o->request;
    const struct moe_penalties *p = &q->penalties;
    assert(q->max_tokens >= -1 && q->min_tokens >= 0);
    assert(q->max_tokens < 0 || q->min_tokens <= q->max_tokens);
    assert(isfinite(q->sampler.temperature) && q->sampler.temperature >= 0 && q->sampler.top_k >= 0);
    assert(q->sampler.top_p > 0 && q->sampler.top_p <= 1 && q->sampler.min_p >= 0 && q->sampler.min_p <= 1);
    assert(isfinite(p->repetition) && p->repetition >= 0);
    assert(fabsf(p->frequency) <= 2 && fabsf(p->presence) <= 2);
    assert(o->n >= 1 && o->n <= MOE_CHOICES_MAX && q->logprobs >= -1 && q->logprobs <= MOE_LOGPROBS);
    assert(q->n_stop <= MOE_STOPS_MAX && q->n_stop_ids <= MOE_STOP_IDS_MAX && p->n_bias <= MOE_BIASES_MAX);
    for (size_t i = 0; i < q->n_stop; i++) assert(*q->stop[i] && strlen(q->stop[i]) <= MOE_STOP_BYTES_MAX);
    for (size_t i = 0; i < q->n_stop_ids; i++) assert(q->stop_ids[i] >= 0 && q->stop_ids[i] < VOCAB);
    for (size_t i = 0; i < p->n_bias; i++) assert(p->bias[i].id < VOCAB && fabsf(p->bias[i].bias) <= 100);
    assert(!q->salt || strlen(q->salt) == q->salt_bytes);
    check_edits(q);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct moe_request defaults = { .max_tokens = -1, .sampler = { .top_p = 1 }, .logprobs = -1 };
    const char *text = (const char *)data, *key = NULL;
    struct moe_request_options o;
    struct moe_err err = MOE_ERR_INIT;
    cJSON *root;
    if (moe_json_parse(text, size, NULL, &root, &err) != MOE_OK) return 0;
    assert(moe_json_keep_numbers(root, text, size, &err) == MOE_OK);
    enum moe_code code = moe_request_read(&o, root, &defaults, VOCAB, &key, &err);
    assert(code == MOE_OK || ((code == MOE_CORRUPT || code == MOE_UNSUPPORTED) && err.msg[0] && key));
    if (code == MOE_OK) check(&o);
    moe_request_options_release(&o);
    cJSON_Delete(root);
    return 0;
}
