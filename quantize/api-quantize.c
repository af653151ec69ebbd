/* SPDX-License-Identifier: Apache-2.0 */
/* Implements include/moe/quantize.h with the parts that moe-quantize is made of. */
#include "base/api.h"
#include "quantize/quantize.h"

#include <moe/quantize.h>

#include <inttypes.h>

/* One call of the API: the caller's options and what was made of them. */
struct job {
    struct moe_quantize_options o;
    struct moe_quantize_request ask;
    struct moe_quantizing z;
    struct moe_pool *pool;
};

static struct moe_quantize_request request(const struct moe_quantize_options *o, const char *output)
{
    struct moe_quantize_request q = MOE_QUANTIZE_REQUEST;

    q.out = output;
    q.estimate = !output;
    q.resume = o->resume;
    q.force = o->force;
    q.memory = moe_api_i64(o->memory);
    if (o->method) q.method = o->method;
    if (o->what) q.scope = o->what;
    if (o->effort) q.effort = o->effort;
    q.calib = o->calib;
    q.n_calib = o->n_calib;
    if (o->calib_tokens) q.calib_tokens = o->calib_tokens;
    if (o->sequence_length) q.sequence = o->sequence_length;
    q.seed = (int64_t)o->seed;
    q.scratch = o->scratch;
    q.cancel = o->cancel;
    return q;
}

/* Does what both calls begin with; output NULL: an estimate.  *j must be closed, after a failure as well. */
static enum moe_code open_job(struct job *j, const char *source, const char *output,
                              const struct moe_quantize_options *options, struct moe_err *err)
{
    *j = (struct job){ .pool = NULL };
    MOE_TRY(moe_api_given(source, "source", err));
    MOE_TRY(moe_api_options(&j->o, sizeof j->o, options, "moe_quantize_options", err));
    MOE_TRY(moe_api_files(j->o.calib, j->o.n_calib, "calib", err));
    if (j->o.seed > MOE_QUANTIZE_SEED_MAX)
        return moe_fail(err, MOE_USAGE, "seed %" PRIu64 ": want at most %lld", j->o.seed,
                        (long long)MOE_QUANTIZE_SEED_MAX);
    j->ask = request(&j->o, output);
    MOE_TRY(moe_quantizing_begin(&j->z, &j->ask, err));
    MOE_TRY(moe_api_pool(&j->pool, j->o.threads, err));
    MOE_TRY(moe_quantizing_open(&j->z, source, err));
    return moe_quantizing_check(&j->z, err);
}

static void close_job(struct job *j)
{
    moe_quantizing_close(&j->z);
    moe_pool_close(&j->pool);
}

static enum moe_code quantize(struct job *j, struct moe_written *w, struct moe_err *err)
{
    struct moe_quantize_result got;
    struct moe_api_progress progress;

    MOE_TRY(moe_quantizing_read_text(&j->z, err));
    struct moe_progress *told = moe_api_progress_init(&progress, j->o.progress, j->o.ctx);
    enum moe_code code = moe_quantizing_run(&j->z, &got, j->pool, told, err);
    moe_api_progress_release(&progress);
    MOE_TRY(code);
    const struct moe_written done = { .input_bytes = got.rewrite.input_bytes,
                                      .output_bytes = got.rewrite.output_bytes,
                                      .tensors = got.rewrite.tensors,
                                      .weights_quantized = got.rewrite.weights_quantized,
                                      .was_done = got.rewrite.was_done };
    moe_rewrite_result_release(&got.rewrite);
    if (w) moe_api_result(w, &done, sizeof done);
    return MOE_OK;
}

enum moe_code moe_quantize_model(const char *source, const char *output,
                                 const struct moe_quantize_options *options, struct moe_written *w,
                                 struct moe_err *err)
{
    struct job j;

    MOE_API_ERR(err);
    MOE_TRY(moe_api_given(output, "output", err));
    if (w) MOE_TRY(moe_api_result_check(w, "moe_written", err));
    enum moe_code code = open_job(&j, source, output, options, err);
    if (code == MOE_OK) code = quantize(&j, w, err);
    close_job(&j);
    return moe_api_end(code, err);
}

static enum moe_code estimate(struct job *j, struct moe_quantize_needs *n, struct moe_err *err)
{
    struct moe_quantize_estimate e;
    struct moe_err why = MOE_ERR_INIT;
    bool counted;

    MOE_TRY(moe_quantizing_count_text(&j->z, &counted, &why, err));
    MOE_TRY(moe_quantizing_estimate(&j->z, &e, j->pool, err));
    bool calibrated = j->z.choice.calibrated != MOE_NOT_CALIBRATED;
    const struct moe_quantize_needs found = { .input_bytes = e.rewrite.input_bytes,
                                              .output_bytes = e.rewrite.output_bytes,
                                              .memory_bytes = e.rewrite.memory_bytes,
                                              .disk_bytes = e.rewrite.disk_bytes + e.plan.partial,
                                              .scratch_bytes = e.plan.scratch,
                                              .seconds = e.rewrite.seconds,
                                              .weights_quantized = e.rewrite.weights_quantized,
                                              .fits = calibrated ? e.plan.fits : e.rewrite.fits };
    moe_api_result(n, &found, sizeof found);
    return MOE_OK;
}

enum moe_code moe_quantize_estimate(const char *source, const struct moe_quantize_options *options,
                                    struct moe_quantize_needs *n, struct moe_err *err)
{
    struct job j;

    MOE_API_ERR(err);
    MOE_TRY(moe_api_result_check(n, "moe_quantize_needs", err));
    enum moe_code code = open_job(&j, source, NULL, options, err);
    if (code == MOE_OK) code = estimate(&j, n, err);
    close_job(&j);
    return moe_api_end(code, err);
}
