/* SPDX-License-Identifier: Apache-2.0 */
/* Mapped files, and the handling of pages that cannot be read (base/io.h). */
#include "base/io.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* A signal handler reads the list of mappings, so entries are never freed but used again, and `size` is set
 * last and cleared first. */
struct mapping {
    struct mapping *next;
    atomic_uintptr_t at;
    atomic_size_t size;              /* 0: free */
    char path[512];
};

static _Atomic(struct mapping *) mappings;
static _Atomic(struct mapping *) failed; /* the first one with a page that could not be read */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct mapping *add(const char *path)
{
    struct mapping *m = atomic_load(&mappings);
    while (m && (atomic_load(&m->size) || m == atomic_load(&failed))) m = m->next;
    if (!m) {
        m = calloc(1, sizeof *m);
        if (!m) return NULL;
        m->next = atomic_load(&mappings);
        atomic_store(&mappings, m);
    }
    snprintf(m->path, sizeof m->path, "%s", path);
    return m;
}

enum moe_code moe_map(int fd, const char *path, uint64_t size, const unsigned char **map, struct moe_err *err)
{
    *map = NULL;
    if (!size) return MOE_OK;
    if (size > SIZE_MAX) return moe_fail_at(err, MOE_NOMEM, path, NULL, "too large to map");
    pthread_mutex_lock(&lock);
    struct mapping *m = add(path);
    void *p = m ? mmap(NULL, (size_t)size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
    int e = m ? errno : ENOMEM;
    if (p != MAP_FAILED) {
        atomic_store(&m->at, (uintptr_t)p);
        atomic_store(&m->size, (size_t)size);
    }
    pthread_mutex_unlock(&lock);
    if (p == MAP_FAILED) return moe_fail_errno(err, e, path, "cannot map");
    *map = p;
    return MOE_OK;
}

static struct mapping *find(uintptr_t address)
{
    for (struct mapping *m = atomic_load(&mappings); m; m = m->next) {
        size_t size = atomic_load(&m->size);
        if (size && address >= atomic_load(&m->at) && address - atomic_load(&m->at) < size) return m;
    }
    return NULL;
}

void moe_unmap(const unsigned char *map, uint64_t size)
{
    if (!map) return;
    pthread_mutex_lock(&lock);
    struct mapping *m = find((uintptr_t)map);
    if (m) atomic_store(&m->size, 0);
    munmap((void *)(uintptr_t)map, (size_t)size);
    pthread_mutex_unlock(&lock);
}

/* ---- pages that cannot be read ---- */

static long page_bytes;

/* Map zeros from the unreadable page on, for at most the size of a huge page; when a file was truncated,
 * everything after that page is missing, too. */
static bool patch(const struct mapping *m, uintptr_t address)
{
    uintptr_t page = address / (uintptr_t)page_bytes * (uintptr_t)page_bytes,
              end = atomic_load(&m->at) + atomic_load(&m->size);
    size_t n = end - page < 2 << 20 ? end - page : 2 << 20;
    return mmap((void *)page, n, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED;
}

static void on_bus_error(int sig, siginfo_t *info, void *context)
{
    (void)context;
    int e = errno;
    struct mapping *m = find((uintptr_t)info->si_addr), *none = NULL;
    if (m && patch(m, (uintptr_t)info->si_addr)) {
        atomic_compare_exchange_strong(&failed, &none, m);
        errno = e;
        return;
    }
    signal(sig, SIG_DFL); /* not in a mapping of ours: the default action, when the instruction runs again */
}

void moe_map_guard(void)
{
    struct sigaction a;
    page_bytes = sysconf(_SC_PAGESIZE);
    memset(&a, 0, sizeof a);
    a.sa_sigaction = on_bus_error;
    a.sa_flags = SA_SIGINFO;
    sigemptyset(&a.sa_mask);
    sigaction(SIGBUS, &a, NULL);
}

enum moe_code moe_map_check(struct moe_err *err)
{
    const struct mapping *m = atomic_load(&failed);
    return m ? moe_fail_at(err, MOE_IO, m->path, NULL,
                           "cannot be read any more (it was cut short while in use, or the disk failed)")
             : MOE_OK;
}
