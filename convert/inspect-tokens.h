/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect-tokens.h - the tokens of a text, and the text of tokens, by a model's tokenizer. */
#ifndef MOE_CONVERT_INSPECT_TOKENS_H
#define MOE_CONVERT_INSPECT_TOKENS_H

#include "base/cancel.h"
#include "base/json.h"
#include "formats/tokenizer/tokenizer.h"

/* Of a text: its tokens, its bytes, and its characters, where a byte that is part of none counts as one. */
struct moe_token_counts { size_t tokens, bytes, characters; };

/* The tokens of a text file (may be gzipped; "-" is standard input).  special: names of special tokens in the
 * text are those tokens.  *ids [c->tokens] is the caller's, to free(); nothing is owned on failure: what
 * reading the text or moe_tokenize fails with. */
enum moe_code moe_inspect_tokenize(const struct moe_tokenizer *t, const char *path, bool special,
                                   const struct moe_cancel *cancel, int32_t **ids,
                                   struct moe_token_counts *c, struct moe_err *err);

/* {"text", "bytes_base64"} of token ids such as "1,2,3"; MOE_USAGE for what is no token of the model.  *raw:
 * the bytes themselves, *n of them.  Both are the caller's; nothing is owned on failure. */
enum moe_code moe_inspect_detokenize(const struct moe_tokenizer *t, const char *ids, cJSON **json, char **raw,
                                     size_t *n, struct moe_err *err);

#endif
