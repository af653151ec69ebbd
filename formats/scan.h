/* SPDX-License-Identifier: Apache-2.0 */
/* formats/scan.h - a cursor over JSON text, for files that are too large to build a tree of.
 *
 * Each step returns NULL, or what is wrong ("bad syntax"); the caller adds file and tensor to the message.
 * Strings are decoded in place, so the text must be writable and must outlive them.  Nothing at or after
 * `end` is read or written. */
#ifndef MOE_FORMATS_SCAN_H
#define MOE_FORMATS_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct moe_scan { char *start, *at, *end; };

/* Step over a byte order mark, which some editors put at the start of a file. */
void moe_scan_skip_mark(struct moe_scan *s);
/* Skip white space; when `c` comes next, step over it and return true. */
bool moe_scan_take(struct moe_scan *s, char c);
/* Read a string; *text points to it, NUL terminated.  A NUL in it, an unescaped control character and invalid
 * UTF-8 are refused. */
const char *moe_scan_string(struct moe_scan *s, char **text, size_t *len);
/* Read a whole number below 2^63, written in digits alone. */
const char *moe_scan_u64(struct moe_scan *s, uint64_t *v);
/* Read any number from 0 to below 2^63 and round it to a whole one (162554.0, 1.5e3); *exact: nothing was
 * rounded. */
const char *moe_scan_rounded(struct moe_scan *s, uint64_t *v, bool *exact);
/* Step over one value of any kind, nested at most 64 levels deep. */
const char *moe_scan_skip(struct moe_scan *s);
/* Check that only white space is left. */
const char *moe_scan_end(struct moe_scan *s);

#endif
