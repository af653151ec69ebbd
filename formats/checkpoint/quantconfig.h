/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint/quantconfig.h - which quantization the configuration of a checkpoint declares; for
 * formats/ alone. */
#ifndef MOE_FORMATS_CHECKPOINT_QUANTCONFIG_H
#define MOE_FORMATS_CHECKPOINT_QUANTCONFIG_H

#include "formats/config.h"

/* Read quantization_config from `text`, the config's part for the text model, or from its root.
 * MOE_SCHEME_NONE when there is none, MOE_UNSUPPORTED for a quantization that this code cannot read. */
enum moe_code moe_quant_scheme(const cJSON *root, const cJSON *text, const char *file,
                               enum moe_scheme *scheme, struct moe_err *err);
/* Read the root of hf_quant_config.json, whose fields are in 'quantization' or at the top.  What config.json
 * declared (*scheme on entry) takes precedence, but it may say less: a quantization that only this file
 * declares and this code cannot read is still refused, and one of another kind than config.json's is
 * MOE_CORRUPT. */
enum moe_code moe_quant_scheme_modelopt(const cJSON *root, const char *file, enum moe_scheme *scheme,
                                        struct moe_err *err);

#endif
