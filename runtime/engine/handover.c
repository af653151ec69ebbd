/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/handover.h"

#include "base/io.h"
#include "runtime/comm/wire.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- standard output into memory ---- */

enum moe_code moe_capture_begin(struct moe_capture *c, struct moe_err *err)
{
    fflush(stdout);
    c->text = memfd_create("report", MFD_CLOEXEC);
    c->out = c->text >= 0 ? dup(STDOUT_FILENO) : -1;
    if (c->out >= 0 && dup2(c->text, STDOUT_FILENO) >= 0) return MOE_OK;
    int e = errno;
    if (c->text >= 0) close(c->text);
    if (c->out >= 0) close(c->out);
    return moe_fail(err, MOE_NOMEM, "no memory for the report: %s", strerror(e));
}

void moe_capture_end(struct moe_capture *c)
{
    fflush(stdout);
    dup2(c->out, STDOUT_FILENO);
    close(c->out);
}

/* ---- from a rank to the process that started it ---- */

enum moe_code moe_handover_open(int *give, int *take, struct moe_err *err)
{
    int end[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, end))
        return moe_fail(err, MOE_NOMEM, "no socket for the report of the ranks: %s", strerror(errno));
    *take = end[0];
    *give = dup(end[1]); /* without close-on-exec, so that ranks inherit it */
    int e = errno;
    close(end[1]);
    if (*give >= 0) return MOE_OK;
    close(*take);
    return moe_fail(err, MOE_NOMEM, "no socket for the report of the ranks: %s", strerror(e));
}

#define NAME "unix:moe-run-"

void moe_handover_name(char *where, size_t cap, int give)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(where, cap, NAME "%ld-%lx%lx:%d", (long)getpid(), (unsigned long)now.tv_sec,
             (unsigned long)now.tv_nsec, give);
}

int moe_handover_end(const char *where)
{
    int give = -1;
    return where && sscanf(where, NAME "%*d-%*[0-9a-f]:%d", &give) == 1 ? give : -1;
}

union control { struct cmsghdr head; char space[CMSG_SPACE(sizeof(int))]; };

/* Sends one message: a number and, with a report, its file descriptor.  what: for the error message. */
static enum moe_code give_message(int give, int number, const int *text, const char *what,
                                  struct moe_err *err)
{
    union control c = { .head = { .cmsg_len = CMSG_LEN(sizeof *text), .cmsg_level = SOL_SOCKET,
                                  .cmsg_type = SCM_RIGHTS } };
    struct iovec v = { &number, sizeof number };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };
    ssize_t n;
    if (text) {
        memcpy(CMSG_DATA(&c.head), text, sizeof *text);
        m.msg_control = &c;
        m.msg_controllen = sizeof c;
    }
    do n = sendmsg(give, &m, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n == sizeof number) return MOE_OK;
    return moe_fail(err, MOE_IO, "%s could not be handed over: %s", what, strerror(errno));
}

enum moe_code moe_handover_give(int give, int text, int exit, struct moe_err *err)
{
    return give_message(give, exit, &text, "the report", err);
}

enum moe_code moe_handover_there(int give, struct moe_err *err)
{
    return give_message(give, MOE_OK, NULL, "the word that this rank is there", err);
}

enum moe_handed moe_handover_take(int take, int *text, int *exit)
{
    union control c;
    struct iovec v = { exit, sizeof *exit };
    struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c };
    ssize_t n = recvmsg(take, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n != sizeof *exit) return n ? MOE_HANDED_NOTHING : MOE_HANDED_OVER;
    const struct cmsghdr *h = CMSG_FIRSTHDR(&m);
    if (!h) return MOE_HANDED_THERE;
    if (h->cmsg_type != SCM_RIGHTS || h->cmsg_len != CMSG_LEN(sizeof *text)) return MOE_HANDED_NOTHING;
    memcpy(text, CMSG_DATA(h), sizeof *text);
    if (*exit != MOE_OK) *exit = (int)moe_wire_code((uint64_t)*exit);
    return MOE_HANDED_REPORT;
}

/* ---- from a rank to its own standard output ---- */

enum moe_code moe_handover_print(int text, uint64_t at, uint64_t end, int out, struct moe_ep *ep,
                                 struct moe_err *err)
{
    char block[PIPE_BUF]; /* a pipe that poll() says can be written takes this much without blocking */
    while (at < end) {
        size_t n = end - at < sizeof block ? (size_t)(end - at) : sizeof block;
        struct pollfd p = { .fd = out, .events = POLLOUT };
        MOE_TRY(moe_ep_heartbeat(ep, err));
        if (poll(&p, 1, moe_ep_tick_ms(ep)) <= 0) continue;
        MOE_TRY(moe_pread(text, "report", block, n, at, err));
        ssize_t done = write(out, block, n);
        if (done < 0 && errno != EINTR && errno != EAGAIN)
            return moe_fail(err, errno == ENOSPC || errno == EDQUOT ? MOE_NOSPACE : MOE_IO,
                            "cannot write to standard output: %s", strerror(errno));
        if (done > 0) at += (uint64_t)done;
    }
    return MOE_OK;
}
