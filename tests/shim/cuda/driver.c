/* SPDX-License-Identifier: Apache-2.0 */
/* The stand-in for NVIDIA's driver: starting it, devices, contexts, modules, results by name. */
#include "tests/shim/cuda/driver.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct CUctx_st contexts[DRV_DEVICES];
static _Thread_local struct CUctx_st *current;
static bool started;
static moe_cu_result lost;
static long calls, calls_of_failing;
struct drv_left drv_left;

/* ---- the environment ---- */

static uint64_t number(const char *name, uint64_t otherwise)
{
    const char *v = getenv(name);
    return v && *v ? strtoull(v, NULL, 10) : otherwise;
}

static int devices(void)
{
    uint64_t n = number("MOE_SHIM_DEVICES", 1);
    return n < DRV_DEVICES ? (int)n : DRV_DEVICES;
}

uint64_t drv_memory(void) { return number("MOE_SHIM_MEMORY", 4ull << 30); }

bool drv_has(const char *ability)
{
    const char *has = getenv("MOE_SHIM_HAS");
    size_t n = strlen(ability);
    for (const char *p = has ? has : "vmm,fd"; *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == n && !memcmp(p, ability, n)) return true;
    return false;
}

/* The result that MOE_SHIM_FAIL wants of this call; MOE_CU_OK: none. */
static moe_cu_result planned(const char *call, enum drv_need need)
{
    static char known[128]; /* the plan that is counted for */
    const char *plan = getenv("MOE_SHIM_FAIL");
    if (plan && strncmp(plan, known, sizeof known - 1)) {
        snprintf(known, sizeof known, "%s", plan);
        calls_of_failing = 0;
    }
    size_t n = plan ? strcspn(plan, ":") : 0;
    if (!n || !plan[n]) return MOE_CU_OK;
    bool any = n == 3 && !memcmp(plan, "any", 3);
    if (any && need == DRV_BACK) return MOE_CU_OK;
    if (!any && (strlen(call) != n || memcmp(plan, call, n))) return MOE_CU_OK;
    char *end;
    long which = strtol(plan + n + 1, &end, 10);
    moe_cu_result r = *end == ':' ? atoi(end + 1) : MOE_CU_UNKNOWN;
    return ++calls_of_failing == which ? r : MOE_CU_OK;
}

/* ---- calls ---- */

static bool is_lasting(moe_cu_result r)
{
    return r == MOE_CU_ECC || (r >= MOE_CU_ILLEGAL_ADDRESS && r < MOE_CU_NOT_PERMITTED);
}

void drv_lose(moe_cu_result r)
{
    if (!lost) lost = r;
}

moe_cu_result drv_enter(const char *call, enum drv_need need)
{
    pthread_mutex_lock(&lock);
    calls++;
    moe_cu_result r = planned(call, need);
    if (is_lasting(r)) drv_lose(r);
    if (r == MOE_CU_OK && need > DRV_BACK) r = lost;
    if (r == MOE_CU_OK && need > DRV_BACK && !started) r = MOE_CU_NOT_INITIALIZED;
    if (r == MOE_CU_OK && need == DRV_CONTEXT && (!current || !current->retained)) r = MOE_CU_INVALID_CONTEXT;
    if (r != MOE_CU_OK) pthread_mutex_unlock(&lock);
    return r;
}

moe_cu_result drv_leave(moe_cu_result r)
{
    pthread_mutex_unlock(&lock);
    return r;
}

struct CUctx_st *drv_context(void) { return current; }

long moe_shim_calls(void) { return calls; }

long moe_shim_left(char *text, size_t cap)
{
    const struct drv_left *l = &drv_left;
    snprintf(text, cap, "%ld contexts, %ld modules, %ld streams, %ld events, %ld graphs, %ld allocations, "
             "%ld pinned, %ld ranges, %ld handles, %ld mappings", l->contexts, l->modules, l->streams,
             l->events, l->graphs, l->allocations, l->pinned, l->ranges, l->handles, l->maps);
    return l->contexts + l->modules + l->streams + l->events + l->graphs + l->allocations + l->pinned +
           l->ranges + l->handles + l->maps;
}

/* ---- the driver ---- */

moe_cu_result cuInit(unsigned flags)
{
    ENTER(cuInit, DRV_NOTHING);
    if (flags) return drv_leave(MOE_CU_INVALID_VALUE);
    if (!devices()) return drv_leave(MOE_CU_NO_DEVICE);
    started = true;
    return drv_leave(MOE_CU_OK);
}

moe_cu_result cuDriverGetVersion(int *version)
{
    ENTER(cuDriverGetVersion, DRV_NOTHING);
    *version = (int)number("MOE_SHIM_VERSION", 13000);
    return drv_leave(MOE_CU_OK);
}

static const char *name_of(moe_cu_result r)
{
#define X(ours, theirs, value) if (r == (value)) return #theirs;
    MOE_CU_RESULTS(X)
#undef X
    return NULL;
}

moe_cu_result cuGetErrorName(moe_cu_result r, const char **name)
{
    *name = name_of(r);
    return *name ? MOE_CU_OK : MOE_CU_INVALID_VALUE;
}

moe_cu_result cuGetErrorString(moe_cu_result r, const char **text)
{
    *text = r == MOE_CU_OUT_OF_MEMORY     ? "out of memory"
            : r == MOE_CU_ILLEGAL_ADDRESS ? "an illegal memory access was encountered"
            : r == MOE_CU_ECC             ? "uncorrectable ECC error encountered"
            : name_of(r)                  ? "the stand-in for the driver refuses this"
                                          : NULL;
    return *text ? MOE_CU_OK : MOE_CU_INVALID_VALUE;
}

/* ---- devices ---- */

static moe_cu_result check_device(moe_cu_device d)
{
    return d < 0 || d >= devices() ? MOE_CU_INVALID_DEVICE : MOE_CU_OK;
}

moe_cu_result cuDeviceGetCount(int *n)
{
    ENTER(cuDeviceGetCount, DRV_STARTED);
    *n = devices();
    return drv_leave(MOE_CU_OK);
}

moe_cu_result cuDeviceGet(moe_cu_device *d, int ordinal)
{
    ENTER(cuDeviceGet, DRV_STARTED);
    *d = ordinal;
    return drv_leave(check_device(ordinal));
}

moe_cu_result cuDeviceGetName(char *name, int cap, moe_cu_device d)
{
    ENTER(cuDeviceGetName, DRV_STARTED);
    if (cap <= 0) return drv_leave(MOE_CU_INVALID_VALUE);
    snprintf(name, (size_t)cap, "stand-in for a GPU");
    return drv_leave(check_device(d));
}

moe_cu_result cuDeviceGetPCIBusId(char *id, int cap, moe_cu_device d)
{
    ENTER(cuDeviceGetPCIBusId, DRV_STARTED);
    if (cap < 13) return drv_leave(MOE_CU_INVALID_VALUE);
    snprintf(id, (size_t)cap, "ffff:%02x:00.0", (unsigned)d & 0xff);
    return drv_leave(check_device(d));
}

/* The same for a device in every process, as an identity of hardware is. */
moe_cu_result cuDeviceGetUuid_v2(moe_cu_uuid *uuid, moe_cu_device d)
{
    ENTER(cuDeviceGetUuid_v2, DRV_STARTED);
    memcpy(uuid->bytes, "stand-in for GPU", sizeof uuid->bytes);
    uuid->bytes[15] = (char)('0' + d);
    return drv_leave(check_device(d));
}

moe_cu_result cuDeviceTotalMem_v2(size_t *bytes, moe_cu_device d)
{
    ENTER(cuDeviceTotalMem_v2, DRV_STARTED);
    *bytes = drv_memory();
    return drv_leave(check_device(d));
}

/* The stand-in is a Hopper, because the sources that it runs are those of sm_90. */
moe_cu_result cuDeviceGetAttribute(int *value, moe_cu_attribute a, moe_cu_device d)
{
    ENTER(cuDeviceGetAttribute, DRV_STARTED);
    moe_cu_result r = check_device(d);
    switch (a) {
    case MOE_CU_MULTIPROCESSORS: *value = 132; break;
    case MOE_CU_MAJOR: *value = (int)number("MOE_SHIM_MAJOR", 9); break;
    case MOE_CU_SHARED_OPTIN: *value = (int)number("MOE_SHIM_SHARED", DRV_SHARED); break;
    case MOE_CU_HOST_PAGE_TABLES:
    case MOE_CU_PAGEABLE_ACCESS: *value = drv_has("host-pages"); break;
    case MOE_CU_VIRTUAL_MEMORY: *value = drv_has("vmm"); break;
    case MOE_CU_POSIX_FD: *value = drv_has("fd"); break;
    case MOE_CU_FABRIC: *value = drv_has("fabric"); break;
    case MOE_CU_HOST_NUMA_ID: *value = -1; break;
    case MOE_CU_MINOR:
    case MOE_CU_INTEGRATED:
    case MOE_CU_ECC_ENABLED:
    case MOE_CU_RDMA_VIRTUAL_MEMORY: *value = 0; break;
    default: r = MOE_CU_INVALID_VALUE;
    }
    return drv_leave(r);
}

/* ---- contexts ---- */

moe_cu_result cuDevicePrimaryCtxRetain(moe_cu_context *c, moe_cu_device d)
{
    ENTER(cuDevicePrimaryCtxRetain, DRV_STARTED);
    if (check_device(d)) return drv_leave(MOE_CU_INVALID_DEVICE);
    contexts[d].device = d;
    contexts[d].retained++;
    drv_left.contexts++;
    *c = &contexts[d];
    return drv_leave(MOE_CU_OK);
}

moe_cu_result cuDevicePrimaryCtxRelease_v2(moe_cu_device d)
{
    ENTER(cuDevicePrimaryCtxRelease_v2, DRV_BACK);
    if (check_device(d) || !contexts[d].retained) return drv_leave(MOE_CU_INVALID_CONTEXT);
    contexts[d].retained--;
    drv_left.contexts--;
    return drv_leave(MOE_CU_OK);
}

moe_cu_result cuCtxSetCurrent(moe_cu_context c)
{
    ENTER(cuCtxSetCurrent, DRV_STARTED);
    if (c && !c->retained) return drv_leave(MOE_CU_INVALID_CONTEXT);
    current = c;
    return drv_leave(MOE_CU_OK);
}

/* ---- modules ---- */

struct CUmod_st { struct CUfunc_st function[256]; int n; };

/* The first bytes of what nvcc --fatbin writes; a build without nvcc has a text in its place. */
static const unsigned char fatbin[4] = { 0x50, 0xed, 0x55, 0xba };

moe_cu_result cuModuleLoadData(moe_cu_module *m, const void *image)
{
    ENTER(cuModuleLoadData, DRV_CONTEXT);
    if (memcmp(image, fatbin, 4) && memcmp(image, "moe-shim", 8)) return drv_leave(MOE_CU_INVALID_IMAGE);
    *m = calloc(1, sizeof **m);
    if (!*m) return drv_leave(MOE_CU_OUT_OF_MEMORY);
    drv_left.modules++;
    return drv_leave(MOE_CU_OK);
}

moe_cu_result cuModuleUnload(moe_cu_module m)
{
    ENTER(cuModuleUnload, DRV_BACK);
    free(m);
    drv_left.modules--;
    return drv_leave(MOE_CU_OK);
}

moe_cu_result cuModuleGetFunction(moe_cu_function *f, moe_cu_module m, const char *name)
{
    ENTER(cuModuleGetFunction, DRV_CONTEXT);
    const struct shim_kernel *k = shim_find(name);
    if (!k || m->n == sizeof m->function / sizeof *m->function) return drv_leave(MOE_CU_NOT_FOUND);
    *f = &m->function[m->n++];
    (*f)->kernel = k;
    (*f)->allowed = SHIM_NOT_ALLOWED;
    return drv_leave(MOE_CU_OK);
}

/* The manual, "Execution Control", cuFuncSetAttribute: static and dynamic shared memory together are at most
 * what the device allows a block to opt in to.  (shared.c checks the sum, when it knows the static part.) */
moe_cu_result cuFuncSetAttribute(moe_cu_function f, moe_cu_function_attribute a, int value)
{
    ENTER(cuFuncSetAttribute, DRV_CONTEXT);
    if (a == MOE_CU_CARVEOUT) return drv_leave(value < -1 || value > 100 ? MOE_CU_INVALID_VALUE : MOE_CU_OK);
    if (a != MOE_CU_DYNAMIC_SHARED || value < 0 || value > DRV_SHARED) return drv_leave(MOE_CU_INVALID_VALUE);
    f->allowed = value;
    return drv_leave(MOE_CU_OK);
}
