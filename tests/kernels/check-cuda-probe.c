/* SPDX-License-Identifier: Apache-2.0 */
/* Holds single instructions of a GPU against their twins on the host (kernels/cuda/ptx.h): tensor cores on
 * random fragments, matrices from shared memory, conversions.  Every kernel that was tested without a GPU
 * stands on these.
 *
 *   check-cuda-probe [FRAGMENTS]   of each type (default 3000); tests/device.sh asks for a million
 *
 * Without a GPU both sides are the twins, and what is tested is that the kernel hands over what it should. */
#include "tests/kernels/cuda-harness.h"

#include "kernels/cuda/probe.h"
#include "tests/shim/cuda/shim.h"

enum { IN = 32 * MOE_CUDA_PROBE_IN, OUT = 32 * MOE_CUDA_PROBE_OUT, BATCH = 4096 };
static uint32_t in[BATCH * IN], got[BATCH * OUT], want[BATCH * OUT];

static uint32_t bits(void) { return (uint32_t)(random_bits() >> 32); }
static uint32_t below(uint32_t n) { return (uint32_t)random_below(n); }

/* ---- inputs ---- */

/* How the numbers of a fragment are chosen: any bits, so that NaN, Inf and subnormals are among them; the
 * exponents close to each other, so that sums are rounded; subnormals and zeros; and what products with NVFP4
 * weights multiply (codes.h): digits of 12 bits, times 16, and codes of E2M1 as Hopper has them, times 2^-14,
 * and as Blackwell has them.  Sums of the last two have to be exact. */
enum kind { ANY, CLOSE, SMALL, MOVED, CODES, KINDS };

static uint32_t code(bool moved)
{
    static const uint16_t value[8] = { 0, 0x3800, 0x3c00, 0x3e00, 0x4000, 0x4200, 0x4400, 0x4600 };
    const uint32_t c = below(16);
    return (c & 8) << 12 | (moved ? (c & 7) << 9 : value[c & 7]);
}

static uint32_t number(enum kind k, bool bf16, bool digit)
{
    const int mantissa = bf16 ? 7 : 10, one = bf16 ? 127 : 15;
    const uint32_t sign = below(2) << 15, fraction = below(1u << mantissa);
    switch (k) {
    case ANY: return bits() >> 16;
    case CLOSE: return sign | (uint32_t)(one - 4 + (int)below(9)) << mantissa | fraction;
    case SMALL: return sign | (below(3) << mantissa) | (below(2) ? fraction : 0);
    default:
        if (bf16) return sign | (uint32_t)(one + (int)below(4)) << mantissa; /* powers of two */
        return digit ? shim_f16_from_f32(16 * (float)(random_below(4096) - 2048)) : code(k == MOVED);
    }
}

static uint32_t addend(enum kind k)
{
    const float whole = (float)(random_below(1 << 20) - (1 << 19));
    if (k == ANY) return bits();
    if (k == SMALL) return below(4) ? 0 : bits() & 0x807fffff;
    if (k >= MOVED) return below(2) ? 0 : moe_f32_bits(whole * (k == MOVED ? 0x1p-11f : 8));
    return (bits() & 0x807fffff) | (120 + below(16)) << 23;
}

static void fill_words(uint32_t what, int64_t n)
{
    const bool bf16 = what == MOE_CUDA_PROBE_MMA_BF16;
    for (int64_t i = 0; i < n; i++) {
        const enum kind k = (enum kind)(i % KINDS);
        for (int j = 0; j < IN; j++) {
            const int word = j % MOE_CUDA_PROBE_IN;
            uint32_t *w = &in[i * IN + j];
            if (what > MOE_CUDA_PROBE_MMA_BF16) *w = bits();
            else if (word >= 6) *w = addend(k);
            else *w = number(k, bf16, word >= 4) | number(k, bf16, word >= 4) << 16;
        }
    }
}

/* ---- outputs ---- */

static bool nan_f16(uint32_t h) { return (h & 0x7fff) > 0x7c00; }
static bool nan_f32(uint32_t u) { return (u & 0x7fffffff) > 0x7f800000; }
static bool same_f16(uint32_t a, uint32_t b) { return a == b || (nan_f16(a) && nan_f16(b)); }
static bool same_f32(uint32_t a, uint32_t b) { return a == b || (nan_f32(a) && nan_f32(b)); }
static bool same_halves(uint32_t a, uint32_t b)
{
    return same_f16(a & 0xffff, b & 0xffff) && same_f16(a >> 16, b >> 16);
}

/* Whether word k of a lane's result is equal; NaN of any bits are where it is a number. */
static bool same(uint32_t what, int k, uint32_t a, uint32_t b)
{
    if (what <= MOE_CUDA_PROBE_MMA_BF16) return same_f32(a, b);
    if (what < MOE_CUDA_PROBE_NUMBERS) return a == b;
    return k == 1 ? same_f32(a, b) : k == 2 ? same_f16(a, b) : same_halves(a, b);
}

static const char *const name[MOE_CUDA_PROBES] = {
    "mma_16816_f16",     "mma_16816_bf16",  "ldmatrix_x4", "ldmatrix_x2",
    "ldmatrix_x4_trans", "movmatrix_trans", "a conversion"
};

static void compare(uint32_t what, int64_t n)
{
    for (int64_t i = 0; i < n * OUT; i++) {
        if (same(what, (int)(i % MOE_CUDA_PROBE_OUT), got[i], want[i])) continue;
        const int64_t at = i / OUT, lane = i % OUT / MOE_CUDA_PROBE_OUT;
        for (int j = 0; j < IN; j++)
            fprintf(stderr, "%08x%c", in[at * IN + j], j % MOE_CUDA_PROBE_IN == 9 ? '\n' : ' ');
        cuda_fail("case %" PRId64 ", of the words above: word %d of lane %" PRId64 " is %08x, and has to be "
                  "%08x", at, (int)(i % MOE_CUDA_PROBE_OUT), lane, got[i], want[i]);
    }
    cuda_checks += n * OUT;
}

static void run(uint32_t what, int64_t n)
{
    struct moe_cuda_probe a = { .n = n, .what = what };
    struct moe_cuda_grid g = moe_cuda_probe_grid(&a);
    const unsigned grid[3] = { g.x, g.y, g.z };
    const size_t bytes = sizeof(uint32_t) * (size_t)(n * IN), results = sizeof(uint32_t) * (size_t)(n * OUT);
    CUDA_CASE("probe: %s", name[what]);
    fill_words(what, n);
    a.in = cuda_in(in, bytes);
    a.out = cuda_out(results);
    cuda_launch(MOE_CUDA_probe, g, &a, sizeof a);
    cuda_get(got, a.out, results);
    cuda_free_all();
    /* the twins, in this process */
    a.in = (uint64_t)(uintptr_t)in;
    a.out = (uint64_t)(uintptr_t)want;
    shim_launch(shim_find("moe_cuda_probe"), grid, g.threads, g.shared, SHIM_NOT_ALLOWED, &a);
    compare(what, n);
}

static int64_t fragments = 3000;

static void check(void)
{
    for (uint32_t what = 0; what < MOE_CUDA_PROBES; what++) {
        const int64_t all = (what <= MOE_CUDA_PROBE_MMA_BF16 ? fragments : fragments / 10) / 3 + 1;
        for (int64_t i = 0; i < all; i += BATCH) run(what, all - i < BATCH ? all - i : BATCH);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2) fragments = atoll(argv[1]);
    return cuda_main(argc == 2 ? 1 : argc, argv, check);
}
