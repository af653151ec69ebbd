/* SPDX-License-Identifier: Apache-2.0 */
/* Loads without a copy on the host: threads bring the pages of a mapping in, and a kernel reads them
 * there. */
#include "kernels/cuda/copy.h"
#include "model/ops/cuda/load-internal.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

/* Reads a byte of each page, where the kernel cannot be asked to bring pages in. */
static void touch(const unsigned char *at, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += MOE_LOAD_ALIGN) (void)*(const volatile unsigned char *)(at + i);
}

enum moe_code moe_load_reach(const struct moe_source *src, const struct moe_load_read *r, uint64_t bytes,
                             unsigned char **at, struct moe_err *err)
{
    const struct moe_file *f = &src->files[r->file];
    MOE_CHECK(f->map && r->offset + bytes <= f->size);
    *at = (unsigned char *)(uintptr_t)(f->map + r->offset);
    if (!madvise(*at, bytes, MADV_POPULATE_READ)) return MOE_OK;
    if (errno == EFAULT || errno == EIO)
        return moe_fail_at(err, MOE_CORRUPT, f->path, NULL, "cannot be read any more (it was changed while "
                           "it was loaded, or the disk has failed)");
    touch(*at, bytes);
    return MOE_OK;
}

enum moe_code moe_load_copy(struct moe_gpu *g, uint64_t to, const unsigned char *from, uint64_t bytes,
                            struct moe_err *err)
{
    const struct moe_cuda_copy a = { (uintptr_t)from, to, (int64_t)bytes };
    return moe_gpu_launch(g, MOE_CUDA_copy, moe_cuda_copy_grid(&a), &a, sizeof a, err);
}
