/* SPDX-License-Identifier: Apache-2.0 */
/* Masks: a walk over the tries of the vocabulary with the set of items at each node, and a cache of results.
 *
 * Most states allow either a handful of tokens, or all plain tokens (vocab-internal.h) and a handful more; so
 * a mask is kept as one of the vocabulary's sets and a list of ids. */
#include "base/grow.h"
#include "formats/grammar/grammar-internal.h"
#include "formats/grammar/vocab-internal.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

struct mask {
    struct mask *next;            /* of those with the same slot */
    uint64_t hash;
    size_t key_bytes, bytes;      /* bytes: all that it takes */
    unsigned char *key;           /* the items, nodes and entries for which it was computed */
    int32_t *ids;                 /* the tokens beside those that are known without a walk, */
    size_t n, cap;
    uint32_t *bits;               /* or, if not NULL, these as a mask */
};

enum { SLOTS = 1024, PER_MASK = 96 };

struct moe_cache {
    pthread_mutex_t lock;
    struct mask *slots[SLOTS];
    size_t bytes, limit;
};

struct moe_cache *moe_cache_new(size_t bytes)
{
    struct moe_cache *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    pthread_mutex_init(&c->lock, NULL);
    c->limit = bytes;
    return c;
}

static void free_mask(struct mask *k)
{
    if (!k) return;
    free(k->key), free(k->ids), free(k->bits), free(k);
}

static void clear(struct moe_cache *c)
{
    for (int i = 0; i < SLOTS; i++)
        for (struct mask *k = c->slots[i], *next; k; k = next) next = k->next, free_mask(k);
    memset(c->slots, 0, sizeof c->slots);
    c->bytes = 0;
}

void moe_cache_free(struct moe_cache *c)
{
    if (!c) return;
    clear(c);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static const struct mask *find(const struct moe_cache *c, uint64_t hash, const void *key, size_t bytes)
{
    for (const struct mask *k = c->slots[hash % SLOTS]; k; k = k->next)
        if (k->hash == hash && k->key_bytes == bytes && !memcmp(k->key, key, bytes)) return k;
    return NULL;
}

/* Keep a mask, and forget all others first when there is no room for it. */
static void keep(struct moe_cache *c, struct mask *k)
{
    if (k->bytes > c->limit || find(c, k->hash, k->key, k->key_bytes)) {
        free_mask(k);
        return;
    }
    if (c->bytes + k->bytes > c->limit) clear(c);
    k->next = c->slots[k->hash % SLOTS];
    c->slots[k->hash % SLOTS] = k;
    c->bytes += k->bytes;
}

/* ---- computing one ---- */

struct walk { struct moe_machine *m; const struct moe_vocab *v; struct mask *k; };

static bool add_id(struct walk *w, int32_t id)
{
    if (!MOE_GROW(w->k->ids, w->k->cap, w->k->n + 1)) return false;
    w->k->ids[w->k->n++] = id;
    return true;
}

/* Add the tokens of a trie that the items of `from` can take. */
static bool walk_trie(struct walk *w, const struct moe_trie *t, const struct moe_frame *from)
{
    struct moe_frame *frames = calloc((size_t)t->depth + 1, sizeof *frames);
    if (!frames) return false;
    bool ok = true;
    frames[0] = *from;
    for (size_t i = 0; i < t->n && ok;) {
        const struct moe_trie_node *x = &t->nodes[i];
        if (moe_machine_step(w->m, &frames[x->depth], x->byte, &frames[x->depth + 1])) {
            if (x->id >= 0) ok = add_id(w, x->id);
            i++;
        } else {
            if (w->m->nomem) ok = false;
            w->m->overflow =
                false; /* a token with which too many states would have to be followed is left out */
            i = x->skip;
        }
    }
    free(frames);
    return ok;
}

/* How many plain characters may follow, at least, by one item: UINT32_MAX for any number. */
static uint32_t plain_ahead(const struct moe_machine *m, const struct moe_item *item)
{
    const struct moe_grammar *g = m->g;
    uint32_t best = g->ahead[item->state];
    if (best == MOE_ALWAYS) return UINT32_MAX;
    if (!(g->flags[item->state] & MOE_STATE_CHAR)) return best;
    for (uint32_t e = m->nodes[item->node].entry; e; e = m->entries[e - 1].next) {
        const struct moe_entry *x = &m->entries[e - 1];
        if (!(g->flags[x->state] & MOE_STATE_COUNTS)) continue;
        uint32_t max = g->rules[g->rule_of[x->state]].max;
        uint32_t left = max == MOE_NO_LIMIT ? max : max - x->count + 1;
        if (left > best) best = left;
    }
    return best;
}

/* What is known of a set of items without a walk: whether any token is allowed, and else for how many plain
 * characters, at least, there is a way. */
struct known { bool any; uint32_t plain; };

static struct known look(const struct moe_machine *m, const struct moe_frame *f, const struct moe_vocab *v)
{
    struct known x = { false, 0 };
    for (uint32_t i = f->item; i < f->item + f->n_items; i++) {
        uint32_t n = plain_ahead(m, &m->items[i]);
        if (n > x.plain) x.plain = n;
        x.any |= m->g->flags[m->items[i].state] & MOE_STATE_ANY;
    }
    if (x.plain > v->max_chars) x.plain = v->max_chars;
    return x;
}

/* Set the bits of what is known; the others become 0. */
static void begin_bits(const struct moe_vocab *v, struct known x, uint32_t *bits)
{
    int i = v->n_sets - 1;
    while (i >= 0 && v->sets[i].chars > x.plain) i--;
    if (x.any) memcpy(bits, v->any, v->words * sizeof *bits);
    else if (i >= 0) memcpy(bits, v->sets[i].bits, v->words * sizeof *bits);
    else memset(bits, 0, v->words * sizeof *bits);
    if (x.any || i < 0) return;
    for (uint32_t k = v->first[v->sets[i].chars + 1]; k < v->first[x.plain + 1]; k++)
        bits[v->by_chars[k] / 32] |= UINT32_C(1) << (v->by_chars[k] % 32);
}

/* The items of *f but those at the beginning of a character that a rule counts: these take no plain token
 * beyond those that plain_ahead() says. */
static bool without_chars(struct moe_machine *m, const struct moe_frame *f, struct moe_frame *rest)
{
    uint32_t at = f->item + f->n_items;
    *rest = *f;
    rest->item = at, rest->n_items = 0;
    if (!MOE_GROW(m->items, m->item_cap, (size_t)at + f->n_items)) return false;
    for (uint32_t i = f->item; i < f->item + f->n_items; i++)
        if (!(m->g->flags[m->items[i].state] & MOE_STATE_CHAR)) m->items[at + rest->n_items++] = m->items[i];
    return true;
}

/* Add the plain tokens of more than `chars` characters that the items can take: one by one where they are
 * few. */
static bool add_longer(struct walk *w, const struct moe_frame *from, uint32_t chars)
{
    enum { FEW = 2048 };
    const struct moe_vocab *v = w->v;
    uint32_t begin = v->first[chars + 1], end = v->first[v->max_chars + 1];
    if (end - begin > FEW) return walk_trie(w, &v->plain, from);
    for (uint32_t k = begin; k < end; k++) {
        struct moe_frame f = *from, next;
        size_t n, i = 0;
        const char *p = moe_vocab_bytes(v, v->by_chars[k], &n);
        while (i < n && moe_machine_step(w->m, &f, (unsigned char)p[i], &next)) f = next, i++;
        if (w->m->nomem || (i == n && !add_id(w, v->by_chars[k]))) return false;
        w->m->overflow = false;
    }
    return true;
}

static bool compute(struct walk *w, const struct moe_frame *f, struct known x)
{
    const struct moe_grammar *g = w->m->g;
    bool ok = x.any || walk_trie(w, &w->v->other, f);
    struct moe_frame out;
    if (ok && !x.any && x.plain < w->v->max_chars)
        ok = without_chars(w->m, f, &out) && add_longer(w, &out, x.plain);
    for (int i = 0; ok && i < g->n_special; i++)
        if (g->special[i] >= 0 && g->special[i] < w->v->n &&
            moe_machine_step(w->m, f, 256u + (unsigned)i, &out))
            ok = add_id(w, g->special[i]);
    return ok && !w->m->nomem;
}

/* Keep many ids as a mask, which takes less memory. */
static bool compress(struct mask *k, size_t words)
{
    if (k->n <= words) return true;
    k->bits = calloc(words, sizeof *k->bits);
    if (!k->bits) return false;
    for (size_t i = 0; i < k->n; i++) k->bits[k->ids[i] / 32] |= UINT32_C(1) << (k->ids[i] % 32);
    free(k->ids);
    k->ids = NULL, k->n = k->cap = 0;
    return true;
}

/* ---- the whole ---- */

static void apply(const struct mask *k, uint32_t *bits, size_t words)
{
    for (size_t i = 0; i < k->n; i++) bits[k->ids[i] / 32] |= UINT32_C(1) << (k->ids[i] % 32);
    for (size_t i = 0; k->bits && i < words; i++) bits[i] |= k->bits[i];
}

/* A count as far as the next token can tell it from others: all that are at least the minimum and so far
 * below the maximum that no token reaches it are alike, and so are those that no token takes to the minimum.
 */
static uint32_t alike(const struct moe_grammar *g, const struct moe_vocab *v, const struct moe_entry *e)
{
    const struct moe_rule *r = &g->rules[g->rule_of[e->state]];
    bool chars = g->flags[g->rules[r->element].start] & MOE_STATE_CHAR;
    if (r->exact) return e->count;
    uint64_t most = chars ? v->longest_other : v->longest, count = e->count;
    if (count >= r->min) return r->max == MOE_NO_LIMIT || count + most < r->max ? r->min : e->count;
    return count + most < r->min ? 1 : e->count;
}

/* What the ids of a mask depend on, as bytes; *k gets it. */
static bool make_key(const struct moe_grammar_state *s, const struct moe_vocab *v, struct mask *k)
{
    const struct moe_machine *m = &s->m;
    size_t a = s->f.n_items * sizeof *m->items, b = s->f.n_nodes * sizeof *m->nodes,
           c = s->f.n_entries * sizeof *m->entries;
    k->key_bytes = a + b + c;
    k->key = malloc(k->key_bytes + 1);
    if (!k->key) return false;
    if (a) memcpy(k->key, m->items, a);
    memcpy(k->key + a, m->nodes, b);
    for (uint32_t i = 0; i < s->f.n_entries; i++) {
        struct moe_entry e = m->entries[i];
        if (m->g->flags[e.state] & MOE_STATE_COUNTS) e.count = alike(m->g, v, &e);
        memcpy(k->key + a + b + i * sizeof e, &e, sizeof e);
    }
    k->hash = XXH3_64bits(k->key, k->key_bytes);
    return true;
}

static enum moe_code no_memory(struct mask *k, struct moe_err *err)
{
    free_mask(k);
    return moe_fail(err, MOE_NOMEM, "out of memory for a mask of tokens");
}

enum moe_code moe_grammar_mask(struct moe_grammar_state *s, uint32_t *bits, struct moe_err *err)
{
    const struct moe_grammar *g = s->m.g;
    const struct moe_vocab *v = g->vocab;
    struct moe_cache *c = g->cache;
    struct mask *k = calloc(1, sizeof *k);
    MOE_CHECK(v);
    struct known x = look(&s->m, &s->f, v);
    if (!k || !make_key(s, v, k)) return no_memory(k, err);
    begin_bits(v, x, bits);
    pthread_mutex_lock(&c->lock);
    const struct mask *known = find(c, k->hash, k->key, k->key_bytes);
    if (known) apply(known, bits, v->words);
    pthread_mutex_unlock(&c->lock);
    if (known) {
        free_mask(k);
        return MOE_OK;
    }
    if (!compute(&(struct walk){ &s->m, v, k }, &s->f, x) || !compress(k, v->words)) {
        s->m.nomem = false;
        return no_memory(k, err);
    }
    apply(k, bits, v->words);
    k->bytes = PER_MASK + k->key_bytes + k->cap * sizeof *k->ids + (k->bits ? v->words * sizeof *k->bits : 0);
    pthread_mutex_lock(&c->lock);
    keep(c, k);
    pthread_mutex_unlock(&c->lock);
    return MOE_OK;
}

size_t moe_grammar_bytes(const struct moe_grammar *g)
{
    pthread_mutex_lock(&g->cache->lock);
    size_t bytes = g->bytes + sizeof *g->cache + g->cache->bytes;
    pthread_mutex_unlock(&g->cache->lock);
    return bytes;
}

int32_t moe_grammar_only(const uint32_t *bits, size_t words)
{
    int32_t only = -1;
    for (size_t i = 0; i < words; i++) {
        if (!bits[i]) continue;
        if (only >= 0 || bits[i] & (bits[i] - 1)) return -1;
        only = (int32_t)(32 * i) + __builtin_ctz(bits[i]);
    }
    return only;
}
