/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench-cuda.h - memory, timing and the table of bench-cuda. */
#ifndef BENCH_CUDA_H
#define BENCH_CUDA_H

#include "kernels/cuda/common.h"
#include "model/ops/cuda/gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static struct moe_gpu *gpu;
static struct moe_err err;
static int quick;     /* tiny shapes, whose numbers mean nothing */
static int once;      /* single runs */
static double copied; /* bytes a second that a copy within the GPU reads and writes, both counted */

static void must(enum moe_code code)
{
    if (code == MOE_OK) return;
    fprintf(stderr, "bench-cuda: %s\n", err.msg);
    exit((int)code);
}

/* ---- memory ---- */

/* A pool of the GPU's memory from which every row of the table takes what it needs. */
static struct moe_addr pool;
static uint64_t pool_bytes, pool_used;

static uint64_t take(int64_t bytes)
{
    const uint64_t at = pool.at + pool_used;
    pool_used += ((uint64_t)bytes + 255) / 256 * 256;
    if (pool_used > pool_bytes) {
        fprintf(stderr, "bench-cuda: a row of the table needs more than %llu bytes\n",
                (unsigned long long)pool_bytes);
        exit(1);
    }
    return at;
}

/* What is at `from`, in the GPU's memory. */
static uint64_t put(const void *from, int64_t bytes)
{
    const uint64_t at = take(bytes);
    must(moe_gpu_write(gpu, (struct moe_addr){ at }, from, (uint64_t)bytes, &err));
    return at;
}

/* ---- time ---- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* One launch of a row.  `step` bytes lie between the weights of one run and of the next, `turns` of them, so
 * that no run finds its weights in the cache; addresses [n_moving] are where in the arguments they stand. */
struct launch {
    enum moe_cuda_kernel kernel;
    struct moe_cuda_grid grid;
    const void *args; size_t bytes;
    size_t moving[4]; int n_moving; int64_t step; int turns;
};

static void launch_turn(const struct launch *l, int turn)
{
    uint64_t args[512], at; /* 4 KB at most */
    memcpy(args, l->args, l->bytes);
    for (int i = 0; i < l->n_moving; i++) {
        memcpy(&at, (char *)args + l->moving[i], 8);
        at += (uint64_t)(turn % l->turns * l->step);
        memcpy((char *)args + l->moving[i], &at, 8);
    }
    must(moe_gpu_launch(gpu, l->kernel, l->grid, args, l->bytes, &err));
}

/* The seconds that a run takes: the least of three graphs of `runs` runs, after one that is not counted. */
static double time_runs(void (*run)(const void *what, int turn), const void *what, int runs)
{
    struct moe_gpu_graph *graph;
    double least = 1e9;
    must(moe_gpu_capture_begin(gpu, &err));
    for (int i = 0; i < runs; i++) run(what, i);
    must(moe_gpu_capture_end(gpu, &graph, &err));
    for (int i = 0; i < (once ? 1 : 4); i++) {
        double from = now();
        must(moe_gpu_graph_launch(gpu, graph, &err));
        must(moe_gpu_wait(gpu, &err));
        double took = now() - from;
        if (took < least && (i || once)) least = took;
    }
    moe_gpu_graph_free(gpu, &graph);
    return least / runs;
}

/* Launches that belong together, one after the other. */
struct launches { const struct launch *l; int n; };

static void launch_all(const void *what, int turn)
{
    const struct launches *all = what;
    for (int k = 0; k < all->n; k++) launch_turn(&all->l[k], turn);
}

/* ---- the table ---- */

static void heading(void)
{
    printf("%-14s %-44s %10s %9s %7s %10s\n", "operation", "shape", "us", "GB/s", "of copy", "Gmadd/s");
}

/* bytes: that have to be moved at least; madds: multiply-adds. */
static void print_row(const char *name, const char *shape, double seconds, double bytes, double madds)
{
    printf("%-14s %-44s %10.2f %9.1f ", name, shape, seconds * 1e6, bytes / seconds * 1e-9);
    if (copied > 0) printf("%5.1f %% ", 100 * bytes / seconds / copied);
    else printf("%7s ", "");
    if (madds > 0) printf("%10.0f", madds / seconds * 1e-9);
    printf("\n");
    fflush(stdout);
}

static void row(const char *name, const char *shape, const struct launch *l, int n, double bytes,
                double madds)
{
    const struct launches all = { l, n };
    print_row(name, shape, time_runs(launch_all, &all, once ? 1 : 20), bytes, madds);
    pool_used = 0;
}

#endif
