/* SPDX-License-Identifier: Apache-2.0 */
/* What other threads ask of the core: submissions, with a copy of the request, and cancellations. */
#include "runtime/engine/core-internal.h"

#include "base/grow.h"
#include "base/minmax.h"

#include <stdlib.h>
#include <string.h>

/* ---- refusals ---- */

static enum moe_code check_ids(const struct moe_core *c, const struct moe_request *q, struct moe_err *err)
{
    int64_t vocab = c->e->model->config.vocab_size;
    for (int64_t i = 0; i < q->n_ids; i++)
        if (q->ids[i] < 0 || q->ids[i] >= vocab)
            return moe_fail(err, MOE_MISMATCH, "token %d is outside the model's vocabulary of %lld",
                            (int)q->ids[i], (long long)vocab);
    return MOE_OK;
}

static enum moe_code check(const struct moe_core *c, const struct moe_request *q, struct moe_err *err)
{
    int64_t room = c->stats.pages * MOE_PAGE;
    if (q->n_answer < 0 || q->n_ids - q->n_answer < 1)
        return moe_fail(err, MOE_USAGE, "the prompt is empty (give some text, --tokens, or --bos)");
    if (q->n_ids > c->e->context)
        return moe_fail(err, MOE_USAGE,
                        "%lld tokens do not fit the context of %lld (raise --context, or shorten the prompt)",
                        (long long)q->n_ids, (long long)c->e->context);
    if (q->n_ids > room)
        return moe_fail(err, MOE_USAGE,
                        "%lld tokens do not fit the cache of %lld (raise the cache or --memory)",
                        (long long)q->n_ids, (long long)room);
    if (q->logprobs > MOE_LOGPROBS)
        return moe_fail(err, MOE_USAGE, "%d alternatives are asked for each token: want %d at most",
                        q->logprobs, MOE_LOGPROBS);
    return check_ids(c, q, err);
}

/* ---- a copy of the request ---- */

void moe_entry_free(struct moe_entry *e)
{
    if (!e) return;
    free(e->job.ids);
    moe_answer_release(&e->answer);
    moe_logit_edits_release(&e->edits);
    for (size_t i = 0; e->q.stop && i < e->q.n_stop; i++) free((void *)(uintptr_t)e->q.stop[i]);
    free((void *)(uintptr_t)e->q.stop);
    free((void *)(uintptr_t)e->q.stop_ids);
    free(e->logprobs);
    free(e->err);
    free(e);
}

static bool copy_stops(struct moe_entry *e, const struct moe_request *q)
{
    char **stop = calloc(q->n_stop + 1, sizeof *stop);
    int32_t *ids = malloc((q->n_stop_ids + 1) * sizeof *ids);
    e->q.stop = (const char *const *)stop;
    e->q.stop_ids = ids;
    if (!stop || !ids) return false;
    if (q->n_stop_ids) memcpy(ids, q->stop_ids, q->n_stop_ids * sizeof *ids);
    for (size_t i = 0; i < q->n_stop; i++)
        if (!(stop[i] = strdup(q->stop[i]))) return false;
    return true;
}

/* The copy, with all the memory that the answer is going to need but for a long text. */
static struct moe_entry *copy_request(struct moe_core *c, const struct moe_request *q)
{
    struct moe_entry *e = calloc(1, sizeof *e);
    if (!e) return NULL;
    int64_t context = moe_min_i64(c->e->context, c->stats.pages * MOE_PAGE);
    int64_t prompt = q->n_ids - q->n_answer, rest = context - prompt;
    e->q = *q;
    e->timer_place = -1;
    e->max_tokens = q->max_tokens >= 0 && q->max_tokens < rest ? q->max_tokens : rest;
    int64_t all = moe_max_i64(q->n_ids, prompt + e->max_tokens);
    bool ok = copy_stops(e, q);
    e->job = (struct moe_job){ .ids = malloc((size_t)all * sizeof *e->job.ids),
                               .n_ids = q->n_ids,
                               .prompt = prompt,
                               .max_positions = all,
                               .tenant = q->tenant,
                               .priority = q->priority };
    e->q.ids = e->job.ids;
    if (!ok || !e->job.ids) return moe_entry_free(e), NULL;
    memcpy(e->job.ids, q->ids, (size_t)q->n_ids * sizeof *q->ids);
    if (q->logprobs >= 0) {
        bool bounded = c->o.unread > 0 && !q->whole && c->o.unread < e->max_tokens;
        e->logprobs_cap = bounded ? c->o.unread : e->max_tokens + 1;
        e->logprobs = calloc((size_t)e->logprobs_cap, sizeof *e->logprobs);
        if (!e->logprobs) return moe_entry_free(e), NULL;
    }
    e->answer = (struct moe_answer){ .q = &e->q,
                                     .tokenizer = c->e->tokenizer,
                                     .ends = &c->ends,
                                     .lock = &c->lock,
                                     .max_tokens = e->max_tokens };
    return e;
}

/* Goes over the part of the answer that the request came with, as if it had been computed here. */
static enum moe_code resume(struct moe_entry *e, struct moe_err *err)
{
    struct moe_answer *a = &e->answer;
    for (int64_t i = 0; i < e->q.n_answer; i++) {
        int32_t id = e->job.ids[e->job.prompt + i];
        if (!a->done) MOE_TRY(moe_answer_add(a, id, err));
        if (a->n <= i)
            return moe_fail(err, MOE_USAGE, "an answer that is said to go on behind %lld tokens ends at %lld",
                            (long long)e->q.n_answer, (long long)a->n);
        if (e->edits_any) MOE_TRY(moe_logit_edits_add(&e->edits, id, err));
    }
    if (e->q.answer_bytes > a->sent)
        return moe_fail(err, MOE_USAGE,
                        "%zu bytes of an answer are said to be reported, and %lld tokens of it "
                        "give %zu at most",
                        e->q.answer_bytes, (long long)e->q.n_answer, a->sent);
    e->shown = e->read = a->n;
    e->shown_text = e->read_text = e->q.answer_bytes;
    return MOE_OK;
}

static enum moe_code begin_answer(struct moe_core *c, struct moe_entry *e, struct moe_err *err)
{
    MOE_TRY(moe_answer_begin(&e->answer, err));
    MOE_TRY(moe_core_begin_edits(c, e, err));
    e->q.penalties.bias = NULL;
    e->q.penalties.n_bias = 0;
    return resume(e, err);
}

/* ---- names, with lock held ---- */

struct moe_entry *moe_core_find(const struct moe_core *c, uint64_t id)
{
    int64_t i = (int64_t)(id & UINT32_MAX) - 1;
    struct moe_entry *e = i >= 0 && i < c->n_slots ? c->slot[i].entry : NULL;
    return e && e->id == id ? e : NULL;
}

static bool name(struct moe_core *c, struct moe_entry *e)
{
    int32_t i = c->free_slot;
    if (i >= 0) {
        c->free_slot = c->slot[i].next_free;
    } else {
        if (c->n_slots == INT32_MAX || !MOE_GROW(c->slot, c->slots_cap, (size_t)c->n_slots + 1)) return false;
        i = (int32_t)c->n_slots++;
        c->slot[i] = (struct moe_slot){ .generation = 0 };
    }
    c->slot[i].entry = e;
    e->id = (uint64_t)c->slot[i].generation << 32 | (uint32_t)(i + 1);
    return true;
}

void moe_core_forget_id(struct moe_core *c, const struct moe_entry *e)
{
    int32_t i = (int32_t)((e->id & UINT32_MAX) - 1);
    c->slot[i] = (struct moe_slot){ .generation = c->slot[i].generation + 1, .next_free = c->free_slot };
    c->free_slot = i;
}

void moe_core_ask(struct moe_core *c, struct moe_entry *e, int what)
{
    if (!e->asked) {
        e->next_asked = NULL;
        *c->asked_end = e;
        c->asked_end = &e->next_asked;
    }
    e->asked |= what;
    pthread_cond_signal(&c->work);
}

/* ---- public ---- */

/* Names the entry and lets the next step take it in; with lock held. */
static enum moe_code enter(struct moe_core *c, struct moe_entry *e, struct moe_err *err)
{
    if (c->closed != MOE_OK) {
        *err = c->err;
        return c->closed;
    }
    if (c->o.queue > 0 && c->queued >= c->o.queue)
        return moe_fail(err, MOE_BUSY, "%lld requests wait already (try again later)", (long long)c->queued);
    if (!name(c, e)) return moe_fail(err, MOE_NOMEM, "no memory for a request");
    const uint64_t apart = e->id;
    e->job.root = c->o.apart ? moe_pages_root(&apart, sizeof apart)
                             : moe_pages_root(e->q.salt, (int64_t)e->q.salt_bytes);
    e->q.salt = NULL;
    e->job.arrival = moe_core_now(c);
    c->queued++;
    moe_core_ask(c, e, MOE_ASK_BEGIN);
    return MOE_OK;
}

enum moe_code moe_core_submit(struct moe_core *c, const struct moe_request *q, uint64_t *id,
                              struct moe_err *err)
{
    MOE_TRY(check(c, q, err));
    struct moe_entry *e = copy_request(c, q);
    if (!e)
        return moe_fail(err, MOE_NOMEM, "no memory for a request of %lld tokens", (long long)q->n_ids);
    enum moe_code code = begin_answer(c, e, err);
    pthread_mutex_lock(&c->lock);
    if (code == MOE_OK) code = enter(c, e, err);
    if (code == MOE_OK) *id = e->id; /* its reader may free it as soon as the lock is given up */
    pthread_mutex_unlock(&c->lock);
    if (code != MOE_OK) moe_entry_free(e);
    return code;
}

void moe_core_cancel(struct moe_core *c, uint64_t id)
{
    pthread_mutex_lock(&c->lock);
    struct moe_entry *e = moe_core_find(c, id);
    if (e && !e->ended) moe_core_ask(c, e, MOE_ASK_CANCEL);
    pthread_mutex_unlock(&c->lock);
}
