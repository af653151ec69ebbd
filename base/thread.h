/* SPDX-License-Identifier: Apache-2.0 */
/* base/thread.h - threads whose stack size does not depend on the shell's limit (ulimit -s), which the C
 * library takes otherwise.
 *
 * Kernels keep panels of some hundred KiB on the stack, and the recursion of a split is as deep as a plan has
 * ranks. */
#ifndef MOE_BASE_THREAD_H
#define MOE_BASE_THREAD_H

#include <pthread.h>

enum { MOE_STACK_BYTES = 8 << 20 };

/* As pthread_create, 0 or an error number; the caller joins it. */
int moe_thread_start(pthread_t *thread, void *(*fn)(void *), void *arg);

#endif
