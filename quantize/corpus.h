/* quantize/corpus.h - the text of a calibration as tokens: documents of all files, one after the other, as far as wanted. */
#ifndef MOE_QUANTIZE_CORPUS_H
#define MOE_QUANTIZE_CORPUS_H

#include "formats/text.h"

struct moe_corpus {
    int32_t *tokens; int64_t n;   /* malloc'd */
    uint64_t hash;                /* XXH3-64 of the tokens, little-endian */
    int64_t torn;                 /* cuts that may differ from those of the whole text (formats/text.h) */
};

/* The first `most` tokens of these files (formats/text.h says which kinds), by the tokenizer of the model in `dir`.  MOE_USAGE when there are none;
 * MOE_MISMATCH for a token outside the vocabulary.  Nothing is owned on failure. */
enum moe_code moe_corpus_read(struct moe_corpus *c, const char *dir, int64_t vocab_size, const char *const *files, size_t n_files, int64_t most, struct moe_err *err);
void moe_corpus_release(struct moe_corpus *c);

#endif
