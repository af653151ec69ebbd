#include "quantize/corpus.h"

#include "base/hash.h"
#include "base/tool.h"

#include <stdlib.h>
#include <string.h>

static enum moe_code append(struct moe_corpus *c, int64_t most, const int32_t *ids, size_t count, struct moe_err *err)
{
    int64_t n = (int64_t)count < most - c->n ? (int64_t)count : most - c->n;
    int32_t *more = realloc(c->tokens, (size_t)(c->n + n + 1) * sizeof *more);
    if (!more) return moe_fail(err, MOE_NOMEM, "no memory for %lld tokens", (long long)(c->n + n));
    c->tokens = more;
    memcpy(more + c->n, ids, (size_t)n * sizeof *ids);
    c->n += n;
    return MOE_OK;
}

static enum moe_code read_file(struct moe_corpus *c, const struct moe_tokenizer *t, const char *path, int64_t most, struct moe_err *err)
{
    struct moe_text *text;
    struct moe_text_piece piece;
    bool more = true;
    MOE_TRY(moe_text_open(&text, path, 0, err));
    enum moe_code code = MOE_OK;
    while (code == MOE_OK && c->n < most) {
        int32_t *ids;
        size_t n;
        code = moe_text_next(text, &piece, &more, err);
        if (code != MOE_OK || !more) break;
        c->torn += piece.torn;
        code = moe_text_encode(t, &piece, MOE_CHAT_DEFAULT_SYSTEM, &ids, &n, err);
        if (code != MOE_OK) break;
        code = append(c, most, ids, n, err);
        free(ids);
        if (code == MOE_OK) code = moe_interrupted(err);
    }
    moe_text_close(&text);
    return code;
}

enum moe_code moe_corpus_read(struct moe_corpus *c, const char *dir, int64_t vocab_size, const char *const *files, size_t n_files, int64_t most, struct moe_err *err)
{
    struct moe_tokenizer *t;
    *c = (struct moe_corpus){ 0 };
    MOE_TRY(moe_tokenizer_open(&t, dir, vocab_size, err));
    enum moe_code code = MOE_OK;
    for (size_t i = 0; code == MOE_OK && i < n_files && c->n < most; i++) code = read_file(c, t, files[i], most, err);
    moe_tokenizer_close(&t);
    for (int64_t i = 0; code == MOE_OK && i < c->n; i++)
        if (c->tokens[i] < 0 || c->tokens[i] >= vocab_size)
            code = moe_fail(err, MOE_MISMATCH, "token %d of the calibration text is outside the model's vocabulary of %lld", c->tokens[i], (long long)vocab_size);
    if (code == MOE_OK && !c->n) code = moe_fail(err, MOE_USAGE, "the calibration text has no tokens");
    if (code != MOE_OK) moe_corpus_release(c);
    else c->hash = moe_hash64(c->tokens, (size_t)c->n * sizeof *c->tokens);
    return code;
}

void moe_corpus_release(struct moe_corpus *c)
{
    free(c->tokens);
    *c = (struct moe_corpus){ 0 };
}
