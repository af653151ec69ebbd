/* SPDX-License-Identifier: Apache-2.0 */
/* Decides which rank reports for all when the work is done: the lowest living rank, and the next one when
 * that rank dies before it has told the others that it has reported. */
#include "runtime/parallel/ep-internal.h"

#include <string.h>

enum moe_code moe_ep_await_report_turn(struct moe_ep *ep, bool *mine, struct moe_err *err)
{
    moe_comm_begin_wait(ep->c);
    for (;;) {
        int reporter = 0; /* the lowest living rank; the others wait for it, or mark it dead when silent */
        MOE_TRY(moe_ep_receive(ep, err));
        while (reporter < ep->rank && ep->c->dead[reporter]) reporter++;
        *mine = reporter == ep->rank && !ep->reported;
        if (*mine || ep->reported) return MOE_OK;
        memset(ep->awaited, 0, (size_t)ep->ranks * sizeof *ep->awaited);
        ep->awaited[reporter] = true;
        MOE_TRY(moe_comm_wait(ep->c, err));
        moe_comm_mark_dead(ep->c, ep->awaited);
    }
}

int moe_ep_report_begun_by(const struct moe_ep *ep) { return ep->report_begun - 1; }

enum moe_code moe_ep_begin_report(struct moe_ep *ep, struct moe_err *err)
{
    MOE_TRY(moe_comm_broadcast(ep->c, MESSAGE_REPORT_BEGUN, NULL, 0, err));
    return moe_comm_heartbeat(ep->c, err);
}

enum moe_code moe_ep_end_report(struct moe_ep *ep, struct moe_err *err)
{
    return moe_comm_broadcast(ep->c, MESSAGE_REPORTED, NULL, 0, err);
}

enum moe_code moe_ep_heartbeat(struct moe_ep *ep, struct moe_err *err)
{
    return moe_comm_heartbeat(ep->c, err);
}

int moe_ep_tick_ms(const struct moe_ep *ep) { return (int)(1000 * ep->c->timeout / MOE_COMM_TICKS) + 1; }
