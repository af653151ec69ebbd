/* SPDX-License-Identifier: Apache-2.0 */
/* formats/routing.h - routing statistics: how many tokens were routed to each expert of each MoE layer.
 *
 * They are stored in routing.json (docs/reference/format.md, section 9), plain or gzipped; the statistics
 * that SGLang and TensorRT-LLM record are converted to the same struct.  Calibration and moe-run
 * --record-routing write the file, moe-plan reads it.  Knows nothing of placements. */
#ifndef MOE_FORMATS_ROUTING_H
#define MOE_FORMATS_ROUTING_H

#include "base/cancel.h"
#include "base/file-kind.h"
#include "formats/config.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOE_ROUTING_NAME "routing.json"
enum {
    MOE_ROUTING_VERSION = 1,
    MOE_ROUTING_EXPERTS_MAX = 65536,
    MOE_ROUTING_LAYERS_MAX = 65536,
    MOE_ROUTING_WINDOWS_MAX = 1 << 20
};

struct moe_routing {
    int32_t experts;           /* >= 1 */
    int32_t experts_per_token; /* >= 1; 0: the file does not say (SGLang) */
    int32_t n_layers;          /* layers, which are the rows of a window */
    int32_t n_windows;         /* consecutive stretches of tokens, counted separately; >= 1 */
    /* [n_layers] the model's layer numbers, ascending; NULL: the file does not number its rows (SGLang) */
    int32_t *layers;
    int64_t *tokens;           /* [n_windows] tokens that were routed; 0: the file does not say */
    int64_t rounded;           /* how many counts in the file were fractions, and were rounded */
    int32_t mtp_rows;          /* set by moe_routing_bind: rows of multi-token prediction that it left out */
    /* [n_windows][n_layers][experts] tokens that were routed there: >= 0, the sum of a row below 2^53 */
    int64_t *counts;
};

/* Statistics of these layers with all counts and tokens zero; `layers` is copied (NULL: rows without
 * numbers).  Nothing is owned on failure. */
enum moe_code moe_routing_new(struct moe_routing **r, int32_t experts, int32_t experts_per_token,
                              int32_t n_layers, const int32_t *layers, int32_t n_windows,
                              struct moe_err *err);
void moe_routing_free(struct moe_routing **r); /* NULL-safe; nulls */

/* The counts of a row in a window: [experts]. */
static inline int64_t *moe_routing_row(const struct moe_routing *r, int32_t window, int32_t row)
{
    return r->counts + ((int64_t)window * r->n_layers + row) * r->experts;
}

/* Check what every reader demands: numbers in range and layers ascending; where `tokens` is known, no expert
 * has more than that and no row sums to more than tokens x experts_per_token.  MOE_CORRUPT names `file` and
 * the layer. */
enum moe_code moe_routing_check(const struct moe_routing *r, const char *file, struct moe_err *err);

/* Parse the text (changed in place) of a routing.json, or of SGLang's JSON with "logical_count" (layers x
 * experts, or windows x layers x experts).  MOE_CORRUPT for text that is not JSON, a key that is missing or
 * given twice, lists of unequal length, and what moe_routing_check refuses; also for a count that is not a
 * whole number in [0, 2^53), but SGLang's counts may be fractions, which are rounded.  MOE_UNSUPPORTED for
 * another version.  Memory: 8 bytes for each count. */
enum moe_code moe_routing_parse(char *text, size_t bytes, const char *file, const struct moe_cancel *cancel,
                                struct moe_routing **r, struct moe_err *err);

/* Read a file of either kind, plain or gzipped, or a directory with TensorRT-LLM's meta_info.json and
 * rank*.safetensors, of which all iterations and ranks are added up to one window. */
enum moe_code moe_routing_read(const char *path, const struct moe_cancel *cancel, struct moe_routing **r,
                               struct moe_err *err);
enum moe_code moe_routing_read_trtllm(const char *dir, struct moe_routing **r, struct moe_err *err);

/* The text of routing.json; equal statistics give equal bytes.  free() it; NULL when out of memory.
 * r->layers must not be NULL. */
char *moe_routing_print(const struct moe_routing *r, size_t *bytes);
/* The kind of file that moe_routing_print writes. */
extern const struct moe_file_kind moe_routing_kind;
/* Write that text to a file, whole or not at all, gzipped when `gzip`. */
enum moe_code moe_routing_write(const char *path, const struct moe_routing *r, bool gzip,
                                struct moe_err *err);

/* The same statistics with exactly one numbered row for each MoE layer of the model.  Rows with numbers are
 * matched by them.  Rows without numbers are either the MoE layers or all layers, which their count decides.
 * After them there may be rows of the config's layers for multi-token prediction; these are left out and
 * counted.  MOE_MISMATCH when experts, experts per token or layers are not the model's, or when the count of
 * rows has two possible meanings. */
enum moe_code moe_routing_bind(const struct moe_routing *r, const struct moe_config *c, const char *file,
                               struct moe_routing **bound, struct moe_err *err);

/* Add up neighbouring windows until at most `most` (>= 1) are left, of sizes as equal as possible; in
 * place. */
void moe_routing_merge(struct moe_routing *r, int32_t most);

#endif
