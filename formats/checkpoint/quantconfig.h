/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint/quantconfig.h - which quantization the configuration of a checkpoint declares; for
 * formats/ alone. */
#ifndef MOE_FORMATS_CHECKPOINT_QUANTCONFIG_H
#define MOE_FORMATS_CHECKPOINT_QUANTCONFIG_H

#include "formats/config.h"

/* From quantization_config in the text part or at the top; MOE_SCHEME_NONE without one, MOE_UNSUPPORTED for
 * one this code cannot read. */
enum moe_code moe_quant_scheme(const cJSON *root, const cJSON *text, const char *file,
                               enum moe_scheme *scheme, struct moe_err *err);
/* From the root of hf_quant_config.json, with its fields in 'quantization' or flat.  What config.json
 * declared already (*scheme) counts, but may say less: what this file says and this code cannot read is
 * refused all the same, and so is another kind than config.json's (MOE_CORRUPT). */
enum moe_code moe_quant_scheme_modelopt(const cJSON *root, const char *file, enum moe_scheme *scheme,
                                        struct moe_err *err);

#endif
