/* SPDX-License-Identifier: Apache-2.0 */
/* How prompts are shared out to ranks: by what they begin with, and evenly. */
#undef NDEBUG
#include "kernels/attend.h"
#include "runtime/engine/share.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 4000, LONGEST = 8 * MOE_PAGE, CONTEXT = 100000 };

static long checks;
#define CHECK(c) (checks++, assert(c))

static struct moe_sequence s[MOST];
static int32_t ids[MOST][LONGEST], owner[MOST];
static uint32_t state = 1;

static int64_t below(int64_t n)
{
    state = state * 1664525 + 1013904223;
    return (int64_t)(state >> 8) % n;
}

/* Prompt i has the tokens of beginning `of` up to `same`, and then its own. */
static void prompt(int i, int of, int64_t same, int64_t n, int64_t max_tokens)
{
    for (int64_t k = 0; k < n; k++)
        ids[i][k] = (int32_t)(k < same ? of * 100000 + k : 50000000 + i * 1000 + k);
    s[i] = (struct moe_sequence){ .request = { .ids = ids[i], .n_ids = n, .max_tokens = max_tokens } };
}

static void share(int64_t n, int ranks)
{
    struct moe_err err;
    CHECK(moe_share_prompts(s, n, ranks, CONTEXT, &err) == MOE_OK);
    for (int64_t i = 0; i < n; i++) {
        owner[i] = s[i].rank;
        CHECK(owner[i] >= 0 && owner[i] < ranks);
    }
    CHECK(moe_share_prompts(s, n, ranks, CONTEXT, &err) == MOE_OK);
    for (int64_t i = 0; i < n; i++) CHECK(owner[i] == s[i].rank);
}

static int64_t count(int64_t n, int rank)
{
    int64_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += owner[i] == rank;
    return sum;
}

/* Equal prompts that share nothing take turns. */
static void test_even(void)
{
    for (int i = 0; i < 100; i++) prompt(i, i, 0, 70, 10);
    share(100, 7);
    for (int i = 0; i < 100; i++) CHECK(owner[i] == i % 7);
    share(100, 1);
    share(3, 1000); /* more ranks than prompts */
    for (int i = 0; i < 3; i++) CHECK(owner[i] == i);
    CHECK(moe_share_prompts(s, 0, 4, CONTEXT, &(struct moe_err){ 0 }) == MOE_OK);
}

/* Four families on four ranks: each stays together, whatever the order. */
static void test_families(void)
{
    for (int i = 0; i < 40; i++) prompt(i, i % 4, 3 * MOE_PAGE, 3 * MOE_PAGE + 5 + i, 10);
    share(40, 4);
    for (int i = 0; i < 40; i++) CHECK(owner[i] == owner[i % 4]);
    for (int r = 0; r < 4; r++) CHECK(count(40, r) == 10);
    /* a page less one token is no page, and the last token of a prompt is always computed */
    for (int i = 0; i < 8; i++) prompt(i, 0, MOE_PAGE - 1, 100, 10);
    share(8, 2);
    for (int i = 0; i < 8; i++) CHECK(owner[i] == i % 2);
    for (int i = 0; i < 8; i++) prompt(i, 0, MOE_PAGE, MOE_PAGE, 10);
    share(8, 2);
    for (int i = 0; i < 8; i++) CHECK(owner[i] == i % 2);
}

/* All begin alike: every rank computes the beginning once, and the work is even. */
static void test_alike(void)
{
    for (int ranks = 2; ranks <= 72; ranks += 35) {
        int n = 40 * ranks;
        for (int i = 0; i < n; i++) prompt(i, 0, 2 * MOE_PAGE, 2 * MOE_PAGE + 20 + below(20), 60);
        share(n, ranks);
        for (int r = 0; r < ranks; r++) CHECK(count(n, r) >= 25 && count(n, r) <= 60);
    }
}

/* Equal prompts share nothing under different salts, of which none is one. */
static void test_salts(void)
{
    static const char *const salt[] = { "a", "b", NULL };
    for (int i = 0; i < 21; i++) prompt(i, 9, 0, 500, 500); /* so that no rank is far ahead */
    for (int i = 21; i < 30; i++) {
        prompt(i, 1, 3 * MOE_PAGE, 3 * MOE_PAGE + 1, 0);
        s[i].request.salt = salt[i % 3];
        s[i].request.salt_bytes = salt[i % 3] ? 1 : 0;
    }
    share(30, 3);
    for (int i = 21; i < 30; i++) CHECK(owner[i] == i % 3);
}

/* The longer of two beginnings decides. */
static void test_longest(void)
{
    for (int i = 0; i < 20; i++) prompt(i, 9, 0, 500, 500); /* so that no rank is far ahead */
    prompt(20, 1, 2 * MOE_PAGE, 2 * MOE_PAGE + 1, 0);
    share(21, 3);
    int first = owner[20];
    prompt(21, 1, 2 * MOE_PAGE, 6 * MOE_PAGE, 0);
    for (int64_t k = 0; k < MOE_PAGE; k++) ids[21][k] = ids[20][k];
    prompt(22, 1, 2 * MOE_PAGE, 2 * MOE_PAGE + 30, 0);
    share(23, 3);
    CHECK(owner[20] == first && owner[22] == first);
}

static void test_random(void)
{
    for (int round = 0; round < 20; round++) {
        int64_t n = 1 + below(300);
        int ranks = (int)(1 + below(200));
        for (int i = 0; i < n; i++) {
            int64_t length = 1 + below(LONGEST);
            prompt(i, (int)below(5), below(length + 1), length, below(3) ? below(500) : -1);
        }
        share(n, ranks);
    }
}

int main(void)
{
    test_even();
    test_families();
    test_alike();
    test_longest();
    test_salts();
    test_random();
    printf("test-share: %ld checks\n", checks);
    return 0;
}
