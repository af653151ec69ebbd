/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/run-generate.h"

#include "base/io.h"
#include "runtime/engine/generate.h"
#include "runtime/engine/run-report.h"
#include "runtime/engine/trace.h"

#include <stdlib.h>

struct moe_request moe_run_request(const struct moe_run_args *o)
{
    return (struct moe_request){
        .max_tokens = o->n,
        .sampler = { (float)o->temperature, (float)o->top_p, (float)o->min_p, o->top_k },
        .seed = (uint64_t)o->seed,
        .stop = o->stop.v,
        .n_stop = o->stop.n,
        .ignore_eos = o->ignore_eos,
        .keep_special = o->prompt.special,
        .logprobs = -1,
    };
}

enum moe_code moe_run_generate(const struct moe_run_args *o, struct moe_engine *e, double loaded,
                               cJSON *json, struct moe_err *err)
{
    int32_t *ids;
    size_t n;
    struct moe_generate set = { moe_run_request(o), o->run.json ? NULL : moe_run_print, NULL, e->cancel };
    struct moe_generated g = { 0 };
    struct moe_generate_seconds took = { 0, 0 };
    struct moe_core *core = NULL;
    enum moe_code code = moe_prompt_ids(&o->prompt, e, &ids, &n, err);
    double t0 = moe_now();
    if (code == MOE_OK && o->trace) code = moe_trace(e, ids, (int64_t)n, o->trace, err);
    double traced = moe_now() - t0;
    if (code == MOE_OK) code = moe_generate_open(&core, e, err);
    set.request.ids = ids;
    set.request.n_ids = (int64_t)n;
    if (code == MOE_OK) code = moe_generate_run(core, &set, &g, &took, err);
    const double seconds[3] = { loaded, traced + took.prefill, took.decode };
    if (code == MOE_OK) {
        const struct moe_core_stats stats = moe_core_stats(core);
        const struct moe_cache_counts cache = moe_cache_counts(&stats);
        moe_run_report_generated(o, json, &g, (int64_t)n, seconds);
        moe_cache_json(&cache, json);
        moe_run_warn_context(o, &e->model->config, &set.request, &g);
    }
    moe_core_close(&core);
    free(g.tokens);
    free(g.text);
    free(ids);
    return code;
}
