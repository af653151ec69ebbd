/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/open.h - for tests: opens the stand-in for NVIDIA's driver that the build put beside them,
 * so that model/ops/cuda/driver.c finds it under its name, and asks it what is left. */
#ifndef MOE_TESTS_SHIM_CUDA_OPEN_H
#define MOE_TESTS_SHIM_CUDA_OPEN_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *standin;

/* Opens ../shim/libcuda.so.1, seen from the folder of this program; false where it is not built. */
static inline bool standin_open(void)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - 64);
    path[n > 0 ? n : 0] = 0;
    char *slash = strrchr(path, '/');
    strcpy(slash ? slash : path, "/../shim/libcuda.so.1");
    standin = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
    if (!standin) fprintf(stderr, "%s\n", dlerror());
    return standin;
}

/* How many objects of the driver nobody has given back; says which on stderr. */
static inline long standin_left(void)
{
    long (*left)(char *, size_t) = NULL;
    void *p = dlsym(standin, "moe_shim_left");
    char text[512] = "?";
    memcpy(&left, &p, sizeof p);
    long n = left(text, sizeof text);
    if (n) fprintf(stderr, "left in the driver: %s\n", text);
    return n;
}

/* How many calls of the driver were made so far. */
static inline long standin_calls(void)
{
    long (*calls)(void) = NULL;
    void *p = dlsym(standin, "moe_shim_calls");
    memcpy(&calls, &p, sizeof p);
    return calls();
}

/* Lets the nth call of `function` ("any": of all) fail with this result; n = 0: none. */
static inline void standin_fail(const char *function, long n, int result)
{
    char text[128];
    snprintf(text, sizeof text, "%s:%ld:%d", function, n, result);
    setenv("MOE_SHIM_FAIL", n ? text : "", 1);
}

#endif
