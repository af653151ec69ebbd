/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in for NVIDIA's driver (tests/shim/cuda/driver.h) refuses what the driver's manual forbids, and
 * does work as late and in as much order as the manual promises, so that a host side that passes here does
 * not lean on what only the stand-in allows. */
#include "model/ops/cuda/driver.h"

#include "tests/ok.h"
#include "tests/shim/cuda/open.h"

#include <stdint.h>
#include <sys/mman.h>

static const struct moe_driver *d;
static moe_cu_stream s;
static struct moe_err err;

#define IS(result, call) OK((call) == (result))
#define DONE(call) IS(MOE_CU_OK, call)

enum { STEP = 2 << 20 };

static moe_cu_alloc_prop prop(int handles)
{
    struct moe_cu_location here = { MOE_CU_AT_DEVICE, 0 };
    return (moe_cu_alloc_prop){ .type = MOE_CU_PINNED, .handles = handles, .location = here };
}

/* ---- order of calls ---- */

static void test_start(void)
{
    int n;
    moe_cu_context c;
    IS(MOE_CU_INVALID_VALUE, d->cuInit(1));
    IS(MOE_CU_INVALID_DEVICE, d->cuDeviceGet(&n, 1));
    IS(MOE_CU_INVALID_DEVICE, d->cuDeviceGetAttribute(&n, MOE_CU_MAJOR, 7));
    moe_cu_ptr p;
    IS(MOE_CU_INVALID_CONTEXT, d->cuMemAlloc_v2(&p, 4)); /* before there is a context */
    IS(MOE_CU_INVALID_CONTEXT, d->cuStreamCreate(&s, 0));
    DONE(d->cuDevicePrimaryCtxRetain(&c, 0));
    DONE(d->cuCtxSetCurrent(c));
    IS(MOE_CU_INVALID_VALUE, d->cuStreamCreate(&s, 8));
    DONE(d->cuStreamCreate(&s, MOE_CU_STREAM_NON_BLOCKING));
    moe_cu_module m;
    IS(MOE_CU_INVALID_IMAGE, d->cuModuleLoadData(&m, "an image of something else"));
}

/* ---- memory ---- */

static void test_memory(void)
{
    moe_cu_ptr p, q;
    char host[16];
    void *pinned;
    size_t left, left_then, all;
    IS(MOE_CU_INVALID_VALUE, d->cuMemAlloc_v2(&p, 0));
    DONE(d->cuMemGetInfo_v2(&left, &all));
    IS(MOE_CU_OUT_OF_MEMORY, d->cuMemAlloc_v2(&p, all + 1));
    DONE(d->cuMemAlloc_v2(&p, 1000));
    DONE(d->cuMemAlloc_v2(&q, 1000));
    DONE(d->cuMemGetInfo_v2(&left_then, &all));
    OK(left_then < left && p % 256 == 0);
    /* copies and fills must lie in memory */
    IS(MOE_CU_INVALID_VALUE, d->cuMemcpyHtoDAsync_v2(p + 990, host, 16, s));
    IS(MOE_CU_INVALID_VALUE, d->cuMemcpyDtoHAsync_v2(host, p - 1, 2, s));
    IS(MOE_CU_INVALID_VALUE, d->cuMemsetD8Async(p, 0, 1001, s));
    IS(MOE_CU_INVALID_VALUE, d->cuMemcpyDtoDAsync_v2(p + 4, p, 8, s)); /* they overlap */
    IS(MOE_CU_INVALID_HANDLE, d->cuMemsetD8Async(p, 0, 8, NULL));      /* there is no default stream here */
    IS(MOE_CU_INVALID_VALUE, d->cuMemFree_v2(p + 256));
    IS(MOE_CU_INVALID_VALUE, d->cuMemFreeHost(host));
    IS(MOE_CU_INVALID_VALUE, d->cuMemHostAlloc(&pinned, 0, 0));
    DONE(d->cuMemFree_v2(p));
    IS(MOE_CU_INVALID_VALUE, d->cuMemFree_v2(p)); /* twice */
    DONE(d->cuMemFree_v2(q));
    DONE(d->cuMemGetInfo_v2(&left_then, &all));
    OK(left_then == left);
}

/* Work is done when somebody waits, and what pinned memory holds then is what is copied. */
static void test_late(void)
{
    moe_cu_ptr p;
    void *pinned, *back;
    unsigned char pageable[4] = { 1, 1, 1, 1 };
    moe_cu_event before, after, untimed;
    float ms;
    DONE(d->cuMemAlloc_v2(&p, 4));
    DONE(d->cuMemHostAlloc(&pinned, 4, MOE_CU_HOST_PORTABLE));
    DONE(d->cuMemHostAlloc(&back, 4, 0));
    DONE(d->cuEventCreate(&before, 0));
    DONE(d->cuEventCreate(&after, 0));
    DONE(d->cuEventCreate(&untimed, MOE_CU_EVENT_UNTIMED));
    memset(pinned, 1, 4);
    memset(back, 0, 4);
    DONE(d->cuEventRecord(before, s));
    DONE(d->cuMemcpyHtoDAsync_v2(p, pinned, 4, s));
    DONE(d->cuMemcpyDtoHAsync_v2(back, p, 4, s));
    DONE(d->cuEventRecord(after, s));
    IS(MOE_CU_INVALID_HANDLE, d->cuEventElapsedTime(&ms, untimed, after));
    IS(MOE_CU_NOT_READY, d->cuEventElapsedTime(&ms, before, after));
    memset(pinned, 2, 4);
    OK(!*(unsigned char *)back);
    IS(MOE_CU_NOT_READY, d->cuEventQuery(after));
    DONE(d->cuEventSynchronize(after));
    OK(*(unsigned char *)back == 2);
    DONE(d->cuEventElapsedTime(&ms, before, after));
    OK(ms >= 0);

    /* memory that can be paged out is read before the call returns, and written before it returns */
    DONE(d->cuMemcpyHtoDAsync_v2(p, pageable, 4, s));
    memset(pageable, 9, 4);
    DONE(d->cuMemcpyDtoHAsync_v2(pageable, p, 4, s));
    OK(pageable[3] == 1);

    /* a stream waits for an event of another one */
    moe_cu_stream other;
    DONE(d->cuStreamCreate(&other, 0));
    DONE(d->cuMemsetD8Async(p, 7, 4, s));
    DONE(d->cuEventRecord(after, s));
    DONE(d->cuStreamWaitEvent(other, after, 0));
    DONE(d->cuMemcpyDtoHAsync_v2(back, p, 4, other));
    DONE(d->cuStreamSynchronize(other));
    OK(*(unsigned char *)back == 7);
    DONE(d->cuStreamDestroy_v2(other));
    IS(MOE_CU_INVALID_HANDLE, d->cuStreamSynchronize(other));
    DONE(d->cuEventDestroy_v2(before));
    DONE(d->cuEventDestroy_v2(after));
    DONE(d->cuEventDestroy_v2(untimed));
    DONE(d->cuMemFreeHost(pinned));
    DONE(d->cuMemFreeHost(back));
    DONE(d->cuMemFree_v2(p));
}

/* ---- capture ---- */

static void test_capture(void)
{
    moe_cu_ptr p, q;
    moe_cu_graph g;
    moe_cu_graph_exec e;
    void *pinned;
    DONE(d->cuMemAlloc_v2(&p, 4));
    IS(MOE_CU_INVALID_HANDLE, d->cuStreamEndCapture(s, &g));
    DONE(d->cuStreamBeginCapture_v2(s, MOE_CU_CAPTURE_THREAD));
    IS(MOE_CU_INVALID_VALUE, d->cuStreamBeginCapture_v2(s, MOE_CU_CAPTURE_THREAD));
    DONE(d->cuMemsetD8Async(p, 3, 4, s));
    DONE(d->cuStreamEndCapture(s, &g));
    IS(MOE_CU_INVALID_VALUE, d->cuGraphInstantiateWithFlags(&e, g, 64));
    DONE(d->cuGraphInstantiateWithFlags(&e, g, 0));
    DONE(d->cuGraphDestroy(g)); /* what was made of it lives on */
    DONE(d->cuGraphLaunch(e, s));
    DONE(d->cuStreamSynchronize(s));

    /* calls that may wait end a capture: all of them, one at a time */
    for (int i = 0; i < 5; i++) {
        DONE(d->cuStreamBeginCapture_v2(s, MOE_CU_CAPTURE_THREAD));
        IS(MOE_CU_CAPTURE_UNSUPPORTED, i == 0   ? d->cuMemAlloc_v2(&q, 4)
                                       : i == 1 ? d->cuMemFree_v2(p)
                                       : i == 2 ? d->cuMemHostAlloc(&pinned, 4, 0)
                                       : i == 3 ? d->cuMemFreeHost(NULL)
                                                : d->cuStreamSynchronize(s));
        IS(MOE_CU_CAPTURE_INVALIDATED, d->cuMemsetD8Async(p, 3, 4, s));
        IS(MOE_CU_CAPTURE_INVALIDATED, d->cuStreamEndCapture(s, &g));
        OK(!g);
    }
    DONE(d->cuGraphExecDestroy(e));
    DONE(d->cuMemFree_v2(p));
}

/* ---- address ranges ---- */

static void test_ranges(void)
{
    moe_cu_ptr p, q;
    moe_cu_handle h, exported;
    moe_cu_alloc_prop plain = prop(0), shared = prop(MOE_CU_HANDLE_FD), wrong;
    moe_cu_alloc_prop fabric = prop(MOE_CU_HANDLE_FABRIC);
    moe_cu_access_desc access = { { MOE_CU_AT_DEVICE, 0 }, MOE_CU_ACCESS_WRITE }, other = access;
    size_t step;
    int fd;
    DONE(d->cuMemGetAllocationGranularity(&step, &plain, MOE_CU_GRANULARITY_RECOMMENDED));
    OK(step == STEP);
    IS(MOE_CU_INVALID_VALUE, d->cuMemAddressReserve(&p, STEP + 4096, 0, 0, 0));
    IS(MOE_CU_INVALID_VALUE, d->cuMemAddressReserve(&p, STEP, 3 * STEP, 0, 0));
    IS(MOE_CU_INVALID_VALUE, d->cuMemAddressReserve(&p, STEP, 0, 0, 1));
    DONE(d->cuMemAddressReserve(&p, 4ull * STEP, 0, 0, 0));
    IS(MOE_CU_INVALID_VALUE, d->cuMemCreate(&h, STEP - 1, &plain, 0));
    IS(MOE_CU_INVALID_VALUE, d->cuMemCreate(&h, STEP, &plain, 1));
    IS(MOE_CU_NOT_PERMITTED, d->cuMemCreate(&h, STEP, &fabric, 0)); /* without an IMEX channel */
    wrong = plain, wrong.location.id = 1;
    IS(MOE_CU_INVALID_VALUE, d->cuMemCreate(&h, STEP, &wrong, 0));
    wrong = plain, wrong.type = 0;
    IS(MOE_CU_INVALID_VALUE, d->cuMemCreate(&h, STEP, &wrong, 0));
    DONE(d->cuMemCreate(&h, STEP, &plain, 0));
    DONE(d->cuMemCreate(&exported, STEP, &shared, 0));

    IS(MOE_CU_INVALID_VALUE, d->cuMemMap(p + 4096, STEP, 0, h, 0));
    IS(MOE_CU_INVALID_VALUE, d->cuMemMap(p, STEP, 4096, h, 0));
    IS(MOE_CU_INVALID_VALUE, d->cuMemMap(p, 2ull * STEP, 0, h, 0));
    IS(MOE_CU_INVALID_VALUE, d->cuMemMap(p + 4ull * STEP, STEP, 0, h, 0)); /* past the range */
    DONE(d->cuMemMap(p + STEP, STEP, 0, h, 0));
    IS(MOE_CU_INVALID_VALUE, d->cuMemMap(p + STEP, STEP, 0, exported, 0)); /* where something is */
    IS(MOE_CU_INVALID_VALUE, d->cuMemsetD8Async(p + STEP, 1, 4, s));       /* before access is given */
    IS(MOE_CU_INVALID_VALUE, d->cuMemSetAccess(p, STEP, &access, 1));      /* of a hole */
    other.location.id = 3;
    IS(MOE_CU_INVALID_VALUE, d->cuMemSetAccess(p + STEP, STEP, &other, 1));
    access.flags = MOE_CU_ACCESS_READ;
    DONE(d->cuMemSetAccess(p + STEP, STEP, &access, 1));
    IS(MOE_CU_INVALID_VALUE, d->cuMemsetD8Async(p + STEP, 1, 4, s)); /* it may only be read */
    access.flags = MOE_CU_ACCESS_WRITE;
    DONE(d->cuMemSetAccess(p + STEP, STEP, &access, 1));
    DONE(d->cuMemsetD8Async(p + STEP, 1, 4, s));
    DONE(d->cuStreamSynchronize(s));

    /* a type of handle that was not asked for when the memory was made */
    IS(MOE_CU_INVALID_VALUE, d->cuMemExportToShareableHandle(&fd, h, MOE_CU_HANDLE_FD, 0));
    DONE(d->cuMemExportToShareableHandle(&fd, exported, MOE_CU_HANDLE_FD, 0));
    IS(MOE_CU_INVALID_VALUE, d->cuMemImportFromShareableHandle(&h, (void *)(intptr_t)0, MOE_CU_HANDLE_FD));
    OK(close(fd) == 0);

    DONE(d->cuMemRelease(h)); /* the mapping keeps the memory */
    IS(MOE_CU_INVALID_VALUE, d->cuMemAddressFree(p, 4ull * STEP)); /* something is mapped there */
    IS(MOE_CU_INVALID_VALUE, d->cuMemUnmap(p + STEP, STEP / 2));
    IS(MOE_CU_INVALID_VALUE, d->cuMemUnmap(p, 2ull * STEP)); /* a hole and a mapping */
    DONE(d->cuMemMap(p + 2ull * STEP, STEP, 0, exported, 0));
    DONE(d->cuMemUnmap(p + STEP, 2ull * STEP)); /* two whole mappings */
    IS(MOE_CU_INVALID_VALUE, d->cuMemAddressFree(p, 2ull * STEP));
    DONE(d->cuMemAddressFree(p, 4ull * STEP));
    DONE(d->cuMemRelease(exported));
    q = 0;
    IS(MOE_CU_INVALID_VALUE, d->cuMemFree_v2(q));
}

int main(void)
{
    setenv("MOE_SHIM_MEMORY", "67108864", 1);
    if (!standin_open()) return 77;
    OK(moe_driver(&d, &err) == MOE_OK);
    test_start();
    test_memory();
    test_late();
    test_capture();
    test_ranges();
    DONE(d->cuStreamDestroy_v2(s));
    DONE(d->cuDevicePrimaryCtxRelease_v2(0));
    IS(MOE_CU_INVALID_CONTEXT, d->cuDevicePrimaryCtxRelease_v2(0));
    OK(standin_left() == 0);
    printf("%ld checks\n", checks);
    return 0;
}
