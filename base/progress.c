/* SPDX-License-Identifier: Apache-2.0 */
#include "base/progress.h"

#include "base/err.h"

#include <stdio.h>

void moe_progress_init(struct moe_progress *p, moe_progress_fn *told, void *ctx)
{
    *p = (struct moe_progress){ .told = told, .ctx = ctx };
    pthread_mutex_init(&p->lock, NULL);
}

void moe_progress_release(struct moe_progress *p)
{
    moe_progress_end(p);
    pthread_mutex_destroy(&p->lock);
}

void moe_progress_begin(struct moe_progress *p, const char *label, uint64_t total, enum moe_unit unit)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    MOE_CHECK(!p->begun);
    p->begun = true;
    p->work = (struct moe_progress_work){ .total = total, .unit = unit };
    snprintf(p->work.label, sizeof p->work.label, "%s", label);
    p->told(p->ctx, &p->work, MOE_PROGRESS_BEGUN);
    pthread_mutex_unlock(&p->lock);
}

void moe_progress_add(struct moe_progress *p, uint64_t n)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->work.done += n;
    if (p->begun) p->told(p->ctx, &p->work, MOE_PROGRESS_ADDED);
    pthread_mutex_unlock(&p->lock);
}

void moe_progress_skip(struct moe_progress *p, uint64_t n)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->work.done += n;
    p->work.skipped += n;
    pthread_mutex_unlock(&p->lock);
}

void moe_progress_label(struct moe_progress *p, const char *label)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    snprintf(p->work.label, sizeof p->work.label, "%s", label);
    pthread_mutex_unlock(&p->lock);
}

void moe_progress_end(struct moe_progress *p)
{
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    if (p->begun) p->told(p->ctx, &p->work, MOE_PROGRESS_ENDED);
    p->begun = false;
    pthread_mutex_unlock(&p->lock);
}
