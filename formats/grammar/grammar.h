/* SPDX-License-Identifier: Apache-2.0 */
/* formats/grammar/grammar.h - constrained decoding: which tokens may come next, so that the text that a model
 * writes meets a JSON schema, a regular expression, a list of choices, or is a call of a declared tool.
 *
 *     struct moe_vocab *v;
 *     struct moe_grammar *g;
 *     struct moe_grammar_state *s;
 *     MOE_TRY(moe_vocab_open(&v, tokenizer, err));                          // once for a model
 *     MOE_TRY(moe_grammar_schema(&g, v, text, bytes, &options, err));       // once for a schema
 *     MOE_TRY(moe_grammar_start(&s, g, err));                               // once for a request
 *     for (;;) {
 *         MOE_TRY(moe_grammar_mask(s, bits, err));
 *         ...              // sample an id whose bit is set, or, when moe_grammar_may_end(s), an end token
 *         MOE_TRY(moe_grammar_advance(s, id, err));
 *     }
 *
 * A grammar is compiled to automata over bytes, so a token may end anywhere in a character, a key or a
 * number. From every state that masks lead to, the text can be completed: no mask is empty where the text may
 * not end, because each of the 256 bytes is a token.  What is accepted, and how JSON may be written, is in
 * docs/reference/structured-output.md.
 *
 * Bounds: compiling takes at most about 2^27 steps (a second) and 100 MiB while it runs, and a compiled
 * grammar at most about 50 MiB (moe_grammar_bytes); what needs more is MOE_UNSUPPORTED.  A state takes some
 * KiB.
 *
 * The caller bounds the length of a schema's text, of whose tree parsing takes up to 80 bytes a byte
 * (base/json.h).
 *
 * Threads: a vocabulary and a grammar are immutable and may be used by all threads at once (a grammar's cache
 * of masks has a lock); a state is used by one thread at a time. */
#ifndef MOE_FORMATS_GRAMMAR_GRAMMAR_H
#define MOE_FORMATS_GRAMMAR_GRAMMAR_H

#include "formats/grammar/vocab.h"

struct moe_grammar;

/* All members may be zero. */
struct moe_grammar_options {
    /* An object whose schema does not say "additionalProperties" has no others than those declared; else it
     * may have any, as JSON Schema has it. */
    bool closed;
    /* Memory, in bytes, for masks that were computed, beside the grammar itself; 0: 8 MiB. */
    size_t cache_bytes;
};

/* Compile.  `vocab` must outlive *g; NULL: the grammar has no masks.  Options may be NULL.  The text is UTF-8
 * and is not kept.  MOE_UNSUPPORTED, with the keyword or construct named, for what is not supported, for what
 * is too large, and where no text meets it; MOE_CORRUPT for what is no schema or no regular expression. */
enum moe_code moe_grammar_schema(struct moe_grammar **g, const struct moe_vocab *vocab, const char *text,
                                 size_t bytes, const struct moe_grammar_options *options,
                                 struct moe_err *err);
/* Any JSON object. */
enum moe_code moe_grammar_object(struct moe_grammar **g, const struct moe_vocab *vocab,
                                 const struct moe_grammar_options *options, struct moe_err *err);
/* The texts that the regular expression matches as a whole. */
enum moe_code moe_grammar_regex(struct moe_grammar **g, const struct moe_vocab *vocab, const char *pattern,
                                size_t bytes, const struct moe_grammar_options *options, struct moe_err *err);
/* One of n texts, as it stands; none may be empty. */
enum moe_code moe_grammar_choice(struct moe_grammar **g, const struct moe_vocab *vocab,
                                 const char *const *texts, size_t n,
                                 const struct moe_grammar_options *options, struct moe_err *err);

/* Another reference to a grammar; each is released on its own. */
struct moe_grammar *moe_grammar_share(struct moe_grammar *g);
void moe_grammar_release(struct moe_grammar **g);
/* Memory of the compiled grammar and of the masks that are kept, in bytes. */
size_t moe_grammar_bytes(const struct moe_grammar *g);

/* Where a text stands.  It has a reference to its grammar. */
struct moe_grammar_state;
enum moe_code moe_grammar_start(struct moe_grammar_state **s, struct moe_grammar *g, struct moe_err *err);
enum moe_code moe_grammar_copy(struct moe_grammar_state **copy, const struct moe_grammar_state *s,
                               struct moe_err *err);
void moe_grammar_stop(struct moe_grammar_state **s); /* NULL-safe; nulls */

/* The text goes on with a token, or with bytes.  MOE_MISMATCH, with *s as it was, when it may not.  (A token
 * that ends the text is not advanced over.)  MOE_UNSUPPORTED when the grammar is so ambiguous that more than
 * 1024 states would have to be followed. */
enum moe_code moe_grammar_advance(struct moe_grammar_state *s, int32_t id, struct moe_err *err);
enum moe_code moe_grammar_feed(struct moe_grammar_state *s, const char *text, size_t bytes,
                               struct moe_err *err);
bool moe_grammar_may_end(const struct moe_grammar_state *s);

/* The ids that may come next: id i is bit i % 32 of bits[i / 32], of which there are moe_vocab_words().  End
 * tokens are never set: the caller adds them when the text may end. */
enum moe_code moe_grammar_mask(struct moe_grammar_state *s, uint32_t *bits, struct moe_err *err);
/* The id, if exactly one bit of a mask is set; else -1. */
int32_t moe_grammar_only(const uint32_t *bits, size_t words);

#endif
