/* SPDX-License-Identifier: Apache-2.0 */
/* gencache FILE...
 *
 * Prints "CACHED DIRTY": how many bytes of these files are in the page cache, and how many of those are
 * dirty or on their way to the disk.  Exits 77 where the kernel does not tell (cachestat needs Linux 6.5). */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CACHESTAT = 451 }; /* the same number on every architecture; not in older headers */

int main(int argc, char **argv)
{
    struct { uint64_t offset, bytes; } range = { 0, 0 }; /* to the end of the file */
    struct { uint64_t cached, dirty, writeback, evicted, recently_evicted; } stat = { 0, 0, 0, 0, 0 };
    uint64_t cached = 0, dirty = 0, page = (uint64_t)sysconf(_SC_PAGESIZE);
    for (int i = 1; i < argc; i++) {
        int fd = open(argv[i], O_RDONLY);
        if (fd < 0) continue; /* it may have been renamed since the caller listed it */
        if (syscall(CACHESTAT, fd, &range, &stat, 0)) {
            fprintf(stderr, "gencache: %s: %s\n", argv[i], strerror(errno));
            return 77;
        }
        cached += stat.cached * page;
        dirty += (stat.dirty + stat.writeback) * page;
        close(fd);
    }
    printf("%llu %llu\n", (unsigned long long)cached, (unsigned long long)dirty);
    return 0;
}
