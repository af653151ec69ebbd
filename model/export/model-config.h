/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/model-config.h - the config.json that is written with a checkpoint: it describes what the
 * checkpoint holds, and nothing that was left out. */
#ifndef MOE_MODEL_EXPORT_MODEL_CONFIG_H
#define MOE_MODEL_EXPORT_MODEL_CONFIG_H

#include "formats/container/container.h"

/* Tensors of the source that are not written. */
struct moe_left_out {
    bool vision;      /* vision tower and projector: the config becomes that of the text model */
    bool prediction;  /* layers of multi-token prediction */
    bool kv_scales;   /* scales of a quantized KV cache */
};

/* *config: the container's config.json, or the one of its manifest when it has none, without what is left
 * out; the caller deletes it.  left->vision is cleared when the source has no vision to leave out.  When
 * vision is left out, "language_model." disappears from the names of modules. */
enum moe_code moe_model_config(const struct moe_source *src, struct moe_left_out *left, cJSON **config,
                               struct moe_err *err);
/* Does the same, in place, to the content `config` of a hf_quant_config.json. */
enum moe_code moe_model_quant_config(const struct moe_source *src, const struct moe_left_out *left,
                                     cJSON *config, struct moe_err *err);

/* Whether a small file configures the processing of images; it is left out with the vision tensors. */
bool moe_is_vision_file(const char *name);
const char *moe_vision_file(int i); /* the names of such files; NULL after the last */

/* Writes o to dir/name, indented. */
enum moe_code moe_export_json(const char *dir, const char *name, const cJSON *o, struct moe_err *err);

#endif
