/* SPDX-License-Identifier: Apache-2.0 */
/* base/progress.h - shows a person how far long work has come.
 *
 * On a terminal it is one line, redrawn at most ten times a second and only after the first second: label,
 * bar, percentage, amount, rate, ETA.  Where this is wider than the terminal, the bar gets shorter and fields
 * are left out.  Elsewhere it is a plain line every 30 s.  All calls accept NULL and then do nothing; all are
 * safe from any thread.  Output goes to the FILE given to open (standard error) and nowhere else.  There is
 * one piece of work at a time: a second begin without an end is a bug. */
#ifndef MOE_BASE_PROGRESS_H
#define MOE_BASE_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum moe_unit {
    MOE_UNIT_BYTES,
    MOE_UNIT_TOKENS,
    MOE_UNIT_ITEMS,
    MOE_UNIT_MFLOP /* a million floating-point operations */
};

struct moe_progress;
/* clock NULL: moe_now */
struct moe_progress *moe_progress_open(FILE *out, bool tty, bool color, double (*clock)(void));
/* Begin work of `total` units, which moe_progress_add counts. */
void moe_progress_begin(struct moe_progress *p, const char *label, uint64_t total, enum moe_unit unit);
void moe_progress_add(struct moe_progress *p, uint64_t amount);
/* Count an amount that an earlier run has done: it adds to the percentage, but not to the rate and the
 * ETA. */
void moe_progress_skip(struct moe_progress *p, uint64_t amount);
void moe_progress_label(struct moe_progress *p, const char *label); /* another phase of the same work */
/* a line above the bar */
void moe_progress_note(struct moe_progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void moe_progress_end(struct moe_progress *p);    /* clears the bar */
void moe_progress_close(struct moe_progress **p); /* nulls */

#endif
