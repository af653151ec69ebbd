/* SPDX-License-Identifier: Apache-2.0 */
/* The export of a container: its options, its memory, and its steps. */
#include "model/export/hf-nvfp4.h"

#include "base/io.h"
#include "model/export/export-dir.h"
#include "model/export/hf-internal.h"

#include <stdio.h>

enum moe_code moe_hf_options_init(const char *flavor, int64_t shard_size, enum moe_write_mode mode,
                                  struct moe_hf_options *o, struct moe_err *err)
{
    int which = flavor ? moe_hf_flavor_find(flavor) : MOE_HF_MODELOPT;
    if (which < 0)
        return moe_fail(err, MOE_USAGE, "unknown --flavor '%s' (modelopt or compressed-tensors)", flavor);
    if (shard_size >= 0 && shard_size < MOE_HF_SHARD_MIN)
        return moe_fail(err, MOE_USAGE, "--shard-size is at least 64K");
    *o = (struct moe_hf_options){ .flavor = (enum moe_hf_flavor)which, .mode = mode,
                                  .shard_bytes = shard_size < 0 ? MOE_HF_SHARD_BYTES
                                                                         : (uint64_t)shard_size };
    return MOE_OK;
}

const char *moe_hf_options_words(const struct moe_hf_options *o, char out[64])
{
    snprintf(out, 64, "hf-nvfp4 %s %llu", moe_hf_flavor_name(o->flavor), (unsigned long long)o->shard_bytes);
    return out;
}

uint64_t moe_hf_names_memory(const struct moe_hf_plan *p)
{
    return (uint64_t)p->n * (p->n_shards > 1 ? 400 : 280);
}

enum moe_code moe_hf_write_all(const struct moe_hf_plan *p, const struct moe_hf_layout *layout,
                               const char *dir,
                               struct moe_progress *progress, struct moe_hf_result *r, struct moe_err *err)
{
    static const char *const replaced[] = { "config.json", "hf_quant_config.json", NULL };
    MOE_TRY(moe_hf_write_configs(p, dir, r, err));
    MOE_TRY(moe_export_small_files(p->src, dir, replaced, !r->text_only, err));
    return moe_hf_write_shards(p, layout, dir, progress, r, err);
}

static enum moe_code export_all(const struct moe_hf_plan *p, const char *out, const struct moe_hf_options *o,
                                struct moe_progress *progress, struct moe_hf_result *r, struct moe_err *err)
{
    struct moe_newdir d;
    char options[64];
    const struct moe_export_dir e = { .src = p->src, .options = moe_hf_options_words(o, options),
                                      .mode = o->mode, .proof = MOE_PROOF_PRODUCER,
                                      .cancel = o->cancel };
    MOE_TRY(moe_export_dir_begin(&d, &e, out, err));
    r->was_done = d.whole;
    if (d.whole) return moe_export_dir_end(&d, &e, MOE_OK, err);
    enum moe_code code = moe_need_space(d.path, r->output_bytes + (1 << 20), out, err);
    moe_progress_begin(progress, "export", r->output_bytes, MOE_UNIT_BYTES);
    if (code == MOE_OK) code = moe_hf_write_all(p, NULL, d.path, progress, r, err);
    moe_progress_end(progress);
    return moe_export_dir_end(&d, &e, code, err);
}

/* The memory of an export: what the process has now, a chunk in all its forms, and the names. */
static uint64_t memory(const struct moe_hf_plan *p)
{
    return moe_peak_rss() + (16 << 20) + moe_hf_names_memory(p);
}

enum moe_code moe_export_hf_nvfp4(const struct moe_source *src, const char *out,
                                  const struct moe_hf_options *o, struct moe_progress *progress,
                                  struct moe_hf_result *r, struct moe_err *err)
{
    struct moe_hf_plan p;

    *r = (struct moe_hf_result){ 0 };
    if (src->kind != MOE_CONTAINER)
        return moe_fail_at(err, MOE_UNSUPPORTED, src->path, NULL,
                           "is a checkpoint, and --to hf-nvfp4 of this tool wants a quantized container "
                           "(from a checkpoint: moe-quantize %s --to hf-nvfp4 -o DIR)", src->path);
    MOE_CHECK(o->shard_bytes >= MOE_HF_SHARD_MIN);
    MOE_TRY(moe_hf_plan_open(&p, src, o, r, err));
    r->input_bytes = src->container->bytes;
    r->memory_bytes = memory(&p);
    enum moe_code code = o->dry_run ? MOE_OK : export_all(&p, out, o, progress, r, err);
    moe_hf_plan_release(&p);
    return code;
}
