/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/run-keep.h"

#include "base/show.h"
#include "model/ops/cuda/kept.h"
#include "runtime/engine/keeper.h"
#include "runtime/engine/run-report.h"

static void tell(void *ctx, const char *line)
{
    const struct moe_run_args *o = ctx;
    moe_notice(&o->run, "%s", line);
}

static void report(const struct moe_run_args *o, const struct moe_keeper *k, cJSON *json)
{
    const struct moe_device *d = moe_keeper_device(k);
    const struct moe_gpu_info *info = moe_cuda_info(d);
    cJSON *device = moe_json_add_object(json, "device");
    if (device) {
        moe_json_add_str(device, "kind", d->ops->name);
        moe_json_add_i64(device, "index", info->index);
        moe_json_add_str(device, "name", info->name);
    }
    moe_json_add_i64(json, "attached", moe_keeper_attached(k));
    const struct moe_load_result load = moe_cuda_loaded(d);
    if (o->run.json) moe_run_report_load(o, &load, info->index, json);
}

enum moe_code moe_run_keep(struct moe_run_job *j, struct moe_err *err)
{
    struct moe_run_args *o = j->o;
    struct moe_keeper *k;
    char size[16];
    MOE_TRY(moe_keeper_open(&k, o->run.argv[0], o->keep, &j->engine, err));
    const struct moe_load_result load = moe_cuda_loaded(moe_keeper_device(k));
    int gpu = moe_cuda_info(moe_keeper_device(k))->index;
    if (!o->run.json) moe_run_report_load(o, &load, gpu, NULL);
    moe_notice(&o->run, "ready: GPU %d keeps %s for moe-run --attach %s", gpu,
               moe_human_bytes(load.bytes, size), o->keep);
    enum moe_code code = moe_keeper_serve(k, o->run.cancel, tell, o, err);
    if (code == MOE_OK) report(o, k, j->json);
    moe_keeper_close(&k);
    return code;
}
