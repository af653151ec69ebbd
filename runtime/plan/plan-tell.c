/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/plan/plan-tell.h"

#include "base/show.h"
#include "base/stream.h"

#include <stdio.h>

/* Tells which counts were rounded and which rows were left out. */
static void tell_changed(const struct moe_notes *to, const struct moe_stats_doubts *d)
{
    if (d->rounded)
        moe_note(to,
                 d->rounded == 1 ? "%lld count of the statistics is a fraction and was rounded"
                                 : "%lld counts of the statistics are fractions and were rounded",
                 (long long)d->rounded);
    if (d->mtp_rows)
        moe_note(to,
                 "the statistics have %d row%s of layers for multi-token prediction: no plan places their "
                 "experts",
                 (int)d->mtp_rows, d->mtp_rows > 1 ? "s" : "");
}

/* Warns of statistics that lack counts: a plan made from them says little about other traffic. */
static void tell_missing(const struct moe_notes *to, const struct moe_stats_doubts *d)
{
    if (d->empty == d->layers)
        moe_note_warn(to, "all counts of the statistics are zero: nothing is known of how busy experts are, "
                           "so the plan spreads them evenly, as without statistics, and its loads and gaps "
                           "say nothing (record some traffic: moe-run --record-routing)");
    else if (d->empty)
        moe_note_warn(to,
                      "%d of %d layers %s no count in the statistics: %s experts are spread evenly, and "
                      "balance is known of the other %d layer%s only",
                      (int)d->empty, (int)d->layers, d->empty == 1 ? "has" : "have",
                      d->empty == 1 ? "its" : "their", (int)(d->layers - d->empty),
                      moe_plural(d->layers - d->empty));
    if (d->never > d->experts / 2)
        moe_note_warn(
            to,
            "%d of %d experts of a layer never got a token in the statistics, as when they are of one rank "
            "only or of a few prompts: the plan takes these experts to be idle and puts them together, so a "
            "rank that has them is overloaded once they are used (add up the statistics of all ranks)",
            (int)d->never, (int)d->experts);
}

void moe_planning_tell(const struct moe_notes *to, const struct moe_planning *p)
{
    struct moe_stats_doubts d;
    if (p->origin == MOE_STATS_NONE) {
        moe_note(to, "no statistics: every expert is taken to be as busy as the others (--stats FILE)");
        return;
    }
    moe_plan_doubt_stats(p->stats, &d);
    tell_changed(to, &d);
    tell_missing(to, &d);
}

void moe_tell_verified(const struct moe_notes *to, const struct moe_plan_checked *c)
{
    if (c->had_statistics && !c->same_statistics)
        moe_note_warn(to,
                      "the plan was made from other statistics: its claims about loads were not compared");
    if (c->unproven)
        moe_note_warn(to, "%d bound%s too large to be found again", (int)c->unproven,
                      c->unproven == 1 ? " claimed as exact is" : "s claimed as exact are");
}

void moe_tell_exported(const struct moe_notes *to, const struct moe_plan_export *q,
                       const struct moe_plan_exported *got)
{
    if (got->unfitted)
        moe_note(to,
                 "'%s' does not say which layers have no experts: rows of such, as SGLang's files have "
                 "them, are taken along (--model MODEL leaves them out)",
                 moe_stream_name(q->plan));
    if (!got->n_prediction) return;
    moe_note(to, q->engine == MOE_ENGINE_TRTLLM
             ? "layer %d is for multi-token prediction: it has a row with its experts in order, which "
               "TensorRT-LLM reads when it runs that layer"
             : "layer %d is for multi-token prediction and has no row: SGLang reads that of layer 0 for it",
             (int)got->prediction);
}

void moe_tell_staged(const struct moe_notes *to, const struct moe_ranks_staged *s)
{
    char which[32], size[16];
    if (s->first == s->last) snprintf(which, sizeof which, "rank %d", (int)s->first);
    else snprintf(which, sizeof which, "ranks %d to %d", (int)s->first, (int)s->last);
    moe_human_bytes(s->bytes, size);
    if (s->checked)
        moe_note(to, "'%s' holds what %s need%s: %s match their checksums", s->dir, which,
                 s->first == s->last ? "s" : "", size);
    else moe_note(to, "'%s' written for %s: %s copied", s->dir, which, size);
}
