/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/report.h - the report of a calibration: a note (JSON) for each layer while it runs,
 * and the whole report as text. */
#ifndef MOE_QUANTIZE_CALIBRATE_REPORT_H
#define MOE_QUANTIZE_CALIBRATE_REPORT_H

#include "base/json.h"
#include "base/file-kind.h"
#include "quantize/rounding/clip.h"

#include <stdbool.h>

enum moe_phase {
    MOE_PHASE_ATTENTION,
    MOE_PHASE_ROUTER,
    MOE_PHASE_FORWARD,
    MOE_PHASE_CORRECTION,
    MOE_PHASE_STATISTICS,
    MOE_PHASE_FACTORING,
    MOE_PHASE_ROUNDING,
    MOE_PHASES
};

/* out_*: squared error and square of the expert's output; amax: of the inputs of gate and up, and of down. */
struct moe_expert_stats {
    int64_t tokens;
    float amax_x, amax_y;
    bool cold;
    double out_num, out_den, seconds[3];
};

/* The clipped inputs of some projections of a layer; `input` names the projections: "gate_up", "o". */
struct moe_clipped { int layer; const char *input; struct moe_clip clip; };

struct moe_layer_stats {
    int layer;
    int64_t n;                              /* experts */
    const struct moe_expert_stats *experts;
    double seconds[MOE_PHASES], flops[MOE_PHASES]; /* the last three summed over experts at work at once */
    float amax_x, amax_y;
    /* The relative distance of the states after the layer, before its experts were quantized, from the
     * source's (the key "drift"); negative: not measured. */
    double state_error;
    uint64_t bytes, peak_rss;               /* of the layer's file; of the process when it was written */
    const struct moe_clipped *clipped;      /* of this layer and of those without experts before it */
    int n_clipped;
};

/* {"layer", "tokens", "cold", "worst", "output_error", "drift", "amax_x", "amax_y", "clipped", "bytes",
 * "peak_rss", "seconds", "flops"}; NULL when out of memory.
 * worst: the ten experts with the largest output_error, [[expert, error, tokens], ...]. */
cJSON *moe_layer_note(const struct moe_layer_stats *s);

/* Of the notes of all layers: experts that saw less than a twentieth of the mean number of tokens, [[layer,
 * expert], ...].  NULL when out of memory. */
cJSON *moe_cold_experts(const cJSON *notes);

/* What an error in relative_error.layers is of: `word` ("gate") in a layer; a tensor that is in none
 * (layer < 0), by its name. */
const char *moe_error_name(int layer, const char *word, char name[128]);

/* moe-quantize's JSON object for people: a line a layer, the ten worst experts of all, ten lines of what is
 * clipped, cold experts by name.  free() it; NULL when out of memory. */
char *moe_quantize_text(const cJSON *report);
/* Recognizes a report file, as text or as JSON. */
extern const struct moe_file_kind moe_report_kind;

#endif
