/* SPDX-License-Identifier: Apache-2.0 */
/* Notices and warnings about an NVFP4 checkpoint, and its keys in a tool's JSON. */
#include "model/export/hf-tell.h"

/* Warns of engines that are known to misread the checkpoint (docs/reference/export.md names the versions that
 * were examined). */
static void tell_readers(const struct moe_notes *to, const struct moe_hf_result *got,
                         enum moe_hf_flavor flavor)
{
    if (flavor == MOE_HF_COMPRESSED_TENSORS) {
        moe_note_warn(to,
                      "transformers leaves weight_global_scale out of its sums and then runs another model "
                      "(serve this flavor with vLLM)");
        moe_note_warn(to,
                      "TensorRT-LLM does not read this flavor (write it --flavor modelopt, calibrated)");
        return;
    }
    if (got->weight_only) {
        moe_note_warn(to,
                      "TensorRT-LLM reads W4A16_NVFP4 on SM120 alone, and not before August 2026 (calibrate "
                      "the model for it: moe-quantize --calib)");
        moe_note_warn(to, "SGLang runs the experts of a W4A16_NVFP4 checkpoint with quantized activations "
                           "unless it is started with --moe-runner-backend marlin");
    }
    if (got->partly_excluded)
        moe_note_warn(to,
                      "SGLang takes '%s' for excluded in every layer and fails on the others (quantize this "
                      "projection in all layers or in none)", got->first_partly_excluded);
}

static void tell_decoded(const struct moe_notes *to, const struct moe_hf_decoded *d, const char *why)
{
    if (d->n)
        moe_note(to, "%lld tensor%s written as bf16, '%s' (%s) the first: %s", (long long)d->n,
                 d->n == 1 ? " is" : "s are", d->first,
                 d->type, why);
}

/* Tells where the checkpoint differs from the container. */
static void tell_differences(const struct moe_notes *to, const struct moe_hf_result *got)
{
    if (got->weight_only)
        moe_note(to,
                 "nothing was calibrated: the checkpoint is weight-only (W4A16) and has no input scales");
    else if (got->uncalibrated)
        moe_note_warn(to, "%lld of %lld NVFP4 weights have no calibrated input scale: theirs is 1.0",
                      (long long)got->uncalibrated, (long long)got->nvfp4);
    tell_decoded(to, &got->kv_b, "engines take it apart for absorbed attention");
    tell_decoded(to, &got->decoded, "engines read no other type beside NVFP4");
    if (got->reencoded)
        moe_note_warn(to,
                      got->reencoded == 1 ? "%lld weight had another global scale than the one that engines "
                                            "fuse it with and is quantized again, relative error %.3g"
                                          : "%lld weights had another global scale than the one that engines "
                                            "fuse them with and are quantized again, relative error %.3g",
                      (long long)got->reencoded, got->relative_error);
    if (got->text_only) moe_note(to, "only the text model is written");
}

void moe_hf_tell(const struct moe_notes *to, enum moe_hf_flavor flavor, const struct moe_hf_result *got)
{
    tell_differences(to, got);
    tell_readers(to, got, flavor);
}

void moe_hf_report(cJSON *json, enum moe_hf_flavor flavor, const struct moe_hf_result *got)
{
    moe_json_add_str(json, "flavor", moe_hf_flavor_name(flavor));
    moe_json_add_i64(json, "files", got->files);
    moe_json_add_i64(json, "weights_nvfp4", got->nvfp4);
    moe_json_add_i64(json, "weights_uncalibrated", got->uncalibrated);
    moe_json_add_i64(json, "weights_decoded", got->decoded.n + got->kv_b.n);
    moe_json_add_i64(json, "weights_requantized", got->reencoded);
}
