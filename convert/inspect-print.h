/* SPDX-License-Identifier: Apache-2.0 */
/* convert/inspect-print.h - what moe-inspect prints on standard output: the JSON objects of inspect.h and
 * diff.h, for people, and tokens. */
#ifndef MOE_CONVERT_INSPECT_PRINT_H
#define MOE_CONVERT_INSPECT_PRINT_H

#include "base/json.h"
#include "convert/inspect-tokens.h"

/* Each of these prints what the function named beside it makes. */
void moe_inspect_print_summary(const cJSON *j);     /* moe_inspect_summary with moe_inspect_model */
void moe_inspect_print_layers(const cJSON *rows);   /* moe_inspect_layers */
void moe_inspect_print_experts(const cJSON *rows);  /* moe_inspect_experts */
void moe_inspect_print_tensors(const cJSON *rows);  /* moe_inspect_tensors */
void moe_inspect_print_devices(const cJSON *j);     /* moe_inspect_devices */

/* Prints the result of moe_inspect_diff for the models at two paths: the counts and the worst tensors, then
 * differences of the configs, and last other tensors, up to `top` together with the worst. */
void moe_inspect_print_diff(const char *first, const char *second, const cJSON *j, int64_t top);

/* Prints tokens for programs: the ids alone in one line, or JSON. */
void moe_inspect_print_ids(const int32_t *ids, const struct moe_token_counts *c, bool json);
/* Prints tokens for people: one a line, with its bytes between quotes, then the counts. */
void moe_inspect_print_pieces(const struct moe_tokenizer *t, const int32_t *ids,
                              const struct moe_token_counts *c);

#endif
