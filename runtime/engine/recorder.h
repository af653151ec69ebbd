/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/recorder.h - counts how many tokens the router sends to each expert.  It costs one addition
 * a choice. */
#ifndef MOE_RUNTIME_ENGINE_RECORDER_H
#define MOE_RUNTIME_ENGINE_RECORDER_H

#include "formats/routing.h"
#include "model/forward.h"

struct moe_recorder {
    const struct moe_config *config;
    int n_layers;                  /* MoE layers */
    int32_t *index;                /* [layers of the model] the index of a layer among the MoE layers */
    int64_t *counts;               /* [n_layers][experts] tokens that chose each expert */
    int64_t *tokens;               /* [n_layers] tokens that passed the layer; in memory behind counts */
    size_t bytes;                  /* of counts and tokens together (moe_recorder_bytes) */
};

/* How many bytes counts and tokens take together for this model. */
size_t moe_recorder_bytes(const struct moe_config *c);
/* Counts from now on what the router of f chooses, by moe_forward_hooks: other hooks of f are replaced.
 * MOE_UNSUPPORTED for a model without MoE layers, MOE_NOMEM; *r is then NULL. */
enum moe_code moe_recorder_open(struct moe_recorder **r, const struct moe_config *c, struct moe_forward *f,
                                struct moe_err *err);
/* NULL-safe; nulls.  Before this, f must have been closed or have been given other hooks. */
void moe_recorder_close(struct moe_recorder **r);

/* Writes counts, with tokens behind them as in struct moe_recorder, as a gzipped routing.json
 * (docs/reference/format.md, section 9).  They may be the sums of several recorders. */
enum moe_code moe_recorder_write(const struct moe_config *c, const int64_t *counts, const char *path,
                                 struct moe_err *err);

#endif
