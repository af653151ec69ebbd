/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/bpe.h - the vocabulary of a tiktoken.model (tokens with their ranks) and byte-pair
 * encoding of one pre-token.
 *
 * Knows nothing of Unicode, special tokens or files: bytes in, ranks out.  tiktoken merges two neighbouring
 * parts when their concatenation is a token.  Neighbours are contiguous in the text, so the rank of a pair is
 * the rank of its bytes, and one hash map from bytes to ranks is the whole vocabulary. */
#ifndef MOE_FORMATS_TOKENIZER_BPE_H
#define MOE_FORMATS_TOKENIZER_BPE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define MOE_TIKTOKEN_MAX ((size_t)64 << 20) /* bytes of a tiktoken.model; K2's has 2.8 M */

struct moe_bpe_slot { uint32_t tag; int32_t id; }; /* tag: bits of the token's hash; id -1: empty */

struct moe_bpe {
    unsigned char *bytes;     /* the bytes of all tokens, in the order of their ranks */
    uint32_t *start;          /* [count + 1]: token i is bytes[start[i] .. start[i+1]) */
    int32_t count;            /* the ranks are 0 .. count-1, without gaps */
    uint32_t longest;         /* bytes of the longest token */
    struct moe_bpe_slot *slots; /* the hash map: mask + 1 slots, a power of two */
    uint32_t mask;
    int32_t *pair;            /* [65536]: the rank of two bytes, index first << 8 | second; -1: no token */
    int32_t single[256];      /* the rank of a single byte */
};

/* Parse the text of a tiktoken.model: lines `base64 SP rank`, in any order.  MOE_CORRUPT, with the line, for
 * anything else: bad base64, an empty token, a token or rank that is given twice, gaps in the ranks, a single
 * byte without a token.  `file` names the text in messages.  On failure *b is empty. */
enum moe_code moe_bpe_parse(struct moe_bpe *b, const char *text, size_t size, const char *file,
                            struct moe_err *err);
void moe_bpe_release(struct moe_bpe *b);

/* The rank of exactly these bytes, or -1. */
int32_t moe_bpe_find(const struct moe_bpe *b, const unsigned char *s, size_t len);

/* A growing list of ids.  most: the number of ids for which memory may be allocated; 0: no limit. */
struct moe_ids {
    int32_t *v;
    size_t count, cap, most;
};

/* Working memory for merging; zero-initialised it is empty.  It belongs to one thread. */
struct moe_bpe_work {
    uint32_t *next, *prev;
    int32_t *rank;
    uint64_t *heap;
    size_t cap, heap_cap, heap_count;
    uint64_t steps; /* entries pushed to and popped from the heap: the cost of merging, for tests */
};
void moe_bpe_work_release(struct moe_bpe_work *w);

/* Allocate room for `more` further ids; false when out of memory, or when they would exceed ids->most. */
int moe_ids_room(struct moe_ids *ids, size_t more);
/* The error for a call of moe_ids_room that failed: MOE_NOMEM. */
enum moe_code moe_ids_refuse(const struct moe_ids *ids, size_t more, struct moe_err *err);

/* Append the tokens of one pre-token of 1 to 2^31-1 bytes.  Time n log n; memory at most MOE_BPE_BYTES for
 * each byte of a pre-token longer than MOE_BPE_SHORT. */
#define MOE_BPE_BYTES 28
/* Up to this many bytes, searching an array for the lowest rank is faster than the heap; the caller of
 * moe_bpe_encode must have made room for this many ids. */
#define MOE_BPE_SHORT 48
enum moe_code moe_bpe_encode(const struct moe_bpe *b, struct moe_bpe_work *w, const unsigned char *s,
                             size_t len, struct moe_ids *ids, struct moe_err *err);

/* Merge the bytes of token `id` using only ranks below `id`.  *n_parts is the number of parts that are left:
 * 2 for a token that one last merge makes, 1 for a single byte; parts[0] and parts[1] get the ranks of the
 * first two.  MOE_UNSUPPORTED for a token above 1024 bytes. */
enum moe_code moe_bpe_split(const struct moe_bpe *b, int32_t id, int32_t parts[2], int *n_parts,
                            struct moe_err *err);

#endif
