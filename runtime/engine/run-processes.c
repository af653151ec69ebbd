/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/run-processes.h"

#include "runtime/engine/ranks.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Prints the report of a rank, a file. */
static void print_report(int text)
{
    char block[65536];
    ssize_t n;
    for (off_t at = 0; (n = pread(text, block, sizeof block, at)) > 0; at += n)
        moe_print_bytes(block, (size_t)n);
}

/* The error when a rank ended before all ranks were connected, while the others waited for it. */
static enum moe_code ended_early(struct moe_run_args *o, const struct moe_ranks_end *e,
                                 struct moe_err *err)
{
    int sig = e->killed[e->first];
    if (sig)
        return moe_fail(err, MOE_DEVICE, "rank %d was ended by signal %d (%s%s) before all ranks were there",
                        e->first, sig, strsignal(sig), sig == SIGKILL ? ", as when memory is short" : "");
    o->silent = true; /* that rank has printed why */
    moe_warn(&o->run, "rank %d ended with exit code %d before all ranks were there", e->first, e->first_code);
    return (enum moe_code)e->exit;
}

/* The error when no rank has reported. */
static enum moe_code unreported(struct moe_run_args *o, const struct moe_ranks_end *e, int ranks,
                                struct moe_err *err)
{
    int lost = 0;
    for (int r = 0; r < ranks; r++) lost += e->killed[r] != 0;
    /* ranks that this process started do not print that themselves */
    if (e->exit == MOE_SIGINT || e->exit == MOE_SIGTERM)
        return moe_fail(err, (enum moe_code)e->exit, "a rank was ended by signal %d", e->exit - 128);
    o->silent = e->exit != MOE_OK; /* a rank has printed the error */
    if (o->silent) return (enum moe_code)e->exit;
    return moe_fail(err, MOE_DEVICE, "%d of %d ranks were ended by signals, and none has reported", lost,
                    ranks);
}

/* Once all ranks have ended: warns of those that signals have ended, and returns the result of the run. */
static enum moe_code report_end(struct moe_run_args *o, const struct moe_ranks_end *e, int ranks,
                                struct moe_err *err)
{
    if (e->first >= 0) return ended_early(o, e, err);
    for (int r = 0; r < ranks; r++)
        if (e->killed[r]) moe_warn(&o->run, "rank %d was ended by signal %d", r, e->killed[r]);
    if (!e->reported) return unreported(o, e, ranks, err);
    o->silent = true;
    return (enum moe_code)e->exit;
}

enum moe_code moe_run_processes(struct moe_run_args *o, int ranks, int threads, char **argv,
                                struct moe_err *err)
{
    int reports;
    struct moe_ranks_end e = { .killed = calloc((size_t)ranks, sizeof *e.killed) };
    pid_t *pid = calloc((size_t)ranks, sizeof *pid);
    enum moe_code code = e.killed && pid ? moe_ranks_spawn(argv, ranks, threads, pid, &reports, err)
                                         : moe_fail(err, MOE_NOMEM, "no memory for %d ranks", ranks);
    for (int r = 0; code == MOE_OK && r < ranks; r++)
        moe_notice(&o->run, "rank %d is process %ld", r, (long)pid[r]);
    if (code == MOE_OK) code = moe_ranks_reap(ranks, pid, reports, print_report, o->run.cancel, &e, err);
    if (code == MOE_OK) code = report_end(o, &e, ranks, err);
    free(e.killed);
    free(pid);
    return code;
}
