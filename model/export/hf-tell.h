/* SPDX-License-Identifier: Apache-2.0 */
/* model/export/hf-tell.h - what a tool reports about an NVFP4 checkpoint that it wrote: notices, warnings and
 * keys of its JSON. */
#ifndef MOE_MODEL_EXPORT_HF_TELL_H
#define MOE_MODEL_EXPORT_HF_TELL_H

#include "base/notes.h"
#include "model/export/hf-nvfp4.h"

/* Tells where the checkpoint differs from the container, and which engines are known to fail with it. */
void moe_hf_tell(const struct moe_notes *to, enum moe_hf_flavor flavor, const struct moe_hf_result *got);
/* Adds the keys flavor, files, weights_nvfp4, weights_uncalibrated, weights_decoded and
 * weights_requantized. */
void moe_hf_report(cJSON *json, enum moe_hf_flavor flavor, const struct moe_hf_result *got);

#endif
