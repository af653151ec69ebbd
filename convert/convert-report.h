/* SPDX-License-Identifier: Apache-2.0 */
/* convert/convert-report.h - what moe-convert says besides bytes and seconds: what does not come along, and
 * what a GGUF file holds otherwise than the model. */
#ifndef MOE_CONVERT_CONVERT_REPORT_H
#define MOE_CONVERT_CONVERT_REPORT_H

#include "convert/convert-options.h"
#include "convert/export.h"
#include "convert/gguf.h"

/* Into a container: one notice for each reason why source tensors are left out.  vision: those are kept. */
void moe_convert_name_skipped(const struct moe_run *run, const struct moe_source *src, bool vision);
/* Into a container: a notice about files of a checkpoint that none keeps. */
enum moe_code moe_convert_name_files(const struct moe_run *run, const struct moe_source *src,
                                     struct moe_err *err);
/* Back to a checkpoint: a notice about tensors that the container does not have. */
void moe_convert_name_missing(const struct moe_run *run, const struct moe_export_result *got);

/* What a GGUF file does not hold as the model does, and what llama.cpp does not take from it
 * (docs/reference/gguf.md: measured). */
void moe_convert_say_gguf(const struct moe_convert_options *o, const struct moe_source *src,
                          const struct moe_gguf_result *got);
/* Adds to the report what is known of a GGUF file once every tensor was written. */
void moe_convert_add_gguf(const struct moe_source *src, const struct moe_gguf_result *got, cJSON *json);

#endif
