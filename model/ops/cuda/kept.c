/* SPDX-License-Identifier: Apache-2.0 */
#include "model/ops/cuda/kept.h"

#include "base/io.h"
#include "model/ops/cuda/cuda-internal.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- units ---- */

/* A unit of the row: the first expert of a layer of a space that lies in it. */
struct place { struct moe_space *space; int layer; int32_t expert; };

static struct place place_of(const struct moe_cuda *d, int64_t unit)
{
    const struct moe_cuda_weights *w = &d->weights;
    if (!unit) return (struct place){ w->block, 0, 0 };
    unit--;
    for (int l = 0; l < moe_cuda_config(d)->num_hidden_layers; l++) {
        int64_t here = moe_space_units(w->space, l);
        if (unit < here) return (struct place){ w->space, l, moe_space_unit_first(w->space, l, unit) };
        unit -= here;
    }
    MOE_CHECK(!"a unit of the row");
    return (struct place){ NULL, 0, 0 };
}

/* How many units there will be, and their bytes, which follow from sizes alone. */
static int64_t count_units(const struct moe_cuda *d, uint64_t *bytes)
{
    const struct moe_cuda_weights *w = &d->weights;
    int64_t experts = moe_cuda_config(d)->n_routed_experts, units = 1;
    *bytes = moe_space_estimate(w->block_bytes, 1, w->granularity);
    for (int l = 0; l < moe_cuda_config(d)->num_hidden_layers; l++) {
        uint64_t stride = moe_space_stride_for(w->expert_bytes[l], w->granularity);
        if (!w->expert_bytes[l]) continue;
        bool small = stride < w->granularity;
        int64_t in_one = small ? (int64_t)(w->granularity / stride) : 1, n = (experts + in_one - 1) / in_one;
        units += n;
        *bytes += (uint64_t)n * (small ? w->granularity : stride);
    }
    return units;
}

enum moe_code moe_cuda_kept(const struct moe_device *device, struct moe_cuda_kept *k, struct moe_err *err)
{
    const struct moe_cuda *d = (const struct moe_cuda *)(const void *)device;
    const struct moe_gpu_info *info = moe_gpu_info(d->gpu);
    int layers = 0;
    *k = (struct moe_cuda_kept){ .units = 0 };
    k->units = count_units(d, &k->bytes);
    if (!*info->uuid)
        return moe_fail(err, MOE_DEVICE, "GPU %d (%s): the driver does not say its UUID, by which processes "
                        "know that they use the same GPU", info->index, info->name);
    for (int l = 0; l < moe_cuda_config(d)->num_hidden_layers; l++) layers += d->weights.expert_bytes[l] > 0;
    memcpy(k->gpu, info->uuid, sizeof k->gpu);
    snprintf(k->experts, sizeof k->experts, "all %lld in %d layers",
             (long long)moe_cuda_config(d)->n_routed_experts, layers);
    moe_hex128(d->weights.layout, k->layout);
    return MOE_OK;
}

/* ---- keeping ---- */

enum moe_code moe_cuda_keep(struct moe_device *device, enum moe_load_path path, struct moe_progress *progress,
                            const struct moe_cancel *cancel, struct moe_err *err)
{
    struct moe_cuda *d = moe_cuda_of(device);
    const struct moe_cuda_start start = {
        .path = path, .shared = true, .progress = progress, .cancel = cancel
    };
    MOE_CHECK(!d->o.attached);
    return moe_cuda_weights_load(d, &start, err);
}

enum moe_code moe_cuda_kept_export(struct moe_device *device, int64_t unit, int *fd, struct moe_err *err)
{
    struct moe_cuda *d = moe_cuda_of(device);
    struct place p = place_of(d, unit);
    return moe_space_export(p.space, p.layer, p.expert, fd, err);
}

bool moe_cuda_kept_is_lost(const struct moe_device *d)
{
    return moe_gpu_is_lost(((const struct moe_cuda *)(const void *)d)->gpu);
}

/* ---- attaching ---- */

static enum moe_code import(struct moe_cuda *d, int64_t first, int n, const int *fd, struct moe_err *err)
{
    for (int i = 0; i < n; i++) {
        struct place p = place_of(d, first + i);
        if (moe_space_import(p.space, p.layer, p.expert, fd[i], err) != MOE_OK)
            return moe_wrap(err, "unit %lld of the weights that were handed over", (long long)(first + i));
    }
    return MOE_OK;
}

static enum moe_code import_all(struct moe_cuda *d, const struct moe_cuda_start *start, int64_t units,
                                struct moe_err *err)
{
    const struct moe_cuda_weights *w = &d->weights;
    enum moe_code code = MOE_OK;
    for (int64_t first = 0; first < units && code == MOE_OK; first += MOE_CUDA_TAKE) {
        int fd[MOE_CUDA_TAKE], n = units - first < MOE_CUDA_TAKE ? (int)(units - first) : MOE_CUDA_TAKE;
        uint64_t before = moe_space_bytes(w->block) + moe_space_bytes(w->space);
        MOE_TRY(moe_cancel_check(start->cancel, err));
        MOE_TRY(start->lender->take(start->lender->ctx, first, n, fd, err));
        code = import(d, first, n, fd, err);
        for (int i = 0; i < n; i++) close(fd[i]);
        uint64_t now = moe_space_bytes(w->block) + moe_space_bytes(w->space);
        if (code == MOE_OK) moe_progress_add(start->progress, now - before);
    }
    return code;
}

enum moe_code moe_cuda_kept_import(struct moe_cuda *d, const struct moe_cuda_start *start,
                                   struct moe_err *err)
{
    double began = moe_now();
    uint64_t bytes;
    int64_t units = count_units(d, &bytes);
    moe_progress_begin(start->progress, "attach", bytes, MOE_UNIT_BYTES);
    enum moe_code code = import_all(d, start, units, err);
    moe_progress_end(start->progress);
    d->load = (struct moe_load_result){ .path = MOE_LOAD_ATTACHED, .seconds = moe_now() - began };
    return code;
}
