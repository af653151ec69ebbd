/* SPDX-License-Identifier: Apache-2.0 */
/* The HTTP thread: libmicrohttpd and its callbacks.
 *
 * A request without an answer has its connection suspended.  libmicrohttpd then sees neither that its client
 * has closed it nor that its time is over, so that the server looks for that itself (server.c). */
#include "runtime/server/server-internal.h"

#include "base/io.h"

#include <errno.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* A body that is too large is read over up to so many times the limit, so that its sender reads the answer;
 * connections that wait to be accepted; bytes that the system keeps of an answer (it takes twice as many),
 * which could be megabytes for each client that does not read. */
enum { READ_OVER = 4, BACKLOG = 4096, SEND_BYTES = 128 << 10 };

/* ---- responses ---- */

/* Adds what all responses have; the answer is libmicrohttpd's from then on.  NULL stays NULL. */
static struct MHD_Response *complete(struct moe_exchange *x, struct MHD_Response *r, const char *type)
{
    char seconds[16];
    if (!r) return NULL;
    snprintf(seconds, sizeof seconds, "%d", x->retry_after);
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "X-Request-Id", x->id);
    if (x->retry_after) MHD_add_response_header(r, "Retry-After", seconds);
    if (x->status == 401) MHD_add_response_header(r, "WWW-Authenticate", "Bearer");
    if (x->allow) MHD_add_response_header(r, "Allow", x->allow);
    if (atomic_load(&x->server->state) == MOE_SERVER_DRAINING)
        MHD_add_response_header(r, "Connection", "close");
    x->state = MOE_EXCHANGE_SENT;
    return r;
}

/* The response with the whole answer; NULL: no memory. */
static struct MHD_Response *make_whole(struct moe_exchange *x)
{
    if (x->out.failed) return NULL;
    struct MHD_Response *r = MHD_create_response_from_buffer(x->out.n, x->out.p, MHD_RESPMEM_MUST_FREE);
    if (!r) return NULL;
    x->sent = (int64_t)x->out.n;
    x->out = (struct moe_buffer){ 0 };
    return complete(x, r, x->type ? x->type : "application/json");
}

static void suspend(struct moe_exchange *x)
{
    x->suspended = true;
    MHD_suspend_connection(x->connection);
}

/* Gives libmicrohttpd what there is of a stream, when the client's socket takes more. */
static ssize_t pull(void *cls, uint64_t at, char *to, size_t max)
{
    struct moe_exchange *x = cls;
    (void)at;
    pthread_mutex_lock(&x->lock);
    size_t n = x->out.n - x->out_sent;
    ssize_t got = (ssize_t)(n < max ? n : max);
    if (x->gone) {
        got = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (got) {
        memcpy(to, x->out.p + x->out_sent, (size_t)got);
        x->out_sent += (size_t)got;
        x->sent += got;
        moe_exchange_throttle(x);
    } else if (x->finished) {
        got = MHD_CONTENT_READER_END_OF_STREAM;
    } else {
        suspend(x);
    }
    pthread_mutex_unlock(&x->lock);
    return got;
}

static struct MHD_Response *make_stream(struct moe_exchange *x)
{
    enum { BLOCK = 8192 };
    struct MHD_Response *r = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK, pull, x, NULL);
    if (!r) return NULL;
    MHD_add_response_header(r, "Cache-Control", "no-cache");
    MHD_add_response_header(r, "X-Accel-Buffering", "no");
    return complete(x, r, "text/event-stream");
}

/* Hands the response over, without the exchange's lock: libmicrohttpd has locks of its own around pull. */
static enum MHD_Result give(struct moe_exchange *x, struct MHD_Response *r)
{
    enum MHD_Result ok = MHD_queue_response(x->connection, (unsigned)x->status, r);
    MHD_destroy_response(r);
    return ok;
}

/* ---- requests ---- */

/* The name of a request: the client's own where it is short and plain. */
static void name(struct moe_exchange *x)
{
    const char *given = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "X-Request-Id");
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-";
    size_t n = given ? strspn(given, plain) : 0;
    if (n && n < sizeof x->id && !given[n]) snprintf(x->id, sizeof x->id, "%s", given);
    else moe_random_id(x->id, sizeof x->id, "req-");
}

/* Notes who asks, and for what. */
static void note(struct moe_exchange *x, const char *url, const char *method)
{
    const union MHD_ConnectionInfo *i = MHD_get_connection_info(x->connection,
                                                                MHD_CONNECTION_INFO_CLIENT_ADDRESS);
    const struct sockaddr *a = i ? i->client_addr : NULL;
    socklen_t n = a && a->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    if (!a || getnameinfo(a, n, x->client, sizeof x->client, NULL, 0, NI_NUMERICHOST)) *x->client = 0;
    snprintf(x->path, sizeof x->path, "%s", url);
    snprintf(x->method, sizeof x->method, "%s", method);
}

/* Whether the request has a key, where keys are asked for. */
static bool has_key(struct moe_exchange *x)
{
    static const char bearer[] = "Bearer ";
    const char *given = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Authorization");
    if (!x->server->keys.n) return true;
    if (!given || strncasecmp(given, bearer, sizeof bearer - 1)) return false;
    x->key = moe_keys_find(&x->server->keys, given + sizeof bearer - 1);
    return x->key >= 0;
}

/* Says in x->refused why the request cannot be answered, as far as its head shows. */
static void check_head(struct moe_exchange *x, const char *url, const char *method)
{
    struct moe_server *s = x->server;
    int state = atomic_load(&s->state);
    bool get = !strcmp(method, "GET") || !strcmp(method, "HEAD"), post = !strcmp(method, "POST");
    struct moe_api_error *e = &x->refused;
    x->route = moe_route_find(url);
    if (!(x->route && x->route->open) && !has_key(x)) {
        moe_api_fail(e, 401, NULL, "an API key is needed (Authorization: Bearer KEY)");
        e->code = "invalid_api_key";
        return;
    }
    if (!x->route) {
        moe_api_fail(e, 404, NULL, "there is no path '%.200s' here", url);
        return;
    }
    snprintf(x->tail, sizeof x->tail, "%s", moe_route_tail(x->route, url));
    if ((get && x->route->get) || (post && x->route->post)) {
        if (!x->route->model || state == MOE_SERVER_READY || (get && state == MOE_SERVER_DRAINING)) return;
        moe_api_fail(e, 503, NULL, state == MOE_SERVER_STARTING ? "the model is being loaded" :
                     "the server is ending and takes no new requests");
        e->retry_after = 5;
        return;
    }
    moe_api_fail(e, 405, NULL, "'%s' takes %s", x->route->path, x->route->get ? "GET" : "POST");
    x->allow = x->route->get ? "GET, HEAD" : "POST";
}

/* Whether the body is said to be so large that it is not even read over. */
static bool is_far_too_large(struct moe_exchange *x)
{
    const char *length = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Content-Length");
    const char *expect = MHD_lookup_connection_value(x->connection, MHD_HEADER_KIND, "Expect");
    uint64_t n = length ? strtoull(length, NULL, 10) : 0, max = x->server->o.max_body;
    return n > max * READ_OVER || (expect && n > max);
}

static bool fail_too_large(struct moe_exchange *x)
{
    return moe_api_fail(&x->refused, 413, NULL, "the body is larger than %llu bytes",
                        (unsigned long long)x->server->o.max_body);
}

static enum MHD_Result begin(struct moe_server *s, struct MHD_Connection *c, const char *url,
                             const char *method, void **ctx)
{
    struct moe_exchange *x = moe_exchange_open(s, c);
    if (!x) return MHD_NO;
    *ctx = x;
    name(x);
    note(x, url, method);
    check_head(x, url, method);
    if (!is_far_too_large(x)) return MHD_YES;
    fail_too_large(x);
    pthread_mutex_lock(&x->lock);
    moe_exchange_refuse_locked(x, &x->refused);
    struct MHD_Response *r = make_whole(x);
    pthread_mutex_unlock(&x->lock);
    return r ? give(x, r) : MHD_NO;
}

/* Counts n more bytes among those of all bodies.  False: there are too many. */
static bool count(struct moe_server *s, size_t n)
{
    pthread_mutex_lock(&s->lock);
    bool ok = s->bodies + n <= s->o.bodies_bytes;
    if (ok) s->bodies += n;
    pthread_mutex_unlock(&s->lock);
    return ok;
}

/* Keeps a part of the body, unless the request is refused already. */
static enum MHD_Result take(struct moe_exchange *x, const char *data, size_t n)
{
    struct moe_server *s = x->server;
    x->body_bytes += n;
    if (x->body_bytes > s->o.max_body * READ_OVER) return MHD_NO;
    if (x->refused.status) return MHD_YES;
    if (x->body_bytes > s->o.max_body) {
        fail_too_large(x);
        return MHD_YES;
    }
    if (!count(s, n)) {
        moe_api_fail(&x->refused, 503, NULL, "the bodies of other requests take all memory that is for them");
        x->refused.retry_after = 1;
        return MHD_YES;
    }
    size_t before = x->body.n;
    moe_buffer_put(&x->body, data, n);
    if (!x->body.failed) return MHD_YES;
    pthread_mutex_lock(&s->lock);
    s->bodies -= before + n - x->body.n;
    pthread_mutex_unlock(&s->lock);
    moe_api_fail(&x->refused, 503, NULL, "no memory for the body");
    return MHD_YES;
}

/* The body is there: answers, or lets the intake work; with the lock held. */
static void work(struct moe_exchange *x)
{
    struct moe_api_error e = { 0 };
    if (!x->refused.status && x->route->post) {
        x->state = MOE_EXCHANGE_WORKING;
        x->refs++;
        suspend(x);
        moe_intake_take(x);
        return;
    }
    pthread_mutex_unlock(&x->lock);
    if (x->refused.status) moe_exchange_refuse(x, &x->refused);
    else if (!x->route->answer(x, &e)) moe_exchange_refuse(x, &e);
    pthread_mutex_lock(&x->lock);
}

static enum MHD_Result go_on(struct moe_exchange *x)
{
    struct MHD_Response *r = NULL;
    pthread_mutex_lock(&x->lock);
    bool keep = !x->gone;
    if (keep && x->state == MOE_EXCHANGE_READING) work(x);
    if (keep && x->state == MOE_EXCHANGE_ANSWERED) keep = (r = make_whole(x));
    else if (keep && x->state == MOE_EXCHANGE_STREAMING) keep = (r = make_stream(x));
    else if (keep && x->state == MOE_EXCHANGE_WORKING && !x->suspended) suspend(x);
    pthread_mutex_unlock(&x->lock);
    if (!keep) return MHD_NO;
    return r ? give(x, r) : MHD_YES;
}

static enum MHD_Result on_request(void *cls, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *data, size_t *size, void **ctx)
{
    (void)version;
    struct moe_exchange *x = *ctx;
    if (!x) return begin(cls, c, url, method, ctx);
    if (!*size) return go_on(x);
    enum MHD_Result ok = take(x, data, *size);
    *size = 0;
    return ok;
}

static void on_completed(void *cls, struct MHD_Connection *c, void **ctx,
                         enum MHD_RequestTerminationCode why)
{
    struct moe_exchange *x = *ctx;
    (void)cls, (void)c;
    if (!x) return;
    *ctx = NULL;
    pthread_mutex_lock(&x->lock);
    x->connection = NULL;
    x->suspended = false;
    x->delivered = why == MHD_REQUEST_TERMINATED_COMPLETED_OK;
    moe_exchange_abandon(x);
    pthread_mutex_unlock(&x->lock);
    moe_exchange_drop(x);
}

/* ---- the daemon ---- */

static enum moe_code fail_socket(const struct moe_server *s, const char *what, struct moe_err *err)
{
    return moe_fail(err, MOE_IO, "cannot %s %s port %d: %s", what, s->o.host, s->o.port, strerror(errno));
}

/* Opens a socket that listens at host and port. */
static enum moe_code listen_at(const struct moe_server *s, int *fd, struct moe_err *err)
{
    char port[16];
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV }, *a;
    const int yes = 1, room = SEND_BYTES;
    snprintf(port, sizeof port, "%d", s->o.port);
    int e = getaddrinfo(s->o.host, port, &hints, &a);
    if (e) return moe_fail(err, MOE_USAGE, "--host '%s': %s", s->o.host, gai_strerror(e));
    *fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*fd >= 0) setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (*fd >= 0) setsockopt(*fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof room); /* its connections inherit it */
    enum moe_code code = MOE_OK;
    if (*fd < 0 || bind(*fd, a->ai_addr, a->ai_addrlen)) code = fail_socket(s, "bind", err);
    else if (listen(*fd, BACKLOG)) code = fail_socket(s, "listen at", err);
    if (code != MOE_OK && *fd >= 0) close(*fd);
    freeaddrinfo(a);
    return code;
}

/* Sets info.url to where the socket listens. */
static void name_url(struct moe_server *s, int fd)
{
    struct sockaddr_storage a = { 0 };
    socklen_t n = sizeof a;
    char host[64] = "", port[8] = "";
    getsockname(fd, (struct sockaddr *)&a, &n);
    getnameinfo((struct sockaddr *)&a, n, host, sizeof host, port, sizeof port,
                NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(s->info.url, sizeof s->info.url, strchr(host, ':') ? "http://[%s]:%s" : "http://%s:%s", host,
             port);
}

/* What libmicrohttpd has to say, of clients that it turned away, is of no use to anybody else. */
static void ignore(void *cls, const char *fmt, va_list ap) { (void)cls, (void)fmt, (void)ap; }

enum moe_code moe_http_open(struct moe_server *s, struct moe_err *err)
{
    int fd = -1;
    MOE_TRY(listen_at(s, &fd, err));
    name_url(s, fd);
    const unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
                           MHD_USE_ERROR_LOG;
    s->http = MHD_start_daemon(flags, 0, NULL, NULL, on_request, s,
                               MHD_OPTION_EXTERNAL_LOGGER, ignore, NULL,
                               MHD_OPTION_LISTEN_SOCKET, fd,
                               MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
                               MHD_OPTION_CONNECTION_LIMIT, (unsigned)s->o.connections,
                               MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MOE_HTTP_CONNECTION_BYTES,
                               MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)s->o.patience,
                               MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (s->http) return MOE_OK;
    close(fd);
    return moe_fail(err, MOE_IO, "cannot start the HTTP server");
}

void moe_http_close(struct moe_server *s)
{
    if (s->http) MHD_stop_daemon(s->http);
    s->http = NULL;
}
