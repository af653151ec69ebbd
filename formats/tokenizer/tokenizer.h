/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/tokenizer.h - the K2 tokenizer, from tiktoken.model and tokenizer_config.json: encoding,
 * and decoding as tokens come.
 *
 * The ids are, in this order: the ranks, which are the tokens of tiktoken.model; then special ids, which are
 * added tokens where tokenizer_config.json names them, and else placeholders with generated names.
 *
 * Source: tiktoken's BPE with K2's pre-tokenizer pattern (PCRE2, with look-aheads for the intersections of
 * classes).  Text is literal: the names of special tokens are ordinary text in it unless `special` is given.
 * No BOS token is ever added here. */
#ifndef MOE_FORMATS_TOKENIZER_TOKENIZER_H
#define MOE_FORMATS_TOKENIZER_TOKENIZER_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moe_tokenizer;

/* Open the tokenizer in a directory with tiktoken.model and tokenizer_config.json (a checkpoint, or
 * NAME.moe/tokenizer); a container's own directory works too.  vocab_size: the model's, below which all
 * produced ids are; a larger vocabulary is MOE_MISMATCH.  0: take it from the files.  Once open, it is safe
 * from any thread. */
enum moe_code moe_tokenizer_open(struct moe_tokenizer **t, const char *dir, int64_t vocab_size,
                                 struct moe_err *err);
void moe_tokenizer_close(struct moe_tokenizer **t);

/* Limit the memory, in bytes, that encoding one text may take beside the text; encoding fails with MOE_NOMEM
 * before it takes more.  0, the default: no limit.  Must be called before other threads use *t. */
void moe_tokenizer_limit(struct moe_tokenizer *t, uint64_t bytes);

int64_t moe_tokenizer_size(const struct moe_tokenizer *t);  /* the number of ids, special tokens included */
/* The bytes of one token, for a special token its name; NULL for an id out of range.  The result points into
 * the tokenizer or, for a placeholder, into `room`, where its name is generated. */
#define MOE_TOKEN_ROOM 32
const char *moe_token_bytes(const struct moe_tokenizer *t, int32_t id, char room[MOE_TOKEN_ROOM],
                            size_t *len);
/* Whether the id comes after the ranks: an added token or a placeholder. */
bool moe_token_is_special(const struct moe_tokenizer *t, int32_t id);
/* Whether the token belongs to the text that people read: a rank, or an added token whose entry says
 * "special": false (</think>, tool markers). */
bool moe_token_is_text(const struct moe_tokenizer *t, int32_t id);
int32_t moe_token_find_special(const struct moe_tokenizer *t, const char *name); /* -1 when unknown */
/* The two tokens whose merge makes `id`, that is what is left when its bytes are merged by lower ranks
 * alone.  *two is false when that is not two tokens: for a single byte, a special token, or a token that no
 * merge reaches. */
enum moe_code moe_token_merge(const struct moe_tokenizer *t, int32_t id, int32_t pair[2], bool *two,
                              struct moe_err *err);

/* Encode `bytes` bytes; *ids is malloc'd (free() it).  special: names of special tokens in the text become
 * their ids.  Every byte that is not part of valid UTF-8 is encoded on its own (byte fallback).  Time is
 * linear in the text (n log n in one pre-token); memory 4 to 6 bytes for each token, and 28 for each byte of
 * the longest pre-token. */
enum moe_code moe_tokenize(const struct moe_tokenizer *t, const char *text, size_t bytes, bool special,
                           int32_t **ids, size_t *count, struct moe_err *err);

/* Decoding token by token: each call gives the text that is complete UTF-8 so far, and holds back at most 3
 * bytes that may still become a character.  flush gives what is held back, each byte as U+FFFD.  Tokens that
 * are not text (moe_token_is_text) are skipped unless keep_special. */
struct moe_decoder {     /* zero-initialised it holds nothing; used by one thread */
    unsigned char held[4];
    int n;               /* bytes that are held back */
    bool keep_special;
};
/* Decode one token; returns the number of bytes written to `out`, 0 for an id out of range.  `out` must have
 * room for MOE_DECODE_BOUND(len) bytes, with len as from moe_token_bytes: every invalid byte, those held back
 * included, becomes three.  No NUL is added. */
#define MOE_DECODE_BOUND(len) (3 * ((size_t)(len) + 3))
size_t moe_decode(const struct moe_tokenizer *t, struct moe_decoder *d, int32_t id, char *out);
size_t moe_decode_flush(struct moe_decoder *d, char out[16]);

/* The text of n tokens, NUL terminated (free() it). */
enum moe_code moe_decode_all(const struct moe_tokenizer *t, const int32_t *ids, size_t n, bool keep_special,
                             char **text, size_t *bytes, struct moe_err *err);

#endif
