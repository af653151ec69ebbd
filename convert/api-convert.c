/* SPDX-License-Identifier: Apache-2.0 */
/* The functions of include/moe/convert.h, which call the same parts as moe-convert. */
#include "base/api.h"
#include "convert/export.h"
#include "convert/gguf.h"
#include "formats/container/identity.h"
#include "model/rewrite/check.h"
#include "model/rewrite/rewrite.h"

#include <moe/convert.h>

#include <string.h>

/* One conversion: its options, where it writes, and its result. */
struct job {
    const struct moe_convert_options *o;
    const char *output;
    enum moe_write_mode mode;
    struct moe_pool *pool;
    struct moe_progress *progress;
    struct moe_written done;
};

static enum moe_code to_container(struct job *j, const struct moe_source *src, struct moe_err *err)
{
    const struct moe_rewrite_options r = { .scope = MOE_SCOPE_NONE, .rest = true, .vision = true,
                                           .memory = j->o->memory, .cancel = j->o->cancel };
    struct moe_rewrite_result got;

    MOE_TRY(moe_check_vocabulary(src, err));
    MOE_TRY(moe_rewrite(src, j->output, j->mode, &r, j->pool, j->progress, &got, err));
    moe_rewrite_result_release(&got);
    j->done = (struct moe_written){ .input_bytes = got.input_bytes, .output_bytes = got.output_bytes,
                                    .tensors = got.tensors, .was_done = got.was_done };
    return MOE_OK;
}

static enum moe_code to_hf(struct job *j, const struct moe_source *src, struct moe_err *err)
{
    const struct moe_export_options x = { .mode = j->mode, .vision = true, .cancel = j->o->cancel };
    struct moe_export_result got;

    MOE_TRY(moe_export_hf(src, j->output, &x, j->progress, &got, err));
    j->done = (struct moe_written){ .input_bytes = got.input_bytes, .output_bytes = got.output_bytes,
                                    .tensors = got.tensors, .was_done = got.was_done };
    return MOE_OK;
}

static enum moe_code to_gguf(struct job *j, const struct moe_source *src, struct moe_err *err)
{
    const struct moe_gguf_options x = { .mode = j->mode, .outtype = MOE_OUT_AUTO, .memory = j->o->memory,
                                        .cancel = j->o->cancel };
    struct moe_gguf_result got;

    MOE_TRY(moe_export_gguf(src, j->output, &x, j->pool, j->progress, &got, err));
    j->done = (struct moe_written){ .input_bytes = got.input_bytes, .output_bytes = got.output_bytes,
                                    .tensors = got.tensors, .was_done = got.was_done };
    return MOE_OK;
}

typedef enum moe_code (*conversion)(struct job *j, const struct moe_source *src, struct moe_err *err);

static enum moe_code find(conversion *c, const char *to, struct moe_err *err)
{
    static const struct { const char *word; conversion run; } all[] = { { "source", to_container },
                                                                        { "hf", to_hf },
                                                                        { "gguf", to_gguf } };

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!strcmp(to ? to : "source", all[i].word)) return *c = all[i].run, MOE_OK;
    return moe_fail(err, MOE_USAGE, "no conversion to '%s' (source, hf or gguf)", to);
}

enum moe_code moe_convert_model(const char *source, const char *output,
                                const struct moe_convert_options *options, struct moe_written *w,
                                struct moe_err *err)
{
    struct moe_convert_options o;
    struct moe_source *src = NULL;
    conversion run = NULL;

    MOE_API_ERR(err);
    MOE_TRY(moe_api_given(source, "source", err));
    MOE_TRY(moe_api_given(output, "output", err));
    MOE_TRY(moe_api_options(&o, sizeof o, options, "moe_convert_options", err));
    if (w) MOE_TRY(moe_api_result_check(w, "moe_written", err));
    MOE_TRY(find(&run, o.to, err));
    if (o.resume && o.force) return moe_fail(err, MOE_USAGE, "resume and force exclude each other");
    struct job j = { .o = &o, .output = output, .mode = moe_write_mode_of(o.force, o.resume) };
    MOE_TRY(moe_api_pool(&j.pool, o.threads, err));
    struct moe_api_progress progress;
    j.progress = moe_api_progress_init(&progress, o.progress, o.ctx);
    enum moe_code code = moe_source_open(&src, source, err);
    if (code == MOE_OK) code = moe_source_blame_change(src, run(&j, src, err), err);
    moe_api_progress_release(&progress);
    moe_source_close(&src);
    moe_pool_close(&j.pool);
    if (code == MOE_OK && w) moe_api_result(w, &j.done, sizeof j.done);
    return moe_api_end(code, err);
}
