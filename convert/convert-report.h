/* SPDX-License-Identifier: Apache-2.0 */
/* convert/convert-report.h - what moe-convert reports besides bytes and seconds: what is left out of the
 * output, and where a GGUF file differs from the model. */
#ifndef MOE_CONVERT_CONVERT_REPORT_H
#define MOE_CONVERT_CONVERT_REPORT_H

#include "convert/convert-options.h"
#include "convert/export.h"
#include "convert/gguf.h"

/* When a container is written: a notice for each reason why source tensors are left out.  vision: vision
 * tensors are kept. */
void moe_convert_name_skipped(const struct moe_tool_run *run, const struct moe_source *src, bool vision);
/* When a container is written: a notice about files of the checkpoint that it does not keep. */
enum moe_code moe_convert_name_files(const struct moe_tool_run *run, const struct moe_source *src,
                                     struct moe_err *err);
/* When a checkpoint is written: a notice about tensors of the source that the container does not have. */
void moe_convert_name_missing(const struct moe_tool_run *run, const struct moe_export_result *got);

/* Tells where a GGUF file does not hold exactly what the model holds, and what llama.cpp does not read from
 * it (measurements are in docs/reference/gguf.md). */
void moe_convert_say_gguf(const struct moe_convert_args *o, const struct moe_source *src,
                          const struct moe_gguf_result *got);
/* Adds to the JSON what is known about a GGUF file after all its tensors were written. */
void moe_convert_add_gguf(const struct moe_source *src, const struct moe_gguf_result *got, cJSON *json);

#endif
