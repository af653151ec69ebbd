/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint/foreign.h - models that are not read, told by their names, and what to do instead;
 * for formats/ and moe-plan.
 *
 * All names lie in formats/checkpoint/foreign.c's tables.  Whatever is not in them is
 * refused where it does not fit. */
#ifndef MOE_FORMATS_CHECKPOINT_FOREIGN_H
#define MOE_FORMATS_CHECKPOINT_FOREIGN_H

#include "base/err.h"
#include "base/json.h"

/* config.json names another architecture than ours, `arch` (NULL: it names none) or `type`: MOE_UNSUPPORTED,
 * always. */
enum moe_code moe_foreign_architecture(const char *arch, const char *type, const char *file,
                                       struct moe_err *err);
/* A config of one of our architectures: MOE_UNSUPPORTED when `text`, its part for text, is of another family
 * (type) or has what only another has. */
enum moe_code moe_foreign_config(const cJSON *text, const char *type, const char *file, struct moe_err *err);
/* What is wrong with a tensor that is none of ours but of a layout that is known by its
 * names (MLX); NULL: it is not. */
const char *moe_foreign_tensor(const char *name);
/* The name of a quantization that is not read, by its quant_method; NULL: none that is known. */
const char *moe_foreign_quantization(const char *method);

/* What lies at `path`, where a model's directory was wanted: MOE_UNSUPPORTED with its format and what to do;
 * MOE_OK when it is nothing that is known.  A directory is told by its files. */
enum moe_code moe_foreign_path(const char *path, struct moe_err *err);

#endif
