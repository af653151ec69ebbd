/* SPDX-License-Identifier: Apache-2.0 */
/* formats/tokenizer/pretoken.h - K2's pre-tokenizer: cuts valid UTF-8 into the pre-tokens that BPE then
 * merges, each for itself. */
#ifndef MOE_FORMATS_TOKENIZER_PRETOKEN_H
#define MOE_FORMATS_TOKENIZER_PRETOKEN_H

#include "base/err.h"

#include <stddef.h>

struct moe_pretoken;
struct moe_pretoken_scan; /* one thread's working memory */

/* Compile the pattern; once open, it is safe from any thread. */
enum moe_code moe_pretoken_open(struct moe_pretoken **p, struct moe_err *err);
/* For tests: use PCRE2's interpreter, as on a system that forbids JIT compilation. */
void moe_pretoken_no_jit(struct moe_pretoken *p);
void moe_pretoken_close(struct moe_pretoken **p);

struct moe_pretoken_scan *moe_pretoken_scan_new(const struct moe_pretoken *p); /* NULL when out of memory */
void moe_pretoken_scan_free(struct moe_pretoken_scan *s);                      /* NULL-safe */

/* The end of the pre-token that begins at `at` < len.  The text must be valid UTF-8 and end at len.  Every
 * character belongs to a pre-token, so *end > at. */
enum moe_code moe_pretoken_next(struct moe_pretoken_scan *s, const char *text, size_t len, size_t at,
                                size_t *end, struct moe_err *err);

#endif
