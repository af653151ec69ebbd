/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: which rank dies, and where (MOE_DIE; runtime/engine/run-options.h). */
#include "base/env.h"
#include "runtime/engine/run-options.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An entry RANK:WHERE of MOE_DIE. */
struct death { long rank; const char *where; size_t bytes; };

/* Reads the entry at *at and moves *at to the next one.  False: there is none, or it has another form. */
static bool next_death(const char **at, struct death *d)
{
    char *end;
    if (!*at) return false;
    d->rank = strtol(*at, &end, 10);
    if (end == *at || *end != ':') return false;
    d->where = end + 1;
    d->bytes = strcspn(d->where, ",");
    *at = d->where[d->bytes] ? d->where + d->bytes + 1 : NULL;
    return true;
}

void moe_run_args_die(int *rank, uint64_t *step)
{
    struct death d;
    for (const char *at = moe_env("MOE_DIE"); next_death(&at, &d); ) {
        char *end;
        uint64_t n = strtoull(d.where, &end, 10);
        if (!n || end != d.where + d.bytes) continue; /* it is the name of a point */
        *rank = (int)d.rank;
        *step = n;
        return;
    }
}

void moe_run_args_die_at(int rank, const char *point)
{
    struct death d;
    for (const char *at = moe_env("MOE_DIE"); next_death(&at, &d); )
        if (d.rank == rank && d.bytes == strlen(point) && !strncmp(d.where, point, d.bytes))
            kill(getpid(), strcmp(point, "hang") ? SIGKILL : SIGSTOP);
}
