/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/comm/socket.h"

#include "base/io.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { FLAGS = SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, BACKLOG = 1024 };

/* ---- names ---- */

static bool is_unix(const char *where) { return !strncmp(where, "unix:", 5); }

static enum moe_code unix_address(const char *name, struct sockaddr_un *a, socklen_t *len,
                                  struct moe_err *err)
{
    size_t n = strlen(name);
    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (!n || n > sizeof a->sun_path - 2)
        return moe_fail(err, MOE_USAGE, "--rendezvous unix:%s: want 1 to %zu characters", name,
                        sizeof a->sun_path - 2);
    memcpy(a->sun_path + 1, name, n);
    *len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
    return MOE_OK;
}

static enum moe_code look_up(const char *where, struct addrinfo **list, struct moe_err *err)
{
    char host[256];
    const char *colon = strrchr(where, ':');
    if (!colon || !colon[1] || (size_t)(colon - where) >= sizeof host)
        return moe_fail(err, MOE_USAGE, "--rendezvous '%s': want HOST:PORT, or :PORT for this host alone",
                        where);
    bool bracket = where[0] == '[' && colon[-1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(colon - where) - 2 * bracket, where + bracket);
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
    int e = getaddrinfo(*host ? host : "127.0.0.1", colon + 1, &hints, list);
    return e ? moe_fail(err, e == EAI_MEMORY ? MOE_NOMEM : MOE_DEVICE, "--rendezvous '%s': %s", where,
                        gai_strerror(e))
             : MOE_OK;
}

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 &&
           IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

bool moe_socket_is_here(const char *where)
{
    struct moe_err ignored;
    struct addrinfo *list = NULL;
    if (is_unix(where)) return true;
    if (look_up(where, &list, &ignored) != MOE_OK) return false;
    bool here = list != NULL;
    for (const struct addrinfo *a = list; a; a = a->ai_next) here &= is_loopback(a->ai_addr);
    freeaddrinfo(list);
    return here;
}

/* ---- listening ---- */

static bool bind_and_listen(int fd, const struct sockaddr *a, socklen_t len)
{
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
    return !bind(fd, a, len) && !listen(fd, BACKLOG);
}

/* Opens a socket that listens at this address; -1: it cannot, and errno says why. */
static int open_listening(int family, const struct sockaddr *a, socklen_t len)
{
    int fd = socket(family, FLAGS, 0);
    if (fd < 0 || bind_and_listen(fd, a, len)) return fd;
    int e = errno;
    close(fd);
    errno = e;
    return -1;
}

/* Whether the process at the other end belongs to this user; true for an internet socket. */
static bool is_own(int fd)
{
    struct sockaddr_storage a;
    struct ucred who;
    socklen_t len = sizeof a;
    if (getsockname(fd, (struct sockaddr *)&a, &len)) return false;
    if (a.ss_family != AF_UNIX) return true;
    len = sizeof who;
    return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) && who.uid == geteuid();
}

int moe_socket_accept(int listening, bool *full)
{
    int fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    *full = fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM);
    if (fd < 0 || is_own(fd)) return fd;
    close(fd);
    return -1;
}

/* ---- connecting ---- */

/* A socket that asks for a port at which nobody listens may be given that very port as its own, and is then
 * connected to itself. */
bool moe_socket_is_self(int fd)
{
    struct sockaddr_storage a = { 0 }, b = { 0 };
    socklen_t n = sizeof a, k = sizeof b;
    if (getsockname(fd, (struct sockaddr *)&a, &n) || getpeername(fd, (struct sockaddr *)&b, &k))
        return false;
    return (a.ss_family == AF_INET || a.ss_family == AF_INET6) && n == k && !memcmp(&a, &b, n);
}

/* Opens a socket that is connected to this address; -1: nobody answers there within so many seconds. */
static int open_connected(int family, const struct sockaddr *a, socklen_t len, double seconds)
{
    int fd = socket(family, FLAGS, 0), e = 0;
    socklen_t n = sizeof e;
    if (fd < 0) return -1;
    bool ok = !connect(fd, a, len);
    if (!ok && errno == EINPROGRESS) {
        struct pollfd p = { .fd = fd, .events = POLLOUT };
        ok = poll(&p, 1, (int)(seconds * 1000) + 1) > 0 && !getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n) &&
             !e;
    }
    if (ok && !moe_socket_is_self(fd)) return fd;
    close(fd);
    return -1;
}

/* ---- by name ---- */

/* Opens a socket that listens at the first address of `where` at which that is possible, or one that is
 * connected to the first address that answers within `seconds`.  Where no address does, *fd is -1 and errno
 * says why. */
static enum moe_code open_by_name(const char *where, bool to_listen, double seconds, int *fd,
                                  struct moe_err *err)
{
    struct addrinfo *list = NULL, local = { .ai_family = AF_UNIX };
    struct sockaddr_un u;
    *fd = -1;
    if (is_unix(where)) {
        MOE_TRY(unix_address(where + 5, &u, &local.ai_addrlen, err));
        local.ai_addr = (struct sockaddr *)&u;
    } else {
        MOE_TRY(look_up(where, &list, err));
    }
    for (const struct addrinfo *a = list ? list : &local; a && *fd < 0; a = a->ai_next)
        *fd = to_listen ? open_listening(a->ai_family, a->ai_addr, a->ai_addrlen)
                        : open_connected(a->ai_family, a->ai_addr, a->ai_addrlen, seconds);
    int e = errno;
    if (list) freeaddrinfo(list);
    errno = e;
    return MOE_OK;
}

enum moe_code moe_socket_listen(const char *where, int *fd, struct moe_err *err)
{
    MOE_TRY(open_by_name(where, true, 0, fd, err));
    return *fd >= 0 ? MOE_OK
                    : moe_fail(err, MOE_DEVICE, "rank 0 cannot listen at '%s': %s", where, strerror(errno));
}

enum moe_code moe_socket_connect(const char *where, double seconds, int *fd, struct moe_err *err)
{
    MOE_TRY(open_by_name(where, false, seconds, fd, err));
    if (*fd < 0 || is_own(*fd)) return MOE_OK;
    close(*fd);
    *fd = -1;
    return moe_fail(err, MOE_DEVICE, "another user's process listens at '%s'", where);
}

/* ---- data ---- */

static enum moe_code wait_for(int fd, short events, double end, const struct moe_cancel *cancel,
                              struct moe_err *err)
{
    struct pollfd p = { .fd = fd, .events = events };
    MOE_TRY(moe_cancel_check(cancel, err));
    double left = end - moe_now();
    if (left <= 0) return moe_fail(err, MOE_DEVICE, "the other side is silent");
    poll(&p, 1, left < 0.1 ? (int)(left * 1000) + 1 : 100); /* then `cancel` is looked at again */
    return MOE_OK;
}

enum moe_code moe_socket_send(int fd, const void *data, size_t bytes, double end,
                              const struct moe_cancel *cancel, struct moe_err *err)
{
    const unsigned char *p = data;
    for (size_t done = 0; done < bytes;) {
        ssize_t n = send(fd, p + done, bytes - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) done += (size_t)n;
        else if (n < 0 && (errno == EAGAIN || errno == EINTR))
            MOE_TRY(wait_for(fd, POLLOUT, end, cancel, err));
        else return moe_fail(err, MOE_DEVICE, "the other side went away");
    }
    return MOE_OK;
}

enum moe_code moe_socket_receive(int fd, void *data, size_t bytes, double end,
                                 const struct moe_cancel *cancel, struct moe_err *err)
{
    unsigned char *p = data;
    for (size_t done = 0; done < bytes;) {
        ssize_t n = recv(fd, p + done, bytes - done, MSG_DONTWAIT);
        if (n > 0) done += (size_t)n;
        else if (n < 0 && (errno == EAGAIN || errno == EINTR))
            MOE_TRY(wait_for(fd, POLLIN, end, cancel, err));
        else return moe_fail(err, MOE_DEVICE, "the other side went away");
    }
    return MOE_OK;
}
