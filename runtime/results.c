#include "runtime/results.h"

#include <stdlib.h>
#include <string.h>

enum { SEQUENCE, SCORE, ROUTING, STATS };

struct sequence_head { int64_t index, n, text_bytes; int32_t finish; };           /* then tokens, then text */
struct score_head { int64_t n, same, n_all, anonymous; double nll, nll_reference, kl; }; /* then n_all doubles */

enum moe_code moe_results_open(struct moe_results **out, int ranks, int64_t n_sequences, struct moe_err *err)
{
    struct moe_results *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r) return moe_fail(err, MOE_NOMEM, "no memory for results");
    r->ranks = ranks;
    r->n_sequences = n_sequences;
    r->sequence = calloc((size_t)n_sequences + 1, sizeof *r->sequence);
    r->stats = calloc((size_t)ranks, sizeof *r->stats);
    r->scored = calloc((size_t)ranks, sizeof *r->scored);
    if (!r->sequence || !r->stats || !r->scored) {
        moe_results_close(&r);
        return moe_fail(err, MOE_NOMEM, "no memory for the results of %lld sequences", (long long)n_sequences);
    }
    *out = r;
    return MOE_OK;
}

void moe_results_close(struct moe_results **pr)
{
    struct moe_results *r = *pr;
    *pr = NULL;
    if (!r) return;
    for (int64_t i = 0; r->sequence && i < r->n_sequences; i++) {
        free(r->sequence[i].out.tokens);
        free(r->sequence[i].out.text);
    }
    free(r->sequence);
    free(r->sums.all);
    free(r->routing);
    free(r->stats);
    free(r->scored);
    free(r);
}

/* ---- heard ---- */

static bool keep_sequence(struct moe_results *r, int from, const void *data, size_t bytes)
{
    struct sequence_head h;
    if (bytes < sizeof h) return true;
    memcpy(&h, data, sizeof h);
    if (h.index < 0 || h.index >= r->n_sequences || r->sequence[h.index].there || h.n < 0 || h.text_bytes < 0 ||
        bytes != sizeof h + (size_t)h.n * sizeof(int32_t) + (size_t)h.text_bytes)
        return true;
    struct moe_generated g = { .n = h.n, .text_bytes = (size_t)h.text_bytes, .finish = (enum moe_finish)h.finish };
    g.tokens = malloc((size_t)(h.n + 1) * sizeof *g.tokens);
    g.text = malloc((size_t)h.text_bytes + 1);
    if (!g.tokens || !g.text) {
        free(g.tokens);
        free(g.text);
        return false;
    }
    memcpy(g.tokens, (const char *)data + sizeof h, (size_t)h.n * sizeof *g.tokens);
    memcpy(g.text, (const char *)data + sizeof h + (size_t)h.n * sizeof *g.tokens, (size_t)h.text_bytes);
    g.text[h.text_bytes] = 0;
    r->sequence[h.index] = (struct moe_result){ true, from, g };
    return true;
}

static bool keep_score(struct moe_results *r, int from, const void *data, size_t bytes)
{
    struct score_head h;
    struct moe_err ignored;
    if (bytes < sizeof h) return true;
    memcpy(&h, data, sizeof h);
    struct moe_score_sums s = { .n = h.n, .same = h.same, .nll = h.nll, .nll_reference = h.nll_reference, .kl = h.kl,
                                .anonymous = (uint64_t)h.anonymous };
    if (h.n_all && bytes == sizeof h + (size_t)h.n_all * sizeof(double)) {
        s.all = malloc((size_t)h.n_all * sizeof *s.all);
        if (!s.all) return false;
        memcpy(s.all, (const char *)data + sizeof h, (size_t)h.n_all * sizeof *s.all);
    }
    bool kept = moe_score_join(&r->sums, &s, &ignored) == MOE_OK;
    free(s.all);
    if (kept && from < r->ranks) r->scored[from] = true;
    return kept;
}

static bool keep_routing(struct moe_results *r, const void *data, size_t bytes)
{
    if (!r->routing) r->routing = calloc(1, bytes + sizeof(int64_t));
    if (!r->routing) return false;
    if (!r->routing_bytes) r->routing_bytes = bytes;
    if (bytes != r->routing_bytes) return true;
    for (size_t i = 0; i < bytes / sizeof *r->routing; i++) {
        int64_t v;
        memcpy(&v, (const char *)data + i * sizeof v, sizeof v);
        r->routing[i] += v;
    }
    return true;
}

void moe_results_heard(void *results, int from, uint32_t kind, const void *data, size_t bytes)
{
    struct moe_results *r = results;
    bool kept = kind == SEQUENCE ? keep_sequence(r, from, data, bytes) : kind == SCORE ? keep_score(r, from, data, bytes)
              : kind == ROUTING ? keep_routing(r, data, bytes) : true;
    if (kind == STATS && bytes == sizeof *r->stats && from < r->ranks) memcpy(&r->stats[from], data, bytes);
    if (!kept) r->code = MOE_NOMEM;
}

/* ---- told ---- */

static enum moe_code tell(struct moe_results *r, struct moe_ep *ep, int rank, uint32_t kind, const void *data, size_t bytes, struct moe_err *err)
{
    moe_results_heard(r, rank, kind, data, bytes);
    if (r->code != MOE_OK) return moe_fail(err, r->code, "no memory for results");
    return ep ? moe_ep_say(ep, kind, data, bytes, err) : MOE_OK;
}

enum moe_code moe_results_sequence(struct moe_results *r, struct moe_ep *ep, int rank, const struct moe_sequence *s, struct moe_err *err)
{
    struct sequence_head h = { s->index, s->out.n, (int64_t)s->out.text_bytes, (int32_t)s->out.finish };
    size_t tokens = (size_t)h.n * sizeof(int32_t), bytes = sizeof h + tokens + s->out.text_bytes;
    char *p = malloc(bytes);
    if (!p) return moe_fail(err, MOE_NOMEM, "no memory for results");
    memcpy(p, &h, sizeof h);
    if (tokens) memcpy(p + sizeof h, s->out.tokens, tokens);
    if (s->out.text_bytes) memcpy(p + sizeof h + tokens, s->out.text, s->out.text_bytes);
    enum moe_code code = tell(r, ep, rank, SEQUENCE, p, bytes, err);
    free(p);
    return code;
}

enum moe_code moe_results_score(struct moe_results *r, struct moe_ep *ep, int rank, const struct moe_score_sums *s, struct moe_err *err)
{
    struct score_head h = { s->n, s->same, s->all ? s->n : 0, (int64_t)s->anonymous, s->nll, s->nll_reference, s->kl };
    size_t all = (size_t)h.n_all * sizeof(double);
    char *p = malloc(sizeof h + all);
    if (!p) return moe_fail(err, MOE_NOMEM, "no memory for results");
    memcpy(p, &h, sizeof h);
    if (all) memcpy(p + sizeof h, s->all, all);
    enum moe_code code = tell(r, ep, rank, SCORE, p, sizeof h + all, err);
    free(p);
    return code;
}

enum moe_code moe_results_routing(struct moe_results *r, struct moe_ep *ep, const struct moe_recorder *m, struct moe_err *err)
{
    return tell(r, ep, 0, ROUTING, m->counts, m->bytes, err);
}

enum moe_code moe_results_stats(struct moe_results *r, struct moe_ep *ep, int rank, struct moe_err *err)
{
    struct moe_ep_stats s = moe_ep_stats(ep);
    return tell(r, ep, rank, STATS, &s, sizeof s, err);
}

/* ---- reported ---- */

static void add_sequence(cJSON *list, const struct moe_result *s, int64_t prompt)
{
    cJSON *o = cJSON_CreateObject(), *tokens;
    if (!o) return;
    moe_json_add_text(o, "text", s->there ? s->out.text : "", s->there ? s->out.text_bytes : 0);
    tokens = cJSON_AddArrayToObject(o, "tokens");
    for (int64_t i = 0; tokens && i < s->out.n; i++) cJSON_AddItemToArray(tokens, cJSON_CreateNumber(s->out.tokens[i]));
    moe_json_add_i64(o, "prompt_tokens", prompt);
    cJSON_AddStringToObject(o, "finish_reason", !s->there ? "lost" : s->out.finish == MOE_FINISH_STOP ? "stop" : "length");
    moe_json_add_i64(o, "rank", s->rank);
    cJSON_AddItemToArray(list, o);
}

void moe_results_json(const struct moe_results *r, const struct moe_sequence *prompts, cJSON *json)
{
    cJSON *list = cJSON_AddArrayToObject(json, "sequences");
    for (int64_t i = 0; list && i < r->n_sequences; i++) {
        struct moe_result s = r->sequence[i];
        if (!s.there) s.rank = (int)(i % r->ranks);
        add_sequence(list, &s, prompts[i].n_ids);
    }
}

int64_t moe_results_lost(const struct moe_results *r)
{
    int64_t n = 0;
    for (int64_t i = 0; i < r->n_sequences; i++) n += !r->sequence[i].there;
    return n;
}
