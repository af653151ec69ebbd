/* SPDX-License-Identifier: Apache-2.0 */
/* Maps the experts that the plan gives this rank, chooses the plan by which it dispatches a layer, and
 * changes from one plan to the next while the run goes on. */
#include "runtime/parallel/ep-internal.h"

#include <stdio.h>
#include <string.h>
#include <stdlib.h>

/* Sets ep->want to the experts that this layer of a plan gives this rank. */
static void wanted(struct moe_ep *ep, const struct moe_plan_layer *l)
{
    memset(ep->want, 0, (size_t)ep->experts * sizeof *ep->want);
    for (int32_t s = l->first[ep->rank]; s < l->first[ep->rank + 1]; s++) ep->want[l->slot[s]] = true;
}

enum moe_code moe_ep_map(struct moe_ep *ep, const struct moe_plan_layer *l, struct moe_err *err)
{
    if (!ep->o.resident) return MOE_OK;
    wanted(ep, l);
    return moe_resident_add(ep->o.resident, l->layer, ep->want, ep->o.model, err);
}

const struct moe_plan_layer *moe_ep_layer(const struct moe_ep *ep, int layer)
{
    int i = moe_ep_index(ep, layer);
    return &(ep->next && i < ep->at.dispatching ? ep->next : ep->plan)->layers[i];
}

void moe_ep_note_progress(struct moe_ep *ep, int from, const struct moe_wire_progress *at)
{
    ep->peer[from] = *at;
}

enum moe_code moe_ep_check_covered(struct moe_ep *ep, struct moe_err *err)
{
    char list[160] = "";
    size_t len = 0;
    int32_t lost = 0, layers = 0;
    for (int i = 0; i < ep->n_moe; i++) {
        const struct moe_plan *p = ep->next && i < ep->at.dispatching ? ep->next : ep->plan;
        const struct moe_plan_layer *l = &p->layers[i];
        int32_t some[4], n = moe_plan_lost(p, l, ep->c->dead, some, 4);
        lost += n;
        layers += n > 0;
        for (int32_t k = 0; k < n && k < 4 && layers == 1 && len < sizeof list - 16; k++)
            len += (size_t)snprintf(list + len, sizeof list - len, "%s%d", k ? ", " : "", some[k]);
        if (layers == 1 && n > 4 && len < sizeof list - 8)
            len += (size_t)snprintf(list + len, sizeof list - len, " ...");
        if (layers == 1 && n && len < sizeof list - 24)
            len += (size_t)snprintf(list + len, sizeof list - len, " of layer %d", l->layer);
    }
    if (!lost) return MOE_OK;
    char dead[96] = "";
    len = 0;
    for (int r = 0; r < ep->ranks; r++)
        if (ep->c->dead[r] && len < sizeof dead - 8)
            len += (size_t)snprintf(dead + len, sizeof dead - len, "%s%d", len ? ", " : "", r);
    return moe_fail(err, MOE_DEVICE,
                    "rank%s %s gone, and with %s the only copies of %d expert%s: %s%s (a --plan made with "
                    "--survive %d keeps them)",
                    ep->c->n_dead > 1 ? "s" : "", dead, ep->c->n_dead > 1 ? "them" : "it", lost,
                    lost > 1 ? "s" : "", list, layers > 1 ? " and more in others" : "", ep->c->n_dead);
}

/* ---- moving ---- */

enum moe_code moe_ep_replan(struct moe_ep *ep, const struct moe_plan *plan, struct moe_err *err)
{
    if (ep->next) return moe_fail(err, MOE_EXISTS, "a move to another plan is under way");
    int64_t cap = ep->share_cap;
    MOE_TRY(moe_split_open(&ep->next_split, plan, err));
    for (int32_t i = 0; i < plan->n_layers; i++)
        if (plan->layers[i].slots > cap) cap = plan->layers[i].slots;
    int64_t *more = realloc(ep->share, (size_t)cap * sizeof *more);
    if (!more) return moe_fail(err, MOE_NOMEM, "no memory for a new plan");
    ep->share = more;
    ep->share_cap = cap;
    ep->next = plan;
    ep->dropped = 0;
    return MOE_OK;
}

/* How many MoE layers rank r has mapped (or, with `dispatching`, dispatches) by the plan that this rank
 * changes to. Ranks count their changes: one that has finished this change has done all layers, one that
 * has not begun, none. */
static int how_far(const struct moe_ep *ep, int r, bool dispatching)
{
    const struct moe_wire_progress *p = &ep->peer[r];
    if (p->moves > ep->at.moves) return (int)ep->n_moe;
    return p->moves < ep->at.moves ? 0 : dispatching ? p->dispatching : p->ready;
}

/* The smallest how_far of all living ranks.  Ranks that will dispatch nothing more do not count for
 * `dispatching`. */
static int min_progress(const struct moe_ep *ep, bool dispatching)
{
    int n = dispatching ? ep->at.dispatching : ep->at.ready;
    for (int r = 0; r < ep->ranks; r++) {
        if (r == ep->rank || ep->c->dead[r] || (dispatching && ep->done[r])) continue;
        int far = how_far(ep, r, dispatching);
        if (far < n) n = far;
    }
    return n;
}

enum moe_code moe_ep_move(struct moe_ep *ep, struct moe_err *err)
{
    if (!ep->next && ep->o.next && ep->stats.served >= ep->o.next_after) {
        MOE_TRY(moe_ep_replan(ep, ep->o.next, err));
        ep->o.next = NULL;
    }
    if (!ep->next) return MOE_OK;
    if (ep->at.ready < ep->n_moe) {
        MOE_TRY(moe_ep_map(ep, &ep->next->layers[ep->at.ready], err));
        ep->at.ready++;
    }
    ep->at.dispatching = ep->done[ep->rank] ? (int32_t)ep->n_moe : min_progress(ep, false);
    int end = min_progress(ep, true);
    if (end > ep->at.ready) end = ep->at.ready;
    for (; ep->dropped < end; ep->dropped++) {
        wanted(ep, &ep->next->layers[ep->dropped]);
        if (!ep->o.resident) continue;
        moe_resident_keep(ep->o.resident, ep->next->layers[ep->dropped].layer, ep->want, ep->o.model);
    }
    if (ep->dropped < ep->n_moe) return MOE_OK;
    ep->plan = ep->next;
    ep->next = NULL;
    moe_split_close(&ep->split);
    ep->split = ep->next_split;
    ep->next_split = NULL;
    ep->at = (struct moe_wire_progress){ ep->at.moves + 1, 0, 0 };
    ep->stats.moves++;
    return MOE_OK;
}
