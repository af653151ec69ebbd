/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/driver.h - what the files of the stand-in for NVIDIA's driver share.
 *
 * The stand-in is a libcuda.so.1 with the functions of model/ops/cuda/api.h.  Device memory is memory of the
 * process that the host cannot touch outside of copies and launches: its pages have no access rights then.
 * Work on a stream is done late, when somebody waits for it, in the thread that waits.  What NVIDIA's manual
 * (docs.nvidia.com/cuda/cuda-driver-api, "the manual") forbids is refused, and the comments say where it says
 * so.  A kernel that touches an address without memory makes every later call fail, as on a GPU.
 *
 * The environment:
 *   MOE_SHIM_DEVICES=N        how many GPUs there are (1)
 *   MOE_SHIM_MEMORY=BYTES     the memory of each (4 GiB)
 *   MOE_SHIM_VERSION=N        the version of the API (13000)
 *   MOE_SHIM_MAJOR=N          the compute capability (9)
 *   MOE_SHIM_SHARED=BYTES     the most shared memory of a block (227 KiB)
 *   MOE_SHIM_HAS=WORD,...     abilities: vmm, fd, fabric, host-pages (vmm,fd)
 *   MOE_SHIM_FAIL=CALL:N[:R]  the Nth call of this function fails with result R (999); CALL "any" counts all
 *                             but those that give something back.  Results that end a context do so here.
 *
 * All state is under one lock, which every function takes. */
#ifndef MOE_TESTS_SHIM_CUDA_DRIVER_H
#define MOE_TESTS_SHIM_CUDA_DRIVER_H

#include "model/ops/cuda/api.h"
#include "tests/shim/cuda/shim.h"

#include <stdbool.h>

#define API __attribute__((visibility("default")))
#define X(name, params) API moe_cu_result name params;
MOE_CU_FUNCTIONS(X)
#undef X

enum { DRV_GRANULARITY = 2 << 20, DRV_SHARED = 227 << 10, DRV_DEVICES = 8 };




/* ---- calls ---- */

/* What a call needs: nothing; nothing, and it gives something back, also after an error; a started driver; a
 * current context as well. */
enum drv_need { DRV_NOTHING, DRV_BACK, DRV_STARTED, DRV_CONTEXT };
/* Takes the lock, unless the call must fail: then returns why.  leave: gives it back, and returns r. */
moe_cu_result drv_enter(const char *call, enum drv_need need);
moe_cu_result drv_leave(moe_cu_result r);
#define ENTER(call, need)                                        \
    do {                                                         \
        moe_cu_result entered_ = drv_enter(#call, need);        \
        if (entered_ != MOE_CU_OK) return entered_;              \
    } while (0)

struct CUctx_st { int device, retained; };
struct CUctx_st *drv_context(void);         /* of this thread; NULL: none */
void drv_lose(moe_cu_result r);             /* from now on every call fails with r */
uint64_t drv_memory(void);                  /* bytes of each device */
/* Takes so much of a device's memory for the driver itself, or (negative) gives it back; false: it is not
 * there. */
bool drv_take(int device, int64_t bytes);
bool drv_has(const char *ability);
/* What a node of a graph that can be launched takes of the device's memory: the manual does not say. */
enum { DRV_NODE_BYTES = 8192 };

/* ---- memory ---- */

/* Pieces of device memory that have an address: mapped or allocated.  bytes: what the caller may use. */
struct drv_piece {
    struct drv_piece *next;
    uintptr_t at; size_t bytes;
    unsigned char *alias;                    /* the same memory, for the stand-in's own copies */
    struct drv_physical *physical;
    int access;                              /* MOE_CU_ACCESS_*, 0: none yet */
    bool allocated;                          /* by cuMemAlloc */
    uintptr_t page; size_t page_bytes;       /* the whole pages that hold it */
};
/* Whether all of [at, at + bytes) has memory that may be read, or written. */
bool drv_can(moe_cu_ptr at, size_t bytes, bool write);
/* Where the stand-in itself reads or writes device memory at `at`; *bytes is reduced to what lies there in
 * one piece.  NULL where there is none that may be read, or written. */
unsigned char *drv_alias(moe_cu_ptr at, size_t *bytes, bool write);
bool drv_is_pinned(const void *p, size_t bytes);
/* Opens device memory for kernels, unless it is open, and closes it for everybody. */
void drv_open_memory(void);
void drv_close_memory(void);                 /* nothing where it is closed */
bool drv_is_device(uintptr_t at);           /* whether it lies in a reserved range or near an allocation */

/* ---- work ---- */

enum drv_op_kind { DRV_LAUNCH, DRV_IN, DRV_OUT, DRV_WITHIN, DRV_FILL, DRV_RECORD, DRV_WAIT };
struct drv_op {
    struct drv_op *next;
    enum drv_op_kind kind;
    const struct shim_kernel *kernel;        /* LAUNCH, with its arguments in `data` */
    unsigned grid[3], threads; size_t shared; int allowed;
    moe_cu_ptr to, from;                     /* IN, OUT, WITHIN, FILL */
    const void *host_from; void *host_to;    /* IN: NULL when the bytes are in `data` */
    size_t bytes; unsigned char byte;
    moe_cu_event event; uint64_t record;     /* RECORD, WAIT */
    _Alignas(16) unsigned char data[];
};
struct CUstream_st {
    struct CUstream_st *next;
    struct drv_op *head, **tail;            /* what is to be done */
    struct CUgraph_st *capture;              /* NULL: not capturing */
    bool invalid;                            /* the capture has failed */
};
struct CUevent_st { uint64_t asked, done; struct CUstream_st *stream; double when; bool timed; };
struct CUfunc_st { const struct shim_kernel *kernel; int allowed; }; /* as of shim_launch */

/* Does the op; a kernel's fault is a result. */
moe_cu_result drv_do(const struct drv_op *op);
/* Does what is queued on all streams; on one, up to the record of an event (0: everything). */
moe_cu_result drv_drain_all(void);
moe_cu_result drv_drain(struct CUstream_st *s, moe_cu_event e, uint64_t record);
/* For calls that must not be made while a stream captures: MOE_CU_CAPTURE_UNSUPPORTED, and the capture is
 * lost, when one does. */
moe_cu_result drv_not_capturing(void);

/* ---- what is left: for tests ---- */

/* The number of objects of each kind that somebody made and has not given back. */
struct drv_left {
    long contexts, modules, streams, events, graphs, allocations, pinned, ranges, handles, maps;
};
extern struct drv_left drv_left;
API long moe_shim_left(char *text, size_t cap); /* their sum; text: "2 allocations, 1 stream" */
API long moe_shim_calls(void);                  /* how many calls were made so far */

#endif
