/* SPDX-License-Identifier: Apache-2.0 */
/* checkkern compares every variant of every kernel with the C reference, or times them.
 *
 *   checkkern [-s SEED] [-f NAME]     check (a fresh seed unless one is given, printed on failure)
 *   checkkern -b [-f NAME]            time */
#include "tests/kernels/checkkern-activations.h"
#include "tests/kernels/checkkern-attend.h"
#include "tests/kernels/checkkern-bench.h"
#include "tests/kernels/checkkern-calibration.h"
#include "tests/kernels/checkkern-nvfp4.h"
#include "tests/kernels/checkkern-vector.h"
#include "tests/kernels/checkkern-weight.h"
#include "tests/kernels/checkkern.h"

struct check {
    const char *name;
    void (*run)(const struct variant *v);
    bool dot; /* avx512dot/ defines this kernel, too, so that AVX512DOT is checked */
};
static const struct check all_checks[] = {
    { "dequantize", check_dequantize, false },
    { "dequantize_nt", check_dequantize_nt, false },
    { "matmul", check_matmul, true },
    { "matmul_int16", check_matmul_int16, true },
    { "matmul_t", check_matmul_t, false },
    { "matmul_many", check_matmul_many, false },
    { "dot", check_dot, false },
    { "amax", check_amax, false },
    { "amax_bf16", check_amax_bf16, false },
    { "sqerr", check_sqerr, false },
    { "rmsnorm", check_rmsnorm, false },
    { "swiglu", check_swiglu, false },
    { "softmax", check_softmax, false },
    { "rope", check_rope, false },
    { "attend", check_attend, false },
    { "attend_pages", check_attend_pages, false },
    { "attend_broken", check_attend_broken, false },
    { "exp", check_exp, false },
    { "nvfp4_quantize", check_nvfp4_quantize, true },
    { "nvfp4_activations", check_nvfp4_activations, false },
    { "nvfp4_activations_46", check_nvfp4_activations_46, false },
    { "nvfp4_activations_search", check_nvfp4_activations_search, false },
    { "gemm", check_gemm, false },
    { "nvfp4_feedback", check_nvfp4_feedback, false },
    { "nvfp4_descend", check_nvfp4_descend, false },
    { "peak", check_peak, true },
};

static void run_checks(const char *filter)
{
    for (size_t c = 0; c < sizeof all_checks / sizeof *all_checks; c++)
        for (int v = 1; v < n_variants; v++) {
            if (filter && !strstr(all_checks[c].name, filter)) continue;
            if (v == AVX512DOT && !all_checks[c].dot) continue;
            now_kernel = all_checks[c].name, now_variant = variants[v].name, now_case[0] = 0;
            rng = seed * 2 + 1;
            all_checks[c].run(&variants[v]);
        }
}

int main(int argc, char **argv)
{
    const char *filter = NULL;
    struct timespec t;
    bool bench = false;
    int o;
    clock_gettime(CLOCK_REALTIME, &t);
    seed = (uint64_t)t.tv_nsec % 1000000;
    while ((o = getopt(argc, argv, "s:f:b")) != -1)
        switch (o) {
        case 's': seed = strtoull(optarg, NULL, 10); break;
        case 'f': filter = optarg; break;
        case 'b': bench = true; break;
        default: fprintf(stderr, "usage: checkkern [-b] [-s SEED] [-f NAME]\n"); return 2;
        }
    static const int signals[] = { SIGSEGV, SIGBUS, SIGILL };
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], on_fault);
    find_variants();
    if (bench) {
        rng = seed * 2 + 1;
        run_bench(filter);
        return 0;
    }
    run_checks(filter);
    printf("checkkern: %" PRId64 " checks, %d variants besides ref, seed %" PRIu64 "\n", checks,
           n_variants - 1, seed);
    return 0;
}
