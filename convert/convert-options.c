/* SPDX-License-Identifier: Apache-2.0 */
/* The option table of moe-convert, and its checks. */
#include "convert/convert-options.h"

#include "base/newdir.h"
#include "convert/convert-man.h"
#include "convert/gguf.h"

#include <string.h>

/* ---- the table ---- */

struct moe_convert_args moe_convert_asked = {
    .to = "source",
    .keep_vision = true,
    .outtype = "auto",
    .shard_size = MOE_UNSET,
};

static const struct moe_opt opts[] = {
    MOE_GROUP("output"),
    MOE_STR('o', "output", &moe_convert_asked.out, "PATH",
            "write the container NAME.moe, the checkpoint directory or FILE.gguf here"),
    MOE_STR(0, "to", &moe_convert_asked.to, "source|nvfp4|hf|hf-nvfp4|gguf",
            "a container in source precision, one quantized without data in the same pass, the "
            "checkpoint again, one in NVFP4 for other engines, or a GGUF file"),
    MOE_STR(0, "flavor", &moe_convert_asked.flavor, "modelopt|compressed-tensors",
            "whose spelling --to hf-nvfp4 writes; modelopt by default"),
    MOE_SIZE(0, "shard-size", &moe_convert_asked.shard_size, "SIZE",
             "cut --to hf-nvfp4 into files of at most this; 5 GB by default"),
    MOE_STR(0, "outtype", &moe_convert_asked.outtype, "auto|q6_k|bf16|f32",
            "with --to gguf: decode packed weights to this; auto keeps NVFP4 where llama.cpp takes it, "
            "and INT4 as Q4_0; q6_k: without NVFP4"),
    MOE_BOOL(0, "keep-vision", &moe_convert_asked.keep_vision,
             "a container in source precision keeps the vision tensors, and --to hf brings them back "
             "(the default); --no-keep-vision: the text model alone"),
    MOE_BOOL(
        0, "merge", &moe_convert_asked.merge,
        "put the parts that moe-quantize --layers wrote together: the bytes of one run over all layers"),
    MOE_BOOL(0, "mix-kernels", &moe_convert_asked.mix_kernels,
             "with --merge: take parts that different kernels calibrated (MOE_CPU=ref and others), "
             "though no single run gives these bytes"),
    MOE_WRITER_OPTIONS(&moe_convert_asked),
    MOE_COMMON_OPTIONS(&moe_convert_asked.run),
    MOE_END(),
};

const struct moe_tool moe_convert_tool = {
    .name = "moe-convert",
    .synopsis = "[options] MODEL -o PATH\n       moe-convert --merge PART.moe... -o NAME.moe",
    .about = "convert a checkpoint to an expert-sharded container, and back",
    .opts = opts,
    .description = moe_convert_description,
    .examples = moe_convert_examples,
    .json = moe_convert_json,
};

/* ---- the checks ---- */

enum moe_code moe_convert_args_check(struct moe_convert_args *o, struct moe_err *err)
{
    static const char *const known[] = { "source", "nvfp4", "hf", "hf-nvfp4", "gguf" };
    bool ok = false, hf_nvfp4 = !strcmp(o->to, "hf-nvfp4");
    for (int i = 0; i < 5; i++) ok |= !strcmp(o->to, known[i]);
    if (!ok)
        return moe_fail(err, MOE_USAGE, "unknown --to '%s' (source, nvfp4, hf, hf-nvfp4 or gguf)", o->to);
    if (moe_outtype_find(o->outtype) < 0)
        return moe_fail(err, MOE_USAGE, "unknown --outtype '%s' (auto, q6_k, bf16 or f32)", o->outtype);
    MOE_TRY(moe_hf_options_init(o->flavor, hf_nvfp4 ? o->shard_size : MOE_UNSET,
                                moe_write_mode_of(o->force, o->resume), &o->nvfp4, err));
    o->nvfp4.dry_run = o->dry_run;
    o->nvfp4.cancel = o->run.cancel;
    if (!hf_nvfp4 && (o->flavor || o->shard_size != MOE_UNSET))
        return moe_fail(err, MOE_USAGE, "--flavor and --shard-size go with --to hf-nvfp4");
    if (o->resume && o->force) return moe_fail(err, MOE_USAGE, "--resume and --force exclude each other");
    if (!o->merge) MOE_TRY(moe_check_model_operand(&o->run, err));
    if (!o->out && !o->dry_run) return moe_fail(err, MOE_USAGE, "where to? (-o PATH)");
    if (o->merge && strcmp(o->to, "source"))
        return moe_fail(err, MOE_USAGE,
                        "--merge writes a container (merge without --to, then convert the result)");
    if (o->mix_kernels && !o->merge) return moe_fail(err, MOE_USAGE, "--mix-kernels goes with --merge");
    if (o->merge && !o->run.argc) return moe_fail(err, MOE_USAGE, "want the parts of a model");
    return MOE_OK;
}
