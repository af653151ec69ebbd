/* SPDX-License-Identifier: Apache-2.0 */
/* formats/checkpoint/foreign.h - models of other families and formats, recognized by their names, and what to
 * do instead; for formats/ and moe-plan.
 *
 * All names stand in the tables of foreign.c.  What is not in them is refused by whoever finds that it does
 * not fit. */
#ifndef MOE_FORMATS_CHECKPOINT_FOREIGN_H
#define MOE_FORMATS_CHECKPOINT_FOREIGN_H

#include "base/err.h"
#include "base/json.h"

/* The error for a config.json that names another architecture than ours: always MOE_UNSUPPORTED.  arch may be
 * NULL, where it names none, and then `type` says which model it is. */
enum moe_code moe_foreign_architecture(const char *arch, const char *type, const char *file,
                                       struct moe_err *err);
/* A config of one of our architectures: MOE_UNSUPPORTED when `text`, its part for text, is of another family
 * (type) or has what only another has. */
enum moe_code moe_foreign_config(const cJSON *text, const char *type, const char *file, struct moe_err *err);
/* What is wrong with a tensor that is none of ours, where its name is known from another layout (MLX); else
 * NULL. */
const char *moe_foreign_tensor(const char *name);
/* The name of a quantization that is not read, by its quant_method; NULL: none that is known. */
const char *moe_foreign_quantization(const char *method);

/* What lies at `path`, where a model's directory was wanted: MOE_UNSUPPORTED with its format and what to do;
 * MOE_OK when it is nothing that is known.  A directory is told by its files. */
enum moe_code moe_foreign_path(const char *path, struct moe_err *err);

#endif
