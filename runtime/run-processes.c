#include "runtime/run-processes.h"

#include "runtime/ranks.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* The report of a rank. */
static void print_report(int text)
{
    char block[65536];
    ssize_t n;
    for (off_t at = 0; (n = pread(text, block, sizeof block, at)) > 0; at += n)
        fwrite(block, 1, (size_t)n, stdout);
    fflush(stdout);
}

enum moe_code moe_run_processes(struct moe_run_options *o, int ranks, int threads, char **argv,
                                struct moe_err *err)
{
    int n = ranks, exit = 0, reports, lost = 0, *killed = calloc((size_t)n, sizeof *killed);
    pid_t *pid = calloc((size_t)n, sizeof *pid);
    bool reported = false;
    enum moe_code code = killed && pid ? moe_ranks_spawn(argv, n, threads, pid, &reports, err)
                                       : moe_fail(err, MOE_NOMEM, "no memory for %d ranks", n);
    for (int r = 0; code == MOE_OK && r < n; r++)
        moe_notice(&o->run, "rank %d is process %ld", r, (long)pid[r]);
    if (code == MOE_OK) code = moe_ranks_reap(n, pid, reports, print_report, &exit, killed, &reported, err);
    for (int r = 0; code == MOE_OK && r < n; r++) {
        if (killed[r]) moe_warn(&o->run, "rank %d was ended by signal %d", r, killed[r]);
        lost += killed[r] != 0;
    }
    o->silent = code == MOE_OK && (reported || exit != MOE_OK); /* a rank has said it */
    if (code == MOE_OK && !o->silent)
        code = moe_fail(err, MOE_DEVICE, "%d of %d ranks were ended by signals, and none has reported", lost,
                        n);
    free(killed);
    free(pid);
    return code != MOE_OK ? code : (enum moe_code)exit;
}
