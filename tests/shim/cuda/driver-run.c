/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in for NVIDIA's driver: does what was queued.  A kernel that touches an address without memory
 * ends there, and its launch is an illegal access. */
#include "tests/shim/cuda/driver.h"

#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static sigjmp_buf after_fault;
static volatile sig_atomic_t in_kernel;
static struct sigaction before;

/* Device addresses, and those next to 0, are the kernel's fault; anything else is ours or the host's. */
static void on_fault(int sig, siginfo_t *info, void *context)
{
    uintptr_t at = (uintptr_t)info->si_addr;
    if (in_kernel && (at < 1 << 20 || drv_is_device(at))) siglongjmp(after_fault, 1);
    if (before.sa_flags & SA_SIGINFO) before.sa_sigaction(sig, info, context);
    else signal(sig, SIG_DFL); /* the access is tried again, and ends the process */
}

static moe_cu_result launch(const struct drv_op *op)
{
    static unsigned char stack[64 << 10]; /* of the handler: the one of a fiber is small */
    struct sigaction a = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK };
    stack_t mine = { .ss_sp = stack, .ss_size = sizeof stack }, theirs;
    moe_cu_result r = MOE_CU_OK;
    sigaltstack(&mine, &theirs);
    sigaction(SIGSEGV, &a, &before);
    if (sigsetjmp(after_fault, 1) == 0) {
        in_kernel = 1;
        shim_launch(op->kernel, op->grid, op->threads, op->shared, op->allowed, op->data);
    } else {
        in_kernel = 0;
        shim_abandon();
        r = MOE_CU_ILLEGAL_ADDRESS;
    }
    in_kernel = 0;
    sigaction(SIGSEGV, &before, NULL);
    sigaltstack(&theirs, NULL);
    return r;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Copies from host or device memory to host or device memory; `from_host` or `to_host` is NULL where the
 * address is one of the device. */
static moe_cu_result copy(const struct drv_op *op, const unsigned char *from_host, unsigned char *to_host)
{
    for (size_t done = 0, n; done < op->bytes; done += n) {
        n = op->bytes - done;
        unsigned char *to = to_host ? to_host + done : drv_alias(op->to + done, &n, true);
        const unsigned char *from = from_host ? from_host + done : drv_alias(op->from + done, &n, false);
        if (!from || !to) return MOE_CU_ILLEGAL_ADDRESS;
        memcpy(to, from, n);
    }
    return MOE_CU_OK;
}

static moe_cu_result fill(const struct drv_op *op)
{
    for (size_t done = 0, n; done < op->bytes; done += n) {
        n = op->bytes - done;
        unsigned char *to = drv_alias(op->to + done, &n, true);
        if (!to) return MOE_CU_ILLEGAL_ADDRESS;
        memset(to, op->byte, n);
    }
    return MOE_CU_OK;
}

moe_cu_result drv_do(const struct drv_op *op)
{
    switch (op->kind) {
    case DRV_LAUNCH: drv_open_memory(); return launch(op);
    case DRV_FILL: return fill(op);
    case DRV_IN: return copy(op, op->host_from ? op->host_from : op->data, NULL);
    case DRV_OUT: return copy(op, NULL, op->host_to);
    case DRV_WITHIN: return copy(op, NULL, NULL);
    case DRV_WAIT: return op->event->stream ? drv_drain(op->event->stream, op->event, op->record) : MOE_CU_OK;
    case DRV_RECORD:
        op->event->done = op->record;
        op->event->when = now();
    }
    return MOE_CU_OK;
}
