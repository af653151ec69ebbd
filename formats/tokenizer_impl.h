/* formats/tokenizer_impl.h - what tokenizer.c, detoken.c and chat.c share; nobody else includes it. */
#ifndef MOE_FORMATS_TOKENIZER_IMPL_H
#define MOE_FORMATS_TOKENIZER_IMPL_H

#include "base/strmap.h"
#include "formats/bpe.h"
#include "formats/pretoken.h"
#include "formats/tokenizer.h"

struct moe_special { const char *name; size_t len; };

struct moe_tokenizer {
    struct moe_bpe bpe;
    struct moe_pretoken *pre;
    int64_t size;                /* ranks + special slots */
    struct moe_special *special; /* [size - bpe.count], every one named */
    char *names;                 /* their bytes */
    struct moe_strmap by_name;   /* name -> id */
    size_t *lengths, length_count; /* the lengths that occur, longest first */
    bool first[256];             /* bytes some special begins with */
};

/* One call's working memory. */
struct moe_encoding {
    const struct moe_tokenizer *t;
    struct moe_pretoken_scan *scan;
    struct moe_bpe_work work;
    struct moe_ids ids;
};

enum moe_code moe_encoding_init(struct moe_encoding *e, const struct moe_tokenizer *t, struct moe_err *err);
void moe_encoding_release(struct moe_encoding *e);

/* Append the tokens of literal text, a text of its own whatever came before. */
enum moe_code moe_encode_text(struct moe_encoding *e, const char *text, size_t bytes, struct moe_err *err);

#endif
