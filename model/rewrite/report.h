/* SPDX-License-Identifier: Apache-2.0 */
/* model/rewrite/report.h - what a rewrite measured, as JSON for journals, manifests and tools.
 *
 * A unit's report is an array: a row [layer, role, num, den, weights] for each kind of tensor that was
 * quantized or decoded, and perhaps a code chooser's note. */
#ifndef MOE_MODEL_REWRITE_REPORT_H
#define MOE_MODEL_REWRITE_REPORT_H

#include "model/rewrite/rewrite.h"

/* The squared error `num` and the squared norm `den` of each (layer, role), added up in the order of the
 * tensors. */
struct moe_tally {
    struct moe_tally_row {
        int layer, role;
        double num, den;
        int64_t weights;
    } * rows;
    size_t n, cap;
    bool failed;    /* memory ran out */
};

void moe_tally_add(struct moe_tally *t, const struct moe_tensor *in, double num, double den);
/* The rows of a unit's report; NULL without memory. */
cJSON *moe_tally_json(const struct moe_tally *t);
void moe_tally_release(struct moe_tally *t);

/* Adds a code chooser's note to a unit's report, which owns it from now on; false without memory, and then
 * the note is deleted.  moe_report_notes: all notes of the array that moe_writer_reports gives, in its
 * order; the caller deletes the array that is returned, whose elements belong to `reports`.  NULL without
 * memory. */
bool moe_report_add_note(cJSON *report, cJSON *note);
cJSON *moe_report_notes(const cJSON *reports);

/* The options that change the bytes written, as they are kept for --resume and in the manifest; NULL without
 * memory. */
cJSON *moe_rewrite_options_json(const struct moe_rewrite_options *o);

/* The type of each role: {"embed": "bf16", ..., "gate": "nvfp4"}, "mixed" where tensors differ. */
cJSON *moe_types_json(const struct moe_source *src, const uint8_t *type);

/* *quantization: the manifest's "quantization"; when this run changed no tensor it is the one of the source,
 * or NULL where the source has none; else the source's is in it as "before".  *relative_error: {"layers":
 * [{"layer", "gate", "up", "down", ...}], "total"}, each value sqrt(sum (w - w')^2 / sum w^2); NULL when
 * no tensor was changed.  The caller deletes both. */
enum moe_code moe_quantization_json(const struct moe_source *src, const struct moe_rewrite_options *o,
                                    const cJSON *reports, cJSON **quantization, cJSON **relative_error,
                                    struct moe_err *err);

/* The manifest's "part", from which a merge computes the error of the whole model: {"layers": [first, last],
 * "reports"}, with the reports of moe_writer_reports without notes.  NULL without memory. */
cJSON *moe_part_json(const struct moe_layer_range *layers, const cJSON *reports);
/* The same as moe_quantization_json for a source merged from parts: what one run over all layers would have
 * given. */
enum moe_code moe_merged_quantization_json(const struct moe_source *src, cJSON **quantization,
                                           cJSON **relative_error, struct moe_err *err);

const char *moe_method_name(enum moe_nvfp4_method m); /* "max", "four-over-six", "search" */
int moe_method_find(const char *name);                /* -1 when it is none of these */

#endif
