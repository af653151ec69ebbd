/* SPDX-License-Identifier: Apache-2.0 */
/* What an open GPU does: memory, copies, launches, graphs (model/ops/cuda/gpu.h). */
#include "base/io.h"
#include "base/minmax.h"
#include "model/ops/cuda/gpu-internal.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

enum moe_code moe_gpu_alloc(struct moe_gpu *g, uint64_t bytes, struct moe_addr *out, struct moe_err *err)
{
    out->at = 0;
    if (!bytes) return MOE_OK;
    MOE_TRY(moe_gpu_enter(g, err));
    moe_cu_ptr p = 0;
    moe_cu_result r = g->d->cuMemAlloc_v2(&p, bytes);
    size_t left = 0, all;
    if (r == MOE_CU_OUT_OF_MEMORY && g->d->cuMemGetInfo_v2(&left, &all) == MOE_CU_OK)
        return moe_gpu_check(g, r, err, "cuMemAlloc of %.2f GiB where %.2f GiB are free",
                             (double)bytes / 0x1p30, (double)left / 0x1p30);
    MOE_TRY(moe_gpu_check(g, r, err, "cuMemAlloc of %llu bytes", (unsigned long long)bytes));
    out->at = p;
    return MOE_OK;
}

void moe_gpu_finish(struct moe_gpu *g)
{
    MOE_CHECK(!g->capturing);
    g->d->cuCtxSetCurrent(g->context);
    g->d->cuStreamSynchronize(g->stream);
}

void moe_gpu_free(struct moe_gpu *g, struct moe_addr a)
{
    if (!a.at) return;
    moe_gpu_finish(g);
    g->d->cuMemFree_v2(a.at);
}

/* The processors of a NUMA node, from a list like "0-3,8"; false when it cannot be read. */
static bool processors_of(int node, cpu_set_t *set)
{
    char path[64];
    int from, to;
    CPU_ZERO(set);
    snprintf(path, sizeof path, "/sys/devices/system/node/node%d/cpulist", node);
    FILE *f = node >= 0 ? fopen(path, "r") : NULL;
    if (!f) return false;
    while (fscanf(f, "%d", &from) == 1) {
        to = from;
        int c = fgetc(f);
        if (c == '-' && fscanf(f, "%d", &to) == 1) c = fgetc(f);
        for (int i = from; i <= to && i >= 0 && i < CPU_SETSIZE; i++) CPU_SET((unsigned)i, set);
        if (c != ',') break;
    }
    fclose(f);
    return CPU_COUNT(set);
}

/* The driver takes pinned memory from the node that the calling thread runs on. */
enum moe_code moe_gpu_pin(struct moe_gpu *g, uint64_t bytes, void **out, struct moe_err *err)
{
    *out = NULL;
    MOE_TRY(moe_gpu_enter(g, err));
    cpu_set_t before, there;
    bool moved = sched_getaffinity(0, sizeof before, &before) == 0 &&
                 processors_of(g->info.numa_node, &there) && sched_setaffinity(0, sizeof there, &there) == 0;
    moe_cu_result r = g->d->cuMemHostAlloc(out, bytes, MOE_CU_HOST_PORTABLE);
    if (moved) sched_setaffinity(0, sizeof before, &before);
    if (r != MOE_CU_OK) *out = NULL;
    return moe_gpu_check(g, r, err, "cuMemHostAlloc of %llu bytes of host memory that stays in place",
                         (unsigned long long)bytes);
}

void moe_gpu_unpin(struct moe_gpu *g, void *p)
{
    if (!p) return;
    moe_gpu_finish(g);
    g->d->cuMemFreeHost(p);
}

/* ---- copies ---- */

/* Where the next piece of a copy of `bytes` bytes lies in the stage; *n gets the size of the piece.  Waits
 * when the stage is full. */
static enum moe_code take_stage(struct moe_gpu *g, uint64_t bytes, unsigned char **at, size_t *n,
                                struct moe_err *err)
{
    struct moe_gpu_stage *s = &g->stage;
    MOE_CHECK(!g->capturing);
    MOE_TRY(moe_gpu_enter(g, err));
    size_t room = MOE_GPU_STAGE_BYTES - s->used;
    bool list_full = s->n_readings == sizeof s->reading / sizeof *s->reading;
    if (list_full || (room < bytes && s->used)) MOE_TRY(moe_gpu_wait(g, err));
    *n = bytes < MOE_GPU_STAGE_BYTES ? (size_t)bytes : MOE_GPU_STAGE_BYTES;
    *at = s->at + s->used;
    s->used = (s->used + *n + 255) / 256 * 256;
    if (s->used > MOE_GPU_STAGE_BYTES) s->used = MOE_GPU_STAGE_BYTES;
    return MOE_OK;
}

enum moe_code moe_gpu_write(struct moe_gpu *g, struct moe_addr to, const void *from, uint64_t bytes,
                            struct moe_err *err)
{
    for (uint64_t done = 0; done < bytes; ) {
        unsigned char *at;
        size_t n;
        MOE_TRY(take_stage(g, bytes - done, &at, &n, err));
        memcpy(at, (const unsigned char *)from + done, n);
        MOE_TRY(moe_gpu_copy_in(g, moe_addr_plus(to, done), at, n, err));
        done += n;
    }
    return MOE_OK;
}

enum moe_code moe_gpu_read(struct moe_gpu *g, void *to, struct moe_addr from, uint64_t bytes,
                           struct moe_err *err)
{
    for (uint64_t done = 0; done < bytes; ) {
        unsigned char *at;
        size_t n;
        MOE_TRY(take_stage(g, bytes - done, &at, &n, err));
        MOE_TRY(moe_gpu_copy_out(g, at, moe_addr_plus(from, done), n, err));
        g->stage.reading[g->stage.n_readings++] =
            (struct moe_gpu_reading){ (unsigned char *)to + done, at, n };
        done += n;
    }
    return MOE_OK;
}

enum moe_code moe_gpu_copy_in(struct moe_gpu *g, struct moe_addr to, const void *pinned, uint64_t bytes,
                              struct moe_err *err)
{
    if (!bytes) return MOE_OK;
    MOE_TRY(moe_gpu_enter(g, err));
    return moe_gpu_check(g, g->d->cuMemcpyHtoDAsync_v2(to.at, pinned, bytes, g->stream), err,
                         "cuMemcpyHtoDAsync of %llu bytes", (unsigned long long)bytes);
}

enum moe_code moe_gpu_copy_out(struct moe_gpu *g, void *pinned, struct moe_addr from, uint64_t bytes,
                               struct moe_err *err)
{
    if (!bytes) return MOE_OK;
    MOE_TRY(moe_gpu_enter(g, err));
    return moe_gpu_check(g, g->d->cuMemcpyDtoHAsync_v2(pinned, from.at, bytes, g->stream), err,
                         "cuMemcpyDtoHAsync of %llu bytes", (unsigned long long)bytes);
}

enum moe_code moe_gpu_copy(struct moe_gpu *g, struct moe_addr to, struct moe_addr from, uint64_t bytes,
                           struct moe_err *err)
{
    if (!bytes) return MOE_OK;
    MOE_TRY(moe_gpu_enter(g, err));
    return moe_gpu_check(g, g->d->cuMemcpyDtoDAsync_v2(to.at, from.at, bytes, g->stream), err,
                         "cuMemcpyDtoDAsync of %llu bytes", (unsigned long long)bytes);
}

enum moe_code moe_gpu_fill(struct moe_gpu *g, struct moe_addr to, uint8_t byte, uint64_t bytes,
                           struct moe_err *err)
{
    if (!bytes) return MOE_OK;
    MOE_TRY(moe_gpu_enter(g, err));
    return moe_gpu_check(g, g->d->cuMemsetD8Async(to.at, byte, bytes, g->stream), err,
                         "cuMemsetD8Async of %llu bytes", (unsigned long long)bytes);
}

/* ---- work ---- */

/* Without the attribute a kernel's dynamic and static shared memory together are at most 48 KiB.  How much is
 * static is the compiler's affair, so whatever is dynamic is allowed, whether or not it had to be. */
static enum moe_code allow_shared(struct moe_gpu *g, enum moe_cuda_kernel k, uint32_t bytes,
                                  struct moe_err *err)
{
    if (bytes <= g->shared[k]) return MOE_OK;
    MOE_TRY(moe_gpu_check(g, g->d->cuFuncSetAttribute(g->function[k], MOE_CU_DYNAMIC_SHARED, (int)bytes), err,
                          "cuFuncSetAttribute of %s (%u bytes of shared memory)", moe_cuda_kernel_name(k),
                          bytes));
    if (bytes > 48 << 10) /* a wish: more blocks fit beside it */
        g->d->cuFuncSetAttribute(g->function[k], MOE_CU_CARVEOUT, 100);
    g->shared[k] = bytes;
    return MOE_OK;
}

enum moe_code moe_gpu_launch(struct moe_gpu *g, enum moe_cuda_kernel k, struct moe_cuda_grid grid,
                             const void *args, size_t bytes, struct moe_err *err)
{
    unsigned char copy[4096];
    if (!grid.x || !grid.y || !grid.z) return MOE_OK;
    MOE_CHECK((int)k >= 0 && k < MOE_CUDA_KERNELS && bytes <= sizeof copy);
    MOE_TRY(moe_gpu_enter(g, err));
    MOE_TRY(allow_shared(g, k, grid.shared, err));
    memcpy(copy, args, bytes);
    void *list[] = { copy };
    g->last = moe_cuda_kernel_name(k);
    MOE_TRY(moe_gpu_check(g, g->d->cuLaunchKernel(g->function[k], grid.x, grid.y, grid.z, grid.threads, 1, 1,
                                                  grid.shared, g->stream, list, NULL),
                          err, "cuLaunchKernel of %s (grid %u x %u x %u, %u threads, %u bytes)", g->last,
                          grid.x, grid.y, grid.z, grid.threads, grid.shared));
    if (!g->wait_each || g->capturing) return MOE_OK;
    return moe_gpu_check(g, g->d->cuStreamSynchronize(g->stream), err, "cuStreamSynchronize");
}

enum moe_code moe_gpu_wait(struct moe_gpu *g, struct moe_err *err)
{
    struct moe_gpu_stage *s = &g->stage;
    MOE_CHECK(!g->capturing);
    MOE_TRY(moe_gpu_enter(g, err));
    enum moe_code code = moe_gpu_check(g, g->d->cuStreamSynchronize(g->stream), err, "cuStreamSynchronize");
    for (int i = 0; i < s->n_readings && code == MOE_OK; i++)
        memcpy(s->reading[i].to, s->reading[i].from, s->reading[i].bytes);
    s->used = 0;
    s->n_readings = 0;
    g->last = NULL;
    return code;
}

/* ---- graphs ---- */

struct moe_gpu_graph { moe_cu_graph_exec exec; const char *last; };

enum moe_code moe_gpu_capture_begin(struct moe_gpu *g, struct moe_err *err)
{
    MOE_CHECK(!g->capturing);
    MOE_TRY(moe_gpu_enter(g, err));
    MOE_TRY(moe_gpu_check(g, g->d->cuStreamBeginCapture_v2(g->stream, MOE_CU_CAPTURE_THREAD), err,
                          "cuStreamBeginCapture"));
    g->capturing = true;
    return MOE_OK;
}

enum moe_code moe_gpu_capture_end(struct moe_gpu *g, struct moe_gpu_graph **out, struct moe_err *err)
{
    *out = NULL;
    MOE_CHECK(g->capturing);
    g->capturing = false;
    g->d->cuCtxSetCurrent(g->context);
    moe_cu_graph graph = NULL;
    moe_cu_result r = g->d->cuStreamEndCapture(g->stream, &graph);
    if (r != MOE_CU_OK && g->d->cuStreamEndCapture(g->stream, &graph) == MOE_CU_OK)
        g->d->cuGraphDestroy(graph); /* the first call has not ended the recording */
    MOE_TRY(moe_gpu_check(g, r, err, "cuStreamEndCapture"));
    struct moe_gpu_graph *made = calloc(1, sizeof *made);
    enum moe_code code = moe_gpu_enter(g, err);
    if (code == MOE_OK) code = made ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for a graph");
    if (code == MOE_OK)
        code = moe_gpu_check(g, g->d->cuGraphInstantiateWithFlags(&made->exec, graph, 0), err,
                             "cuGraphInstantiate");
    g->d->cuGraphDestroy(graph);
    if (code != MOE_OK) {
        free(made);
        return code;
    }
    made->last = g->last;
    *out = made;
    return MOE_OK;
}

enum moe_code moe_gpu_graph_launch(struct moe_gpu *g, struct moe_gpu_graph *graph, struct moe_err *err)
{
    MOE_TRY(moe_gpu_enter(g, err));
    g->last = graph->last;
    return moe_gpu_check(g, g->d->cuGraphLaunch(graph->exec, g->stream), err, "cuGraphLaunch");
}

void moe_gpu_graph_free(struct moe_gpu *g, struct moe_gpu_graph **graph)
{
    if (!*graph) return;
    moe_gpu_finish(g);
    g->d->cuGraphExecDestroy((*graph)->exec);
    free(*graph);
    *graph = NULL;
}
