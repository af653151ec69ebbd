/* SPDX-License-Identifier: Apache-2.0 */
/* The books of pages.  A page is in one of these states:
 *
 *   free     no table holds it and nobody can find its content: it is on the stack of free pages
 *   private  one table holds it and writes to it; it cannot be found
 *   full     it is written to its end and can be found; any number of tables hold it
 *   kept     full or, of the last page of an ended sequence, a part; no table holds it, so it is in the list
 *            of least recent use, from whose front pages are taken when none is free */
#include "model/pages.h"

#include "base/grow.h"
#include "base/minmax.h"
#include "base/sha256.h"

#include <stdlib.h>
#include <string.h>

/* How many pages that continue the same tokens are compared for rows to copy: those found last. */
enum { COMPARED = 16 };

enum { NONE = -1 };

/* A doubly linked list that runs through the pages: the neighbours of one of them. */
struct link { int32_t before, after; };

struct page {
    int32_t refs;                       /* tables that hold it */
    int32_t known;                      /* tokens by which it can be found: MOE_PAGE, or of a part fewer; 0 */
    struct moe_page_key parent, key;    /* the chain before it; with it, where it is full */
    struct link by_key, by_token, by_use;
    int32_t ids[MOE_PAGE];
};

struct moe_pages {
    int64_t n;
    struct page *page;
    int32_t *free; int64_t n_free;      /* a stack */
    /* Heads of the lists: full pages by their key; all that can be found by parent and first token. */
    int32_t *with_key, *with_token;
    uint64_t mask;                      /* the number of heads of each kind, less one */
    int32_t oldest, newest;             /* of the pages that are kept */
    struct moe_page_stats stats;
};

/* ---- chains ---- */

static struct moe_page_key key_of(struct moe_sha256 *s)
{
    unsigned char digest[MOE_SHA256_BYTES];
    struct moe_page_key k;
    moe_sha256_end(s, digest);
    memcpy(&k, digest, sizeof k);
    return k;
}

struct moe_page_key moe_pages_root(const void *salt, int64_t bytes)
{
    static const char root[] = "latent cache";
    struct moe_sha256 s;
    moe_sha256_init(&s);
    moe_sha256_add(&s, root, sizeof root);
    moe_sha256_add(&s, salt, (size_t)bytes);
    return key_of(&s);
}

static struct moe_page_key next_key(struct moe_page_key parent, const int32_t *ids)
{
    struct moe_sha256 s;
    moe_sha256_init(&s);
    moe_sha256_add(&s, &parent, sizeof parent);
    moe_sha256_add(&s, ids, MOE_PAGE * sizeof *ids);
    return key_of(&s);
}

static bool same_key(struct moe_page_key a, struct moe_page_key b) { return a.a == b.a && a.b == b.b; }

static int32_t *key_head(const struct moe_pages *p, struct moe_page_key key)
{
    return &p->with_key[key.a & p->mask];
}

static int32_t *token_head(const struct moe_pages *p, struct moe_page_key parent, int32_t id)
{
    return &p->with_token[(parent.a ^ (uint64_t)(uint32_t)id * 0x9e3779b97f4a7c15u >> 20) & p->mask];
}

/* ---- lists ---- */

/* The links of one of the lists in the page with a number; `list` is an offset into struct page. */
static struct link *link_of(const struct moe_pages *p, int32_t page, size_t list)
{
    return (struct link *)(void *)((char *)&p->page[page] + list);
}

static void list_add(const struct moe_pages *p, int32_t *head, int32_t page, size_t list)
{
    *link_of(p, page, list) = (struct link){ NONE, *head };
    if (*head != NONE) link_of(p, *head, list)->before = page;
    *head = page;
}

static void list_remove(const struct moe_pages *p, int32_t *head, int32_t page, size_t list)
{
    struct link l = *link_of(p, page, list);
    if (l.before == NONE) *head = l.after;
    else link_of(p, l.before, list)->after = l.after;
    if (l.after != NONE) link_of(p, l.after, list)->before = l.before;
}

static void keep(struct moe_pages *p, int32_t page)
{
    p->page[page].by_use = (struct link){ p->newest, NONE };
    if (p->newest != NONE) p->page[p->newest].by_use.after = page;
    else p->oldest = page;
    p->newest = page;
    p->stats.kept++;
}

static void unkeep(struct moe_pages *p, int32_t page)
{
    struct link l = p->page[page].by_use;
    if (l.before == NONE) p->oldest = l.after;
    else p->page[l.before].by_use.after = l.after;
    if (l.after == NONE) p->newest = l.before;
    else p->page[l.after].by_use.before = l.before;
    p->stats.kept--;
}

/* ---- finding ---- */

/* The full page of these tokens after these before them. */
static int32_t find_full(const struct moe_pages *p, struct moe_page_key parent, struct moe_page_key key,
                         const int32_t *ids)
{
    for (int32_t i = *key_head(p, key); i != NONE; i = p->page[i].by_key.after) {
        const struct page *a = &p->page[i];
        if (same_key(a->key, key) && same_key(a->parent, parent) && !memcmp(a->ids, ids, sizeof a->ids))
            return i;
    }
    return NONE;
}

static int64_t common(const int32_t *a, const int32_t *b, int64_t n)
{
    int64_t i = 0;
    while (i < n && a[i] == b[i]) i++;
    return i;
}

/* The page that begins with the most of the tokens ids [n], n > 0, after those of `parent`; *rows: how
 * many. */
static int32_t find_part(const struct moe_pages *p, struct moe_page_key parent, const int32_t *ids, int64_t n,
                         int64_t *rows)
{
    int32_t best = NONE, left = COMPARED;
    *rows = 0;
    for (int32_t i = *token_head(p, parent, *ids); i != NONE && left--; i = p->page[i].by_token.after) {
        const struct page *a = &p->page[i];
        int64_t same = same_key(a->parent, parent) ? common(a->ids, ids, moe_min_i64(n, a->known)) : 0;
        if (same > *rows) *rows = same, best = i;
    }
    return best;
}

static void forget(struct moe_pages *p, int32_t page)
{
    struct page *a = &p->page[page];
    if (a->known == MOE_PAGE)
        list_remove(p, key_head(p, a->key), page, offsetof(struct page, by_key));
    list_remove(p, token_head(p, a->parent, a->ids[0]), page, offsetof(struct page, by_token));
    a->known = 0;
}

static void give_back(struct moe_pages *p, int32_t page) { p->free[p->n_free++] = page; }

/* Gives back the parts that the tokens ids [n] begin with: nobody looks for less than there is. */
static void forget_parts(struct moe_pages *p, struct moe_page_key parent, const int32_t *ids, int64_t n)
{
    int32_t left = COMPARED;
    for (int32_t i = *token_head(p, parent, *ids), after; i != NONE && left--; i = after) {
        struct page *a = &p->page[i];
        after = a->by_token.after;
        if (a->refs || a->known >= n || !same_key(a->parent, parent) ||
            common(a->ids, ids, a->known) < a->known)
            continue;
        unkeep(p, i);
        forget(p, i);
        give_back(p, i);
    }
}

/* Lets the page be found by the tokens ids [n] after those of `parent`; key: the chain with it, if full. */
static void make_known(struct moe_pages *p, int32_t page, struct moe_page_key parent, struct moe_page_key key,
                       const int32_t *ids, int64_t n)
{
    struct page *a = &p->page[page];
    forget_parts(p, parent, ids, n);
    a->parent = parent;
    a->key = key;
    a->known = (int32_t)n;
    memcpy(a->ids, ids, (size_t)n * sizeof *ids);
    if (n == MOE_PAGE) list_add(p, key_head(p, key), page, offsetof(struct page, by_key));
    list_add(p, token_head(p, parent, *ids), page, offsetof(struct page, by_token));
}

/* ---- holding ---- */

static void hold(struct moe_pages *p, int32_t page)
{
    if (!p->page[page].refs++) unkeep(p, page);
}

static void let_go(struct moe_pages *p, int32_t page)
{
    struct page *a = &p->page[page];
    if (--a->refs) return;
    if (a->known) keep(p, page);
    else give_back(p, page);
}

/* A page for a table to write to; NONE where all are used. */
static int32_t take(struct moe_pages *p)
{
    int32_t page;
    if (p->n_free) {
        page = p->free[--p->n_free];
    } else {
        if ((page = p->oldest) == NONE) return NONE;
        unkeep(p, page);
        forget(p, page);
        p->stats.evicted++;
    }
    p->page[page].refs = 1;
    return page;
}

static void add_page(struct moe_table *t, int32_t page)
{
    MOE_CHECK(t->n < t->cap);
    t->page[t->n++] = page;
}

static void note_used(struct moe_pages *p)
{
    int64_t used = p->n - p->n_free - p->stats.kept;
    if (used > p->stats.used_peak) p->stats.used_peak = used;
}

/* ---- public ---- */

static uint64_t heads_of(int64_t n)
{
    uint64_t heads = 16;
    while (heads < (uint64_t)n) heads *= 2;
    return heads;
}

uint64_t moe_pages_estimate(int64_t n)
{
    return sizeof(struct moe_pages) + (uint64_t)n * (sizeof(struct page) + sizeof(int32_t)) +
           2 * heads_of(n) * sizeof(int32_t);
}

enum moe_code moe_pages_open(struct moe_pages **out, int64_t n, struct moe_err *err)
{
    struct moe_pages *p = calloc(1, sizeof *p);
    uint64_t heads = heads_of(n);
    *out = p;
    if (p) {
        *p = (struct moe_pages){ .n = n, .mask = heads - 1, .oldest = NONE, .newest = NONE };
        p->page = calloc((size_t)n, sizeof *p->page);
        p->free = malloc((size_t)n * sizeof *p->free);
        p->with_key = malloc(heads * sizeof *p->with_key);
        p->with_token = malloc(heads * sizeof *p->with_token);
    }
    if (!p || !p->page || !p->free || !p->with_key || !p->with_token) {
        moe_pages_close(out);
        return moe_fail(err, MOE_NOMEM, "no memory for the books of %lld pages", (long long)n);
    }
    p->stats.pages = n;
    for (int64_t i = n; i-- > 0;) give_back(p, (int32_t)i);
    for (uint64_t i = 0; i < heads; i++) p->with_key[i] = p->with_token[i] = NONE;
    return MOE_OK;
}

void moe_pages_close(struct moe_pages **out)
{
    struct moe_pages *p = *out;
    if (!p) return;
    free(p->page);
    free(p->free);
    free(p->with_key);
    free(p->with_token);
    free(p);
    *out = NULL;
}

struct moe_page_stats moe_pages_stats(const struct moe_pages *p)
{
    struct moe_page_stats s = p->stats;
    s.used = p->n - p->n_free - s.kept;
    return s;
}

int64_t moe_pages_left(const struct moe_pages *p) { return p->n_free + p->stats.kept; }

static int64_t pages_for(int64_t positions) { return (positions + MOE_PAGE - 1) / MOE_PAGE; }

enum moe_code moe_table_reserve(struct moe_table *t, int64_t positions, struct moe_err *err)
{
    size_t cap = (size_t)t->cap;
    if (!MOE_GROW(t->page, cap, (size_t)pages_for(positions)))
        return moe_fail(err, MOE_NOMEM, "no memory for the pages of %lld positions", (long long)positions);
    t->cap = (int64_t)cap;
    return MOE_OK;
}

void moe_table_free(struct moe_table *t)
{
    MOE_CHECK(!t->n);
    free(t->page);
    *t = (struct moe_table){ 0 };
}

int64_t moe_pages_find(struct moe_pages *p, struct moe_table *t, struct moe_page_key root, const int32_t *ids,
                       int64_t n)
{
    MOE_CHECK(!t->n && t->cap >= pages_for(n));
    t->positions = 0;
    t->chain = root;
    for (; n - t->positions >= MOE_PAGE; t->positions += MOE_PAGE) {
        struct moe_page_key key = next_key(t->chain, ids + t->positions);
        int32_t page = find_full(p, t->chain, key, ids + t->positions);
        if (page == NONE) break;
        hold(p, page);
        add_page(t, page);
        t->chain = key;
    }
    t->chained = t->n;
    p->stats.found += t->positions;
    note_used(p);
    return t->positions;
}

bool moe_pages_find_rows(struct moe_pages *p, struct moe_table *t, const int32_t *ids, int64_t n,
                         struct moe_page_copy *copy)
{
    int64_t rows;
    MOE_CHECK(t->positions == t->n * MOE_PAGE && t->chained == t->n);
    if (n <= t->positions) return false;
    int32_t from = find_part(p, t->chain, ids + t->positions, n - t->positions, &rows), to;
    if (from == NONE) return false;
    hold(p, from); /* so that it is not the page that is taken */
    if ((to = take(p)) != NONE) {
        *copy = (struct moe_page_copy){ from, to, rows };
        add_page(t, to);
        t->positions += rows;
        p->stats.copied += rows;
    }
    let_go(p, from);
    note_used(p);
    return to != NONE;
}

bool moe_pages_grow(struct moe_pages *p, struct moe_table *t, int64_t positions)
{
    int64_t more = pages_for(positions) - t->n;
    if (more > moe_pages_left(p)) return false;
    while (more-- > 0) add_page(t, take(p));
    note_used(p);
    return true;
}

void moe_pages_written(struct moe_pages *p, struct moe_table *t, const int32_t *ids, int64_t positions)
{
    MOE_CHECK(positions >= t->positions && positions <= t->n * MOE_PAGE);
    t->positions = positions;
    for (; (t->chained + 1) * MOE_PAGE <= positions; t->chained++) {
        const int32_t *of = ids + t->chained * MOE_PAGE;
        struct moe_page_key key = next_key(t->chain, of);
        int32_t *mine = &t->page[t->chained], there = find_full(p, t->chain, key, of);
        if (there == NONE) {
            make_known(p, *mine, t->chain, key, of, MOE_PAGE);
        } else {
            hold(p, there);
            let_go(p, *mine);
            *mine = there;
            p->stats.merged++;
        }
        t->chain = key;
    }
}

/* Lets the last page of an ending sequence be found, unless another page begins with the same tokens. */
static void keep_part(struct moe_pages *p, const struct moe_table *t, const int32_t *ids)
{
    int64_t n = t->positions - t->chained * MOE_PAGE, rows;
    const int32_t *of = ids + t->chained * MOE_PAGE;
    if (!n) return;
    find_part(p, t->chain, of, n, &rows);
    if (rows == n) return;
    make_known(p, t->page[t->chained], t->chain, (struct moe_page_key){ 0, 0 }, of, n);
}

void moe_pages_release(struct moe_pages *p, struct moe_table *t, const int32_t *ids)
{
    keep_part(p, t, ids);
    while (t->n > 0) let_go(p, t->page[--t->n]); /* the last one first, so that it is evicted first */
    t->positions = t->chained = 0;
}

bool moe_pages_fork(struct moe_pages *p, const struct moe_table *from, struct moe_table *to,
                    struct moe_page_copy *copy)
{
    int64_t full = from->positions / MOE_PAGE, rows = from->positions % MOE_PAGE;
    MOE_CHECK(!to->n && to->cap >= pages_for(from->positions) && from->chained == full);
    *copy = (struct moe_page_copy){ NONE, NONE, 0 };
    if (rows && !moe_pages_left(p)) return false;
    for (int64_t i = 0; i < full; i++) {
        hold(p, from->page[i]);
        add_page(to, from->page[i]);
    }
    if (rows) {
        *copy = (struct moe_page_copy){ from->page[full], take(p), rows };
        add_page(to, copy->to);
        p->stats.copied += rows;
    }
    to->positions = from->positions;
    to->chained = from->chained;
    to->chain = from->chain;
    note_used(p);
    return true;
}

void moe_pages_clear(struct moe_pages *p)
{
    while (p->oldest != NONE) {
        int32_t page = p->oldest;
        unkeep(p, page);
        forget(p, page);
        give_back(p, page);
    }
}

/* ---- checks ---- */

/* How often each page is in a list of `heads`, added to count. */
static void count_lists(const struct moe_pages *p, const int32_t *heads, size_t list, int32_t *count)
{
    for (uint64_t h = 0; h <= p->mask; h++)
        for (int32_t i = heads[h]; i != NONE; i = link_of(p, i, list)->after) count[i]++;
}

/* count [5 n], zeroed: of each page its tables, and its places among the free, the kept, by key, by token. */
static const char *check(const struct moe_pages *p, const struct moe_table *const *t, int64_t n,
                         int32_t *count)
{
    int32_t *held = count, *is_free = held + p->n, *kept = is_free + p->n, *keyed = kept + p->n,
            *tokened = keyed + p->n;
    for (int64_t i = 0; i < n; i++)
        for (int64_t k = 0; k < t[i]->n; k++) held[t[i]->page[k]]++;
    for (int64_t i = 0; i < p->n_free; i++) is_free[p->free[i]]++;
    for (int32_t i = p->oldest; i != NONE; i = p->page[i].by_use.after) kept[i]++;
    count_lists(p, p->with_key, offsetof(struct page, by_key), keyed);
    count_lists(p, p->with_token, offsetof(struct page, by_token), tokened);
    int64_t all_kept = 0;
    for (int64_t i = 0; i < p->n; i++) {
        const struct page *a = &p->page[i];
        all_kept += kept[i];
        if (a->refs != held[i]) return "a page's count is not that of the tables which hold it";
        if (is_free[i] + kept[i] + (held[i] > 0) != 1) return "a page is lost, or in two states";
        if (keyed[i] != (a->known == MOE_PAGE)) return "a full page cannot be found, or another can";
        if (tokened[i] != (a->known > 0)) return "a known page cannot be found, or another can";
        if (kept[i] && !a->known) return "a page is kept that nobody can find";
        if (held[i] > 1 && a->known != MOE_PAGE) return "tables share a page that is not full";
    }
    return all_kept == p->stats.kept ? NULL : "the number of kept pages is wrong";
}

const char *moe_pages_check(const struct moe_pages *p, const struct moe_table *const *t, int64_t n)
{
    int32_t *count = calloc((size_t)p->n * 5 + 1, sizeof *count);
    const char *wrong = count ? check(p, t, n, count) : "no memory for the check";
    free(count);
    return wrong;
}
