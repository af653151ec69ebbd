/* SPDX-License-Identifier: Apache-2.0 */
#include "model/ops/cuda/space.h"

#include "base/arena.h"
#include "model/ops/cuda/gpu-internal.h"

#include <stdlib.h>
#include <string.h>

/* The memory of a unit, and how many of its experts want it. */
struct unit { moe_cu_handle handle; bool backed; int32_t users; };

struct layer {
    moe_cu_ptr base;
    uint64_t stride, unit_bytes, range_bytes;
    int64_t experts_per_unit;
    struct unit *unit;           /* [units] */
    bool *has;                   /* [experts]: it counts among the users of its unit */
    uint32_t *shown;             /* [words]: the bitmap, as the stream will find it */
};

struct moe_space {
    struct moe_gpu *g;
    struct moe_arena arena;
    struct layer *layer;
    int n, experts, words;
    struct moe_addr resident;    /* [n][words] */
    uint64_t granularity, bytes;
    bool shared;
};

/* ---- sizes ---- */

static uint64_t round_up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

uint64_t moe_space_stride_for(uint64_t bytes, uint64_t granularity)
{
    uint64_t stride = 256;
    if (bytes > granularity / 2) return round_up(bytes, granularity);
    while (stride < bytes) stride *= 2;
    return stride;
}

uint64_t moe_space_estimate(uint64_t bytes, int64_t n, uint64_t granularity)
{
    uint64_t stride = moe_space_stride_for(bytes, granularity);
    if (!bytes || !n) return 0;
    if (stride >= granularity) return stride * (uint64_t)n;
    return round_up(stride * (uint64_t)n + granularity - stride, granularity);
}

static moe_cu_alloc_prop describe(const struct moe_gpu *g, bool shared)
{
    return (moe_cu_alloc_prop){ .type = MOE_CU_PINNED, .handles = shared ? MOE_CU_HANDLE_FD : 0,
                                .location = { MOE_CU_AT_DEVICE, g->device }, .rdma = g->info.rdma };
}

enum moe_code moe_space_granularity(struct moe_gpu *g, uint64_t *bytes, struct moe_err *err)
{
    size_t n = 0;
    moe_cu_alloc_prop p = describe(g, false);
    if (!g->info.virtual_memory)
        return moe_fail(err, MOE_DEVICE, "GPU %d (%s) has no address ranges of which only a part has memory "
                        "(virtual GPUs often lack them)", g->info.index, g->info.name);
    MOE_TRY(moe_gpu_enter(g, err));
    MOE_TRY(moe_gpu_check(g, g->d->cuMemGetAllocationGranularity(&n, &p, MOE_CU_GRANULARITY_RECOMMENDED), err,
                          "cuMemGetAllocationGranularity"));
    *bytes = n;
    return MOE_OK;
}

/* ---- open ---- */

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for the list of experts on a GPU");
}

static enum moe_code open_layer(struct moe_space *s, struct layer *y, uint64_t bytes, struct moe_err *err)
{
    if (!bytes) return MOE_OK;
    y->stride = moe_space_stride_for(bytes, s->granularity);
    y->unit_bytes = y->stride > s->granularity ? y->stride : s->granularity;
    y->experts_per_unit = (int64_t)(y->unit_bytes / y->stride);
    int64_t units = (s->experts + y->experts_per_unit - 1) / y->experts_per_unit;
    y->unit = MOE_NEWN(&s->arena, struct unit, units);
    y->has = MOE_NEWN(&s->arena, bool, s->experts);
    y->shown = MOE_NEWN(&s->arena, uint32_t, s->words);
    if (!y->unit || !y->has || !y->shown) return no_memory(err);
    uint64_t range = y->unit_bytes * (uint64_t)units;
    moe_cu_ptr base = 0;
    MOE_TRY(moe_gpu_check(s->g, s->g->d->cuMemAddressReserve(&base, range, 0, 0, 0), err,
                          "cuMemAddressReserve of %.2f GiB", (double)range / 0x1p30));
    y->base = base;
    y->range_bytes = range;
    return MOE_OK;
}

static enum moe_code open_all(struct moe_space *s, const uint64_t *bytes, struct moe_err *err)
{
    MOE_TRY(moe_space_granularity(s->g, &s->granularity, err));
    s->layer = MOE_NEWN(&s->arena, struct layer, s->n);
    if (!s->layer) return no_memory(err);
    uint64_t map = (uint64_t)s->n * (uint64_t)s->words * sizeof(uint32_t);
    MOE_TRY(moe_gpu_alloc(s->g, map, &s->resident, err));
    MOE_TRY(moe_gpu_fill(s->g, s->resident, 0, map, err));
    for (int l = 0; l < s->n; l++) MOE_TRY(open_layer(s, &s->layer[l], bytes[l], err));
    return MOE_OK;
}

enum moe_code moe_space_open(struct moe_space **out, struct moe_gpu *g, int n, const uint64_t *bytes,
                             int experts, bool shared, struct moe_err *err)
{
    *out = NULL;
    if (shared && !g->info.posix_fd)
        return moe_fail(err, MOE_DEVICE, "GPU %d (%s) cannot hand its memory to another process",
                        g->info.index, g->info.name);
    struct moe_space *s = calloc(1, sizeof *s);
    if (!s) return no_memory(err);
    *s = (struct moe_space){ .g = g, .n = n, .experts = experts, .shared = shared };
    s->words = (experts + 31) / 32;
    enum moe_code code = open_all(s, bytes, err);
    *out = s;
    if (code != MOE_OK) moe_space_close(out);
    return code;
}

/* ---- units ---- */

static moe_cu_ptr unit_at(const struct layer *y, int64_t u) { return y->base + (uint64_t)u * y->unit_bytes; }

static void unback_unit(struct moe_space *s, struct layer *y, int64_t u)
{
    s->g->d->cuMemUnmap(unit_at(y, u), y->unit_bytes);
    s->g->d->cuMemRelease(y->unit[u].handle);
    y->unit[u] = (struct unit){ 0 };
    s->bytes -= y->unit_bytes;
}

/* Maps the handle, which is the unit's from now on, or released after a failure.  may: MOE_CU_ACCESS_*. */
static enum moe_code map_unit(struct moe_space *s, struct layer *y, int64_t u, moe_cu_handle h, int may,
                              struct moe_err *err)
{
    const struct moe_driver *d = s->g->d;
    moe_cu_access_desc access = { { MOE_CU_AT_DEVICE, s->g->device }, may };
    moe_cu_result r = d->cuMemMap(unit_at(y, u), y->unit_bytes, 0, h, 0);
    enum moe_code code = moe_gpu_check(s->g, r, err, "cuMemMap");
    if (code != MOE_OK) {
        d->cuMemRelease(h);
        return code;
    }
    y->unit[u] = (struct unit){ .handle = h, .backed = true };
    s->bytes += y->unit_bytes;
    code = moe_gpu_check(s->g, d->cuMemSetAccess(unit_at(y, u), y->unit_bytes, &access, 1), err,
                         "cuMemSetAccess");
    if (code != MOE_OK) unback_unit(s, y, u);
    return code;
}

static enum moe_code back_unit(struct moe_space *s, struct layer *y, int64_t u, struct moe_err *err)
{
    moe_cu_alloc_prop p = describe(s->g, s->shared);
    moe_cu_handle h = 0;
    moe_cu_result r = s->g->d->cuMemCreate(&h, y->unit_bytes, &p, 0);
    size_t left = 0, all;
    if (r == MOE_CU_OUT_OF_MEMORY && s->g->d->cuMemGetInfo_v2(&left, &all) == MOE_CU_OK)
        return moe_gpu_check(s->g, r, err, "cuMemCreate of %.1f MiB for weights, beside %.2f GiB of them, "
                             "where %.1f MiB are free", (double)y->unit_bytes / 0x1p20,
                             (double)s->bytes / 0x1p30, (double)left / 0x1p20);
    MOE_TRY(moe_gpu_check(s->g, r, err, "cuMemCreate of %.1f MiB for weights",
                          (double)y->unit_bytes / 0x1p20));
    return map_unit(s, y, u, h, MOE_CU_ACCESS_WRITE, err);
}

/* The expert no longer counts; the last one of a unit gives its memory back. */
static void leave(struct moe_space *s, struct layer *y, int32_t e)
{
    int64_t u = e / y->experts_per_unit;
    if (!y->has[e]) return;
    y->has[e] = false;
    if (!--y->unit[u].users) unback_unit(s, y, u);
}

enum moe_code moe_space_back(struct moe_space *s, int layer, const int32_t *expert, int64_t n,
                             struct moe_err *err)
{
    struct layer *y = &s->layer[layer];
    enum moe_code code = moe_gpu_enter(s->g, err);
    bool *added = calloc((size_t)n + 1, sizeof *added);
    if (code == MOE_OK && !added) code = no_memory(err);
    for (int64_t i = 0; i < n && code == MOE_OK; i++) {
        int32_t e = expert[i];
        MOE_CHECK(y->base && e >= 0 && e < s->experts);
        int64_t u = e / y->experts_per_unit;
        if (y->has[e]) continue;
        if (!y->unit[u].backed) code = back_unit(s, y, u, err);
        if (code != MOE_OK) break;
        added[i] = y->has[e] = true;
        y->unit[u].users++;
    }
    for (int64_t i = 0; i < n && code != MOE_OK && added; i++)
        if (added[i]) leave(s, y, expert[i]);
    free(added);
    return code;
}

enum moe_code moe_space_drop(struct moe_space *s, int layer, const int32_t *expert, int64_t n,
                             struct moe_err *err)
{
    struct layer *y = &s->layer[layer];
    for (int64_t i = 0; i < n; i++) MOE_CHECK(!moe_space_has(s, layer, expert[i]));
    MOE_TRY(moe_gpu_wait(s->g, err));
    for (int64_t i = 0; i < n; i++) leave(s, y, expert[i]);
    return MOE_OK;
}

/* ---- the bitmap ---- */

/* Sets the bits of n experts, or clears them, on the host and, in the stream's order, on the GPU. */
static enum moe_code mark(struct moe_space *s, int layer, const int32_t *expert, int64_t n, bool shown,
                          struct moe_err *err)
{
    struct layer *y = &s->layer[layer];
    for (int64_t i = 0; i < n; i++) {
        uint32_t bit = 1u << expert[i] % 32, *word = &y->shown[expert[i] / 32];
        MOE_CHECK(y->has[expert[i]]);
        *word = shown ? *word | bit : *word & ~bit;
    }
    return moe_gpu_write(s->g, moe_space_resident(s, layer), y->shown, (uint64_t)s->words * 4, err);
}

enum moe_code moe_space_show(struct moe_space *s, int layer, const int32_t *expert, int64_t n,
                             struct moe_err *err)
{
    return mark(s, layer, expert, n, true, err);
}

enum moe_code moe_space_hide(struct moe_space *s, int layer, const int32_t *expert, int64_t n,
                             struct moe_err *err)
{
    return mark(s, layer, expert, n, false, err);
}

/* ---- other processes ---- */

enum moe_code moe_space_export(struct moe_space *s, int layer, int expert, int *fd, struct moe_err *err)
{
    struct layer *y = &s->layer[layer];
    *fd = -1;
    MOE_CHECK(s->shared && y->base && expert >= 0 && expert < s->experts && y->has[expert]);
    MOE_TRY(moe_gpu_enter(s->g, err));
    moe_cu_handle h = y->unit[expert / y->experts_per_unit].handle;
    return moe_gpu_check(s->g, s->g->d->cuMemExportToShareableHandle(fd, h, MOE_CU_HANDLE_FD, 0), err,
                         "cuMemExportToShareableHandle");
}

enum moe_code moe_space_import(struct moe_space *s, int layer, int expert, int fd, struct moe_err *err)
{
    struct layer *y = &s->layer[layer];
    moe_cu_handle h = 0;
    MOE_CHECK(y->base && expert >= 0 && expert < s->experts);
    int64_t u = expert / y->experts_per_unit;
    MOE_CHECK(!y->unit[u].backed);
    MOE_TRY(moe_gpu_enter(s->g, err));
    MOE_TRY(moe_gpu_check(s->g, s->g->d->cuMemImportFromShareableHandle(&h, (void *)(intptr_t)fd,
                                                                        MOE_CU_HANDLE_FD),
                          err, "cuMemImportFromShareableHandle"));
    MOE_TRY(map_unit(s, y, u, h, MOE_CU_ACCESS_READ, err));
    y->has[expert] = true;
    y->unit[u].users = 1;
    return MOE_OK;
}

/* ---- close, and what is where ---- */

void moe_space_close(struct moe_space **pointer)
{
    struct moe_space *s = *pointer;
    *pointer = NULL;
    if (!s) return;
    moe_gpu_finish(s->g);
    for (int l = 0; s->layer && l < s->n; l++) {
        struct layer *y = &s->layer[l];
        for (int32_t e = 0; y->base && e < s->experts; e++) leave(s, y, e);
        if (y->base) s->g->d->cuMemAddressFree(y->base, y->range_bytes);
    }
    moe_gpu_free(s->g, s->resident);
    moe_arena_clear(&s->arena);
    free(s);
}

struct moe_addr moe_space_base(const struct moe_space *s, int layer)
{
    return (struct moe_addr){ s->layer[layer].base };
}

uint64_t moe_space_stride(const struct moe_space *s, int layer) { return s->layer[layer].stride; }

struct moe_addr moe_space_resident(const struct moe_space *s, int layer)
{
    return moe_addr_plus(s->resident, (uint64_t)layer * (uint64_t)s->words * sizeof(uint32_t));
}

bool moe_space_has(const struct moe_space *s, int layer, int expert)
{
    const struct layer *y = &s->layer[layer];
    return y->base && y->shown[expert / 32] >> expert % 32 & 1;
}

uint64_t moe_space_bytes(const struct moe_space *s) { return s->bytes; }

int64_t moe_space_units(const struct moe_space *s, int layer)
{
    const struct layer *y = &s->layer[layer];
    return y->base ? (int64_t)(y->range_bytes / y->unit_bytes) : 0;
}

int32_t moe_space_unit_first(const struct moe_space *s, int layer, int64_t unit)
{
    return (int32_t)(unit * s->layer[layer].experts_per_unit);
}
