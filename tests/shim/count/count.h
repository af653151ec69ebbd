/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/count/count.h - what a GPU kernel does to memory, counted on a machine without a GPU.
 *
 * The .cu files are compiled once more for the shim (tests/shim/cuda/shim.h), with -fsanitize=thread: the
 * compiler then calls a function before every access to memory.  These functions are count.c and not the
 * library of ThreadSanitizer.  Asynchronous copies, ldmatrix and tensor cores are counted where the kernels
 * call the shim for them (the linker's --wrap).
 *
 * REQUEST.  Accesses of a warp's lanes by the same instruction are one request, as on a GPU.  An instruction
 * is a place in the program as the host's compiler made it; between two meetings of the warp (shuffles,
 * barriers and the like) the k-th visit of a lane to a place belongs to the k-th request of that place. nvcc
 * may join or repeat accesses, so requests are those of the sources and not those of the machine code.
 *
 * SECTOR.  Global memory is moved in sectors of 32 bytes.  A request moves every sector that one of its lanes
 * touches, once.  The `least` that it could move is what its bytes would fill if they were neighbours.
 *
 * BANK.  Shared memory has 32 banks of 4 bytes.  Each bank serves one word in a wave.  A request of up to 4
 * bytes a lane can be one wave, of 8 bytes one for each half of the warp, of 16 bytes one for each quarter;
 * each matrix of ldmatrix can be one.  Every wave beyond those is a conflict.  Lanes that read the same word
 * share it.  Atomic operations count as a load and a store; what they wait for each other is not counted. */
#ifndef MOE_TESTS_SHIM_COUNT_H
#define MOE_TESTS_SHIM_COUNT_H

#include "tests/shim/cuda/shim.h"

/* Loads of a part of global memory, or stores to it.  distinct: sectors that were touched at least once. */
struct shim_traffic { uint64_t requests, bytes, sectors, least, distinct; };
/* Loads from shared memory, stores to it, or what asynchronous copies fill of it. */
struct shim_banks { uint64_t requests, waves, conflicts; };

struct shim_counts {
    struct shim_banks load, store, fill;
    uint64_t mma;              /* products m16n8k16 of a warp */
    uint64_t copied;           /* bytes by asynchronous copies, which are among the loads of global memory */
};

/* A part of global memory that is counted on its own. */
struct shim_region { const void *at; size_t bytes; struct shim_traffic load, store; };

/* Launches as shim_launch does, and counts what touches one of the regions [n], or shared memory.  Regions do
 * not overlap, ascend, and begin at multiples of 32 bytes; all of them together lie within 1 GiB.  What else
 * a kernel touches (its arguments, its stack, tables of constants) is not counted.  The counts of the regions
 * are set, not added to.  One launch at a time. */
void shim_count(const struct shim_kernel *k, const unsigned grid[3], unsigned threads, size_t shared,
                const void *args, struct shim_region *region, int n, struct shim_counts *counts);
/* Tells of each place of the last launch whose requests moved more than the least: its address, and the
 * sectors or the conflicts beyond that. */
void shim_count_places(void (*tell)(uintptr_t address, const char *what, uint64_t requests, uint64_t excess));

#endif
