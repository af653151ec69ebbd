/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/corpus.h - reads the text of a calibration as tokens: the documents of all files, one
 * after the other, up to a number of tokens. */
#ifndef MOE_QUANTIZE_CALIBRATE_CORPUS_H
#define MOE_QUANTIZE_CALIBRATE_CORPUS_H

#include "formats/text.h"

struct moe_corpus {
    int32_t *tokens; int64_t n;   /* [n], malloc'd */
    uint64_t hash;                /* XXH3-64 of the tokens, little-endian */
    int64_t cut_in_token;         /* pieces of text that may begin inside a token (formats/text.h) */
    int64_t conversations;        /* documents that were written by the chat template */
    struct moe_chat_left left;    /* parts of conversations that the chat template leaves out */
    int64_t empty;                /* rows without text or turns, which are skipped */
    int64_t row_keys; char row_key[48]; /* the number of keys of rows that are ignored; the first of them */
};

/* The files, and the model to whose tokens they are turned. */
struct moe_corpus_source {
    const char *dir; int64_t vocab_size; /* the directory of the model's tokenizer files; its vocabulary */
    struct moe_chat_hint chat;           /* finds the chat template when there are conversations */
    /* bytes that the process may have while it reads, tokenizer and tokens included; 0: no limit */
    uint64_t memory;
    const char *const *files; size_t n_files;
    const struct moe_cancel *cancel;     /* ends reading early; NULL: nobody will */
};

/* Reads the first `most` tokens of the files (formats/text.h says which kinds).  MOE_USAGE when there are no
 * tokens; MOE_MISMATCH for a token outside of the vocabulary; MOE_NOMEM above s->memory.  Nothing is owned on
 * failure. */
enum moe_code moe_corpus_read(struct moe_corpus *c, const struct moe_corpus_source *s, int64_t most,
                              struct moe_err *err);
void moe_corpus_release(struct moe_corpus *c);

#endif
