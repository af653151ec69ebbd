#include "runtime/rendezvous.h"

#include "base/io.h"
#include "base/tool.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* Both ways: this, then `bytes` bytes: an address; or offsets [ranks + 1] and all addresses; or, when code is not MOE_OK, a struct moe_err. */
struct hello { char magic[8]; uint32_t version; int32_t rank, ranks; uint32_t code; uint64_t identity, bytes; };

#define MAGIC "MOERANKS"
enum { VERSION = 2, ADDRESS_MAX = 1 << 20, PATIENCE = 10 /* seconds for a message once it has begun */ };

/* ---- sockets ---- */

static enum moe_code transfer(int fd, void *data, size_t bytes, bool out, double end)
{
    char *p = data;
    for (size_t done = 0; done < bytes; ) {
        struct pollfd f = { .fd = fd, .events = out ? POLLOUT : POLLIN };
        double left = end - moe_now();
        if (left <= 0 || (poll(&f, 1, (int)(left * 1000) + 1) < 0 && errno != EINTR)) return MOE_DEVICE;
        ssize_t n = out ? send(fd, p + done, bytes - done, MSG_NOSIGNAL | MSG_DONTWAIT) : recv(fd, p + done, bytes - done, MSG_DONTWAIT);
        if (n > 0) done += (size_t)n;
        else if (n == 0 || (errno != EAGAIN && errno != EINTR)) return MOE_DEVICE;
    }
    return MOE_OK;
}

static enum moe_code unix_name(const char *name, struct sockaddr_un *a, socklen_t *len, struct moe_err *err)
{
    size_t n = strlen(name);
    *a = (struct sockaddr_un){ .sun_family = AF_UNIX };
    if (!n || n > sizeof a->sun_path - 2) return moe_fail(err, MOE_USAGE, "--rendezvous unix:%s: want 1 to %zu characters", name, sizeof a->sun_path - 2);
    memcpy(a->sun_path + 1, name, n);
    *len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + n);
    return MOE_OK;
}

/* listen: a socket that listens there.  Else one that is connected, or -1 when nobody answers (yet). */
static enum moe_code reach(const char *where, bool listening, int *fd, struct moe_err *err)
{
    struct sockaddr_un u;
    socklen_t len = 0;
    char host[256];
    *fd = -1;
    if (!strncmp(where, "unix:", 5)) {
        MOE_TRY(unix_name(where + 5, &u, &len, err));
        *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool ok = *fd >= 0 && !(listening ? bind(*fd, (struct sockaddr *)&u, len) : connect(*fd, (struct sockaddr *)&u, len));
        if (!ok && *fd >= 0) close(*fd);
        if (!ok) *fd = -1;
        return ok || !listening ? MOE_OK : moe_fail(err, MOE_DEVICE, "cannot listen at '%s': %s", where, strerror(errno));
    }
    const char *colon = strrchr(where, ':');
    if (!colon || colon == where || !colon[1] || (size_t)(colon - where) >= sizeof host)
        return moe_fail(err, MOE_USAGE, "--rendezvous '%s': want HOST:PORT", where);
    bool bracket = where[0] == '[' && colon[-1] == ']';
    snprintf(host, sizeof host, "%.*s", (int)(colon - where) - 2 * bracket, where + bracket);
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = listening ? AI_PASSIVE : 0 }, *list = NULL;
    int e = getaddrinfo(host, colon + 1, &hints, &list);
    if (e) return moe_fail(err, e == EAI_MEMORY ? MOE_NOMEM : MOE_DEVICE, "--rendezvous '%s': %s", where, gai_strerror(e));
    for (struct addrinfo *a = list; a && *fd < 0; a = a->ai_next) {
        int s = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (s < 0) continue;
        if (listening) setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
        if (!(listening ? bind(s, a->ai_addr, a->ai_addrlen) : connect(s, a->ai_addr, a->ai_addrlen))) *fd = s;
        else e = errno, close(s);
    }
    freeaddrinfo(list);
    if (*fd < 0 && listening) return moe_fail(err, MOE_DEVICE, "rank 0 cannot listen at '%s': %s", where, strerror(e));
    return MOE_OK;
}

/* ---- rank 0 ---- */

struct guest { int fd; struct hello hello; unsigned char *data; };

static enum moe_code let_in(const struct moe_rendezvous *v, struct guest *g, int fd, struct moe_err *err)
{
    struct hello h;
    double end = moe_now() + PATIENCE;
    if (transfer(fd, &h, sizeof h, false, end) != MOE_OK || memcmp(h.magic, MAGIC, sizeof h.magic) || h.bytes > ADDRESS_MAX) {
        close(fd); /* some other program */
        return MOE_OK;
    }
    unsigned char *data = malloc((size_t)h.bytes + 1);
    if (!data || transfer(fd, data, (size_t)h.bytes, false, end) != MOE_OK) {
        free(data);
        close(fd);
        return data ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for the addresses of ranks");
    }
    bool good = h.version == VERSION && h.ranks == v->ranks && h.rank > 0 && h.rank < v->ranks && g[h.rank].fd < 0;
    if (!good) {
        free(data);
        close(fd);
        if (h.version != VERSION || h.ranks != v->ranks) return moe_fail(err, MOE_MISMATCH, "a rank came that wants %d ranks, here are %d (or another version of moe-run)", h.ranks, v->ranks);
        return moe_fail(err, MOE_DEVICE, "rank %d came twice, or is none of %d", h.rank, v->ranks);
    }
    g[h.rank] = (struct guest){ fd, h, data };
    return MOE_OK;
}

static enum moe_code wait_for_all(const struct moe_rendezvous *v, struct guest *g, struct moe_err *err)
{
    double end = moe_now() + v->timeout;
    int door;
    MOE_TRY(reach(v->where, true, &door, err));
    enum moe_code code = listen(door, 128) ? moe_fail(err, MOE_DEVICE, "rank 0 cannot listen at '%s': %s", v->where, strerror(errno)) : MOE_OK;
    for (int missing = v->ranks - 1; code == MOE_OK && missing; ) {
        struct pollfd p = { .fd = door, .events = POLLIN };
        code = moe_interrupted(err);
        if (code == MOE_OK && moe_now() > end) {
            int r = 1;
            while (g[r].fd >= 0) r++;
            code = moe_fail(err, MOE_DEVICE, "rank %d did not come to '%s' within %g seconds (%d of %d are missing)", r, v->where, v->timeout, missing, v->ranks);
        }
        if (code != MOE_OK || poll(&p, 1, 100) <= 0) continue;
        int fd = accept4(door, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) code = let_in(v, g, fd, err);
        missing = 0;
        for (int r = 1; r < v->ranks; r++) missing += g[r].fd < 0;
    }
    close(door);
    return code;
}

/* The lowest failure of all, or that they do not belong together. */
static enum moe_code judge(const struct moe_rendezvous *v, const struct guest *g, struct moe_err *err)
{
    for (int r = 1; r < v->ranks; r++) {
        if (g[r].hello.code != MOE_OK && g[r].hello.bytes == sizeof *err) {
            memcpy(err, g[r].data, sizeof *err);
            return moe_wrap(err, "rank %d", r);
        }
        if (g[r].hello.identity != v->identity)
            return moe_fail(err, MOE_MISMATCH, "rank %d has another model, plan or settings than rank 0 (give all ranks the same)", r);
    }
    return MOE_OK;
}

static enum moe_code join(const struct moe_rendezvous *v, const struct guest *g, const void *mine, size_t bytes, unsigned char **all, size_t *offset, struct moe_err *err)
{
    size_t at = 0;
    for (int r = 0; r < v->ranks; r++) {
        offset[r] = at;
        at += r ? (size_t)g[r].hello.bytes : bytes;
    }
    offset[v->ranks] = at;
    *all = malloc(at + 1);
    if (!*all) return moe_fail(err, MOE_NOMEM, "no memory for the addresses of ranks");
    memcpy(*all, mine, bytes);
    for (int r = 1; r < v->ranks; r++) memcpy(*all + offset[r], g[r].data, (size_t)g[r].hello.bytes);
    return MOE_OK;
}

static void send_off(const struct moe_rendezvous *v, struct guest *g, enum moe_code code, struct moe_err *err, unsigned char *all, size_t *offset)
{
    struct hello h = { .magic = MAGIC, .version = VERSION, .ranks = v->ranks, .code = code };
    size_t table = (size_t)(v->ranks + 1) * sizeof *offset;
    h.bytes = code == MOE_OK ? table + offset[v->ranks] : sizeof *err;
    for (int r = 1; r < v->ranks; r++) {
        double end = moe_now() + PATIENCE;
        if (g[r].fd < 0 || transfer(g[r].fd, &h, sizeof h, true, end) != MOE_OK) continue; /* one that is gone will be missed soon enough */
        if (code != MOE_OK) transfer(g[r].fd, err, sizeof *err, true, end);
        else if (transfer(g[r].fd, offset, table, true, end) == MOE_OK) transfer(g[r].fd, all, offset[v->ranks], true, end);
    }
}

static enum moe_code host(const struct moe_rendezvous *v, const struct moe_err *failure, const void *mine, size_t bytes, unsigned char **all, size_t *offset,
                          struct moe_err *err)
{
    struct guest *g = calloc((size_t)v->ranks, sizeof *g);
    if (!g) return moe_fail(err, MOE_NOMEM, "no memory for %d ranks", v->ranks);
    for (int r = 0; r < v->ranks; r++) g[r].fd = -1;
    struct moe_err said = *failure;
    enum moe_code code = wait_for_all(v, g, err);
    if (code == MOE_OK && failure->code != MOE_OK) code = said.code, *err = said;
    if (code == MOE_OK) code = judge(v, g, err);
    if (code == MOE_OK) code = join(v, g, mine, bytes, all, offset, err);
    send_off(v, g, code, err, *all, offset);
    for (int r = 1; r < v->ranks; r++) {
        if (g[r].fd >= 0) close(g[r].fd);
        free(g[r].data);
    }
    free(g);
    return code;
}

/* ---- the others ---- */

static enum moe_code connect_in_time(const struct moe_rendezvous *v, int *fd, struct moe_err *err)
{
    double end = moe_now() + v->timeout;
    for (;;) {
        MOE_TRY(reach(v->where, false, fd, err));
        if (*fd >= 0) return MOE_OK;
        MOE_TRY(moe_interrupted(err));
        if (moe_now() > end) return moe_fail(err, MOE_DEVICE, "rank %d found nobody at '%s' within %g seconds (is rank 0 there?)", v->rank, v->where, v->timeout);
        poll(NULL, 0, 50);
    }
}

static enum moe_code taken_in(const struct moe_rendezvous *v, int fd, unsigned char **all, size_t *offset, struct moe_err *err)
{
    struct hello h;
    double end = moe_now() + v->timeout + PATIENCE;
    size_t table = (size_t)(v->ranks + 1) * sizeof *offset;
    enum moe_code bad = moe_fail(err, MOE_DEVICE, "rank %d: rank 0 at '%s' went away", v->rank, v->where);
    if (transfer(fd, &h, sizeof h, false, end) != MOE_OK || memcmp(h.magic, MAGIC, sizeof h.magic)) return bad;
    if (h.code != MOE_OK) {
        struct moe_err e;
        if (h.bytes != sizeof e || transfer(fd, &e, sizeof e, false, end) != MOE_OK) return bad;
        *err = e;
        return e.code;
    }
    if (h.ranks != v->ranks || h.bytes < table || transfer(fd, offset, table, false, end) != MOE_OK || offset[v->ranks] != h.bytes - table) return bad;
    *all = malloc(offset[v->ranks] + 1);
    if (!*all) return moe_fail(err, MOE_NOMEM, "no memory for the addresses of ranks");
    return transfer(fd, *all, offset[v->ranks], false, end) == MOE_OK ? MOE_OK : bad;
}

static enum moe_code visit(const struct moe_rendezvous *v, const struct moe_err *failure, const void *mine, size_t bytes, unsigned char **all, size_t *offset,
                           struct moe_err *err)
{
    struct moe_err said = *failure;
    struct hello h = { .magic = MAGIC, .version = VERSION, .rank = v->rank, .ranks = v->ranks, .code = said.code, .identity = v->identity, .bytes = bytes };
    const void *data = mine;
    int fd;
    if (said.code != MOE_OK) {
        h.bytes = sizeof said;
        data = &said;
    }
    MOE_TRY(connect_in_time(v, &fd, err));
    double end = moe_now() + PATIENCE;
    enum moe_code code = transfer(fd, &h, sizeof h, true, end);
    if (code == MOE_OK) code = transfer(fd, (void *)(uintptr_t)data, (size_t)h.bytes, true, end);
    code = code == MOE_OK ? taken_in(v, fd, all, offset, err) : moe_fail(err, MOE_DEVICE, "rank %d: rank 0 at '%s' does not listen", v->rank, v->where);
    close(fd);
    return code;
}

enum moe_code moe_rendezvous(const struct moe_rendezvous *v, const struct moe_err *failure, const void *mine, size_t bytes, unsigned char **all,
                             size_t *offset, struct moe_err *err)
{
    *all = NULL;
    enum moe_code code = v->rank ? visit(v, failure, mine, bytes, all, offset, err) : host(v, failure, mine, bytes, all, offset, err);
    if (code != MOE_OK) free(*all), *all = NULL;
    return code;
}
