/* SPDX-License-Identifier: Apache-2.0 */
/* Checks that a GPU copies every byte and no other, whatever the size, and wherever the bytes begin. */
#include "tests/kernels/cuda-harness.h"

#include "kernels/cuda/copy.h"

enum { MOST = 3 * MOE_CUDA_COPY_BYTES + 777 };
static uint8_t source[MOST + 16], before[MOST + 16], got[MOST + 16];

/* bytes from `skip` on to `shift` on. */
static void check_one(int64_t bytes, int skip, int shift)
{
    const size_t room = (size_t)bytes + (size_t)shift;
    struct moe_cuda_copy a = { .bytes = bytes };
    CUDA_CASE("copy: %" PRId64 " bytes from %d to %d", bytes, skip, shift);
    a.from = cuda_in(source, (size_t)(bytes + skip)) + (uint64_t)skip;
    uint64_t out = cuda_out(room);
    a.to = out + (uint64_t)shift;
    cuda_get(before, out, room);
    CUDA_LAUNCH(copy, a);
    cuda_get(got, out, room);
    cuda_free_all();
    CUDA_CHECK(!memcmp(got, before, (size_t)shift), "something in front of the bytes was written");
    for (int64_t i = 0; i < bytes; i++)
        CUDA_CHECK(got[shift + i] == source[skip + i], "byte %" PRId64 " is %d, and has to be %d", i,
                   got[shift + i], source[skip + i]);
}

static void check(void)
{
    static const int begin[] = { 0, 1, 2, 4, 8, 12 };
    for (int i = 0; i < MOST + 16; i++) source[i] = (uint8_t)random_below(256);
    for (int i = 0; i < 36; i++) {
        check_one(1 + random_below(100), begin[i / 6], begin[i % 6]);
        check_one(1 + random_below(MOST), begin[i / 6], begin[i % 6]);
    }
    check_one(MOE_CUDA_COPY_BYTES, 0, 0);
    check_one(MOST, 0, 0);
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
