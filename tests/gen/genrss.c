/* SPDX-License-Identifier: Apache-2.0 */
/* tests/gen/genrss.c - genrss FILE COMMAND...
 *
 * Runs a command, writes its peak resident bytes and its seconds to FILE, and exits as the command did (128
 * + signal when it was killed).  So it measures from outside what the tools report as "peak_rss". ru_maxrss
 * of a child begins at the peak of the program that forked it, so this program has to stay small. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int main(int argc, char **argv)
{
    if (argc < 3) return fprintf(stderr, "usage: genrss FILE COMMAND...\n"), 2;
    double start = now();
    pid_t pid = fork();
    if (pid < 0) return perror("genrss: fork"), 2;
    if (pid == 0) {
        execvp(argv[2], argv + 2);
        fprintf(stderr, "genrss: cannot run '%s': %s\n", argv[2], strerror(errno));
        _exit(127);
    }
    int status;
    struct rusage use;
    while (wait4(pid, &status, 0, &use) < 0)
        if (errno != EINTR) return perror("genrss: wait4"), 2;
    FILE *f = fopen(argv[1], "w");
    if (!f) return perror(argv[1]), 2;
    fprintf(f, "%lld %.3f\n", (long long)use.ru_maxrss * 1024, now() - start);
    if (fclose(f)) return perror(argv[1]), 2;
    return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}
