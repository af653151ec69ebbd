/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/api.h - the part of the CUDA driver API that this project calls, declared here so that the
 * host side compiles on machines without the toolkit.
 *
 * Names, values and layouts are those of NVIDIA's public driver API (docs.nvidia.com/cuda/cuda-driver-api).
 * A function is named by its symbol in libcuda.so.1, which is an ABI of its own: cuMemAlloc_v2 stays what it
 * is when a later version of the API means cuMemAlloc_v3 by cuMemAlloc.  tests/unit/test-cuda-api.c compares
 * all of this with the toolkit's cuda.h where that is installed.
 *
 * Pure declarations.  Only model/ops/cuda/ and the stand-in for the driver (tests/shim/cuda/) include it. */
#ifndef MOE_MODEL_OPS_CUDA_API_H
#define MOE_MODEL_OPS_CUDA_API_H

#include <stddef.h>
#include <stdint.h>

typedef int moe_cu_result;                      /* CUresult: 0 is success */
typedef int moe_cu_device;
typedef unsigned long long moe_cu_ptr;          /* CUdeviceptr: an address in the memory of a device */
typedef unsigned long long moe_cu_handle;       /* CUmemGenericAllocationHandle: memory without an address */
typedef struct CUctx_st *moe_cu_context;
typedef struct CUmod_st *moe_cu_module;
typedef struct CUfunc_st *moe_cu_function;
typedef struct CUstream_st *moe_cu_stream;
typedef struct CUevent_st *moe_cu_event;
typedef struct CUgraph_st *moe_cu_graph;
typedef struct CUgraphExec_st *moe_cu_graph_exec;

/* X(our name, name in cuda.h, value): the results that are told apart here. */
#define MOE_CU_RESULTS(X)                                                      \
    X(MOE_CU_OK, CUDA_SUCCESS, 0)                                              \
    X(MOE_CU_INVALID_VALUE, CUDA_ERROR_INVALID_VALUE, 1)                       \
    X(MOE_CU_OUT_OF_MEMORY, CUDA_ERROR_OUT_OF_MEMORY, 2)                       \
    X(MOE_CU_NOT_INITIALIZED, CUDA_ERROR_NOT_INITIALIZED, 3)                   \
    X(MOE_CU_STUB, CUDA_ERROR_STUB_LIBRARY, 34)                                \
    X(MOE_CU_UNAVAILABLE, CUDA_ERROR_DEVICE_UNAVAILABLE, 46)                   \
    X(MOE_CU_NO_DEVICE, CUDA_ERROR_NO_DEVICE, 100)                             \
    X(MOE_CU_INVALID_DEVICE, CUDA_ERROR_INVALID_DEVICE, 101)                   \
    X(MOE_CU_INVALID_IMAGE, CUDA_ERROR_INVALID_IMAGE, 200)                     \
    X(MOE_CU_INVALID_CONTEXT, CUDA_ERROR_INVALID_CONTEXT, 201)                 \
    X(MOE_CU_NO_BINARY, CUDA_ERROR_NO_BINARY_FOR_GPU, 209)                     \
    X(MOE_CU_ECC, CUDA_ERROR_ECC_UNCORRECTABLE, 214)                           \
    X(MOE_CU_INVALID_PTX, CUDA_ERROR_INVALID_PTX, 218)                         \
    X(MOE_CU_UNSUPPORTED_PTX, CUDA_ERROR_UNSUPPORTED_PTX_VERSION, 222)         \
    X(MOE_CU_INVALID_HANDLE, CUDA_ERROR_INVALID_HANDLE, 400)                   \
    X(MOE_CU_NOT_FOUND, CUDA_ERROR_NOT_FOUND, 500)                             \
    X(MOE_CU_NOT_READY, CUDA_ERROR_NOT_READY, 600)                             \
    X(MOE_CU_ILLEGAL_ADDRESS, CUDA_ERROR_ILLEGAL_ADDRESS, 700)                 \
    X(MOE_CU_LAUNCH_RESOURCES, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES, 701)        \
    X(MOE_CU_LAUNCH_FAILED, CUDA_ERROR_LAUNCH_FAILED, 719)                     \
    X(MOE_CU_NOT_PERMITTED, CUDA_ERROR_NOT_PERMITTED, 800)                     \
    X(MOE_CU_NOT_SUPPORTED, CUDA_ERROR_NOT_SUPPORTED, 801)                     \
    X(MOE_CU_NOT_READY_SYSTEM, CUDA_ERROR_SYSTEM_NOT_READY, 802)               \
    X(MOE_CU_DRIVER_MISMATCH, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH, 803)          \
    X(MOE_CU_CAPTURE_UNSUPPORTED, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, 900)  \
    X(MOE_CU_CAPTURE_INVALIDATED, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, 901)  \
    X(MOE_CU_UNKNOWN, CUDA_ERROR_UNKNOWN, 999)

/* The same of attributes of a device (CUdevice_attribute). */
#define MOE_CU_ATTRIBUTES(X)                                                                              \
    X(MOE_CU_MULTIPROCESSORS, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 16)                               \
    X(MOE_CU_INTEGRATED, CU_DEVICE_ATTRIBUTE_INTEGRATED, 18)                                              \
    X(MOE_CU_ECC_ENABLED, CU_DEVICE_ATTRIBUTE_ECC_ENABLED, 32)                                            \
    X(MOE_CU_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 75)                                     \
    X(MOE_CU_MINOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 76)                                     \
    X(MOE_CU_PAGEABLE_ACCESS, CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS, 88)                             \
    X(MOE_CU_SHARED_OPTIN, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, 97)                     \
    X(MOE_CU_HOST_PAGE_TABLES, CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES, 100)     \
    X(MOE_CU_VIRTUAL_MEMORY, CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED, 102)                \
    X(MOE_CU_POSIX_FD, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED, 103)              \
    X(MOE_CU_RDMA_VIRTUAL_MEMORY, CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED, 110)       \
    X(MOE_CU_FABRIC, CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED, 128)                               \
    X(MOE_CU_HOST_NUMA_ID, CU_DEVICE_ATTRIBUTE_HOST_NUMA_ID, 134)

/* The same of everything else: flags, types, options. */
#define MOE_CU_VALUES(X)                                                            \
    X(MOE_CU_DYNAMIC_SHARED, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 8)    \
    X(MOE_CU_CARVEOUT, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 9)       \
    X(MOE_CU_STREAM_NON_BLOCKING, CU_STREAM_NON_BLOCKING, 1)                        \
    X(MOE_CU_EVENT_TIMED, CU_EVENT_DEFAULT, 0)                                      \
    X(MOE_CU_EVENT_BLOCKING, CU_EVENT_BLOCKING_SYNC, 1)                             \
    X(MOE_CU_EVENT_UNTIMED, CU_EVENT_DISABLE_TIMING, 2)                             \
    X(MOE_CU_HOST_PORTABLE, CU_MEMHOSTALLOC_PORTABLE, 1)                            \
    X(MOE_CU_CAPTURE_GLOBAL, CU_STREAM_CAPTURE_MODE_GLOBAL, 0)                      \
    X(MOE_CU_CAPTURE_THREAD, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, 1)                \
    X(MOE_CU_PINNED, CU_MEM_ALLOCATION_TYPE_PINNED, 1)                              \
    X(MOE_CU_AT_DEVICE, CU_MEM_LOCATION_TYPE_DEVICE, 1)                             \
    X(MOE_CU_HANDLE_NONE, CU_MEM_HANDLE_TYPE_NONE, 0)                               \
    X(MOE_CU_HANDLE_FD, CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR, 1)                \
    X(MOE_CU_HANDLE_FABRIC, CU_MEM_HANDLE_TYPE_FABRIC, 8)                           \
    X(MOE_CU_ACCESS_READ, CU_MEM_ACCESS_FLAGS_PROT_READ, 1)                         \
    X(MOE_CU_ACCESS_WRITE, CU_MEM_ACCESS_FLAGS_PROT_READWRITE, 3)                   \
    X(MOE_CU_GRANULARITY_MINIMUM, CU_MEM_ALLOC_GRANULARITY_MINIMUM, 0)              \
    X(MOE_CU_GRANULARITY_RECOMMENDED, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED, 1)

#define X(ours, theirs, value) ours = value,
enum { MOE_CU_RESULTS(X) };
enum { MOE_CU_ATTRIBUTES(X) };
enum { MOE_CU_VALUES(X) };
#undef X

typedef int moe_cu_attribute, moe_cu_function_attribute, moe_cu_capture_mode, moe_cu_granularity,
    moe_cu_handle_type;

struct moe_cu_location { int type, id; };                               /* CUmemLocation */
struct moe_cu_access { struct moe_cu_location location; int flags; };   /* CUmemAccessDesc */
struct moe_cu_prop {                                                    /* CUmemAllocationProp */
    int type, handles;                      /* MOE_CU_PINNED; MOE_CU_HANDLE_* that may be exported, a mask */
    struct moe_cu_location location;
    void *win32;
    unsigned char compression, rdma;        /* rdma: other devices on the bus may reach it (GPUDirect) */
    unsigned short usage;
    unsigned char reserved[4];
};
struct moe_cu_uuid_bytes { char bytes[16]; };                           /* CUuuid */
typedef struct moe_cu_access moe_cu_access_desc;
typedef struct moe_cu_prop moe_cu_alloc_prop;
typedef struct moe_cu_uuid_bytes moe_cu_uuid;

/* X(symbol, (parameters)): every function that is called.  All return moe_cu_result. */
#define MOE_CU_FUNCTIONS(X)                                                                               \
    X(cuInit, (unsigned flags))                                                                           \
    X(cuDriverGetVersion, (int *version))                                                                 \
    X(cuGetErrorName, (moe_cu_result r, const char **name))                                               \
    X(cuGetErrorString, (moe_cu_result r, const char **text))                                             \
    X(cuDeviceGetCount, (int *n))                                                                         \
    X(cuDeviceGet, (moe_cu_device *d, int ordinal))                                                       \
    X(cuDeviceGetName, (char *name, int cap, moe_cu_device d))                                            \
    X(cuDeviceGetAttribute, (int *value, moe_cu_attribute a, moe_cu_device d))                            \
    X(cuDeviceGetUuid_v2, (moe_cu_uuid *uuid, moe_cu_device d))                                           \
    X(cuDeviceTotalMem_v2, (size_t *bytes, moe_cu_device d))                                              \
    X(cuDeviceGetPCIBusId, (char *id, int cap, moe_cu_device d))                                          \
    X(cuDevicePrimaryCtxRetain, (moe_cu_context *c, moe_cu_device d))                                     \
    X(cuDevicePrimaryCtxRelease_v2, (moe_cu_device d))                                                    \
    X(cuCtxSetCurrent, (moe_cu_context c))                                                                \
    X(cuModuleLoadData, (moe_cu_module *m, const void *image))                                            \
    X(cuModuleUnload, (moe_cu_module m))                                                                  \
    X(cuModuleGetFunction, (moe_cu_function *f, moe_cu_module m, const char *name))                       \
    X(cuFuncSetAttribute, (moe_cu_function f, moe_cu_function_attribute a, int value))                    \
    X(cuMemGetInfo_v2, (size_t *free, size_t *total))                                                     \
    X(cuMemAlloc_v2, (moe_cu_ptr *p, size_t bytes))                                                       \
    X(cuMemFree_v2, (moe_cu_ptr p))                                                                       \
    X(cuMemHostAlloc, (void **p, size_t bytes, unsigned flags))                                           \
    X(cuMemFreeHost, (void *p))                                                                           \
    X(cuMemcpyHtoDAsync_v2, (moe_cu_ptr to, const void *from, size_t bytes, moe_cu_stream s))             \
    X(cuMemcpyDtoHAsync_v2, (void *to, moe_cu_ptr from, size_t bytes, moe_cu_stream s))                   \
    X(cuMemcpyDtoDAsync_v2, (moe_cu_ptr to, moe_cu_ptr from, size_t bytes, moe_cu_stream s))              \
    X(cuMemsetD8Async, (moe_cu_ptr to, unsigned char byte, size_t n, moe_cu_stream s))                    \
    X(cuStreamCreate, (moe_cu_stream *s, unsigned flags))                                                 \
    X(cuStreamDestroy_v2, (moe_cu_stream s))                                                              \
    X(cuStreamSynchronize, (moe_cu_stream s))                                                             \
    X(cuStreamWaitEvent, (moe_cu_stream s, moe_cu_event e, unsigned flags))                               \
    X(cuEventCreate, (moe_cu_event *e, unsigned flags))                                                   \
    X(cuEventDestroy_v2, (moe_cu_event e))                                                                \
    X(cuEventRecord, (moe_cu_event e, moe_cu_stream s))                                                   \
    X(cuEventSynchronize, (moe_cu_event e))                                                               \
    X(cuEventQuery, (moe_cu_event e))                                                                     \
    X(cuEventElapsedTime, (float *ms, moe_cu_event from, moe_cu_event to))                                \
    X(cuLaunchKernel, (moe_cu_function f, unsigned grid_x, unsigned grid_y, unsigned grid_z,              \
                       unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,       \
                       moe_cu_stream s, void **args, void **extra))                                       \
    X(cuStreamBeginCapture_v2, (moe_cu_stream s, moe_cu_capture_mode mode))                               \
    X(cuStreamEndCapture, (moe_cu_stream s, moe_cu_graph *g))                                             \
    X(cuGraphInstantiateWithFlags, (moe_cu_graph_exec *e, moe_cu_graph g, unsigned long long flags))      \
    X(cuGraphLaunch, (moe_cu_graph_exec e, moe_cu_stream s))                                              \
    X(cuGraphDestroy, (moe_cu_graph g))                                                                   \
    X(cuGraphExecDestroy, (moe_cu_graph_exec e))                                                          \
    X(cuMemGetAllocationGranularity, (size_t *bytes, const moe_cu_alloc_prop *p, moe_cu_granularity o))   \
    X(cuMemAddressReserve, (moe_cu_ptr *p, size_t bytes, size_t align, moe_cu_ptr wanted,                 \
                            unsigned long long flags))                                                    \
    X(cuMemAddressFree, (moe_cu_ptr p, size_t bytes))                                                     \
    X(cuMemCreate, (moe_cu_handle *h, size_t bytes, const moe_cu_alloc_prop *p,                           \
                    unsigned long long flags))                                                            \
    X(cuMemRelease, (moe_cu_handle h))                                                                    \
    X(cuMemMap, (moe_cu_ptr p, size_t bytes, size_t offset, moe_cu_handle h, unsigned long long flags))   \
    X(cuMemUnmap, (moe_cu_ptr p, size_t bytes))                                                           \
    X(cuMemSetAccess, (moe_cu_ptr p, size_t bytes, const moe_cu_access_desc *a, size_t n))                \
    X(cuMemExportToShareableHandle, (void *out, moe_cu_handle h, moe_cu_handle_type t,                    \
                                     unsigned long long flags))                                           \
    X(cuMemImportFromShareableHandle, (moe_cu_handle *h, void *from, moe_cu_handle_type t))

#endif
