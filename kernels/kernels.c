/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/variants.h"

#include "base/env.h"

#include <pthread.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>

/* The avx2 level converts F16 with F16C, for which not every compiler's __builtin_cpu_supports has a name. */
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

/* A level: the kernels that some processors can run, and the flags that they take.  A kernel that the level
 * does not define is NULL here, and stays the one of the level below. */
struct level { unsigned need; struct moe_kernels has; };

#if defined(__x86_64__)
/* What kernels/body/ makes of the lanes.h, blocks.h and fp4.h of an instruction set. */
#define FROM_BODY(isa) \
    { \
        .dequantize = moe_dequantize_##isa, .dequantize_nt = moe_dequantize_nt_##isa, \
        .matmul = moe_matmul_##isa, .matmul_int16 = moe_matmul_int16_##isa, .matmul_t = moe_matmul_t_##isa, \
        .dot = moe_dot_##isa, .amax = moe_amax_##isa, .amax_bf16 = moe_amax_bf16_##isa, \
        .sqerr = moe_sqerr_##isa, .rmsnorm = moe_rmsnorm_##isa, .swiglu = moe_swiglu_##isa, \
        .exp = moe_exp_##isa, .sigmoid = moe_sigmoid_##isa, .softmax = moe_softmax_##isa, \
        .rope = moe_rope_##isa, .attend = moe_attend_##isa, .attend_pages = moe_attend_pages_##isa, \
        .attend_merge = moe_attend_merge_##isa, .attend_finish = moe_attend_finish_##isa, \
        .gemm = moe_gemm_##isa, .nvfp4_quantize = moe_nvfp4_quantize_##isa, \
        .nvfp4_quantize_bf16 = moe_nvfp4_quantize_bf16_##isa, .nvfp4_feedback = moe_nvfp4_feedback_##isa, \
        .nvfp4_descend = moe_nvfp4_descend_##isa, .nvfp4_activations = moe_nvfp4_activations_##isa, \
        .nvfp4_activations_46 = moe_nvfp4_activations_46_##isa, \
        .nvfp4_activations_search = moe_nvfp4_activations_search_##isa, .peak = moe_peak_##isa, \
    }
enum { AVX512 = MOE_CPU_AVX2 | MOE_CPU_AVX512 };
#endif

/* From slow to fast: of the levels that a processor can run, the last one that defines a kernel gives it. */
static const struct level levels[] = {
#define KERNEL(name, ret, params) .name = moe_##name##_ref,
    { 0,
      {
#include "kernels/kernels.def"
      } },
#undef KERNEL
#if defined(__x86_64__)
    { MOE_CPU_AVX2, FROM_BODY(avx2) },
    { AVX512, FROM_BODY(avx512) },
    { AVX512 | MOE_CPU_BF16, { .peak_bf16 = moe_peak_bf16_avx512dot } },
    { AVX512 | MOE_CPU_VNNI,
      { .peak_vnni = moe_peak_vnni_avx512dot,
        .nvfp4_quantize = moe_nvfp4_quantize_avx512dot,
        .nvfp4_quantize_bf16 = moe_nvfp4_quantize_bf16_avx512dot } },
    { AVX512 | MOE_CPU_VNNI | MOE_CPU_VBMI,
      { .matmul = moe_matmul_avx512dot, .matmul_int16 = moe_matmul_int16_avx512dot } },
#endif
};

static void take(struct moe_kernels *k, const struct moe_kernels *has)
{
#define KERNEL(name, ret, params) \
    if (has->name) k->name = has->name;
#include "kernels/kernels.def"
#undef KERNEL
}

void moe_kernels_init(struct moe_kernels *k, unsigned flags)
{
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        if ((flags & levels[i].need) == levels[i].need) take(k, &levels[i].has);
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
