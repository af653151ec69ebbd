/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/quantize-tell.h - moe-quantize's output about a quantization: notices and warnings (moe_tell_...),
 * the same with keys of its JSON object (moe_report_...), and the files of --report. */
#ifndef MOE_QUANTIZE_QUANTIZE_TELL_H
#define MOE_QUANTIZE_QUANTIZE_TELL_H

#include "base/cli/tool.h"
#include "quantize/quantize.h"

/* Says what of a calibration's text was not used, and why. */
void moe_tell_text(const struct moe_tool_run *run, const struct moe_quantizing *z);
/* Warns that the tokens of an estimate's text could not be counted, and why. */
void moe_tell_uncounted(const struct moe_tool_run *run, const struct moe_quantizing *z,
                        const struct moe_err *why);
/* Reports an estimate. */
void moe_report_estimate(const struct moe_tool_run *run, cJSON *json, const struct moe_quantizing *z,
                         const struct moe_quantize_estimate *e);
/* Reports a run that succeeded.  The JSON trees of q become json's, on failure as well. */
enum moe_code moe_report_quantized(const struct moe_tool_run *run, cJSON *json,
                                   const struct moe_quantizing *z, struct moe_quantize_result *q,
                                   struct moe_err *err);
/* Writes the report to `path`: as text if it ends in .txt, else as JSON.  It replaces an older report, but no
 * other file. */
enum moe_code moe_write_report(const char *path, const cJSON *json, struct moe_err *err);

#endif
