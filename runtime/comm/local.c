/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/comm/local.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { FLAGS = SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, BACKLOG = 64, LOCK_SECONDS = 5 };

static enum moe_code address_of(const char *path, struct sockaddr_un *a, struct moe_err *err)
{
    size_t n = strlen(path);
    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (!n || n >= sizeof a->sun_path)
        return moe_fail(err, MOE_USAGE, "the path of a socket has 1 to %zu bytes, and '%s' has %zu",
                        sizeof a->sun_path - 1, path, n);
    memcpy(a->sun_path, path, n);
    return MOE_OK;
}

/* A connection to the address; -1 with errno. */
static int open_connected(const struct sockaddr_un *a)
{
    int fd = socket(AF_UNIX, FLAGS, 0);
    if (fd < 0 || !connect(fd, (const struct sockaddr *)a, sizeof *a)) return fd;
    int e = errno;
    close(fd);
    errno = e;
    return -1;
}

/* ---- listening ---- */

/* Takes the lock under which processes that want to listen look at what is in a directory, and change it, so
 * that of two that find the same stale socket one replaces it.  *fd is to be closed. */
static enum moe_code lock_parent(const char *path, int *fd, struct moe_err *err)
{
    char dir[MOE_PATH_BYTES];
    moe_path_parent(path, dir);
    *fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0) return moe_fail_errno(err, errno, dir, "cannot open the directory of the socket");
    for (double end = moe_now() + LOCK_SECONDS; flock(*fd, LOCK_EX | LOCK_NB); poll(NULL, 0, 10)) {
        if ((errno == EWOULDBLOCK || errno == EINTR) && moe_now() < end) continue;
        int e = errno;
        close(*fd);
        return moe_fail_errno(err, e, dir, "cannot lock the directory of the socket");
    }
    return MOE_OK;
}

/* Removes the socket that is at the path if nobody listens there.  What else there is stays. */
static enum moe_code remove_stale(const char *path, const struct sockaddr_un *a, struct moe_err *err)
{
    struct stat st;
    if (lstat(path, &st))
        return errno == ENOENT ? MOE_OK : moe_fail_errno(err, errno, path, "cannot look at the socket");
    if (!S_ISSOCK(st.st_mode))
        return moe_fail_at(err, MOE_EXISTS, path, NULL, "exists, and is no socket");
    if (st.st_uid != geteuid())
        return moe_fail_at(err, MOE_EXISTS, path, NULL, "is the socket of another user (uid %u, this is %u)",
                           (unsigned)st.st_uid, (unsigned)geteuid());
    int fd = open_connected(a), e = errno;
    if (fd >= 0) close(fd);
    if (fd >= 0 || e != ECONNREFUSED)
        return moe_fail_at(err, MOE_EXISTS, path, NULL, "is the socket of a process that listens there");
    if (unlink(path) && errno != ENOENT) return moe_fail_errno(err, errno, path, "cannot remove");
    return MOE_OK;
}

/* The mode of a socket before it is bound becomes that of its file, less the umask; so the file is never open
 * to others, and the umask of other threads stays. */
static enum moe_code bind_and_listen(struct moe_local *l, const struct sockaddr_un *a, struct moe_err *err)
{
    struct stat st;
    l->fd = socket(AF_UNIX, FLAGS, 0);
    if (l->fd < 0) return moe_fail_errno(err, errno, l->path, "cannot make a socket");
    if (fchmod(l->fd, 0600) || bind(l->fd, (const struct sockaddr *)a, sizeof *a))
        return moe_fail_errno(err, errno, l->path, "cannot make a socket");
    if (lstat(l->path, &st)) return moe_fail_errno(err, errno, l->path, "cannot look at the socket");
    l->device = st.st_dev;
    l->inode = st.st_ino;
    if (st.st_mode & 077)
        return moe_fail_at(err, MOE_IO, l->path, NULL, "is open to other users on this file system");
    if ((st.st_mode & 0600) != 0600 && chmod(l->path, 0600))
        return moe_fail_errno(err, errno, l->path, "cannot set the mode of the socket");
    if (listen(l->fd, BACKLOG)) return moe_fail_errno(err, errno, l->path, "cannot listen");
    return MOE_OK;
}

enum moe_code moe_local_listen(struct moe_local *l, const char *path, struct moe_err *err)
{
    struct sockaddr_un a;
    int lock;
    *l = (struct moe_local){ .fd = -1 };
    MOE_TRY(address_of(path, &a, err));
    memcpy(l->path, a.sun_path, sizeof l->path);
    MOE_TRY(lock_parent(path, &lock, err));
    enum moe_code code = remove_stale(path, &a, err);
    if (code == MOE_OK) code = bind_and_listen(l, &a, err);
    if (code != MOE_OK) moe_local_close(l);
    close(lock);
    return code;
}

/* The file goes first: while somebody listens, nobody else takes its place. */
void moe_local_close(struct moe_local *l)
{
    struct stat st;
    if (l->fd < 0) return;
    if (l->inode && !lstat(l->path, &st) && st.st_dev == l->device && st.st_ino == l->inode) unlink(l->path);
    close(l->fd);
    l->fd = -1;
}

/* ---- connecting ---- */

static enum moe_code cannot_connect(const char *path, int e, struct moe_err *err)
{
    struct stat st;
    if (e == ECONNREFUSED && !stat(path, &st) && !S_ISSOCK(st.st_mode))
        return moe_fail_at(err, MOE_NOT_FOUND, path, NULL, "is no socket");
    switch (e) {
    case ENOENT: return moe_fail_at(err, MOE_NOT_FOUND, path, NULL, "does not exist");
    case ECONNREFUSED: return moe_fail_at(err, MOE_DEVICE, path, NULL, "has nobody who listens there");
    case EPROTOTYPE: return moe_fail_at(err, MOE_DEVICE, path, NULL, "is the socket of another program");
    case EAGAIN: return moe_fail_at(err, MOE_DEVICE, path, NULL, "has too many others who wait there");
    default: return moe_fail_errno(err, e, path, "cannot connect");
    }
}

enum moe_code moe_local_connect(const char *path, double end, const struct moe_cancel *cancel, int *fd,
                                struct moe_err *err)
{
    struct sockaddr_un a;
    struct ucred who = { .uid = (uid_t)-1 };
    socklen_t n = sizeof who;
    *fd = -1;
    MOE_TRY(address_of(path, &a, err));
    while ((*fd = open_connected(&a)) < 0 && errno == EAGAIN && moe_now() < end) {
        MOE_TRY(moe_cancel_check(cancel, err));
        poll(NULL, 0, 20);
        errno = EAGAIN;
    }
    if (*fd < 0) return cannot_connect(path, errno, err);
    if (!getsockopt(*fd, SOL_SOCKET, SO_PEERCRED, &who, &n) && who.uid == geteuid()) return MOE_OK;
    close(*fd);
    *fd = -1;
    return moe_fail_at(err, MOE_DEVICE, path, NULL, "is the socket of another user (uid %u, this is %u)",
                       (unsigned)who.uid, (unsigned)geteuid());
}

/* ---- messages ---- */

union control { struct cmsghdr head; unsigned char room[CMSG_SPACE(sizeof(int) * MOE_LOCAL_FILES)]; };

bool moe_local_send(int fd, const void *data, size_t bytes, const int *file, int n)
{
    union control c = { .room = { 0 } };
    struct iovec v = { (void *)(uintptr_t)data, bytes };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
    MOE_CHECK(n >= 0 && n <= MOE_LOCAL_FILES);
    if (n) {
        size_t files = (size_t)n * sizeof *file;
        c.head = (struct cmsghdr){ CMSG_LEN(files), SOL_SOCKET, SCM_RIGHTS };
        memcpy(CMSG_DATA(&c.head), file, files);
        m.msg_control = &c;
        m.msg_controllen = CMSG_SPACE(files);
    }
    ssize_t sent;
    while ((sent = sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0 && errno == EINTR) {}
    return sent == (ssize_t)bytes;
}

/* Takes the descriptors of a message over; returns how many there are. */
static int take_files(struct msghdr *m, int *file)
{
    int n = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) continue;
        int here = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof *file);
        MOE_CHECK(n + here <= MOE_LOCAL_FILES);
        memcpy(file + n, CMSG_DATA(c), (size_t)here * sizeof *file);
        n += here;
    }
    return n;
}

ssize_t moe_local_receive(int fd, void *data, size_t cap, int *file, int *n)
{
    union control c;
    struct iovec v = { data, cap };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
    int files[MOE_LOCAL_FILES], k = 0;
    if (file) {
        m.msg_control = &c;
        m.msg_controllen = sizeof c;
    }
    ssize_t got;
    while ((got = recvmsg(fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR) {}
    if (file) *n = 0;
    if (got < 0) return got;
    if (file) k = take_files(&m, files);
    bool lost = file && m.msg_flags & MSG_CTRUNC;
    if (m.msg_flags & MSG_TRUNC || lost) {
        int e = lost && k < MOE_LOCAL_FILES ? EMFILE : EMSGSIZE; /* room was left: for numbers, not here */
        while (k) close(files[--k]);
        errno = e;
        return -1;
    }
    if (file) memcpy(file, files, (size_t)k * sizeof *file);
    if (file) *n = k;
    return got;
}
