/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/space.h on the stand-in for NVIDIA's driver: experts come and leave, holes fault, the bitmap
 * follows the stream, another process sees what was exported, and every call of the driver may fail. */
#include "kernels/cuda/images.h"
#include "model/ops/cuda/gpu.h"
#include "model/ops/cuda/space.h"

#include "tests/ok.h"
#include "tests/shim/cuda/open.h"

#include <stdlib.h>
#include <sys/wait.h>

enum { MIB = 1 << 20, EXPERTS = 40, LAYERS = 3 };
static const uint64_t sizes[LAYERS] = { 3 * MIB - 5, 0, 40 * 1000 };
static struct moe_err err;

static void test_sizes(void)
{
    OK(moe_space_stride_for(1, 2 * MIB) == 256 && moe_space_stride_for(257, 2 * MIB) == 512);
    OK(moe_space_stride_for(MIB, 2 * MIB) == MIB && moe_space_stride_for(MIB + 1, 2 * MIB) == 2 * MIB);
    OK(moe_space_stride_for(24 * MIB - 7, 2 * MIB) == 24 * MIB);
    OK(moe_space_estimate(24 * MIB, 3, 2 * MIB) == 72 * MIB && moe_space_estimate(0, 9, 2 * MIB) == 0);
    /* 34 neighbours of 64 KiB can lie in three units of 2 MiB: one, 32 and one */
    OK(moe_space_estimate(65536, 33, 2 * MIB) == 4 * MIB);
    OK(moe_space_estimate(65536, 34, 2 * MIB) == 6 * MIB);
}

static struct moe_addr at(const struct moe_space *s, int layer, int e)
{
    return moe_addr_plus(moe_space_base(s, layer), (uint64_t)e * moe_space_stride(s, layer));
}

/* Fills an expert with a byte, or finds out whether it holds that. */
static void put(struct moe_gpu *g, const struct moe_space *s, int layer, int e, int byte)
{
    OK(moe_gpu_fill(g, at(s, layer, e), (uint8_t)byte, sizes[layer], &err) == MOE_OK);
}

static bool holds(struct moe_gpu *g, const struct moe_space *s, int layer, int e, int byte)
{
    unsigned char v[2];
    OK(moe_gpu_read(g, v, at(s, layer, e), 1, &err) == MOE_OK);
    OK(moe_gpu_read(g, v + 1, moe_addr_plus(at(s, layer, e), sizes[layer] - 1), 1, &err) == MOE_OK);
    OK(moe_gpu_wait(g, &err) == MOE_OK);
    return v[0] == byte && v[1] == byte;
}

static uint32_t word(struct moe_gpu *g, const struct moe_space *s, int layer, int i)
{
    uint32_t w;
    OK(moe_gpu_read(g, &w, moe_addr_plus(moe_space_resident(s, layer), 4 * (uint64_t)i), 4, &err) == MOE_OK);
    OK(moe_gpu_wait(g, &err) == MOE_OK);
    return w;
}

static void test_moves(struct moe_gpu *g)
{
    struct moe_space *s;
    const int32_t large[] = { 0, 7, 39 }, small[] = { 3, 4, 31, 32 }, one[] = { 7 };
    OK(moe_space_open(&s, g, LAYERS, sizes, EXPERTS, false, &err) == MOE_OK);
    OK(moe_space_bytes(s) == 0 && !moe_space_base(s, 1).at && moe_space_base(s, 0).at % (2 * MIB) == 0);
    OK(moe_space_stride(s, 0) == 4 * MIB && moe_space_stride(s, 2) == 65536);

    OK(moe_space_back(s, 0, large, 3, &err) == MOE_OK && moe_space_bytes(s) == 12 * MIB);
    OK(moe_space_back(s, 2, small, 4, &err) == MOE_OK && moe_space_bytes(s) == 16 * MIB); /* two units */
    OK(moe_space_back(s, 2, small, 2, &err) == MOE_OK && moe_space_bytes(s) == 16 * MIB);
    for (int i = 0; i < 3; i++) put(g, s, 0, large[i], 10 + i);
    for (int i = 0; i < 4; i++) put(g, s, 2, small[i], 20 + i);
    OK(!moe_space_has(s, 0, 7) && word(g, s, 0, 0) == 0);
    OK(moe_space_show(s, 0, large, 3, &err) == MOE_OK && moe_space_show(s, 2, small, 4, &err) == MOE_OK);
    OK(moe_space_has(s, 0, 7) && !moe_space_has(s, 0, 8) && moe_space_has(s, 2, 32));
    OK(word(g, s, 0, 0) == 129 && word(g, s, 0, 1) == 128 && word(g, s, 2, 0) == (1u << 31 | 24));
    OK(word(g, s, 2, 1) == 1 && word(g, s, 1, 0) == 0);

    /* one expert leaves and comes again; the others stay what they are */
    OK(moe_space_hide(s, 0, one, 1, &err) == MOE_OK && word(g, s, 0, 0) == 1 && !moe_space_has(s, 0, 7));
    OK(moe_space_drop(s, 0, one, 1, &err) == MOE_OK && moe_space_bytes(s) == 12 * MIB);
    OK(holds(g, s, 0, 0, 10) && holds(g, s, 0, 39, 12) && holds(g, s, 2, 31, 22));
    OK(moe_space_back(s, 0, one, 1, &err) == MOE_OK && moe_space_bytes(s) == 16 * MIB);
    put(g, s, 0, 7, 33);
    OK(holds(g, s, 0, 7, 33) && holds(g, s, 0, 0, 10));

    /* a unit lives as long as one of its experts */
    OK(moe_space_hide(s, 2, small, 3, &err) == MOE_OK && moe_space_drop(s, 2, small, 2, &err) == MOE_OK);
    OK(moe_space_bytes(s) == 16 * MIB && holds(g, s, 2, 31, 22));
    OK(moe_space_drop(s, 2, small + 2, 1, &err) == MOE_OK && moe_space_bytes(s) == 14 * MIB);
    OK(holds(g, s, 2, 32, 23));
    moe_space_close(&s);
    OK(!s);
}

/* More than there is: the experts that fitted are given back. */
static void test_too_much(struct moe_gpu *g)
{
    struct moe_space *s;
    int32_t all[EXPERTS];
    for (int i = 0; i < EXPERTS; i++) all[i] = i;
    OK(moe_space_open(&s, g, LAYERS, sizes, EXPERTS, false, &err) == MOE_OK);
    OK(moe_space_back(s, 0, all, 2, &err) == MOE_OK);
    put(g, s, 0, 1, 5);
    FAILS(MOE_DEVICE, moe_space_back(s, 0, all, EXPERTS, &err));
    SAYS("cuMemCreate of 4.0 MiB for weights, beside 0.06 GiB of them, where ");
    OK(moe_space_bytes(s) == 8 * MIB && holds(g, s, 0, 1, 5));
    moe_space_close(&s);
}

/* Two spaces of one process, as two processes would have them. */
static void test_export(struct moe_gpu *g)
{
    struct moe_space *a, *b;
    const int32_t e[] = { 5 };
    int fd;
    OK(moe_space_open(&a, g, LAYERS, sizes, EXPERTS, true, &err) == MOE_OK);
    OK(moe_space_open(&b, g, LAYERS, sizes, EXPERTS, true, &err) == MOE_OK);
    OK(moe_space_back(a, 0, e, 1, &err) == MOE_OK);
    put(g, a, 0, 5, 77);
    OK(moe_space_export(a, 0, 5, &fd, &err) == MOE_OK && fd >= 0);
    OK(moe_space_import(b, 0, 5, fd, &err) == MOE_OK && holds(g, b, 0, 5, 77));
    OK(close(fd) == 0);
    moe_space_close(&a);
    OK(holds(g, b, 0, 5, 77)); /* the memory lives on */
    FAILS(MOE_DEVICE, moe_space_import(b, 0, 6, 0, &err)); /* standard input is none */
    moe_space_close(&b);
}

/* What another process put there cannot be written. */
static void read_only(void)
{
    struct moe_gpu *g;
    struct moe_space *a, *b;
    const int32_t e[] = { 5 };
    int fd;
    OK(moe_gpu_open(&g, 0, &err) == MOE_OK);
    OK(moe_space_open(&a, g, LAYERS, sizes, EXPERTS, true, &err) == MOE_OK);
    OK(moe_space_open(&b, g, LAYERS, sizes, EXPERTS, true, &err) == MOE_OK);
    OK(moe_space_back(a, 0, e, 1, &err) == MOE_OK);
    put(g, a, 0, 5, 77);
    OK(moe_space_export(a, 0, 5, &fd, &err) == MOE_OK && moe_space_import(b, 0, 5, fd, &err) == MOE_OK);
    OK(close(fd) == 0);
    OK(moe_gpu_fill(g, at(b, 0, 5), 1, 1, &err) != MOE_OK || moe_gpu_wait(g, &err) != MOE_OK);
}

/* A hole: the copy that touches it is refused, and the driver says so. */
static void hole(void)
{
    struct moe_gpu *g;
    struct moe_space *s;
    const int32_t e[] = { 1 };
    OK(moe_gpu_open(&g, 0, &err) == MOE_OK);
    OK(moe_space_open(&s, g, LAYERS, sizes, EXPERTS, false, &err) == MOE_OK);
    OK(moe_space_back(s, 0, e, 1, &err) == MOE_OK);
    put(g, s, 0, 1, 1);
    OK(moe_gpu_wait(g, &err) == MOE_OK);
    OK(moe_gpu_fill(g, at(s, 0, 2), 1, 1, &err) != MOE_OK || moe_gpu_wait(g, &err) != MOE_OK);
}

/* Opens, backs, shows, hides, drops and closes, with the nth call of the driver failing. */
static enum moe_code fail_at(struct moe_gpu *g, long n, int result)
{
    struct moe_space *s = NULL;
    const int32_t e[] = { 2, 3, 9 };
    standin_fail("any", n, result);
    enum moe_code code = moe_space_open(&s, g, LAYERS, sizes, EXPERTS, true, &err);
    uint64_t before = s ? moe_space_bytes(s) : 0;
    if (code == MOE_OK) {
        code = moe_space_back(s, 0, e, 3, &err);
        OK(code == MOE_OK ? moe_space_bytes(s) == 12 * MIB : moe_space_bytes(s) == before);
    }
    if (code == MOE_OK) code = moe_space_show(s, 0, e, 3, &err);
    if (code == MOE_OK) code = moe_space_hide(s, 0, e, 2, &err);
    if (code == MOE_OK) code = moe_space_drop(s, 0, e, 2, &err);
    standin_fail("any", 0, 0);
    moe_space_close(&s);
    OK(code == MOE_OK || code == MOE_DEVICE);
    return code;
}

int main(void)
{
    struct moe_gpu *g;
    setenv("MOE_SHIM_MEMORY", "67108864", 1);
    if (!standin_open()) return 77;
    if (!moe_cuda_image_count) return 77;
    test_sizes();
    for (int i = 0; i < 2; i++) { /* each ends its context */
        int status;
        pid_t child = fork();
        if (!child) i ? hole() : read_only(), _exit(0);
        OK(waitpid(child, &status, 0) == child && status == 0);
    }
    OK(moe_gpu_open(&g, 0, &err) == MOE_OK);
    test_moves(g);
    test_too_much(g);
    test_export(g);
    long before = standin_calls(), failed = 0;
    OK(fail_at(g, 0, 0) == MOE_OK);
    long calls = standin_calls() - before;
    for (long n = 1; n <= calls; n++) failed += fail_at(g, n, 2) != MOE_OK;
    OK(failed > calls / 2);
    moe_gpu_close(&g);
    OK(standin_left() == 0);
    setenv("MOE_SHIM_HAS", "fd", 1);
    struct moe_space *s;
    OK(moe_gpu_open(&g, 0, &err) == MOE_OK);
    FAILS(MOE_DEVICE, moe_space_open(&s, g, LAYERS, sizes, EXPERTS, false, &err));
    SAYS("has no address ranges");
    moe_gpu_close(&g);
    printf("%ld checks; each of %ld calls of the driver failed in turn\n", checks, calls);
    return 0;
}
