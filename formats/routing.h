/* SPDX-License-Identifier: Apache-2.0 */
/* formats/routing.h - routing statistics: how many tokens went to each expert of each MoE layer.
 *
 * The file routing.json (docs/reference/format.md, section 9), plain or gzipped; and the statistics that
 * SGLang and TensorRT-LLM record, brought into the same form.  Calibration and moe-run --record-routing write
 * it, moe-plan reads it.  Knows nothing of placements. */
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
    int32_t n_layers;          /* rows of a window */
    int32_t n_windows;         /* >= 1 */
    /* [n_layers] numbers of the model's layers, ascending; NULL: the rows have no numbers (SGLang) */
    int32_t *layers;
    int64_t *tokens;           /* [n_windows]; 0: the file does not say */
    int64_t rounded;           /* counts of the file that were fractions, and were rounded to whole numbers */
    int32_t beyond;            /* of moe_routing_bind: rows of layers for multi-token prediction, left out */
    /* [n_windows][n_layers][experts] tokens routed there: >= 0, the sum of a row below 2^53 */
    int64_t *counts;
};

/* Zero counts and tokens for these layers (copied; NULL: rows without numbers), to be filled in.
 * Nothing is owned on failure. */
enum moe_code moe_routing_new(struct moe_routing **r, int32_t experts, int32_t experts_per_token,
                              int32_t n_layers, const int32_t *layers, int32_t n_windows,
                              struct moe_err *err);
void moe_routing_free(struct moe_routing **r); /* NULL-safe; nulls */

static inline int64_t *moe_routing_row(const struct moe_routing *r, int32_t window, int32_t row)
{
    return r->counts + ((int64_t)window * r->n_layers + row) * r->experts;
}

/* What a reader of the file demands of it: numbers in range, layers ascending; where tokens is told, no
 * expert has more than that and no row adds up to more than tokens x experts_per_token.  MOE_CORRUPT,
 * naming `file` and the layer. */
enum moe_code moe_routing_check(const struct moe_routing *r, const char *file, struct moe_err *err);

/* Parse text (changed in place): routing.json, or SGLang's JSON with "logical_count" (layers x experts, or
 * windows x layers x experts).  MOE_CORRUPT for anything but JSON, a missing or second key, lists of unequal
 * length, a count that is no whole number in [0, 2^53) (of SGLang's: no number; fractions are rounded), and
 * what moe_routing_check refuses; MOE_UNSUPPORTED for another version.  Memory: 8 bytes a count. */
enum moe_code moe_routing_parse(char *text, size_t bytes, const char *file, const struct moe_cancel *cancel,
                                struct moe_routing **r, struct moe_err *err);

/* Read a file of either kind, plain or gzipped, or a directory with TensorRT-LLM's meta_info.json and
 * rank*.safetensors (all iterations and ranks added up to one window). */
enum moe_code moe_routing_read(const char *path, const struct moe_cancel *cancel, struct moe_routing **r,
                               struct moe_err *err);
enum moe_code moe_routing_read_trtllm(const char *dir, struct moe_routing **r, struct moe_err *err);

/* The text of routing.json: equal statistics give equal bytes.  free() it; NULL when out of memory.  Needs
 * layers. */
char *moe_routing_print(const struct moe_routing *r, size_t *bytes);
/* What moe_routing_print begins with. */
extern const struct moe_file_kind moe_routing_kind;
/* Write it (atomically), gzipped when `gzip`. */
enum moe_code moe_routing_write(const char *path, const struct moe_routing *r, bool gzip,
                                struct moe_err *err);

/* The same statistics with one row for each MoE layer of the model, numbered.  Rows with numbers are chosen
 * by them; rows without are the MoE layers, or all layers, told by their count.  Behind them there may be
 * rows of the layers for multi-token prediction that the config has; they are left out and counted.
 * MOE_MISMATCH when experts, experts per token or layers are not the model's, or when the count of rows fits
 * two readings. */
enum moe_code moe_routing_bind(const struct moe_routing *r, const struct moe_config *c, const char *file,
                               struct moe_routing **bound, struct moe_err *err);

/* Neighbouring windows added up until there are at most `most` (>= 1), as even as possible; in place. */
void moe_routing_merge(struct moe_routing *r, int32_t most);

#endif
