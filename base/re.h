/* SPDX-License-Identifier: Apache-2.0 */
/* base/re.h - regular expressions on names (PCRE2, bytes rather than UTF-8); a match may lie anywhere in the
 * subject. */
#ifndef MOE_BASE_RE_H
#define MOE_BASE_RE_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>

struct moe_re;

/* MOE_USAGE with the offset and PCRE2's text for a bad pattern. */
enum moe_code moe_re_open(struct moe_re **re, const char *pattern, struct moe_err *err);
void moe_re_close(struct moe_re **re); /* NULL-safe; nulls */
bool moe_re_match(const struct moe_re *re, const char *subject, size_t bytes); /* one thread at a time */

#endif
