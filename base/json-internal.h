/* SPDX-License-Identifier: Apache-2.0 */
/* base/json-internal.h - what the files of base/json.h share; not for others. */
#ifndef MOE_BASE_JSON_INTERNAL_H
#define MOE_BASE_JSON_INTERNAL_H

#include <stddef.h>

/* NULL where the text is one JSON value as moe_json_parse takes it, with white space around it; else what is
 * wrong, and at which byte. */
const char *moe_json_check(const char *s, size_t n, size_t *at);
/* What moe_json_check answers for a string with a NUL: it is JSON, but strings end at a NUL here. */
extern const char moe_json_no_nul[];

/* The length of the JSON number at s; 0 for what only strtod takes (01, 1., .5, 1e). */
size_t moe_json_number(const char *s, size_t n);

#endif
