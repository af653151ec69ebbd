/* SPDX-License-Identifier: Apache-2.0 */
/* quantize/quantize-tell.h - what moe-quantize says of a quantization: notices, warnings, keys of its JSON,
 * and the files of --report. */
#ifndef MOE_QUANTIZE_QUANTIZE_TELL_H
#define MOE_QUANTIZE_QUANTIZE_TELL_H

#include "base/cli/tool.h"
#include "quantize/quantize.h"

/* What of a calibration's text was not used, and why. */
void moe_tell_text(const struct moe_run *run, const struct moe_quantizing *z);
/* Why the text of an estimate could not be counted. */
void moe_tell_uncounted(const struct moe_run *run, const struct moe_quantizing *z, const struct moe_err *why);
void moe_report_estimate(const struct moe_run *run, cJSON *json, const struct moe_quantizing *z,
                         const struct moe_quantize_estimate *e);
/* Of a run that succeeded; its trees go into json. */
enum moe_code moe_report_quantized(const struct moe_run *run, cJSON *json, const struct moe_quantizing *z,
                                   struct moe_quantize_result *q, struct moe_err *err);
/* The report at `path`: as text where it ends in .txt, else as JSON.  Replaces a report alone. */
enum moe_code moe_write_report(const char *path, const cJSON *json, struct moe_err *err);

#endif
