/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/grammar/tools.h"

#include "formats/grammar/grammar-internal.h"

#include <stdio.h>
#include <string.h>

enum { CALLS = 128, CALLS_MAX = 1024, NAME_MAX_BYTES = 256 };

/* Symbols of the special tokens, in the order of struct moe_tool_tokens. */
enum { SECTION_BEGIN = 256, SECTION_END, CALL_BEGIN, ARGUMENT_BEGIN, CALL_END, THINK_BEGIN, THINK_END };

enum moe_code moe_tool_tokens_find(struct moe_tool_tokens *ids, const struct moe_tokenizer *t,
                                   struct moe_err *err)
{
    static const char *const names[] = { "<|tool_calls_section_begin|>", "<|tool_calls_section_end|>",
                                         "<|tool_call_begin|>", "<|tool_call_argument_begin|>",
                                         "<|tool_call_end|>", "<think>", "</think>" };
    int32_t *const to[] = { &ids->section_begin, &ids->section_end, &ids->call_begin, &ids->argument_begin,
                            &ids->call_end, &ids->think_begin, &ids->think_end };
    for (int i = 0; i < 7; i++) {
        *to[i] = moe_token_find_special(t, names[i]);
        if (*to[i] < 0 && i < 5)
            return moe_fail(err, MOE_UNSUPPORTED,
                            "the vocabulary has no token %s, without which tools cannot be "
                            "called",
                            names[i]);
    }
    return MOE_OK;
}

static void symbol(struct moe_nfa *n, uint32_t from, unsigned s, uint32_t to)
{
    moe_nfa_range(n, from, s, s, to);
}

static enum moe_code check(const struct moe_grammar_tools *t, struct moe_err *err)
{
    if (!t->n) return moe_fail(err, MOE_CORRUPT, "no tools are declared");
    if (t->max_calls > CALLS_MAX || t->first_index > 1000000)
        return moe_fail(err, MOE_UNSUPPORTED, "more than %d calls in an answer, or 1000000 before it",
                        CALLS_MAX);
    if (t->thinking && t->ids.think_end < 0)
        return moe_fail(err, MOE_UNSUPPORTED, "the vocabulary has no token </think>, which ends thinking");
    for (size_t i = 0; i < t->n; i++) {
        size_t len = strlen(t->tools[i].name);
        if (!len || len > NAME_MAX_BYTES)
            return moe_fail(err, MOE_CORRUPT, "tool %zu: its name has %zu bytes (1 to %d are allowed)", i,
                            len, NAME_MAX_BYTES);
        for (size_t k = 0; k < i; k++)
            if (!strcmp(t->tools[k].name, t->tools[i].name))
                return moe_fail(err, MOE_CORRUPT, "tool '%s' is declared twice", t->tools[i].name);
    }
    return MOE_OK;
}

/* The rule of the arguments of a tool. */
static uint32_t arguments(struct moe_rules *r, const struct moe_grammar_tool *tool,
                          const struct moe_grammar_options *options)
{
    uint32_t rule = 0;
    if (r->work.code != MOE_OK) return 0;
    if (!tool->parameters) return moe_rules_any_object(r);
    if (moe_schema_rules(r, tool->parameters, tool->bytes, true, options, &rule) != MOE_OK)
        moe_wrap(r->work.err, "tool '%s'", tool->name);
    return rule;
}

/* The rules of the indices of calls, one after the other; returns the first. */
static uint32_t indices(struct moe_rules *r, uint32_t first, uint32_t n)
{
    uint32_t base = 0;
    for (uint32_t i = 0; i < n && r->work.code == MOE_OK; i++) {
        struct moe_nfa one = { .work = &r->work };
        char digits[16];
        int len = snprintf(digits, sizeof digits, "%u", (unsigned)(first + i));
        uint32_t rule = moe_rules_add(r), from = moe_nfa_state(&one);
        moe_rules_define(r, rule, &one, from, moe_nfa_bytes(&one, from, digits, (size_t)len));
        moe_nfa_release(&one);
        if (i == 0) base = rule;
    }
    return base;
}

/* The rule of all calls of a section. */
static uint32_t calls(struct moe_rules *r, const struct moe_grammar_tools *t,
                      const struct moe_grammar_options *options)
{
    struct moe_nfa n = { .work = &r->work };
    uint32_t max = t->max_calls ? t->max_calls : CALLS;
    uint32_t rule = moe_rules_add(r), counter = moe_rules_add(r), index = indices(r, t->first_index, max);
    uint32_t from = moe_nfa_state(&n), begin = moe_nfa_state(&n), colon = moe_nfa_state(&n),
             to = moe_nfa_state(&n);
    symbol(&n, from, CALL_BEGIN, begin);
    begin = moe_nfa_bytes(&n, begin, "functions.", 10);
    for (size_t i = 0; i < t->n && r->work.code == MOE_OK; i++) {
        const char *name = t->tools[i].name;
        uint32_t after = moe_nfa_state(&n), argument = moe_nfa_state(&n), end = moe_nfa_state(&n);
        colon = moe_nfa_bytes(&n, moe_nfa_bytes(&n, begin, name, strlen(name)), ":", 1);
        moe_nfa_call(&n, colon, index | MOE_BY_COUNT, after);
        symbol(&n, after, ARGUMENT_BEGIN, argument);
        moe_nfa_call(&n, argument, arguments(r, &t->tools[i], options), end);
        symbol(&n, end, CALL_END, to);
    }
    moe_rules_define(r, rule, &n, from, to);
    moe_rules_count(r, counter, rule, 1, max);
    if (r->work.code == MOE_OK) r->rules[counter].exact = true;
    moe_nfa_release(&n);
    return counter;
}

static void answer(struct moe_rules *r, uint32_t root, uint32_t all_calls, const struct moe_grammar_tools *t)
{
    struct moe_nfa n = { .work = &r->work };
    uint32_t from = moe_nfa_state(&n), text = moe_nfa_state(&n), section = moe_nfa_state(&n);
    uint32_t end = moe_nfa_state(&n), to = moe_nfa_state(&n);
    if (t->thinking) {
        moe_nfa_range(&n, from, 0, 255, from);
        if (t->ids.think_begin >= 0) symbol(&n, from, THINK_BEGIN, from);
        symbol(&n, from, THINK_END, text);
        symbol(&n, from, SECTION_BEGIN, section);
    } else {
        moe_nfa_empty(&n, from, text);
    }
    symbol(&n, text, SECTION_BEGIN, section);
    if (!t->required) {
        moe_nfa_range(&n, text, 0, 255, text);
        moe_nfa_empty(&n, text, to);
    }
    moe_nfa_call(&n, section, all_calls, end);
    symbol(&n, end, SECTION_END, to);
    moe_rules_define(r, root, &n, from, to);
    moe_nfa_release(&n);
}

enum moe_code moe_grammar_tool_calls(struct moe_grammar **g, const struct moe_vocab *vocab,
                                     const struct moe_grammar_tools *t,
                                     const struct moe_grammar_options *options, struct moe_err *err)
{
    const struct moe_tool_tokens *i = &t->ids;
    const int32_t special[] = { i->section_begin, i->section_end, i->call_begin, i->argument_begin,
                                i->call_end, i->think_begin, i->think_end };
    struct moe_rules r;
    *g = NULL;
    MOE_TRY(check(t, err));
    moe_rules_begin(&r, err);
    memcpy(r.special, special, sizeof special);
    r.n_special = sizeof special / sizeof *special;
    uint32_t root = moe_rules_add(&r);
    answer(&r, root, calls(&r, t, options), t);
    return moe_rules_finish(&r, root, vocab, options, g);
}
