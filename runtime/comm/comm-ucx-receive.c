/* SPDX-License-Identifier: Apache-2.0 */
/* Receives the messages of other ranks: it checks each against what a rank may send, then puts it where it
 * belongs. */
#include "runtime/comm/comm-ucx-internal.h"

#if MOE_HAVE_UCX
#include "base/sha256.h"

#include <stdlib.h>
#include <string.h>

/* Of the broadcasts of one rank, at most so many, and so many bytes, are kept until the caller takes them. */
enum { KEPT_MAX = 1 << 16 };
static const size_t kept_bytes_max = (size_t)1 << 32;

static void no_memory(struct ucx *x)
{
    if (x->c.broken.code == MOE_OK) moe_fail(&x->c.broken, MOE_NOMEM, "no memory for what other ranks say");
    x->wake = true;
}

static void malformed(struct ucx *x, uint32_t rank, const char *what)
{
    moe_comm_malformed(&x->c, (int)rank, what);
    x->wake = true;
}

/* Notes that a message has come, whole.  s: its entry when it is a broadcast, else NULL. */
static void arrived(struct ucx *x, const struct moe_wire_head *h, size_t bytes, struct broadcast *s)
{
    struct link *l = &x->link[h->from];
    if (h->kind == REQUEST) {
        l->fetching_request = false;
        l->request_in_bytes = bytes;
        l->has_request = true;
    }
    if (h->kind == REPLY) {
        l->fetching_reply = l->owes_reply = false;
        l->reply_in_bytes = bytes;
        l->has_reply = true;
    }
    if (s) s->here = true;
    x->wake = true;
}

/* A large message that UCX fetches.  broadcast: as s of arrived. */
struct fetch {
    struct ucx *x;
    struct moe_wire_head head;
    size_t bytes;
    struct broadcast *broadcast;
};

static void fetched(void *request, ucs_status_t status, size_t length, void *user)
{
    struct fetch *f = user;
    if (status == UCS_OK && length == f->bytes) arrived(f->x, &f->head, f->bytes, f->broadcast);
    else if (status == UCS_OK) malformed(f->x, f->head.from, "a message of another length than it said");
    f->x->u->ucp_request_free(request);
    free(f);
}

/* ---- where a message is received; NULL: it is dropped ---- */

/* The slot for a request.  This rank reads the slot until it has answered the request: a second request would
 * change what was checked. */
static void *request_place(struct ucx *x, const struct moe_wire_head *h, size_t bytes)
{
    struct link *l = &x->link[h->from];
    const char *wrong = NULL;
    if (bytes > x->c.request_bytes) wrong = "a request that is larger than any can be";
    else if (l->has_request || l->fetching_request) wrong = "a request before its last one was answered";
    if (wrong) {
        malformed(x, h->from, wrong);
        return NULL;
    }
    l->fetching_request = true;
    return l->request_in;
}

static void *reply_place(struct ucx *x, const struct moe_wire_head *h, size_t bytes)
{
    struct link *l = &x->link[h->from];
    const char *wrong = NULL;
    if (bytes > x->c.reply_bytes) wrong = "a reply that is larger than any can be";
    else if (!l->owes_reply || l->fetching_reply) wrong = "a reply that nobody asked for";
    if (wrong) {
        malformed(x, h->from, wrong);
        return NULL;
    }
    l->fetching_reply = true;
    return l->reply_in;
}

/* Appends an entry for this message to the list of broadcasts. */
static void *broadcast_place(struct ucx *x, const struct moe_wire_head *h, size_t bytes,
                             struct broadcast **out)
{
    struct link *l = &x->link[h->from];
    bool twice = h->number - l->received >= KEPT_MAX;
    for (const struct broadcast *s = x->broadcasts; s && !twice; s = s->next)
        twice = s->head.from == h->from && s->head.number == h->number;
    const char *wrong = NULL;
    if (twice) wrong = "the same words twice";
    else if (l->kept == KEPT_MAX || bytes > kept_bytes_max - l->kept_bytes)
        wrong = "more words than can be kept";
    if (wrong) malformed(x, h->from, wrong);
    struct broadcast *s = wrong ? NULL : malloc(sizeof *s + bytes);
    if (!s) {
        if (!wrong) no_memory(x);
        return NULL;
    }
    *s = (struct broadcast){ .head = *h, .bytes = bytes };
    *x->broadcasts_end = s;
    x->broadcasts_end = &s->next;
    l->kept++;
    l->kept_bytes += bytes;
    *out = s;
    return s->data;
}

/* Handles a control message, which has a head and no body. */
static void receive_control(struct ucx *x, const struct moe_wire_head *h, size_t bytes)
{
    struct link *l = &x->link[h->from];
    if (h->kind >= KINDS) malformed(x, h->from, "a message of a kind that there is not");
    else if (bytes) malformed(x, h->from, "more bytes than a sign of life has");
    else if (h->kind == GIVEN_UP && h->what >= (uint32_t)x->c.ranks)
        malformed(x, h->from, "news of a rank that there is not");
    else if (h->kind == GIVEN_UP) x->link[h->what].gone = x->wake = true;
    else if (h->kind == BYE) l->bye = x->wake = true;
    else if (h->kind == HELLO) l->hello = x->wake = true;
    else if (h->kind == WELCOME) l->welcome = x->wake = true;
}

/* Begins to fetch a large message into `to`.  UCX keeps `data` until it is fetched. */
static ucs_status_t fetch(struct ucx *x, const struct moe_wire_head *h, void *to, void *data, size_t bytes,
                          struct broadcast *s)
{
    struct fetch *f = malloc(sizeof *f);
    if (!f) {
        no_memory(x);
        return UCS_OK; /* the message is dropped, and this rank fails */
    }
    *f = (struct fetch){ x, *h, bytes, s };
    ucp_request_param_t p = { .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                              .cb.recv_am = fetched,
                              .user_data = f };
    void *r = x->u->ucp_am_recv_data_nbx(x->worker, data, to, bytes, &p);
    if (UCS_PTR_IS_PTR(r)) return UCS_INPROGRESS;
    if (!r) arrived(x, h, bytes, s);
    free(f);
    return UCS_OK;
}

ucs_status_t moe_ucx_receive(void *arg, const void *header, size_t header_bytes, void *data, size_t bytes,
                             const ucp_am_recv_param_t *param)
{
    struct ucx *x = arg;
    struct moe_wire_head h;
    struct broadcast *s = NULL;
    void *to;
    /* a message without the key of this run comes from a stranger */
    if (!moe_wire_head_get(header, header_bytes, &h) || !moe_equal_constant_time(h.key, x->key, MOE_WIRE_KEY))
        return UCS_OK;
    if (h.from >= (uint32_t)x->c.ranks || h.from == (uint32_t)x->c.rank) {
        malformed(x, h.from, "a message, but no other rank has that number");
        return UCS_OK;
    }
    x->link[h.from].heartbeats++;
    if (h.kind > BROADCAST) receive_control(x, &h, bytes);
    if (h.kind > BROADCAST || x->c.dead[h.from]) return UCS_OK;
    if (h.kind == REQUEST) to = request_place(x, &h, bytes);
    else to = h.kind == REPLY ? reply_place(x, &h, bytes) : broadcast_place(x, &h, bytes, &s);
    if (!to) return UCS_OK;
    if (param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) return fetch(x, &h, to, data, bytes, s);
    if (bytes) memcpy(to, data, bytes);
    arrived(x, &h, bytes, s);
    return UCS_OK;
}
#else
typedef int moe_comm_ucx_absent; /* C allows no empty file */
#endif
