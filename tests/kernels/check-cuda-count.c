/* SPDX-License-Identifier: Apache-2.0 */
/* check-cuda-count [KERNEL]
 *
 * Counts what GPU kernels do to memory, without a GPU (tests/shim/count): a table with a row for each kernel,
 * at widths of Kimi K2 with few rows (`make count` prints it; docs/measurements/gpu.md has it).  Checks the
 * counters on small kernels whose counts are known, and of products with NVFP4 weights, and fast ones of
 * other types:
 * - weights are asked for once, and all that is moved is within 3 % of the floor;
 * - no access to shared memory has a conflict of banks.
 * Of a kernel that is named it also prints the places in the program that move more than they have to:
 * addr2line -ie check-cuda-count ADDRESS says where they are in the sources. */
#include "tests/kernels/cuda-count.h"
#include "tests/kernels/cuda-count-rows.h"

#include "kernels/cuda/nvfp4-fast.h"
#include "tests/shim/count/counted.h"

static int failures;
#define WANT(ok, ...) \
    do { if (!(ok)) failures++, printf("FAIL: " __VA_ARGS__), printf("\n"); } while (0)

/* ---- the counters themselves ---- */

#define COUNTED(name)                            \
    void counted_##name(const struct counted_args a); \
    static void run_##name(const void *a) { counted_##name(*(const struct counted_args *)a); }
COUNTED(global) COUNTED(shared) COUNTED(copies)

static struct shim_counts run_counted(void (*run)(const void *), int form, struct shim_traffic *load,
                                      struct shim_traffic *store)
{
    struct shim_kernel k = { "counted", run, sizeof(struct counted_args), COUNTED_THREADS };
    struct counted_args a = { .form = form };
    struct shim_counts c;
    const unsigned grid[3] = { 2, 1, 1 };
    a.in = (const float *)(uintptr_t)count_zeros(64 << 10);
    a.out = (float *)(uintptr_t)count_out(4 * 2 * COUNTED_THREADS);
    shim_count(&k, grid, COUNTED_THREADS, 0, &a, count_array, count_arrays, &c);
    *load = count_array[0].load, *store = count_array[1].store;
    count_arrays = 0, count_used = 0;
    return c;
}

/* Two blocks of two warps: four warps, each with one request unless the table says otherwise. */
static void check_global(void)
{
    static const struct { enum counted_form form; const char *what; unsigned requests, sectors, least, seen; }
    want[] = {
        { COUNTED_NEIGHBOURS, "neighbours", 4, 16, 16, 16 },
        { COUNTED_EVERY_SECOND, "every second", 4, 32, 16, 32 },
        { COUNTED_EVERY_SECTOR, "a sector each", 4, 128, 16, 128 },
        { COUNTED_SHIFTED, "not aligned", 4, 20, 16, 17 },
        { COUNTED_SAME, "all the same", 4, 4, 4, 1 },
        { COUNTED_VECTORS, "16 bytes", 4, 64, 64, 64 },
        { COUNTED_HALF, "half the lanes", 4, 8, 8, 8 },
        { COUNTED_PARTED, "parted lanes", 8, 16, 16, 16 },
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct shim_traffic load, store;
        run_counted(run_global, want[i].form, &load, &store);
        WANT(load.requests == want[i].requests && load.sectors == want[i].sectors &&
                 load.least == want[i].least && load.distinct == want[i].seen,
             "global loads, %s: %llu requests, %llu sectors, %llu at least, %llu distinct", want[i].what,
             (unsigned long long)load.requests, (unsigned long long)load.sectors,
             (unsigned long long)load.least, (unsigned long long)load.distinct);
        WANT(store.requests == 4 && store.sectors == 16 && store.least == 16 && store.distinct == 16,
             "global stores, %s", want[i].what);
    }
}

static void check_shared(void)
{
    static const struct { enum counted_form form; const char *what; unsigned waves, conflicts; } want[] = {
        { COUNTED_NEIGHBOURS, "neighbours", 4, 0 },     { COUNTED_EVERY_SECOND, "every second", 8, 4 },
        { COUNTED_EVERY_BANK, "one bank", 128, 124 },   { COUNTED_SAME, "all the same", 4, 0 },
        { COUNTED_VECTORS, "16 bytes", 16, 0 },         { COUNTED_VECTORS_APART, "16 bytes apart", 32, 16 },
        { COUNTED_MATRICES, "ldmatrix", 16, 0 },        { COUNTED_HALF, "half the lanes", 4, 0 },
        { COUNTED_MATRICES_APART, "ldmatrix apart", 128, 112 },
    };
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        struct shim_traffic load, store;
        struct shim_counts c = run_counted(run_shared, want[i].form, &load, &store);
        WANT(c.load.requests == 4 && c.load.waves == want[i].waves && c.load.conflicts == want[i].conflicts,
             "shared loads, %s: %llu requests, %llu waves, %llu conflicts", want[i].what,
             (unsigned long long)c.load.requests, (unsigned long long)c.load.waves,
             (unsigned long long)c.load.conflicts);
        WANT(c.store.conflicts == 0 && c.mma == 4, "shared stores, %s", want[i].what);
    }
}

static void check_copies(void)
{
    struct shim_traffic load, store;
    struct shim_counts c = run_counted(run_copies, 0, &load, &store);
    WANT(c.copied == 2 * (16 + 4) * COUNTED_THREADS && load.bytes == c.copied && load.requests == 8 &&
             load.sectors == 4 * (16 + 4) && load.least == load.sectors,
         "asynchronous copies of %llu bytes in %llu requests", (unsigned long long)c.copied,
         (unsigned long long)load.requests);
    WANT(c.fill.requests == 12 && c.fill.waves == 4 * (4 + 1 + 4) && c.fill.conflicts == 0,
         "fills of shared memory: %llu in %llu waves", (unsigned long long)c.fill.requests,
         (unsigned long long)c.fill.waves);
}

/* ---- products with NVFP4 weights ---- */

/* Two experts, each with one item of `tokens` rows: gate and up joined by SwiGLU, or down.  terms: of x; 0:
 * digits. */
static void count_nvfp4(enum moe_cuda_kernel k, int tokens, int terms, bool down)
{
    const int64_t rows = 128, cols = down ? 2048 : 7168, matrices = down ? 1 : 2, pairs = 2 * tokens;
    const int64_t codes = rows * cols / 2, scales = rows * cols / 16, matrix = codes + scales;
    const int32_t items = 2;
    const struct moe_cuda_item item[2] = { { 0, 0, tokens, 0 }, { 1, tokens, tokens, 0 } };
    struct moe_cuda_nvfp4 a = { .stride = matrices * matrix + 256, .rows = rows, .cols = cols, .ldy = rows };
    a.codes[0] = count_take(2 * a.stride, 2 * matrices * (codes + scales + 4));
    for (int m = 0; m < matrices; m++) {
        a.codes[m] = a.codes[0] + (uint64_t)(m * matrix);
        a.scales[m] = a.codes[m] + (uint64_t)codes;
        a.global[m] = a.codes[0] + (uint64_t)(matrices * matrix + 4 * m);
    }
    if (terms) {
        a.digits = count_zeros(terms * pairs * moe_cuda_halves_pitch(MOE_CUDA_HALVES_CODES, cols));
        a.factors = count_zeros(4 * pairs);
    } else {
        a.digits = count_zeros(moe_cuda_digit_bytes(pairs, cols));
        a.factors = count_zeros(moe_cuda_factor_bytes(pairs, cols));
    }
    a.y[0] = count_out(4 * pairs * rows);
    a.items = count_put(item, sizeof item);
    a.item_count = count_put(&items, sizeof items);
    a.tokens = pairs, a.most = items, a.matrices = (int32_t)matrices, a.blocks = 3;
    a.flags = down ? 0 : MOE_CUDA_NVFP4_SWIGLU;
    const char *shape = COUNT_SHAPE("2 experts, [%d, %d], %d rows each%s", (int)rows, (int)cols, tokens,
                                    down ? "" : ", SwiGLU");
    const struct counted r = count_launch(k, shape, terms ? moe_cuda_fast_grid(&a, tokens, terms)
                                                          : moe_cuda_nvfp4_grid(&a, tokens), &a);
    const int64_t weights = count_must[0], asked = COUNT_SECTOR * (int64_t)count_array[0].load.sectors;
    WANT(asked >= weights && (double)asked <= 1.03 * (double)weights,
         "%s: %lld bytes of weights are asked for, of %lld", shape, (long long)asked, (long long)weights);
    WANT((double)r.moved <= 1.03 * (double)r.must && r.moved >= r.must,
         "%s: %lld bytes are moved, and the floor is %lld", shape, (long long)r.moved, (long long)r.must);
    WANT(!(r.c.load.conflicts + r.c.store.conflicts + r.c.fill.conflicts),
         "%s: conflicts of %llu loads, %llu stores, %llu fills", shape,
         (unsigned long long)r.c.load.conflicts, (unsigned long long)r.c.store.conflicts,
         (unsigned long long)r.c.fill.conflicts);
}

static void count_products(void)
{
    static const enum moe_cuda_kernel exact[] = { MOE_CUDA_nvfp4_2, MOE_CUDA_nvfp4_4, MOE_CUDA_nvfp4_8 };
    static const enum moe_cuda_kernel fast[] = { MOE_CUDA_nvfp4_fast_8, MOE_CUDA_nvfp4_fast_16,
                                                 MOE_CUDA_nvfp4_fast_32, MOE_CUDA_nvfp4_fast_64 };
    static const enum moe_cuda_kernel two[] = { MOE_CUDA_nvfp4_terms_8, MOE_CUDA_nvfp4_terms_16,
                                                MOE_CUDA_nvfp4_terms_32 };
    for (int i = 0; i < 3; i++)
        for (int down = 0; down < 2; down++) count_nvfp4(exact[i], 2 << i, 0, down);
    for (int i = 0; i < 4; i++)
        for (int down = 0; down < 2; down++) count_nvfp4(fast[i], 8 << i, 1, down);
    for (int i = 0; i < 3; i++)
        for (int down = 0; down < 2; down++) count_nvfp4(two[i], 8 << i, 2, down);
}

/* What all products of weights that are read once must keep to: the first array is the weights. */
static void count_dense_products(void)
{
    static const struct { int type, cols, n, split; } c[] = {
        { MOE_BF16, HIDDEN, 8, 1 },  { MOE_BF16, HIDDEN, 8, 4 },  { MOE_FP8_B128, HIDDEN, 8, 1 },
        { MOE_F16, HIDDEN, 8, 1 },   { MOE_BF16, HIDDEN, 32, 1 }, { MOE_FP8_B128, HIDDEN, 32, 1 },
        { MOE_BF16, INTER, 64, 1 },  { MOE_FP8_B128, INTER, 64, 1 }, { MOE_BF16, INTER, 128, 1 },
        { MOE_FP8_B128, INTER, 128, 1 }
    };
    for (size_t i = 0; i < sizeof c / sizeof *c; i++) {
        const struct counted r = count_dense_fast(c[i].type, c[i].cols, c[i].n, c[i].split);
        const int64_t asked = COUNT_SECTOR * (int64_t)count_array[0].load.sectors;
        WANT(asked == count_must[0], "%s: %lld bytes of weights are asked for", count_text, (long long)asked);
        WANT((double)r.moved <= 1.03 * (double)r.must && r.moved >= r.must, "%s: %lld bytes are moved",
             count_text, (long long)r.moved);
        WANT(!(r.c.load.conflicts + r.c.fill.conflicts), "%s: conflicts of banks", count_text);
    }
}

int main(int argc, char **argv)
{
    count_places = argc > 1 ? argv[1] : NULL;
    count_memory = aligned_alloc(4096, COUNT_MEMORY);
    assert(count_memory);
    check_global();
    check_shared();
    check_copies();
    count_heading();
    count_products();
    count_dense_products();
    count_rows();
    count_unseen();
    free(count_memory);
    return failures ? 1 : 0;
}
