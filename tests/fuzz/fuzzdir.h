/* SPDX-License-Identifier: Apache-2.0 */
/* tests/fuzz/fuzzdir.h - makes a directory of the fuzz target's own. */
#ifndef FUZZDIR_H
#define FUZZDIR_H

#undef NDEBUG
#include "base/io.h"

#include <assert.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char fuzz_dir[64];

static void fuzz_dir_remove(void)
{
    struct moe_err err;
    moe_remove_tree(fuzz_dir, &err);
}

/* Make the directory, in memory where there is such a place, at the first call only (then true).  It is
 * removed when the program ends. */
static bool fuzz_dir_make(void)
{
    if (*fuzz_dir) return false;
    bool memory = !access("/dev/shm", W_OK);
    snprintf(fuzz_dir, sizeof fuzz_dir, "%s/moe-fuzz.XXXXXX", memory ? "/dev/shm" : "/tmp");
    if (!mkdtemp(fuzz_dir)) abort();
    atexit(fuzz_dir_remove);
    return true;
}

/* Write `n` bytes to NAME in it. */
__attribute__((unused))
static void fuzz_put(const char *name, const void *p, size_t n)
{
    char path[PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", fuzz_dir, name);
    FILE *f = fopen(path, "wb");
    assert(f && fwrite(p, 1, n, f) == n && !fclose(f));
}

#endif
