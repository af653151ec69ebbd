/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/internal.h - what the files of the shim share: contexts that fibers switch between, shared
 * memory, asynchronous copies. */
#ifndef MOE_TESTS_SHIM_CUDA_INTERNAL_H
#define MOE_TESTS_SHIM_CUDA_INTERNAL_H

#include "tests/shim/cuda/shim.h"

#if !defined(__x86_64__)
#include <ucontext.h>
#endif
#if defined(__SANITIZE_ADDRESS__)
#define SHIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SHIM_ASAN 1
#endif
#endif
#ifndef SHIM_ASAN
#define SHIM_ASAN 0
#endif

/* ---- switch.c: a flow of execution with a stack of its own ---- */

struct shim_context {
#if defined(__x86_64__)
    void *stack_pointer;
#else
    ucontext_t registers;
#endif
    const void *bottom; /* of the stack, for sanitizers; NULL: the process's own */
    size_t size;
    void *fake;
};

/* Prepares a flow that begins with shim_thread_main. */
void shim_context_begin(struct shim_context *c, unsigned char *stack, size_t size);
/* Notes the stack of the flow that calls it, which sanitizers want to know. */
void shim_context_here(struct shim_context *c);
/* Goes on with `to`, and saves here where this flow is to be taken up again; from is NULL where it never is.
 * */
void shim_switch(struct shim_context *from, struct shim_context *to);
/* After a jump out of another flow into this one. */
void shim_context_left(struct shim_context *here);
/* The first call of a new flow, with NULL; shim_switch itself calls it after a return. */
void shim_switched(struct shim_context *c);
_Noreturn void shim_thread_main(void);

/* ---- shared.c: the block's shared memory ---- */

/* Bytes of a block on sm_90: the most there can be; the most of static arrays, and the most of static and
 * dynamic memory of a kernel that was allowed no more. */
enum { SHIM_SHARED = 232448, SHIM_STATIC = 48 << 10 };

void shim_shared_size(size_t dynamic, int allowed); /* of the launch that begins: as of shim_launch */
void shim_shared_begin(void);                       /* a block begins */

/* ---- copies of cp.async, in the order they were asked for; `group` is that of the next ---- */

struct shim_one_copy { unsigned char *to; const unsigned char *from; unsigned n, size, group; };
struct shim_copies { struct shim_one_copy *copy; size_t n, room; unsigned group; };
struct shim_copies *shim_copies_here(void); /* those of the thread that runs */

#endif
