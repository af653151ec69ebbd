/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in for NVIDIA's driver: streams, events, copies, launches and graphs.  Nothing is done before
 * somebody waits for it, which is as late as a GPU may be. */
#include "tests/shim/cuda/driver.h"

#include <stdlib.h>
#include <string.h>

static struct CUstream_st *streams;

struct CUgraph_st { struct drv_op *head, **tail; int users; };
struct CUgraphExec_st { struct CUgraph_st *graph; int device; int64_t bytes; };

/* ---- doing ---- */

static moe_cu_result drain_open(struct CUstream_st *s, moe_cu_event e, uint64_t record)
{
    while (s->head) {
        struct drv_op *op = s->head;
        s->head = op->next;
        if (!s->head) s->tail = &s->head;
        moe_cu_result r = drv_do(op);
        bool found = e && op->kind == DRV_RECORD && op->event == e && op->record == record;
        free(op);
        if (r != MOE_CU_OK) {
            drv_lose(r);
            return r;
        }
        if (found) break;
    }
    return MOE_CU_OK;
}

moe_cu_result drv_drain(struct CUstream_st *s, moe_cu_event e, uint64_t record)
{
    static int depth; /* a stream that waits for another one drains that */
    if (!s->head) return MOE_CU_OK;
    depth++;
    moe_cu_result r = drain_open(s, e, record);
    if (!--depth) drv_close_memory();
    return r;
}

moe_cu_result drv_drain_all(void)
{
    moe_cu_result r = MOE_CU_OK;
    for (struct CUstream_st *s = streams; s && r == MOE_CU_OK; s = s->next) r = drv_drain(s, NULL, 0);
    return r;
}

/* The manual, "Stream Management", cuStreamBeginCapture and cuThreadExchangeStreamCaptureMode: while a stream
 * captures, calls that may synchronise, such as allocations, are not allowed; they invalidate the capture. */
moe_cu_result drv_not_capturing(void)
{
    moe_cu_result r = MOE_CU_OK;
    for (struct CUstream_st *s = streams; s; s = s->next)
        if (s->capture) s->invalid = true, r = MOE_CU_CAPTURE_UNSUPPORTED;
    return r;
}

/* ---- queuing ---- */

static struct drv_op *new_op(enum drv_op_kind kind, const void *data, size_t bytes)
{
    struct drv_op *op = calloc(1, sizeof *op + bytes);
    if (!op) return NULL;
    op->kind = kind;
    if (bytes) memcpy(op->data, data, bytes);
    return op;
}

/* The stand-in knows no default stream: nobody here uses it. */
static bool is_stream(const struct CUstream_st *s)
{
    for (const struct CUstream_st *i = streams; i; i = i->next)
        if (i == s) return true;
    return false;
}

static moe_cu_result append(struct CUstream_st *s, struct drv_op *op)
{
    struct drv_op ***tail = s->capture ? &s->capture->tail : &s->tail;
    if (!op) return MOE_CU_OUT_OF_MEMORY;
    **tail = op;
    *tail = &op->next;
    return MOE_CU_OK;
}

static moe_cu_result usable(const struct CUstream_st *s)
{
    return !is_stream(s) ? MOE_CU_INVALID_HANDLE : s->invalid ? MOE_CU_CAPTURE_INVALIDATED : MOE_CU_OK;
}

/* ---- streams ---- */

moe_cu_result cuStreamCreate(moe_cu_stream *s, unsigned flags)
{
    ENTER(cuStreamCreate, DRV_CONTEXT);
    if (flags & ~(unsigned)MOE_CU_STREAM_NON_BLOCKING) return drv_leave(MOE_CU_INVALID_VALUE);
    *s = calloc(1, sizeof **s);
    if (!*s) return drv_leave(MOE_CU_OUT_OF_MEMORY);
    (*s)->tail = &(*s)->head;
    (*s)->next = streams;
    streams = *s;
    drv_left.streams++;
    return drv_leave(MOE_CU_OK);
}

static void free_ops(struct drv_op *op)
{
    while (op) {
        struct drv_op *next = op->next;
        free(op);
        op = next;
    }
}

moe_cu_result cuStreamDestroy_v2(moe_cu_stream s)
{
    ENTER(cuStreamDestroy_v2, DRV_BACK);
    if (!is_stream(s)) return drv_leave(MOE_CU_INVALID_HANDLE);
    moe_cu_result r = drv_drain(s, NULL, 0);
    struct CUstream_st **at = &streams;
    while (*at != s) at = &(*at)->next;
    *at = s->next;
    free_ops(s->head);
    if (s->capture) free_ops(s->capture->head);
    free(s->capture);
    free(s);
    drv_left.streams--;
    return drv_leave(r);
}

/* The manual, "Stream Management": a stream that captures cannot be waited for. */
moe_cu_result cuStreamSynchronize(moe_cu_stream s)
{
    ENTER(cuStreamSynchronize, DRV_CONTEXT);
    if (!is_stream(s)) return drv_leave(MOE_CU_INVALID_HANDLE);
    if (s->capture) {
        s->invalid = true;
        return drv_leave(MOE_CU_CAPTURE_UNSUPPORTED);
    }
    return drv_leave(drv_drain(s, NULL, 0));
}

/* ---- events ---- */

moe_cu_result cuEventCreate(moe_cu_event *e, unsigned flags)
{
    ENTER(cuEventCreate, DRV_CONTEXT);
    *e = calloc(1, sizeof **e);
    if (!*e) return drv_leave(MOE_CU_OUT_OF_MEMORY);
    (*e)->timed = !(flags & MOE_CU_EVENT_UNTIMED);
    drv_left.events++;
    return drv_leave(MOE_CU_OK);
}

moe_cu_result cuEventDestroy_v2(moe_cu_event e)
{
    ENTER(cuEventDestroy_v2, DRV_BACK);
    moe_cu_result r = e->stream && is_stream(e->stream) && e->done < e->asked
                          ? drv_drain(e->stream, e, e->asked) : MOE_CU_OK;
    free(e);
    drv_left.events--;
    return drv_leave(r);
}

moe_cu_result cuEventRecord(moe_cu_event e, moe_cu_stream s)
{
    ENTER(cuEventRecord, DRV_CONTEXT);
    moe_cu_result r = usable(s);
    struct drv_op *op = r == MOE_CU_OK ? new_op(DRV_RECORD, NULL, 0) : NULL;
    if (r != MOE_CU_OK || !op) return drv_leave(r != MOE_CU_OK ? r : MOE_CU_OUT_OF_MEMORY);
    op->event = e;
    op->record = ++e->asked;
    e->stream = s;
    return drv_leave(append(s, op));
}

moe_cu_result cuStreamWaitEvent(moe_cu_stream s, moe_cu_event e, unsigned flags)
{
    ENTER(cuStreamWaitEvent, DRV_CONTEXT);
    moe_cu_result r = flags ? MOE_CU_INVALID_VALUE : usable(s);
    struct drv_op *op = r == MOE_CU_OK ? new_op(DRV_WAIT, NULL, 0) : NULL;
    if (r != MOE_CU_OK || !op) return drv_leave(r != MOE_CU_OK ? r : MOE_CU_OUT_OF_MEMORY);
    op->event = e;
    op->record = e->asked;
    return drv_leave(append(s, op));
}

moe_cu_result cuEventSynchronize(moe_cu_event e)
{
    ENTER(cuEventSynchronize, DRV_CONTEXT);
    return drv_leave(e->done < e->asked ? drv_drain(e->stream, e, e->asked) : MOE_CU_OK);
}

/* The first question is answered with "not ready", and the work is done then, so that who asks in a loop
 * comes to an end. */
moe_cu_result cuEventQuery(moe_cu_event e)
{
    ENTER(cuEventQuery, DRV_CONTEXT);
    if (e->done >= e->asked) return drv_leave(MOE_CU_OK);
    moe_cu_result r = drv_drain(e->stream, e, e->asked);
    return drv_leave(r != MOE_CU_OK ? r : MOE_CU_NOT_READY);
}

/* The manual, "Event Management", cuEventElapsedTime: both were recorded, and both keep times. */
moe_cu_result cuEventElapsedTime(float *ms, moe_cu_event from, moe_cu_event to)
{
    ENTER(cuEventElapsedTime, DRV_CONTEXT);
    if (!from->asked || !to->asked || !from->timed || !to->timed) return drv_leave(MOE_CU_INVALID_HANDLE);
    if (from->done < from->asked || to->done < to->asked) return drv_leave(MOE_CU_NOT_READY);
    *ms = (float)((to->when - from->when) * 1e3);
    return drv_leave(MOE_CU_OK);
}

/* ---- copies ---- */

/* The manual, "API synchronization behavior": from memory that can be paged out the bytes are taken before
 * the call returns; from pinned memory they are read when the copy is done. */
moe_cu_result cuMemcpyHtoDAsync_v2(moe_cu_ptr to, const void *from, size_t bytes, moe_cu_stream s)
{
    ENTER(cuMemcpyHtoDAsync_v2, DRV_CONTEXT);
    moe_cu_result r = usable(s);
    if (r == MOE_CU_OK && !drv_can(to, bytes, true)) r = MOE_CU_INVALID_VALUE;
    if (r != MOE_CU_OK) return drv_leave(r);
    bool later = s->capture || drv_is_pinned(from, bytes);
    struct drv_op *op = new_op(DRV_IN, from, later ? 0 : bytes);
    if (!op) return drv_leave(MOE_CU_OUT_OF_MEMORY);
    op->to = to;
    op->bytes = bytes;
    op->host_from = later ? from : NULL;
    return drv_leave(append(s, op));
}

/* The same page: a copy to memory that can be paged out is done when the call returns. */
moe_cu_result cuMemcpyDtoHAsync_v2(void *to, moe_cu_ptr from, size_t bytes, moe_cu_stream s)
{
    ENTER(cuMemcpyDtoHAsync_v2, DRV_CONTEXT);
    moe_cu_result r = usable(s);
    if (r == MOE_CU_OK && !drv_can(from, bytes, false)) r = MOE_CU_INVALID_VALUE;
    struct drv_op *op = r == MOE_CU_OK ? new_op(DRV_OUT, NULL, 0) : NULL;
    if (r != MOE_CU_OK || !op) return drv_leave(r != MOE_CU_OK ? r : MOE_CU_OUT_OF_MEMORY);
    op->from = from;
    op->bytes = bytes;
    op->host_to = to;
    r = append(s, op);
    if (r == MOE_CU_OK && !s->capture && !drv_is_pinned(to, bytes)) r = drv_drain(s, NULL, 0);
    return drv_leave(r);
}

moe_cu_result cuMemcpyDtoDAsync_v2(moe_cu_ptr to, moe_cu_ptr from, size_t bytes, moe_cu_stream s)
{
    ENTER(cuMemcpyDtoDAsync_v2, DRV_CONTEXT);
    moe_cu_result r = usable(s);
    if (r == MOE_CU_OK && (!drv_can(from, bytes, false) || !drv_can(to, bytes, true)))
        r = MOE_CU_INVALID_VALUE;
    if (r == MOE_CU_OK && from < to + bytes && to < from + bytes) r = MOE_CU_INVALID_VALUE;
    struct drv_op *op = r == MOE_CU_OK ? new_op(DRV_WITHIN, NULL, 0) : NULL;
    if (r != MOE_CU_OK || !op) return drv_leave(r != MOE_CU_OK ? r : MOE_CU_OUT_OF_MEMORY);
    op->to = to;
    op->from = from;
    op->bytes = bytes;
    return drv_leave(append(s, op));
}

moe_cu_result cuMemsetD8Async(moe_cu_ptr to, unsigned char byte, size_t n, moe_cu_stream s)
{
    ENTER(cuMemsetD8Async, DRV_CONTEXT);
    moe_cu_result r = usable(s);
    if (r == MOE_CU_OK && !drv_can(to, n, true)) r = MOE_CU_INVALID_VALUE;
    struct drv_op *op = r == MOE_CU_OK ? new_op(DRV_FILL, NULL, 0) : NULL;
    if (r != MOE_CU_OK || !op) return drv_leave(r != MOE_CU_OK ? r : MOE_CU_OUT_OF_MEMORY);
    op->to = to;
    op->byte = byte;
    op->bytes = n;
    return drv_leave(append(s, op));
}

/* ---- launches ---- */

/* The manual, "Execution Control", cuLaunchKernel, and the table "Technical Specifications per Compute
 * Capability" of the programming guide: the sizes of grids and blocks; shared memory above 48 KiB, static
 * memory included, has to be allowed for the function first.  Static memory is known only while the kernel
 * runs, so that shared.c has the last word. */
static moe_cu_result check_launch(const struct CUfunc_st *f, const unsigned grid[3], unsigned threads,
                                  unsigned shared, void **extra)
{
    unsigned allowed = f->allowed == SHIM_NOT_ALLOWED ? 48 << 10 : (unsigned)f->allowed;
    if (extra || !grid[0] || !grid[1] || !grid[2] || !threads) return MOE_CU_INVALID_VALUE;
    if (grid[0] > 0x7fffffff || grid[1] > 65535 || grid[2] > 65535) return MOE_CU_INVALID_VALUE;
    if (threads > 1024 || shared > allowed) return MOE_CU_INVALID_VALUE;
    return threads > f->kernel->threads ? MOE_CU_LAUNCH_RESOURCES : MOE_CU_OK;
}

moe_cu_result cuLaunchKernel(moe_cu_function f, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                             unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                             moe_cu_stream s, void **args, void **extra)
{
    ENTER(cuLaunchKernel, DRV_CONTEXT);
    unsigned grid[3] = { grid_x, grid_y, grid_z };
    moe_cu_result r = usable(s);
    if (r == MOE_CU_OK && (block_y != 1 || block_z != 1)) r = MOE_CU_NOT_SUPPORTED; /* nobody uses these */
    if (r == MOE_CU_OK) r = check_launch(f, grid, block_x, shared_bytes, extra);
    struct drv_op *op = r == MOE_CU_OK ? new_op(DRV_LAUNCH, args[0], f->kernel->bytes) : NULL;
    if (r != MOE_CU_OK || !op) return drv_leave(r != MOE_CU_OK ? r : MOE_CU_OUT_OF_MEMORY);
    op->kernel = f->kernel;
    memcpy(op->grid, grid, sizeof grid);
    op->threads = block_x;
    op->shared = shared_bytes;
    op->allowed = f->allowed;
    return drv_leave(append(s, op));
}

/* ---- graphs ---- */

moe_cu_result cuStreamBeginCapture_v2(moe_cu_stream s, moe_cu_capture_mode mode)
{
    ENTER(cuStreamBeginCapture_v2, DRV_CONTEXT);
    if (!is_stream(s)) return drv_leave(MOE_CU_INVALID_HANDLE);
    if (s->capture || mode < 0 || mode > 2) return drv_leave(MOE_CU_INVALID_VALUE);
    s->capture = calloc(1, sizeof *s->capture);
    if (!s->capture) return drv_leave(MOE_CU_OUT_OF_MEMORY);
    s->capture->tail = &s->capture->head;
    return drv_leave(MOE_CU_OK);
}

static void drop_graph(struct CUgraph_st *g)
{
    if (--g->users > 0) return;
    free_ops(g->head);
    free(g);
}

moe_cu_result cuStreamEndCapture(moe_cu_stream s, moe_cu_graph *g)
{
    ENTER(cuStreamEndCapture, DRV_CONTEXT);
    *g = NULL;
    if (!is_stream(s) || !s->capture) return drv_leave(MOE_CU_INVALID_HANDLE);
    struct CUgraph_st *made = s->capture;
    bool invalid = s->invalid;
    s->capture = NULL;
    s->invalid = false;
    made->users = 1;
    if (invalid) {
        drop_graph(made);
        return drv_leave(MOE_CU_CAPTURE_INVALIDATED);
    }
    *g = made;
    drv_left.graphs++;
    return drv_leave(MOE_CU_OK);
}

moe_cu_result cuGraphInstantiateWithFlags(moe_cu_graph_exec *e, moe_cu_graph g, unsigned long long flags)
{
    ENTER(cuGraphInstantiateWithFlags, DRV_CONTEXT);
    if (flags) return drv_leave(MOE_CU_INVALID_VALUE);
    int64_t bytes = 0;
    for (const struct drv_op *op = g->head; op; op = op->next) bytes += DRV_NODE_BYTES;
    *e = drv_take(drv_context()->device, bytes) ? calloc(1, sizeof **e) : NULL;
    if (!*e) return drv_leave(MOE_CU_OUT_OF_MEMORY);
    **e = (struct CUgraphExec_st){ .graph = g, .device = drv_context()->device, .bytes = bytes };
    g->users++;
    drv_left.graphs++;
    return drv_leave(MOE_CU_OK);
}

/* A copy of an op for one run; events get a record of their own in each run. */
static struct drv_op *again(const struct drv_op *op, struct CUstream_st *s)
{
    struct drv_op *c = new_op(op->kind, op->data, op->kind == DRV_LAUNCH ? op->kernel->bytes : 0);
    if (!c) return NULL;
    memcpy(c, op, sizeof *c);
    c->next = NULL;
    if (c->kind == DRV_RECORD) c->record = ++c->event->asked, c->event->stream = s;
    return c;
}

moe_cu_result cuGraphLaunch(moe_cu_graph_exec e, moe_cu_stream s)
{
    ENTER(cuGraphLaunch, DRV_CONTEXT);
    moe_cu_result r = usable(s);
    if (r == MOE_CU_OK && s->capture) r = MOE_CU_NOT_SUPPORTED; /* a graph within a graph: not here */
    for (const struct drv_op *op = e->graph->head; op && r == MOE_CU_OK; op = op->next)
        r = append(s, again(op, s));
    return drv_leave(r);
}

moe_cu_result cuGraphDestroy(moe_cu_graph g)
{
    ENTER(cuGraphDestroy, DRV_BACK);
    drop_graph(g);
    drv_left.graphs--;
    return drv_leave(MOE_CU_OK);
}

moe_cu_result cuGraphExecDestroy(moe_cu_graph_exec e)
{
    ENTER(cuGraphExecDestroy, DRV_BACK);
    drv_take(e->device, -e->bytes);
    drop_graph(e->graph);
    free(e);
    drv_left.graphs--;
    return drv_leave(MOE_CU_OK);
}
