/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/tokenizer-internal.h - what bpe.c, tiktoken.c, tokenizer*.c, detoken.c and chat*.c
 * share; nobody else includes it. */
#ifndef MOE_FORMATS_TOKENIZER_TOKENIZER_INTERNAL_H
#define MOE_FORMATS_TOKENIZER_TOKENIZER_INTERNAL_H

#include "base/strmap.h"
#include "formats/tokenizer/bpe.h"
#include "formats/tokenizer/pretoken.h"
#include "formats/tokenizer/tokenizer.h"

/* An id that tokenizer_config.json names; text: its entry says "special": false. */
struct moe_added { int64_t id; const char *name; size_t len; bool text; };

struct moe_tokenizer {
    char *dir;                   /* where its files are */
    struct moe_bpe bpe;
    struct moe_pretoken *pre;
    uint64_t limit;              /* bytes of memory that encoding one text may take beside it; 0: no limit */
    int64_t size;                /* number of ids: ranks, then special tokens and placeholders */
    /* sorted by id; all other ids from bpe.count on are placeholders, whose names are generated on demand */
    struct moe_added *added;
    size_t n_added;
    char *names;                 /* the bytes of the added names */
    struct moe_strmap by_name;   /* added name -> id */
    size_t *lengths, length_count; /* the lengths of added names, each once, longest first */
    bool first[256];             /* for each byte: whether an added name begins with it */
};

/* moe_decode for the bytes of a token, or a part of them. */
size_t moe_decode_bytes(struct moe_decoder *d, const char *s, size_t len, char *out);

/* Build b's hash map and small tables from its bytes, start and count.  Returns 1; 0 when token *twice has
 * the same bytes as an earlier one; -1 when out of memory. */
int moe_bpe_index(struct moe_bpe *b, int32_t *twice);

/* The id in the generated name of a placeholder, "<|reserved_token_ID|>"; -1 for any other name. */
int64_t moe_reserved_id(const char *s, size_t len);
/* Whether `id` is a placeholder of this vocabulary: tokenizer_config.json gives it no name. */
bool moe_token_is_placeholder(const struct moe_tokenizer *t, int64_t id);

/* One call's working memory. */
struct moe_encoding {
    const struct moe_tokenizer *t;
    struct moe_pretoken_scan *scan;
    struct moe_bpe_work work;
    struct moe_ids ids;
    uint64_t limit;              /* what of t->limit is left beside the text; 0: no limit */
};

/* bytes: the length of the text, or of all texts together, that will be encoded. */
enum moe_code moe_encoding_init(struct moe_encoding *e, const struct moe_tokenizer *t, size_t bytes,
                                struct moe_err *err);
/* Change that length; the rest of the limit is left for encoding. */
void moe_encoding_beside(struct moe_encoding *e, size_t bytes);
void moe_encoding_release(struct moe_encoding *e);

/* Append the tokens of literal text, which is encoded independently of what came before. */
enum moe_code moe_encode_text(struct moe_encoding *e, const char *text, size_t bytes, struct moe_err *err);

#endif
