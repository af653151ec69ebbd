/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/report.h - what a rewrite measured, as JSON for journals, manifests
 * and tools.  Inside model/. */
#ifndef MOE_MODEL_REWRITE_REPORT_H
#define MOE_MODEL_REWRITE_REPORT_H

#include "model/rewrite/rewrite.h"

/* Squared error and squared norm by (layer, role), added in the order of the tensors. */
struct moe_tally {
    struct moe_tally_row {
        int layer, role;
        double num, den;
        int64_t weights;
    } * rows;
    size_t n, cap;
    bool failed;
};

void moe_tally_add(struct moe_tally *t, const struct moe_tensor *in, double num, double den);
/* [[layer, role, num, den, weights], ...]; NULL when out of memory */
cJSON *moe_tally_json(const struct moe_tally *t);
void moe_tally_release(struct moe_tally *t);

/* A coder's note in a unit's report: taken, whatever is returned.  And all notes of moe_writer_reports'
 * array, in the order of the layers, each borrowed; NULL when out of memory. */
bool moe_report_add_note(cJSON *report, cJSON *note);
cJSON *moe_report_notes(const cJSON *reports);

/* The options that change bytes, as kept for --resume and in the manifest. */
cJSON *moe_rewrite_options_json(const struct moe_rewrite_options *o);

/* {"embed": "bf16", ..., "gate": "nvfp4"}: the type of each role, "mixed" where tensors differ. */
cJSON *moe_types_json(const struct moe_source *src, const uint8_t *type);

/* The manifest's "quantization" and the report's "relative_error", both NULL when nothing was changed; a
 * container's own quantization is kept then, else it stands in the new one as "before".  relative_error:
 * {"layers": [{"layer", "gate", "up", "down", ...}], "total"}, each sqrt(sum (w - w')^2 / sum w^2). */
enum moe_code moe_quantization_json(const struct moe_source *src, const struct moe_rewrite_options *o,
                                    const cJSON *reports, cJSON **quantization, cJSON **relative_error,
                                    struct moe_err *err);

/* The manifest's "part": {"layers": [first, last], "reports": as from moe_writer_reports, less the notes},
 * what a merge needs to say the error of the whole.  NULL when out of memory. */
cJSON *moe_part_json(const struct moe_layer_range *layers, const cJSON *reports);
/* As moe_quantization_json, of a source put together from parts: what one run over
 * all layers would have said. */
enum moe_code moe_merged_quantization_json(const struct moe_source *src, cJSON **quantization,
                                           cJSON **relative_error, struct moe_err *err);

const char *moe_method_name(enum moe_nvfp4_method m); /* "max", "four-over-six", "search" */
int moe_method_find(const char *name);                /* -1 when it is none of these */

#endif
