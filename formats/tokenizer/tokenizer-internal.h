/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/tokenizer-internal.h - what tokenizer*.c, detoken.c and chat*.c share;
 * nobody else includes it. */
#ifndef MOE_FORMATS_TOKENIZER_TOKENIZER_INTERNAL_H
#define MOE_FORMATS_TOKENIZER_TOKENIZER_INTERNAL_H

#include "base/strmap.h"
#include "formats/tokenizer/bpe.h"
#include "formats/tokenizer/pretoken.h"
#include "formats/tokenizer/tokenizer.h"

/* An id that tokenizer_config.json names. */
struct moe_added { int64_t id; const char *name; size_t len; bool text; /* "special": false */ };

struct moe_tokenizer {
    char *dir;                   /* where its files are */
    struct moe_bpe bpe;
    struct moe_pretoken *pre;
    uint64_t limit;              /* bytes that making tokens of one text may take besides it; 0: any */
    int64_t size;                /* ranks + special slots */
    /* by id; other ids from bpe.count on are placeholders, whose names are made when asked for */
    struct moe_added *added;
    size_t n_added;
    char *names;                 /* their bytes */
    struct moe_strmap by_name;   /* name -> id, of the added ones */
    size_t *lengths, length_count; /* the lengths that occur, longest first */
    bool first[256];             /* bytes some added name begins with */
};

/* The id in the name of a placeholder; -1 when it is none. */
int64_t moe_reserved_id(const char *s, size_t len);
/* Is `id` a placeholder of this vocabulary, one that tokenizer_config.json gives no name? */
bool moe_added_makes(const struct moe_tokenizer *t, int64_t id);

/* One call's working memory. */
struct moe_encoding {
    const struct moe_tokenizer *t;
    struct moe_pretoken_scan *scan;
    struct moe_bpe_work work;
    struct moe_ids ids;
    uint64_t limit;              /* t->limit less the text, 0: any */
};

/* For texts of so many bytes, together. */
enum moe_code moe_encoding_init(struct moe_encoding *e, const struct moe_tokenizer *t, size_t bytes,
                                struct moe_err *err);
/* The text is of so many bytes: the rest of the limit is for making its tokens. */
void moe_encoding_beside(struct moe_encoding *e, size_t bytes);
void moe_encoding_release(struct moe_encoding *e);

/* Append the tokens of literal text, a text of its own whatever came before. */
enum moe_code moe_encode_text(struct moe_encoding *e, const char *text, size_t bytes, struct moe_err *err);

#endif
