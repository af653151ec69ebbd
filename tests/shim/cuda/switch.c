/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/switch.c - switches between flows of execution (internal.h): a few instructions on x86-64,
 * ucontext elsewhere. */
#include "tests/shim/cuda/internal.h"

#include <pthread.h>
#include <string.h>

#if SHIM_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

/* Saves the registers that a function must keep, and the stack pointer to *save; then the other way round. */
#if defined(__x86_64__)
void shim_swap_stacks(void **save, void *to);
__asm__(".text\n.hidden shim_swap_stacks\n.globl shim_swap_stacks\n.type shim_swap_stacks, @function\n"
        "shim_swap_stacks:\n"
        "push %rbp\npush %rbx\npush %r12\npush %r13\npush %r14\npush %r15\n"
        "mov %rsp, (%rdi)\nmov %rsi, %rsp\n"
        "pop %r15\npop %r14\npop %r13\npop %r12\npop %rbx\npop %rbp\nret\n"
        ".size shim_swap_stacks, . - shim_swap_stacks\n");
#endif

void shim_switched(struct shim_context *c)
{
#if SHIM_ASAN
    __sanitizer_finish_switch_fiber(c ? c->fake : NULL, NULL, NULL);
#else
    (void)c;
#endif
}

void shim_context_here(struct shim_context *c)
{
#if SHIM_ASAN
    pthread_attr_t attr;
    void *bottom = NULL;
    if (pthread_getattr_np(pthread_self(), &attr) == 0) {
        pthread_attr_getstack(&attr, &bottom, &c->size);
        pthread_attr_destroy(&attr);
    }
    c->bottom = bottom;
#else
    (void)c;
#endif
}

void shim_context_left(struct shim_context *here)
{
#if SHIM_ASAN
    __sanitizer_start_switch_fiber(NULL, here->bottom, here->size);
#endif
    shim_switched(here);
}

void shim_context_begin(struct shim_context *c, unsigned char *stack, size_t size)
{
    c->bottom = stack, c->size = size;
#if SHIM_ASAN
    ASAN_UNPOISON_MEMORY_REGION(stack, size); /* what the thread before left there */
#endif
#if defined(__x86_64__)
    /* as shim_swap_stacks leaves it: six registers, and where to return to; there the stack is a multiple of
     * 16, less the 8 bytes of a call */
    void **top = (void **)(stack + size);
    *--top = NULL;
    *--top = (void *)(uintptr_t)shim_thread_main;
    top -= 6;
    memset(top, 0, 6 * sizeof *top);
    c->stack_pointer = top;
#else
    getcontext(&c->registers);
    c->registers.uc_stack.ss_sp = stack;
    c->registers.uc_stack.ss_size = size;
    c->registers.uc_link = NULL;
    makecontext(&c->registers, shim_thread_main, 0);
#endif
}

void shim_switch(struct shim_context *from, struct shim_context *to)
{
    struct shim_context gone;
    struct shim_context *save = from ? from : &gone;
#if SHIM_ASAN
    __sanitizer_start_switch_fiber(from ? &from->fake : NULL, to->bottom, to->size);
#endif
#if defined(__x86_64__)
    shim_swap_stacks(&save->stack_pointer, to->stack_pointer);
#else
    swapcontext(&save->registers, &to->registers);
#endif
    shim_switched(from);
}
