/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/answer.h"

#include "base/minmax.h"

#include <stdlib.h>
#include <string.h>

/* Room for text that an answer begins with, a token of the largest answer, and at most. */
enum { TOKEN_BYTES = 8, FIRST_BYTES = 1 << 12 };

/* Makes room for n more bytes and a NUL.  The text is copied, not reallocated, since others may read it. */
static enum moe_code reserve(struct moe_answer *a, size_t n, struct moe_err *err)
{
    if (a->bytes + n + 1 <= a->cap) return MOE_OK;
    size_t cap = a->bytes + n + 1 > 2 * a->cap ? a->bytes + n + 1 : 2 * a->cap;
    char *more = malloc(cap), *old = a->text;
    if (!more) return moe_fail(err, MOE_NOMEM, "no memory for %zu bytes of text", cap);
    if (old) memcpy(more, old, a->bytes + 1);
    pthread_mutex_lock(a->lock);
    a->text = more;
    pthread_mutex_unlock(a->lock);
    a->cap = cap;
    free(old);
    return MOE_OK;
}

enum moe_code moe_answer_begin(struct moe_answer *a, struct moe_err *err)
{
    a->decoder.keep_special = a->q->keep_special;
    a->finish = MOE_FINISH_LENGTH;
    a->done = a->max_tokens <= 0;
    size_t bytes = a->tokenizer && !a->done
                 ? (size_t)moe_min_i64(TOKEN_BYTES * a->max_tokens + 64, FIRST_BYTES)
                 : 0;
    MOE_TRY(reserve(a, bytes, err));
    a->text[0] = 0;
    return MOE_OK;
}

void moe_answer_release(struct moe_answer *a)
{
    free(a->text);
    a->text = NULL;
}

/* ---- where it ends ---- */

static bool in_list(int32_t id, const int32_t *list, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == id) return true;
    return false;
}

bool moe_answer_is_end(const struct moe_answer *a, int32_t id)
{
    return in_list(id, a->q->stop_ids, a->q->n_stop_ids) ||
           (!a->q->ignore_eos && in_list(id, a->ends->id, (size_t)a->ends->n));
}

/* The first occurrence of a stop text in the text not yet sent that ends behind the first min_tokens tokens;
 * the text may hold NULs.  NULL: there is none. */
static char *locate(const struct moe_answer *a, const char *stop)
{
    size_t len = strlen(stop), from = a->least >= len ? a->least - len + 1 : 0;
    for (size_t i = from > a->sent ? from : a->sent; len && i + len <= a->bytes; i++)
        if (!memcmp(a->text + i, stop, len)) return a->text + i;
    return NULL;
}

/* True when a stop text has come; then cuts the text off before the first one. */
static bool stopped(struct moe_answer *a)
{
    char *first = NULL;
    for (size_t i = 0; i < a->q->n_stop; i++) {
        char *at = locate(a, a->q->stop[i]);
        if (at && (!first || at < first)) first = at;
    }
    if (!first) return false;
    *first = 0;
    a->bytes = (size_t)(first - a->text);
    return true;
}

/* How many bytes at the end of the text are the beginning of a stop text, and must not be sent yet. */
static size_t held(const struct moe_answer *a)
{
    size_t longest = 0, len = a->bytes - a->sent;
    for (size_t i = 0; i < a->q->n_stop; i++) {
        size_t n = strlen(a->q->stop[i]);
        for (size_t k = n > len ? len : n ? n - 1 : 0; k > longest; k--)
            if (!memcmp(a->text + a->bytes - k, a->q->stop[i], k)) longest = k;
    }
    return longest;
}

/* Adds the text of token number a->n, from 0. */
static enum moe_code add_text(struct moe_answer *a, int32_t id, struct moe_err *err)
{
    char room[MOE_TOKEN_ROOM];
    size_t len = 0;
    if (!a->tokenizer) return MOE_OK;
    moe_token_bytes(a->tokenizer, id, room, &len);
    MOE_TRY(reserve(a, MOE_DECODE_BOUND(len), err));
    a->bytes += moe_decode(a->tokenizer, &a->decoder, id, a->text + a->bytes);
    a->text[a->bytes] = 0;
    if (a->n < a->q->min_tokens) a->least = a->bytes;
    else a->stop = stopped(a);
    a->sent = a->bytes - (a->stop ? 0 : held(a));
    return MOE_OK;
}

enum moe_code moe_answer_add(struct moe_answer *a, int32_t id, struct moe_err *err)
{
    if (a->n >= a->q->min_tokens && moe_answer_is_end(a, id)) {
        a->finish = MOE_FINISH_STOP;
        a->done = true;
        return MOE_OK;
    }
    MOE_TRY(add_text(a, id, err));
    a->n++;
    if (a->stop) a->finish = MOE_FINISH_STOP;
    a->done = a->stop || a->n >= a->max_tokens;
    return MOE_OK;
}

enum moe_code moe_answer_end(struct moe_answer *a, struct moe_err *err)
{
    char rest[16];
    size_t n = a->stop ? 0 : moe_decode_flush(&a->decoder, rest);
    MOE_TRY(reserve(a, n, err));
    memcpy(a->text + a->bytes, rest, n);
    a->bytes += n;
    a->text[a->bytes] = 0;
    a->sent = a->bytes;
    a->done = true;
    return MOE_OK;
}
