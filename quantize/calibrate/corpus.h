/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/corpus.h - the text of a calibration as tokens: documents of all files, one after the
 * other, as far as wanted. */
#ifndef MOE_QUANTIZE_CALIBRATE_CORPUS_H
#define MOE_QUANTIZE_CALIBRATE_CORPUS_H

#include "formats/text.h"

struct moe_corpus {
    int32_t *tokens; int64_t n;   /* malloc'd */
    uint64_t hash;                /* XXH3-64 of the tokens, little-endian */
    int64_t torn;                 /* cuts that may differ from those of the whole text (formats/text.h) */
    int64_t conversations;        /* of documents, those that went through the chat template */
    struct moe_chat_left left;    /* what conversations hold that the chat template has no place for */
    int64_t empty;                /* rows that hold nothing, stepped over */
    int64_t row_keys; char row_key[48]; /* keys of rows that nothing reads, and the first of them */
};

/* Files, and the model whose tokens they become. */
struct moe_corpus_source {
    const char *dir; int64_t vocab_size; /* of the model, its tokenizer's files in `dir` */
    struct moe_chat_hint chat;           /* for conversations, when there are any */
    /* what making tokens of one text, or the JSON of a row, may take; 0: no limit */
    uint64_t memory;
    const char *const *files; size_t n_files;
    const struct moe_cancel *cancel;     /* ends reading early; NULL: nobody will */
};

/* The first `most` tokens of these files (formats/text.h says which kinds).  MOE_USAGE when there are none;
 * MOE_MISMATCH for a token outside the vocabulary.  Nothing is owned on failure. */
enum moe_code moe_corpus_read(struct moe_corpus *c, const struct moe_corpus_source *s, int64_t most,
                              struct moe_err *err);
void moe_corpus_release(struct moe_corpus *c);

#endif
