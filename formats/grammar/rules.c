/* SPDX-License-Identifier: Apache-2.0 */
/* Puts the rules of a grammar together, and finds what masks and the bound on the stack need to know of its
 * states. */
#include "base/grow.h"
#include "formats/grammar/grammar-internal.h"

#include <stdlib.h>
#include <string.h>

void moe_rules_begin(struct moe_rules *r, struct moe_err *err)
{
    *r = (struct moe_rules){ .work = { err, MOE_OK, MOE_WORK_STEPS, MOE_WORK_STATES } };
}

void moe_rules_release(struct moe_rules *r)
{
    for (size_t i = 0; i < r->n; i++) moe_dfa_release(&r->rules[i].dfa);
    free(r->rules);
    r->rules = NULL, r->n = r->cap = 0;
}

uint32_t moe_rules_add(struct moe_rules *r)
{
    if (!moe_work_states(&r->work, 4)) return 0;
    if (!MOE_GROW(r->rules, r->cap, r->n + 1)) {
        moe_work_nomem(&r->work);
        return 0;
    }
    r->rules[r->n] = (struct moe_new_rule){ 0 };
    return (uint32_t)r->n++;
}

void moe_rules_define(struct moe_rules *r, uint32_t rule, const struct moe_nfa *n, uint32_t start,
                      uint32_t final)
{
    struct moe_dfa d;
    moe_dfa_make(&d, n, start, final);
    if (r->work.code != MOE_OK) return;
    r->rules[rule].dfa = d;
}

void moe_rules_count(struct moe_rules *r, uint32_t rule, uint32_t element, uint32_t min, uint32_t max)
{
    if (r->work.code != MOE_OK) return;
    r->rules[rule] = (struct moe_new_rule){ .counts = true, .element = element, .min = min, .max = max };
}

/* ---- tables ---- */

static void *table(struct moe_rules *r, size_t n, size_t size)
{
    void *p = calloc(n + 1, size);
    if (!p) moe_work_nomem(&r->work);
    return p;
}

static void allocate(struct moe_rules *r, struct moe_grammar *g)
{
    size_t states = 0, edges = 0, calls = 0;
    for (size_t i = 0; i < r->n; i++) {
        const struct moe_dfa *d = &r->rules[i].dfa;
        states += d->n + r->rules[i].counts, edges += d->n_edges, calls += d->n_calls;
    }
    g->states = table(r, states, sizeof *g->states);
    g->edges = table(r, edges, sizeof *g->edges);
    g->calls = table(r, calls, sizeof *g->calls);
    g->rules = table(r, r->n, sizeof *g->rules);
    g->need = table(r, states, sizeof *g->need);
    g->flags = table(r, states, sizeof *g->flags);
    g->ahead = table(r, states, sizeof *g->ahead);
    g->rule_of = table(r, states, sizeof *g->rule_of);
    g->n_states = states, g->n_rules = r->n;
    g->bytes = sizeof *g + states * (sizeof *g->states + sizeof *g->rule_of + 3) + edges * sizeof *g->edges +
               calls * sizeof *g->calls + r->n * sizeof *g->rules;
}

static void copy_rules(struct moe_rules *r, struct moe_grammar *g)
{
    uint32_t state = 0, edge = 0, call = 0;
    for (size_t i = 0; i < r->n; i++) {
        const struct moe_new_rule *x = &r->rules[i];
        g->rules[i] = (struct moe_rule){ state, x->element, x->min, x->max, x->counts, x->exact };
        if (x->counts) {
            g->flags[state] = MOE_STATE_COUNTS;
            g->rule_of[state++] = (uint32_t)i;
            continue;
        }
        for (size_t k = 0; k < x->dfa.n; k++) {
            g->states[state + k] = x->dfa.states[k];
            g->states[state + k].edge += edge, g->states[state + k].call += call;
        }
        for (size_t k = 0; k < x->dfa.n_edges; k++) {
            g->edges[edge + k] = x->dfa.edges[k];
            g->edges[edge + k].to += state;
        }
        for (size_t k = 0; k < x->dfa.n_calls; k++) {
            g->calls[call + k] = x->dfa.calls[k];
            g->calls[call + k].to += state;
        }
        state += (uint32_t)x->dfa.n, edge += (uint32_t)x->dfa.n_edges, call += (uint32_t)x->dfa.n_calls;
    }
}

/* ---- how deep the stack has to become ---- */

static uint32_t called_start(const struct moe_grammar *g, const struct moe_dfa_call *c)
{
    return g->rules[c->rule & ~MOE_BY_COUNT].start;
}

/* need of a state, from that of those to which it leads */
static unsigned need_of(const struct moe_grammar *g, size_t i)
{
    const struct moe_dfa_state *s = &g->states[i];
    unsigned best = s->accept ? 0 : MOE_NEVER;
    if (g->flags[i] & MOE_STATE_COUNTS) {
        unsigned inner = g->need[g->rules[g->rules[g->rule_of[i]].element].start];
        return inner < MOE_NEVER - 1 ? inner + 1 : MOE_NEVER;
    }
    for (uint32_t e = s->edge; e < s->edge + s->n_edges; e++)
        if (g->need[g->edges[e].to] < best) best = g->need[g->edges[e].to];
    for (uint32_t c = s->call; c < s->call + s->n_calls; c++) {
        unsigned inner = g->need[called_start(g, &g->calls[c])], after = g->need[g->calls[c].to];
        if (inner >= MOE_NEVER - 1 || after == MOE_NEVER) continue;
        if (inner + 1 > after) after = inner + 1;
        if (after < best) best = after;
    }
    return best;
}

/* Who leads to a state, by an edge or as what follows a call; and which states call a rule (or repeat it). */
struct backward { uint32_t *first, *from, *callers_first, *callers; };

static size_t walk_backward(const struct moe_grammar *g, struct backward *b, bool fill)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n_states; i++) {
        const struct moe_dfa_state *s = &g->states[i];
        for (uint32_t e = s->edge; e < s->edge + s->n_edges; e++, n++) {
            if (fill) b->from[--b->first[g->edges[e].to]] = (uint32_t)i;
            else b->first[g->edges[e].to]++;
        }
        for (uint32_t c = s->call; c < s->call + s->n_calls; c++, n++) {
            if (fill) b->from[--b->first[g->calls[c].to]] = (uint32_t)i;
            else b->first[g->calls[c].to]++;
        }
    }
    return n;
}

static size_t walk_callers(const struct moe_grammar *g, struct backward *b, bool fill)
{
    size_t n = 0;
    for (size_t i = 0; i < g->n_states; i++) {
        const struct moe_dfa_state *s = &g->states[i];
        bool counts = g->flags[i] & MOE_STATE_COUNTS;
        for (uint32_t c = 0; c < (counts ? 1 : s->n_calls); c++, n++) {
            uint32_t rule =
                counts ? g->rules[g->rule_of[i]].element : g->calls[s->call + c].rule & ~MOE_BY_COUNT;
            if (fill) b->callers[--b->callers_first[rule]] = (uint32_t)i;
            else b->callers_first[rule]++;
        }
    }
    return n;
}

static void sums(uint32_t *first, size_t n)
{
    for (size_t i = 1; i <= n; i++) first[i] += first[i - 1];
}

/* need falls from MOE_NEVER to its least solution: whenever that of a state falls, those that lead to it are
 * looked at again.  States are taken up in the order of their need, so that each is settled once. */
static void settle(struct moe_rules *r, struct moe_grammar *g, const struct backward *b, uint32_t *queue)
{
    size_t head = 0, tail = 0, n = g->n_states;
    memset(g->need, MOE_NEVER, n);
    for (unsigned level = 0; level < MOE_NEVER; level++) {
        size_t before = tail;
        if (level < 2) /* later levels are reached from the one before only */
            for (uint32_t i = 0; i < n; i++)
                if (g->need[i] == MOE_NEVER && need_of(g, i) == level)
                    g->need[i] = (uint8_t)level, queue[tail++] = i;
        for (size_t i = 0; level >= 2 && i < g->n_rules; i++) {
            if (g->need[g->rules[i].start] != level - 1) continue;
            for (uint32_t k = b->callers_first[i]; k < b->callers_first[i + 1]; k++) {
                uint32_t s = b->callers[k];
                if (g->need[s] == MOE_NEVER && need_of(g, s) == level)
                    g->need[s] = (uint8_t)level, queue[tail++] = s;
            }
        }
        for (; head < tail; head++) {
            uint32_t to = queue[head];
            if (!moe_work_steps(&r->work, 1)) return;
            for (uint32_t k = b->first[to]; k < b->first[to + 1]; k++) {
                uint32_t s = b->from[k];
                if (g->need[s] == MOE_NEVER && need_of(g, s) == level)
                    g->need[s] = (uint8_t)level, queue[tail++] = s;
            }
        }
        if (tail == before && level >= 2) return;
    }
}

static void find_need(struct moe_rules *r, struct moe_grammar *g)
{
    struct backward b = { table(r, g->n_states + 1, 4), NULL, table(r, g->n_rules + 1, 4), NULL };
    uint32_t *queue = table(r, g->n_states, 4);
    if (r->work.code == MOE_OK) {
        b.from = table(r, walk_backward(g, &b, false), 4);
        b.callers = table(r, walk_callers(g, &b, false), 4);
    }
    if (r->work.code == MOE_OK) {
        sums(b.first, g->n_states), sums(b.callers_first, g->n_rules);
        walk_backward(g, &b, true), walk_callers(g, &b, true);
        settle(r, g, &b, queue);
    }
    free(b.first), free(b.from), free(b.callers_first), free(b.callers), free(queue);
}

/* Drop edges and calls that lead nowhere. */
static void prune(struct moe_grammar *g)
{
    for (size_t i = 0; i < g->n_states; i++) {
        struct moe_dfa_state *s = &g->states[i];
        uint16_t edges = 0, calls = 0;
        for (uint32_t e = 0; e < s->n_edges; e++)
            if (g->need[g->edges[s->edge + e].to] != MOE_NEVER)
                g->edges[s->edge + edges++] = g->edges[s->edge + e];
        for (uint32_t c = 0; c < s->n_calls; c++) {
            const struct moe_dfa_call *x = &g->calls[s->call + c];
            if (g->need[x->to] != MOE_NEVER && g->need[called_start(g, x)] < MOE_NEVER - 1)
                g->calls[s->call + calls++] = *x;
        }
        s->n_edges = edges, s->n_calls = calls;
    }
}

/* ---- rules that call themselves before a symbol ---- */

static uint32_t first_call(const struct moe_grammar *g, uint32_t rule, uint32_t i)
{
    const struct moe_rule *x = &g->rules[rule];
    if (x->counts) return i ? UINT32_MAX : x->element;
    const struct moe_dfa_state *s = &g->states[x->start];
    return i < s->n_calls ? g->calls[s->call + i].rule & ~MOE_BY_COUNT : UINT32_MAX;
}

static void refuse_left_recursion(struct moe_rules *r, const struct moe_grammar *g)
{
    uint32_t *stack = table(r, g->n_rules, 4), *at = table(r, g->n_rules, 4);
    uint8_t *seen = table(r, g->n_rules, 1); /* 1: on the stack, 2: done */
    for (uint32_t root = 0; root < g->n_rules && r->work.code == MOE_OK; root++) {
        size_t n = 0;
        if (seen[root]) continue;
        stack[n++] = root, seen[root] = 1;
        while (n && r->work.code == MOE_OK) {
            uint32_t rule = stack[n - 1], next = first_call(g, rule, at[rule]++);
            if (next == UINT32_MAX) seen[rule] = 2, n--;
            else if (seen[next] == 1)
                moe_work_fail(&r->work, MOE_UNSUPPORTED,
                              "it refers to itself without anything "
                              "in between");
            else if (!seen[next]) seen[next] = 1, stack[n++] = next;
        }
    }
    free(stack), free(at), free(seen);
}

/* ---- what plain characters do ---- */

static int64_t target(const struct moe_grammar *g, size_t state, unsigned lo, unsigned hi)
{
    const struct moe_dfa_state *s = &g->states[state];
    for (uint32_t e = s->edge; e < s->edge + s->n_edges; e++)
        if (g->edges[e].lo <= lo && lo <= g->edges[e].hi)
            return hi <= g->edges[e].hi ? (int64_t)g->edges[e].to : -1;
    return -1;
}

/* Whether each sequence of bytes in these ranges leads from a state to one whose flags have `flag`, or, where
 * `to` is not negative, to that very state. */
static bool all_lead(const struct moe_grammar *g, size_t state, const uint8_t (*ranges)[2], int n,
                     uint8_t least, int64_t to)
{
    const struct moe_dfa_state *s = &g->states[state];
    unsigned at = ranges[0][0], last = ranges[0][1];
    for (uint32_t e = s->edge; e < s->edge + s->n_edges && at <= last; e++) {
        const struct moe_dfa_edge *x = &g->edges[e];
        if (x->hi < at) continue;
        if (x->lo > at) return false;
        if (n > 1 ? !all_lead(g, x->to, ranges + 1, n - 1, least, to)
                  : to >= 0 ? x->to != to : g->ahead[x->to] < least)
            return false;
        at = x->hi + 1u;
    }
    return at > last;
}

/* The same for all plain characters. */
static bool plain_leads(const struct moe_grammar *g, size_t state, uint8_t least, int64_t to)
{
    static const struct { int n; uint8_t r[4][2];
    } chars[] = { { 1, { { 0x20, 0x21 } } },
                  { 1, { { 0x23, 0x5b } } },
                  { 1, { { 0x5d, 0x7f } } },
                  { 2, { { 0xc2, 0xdf }, { 0x80, 0xbf } } },
                  { 3, { { 0xe0, 0xe0 }, { 0xa0, 0xbf }, { 0x80, 0xbf } } },
                  { 3, { { 0xe1, 0xe1 }, { 0x80, 0xbf }, { 0x80, 0xbf } } },
                  { 3, { { 0xe2, 0xe2 }, { 0x80, 0x80 }, { 0x80, 0xa7 } } },
                  { 3, { { 0xe2, 0xe2 }, { 0x80, 0x80 }, { 0xaa, 0xbf } } },
                  { 3, { { 0xe2, 0xe2 }, { 0x81, 0xbf }, { 0x80, 0xbf } } },
                  { 3, { { 0xe3, 0xec }, { 0x80, 0xbf }, { 0x80, 0xbf } } },
                  { 3, { { 0xed, 0xed }, { 0x80, 0x9f }, { 0x80, 0xbf } } },
                  { 3, { { 0xee, 0xef }, { 0x80, 0xbf }, { 0x80, 0xbf } } },
                  { 4, { { 0xf0, 0xf0 }, { 0x90, 0xbf }, { 0x80, 0xbf }, { 0x80, 0xbf } } },
                  { 4, { { 0xf1, 0xf3 }, { 0x80, 0xbf }, { 0x80, 0xbf }, { 0x80, 0xbf } } },
                  { 4, { { 0xf4, 0xf4 }, { 0x80, 0x8f }, { 0x80, 0xbf }, { 0x80, 0xbf } } } };
    for (size_t i = 0; i < sizeof chars / sizeof *chars; i++)
        if (!all_lead(g, state, chars[i].r, chars[i].n, least, to)) return false;
    return true;
}

/* ahead: first that of states from which plain characters lead in a circle, and of those that lead only to
 * such; then that of the others, up to AHEAD, each number from the one before. */
static void find_flags(const struct moe_rules *r, struct moe_grammar *g)
{
    enum { ROUNDS = 64, AHEAD = 32, LOOKS = 1 << 21 };
    for (size_t i = 0; i < g->n_states; i++) {
        if (target(g, i, 0, 255) == (int64_t)i) g->flags[i] |= MOE_STATE_ANY;
        if (plain_leads(g, i, 0, (int64_t)i)) g->ahead[i] = MOE_ALWAYS;
    }
    bool grew = true;
    for (int round = 0; round < ROUNDS && grew; round++) {
        grew = false;
        for (size_t i = g->n_states; i-- > 0;) /* states lead mostly to later ones */
            if (g->ahead[i] != MOE_ALWAYS && plain_leads(g, i, MOE_ALWAYS, -1))
                g->ahead[i] = MOE_ALWAYS, grew = true;
    }
    long looks = 0;
    for (uint8_t n = 0; n < AHEAD; n++)
        for (size_t i = 0; i < g->n_states && looks < LOOKS; i++)
            if (g->ahead[i] == n) {
                looks++;
                if (plain_leads(g, i, n, -1)) g->ahead[i] = (uint8_t)(n + 1);
            }
    if (r->one_char) g->flags[g->rules[r->one_char - 1].start] |= MOE_STATE_CHAR;
}

/* ---- the whole ---- */

enum moe_code moe_rules_finish(struct moe_rules *r, uint32_t root, const struct moe_vocab *vocab,
                               const struct moe_grammar_options *options, struct moe_grammar **out)
{
    struct moe_work *w = &r->work;
    struct moe_grammar *g = w->code == MOE_OK ? calloc(1, sizeof *g) : NULL;
    *out = NULL;
    if (!g) moe_work_nomem(w);
    if (w->code == MOE_OK) {
        atomic_init(&g->refs, 1);
        g->vocab = vocab, g->root = root, g->n_special = r->n_special;
        memcpy(g->special, r->special, sizeof g->special);
        g->cache = moe_cache_new(options && options->cache_bytes ? options->cache_bytes : 8u << 20);
        if (!g->cache) moe_work_nomem(w);
        allocate(r, g);
    }
    if (w->code == MOE_OK) {
        copy_rules(r, g);
        g->start = g->rules[root].start;
        find_need(r, g);
    }
    if (w->code == MOE_OK && g->need[g->start] > MOE_STACK_DEPTH)
        moe_work_fail(w, MOE_UNSUPPORTED, "no text meets it");
    if (w->code == MOE_OK) {
        prune(g);
        refuse_left_recursion(r, g);
        find_flags(r, g);
    }
    enum moe_code code = w->code;
    if (code == MOE_OK) *out = g;
    else moe_grammar_release(&g);
    moe_rules_release(r);
    return code;
}
