/* SPDX-License-Identifier: Apache-2.0 */
/* Tests files: short, gzipped, locked, exchanged, atomically written, and removed without following links. */
#include "tests/ok.h"
#include "base/io.h"
#include "base/stream.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

static struct moe_err err;
static char root[64];

static const char *at(const char *name)
{
    static char paths[8][160];
    static int k;
    char *p = paths[k++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", root, name);
    return p;
}

static void put(const char *name, const void *data, size_t n)
{
    FILE *f = fopen(at(name), "wb");
    OK(f && fwrite(data, 1, n, f) == n && !fclose(f));
}

static bool holds(const char *name, const char *text)
{
    char *s;
    size_t n;
    if (moe_read_file(at(name), 1 << 20, &s, &n, &err) != MOE_OK) return false;
    bool same = n == strlen(text) && !memcmp(s, text, n) && !s[n];
    free(s);
    return same;
}

static void test_read(void)
{
    int fd;
    uint64_t size;
    char buf[16], *s;
    size_t n;
    put("ten", "0123456789", 10);
    OK(moe_open_read(at("ten"), &fd, &size, &err) == MOE_OK && size == 10);
    OK(moe_pread(fd, "ten", buf, 4, 6, &err) == MOE_OK && !memcmp(buf, "6789", 4) &&
       moe_pread(fd, "ten", buf, 0, 99, &err) == MOE_OK);
    FAILS(MOE_CORRUPT, moe_pread(fd, "ten", buf, 5, 8, &err));
    SAYS("'ten': 3 bytes short");
    OK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    close(fd);
    FAILS(MOE_NOT_FOUND, moe_open_read(at("none"), &fd, &size, &err));
    FAILS(MOE_NOT_FOUND, moe_open_read(at("ten/x"), &fd, &size, &err));
    FAILS(MOE_IO, moe_open_read(root, &fd, &size, &err));
    OK(!mkfifo(at("fifo"), 0666));
    FAILS(MOE_IO, moe_open_read(at("fifo"), &fd, &size, &err)); /* and does not wait for a writer */
    OK(holds("ten", "0123456789"));
    FAILS(MOE_CORRUPT, moe_read_file(at("ten"), 9, &s, &n, &err));
    OK(!s);
    put("empty", "", 0);
    OK(holds("empty", ""));
}

static void test_text(void)
{
    char *s, packed[4096];
    size_t n;
    static char line[20000];
    memset(line, 'k', sizeof line);
    line[777] = '\n';
    gzFile gz = gzopen(at("t.gz"), "wb");
    OK(gz && gzwrite(gz, line, sizeof line) == (int)sizeof line && gzclose(gz) == Z_OK);
    OK(moe_read_text(at("t.gz"), sizeof line, NULL, &s, &n, &err) == MOE_OK && n == sizeof line &&
       !memcmp(s, line, n) && !s[n]);
    free(s);
    OK(moe_read_text(at("ten"), 100, NULL, &s, &n, &err) == MOE_OK && n == 10 && !strcmp(s, "0123456789"));
    free(s);
    OK(moe_read_text(at("empty"), 100, NULL, &s, &n, &err) == MOE_OK && n == 0);
    free(s);
    FAILS(MOE_UNSUPPORTED, moe_read_text(at("t.gz"), sizeof line - 1, NULL, &s, &n, &err));
    int fd;
    uint64_t size;
    OK(moe_open_read(at("t.gz"), &fd, &size, &err) == MOE_OK && size < sizeof packed &&
       moe_pread(fd, "t", packed, size, 0, &err) == MOE_OK);
    close(fd);
    for (size_t cut = 2; cut < size; cut++) { /* every truncation is noticed */
        put("cut.gz", packed, cut);
        FAILS(MOE_CORRUPT, moe_read_text(at("cut.gz"), sizeof line, NULL, &s, &n, &err));
    }
    put("two.gz", packed, size);
    FILE *f = fopen(at("two.gz"), "ab");
    OK(f && fwrite(packed, 1, size, f) == size && !fclose(f));
    OK(moe_read_text(at("two.gz"), 2 * sizeof line, NULL, &s, &n, &err) == MOE_OK && n == 2 * sizeof line);
    free(s);
    packed[size - 6] ^= 1; /* the checksum */
    put("bad.gz", packed, size);
    FAILS(MOE_CORRUPT, moe_read_text(at("bad.gz"), sizeof line, NULL, &s, &n, &err));
}

/* A text above the limit is refused before memory is taken for it: 64 MiB in a gzip file of 64 KiB, a
 * plain file of 4 GiB. */
static void test_text_limit(void)
{
    char *s, zeros[65536] = { 0 };
    size_t n;
    uint64_t before = moe_peak_rss();
    gzFile gz = gzopen(at("bomb.gz"), "wb");
    for (int i = 0; i < 1024; i++) OK(gz && gzwrite(gz, zeros, sizeof zeros) == (int)sizeof zeros);
    OK(gzclose(gz) == Z_OK);
    FAILS(MOE_UNSUPPORTED, moe_read_text(at("bomb.gz"), 32 << 20, NULL, &s, &n, &err));
    SAYS("more than the 33554432 bytes");
    put("vast", "", 0);
    OK(!truncate(at("vast"), (off_t)4 << 30));
    FAILS(MOE_UNSUPPORTED, moe_read_text(at("vast"), (size_t)1 << 30, NULL, &s, &n, &err));
    TAKES_LESS(moe_peak_rss() < before + (16 << 20));
    OK(moe_read_text(at("bomb.gz"), 64 << 20, NULL, &s, &n, &err) == MOE_OK && n == 64 << 20 && !s[n - 1]);
    free(s);
}

static void test_write(void)
{
    OK(moe_write_file(at("w"), "one", 3, &err) == MOE_OK && holds("w", "one"));
    OK(moe_write_file(at("w"), "three", 5, &err) == MOE_OK && holds("w", "three") &&
       moe_exists(at("w.tmp")) == MOE_ABSENT);
    FAILS(MOE_NOT_FOUND, moe_write_file(at("gone/w"), "x", 1, &err));
    if (moe_exists("/dev/full") == MOE_OTHER) { /* a disk that is full */
        int fd = open("/dev/full", O_WRONLY);
        OK(fd >= 0);
        FAILS(MOE_NOSPACE, moe_pwrite(fd, "full", "x", 1, 0, &err));
        close(fd);
    }
    OK(moe_mkdir(at("d"), &err) == MOE_OK && moe_mkdir(at("d"), &err) == MOE_OK &&
       moe_exists(at("d")) == MOE_DIR);
    OK(moe_mkdir(at("w"), &err) != MOE_OK);
    /* A write onto a directory fails and leaves nothing behind. */
    OK(moe_write_file(at("d"), "x", 1, &err) != MOE_OK && moe_exists(at("d.tmp")) == MOE_ABSENT);
}

static void test_exchange(void)
{
    OK(moe_mkdir(at("a"), &err) == MOE_OK && moe_mkdir(at("b"), &err) == MOE_OK);
    put("a/x", "old", 3);
    put("b/x", "new", 3);
    OK(moe_exchange(at("a"), at("b"), -1, &err) == MOE_OK && holds("a/x", "new") && holds("b/x", "old"));
    OK(moe_exchange(at("a"), at("nothing"), -1, &err) != MOE_OK && holds("a/x", "new"));
    OK(moe_rename(at("a/x"), at("a/y"), &err) == MOE_OK && holds("a/y", "new"));
}

static void test_lock(void)
{
    int fd, again, status;
    OK(moe_lock_dir(at("a"), &fd, &err) == MOE_OK);
    FAILS(MOE_EXISTS, moe_lock_dir(at("a"), &again, &err));
    moe_unlock(fd);
    /* When a process is killed its lock is gone. */
    int ready[2];
    OK(!pipe(ready));
    pid_t pid = fork();
    if (!pid) {
        char c = moe_lock_dir(at("a"), &fd, &err) == MOE_OK;
        if (write(ready[1], &c, 1) != 1) _exit(1);
        for (;;) pause();
    }
    char c = 0;
    OK(pid > 0 && read(ready[0], &c, 1) == 1 && c);
    FAILS(MOE_EXISTS, moe_lock_dir(at("a"), &again, &err));
    kill(pid, SIGKILL);
    OK(waitpid(pid, &status, 0) == pid && moe_lock_dir(at("a"), &again, &err) == MOE_OK);
    moe_unlock(again);
    moe_unlock(-1);
    close(ready[0]);
    close(ready[1]);
}

static void test_remove(void)
{
    OK(moe_mkdir(at("keep"), &err) == MOE_OK);
    put("keep/precious", "safe", 4);
    OK(moe_mkdir(at("tree"), &err) == MOE_OK && moe_mkdir(at("tree/deep"), &err) == MOE_OK);
    put("tree/deep/f", "x", 1);
    OK(!symlink("../keep", at("tree/link")) && !symlink("../../keep/precious", at("tree/deep/link")) &&
       !symlink("nowhere", at("tree/dangling")));
    OK(moe_remove_tree(at("tree"), &err) == MOE_OK && moe_exists(at("tree")) == MOE_ABSENT &&
       holds("keep/precious", "safe"));
    OK(!symlink("keep", at("link")) && moe_remove_tree(at("link"), &err) == MOE_OK);
    OK(moe_exists(at("link")) == MOE_ABSENT && holds("keep/precious", "safe"));
    OK(moe_remove_tree(at("tree"), &err) == MOE_OK && moe_remove_tree(at("keep/precious"), &err) == MOE_OK);
}

static void test_rest(void)
{
    char out[8];
    uint64_t n = 0, size;
    int fd;
    const unsigned char *map;
    OK(moe_path_join(out, sizeof out, "a", "b", &err) == MOE_OK && !strcmp(out, "a/b"));
    OK(moe_path_join(out, sizeof out, "a/", "b", &err) == MOE_OK && !strcmp(out, "a/b"));
    FAILS(MOE_IO, moe_path_join(out, sizeof out, "abcd", "efg", &err));
    OK(moe_plain_name("a.b") && moe_plain_name("...") && !moe_plain_name("") && !moe_plain_name("..") &&
       !moe_plain_name(".") && !moe_plain_name("a/b"));
    OK(moe_free_space(at("not/there/yet"), &n, &err) == MOE_OK && n > 0);
    OK(moe_open_read(at("ten"), &fd, &size, &err) == MOE_OK &&
       moe_map(fd, "ten", size, &map, &err) == MOE_OK && !memcmp(map, "0123456789", 10));
    moe_unmap(map, size);
    OK(moe_map(fd, "ten", 0, &map, &err) == MOE_OK && !map);
    close(fd);
    OK(moe_peak_rss() > 1 << 16 && moe_available_memory() > 0 && moe_now() > 0);
}

/* A mapped file that is cut reads as zeros, and an error reports it; tested in a process of its own, since
 * the error stays. */
static void cut_while_mapped(void)
{
    static char bytes[3 << 20];
    uint64_t size, zeros = 0;
    int fd, other;
    const unsigned char *map, *still;
    memset(bytes, 7, sizeof bytes);
    OK(moe_write_file(at("large"), bytes, sizeof bytes, &err) == MOE_OK &&
       moe_write_file(at("other"), bytes, 100, &err) == MOE_OK);
    moe_map_guard();
    OK(moe_open_read(at("large"), &fd, &size, &err) == MOE_OK &&
       moe_map(fd, "large", size, &map, &err) == MOE_OK);
    OK(moe_open_read(at("other"), &other, &size, &err) == MOE_OK &&
       moe_map(other, "other", size, &still, &err) == MOE_OK);
    OK(moe_map_check(&err) == MOE_OK && map[sizeof bytes - 1] == 7);
    OK(!truncate(at("large"), 4096));
    for (size_t i = 0; i < sizeof bytes; i++) zeros += !map[i];
    OK(zeros == sizeof bytes - 4096 && map[0] == 7 && still[99] == 7);
    FAILS(MOE_IO, moe_map_check(&err));
    OK(strstr(err.msg, "'large': cannot be read any more"));
    moe_unmap(still, 100);
    OK(moe_map(other, "again", 100, &still, &err) == MOE_OK && still[0] == 7);
    FAILS(MOE_IO, moe_map_check(&err));
    OK(strstr(err.msg, "'large'"));
    moe_unmap(still, 100);
    moe_unmap(map, sizeof bytes);
    close(fd);
    close(other);
}

static void test_cut(void)
{
    int status;
    fflush(stdout);
    pid_t pid = fork();
    OK(pid >= 0);
    if (!pid) {
        cut_while_mapped();
        _exit(0);
    }
    OK(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/test-io.XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    OK(mkdtemp(root));
    test_read();
    test_text();
    test_text_limit();
    test_write();
    test_exchange();
    test_lock();
    test_remove();
    test_rest();
    test_cut();
    OK(moe_remove_tree(root, &err) == MOE_OK);
    printf("test-io: %ld checks\n", checks);
    return 0;
}
