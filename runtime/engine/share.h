/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/share.h - which rank computes which of many prompts that are all known at the start.
 *
 * Prompts are given away in order.  Each goes to the rank that has been given the prompt with which it shares
 * the longest beginning, in whole pages of the cache and under the same salt, unless that rank is far ahead
 * of the others; of several such ranks, to the least loaded one, then to the lowest.  A rank's load is the
 * tokens that it computes: those of its prompts, but for the pages that an earlier one of them has computed,
 * and the most that each may generate.  A rank is far ahead where its load exceeds the least by more than
 * half of an equal share of what one rank alone would compute: so prompts that all begin alike still come to
 * every rank, and each rank computes their beginning once.
 *
 * It depends on nothing but the prompts and the number of ranks: all ranks find the same without a word. */
#ifndef MOE_RUNTIME_ENGINE_SHARE_H
#define MOE_RUNTIME_ENGINE_SHARE_H

#include "runtime/engine/sequences.h"

/* Sets the ranks of s [n].  context: the most positions that the model allows a sequence, and not what memory
 * allows, which may differ between ranks.  Time and memory grow with the tokens of all prompts: 32 bytes and
 * ranks / 4 more, for each page's worth of them.  MOE_NOMEM. */
enum moe_code moe_share_prompts(struct moe_sequence *s, int64_t n, int ranks, int64_t context,
                                struct moe_err *err);

#endif
