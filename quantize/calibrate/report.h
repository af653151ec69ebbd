/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/calibrate/report.h - the report of a calibration: a note (a JSON object) on each layer, made while
 * it runs, and the whole report as text. */
#ifndef MOE_QUANTIZE_CALIBRATE_REPORT_H
#define MOE_QUANTIZE_CALIBRATE_REPORT_H

#include "base/json.h"
#include "base/file-kind.h"
#include "formats/config.h"
#include "formats/routing.h"
#include "quantize/rounding/clip.h"

#include <stdbool.h>

/* What seconds and operations are counted by. */
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

/* One expert.  amax_x and amax_y: the largest magnitudes of the inputs of gate and up, and of down; out_num
 * and out_den: squared error and square of its output; seconds: in the last three phases. */
struct moe_expert_stats {
    int64_t tokens;
    float amax_x, amax_y;
    bool cold;
    double out_num, out_den, seconds[3];
};

/* The count of clipped inputs of some projections of a layer; `input` names the projections: "gate_up",
 * "o". */
struct moe_clipped { int layer; const char *input; struct moe_clip clip; };

struct moe_layer_stats {
    int layer;
    int64_t n;                              /* experts */
    const struct moe_expert_stats *experts; /* [n] */
    /* By phase; the last three are summed over the experts, of which several are at work at once. */
    double seconds[MOE_PHASES], flops[MOE_PHASES];
    float amax_x, amax_y;                   /* the largest over the experts */
    /* The relative distance of the states after the layer, before its experts were quantized, from the
     * source's (the key "drift"); negative: not measured. */
    double state_error;
    uint64_t bytes, peak_rss;               /* of the layer's file; of the process when it was written */
    const struct moe_clipped *clipped;      /* of this layer and of those without experts before it */
    int n_clipped;
};

/* A layer's note: {"layer", "tokens", "cold", "worst", "output_error", "drift", "amax_x", "amax_y",
 * "clipped", "bytes", "peak_rss", "seconds", "flops"}, as docs/reference/quantization.md explains them.
 * "worst" lists the ten experts with the largest output_error: [[expert, error, tokens], ...].  The caller
 * deletes it; NULL when out of memory. */
cJSON *moe_layer_note(const struct moe_layer_stats *s);

/* Checks the notes of all layers, some of which an earlier run may have left in the journals of its units in
 * the directory `path`: whether each has a layer of the model, the tokens of all experts, and well-formed
 * lists.  MOE_CORRUPT names `path`.  The functions below want notes that have passed. */
enum moe_code moe_notes_check(const cJSON *notes, const struct moe_config *c, const char *path,
                              struct moe_err *err);

/* *r: how many of the `tokens` calibration tokens went to each expert of the layers that have a note; the
 * caller frees it.  Nothing is owned on failure. */
enum moe_code moe_notes_routing(const cJSON *notes, const struct moe_config *c, int64_t tokens,
                                struct moe_routing **r, struct moe_err *err);

/* Lists, from the notes of all layers, the experts that saw less than a twentieth of the mean number of
 * tokens: [[layer, expert], ...].  The caller deletes it; NULL when out of memory. */
cJSON *moe_cold_experts(const cJSON *notes);

/* The name under which people see a key of relative_error.layers: the key itself (`word`, such as "gate") in
 * a layer; where layer < 0, the name of the tensor outside of the layers, made in name[]. */
const char *moe_error_name(int layer, const char *word, char name[128]);

/* moe-quantize's JSON object as text for people: a line for each layer, the ten experts with the largest
 * output error, the ten inputs of which most is clipped, and the cold experts.  The caller frees it; NULL
 * when out of memory. */
char *moe_quantize_text(const cJSON *report);
/* Recognizes a report file, as text or as JSON. */
extern const struct moe_file_kind moe_report_kind;

#endif
