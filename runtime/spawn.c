/* Ranks as processes of this host, started by this one. */
#include "base/tool.h"
#include "runtime/ranks.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { EXTRA = 8, GRACE = 5 }; /* arguments; seconds between SIGTERM and SIGKILL */

struct words { char rank[16], ranks[16], threads[16], where[64]; };

/* argv with the extra words where options still are. */
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

/* Between fork and exec: nothing that could wait for a lock of another thread. */
static void become(char **argv, int rank, pid_t parent)
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

static void end(const pid_t *pid, int ranks, int sig)
{
    for (int r = 0; r < ranks; r++)
        if (pid[r] > 0) kill(pid[r], sig);
}

enum moe_code moe_ranks_spawn(char **argv, int ranks, int threads, pid_t *pid, struct moe_err *err)
{
    struct timespec now;
    struct words w;
    pid_t self = getpid();
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(w.where, sizeof w.where, "unix:moe-run-%ld-%lx%lx", (long)self, (unsigned long)now.tv_sec, (unsigned long)now.tv_nsec);
    snprintf(w.ranks, sizeof w.ranks, "%d", ranks);
    snprintf(w.threads, sizeof w.threads, "%d", threads / ranks > 1 ? threads / ranks : 1);
    for (int r = 0; r < ranks; r++) {
        snprintf(w.rank, sizeof w.rank, "%d", r);
        char **v = arguments(argv, &w);
        pid[r] = v ? fork() : -1;
        if (v && !pid[r]) become(v, r, self);
        free(v);
        if (pid[r] > 0) continue;
        end(pid, r, SIGKILL);
        while (waitpid(-1, NULL, 0) > 0) { }
        return moe_fail(err, MOE_NOMEM, "cannot start rank %d of %d", r + 1, ranks);
    }
    return MOE_OK;
}

/* The lowest rank that ended by itself speaks for all; but one that was given up by the others (they went on without it) does not. */
static int verdict(int ranks, const int *code)
{
    int first = -1;
    bool fine = false, silent = false;
    for (int r = 0; r < ranks; r++) {
        if (first < 0 && code[r] >= 0 && code[r] != MOE_RANK_SILENT) first = code[r];
        fine |= code[r] == MOE_OK;
        silent |= code[r] == MOE_RANK_SILENT;
    }
    if (fine && (first < 0 || first == MOE_DEVICE)) return MOE_OK;
    return first >= 0 ? first : silent ? MOE_RANK_SILENT : MOE_DEVICE;
}

enum moe_code moe_ranks_reap(int ranks, pid_t *pid, int *exit, int *killed, struct moe_err *err)
{
    enum moe_code code = MOE_OK;
    struct timespec since = { 0 }, now;
    int left = ranks, *codes = calloc((size_t)ranks, sizeof *codes);
    for (int r = 0; r < ranks; r++) killed[r] = 0;
    for (int r = 0; codes && r < ranks; r++) codes[r] = -1;
    while (left) {
        int status, r = 0;
        pid_t p = waitpid(-1, &status, WNOHANG);
        while (p > 0 && r < ranks && pid[r] != p) r++;
        if (p > 0 && r < ranks) {
            if (WIFSIGNALED(status)) killed[r] = WTERMSIG(status);
            else if (codes) codes[r] = WEXITSTATUS(status);
            pid[r] = 0;
            left--;
        }
        if (p > 0) continue;
        if (p < 0 && errno == ECHILD) break;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (code == MOE_OK && (code = moe_interrupted(err)) != MOE_OK) {
            since = now;
            end(pid, ranks, SIGTERM);
        }
        if (code != MOE_OK && now.tv_sec > since.tv_sec + GRACE) end(pid, ranks, SIGKILL);
        poll(NULL, 0, 5);
    }
    *exit = codes ? verdict(ranks, codes) : MOE_NOMEM;
    free(codes);
    return code;
}
