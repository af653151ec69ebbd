/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the shim that runs GPU kernels on the processor (tests/shim/cuda): kernels that are right give the
 * right result in every order of threads, and each of the mistakes of planted.cu is caught: by a sentence
 * that names kernel, block and thread, by a wrong result in at least one of three orders, or by a fault. */
#include "tests/ok.h"
#include "tests/shim/cuda/planted.h"
#include "tests/shim/cuda/shim.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N = PLANTED_THREADS, STEPS = 5, SEEDS = 3 };
static float *in, *in2, out[N];

/* ---- the kernels, and what they have to give ---- */

static void want_reverse(float *w) { for (int i = 0; i < N; i++) w[i] = in[N - 1 - i]; }
static void want_reverse_warp(float *w) { for (int i = 0; i < N; i++) w[i] = in[i ^ 31]; }
static void want_shuffle(float *w) { for (int i = 0; i < N; i++) w[i] = in[i ^ 16]; }
static void want_ring(float *w)
{
    for (int i = 0; i < N; i++) {
        w[i] = 0;
        for (int s = 0; s < STEPS; s++) w[i] += in[s * N + (i ^ 1)];
    }
}
static void want_product(float *w)
{
    memset(w, 0, N * sizeof *w);
    for (int r = 0; r < 16; r++)
        for (int c = 0; c < 8; c++)
            for (int k = 0; k < 16; k++) w[r * 8 + c] += in[r * 16 + k] * in2[c * 16 + k];
}

#define PLANTED(name)                             \
    void planted_##name(const struct planted a);  \
    static void run_##name(const void *a) { planted_##name(*(const struct planted *)a); }
PLANTED(reverse) PLANTED(reverse_warp) PLANTED(shuffle) PLANTED(ring) PLANTED(product)

static const struct test_kernel { struct shim_kernel k; void (*want)(float *); } kernel[] = {
    { { "reverse", run_reverse, sizeof(struct planted), N }, want_reverse },
    { { "reverse_warp", run_reverse_warp, sizeof(struct planted), N }, want_reverse_warp },
    { { "shuffle", run_shuffle, sizeof(struct planted), N }, want_shuffle },
    { { "ring", run_ring, sizeof(struct planted), N }, want_ring },
    { { "product", run_product, sizeof(struct planted), 32 }, want_product },
};
enum { REVERSE, REVERSE_WARP, SHUFFLE, RING, PRODUCT, KERNELS };

/* What the next launches have of dynamic shared memory, and what they were allowed (shim_launch). */
static struct { size_t bytes; int allowed; } dynamic = { 0, SHIM_NOT_ALLOWED };

/* Whether the kernel gives what it has to, with this fault and seed. */
static bool is_right(int i, int fault, int seed)
{
    char text[16];
    float want[N];
    snprintf(text, sizeof text, "%d", seed);
    setenv("MOE_SHIM_SEED", text, 1);
    memset(out, 0, sizeof out);
    struct planted a = { in, in2, out, STEPS, fault };
    shim_launch(&kernel[i].k, (const unsigned[3]){ 1, 1, 1 }, kernel[i].k.threads, dynamic.bytes,
                dynamic.allowed, &a);
    kernel[i].want(want);
    return !memcmp(out, want, sizeof out);
}

/* ---- how mistakes are caught ---- */

static void differs(int i, int fault)
{
    int wrong = 0;
    for (int seed = 1; seed <= SEEDS; seed++) wrong += !is_right(i, fault, seed);
    if (!wrong) fprintf(stderr, "check-shim: fault %d in %s is not caught\n", fault, kernel[i].k.name);
    OK(wrong > 0);
}

/* The process that runs it ends by a signal or with 1, as sanitizers do, and says this on stderr. */
static void ends(int i, int fault, const char *text)
{
    char said[8192] = { 0 };
    size_t n = 0;
    int fd[2], status;
    OK(pipe(fd) == 0);
    pid_t child = fork();
    OK(child >= 0);
    if (child == 0) {
        dup2(fd[1], 2);
        close(fd[0]);
        is_right(i, fault, 1);
        _exit(0);
    }
    close(fd[1]);
    for (ssize_t got; n + 1 < sizeof said && (got = read(fd[0], said + n, sizeof said - 1 - n)) > 0;)
        n += (size_t)got;
    close(fd[0]);
    OK(waitpid(child, &status, 0) == child);
    bool died = WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) != 0);
    if (!died || !strstr(said, text)) fprintf(stderr, "check-shim: fault %d says: %s\n", fault, said);
    OK(died);
    OK(strstr(said, text));
}

/* Floats that end where a page begins that nobody may touch. */
static float *guarded(size_t n)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE), bytes = (n * sizeof(float) + page - 1) / page * page;
    unsigned char *m = mmap(NULL, bytes + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    OK(m != MAP_FAILED && mprotect(m + bytes, page, PROT_NONE) == 0);
    return (float *)(void *)(m + bytes) - n;
}

/* The static kilobyte of `reverse` counts, with the default of 48 KiB and with the 227 KiB of a block. */
static void check_shared_sizes(void)
{
    enum { STATIC = N * sizeof(float), DEFAULT = 48 << 10, MOST = 227 << 10 };
    dynamic.bytes = DEFAULT - STATIC, dynamic.allowed = SHIM_NOT_ALLOWED;
    OK(is_right(REVERSE, FAULT_NONE, 1));
    dynamic.bytes++;
    ends(REVERSE, FAULT_NONE, "was allowed no more than 49152");
    dynamic.allowed = (int)dynamic.bytes;
    OK(is_right(REVERSE, FAULT_NONE, 1));
    dynamic.allowed--;
    ends(REVERSE, FAULT_NONE, "bytes of dynamic shared memory, and was allowed 48128");
    dynamic.bytes = MOST - STATIC, dynamic.allowed = MOST - STATIC;
    OK(is_right(REVERSE, FAULT_NONE, 1));
    dynamic.allowed++;
    ends(REVERSE, FAULT_NONE, "together at most 232448");
    dynamic.bytes = 0, dynamic.allowed = SHIM_NOT_ALLOWED;
}

int main(void)
{
    in = guarded(STEPS * N), in2 = guarded(N);
    for (int i = 0; i < STEPS * N; i++) in[i] = (float)((i * 37 + 11) % 101 - 50);
    for (int i = 0; i < N; i++) in2[i] = (float)((i * 53 + 7) % 89 - 44);
    for (int i = 0; i < KERNELS; i++)
        for (int seed = 0; seed < 20; seed++) OK(is_right(i, FAULT_NONE, seed));

    differs(REVERSE, FAULT_NO_BARRIER);
    differs(REVERSE_WARP, FAULT_NO_SYNCWARP);
    differs(RING, FAULT_NO_BARRIER);
    differs(RING, FAULT_NO_WAIT);
    differs(RING, FAULT_WAIT_FEWER);
    differs(RING, FAULT_REFILL);
    differs(PRODUCT, FAULT_FRAGMENT);
    differs(PRODUCT, FAULT_RESULT);
    ends(REVERSE, FAULT_LEAVES, "shim: kernel 'reverse', block (0, 0, 0), thread ");
    ends(REVERSE, FAULT_LEAVES, "in __syncthreads");
    ends(REVERSE, FAULT_DIVERGENT, "in __syncthreads");
    ends(SHUFFLE, FAULT_OTHER_OPERATION, "while a lane of its warp waits in");
    ends(SHUFFLE, FAULT_MASK, "has to be full");
    ends(RING, FAULT_ALIGNMENT, "no multiple of 4");
    check_shared_sizes();
    /* with n beyond the input, so that the read past its end meets the guard page */
    in += (STEPS - 1) * N;
    ends(SHUFFLE, FAULT_READ_BOUNDS, "");
#if defined(__SANITIZE_ADDRESS__)
    ends(REVERSE, FAULT_SHARED_BOUNDS, ""); /* the index, or the address */
#endif
    printf("check-shim: %ld checks\n", checks);
    return 0;
}
