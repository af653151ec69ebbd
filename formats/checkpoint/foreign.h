/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint/foreign.h - recognizes models of other families and formats by their names and says what
 * to do instead; for formats/ and moe-plan.
 *
 * All names are in the tables of foreign.c.  A model that is not in them is refused, too, by the reader that
 * meets the first thing it cannot read. */
#ifndef MOE_FORMATS_CHECKPOINT_FOREIGN_H
#define MOE_FORMATS_CHECKPOINT_FOREIGN_H

#include "base/err.h"
#include "base/json.h"

/* Fill in the error for a config.json whose architecture is not supported; returns MOE_UNSUPPORTED always.
 * arch: the class that the config names; NULL when it names none, and then `type`, its model_type, says which
 * model it is. */
enum moe_code moe_foreign_architecture(const char *arch, const char *type, const char *file,
                                       struct moe_err *err);
/* Check a config whose architecture is supported: MOE_UNSUPPORTED when `text`, its part for the text model,
 * is of another family (by `type`, its model_type) or has a feature of another family. */
enum moe_code moe_foreign_config(const cJSON *text, const char *type, const char *file, struct moe_err *err);
/* What is wrong with a tensor whose name belongs to another layout (MLX) or to a quantization that is not
 * supported; NULL for any other name. */
const char *moe_foreign_tensor(const char *name);
/* The name of a quantization method that is not supported, by its quant_method; NULL when it is not known
 * either. */
const char *moe_foreign_quantization(const char *method);

/* Look at a path where a model's directory was expected: MOE_UNSUPPORTED with the format that was found there
 * and what to do; MOE_OK when nothing known is there.  A directory is recognized by the files in it. */
enum moe_code moe_foreign_path(const char *path, struct moe_err *err);

#endif
