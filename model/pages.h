/* SPDX-License-Identifier: Apache-2.0 */
/* model/pages.h - who uses which page of the latent cache: block tables, sharing by content, eviction.
 *
 * A page has room for MOE_PAGE positions of one sequence in all layers.  This keeps the books alone: pages
 * are numbers, and their memory, on whatever device, is the caller's.  A sequence's block table lists its
 * pages in order.  A page that is full is never written again, and sequences that begin with the same tokens
 * share it.  It is found by a digest of its tokens and of everything before them; the tokens themselves are
 * compared, too, so no sequence ever gets a page of other tokens.  The last page of a sequence, which is not
 * full, is never shared: where another begins with some of its tokens, their rows are copied.
 *
 * When a sequence ends, its pages stay, to be found by later ones, until their room is needed: the page that
 * was used longest ago goes first, and of one sequence the last page first, since those before it are of use
 * without it.
 *
 * All calls take constant time a page.  They allocate nothing but what a block table needs to grow
 * (moe_table_reserve).  One thread at a time uses a struct moe_pages and its tables. */
#ifndef MOE_MODEL_PAGES_H
#define MOE_MODEL_PAGES_H

#include "base/err.h"
#include "kernels/attend.h"

#include <stdbool.h>
#include <stdint.h>

struct moe_pages;

/* The first 128 bits of a SHA-256 digest. */
struct moe_page_key { uint64_t a, b; };

/* The pages of one sequence.  A zero-initialised table is empty. */
struct moe_table {
    int32_t *page; int64_t n, cap;  /* its pages, in order of positions */
    int64_t positions;              /* how many positions are written, n * MOE_PAGE at most */
    int64_t chained;                /* how many pages, all full, `chain` covers */
    struct moe_page_key chain;
};

/* Rows to copy from one page to another, in every layer: the first `rows`. */
struct moe_page_copy { int32_t from, to; int64_t rows; };

/* Counts since open, but for the first three. */
struct moe_page_stats {
    int64_t pages;                  /* all there are */
    int64_t used;                   /* that tables hold */
    int64_t kept;                   /* that no table holds, whose content can still be found */
    int64_t used_peak;
    int64_t found, copied;          /* positions that were taken over: in whole pages; as copied rows */
    int64_t evicted;                /* pages whose content was dropped for another */
    int64_t merged;                 /* pages that had been computed twice, of which one was given back */
};

/* Books for n pages, all free.  MOE_NOMEM. */
enum moe_code moe_pages_open(struct moe_pages **p, int64_t n, struct moe_err *err);
void moe_pages_close(struct moe_pages **p); /* NULL-safe; nulls.  Tables are the caller's to free. */
uint64_t moe_pages_estimate(int64_t n);     /* bytes of the books of n pages */
struct moe_page_stats moe_pages_stats(const struct moe_pages *p);
/* How many more pages moe_pages_grow can give to tables. */
int64_t moe_pages_left(const struct moe_pages *p);

/* The root of the chains of all sequences with this salt: sequences with different salts share nothing. */
struct moe_page_key moe_pages_root(const void *salt, int64_t bytes);

/* Makes room in the table for the page numbers of `positions` positions.  MOE_NOMEM. */
enum moe_code moe_table_reserve(struct moe_table *t, int64_t positions, struct moe_err *err);
void moe_table_free(struct moe_table *t);   /* of an empty table: frees its memory */

/* Begins a sequence of the tokens ids [n] in the empty table t, whose room must be reserved: takes over the
 * full pages that hold its first positions.  Returns how many positions these are: at most n, and
 * t->positions says the same. */
int64_t moe_pages_find(struct moe_pages *p, struct moe_table *t, struct moe_page_key root,
                       const int32_t *ids, int64_t n);
/* Right after it: looks for a page that goes on with some of the tokens ids [n] where t ends.  Where there is
 * one, and a page is left, t has a page more, t->positions counts the rows, and *copy says which rows the
 * caller has to copy before moe_pages_written.  False: there is nothing to copy. */
bool moe_pages_find_rows(struct moe_pages *p, struct moe_table *t, const int32_t *ids, int64_t n,
                         struct moe_page_copy *copy);
/* Adds pages to t until it has room for `positions`; the table's memory must be reserved.  False where there
 * are not enough: t then is as it was. */
bool moe_pages_grow(struct moe_pages *p, struct moe_table *t, int64_t positions);
/* Notes that t's rows are written up to `positions`, for the tokens ids [positions], of which those before
 * t->positions are as they were.  Pages that became full can be found from now on.  Where another sequence
 * computed the same page meanwhile, t gets that one and its own becomes free; both have the same bits. */
void moe_pages_written(struct moe_pages *p, struct moe_table *t, const int32_t *ids, int64_t positions);
/* Ends the sequence: the table becomes empty.  ids are its tokens, by which later ones find its last page. */
void moe_pages_release(struct moe_pages *p, struct moe_table *t, const int32_t *ids);
/* Gives the empty table `to` the content of `from`; full pages are shared.  False without a page for the
 * rows of the last one; `to` is then empty.  *copy as above, but its rows may be 0. */
bool moe_pages_fork(struct moe_pages *p, const struct moe_table *from, struct moe_table *to,
                    struct moe_page_copy *copy);
/* Forgets what no table holds. */
void moe_pages_clear(struct moe_pages *p);

/* Checks the books: every page is free, kept or used, by as many tables as its count says.  t [n]: all tables
 * there are.  NULL, or a sentence about what is wrong.  For tests; it looks at every page. */
const char *moe_pages_check(const struct moe_pages *p, const struct moe_table *const *t, int64_t n);

#endif
