/* SPDX-License-Identifier: Apache-2.0 */
/* tests/bench/bench-files.h - times convert and quantize end to end, and compares them with a plain read and
 * a plain write of the same bytes, and with cp.
 *
 * The model is a generated one with Kimi K2's widths, on a disk (its pages are dropped from the cache before
 * each run) and in memory (tmpfs).  A tool cannot end sooner than the slowest of reading the source, writing
 * the target and quantizing; its share is that floor divided by its time. */
#ifndef BENCH_FILES_H
#define BENCH_FILES_H

#include "tests/bench/bench-kernels.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char bench_dir[PATH_MAX - 64];  /* ours: removed at the end */
static char shm_dir[PATH_MAX - 64];    /* the same in memory; empty where there is none */
static const char *bin_dir, *gen_dir;

struct ran { double wall, cpu; };

/* Run a program without output.  Exits of the bench itself clean up. */
static void run_program(const char *const argv[], struct ran *r)
{
    double t = moe_now();
    struct rusage use;
    int status;
    pid_t pid = fork();
    assert(pid >= 0);
    if (!pid) {
        int null = open("/dev/null", O_RDWR);
        dup2(null, 1);
        execvp(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    assert(wait4(pid, &status, 0, &use) == pid);
    if (status) {
        fprintf(stderr, "bench: %s failed\n", argv[0]);
        exit(1);
    }
    r->wall = moe_now() - t;
    r->cpu = (double)use.ru_utime.tv_sec + (double)use.ru_stime.tv_sec +
             1e-6 * (double)(use.ru_utime.tv_usec + use.ru_stime.tv_usec);
}

/* fn on every regular file of a directory (one level); the sum of what it returns. */
static double each_file(const char *dir, double (*fn)(int fd, uint64_t bytes))
{
    double sum = 0;
    DIR *d = opendir(dir);
    assert(d);
    for (struct dirent *e; (e = readdir(d)); ) {
        char path[PATH_MAX];
        struct stat st;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode)) sum += fn(fd, (uint64_t)st.st_size);
        if (fd >= 0) close(fd);
    }
    closedir(d);
    return sum;
}

static double size_of(int fd, uint64_t bytes) { (void)fd; return (double)bytes; }
static double sync_one(int fd, uint64_t bytes) { (void)bytes; return fsync(fd); }
/* Out of the page cache, without root, and nobody else's pages. */
static double drop_one(int fd, uint64_t bytes)
{
    fsync(fd);
    (void)bytes;
    return posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
}

static unsigned char *piece, *piece_out;     /* PIECE bytes */
enum { PIECE = 4 << 20 };

static double read_one(int fd, uint64_t bytes)
{
    for (uint64_t at = 0; at < bytes; at += PIECE) assert(pread(fd, piece, PIECE, (off_t)at) > 0);
    return (double)bytes;
}
static double read_past_cache(int fd, uint64_t bytes)
{
    if (fcntl(fd, F_SETFL, O_DIRECT)) return (double)bytes; /* tmpfs of older kernels: through memory */
    for (uint64_t at = 0; at < bytes; at += PIECE)
        if (pread(fd, piece, PIECE, (off_t)at) <= 0) return fcntl(fd, F_SETFL, 0), read_one(fd, bytes);
    return (double)bytes;
}

static double time_read(const char *dir, double (*fn)(int, uint64_t))
{
    double t = moe_now();
    each_file(dir, fn);
    return moe_now() - t;
}

/* The best that a plain writer does: large pieces, past the cache where the file
 * system allows, then fsync. */
static double time_write(const char *dir, double bytes, int ways)
{
    char path[PATH_MAX];
    double least = INFINITY;
        snprintf(path, sizeof path, "%s/write", dir);
    for (int direct = 1; direct > 1 - ways; direct--) {
        double t = moe_now();
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | (direct ? O_DIRECT : 0), 0666);
        if (fd < 0 && ways == 1) fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0) continue;
        for (double at = 0; at < bytes; at += PIECE) {
            assert(write(fd, piece_out, PIECE) == PIECE);
            if (!direct) sync_file_range(fd, (off64_t)at, PIECE, SYNC_FILE_RANGE_WRITE);
        }
        assert(!fsync(fd));
        close(fd);
        least = fmin(least, moe_now() - t);
        unlink(path);
    }
    return least;
}

/* Both at once: what a device can do for a program that reads and writes. */
static double write_bytes;
static void *write_beside(void *dir) { time_write(dir, write_bytes, 1); return NULL; }
static double time_both(const char *dir, const char *in, bool cold, double bytes)
{
    pthread_t writer;
    double t = moe_now();
    write_bytes = bytes;
    assert(!pthread_create(&writer, NULL, write_beside, (void *)(uintptr_t)dir));
    each_file(in, cold ? read_past_cache : read_one);
    pthread_join(writer, NULL);
    return moe_now() - t;
}

static void remove_dir(const char *dir)
{
    struct moe_err err;
    if (*dir) moe_remove_tree(dir, &err);
}

/* ---- the jobs ---- */

enum { CP, CONVERT, MAX, FOUR_OVER_SIX, SEARCH, JOBS };
static const char *const job_names[JOBS] = { "cp and fsync", "moe-convert", "moe-quantize, max",
                                             "moe-quantize, four-over-six", "moe-quantize, search" };

/* The least of a few runs, the cache dropped (or left) before each. */
static double time_job(int job, const char *dir, bool cold, int runs, double *out_bytes)
{
    static const char *const methods[JOBS] = {
        [MAX] = "max", [FOUR_OVER_SIX] = "four-over-six", [SEARCH] = "search"
    };
    char in[PATH_MAX], out[PATH_MAX], tool[PATH_MAX];
    double least = INFINITY;
    snprintf(in, sizeof in, "%s/m", dir);
    snprintf(out, sizeof out, "%s/out.moe", dir);
    snprintf(tool, sizeof tool, "%s/%s", bin_dir, job == CONVERT ? "moe-convert" : "moe-quantize");
    const char *cp[] = { "cp", "-r", in, out, NULL }, *convert[] = { tool, in, "-o", out, "--quiet", NULL },
         *quantize[] = { tool, in, "-o", out, "--quiet", "--method", methods[job], NULL };
    for (int i = 0; i < runs; i++) {
        struct ran r;
        if (cold) each_file(in, drop_one);
        else each_file(in, read_one);
        double t = moe_now();
        run_program(job == CP ? cp : job == CONVERT ? convert : quantize, &r);
        if (job == CP) each_file(out, sync_one);
        least = fmin(least, moe_now() - t);
        *out_bytes = each_file(out, size_of);
        remove_dir(out);
    }
    return least;
}

/* The floors and the jobs in one place; `rounds` times each, alternating, since a disk's speed
 * changes from minute to minute. */
static void bench_place(const char *name, const char *dir, bool cold, int rounds, double weights)
{
    char in[PATH_MAX], how[16];
    double read = INFINITY, both = INFINITY, write[JOBS], job[JOBS], out[JOBS] = { 0 }, bytes;
    snprintf(in, sizeof in, "%s/m", dir);
    snprintf(how, sizeof how, "%s", name);
    bytes = each_file(in, size_of);
    for (int j = 0; j < JOBS; j++) write[j] = job[j] = INFINITY;
    for (int k = 0; k < rounds; k++) {
        for (int past = 0; past < 1 + cold; past++) {
            if (cold) each_file(in, drop_one);
            read = fmin(read, time_read(in, past ? read_past_cache : read_one));
        }
        if (cold) each_file(in, drop_one);
        both = fmin(both, time_both(dir, in, cold, bytes));
        for (int j = 0; j < JOBS; j++) {
            job[j] = fmin(job[j], time_job(j, dir, cold, 1, &out[j]));
            if (j <= CONVERT || j == MAX) write[j] = fmin(write[j], time_write(dir, out[j], 2));
        }
    }
    write[FOUR_OVER_SIX] = write[SEARCH] = write[MAX];
    if (write[CONVERT] < write[CP]) write[CP] = write[CONVERT];
    put_row(&(struct row){ "plain read of the source", how, read, bytes, 0, NULL, NULL, 0, NO_AIM, 0 });
    put_row(&(struct row){ "plain write of as much", how, write[CP], out[CP], 0, NULL, NULL, 0, NO_AIM, 0 });
    put_row(&(struct row){ "plain write of the NVFP4 model", how, write[MAX], out[MAX], 0, NULL, NULL, 0,
                           NO_AIM, 0 });
    put_row(&(struct row){ "read and write at once", how, both, bytes, 0, NULL, "its slower part",
                           fmax(read, write[CP]) / both, NO_AIM, 0 });
    for (int j = 0; j < JOBS; j++) {
        double compute = j >= MAX && quantize_rate[j - MAX] > 0
                           ? weights * 1e-9 / (quantize_rate[j - MAX] * machine.threads)
                           : 0;
        double bound = fmax(fmax(read, write[j]), compute);
        put_row(&(struct row){ job_names[j], how, job[j], bytes, j >= MAX ? weights * 1e-9 : 0,
                               j >= MAX ? "Gweights/s" : NULL,
                               bound == compute ? "quantizers alone"
                               : bound == read  ? "source read"
                                                : "target write",
                               bound / job[j], j == CP || bound == compute ? NO_AIM : AIM_SHARE, .9 });
    }
}

/* Weights that moe-quantize changes in this model: 2 layers of `experts` experts. */
static double generate(const char *dir, int experts)
{
    char tool[PATH_MAX], out[PATH_MAX], count[16];
    struct ran r;
    snprintf(tool, sizeof tool, "%s/genmodel", gen_dir);
    snprintf(out, sizeof out, "%s/m", dir);
    snprintf(count, sizeof count, "%d", experts);
    const char *full[] = { tool, "-o",      out, "--preset",  "k2",  "--format", "bf16", "--layers",
                           "2",  "--dense", "0", "--experts", count, "--vocab",  "4096", NULL };
    const char *tiny[] = { tool, "-o",      out, "--format",  "bf16", "--layers",
                           "2",  "--dense", "0", "--experts", count,  NULL };
    run_program(quick ? tiny : full, &r);
    return quick ? 1e6 : 2.0 * experts * 3 * 7168 * 2048;
}

static void bench_files(int experts, int rounds)
{
    uint64_t free_bytes = 0, need = (uint64_t)experts * 2 * 3 * 7168 * 2048 * 2;
    struct moe_err err;
    put_heading("convert and quantize a checkpoint");
    if (quick) need = 1 << 26;
    if (moe_free_space(bench_dir, &free_bytes, &err) != MOE_OK || free_bytes < 3 * need) {
        printf("skipped: %.0f GB of disk are needed in %s\n", 3e-9 * (double)need, bench_dir);
        return;
    }
    piece = get_memory(PIECE), piece_out = get_memory(PIECE);
    memset(piece_out, 7, PIECE);
    double weights = generate(bench_dir, experts);
    bench_place("disk, cold", bench_dir, true, rounds, weights);
    if (*shm_dir && moe_free_space(shm_dir, &free_bytes, &err) == MOE_OK && free_bytes > 3 * need &&
        moe_available_memory() > 3 * need) {
        char from[PATH_MAX], to[PATH_MAX];
        struct ran r;
        snprintf(from, sizeof from, "%s/m", bench_dir);
        snprintf(to, sizeof to, "%s/m", shm_dir);
        run_program((const char *[]){ "cp", "-r", from, to, NULL }, &r);
        bench_place("tmpfs", shm_dir, false, rounds, weights);
    } else {
        printf("in memory: skipped, %.0f GB of it are needed\n", 3e-9 * (double)need);
    }
}

#endif
