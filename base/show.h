/* SPDX-License-Identifier: Apache-2.0 */
/* base/show.h - text that comes from files and models, made fit for a terminal.
 *
 * A file name, a string in a config or a token of a model may contain anything.  Control characters move the
 * cursor and change colours, and so do U+0080 to U+009F (U+009B begins an escape sequence); direction
 * controls change the order in which text is shown; line separators end lines.  Which characters are escaped,
 * and how, is decided here and nowhere else: \n, \t, \x1b, \x9b, \u202e.
 *
 * Everything here is safe from any thread; nothing allocates. */
#ifndef MOE_BASE_SHOW_H
#define MOE_BASE_SHOW_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The length, 1 to 4, of the well-formed UTF-8 character at s[0..len); 0 when there is none (surrogates,
 * overlong forms and values above U+10FFFF are not well-formed). */
int moe_utf8_char(const unsigned char *s, size_t len);
/* The same; *code gets the character where there is one. */
int moe_utf8_decode(const unsigned char *s, size_t len, uint32_t *code);

/* The length of the longest prefix of s that is valid UTF-8 and ends with a whole character. */
size_t moe_utf8_prefix(const unsigned char *s, size_t len);

/* Whether this code point must be escaped in text that a person reads. */
bool moe_must_escape(uint32_t code);

/* Escape a text in place; `cap` is the size of its buffer with the NUL.  What does not fit is cut off after
 * a whole character. */
void moe_show(char *text, size_t cap);

/* Format one line for a person, escape it and fit it into `cap` bytes.  Where it is too long, its longest
 * words, which are paths and names, lose their middles ('/data/.../config.json'), so that the rest of the
 * sentence is kept. */
void moe_show_line(char *out, size_t cap, const char *fmt, va_list ap);

/* Print n bytes of text, escaped; with `layout` newlines and tabs are printed as they are. */
void moe_show_print(FILE *out, const char *text, size_t n, bool layout);

/* Write a number for people: "12.3 GiB", "4 min 05 s"; more than 11 years are "forever".  Returns out. */
const char *moe_human_bytes(uint64_t bytes, char out[16]);
const char *moe_human_time(double seconds, char out[16]);

/* The ending of a noun after a count: "1 token", "2 tokens". */
static inline const char *moe_plural(int64_t n) { return n == 1 ? "" : "s"; }

#endif
