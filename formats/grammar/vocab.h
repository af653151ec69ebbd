/* SPDX-License-Identifier: Apache-2.0 */
/* formats/grammar/vocab.h - a vocabulary as masks need it: its tokens as tries of bytes. */
#ifndef MOE_FORMATS_GRAMMAR_VOCAB_H
#define MOE_FORMATS_GRAMMAR_VOCAB_H

#include "formats/tokenizer/tokenizer.h"

struct moe_vocab;

/* Open the vocabulary of a tokenizer, which is needed only for the call.  Special tokens are left out, since
 * no text leads to them; their ids count.  Takes a tenth of a second and about 80 bytes for each token.
 * MOE_UNSUPPORTED when one of the 256 bytes is not a token on its own, because texts could then end nowhere.
 */
enum moe_code moe_vocab_open(struct moe_vocab **v, const struct moe_tokenizer *t, struct moe_err *err);
/* The same from n tokens, whose ids are their places; those without bytes are special. */
struct moe_vocab_token { const char *p; size_t bytes; };
enum moe_code moe_vocab_make(struct moe_vocab **v, const struct moe_vocab_token *tokens, int64_t n,
                             struct moe_err *err);
void moe_vocab_close(struct moe_vocab **v); /* NULL-safe; nulls; no grammar may refer to it any more */

int64_t moe_vocab_size(const struct moe_vocab *v);
size_t moe_vocab_words(const struct moe_vocab *v); /* 32-bit words of a mask */

#endif
