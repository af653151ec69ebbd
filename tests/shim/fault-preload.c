/* SPDX-License-Identifier: Apache-2.0 */
/* tests/shim/fault-preload.c - a shared object for LD_PRELOAD that makes one call of a tool fail,
 * for tests/shim/faults.py.
 *
 *     MOE_FAULT=KIND:N:WHAT      the N-th call of KIND, counted from the start of main: 1 is the first
 *     MOE_FAULT=KIND:N+:WHAT     that one and all later ones
 *     MOE_FAULT_COUNT=FILE       write "KIND CALLS" for every kind when main returns
 *     MOE_FAULT_WHERE=FILE       write a backtrace of the call that failed
 *     MOE_FAULT_FILE=FILE        the file that "truncate" cuts
 *
 * WHAT is the name of an error (EIO, ENOSPC, ENOMEM, EINTR, EACCES, EMFILE), "short" (half of what a read or
 * write asks for), a signal raised before the call (SIGINT, SIGTERM, SIGHUP, SIGKILL, SIGSTOP), or "truncate"
 * (after the call MOE_FAULT_FILE is cut to one page, as when somebody overwrites a mapped file, and gets the
 * time 1000000000 s).
 *
 * KIND is a function below; all allocations are one kind, "alloc", those of the libraries included.  Calls
 * inside libc do not pass here (stdio's writes, fopen's open).  A failed close() has closed the descriptor,
 * as on Linux.  What a thread calls before its own function begins is not counted: there a sanitizer asks for
 * memory and ends the program when it gets none.  The functions are declared here and not by headers, as the
 * names with and without 64 are both needed. */
#undef _FILE_OFFSET_BITS
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#define KINDS(X) \
    X(alloc) \
    X(open) X(openat) X(close) X(fopen) X(opendir) X(fdopendir) X(readdir) X(fstat) X(stat) X(lstat) \
        X(statvfs) X(pread) X(pwrite) X(fsync) X(fdatasync) X(sync_file_range) X(copy_file_range) \
            X(fallocate) X(ftruncate) X(fadvise) X(rename) X(renameat2) X(linkat) X(mkdir) X(rmdir) \
                X(unlink) X(unlinkat) X(flock) X(mmap) X(madvise) X(pthread_create)

enum kind {
#define X(name) K_##name,
    KINDS(X)
#undef X
    K_COUNT
};
static const char *const names[] = {
#define X(name) #name,
    KINDS(X)
#undef X
};

enum { NOTHING, ERROR, SHORT, SIGNAL, TRUNCATE };
/* Calls number `from` to `to` of this kind fail; value: the error or the signal. */
static struct { int kind, what, value; long from, to; } plan = { .kind = -1 };
static atomic_long calls[K_COUNT];
static atomic_bool armed;
/* Whether this thread has begun to run code of the program.  It is volatile because malloc below reads it: a
 * compiler believes that no malloc reads a variable of the program, and would drop the writes. */
static _Thread_local volatile bool begun __attribute__((tls_model("initial-exec")));

/* The function of this name that this shared object hides: that of the library behind it. */
static void *next_function(const char *name)
{
    void *p = dlsym(RTLD_NEXT, name);
    if (!p) abort();
    return p;
}

int truncate(const char *path, long size);

/* Counts a call and returns what is to happen to it.  A signal is raised here; for ERROR, errno is set. */
static int count_call(int kind)
{
    if (!begun || !atomic_load_explicit(&armed, memory_order_relaxed)) return NOTHING;
    long n = 1 + atomic_fetch_add(&calls[kind], 1);
    if (kind != plan.kind || n < plan.from || n > plan.to) return NOTHING;
    const char *where = n == plan.from ? getenv("MOE_FAULT_WHERE") : NULL;
    if (where) {
        void *frame[64];
        atomic_store(&armed, 0);
        FILE *f = fopen(where, "w");
        if (f) {
            backtrace_symbols_fd(frame, backtrace(frame, 64), fileno(f));
            fclose(f);
        }
        atomic_store(&armed, 1);
    }
    if (plan.what == SIGNAL) raise(plan.value);
    errno = plan.value;
    return plan.what;
}

/* Cuts the file where that is to happen after the call. */
static void truncate_after(int what)
{
    const char *file = what == TRUNCATE ? getenv("MOE_FAULT_FILE") : NULL;
    const struct timeval when[2] = { { 1000000000, 0 }, { 1000000000, 0 } };
    if (file && (truncate(file, 4096) || utimes(file, when))) abort();
}

/* ---- the plan ---- */

/* The number of an error or a signal by its name. */
static int number_of(const char *s)
{
    static const struct { const char *name; int value;
    } table[] = {
        { "EIO", EIO },       { "ENOSPC", ENOSPC },   { "ENOMEM", ENOMEM },
        { "EINTR", EINTR },   { "EACCES", EACCES },   { "EMFILE", EMFILE },
        { "EAGAIN", EAGAIN }, { "EINVAL", EINVAL },   { "EOPNOTSUPP", EOPNOTSUPP },
        { "EDQUOT", EDQUOT }, { "SIGINT", SIGINT },   { "SIGTERM", SIGTERM },
        { "SIGHUP", SIGHUP }, { "SIGKILL", SIGKILL }, { "SIGSTOP", SIGSTOP },
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (!strcmp(s, table[i].name)) return table[i].value;
    abort();
}

static void read_plan(void)
{
    char kind[32], plus[2] = "", what[32];
    const char *s = getenv("MOE_FAULT");
    if (!s) return;
    if (sscanf(s, "%31[^:]:%ld%1[+]:%31s", kind, &plan.from, plus, what) != 4 &&
        sscanf(s, "%31[^:]:%ld:%31s", kind, &plan.from, what) != 3) abort();
    plan.to = *plus ? 0x7fffffffffff : plan.from;
    while (++plan.kind < K_COUNT && strcmp(kind, names[plan.kind])) { }
    if (plan.kind == K_COUNT) abort();
    plan.what = !strcmp(what, "short")    ? SHORT
              : !strcmp(what, "truncate") ? TRUNCATE
              : *what == 'S'              ? SIGNAL
                                          : ERROR;
    if (plan.what == ERROR || plan.what == SIGNAL) plan.value = number_of(what);
}

static int (*real_main)(int, char **, char **);

/* Stands in for main: reads the plan, counts calls while main runs, and writes the counts. */
static int counted_main(int argc, char **argv, char **env)
{
    read_plan();
    begun = true;
    atomic_store(&armed, 1);
    int code = real_main(argc, argv, env);
    atomic_store(&armed, 0);
    FILE *f = getenv("MOE_FAULT_COUNT") ? fopen(getenv("MOE_FAULT_COUNT"), "w") : NULL;
    for (int i = 0; f && i < K_COUNT; i++) fprintf(f, "%s %ld\n", names[i], atomic_load(&calls[i]));
    if (f) fclose(f);
    return code;
}

typedef int main_fn(int, char **, char **);
typedef int start_fn(main_fn *, int, char **, void (*)(void), void (*)(void), void (*)(void), void *);
start_fn __libc_start_main;
int __libc_start_main(main_fn *m, int argc, char **argv, void (*init)(void), void (*fini)(void),
                      void (*ld)(void), void *end)
{
    real_main = m;
    return ((start_fn *)next_function("__libc_start_main"))(counted_main, argc, argv, init, fini, ld, end);
}

/* ---- the calls ---- */

/* Defines a function of the C library that calls the real one.  bad: what a failed call returns; shorten: how
 * "short" changes the arguments.  BOTH defines the name with 64 behind it, too. */
#define WRAP(kind, type, bad, name, params, args, shorten)              \
    type name params;                                                   \
    type name params                                                    \
    {                                                                   \
        static type (*real) params;                                     \
        if (!real) real = (type(*) params)next_function(#name);         \
        int what = count_call(K_##kind);                                \
        if (what == ERROR) return bad;                                  \
        if (what == SHORT) { shorten; }                                 \
        type r = real args;                                             \
        truncate_after(what);                                           \
        return r;                                                       \
    }
#define BOTH(kind, type, bad, name, params, args, shorten)              \
    WRAP(kind, type, bad, name, params, args, shorten)                  \
    WRAP(kind, type, bad, name##64, params, args, shorten)

BOTH(open, int, -1, open, (const char *p, int flags, unsigned mode), (p, flags, mode), )
BOTH(openat, int, -1, openat, (int at, const char *p, int flags, unsigned mode), (at, p, flags, mode), )
BOTH(fopen, FILE *, NULL, fopen, (const char *p, const char *mode), (p, mode), )
WRAP(opendir, void *, NULL, opendir, (const char *p), (p), )
WRAP(fdopendir, void *, NULL, fdopendir, (int fd), (fd), )
BOTH(readdir, void *, NULL, readdir, (void *d), (d), )
BOTH(fstat, int, -1, fstat, (int fd, void *st), (fd, st), )
BOTH(stat, int, -1, stat, (const char *p, void *st), (p, st), )
BOTH(lstat, int, -1, lstat, (const char *p, void *st), (p, st), )
BOTH(statvfs, int, -1, statvfs, (const char *p, void *st), (p, st), )
BOTH(pread, long, -1, pread, (int fd, void *b, size_t n, long at), (fd, b, n, at), n = n > 1 ? n / 2 : n)
BOTH(pwrite, long, -1, pwrite, (int fd, const void *b, size_t n, long at), (fd, b, n, at),
     n = n > 1 ? n / 2 : n)
WRAP(fsync, int, -1, fsync, (int fd), (fd), )
WRAP(fdatasync, int, -1, fdatasync, (int fd), (fd), )
WRAP(sync_file_range, int, -1, sync_file_range, (int fd, long at, long n, unsigned flags),
     (fd, at, n, flags), )
WRAP(copy_file_range, long, -1, copy_file_range,
     (int in, long *a, int out, long *b, size_t n, unsigned flags), (in, a, out, b, n, flags),
     n = n > 1 ? n / 2 : n)
BOTH(fallocate, int, -1, fallocate, (int fd, int mode, long at, long n), (fd, mode, at, n), )
BOTH(ftruncate, int, -1, ftruncate, (int fd, long n), (fd, n), )
BOTH(fadvise, int, plan.value, posix_fadvise, (int fd, long at, long n, int advice), (fd, at, n, advice), )
WRAP(rename, int, -1, rename, (const char *a, const char *b), (a, b), )
WRAP(renameat2, int, -1, renameat2, (int x, const char *a, int y, const char *b, unsigned flags),
     (x, a, y, b, flags), )
WRAP(linkat, int, -1, linkat, (int x, const char *a, int y, const char *b, int flags), (x, a, y, b, flags), )
WRAP(mkdir, int, -1, mkdir, (const char *p, unsigned mode), (p, mode), )
WRAP(rmdir, int, -1, rmdir, (const char *p), (p), )
WRAP(unlink, int, -1, unlink, (const char *p), (p), )
WRAP(unlinkat, int, -1, unlinkat, (int at, const char *p, int flags), (at, p, flags), )
WRAP(flock, int, -1, flock, (int fd, int op), (fd, op), )
BOTH(mmap, void *, (void *)-1, mmap, (void *p, size_t n, int prot, int flags, int fd, long at),
     (p, n, prot, flags, fd, at), )
WRAP(madvise, int, -1, madvise, (void *p, size_t n, int advice), (p, n, advice), )

/* Also a close that fails closes the descriptor; see the first comment. */
int close(int fd);
int close(int fd)
{
    static int (*real)(int);
    if (!real) real = (int (*)(int))next_function("close");
    int what = count_call(K_close), e = errno, r = real(fd);
    if (what != ERROR) return r;
    errno = e;
    return -1;
}

WRAP(alloc, void *, NULL, malloc, (size_t n), (n), )
WRAP(alloc, void *, NULL, calloc, (size_t n, size_t size), (n, size), )
WRAP(alloc, void *, NULL, realloc, (void *p, size_t n), (p, n), )
WRAP(alloc, void *, NULL, aligned_alloc, (size_t a, size_t n), (a, n), )
WRAP(alloc, int, plan.value, posix_memalign, (void **p, size_t a, size_t n), (p, a, n), )

/* ---- threads ---- */

struct start { void *(*fn)(void *); void *arg; };

/* The first function of every thread: from here on its calls are counted. */
static void *begin_thread(void *p)
{
    struct start s = *(struct start *)p;
    free(p);
    begun = true;
    return s.fn(s.arg);
}

int pthread_create(void *t, const void *attributes, void *(*fn)(void *), void *arg);
int pthread_create(void *t, const void *attributes, void *(*fn)(void *), void *arg)
{
    static int (*real)(void *, const void *, void *(*)(void *), void *);
    if (!real)
        real = (int (*)(void *, const void *, void *(*)(void *), void *))next_function("pthread_create");
    if (count_call(K_pthread_create) == ERROR) return plan.value;
    begun = false;
    struct start *s = malloc(sizeof *s);
    begun = true;
    if (!s) abort();
    *s = (struct start){ fn, arg };
    int r = real(t, attributes, begin_thread, s);
    if (r) free(s);
    return r;
}
