/* SPDX-License-Identifier: Apache-2.0 */
/* The launches of a step: they are collected in a list, and handed to the GPU when the host copies or waits.
 *
 * A list of launches that was handed over before, the same kernels with the same grids and arguments, is
 * recorded as a graph when it comes again, and is one call of the driver from then on.  What differs from
 * step to step (tokens, positions, pages) is in device memory, so the steps of a batch of so many rows are
 * the same list until its longest sequence needs more pages than `begin` has rounded up to.
 *
 * Nothing is recorded for an observer, whose waits divide the lists; nor where each kernel is waited for
 * (MOE_GPU_WAIT), which a graph would hide; nor any more after a recording has failed, because launches do
 * the same. */
#include "base/grow.h"
#include "base/hash.h"
#include "model/ops/cuda/cuda-internal.h"

#include <stdlib.h>
#include <string.h>

/* Shorter lists are launched one by one; longer ones (in bytes) are long prompts, whose launches take longer
 * than the calls. */
enum { LEAST = 8, MOST = 1 << 20 };

/* How a launch stands in the list; its arguments follow. */
struct call { uint32_t kernel, bytes; struct moe_cuda_grid grid; uint32_t zero; };

static enum moe_code launch_all(struct moe_cuda *d, const unsigned char *list, size_t n, struct moe_err *err)
{
    for (size_t at = 0; at < n; ) {
        struct call c;
        memcpy(&c, list + at, sizeof c);
        MOE_TRY(moe_gpu_launch(d->gpu, (enum moe_cuda_kernel)c.kernel, c.grid, list + at + sizeof c, c.bytes,
                               err));
        at += sizeof c + c.bytes;
        d->counts.launches++;
    }
    return MOE_OK;
}

/* The graph of the list; NULL where there is none. */
static struct moe_cuda_graph *find(struct moe_cuda_steps *s, uint64_t hash)
{
    for (int i = 0; i < MOE_CUDA_GRAPHS; i++)
        if (s->graph[i].graph && s->graph[i].hash == hash && s->graph[i].bytes == s->n &&
            !memcmp(s->graph[i].list, s->list, s->n))
            return &s->graph[i];
    return NULL;
}

/* Whether the list came before; it has come now. */
static bool seen_before(struct moe_cuda_steps *s, uint64_t hash)
{
    for (int i = 0; i < MOE_CUDA_SEEN; i++)
        if (s->seen[i] == hash) return true;
    s->seen[s->next_seen] = hash;
    s->next_seen = (s->next_seen + 1) % MOE_CUDA_SEEN;
    return false;
}

static void drop(struct moe_cuda *d, struct moe_cuda_graph *g)
{
    moe_gpu_graph_free(d->gpu, &g->graph);
    free(g->list);
    *g = (struct moe_cuda_graph){ 0 };
}

static enum moe_code capture(struct moe_cuda *d, struct moe_gpu_graph **out, struct moe_err *err)
{
    MOE_TRY(moe_gpu_capture_begin(d->gpu, err));
    enum moe_code code = launch_all(d, d->steps.list, d->steps.n, err);
    struct moe_err later = MOE_ERR_INIT;
    enum moe_code end = moe_gpu_capture_end(d->gpu, out, code == MOE_OK ? err : &later);
    return code == MOE_OK ? end : code;
}

/* Records the list as a graph in the place of the one that was used longest ago.  NULL where that fails; only
 * a GPU that is lost fails for good. */
static enum moe_code record(struct moe_cuda *d, uint64_t hash, struct moe_cuda_graph **out,
                            struct moe_err *err)
{
    struct moe_cuda_steps *s = &d->steps;
    struct moe_cuda_graph *g = s->graph;
    struct moe_err why = MOE_ERR_INIT;
    for (int i = 1; i < MOE_CUDA_GRAPHS; i++)
        if (s->graph[i].used < g->used) g = &s->graph[i];
    drop(d, g);
    *g = (struct moe_cuda_graph){ .hash = hash, .bytes = s->n, .list = malloc(s->n) };
    if (g->list) memcpy(g->list, s->list, s->n);
    if (g->list && capture(d, &g->graph, &why) == MOE_OK) {
        d->counts.graphs++;
        *out = g;
        return MOE_OK;
    }
    drop(d, g);
    s->refused = true;
    *out = NULL;
    if (!moe_gpu_is_lost(d->gpu)) return MOE_OK;
    *err = why;
    return err->code;
}

static bool may_record(const struct moe_cuda *d)
{
    return !d->steps.refused && !d->hooks.routed && !moe_gpu_waits(d->gpu);
}

static enum moe_code hand_over(struct moe_cuda *d, struct moe_err *err)
{
    struct moe_cuda_steps *s = &d->steps;
    if (s->calls < LEAST || s->n > MOST) return launch_all(d, s->list, s->n, err);
    uint64_t hash = moe_hash64(s->list, s->n);
    struct moe_cuda_graph *g = find(s, hash);
    if (!g && may_record(d) && seen_before(s, hash)) MOE_TRY(record(d, hash, &g, err));
    if (!g) return launch_all(d, s->list, s->n, err);
    g->used = ++s->clock;
    d->counts.graph_launches++;
    return moe_gpu_graph_launch(d->gpu, g->graph, err);
}

void moe_cuda_flush(struct moe_cuda *d)
{
    struct moe_cuda_steps *s = &d->steps;
    if (s->calls && d->code == MOE_OK) d->code = hand_over(d, &d->err);
    s->n = 0;
    s->calls = 0;
}

void moe_cuda_launch(struct moe_cuda *d, enum moe_cuda_kernel k, struct moe_cuda_grid grid, const void *args,
                     size_t bytes)
{
    struct moe_cuda_steps *s = &d->steps;
    const struct call c = { .kernel = (uint32_t)k, .bytes = (uint32_t)bytes, .grid = grid };
    if (d->code != MOE_OK) return;
    if (!MOE_GROW(s->list, s->cap, s->n + sizeof c + bytes)) {
        d->code = moe_fail(&d->err, MOE_NOMEM, "no memory for a list of launches");
        return;
    }
    memcpy(s->list + s->n, &c, sizeof c);
    memcpy(s->list + s->n + sizeof c, args, bytes);
    s->n += sizeof c + bytes;
    s->calls++;
}

void moe_cuda_steps_free(struct moe_cuda *d)
{
    for (int i = 0; i < MOE_CUDA_GRAPHS; i++) drop(d, &d->steps.graph[i]);
    free(d->steps.list);
}
