/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/attach.h"

#include "base/io.h"
#include "runtime/comm/local.h"
#include "runtime/engine/keeper.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { ATTACH_SECONDS = 10 };
static_assert((int)MOE_CUDA_TAKE <= (int)MOE_KEEP_UNITS && (int)MOE_KEEP_UNITS <= (int)MOE_LOCAL_FILES,
              "what a device takes at once fits a message");

/* ---- messages ---- */

static enum moe_code no_keeper(const struct moe_attach *a, const char *why, struct moe_err *err)
{
    return moe_fail_at(err, MOE_DEVICE, a->socket, NULL, "is no keeper of weights, or a damaged one: %s",
                       why);
}

static enum moe_code silent(const struct moe_attach *a, struct moe_err *err)
{
    return moe_fail_at(err, MOE_DEVICE, a->socket, NULL, "the keeper has said nothing for %d s (it answers "
                       "once it has loaded, and says then that it is ready)", ATTACH_SECONDS);
}

static enum moe_code gone(const struct moe_attach *a, struct moe_err *err)
{
    return moe_fail_at(err, MOE_DEVICE, a->socket, NULL, "the keeper went away");
}

/* Waits until something is there to be read, or the time is over. */
static enum moe_code wait_for_message(const struct moe_attach *a, double end, struct moe_err *err)
{
    struct pollfd p = { .fd = a->fd, .events = POLLIN };
    while (poll(&p, 1, 100) <= 0) {
        MOE_TRY(moe_cancel_check(a->cancel, err));
        if (moe_now() >= end) return silent(a, err);
    }
    return MOE_OK;
}

/* Receives a message of this version, and the descriptors that it brings, which the caller closes. */
static enum moe_code receive(const struct moe_attach *a, struct moe_keep_message *m, int *file, int *n,
                             struct moe_err *err)
{
    unsigned char packet[MOE_KEEP_PACKET];
    MOE_TRY(wait_for_message(a, moe_now() + ATTACH_SECONDS, err));
    ssize_t got = moe_local_receive(a->fd, packet, sizeof packet, file, n);
    if (!got || (got < 0 && errno == ECONNRESET)) return gone(a, err);
    if (got < 0 && errno == EMFILE)
        return moe_fail_at(err, MOE_IO, a->socket, NULL, "too many open files: %d more are needed at a time "
                           "(raise ulimit -n)", MOE_CUDA_TAKE);
    if (got < 0) return no_keeper(a, strerror(errno), err);
    bool sound = moe_keep_get(packet, (size_t)got, m);
    if (sound && m->version == MOE_KEEP_VERSION && m->type != MOE_KEEP_FAILED) return MOE_OK;
    while (*n) close(file[--*n]);
    if (!sound) return no_keeper(a, "it sends what is no message", err);
    if (m->version != MOE_KEEP_VERSION)
        return moe_fail_at(err, MOE_MISMATCH, a->socket, NULL, "the keeper speaks version %u of the "
                           "protocol, and this program version %d (start the keeper with this program)",
                           (unsigned)m->version, MOE_KEEP_VERSION);
    return moe_fail_at(err, MOE_DEVICE, a->socket, NULL, "the keeper: %s", m->text);
}

/* ---- units ---- */

static enum moe_code ask(const struct moe_attach *a, int64_t first, int n, struct moe_err *err)
{
    unsigned char packet[MOE_KEEP_PACKET];
    const struct moe_keep_message m = {
        .version = MOE_KEEP_VERSION, .type = MOE_KEEP_TAKE, .first = (uint64_t)first, .n = (uint32_t)n
    };
    if (moe_local_send(a->fd, packet, moe_keep_put(packet, &m), NULL, 0)) return MOE_OK;
    if (errno == EAGAIN) return silent(a, err); /* the keeper has not read what was sent before */
    return gone(a, err);
}

static enum moe_code take(void *ctx, int64_t first, int n, int *fd, struct moe_err *err)
{
    const struct moe_attach *a = ctx;
    struct moe_keep_message m;
    int got[MOE_LOCAL_FILES], n_got = 0;
    MOE_TRY(ask(a, first, n, err));
    MOE_TRY(receive(a, &m, got, &n_got, err));
    if (m.type == MOE_KEEP_GIVE && m.first == (uint64_t)first && m.n == (uint32_t)n && n_got == n) {
        memcpy(fd, got, (size_t)n * sizeof *fd);
        return MOE_OK;
    }
    while (n_got) close(got[--n_got]);
    return no_keeper(a, "it gives something else than it was asked for", err);
}

/* ---- connecting ---- */

static enum moe_code compare(const struct moe_attach *a, const struct moe_keep_terms *theirs,
                             const struct moe_keep_terms *ours, const char *path, struct moe_err *err)
{
    int i = moe_keep_difference(theirs, ours);
    if (i < 0) return MOE_OK;
    bool alike = (uint32_t)i < theirs->n && (uint32_t)i < ours->n &&
                 !strcmp(theirs->item[i].name, ours->item[i].name);
    if (!alike) return no_keeper(a, "it offers other things than this version does", err);
    return moe_fail_at(err, MOE_MISMATCH, a->socket, NULL, "the keeper has another %s: %s, and for '%s' this "
                       "process needs %s", ours->item[i].name, theirs->item[i].value, path,
                       ours->item[i].value);
}

static enum moe_code meet(const struct moe_attach *a, const struct moe_device *d, const char *path,
                          struct moe_err *err)
{
    struct moe_keep_terms ours = { 0 };
    struct moe_keep_message m;
    int file[MOE_LOCAL_FILES], n = 0;
    MOE_TRY(moe_keeper_terms(d, &ours, err));
    MOE_TRY(receive(a, &m, file, &n, err));
    while (n) close(file[--n]);
    if (m.type != MOE_KEEP_OFFER) return no_keeper(a, "it offers nothing", err);
    return compare(a, &m.terms, &ours, path, err);
}

enum moe_code moe_attach_open(struct moe_attach *a, const char *socket, const struct moe_device *d,
                              const char *path, const struct moe_cancel *cancel, struct moe_err *err)
{
    *a = (struct moe_attach){ .socket = socket, .cancel = cancel, .lender = { a, take } };
    enum moe_code code = moe_local_connect(socket, moe_now() + ATTACH_SECONDS, cancel, &a->fd, err);
    if (code == MOE_NOT_FOUND)
        moe_err_remedy(err, "moe-run MODEL --device cuda --keep SOCKET starts a keeper");
    MOE_TRY(code);
    code = meet(a, d, path, err);
    if (code != MOE_OK) moe_attach_close(a);
    return code;
}

void moe_attach_close(struct moe_attach *a)
{
    if (a->fd >= 0) close(a->fd);
    a->fd = -1;
}
