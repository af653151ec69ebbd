/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/core-internal.h"

#include <stdlib.h>
#include <string.h>

enum moe_code moe_core_begin_edits(struct moe_core *c, struct moe_entry *e, struct moe_err *err)
{
    const struct moe_request *q = &e->q;
    size_t n = q->n_stop_ids, ends = q->ignore_eos ? 0 : (size_t)c->ends.n;
    const struct moe_penalties *p = &q->penalties;
    bool penalties = p->repetition > 0 || p->frequency != 0 || p->presence != 0 || p->n_bias;
    e->edits_any = penalties || q->min_tokens > 0;
    if (!e->edits_any) return MOE_OK;
    int32_t *banned = malloc((n + ends + 1) * sizeof *banned);
    if (!banned) return moe_fail(err, MOE_NOMEM, "no memory for a request");
    if (n) memcpy(banned, q->stop_ids, n * sizeof *banned);
    if (ends) memcpy(banned + n, c->ends.id, ends * sizeof *banned);
    enum moe_code code = moe_logit_edits_begin(&e->edits, p, c->e->vocab, q->ids, e->job.prompt,
                                               banned, n + ends, q->min_tokens, err);
    free(banned);
    return code;
}

enum moe_code moe_core_sample(struct moe_core *c, struct moe_entry *e, float *logits, struct moe_err *err)
{
    struct moe_answer *a = &e->answer;
    int64_t position = e->job.prompt + a->n, before = a->n;
    uint64_t draw = moe_draw(e->q.seed, e->q.choice, position);
    if (e->edits_any) moe_logit_edits_apply(&e->edits, logits);
    int32_t id = moe_sample(&e->q.sampler, draw, logits, c->e->vocab, c->order, c->p);
    if (e->logprobs) {
        if (e->edits_any) moe_logit_edits_undo(&e->edits, logits);
        moe_logprobs(logits, c->e->vocab, id, e->q.logprobs, &e->logprobs[a->n % e->logprobs_cap], c->p);
    }
    MOE_TRY(moe_answer_add(a, id, err));
    if (a->n == before) return MOE_OK;
    e->job.ids[position] = id;
    if (!a->done) e->job.n_ids++;
    c->stats.generated++;
    return e->edits_any ? moe_logit_edits_add(&e->edits, id, err) : MOE_OK;
}
