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
 * step is then without its rows. */
static enum moe_code end_nonfinite(struct moe_core *c, const struct moe_schedule_step *step,
                                   const struct moe_err *why, struct moe_err *err)
{
    int64_t ended = 0, at = 0;
    for (int64_t i = 0; i < step->n_rows; at += step->row[i++].n) {
        bool finite;
        MOE_TRY(moe_forward_finite(c->e->forward, at, step->row[i].n, &finite, err));
        if (!finite) c->wanted[ended++] = entry_of(&step->row[i]);
    }
    for (int64_t i = 0; i < ended; i++) moe_core_end(c, c->wanted[i], MOE_FINISH_ERROR, why);
    if (!ended) *err = *why;
    return ended ? MOE_OK : why->code;
}

static enum moe_code forward(struct moe_core *c, const struct moe_schedule_step *step, struct moe_err *err)
{
    struct moe_batch b = { c->tokens, 0, c->segment, step->n_rows };
    for (int64_t i = 0; i < step->n_rows; b.n += step->row[i++].n) {
        const struct moe_schedule_row *r = &step->row[i];
        c->segment[i] = (struct moe_segment){ &c->cache, r->job->table.page, r->first, r->n };
        if (r->n == 1) c->tokens[b.n] = r->job->ids[r->first]; /* by far the most frequent case */
        else memcpy(c->tokens + b.n, r->job->ids + r->first, (size_t)r->n * sizeof *c->tokens);
    }
    double begun = moe_now();
    enum moe_code code = moe_forward_run(c->e->forward, &b, err);
    if (code == MOE_OK) code = moe_forward_wait(c->e->forward, err);
    /* what was computed from a file that was cut short meanwhile is not the model's */
    if (code == MOE_OK || code == MOE_NONFINITE) MOE_TRY(moe_map_check(err));
    c->stats.seconds_pass += moe_now() - begun;
    return code;
}

/* Computes the step, again without the rows of those who are not finite.  So nobody waits for them longer. */
static enum moe_code compute(struct moe_core *c, const struct moe_schedule_step *step, struct moe_err *err)
{
    struct moe_device *d = c->e->device;
    struct moe_err why;
    for (int64_t i = 0; i < step->n_copies; i++) d->ops->copy(d, &c->cache, &step->copy[i]);
    while (step->n_rows) {
        enum moe_code code = forward(c, step, &why);
        if (code == MOE_NONFINITE) {
            MOE_TRY(end_nonfinite(c, step, &why, err));
            continue;
        }
        if (code != MOE_OK) *err = why;
        return code;
    }
    return MOE_OK;
}

enum moe_code moe_core_pass(struct moe_core *c, const struct moe_schedule_step *step, int64_t *wanted,
                            struct moe_err *err)
{
    int64_t at = 0;
    *wanted = 0;
    MOE_TRY(compute(c, step, err));
    for (int64_t i = 0; i < step->n_rows; i++) {
        const struct moe_schedule_row *r = &step->row[i];
        struct moe_entry *e = entry_of(r);
        at += r->n;
        if (!e->begun) e->begun = true, c->n_begun++, c->stats.prompt_found += e->job.found;
        if (!r->last) continue;
        c->row[*wanted] = (int32_t)(at - 1);
        c->wanted[(*wanted)++] = e;
    }
    moe_schedule_computed(c->schedule);
    return MOE_OK;
}

enum moe_code moe_core_logits(struct moe_core *c, int64_t from, int64_t n, struct moe_err *err)
{
    int64_t v = c->e->model->config.vocab_size, ended = 0;
    double begun = moe_now();
    moe_forward_logits(c->e->forward, c->row + from, n, c->logits);
    enum moe_code code = moe_forward_wait(c->e->forward, err);
    if (code == MOE_OK || code == MOE_NONFINITE) MOE_TRY(moe_map_check(err));
    c->stats.seconds_pass += moe_now() - begun;
    if (code != MOE_NONFINITE) return code;
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(moe_kernels()->amax(c->logits + i * v, v))) continue;
        moe_core_end(c, c->wanted[from + i], MOE_FINISH_ERROR, err);
        ended++;
    }
    return ended ? MOE_OK : code;
}
