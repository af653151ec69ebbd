/* SPDX-License-Identifier: Apache-2.0 */
/* model/ops/cuda/gpu.h on the stand-in for NVIDIA's driver: what is there, memory, copies, launches, graphs,
 * and every way to fail. */
#include "kernels/cuda/absorb.h"
#include "kernels/cuda/attend.h"
#include "kernels/cuda/dense-fast.h"
#include "kernels/cuda/dense.h"
#include "kernels/cuda/group.h"
#include "kernels/cuda/images.h"
#include "kernels/cuda/norm.h"
#include "kernels/cuda/nvfp4-fast.h"
#include "kernels/cuda/route.h"
#include "model/ops/cuda/gpu.h"

#include "tests/ok.h"
#include "tests/shim/cuda/open.h"

#include <math.h>
#include <signal.h>
#include <sys/wait.h>

static struct moe_err err;

/* ---- what is there ---- */

static void test_list(void)
{
    struct moe_gpu_info info;
    uint64_t left;
    int n;
    OK(moe_gpus_found(&n, &err) == MOE_OK && n == 1);
    OK(moe_gpu_describe(0, &info, &err) == MOE_OK);
    OK(info.index == 0 && info.name[0] && info.bytes == 256 << 20 && info.major == 9 && info.virtual_memory);
    OK(info.posix_fd && !info.fabric && !info.host_pages);
    OK(moe_gpu_free_bytes(0, &left, &err) == MOE_OK && left == 256 << 20);
    FAILS(MOE_DEVICE, moe_gpu_describe(1, &info, &err));
    SAYS("there is no GPU 1 here (the last one is GPU 0)");
    FAILS(MOE_DEVICE, moe_gpu_describe(-1, &info, &err));
    standin_fail("cuDeviceGetAttribute", 3, 999); /* the multiprocessors: grids are made for so many */
    FAILS(MOE_DEVICE, moe_gpu_describe(0, &info, &err));
    SAYS("GPU 0: cuDeviceGetAttribute");
    standin_fail("any", 0, 0);
    OK(standin_left() == 0);
}

/* ---- memory and copies ---- */

static void test_copies(struct moe_gpu *g)
{
    enum { BIG = 37 << 20, SMALL = 1000 };
    struct moe_addr a, b, none;
    unsigned char *from = malloc(BIG), *to = malloc(BIG);
    for (int i = 0; i < BIG; i++) from[i] = (unsigned char)(i * 2654435761u >> 13);
    OK(moe_gpu_alloc(g, BIG, &a, &err) == MOE_OK && a.at && a.at % 256 == 0);
    OK(moe_gpu_alloc(g, SMALL, &b, &err) == MOE_OK && b.at % 256 == 0);
    OK(moe_gpu_alloc(g, 0, &none, &err) == MOE_OK && !none.at);

    /* larger than the stage; the host's memory may change at once */
    OK(moe_gpu_write(g, a, from, BIG, &err) == MOE_OK);
    unsigned char first = from[0], last = from[BIG - 1];
    from[0] ^= 1, from[BIG - 1] ^= 1;
    OK(moe_gpu_read(g, to, a, BIG, &err) == MOE_OK && moe_gpu_wait(g, &err) == MOE_OK);
    OK(to[0] == first && to[BIG - 1] == last && !memcmp(to + 1, from + 1, BIG - 2));

    /* many small ones, more than the list of readings holds */
    OK(moe_gpu_fill(g, b, 7, SMALL, &err) == MOE_OK);
    OK(moe_gpu_copy(g, moe_addr_plus(b, 10), moe_addr_plus(a, 20), 30, &err) == MOE_OK);
    memset(to, 0, SMALL);
    for (uint64_t i = 0; i < SMALL; i++)
        OK(moe_gpu_read(g, to + i, moe_addr_plus(b, i), 1, &err) == MOE_OK);
    OK(moe_gpu_wait(g, &err) == MOE_OK);
    for (int i = 0; i < SMALL; i++) OK(to[i] == (i >= 10 && i < 40 ? from[i + 10] : 7));

    /* pinned memory is read when the copy is done, not before */
    void *pinned;
    OK(moe_gpu_pin(g, SMALL, &pinned, &err) == MOE_OK);
    memset(pinned, 1, SMALL);
    OK(moe_gpu_copy_in(g, b, pinned, SMALL, &err) == MOE_OK);
    memset(pinned, 2, SMALL);
    OK(moe_gpu_wait(g, &err) == MOE_OK);
    OK(moe_gpu_copy_out(g, pinned, b, SMALL, &err) == MOE_OK && moe_gpu_wait(g, &err) == MOE_OK);
    OK(*(unsigned char *)pinned == 2);
    moe_gpu_unpin(g, pinned);

    FAILS(MOE_DEVICE, moe_gpu_alloc(g, 1ull << 40, &none, &err));
    SAYS("GPU 0: cuMemAlloc of 1024.00 GiB where 0.2");
    SAYS("out of memory");
    moe_gpu_free(g, a), moe_gpu_free(g, b), moe_gpu_free(g, none);
    free(from), free(to);
}

/* ---- launches ---- */

enum { N = 64 };

static struct moe_cuda_norm norm_of(struct moe_addr x, struct moe_addr w, struct moe_addr out)
{
    return (struct moe_cuda_norm){ .h = x.at, .w = w.at, .out = out.at, .rows = 1, .n = N, .eps = 0 };
}

static enum moe_code launch(struct moe_gpu *g, struct moe_cuda_norm a)
{
    return moe_gpu_launch(g, MOE_CUDA_norm, moe_cuda_norm_grid(&a), &a, sizeof a, &err);
}

/* x, the same value everywhere, has the norm 1 */
static void set(struct moe_gpu *g, struct moe_addr a, float v)
{
    float x[N];
    for (int i = 0; i < N; i++) x[i] = v;
    OK(moe_gpu_write(g, a, x, sizeof x, &err) == MOE_OK);
}

static bool is(struct moe_gpu *g, struct moe_addr a, float v)
{
    float x[N];
    OK(moe_gpu_read(g, x, a, sizeof x, &err) == MOE_OK && moe_gpu_wait(g, &err) == MOE_OK);
    for (int i = 0; i < N; i++)
        if (x[i] != v) return false;
    return true;
}

static void test_launches(struct moe_gpu *g)
{
    struct moe_addr x, w, out;
    struct moe_gpu_graph *graph;
    OK(moe_gpu_alloc(g, N * 4, &x, &err) == MOE_OK && moe_gpu_alloc(g, N * 4, &w, &err) == MOE_OK &&
       moe_gpu_alloc(g, N * 4, &out, &err) == MOE_OK);
    set(g, x, 2), set(g, w, 3);
    OK(launch(g, norm_of(x, w, out)) == MOE_OK && is(g, out, 3));

    /* a graph does what was recorded, on what is there when it is launched */
    OK(moe_gpu_fill(g, out, 0, N * 4, &err) == MOE_OK);
    OK(moe_gpu_capture_begin(g, &err) == MOE_OK);
    OK(launch(g, norm_of(x, w, out)) == MOE_OK && moe_gpu_copy(g, x, out, N * 4, &err) == MOE_OK);
    OK(moe_gpu_capture_end(g, &graph, &err) == MOE_OK && is(g, out, 0) && is(g, x, 2));
    set(g, w, 5);
    OK(moe_gpu_graph_launch(g, graph, &err) == MOE_OK && is(g, out, 5) && is(g, x, 5));
    set(g, w, 0.25f);
    OK(moe_gpu_graph_launch(g, graph, &err) == MOE_OK && is(g, x, 0.25f));
    moe_gpu_graph_free(g, &graph);

    /* an allocation is not allowed while a graph is recorded, and ends the recording */
    struct moe_addr more;
    OK(moe_gpu_capture_begin(g, &err) == MOE_OK);
    FAILS(MOE_DEVICE, moe_gpu_alloc(g, 4, &more, &err));
    SAYS("CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED");
    FAILS(MOE_DEVICE, moe_gpu_capture_end(g, &graph, &err));
    SAYS("cuStreamEndCapture");
    OK(!graph && launch(g, norm_of(x, w, out)) == MOE_OK && moe_gpu_wait(g, &err) == MOE_OK);

    struct moe_cuda_norm a = norm_of(x, w, out);
    FAILS(MOE_DEVICE, moe_gpu_launch(g, MOE_CUDA_norm, (struct moe_cuda_grid){ 1, 70000, 1, 32, 0 }, &a,
                                     sizeof a, &err));
    SAYS("cuLaunchKernel of moe_cuda_norm (grid 1 x 70000 x 1, 32 threads, 0 bytes)");
    OK(moe_gpu_launch(g, MOE_CUDA_norm, (struct moe_cuda_grid){ 0, 1, 1, 32, 0 }, NULL, 0, &err) == MOE_OK);
    moe_gpu_free(g, x), moe_gpu_free(g, w), moe_gpu_free(g, out);
}

/* ---- what ends the context, or the process ---- */

static int run_in_child(void (*fn)(void))
{
    int status;
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        fn();
        _exit(0);
    }
    OK(child > 0 && waitpid(child, &status, 0) == child);
    return status;
}

static void touch(void)
{
    struct moe_gpu *g;
    struct moe_addr a;
    signal(SIGSEGV, SIG_DFL); /* a sanitizer would make a report of it */
    if (moe_gpu_open(&g, 0, &err) || moe_gpu_alloc(g, 4, &a, &err)) _exit(1);
    _exit(*(volatile unsigned char *)a.at == 1 ? 2 : 3);
}

/* A kernel that runs past the end of what was allocated, and what a user reads then. */
static void fault(void)
{
    struct moe_gpu *g;
    struct moe_addr x, w;
    OK(moe_gpu_open(&g, 0, &err) == MOE_OK && moe_gpu_alloc(g, N * 4, &x, &err) == MOE_OK);
    OK(moe_gpu_alloc(g, N * 4, &w, &err) == MOE_OK && moe_gpu_fill(g, x, 0, N * 4, &err) == MOE_OK);
    OK(launch(g, norm_of(moe_addr_plus(x, 2048), w, w)) == MOE_OK);
    FAILS(MOE_DEVICE, moe_gpu_wait(g, &err));
    SAYS("GPU 0: cuStreamSynchronize after moe_cuda_norm was launched: an illegal memory access");
    SAYS("MOE_GPU_WAIT=1");
    FAILS(MOE_DEVICE, moe_gpu_alloc(g, 4, &w, &err));
    SAYS("moe_cuda_norm");
    moe_gpu_close(&g);
    FAILS(MOE_DEVICE, moe_gpu_open(&g, 0, &err));
    OK(!g);
}

static void fault_waiting(void)
{
    setenv("MOE_GPU_WAIT", "1", 1);
    struct moe_gpu *g;
    OK(moe_gpu_open(&g, 0, &err) == MOE_OK);
    struct moe_addr low = { 64 };
    FAILS(MOE_DEVICE, launch(g, norm_of(low, low, low)));
    SAYS("after moe_cuda_norm was launched");
}

static void ecc(void)
{
    struct moe_gpu *g;
    OK(moe_gpu_open(&g, 0, &err) == MOE_OK);
    standin_fail("cuStreamSynchronize", 1, 214);
    FAILS(MOE_DEVICE, moe_gpu_wait(g, &err));
    SAYS("uncorrectable ECC error");
    SAYS("nvidia-smi");
    standin_fail("any", 0, 0);
    FAILS(MOE_DEVICE, moe_gpu_wait(g, &err));
    SAYS("ECC");
}

/* ---- failures at the start ---- */

static void old_gpu(void)
{
    struct moe_gpu *g;
    setenv("MOE_SHIM_MAJOR", "8", 1);
    FAILS(MOE_DEVICE, moe_gpu_open(&g, 0, &err));
    SAYS("compute capability 8.0, and the kernels need 9.0 (Hopper) or later");
}

/* A Blackwell GPU of a work station: its kernels load, and the first large launch would fail. */
static void small_gpu(void)
{
    struct moe_gpu *g;
    setenv("MOE_SHIM_MAJOR", "12", 1);
    setenv("MOE_SHIM_SHARED", "101376", 1);
    FAILS(MOE_DEVICE, moe_gpu_open(&g, 0, &err));
    SAYS("gives a block 99 KiB of shared memory, and the kernels need 212");
}

static uint32_t most;
static void note(struct moe_cuda_grid g) { most = g.shared > most ? g.shared : most; }

/* The most shared memory of any grid, K2's shapes among them, and somewhat more for what is not dynamic. */
static void test_shared(void)
{
    for (int tokens = 2; tokens <= 8; tokens *= 2)
        note(moe_cuda_nvfp4_grid(&(struct moe_cuda_nvfp4){ .rows = 128, .blocks = 1 }, tokens));
    for (int tokens = 8; tokens <= 64; tokens *= 2)
        note(moe_cuda_nvfp4_fast_grid(&(struct moe_cuda_nvfp4){ .rows = 128, .blocks = 1 }, tokens));
    for (int tokens = 8; tokens <= 32; tokens *= 2)
        note(moe_cuda_nvfp4_terms_grid(&(struct moe_cuda_nvfp4){ .rows = 128, .blocks = 1 }, tokens));
    for (int few = 0; few < 2; few++)
        note(moe_cuda_attend_grid(&(struct moe_cuda_attend){
            .cache = { .width = MOE_CUDA_ATTEND_WIDTH }, .kl = MOE_CUDA_ATTEND_KL, .n = 1, .heads = 64,
            .few = (uint32_t)few }));
    for (uint32_t codes = 0; codes <= MOE_CUDA_NVFP4; codes++)
        for (int64_t n = 1; n <= 64; n++) {
            const struct moe_cuda_weight w = { .codes = codes };
            note(moe_cuda_dense_grid(&(struct moe_cuda_dense){ .w = w, .n = n, .rows = 64 }));
            note(moe_cuda_absorb_grid(&(struct moe_cuda_absorb){ .w = w, .n = n }));
        }
    for (int64_t n = 1; n <= 128; n++) {
        const struct moe_cuda_weight w = { .codes = MOE_CUDA_BF16, .rows = 64 };
        note(moe_cuda_dense_fast_grid(&(struct moe_cuda_dense_fast){ .w = w, .n = n, .split = 1 }));
    }
    note(moe_cuda_group_grid(&(struct moe_cuda_group){ .experts = 1024 }));
    note(moe_cuda_route_grid(&(struct moe_cuda_route){ .n_experts = 1024, .top_k = 32, .n_group = 64 }));
    OK(most + 2048 <= MOE_GPU_SHARED_MOST && most + 8192 > MOE_GPU_SHARED_MOST);
}

static void old_driver(void)
{
    int n;
    setenv("MOE_SHIM_VERSION", "11080", 1);
    FAILS(MOE_DEVICE, moe_gpus_found(&n, &err));
    SAYS("the NVIDIA driver is for CUDA 11.8, which is too old (install one for CUDA 12 or later)");
}

static void no_gpu(void)
{
    int n;
    setenv("MOE_SHIM_DEVICES", "0", 1);
    FAILS(MOE_DEVICE, moe_gpus_found(&n, &err));
    SAYS("the NVIDIA driver finds no GPU");
}

static void stub(void)
{
    int n;
    standin_fail("cuInit", 1, 34);
    FAILS(MOE_DEVICE, moe_gpus_found(&n, &err));
    SAYS("the toolkit's stub");
}

/* Opens a GPU, uses it and closes it, with the nth call of the driver failing.  What cannot be known of a GPU
 * is no failure. */
static enum moe_code fail_at(long n, int result)
{
    struct moe_gpu *g = NULL;
    struct moe_addr a = { 0 };
    struct moe_gpu_graph *graph = NULL;
    char x[16] = "";
    err = (struct moe_err)MOE_ERR_INIT;
    standin_fail("any", n, result);
    enum moe_code code = moe_gpu_open(&g, 0, &err);
    if (code == MOE_OK) code = moe_gpu_alloc(g, 16, &a, &err);
    if (code == MOE_OK) code = moe_gpu_write(g, a, x, 16, &err);
    if (code == MOE_OK) code = moe_gpu_read(g, x, a, 16, &err);
    if (code == MOE_OK) code = moe_gpu_wait(g, &err);
    if (code == MOE_OK) code = moe_gpu_capture_begin(g, &err);
    if (code == MOE_OK) code = moe_gpu_capture_end(g, &graph, &err);
    if (code == MOE_OK) code = moe_gpu_graph_launch(g, graph, &err);
    if (code == MOE_OK) code = moe_gpu_wait(g, &err);
    standin_fail("any", 0, 0);
    OK(code == MOE_OK || (code == MOE_DEVICE && err.msg[0] && !strchr(err.msg, '\n')));
    if (g) moe_gpu_graph_free(g, &graph), moe_gpu_free(g, a);
    moe_gpu_close(&g);
    OK(standin_left() == 0);
    return code;
}

int main(void)
{
    setenv("MOE_SHIM_MEMORY", "268435456", 1);
    if (!standin_open()) return 77;
    OK(WIFEXITED(run_in_child(old_driver)) && WEXITSTATUS(run_in_child(old_driver)) == 0);
    OK(run_in_child(no_gpu) == 0 && run_in_child(stub) == 0);
    test_list();
    test_shared();
    struct moe_gpu *g;
    if (!moe_cuda_image_count) {
        FAILS(MOE_UNSUPPORTED, moe_gpu_open(&g, 0, &err));
        SAYS("this build has no GPU kernels");
        printf("%ld checks; no kernels in this build\n", checks);
        return 0;
    }
    OK(run_in_child(old_gpu) == 0 && run_in_child(fault) == 0 && run_in_child(fault_waiting) == 0);
    OK(run_in_child(ecc) == 0 && run_in_child(small_gpu) == 0);
    int status = run_in_child(touch);
    OK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    OK(moe_gpu_open(&g, 0, &err) == MOE_OK && moe_gpu_info(g)->multiprocessors == 132);
    test_copies(g);
    test_launches(g);
    moe_gpu_close(&g);
    OK(!g && standin_left() == 0);
    long before = standin_calls();
    OK(fail_at(0, 0) == MOE_OK);
    long calls = standin_calls() - before, failed = 0;
    for (long n = 1; n <= calls; n++) failed += fail_at(n, 2) != MOE_OK, failed += fail_at(n, 999) != MOE_OK;
    OK(failed > calls && fail_at(calls + 1, 2) == MOE_OK);
    printf("%ld checks; each of %ld calls of the driver failed in turn\n", checks, calls);
    return 0;
}
