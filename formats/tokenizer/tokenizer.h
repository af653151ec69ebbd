/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/tokenizer.h - the K2 tokenizer: tiktoken.model and tokenizer_config.json;
 * encoding, streaming decode.
 *
 * Source: tiktoken's BPE with K2's pre-tokenizer pattern (PCRE2, class intersections expressed as
 * look-aheads).  Text is literal: special tokens are ordinary text unless `special` is asked for.
 * No BOS is ever added here. */
#ifndef MOE_FORMATS_TOKENIZER_TOKENIZER_H
#define MOE_FORMATS_TOKENIZER_TOKENIZER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moe_tokenizer;

/* From the directory that holds tiktoken.model and tokenizer_config.json (a checkpoint, or
 * NAME.moe/tokenizer); a container's own directory works too.  vocab_size: the model's (ids at or
 * above it are never produced, a larger vocabulary is MOE_MISMATCH); 0: take it from the files.  After
 * open safe from any thread. */
enum moe_code moe_tokenizer_open(struct moe_tokenizer **t, const char *dir, int64_t vocab_size,
                                 struct moe_err *err);
void moe_tokenizer_close(struct moe_tokenizer **t);

/* What making tokens of one text may take besides the text, in bytes: more is MOE_NOMEM before it is taken.
 * 0, as after open: no limit.  To be set before other threads use *t. */
void moe_tokenizer_limit(struct moe_tokenizer *t, uint64_t bytes);

int64_t moe_tokenizer_size(const struct moe_tokenizer *t);  /* ranks + special slots */
/* Bytes of one token (special tokens: their name); NULL for an id outside.  They lie in the tokenizer, or in
 * `room`: the names of placeholders are made when they are asked for. */
#define MOE_TOKEN_ROOM 32
const char *moe_token_bytes(const struct moe_tokenizer *t, int32_t id, char room[MOE_TOKEN_ROOM],
                            size_t *len);
bool moe_token_is_special(const struct moe_tokenizer *t, int32_t id);
/* Does the token belong to what people read: a rank, or an added token whose entry says "special": false
 * (</think>, tool markers)? */
bool moe_token_is_text(const struct moe_tokenizer *t, int32_t id);
int32_t moe_token_find_special(const struct moe_tokenizer *t, const char *name); /* -1 when unknown */
/* The two tokens whose merge makes `id`: what merging its bytes by lower ranks alone leaves.  *two is false
 * when that is not two tokens (a single byte, a special token, a token no merge reaches). */
enum moe_code moe_token_merge(const struct moe_tokenizer *t, int32_t id, int32_t pair[2], bool *two,
                              struct moe_err *err);

/* Encode `bytes` bytes; *ids is malloc'd (free() it).  Invalid UTF-8 goes through byte fallback: every byte
 * that is not part of a valid sequence is its own piece.  Time is linear in the text (n log n in one
 * pre-token); memory 4 to 6 bytes a token, and 28 a byte of the longest pre-token. */
enum moe_code moe_tokenize(const struct moe_tokenizer *t, const char *text, size_t bytes, bool special,
                           int32_t **ids, size_t *count, struct moe_err *err);

/* Streaming decode: feed tokens, get text that is whole UTF-8 so far; what may still become a character is
 * held back (at most 3 bytes).  flush gives what is left, each stray byte as U+FFFD.  What is not text
 * (moe_token_is_text) is skipped unless keep_special. */
struct moe_decoder { unsigned char held[4]; int n; bool keep_special; };
/* out must hold MOE_DECODE_BOUND(len) bytes, len as moe_token_bytes gives it (each stray byte, held ones
 * included, becomes three); returns bytes written, 0 for an id outside.  No NUL is added. */
#define MOE_DECODE_BOUND(len) (3 * ((size_t)(len) + 3))
size_t moe_decode(const struct moe_tokenizer *t, struct moe_decoder *d, int32_t id, char *out);
size_t moe_decode_flush(struct moe_decoder *d, char out[16]);

/* All of n tokens as text, NUL terminated (free() it). */
enum moe_code moe_decode_all(const struct moe_tokenizer *t, const int32_t *ids, size_t n, bool keep_special,
                             char **text, size_t *bytes,
                             struct moe_err *err);

#endif
