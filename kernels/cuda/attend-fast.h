/* SPDX-License-Identifier: Apache-2.0 */
/* kernels/cuda/attend-fast.h - attention over the latent cache by bfloat16 tensor cores with sums in float32:
 * that of attend.h, with other bits.
 *
 * The arguments are those of attend (attend.h), but for `split` and `unused`, which are 0.  attend_fast_32
 * and attend_fast_16 read latents of float32; attend_bf16_64 and attend_bf16_16 read latents of bfloat16,
 * with cache.page_step and cache.width counted in values.  The number at the end says how many heads a block
 * computes.  A token's rows are taken in chunks, whose length follows from how many rows the token sees and
 * from nothing else.  The result of a token with one chunk goes to `out`; else each chunk leaves m, l and o
 * in max, sum and part, as a split of attend does, and attend_fast_merge makes `out` of them.
 *
 * The order of all operations is the same for every kernel, block and batch.  So a result has the same bits
 * whichever other tokens are computed with it, in a prompt or one by one.  It has the same bits on GPUs whose
 * tensor cores sum as tests/shim/cuda/mma.c says.  bf16(v) is v rounded to nearest, ties to even.
 * - v1 = bf16(v); v2 = bf16(v - v1), which is NaN where v1 is not finite.  Of latents of float32, queries q,
 *   latents k and exponentials e are used as these two terms.  Of latents of bfloat16, k is what is stored,
 *   and of q and e the first term alone is used.
 * - The score of a head and a row: s = 0; for each 64 columns in ascending order s = s + c, to nearest, where
 *   c is a chain of mma.m16n8k16 from 0 over the four times 16 columns in ascending order: of latents of
 *   bfloat16 q1 k; of latents of float32 for each 16 columns first q1 k2, then q2 k1, then q1 k1.  Columns
 *   past the end count as zeros.  Then x = scale * s.
 * - A page of 64 rows at a time, ascending, from m = -Inf, l = 0, o = 0, of the rows that the token sees:
 *   n = the largest of m and of all x that are not NaN; f = E(m - n); e = E(x - n) (E: the exponential of
 *   kernels.def), and 0 for rows that are not seen; e' = e1 + e2, or e1 alone; u = for each eight rows
 *   ((e'0 + e'1) + (e'2 + e'3)) + ((e'4 + e'5) + (e'6 + e'7)); l = fma(l, f, the sum of the eight u in
 *   ascending order); m = n.
 * - o = fma(o, f, c), where c is a chain of mma.m16n8k16 from 0 over the page's rows, 16 at a time in
 *   ascending order: e1 k, or first e1 k2, then e2 k1, then e1 k1.
 * - Chunks are merged in ascending order as attend_merge of kernels.def does, and out = o * (1 / l).
 *
 * How far s is from the exact sum over the stored latents, with a = sum |q k| and g the number of groups of
 * 64 columns: (7 2^-17 + g 2^-24) a for latents of float32, and (2^-8 + 2^-18 + g 2^-24) a for those of
 * bfloat16.  That is what terms leave out, what the tensor core cuts, and the roundings of s.  Besides, terms
 * that are subnormal in bfloat16 lose up to 2^-134 each.
 *
 * q, part and out lie at multiples of 16 bytes.  kl is at most 512 and width at most 640. */
#ifndef MOE_KERNELS_CUDA_ATTEND_FAST_H
#define MOE_KERNELS_CUDA_ATTEND_FAST_H

#include "kernels/cuda/attend.h"

#include <stdbool.h>

enum { MOE_CUDA_ATTEND_FAST_THREADS = 256 };

/* Rows of a chunk of a token that sees `rows` rows: with the length L there are at most L / 64 chunks. */
MOE_CUDA_BOTH int64_t moe_cuda_attend_fast_chunk(int64_t rows)
{
    int64_t length = MOE_CHUNK;
    while (length * (length / 64) < rows) length *= 2;
    return length;
}
MOE_CUDA_BOTH int64_t moe_cuda_attend_fast_chunks(int64_t rows)
{
    int64_t length = moe_cuda_attend_fast_chunk(rows);
    return (rows + length - 1) / length;
}

/* The most chunks of a token that sees up to `rows` rows: one of the longest that has shorter chunks may have
 * more than one of `rows`. */
static inline int64_t moe_cuda_attend_fast_most(int64_t rows)
{
    int64_t length = moe_cuda_attend_fast_chunk(rows), n = moe_cuda_attend_fast_chunks(rows);
    return length > MOE_CHUNK && n < length / 128 ? length / 128 : n;
}

/* Bytes from row to row in shared memory: whole groups of 64 columns of bfloat16. */
MOE_CUDA_BOTH int moe_cuda_attend_fast_pitch(int64_t width) { return ((int)width + 63) / 64 * 128; }

/* Shared memory of a block of so many heads: queries; two pages, or the two terms of one; exponentials; the
 * largest score of each head in each of its warps, eight sums for each head, and its factor. */
static inline uint32_t moe_cuda_attend_fast_shared(int64_t width, bool bf16, int heads)
{
    int pitch = moe_cuda_attend_fast_pitch(width), terms = bf16 ? 1 : 2;
    return (uint32_t)(terms * heads * pitch + 2 * MOE_PAGE * pitch + terms * heads * 2 * MOE_PAGE +
                      4 * (128 + 9 * heads));
}

/* Whether blocks have 16 heads: where those of more heads would leave multiprocessors idle, or do not fit. */
static inline uint32_t moe_cuda_attend_fast_few(const struct moe_cuda_attend *a, bool bf16,
                                                int64_t processors)
{
    int most = bf16 ? 64 : 32;
    return a->heads <= 16 || a->n * a->chunks * ((a->heads + most - 1) / most) < processors ||
           moe_cuda_attend_fast_shared(a->cache.width, bf16, most) > 227 << 10;
}
static inline enum moe_cuda_kernel moe_cuda_attend_fast_kernel(const struct moe_cuda_attend *a, bool bf16)
{
    return bf16 ? (a->few ? MOE_CUDA_attend_bf16_16 : MOE_CUDA_attend_bf16_64)
                : (a->few ? MOE_CUDA_attend_fast_16 : MOE_CUDA_attend_fast_32);
}

/* Blocks of the same rows are neighbours.  y: chunks. */
static inline struct moe_cuda_grid moe_cuda_attend_fast_grid(const struct moe_cuda_attend *a, bool bf16)
{
    int heads = a->few ? 16 : bf16 ? 64 : 32;
    struct moe_cuda_grid g = { moe_cuda_blocks(a->heads, heads), (uint32_t)a->chunks, (uint32_t)a->n,
                               MOE_CUDA_ATTEND_FAST_THREADS,
                               moe_cuda_attend_fast_shared(a->cache.width, bf16, heads) };
    return g;
}
static inline struct moe_cuda_grid moe_cuda_attend_fast_merge_grid(const struct moe_cuda_attend *a)
{
    return moe_cuda_attend_merge_grid(a);
}

#endif
