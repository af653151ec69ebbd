/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/cuda/shim.h - GPU kernels on a machine without a GPU.
 *
 * The .cu files of kernels/cuda are compiled as C++ with names.h, which gives CUDA's names a meaning here.  A
 * launch runs one block after another, in shuffled order.  The threads of a block are fibers: each runs until
 * it meets others (a barrier, a shuffle, another operation of a warp) and then waits for them. Which one goes
 * on is pseudo-random: MOE_SHIM_SEED=n in the environment chooses the sequence. Shared memory is filled with
 * 0xff where a block begins, and the targets of asynchronous copies until they are waited for.
 *
 * What is wrong in a kernel ends the process (abort) with a sentence on stderr that names kernel, block and
 * thread: threads that meet in different places, that leave while others wait, masks that are not full,
 * copies that are not aligned, launches out of bounds. Sources built with AddressSanitizer also stop at what
 * they read or write out of bounds.
 *
 * One launch runs at a time, in the thread that asks for it; others wait. */
#ifndef MOE_TESTS_SHIM_CUDA_SHIM_H
#define MOE_TESTS_SHIM_CUDA_SHIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- launches: what the stand-in for the driver calls ---- */

struct shim_kernel {
    const char *name;              /* of the function: "moe_cuda_norm" */
    void (*run)(const void *args); /* the kernel for the thread that calls it */
    size_t bytes;                  /* of its argument */
    unsigned threads;              /* at most, in a block */
};

/* NULL: there is none. */
const struct shim_kernel *shim_find(const char *name);
/* The dynamic shared memory that a kernel may have when nobody allowed it more: the default. */
enum { SHIM_NOT_ALLOWED = -1 };
/* Runs all blocks of a grid, with `shared` bytes of dynamic shared memory each.  allowed: the most dynamic
 * shared memory that the kernel was allowed, in bytes, or SHIM_NOT_ALLOWED.  The default is 48 KiB less the
 * kernel's static shared memory; what is allowed and the static memory together are at most 227 KiB. */
void shim_launch(const struct shim_kernel *k, const unsigned grid[3], unsigned threads, size_t shared,
                 int allowed, const void *args);
/* Gives a launch up whose kernel has met a signal, after a jump out of its handler to whoever asked for the
 * launch.  What the kernel did so far stays done. */
void shim_abandon(void);

/* ---- for code that runs in a kernel ---- */

struct shim_dim { unsigned x, y, z; };
struct shim_thread; /* fiber.c */
struct shim_place { struct shim_dim thread; struct shim_thread *of; };
extern struct shim_place shim_here; /* the thread that runs */
extern struct shim_dim shim_block, shim_threads, shim_grid;

/* Ends the process: kernel, block and thread, then the message. */
__attribute__((format(printf, 1, 2), noreturn)) void shim_fail(const char *format, ...);

/* A barrier of the block.  Returns how many of its threads gave a value other than 0. */
unsigned shim_barrier(int value);
/* A meeting of a warp: every lane hands over `bytes` bytes at `in` (at most 64).  When all 32 are there,
 * `compute` gets them, lane after lane in rows of 64 bytes, and makes the lanes' results in the same way;
 * each lane gets its `result` bytes. `what` names the operation, and has to be the same for all. */
typedef void shim_compute(const unsigned char (*in)[64], unsigned char (*out)[64]);
void shim_meet(const char *what, shim_compute *compute, const void *in, size_t bytes, void *out,
               size_t result);
/* Meetings with a fixed meaning: everybody's value, of which `from` says whose the caller gets. */
uint64_t shim_shuffle(uint64_t value, unsigned from);
uint32_t shim_ballot(int predicate);
void shim_sync_warp(void);
/* `mask` of an operation of a warp has to be full. */
static inline void shim_full(uint32_t mask)
{
    if (mask != 0xffffffffu) shim_fail("the mask of a warp's operation is %#x, and has to be full", mask);
}

/* Shared memory: an array that is declared in one place (`site`, one of its own for each), and the block's
 * dynamic memory. */
struct shim_site { uint64_t block; void *at; };
void *shim_shared(struct shim_site *site, size_t bytes);
void *shim_dynamic(void);
/* Whether all n bytes at p are in the block's shared memory. */
bool shim_is_shared(const void *p, size_t n);

/* cp.async: n bytes, then zeros up to `size`; done at the wait, and not before. */
void shim_copy(void *to, const void *from, unsigned n, unsigned size);
void shim_copy_commit(void);
void shim_copy_wait(unsigned newest);

/* memcpy where `aligned` has to be a multiple of n. */
void shim_move(void *to, const void *from, size_t n, const void *aligned);

/* ---- mma.c: tensor cores and the fragments of the PTX manual ---- */

void shim_mma_f16(float d[4], const uint32_t a[4], const uint32_t b[2]);
void shim_mma_bf16(float d[4], const uint32_t a[4], const uint32_t b[2]);
void shim_ldmatrix(uint32_t *m, const void *row, int matrices, int transposed);
uint32_t shim_movmatrix(uint32_t m);
float shim_f32_from_f16(uint16_t h);
uint16_t shim_f16_from_f32(float f);
uint16_t shim_f16_from_e4m3(unsigned code);

#ifdef __cplusplus
}
#endif
#endif
