/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/penalties.h - changes of logits before a token is drawn from them: penalties for tokens that were
 * there already, biases, and end tokens that may not come yet.
 *
 * The changes of a row of logits are a list of edits, one for each token that is changed, so that a device
 * can apply them, too.  The list is kept up to date with each token of an answer; no text is gone through
 * again. */
#ifndef MOE_KERNELS_PENALTIES_H
#define MOE_KERNELS_PENALTIES_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

struct moe_bias { int32_t id; float bias; };

/* What a request asks for, as vLLM and OpenAI define it; all zero asks for nothing. */
struct moe_penalties {
    float repetition;               /* for tokens of the prompt or the answer; above 0; 0 is taken as 1 */
    float frequency;                /* for each time that a token is in the answer */
    float presence;                 /* for tokens that are in the answer */
    const struct moe_bias *bias; size_t n_bias; /* of the same id twice: the last one counts */
};

/* Changes the logit l of `id` to l', by these operations in float32, each rounded once:
 *
 *     x = l + bias;  y = x > 0 ? x / repetition : x * repetition;  l' = y + addend
 *
 * where addend = -(frequency * count) - presence for a token that is in the answer `count` times, else 0.
 * An edit with a bias of -Inf bans the id: l' is -Inf. */
struct moe_logit_edit { int32_t id; float bias, repetition, addend; };

/* The edits of one sequence; zero-initialised it has none, and add changes nothing.  One thread at a time
 * uses them. */
struct moe_logit_edits {
    struct moe_logit_edit *edit; size_t n, cap; /* what has to be applied, each id once */
    struct moe_penalties penalties;             /* its biases are read by begin alone */
    int32_t *count;                 /* [cap]: how often the answer has the id of that edit */
    float *before;                  /* [cap]: the logits that moe_logit_edits_apply has replaced */
    uint32_t *slot; size_t slots;   /* a hash table of ids, slots a power of 2: number of an edit + 1, or 0 */
    struct moe_bias *banned; size_t n_banned;   /* with the bias that each had before */
    int64_t tokens, ban_until;      /* tokens of the answer so far; the bans end when it has ban_until */
};

/* Begins a sequence whose prompt is ids [n] and whose answer has no token yet.  The tokens banned [n_banned]
 * may not come before the answer has min_tokens tokens.  Ids outside [0, vocab) are passed over.  Nothing
 * that is given is kept.  MOE_NOMEM.  The caller releases *e also after a failure. */
enum moe_code moe_logit_edits_begin(struct moe_logit_edits *e, const struct moe_penalties *p, int64_t vocab,
                                    const int32_t *ids, int64_t n, const int32_t *banned, size_t n_banned,
                                    int64_t min_tokens, struct moe_err *err);
/* Notes the next token of the answer.  It takes constant time, and memory only when the list doubles.
 * MOE_NOMEM. */
enum moe_code moe_logit_edits_add(struct moe_logit_edits *e, int32_t id, struct moe_err *err);
/* Applies the edits to a row of logits, which has no NaN and no +Inf; and takes them back, so that the row is
 * as it was. */
void moe_logit_edits_apply(struct moe_logit_edits *e, float *logits);
void moe_logit_edits_undo(const struct moe_logit_edits *e, float *logits);
void moe_logit_edits_release(struct moe_logit_edits *e);

#endif
