/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/core-internal.h"

#include "base/io.h"
#include "kernels/kernels.h"

#include <math.h>
#include <string.h>

static struct moe_entry *entry_of(const struct moe_schedule_row *r)
{
    return (struct moe_entry *)(void *)r->job;
}

/* What is not finite ends its request alone: rows of a batch depend on nothing but their own sequence.  The
 * pass stopped where it noticed, so the others are computed again by the next step. */
static enum moe_code blame(struct moe_core *c, const struct moe_schedule_step *step,
                           const struct moe_err *err)
{
    const float *h = c->e->h;
    int64_t hidden = c->e->model->config.hidden_size, ended = 0;
    for (int64_t i = 0; i < step->n_rows; h += step->row[i++].n * hidden) {
        if (isfinite(moe_kernels()->amax(h, step->row[i].n * hidden))) continue;
        c->wanted[ended++] = entry_of(&step->row[i]);
    }
    for (int64_t i = 0; i < ended; i++) moe_core_end(c, c->wanted[i], MOE_FINISH_ERROR, err);
    return ended ? MOE_OK : err->code;
}

static enum moe_code forward(struct moe_core *c, const struct moe_schedule_step *step, struct moe_err *err)
{
    int64_t n = 0;
    for (int64_t i = 0; i < step->n_copies; i++) moe_latent_copy(&c->cache, &step->copy[i]);
    for (int64_t i = 0; i < step->n_rows; n += step->row[i++].n) {
        const struct moe_schedule_row *r = &step->row[i];
        c->segment[i] = (struct moe_segment){ &c->cache, r->job->table.page, r->first, r->n };
        if (r->n == 1) c->tokens[n] = r->job->ids[r->first]; /* by far the most frequent case */
        else memcpy(c->tokens + n, r->job->ids + r->first, (size_t)r->n * sizeof *c->tokens);
    }
    double begun = moe_now();
    enum moe_code code =
        moe_forward_run(c->e->forward, c->tokens, c->segment, step->n_rows, c->e->h, err);
    c->stats.seconds_pass += moe_now() - begun;
    return code;
}

enum moe_code moe_core_pass(struct moe_core *c, const struct moe_schedule_step *step, int64_t *wanted,
                            struct moe_err *err)
{
    float *h = c->e->h;
    int64_t hidden = c->e->model->config.hidden_size, at = 0;
    *wanted = 0;
    enum moe_code code = forward(c, step, err);
    if (code == MOE_NONFINITE) return blame(c, step, err);
    MOE_TRY(code);
    for (int64_t i = 0; i < step->n_rows; i++) {
        const struct moe_schedule_row *r = &step->row[i];
        struct moe_entry *e = entry_of(r);
        at += r->n;
        if (!e->begun) e->begun = true, c->n_begun++, c->stats.prompt_found += e->job.found;
        if (!r->last) continue;
        if (*wanted != at - 1)
            memmove(h + *wanted * hidden, h + (at - 1) * hidden, (size_t)hidden * sizeof *h);
        c->wanted[(*wanted)++] = e;
    }
    moe_schedule_computed(c->schedule);
    return MOE_OK;
}

enum moe_code moe_core_logits(struct moe_core *c, int64_t from, int64_t n, struct moe_err *err)
{
    int64_t hidden = c->e->model->config.hidden_size, v = c->e->model->config.vocab_size, ended = 0;
    double begun = moe_now();
    enum moe_code code = moe_forward_logits(c->e->forward, c->e->h + from * hidden, n, c->logits, err);
    c->stats.seconds_pass += moe_now() - begun;
    if (code != MOE_NONFINITE) return code;
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(moe_kernels()->amax(c->logits + i * v, v))) continue;
        moe_core_end(c, c->wanted[from + i], MOE_FINISH_ERROR, err);
        ended++;
    }
    return ended ? MOE_OK : code;
}
