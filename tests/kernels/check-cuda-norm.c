/* SPDX-License-Identifier: Apache-2.0 */
/* Checks moe_cuda_norm against the rmsnorm of AVX2, bit for bit: sizes around those of a piece and of the
 * reduction order, squares that overflow float32, residuals, chosen rows, and the output in place. */
#include "tests/kernels/cuda-harness.h"

#include "kernels/cuda/norm.h"

static const int64_t sizes[] = { 1, 2, 15, 16, 17, 31, 64, 100, 512, 1536, 2047, 2048, 2049, 4100, 7168 };

/* What the kernel has to give: h after the sum, and out. */
static void want_of(struct moe_cuda_norm *a, float *h, const float *add, const float *w, const int32_t *row,
                    float *out)
{
    for (int64_t i = 0; add && i < a->rows * a->n; i++) h[i] += add[i];
    for (int64_t t = 0; t < a->rows; t++)
        cuda_avx2.rmsnorm(h + (row ? row[t] : t) * a->n, w, a->eps, a->n, out + t * a->n);
}

static void check_one(int64_t n, int64_t rows, enum pattern p, int variant)
{
    bool with_add = variant & 1, in_place = variant & 2, chosen = !with_add && !in_place && variant & 4;
    const size_t bytes = sizeof(float) * (size_t)(n * rows);
    float *h = malloc(bytes), *add = malloc(bytes), *want = malloc(bytes), *got = malloc(bytes),
          *w = malloc(sizeof(float) * (size_t)n),
          huge = random_below(4) ? 1 : ldexpf(1, (int)random_below(110) - 40);
    int32_t row[8];
    assert(h && add && w && want && got && rows <= 8);
    fill(h, n * rows, p), fill(add, n * rows, (enum pattern)random_below(PATTERNS)), fill(w, n, NORMAL);
    for (int64_t i = 0; i < n * rows; i++) h[i] *= huge;
    for (int64_t t = 0; t < rows; t++) row[t] = (int32_t)random_below(rows);
    CUDA_CASE("norm: %" PRId64 " rows of %" PRId64 ", %s times %g%s%s%s", rows, n, pattern_name[p],
              (double)huge, with_add ? ", with a sum" : "", in_place ? ", in place" : "",
              chosen ? ", chosen rows" : "");

    struct moe_cuda_norm a = { .rows = rows, .n = n, .eps = random_below(2) ? 1e-6f : 1e-5f };
    a.h = with_add || in_place ? cuda_inout(h, bytes) : cuda_in(h, bytes);
    a.add = with_add ? cuda_in(add, bytes) : 0;
    a.w = cuda_in(w, sizeof(float) * (size_t)n);
    a.row = chosen ? cuda_in(row, sizeof *row * (size_t)rows) : 0;
    a.out = in_place ? a.h : cuda_out(bytes);
    CUDA_LAUNCH(norm, a);
    want_of(&a, h, with_add ? add : NULL, w, chosen ? row : NULL, want);
    cuda_get(got, a.out, bytes);
    cuda_compare("out", want, got, n * rows);
    if (!in_place) {
        cuda_get(got, a.h, bytes);
        cuda_compare("h", h, got, n * rows);
    }
    cuda_free_all();
    free(h), free(add), free(w), free(want), free(got);
}

static void check(void)
{
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int p = 0; p < PATTERNS; p++)
            check_one(sizes[s], 1 + random_below(4), (enum pattern)p, (int)random_below(8));
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
