/* SPDX-License-Identifier: Apache-2.0 */
#include "model/ops/cuda/driver.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* The first driver whose API has all of MOE_CU_FUNCTIONS, and that runs what the toolkits of CUDA 12 make. */
enum { OLDEST = 12000 };

static enum moe_code find_functions(struct moe_driver *d, void *lib, struct moe_err *err)
{
#define X(name, params)                                                                                    \
    {                                                                                                      \
        void *p = dlsym(lib, #name);                                                                       \
        if (!p)                                                                                            \
            return moe_fail(err, MOE_DEVICE, "the NVIDIA driver has no %s (install a driver for CUDA %d "  \
                            "or later)", #name, OLDEST / 1000);                                            \
        memcpy(&d->name, &p, sizeof p);                                                                    \
    }
    MOE_CU_FUNCTIONS(X)
#undef X
    return MOE_OK;
}

/* What cuInit's failures mean to a user. */
static enum moe_code start_failed(const struct moe_driver *d, moe_cu_result r, struct moe_err *err)
{
    if (r == MOE_CU_NO_DEVICE) return moe_fail(err, MOE_DEVICE, "the NVIDIA driver finds no GPU");
    if (r == MOE_CU_STUB)
        return moe_fail(err, MOE_DEVICE, "the libcuda.so.1 that was found is the toolkit's stub, which runs "
                        "nothing (put the driver's own library first in LD_LIBRARY_PATH)");
    if (r == MOE_CU_DRIVER_MISMATCH)
        return moe_fail(err, MOE_DEVICE, "the NVIDIA driver's library and its kernel module are of different "
                        "versions (restart this machine after the driver's update)");
    return moe_driver_fail(d, r, err, "cuInit");
}

static enum moe_code load(struct moe_driver *d, struct moe_err *err)
{
    void *lib = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!lib)
        return moe_fail(err, MOE_DEVICE, "no NVIDIA driver is installed (libcuda.so.1 cannot be opened)");
    MOE_TRY(find_functions(d, lib, err));
    moe_cu_result r = d->cuDriverGetVersion(&d->version);
    if (r != MOE_CU_OK) return moe_driver_fail(d, r, err, "cuDriverGetVersion");
    if (d->version < OLDEST)
        return moe_fail(err, MOE_DEVICE, "the NVIDIA driver is for CUDA %d.%d, which is too old (install one "
                        "for CUDA %d or later)", d->version / 1000, d->version % 1000 / 10, OLDEST / 1000);
    r = d->cuInit(0);
    return r == MOE_CU_OK ? MOE_OK : start_failed(d, r, err);
}

enum moe_code moe_driver(const struct moe_driver **out, struct moe_err *err)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static struct moe_driver d;
    static bool loaded;
    pthread_mutex_lock(&lock);
    enum moe_code code = loaded ? MOE_OK : load(&d, err);
    loaded |= code == MOE_OK;
    pthread_mutex_unlock(&lock);
    *out = &d;
    return code;
}

enum moe_code moe_driver_fail(const struct moe_driver *d, moe_cu_result r, struct moe_err *err,
                              const char *doing, ...)
{
    char what[512];
    va_list args;
    va_start(args, doing);
    vsnprintf(what, sizeof what, doing, args);
    va_end(args);
    const char *name = NULL, *text = NULL;
    if (d->cuGetErrorString(r, &text) != MOE_CU_OK || !text) text = "it failed";
    if (d->cuGetErrorName(r, &name) == MOE_CU_OK && name)
        return moe_fail(err, MOE_DEVICE, "%s: %s, %s", what, text, name);
    return moe_fail(err, MOE_DEVICE, "%s: %s with result %d, which has no name", what, text, r);
}

int moe_driver_is_sticky(moe_cu_result r)
{
    if (r == MOE_CU_LAUNCH_RESOURCES) return 0;
    bool of_a_kernel = r >= MOE_CU_ILLEGAL_ADDRESS && r < MOE_CU_NOT_PERMITTED;
    return r == MOE_CU_ECC || r == MOE_CU_UNKNOWN || of_a_kernel;
}
