/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/parallel/ep-internal.h - what the asking, the serving and the moving part of a rank share; for
 * runtime/parallel/ alone. */
#ifndef MOE_RUNTIME_PARALLEL_EP_INTERNAL_H
#define MOE_RUNTIME_PARALLEL_EP_INTERNAL_H

#include "runtime/comm/wire.h"
#include "runtime/parallel/ep.h"

/* Said among the ranks; what callers say has FIRST_USER added. */
enum { SAY_REST, SAY_DONE, SAY_FAIL, SAY_BEGIN, SAY_SPOKE, FIRST_USER };

/* of a choice: whom it was asked of, and which pair it is there */
struct moe_ep_place { int32_t server, index; };

struct moe_ep {
    struct moe_ep_options o;
    struct moe_comm *c;
    const struct moe_config *config;
    int ranks, rank;
    int64_t hidden, k, experts, layers, n_moe;
    struct moe_wire_shape shape;    /* that requests and replies are held against */
    uint64_t steps;                 /* towards options.die */
    struct moe_ep_stats stats;
    struct moe_err failed;          /* what another rank failed with; code MOE_OK: nothing */
    /* the last other rank that began to speak for all, counted from 1; 0: none has */
    int began;
    bool spoken;                    /* another rank has spoken for all */

    /* asking */
    uint64_t pass;
    int layer;                      /* of the request at hand; -1: none yet */
    int64_t n_choices;              /* in it */
    const int32_t *chosen;          /* [n_choices] */
    struct moe_ep_place *place;     /* [T k] */
    /* [T k] the input of each choice: the pass's own, or in the request to a rank that died */
    const float **row;
    int32_t *left;                  /* [T k] choices without an output */
    int64_t n_left;
    /* [T k, H] outputs that were there when others had to be asked for again */
    float *kept;
    int32_t *rows, *pairs;          /* [ranks] of the requests at hand */
    const float **last;             /* [ranks] */
    bool *awaited;                  /* [ranks] */

    /* serving */
    bool *active, *done;            /* [ranks] asks; will not ask any more */
    bool *taken; /* [ranks] whose request is served now: checked, and the one that gets an answer */
    uint64_t seen;                  /* the largest pass */
    struct moe_choice *list, *sorted;
    int64_t list_cap;
    int64_t *first;                 /* [E + 1] */

    /* the plan */
    const struct moe_plan *plan, *next;
    struct moe_wire_progress at, *peer; /* [ranks] what each rank said last */
    int dropped;                    /* MoE layers of the old plan that were unmapped */
    bool *want;                     /* [E] */
    /* [n_moe][ranks][E]: what every rank chose when it last asked for the layer */
    uint16_t *counts;
    struct moe_split *split, *next_split;
    int64_t *tokens, *share, *number; /* [E], [slots], [E] */
    int64_t share_cap;
};

/* The float rows of a reply that is being written, or was checked. */
static inline float *moe_ep_reply_rows(void *reply)
{
    return (float *)(void *)((unsigned char *)reply + MOE_WIRE_SLOT_HEAD);
}

/* The index among MoE layers. */
int moe_ep_index(const struct moe_ep *ep, int layer);

/* True once the step has come at which this rank dies: then MOE_DEVICE in *err, and nothing more is said. */
bool moe_ep_dies(struct moe_ep *ep, struct moe_err *err);

/* Hear what was said. */
enum moe_code moe_ep_hear(struct moe_ep *ep, struct moe_err *err);
/* Wait a little; bury who is silent among ep->awaited and the ranks that should ask. */
enum moe_code moe_ep_wait(struct moe_ep *ep, struct moe_err *err);

/* ep-ask.c: struct moe_elsewhere */
enum moe_code moe_ep_send(void *ctx, int layer, int64_t tokens, const float *x, const int32_t *experts,
                          struct moe_err *err);
enum moe_code moe_ep_receive(void *ctx, const float **out, struct moe_err *err);

/* ep-serve.c: answer the requests that are due, if all that are at work have asked.
 * *did: some were answered. */
enum moe_code moe_ep_serve(struct moe_ep *ep, bool *did, struct moe_err *err);

/* ep-move.c */
const struct moe_plan_layer *moe_ep_layer(const struct moe_ep *ep, int layer); /* by which to ask */
enum moe_code moe_ep_map(struct moe_ep *ep, const struct moe_plan_layer *l, struct moe_err *err);
enum moe_code moe_ep_move(struct moe_ep *ep, struct moe_err *err); /* a step of a move, if one is possible */
void moe_ep_told(struct moe_ep *ep, int from, const struct moe_wire_progress *at);
/* MOE_DEVICE when experts are nowhere left */
enum moe_code moe_ep_covered(struct moe_ep *ep, struct moe_err *err);

#endif
