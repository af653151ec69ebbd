/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect-tokens.h - the tokens of a text, and the text of tokens, by a model's tokenizer. */
#ifndef MOE_CONVERT_INSPECT_TOKENS_H
#define MOE_CONVERT_INSPECT_TOKENS_H

#include "base/cancel.h"
#include "base/json.h"
#include "formats/tokenizer/tokenizer.h"

/* How many tokens, bytes and characters a text has; a byte that is no UTF-8 counts as a character. */
struct moe_token_counts { size_t tokens, bytes, characters; };

/* Encodes a text file, which may be gzipped ("-" is standard input).  special: names of special tokens in the
 * text become those tokens.  The caller frees *ids [c->tokens]; after a failure there is nothing to free.
 * Errors: those of reading the text and of moe_tokenize. */
enum moe_code moe_inspect_tokenize(const struct moe_tokenizer *t, const char *path, bool special,
                                   const struct moe_cancel *cancel, int32_t **ids,
                                   struct moe_token_counts *c, struct moe_err *err);

/* Decodes token ids such as "1,2,3": *json is {"text", "bytes_base64"}, *raw the n bytes themselves.  The
 * caller deletes *json and frees *raw; after a failure there is nothing to free.  MOE_USAGE for an id that is
 * no token of the model. */
enum moe_code moe_inspect_detokenize(const struct moe_tokenizer *t, const char *ids, cJSON **json, char **raw,
                                     size_t *n, struct moe_err *err);

#endif
