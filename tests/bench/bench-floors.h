/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench-floors.h - measures what this machine can do at most: a copy and a read of memory, and
 * arithmetic in registers. */
#ifndef BENCH_FLOORS_H
#define BENCH_FLOORS_H

#include "base/pool.h"
#include "kernels/kernels.h"
#include "tests/bench/bench-table.h"

static struct {
    double copy, read, read_all;  /* bytes a second; copy counts both what is read and what is written */
    double fma, bf16, vnni;       /* operations a second of one core: two for each multiply-add */
    int threads;
    struct moe_pool *pool;
    float *memory;                /* `bytes` of it, touched */
    size_t bytes;
} machine;

static volatile float sink;

static void copy_memory(void *ctx)
{
    (void)ctx;
    memcpy(machine.memory, (char *)machine.memory + machine.bytes / 2, machine.bytes / 2);
}

/* Copies as the codecs do, by ordinary stores, which read what they overwrite into the cache.  memcpy of so
 * much stores past the cache, where the C library knows how. */
static void store_memory(void *ctx)
{
    int64_t n = (int64_t)machine.bytes / 8;
    struct moe_weight w = {
        .type = MOE_F32, .rows = 1, .cols = n, .data = (const uint8_t *)(machine.memory + n)
    };
    (void)ctx;
    moe_kernels()->dequantize(&w, 0, 0, n, machine.memory);
}

/* amax reads each value once and does next to nothing with it. */
static void read_memory(void *ctx)
{
    (void)ctx;
    sink = moe_kernels()->amax(machine.memory, (int64_t)machine.bytes / 4);
}

static void read_part(void *ctx, int64_t i, int worker)
{
    (void)ctx, (void)worker;
    sink = moe_kernels()->amax(machine.memory + i * (1 << 18), 1 << 18);
}
static void read_all(void *ctx)
{
    (void)ctx;
    moe_pool_run(machine.pool, (int64_t)machine.bytes >> 20, read_part, NULL);
}

enum { ROUNDS = 500000 };
static double operations; /* of the last call of a peak function: two for each multiply-add */
static void peak_fma(void *ctx)
{
    float s;
    (void)ctx;
    operations = 2 * moe_kernels()->peak(ROUNDS, &s);
    sink = s;
}
static void peak_bf16(void *ctx)
{
    float s;
    (void)ctx;
    operations = 2 * moe_kernels()->peak_bf16(ROUNDS, &s);
    sink = s;
}
static void peak_vnni(void *ctx)
{
    float s;
    (void)ctx;
    operations = 2 * moe_kernels()->peak_vnni(ROUNDS, &s);
    sink = s;
}

static void open_machine(void)
{
    struct moe_err err;
    assert(moe_pool_open(&machine.pool, 0, &err) == MOE_OK);
    machine.threads = moe_pool_threads(machine.pool);
    machine.bytes = quick ? 4 << 20 : 512 << 20; /* far beyond caches */
    machine.memory = aligned_alloc(4096, machine.bytes);
    assert(machine.memory);
    for (size_t i = 0; i < machine.bytes / 4; i++) machine.memory[i] = (float)(i % 1000);
}

static void close_machine(void)
{
    moe_pool_close(&machine.pool);
    free(machine.memory);
}

/* Times a peak function and adds its row; returns operations a second, 0 where the processor has none. */
static double bench_peak(const char *what, void (*fn)(void *))
{
    double t = least_seconds(cpu_now, fn, NULL);
    if (operations > 0)
        put_row(&(struct row){ what, "1 core", t, 0, operations * 1e-9, "GFLOPS", NULL, 0, NO_AIM, 0 });
    return operations / t;
}

/* Measures the floors, which later rows give their share of. */
static void bench_floors(void)
{
    char cores[16];
    snprintf(cores, sizeof cores, "%d cores", machine.threads);
    put_heading("floors");
    double b = (double)machine.bytes, t = least_seconds(cpu_now, copy_memory, NULL);
    machine.copy = b / t;
    put_row(&(struct row){ "memory copy, read + written", "1 core", t, b, 0, NULL, NULL, 0, NO_AIM, 0 });
    t = least_seconds(cpu_now, store_memory, NULL);
    put_row(&(struct row){ "the same by ordinary stores", "1 core", t, b, 0, NULL, "memory copy",
                           b / t / machine.copy, NO_AIM, 0 });
    t = least_seconds(cpu_now, read_memory, NULL);
    machine.read = b / t;
    put_row(&(struct row){ "memory read", "1 core", t, b, 0, NULL, NULL, 0, NO_AIM, 0 });
    t = least_seconds(moe_now, read_all, NULL);
    machine.read_all = b / t;
    put_row(&(struct row){ "memory read", cores, t, b, 0, NULL, NULL, 0, NO_AIM, 0 });
    machine.fma = bench_peak("float32 multiply-add in registers", peak_fma);
    machine.bf16 = bench_peak("bf16 dot in registers", peak_bf16);
    machine.vnni = bench_peak("int8 dot in registers (VNNI)", peak_vnni);
}

#endif
