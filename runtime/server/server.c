/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/server/server-internal.h"

#include "base/cancel.h"
#include "base/io.h"
#include "base/thread.h"

#include <microhttpd.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

/* Milliseconds between two looks at the connections that wait; seconds after which a stream that has nothing
 * to say gets a comment, so that nobody on the way takes it for dead; seconds for the end of a body to be
 * read that has come; seconds that requests have to end once they are cancelled. */
enum { LOOK_MS = 200, COMMENT_S = 5, READING_S = 1, CANCELLED_S = 5 };

static void sleep_ms(int ms) { nanosleep(&(struct timespec){ .tv_nsec = (long)ms * 1000000 }, NULL); }

/* ---- the engine's thread ---- */

static void *run_engine(void *arg)
{
    struct moe_server *s = arg;
    enum moe_code code = MOE_OK;
    while (code == MOE_OK && !atomic_load(&s->stop_engine)) {
        bool worked = false;
        code = moe_core_step(s->core, &worked, &s->engine_err);
        if (code == MOE_OK && !worked) moe_core_wait(s->core, LOOK_MS * 1e-3);
    }
    atomic_store(&s->engine_code, (int)code);
    return NULL;
}

static enum moe_code start_engine(struct moe_server *s, struct moe_err *err)
{
    int e = moe_thread_start(&s->engine_thread, run_engine, s);
    if (e) return moe_fail(err, MOE_NOMEM, "cannot start a thread: %s", strerror(e));
    s->has_engine = true;
    return MOE_OK;
}

static void stop_engine(struct moe_server *s)
{
    if (!s->has_engine) return;
    atomic_store(&s->stop_engine, true);
    pthread_join(s->engine_thread, NULL);
    s->has_engine = false;
}

/* ---- connections that wait ---- */

/* The socket of a connection that HTTP has not done with; it stays open while the exchange's lock is held. */
static int socket_of(struct moe_exchange *x)
{
    const union MHD_ConnectionInfo *i = MHD_get_connection_info(x->connection,
                                                                MHD_CONNECTION_INFO_CONNECTION_FD);
    return i ? i->connect_fd : -1;
}

/* Whether the client has closed its connection.  One that has only said that it sends nothing more cannot be
 * told from that, and counts as gone, too. */
static bool is_closed(struct moe_exchange *x)
{
    struct pollfd p = { .fd = socket_of(x), .events = POLLRDHUP };
    return p.fd >= 0 && poll(&p, 1, 0) > 0 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR));
}

/* Whether a client has gone whose body is not whole.  libmicrohttpd misses that where the end comes with the
 * last bytes, and would keep the body until the connection's time is over. */
static bool is_cut_off(struct moe_exchange *x, double now)
{
    return x->state == MOE_EXCHANGE_READING && now - x->begun > READING_S && is_closed(x);
}

static void look_at(struct moe_exchange *x, double now)
{
    static const char comment[] = ":\n\n";
    pthread_mutex_lock(&x->lock);
    if (x->connection && is_cut_off(x, now)) {
        shutdown(socket_of(x), SHUT_RDWR); /* which libmicrohttpd sees */
    } else if (x->suspended && x->connection && is_closed(x)) {
        moe_exchange_abandon(x);
    } else if (x->suspended && x->stream && x->state == MOE_EXCHANGE_SENT && now - x->out_time > COMMENT_S) {
        moe_buffer_put(&x->out, comment, sizeof comment - 1);
        x->out_time = now;
        moe_exchange_wake(x);
    }
    pthread_mutex_unlock(&x->lock);
}

/* Looks at all exchanges; returns how many have no answer yet, or one that was not sent to its end. */
static int64_t look(struct moe_server *s)
{
    double now = moe_now();
    pthread_mutex_lock(&s->lock);
    int64_t n = s->n_exchanges;
    for (struct moe_exchange *x = s->first; x; x = x->after) look_at(x, now);
    pthread_mutex_unlock(&s->lock);
    return n;
}

static void abandon_all(struct moe_server *s)
{
    pthread_mutex_lock(&s->lock);
    for (struct moe_exchange *x = s->first; x; x = x->after) {
        pthread_mutex_lock(&x->lock);
        moe_exchange_abandon(x);
        pthread_mutex_unlock(&x->lock);
    }
    pthread_mutex_unlock(&s->lock);
}

/* ---- opening ---- */

static enum moe_code check(const struct moe_server_options *o, struct moe_err *err)
{
    if (o->port < 0 || o->port > 65535)
        return moe_fail(err, MOE_USAGE, "--port %d: want 0 to 65535", o->port);
    if (o->connections < 1 || o->connections > 1000000)
        return moe_fail(err, MOE_USAGE, "--connections %lld: want 1 to 1000000", (long long)o->connections);
    return MOE_OK;
}

/* Lets the process have as many descriptors as connections need. */
static void raise_descriptors(const struct moe_server *s)
{
    struct rlimit r;
    rlim_t want = (rlim_t)s->o.connections + 256;
    if (getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur >= want) return;
    r.rlim_cur = r.rlim_max == RLIM_INFINITY || r.rlim_max > want ? want : r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
}

/* Where no name was given the model has the last part of its path, without ".moe". */
static enum moe_code name_model(struct moe_server *s, struct moe_err *err)
{
    if (s->o.n_names) return MOE_OK;
    char *path = strdup(s->o.model);
    if (!path) return moe_fail(err, MOE_NOMEM, "no memory for a name");
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') path[--n] = 0;
    if (n > 4 && !strcmp(path + n - 4, ".moe")) path[n - 4] = 0;
    const char *slash = strrchr(path, '/');
    s->own_name = strdup(slash && slash[1] ? slash + 1 : path);
    free(path);
    if (!s->own_name) return moe_fail(err, MOE_NOMEM, "no memory for a name");
    s->own_names[0] = s->own_name;
    s->o.names = s->own_names;
    s->o.n_names = 1;
    return MOE_OK;
}

/* Opens the chat template.  Without one the model serves texts alone, unless it was asked for. */
static enum moe_code open_chat(struct moe_server *s, struct moe_err *err)
{
    const struct moe_config *m = &s->engine->source->config;
    const struct moe_chat_hint hint = { m->model_type, m->architecture, s->o.chat_template };
    enum moe_code code = s->engine->tokenizer ?
        moe_chat_open(&s->chat, s->engine->tokenizer, &hint, &s->no_chat) :
        moe_fail(&s->no_chat, MOE_UNSUPPORTED, "the model has no tokenizer, and takes ids alone");
    if (code == MOE_OK || (code == MOE_UNSUPPORTED && !s->o.chat_template)) return MOE_OK;
    *err = s->no_chat;
    return code;
}

/* Opens the model and all that answers; requests are taken from then on. */
static enum moe_code open_model(struct moe_server *s, struct moe_pool *pool, struct moe_err *err)
{
    MOE_TRY(moe_engine_open(&s->engine, s->o.model, &s->o.engine, pool, err));
    s->engine->cancel = NULL; /* what runs is let end */
    MOE_TRY(open_chat(s, err));
    MOE_TRY(moe_core_open(&s->core, s->engine, &s->o.core, err));
    MOE_TRY(start_engine(s, err));
    MOE_TRY(moe_reader_open(s, err));
    MOE_TRY(moe_intake_open(s, err));
    s->info.model = s->o.names[0];
    s->info.cache_tokens = moe_core_stats(s->core).pages * MOE_PAGE;
    s->info.context = s->engine->context;
    atomic_store(&s->state, MOE_SERVER_READY);
    return s->o.ready ? s->o.ready(s->o.ctx, &s->info, err) : MOE_OK;
}

/* ---- serving and closing ---- */

static bool has_failed(struct moe_server *s) { return atomic_load(&s->engine_code) != MOE_OK; }

static void serve(struct moe_server *s)
{
    while (!moe_is_cancelled(s->o.cancel) && !has_failed(s)) {
        look(s);
        sleep_ms(LOOK_MS);
    }
    atomic_store(&s->state, MOE_SERVER_DRAINING);
    for (double end = moe_now() + s->o.drain_timeout; look(s) && moe_now() < end && !has_failed(s);)
        sleep_ms(LOOK_MS / 4);
}

static void close_server(struct moe_server *s)
{
    atomic_store(&s->state, MOE_SERVER_DRAINING);
    moe_intake_close(s);
    for (double end = moe_now() + CANCELLED_S; moe_now() < end; sleep_ms(LOOK_MS / 20)) {
        abandon_all(s);
        if (!s->core || has_failed(s) || !look(s)) break;
    }
    moe_http_close(s);
    stop_engine(s);
    moe_reader_close(s);
    moe_core_close(&s->core);
    moe_chat_close(&s->chat);
    moe_engine_close(&s->engine);
    moe_log_close(s);
    moe_keys_release(&s->keys);
    free(s->own_name);
}

enum moe_code moe_server_run(const struct moe_server_options *o, struct moe_pool *pool, struct moe_err *err)
{
    struct moe_server s = { .o = *o, .created = (int64_t)time(NULL), .taken_end = &s.taken,
                            .log = -1 };
    MOE_TRY(check(o, err));
    pthread_mutex_init(&s.lock, NULL);
    pthread_mutex_init(&s.intake_lock, NULL);
    pthread_cond_init(&s.intake_work, NULL);
    raise_descriptors(&s);
    enum moe_code code = name_model(&s, err);
    if (code == MOE_OK && o->key_file) code = moe_keys_read(&s.keys, o->key_file, err);
    if (code == MOE_OK) code = moe_log_open(&s, err);
    if (code == MOE_OK) code = moe_http_open(&s, err);
    if (code == MOE_OK) code = open_model(&s, pool, err);
    if (code == MOE_OK) serve(&s);
    close_server(&s);
    if (code == MOE_OK && has_failed(&s)) {
        *err = s.engine_err;
        code = err->code;
    }
    pthread_cond_destroy(&s.intake_work);
    pthread_mutex_destroy(&s.intake_lock);
    pthread_mutex_destroy(&s.lock);
    return code;
}
