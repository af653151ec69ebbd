/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/grammar/grammar.h"

#include "formats/grammar/grammar-internal.h"
#include "formats/grammar/regex-internal.h"
#include "formats/grammar/vocab-internal.h"

#include <stdlib.h>
#include <string.h>

enum moe_code moe_grammar_schema(struct moe_grammar **g, const struct moe_vocab *vocab, const char *text,
                                 size_t bytes, const struct moe_grammar_options *options, struct moe_err *err)
{
    struct moe_rules r;
    uint32_t root = 0;
    moe_rules_begin(&r, err);
    moe_schema_rules(&r, text, bytes, false, options, &root);
    return moe_rules_finish(&r, root, vocab, options, g);
}

enum moe_code moe_grammar_object(struct moe_grammar **g, const struct moe_vocab *vocab,
                                 const struct moe_grammar_options *options, struct moe_err *err)
{
    struct moe_rules r;
    moe_rules_begin(&r, err);
    uint32_t root = moe_rules_any_object(&r);
    return moe_rules_finish(&r, root, vocab, options, g);
}

enum moe_code moe_grammar_regex(struct moe_grammar **g, const struct moe_vocab *vocab, const char *pattern,
                                size_t bytes, const struct moe_grammar_options *options, struct moe_err *err)
{
    struct moe_rules r;
    moe_rules_begin(&r, err);
    struct moe_nfa n = { .work = &r.work };
    uint32_t root = moe_rules_add(&r), from = moe_nfa_state(&n), to = moe_nfa_state(&n);
    moe_nfa_regex(&n, from, pattern, bytes, MOE_RAW, false, to);
    moe_rules_define(&r, root, &n, from, to);
    moe_nfa_release(&n);
    return moe_rules_finish(&r, root, vocab, options, g);
}

enum moe_code moe_grammar_choice(struct moe_grammar **g, const struct moe_vocab *vocab,
                                 const char *const *texts, size_t n_texts,
                                 const struct moe_grammar_options *options, struct moe_err *err)
{
    struct moe_rules r;
    moe_rules_begin(&r, err);
    struct moe_nfa n = { .work = &r.work };
    uint32_t root = moe_rules_add(&r), from = moe_nfa_state(&n), to = moe_nfa_state(&n);
    for (size_t i = 0; i < n_texts && r.work.code == MOE_OK; i++) {
        if (!*texts[i]) moe_work_fail(&r.work, MOE_UNSUPPORTED, "choice %zu is empty", i);
        moe_nfa_empty(&n, moe_nfa_bytes(&n, from, texts[i], strlen(texts[i])), to);
    }
    moe_rules_define(&r, root, &n, from, to);
    moe_nfa_release(&n);
    return moe_rules_finish(&r, root, vocab, options, g);
}

struct moe_grammar *moe_grammar_share(struct moe_grammar *g)
{
    atomic_fetch_add_explicit(&g->refs, 1, memory_order_relaxed);
    return g;
}

void moe_grammar_release(struct moe_grammar **gp)
{
    struct moe_grammar *g = *gp;
    *gp = NULL;
    if (!g || atomic_fetch_sub_explicit(&g->refs, 1, memory_order_acq_rel) > 1) return;
    free(g->states), free(g->edges), free(g->calls), free(g->rules);
    free(g->need), free(g->flags), free(g->ahead), free(g->rule_of);
    moe_cache_free(g->cache);
    free(g);
}

/* ---- states ---- */

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "out of memory for the state of a grammar");
}

enum moe_code moe_grammar_start(struct moe_grammar_state **out, struct moe_grammar *g, struct moe_err *err)
{
    struct moe_grammar_state *s = calloc(1, sizeof *s);
    *out = s;
    if (!s) return no_memory(err);
    if (!moe_machine_start(&s->m, g, &s->f) || !moe_machine_compact(&s->m, &s->f)) {
        moe_machine_release(&s->m);
        free(s);
        *out = NULL;
        return no_memory(err);
    }
    moe_grammar_share(g);
    return MOE_OK;
}

static void *copied(const void *p, size_t n, size_t size)
{
    void *copy = malloc(n * size + 1);
    if (copy && n) memcpy(copy, p, n * size);
    return copy;
}

enum moe_code moe_grammar_copy(struct moe_grammar_state **out, const struct moe_grammar_state *s,
                               struct moe_err *err)
{
    struct moe_grammar_state *c = calloc(1, sizeof *c);
    const struct moe_frame *f = &s->f;
    *out = NULL;
    if (!c) return no_memory(err);
    c->f = *f;
    c->m = (struct moe_machine){ .g = s->m.g, .items = copied(s->m.items, f->n_items, sizeof *s->m.items),
                                 .nodes = copied(s->m.nodes, f->n_nodes, sizeof *s->m.nodes),
                                 .entries = copied(s->m.entries, f->n_entries, sizeof *s->m.entries),
                                 .item_cap = f->n_items, .node_cap = f->n_nodes, .entry_cap = f->n_entries };
    if (!c->m.items || !c->m.nodes || !c->m.entries) {
        moe_machine_release(&c->m);
        free(c);
        return no_memory(err);
    }
    moe_grammar_share((struct moe_grammar *)(uintptr_t)s->m.g);
    *out = c;
    return MOE_OK;
}

void moe_grammar_stop(struct moe_grammar_state **sp)
{
    struct moe_grammar_state *s = *sp;
    *sp = NULL;
    if (!s) return;
    struct moe_grammar *g = (struct moe_grammar *)(uintptr_t)s->m.g;
    moe_machine_release(&s->m);
    free(s);
    moe_grammar_release(&g);
}

bool moe_grammar_may_end(const struct moe_grammar_state *s) { return s->f.may_end; }

/* What a step that failed is reported as; the state is as it was. */
static enum moe_code refused(struct moe_grammar_state *s, struct moe_err *err)
{
    bool nomem = s->m.nomem, overflow = s->m.overflow;
    s->m.nomem = s->m.overflow = false;
    if (nomem) return no_memory(err);
    if (overflow)
        return moe_fail(err, MOE_UNSUPPORTED,
                        "the grammar is too ambiguous: more than %d states would have to be "
                        "followed at once",
                        MOE_ITEMS_MAX);
    return moe_fail(err, MOE_MISMATCH, "the text may not go on like that by its grammar");
}

/* Take a piece of text that is short enough to keep all sets of items on its way. */
static enum moe_code take(struct moe_grammar_state *s, const char *text, size_t bytes, struct moe_err *err)
{
    struct moe_frame f = s->f, next;
    for (size_t i = 0; i < bytes; i++, f = next)
        if (!moe_machine_step(&s->m, &f, (unsigned char)text[i], &next)) return refused(s, err);
    if (bytes && !moe_machine_compact(&s->m, &f)) return no_memory(err);
    s->f = f;
    return MOE_OK;
}

enum moe_code moe_grammar_feed(struct moe_grammar_state *s, const char *text, size_t bytes,
                               struct moe_err *err)
{
    enum { PIECE = 256 };
    struct moe_grammar_state *before = NULL;
    if (bytes <= PIECE) return take(s, text, bytes, err);
    MOE_TRY(moe_grammar_copy(&before, s, err));
    enum moe_code code = MOE_OK;
    for (size_t at = 0; at < bytes && code == MOE_OK; at += PIECE)
        code = take(s, text + at, bytes - at < PIECE ? bytes - at : PIECE, err);
    if (code != MOE_OK) {
        struct moe_grammar_state moved = *s;
        *s = *before, *before = moved;
    }
    moe_grammar_stop(&before);
    return code;
}

enum moe_code moe_grammar_advance(struct moe_grammar_state *s, int32_t id, struct moe_err *err)
{
    const struct moe_grammar *g = s->m.g;
    struct moe_frame next;
    size_t bytes;
    for (int i = 0; i < g->n_special; i++) {
        if (g->special[i] != id) continue;
        if (!moe_machine_step(&s->m, &s->f, 256u + (unsigned)i, &next)) return refused(s, err);
        if (!moe_machine_compact(&s->m, &next)) return no_memory(err);
        s->f = next;
        return MOE_OK;
    }
    if (!g->vocab || id < 0 || id >= g->vocab->n)
        return moe_fail(err, MOE_MISMATCH, "token %d is none of the vocabulary", id);
    const char *p = moe_vocab_bytes(g->vocab, id, &bytes);
    if (!bytes)
        return moe_fail(err, MOE_MISMATCH, "token %d is special, which the grammar does not allow here", id);
    return take(s, p, bytes, err);
}
