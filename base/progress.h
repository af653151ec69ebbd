/* SPDX-License-Identifier: Apache-2.0 */
/* base/progress.h - one object that tells a person how far long work is.
 *
 * On a terminal: one line, redrawn at most ten times a second, after the first second: label, bar, share,
 * amount, rate, ETA; where that is wider than the terminal, a shorter bar and fewer fields.  Elsewhere: a
 * plain line every 30 s.  All calls accept NULL (then they do nothing) and are safe from any thread.  Writes
 * to the FILE it was opened with (standard error) and nowhere else.  One piece of work at a time: a second
 * begin without an end is a bug. */
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
void moe_progress_begin(struct moe_progress *p, const char *label, uint64_t total, enum moe_unit unit);
void moe_progress_add(struct moe_progress *p, uint64_t amount);
/* Done by an earlier run: a part of the share, not of the rate nor of what the ETA is told from. */
void moe_progress_skip(struct moe_progress *p, uint64_t amount);
void moe_progress_label(struct moe_progress *p, const char *label); /* another phase of the same work */
/* a line above the bar */
void moe_progress_note(struct moe_progress *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void moe_progress_end(struct moe_progress *p);    /* clears the bar */
void moe_progress_close(struct moe_progress **p); /* nulls */

#endif
