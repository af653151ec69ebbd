/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/engine/recorder.h - counting which experts tokens go to, cheaply enough to leave
 * on: one addition a choice. */
#ifndef MOE_RUNTIME_ENGINE_RECORDER_H
#define MOE_RUNTIME_ENGINE_RECORDER_H

#include "formats/routing.h"
#include "model/forward.h"

struct moe_recorder {
    const struct moe_config *config;
    int n_layers;                  /* with experts */
    int32_t *index;                /* [layers of the model] which of them this is */
    int64_t *counts;               /* [n_layers][experts] */
    int64_t *tokens;               /* [n_layers] */
    size_t bytes;                  /* of counts and, behind it, tokens */
};

/* bytes of a recorder for this model. */
size_t moe_recorder_bytes(const struct moe_config *c);
/* From now on the pass's router is watched (moe_forward_hooks: any other observer is replaced). */
enum moe_code moe_recorder_open(struct moe_recorder **r, const struct moe_config *c, struct moe_forward *f,
                                struct moe_err *err);
/* NULL-safe; nulls; the pass is closed or watched by another */
void moe_recorder_close(struct moe_recorder **r);

/* counts (with the tokens behind them) of one recorder, or the sums of several, as routing.json
 * (docs/reference/format.md, section 9), gzipped. */
enum moe_code moe_recorder_write(const struct moe_config *c, const int64_t *counts, const char *path,
                                 struct moe_err *err);

#endif
