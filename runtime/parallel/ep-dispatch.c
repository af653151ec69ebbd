/* SPDX-License-Identifier: Apache-2.0 */
/* Dispatch and combine: this file sends the choices of a layer to the ranks that hold the experts, waits
 * for their outputs, and sends choices once more when a rank has died. */
#include "runtime/parallel/ep-internal.h"

#include "base/io.h"

#include <stdlib.h>
#include <string.h>

/* ---- the server of each choice ---- */

/* Adds up the tokens of each expert: what the other ranks chose when they last dispatched this layer, and
 * what this rank chooses now.  The split divides this load among replicas.  Tokens of an expert are
 * numbered by rank, so that ranks which see the same counts use different parts of each replica's share. */
static void count_tokens(struct moe_ep *ep, uint16_t *counts)
{
    memset(ep->tokens, 0, (size_t)ep->experts * sizeof *ep->tokens);
    memset(ep->number, 0, (size_t)ep->experts * sizeof *ep->number);
    uint16_t *own = counts + (int64_t)ep->rank * ep->experts;
    memset(own, 0, (size_t)ep->experts * sizeof *own);
    for (int64_t i = 0; i < ep->n_left; i++) own[ep->chosen[ep->left[i]]]++;
    for (int r = 0; r < ep->ranks; r++) {
        if (ep->c->dead[r] || !(ep->active[r] || r == ep->rank)) continue;
        for (int64_t e = 0; e < ep->experts; e++) {
            if (r == ep->rank) ep->number[e] = ep->tokens[e];
            ep->tokens[e] += counts[(int64_t)r * ep->experts + e];
        }
    }
}

/* Sets place[].server of each choice that is left. */
static enum moe_code assign_servers(struct moe_ep *ep, uint16_t *counts, struct moe_err *err)
{
    const struct moe_plan_layer *l = moe_ep_layer(ep, ep->layer);
    bool next = ep->next && l >= ep->next->layers && l < ep->next->layers + ep->next->n_layers;
    struct moe_split *s = next ? ep->next_split : ep->split;
    count_tokens(ep, counts);
    if (l->slots > ep->experts && ep->o.equal) moe_split_equal(s, l, ep->tokens, ep->c->dead, ep->share);
    else if (l->slots > ep->experts) moe_split_best(s, l, ep->tokens, ep->c->dead, ep->share, NULL);
    for (int64_t i = 0; i < ep->n_left; i++) {
        int32_t e = ep->chosen[ep->left[i]];
        int32_t copy = l->slots > ep->experts ? moe_split_copy(l, ep->share, e, ep->number[e]++)
                                              : l->copy_first[e];
        if (copy < 0 || ep->c->dead[l->copy_rank[copy]])
            return moe_ep_check_covered(ep, err) != MOE_OK
                     ? MOE_DEVICE
                     : moe_fail(err, MOE_INTERNAL, "expert %d of layer %d has no rank", e, ep->layer);
        ep->place[ep->left[i]].server = l->copy_rank[copy];
    }
    return MOE_OK;
}

/* ---- requests ---- */

/* Counts the pairs and rows of every request, and sets place[].index.  A row is sent once to a rank even
 * when several of its experts are there: the choices of a row follow each other. */
static void count_requests(struct moe_ep *ep)
{
    memset(ep->rows, 0, (size_t)ep->ranks * sizeof *ep->rows);
    memset(ep->pairs, 0, (size_t)ep->ranks * sizeof *ep->pairs);
    for (int r = 0; r < ep->ranks; r++) ep->last[r] = -1;
    for (int64_t i = 0; i < ep->n_left; i++) {
        int32_t c = ep->left[i];
        int to = ep->place[c].server;
        ep->place[c].index = ep->pairs[to]++;
        if (ep->last[to] != c / ep->k) ep->rows[to]++;
        ep->last[to] = c / ep->k;
    }
}

/* Writes the rows and pairs of every request into its slot. */
static void fill_requests(struct moe_ep *ep)
{
    size_t bytes = (size_t)ep->hidden * sizeof(float);
    memset(ep->rows, 0, (size_t)ep->ranks * sizeof *ep->rows);
    for (int r = 0; r < ep->ranks; r++) ep->last[r] = -1;
    for (int64_t i = 0; i < ep->n_left; i++) {
        int32_t c = ep->left[i];
        int to = ep->place[c].server;
        unsigned char *q = moe_comm_request(ep->c, to);
        if (ep->last[to] != c / ep->k) {
            memcpy(q + moe_wire_rows_at(ep->experts, ep->pairs[to]) + (size_t)ep->rows[to]++ * bytes,
                   ep->x + c / ep->k * ep->hidden, bytes);
            ep->stats.bytes_rows += bytes;
        }
        ep->last[to] = c / ep->k;
        struct moe_wire_pair *p = (struct moe_wire_pair *)(void *)(q + moe_wire_pairs_at(ep->experts));
        p[ep->place[c].index] = (struct moe_wire_pair){ ep->rows[to] - 1, ep->chosen[c] };
    }
}

/* Sends all choices that are left. */
static enum moe_code dispatch(struct moe_ep *ep, struct moe_err *err)
{
    double t = moe_now();
    uint16_t *counts = ep->counts + (int64_t)moe_ep_index(ep, ep->layer) * ep->ranks * ep->experts;
    MOE_TRY(assign_servers(ep, counts, err));
    count_requests(ep);
    fill_requests(ep);
    ep->stats.requests++;
    ep->active[ep->rank] = true;
    for (int r = 0; r < ep->ranks; r++) {
        if (ep->c->dead[r]) continue;
        unsigned char *q = moe_comm_request(ep->c, r);
        moe_wire_request_put(
            q, &(struct moe_wire_request){ ep->pass, ep->layer, ep->rows[r], ep->pairs[r], ep->at });
        memcpy(q + MOE_WIRE_SLOT_HEAD, counts + (int64_t)ep->rank * ep->experts,
               (size_t)ep->experts * sizeof *counts);
        MOE_TRY(moe_ep_count_step(ep, err));
        MOE_TRY(moe_comm_post(ep->c, r,
                              moe_wire_rows_at(ep->experts, ep->pairs[r]) +
                                  (size_t)(ep->rows[r] * ep->hidden) * sizeof(float),
                              err));
    }
    ep->stats.seconds_send += moe_now() - t;
    return MOE_OK;
}

/* Copies the rows and choices of the layer from the device. */
static enum moe_code fetch(struct moe_ep *ep, struct moe_device *d, int layer, struct moe_addr x,
                           const struct moe_choices *c, int64_t tokens, struct moe_err *err)
{
    uint32_t word;
    d->ops->read(d, ep->x, x, (uint64_t)(tokens * ep->hidden) * sizeof *ep->x);
    d->ops->read(d, ep->chosen, c->experts, (uint64_t)(tokens * ep->k) * sizeof *ep->chosen);
    MOE_TRY(d->ops->wait(d, &word, err));
    return word & MOE_WORD_NONFINITE ? moe_model_blame(ep->o.model, layer, err) : MOE_OK;
}

enum moe_code moe_ep_dispatch(void *ctx, struct moe_device *d, int layer, int64_t tokens, struct moe_addr x,
                              const struct moe_choices *c, struct moe_err *err)
{
    struct moe_ep *ep = ctx;
    MOE_CHECK(tokens <= ep->o.max_tokens);
    MOE_TRY(moe_ep_receive(ep, err));
    MOE_TRY(fetch(ep, d, layer, x, c, tokens, err));
    /* a new pass begins: its number is no lower than that of any pass which other ranks have begun */
    if (layer <= ep->layer || ep->layer < 0) ep->pass = ep->pass + 1 > ep->seen ? ep->pass + 1 : ep->seen;
    ep->layer = layer;
    ep->n_choices = ep->n_left = tokens * ep->k;
    for (int64_t i = 0; i < ep->n_left; i++) ep->left[i] = (int32_t)i;
    return dispatch(ep, err);
}

/* ---- outputs ---- */

/* The output row of a choice, in the reply of its server. */
static const float *output(struct moe_ep *ep, int32_t choice)
{
    const unsigned char *p = moe_comm_answered(ep->c, ep->place[choice].server);
    return (const float *)(const void *)(p + MOE_WIRE_SLOT_HEAD) +
           (int64_t)ep->place[choice].index * ep->hidden;
}

static enum moe_code check_replies(struct moe_ep *ep, struct moe_err *err)
{
    for (int r = 0; r < ep->ranks; r++) {
        const unsigned char *slot = moe_comm_answered(ep->c, r);
        struct moe_err failure;
        if (!slot) continue;
        if (!moe_wire_reply_sound(slot, moe_comm_reply_size(ep->c, r), ep->pairs[r], &ep->shape, &failure))
            return moe_fail(err, MOE_DEVICE,
                            "rank %d sent a reply that makes no sense (do all ranks run the same version?)",
                            r);
        if (failure.code != MOE_OK) {
            *err = failure;
            return err->code;
        }
        struct moe_wire_reply p = moe_wire_reply_get(slot);
        if (p.pass > ep->seen) ep->seen = p.pass;
        moe_ep_note_progress(ep, r, &p.at);
    }
    return MOE_OK;
}

/* Serves and waits until every living rank has replied, then checks the replies. */
static enum moe_code await_replies(struct moe_ep *ep, struct moe_err *err)
{
    bool did;
    moe_comm_begin_wait(ep->c);
    for (;;) {
        bool all = true;
        MOE_TRY(moe_ep_receive(ep, err));
        MOE_TRY(moe_ep_count_step(ep, err));
        MOE_TRY(moe_ep_serve(ep, &did, err));
        for (int r = 0; r < ep->ranks; r++) {
            ep->awaited[r] = !ep->c->dead[r] && !moe_comm_answered(ep->c, r);
            all &= !ep->awaited[r];
        }
        if (all) return check_replies(ep, err);
        if (did) moe_comm_begin_wait(ep->c);
        else MOE_TRY(moe_ep_wait(ep, err));
    }
}

/* Writes the outputs that have come to the device, and leaves in ep->left the choices whose server died. */
static void store_outputs(struct moe_ep *ep, struct moe_device *d, struct moe_addr rows)
{
    uint64_t bytes = (uint64_t)ep->hidden * sizeof(float);
    int64_t n = 0;
    for (int64_t i = 0; i < ep->n_left; i++) {
        int32_t c = ep->left[i];
        if (ep->c->dead[ep->place[c].server]) ep->left[n++] = c;
        else d->ops->write(d, moe_addr_plus(rows, (uint64_t)c * bytes), output(ep, c), bytes);
    }
    ep->n_left = n;
}

enum moe_code moe_ep_combine(void *ctx, struct moe_device *d, const struct moe_choices *c,
                             struct moe_err *err)
{
    struct moe_ep *ep = ctx;
    MOE_TRY(await_replies(ep, err));
    store_outputs(ep, d, c->rows);
    while (ep->n_left) {
        ep->stats.again++;
        MOE_TRY(dispatch(ep, err));
        MOE_TRY(await_replies(ep, err));
        store_outputs(ep, d, c->rows);
    }
    d->ops->write(d, c->slot, ep->slot, (uint64_t)ep->n_choices * sizeof *ep->slot);
    return moe_ep_move(ep, err);
}
