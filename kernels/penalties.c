/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/penalties.h"

#include "base/grow.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static enum moe_code fail_no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for the penalties of a sequence");
}

/* ---- edits by id ---- */

/* The slot of an id in the hash table: its own, or the free one where it belongs. */
static size_t slot_of(const struct moe_logit_edits *e, int32_t id)
{
    size_t at = (size_t)((uint64_t)(uint32_t)id * 0x9e3779b97f4a7c15u >> 32) & (e->slots - 1);
    while (e->slot[at] && e->edit[e->slot[at] - 1].id != id) at = (at + 1) & (e->slots - 1);
    return at;
}

static bool grow_table(struct moe_logit_edits *e)
{
    size_t slots = e->slots ? 2 * e->slots : 64;
    uint32_t *slot = calloc(slots, sizeof *slot);
    if (!slot) return false;
    free(e->slot);
    e->slot = slot;
    e->slots = slots;
    for (size_t i = 0; i < e->n; i++) slot[slot_of(e, e->edit[i].id)] = (uint32_t)i + 1;
    return true;
}

/* Makes room for one more edit. */
static bool make_room(struct moe_logit_edits *e)
{
    size_t counts = e->cap, befores = e->cap;
    if (e->n == e->cap) {
        if (!MOE_GROW(e->count, counts, e->n + 1) || !MOE_GROW(e->before, befores, e->n + 1) ||
            !MOE_GROW(e->edit, e->cap, e->n + 1))
            return false;
    }
    return 2 * (e->n + 1) <= e->slots || grow_table(e);
}

/* The number of the edit of an id, which is added, changing nothing, if there was none; -1: no memory. */
static int64_t edit_of(struct moe_logit_edits *e, int32_t id)
{
    if (!make_room(e)) return -1;
    size_t at = slot_of(e, id);
    if (!e->slot[at]) {
        e->edit[e->n] = (struct moe_logit_edit){ .id = id, .repetition = 1 };
        e->count[e->n++] = 0;
        e->slot[at] = (uint32_t)e->n;
    }
    return e->slot[at] - 1;
}

/* ---- what the edits are ---- */

static bool penalizes(const struct moe_penalties *p)
{
    bool repetition = p->repetition > 0 && p->repetition != 1;
    return repetition || p->frequency != 0 || p->presence != 0;
}

static bool add_prompt(struct moe_logit_edits *e, int64_t vocab, const int32_t *ids, int64_t n)
{
    if (e->penalties.repetition == 1) return true;
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= vocab) continue;
        int64_t at = edit_of(e, ids[i]);
        if (at < 0) return false;
        e->edit[at].repetition = e->penalties.repetition;
    }
    return true;
}

static bool add_bias(struct moe_logit_edits *e, int64_t vocab)
{
    for (size_t i = 0; i < e->penalties.n_bias; i++) {
        const struct moe_bias *b = &e->penalties.bias[i];
        if (b->id < 0 || b->id >= vocab) continue;
        int64_t at = edit_of(e, b->id);
        if (at < 0) return false;
        e->edit[at].bias = b->bias;
    }
    return true;
}

/* Bans the ids until their biases are put back. */
static bool ban(struct moe_logit_edits *e, int64_t vocab, const int32_t *ids, size_t n)
{
    e->banned = malloc((n + 1) * sizeof *e->banned);
    if (!e->banned) return false;
    for (size_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= vocab) continue;
        int64_t at = edit_of(e, ids[i]);
        if (at < 0) return false;
        if (e->edit[at].bias == -INFINITY) continue; /* it is in the list twice */
        e->banned[e->n_banned++] = (struct moe_bias){ ids[i], e->edit[at].bias };
        e->edit[at].bias = -INFINITY;
    }
    return true;
}

static void end_bans(struct moe_logit_edits *e)
{
    for (size_t i = 0; i < e->n_banned; i++)
        e->edit[e->slot[slot_of(e, e->banned[i].id)] - 1].bias = e->banned[i].bias;
    e->n_banned = 0;
}

enum moe_code moe_logit_edits_begin(struct moe_logit_edits *e, const struct moe_penalties *p, int64_t vocab,
                                    const int32_t *ids, int64_t n, const int32_t *banned, size_t n_banned,
                                    int64_t min_tokens, struct moe_err *err)
{
    *e = (struct moe_logit_edits){ .penalties = *p, .ban_until = min_tokens };
    if (!(p->repetition > 0)) e->penalties.repetition = 1;
    bool there = add_prompt(e, vocab, ids, n) && add_bias(e, vocab) &&
                 (min_tokens <= 0 || ban(e, vocab, banned, n_banned));
    return there ? MOE_OK : fail_no_memory(err);
}

enum moe_code moe_logit_edits_add(struct moe_logit_edits *e, int32_t id, struct moe_err *err)
{
    const struct moe_penalties *p = &e->penalties;
    if (++e->tokens >= e->ban_until && e->n_banned) end_bans(e);
    if (!penalizes(p)) return MOE_OK;
    int64_t at = edit_of(e, id);
    if (at < 0) return fail_no_memory(err);
    float times = (float)++e->count[at], by = p->frequency * times;
    e->edit[at].repetition = p->repetition;
    e->edit[at].addend = -by - p->presence;
    return MOE_OK;
}

/* ---- the row ---- */

static float edited(const struct moe_logit_edit *d, float l)
{
    if (d->bias == -INFINITY) return -INFINITY;
    float x = l + d->bias, y = x > 0 ? x / d->repetition : x * d->repetition;
    return y + d->addend;
}

void moe_logit_edits_apply(struct moe_logit_edits *e, float *logits)
{
    for (size_t i = 0; i < e->n; i++) {
        float *l = &logits[e->edit[i].id];
        e->before[i] = *l;
        *l = edited(&e->edit[i], *l);
    }
}

void moe_logit_edits_undo(const struct moe_logit_edits *e, float *logits)
{
    for (size_t i = 0; i < e->n; i++) logits[e->edit[i].id] = e->before[i];
}

void moe_logit_edits_release(struct moe_logit_edits *e)
{
    free(e->edit);
    free(e->count);
    free(e->before);
    free(e->slot);
    free(e->banned);
    *e = (struct moe_logit_edits){ 0 };
}
