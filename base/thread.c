/* SPDX-License-Identifier: Apache-2.0 */
#include "base/thread.h"

int moe_thread_start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
    pthread_attr_t a;
    int e = pthread_attr_init(&a);
    if (e) return e;
    e = pthread_attr_setstacksize(&a, MOE_STACK_BYTES);
    if (!e) e = pthread_create(thread, &a, fn, arg);
    pthread_attr_destroy(&a);
    return e;
}
