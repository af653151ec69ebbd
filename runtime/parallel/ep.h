/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/parallel/ep.h - one rank of an expert-parallel run: it dispatches the tokens of its own sequences
 * to the ranks that hold the chosen experts, combines what they return, and is itself the expert server of
 * the experts that the plan gives it.
 *
 * A rank owns its sequences with their cache and runs the whole forward pass for them, except the routed
 * experts (struct moe_dispatcher, model/forward.h).  In each MoE layer it sends one request to every rank:
 * the input rows that some expert there needs, each row once, and (row, expert) pairs.  A request may be
 * empty.  An expert server waits until every rank that is at work has sent its request, computes all pairs
 * of one layer together, so that the weights of an expert are read once for the tokens of all ranks, and
 * replies with one output row a pair.  The rank that dispatched multiplies these rows by their router weights
 * and adds them in top-k order, as it would its own: the result is the same bits for any number of ranks, any
 * plan, any choice of replica and any order of arrival.
 *
 * When a rank dies (runtime/comm/comm.h), the ranks that still wait for its replies dispatch the missing
 * pairs once more, to other ranks that hold a copy of the expert; to those this is a request like any
 * other.  The other ranks wait meanwhile: of all requests a server computes those of the lowest (pass,
 * layer) first.  When no living rank holds a chosen expert, the run ends with an error.
 *
 * A new plan takes effect layer by layer while the run goes on.  Each rank maps the experts that the new
 * plan gives it, one layer a request, and says in every message how many layers it has mapped.  It
 * dispatches a layer by the new plan as soon as all ranks have mapped it, says that too, and unmaps the
 * experts of the old plan once all ranks dispatch the layer by the new one.
 *
 * A struct moe_ep belongs to the thread that opened it. */
#ifndef MOE_RUNTIME_PARALLEL_EP_H
#define MOE_RUNTIME_PARALLEL_EP_H

#include "model/forward.h"
#include "runtime/comm/comm.h"
#include "runtime/parallel/resident.h"
#include "runtime/plan/plan.h"

struct moe_ep;

/* Tells all other ranks that this rank failed before it had a moe_ep.  The others fail with this same
 * error, so the message of *why has to name the rank. */
enum moe_code moe_ep_broadcast_failure(struct moe_comm *c, const struct moe_err *why, struct moe_err *err);

struct moe_ep_options {
    /* opened with slots of moe_ep_request_bytes and moe_ep_reply_bytes */
    struct moe_comm *comm;
    struct moe_forward *forward;
    struct moe_model *model;
    struct moe_resident *resident;  /* maps the experts that the plan gives this rank; NULL: all are mapped */
    const struct moe_plan *plan;    /* of this model and this number of ranks */
    int64_t max_tokens;             /* of a batch */

    /* The plan to change to once this rank has served `next_after` layers; NULL: none.  The same on all
     * ranks. */
    const struct moe_plan *next;
    uint64_t next_after;

    bool equal;                     /* replicas share an expert's tokens equally, else by the best split */
    uint64_t die;                   /* for tests: this rank stops at that step of its work; 0: never */

    /* Called in this rank's thread, whenever it waits, with what another rank sent by moe_ep_broadcast.
     * A failure ends the run: it means that the message is malformed. */
    enum moe_code (*received)(void *ctx, int from, uint32_t kind, const void *data, size_t bytes,
                              struct moe_err *err);
    void *ctx;
};

/* Bytes of a request slot and of a reply slot, for batches of at most max_tokens tokens. */
size_t moe_ep_request_bytes(const struct moe_config *c, int64_t max_tokens);
size_t moe_ep_reply_bytes(const struct moe_config *c, int64_t max_tokens);

/* Maps this rank's experts and becomes the dispatcher of the forward pass, until close.  The caller keeps all
 * objects that the options point to, and closes them after the moe_ep.  Fails with MOE_NOMEM or what
 * moe_resident_add fails with; *ep is then NULL. */
enum moe_code moe_ep_open(struct moe_ep **ep, const struct moe_ep_options *o, struct moe_err *err);
void moe_ep_close(struct moe_ep **ep); /* NULL-safe; nulls */

/* Sends a message to all other ranks, which get it in options.received before their moe_ep_finish returns.
 * kind: any number that the callers on both sides agree on. */
enum moe_code moe_ep_broadcast(struct moe_ep *ep, uint32_t kind, const void *data, size_t bytes,
                               struct moe_err *err);
/* Tells the others not to wait for requests of this rank for a while (it waits for a person's input, for
 * example). The next dispatch ends this. */
enum moe_code moe_ep_pause(struct moe_ep *ep, struct moe_err *err);
/* Tells the others that this rank will dispatch nothing more, and serves them until all have told the same.
 * MOE_DEVICE when the others marked this rank dead.  A failure that another rank met (moe_ep_fail) is
 * returned as this rank's own. */
enum moe_code moe_ep_finish(struct moe_ep *ep, struct moe_err *err);
/* After moe_ep_finish one rank reports for all: the lowest living one.  Waits until this rank is the one
 * (*mine is true), or another rank has reported (false). */
enum moe_code moe_ep_await_report_turn(struct moe_ep *ep, bool *mine, struct moe_err *err);
/* The reporting rank tells the others that it begins something that cannot be undone, such as printing.  When
 * it dies, the next rank learns from moe_ep_report_begun_by that this had begun. */
enum moe_code moe_ep_begin_report(struct moe_ep *ep, struct moe_err *err);
int moe_ep_report_begun_by(const struct moe_ep *ep); /* the last other rank that began; -1: none */
/* The reporting rank tells the others that it has reported.  When it dies before that, the next rank gets its
 * turn. */
enum moe_code moe_ep_end_report(struct moe_ep *ep, struct moe_err *err);
/* The reporting rank sends a heartbeat.  It calls this at least every moe_ep_tick_ms milliseconds while it
 * reports.  MOE_DEVICE: the others marked this rank dead, and another one reports. */
enum moe_code moe_ep_heartbeat(struct moe_ep *ep, struct moe_err *err);
int moe_ep_tick_ms(const struct moe_ep *ep);

/* Tells all others that this rank cannot go on.  They fail with this error; its message then names this
 * rank. */
void moe_ep_fail(struct moe_ep *ep, const struct moe_err *why);

/* Begins to change to another plan, which the caller keeps until the run or the next change ends.  All
 * ranks must be given the same plan, though not at the same time.  MOE_EXISTS while another change is under
 * way. */
enum moe_code moe_ep_replan(struct moe_ep *ep, const struct moe_plan *plan, struct moe_err *err);

struct moe_ep_stats {
    uint64_t requests;                 /* MoE layers that this rank dispatched */
    uint64_t served;                   /* layers that it computed as an expert server, its own among them */
    uint64_t again;                    /* of `requests`, those sent once more because a rank had died */
    uint64_t bytes_sent;               /* in requests and replies */
    uint64_t bytes_rows;               /* of bytes_sent, input and output rows */
    double seconds_send;               /* spent on filling and posting requests */
    double seconds_wait;               /* spent on waiting for other ranks */
    double seconds_serve;              /* spent on computing requests, its own among them */
    double seconds_experts;            /* of seconds_serve, the experts' arithmetic */
    uint64_t mapped;                   /* bytes of the model that this rank maps now */
    bool died;                         /* this rank was stopped by options.die */
    int moves;                         /* changes of plan that are complete */
};
struct moe_ep_stats moe_ep_stats(const struct moe_ep *ep);

#endif
