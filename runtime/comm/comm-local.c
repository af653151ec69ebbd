/* SPDX-License-Identifier: Apache-2.0 */
/* The back end for ranks that are threads of one process.  Each rank has a window: request slots that other
 * ranks write, by source, and reply slots that it writes, by client; clients read them in place.  The writer
 * of a slot increments a counter (of requests, or of answers) with release after the data, and the reader
 * loads it with acquire before the data.  Besides these counters, and a condition variable on which a rank
 * sleeps, ranks share nothing that changes. */
#include "runtime/comm/comm.h"

#include "base/io.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

/* How many requests rank `from` has posted to rank `to`, and how many of these are answered. */
struct pair { _Atomic uint64_t requests, answers; };

/* A message to all ranks, in the list of the hub. */
struct broadcast {
    struct broadcast *_Atomic next;
    int from;
    uint32_t kind;
    size_t bytes;
    unsigned char data[];
};

/* The shared state of one rank.  rings: incremented after every change for which the rank may be asleep. */
struct rank {
    _Alignas(128) _Atomic uint64_t rings;
    _Atomic bool asleep;
    _Atomic bool dead;
    _Atomic uint64_t heartbeats;
    pthread_mutex_t lock;
    pthread_cond_t bell;
    unsigned char *window; /* [ranks] request slots, then [ranks] reply slots */
};

struct moe_hub {
    int ranks;
    size_t request_bytes, reply_bytes; /* rounded to 64 */
    double timeout;
    struct rank *rank;     /* [ranks] */
    struct pair *pair;     /* [to][from] */
    pthread_mutex_t lock;           /* held to append to the list of messages */
    struct broadcast *first, *last; /* all messages to all ranks; the first entry is empty */
};

/* The comm of one rank.  at: the last message that this rank has received.  rings: its count of rings when it
 * last looked. */
struct local { struct moe_comm c; struct moe_hub *h; struct broadcast *at; uint64_t rings; };

static struct local *of(struct moe_comm *c) { return (struct local *)(void *)c; }
static struct pair *pair(struct moe_hub *h, int to, int from)
{
    return &h->pair[(size_t)to * (size_t)h->ranks + (size_t)from];
}
static size_t window_bytes(const struct moe_hub *h)
{
    return (size_t)h->ranks * (h->request_bytes + h->reply_bytes);
}

/* ---- the hub ---- */

enum moe_code moe_hub_open(struct moe_hub **out, int ranks, size_t request_bytes, size_t reply_bytes,
                           double timeout, struct moe_err *err)
{
    struct moe_hub *h = calloc(1, sizeof *h);
    pthread_condattr_t monotonic;
    *out = NULL;
    if (!h) return moe_fail(err, MOE_NOMEM, "no memory for %d ranks", ranks);
    *h = (struct moe_hub){ .request_bytes = (request_bytes + 63) / 64 * 64,
                           .reply_bytes = (reply_bytes + 63) / 64 * 64,
                           .timeout = timeout };
    h->rank = aligned_alloc(128, (size_t)ranks * sizeof *h->rank);
    h->pair = calloc((size_t)ranks * (size_t)ranks, sizeof *h->pair);
    h->first = h->last = calloc(1, sizeof *h->first);
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    for (int r = 0; h->rank && r < ranks; r++) {
        memset(&h->rank[r], 0, sizeof h->rank[r]);
        pthread_mutex_init(&h->rank[r].lock, NULL);
        pthread_cond_init(&h->rank[r].bell, &monotonic);
        h->ranks = r + 1;
    }
    pthread_condattr_destroy(&monotonic);
    bool ok = h->rank && h->pair && h->first;
    /* this reserves addresses; the system adds pages when tokens are written to them */
    for (int r = 0; ok && r < ranks; r++) {
        void *p = mmap(NULL, window_bytes(h), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        ok = p != MAP_FAILED;
        if (ok) h->rank[r].window = p;
    }
    if (!ok) {
        moe_hub_close(&h);
        return moe_fail(err, MOE_NOMEM, "no memory for the windows of %d ranks", ranks);
    }
    *out = h;
    return MOE_OK;
}

void moe_hub_close(struct moe_hub **ph)
{
    struct moe_hub *h = *ph;
    *ph = NULL;
    if (!h) return;
    for (int r = 0; r < h->ranks; r++) {
        if (h->rank[r].window) munmap(h->rank[r].window, window_bytes(h));
        pthread_mutex_destroy(&h->rank[r].lock);
        pthread_cond_destroy(&h->rank[r].bell);
    }
    for (struct broadcast *s = h->first, *next; s; s = next) {
        next = s->next;
        free(s);
    }
    pthread_mutex_destroy(&h->lock);
    free(h->rank);
    free(h->pair);
    free(h);
}

/* ---- sleeping and waking ---- */

static void ring(struct moe_hub *h, int to)
{
    struct rank *r = &h->rank[to];
    atomic_fetch_add(&r->rings, 1);
    if (!atomic_load(&r->asleep)) return;
    pthread_mutex_lock(&r->lock);
    pthread_cond_signal(&r->bell);
    pthread_mutex_unlock(&r->lock);
}

static void heartbeat(struct local *l)
{
    atomic_fetch_add_explicit(&l->h->rank[l->c.rank].heartbeats, 1, memory_order_relaxed);
}

static void note_deaths(struct local *l)
{
    for (int r = 0; r < l->c.ranks; r++)
        if (!l->c.dead[r] && atomic_load(&l->h->rank[r].dead)) moe_comm_lost(&l->c, r);
}

static void local_wait(struct moe_comm *c, double seconds)
{
    struct local *l = of(c);
    struct rank *r = &l->h->rank[c->rank];
    struct timespec until;
    heartbeat(l);
    double end = moe_now() + seconds;
    until.tv_sec = (time_t)end;
    until.tv_nsec = (long)((end - (double)until.tv_sec) * 1e9);
    if (atomic_load(&r->rings) == l->rings) {
        pthread_mutex_lock(&r->lock);
        atomic_store(&r->asleep, true);
        while (atomic_load(&r->rings) == l->rings)
            if (pthread_cond_timedwait(&r->bell, &r->lock, &until)) break;
        atomic_store(&r->asleep, false);
        pthread_mutex_unlock(&r->lock);
    }
    l->rings = atomic_load(&r->rings);
    note_deaths(l);
}

static uint64_t local_heartbeats(struct moe_comm *c, int rank)
{
    return atomic_load_explicit(&of(c)->h->rank[rank].heartbeats, memory_order_relaxed);
}

static void local_give_up(struct moe_comm *c, int rank)
{
    struct moe_hub *h = of(c)->h;
    atomic_store(&h->rank[rank].dead, true);
    for (int r = 0; r < h->ranks; r++) ring(h, r);
}

/* ---- slots ---- */

static void *local_request(struct moe_comm *c, int to)
{
    struct moe_hub *h = of(c)->h;
    return h->rank[to].window + (size_t)c->rank * h->request_bytes;
}

static enum moe_code local_post(struct moe_comm *c, int to, size_t bytes, struct moe_err *err)
{
    struct moe_hub *h = of(c)->h;
    struct pair *p = pair(h, to, c->rank);
    (void)bytes, (void)err;
    heartbeat(of(c));
    atomic_store_explicit(&p->requests, atomic_load_explicit(&p->requests, memory_order_relaxed) + 1,
                          memory_order_release);
    ring(h, to);
    return MOE_OK;
}

static const void *local_requested(struct moe_comm *c, int from)
{
    struct moe_hub *h = of(c)->h;
    struct pair *p = pair(h, c->rank, from);
    bool waits = atomic_load_explicit(&p->requests, memory_order_acquire) !=
                 atomic_load_explicit(&p->answers, memory_order_relaxed);
    return waits ? h->rank[c->rank].window + (size_t)from * h->request_bytes : NULL;
}

static unsigned char *reply_slot(struct moe_hub *h, int server, int client)
{
    return h->rank[server].window + (size_t)h->ranks * h->request_bytes + (size_t)client * h->reply_bytes;
}

static void *local_reply(struct moe_comm *c, int to) { return reply_slot(of(c)->h, c->rank, to); }

static enum moe_code local_answer(struct moe_comm *c, int to, size_t bytes, struct moe_err *err)
{
    struct moe_hub *h = of(c)->h;
    struct pair *p = pair(h, c->rank, to);
    (void)bytes, (void)err;
    heartbeat(of(c));
    atomic_store_explicit(&p->answers, atomic_load_explicit(&p->answers, memory_order_relaxed) + 1,
                          memory_order_release);
    ring(h, to);
    return MOE_OK;
}

static const void *local_answered(struct moe_comm *c, int from)
{
    struct moe_hub *h = of(c)->h;
    struct pair *p = pair(h, from, c->rank);
    bool there = atomic_load_explicit(&p->answers, memory_order_acquire) ==
                 atomic_load_explicit(&p->requests, memory_order_relaxed);
    return there ? reply_slot(h, from, c->rank) : NULL;
}

/* ---- messages to all ranks: one list, from which nothing is removed until the hub is closed ---- */

static enum moe_code local_broadcast(struct moe_comm *c, uint32_t kind, const void *data, size_t bytes,
                                     struct moe_err *err)
{
    struct moe_hub *h = of(c)->h;
    struct broadcast *s = malloc(sizeof *s + bytes);
    if (!s) return moe_fail(err, MOE_NOMEM, "no memory for a message of %zu bytes", bytes);
    s->from = c->rank;
    s->kind = kind;
    s->bytes = bytes;
    atomic_init(&s->next, NULL);
    if (bytes) memcpy(s->data, data, bytes);
    pthread_mutex_lock(&h->lock);
    atomic_store_explicit(&h->last->next, s, memory_order_release);
    h->last = s;
    pthread_mutex_unlock(&h->lock);
    for (int r = 0; r < h->ranks; r++) ring(h, r);
    return MOE_OK;
}

static bool local_received(struct moe_comm *c, int *from, uint32_t *kind, const void **data, size_t *bytes)
{
    struct local *l = of(c);
    for (;;) {
        struct broadcast *s = atomic_load_explicit(&l->at->next, memory_order_acquire);
        if (!s) return false;
        l->at = s;
        if (s->from == c->rank) continue;
        *from = s->from;
        *kind = s->kind;
        *data = s->data;
        *bytes = s->bytes;
        return true;
    }
}

/* Both sides map the slots, so the whole slot has come. */
static size_t local_request_size(struct moe_comm *c, int from)
{
    (void)from;
    return c->request_bytes;
}

static size_t local_reply_size(struct moe_comm *c, int from)
{
    (void)from;
    return c->reply_bytes;
}

static void local_close(struct moe_comm *c)
{
    moe_comm_release(c);
    free(of(c));
}

static const struct moe_comm_ops ops = {
    "local",          local_request,  local_post,      local_requested,    local_reply,
    local_answer,     local_answered, local_broadcast, local_received,     local_wait,
    local_heartbeats, local_give_up,  local_close,     local_request_size, local_reply_size,
};

enum moe_code moe_comm_local(struct moe_comm **out, struct moe_hub *h, int rank, struct moe_err *err)
{
    struct local *l = calloc(1, sizeof *l);
    *out = NULL;
    if (!l) return moe_fail(err, MOE_NOMEM, "no memory for a rank");
    enum moe_code code = moe_comm_init(&l->c, &ops, rank, h->ranks, h->request_bytes, h->reply_bytes,
                                       h->timeout, err);
    l->h = h;
    l->at = h->first;
    if (code == MOE_OK) *out = &l->c;
    else local_close(&l->c);
    return code;
}
