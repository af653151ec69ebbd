/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/names.h - CUDA's names for the .cu files as C++ (shim.h); kernels/cuda/launch.h includes it
 * where the compiler is not nvcc. What it lacks is not for kernels: functions of the mathematical library and
 * atomic operations on floats do not compile. */
#ifndef MOE_TESTS_SHIM_CUDA_NAMES_H
#define MOE_TESTS_SHIM_CUDA_NAMES_H

#include "tests/shim/cuda/shim.h"

#include <string.h>

/* ---- launch.h's part ---- */

#define KERNEL(name, threads) extern "C" void name
#define KERNEL2(name, threads, blocks) KERNEL(name, threads)
#define SHARED(type, name, n)                                                                   \
    static struct shim_site name##_site;                                                        \
    type(&name)[n] = *(type(*)[n])shim_shared(&name##_site, sizeof(type) * (n))
#define DYNAMIC_SHARED(type, name) type *name = (type *)shim_dynamic()
#define DEVICE static inline __attribute__((unused))
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict

/* ---- threads and memory ---- */

#define threadIdx shim_here.thread
#define blockIdx shim_block
#define blockDim shim_threads
#define gridDim shim_grid
enum { warpSize = 32 };

/* Where accesses are counted (tests/shim/count), a vector is copied by one call, as on a GPU by one
 * instruction: the compiler would take it apart. */
#if defined(MOE_SHIM_COUNT)
#define SHIM_WHOLE(name)                                                                            \
    name() = default;                                                                               \
    name(const name &v) { shim_move(this, &v, sizeof v, &v); }                                      \
    name &operator=(const name &v) { shim_move(this, &v, sizeof v, &v); return *this; }
#define SHIM_VECTOR2(name, T) \
    struct alignas(8) name { T x, y; SHIM_WHOLE(name) name(T a, T b) : x(a), y(b) {} };
#define SHIM_VECTOR4(name, T)                                       \
    struct alignas(16) name {                                       \
        T x, y, z, w;                                               \
        SHIM_WHOLE(name)                                            \
        name(T a, T b, T c, T d) : x(a), y(b), z(c), w(d) {}        \
    };
#else
#define SHIM_VECTOR2(name, T) struct alignas(8) name { T x, y; };
#define SHIM_VECTOR4(name, T) struct alignas(16) name { T x, y, z, w; };
#endif
SHIM_VECTOR2(uint2, unsigned)
SHIM_VECTOR2(float2, float)
SHIM_VECTOR4(uint4, unsigned)
SHIM_VECTOR4(float4, float)
DEVICE uint2 make_uint2(unsigned x, unsigned y) { return { x, y }; }
DEVICE uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return { x, y, z, w }; }
DEVICE float2 make_float2(float x, float y) { return { x, y }; }
DEVICE float4 make_float4(float x, float y, float z, float w) { return { x, y, z, w }; }

template <typename T> static inline T __ldg(const T *p) { return *p; }
template <typename T> static inline T __ldcs(const T *p) { return *p; }
template <typename T> static inline T __ldcg(const T *p) { return *p; }
template <typename T> static inline void __stcs(T *p, T v) { *p = v; }

DEVICE void __threadfence(void) {}
DEVICE void __threadfence_block(void) {}
DEVICE void __trap(void) { shim_fail("__trap"); }

/* ---- meetings ---- */

DEVICE void __syncthreads(void) { shim_barrier(0); }
DEVICE int __syncthreads_or(int v) { return shim_barrier(v) != 0; }
DEVICE int __syncthreads_and(int v) { return shim_barrier(v) == shim_threads.x; }
DEVICE int __syncthreads_count(int v) { return (int)shim_barrier(v); }
DEVICE void __syncwarp(uint32_t mask = 0xffffffffu) { shim_full(mask), shim_sync_warp(); }
DEVICE uint32_t __ballot_sync(uint32_t mask, int v) { return shim_full(mask), shim_ballot(v); }
DEVICE int __any_sync(uint32_t mask, int v) { return shim_full(mask), shim_ballot(v) != 0; }
DEVICE int __all_sync(uint32_t mask, int v) { return shim_full(mask), shim_ballot(v) == 0xffffffffu; }
DEVICE uint32_t __activemask(void) = delete;

/* Values of 4 and of 8 bytes.  A lane that would look past its group of `width` lanes gets its own value. */
template <typename T> static inline T shim_shuffled(uint32_t mask, T value, unsigned from)
{
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "shuffles move 4 or 8 bytes");
    shim_full(mask);
    uint64_t bits = 0;
    memcpy(&bits, &value, sizeof value);
    bits = shim_shuffle(bits, from);
    memcpy(&value, &bits, sizeof value);
    return value;
}
DEVICE unsigned shim_lane(void) { return shim_here.thread.x % 32; }
template <typename T> static inline T __shfl_sync(uint32_t mask, T v, int from, int width = 32)
{
    unsigned w = (unsigned)width;
    return shim_shuffled(mask, v, shim_lane() / w * w + (unsigned)from % w);
}
template <typename T> static inline T __shfl_xor_sync(uint32_t mask, T v, int bits, int width = 32)
{
    unsigned me = shim_lane(), other = me ^ (unsigned)bits, w = (unsigned)width;
    return shim_shuffled(mask, v, other / w > me / w ? me : other % 32);
}
template <typename T> static inline T __shfl_down_sync(uint32_t mask, T v, unsigned by, int width = 32)
{
    unsigned me = shim_lane(), w = (unsigned)width;
    return shim_shuffled(mask, v, me % w + by < w ? me + by : me);
}
template <typename T> static inline T __shfl_up_sync(uint32_t mask, T v, unsigned by, int width = 32)
{
    unsigned me = shim_lane(), w = (unsigned)width;
    return shim_shuffled(mask, v, me % w >= by ? me - by : me);
}

/* ---- integer atomics; one thread runs at a time ---- */

#define SHIM_ATOMIC(type)                                                                     \
    DEVICE type atomicAdd(type *p, type v) { type old = *p; *p = old + v; return old; }       \
    DEVICE type atomicOr(type *p, type v) { type old = *p; *p = old | v; return old; }        \
    DEVICE type atomicAnd(type *p, type v) { type old = *p; *p = old & v; return old; }       \
    DEVICE type atomicMax(type *p, type v) { type old = *p; *p = old > v ? old : v; return old; } \
    DEVICE type atomicMin(type *p, type v) { type old = *p; *p = old < v ? old : v; return old; } \
    DEVICE type atomicExch(type *p, type v) { type old = *p; *p = v; return old; }            \
    DEVICE type atomicCAS(type *p, type is, type v) { type old = *p; *p = old == is ? v : old; return old; }
SHIM_ATOMIC(int)
SHIM_ATOMIC(unsigned)
SHIM_ATOMIC(unsigned long long)
float atomicAdd(float *, float) = delete;
double atomicAdd(double *, double) = delete;

/* ---- numbers: each operation rounds once, to nearest ---- */

DEVICE float __fmaf_rn(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DEVICE double __fma_rn(double a, double b, double c) { return __builtin_fma(a, b, c); }
DEVICE float __fadd_rn(float a, float b) { return a + b; }
DEVICE float __fsub_rn(float a, float b) { return a - b; }
DEVICE float __fmul_rn(float a, float b) { return a * b; }
DEVICE float __fdiv_rn(float a, float b) { return a / b; }
DEVICE float __frcp_rn(float a) { return 1 / a; }
DEVICE float __fsqrt_rn(float a) { return __builtin_sqrtf(a); }
DEVICE double __dadd_rn(double a, double b) { return a + b; }
DEVICE double __dsub_rn(double a, double b) { return a - b; }
DEVICE double __dmul_rn(double a, double b) { return a * b; }
DEVICE double __ddiv_rn(double a, double b) { return a / b; }
DEVICE double __drcp_rn(double a) { return 1 / a; }
DEVICE double __dsqrt_rn(double a) { return __builtin_sqrt(a); }

DEVICE uint32_t __float_as_uint(float f) { uint32_t u; memcpy(&u, &f, 4); return u; }
DEVICE int32_t __float_as_int(float f) { int32_t i; memcpy(&i, &f, 4); return i; }
DEVICE float __uint_as_float(uint32_t u) { float f; memcpy(&f, &u, 4); return f; }
DEVICE float __int_as_float(int32_t i) { float f; memcpy(&f, &i, 4); return f; }
DEVICE long long __double_as_longlong(double d) { long long i; memcpy(&i, &d, 8); return i; }
DEVICE double __longlong_as_double(long long i) { double d; memcpy(&d, &i, 8); return d; }

/* To the nearest whole number, ties to even; past the range of int the nearest int, and 0 for NaN. */
DEVICE long long shim_whole(double x, double low, double high)
{
    double whole = __builtin_rint(x);
    if (x != x) return 0;
    if (whole <= low) return (long long)low;
    if (whole >= high) return high > 4294967295. ? INT64_MAX : (long long)high;
    return (long long)whole;
}
DEVICE int __float2int_rn(float x) { return (int)shim_whole(x, -2147483648., 2147483647.); }
DEVICE int __double2int_rn(double x) { return (int)shim_whole(x, -2147483648., 2147483647.); }
DEVICE unsigned __float2uint_rn(float x) { return (unsigned)shim_whole(x, 0, 4294967295.); }
DEVICE long long __float2ll_rn(float x) { return shim_whole(x, -0x1p63, 0x1p63); }
DEVICE long long __double2ll_rn(double x) { return shim_whole(x, -0x1p63, 0x1p63); }
DEVICE float __int2float_rn(int x) { return (float)x; }
DEVICE float __uint2float_rn(unsigned x) { return (float)x; }
DEVICE float __ll2float_rn(long long x) { return (float)x; }
DEVICE double __int2double_rn(int x) { return x; }
DEVICE double __ll2double_rn(long long x) { return (double)x; }
DEVICE float __double2float_rn(double x) { return (float)x; }

DEVICE int __popc(unsigned x) { return __builtin_popcount(x); }
DEVICE int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
DEVICE int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
DEVICE int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
DEVICE int __ffs(int x) { return __builtin_ffs(x); }
DEVICE int __ffsll(long long x) { return __builtin_ffsll(x); }
DEVICE unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
DEVICE unsigned long long __umul64hi(unsigned long long a, unsigned long long b)
{
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
/* Byte i of the result is the byte of b:a that nibble i of `choice` names. */
DEVICE uint32_t __byte_perm(uint32_t a, uint32_t b, uint32_t choice)
{
    uint64_t both = (uint64_t)b << 32 | a;
    uint32_t r = 0;
    for (int i = 0; i < 4; i++) r |= (uint32_t)(both >> 8 * (choice >> 4 * i & 7) & 255) << 8 * i;
    return r;
}
DEVICE uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t by)
{
    return (uint32_t)(((uint64_t)high << 32 | low) >> (by & 31));
}
DEVICE uint32_t __funnelshift_l(uint32_t low, uint32_t high, uint32_t by)
{
    return (uint32_t)(((uint64_t)high << 32 | low) << (by & 31) >> 32);
}
DEVICE int min(int a, int b) { return a < b ? a : b; }
DEVICE int max(int a, int b) { return a > b ? a : b; }
DEVICE unsigned min(unsigned a, unsigned b) { return a < b ? a : b; }
DEVICE unsigned max(unsigned a, unsigned b) { return a > b ? a : b; }
DEVICE long min(long a, long b) { return a < b ? a : b; }
DEVICE long max(long a, long b) { return a > b ? a : b; }
float min(float, float) = delete; /* max_f32 and min_f32 say what becomes of a NaN */
float max(float, float) = delete;

/* ---- what has no place in a kernel ---- */

#pragma GCC poison sqrt sqrtf rsqrt rsqrtf cbrt cbrtf exp expf exp2 exp2f exp10 exp10f expm1 expm1f log logf
#pragma GCC poison log2 log2f log10 log10f log1p log1pf pow powf sin sinf cos cosf tan tanf sincos sincosf
#pragma GCC poison asin asinf acos acosf atan atanf atan2 atan2f sinh sinhf cosh coshf tanh tanhf erf erff
#pragma GCC poison tgamma tgammaf lgamma lgammaf fma fmaf fmod fmodf remainder remainderf hypot hypotf ldexp
#pragma GCC poison ldexpf scalbn scalbnf frexp frexpf ilogb ilogbf logb logbf rint rintf lrint lrintf llrint
#pragma GCC poison llrintf nearbyint nearbyintf round roundf lround lroundf floor floorf ceil ceilf trunc
#pragma GCC poison truncf fabs fabsf fmin fminf fmax fmaxf fdim fdimf copysign copysignf modf modff isnan
#pragma GCC poison isinf isfinite signbit __expf __exp10f __logf __log2f __log10f __powf __sinf __cosf
#pragma GCC poison __tanf __sincosf __fdividef __frsqrt_rn __saturatef printf malloc free

#endif
