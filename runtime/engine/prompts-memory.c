/* SPDX-License-Identifier: Apache-2.0 */
/* What the prompts of a file and their answers take. */
#include "runtime/engine/prompts-internal.h"

#include "base/minmax.h"

#include <stdio.h>

/* Bytes that this reader, the run, the results and the report keep for each choice of a prompt besides its
 * ids and the tokens of its answer; and those of a token or an alternative in the JSON of logprobs, as a tree
 * and as text (650 were measured with short tokens). */
enum { PROMPT_BYTES = 2560, LOGPROB_JSON_BYTES = 1024 };

uint64_t moe_prompts_memory_left(const struct moe_prompts_reading *r, uint64_t more)
{
    return r->memory > r->held + more ? r->memory - r->held - more : 1;
}

void moe_prompts_limit_tokens(const struct moe_prompts_reading *r, uint64_t bytes)
{
    if (r->e->tokenizer) moe_tokenizer_limit(r->e->tokenizer, bytes);
}

/* ---- logarithms of probabilities ---- */

static void count_logprobs(struct moe_prompts_reading *r, const struct moe_request_options *o, int64_t n_ids)
{
    const struct moe_request *q = &o->request;
    struct moe_prompts_logprobs *m = &r->logprobs;
    int64_t context = r->e->context ? r->e->context : r->e->source->config.max_position_embeddings;
    int64_t rest = moe_max_i64(context - n_ids, 0);
    if (q->logprobs < 0) return;
    uint64_t tokens = (uint64_t)(q->max_tokens >= 0 ? moe_min_i64(q->max_tokens, rest) : rest) + 1;
    tokens *= (uint64_t)o->n;
    uint64_t kept = tokens * sizeof(struct moe_logprobs);
    uint64_t json = tokens * (uint64_t)(1 + q->logprobs) * LOGPROB_JSON_BYTES;
    if (o->n > 1) json += json / (uint64_t)o->n; /* the first choice is printed twice */
    m->all += kept;
    m->json_all += json;
    if (kept > m->most) m->most = kept;
    if (json > m->json_most) m->json_most = json;
}

/* What they take while the run computes: those of the answers that are kept, and three copies of the one that
 * is passed on.  Where none is kept when it has been printed, those at work, and the JSON of one. */
uint64_t moe_prompts_logprobs_held(const struct moe_prompts_reading *r)
{
    const struct moe_prompts_logprobs *m = &r->logprobs;
    int64_t most = r->e->max_sequences ? r->e->max_sequences : r->e->batch;
    uint64_t at_work = (uint64_t)most * m->most;
    if (!r->use->leave) return m->all * (uint64_t)r->use->copies + 3 * m->most;
    return (at_work < m->all ? at_work : m->all) + 3 * m->most + m->json_most;
}

/* The same when it reports; the JSON of all is there at once, or of one after the other. */
static uint64_t logprobs_reported(const struct moe_prompts_reading *r)
{
    const struct moe_prompts_logprobs *m = &r->logprobs;
    uint64_t json = !r->use->printed ? 0 : r->use->each ? m->json_most : m->json_all;
    return r->use->leave ? 0 : m->all * (uint64_t)r->use->copies + json;
}

static uint64_t logprobs_bytes(const struct moe_prompts_reading *r)
{
    uint64_t held = moe_prompts_logprobs_held(r), reported = logprobs_reported(r);
    return held > reported ? held : reported;
}

/* What an error says of the present line in front of the rest. */
enum { AT = 32 };
static const char *at_line(const struct moe_prompts_reading *r, char room[AT])
{
    room[0] = 0;
    if (r->line) snprintf(room, AT, "line %lld: ", (long long)r->line);
    return room;
}

/* Fails because the prompts, of which there are n, take more than is allowed with their logarithms. */
static enum moe_code fail_logprobs(const struct moe_prompts_reading *r, int64_t n, struct moe_err *err)
{
    char at[AT];
    bool all = r->use->printed && !r->use->each && r->line;
    const char *lines = all ? "--jsonl makes those of one prompt at a time; " : "";
    return moe_fail_at(err, MOE_NOMEM, r->path, NULL,
                       "%s%lld prompts take up to %llu bytes of memory with their results, %llu of "
                       "them for logprobs, and %llu are there for them (%stry fewer top_logprobs, a smaller "
                       "max_tokens, or a larger --memory)",
                       at_line(r, at), (long long)n, (unsigned long long)(r->held + logprobs_bytes(r)),
                       (unsigned long long)logprobs_bytes(r), (unsigned long long)r->memory, lines);
}

/* ---- memory for all ---- */

/* Fails because r->held, what n prompts take, is more than is allowed. */
static enum moe_code fail_too_many(const struct moe_prompts_reading *r, int64_t n, struct moe_err *err)
{
    char at[AT];
    return moe_fail_at(err, MOE_NOMEM, r->path, NULL,
                       "%s%lld prompts take up to %llu bytes of memory with their results, "
                       "and %llu are there for them (try a larger --memory, or fewer prompts)",
                       at_line(r, at), (long long)n, (unsigned long long)r->held,
                       (unsigned long long)r->memory);
}

enum moe_code moe_prompts_check_room(struct moe_prompts_reading *r, int64_t n, struct moe_err *err)
{
    if (r->held + PROMPT_BYTES <= r->memory) return MOE_OK;
    r->held += PROMPT_BYTES;
    return fail_too_many(r, n + 1, err);
}

enum moe_code moe_prompts_count(struct moe_prompts_reading *r, int64_t n, size_t n_ids,
                                const struct moe_request_options *o, struct moe_err *err)
{
    r->held += n_ids * sizeof(int32_t) + (uint64_t)o->n * PROMPT_BYTES;
    r->held += o->bytes ? o->bytes + sizeof *o : 0;
    count_logprobs(r, o, (int64_t)n_ids);
    if (r->held > r->memory) return fail_too_many(r, n + 1, err);
    return logprobs_bytes(r) <= r->memory - r->held ? MOE_OK : fail_logprobs(r, n + 1, err);
}
