/* SPDX-License-Identifier: Apache-2.0 */
/* The back end for ranks that are processes, on one host or several: it sends UCX active messages.  A
 * message goes whole into the slot that it is for; a small one is copied there, a large one is fetched into
 * it.  There is one worker, which the rank's thread progresses. */
#include "runtime/comm/comm-ucx.h"

#if MOE_HAVE_UCX
#include "base/io.h"
#include "runtime/comm/comm-ucx-internal.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* For so many seconds at most, a rank that closes its comm waits for the BYE of the others, and then for its
 * connections to close. */
enum { LINGER = 5 };

/* A message that is no request and no reply; it is freed when UCX has sent it. */
struct out_message {
    unsigned char head[MOE_WIRE_HEAD_BYTES], data[];
};

static struct ucx *of(struct moe_comm *c) { return (struct ucx *)(void *)c; }

/* Writes the head that goes in front of a message of this rank. */
static void put_head(const struct ucx *x, unsigned char out[MOE_WIRE_HEAD_BYTES], enum kind kind,
                     uint32_t what, uint32_t number)
{
    struct moe_wire_head h = { .kind = kind, .from = (uint32_t)x->c.rank, .what = what, .number = number };
    memcpy(h.key, x->key, sizeof h.key);
    moe_wire_head_put(out, &h);
}

/* UCX calls this when a connection is lost. */
static void failed(void *arg, ucp_ep_h ep, ucs_status_t status)
{
    struct ucx *x = arg;
    (void)status;
    for (int r = 0; r < x->c.ranks; r++)
        if (x->link[r].ep == ep) x->link[r].gone = x->wake = true;
}

/* ---- sending ---- */

/* There is nothing to do: wait_until_sent asks UCX whether a slot is sent. */
static void slot_sent(void *request, ucs_status_t status, void *user)
{
    (void)request, (void)status, (void)user;
}

/* Waits until UCX has sent the slot, so that it can be written again. */
static void wait_until_sent(struct ucx *x, struct link *l, struct slot *s)
{
    while (s->pending) {
        if (x->u->ucp_request_check_status(s->pending) != UCS_INPROGRESS) {
            x->u->ucp_request_free(s->pending);
            s->pending = NULL;
        } else if (l->gone || !x->u->ucp_worker_progress(x->worker)) {
            if (l->gone) return; /* UCX ends the request later, or the process ends */
        }
    }
}

static void send_slot(struct ucx *x, int to, struct slot *s, enum kind kind, size_t bytes)
{
    struct link *l = &x->link[to];
    ucp_request_param_t p = { .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK, .cb.send = slot_sent };
    if (l->gone || !l->ep) return;
    put_head(x, s->head, kind, 0, 0);
    void *r = x->u->ucp_am_send_nbx(l->ep, AM, s->head, sizeof s->head, s->p, bytes, &p);
    if (UCS_PTR_IS_ERR(r)) l->gone = x->wake = true;
    else s->pending = r;
}

/* What UCX gives to message_sent when a struct out_message is sent. */
struct send_context { const struct moe_ucx *u; struct out_message *message; };

static void message_sent(void *request, ucs_status_t status, void *user)
{
    struct send_context *g = user;
    (void)status;
    g->u->ucp_request_free(request);
    free(g->message);
    free(g);
}

/* Sends a copy of `data`; a rank that is gone gets nothing.  False: there is no memory. */
static bool send_message(struct ucx *x, int to, enum kind kind, uint32_t what, uint32_t number,
                         const void *data, size_t bytes)
{
    struct link *l = &x->link[to];
    if (l->gone || !l->ep) return true;
    struct out_message *o = malloc(sizeof *o + bytes);
    struct send_context *g = malloc(sizeof *g);
    if (!o || !g) {
        free(o);
        free(g);
        return false;
    }
    *g = (struct send_context){ x->u, o };
    put_head(x, o->head, kind, what, number);
    if (bytes) memcpy(o->data, data, bytes);
    ucp_request_param_t p = { .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                              .cb.send = message_sent,
                              .user_data = g };
    void *r = x->u->ucp_am_send_nbx(l->ep, AM, o->head, sizeof o->head, o->data, bytes, &p);
    if (UCS_PTR_IS_PTR(r)) return true;
    if (UCS_PTR_IS_ERR(r)) l->gone = x->wake = true;
    free(o);
    free(g);
    return true;
}

static void send_all(struct ucx *x, enum kind kind, uint32_t what)
{
    for (int r = 0; r < x->c.ranks; r++)
        if (r != x->c.rank) send_message(x, r, kind, what, 0, NULL, 0);
}

/* ---- the interface ---- */

static void *ucx_request(struct moe_comm *c, int to)
{
    struct ucx *x = of(c);
    if (to == c->rank) return x->link[to].request_in;
    wait_until_sent(x, &x->link[to], &x->link[to].request);
    return x->link[to].request.p;
}

static enum moe_code ucx_post(struct moe_comm *c, int to, size_t bytes, struct moe_err *err)
{
    struct ucx *x = of(c);
    (void)err;
    x->link[to].has_reply = false;
    x->link[to].owes_reply = true;
    if (to == c->rank) x->link[to].has_request = true;
    else send_slot(x, to, &x->link[to].request, REQUEST, bytes);
    return MOE_OK;
}

static const void *ucx_requested(struct moe_comm *c, int from)
{
    return of(c)->link[from].has_request ? of(c)->link[from].request_in : NULL;
}

static void *ucx_reply(struct moe_comm *c, int to)
{
    struct ucx *x = of(c);
    if (to == c->rank) return x->link[to].reply_in;
    wait_until_sent(x, &x->link[to], &x->link[to].reply);
    return x->link[to].reply.p;
}

static enum moe_code ucx_answer(struct moe_comm *c, int to, size_t bytes, struct moe_err *err)
{
    struct ucx *x = of(c);
    (void)err;
    x->link[to].has_request = false;
    if (to == c->rank) x->link[to].has_reply = true;
    else send_slot(x, to, &x->link[to].reply, REPLY, bytes);
    return MOE_OK;
}

static const void *ucx_answered(struct moe_comm *c, int from)
{
    return of(c)->link[from].has_reply ? of(c)->link[from].reply_in : NULL;
}

static size_t ucx_request_size(struct moe_comm *c, int from)
{
    return from == c->rank ? c->request_bytes : of(c)->link[from].request_in_bytes;
}
static size_t ucx_reply_size(struct moe_comm *c, int from)
{
    return from == c->rank ? c->reply_bytes : of(c)->link[from].reply_in_bytes;
}

static enum moe_code ucx_broadcast(struct moe_comm *c, uint32_t kind, const void *data, size_t bytes,
                                   struct moe_err *err)
{
    struct ucx *x = of(c);
    bool sent = true;
    for (int r = 0; r < c->ranks; r++)
        if (r != c->rank && !c->dead[r])
            sent &= send_message(x, r, BROADCAST, kind, x->broadcasts_sent, data, bytes);
    x->broadcasts_sent++;
    return sent ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for a message of %zu bytes", bytes);
}

static bool ucx_received(struct moe_comm *c, int *from, uint32_t *kind, const void **data, size_t *bytes)
{
    struct ucx *x = of(c);
    free(x->handed);
    x->handed = NULL;
    for (struct broadcast **at = &x->broadcasts, *s; (s = *at); at = &s->next) {
        struct link *l = &x->link[s->head.from];
        /* a large message may come after a small one that was sent later */
        if (!s->here || s->head.number != l->received) continue;
        l->received++;
        l->kept--;
        l->kept_bytes -= s->bytes;
        *at = s->next;
        if (x->broadcasts_end == &s->next) x->broadcasts_end = at;
        x->handed = s;
        *from = (int)s->head.from;
        *kind = s->head.what;
        *data = s->data;
        *bytes = s->bytes;
        return true;
    }
    return false;
}

static void send_heartbeat(struct ucx *x)
{
    double now = moe_now();
    if (now < x->last_heartbeat + x->c.timeout / MOE_COMM_TICKS) return;
    x->last_heartbeat = now;
    send_all(x, HEARTBEAT, 0);
}

static void note_deaths(struct ucx *x)
{
    for (int r = 0; r < x->c.ranks; r++)
        if (x->link[r].gone && !x->c.dead[r] && !x->leaving) {
            moe_comm_lost(&x->c, r);
            send_all(x, GIVEN_UP, (uint32_t)r);
        }
}

static void ucx_wait(struct moe_comm *c, double seconds)
{
    struct ucx *x = of(c);
    double end = moe_now() + seconds;
    send_heartbeat(x);
    while (!x->wake) {
        /* a stream of messages that wake nobody keeps this rank here for one tick more, and no longer */
        double tick = x->c.timeout / MOE_COMM_TICKS;
        if (x->u->ucp_worker_progress(x->worker) && moe_now() < end + tick) continue;
        double left = end - moe_now();
        if (left <= 0) break;
        if (x->u->ucp_worker_arm(x->worker) != UCS_OK) continue; /* something came in between */
        struct pollfd p = { .fd = x->efd, .events = POLLIN };
        if (poll(&p, 1, left < 1 ? (int)(left * 1000) + 1 : 1000) < 0) break; /* a signal ended the poll */
    }
    x->wake = false;
    note_deaths(x);
}

static uint64_t ucx_heartbeats(struct moe_comm *c, int rank) { return of(c)->link[rank].heartbeats; }

static void ucx_give_up(struct moe_comm *c, int rank)
{
    struct ucx *x = of(c);
    send_all(x, GIVEN_UP, (uint32_t)rank); /* that rank is told, too */
    x->link[rank].gone = true;
}

/* ---- open, connect and close ---- */

/* Sends BYE and waits until it has come from all living ranks.  A connection that closed earlier would look
 * like a death to a rank that has not yet received everything. */
static void farewell(struct ucx *x)
{
    double end = moe_now() + LINGER;
    x->leaving = true;
    if (x->c.dead[x->c.rank]) return;
    send_all(x, BYE, 0);
    for (bool all = false; !all && moe_now() < end; ) {
        all = true;
        for (int r = 0; r < x->c.ranks; r++)
            all &= r == x->c.rank || x->c.dead[r] || x->link[r].gone || x->link[r].bye;
        if (!all) ucx_wait(&x->c, end - moe_now());
    }
}

static void close_links(struct ucx *x)
{
    double end = moe_now() + LINGER;
    for (int r = 0; x->link && r < x->c.ranks; r++) {
        struct link *l = &x->link[r];
        if (!l->ep) continue;
        ucp_request_param_t p = { .op_attr_mask = l->gone ? UCP_OP_ATTR_FIELD_FLAGS : 0,
                                  .flags = l->gone ? UCP_EP_CLOSE_FLAG_FORCE : 0 };
        void *q = x->u->ucp_ep_close_nbx(l->ep, &p);
        if (!UCS_PTR_IS_PTR(q)) continue;
        while (x->u->ucp_request_check_status(q) == UCS_INPROGRESS && moe_now() < end)
            x->u->ucp_worker_progress(x->worker);
        x->u->ucp_request_free(q);
    }
}

static void ucx_close(struct moe_comm *c)
{
    struct ucx *x = of(c);
    if (x->ready) farewell(x);
    x->leaving = true;
    close_links(x);
    if (x->address) x->u->ucp_worker_release_address(x->worker, x->address);
    if (x->worker) x->u->ucp_worker_destroy(x->worker);
    if (x->context) x->u->ucp_cleanup(x->context);
    for (struct broadcast *s = x->broadcasts, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    free(x->handed);
    if (x->memory) munmap(x->memory, x->memory_bytes);
    free(x->link);
    moe_comm_release(c);
    free(x);
}

static const struct moe_comm_ops ops = {
    "ucx",          ucx_request,  ucx_post,      ucx_requested,    ucx_reply,
    ucx_answer,     ucx_answered, ucx_broadcast, ucx_received,     ucx_wait,
    ucx_heartbeats, ucx_give_up,  ucx_close,     ucx_request_size, ucx_reply_size,
};

static enum moe_code slots(struct ucx *x, struct moe_err *err)
{
    size_t a = x->c.request_bytes, b = x->c.reply_bytes, n = (size_t)x->c.ranks;
    x->link = calloc(n, sizeof *x->link);
    x->memory_bytes = 2 * n * (a + b);
    void *p = mmap(NULL, x->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (p == MAP_FAILED || !x->link)
        return moe_fail(err, MOE_NOMEM, "no memory for the slots of %d ranks", x->c.ranks);
    unsigned char *m = x->memory = p;
    for (size_t r = 0; r < n; r++, m += 2 * (a + b)) {
        x->link[r].request_in = m;
        x->link[r].request.p = m + a;
        x->link[r].reply_in = m + 2 * a;
        x->link[r].reply.p = m + 2 * a + b;
    }
    return MOE_OK;
}

/* here: all ranks run on this host. */
static enum moe_code start(struct ucx *x, bool here, struct moe_err *err)
{
    ucp_params_t params = { .field_mask = UCP_PARAM_FIELD_FEATURES,
                            .features = UCP_FEATURE_AM | UCP_FEATURE_WAKEUP };
    ucp_worker_params_t worker = { .field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                   .thread_mode = UCS_THREAD_MODE_SINGLE };
    ucp_am_handler_param_t handler = { .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID |
                                                     UCP_AM_HANDLER_PARAM_FIELD_CB |
                                                     UCP_AM_HANDLER_PARAM_FIELD_ARG,
                                       .id = AM,
                                       .cb = moe_ucx_receive,
                                       .arg = x };
    ucp_config_t *config;
    if (moe_ucx_config(x->u, here, &config) != UCS_OK)
        return moe_fail(err, MOE_DEVICE, "--comm ucx: UCX refuses its settings (UCX_* in the environment)");
    ucs_status_t s = x->u->ucp_init_version(UCP_API_MAJOR, UCP_API_MINOR, &params, config, &x->context);
    x->u->ucp_config_release(config);
    if (s == UCS_OK) s = x->u->ucp_worker_create(x->context, &worker, &x->worker);
    if (s == UCS_OK) s = x->u->ucp_worker_get_efd(x->worker, &x->efd);
    if (s == UCS_OK) s = x->u->ucp_worker_set_am_recv_handler(x->worker, &handler);
    if (s == UCS_OK) s = x->u->ucp_worker_get_address(x->worker, &x->address, &x->address_bytes);
    return s == UCS_OK
             ? MOE_OK
             : moe_fail(err, MOE_DEVICE,
                        "--comm ucx: UCX %s does not start (status %d; UCX_LOG_LEVEL=info tells more)",
                        x->u->ucp_get_version_string(), (int)s);
}

enum moe_code moe_comm_ucx_open(struct moe_comm **out, int rank, int ranks, bool here, size_t request_bytes,
                                size_t reply_bytes, double timeout, const void **address,
                                size_t *address_bytes, struct moe_err *err)
{
    const struct moe_ucx *u;
    *out = NULL;
    MOE_TRY(moe_ucx(&u, err));
    struct ucx *x = calloc(1, sizeof *x);
    if (!x) return moe_fail(err, MOE_NOMEM, "no memory for a rank");
    enum moe_code code = moe_comm_init(&x->c, &ops, rank, ranks, (request_bytes + 63) / 64 * 64,
                                       (reply_bytes + 63) / 64 * 64, timeout, err);
    x->u = u;
    x->broadcasts_end = &x->broadcasts;
    if (code == MOE_OK) code = slots(x, err);
    if (code == MOE_OK) code = start(x, here, err);
    if (code != MOE_OK) {
        ucx_close(&x->c);
        return code;
    }
    *address = x->address;
    *address_bytes = x->address_bytes;
    *out = &x->c;
    return MOE_OK;
}

void moe_comm_ucx_set_key(struct moe_comm *c, const unsigned char key[MOE_WIRE_KEY])
{
    memcpy(of(c)->key, key, MOE_WIRE_KEY);
}

enum moe_code moe_comm_ucx_connect(struct moe_comm *c, int rank, const void *address, struct moe_err *err)
{
    struct ucx *x = of(c);
    ucp_ep_params_t p = { .field_mask = UCP_EP_PARAM_FIELD_REMOTE_ADDRESS |
                                        UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE | UCP_EP_PARAM_FIELD_ERR_HANDLER,
                          .address = address,
                          .err_mode = UCP_ERR_HANDLING_MODE_PEER,
                          .err_handler = { failed, x } };
    ucs_status_t s = x->u->ucp_ep_create(x->worker, &p, &x->link[rank].ep);
    return s == UCS_OK
             ? MOE_OK
             : moe_fail(
                   err, MOE_DEVICE,
                   "--comm ucx: rank %d cannot connect to rank %d (status %d; UCX_LOG_LEVEL=info tells more)",
                   c->rank, rank, (int)s);
}

static enum moe_code flush(struct ucx *x, int rank, double end, struct moe_err *err)
{
    ucp_request_param_t p = { 0 };
    void *q = x->u->ucp_ep_flush_nbx(x->link[rank].ep, &p);
    ucs_status_t s = UCS_PTR_IS_PTR(q) ? UCS_INPROGRESS : UCS_PTR_STATUS(q);
    while (s == UCS_INPROGRESS && moe_now() < end) {
        x->u->ucp_worker_progress(x->worker);
        s = x->u->ucp_request_check_status(q);
    }
    if (UCS_PTR_IS_PTR(q)) x->u->ucp_request_free(q);
    return s == UCS_OK
             ? MOE_OK
             : moe_fail(
                   err, MOE_DEVICE,
                   "--comm ucx: rank %d cannot connect to rank %d (status %d; UCX_LOG_LEVEL=info tells more)",
                   x->c.rank, rank, (int)s);
}

/* Sends `kind` (HELLO or WELCOME) to all ranks and waits until it has come from all.  A rank that has sent
 * WELCOME may be at work already and die: the run then goes on without it. */
static enum moe_code round_of(struct ucx *x, enum kind kind, double end, struct moe_err *err)
{
    send_all(x, kind, 0);
    for (int r = 0; r < x->c.ranks; r++) {
        struct link *l = &x->link[r];
        if (r == x->c.rank || l->gone) continue;
        enum moe_code code = flush(x, r, end, err);
        if (code != MOE_OK && !(kind == WELCOME && l->gone)) return code;
        while (!(kind == HELLO ? l->hello : l->welcome || l->gone)) {
            MOE_TRY(moe_cancel_check(x->c.cancel, err));
            ucx_wait(&x->c, 0.1);
            if (x->c.broken.code != MOE_OK) {
                *err = x->c.broken;
                return err->code;
            }
            if ((kind == HELLO && l->gone) || moe_now() > end)
                return moe_fail(err, MOE_DEVICE,
                                "--comm ucx: rank %d was lost while ranks %d and it connected", r, x->c.rank);
        }
    }
    return MOE_OK;
}

enum moe_code moe_comm_ucx_await_ready(struct moe_comm *c, double patience, struct moe_err *err)
{
    double end = moe_now() + patience;
    MOE_TRY(round_of(of(c), HELLO, end, err));
    MOE_TRY(round_of(of(c), WELCOME, end, err));
    of(c)->ready = true;
    return MOE_OK;
}

#else

enum moe_code moe_comm_ucx_await_ready(struct moe_comm *c, double patience, struct moe_err *err)
{
    (void)c, (void)patience;
    return moe_fail(err, MOE_UNSUPPORTED, "--comm ucx: built without UCX");
}

enum moe_code moe_comm_ucx_open(struct moe_comm **out, int rank, int ranks, bool here, size_t request_bytes,
                                size_t reply_bytes, double timeout, const void **address,
                                size_t *address_bytes, struct moe_err *err)
{
    (void)rank, (void)ranks, (void)here, (void)request_bytes, (void)reply_bytes, (void)timeout, (void)address,
        (void)address_bytes;
    *out = NULL;
    return moe_fail(err, MOE_UNSUPPORTED,
                    "--comm ucx: built without UCX (Debian: libucx-dev, then make again)");
}

void moe_comm_ucx_set_key(struct moe_comm *c, const unsigned char key[MOE_WIRE_KEY]) { (void)c, (void)key; }

enum moe_code moe_comm_ucx_connect(struct moe_comm *c, int rank, const void *address, struct moe_err *err)
{
    (void)c, (void)rank, (void)address;
    return moe_fail(err, MOE_UNSUPPORTED, "--comm ucx: built without UCX");
}
#endif
