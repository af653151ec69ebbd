/* SPDX-License-Identifier: Apache-2.0 */
/* base/json.h - JSON read and written with cJSON, with the limits that hostile files make necessary.
 *
 * Objects of cJSON are linked lists: go through one once and put its names into a hash map; do not look up
 * names inside a loop. */
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
/* Store the original spelling of every number of a tree in its valuestring, for callers who print numbers as
 * they were written (1.0, 1e3, 2^53 + 1).  The text must be the one from which moe_json_parse made the tree.
 * Fails only with MOE_NOMEM. */
enum moe_code moe_json_keep_numbers(cJSON *root, const char *text, size_t size, struct moe_err *err);
/* An upper bound, in bytes, of the memory that the tree of a text takes with its numbers' spellings: up to 80
 * for each byte of the text. */
uint64_t moe_json_memory_bound(const char *text, size_t size);
/* Parse one row of a file of JSON rows, like moe_json_parse followed by moe_json_keep_numbers; messages name
 * file and line (line 0: the text is the whole file).  MOE_NOMEM, before anything is parsed, when the tree
 * may take more than row->memory bytes (0: no limit). */
struct moe_json_row {
    const char *file;
    int64_t line;
    uint64_t memory;
    const char *why; /* why the row is taken for JSON, appended to the message when it is not; or NULL */
};
enum moe_code moe_json_parse_row(const char *text, size_t size, const struct moe_json_row *row, cJSON **out,
                                 struct moe_err *err);
/* The index of the first byte in s[i..n) that is not JSON white space; n when there is none. */
size_t moe_json_space(const char *s, size_t n, size_t i);
/* Whether a text of n bytes begins as a JSON object or as an array of objects, after white space.  A bracket
 * alone is not enough, because prose may begin with one: after the brace there must be a key and its colon, a
 * closing brace, or the end of the text within these. */
enum moe_json_start { MOE_JSON_NONE, MOE_JSON_OBJECT, MOE_JSON_ARRAY };
enum moe_json_start moe_json_begins(const char *text, size_t n);
/* Read and parse a file of at most `limit` bytes, as moe_json_parse; the caller deletes *out. */
enum moe_code moe_json_read(const char *path, size_t limit, cJSON **out, struct moe_err *err);

/* Members of an object by name, with a check of their type.  With `need` false a member that is absent or
 * null leaves *out as it is. */
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
 * A tree can be built without checking every step.  Where memory runs out, the object or array that could not
 * be extended is marked as incomplete, and moe_json_whole and moe_json_print report it.  All these functions
 * take ownership of `v`, also on failure; v may be NULL, which means that it could not be created.  They
 * return what was added, or NULL.  o may be NULL too: the object that should have contained it is marked
 * already.  cJSON_Duplicate keeps the marks.  Additions through cJSON's own functions are not tracked. */
cJSON *moe_json_add(cJSON *o, const char *key, cJSON *v);
cJSON *moe_json_append(cJSON *array, cJSON *v);
cJSON *moe_json_add_object(cJSON *o, const char *key);
cJSON *moe_json_add_array(cJSON *o, const char *key);
cJSON *moe_json_add_null(cJSON *o, const char *key);
cJSON *moe_json_add_bool(cJSON *o, const char *key, bool v);
cJSON *moe_json_add_str(cJSON *o, const char *key, const char *s);
cJSON *moe_json_add_i64(cJSON *o, const char *key, int64_t v);
cJSON *moe_json_add_f64(cJSON *o, const char *key, double v);
/* Numbers printed with only as many digits as are meaningful, not all 17 of a double: a float32 with the
 * fewest digits that read back as the same value, a measurement (seconds, rates, shares) with six. */
cJSON *moe_json_add_f32(cJSON *o, const char *key, float v);
cJSON *moe_json_add_measured(cJSON *o, const char *key, double v);
/* Adds what --json says of a failure: code, name, message, file and tensor. */
void moe_json_add_err(cJSON *o, enum moe_code code, const struct moe_err *e);
/* A string of n bytes that may contain NULs, at which cJSON's own strings would end; they are printed as
 * \u0000. */
cJSON *moe_json_add_text(cJSON *o, const char *key, const char *s, size_t n);
/* A node that refers to the children or the string of v without copying them; v must outlive it.  NULL when
 * out of memory. */
cJSON *moe_json_ref(const cJSON *v);
/* Replace o's member `key` by v; where o has no such member, o is marked as incomplete. */
cJSON *moe_json_replace(cJSON *o, const char *key, cJSON *v);

/* Whether everything that was added to the tree is in it; false for NULL. */
bool moe_json_whole(const cJSON *tree);
/* Whole numbers below 2^53 are printed as integers, others with the fewest digits (up to 17) that read back
 * as the same value; NaN and Inf as null.  Keys keep their order.  indent 0 prints one line.  free() the
 * text; NULL when memory ran out here or while the tree was built. */
char *moe_json_print(const cJSON *o, int indent);

#endif
