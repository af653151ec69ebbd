/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/calibrate/corpus.h"

#include "base/hash.h"
#include "base/io.h"
#include "base/stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Appends `count` tokens, but keeps no more than `most` in all. */
static enum moe_code append(struct moe_corpus *c, int64_t most, const int32_t *ids, size_t count,
                            struct moe_err *err)
{
    int64_t n = (int64_t)count < most - c->n ? (int64_t)count : most - c->n;
    int32_t *more = realloc(c->tokens, (size_t)(c->n + n + 1) * sizeof *more);
    if (!more) return moe_fail(err, MOE_NOMEM, "no memory for %lld tokens", (long long)(c->n + n));
    c->tokens = more;
    memcpy(more + c->n, ids, (size_t)n * sizeof *ids);
    c->n += n;
    return MOE_OK;
}

/* What the reading of all files shares.  memory: the bytes that are left for text and tokens; 0: no limit. */
struct reader {
    struct moe_tokenizer *t;
    struct moe_chat *chat;
    const struct moe_chat_hint *hint;
    int64_t most;
    uint64_t memory;
    const struct moe_cancel *cancel;
};

/* The bytes of r->memory that are left beside `held`; at least 1, since 0 would be no limit. */
static uint64_t left_beside(const struct reader *r, uint64_t held)
{
    return !r->memory ? 0 : r->memory > held ? r->memory - held : 1;
}

/* Appends the tokens of one piece.  The chat template is opened when the first conversation needs it. */
static enum moe_code encode(struct moe_corpus *c, struct reader *r, const struct moe_text *text,
                            const struct moe_text_piece *p, struct moe_err *err)
{
    int32_t *ids;
    size_t n;
    if (p->messages && !r->chat) MOE_TRY(moe_chat_open(&r->chat, r->t, r->hint, err));
    moe_tokenizer_limit(r->t, left_beside(r, moe_text_held(text) + (uint64_t)c->n * sizeof *c->tokens));
    MOE_TRY(moe_text_encode(r->t, r->chat, p, &ids, &n, &c->left, err));
    c->conversations += p->messages != NULL;
    enum moe_code code = append(c, r->most, ids, n, err);
    free(ids);
    return code == MOE_OK ? moe_cancel_check(r->cancel, err) : code;
}

/* Adds the counts of what was left out of a file. */
static void count_left(struct moe_corpus *c, const struct moe_text *text)
{
    const char *first;
    int64_t n = moe_text_unread_keys(text, &first);
    if (n && !c->row_keys) snprintf(c->row_key, sizeof c->row_key, "%s", first);
    c->row_keys += n;
    c->empty += moe_text_empty_rows(text);
}

static enum moe_code read_file(struct moe_corpus *c, struct reader *r, const char *path, struct moe_err *err)
{
    struct moe_text *text;
    struct moe_text_piece piece;
    bool more = true;
    uint64_t memory = left_beside(r, (uint64_t)c->n * sizeof *c->tokens);

    MOE_TRY(moe_text_open(&text, path, 0, memory, r->cancel, err));
    enum moe_code code = MOE_OK;
    while (code == MOE_OK && c->n < r->most) {
        code = moe_text_next(text, &piece, &more, err);
        if (code != MOE_OK || !more) break;
        c->cut_in_token += piece.cut_in_token;
        code = encode(c, r, text, &piece, err);
        if (code != MOE_OK && piece.messages)
            moe_wrap(err, "'%s': line %lld", moe_stream_name(path), (long long)piece.line);
        else if (code == MOE_NOMEM) moe_wrap(err, "'%s'", moe_stream_name(path));
    }
    count_left(c, text);
    moe_text_close(&text);
    return code;
}

static enum moe_code check_ids(const struct moe_corpus *c, int64_t vocab_size, struct moe_err *err)
{
    for (int64_t i = 0; i < c->n; i++)
        if (c->tokens[i] < 0 || c->tokens[i] >= vocab_size)
            return moe_fail(err, MOE_MISMATCH,
                            "token %d of the calibration text is outside the model's vocabulary of %lld",
                            c->tokens[i], (long long)vocab_size);
    return c->n ? MOE_OK : moe_fail(err, MOE_USAGE, "the calibration text has no tokens");
}

enum moe_code moe_corpus_read(struct moe_corpus *c, const struct moe_corpus_source *s, int64_t most,
                              struct moe_err *err)
{
    struct reader r = { .hint = &s->chat, .most = most, .memory = s->memory, .cancel = s->cancel };

    *c = (struct moe_corpus){ 0 };
    MOE_TRY(moe_tokenizer_open(&r.t, s->dir, s->vocab_size, err));
    r.memory = left_beside(&r, moe_peak_anonymous());
    enum moe_code code = MOE_OK;
    for (size_t i = 0; code == MOE_OK && i < s->n_files && c->n < most; i++) code = read_file(c, &r,
                                                                                              s->files[i],
                                                                                              err);
    moe_chat_close(&r.chat);
    moe_tokenizer_close(&r.t);
    if (code == MOE_OK) code = check_ids(c, s->vocab_size, err);
    if (code != MOE_OK) moe_corpus_release(c);
    else c->hash = moe_hash64(c->tokens, (size_t)c->n * sizeof *c->tokens);
    return code;
}

void moe_corpus_release(struct moe_corpus *c)
{
    free(c->tokens);
    *c = (struct moe_corpus){ 0 };
}
