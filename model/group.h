/* SPDX-License-Identifier: Apache-2.0 */
/* model/group.h - groups items (the tokens' choices of experts) by their expert, so that the weights of each
 * expert are read once for all of its items: a stable counting sort that moves nothing itself.
 *
 *     moe_group_count(first, experts, &item[0].expert, sizeof item[0], n);
 *     for (int64_t i = 0; i < n; i++) sorted[moe_group_place(first, item[i].expert)] = item[i];
 *
 * After both lines the items of expert e are sorted[first[e]] to sorted[first[e + 1] - 1], in the order in
 * which they were placed.  `first` is the caller's, [experts + 1]; calls on different arrays may run at the
 * same time. */
#ifndef MOE_MODEL_GROUP_H
#define MOE_MODEL_GROUP_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Counts n items and prepares `first` for moe_group_place.  The expert of item i, in [0, experts), lies
 * i * stride bytes after that of item 0.  n may be 0. */
static inline void moe_group_count(int64_t *first, int64_t experts, const int32_t *expert, size_t stride,
                                   int64_t n)
{
    const char *at = (const char *)expert;
    int64_t begin = 0;
    memset(first, 0, (size_t)(experts + 1) * sizeof *first);
    for (int64_t i = 0; i < n; i++, at += stride) first[*(const int32_t *)(const void *)at + 1]++;
    /* Until its items are placed, first[e + 1] is where the next item of expert e goes. */
    for (int64_t e = 0; e < experts; e++) {
        int64_t count = first[e + 1];
        first[e + 1] = begin;
        begin += count;
    }
}

/* The index of the next item, whose expert this is, among the sorted ones.  To be called once for each item
 * that was counted, in their order. */
static inline int64_t moe_group_place(int64_t *first, int32_t expert) { return first[expert + 1]++; }

#endif
