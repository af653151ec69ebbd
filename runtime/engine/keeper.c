/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/keeper.h"

#include "base/hash.h"
#include "base/io.h"
#include "formats/container/identity.h"
#include "model/ops/cuda/kept.h"
#include "runtime/comm/local.h"
#include "runtime/comm/socket.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ENGINES: connections at once; a further one takes the place of the one that has been silent for longest.
 * SILENCE: seconds after which a connection that asks for nothing, or does not read, is closed. */
enum { ENGINES = 64, SILENCE = 10 };

/* A connection.  n: units from `first` on that were asked for and not given yet; given: so far. */
struct client { int fd; double since; int64_t first, given; int n; };

struct moe_keeper {
    struct moe_source *source;
    struct moe_model *model;
    struct moe_device *device;
    struct moe_local local;
    struct moe_keep_message offer;
    int64_t units, attached;
    struct client client[ENGINES]; int n;
    void (*tell)(void *ctx, const char *line);
    void *ctx;
};

/* ---- what is kept ---- */

/* Of a checkpoint nothing is read: what its files say of themselves has to do, on one machine. */
static enum moe_code digest_of(const struct moe_source *src, struct moe_hash128 *digest, struct moe_err *err)
{
    struct moe_identity id = moe_source_origin(src, NULL);
    if (src->kind == MOE_CONTAINER) {
        MOE_TRY(moe_source_identity(src, NULL, &id, err));
        *digest = moe_identity_digest(&id);
        return MOE_OK;
    }
    *digest = moe_hash128(&id.header_digest, sizeof id.header_digest);
    for (int32_t i = 0; i < src->n_files; i++) {
        const struct moe_file *f = &src->files[i];
        const uint64_t parts[] = { digest->high, digest->low, (uint64_t)f->written, f->size };
        *digest = moe_hash128(parts, sizeof parts);
    }
    return MOE_OK;
}

enum moe_code moe_keeper_terms(const struct moe_device *d, struct moe_keep_terms *t, struct moe_err *err)
{
    struct moe_cuda_kept kept;
    struct moe_hash128 digest;
    char text[MOE_KEEP_VALUE];
    *t = (struct moe_keep_terms){ 0 };
    MOE_TRY(moe_cuda_kept(d, &kept, err));
    MOE_TRY(digest_of(d->model->source, &digest, err));
    moe_hex128(digest, text);
    moe_keep_add(t, "GPU", kept.gpu);
    moe_keep_add(t, "model", text);
    moe_keep_add(t, "set of experts", kept.experts);
    snprintf(text, sizeof text, "%s, %llu bytes in %lld units", kept.layout, (unsigned long long)kept.bytes,
             (long long)kept.units);
    moe_keep_add(t, "layout", text);
    return MOE_OK;
}

/* ---- connections ---- */

static void drop(struct moe_keeper *k, int i)
{
    close(k->client[i].fd);
    k->client[i] = k->client[--k->n];
}

static void say(const struct moe_keeper *k, const char *what)
{
    if (k->tell) k->tell(k->ctx, what);
}

static bool send_message(int fd, const struct moe_keep_message *m, const int *file, int n)
{
    unsigned char packet[MOE_KEEP_PACKET];
    return moe_local_send(fd, packet, moe_keep_put(packet, m), file, n);
}

static void drop_longest(struct moe_keeper *k)
{
    int longest = 0;
    for (int i = 1; i < k->n; i++)
        if (k->client[i].since < k->client[longest].since) longest = i;
    if (k->n) drop(k, longest);
    else poll(NULL, 0, 50);
}

static void accept_all(struct moe_keeper *k)
{
    for (int turns = ENGINES; turns; turns--) { /* after so many, open connections are served */
        bool full;
        int fd = moe_socket_accept(k->local.fd, &full);
        if (full) drop_longest(k);
        if (fd < 0) return;
        if (k->n == ENGINES) drop_longest(k);
        k->client[k->n++] = (struct client){ .fd = fd, .since = moe_now() };
        if (!send_message(fd, &k->offer, NULL, 0)) drop(k, k->n - 1);
    }
}

/* Ends a connection with the reason. */
static void refuse(struct moe_keeper *k, int i, const char *why)
{
    struct moe_keep_message m = { .version = MOE_KEEP_VERSION, .type = MOE_KEEP_FAILED };
    char line[MOE_KEEP_TEXT + 64];
    snprintf(m.text, sizeof m.text, "%s", why);
    send_message(k->client[i].fd, &m, NULL, 0);
    snprintf(line, sizeof line, "an engine could not attach: %s", m.text);
    say(k, line);
    drop(k, i);
}

/* ---- giving ---- */

/* The descriptors of the units that connection i has asked for; after a failure there are none. */
static enum moe_code export(struct moe_keeper *k, const struct client *c, int *file, struct moe_err *err)
{
    for (int i = 0; i < c->n; i++)
        if (moe_cuda_kept_export(k->device, c->first + i, &file[i], err) != MOE_OK) {
            while (i) close(file[--i]);
            return err->code;
        }
    return MOE_OK;
}

static void count(struct moe_keeper *k, struct client *c)
{
    char line[64];
    c->given += c->n;
    c->n = 0;
    if (c->given != k->units) return;
    snprintf(line, sizeof line, "engine %lld has attached", (long long)++k->attached);
    say(k, line);
}

/* Gives connection i what it has asked for.  What cannot be sent now, because the other side has not read
 * what came before or too many descriptors are under way, is tried again in the next turn.  *dropped: the
 * connection is gone.  Fails when the GPU is lost. */
static enum moe_code give(struct moe_keeper *k, int i, bool *dropped, struct moe_err *err)
{
    struct client *c = &k->client[i];
    struct moe_keep_message m = { .version = MOE_KEEP_VERSION, .type = MOE_KEEP_GIVE,
                                  .first = (uint64_t)c->first, .n = (uint32_t)c->n };
    int file[MOE_KEEP_UNITS];
    enum moe_code code = export(k, c, file, err);
    *dropped = code != MOE_OK;
    if (code != MOE_OK) {
        refuse(k, i, err->msg);
        return moe_cuda_kept_is_lost(k->device) ? code : MOE_OK;
    }
    bool sent = send_message(c->fd, &m, file, c->n);
    int e = errno;
    for (int n = 0; n < c->n; n++) close(file[n]);
    if (sent) count(k, c);
    *dropped = !sent && e != EAGAIN && e != ETOOMANYREFS;
    if (*dropped) drop(k, i);
    return MOE_OK;
}

/* Reads what connection i asks for.  False: it is gone. */
static bool hear(struct moe_keeper *k, int i)
{
    struct client *c = &k->client[i];
    unsigned char packet[MOE_KEEP_PACKET];
    struct moe_keep_message m;
    ssize_t got = moe_local_receive(c->fd, packet, sizeof packet, NULL, NULL);
    if (got < 0 && errno == EAGAIN) return true;
    if (!got || (got < 0 && errno != EMSGSIZE)) {
        drop(k, i);
        return false;
    }
    bool sound = got > 0 && moe_keep_get(packet, (size_t)got, &m) && m.version == MOE_KEEP_VERSION &&
                 m.type == MOE_KEEP_TAKE && !c->n && m.first <= (uint64_t)k->units &&
                 m.n <= (uint64_t)k->units - m.first;
    if (!sound) {
        refuse(k, i, "it asked for what is not there");
        return false;
    }
    c->first = (int64_t)m.first;
    c->n = (int)m.n;
    c->since = moe_now();
    return true;
}

/* ---- serving ---- */

static enum moe_code turn(struct moe_keeper *k, const struct pollfd *p, struct moe_err *err)
{
    for (int i = k->n - 1; i >= 0; i--) { /* a dropped one's place is taken by the last */
        bool dropped = false;
        if (p[i].revents && !hear(k, i)) continue;
        if (k->client[i].n) MOE_TRY(give(k, i, &dropped, err));
        if (!dropped && moe_now() - k->client[i].since > SILENCE) drop(k, i);
    }
    return MOE_OK;
}

enum moe_code moe_keeper_serve(struct moe_keeper *k, const struct moe_cancel *cancel,
                               void (*tell)(void *ctx, const char *line), void *ctx, struct moe_err *err)
{
    k->tell = tell;
    k->ctx = ctx;
    while (!moe_is_cancelled(cancel)) {
        struct pollfd p[ENGINES + 1];
        bool waits = false;
        for (int i = 0; i < k->n; i++) {
            p[i] = (struct pollfd){ .fd = k->client[i].fd, .events = POLLIN };
            waits |= k->client[i].n > 0;
        }
        p[k->n] = (struct pollfd){ .fd = k->local.fd, .events = POLLIN };
        int n = k->n, there = poll(p, (nfds_t)n + 1, waits ? 5 : 500);
        if (there < 0 && errno == EINTR) continue;
        if (there < 0) return moe_fail_errno(err, errno, k->local.path, "cannot wait for engines");
        MOE_TRY(turn(k, p, err));
        if (p[n].revents) accept_all(k);
    }
    return MOE_OK;
}

/* ---- opening and closing ---- */

static enum moe_code open_parts(struct moe_keeper *k, const char *path, const char *socket,
                                const struct moe_engine_options *o, struct moe_err *err)
{
    const struct moe_cuda_options cuda = { .index = o->gpu };
    MOE_TRY(moe_local_listen(&k->local, socket, err));
    MOE_TRY(moe_source_open(&k->source, path, err));
    MOE_TRY(moe_model_open(&k->model, k->source, 0, err));
    MOE_TRY(moe_cuda_open(&k->device, k->model, &cuda, err));
    MOE_TRY(moe_keeper_terms(k->device, &k->offer.terms, err));
    k->offer.version = MOE_KEEP_VERSION;
    k->offer.type = MOE_KEEP_OFFER;
    struct moe_cuda_kept kept;
    MOE_TRY(moe_cuda_kept(k->device, &kept, err));
    k->units = kept.units;
    enum moe_code code = moe_cuda_keep(k->device, o->load, o->progress, o->cancel, err);
    MOE_TRY(moe_source_blame_change(k->source, code, err));
    return moe_source_check_unmodified(k->source, err);
}

enum moe_code moe_keeper_open(struct moe_keeper **out, const char *path, const char *socket,
                              const struct moe_engine_options *o, struct moe_err *err)
{
    struct moe_keeper *k = calloc(1, sizeof *k);
    *out = NULL;
    if (!k) return moe_fail(err, MOE_NOMEM, "no memory for a keeper of weights");
    k->local.fd = -1;
    enum moe_code code = open_parts(k, path, socket, o, err);
    if (code != MOE_OK) moe_keeper_close(&k);
    *out = k;
    return code;
}

void moe_keeper_close(struct moe_keeper **pointer)
{
    struct moe_keeper *k = *pointer;
    *pointer = NULL;
    if (!k) return;
    moe_local_close(&k->local);
    while (k->n) drop(k, k->n - 1);
    moe_device_close(&k->device);
    moe_model_close(&k->model);
    moe_source_close(&k->source);
    free(k);
}

const struct moe_device *moe_keeper_device(const struct moe_keeper *k) { return k->device; }
int64_t moe_keeper_attached(const struct moe_keeper *k) { return k->attached; }
