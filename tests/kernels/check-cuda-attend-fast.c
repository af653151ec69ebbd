/* SPDX-License-Identifier: Apache-2.0 */
/* Checks fast attention over pages (kernels/cuda/attend-fast.h), of latents of float32 and of bfloat16, bit
 * for bit against its order of operations in plain C, token by token: whichever kernel computes a token, and
 * whatever else is in its batch, the bits are those.  Scores are within the bound that the header states, and
 * what comes out is near the exact attention.  The division of rows into chunks is checked by itself. */
#include "tests/kernels/cuda-attended.h"
#include "tests/kernels/cuda-mma.h"

#include "kernels/cuda/attend-fast.h"

/* ---- the reference ---- */

/* What the tensor cores multiply: first and second terms. */
struct terms { float *one, *two; };

static struct terms terms_of(const float *x, int64_t n, int64_t padded)
{
    struct terms t = { room(padded), room(padded) };
    for (int64_t i = 0; i < n; i++) {
        t.one[i] = round_bf16(x[i]);
        t.two[i] = round_bf16(x[i] - t.one[i]);
    }
    return t;
}
static void free_terms(struct terms *t) { free(t->one), free(t->two); }

/* c plus 16 products, or for two terms plus the three times 16 that count. */
static float add_16(const struct terms *a, int64_t i, const struct terms *b, int64_t k, float c, bool bf16)
{
    if (!bf16) c = mma_sum(a->one + i, b->two + k, c, -126);
    if (!bf16) c = mma_sum(a->two + i, b->one + k, c, -126);
    return mma_sum(a->one + i, b->one + k, c, -126);
}

static void check_score(const float *q, const float *k, int64_t width, float s, bool bf16)
{
    double exact = 0, sum = 0, least = INFINITY;
    for (int64_t i = 0; i < width; i++) {
        const double p = (double)q[i] * (double)k[i];
        exact += p, sum += fabs(p);
        if (q[i] != 0) least = fmin(least, fabs((double)q[i]));
        if (k[i] != 0) least = fmin(least, fabs((double)k[i]));
    }
    if (!isfinite(sum) || sum > 0x1p100 || least < 0x1p-60) return;
    const double bound = (bf16 ? 0x1p-8 + 0x1p-18 : 7 * 0x1p-17) + (double)((width + 63) / 64) * 0x1p-24;
    CUDA_CHECK(fabs((double)s - exact) <= bound * sum, "a score %g instead of %g is off by more than %g",
               (double)s, exact, bound * sum);
}

/* Sums of the exponentials e [64] as they are multiplied. */
static float total_of(const struct terms *e, bool bf16)
{
    float w[MOE_PAGE], total = 0;
    for (int64_t i = 0; i < MOE_PAGE; i++) w[i] = bf16 ? e->one[i] : e->one[i] + e->two[i];
    for (int64_t i = 0; i < MOE_PAGE; i += 8) {
        const float *v = w + i, low = (v[0] + v[1]) + (v[2] + v[3]), high = (v[4] + v[5]) + (v[6] + v[7]);
        total = i ? total + (low + high) : low + high;
    }
    return total;
}

/* Latents of a page as terms: of each row, and of each column of its 64 rows. */
struct page { int64_t rows, width, kl, padded; const float *from; struct terms *row, *column; };

static struct page make_page(const struct attended *c, const float *from, int64_t rows)
{
    struct page p = { .rows = rows, .width = c->width, .kl = c->kl, .from = from };
    float x[MOE_PAGE];
    p.padded = (c->width + 63) / 64 * 64;
    p.row = calloc((size_t)rows, sizeof *p.row), p.column = calloc((size_t)c->kl, sizeof *p.column);
    assert(p.row && p.column);
    for (int64_t r = 0; r < rows; r++) p.row[r] = terms_of(from + r * c->width, c->width, p.padded);
    for (int64_t i = 0; i < c->kl; i++) {
        for (int64_t r = 0; r < MOE_PAGE; r++) x[r] = r < rows ? from[r * c->width + i] : 0;
        p.column[i] = terms_of(x, MOE_PAGE, MOE_PAGE);
    }
    return p;
}
static void free_page(struct page *p)
{
    for (int64_t r = 0; r < p->rows; r++) free_terms(&p->row[r]);
    for (int64_t i = 0; i < p->kl; i++) free_terms(&p->column[i]);
    free(p->row), free(p->column);
}

/* A page for one head with the query q. */
static void add_page(const struct page *p, const float *q, float scale, bool bf16, float *max, float *sum,
                     float *o)
{
    struct terms query = terms_of(q, p->width, p->padded);
    float x[MOE_PAGE], most = *max, f;
    for (int64_t r = 0; r < p->rows; r++) {
        float s = 0;
        for (int64_t group = 0; group < p->padded; group += 64) {
            float c = 0;
            for (int64_t i = group; i < group + 64; i += 16) c = add_16(&query, i, &p->row[r], i, c, bf16);
            s = s + c;
        }
        check_score(q, p->from + r * p->width, p->width, s, bf16);
        x[r] = scale * s;
        if (x[r] > most) most = x[r];
    }
    for (int64_t r = 0; r < p->rows; r++) x[r] = x[r] - most;
    f = *max - most;
    cuda_avx2.exp(x, p->rows, x), cuda_avx2.exp(&f, 1, &f);
    struct terms e = terms_of(x, p->rows, MOE_PAGE);
    *sum = fmaf(*sum, f, total_of(&e, bf16)), *max = most;
    for (int64_t i = 0; i < p->kl; i++) {
        float c = 0;
        for (int64_t r = 0; r < MOE_PAGE; r += 16) c = add_16(&e, r, &p->column[i], r, c, bf16);
        o[i] = fmaf(o[i], f, c);
    }
    free_terms(&query), free_terms(&e);
}

/* The result of token t: out [heads, kl]. */
static void want_of(const struct attended *c, int64_t t, bool bf16, float *out)
{
    const int64_t rows = c->pos[t] + 1, h = c->heads, length = moe_cuda_attend_fast_chunk(rows);
    float *max = room(2 * h), *sum = room(2 * h), *o = room(h * c->kl);
    for (int64_t at = 0; at < rows; at += length) {
        float *m = at ? max + h : max, *l = at ? sum + h : sum, *to = at ? o : out;
        for (int64_t i = 0; i < h; i++) m[i] = -INFINITY, l[i] = 0;
        for (int64_t i = 0; i < h * c->kl; i++) to[i] = 0;
        for (int64_t i = at; i < rows && i < at + length; i += MOE_PAGE) {
            const int64_t left = rows - i < MOE_PAGE ? rows - i : MOE_PAGE;
            struct page p = make_page(c, page_of(c, t, i / MOE_PAGE), left);
            for (int64_t k = 0; k < h; k++)
                add_page(&p, c->q + (t * h + k) * c->width, c->scale, bf16, m + k, l + k, to + k * c->kl);
            free_page(&p);
        }
        if (at) cuda_avx2.attend_merge(h, c->kl, max, sum, out, c->kl, max + h, sum + h, o, c->kl);
    }
    cuda_avx2.attend_finish(h, c->kl, sum, out, c->kl);
    free(max), free(sum), free(o);
}

/* ---- cases ---- */

static void compute(const struct attended *c, bool bf16, uint32_t few, float *got)
{
    struct moe_cuda_attend a = upload(c, bf16);
    a.few = few, a.chunks = moe_cuda_attend_fast_most(c->pos[0] + 1) + random_below(2);
    if (a.chunks > 1) upload_parts(&a);
    cuda_launch(moe_cuda_attend_fast_kernel(&a, bf16), moe_cuda_attend_fast_grid(&a, bf16), &a, sizeof a);
    if (a.chunks > 1) CUDA_LAUNCH(attend_fast_merge, a);
    cuda_get(got, a.out, sizeof *got * (size_t)(c->n * c->heads * c->kl));
    cuda_free_all();
}

static void check_case(struct attended *c, bool bf16, const char *pattern)
{
    const int64_t each = c->heads * c->kl, floats = c->n * each, values = c->pages * c->page_step;
    float *want = room(floats), *got = room(floats);
    for (int64_t i = 0; bf16 && i < values; i++) c->cache[i] = round_bf16(c->cache[i]);
    CUDA_CASE("attend_fast: the reference of %s, %s", bf16 ? "bfloat16" : "float32", pattern);
    for (int64_t t = 0; t < c->n; t++) want_of(c, t, bf16, want + t * each);
    for (uint32_t few = 0; few < 2; few++) {
        CUDA_CASE("attend_fast: %d tokens, %d rows, %d heads of %d, values of %d, %s, %s%s", (int)c->n,
                  c->pos[0] + 1, (int)c->heads, (int)c->width, (int)c->kl, pattern,
                  bf16 ? "bfloat16" : "float32", few ? ", 16 heads a block" : "");
        compute(c, bf16, few, got);
        cuda_compare("out", want, got, floats);
    }
    free(want), free(got);
}

static void check_shapes(void)
{
    static const int64_t rows[] = { 1, 63, 64, 65, 129, MOE_CHUNK, MOE_CHUNK + 1, MOE_CHUNK + 77 };
    for (int i = 0; i < 18; i++) {
        const enum pattern p = (enum pattern)(i % PATTERNS);
        const int64_t longest = rows[i % 8], kl = 1 + random_below(i % 3 ? 20 : 90), rope = random_below(40);
        const int64_t heads = 1 + random_below(i % 8 < 3 ? 70 : 4);
        struct attended c = make(1 + random_below(2), heads, kl, rope, longest, p);
        check_case(&c, (i / 9 + i) % 2, pattern_name[p]);
        release(&c);
    }
    for (int bf16 = 0; bf16 < 2; bf16++) { /* the widths of K2 and of a tiny model */
        struct attended k2 = make(1, bf16 ? 49 : 17, 512, 64, 66, NORMAL);
        struct attended tiny = make(2, 4, 64, 16, 600, UNIFORM);
        check_case(&k2, bf16, "normal"), check_case(&tiny, bf16, "uniform");
        release(&k2), release(&tiny);
    }
}

/* Pages whose scores are NaN, Inf, or -Inf alone, for one head or for both; and zeros of both signs as the
 * largest.  Half of the time what is odd is in the key alone. */
static void check_broken(void)
{
    static const float first[] = { NAN, INFINITY, -INFINITY, -0.f }, second[] = { 1, 1, -INFINITY, 0 };
    for (int i = 0; i < 16; i++) {
        struct attended c = make(1, 2, 3, 1, 70, ZERO);
        const int column = i / 8 * 3;
        c.scale = 1;
        for (int64_t h = 0; h < 2; h++) c.q[h * 4] = 1, c.q[h * 4 + 3] = h ? -1 : 1;
        float *page = (float *)(uintptr_t)page_of(&c, 0, random_below(2));
        for (int64_t r = 0; r < MOE_PAGE; r++) page[r * 4 + column] = r % 2 ? second[i % 4] : first[i % 4];
        check_case(&c, i / 4 % 2, "broken");
        release(&c);
    }
}

/* The exact attention over the same latents, in doubles. */
static void exact_of(const struct attended *c, int64_t h, double *out)
{
    double sum = 0, *w = calloc((size_t)c->pos[0] + 1, sizeof *w), most = -INFINITY;
    assert(w);
    for (int64_t r = 0; r <= c->pos[0]; r++) {
        const float *k = page_of(c, 0, r / MOE_PAGE) + r % MOE_PAGE * c->width;
        for (int64_t i = 0; i < c->width; i++) w[r] += (double)c->q[h * c->width + i] * (double)k[i];
        w[r] *= (double)c->scale, most = fmax(most, w[r]);
    }
    for (int64_t i = 0; i < c->kl; i++) out[i] = 0;
    for (int64_t r = 0; r <= c->pos[0]; r++) {
        const float *k = page_of(c, 0, r / MOE_PAGE) + r % MOE_PAGE * c->width;
        sum += w[r] = exp(w[r] - most);
        for (int64_t i = 0; i < c->kl; i++) out[i] += w[r] * (double)k[i];
    }
    for (int64_t i = 0; i < c->kl; i++) out[i] /= sum;
    free(w);
}

/* Values of at most 1 and scores of about 1, within what the bounds of scores and exponentials allow. */
static void check_near(void)
{
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct attended c = make(1, 3, 40, 16, 300, UNIFORM);
        float *got = room(c.heads * c.kl);
        double want[40], bound = bf16 ? 0x1p-7 : 0x1p-14;
        for (int64_t i = 0; bf16 && i < c.pages * c.page_step; i++) c.cache[i] = round_bf16(c.cache[i]);
        CUDA_CASE("attend_fast near the exact result, %s", bf16 ? "bfloat16" : "float32");
        compute(&c, bf16, 0, got);
        for (int64_t h = 0; h < c.heads; h++) {
            exact_of(&c, h, want);
            for (int64_t i = 0; i < c.kl; i++)
                CUDA_CHECK(fabs((double)got[h * c.kl + i] - want[i]) <= bound, "%g instead of %g",
                           (double)got[h * c.kl + i], want[i]);
        }
        release(&c), free(got);
    }
}

/* ---- how work is divided ---- */

static void check_chunks(void)
{
    int64_t most = 0;
    for (int64_t rows = 1; rows < 300000; rows += rows < 70000 ? 1 : 97) {
        const int64_t length = moe_cuda_attend_fast_chunk(rows), n = moe_cuda_attend_fast_chunks(rows);
        most = n > most ? n : most;
        CUDA_CASE("attend_fast: %d rows", (int)rows);
        CUDA_CHECK(length % MOE_PAGE == 0 && length * n >= rows && length * (n - 1) < rows, "%d chunks of %d",
                   (int)n, (int)length);
        CUDA_CHECK(n <= length / 64, "%d chunks of %d", (int)n, (int)length);
        CUDA_CHECK(n <= (rows + MOE_CHUNK - 1) / MOE_CHUNK, "%d chunks", (int)n);
        CUDA_CHECK(moe_cuda_attend_fast_most(rows) >= most, "at most %d chunks, and there are %d",
                   (int)moe_cuda_attend_fast_most(rows), (int)most);
    }
}

/* On a GPU of 132 multiprocessors with K2's 64 heads. */
static void check_division(void)
{
    static const struct { int64_t n, chunks, width; bool bf16; uint32_t few; } of[] = {
        { 1, 1, 576, true, 1 },   { 32, 8, 576, true, 0 },   { 132, 1, 576, true, 0 },
        { 131, 1, 576, true, 1 }, { 66, 1, 576, false, 0 },  { 65, 1, 576, false, 1 },
        { 4000, 1, 640, true, 1 }, { 4000, 1, 640, false, 1 } };
    for (size_t i = 0; i < sizeof of / sizeof *of; i++) {
        struct moe_cuda_attend a = { .n = of[i].n, .heads = 64, .kl = 512, .chunks = of[i].chunks,
                                     .cache.width = of[i].width };
        a.few = moe_cuda_attend_fast_few(&a, of[i].bf16, 132);
        CUDA_CASE("attend_fast: %d sequences of %d chunks", (int)of[i].n, (int)of[i].chunks);
        CUDA_CHECK(a.few == of[i].few, "few %u", a.few);
        const struct moe_cuda_grid g = moe_cuda_attend_fast_grid(&a, of[i].bf16);
        CUDA_CHECK(g.x * (a.few ? 16 : of[i].bf16 ? 64 : 32) == 64 && g.y == of[i].chunks && g.z == of[i].n,
                   "a grid of %u x %u x %u", g.x, g.y, g.z);
        CUDA_CHECK(g.shared <= 227 << 10, "%u bytes of shared memory", g.shared);
    }
}

static void check(void)
{
    check_chunks();
    check_division();
    check_shapes();
    check_broken();
    check_near();
}

int main(int argc, char **argv) { return cuda_main(argc, argv, check); }
