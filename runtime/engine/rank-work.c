/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/rank-work.h"

#include <stdlib.h>

/* ---- prompts ---- */

/* Called as each answer ends.  The results have a copy of it, so that it is freed here. */
static enum moe_code keep_answer(void *ctx, struct moe_sequence *s, struct moe_err *err)
{
    struct moe_rank *r = ctx;
    enum moe_code code = moe_results_add_sequence(r->results, r->ep, r->rank, s, err);
    moe_generated_release(&s->out);
    return code;
}

enum moe_code moe_rank_prompts(struct moe_rank *r, const struct moe_prompts *p, struct moe_err *err)
{
    int64_t n = 0;
    for (int64_t i = 0; i < p->n; i++) n += p->v[i].rank == r->rank;
    struct moe_sequence *own = calloc((size_t)n + 1, sizeof *own);
    if (!own) return moe_fail(err, MOE_NOMEM, "no memory for the prompts");
    n = 0;
    for (int64_t i = 0; i < p->n; i++)
        if (p->v[i].rank == r->rank) own[n++] = p->v[i];

    /* the spare memory is for the caches of several sequences: take off what the prompts hold of it */
    uint64_t *spare = &r->engine->spare;
    uint64_t held = r->engine->cuda ? 0 : p->bytes / (uint64_t)r->ranks;
    *spare -= held < *spare ? held : *spare;

    struct moe_core_stats stats = { 0 };
    enum moe_code code = moe_sequences_run(r->engine, own, n, keep_answer, r, &stats, err);
    r->results->own_cache = moe_cache_counts(&stats);
    for (int64_t i = 0; i < n; i++) moe_generated_release(&own[i].out);
    free(own);
    return code;
}

/* ---- a text's score ---- */

/* Opens the reference model for this rank. */
static enum moe_code open_reference(struct moe_engine **reference, const struct moe_rank *r,
                                    const struct moe_rank_text *t, struct moe_err *err)
{
    struct moe_engine_options bare = *t->engine;
    bare.tokenizer = false; /* the model's own tokenizer has made ids of the text */
    bare.activations = MOE_ACTIVATIONS_FLOAT; /* the reference is computed as exactly as possible */
    bare.fast = false, bare.latents = MOE_LATENT_F32;
    bare.sharers = (bare.sharers ? bare.sharers : 1) * r->ranks;
    return moe_engine_open(reference, t->reference, &bare, r->pool, err);
}

enum moe_code moe_rank_score(struct moe_rank *r, const struct moe_rank_text *t, struct moe_progress *progress,
                             struct moe_err *err)
{
    struct moe_engine *reference = NULL;
    struct moe_score_sums sums = { 0 };
    struct moe_score_text text = t->text;
    text.memory /= (uint64_t)r->ranks;

    enum moe_code code = t->reference ? open_reference(&reference, r, t, err) : MOE_OK;
    if (code == MOE_OK)
        code = moe_score_part(r->engine, reference, &text, r->rank, r->ranks, r->pool, progress, &sums, err);
    if (code == MOE_OK) code = moe_results_add_score(r->results, r->ep, r->rank, &sums, err);
    free(sums.all);
    moe_engine_close(&reference);
    return code;
}
