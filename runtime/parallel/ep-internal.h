/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/parallel/ep-internal.h - the state of one rank, which dispatch (ep-dispatch.c), the expert server
 * (ep-server.c) and the change of plans (ep-move.c) share.  Only runtime/parallel/ includes it. */
#ifndef MOE_RUNTIME_PARALLEL_EP_INTERNAL_H
#define MOE_RUNTIME_PARALLEL_EP_INTERNAL_H

#include "runtime/comm/wire.h"
#include "runtime/parallel/ep.h"

/* Kinds of messages that a rank sends to all others (moe_comm_broadcast).  The kinds of moe_ep_broadcast are
 * sent with MESSAGE_FIRST_USER added. */
enum {
    MESSAGE_PAUSE,
    MESSAGE_DONE,
    MESSAGE_FAILURE,
    MESSAGE_REPORT_BEGUN,
    MESSAGE_REPORTED,
    MESSAGE_FIRST_USER
};

/* Where one choice was dispatched to: the rank, and the index of its pair in that rank's request. */
struct moe_ep_place { int32_t server, index; };

struct moe_ep {
    struct moe_ep_options o;
    struct moe_comm *c;
    const struct moe_config *config;
    int ranks, rank;
    int64_t hidden, k, experts, layers, n_moe;
    struct moe_wire_shape shape;    /* what requests and replies are checked against */
    uint64_t steps;                 /* steps of work so far, counted for options.die */
    struct moe_ep_stats stats;
    struct moe_err failed;          /* the failure that another rank has sent; code MOE_OK: none */
    int report_begun;               /* 1 + the last other rank that began to report; 0: none has */
    bool reported;                  /* another rank has reported */

    /* Dispatch.  T: tokens of the batch, k: experts a token, H: hidden size, E: experts of a layer. */
    uint64_t pass;                  /* counts the forward passes of this rank */
    int layer;                      /* of the present request; -1: none yet */
    int64_t n_choices;              /* in the present request: T k */
    float *x;                       /* [T, H] the rows of the present layer, from the device */
    int32_t *chosen;                /* [T k] the expert of each choice */
    int32_t *slot;                  /* [T k] 0, 1, ...: where each output is put */
    struct moe_ep_place *place;     /* [T k] */
    int32_t *left;                  /* [T k] the choices that have no output yet */
    int64_t n_left;
    int32_t *rows, *pairs;          /* [ranks] in the present request to each rank */
    int64_t *last;                  /* [ranks] the token whose row was added last to each request; -1: none */
    bool *awaited;                  /* [ranks] this rank waits for something from that rank */

    /* The expert server. */
    bool *active;                   /* [ranks] dispatches: the server waits for its requests */
    bool *done;                     /* [ranks] will dispatch nothing more */
    bool *taken;                    /* [ranks] its request is checked and is computed now */
    uint64_t seen;                  /* the largest pass in any message */
    struct moe_choice *list;        /* [list_cap] the pairs that are computed now, by rank */
    struct moe_choice *sorted;      /* [list_cap] the same by expert */
    int64_t list_cap;
    int64_t *first;                 /* [E + 1] where each expert's choices begin in `sorted` */

    /* The plan, and the next one while ranks change to it (NULL else). */
    const struct moe_plan *plan, *next;
    struct moe_wire_progress at;    /* how far this rank is in the change */
    struct moe_wire_progress *peer; /* [ranks] the progress that each rank sent last */
    int dropped;                    /* MoE layers whose experts of the old plan this rank has unmapped */
    bool *want;                     /* [E] scratch: experts of this rank in a layer */
    uint16_t *counts;               /* [n_moe][ranks][E] tokens for each expert when a rank last dispatched */
    struct moe_split *split;        /* divides the tokens of an expert among its replicas, by `plan` */
    struct moe_split *next_split;   /* the same by `next` */
    int64_t *tokens;                /* [E] of all ranks for each expert of the present layer */
    int64_t *number;                /* [E] of these, those that come before this rank's */
    int64_t *share;                 /* [slots] tokens that each slot of the plan's layer takes */
    int64_t share_cap;
};

/* Where the float rows of a reply begin. */
static inline float *moe_ep_reply_rows(void *reply)
{
    return (float *)(void *)((unsigned char *)reply + MOE_WIRE_SLOT_HEAD);
}

/* The index of a layer among the MoE layers. */
int moe_ep_index(const struct moe_ep *ep, int layer);

/* Counts a step of this rank's work.  MOE_DEVICE at the step at which options.die stops this rank, which must
 * then send nothing more. */
enum moe_code moe_ep_count_step(struct moe_ep *ep, struct moe_err *err);

/* Handles all broadcasts that have come from other ranks.  Returns the failure of a rank that has sent
 * one. */
enum moe_code moe_ep_receive(struct moe_ep *ep, struct moe_err *err);
/* Waits for at most one tick.  Marks as dead the silent ones among ep->awaited and the ranks whose requests
 * this server waits for. */
enum moe_code moe_ep_wait(struct moe_ep *ep, struct moe_err *err);

/* ep-dispatch.c: the two calls of struct moe_dispatcher; ctx is the moe_ep. */
enum moe_code moe_ep_dispatch(void *ctx, struct moe_device *d, int layer, int64_t tokens, struct moe_addr x,
                              const struct moe_choices *c, struct moe_err *err);
enum moe_code moe_ep_combine(void *ctx, struct moe_device *d, const struct moe_choices *c,
                             struct moe_err *err);

/* ep-server.c: once every rank that is at work has sent its request, computes those of the lowest (pass,
 * layer) and replies to them.  *did: there were some. */
enum moe_code moe_ep_serve(struct moe_ep *ep, bool *did, struct moe_err *err);

/* ep-move.c */
/* The layer of the plan by which this rank dispatches now. */
const struct moe_plan_layer *moe_ep_layer(const struct moe_ep *ep, int layer);
/* Maps the experts that this layer of a plan gives this rank, besides those that are mapped. */
enum moe_code moe_ep_map(struct moe_ep *ep, const struct moe_plan_layer *l, struct moe_err *err);
/* Goes further in the change to another plan, if one is under way: maps the experts of one more layer, and
 * unmaps those of the old plan in the layers that all ranks dispatch by the new one.  Begins the change to
 * options.next when its time has come, and ends a change that is complete. */
enum moe_code moe_ep_move(struct moe_ep *ep, struct moe_err *err);
/* Stores the progress that rank `from` has sent. */
void moe_ep_note_progress(struct moe_ep *ep, int from, const struct moe_wire_progress *at);
/* MOE_DEVICE when no living rank holds some expert, by the plan that this rank dispatches the expert's layer
 * by; the message lists such experts. */
enum moe_code moe_ep_check_covered(struct moe_ep *ep, struct moe_err *err);

#endif
