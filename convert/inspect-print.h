/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect-print.h - what moe-inspect prints on standard output: the objects that inspect.h and diff.h
 * make, for people, and tokens. */
#ifndef MOE_CONVERT_INSPECT_PRINT_H
#define MOE_CONVERT_INSPECT_PRINT_H

#include "base/json.h"
#include "convert/inspect-tokens.h"

void moe_inspect_print_summary(const cJSON *j);     /* moe_inspect_summary with moe_inspect_model */
void moe_inspect_print_layers(const cJSON *rows);   /* moe_inspect_layers */
void moe_inspect_print_experts(const cJSON *rows);  /* moe_inspect_experts */
void moe_inspect_print_tensors(const cJSON *rows);  /* moe_inspect_tensors */

/* moe_inspect_diff of the models at two paths.  What one wants to know comes first; the other tensors, up to
 * `top` with the worst, come last. */
void moe_inspect_print_diff(const char *first, const char *second, const cJSON *j, int64_t top);

/* Tokens for programs: the ids alone in a line, or JSON. */
void moe_inspect_print_ids(const int32_t *ids, const struct moe_token_counts *c, bool json);
/* Tokens for people: one a line with its bytes between quotes, then the counts. */
void moe_inspect_print_pieces(const struct moe_tokenizer *t, const int32_t *ids,
                              const struct moe_token_counts *c);

#endif
