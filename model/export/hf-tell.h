/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/hf-tell.h - what a tool says of an NVFP4 checkpoint that it wrote: notices,
 * warnings, keys of its JSON. */
#ifndef MOE_MODEL_EXPORT_HF_TELL_H
#define MOE_MODEL_EXPORT_HF_TELL_H

#include "base/notes.h"
#include "model/export/hf-nvfp4.h"

/* What is in the checkpoint and is not what was in the container, and which engines
 * are known to err with it. */
void moe_hf_tell(const struct moe_notes *to, enum moe_hf_flavor flavor, const struct moe_hf_result *got);
/* flavor, files, weights_nvfp4, weights_uncalibrated, weights_decoded, weights_requantized. */
void moe_hf_report(cJSON *json, enum moe_hf_flavor flavor, const struct moe_hf_result *got);

#endif
