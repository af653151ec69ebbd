/* SPDX-License-Identifier: Apache-2.0 */
/* base/show.h - text that comes from files and models, made fit for a terminal.
 *
 * A file name, a string of a config or a token of a model may hold anything.  Control characters move the
 * cursor and change colours; U+0080 to U+009F do so too (U+009B begins an escape sequence); direction
 * controls show text in another order than the one it has; line separators end lines.  Which characters
 * these are, and how they are shown instead, is decided here and nowhere else: \n, \t, \x1b, \x9b, \u202e.
 * A byte that is no part of a UTF-8 character is shown as \xe9, too.
 *
 * Everything here is safe from any thread; nothing allocates. */
#ifndef MOE_BASE_SHOW_H
#define MOE_BASE_SHOW_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Bytes of the well-formed UTF-8 character at s[0..len), 1 to 4, or 0 when there is none (surrogates,
 * overlong forms and values above U+10FFFF are not well-formed). */
int moe_utf8_char(const unsigned char *s, size_t len);
/* The same; *code gets the character where there is one. */
int moe_utf8_decode(const unsigned char *s, size_t len, uint32_t *code);

/* Must this code point be escaped where a person may read it? */
bool moe_is_hidden(uint32_t code);

/* Escape in place what must not reach a terminal, in `cap` bytes with the NUL; what does not fit is cut
 * off behind a whole character. */
void moe_show(char *text, size_t cap);

/* One line for a person: formatted, escaped, and fitted into `cap` bytes.  Where it does not fit, its
 * longest words, which are paths and names, lose their middles ('/data/.../config.json'), so that what the
 * line says of them stays. */
void moe_show_line(char *out, size_t cap, const char *fmt, va_list ap);

/* Print text of n bytes, escaped.  `layout`: newlines and tabs go out as they are. */
void moe_show_print(FILE *out, const char *text, size_t n, bool layout);

/* "12.3 GiB", "4 min 05 s": for people.  Returns out. */
const char *moe_human_bytes(uint64_t bytes, char out[16]);
const char *moe_human_time(double seconds, char out[16]);

/* What a noun ends in behind a count: "1 token", "2 tokens". */
static inline const char *moe_plural(int64_t n) { return n == 1 ? "" : "s"; }

#endif
