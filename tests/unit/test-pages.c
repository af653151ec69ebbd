/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the books of pages.  Beside them the test keeps what each row of each page holds, as a number that
 * stands for the salt and all tokens up to that position: a row that a sequence takes over has to hold
 * its own number. */
#include "tests/ok.h"
#include "model/pages.h"

#include <stdlib.h>
#include <string.h>

static struct moe_err err;

/* ---- what rows hold ---- */

enum { PAGES = 40, LONGEST = 6 * MOE_PAGE, SEQUENCES = 12 };
static uint64_t row[PAGES][MOE_PAGE];

static uint64_t mixed(uint64_t a, uint64_t b)
{
    a = (a ^ b) * 0x9e3779b97f4a7c15u;
    return a ^ a >> 29;
}

struct sequence {
    bool live;
    struct moe_table t;
    int64_t n, salt;            /* tokens, all of them computed */
    int32_t ids[LONGEST];
};

static uint64_t number(const struct sequence *s, int64_t position)
{
    uint64_t v = (uint64_t)s->salt + 77;
    for (int64_t i = 0; i <= position; i++) v = mixed(v, (uint64_t)s->ids[i]);
    return v;
}

static void copy_rows(struct moe_page_copy c)
{
    for (int64_t i = 0; i < c.rows; i++) row[c.to][i] = row[c.from][i];
}

/* Takes over what there is of the first n tokens.  Returns how many. */
static int64_t find(struct moe_pages *p, struct sequence *s, int64_t n)
{
    struct moe_page_copy c;
    int64_t full = moe_pages_find(p, &s->t, moe_pages_root(&s->salt, sizeof s->salt), s->ids, n);
    OK(full == s->t.positions && full % MOE_PAGE == 0);
    if (moe_pages_find_rows(p, &s->t, s->ids, n, &c)) copy_rows(c);
    OK(s->t.positions >= full && s->t.positions <= n);
    return s->t.positions;
}

static void write_rows(struct moe_pages *p, struct sequence *s, int64_t upto)
{
    for (int64_t i = s->t.positions; i < upto; i++)
        row[s->t.page[i / MOE_PAGE]][i % MOE_PAGE] = number(s, i);
    moe_pages_written(p, &s->t, s->ids, upto);
}

static void holds_own_rows(const struct sequence *s)
{
    for (int64_t i = 0; i < s->t.positions; i++)
        OK(row[s->t.page[i / MOE_PAGE]][i % MOE_PAGE] == number(s, i));
}

static struct moe_pages *open_pages(int64_t n)
{
    struct moe_pages *p;
    OK(moe_pages_open(&p, n, &err) == MOE_OK);
    return p;
}

/* A sequence of n tokens from `first` on, each one more than the one before, computed whole. */
static struct sequence begun(struct moe_pages *p, int32_t first, int64_t n, int64_t *found)
{
    struct sequence s = { .live = true, .n = n };
    for (int64_t i = 0; i < n; i++) s.ids[i] = first + (int32_t)i;
    OK(moe_table_reserve(&s.t, LONGEST, &err) == MOE_OK);
    *found = find(p, &s, n - 1);
    OK(moe_pages_grow(p, &s.t, n));
    write_rows(p, &s, n);
    holds_own_rows(&s);
    return s;
}

static void end(struct moe_pages *p, struct sequence *s)
{
    moe_pages_release(p, &s->t, s->ids);
    moe_table_free(&s->t);
    s->live = false;
}

/* ---- cases ---- */

static void test_sharing(void)
{
    struct moe_pages *p = open_pages(10);
    int64_t found;
    struct sequence a = begun(p, 0, 200, &found);
    OK(found == 0 && a.t.n == 4 && a.t.chained == 3 && moe_pages_stats(p).used == 4);
    struct sequence b = begun(p, 0, 200, &found); /* the last token's logits are needed: 199 are looked for */
    OK(found == 192 && b.t.n == 4 && b.t.page[0] == a.t.page[0] && b.t.page[2] == a.t.page[2]);
    OK(b.t.page[3] != a.t.page[3] && moe_pages_stats(p).used == 5);
    end(p, &a);
    end(p, &b); /* its last page holds what a's does: it is given back */
    OK(moe_pages_stats(p).used == 0 && moe_pages_stats(p).kept == 4 && moe_pages_left(p) == 10);
    struct sequence c = begun(p, 0, 198, &found);
    OK(found == 197 && moe_pages_stats(p).copied == 5); /* 5 rows of the part */
    const struct moe_table *t[] = { &c.t };
    OK(!moe_pages_check(p, t, 1));
    end(p, &c);
    moe_pages_clear(p);
    OK(moe_pages_stats(p).kept == 0 && !moe_pages_check(p, NULL, 0));
    moe_pages_close(&p);
    moe_pages_close(&p);
}

static void test_salt(void)
{
    struct moe_pages *p = open_pages(10);
    int64_t found;
    struct sequence a = begun(p, 0, 130, &found), b = { .salt = 1, .n = 130 };
    memcpy(b.ids, a.ids, sizeof b.ids);
    OK(moe_table_reserve(&b.t, 130, &err) == MOE_OK);
    OK(find(p, &b, 129) == 0);
    end(p, &a);
    OK(find(p, &b, 129) == 0);
    moe_pages_release(p, &b.t, b.ids);
    moe_table_free(&b.t);
    moe_pages_close(&p);
}

/* The oldest go first, and of one sequence the last. */
static void test_eviction(void)
{
    struct moe_pages *p = open_pages(6);
    int64_t found;
    struct sequence a = begun(p, 0, 3 * MOE_PAGE, &found);
    end(p, &a);
    struct sequence b = begun(p, 5000, 3 * MOE_PAGE, &found);
    end(p, &b);
    OK(moe_pages_stats(p).kept == 6);
    struct sequence c = begun(p, 9000, MOE_PAGE, &found); /* takes the last page of a */
    OK(moe_pages_stats(p).evicted == 1);
    struct sequence d = begun(p, 0, 2 * MOE_PAGE + 1, &found);
    OK(found == 2 * MOE_PAGE && moe_pages_stats(p).evicted == 2); /* the new one was the last of b */
    end(p, &c);
    end(p, &d);
    struct sequence e = begun(p, 5000, 2 * MOE_PAGE + 1, &found);
    OK(found == 2 * MOE_PAGE);
    end(p, &e);
    moe_pages_close(&p);
}

static void test_full(void)
{
    struct moe_pages *p = open_pages(3);
    int64_t found;
    struct moe_page_copy c;
    struct sequence a = begun(p, 0, 2 * MOE_PAGE + 5, &found), b = { .n = 100 };
    memcpy(b.ids, a.ids, sizeof b.ids);
    OK(moe_table_reserve(&b.t, LONGEST, &err) == MOE_OK);
    OK(!moe_pages_grow(p, &a.t, 3 * MOE_PAGE + 1) && a.t.n == 3);
    OK(find(p, &b, 99) == MOE_PAGE); /* no page to copy the rest to */
    OK(!moe_pages_grow(p, &b.t, 99) && b.t.n == 1);
    moe_pages_release(p, &b.t, b.ids);
    OK(!moe_pages_fork(p, &a.t, &b.t, &c) && b.t.n == 0);
    const struct moe_table *t[] = { &a.t, &b.t };
    OK(!moe_pages_check(p, t, 2));
    moe_table_free(&b.t);
    end(p, &a);
    moe_pages_close(&p);
}

/* Two sequences compute the same tokens side by side: in the end they share the pages. */
static void test_merge(void)
{
    struct moe_pages *p = open_pages(8);
    struct sequence s[2] = { { .n = 150 }, { .n = 150 } };
    for (int i = 0; i < 2; i++) {
        for (int32_t k = 0; k < 150; k++) s[i].ids[k] = 7 * k;
        OK(moe_table_reserve(&s[i].t, 150, &err) == MOE_OK);
        OK(find(p, &s[i], 149) == 0);
        OK(moe_pages_grow(p, &s[i].t, 150));
    }
    OK(moe_pages_stats(p).used == 6);
    for (int64_t at = 10; at <= 150; at += 70)
        for (int i = 0; i < 2; i++) write_rows(p, &s[i], at);
    OK(moe_pages_stats(p).used == 4 && moe_pages_stats(p).merged == 2);
    OK(s[0].t.page[1] == s[1].t.page[1] && s[0].t.page[2] != s[1].t.page[2]);
    for (int i = 0; i < 2; i++) holds_own_rows(&s[i]);
    const struct moe_table *t[] = { &s[0].t, &s[1].t };
    OK(!moe_pages_check(p, t, 2));
    for (int i = 0; i < 2; i++) end(p, &s[i]);
    moe_pages_close(&p);
}

static void test_fork(void)
{
    struct moe_pages *p = open_pages(8);
    int64_t found;
    struct moe_page_copy c;
    struct sequence a = begun(p, 3, 100, &found), b = a;
    b.t = (struct moe_table){ 0 };
    OK(moe_table_reserve(&b.t, LONGEST, &err) == MOE_OK);
    OK(moe_pages_fork(p, &a.t, &b.t, &c) && c.rows == 36 && b.t.page[0] == a.t.page[0]);
    copy_rows(c);
    b.ids[100] = -5;
    a.ids[100] = -6;
    OK(moe_pages_grow(p, &a.t, 101) && moe_pages_grow(p, &b.t, 101));
    write_rows(p, &a, 101);
    write_rows(p, &b, 101);
    holds_own_rows(&a);
    holds_own_rows(&b);
    end(p, &a);
    end(p, &b);
    OK(moe_pages_stats(p).kept == 3);
    moe_pages_close(&p);
}

/* ---- random schedules ---- */

static uint64_t seed = 12345;
static int64_t below(int64_t n)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int64_t)((seed >> 33) % (uint64_t)n);
}

/* The tokens of a new sequence: often the beginning of another one, and few different ids. */
static void draw_tokens(struct sequence *s, const struct sequence *other)
{
    int64_t same = below(3) ? below(2) ? other->n : below(other->n + 1) : 0;
    s->n = 1 + below(LONGEST / 2);
    s->salt = below(8) ? 0 : 1;
    for (int64_t i = 0; i < s->n; i++) s->ids[i] = i < same ? other->ids[i] : (int32_t)below(3);
}

static void check_all(const struct moe_pages *p, const struct sequence *s)
{
    const struct moe_table *t[SEQUENCES];
    for (int i = 0; i < SEQUENCES; i++) t[i] = &s[i].t;
    OK(!moe_pages_check(p, t, SEQUENCES));
}

static void submit(struct moe_pages *p, struct sequence *s, const struct sequence *other)
{
    draw_tokens(s, other);
    find(p, s, s->n - 1);
    holds_own_rows(s);
    s->live = true;
}

/* Computes some tokens; without a page for them the sequence is put back, and gives up all it has. */
static void compute(struct moe_pages *p, struct sequence *s)
{
    int64_t upto = s->t.positions + 1 + below(100);
    if (upto > s->n) {
        if (s->n < LONGEST && below(2)) s->ids[s->n++] = (int32_t)below(3);
        upto = s->n;
    }
    if (moe_pages_grow(p, &s->t, upto)) {
        write_rows(p, s, upto);
        holds_own_rows(s);
    } else {
        moe_pages_release(p, &s->t, s->ids);
        s->live = false;
    }
}

static void test_random(void)
{
    static struct sequence s[SEQUENCES];
    int64_t found = 0, copied = 0, evicted = 0, merged = 0;
    for (int round = 0; round < 20; round++) {
        struct moe_pages *p = open_pages(8 + below(PAGES - 8));
        for (int i = 0; i < SEQUENCES; i++) OK(moe_table_reserve(&s[i].t, LONGEST, &err) == MOE_OK);
        for (int step = 0; step < 400; step++) {
            struct sequence *a = &s[below(SEQUENCES)];
            if (!a->live) submit(p, a, &s[below(SEQUENCES)]);
            else if (below(6)) compute(p, a);
            else moe_pages_release(p, &a->t, a->ids), a->live = false;
            if (!below(100)) moe_pages_clear(p);
            check_all(p, s);
        }
        struct moe_page_stats st = moe_pages_stats(p);
        found += st.found, copied += st.copied, evicted += st.evicted, merged += st.merged;
        OK(st.used_peak > 0 && st.used_peak <= st.pages);
        for (int i = 0; i < SEQUENCES; i++) end(p, &s[i]);
        OK(moe_pages_left(p) == st.pages);
        moe_pages_close(&p);
    }
    OK(found > 100 * MOE_PAGE && copied > 1000 && evicted > 100 && merged > 10);
}

int main(void)
{
    test_sharing();
    test_salt();
    test_eviction();
    test_full();
    test_merge();
    test_fork();
    test_random();
    printf("test-pages: %ld checks\n", checks);
    return 0;
}
