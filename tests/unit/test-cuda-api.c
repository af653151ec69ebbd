/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/api.h against the toolkit's cuda.h: every value, layout and signature, compared by the
 * compiler.  Skipped (77) where the toolkit is not installed. */
#include "model/ops/cuda/api.h"

#include "tests/ok.h"

#if defined(__has_include)
#if __has_include(<cuda.h>)
#define FOUND 1
#endif
#endif

#ifdef FOUND
/* Layouts of ours, kept under names that the macros below do not rename. */
enum {
    PROP = sizeof(moe_cu_alloc_prop), PROP_HANDLES = offsetof(moe_cu_alloc_prop, handles),
    PROP_LOCATION = offsetof(moe_cu_alloc_prop, location), PROP_RDMA = offsetof(moe_cu_alloc_prop, rdma),
    PROP_USAGE = offsetof(moe_cu_alloc_prop, usage), ACCESS = sizeof(moe_cu_access_desc),
    ACCESS_FLAGS = offsetof(moe_cu_access_desc, flags),
    LOCATION = sizeof(struct moe_cu_location), LOCATION_ID = offsetof(struct moe_cu_location, id),
    RESULT = sizeof(moe_cu_result), UUID = sizeof(moe_cu_uuid)
};
_Static_assert(__builtin_types_compatible_p(moe_cu_ptr, unsigned long long), "what cuda.h is compared with");

#include <cuda.h>

_Static_assert(PROP == sizeof(CUmemAllocationProp), "");
_Static_assert(PROP_HANDLES == offsetof(CUmemAllocationProp, requestedHandleTypes), "");
_Static_assert(PROP_LOCATION == offsetof(CUmemAllocationProp, location), "");
_Static_assert(PROP_RDMA == offsetof(CUmemAllocationProp, allocFlags.gpuDirectRDMACapable), "");
_Static_assert(PROP_USAGE == offsetof(CUmemAllocationProp, allocFlags.usage), "");
_Static_assert(ACCESS == sizeof(CUmemAccessDesc) && ACCESS_FLAGS == offsetof(CUmemAccessDesc, flags), "");
_Static_assert(LOCATION == sizeof(CUmemLocation) && LOCATION_ID == offsetof(CUmemLocation, id), "");
_Static_assert(RESULT == sizeof(CUresult) && UUID == sizeof(CUuuid), "");

#define X(ours, theirs, value) _Static_assert((long)(theirs) == (value), #theirs);
MOE_CU_RESULTS(X)
MOE_CU_ATTRIBUTES(X)
MOE_CU_VALUES(X)
#undef X

/* The list of functions once more, with cuda.h's types in place of ours. */
#define moe_cu_result CUresult
#define moe_cu_device CUdevice
#define moe_cu_ptr CUdeviceptr
#define moe_cu_handle CUmemGenericAllocationHandle
#define moe_cu_context CUcontext
#define moe_cu_module CUmodule
#define moe_cu_function CUfunction
#define moe_cu_stream CUstream
#define moe_cu_event CUevent
#define moe_cu_graph CUgraph
#define moe_cu_graph_exec CUgraphExec
#define moe_cu_attribute CUdevice_attribute
#define moe_cu_function_attribute CUfunction_attribute
#define moe_cu_capture_mode CUstreamCaptureMode
#define moe_cu_granularity CUmemAllocationGranularity_flags
#define moe_cu_handle_type CUmemAllocationHandleType
#define moe_cu_alloc_prop CUmemAllocationProp
#define moe_cu_access_desc CUmemAccessDesc
#define moe_cu_uuid CUuuid
/* cuda.h names an older symbol of these only where it is asked to (__CUDA_API_VERSION_INTERNAL). */
#undef cuEventElapsedTime
CUresult CUDAAPI cuEventElapsedTime(float *ms, CUevent from, CUevent to);

#define X(name, params)                                                                          \
    _Static_assert(__builtin_types_compatible_p(__typeof__(&name), CUresult(*) params), #name);
MOE_CU_FUNCTIONS(X)
#undef X

int main(void)
{
#define X(...) checks++;
    MOE_CU_RESULTS(X) MOE_CU_ATTRIBUTES(X) MOE_CU_VALUES(X) MOE_CU_FUNCTIONS(X)
#undef X
    OK(CUDA_VERSION >= 12000);
    printf("%ld values, layouts and signatures of cuda.h %d\n", checks, CUDA_VERSION);
    return 0;
}
#else
int main(void)
{
    printf("the toolkit's cuda.h is not installed\n");
    return 77;
}
#endif
