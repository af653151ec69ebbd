/* SPDX-License-Identifier: Apache-2.0 */
/* Grouping by expert, against the definition of a stable sort. */
#include "model/group.h"

#include "tests/ok.h"

#include <stdlib.h>

enum { EXPERTS = 11, MOST = 300 };

struct item { const char *name; int32_t expert, number; };

/* Groups n items of random experts below `used`, and checks ranges and order. */
static void check_random(int64_t n, int32_t used)
{
    struct item item[MOST], sorted[MOST];
    int64_t first[EXPERTS + 1];
    int64_t count[EXPERTS] = { 0 };

    for (int32_t i = 0; i < n; i++) {
        item[i] = (struct item){ "", rand() % used, i };
        count[item[i].expert]++;
    }
    moe_group_count(first, EXPERTS, &item[0].expert, sizeof item[0], n);
    for (int64_t i = 0; i < n; i++) sorted[moe_group_place(first, item[i].expert)] = item[i];
    OK(first[0] == 0 && first[EXPERTS] == n);
    for (int32_t e = 0; e < EXPERTS; e++) {
        OK(first[e + 1] - first[e] == count[e]);
        for (int64_t i = first[e]; i < first[e + 1]; i++)
            OK(sorted[i].expert == e && (i == first[e] || sorted[i - 1].number < sorted[i].number));
    }
}

/* Experts alone, one after the other, as a router writes them. */
static void check_dense(void)
{
    const int32_t expert[6] = { 2, 0, 2, 2, 1, 0 };
    const int64_t place[6] = { 3, 0, 4, 5, 2, 1 };
    int64_t first[5];

    moe_group_count(first, 4, expert, sizeof expert[0], 6);
    for (int i = 0; i < 6; i++) OK(moe_group_place(first, expert[i]) == place[i]);
    OK(first[0] == 0 && first[1] == 2 && first[2] == 3 && first[3] == 6 && first[4] == 6);
}

static void check_none(void)
{
    const int32_t expert[1] = { 0 };
    int64_t first[2] = { 7, 7 };
    moe_group_count(first, 1, expert, sizeof expert[0], 0);
    OK(first[0] == 0 && first[1] == 0);
}

int main(void)
{
    srand(1);
    check_dense();
    check_none();
    for (int64_t n = 1; n <= MOST; n += 13)
        for (int32_t used = 1; used <= EXPERTS; used++) check_random(n, used);
    printf("test-group: %ld checks\n", checks);
}
