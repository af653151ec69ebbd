/* SPDX-License-Identifier: Apache-2.0 */
/* Opens and closes a GPU: its context, its stream, and the kernels of this build. */
#include "model/ops/cuda/gpu.h"

#include "base/env.h"
#include "kernels/cuda/images.h"
#include "model/ops/cuda/gpu-internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *moe_cuda_kernel_name(enum moe_cuda_kernel k)
{
    static const char *const names[] = {
#define CUDA_KERNEL(name, arguments, threads) "moe_cuda_" #name,
#include "kernels/cuda/cuda.def"
#undef CUDA_KERNEL
        "none"
    };
    return names[k];
}

/* ---- failures ---- */

enum moe_code moe_gpu_enter(struct moe_gpu *g, struct moe_err *err)
{
    if (g->lost.code != MOE_OK) {
        *err = g->lost;
        return err->code;
    }
    return moe_gpu_check(g, g->d->cuCtxSetCurrent(g->context), err, "cuCtxSetCurrent");
}

enum moe_code moe_gpu_check(struct moe_gpu *g, moe_cu_result r, struct moe_err *err, const char *doing, ...)
{
    if (r == MOE_CU_OK) return MOE_OK;
    g->stage.n_readings = 0; /* nobody waits for them any more, and their memory may go */
    char what[256], blamed[128] = "";
    va_list args;
    va_start(args, doing);
    vsnprintf(what, sizeof what, doing, args);
    va_end(args);
    if (moe_driver_is_sticky(r) && g->last)
        snprintf(blamed, sizeof blamed, " after %s was launched", g->last);
    moe_driver_fail(g->d, r, err, "GPU %d: %s%s", g->info.index, what, blamed);
    if (!moe_driver_is_sticky(r)) return err->code;
    moe_err_remedy(err, r == MOE_CU_ECC ? "nvidia-smi -q -d ECC,ROW_REMAPPER says whether to reset the GPU"
                        : g->wait_each || !g->last ? "start again"
                                                   : "MOE_GPU_WAIT=1 names the kernel to blame");
    g->lost = *err;
    return err->code;
}

/* ---- what is there ---- */

/* A build without nvcc may hold images that only the stand-in for the driver (tests/shim/cuda/) accepts. */
static enum moe_code no_kernels(struct moe_err *err)
{
    return moe_fail(err, MOE_UNSUPPORTED, "this build has no GPU kernels (build it where nvcc is, or use "
                    "--device cpu)");
}

enum moe_code moe_gpu_check_build(struct moe_err *err)
{
    return moe_cuda_image_count ? MOE_OK : no_kernels(err);
}

enum moe_code moe_gpu_check_usable(const struct moe_gpu_info *i, struct moe_err *err)
{
    if (i->driver / 1000 < moe_cuda_toolkit / 1000)
        return moe_fail(err, MOE_DEVICE, "GPU %d: the NVIDIA driver is for CUDA %d.%d, and the kernels of "
                        "this program were made for CUDA %d (install a driver for CUDA %d or later)",
                        i->index, i->driver / 1000, i->driver % 1000 / 10, moe_cuda_toolkit / 1000,
                        moe_cuda_toolkit / 1000);
    if (i->major < 9)
        return moe_fail(err, MOE_DEVICE, "GPU %d (%s) has compute capability %d.%d, and the kernels need 9.0 "
                        "(Hopper) or later", i->index, i->name, i->major, i->minor);
    if (i->shared_bytes < MOE_GPU_SHARED_MOST)
        return moe_fail(err, MOE_DEVICE, "GPU %d (%s) gives a block %d KiB of shared memory, and the kernels "
                        "need %d, as GPUs of data centres have", i->index, i->name, i->shared_bytes >> 10,
                        MOE_GPU_SHARED_MOST >> 10);
    return MOE_OK;
}

enum moe_code moe_gpus_found(int *n, struct moe_err *err)
{
    const struct moe_driver *d;
    *n = 0;
    MOE_TRY(moe_driver(&d, err));
    moe_cu_result r = d->cuDeviceGetCount(n);
    if (r != MOE_CU_OK) return moe_driver_fail(d, r, err, "cuDeviceGetCount");
    return *n ? MOE_OK : moe_fail(err, MOE_DEVICE, "the NVIDIA driver finds no GPU");
}

/* An ability that this driver may be too old to know of is 0: the GPU is taken not to have it. */
static int attribute(const struct moe_driver *d, moe_cu_device device, int which)
{
    int v = 0;
    return d->cuDeviceGetAttribute(&v, which, device) == MOE_CU_OK ? v : 0;
}

/* The NUMA node of a PCI device by the system's own account, for drivers that do not say it; -1: unknown. */
static int numa_node_of(const char *bus)
{
    char path[96];
    int node = -1;
    snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/numa_node", bus);
    for (char *c = path; *c; c++) *c = *c >= 'A' && *c <= 'F' ? (char)(*c + 32) : *c;
    FILE *f = fopen(path, "r");
    if (f && fscanf(f, "%d", &node) != 1) node = -1;
    if (f) fclose(f);
    return node;
}

/* What nobody can do without. */
static enum moe_code describe_essentials(const struct moe_driver *d, moe_cu_device device,
                                         struct moe_gpu_info *i, struct moe_err *err)
{
    size_t bytes = 0;
    moe_cu_result r = d->cuDeviceTotalMem_v2(&bytes, device);
    if (r != MOE_CU_OK) return moe_driver_fail(d, r, err, "GPU %d: cuDeviceTotalMem", i->index);
    r = d->cuDeviceGetName(i->name, sizeof i->name, device);
    if (r != MOE_CU_OK) return moe_driver_fail(d, r, err, "GPU %d: cuDeviceGetName", i->index);
    r = d->cuDeviceGetAttribute(&i->major, MOE_CU_MAJOR, device);
    if (r == MOE_CU_OK) r = d->cuDeviceGetAttribute(&i->minor, MOE_CU_MINOR, device);
    if (r == MOE_CU_OK) r = d->cuDeviceGetAttribute(&i->multiprocessors, MOE_CU_MULTIPROCESSORS, device);
    if (r == MOE_CU_OK) r = d->cuDeviceGetAttribute(&i->shared_bytes, MOE_CU_SHARED_OPTIN, device);
    if (r != MOE_CU_OK) return moe_driver_fail(d, r, err, "GPU %d: cuDeviceGetAttribute", i->index);
    i->bytes = bytes;
    return MOE_OK;
}

static void describe_uuid(const struct moe_driver *d, moe_cu_device device, struct moe_gpu_info *i)
{
    moe_cu_uuid u;
    char *to = i->uuid, *end = to + sizeof i->uuid;
    if (d->cuDeviceGetUuid_v2(&u, device) != MOE_CU_OK) return;
    to += snprintf(to, (size_t)(end - to), "GPU");
    for (int k = 0; k < 16; k++)
        to += snprintf(to, (size_t)(end - to), "%s%02x", !k || (k >= 4 && k <= 10 && k % 2 == 0) ? "-" : "",
                       (unsigned char)u.bytes[k]);
}

static enum moe_code describe(const struct moe_driver *d, moe_cu_device device, struct moe_gpu_info *i,
                              struct moe_err *err)
{
    MOE_TRY(describe_essentials(d, device, i, err));
    i->driver = d->version;
    if (d->cuDeviceGetPCIBusId(i->bus, sizeof i->bus, device) != MOE_CU_OK) i->bus[0] = 0;
    describe_uuid(d, device, i);
    i->integrated = attribute(d, device, MOE_CU_INTEGRATED);
    i->ecc = attribute(d, device, MOE_CU_ECC_ENABLED);
    i->host_pages = attribute(d, device, MOE_CU_HOST_PAGE_TABLES);
    i->virtual_memory = attribute(d, device, MOE_CU_VIRTUAL_MEMORY);
    i->posix_fd = attribute(d, device, MOE_CU_POSIX_FD);
    i->fabric = attribute(d, device, MOE_CU_FABRIC);
    i->rdma = attribute(d, device, MOE_CU_RDMA_VIRTUAL_MEMORY);
    if (d->cuDeviceGetAttribute(&i->numa_node, MOE_CU_HOST_NUMA_ID, device) != MOE_CU_OK || i->numa_node < 0)
        i->numa_node = numa_node_of(i->bus);
    return MOE_OK;
}

/* The driver's name for GPU `index`, and what it is. */
static enum moe_code find(int index, const struct moe_driver **d, moe_cu_device *device,
                          struct moe_gpu_info *info, struct moe_err *err)
{
    int n;
    *info = (struct moe_gpu_info){ .index = index };
    MOE_TRY(moe_gpus_found(&n, err));
    MOE_TRY(moe_driver(d, err));
    if (index < 0 || index >= n)
        return moe_fail(err, MOE_DEVICE, "there is no GPU %d here (the last one is GPU %d)", index, n - 1);
    moe_cu_result r = (*d)->cuDeviceGet(device, index);
    if (r != MOE_CU_OK) return moe_driver_fail(*d, r, err, "GPU %d: cuDeviceGet", index);
    return describe(*d, *device, info, err);
}

enum moe_code moe_gpu_describe(int index, struct moe_gpu_info *info, struct moe_err *err)
{
    const struct moe_driver *d;
    moe_cu_device device;
    return find(index, &d, &device, info, err);
}

enum moe_code moe_gpu_free_bytes(int index, uint64_t *bytes, struct moe_err *err)
{
    struct moe_gpu g = { 0 };
    size_t left, all;
    MOE_TRY(find(index, &g.d, &g.device, &g.info, err));
    MOE_TRY(moe_gpu_check(&g, g.d->cuDevicePrimaryCtxRetain(&g.context, g.device), err,
                          "cuDevicePrimaryCtxRetain"));
    enum moe_code code = moe_gpu_enter(&g, err);
    if (code == MOE_OK) code = moe_gpu_check(&g, g.d->cuMemGetInfo_v2(&left, &all), err, "cuMemGetInfo");
    if (code == MOE_OK) *bytes = left;
    g.d->cuCtxSetCurrent(NULL);
    g.d->cuDevicePrimaryCtxRelease_v2(g.device);
    return code;
}

/* ---- open ---- */

static enum moe_code load_image(struct moe_gpu *g, const struct moe_cuda_image *image, struct moe_err *err)
{
    moe_cu_result r = g->d->cuModuleLoadData(&g->modules[g->n_modules], image->data);
    bool marker = image->bytes >= 8 && !memcmp(image->data, "moe-shim", 8);
    bool strange = r == MOE_CU_INVALID_IMAGE || r == MOE_CU_NO_BINARY || r == MOE_CU_INVALID_PTX;
    if (marker && (strange || r == MOE_CU_INVALID_VALUE)) return no_kernels(err);
    if (strange || r == MOE_CU_UNSUPPORTED_PTX) {
        moe_gpu_check(g, r, err, "cuModuleLoadData of the kernels of '%s'", image->family);
        return moe_err_remedy(err, "install a driver as new as the toolkit that made this program, of the "
                                   "same major version of CUDA or a later one");
    }
    MOE_TRY(moe_gpu_check(g, r, err, "cuModuleLoadData of the kernels of '%s'", image->family));
    g->n_modules++;
    return MOE_OK;
}

static enum moe_code find_kernel(struct moe_gpu *g, int k, struct moe_err *err)
{
    const char *name = moe_cuda_kernel_name((enum moe_cuda_kernel)k);
    moe_cu_result r = MOE_CU_NOT_FOUND;
    for (int m = 0; m < g->n_modules && r == MOE_CU_NOT_FOUND; m++)
        r = g->d->cuModuleGetFunction(&g->function[k], g->modules[m], name);
    return moe_gpu_check(g, r, err, "cuModuleGetFunction of %s", name);
}

static enum moe_code load_kernels(struct moe_gpu *g, struct moe_err *err)
{
    g->modules = calloc((size_t)moe_cuda_image_count, sizeof *g->modules);
    if (!g->modules) return moe_fail(err, MOE_NOMEM, "no memory for the list of GPU kernels");
    for (int i = 0; i < moe_cuda_image_count; i++) MOE_TRY(load_image(g, &moe_cuda_images[i], err));
    for (int k = 0; k < MOE_CUDA_KERNELS; k++) MOE_TRY(find_kernel(g, k, err));
    return MOE_OK;
}

static enum moe_code start(struct moe_gpu *g, struct moe_err *err)
{
    moe_cu_result r = g->d->cuDevicePrimaryCtxRetain(&g->context, g->device);
    if (r != MOE_CU_OK) g->context = NULL;
    MOE_TRY(moe_gpu_check(g, r, err, "cuDevicePrimaryCtxRetain"));
    MOE_TRY(moe_gpu_enter(g, err));
    r = g->d->cuStreamCreate(&g->stream, MOE_CU_STREAM_NON_BLOCKING);
    if (r != MOE_CU_OK) g->stream = NULL;
    MOE_TRY(moe_gpu_check(g, r, err, "cuStreamCreate"));
    void *stage = NULL;
    MOE_TRY(moe_gpu_pin(g, MOE_GPU_STAGE_BYTES, &stage, err));
    g->stage.at = stage;
    return load_kernels(g, err);
}

enum moe_code moe_gpu_open(struct moe_gpu **out, int index, struct moe_err *err)
{
    *out = NULL;
    MOE_TRY(moe_gpu_check_build(err));
    struct moe_gpu *g = calloc(1, sizeof *g);
    if (!g) return moe_fail(err, MOE_NOMEM, "no memory for a GPU");
    g->wait_each = moe_env("MOE_GPU_WAIT");
    enum moe_code code = find(index, &g->d, &g->device, &g->info, err);
    if (code == MOE_OK) code = moe_gpu_check_usable(&g->info, err);
    if (code == MOE_OK) code = start(g, err);
    *out = g;
    if (code != MOE_OK) moe_gpu_close(out);
    return code;
}

void moe_gpu_close(struct moe_gpu **pointer)
{
    struct moe_gpu *g = *pointer;
    *pointer = NULL;
    if (!g) return;
    if (g->context) {
        g->d->cuCtxSetCurrent(g->context);
        if (g->stream) g->d->cuStreamSynchronize(g->stream);
        if (g->stage.at) g->d->cuMemFreeHost(g->stage.at);
        for (int i = 0; i < g->n_modules; i++) g->d->cuModuleUnload(g->modules[i]);
        if (g->stream) g->d->cuStreamDestroy_v2(g->stream);
        g->d->cuCtxSetCurrent(NULL);
        g->d->cuDevicePrimaryCtxRelease_v2(g->device);
    }
    free(g->modules);
    free(g);
}

const struct moe_gpu_info *moe_gpu_info(const struct moe_gpu *g) { return &g->info; }
bool moe_gpu_waits(const struct moe_gpu *g) { return g->wait_each; }
bool moe_gpu_is_lost(const struct moe_gpu *g) { return g->lost.code != MOE_OK; }
void *moe_gpu_stream(struct moe_gpu *g) { return g->stream; }

enum moe_code moe_gpu_free_now(struct moe_gpu *g, uint64_t *bytes, struct moe_err *err)
{
    size_t left, all;
    MOE_TRY(moe_gpu_enter(g, err));
    MOE_TRY(moe_gpu_check(g, g->d->cuMemGetInfo_v2(&left, &all), err, "cuMemGetInfo"));
    *bytes = left;
    return MOE_OK;
}
