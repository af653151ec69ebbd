/* SPDX-License-Identifier: Apache-2.0 */
/* Follows a text through a grammar, one symbol after another. */
#include "base/grow.h"
#include "formats/grammar/grammar-internal.h"

#include <stdlib.h>
#include <string.h>

static void add(struct moe_machine *m, uint32_t state, uint32_t count, uint32_t node);

bool moe_machine_start(struct moe_machine *m, const struct moe_grammar *g, struct moe_frame *f)
{
    *m = (struct moe_machine){ .g = g };
    if (!MOE_GROW(m->nodes, m->node_cap, 1)) return false;
    m->nodes[0] = (struct moe_node){ .rule = g->root };
    m->n_nodes = m->new_nodes = 1;
    *f = (struct moe_frame){ 0 };
    m->out = f;
    add(m, g->start, 0, 0);
    f->n_items = m->n_items, f->n_nodes = m->n_nodes, f->n_entries = m->n_entries;
    return !m->nomem && !m->overflow;
}

void moe_machine_release(struct moe_machine *m)
{
    free(m->items), free(m->nodes), free(m->entries);
    *m = (struct moe_machine){ 0 };
}

/* The rule of a node ends: go on where it returns to. */
static void leave(struct moe_machine *m, uint32_t node)
{
    if (node == 0) m->out->may_end = true;
    for (uint32_t e = m->nodes[node].entry; e; e = m->entries[e - 1].next) {
        struct moe_entry x = m->entries[e - 1];
        add(m, x.state, x.count, x.node);
    }
}

/* The node of a call of `rule` in this step at this depth, made if there is none; *is_new says which. */
static uint32_t find_node(struct moe_machine *m, uint32_t rule, uint32_t depth, bool *is_new)
{
    *is_new = false;
    for (uint32_t i = m->new_nodes; i < m->n_nodes; i++)
        if (m->nodes[i].rule == rule && m->nodes[i].depth == depth) return i;
    if (!MOE_GROW(m->nodes, m->node_cap, (size_t)m->n_nodes + 1)) {
        m->nomem = true;
        return 0;
    }
    *is_new = true;
    m->nodes[m->n_nodes] = (struct moe_node){ rule, depth, 0 };
    return m->n_nodes++;
}

static void call(struct moe_machine *m, uint32_t rule, struct moe_entry back)
{
    const struct moe_grammar *g = m->g;
    uint32_t depth = m->nodes[back.node].depth;
    bool is_new;
    if (m->nomem || m->overflow || depth + 1 + g->need[g->rules[rule].start] > MOE_STACK_DEPTH ||
        depth + g->need[back.state] > MOE_STACK_DEPTH)
        return;
    uint32_t node = find_node(m, rule, depth + 1, &is_new);
    for (uint32_t e = node ? m->nodes[node].entry : 0; e; e = m->entries[e - 1].next) {
        const struct moe_entry *x = &m->entries[e - 1];
        if (x->state == back.state && x->count == back.count && x->node == back.node) return;
    }
    if (!node || !MOE_GROW(m->entries, m->entry_cap, (size_t)m->n_entries + 1)) {
        m->nomem = true;
        return;
    }
    back.next = m->nodes[node].entry;
    m->entries[m->n_entries++] = back;
    m->nodes[node].entry = m->n_entries;
    if (is_new) add(m, g->rules[rule].start, 0, node);
}

/* A rule that counts has repeated its element `count` times. */
static void count_on(struct moe_machine *m, uint32_t state, uint32_t count, uint32_t node)
{
    const struct moe_rule *r = &m->g->rules[m->g->rule_of[state]];
    uint32_t next = count + 1;
    if (r->max == MOE_NO_LIMIT && next > r->min) next = r->min; /* beyond it, all counts are alike */
    if (count < r->max) call(m, r->element, (struct moe_entry){ state, next, node, 0 });
    if (count >= r->min) leave(m, node);
}

static void make_calls(struct moe_machine *m, uint32_t state, uint32_t node)
{
    const struct moe_dfa_state *s = &m->g->states[state];
    for (uint32_t i = 0; i < s->n_calls; i++) {
        const struct moe_dfa_call *c = &m->g->calls[s->call + i];
        struct moe_entry back = { c->to, 0, node, 0 };
        if (!(c->rule & MOE_BY_COUNT)) {
            call(m, c->rule, back);
            continue;
        }
        for (uint32_t e = m->nodes[node].entry; e; e = m->entries[e - 1].next)
            call(m, (c->rule & ~MOE_BY_COUNT) + m->entries[e - 1].count - 1, back);
    }
}

/* Add a state to the set that is being made, and all to which it leads without a symbol. */
static void add(struct moe_machine *m, uint32_t state, uint32_t count, uint32_t node)
{
    const struct moe_dfa_state *s = &m->g->states[state];
    if (m->nomem || m->overflow) return;
    if (m->g->flags[state] & MOE_STATE_COUNTS) {
        count_on(m, state, count, node);
        return;
    }
    for (uint32_t i = m->out->item; i < m->n_items; i++)
        if (m->items[i].state == state && m->items[i].node == node) return;
    m->overflow = m->n_items - m->out->item >= MOE_ITEMS_MAX;
    if (!MOE_GROW(m->items, m->item_cap, (size_t)m->n_items + 1)) m->nomem = true;
    if (m->nomem || m->overflow) return;
    m->items[m->n_items++] = (struct moe_item){ state, node };
    if (s->accept) leave(m, node);
    if (s->n_calls) make_calls(m, state, node);
}

/* The state after a symbol; UINT32_MAX when there is none. */
static uint32_t next_state(const struct moe_grammar *g, uint32_t state, unsigned symbol)
{
    const struct moe_dfa_state *s = &g->states[state];
    const struct moe_dfa_edge *e = g->edges + s->edge;
    uint32_t n = s->n_edges;
    while (n > 4) { /* the last edge that begins at the symbol or before it is among e[0..n) */
        uint32_t half = n / 2;
        if (e[half].lo <= symbol) e += half, n -= half;
        else n = half;
    }
    for (; n && e->lo <= symbol; e++, n--)
        if (symbol <= e->hi) return e->to;
    return UINT32_MAX;
}

bool moe_machine_step(struct moe_machine *m, const struct moe_frame *in, unsigned symbol,
                      struct moe_frame *out)
{
    const struct moe_grammar *g = m->g;
    uint32_t begin = in->item, n = in->n_items;
    m->n_items = begin + n, m->n_nodes = m->new_nodes = in->n_nodes, m->n_entries = in->n_entries;
    *out = (struct moe_frame){ .item = m->n_items };
    m->out = out;
    for (uint32_t i = begin; i < begin + n; i++) {
        uint32_t to = next_state(g, m->items[i].state, symbol);
        if (to == UINT32_MAX || m->nodes[m->items[i].node].depth + g->need[to] > MOE_STACK_DEPTH) continue;
        if (n == 1 && !g->states[to].accept && !g->states[to].n_calls && m->n_items < m->item_cap)
            m->items[m->n_items++] = (struct moe_item){ to, m->items[i].node }; /* most steps are like this */
        else add(m, to, 0, m->items[i].node);
    }
    out->n_items = m->n_items - out->item, out->n_nodes = m->n_nodes, out->n_entries = m->n_entries;
    return (out->n_items > 0 || out->may_end) && !m->nomem && !m->overflow;
}

/* ---- compaction ---- */

/* Copies of the nodes and entries that are needed; map[old node] is 1 + its number there. */
struct compaction { struct moe_node *nodes; struct moe_entry *entries; uint32_t *map, n_nodes, n_entries; };

static uint32_t place(struct compaction *c, const struct moe_machine *m, uint32_t node)
{
    if (!c->map[node]) {
        c->nodes[c->n_nodes] = m->nodes[node];
        c->map[node] = ++c->n_nodes;
    }
    return c->map[node] - 1;
}

bool moe_machine_compact(struct moe_machine *m, struct moe_frame *f)
{
    size_t n = f->n_nodes, k = (size_t)f->n_entries + 1;
    struct compaction c = { malloc(n * sizeof *c.nodes), malloc(k * sizeof *c.entries),
                            calloc(n, sizeof *c.map), 0, 0 };
    bool ok = c.nodes && c.entries && c.map;
    if (ok) {
        if (f->n_items) memmove(m->items, m->items + f->item, f->n_items * sizeof *m->items);
        place(&c, m, 0);
        for (uint32_t i = 0; i < f->n_items; i++) m->items[i].node = place(&c, m, m->items[i].node);
        for (uint32_t i = 0; i < c.n_nodes; i++) {
            uint32_t e = c.nodes[i].entry;
            c.nodes[i].entry = 0;
            for (uint32_t *last = &c.nodes[i].entry; e; e = m->entries[e - 1].next) {
                struct moe_entry *x = &c.entries[c.n_entries++];
                *x = m->entries[e - 1];
                x->node = place(&c, m, x->node);
                x->next = 0;
                *last = c.n_entries;
                last = &x->next;
            }
        }
        free(m->nodes), free(m->entries);
        m->nodes = c.nodes, m->node_cap = n, m->n_nodes = c.n_nodes;
        m->entries = c.entries, m->entry_cap = k, m->n_entries = c.n_entries;
        m->n_items = f->n_items;
        *f = (struct moe_frame){ 0, f->n_items, c.n_nodes, c.n_entries, f->may_end };
    } else {
        free(c.nodes), free(c.entries);
    }
    free(c.map);
    return ok;
}
