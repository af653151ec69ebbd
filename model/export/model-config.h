/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/model-config.h - the config that goes out with a checkpoint: it says what is
 * there, and nothing else. */
#ifndef MOE_MODEL_EXPORT_MODEL_CONFIG_H
#define MOE_MODEL_EXPORT_MODEL_CONFIG_H

#include "formats/container/container.h"

/* Tensors of the source that do not go out. */
struct moe_left_out {
    bool vision;      /* vision tower and projector: the config is the text model's */
    bool prediction;  /* layers of multi-token prediction */
    bool kv_scales;
};

/* The source's config.json without what is left out; of a container that has none, the one of its manifest.
 * The caller deletes it. left->vision is cleared when the source has no vision to leave out.  With vision
 * goes the prefix "language_model." of tensor names. */
enum moe_code moe_model_config(const struct moe_source *src, struct moe_left_out *left, cJSON **config,
                               struct moe_err *err);
/* The same for the text of a hf_quant_config.json, in place. */
enum moe_code moe_model_quant_config(const struct moe_source *src, const struct moe_left_out *left,
                                     cJSON *config, struct moe_err *err);

/* A small file that speaks of images alone: it stays behind with the vision tensors. */
bool moe_is_vision_file(const char *name);
const char *moe_vision_file(int i); /* their names; NULL after the last */

/* Write dir/name, indented. */
enum moe_code moe_export_json(const char *dir, const char *name, const cJSON *o, struct moe_err *err);

#endif
