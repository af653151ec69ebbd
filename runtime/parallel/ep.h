/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/parallel/ep.h - expert parallelism, one rank of it: the routed experts of its tokens computed by
 * the ranks that hold them, and theirs here.
 *
 * A rank owns its sequences with their cache and runs the whole pass for them, but for the routed experts
 * (struct moe_elsewhere).  In each MoE layer it sends every rank one request: the rows that it wants computed
 * there, each row once, and (row, expert) pairs; empty when there are none.  Every rank waits until all that
 * are at work have asked, computes all pairs of a layer together, so that an expert's weights are read once
 * for the tokens of all ranks, and replies with one output row a pair.  The asker weights and adds these in
 * top-k order, as it would its own: the result is the same bits for any number of ranks, any plan, any choice
 * of replica and any order of arrival.
 *
 * When a rank dies (runtime/comm/comm.h), those who asked it ask again, the pairs that it owed, wherever else
 * the experts lie: a second request like any other.  Others wait: a rank that is behind, in passes and
 * layers, is served first.  Experts that nobody holds any more end the run.
 *
 * A new plan comes in force layer by layer, while the run goes on.  Ranks map what the plan gives them (one
 * layer a request), say in every message up to which layer they have, ask by the new plan where all have, say
 * so too, and unmap what nobody asks them for any more. */
#ifndef MOE_RUNTIME_PARALLEL_EP_H
#define MOE_RUNTIME_PARALLEL_EP_H

#include "model/forward.h"
#include "runtime/comm/comm.h"
#include "runtime/parallel/part.h"
#include "runtime/plan/plan.h"

struct moe_ep;

/* What a rank that failed before it had a moe_ep says through its communicator; the others fail with these
 * words, so they name the rank. */
enum moe_code moe_ep_say_failure(struct moe_comm *c, const struct moe_err *why, struct moe_err *err);

struct moe_ep_options {
    struct moe_comm *comm;          /* slots of moe_ep_request_bytes and moe_ep_reply_bytes */
    struct moe_forward *forward;
    struct moe_model *model;
    struct moe_part *part;          /* what the plan gives this rank gets mapped here */
    const struct moe_plan *plan;    /* fits the model and the number of ranks */
    int64_t max_tokens;             /* of a batch */
    /* to move to, once this rank has served `next_after` layers; NULL: none.  All ranks are given the same */
    const struct moe_plan *next;
    uint64_t next_after;
    bool equal;                     /* replicas share tokens equally; else by the best split */
    uint64_t die;                   /* this rank stops dead at that step of its work, for tests; 0: never */
    /* Something was said by another rank (moe_ep_say); in the rank's thread, whenever it waits.  A failure
     * (it makes no sense) ends the run. */
    enum moe_code (*heard)(void *ctx, int from, uint32_t kind, const void *data, size_t bytes,
                           struct moe_err *err);
    void *ctx;
};

size_t moe_ep_request_bytes(const struct moe_config *c, int64_t max_tokens);
size_t moe_ep_reply_bytes(const struct moe_config *c, int64_t max_tokens);

/* From now on the forward pass asks; maps the experts.  None of the options' objects is owned; the pass is
 * itself again after close. */
enum moe_code moe_ep_open(struct moe_ep **ep, const struct moe_ep_options *o, struct moe_err *err);
void moe_ep_close(struct moe_ep **ep); /* NULL-safe; nulls */

/* To all others; kind is the caller's.  Arrives before moe_ep_finish returns there. */
enum moe_code moe_ep_say(struct moe_ep *ep, uint32_t kind, const void *data, size_t bytes,
                         struct moe_err *err);
/* This rank will not ask for a while (it waits for a person, say): the others do not wait for it.
 * The next request ends it. */
enum moe_code moe_ep_rest(struct moe_ep *ep, struct moe_err *err);
/* This rank has nothing more to ask: serve the others until they say the same.  MOE_DEVICE when this rank was
 * given up by the others; a failure that another rank met (moe_ep_fail) is returned as its own. */
enum moe_code moe_ep_finish(struct moe_ep *ep, struct moe_err *err);
/* After moe_ep_finish: one rank speaks for all, the lowest that is left.  Waits until that is this one
 * (*mine), or another has spoken.  The one whose turn it is says so when it has (moe_ep_spoke); when it is
 * lost before, it is the next one's turn.  If it does what cannot be undone it says that it begins
 * (moe_ep_begin), so that the next one knows; signs of life are its own affair (moe_ep_alive at least every
 * moe_ep_tick_ms milliseconds, from which MOE_DEVICE: this rank was given up, another one speaks). */
enum moe_code moe_ep_turn(struct moe_ep *ep, bool *mine, struct moe_err *err);
int moe_ep_began(const struct moe_ep *ep); /* the last other rank that began; -1: none */
enum moe_code moe_ep_begin(struct moe_ep *ep, struct moe_err *err);
enum moe_code moe_ep_spoke(struct moe_ep *ep, struct moe_err *err);
enum moe_code moe_ep_alive(struct moe_ep *ep, struct moe_err *err);
int moe_ep_tick_ms(const struct moe_ep *ep);

/* This rank cannot go on: all others fail with this error, behind the rank that met it first. */
void moe_ep_fail(struct moe_ep *ep, const struct moe_err *why);

/* Move to another plan from now on; it outlives the run or the next move.  MOE_EXISTS while a move is under
 * way.  All ranks must be given the same, at any time. */
enum moe_code moe_ep_replan(struct moe_ep *ep, const struct moe_plan *plan, struct moe_err *err);

struct moe_ep_stats {
    uint64_t requests;                 /* MoE layers that this rank asked for */
    uint64_t served;                   /* layers that it computed for others and itself */
    uint64_t again;                    /* of the requests, because a rank had died */
    uint64_t bytes_sent, bytes_rows;   /* in requests and replies; of that, rows */
    /* filling and posting requests; waiting for others; requests served, for others and itself */
    double seconds_send, seconds_wait, seconds_serve;
    double seconds_experts;            /* of seconds_serve, the experts' arithmetic */
    uint64_t mapped;                   /* bytes of the model that this rank maps now */
    bool died;                         /* by options.die */
    int moves;                         /* plans that came in force */
};
struct moe_ep_stats moe_ep_stats(const struct moe_ep *ep);

#endif
