/* SPDX-License-Identifier: Apache-2.0 */
/* Tests files and directories that are published whole: names, locks, what is never replaced, and file
 * systems that lack a system call. */
#include "tests/ok.h"
#include "base/overlap.h"
#include "base/io.h"
#include "base/newdir.h"
#include "base/newfile.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- a file system that lacks a call ---- */

static bool no_nameless, no_flags, no_links;
static const char *unreadable; /* a directory in which files can be made, and which cannot be opened */
static int why_not;            /* the errno with which it cannot be opened */
int test_open(const char *path, int flags, unsigned mode) __asm__("open64");
int test_open(const char *path, int flags, unsigned mode)
{
    bool plain = (flags & O_TMPFILE) != O_TMPFILE;
    if (unreadable && plain && !strcmp(path, unreadable)) return errno = why_not, -1;
    if (no_nameless && (flags & O_TMPFILE) == O_TMPFILE) return errno = EOPNOTSUPP, -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}
int renameat2(int a, const char *x, int b, const char *y, unsigned f)
{
    if (no_flags && f) return errno = EINVAL, -1;
    return (int)syscall(SYS_renameat2, a, x, b, y, f);
}
int linkat(int a, const char *x, int b, const char *y, int f)
{
    if (no_links && !f) return errno = EPERM, -1;
    return (int)syscall(SYS_linkat, a, x, b, y, f);
}

/* ---- helpers ---- */

static struct moe_err err;
static char root[64];

/* The path of a name in the test's directory; it stays valid for seven more calls. */
static const char *at(const char *name)
{
    static char paths[8][160];
    static int k;
    char *p = paths[k++ % 8];
    snprintf(p, sizeof paths[0], "%s/%s", root, name);
    return p;
}

/* Whether a file is whole, which it shows by its first bytes. */
static bool is_magic(int fd)
{
    char head[5];
    return pread(fd, head, 5, 0) == 5 && !memcmp(head, "MAGIC", 5);
}

/* Gives each of the two policies in turn, so that a loop over i tries both. */
static enum moe_leftover_policy refuse_or_discard(int i)
{
    return i % 2 ? MOE_LEFTOVER_DISCARD : MOE_LEFTOVER_REFUSE;
}

static enum moe_code open_partial(struct moe_newfile *f, const char *name, enum moe_leftover_policy policy,
                                  const char *work)
{
    return moe_newfile_open_partial(f, at(name), is_magic, policy, work, &err);
}

/* Makes the file whole: writes its first bytes in place of the record of unfinished work. */
static void end_partial(const struct moe_newfile *f)
{
    OK(moe_pwrite(f->fd, "", "MAGIC", 5, 0, &err) == MOE_OK && !ftruncate(f->fd, 5));
}

/* Whether the file is marked as unfinished by this work. */
static bool unfinished(const char *name, const char *work)
{
    char *s;
    size_t n;
    struct moe_record r;
    if (moe_read_file(at(name), 1 << 20, &s, &n, &err) != MOE_OK) return false;
    bool is = moe_record_parse(s, n, &r) && !strcmp(r.work, work);
    free(s);
    return is;
}

static void put(const char *name, const char *text)
{
    FILE *f = fopen(at(name), "wb");
    OK(f && fwrite(text, 1, strlen(text), f) == strlen(text) && !fclose(f));
}

static bool holds(const char *name, const char *text)
{
    char *s;
    size_t n;
    if (moe_read_file(at(name), 1 << 20, &s, &n, &err) != MOE_OK) return false;
    bool same = n == strlen(text) && !memcmp(s, text, n);
    free(s);
    return same;
}

static size_t count_entries(const char *name)
{
    struct moe_names names;
    OK(moe_list_dir(at(name), &names, &err) == MOE_OK);
    size_t n = names.n;
    moe_names_release(&names);
    return n;
}

static void empty_root(void)
{
    OK(moe_remove_tree(root, &err) == MOE_OK && !mkdir(root, 0777));
}

/* ---- files ---- */

static void begin_file(struct moe_newfile *f, const char *name, const char *text)
{
    OK(moe_newfile_open(f, at(name), &err) == MOE_OK);
    OK(moe_pwrite(f->fd, name, text, strlen(text), 0, &err) == MOE_OK);
}

/* Two writers of one path leave one whole file.  The one that publishes later, and may not replace a file,
 * gets an error. */
static void test_file(void)
{
    struct moe_newfile a, b;
    empty_root();
    begin_file(&a, "f", "first");
    begin_file(&b, "f", "second");
    OK(moe_exists(at("f")) == MOE_ABSENT);
    OK(moe_newfile_publish(&b, false, &err) == MOE_OK && holds("f", "second"));
    FAILS(MOE_EXISTS, moe_newfile_publish(&a, false, &err));
    OK(strstr(err.msg, "appeared while") && holds("f", "second") && count_entries("") == 1);
    begin_file(&a, "f", "third");
    OK(moe_newfile_publish(&a, true, &err) == MOE_OK && holds("f", "third") && count_entries("") == 1);
    begin_file(&a, "g", "never");
    moe_newfile_abort(&a);
    moe_newfile_abort(&a);
    OK(count_entries("") == 1);
    /* A link is replaced, and what it points to stays.  A link with the name that temporary files once had
     * is not followed. */
    OK(!symlink("f", at("link")) && !symlink("f", at("new.tmp")));
    OK(moe_write_file(at("link"), "x", 1, &err) == MOE_OK && holds("link", "x") && holds("f", "third"));
    OK(moe_write_file(at("new"), "y", 1, &err) == MOE_OK && holds("new", "y") && holds("f", "third"));
    OK(moe_newfile_is_temporary(".moe-0123456789abcdef.tmp") && !moe_newfile_is_temporary(".moe-export"));
}

/* No file is written where something else than a file is, or where the path cannot name one. */
static void test_refused(void)
{
    struct moe_newfile f;
    empty_root();
    OK(!mkdir(at("d"), 0777) && !mkfifo(at("pipe"), 0666) && !symlink("/proc/self/fd/1", at("out")));
    put("file", "text");
    const char *const names[] = { "d", "pipe", "out" };
    for (int i = 0; i < 3; i++) {
        FAILS(MOE_EXISTS, moe_newfile_check(at(names[i]), true, &err));
        FAILS(MOE_EXISTS, moe_newfile_open(&f, at(names[i]), &err));
        FAILS(MOE_EXISTS, moe_write_file(at(names[i]), "x", 1, &err));
    }
    FAILS(MOE_USAGE, moe_newfile_check(at("x/"), true, &err));
    FAILS(MOE_USAGE, moe_newfile_check("", true, &err));
    FAILS(MOE_USAGE, moe_newfile_check(at(".."), true, &err));
    FAILS(MOE_NOT_FOUND, moe_newfile_check(at("none/x"), true, &err));
    FAILS(MOE_EXISTS, moe_newfile_check(at("file"), false, &err));
    OK(moe_newfile_check(at("file"), true, &err) == MOE_OK &&
       moe_newfile_check(at("new"), false, &err) == MOE_OK);
    OK(count_entries("") == 4);
}

static bool is_sticky(const char *name)
{
    struct stat st;
    return !stat(at(name), &st) && st.st_mode & S_ISVTX;
}

/* Whether the file system keeps the extended attributes by which a tool knows its own finished work again. */
static bool keeps_attributes(void)
{
    int fd = open(root, O_RDONLY | O_DIRECTORY);
    const struct moe_record put = { "a work", "that" };
    struct moe_record got;
    moe_work_put(fd, &put);
    bool keeps = moe_work_get(fd, &got) && !strcmp(got.work, put.work) && !strcmp(got.replaces, put.replaces);
    moe_work_drop(fd);
    OK(fd >= 0 && !moe_work_get(fd, &got) && !close(fd));
    return keeps;
}

/* An unfinished file is started over by the same work, which may replace the file that was there when the
 * work began.  `kept` is a second name of the unfinished file, which survives moe_newfile_abort. */
static void test_unfinished(void)
{
    struct moe_newfile f;
    for (int i = 0; i < 2; i++) { /* an older version's file, which has no record, and one of this version */
        if (i) OK(!rename(at("kept"), at("u.partial")));
        else put("u.partial", "MAGIC and a half");
        FAILS(MOE_EXISTS, open_partial(&f, "u", MOE_LEFTOVER_REFUSE, "a work"));
        OK(strstr(err.msg, "unfinished work"));
        FAILS(MOE_MISMATCH, open_partial(&f, "u", MOE_LEFTOVER_RESTART, "another"));
        OK(strstr(err.msg, "another input") &&
           (i ? unfinished("u.partial", "a work") : holds("u.partial", "MAGIC and a half")));
        OK(open_partial(&f, "u", i ? MOE_LEFTOVER_RESTART : MOE_LEFTOVER_DISCARD, "a work") == MOE_OK);
        OK(unfinished("u.partial", "a work") && !link(at("u.partial"), at("kept")));
        moe_newfile_abort(&f);
    }
    for (int later = 0; later < 2; later++) {
        put("u", "old");
        OK(open_partial(&f, "u", MOE_LEFTOVER_DISCARD, "a work") == MOE_OK &&
           unlink(at("kept")) + link(at("u.partial"), at("kept")) == 0);
        moe_newfile_abort(&f);
        OK(!rename(at("kept"), at("u.partial")) && !link(at("u.partial"), at("kept")) &&
           moe_newfile_resumes(at("u")));
        if (later) put("new", "came later"), OK(!rename(at("new"), at("u")) && !moe_newfile_resumes(at("u")));
        OK(open_partial(&f, "u", MOE_LEFTOVER_RESTART, "a work") == MOE_OK);
        end_partial(&f);
        OK(moe_newfile_publish(&f, true, &err) == (later ? MOE_EXISTS : MOE_OK) &&
           holds("u", later ? "came later" : "MAGIC"));
    }
    OK(!unlink(at("u")) && !unlink(at("u.partial")) && !unlink(at("kept")));
}

static void test_partial(void)
{
    struct moe_newfile f, g;
    empty_root();
    OK(open_partial(&f, "x", MOE_LEFTOVER_REFUSE, "a work") == MOE_OK && unfinished("x.partial", "a work"));
    FAILS(MOE_EXISTS, open_partial(&g, "x", MOE_LEFTOVER_RESTART, "a work"));
    OK(strstr(err.msg, "another process"));
    put("x", "appeared");
    end_partial(&f);
    FAILS(MOE_EXISTS, moe_newfile_publish(&f, false, &err));
    OK(strstr(err.msg, "x.partial") && holds("x", "appeared") && holds("x.partial", "MAGIC"));
    /* A complete file waits for its name: only the same work continues with it, and only --force deletes
     * it. */
    for (int i = MOE_LEFTOVER_REFUSE; i <= MOE_LEFTOVER_RESTART; i++) {
        FAILS(MOE_EXISTS, open_partial(&f, "x", (enum moe_leftover_policy)i, "another"));
        OK(strstr(err.msg, "waits for its name") && holds("x.partial", "MAGIC"));
    }
    if (keeps_attributes()) {
        OK(open_partial(&f, "x", MOE_LEFTOVER_RESTART, "a work") == MOE_OK);
        OK(f.whole);
        moe_newfile_abort(&f);
        OK(holds("x.partial", "MAGIC") && !unlink(at("x")));
        OK(open_partial(&f, "x", MOE_LEFTOVER_RESTART, "a work") == MOE_OK);
        OK(f.whole && moe_newfile_publish(&f, false, &err) == MOE_OK && !is_sticky("x"));
        OK(open_partial(&f, "x", MOE_LEFTOVER_REFUSE, "a work") == MOE_OK);
        end_partial(&f);
        FAILS(MOE_EXISTS, moe_newfile_publish(&f, false, &err));
    }
    OK(open_partial(&f, "x", MOE_LEFTOVER_DISCARD, "a work") == MOE_OK && !f.whole);
    end_partial(&f);
    OK(moe_newfile_publish(&f, true, &err) == MOE_OK && holds("x", "MAGIC") && count_entries("") == 1);
    test_unfinished();
    /* A stranger's file, a link, a directory and a pipe stay as they are, whatever the policy. */
    put("y.partial", "years of work");
    put("short.partial", "MA");
    put("near.partial", "moe: unfinished work\nof another kind");
    put("victim", "MAGIC and more");
    OK(!symlink("victim", at("z.partial")) && !mkdir(at("d.partial"), 0777) &&
       !mkfifo(at("p.partial"), 0666));
    const char *const names[] = { "y", "z", "d", "p", "short", "near" };
    for (int i = 0; i < 12; i++)
        FAILS(MOE_EXISTS, open_partial(&f, names[i / 2], refuse_or_discard(i), "a work"));
    OK(holds("y.partial", "years of work") && holds("victim", "MAGIC and more") && count_entries("") == 8);
}

/* ---- directories ---- */

/* struct moe_newdir_kind: fails unless the directory holds "kind". */
static enum moe_code look_kind(const char *path, const void *with, struct moe_err *e)
{
    (void)with;
    char mark[PATH_MAX];
    snprintf(mark, sizeof mark, "%s/kind", path);
    return moe_exists(mark) == MOE_FILE ? MOE_OK
                                        : moe_fail_at(e, MOE_EXISTS, path, NULL, "is of another kind");
}

/* Fails unless a partial directory is of this kind: it holds nothing but "kind" and the mark. */
static enum moe_code look_unfinished(const char *path, const void *with, struct moe_err *e)
{
    (void)with;
    struct moe_names names;
    bool is = moe_list_dir(path, &names, e) == MOE_OK;
    for (size_t i = 0; i < names.n; i++)
        is &= !strcmp(names.v[i], "kind") || !strcmp(names.v[i], MOE_NEWDIR_MARK);
    moe_names_release(&names);
    return is ? MOE_OK : moe_fail_at(e, MOE_EXISTS, path, NULL, "holds a file of another kind");
}

static const struct moe_newdir_kind test_kind = { look_kind, NULL, "a work", look_unfinished };

static void build_dir(struct moe_newdir *d, const char *name, enum moe_leftover_policy policy)
{
    char inside[PATH_MAX + 8];
    OK(moe_newdir_begin(d, at(name), &test_kind, policy, &err) == MOE_OK);
    snprintf(inside, sizeof inside, "%s/kind", d->path);
    OK(moe_write_file(inside, "new", 3, &err) == MOE_OK);
}

/* Leaves x, a directory of the kind. */
static void test_dir(void)
{
    struct moe_newdir d, e;
    empty_root();
    build_dir(&d, "x///", MOE_LEFTOVER_REFUSE);
    OK(is_sticky("x.partial") && count_entries("") == 1);
    FAILS(MOE_EXISTS, moe_newdir_begin(&e, at("x"), &test_kind, MOE_LEFTOVER_DISCARD, &err)); /* locked */
    OK(strstr(err.msg, "another process"));
    OK(moe_newdir_publish(&d, NULL, &err) == MOE_OK && count_entries("x") == 1 && !is_sticky("x"));
    moe_newdir_end(&d);
    OK(count_entries("") == 1 && holds("x/kind", "new"));
    /* A file that appears meanwhile stays, and so does what was built. */
    build_dir(&d, "y", MOE_LEFTOVER_REFUSE);
    OK(!mkdir(at("y"), 0777));
    put("y/thesis", "years of work");
    FAILS(MOE_EXISTS, moe_newdir_publish(&d, NULL, &err));
    moe_newdir_end(&d);
    OK(strstr(err.msg, "y.partial") && holds("y/thesis", "years of work") && holds("y.partial/kind", "new"));
    /* A complete directory waits for its name, too: only the same work continues with it, and only --force
     * deletes it. */
    const struct moe_newdir_kind other = { look_kind, NULL, "another work", look_unfinished };
    for (int i = MOE_LEFTOVER_REFUSE; i <= MOE_LEFTOVER_RESTART; i++) {
        FAILS(MOE_EXISTS, moe_newdir_begin(&d, at("y"), &other, (enum moe_leftover_policy)i, &err));
        OK(strstr(err.msg, "waits for its name") && holds("y.partial/kind", "new"));
    }
    if (keeps_attributes()) {
        OK(moe_newdir_begin(&d, at("y"), &test_kind, MOE_LEFTOVER_RESTART, &err) == MOE_OK && d.whole);
        moe_newdir_end(&d);
        OK(holds("y.partial/kind", "new") && !rename(at("y"), at("thesis")));
        OK(moe_newdir_begin(&d, at("y"), &test_kind, MOE_LEFTOVER_RESTART, &err) == MOE_OK && d.whole);
        OK(moe_newdir_publish(&d, NULL, &err) == MOE_OK && holds("y/kind", "new") && !is_sticky("y"));
        moe_newdir_end(&d);
        OK(count_entries("y") == 1 && !rename(at("y"), at("y.partial")) && !rename(at("thesis"), at("y")));
        OK(!chmod(at("y.partial"), 01777));
    }
    build_dir(&d, "y", MOE_LEFTOVER_DISCARD); /* y.partial is ours by its mark and its kind */
    FAILS(MOE_EXISTS, moe_newdir_publish(&d, &test_kind, &err)); /* y is of another kind */
    moe_newdir_end(&d);
    OK(holds("y/thesis", "years of work") && holds("y.partial/kind", "new") && !is_sticky("y"));
}

/* Directory x, which is there, is replaced by one of its kind; a link to it is not. */
static void test_dir_replaced(void)
{
    struct moe_newdir d, e;
    /* A directory of this kind is exchanged, and the old one is gone. */
    put("x/kind", "old");
    put("x/more", "old");
    build_dir(&d, "x", MOE_LEFTOVER_REFUSE);
    OK(moe_newdir_publish(&d, &test_kind, &err) == MOE_OK);
    moe_newdir_end(&d);
    OK(holds("x/kind", "new") && count_entries("x") == 1 && !is_sticky("x") &&
       moe_exists(at("x.partial")) == MOE_ABSENT);
    /* A link to a directory of this kind is neither replaced nor followed, whether it was there before or
     * appears. */
    OK(!symlink("x", at("link")));
    FAILS(MOE_EXISTS, moe_newdir_begin(&e, at("link"), &test_kind, MOE_LEFTOVER_DISCARD, &err));
    OK(strstr(err.msg, "is a symbolic link to 'x'") && moe_exists(at("link.partial")) == MOE_ABSENT &&
       !unlink(at("link")));
    build_dir(&d, "link", MOE_LEFTOVER_REFUSE);
    OK(!symlink("x", at("link")));
    FAILS(MOE_EXISTS, moe_newdir_publish(&d, &test_kind, &err));
    moe_newdir_end(&d);
    OK(strstr(err.msg, "appeared") && holds("link.partial/kind", "new") && count_entries("x") == 1 &&
       !unlink(at("link")));
    OK(moe_remove_tree(at("link.partial"), &err) == MOE_OK);
    /* What is not published is deleted. */
    build_dir(&d, "z", MOE_LEFTOVER_REFUSE);
    moe_newdir_end(&d);
    OK(moe_exists(at("z.partial")) == MOE_ABSENT);
}

/* A file that has got its name is not reported as failed because its directory cannot be opened (mode
 * 0300, or too many open files) to be synced. */
static void test_unreadable(void)
{
    struct moe_newfile f;
    struct moe_newdir d;
    empty_root();
    const int why[] = { EACCES, EMFILE };
    for (int i = 0; i < 2; i++) {
        unreadable = root;
        why_not = why[i];
        OK(moe_newfile_write(at("f"), "x", 1, true, &err) == MOE_OK);
        OK(open_partial(&f, "g", MOE_LEFTOVER_DISCARD, "a work") == MOE_OK);
        end_partial(&f);
        OK(moe_newfile_publish(&f, true, &err) == MOE_OK);
        for (int again = 0; again < 2; again++) {
            build_dir(&d, "x", MOE_LEFTOVER_REFUSE);
            OK(moe_newdir_publish(&d, &test_kind, &err) == MOE_OK);
            moe_newdir_end(&d);
        }
        unreadable = NULL;
        OK(holds("f", "x") && holds("g", "MAGIC") && holds("x/kind", "new") && count_entries("") == 3);
        OK(moe_remove_tree(at("x"), &err) == MOE_OK);
    }
}

/* Files and directories that no tool wrote stay, whatever the policy; an empty directory is used. */
static void test_foreign(void)
{
    struct moe_newdir d;
    empty_root();
    OK(!mkdir(at("a.partial"), 0777) && !mkdir(at("victim"), 0777) && !symlink("victim", at("b.partial")));
    OK(!mkdir(at("e.partial"), 0777) && !mkdir(at("k.partial"), 0777));
    put("a.partial/thesis", "years of work");
    put("k.partial/kind", "somebody's");
    put("c.partial", "a file");
    const char *const names[] = { "a", "b", "c", "k" };
    for (int i = 0; i < 8; i++)
        FAILS(MOE_EXISTS,
              moe_newdir_begin(&d, at(names[i / 2]), &test_kind, refuse_or_discard(i), &err));
    OK(holds("a.partial/thesis", "years of work") && holds("c.partial", "a file") &&
       count_entries("victim") == 0);
    OK(holds("k.partial/kind", "somebody's")); /* of this kind, but nothing says that it is unfinished */
    /* An empty one is used: whoever made it may be about to lock it, and would make it again. */
    struct stat was, is;
    int made = open(at("e.partial"), O_RDONLY | O_DIRECTORY);
    OK(made >= 0 && !fstat(made, &was));
    build_dir(&d, "e", MOE_LEFTOVER_REFUSE);
    OK(is_sticky("e.partial") && !stat(at("e.partial"), &is) && is.st_ino == was.st_ino);
    close(made);
    moe_newdir_end(&d);
    FAILS(MOE_USAGE, moe_newdir_name(&d, ".", &err));
    FAILS(MOE_USAGE, moe_newdir_name(&d, at(".."), &err));
    FAILS(MOE_USAGE, moe_newdir_name(&d, "", &err));
}

/* An output may not be, lie in or hold what is read. */
static void test_overlap(void)
{
    empty_root();
    OK(!mkdir(at("m"), 0777) && !mkdir(at("m/sub"), 0777) && !symlink("m", at("l")) &&
       !mkdir(at("n.partial"), 0777));
    const char *const bad[] = { "m", "m/", "l", "m/x", "l/x", "m/sub/x", "" };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        FAILS(MOE_USAGE, moe_newdir_check_overlap(at(bad[i]), at("m"), "is read", &err));
    FAILS(MOE_USAGE, moe_newdir_check_overlap(at("m"), at("l"), "is read", &err));
    /* n.partial is where n would be built */
    FAILS(MOE_USAGE, moe_newdir_check_overlap(at("n"), at("n.partial"), "is read", &err));
    OK(moe_newdir_check_overlap(at("mm"), at("m"), "is read", &err) == MOE_OK &&
       moe_newdir_check_overlap(at("m"), at("mm"), "is read", &err) == MOE_OK);
    put("f", "f");
    put("m/sub/f", "f");
    OK(!link(at("f"), at("hard")) && !symlink("f", at("soft")));
    const char *const others[][2] = { { "f", "f" },       { "soft", "f" },    { "f", "soft" },
                                      { "hard", "f" },    { "m/new", "l" },   { "l/sub/new", "m" },
                                      { "m", "m/sub/f" }, { "none", "none" }, { "l/none", "m//none" } };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        FAILS(MOE_USAGE, moe_check_overlap("out", at(others[i][0]), at(others[i][1]), "is read", &err));
    OK(moe_check_overlap("out", at("new"), at("m"), "is read", &err) == MOE_OK &&
       moe_check_overlap("out", at("m/sub/f"), at("f"), "is read", &err) == MOE_OK);
    OK(moe_check_overlap("out", at("none"), at("other"), "is read", &err) == MOE_OK &&
       moe_check_overlap("out", at("m/none"), at("none"), "is read", &err) == MOE_OK);
}

/* ---- an output that is taken away while it is written ---- */

static void test_file_taken_away(void)
{
    struct moe_newfile a, b;
    empty_root();
    OK(open_partial(&a, "x", MOE_LEFTOVER_REFUSE, "a work") == MOE_OK);
    OK(!unlink(at("x.partial"))); /* somebody takes it for stale */
    OK(open_partial(&b, "x", MOE_LEFTOVER_REFUSE, "a work") == MOE_OK);
    OK(moe_newfile_publish(&a, true, &err) == MOE_EXISTS && strstr(err.msg, "was taken away"));
    OK(count_entries("") == 1 && unfinished("x.partial", "a work"));
    end_partial(&b);
    OK(moe_newfile_publish(&b, false, &err) == MOE_OK && holds("x", "MAGIC"));
    OK(open_partial(&a, "x", MOE_LEFTOVER_REFUSE, "a work") == MOE_OK);
    OK(!unlink(at("x.partial")));
    put("x.partial", "a stranger's");
    moe_newfile_abort(&a);
    OK(holds("x.partial", "a stranger's"));
}

static enum moe_code look_any(const char *path, const void *with, struct moe_err *e)
{
    (void)path, (void)with, (void)e;
    return MOE_OK;
}
static const struct moe_newdir_kind any_kind = { look_any, NULL, "a work", look_any };

static void test_directory_taken_away(void)
{
    struct moe_newdir a, b;
    empty_root();
    OK(moe_newdir_begin(&a, at("d"), &any_kind, MOE_LEFTOVER_REFUSE, &err) == MOE_OK);
    OK(!rename(at("d.partial"), at("moved")));
    OK(moe_newdir_begin(&b, at("d"), &any_kind, MOE_LEFTOVER_REFUSE, &err) == MOE_OK);
    put("d.partial/half", "b's");
    OK(moe_fd_is_path_check(a.lock, a.path, &err) == MOE_EXISTS);
    OK(moe_fd_is_path_check(b.lock, b.path, &err) == MOE_OK);
    OK(moe_newdir_publish(&a, &any_kind, &err) == MOE_EXISTS && strstr(err.msg, "was taken away"));
    moe_newdir_end(&a);
    OK(holds("d.partial/half", "b's"));
    OK(moe_newdir_publish(&b, NULL, &err) == MOE_OK && holds("d/half", "b's"));
    moe_newdir_end(&b);
}

int main(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(root, sizeof root, "%s/moe-newfile.XXXXXX", tmp ? tmp : "/tmp");
    OK(mkdtemp(root));
    /* the file system lacks nothing; then files without a name; then flags of rename, too; then hard links */
    for (int lacks = 0; lacks < 4; lacks++) {
        no_nameless = lacks >= 1, no_flags = lacks >= 2, no_links = lacks >= 3;
        test_file();
        test_refused();
        test_partial();
        test_dir();
        test_dir_replaced();
        test_unreadable();
        test_foreign();
        test_overlap();
        test_file_taken_away();
        test_directory_taken_away();
    }
    OK(moe_remove_tree(root, &err) == MOE_OK);
    printf("test-newfile: %ld checks\n", checks);
    return 0;
}
