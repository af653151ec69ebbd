/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/bpe.h - the ranks of a tiktoken.model and the merging of one pre-token.
 *
 * Knows nothing of Unicode, special tokens or files on disk: bytes in, ranks out.  Every merge of tiktoken
 * joins two neighbours whose concatenation is a token, and neighbours are contiguous in the text, so the rank
 * of a pair is the rank of its bytes: one hash map from bytes to ranks is the whole vocabulary. */
#ifndef MOE_FORMATS_TOKENIZER_BPE_H
#define MOE_FORMATS_TOKENIZER_BPE_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define MOE_TIKTOKEN_MAX ((size_t)64 << 20) /* bytes of a tiktoken.model; K2's has 2.8 M */

struct moe_bpe_slot { uint32_t tag; int32_t id; }; /* id -1: empty */

struct moe_bpe {
    unsigned char *bytes;     /* all tokens, one after the other in the order of their ranks */
    uint32_t *start;          /* [count + 1]: token i is bytes[start[i] .. start[i+1]) */
    int32_t count;            /* ranks 0 .. count-1, without gaps */
    uint32_t longest;         /* bytes of the longest token */
    struct moe_bpe_slot *slots;
    uint32_t mask;            /* slots - 1, a power of two less one */
    int32_t *pair;            /* [65536]: the rank of two bytes, first one high; -1 */
    int32_t single[256];
};

/* Parse the text of a tiktoken.model: lines `base64 SP rank`, in any order.  MOE_CORRUPT, with the line, for
 * anything else: bad base64, an empty token, a token or rank given twice, ranks with gaps, a single byte that
 * has no token. `file` names the text in messages.  On failure *b is empty. */
enum moe_code moe_bpe_parse(struct moe_bpe *b, const char *text, size_t size, const char *file,
                            struct moe_err *err);
void moe_bpe_release(struct moe_bpe *b);

/* The rank of exactly these bytes, or -1. */
int32_t moe_bpe_find(const struct moe_bpe *b, const unsigned char *s, size_t len);

/* A list of ids that grows.  most: ids that there may be room for; 0 for no limit. */
struct moe_ids {
    int32_t *v;
    size_t count, cap, most;
};

/* The memory that merging needs; zero-initialised is empty.  It belongs to one thread. */
struct moe_bpe_work {
    uint32_t *next, *prev;
    int32_t *rank;
    uint64_t *heap;
    size_t cap, heap_cap, heap_count;
    uint64_t steps; /* entries that went into the heap and out of it: what merging costs, counted for tests */
};
void moe_bpe_work_release(struct moe_bpe_work *w);

/* Room for `more` further ids; false when out of memory, or beyond `most`. */
int moe_ids_room(struct moe_ids *ids, size_t more);
/* MOE_NOMEM with a sentence, for when there was no room for so many more. */
enum moe_code moe_ids_refuse(const struct moe_ids *ids, size_t more, struct moe_err *err);

/* Append the tokens of one pre-token of 1 to 2^31-1 bytes.  Time n log n, memory up to MOE_BPE_BYTES a byte
 * of a long one. */
#define MOE_BPE_BYTES 28
/* Up to this many bytes a scan for the lowest rank beats the heap; for so many ids there has to be room. */
#define MOE_BPE_SHORT 48
enum moe_code moe_bpe_encode(const struct moe_bpe *b, struct moe_bpe_work *w, const unsigned char *s,
                             size_t len, struct moe_ids *ids, struct moe_err *err);

/* Merge the bytes of token `id` with the ranks below `id` alone: *n_parts is what is left, 2 for a token that
 * one last merge makes, 1 for a single byte; parts[0] and parts[1] get the ranks of the first two.
 * MOE_UNSUPPORTED above 1024 bytes. */
enum moe_code moe_bpe_split(const struct moe_bpe *b, int32_t id, int32_t parts[2], int *n_parts,
                            struct moe_err *err);

#endif
