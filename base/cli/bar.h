/* SPDX-License-Identifier: Apache-2.0 */
/* base/cli/bar.h - shows a person how far long work has come.
 *
 * On a terminal it is one line, redrawn at most ten times a second and only after the first second: label,
 * bar, percentage, amount, rate, ETA.  What an earlier run has done counts in the percentage, but not in the
 * rate and the ETA.  Where the line is wider than the terminal, the bar gets shorter and fields are left out.
 * Elsewhere it is a plain line every 30 s.  Output goes to the FILE given to open (standard error) and
 * nowhere else. */
#ifndef MOE_BASE_CLI_BAR_H
#define MOE_BASE_CLI_BAR_H

#include "base/progress.h"

#include <stdio.h>

struct moe_bar;
/* clock NULL: moe_now.  NULL when out of memory: then nothing is shown. */
struct moe_bar *moe_bar_open(FILE *out, bool tty, bool color, double (*clock)(void));
/* What to hand to the work; NULL for NULL. */
struct moe_progress *moe_bar_progress(struct moe_bar *b);
/* A line above the bar, from any thread.  b is not NULL. */
void moe_bar_note(struct moe_bar *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void moe_bar_close(struct moe_bar **b); /* clears the bar, and nulls; does nothing where *b is NULL */

#endif
