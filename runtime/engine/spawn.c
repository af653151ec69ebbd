/* SPDX-License-Identifier: Apache-2.0 */
/* Starts ranks as processes of this host, and waits for them (moe_ranks_spawn, moe_ranks_reap). */
#include "base/io.h"
#include "base/cancel.h"
#include "runtime/comm/wire.h"
#include "runtime/engine/handover.h"
#include "runtime/engine/ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* EXTRA: arguments that are added to argv.  Seconds: GRACE from SIGTERM to SIGKILL; REST from the report to
 * SIGKILL; HOLD from the failure of a rank before all were connected to the SIGKILL for the others, so that
 * they can print what they know of it. */
enum { EXTRA = 8, GRACE = 5, REST = 12, HOLD = 2 };

/* The values of the added arguments. */
struct words { char rank[16], ranks[16], threads[16], where[64]; };

/* A copy of argv with the added arguments at its end, or in front of "--", behind which there are no options;
 * malloc'd, NULL: no memory. */
static char **arguments(char **argv, struct words *w)
{
    static char rank[] = "--rank", where[] = "--rendezvous", ranks[] = "--ranks", threads[] = "--threads";
    char *extra[EXTRA] = { rank, w->rank, where, w->where, ranks, w->ranks, threads, w->threads };
    size_t n = 0, at = 0;
    while (argv[n]) n++;
    while (at < n && strcmp(argv[at], "--")) at++;
    char **v = calloc(n + EXTRA + 1, sizeof *v);
    if (!v) return NULL;
    memcpy(v, argv, at * sizeof *v);
    memcpy(v + at, extra, sizeof extra);
    memcpy(v + at + EXTRA, argv + at, (n - at) * sizeof *v);
    return v;
}

/* Runs in the child between fork and exec, so it may call nothing that takes a lock, which another thread of
 * the parent could have held at the fork. */
static void exec_rank(char **argv, int rank, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(MOE_SIGTERM);
    if (rank) {
        int null = open("/dev/null", O_RDONLY);
        if (null >= 0) dup2(null, STDIN_FILENO);
    }
    execv("/proc/self/exe", argv);
    _exit(MOE_INTERNAL);
}

/* Sends a signal to all ranks that have not ended.  Rank 0 comes last: other ranks that saw its connection
 * close before they get the signal would report that as an error. */
static void signal_ranks(const pid_t *pid, int ranks, int sig)
{
    for (int r = ranks - 1; r >= 0; r--)
        if (pid[r] > 0) kill(pid[r], sig);
}

/* Starts the processes.  When one cannot be started, none is left. */
static enum moe_code start_ranks(char **argv, int ranks, struct words *w, pid_t *pid, struct moe_err *err)
{
    pid_t self = getpid();
    for (int r = 0; r < ranks; r++) {
        snprintf(w->rank, sizeof w->rank, "%d", r);
        char **v = arguments(argv, w);
        pid[r] = v ? fork() : -1;
        if (v && !pid[r]) exec_rank(v, r, self);
        int e = errno;
        free(v);
        if (pid[r] > 0) continue;
        signal_ranks(pid, r, SIGKILL);
        while (waitpid(-1, NULL, 0) > 0) { }
        return moe_fail(err, MOE_NOMEM, "cannot start rank %d, of %d ranks: %s", r, ranks, strerror(e));
    }
    return MOE_OK;
}

enum moe_code moe_ranks_spawn(char **argv, int ranks, int threads, pid_t *pid, int *reports,
                              struct moe_err *err)
{
    struct words w;
    int give;
    MOE_TRY(moe_handover_open(&give, reports, err));
    moe_handover_name(w.where, sizeof w.where, give);
    snprintf(w.ranks, sizeof w.ranks, "%d", ranks);
    snprintf(w.threads, sizeof w.threads, "%d", threads / ranks > 1 ? threads / ranks : 1);
    enum moe_code code = start_ranks(argv, ranks, &w, pid, err);
    close(give);
    if (code != MOE_OK) close(*reports);
    return code;
}

/* The ranks that run, and how the others have ended. */
struct watch {
    int ranks, left, there;           /* left: processes that run; there: ranks connected to all others */
    pid_t *pid;                       /* [ranks] 0: has ended */
    int *codes;                       /* [ranks] exit code; -1: runs, or was ended by a signal */
    int reports;                      /* the socket of moe_ranks_spawn; -1: closed */
    void (*print)(int text);
    struct moe_ranks_end *end;
    const struct moe_cancel *cancel;
    double reported, failed;          /* when the report came; when the first rank failed; 0: not yet */
    int first;                        /* the rank that failed first */
};

/* Prints the first report.  Later ones, of ranks that were marked dead by mistake, are dropped. */
static void take_report(struct watch *w, int text, int exit)
{
    if (!w->reported) {
        w->print(text);
        w->end->exit = exit;
        w->reported = moe_now();
    }
    close(text);
}

/* Takes all messages that ranks have sent. */
static void take_messages(struct watch *w)
{
    int text, exit;
    enum moe_handed what = MOE_HANDED_THERE;
    while (w->reports >= 0 && what != MOE_HANDED_NOTHING && what != MOE_HANDED_OVER) {
        what = moe_handover_take(w->reports, &text, &exit);
        w->there += what == MOE_HANDED_THERE;
        if (what == MOE_HANDED_REPORT) take_report(w, text, exit);
    }
    if (what != MOE_HANDED_OVER || w->reports < 0) return;
    close(w->reports);
    w->reports = -1;
}

/* Notes how the process of rank r ended, unless this process has killed all ranks. */
static void note_end(struct watch *w, int r, int status)
{
    bool cut = w->end->first >= 0;
    w->pid[r] = 0;
    w->left--;
    if (cut) return;
    if (WIFSIGNALED(status)) w->end->killed[r] = WTERMSIG(status);
    else w->codes[r] = WEXITSTATUS(status);
    if (w->failed > 0 || (!WIFSIGNALED(status) && !w->codes[r])) return;
    w->failed = moe_now();
    w->first = r;
}

/* Looks whether a process has ended; true: one has, and there may be more. */
static bool look_for_end(struct watch *w)
{
    int status, r = 0;
    pid_t p = waitpid(-1, &status, WNOHANG);
    if (p < 0 && errno == ECHILD) w->left = 0;
    while (p > 0 && r < w->ranks && w->pid[r] != p) r++;
    if (p > 0 && r < w->ranks) note_end(w, r, status);
    return p > 0;
}

/* When a rank failed before all were connected, the others wait for it in vain: kills them, HOLD seconds
 * after the failure. */
static void kill_waiting_ranks(struct watch *w)
{
    bool vain = w->failed > 0 && w->there < w->ranks && w->reported <= 0;
    if (!vain || w->end->first >= 0 || moe_now() < w->failed + HOLD) return;
    w->end->first = w->first;
    w->end->first_code = w->codes[w->first];
    signal_ranks(w->pid, w->ranks, SIGKILL);
}

/* Waits until all ranks have ended. */
static enum moe_code watch(struct watch *w, struct moe_err *err)
{
    enum moe_code code = MOE_OK;
    double since = 0;
    while (w->left) {
        take_messages(w);
        if (look_for_end(w) || !w->left) continue;
        if (code == MOE_OK && (code = moe_cancel_check(w->cancel, err)) != MOE_OK) {
            since = moe_now();
            signal_ranks(w->pid, w->ranks, SIGTERM);
        }
        if (code == MOE_OK) kill_waiting_ranks(w);
        if ((code != MOE_OK && moe_now() > since + GRACE) ||
            (w->reported > 0 && moe_now() > w->reported + REST))
            signal_ranks(w->pid, w->ranks, SIGKILL);
        poll(&(struct pollfd){ .fd = w->reports, .events = POLLIN }, 1, 5);
    }
    take_messages(w);
    /* a signal to all processes at once may have ended the ranks before this one looked at the token */
    return code == MOE_OK && w->reported <= 0 ? moe_cancel_check(w->cancel, err) : code;
}

enum moe_code moe_ranks_reap(int ranks, pid_t *pid, int reports, void (*print)(int text),
                             const struct moe_cancel *cancel, struct moe_ranks_end *e,
                             struct moe_err *err)
{
    struct watch w = { .ranks = ranks,
                       .cancel = cancel,
                       .left = ranks,
                       .pid = pid,
                       .codes = calloc((size_t)ranks, sizeof *w.codes),
                       .reports = reports,
                       .print = print,
                       .end = e };
    if (!w.codes) {
        signal_ranks(pid, ranks, SIGKILL);
        close(reports);
        return moe_fail(err, MOE_NOMEM, "no memory for %d ranks", ranks);
    }
    for (int r = 0; r < ranks; r++) w.codes[r] = -1;
    memset(e->killed, 0, (size_t)ranks * sizeof *e->killed);
    e->exit = MOE_OK;
    e->first = -1;
    enum moe_code code = watch(&w, err);
    for (int r = 0; r < ranks && !w.reported && e->exit == MOE_OK; r++)
        e->exit = w.codes[r] > 0 ? (int)moe_wire_code((uint64_t)w.codes[r]) : MOE_OK;
    e->reported = w.reported > 0;
    if (w.reports >= 0) close(w.reports);
    free(w.codes);
    return code;
}
