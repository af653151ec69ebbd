/* SPDX-License-Identifier: Apache-2.0 */
/* base/json-internal.h - what json.c and json-check.c share; for base/json*.c alone. */
#ifndef MOE_BASE_JSON_INTERNAL_H
#define MOE_BASE_JSON_INTERNAL_H

#include <stddef.h>

/* Returns NULL when the text is one JSON value that moe_json_parse accepts, with white space around it.
 * Otherwise returns what is wrong, and *at gets the byte offset. */
const char *moe_json_check(const char *s, size_t n, size_t *at);
/* What moe_json_check returns for a string with \u0000: this is valid JSON, but strings here end at a NUL. */
extern const char moe_json_no_nul[];

/* The length of the JSON number at s; 0 for a spelling that JSON forbids though strtod accepts it (01, 1.,
 * .5, 1e). */
size_t moe_json_number_length(const char *s, size_t n);

#endif
