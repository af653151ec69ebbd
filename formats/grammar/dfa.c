/* SPDX-License-Identifier: Apache-2.0 */
/* Deterministic automata: the subset construction, and the product of two. */
#include "base/arena.h"
#include "base/grow.h"
#include "base/strmap.h"
#include "formats/grammar/automaton-internal.h"

#include <stdlib.h>
#include <string.h>

void moe_dfa_release(struct moe_dfa *d)
{
    free(d->states), free(d->edges), free(d->calls);
    *d = (struct moe_dfa){ 0 };
}

static uint32_t add_state(struct moe_dfa *d, struct moe_work *w, bool accept)
{
    if (!moe_work_states(w, 1)) return 0;
    if (!MOE_GROW(d->states, d->cap, d->n + 1)) {
        moe_work_nomem(w);
        return 0;
    }
    d->states[d->n] = (struct moe_dfa_state){ .accept = accept };
    return (uint32_t)d->n++;
}

/* Add an edge to the state whose edges come last; one that continues the edge before it is joined with it. */
static void add_edge(struct moe_dfa *d, struct moe_work *w, struct moe_dfa_state *s, unsigned lo, unsigned hi,
                     uint32_t to)
{
    struct moe_dfa_edge *last = s->n_edges ? &d->edges[d->n_edges - 1] : NULL;
    if (last && last->to == to && last->hi + 1u == lo) {
        last->hi = (uint16_t)hi;
        return;
    }
    if (!moe_work_states(w, 1)) return;
    if (!MOE_GROW(d->edges, d->edge_cap, d->n_edges + 1)) {
        moe_work_nomem(w);
        return;
    }
    d->edges[d->n_edges++] = (struct moe_dfa_edge){ (uint16_t)lo, (uint16_t)hi, to };
    s->n_edges++;
}

int64_t moe_dfa_next(const struct moe_dfa *d, size_t state, unsigned symbol)
{
    const struct moe_dfa_state *s = &d->states[state];
    for (uint32_t i = s->edge; i < s->edge + s->n_edges && d->edges[i].lo <= symbol; i++)
        if (symbol <= d->edges[i].hi) return d->edges[i].to;
    return -1;
}

bool moe_dfa_is_empty(const struct moe_dfa *d)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->states[i].accept) return false;
    return true;
}

void moe_nfa_words(struct moe_nfa *n, uint32_t from, const struct moe_dfa *d, uint32_t to)
{
    uint32_t base = (uint32_t)n->n;
    for (size_t i = 0; i < d->n; i++) moe_nfa_state(n);
    for (size_t i = 0; i < d->n && n->work->code == MOE_OK; i++) {
        const struct moe_dfa_state *s = &d->states[i];
        for (uint32_t k = s->edge; k < s->edge + s->n_edges; k++)
            moe_nfa_range(n, base + (uint32_t)i, d->edges[k].lo, d->edges[k].hi, base + d->edges[k].to);
        if (s->accept) moe_nfa_empty(n, base + (uint32_t)i, to);
    }
    if (d->n && n->work->code == MOE_OK) moe_nfa_empty(n, from, base);
}

/* ---- subset construction ---- */

/* A set of states of the nondeterministic automaton, ascending, which is one state of the other. */
struct subset { uint32_t *members; size_t n; };

struct making {
    const struct moe_nfa *nfa;
    struct moe_dfa *d;
    struct moe_work *w;
    uint32_t final;
    struct moe_arena arena;
    struct moe_strmap known;      /* the bytes of a subset's members -> its number */
    struct subset *sets;
    size_t n_sets, set_cap;
    uint32_t *mark, now;          /* mark[s] == now: s is in the subset that is being made */
    uint32_t *list;               /* and this is that subset */
    size_t n_list;
    struct moe_nfa_edge *edges;   /* all edges with symbols, or all calls, of the subset that is expanded */
    size_t n_edges, edge_cap;
    uint16_t *cuts;
    size_t cut_cap;
};

static void list_add(struct making *m, uint32_t s)
{
    if (m->mark[s] == m->now) return;
    m->mark[s] = m->now;
    m->list[m->n_list++] = s;
}

static int by_number(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Close the list under edges without symbols, and return the number of that subset. */
static uint32_t finish_list(struct making *m)
{
    const struct moe_nfa *n = m->nfa;
    bool accept = false;
    for (size_t i = 0; i < m->n_list; i++) {
        for (uint32_t e = n->first[m->list[i]]; e; e = n->edges[e - 1].next) {
            const struct moe_nfa_edge *x = &n->edges[e - 1];
            if (!moe_work_steps(m->w, 1)) return 0;
            if (x->lo > x->hi && !x->call) list_add(m, x->to);
        }
        accept |= m->list[i] == m->final;
    }
    qsort(m->list, m->n_list, sizeof *m->list, by_number);
    moe_work_steps(m->w, m->n_list);
    int64_t old = moe_strmap_get(&m->known, m->list, m->n_list * sizeof *m->list);
    if (old >= 0) return (uint32_t)old;
    struct subset set = { MOE_NEWN(&m->arena, uint32_t, m->n_list + 1), m->n_list };
    if (!set.members || !MOE_GROW(m->sets, m->set_cap, m->n_sets + 1) ||
        !moe_work_states(m->w, 1 + m->n_list / 16)) {
        if (m->w->code == MOE_OK) moe_work_nomem(m->w);
        return 0;
    }
    if (m->n_list) memcpy(set.members, m->list, m->n_list * sizeof *m->list);
    m->sets[m->n_sets] = set;
    if (moe_strmap_add(&m->known, set.members, set.n * sizeof *set.members, (int64_t)m->n_sets, NULL) < 0)
        moe_work_nomem(m->w);
    add_state(m->d, m->w, accept);
    return (uint32_t)m->n_sets++;
}

static void begin_list(struct making *m) { m->n_list = 0, m->now++; }

static bool gather(struct making *m, size_t set, bool calls)
{
    m->n_edges = 0;
    for (size_t i = 0; i < m->sets[set].n; i++)
        for (uint32_t e = m->nfa->first[m->sets[set].members[i]]; e; e = m->nfa->edges[e - 1].next) {
            const struct moe_nfa_edge *x = &m->nfa->edges[e - 1];
            if (calls ? !x->call : x->lo > x->hi) continue;
            if (!MOE_GROW(m->edges, m->edge_cap, m->n_edges + 1)) {
                moe_work_nomem(m->w);
                return false;
            }
            m->edges[m->n_edges++] = *x;
        }
    return moe_work_steps(m->w, m->n_edges + 1);
}

static int by_low(const void *a, const void *b)
{
    return (int)((const struct moe_nfa_edge *)a)->lo - (int)((const struct moe_nfa_edge *)b)->lo;
}

static int by_call(const void *a, const void *b)
{
    return by_number(&((const struct moe_nfa_edge *)a)->call, &((const struct moe_nfa_edge *)b)->call);
}

static int by_cut(const void *a, const void *b) { return *(const uint16_t *)a - *(const uint16_t *)b; }

static size_t find_cuts(struct making *m)
{
    size_t n = 0, k = 0;
    if (!MOE_GROW(m->cuts, m->cut_cap, 2 * m->n_edges + 1)) {
        moe_work_nomem(m->w);
        return 0;
    }
    for (size_t i = 0; i < m->n_edges; i++) {
        m->cuts[n++] = m->edges[i].lo;
        m->cuts[n++] = (uint16_t)(m->edges[i].hi + 1);
    }
    if (n) qsort(m->cuts, n, sizeof *m->cuts, by_cut);
    for (size_t i = 0; i < n; i++)
        if (!k || m->cuts[k - 1] != m->cuts[i]) m->cuts[k++] = m->cuts[i];
    return k;
}

static void expand_symbols(struct making *m, size_t set)
{
    if (!gather(m, set, false) || !m->n_edges) return;
    size_t cuts = find_cuts(m);
    qsort(m->edges, m->n_edges, sizeof *m->edges, by_low);
    struct moe_dfa_state s = m->d->states[set];
    s.edge = (uint32_t)m->d->n_edges;
    for (size_t c = 0; c + 1 < cuts && m->w->code == MOE_OK; c++) {
        begin_list(m);
        if (!moe_work_steps(m->w, m->n_edges)) return;
        for (size_t i = 0; i < m->n_edges && m->edges[i].lo <= m->cuts[c]; i++)
            if (m->edges[i].hi >= m->cuts[c]) list_add(m, m->edges[i].to);
        if (!m->n_list) continue;
        add_edge(m->d, m->w, &s, m->cuts[c], m->cuts[c + 1] - 1u, finish_list(m));
    }
    m->d->states[set] = s;
}

static void expand_calls(struct making *m, size_t set)
{
    if (!gather(m, set, true) || !m->n_edges) return;
    qsort(m->edges, m->n_edges, sizeof *m->edges, by_call);
    struct moe_dfa_state s = m->d->states[set];
    s.call = (uint32_t)m->d->n_calls;
    for (size_t i = 0, j; i < m->n_edges && m->w->code == MOE_OK; i = j) {
        begin_list(m);
        for (j = i; j < m->n_edges && m->edges[j].call == m->edges[i].call; j++) list_add(m, m->edges[j].to);
        struct moe_dfa_call call = { m->edges[i].call - 1, finish_list(m) };
        if (s.n_calls == UINT16_MAX || !MOE_GROW(m->d->calls, m->d->call_cap, m->d->n_calls + 1)) {
            moe_work_nomem(m->w);
            return;
        }
        m->d->calls[m->d->n_calls++] = call;
        s.n_calls++;
    }
    m->d->states[set] = s;
}

void moe_dfa_make(struct moe_dfa *d, const struct moe_nfa *n, uint32_t start, uint32_t final)
{
    *d = (struct moe_dfa){ 0 };
    struct making m = { .nfa = n, .d = d, .w = n->work, .final = final };
    if (n->work->code != MOE_OK) return;
    m.mark = calloc(n->n, sizeof *m.mark);
    m.list = calloc(n->n, sizeof *m.list);
    if (m.mark && m.list) {
        begin_list(&m);
        list_add(&m, start);
        finish_list(&m);
        for (size_t i = 0; i < m.n_sets && m.w->code == MOE_OK; i++) {
            expand_symbols(&m, i);
            if (m.w->code == MOE_OK) expand_calls(&m, i);
        }
    } else {
        moe_work_nomem(m.w);
    }
    moe_strmap_release(&m.known);
    moe_arena_clear(&m.arena);
    free(m.mark), free(m.list), free(m.sets), free(m.edges), free(m.cuts);
    if (m.w->code != MOE_OK) moe_dfa_release(d);
}

/* ---- products ---- */

struct pair { uint32_t a, b; };   /* b: UINT32_MAX where the second automaton has no way on */

struct product {
    struct moe_dfa *d;
    const struct moe_dfa *a, *b;
    struct moe_work *w;
    bool both;
    struct pair **pairs;          /* each in the arena, where its address stays */
    size_t n, cap;
    struct moe_arena arena;
    struct moe_strmap known;
};

static uint32_t pair_number(struct product *p, struct pair x)
{
    int64_t old = moe_strmap_get(&p->known, &x, sizeof x);
    if (old >= 0) return (uint32_t)old;
    struct pair *kept = MOE_NEW(&p->arena, struct pair);
    if (!kept || !MOE_GROW(p->pairs, p->cap, p->n + 1)) {
        moe_work_nomem(p->w);
        return 0;
    }
    *kept = x;
    p->pairs[p->n] = kept;
    if (moe_strmap_add(&p->known, kept, sizeof *kept, (int64_t)p->n, NULL) < 0) moe_work_nomem(p->w);
    bool in_b = x.b != UINT32_MAX && p->b->states[x.b].accept;
    add_state(p->d, p->w, p->a->states[x.a].accept && in_b == p->both);
    return (uint32_t)p->n++;
}

/* The edges of the i-th pair: each edge of a, cut where edges of b begin or end. */
static void expand_pair(struct product *p, size_t i)
{
    struct pair x = *p->pairs[i];
    struct moe_dfa_state s = p->d->states[i];
    const struct moe_dfa_state *sa = &p->a->states[x.a], *sb = x.b == UINT32_MAX ? NULL : &p->b->states[x.b];
    bool has = sb && sb->n_edges;
    const struct moe_dfa_edge *f = has ? p->b->edges + sb->edge : NULL, *f_end = has ? f + sb->n_edges : NULL;
    s.edge = (uint32_t)p->d->n_edges;
    for (int k = 0; k < sa->n_edges; k++) {
        const struct moe_dfa_edge *e = &p->a->edges[sa->edge + (uint32_t)k];
        for (unsigned lo = e->lo, hi; lo <= e->hi && moe_work_steps(p->w, 1); lo = hi + 1) {
            while (f < f_end && f->hi < lo) f++;
            bool inside = f < f_end && f->lo <= lo;
            hi = inside ? f->hi : f < f_end && f->lo <= e->hi ? f->lo - 1u : e->hi;
            if (hi > e->hi) hi = e->hi;
            if (!inside && p->both) continue;
            uint32_t to = pair_number(p, (struct pair){ e->to, inside ? f->to : UINT32_MAX });
            add_edge(p->d, p->w, &s, lo, hi, to);
        }
    }
    p->d->states[i] = s;
}

void moe_dfa_combine(struct moe_dfa *d, const struct moe_dfa *a, const struct moe_dfa *b, bool both,
                     struct moe_work *w)
{
    *d = (struct moe_dfa){ 0 };
    if (w->code != MOE_OK) return;
    struct product p = { .d = d, .a = a, .b = b, .w = w, .both = both };
    pair_number(&p, (struct pair){ 0, 0 });
    for (size_t i = 0; i < p.n && w->code == MOE_OK; i++) expand_pair(&p, i);
    moe_strmap_release(&p.known);
    moe_arena_clear(&p.arena);
    free(p.pairs);
    if (w->code != MOE_OK) moe_dfa_release(d);
}
