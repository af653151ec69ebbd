/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/variants.h"

#include "base/env.h"

#include <pthread.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>

/* The avx2 kernels convert F16 too; compilers differ in whether __builtin_cpu_supports knows this name. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

unsigned moe_cpu_flags(void)
{
    unsigned flags = 0;
    const char *mask = moe_env("MOE_CPU");
    if (mask && !strcmp(mask, "ref")) return 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c()) flags |= MOE_CPU_AVX2;
    if (mask && !strcmp(mask, "avx2")) return flags;
    if (flags && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        flags |= MOE_CPU_AVX512;
    if (!(flags & MOE_CPU_AVX512) || (mask && !strcmp(mask, "avx512"))) return flags;
    if (__builtin_cpu_supports("avx512bf16")) flags |= MOE_CPU_BF16;
    if (__builtin_cpu_supports("avx512vnni")) flags |= MOE_CPU_VNNI;
    if (__builtin_cpu_supports("avx512vbmi")) flags |= MOE_CPU_VBMI;
#endif
    return flags;
}

void moe_kernels_init(struct moe_kernels *k, unsigned flags)
{
    (void)flags; /* read on x86-64 only */
#define KERNEL(name, ret, params) k->name = moe_##name##_ref;
#include "kernels/kernels.def"
#undef KERNEL
#if defined(__x86_64__)
    if (!(flags & MOE_CPU_AVX2)) return;
#define KERNEL(name, ret, params) k->name = moe_##name##_avx2;
#include "kernels/kernels.def"
#undef KERNEL
    if (!(flags & MOE_CPU_AVX512)) return;
#define KERNEL(name, ret, params) k->name = moe_##name##_avx512;
#include "kernels/kernels.def"
#undef KERNEL
    if (flags & MOE_CPU_BF16) k->peak_bf16 = moe_peak_bf16_dot;
    if (!(flags & MOE_CPU_VNNI)) return;
    k->peak_vnni = moe_peak_vnni_dot;
    k->nvfp4_quantize = moe_nvfp4_quantize_vnni;
    k->nvfp4_quantize_bf16 = moe_nvfp4_quantize_bf16_vnni;
    if (flags & MOE_CPU_VBMI) k->matmul = moe_matmul_vnni, k->matmul_int16 = moe_matmul_int16_vnni;
#endif
}

static struct moe_kernels table;
static unsigned table_flags;

static void fill(void)
{
    table_flags = moe_cpu_flags();
    moe_kernels_init(&table, table_flags);
}

const struct moe_kernels *moe_kernels(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill);
    return &table;
}

const char *moe_kernels_name(void)
{
    moe_kernels();
    return table_flags & MOE_CPU_AVX512 ? "avx512" : table_flags & MOE_CPU_AVX2 ? "avx2" : "ref";
}

const char *moe_kernels_level(void)
{
    moe_kernels();
    return table_flags & MOE_CPU_AVX2 ? "vector" : "ref";
}
