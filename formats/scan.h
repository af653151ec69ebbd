/* SPDX-License-Identifier: Apache-2.0 */
/* formats/scan.h - a cursor over JSON text, for files whose objects are too large to build a tree of.
 *
 * Each step returns NULL or what is wrong ("bad syntax"); the caller adds file and tensor.
 * Strings are decoded in place, so the text must be writable and outlive them.  Nothing at or
 * after `end` is read or written. */
#ifndef MOE_FORMATS_SCAN_H
#define MOE_FORMATS_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moe_scan { char *start, *at, *end; };

/* Step over a byte order mark at the start, which some editors put there. */
void moe_scan_mark(struct moe_scan *s);
/* Skip white space.  When `c` comes next, step over it and return true. */
bool moe_scan_take(struct moe_scan *s, char c);
/* A string: *text gets it, NUL terminated.  A NUL inside, a raw control character and invalid UTF-8 are
 * refused. */
const char *moe_scan_string(struct moe_scan *s, char **text, size_t *len);
/* A whole number of plain digits below 2^63. */
const char *moe_scan_u64(struct moe_scan *s, uint64_t *v);
/* A number from 0 to below 2^63, rounded to a whole one (162554.0, 1.5e3); *exact: it was one. */
const char *moe_scan_rounded(struct moe_scan *s, uint64_t *v, bool *exact);
/* Step over one value of any kind, nested at most 64 deep. */
const char *moe_scan_skip(struct moe_scan *s);
/* There must be nothing but white space up to the end. */
const char *moe_scan_end(struct moe_scan *s);

#endif
