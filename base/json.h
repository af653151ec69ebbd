/* SPDX-License-Identifier: Apache-2.0 */
/* base/json.h - JSON in and out (cJSON), with the limits that hostile files need.
 *
 * cJSON's objects are linked lists: iterate them once and hash, never look up by name inside a loop. */
#ifndef MOE_BASE_JSON_H
#define MOE_BASE_JSON_H

#include "base/err.h"

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Parse exactly one JSON value; `file` names it in messages.  MOE_CORRUPT for anything else: bad syntax
 * with its byte offset, trailing text, nesting deeper than 64, invalid UTF-8 or a NUL inside, a
 * duplicate key in one object. */
enum moe_code moe_json_parse(const char *text, size_t size, const char *file, cJSON **out,
                             struct moe_err *err);
/* For who prints numbers as they were spelled (1.0, 1e3, 2^53 + 1): every number of a tree gets its spelling
 * as valuestring.  The text is the one that moe_json_parse made the tree of.  MOE_NOMEM at worst. */
enum moe_code moe_json_keep_numbers(cJSON *root, const char *text, size_t size, struct moe_err *err);
/* A bound of the memory that the tree of a text takes with its numbers' spellings: up to 80 bytes a byte. */
uint64_t moe_json_need(const char *text, size_t size);
/* A row of a file that people wrote, as moe_json_parse and moe_json_keep_numbers; messages name file and
 * line.  MOE_NOMEM before anything is parsed where the tree may take more than `memory` (0: no limit). */
struct moe_json_row {
    const char *file;
    int64_t line;
    uint64_t memory;
    const char *why; /* it is read as JSON: said behind what is wrong with it; or NULL */
};
enum moe_code moe_json_parse_row(const char *text, size_t size, const struct moe_json_row *row, cJSON **out,
                                 struct moe_err *err);
/* The first of bytes i to n that is not JSON's white space; n when there is none. */
size_t moe_json_space(const char *s, size_t n, size_t i);
/* Does a text of n bytes begin as a JSON object, or as an array of them, behind white space?  It does where a
 * key and its colon follow, the closing brace, or the end of the text inside of them: prose may begin with
 * brackets and quotes. */
enum moe_json_start { MOE_JSON_NONE, MOE_JSON_OBJECT, MOE_JSON_ARRAY };
enum moe_json_start moe_json_begins(const char *text, size_t n);
enum moe_code moe_json_read(const char *path, size_t limit, cJSON **out, struct moe_err *err);

/* Members of an object, by name and with a type check.  `need` false: absent (or null) leaves *out alone. */
enum moe_code moe_json_i64(const cJSON *o, const char *key, bool need, int64_t min, int64_t max, int64_t *out,
                           const char *file, struct moe_err *err);
enum moe_code moe_json_f64(const cJSON *o, const char *key, bool need, double *out, const char *file,
                           struct moe_err *err);
enum moe_code moe_json_bool(const cJSON *o, const char *key, bool need, bool *out, const char *file,
                            struct moe_err *err);
enum moe_code moe_json_str(const cJSON *o, const char *key, bool need, const char **out, const char *file,
                           struct moe_err *err);
const cJSON *moe_json_get(const cJSON *o, const char *key); /* NULL when absent or null; case matters */

/* ---- JSON out ----
 *
 * A tree is built without a look at each step: where there is no memory for something that was to be added,
 * the object or array that lacks it is marked, and moe_json_whole and moe_json_print tell.  All of these take
 * `v`, whatever they return; a v of NULL is one that could not be made.  They return what was added, NULL
 * where it was not; an o of NULL is let pass, since what lacks that is marked.  cJSON_Duplicate keeps the
 * marks.  What is added with cJSON's own functions is not watched. */
cJSON *moe_json_add(cJSON *o, const char *key, cJSON *v);
cJSON *moe_json_append(cJSON *array, cJSON *v);
cJSON *moe_json_add_object(cJSON *o, const char *key);
cJSON *moe_json_add_array(cJSON *o, const char *key);
cJSON *moe_json_add_null(cJSON *o, const char *key);
cJSON *moe_json_add_bool(cJSON *o, const char *key, bool v);
cJSON *moe_json_add_str(cJSON *o, const char *key, const char *s);
cJSON *moe_json_add_i64(cJSON *o, const char *key, int64_t v);
cJSON *moe_json_add_f64(cJSON *o, const char *key, double v);
/* With the digits they have, where all 17 of the double would claim more: a float32 with the fewest that read
 * back as it, and what a clock or a counter gave (seconds, rates, shares) with six. */
cJSON *moe_json_add_f32(cJSON *o, const char *key, float v);
cJSON *moe_json_add_measured(cJSON *o, const char *key, double v);
/* A string of n bytes, of which some may be NUL (cJSON's own strings end there): printed as \u0000. */
cJSON *moe_json_add_text(cJSON *o, const char *key, const char *s, size_t n);
/* A node that shares what v holds, which must outlive it: nothing is copied.  NULL when out of memory. */
cJSON *moe_json_ref(const cJSON *v);
/* Put v in the place of o's member `key`; o is marked, too, where it has no such member. */
cJSON *moe_json_replace(cJSON *o, const char *key, cJSON *v);

/* Does the tree hold all that was added to it?  Not one that is NULL: it could not be made. */
bool moe_json_whole(const cJSON *tree);
/* Numbers are printed as integers when they are whole and below 2^53, else with up to 17 digits, shortest
 * that reads back; NaN and Inf as null.  Keys keep their order.  indent 0 is one line.  free() the text;
 * NULL when out of memory, now or when the tree was built. */
char *moe_json_print(const cJSON *o, int indent);

#endif
