/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/comm.h - how the ranks of an expert-parallel run exchange messages.  It knows bytes and
 * ranks, and nothing of models (docs/reference/expert-parallel.md).
 *
 * For each ordered pair of ranks there is one request slot, which the client writes and the server reads,
 * and one reply slot, which the server writes and the client reads.  Every rank is a client and a server of
 * every rank, itself included:
 *
 *     client   p = moe_comm_request(c, to); fill p; moe_comm_post(c, to, bytes); ...
 *              reply = moe_comm_answered(c, to)
 *     server   request = moe_comm_requested(c, from);
 *              p = moe_comm_reply(c, from); fill p; moe_comm_answer(c, from, bytes)
 *
 * A reply hands the request slot back to the client; the reply stays until the client posts its next
 * request to the same rank.  So two slots for a pair are all the memory that is needed, no rank has to
 * announce how much it will send, and a rank that was marked dead by mistake can still write into its own
 * slots and nowhere else: only the client reads a reply, and nobody reads the requests of a dead rank.
 * This is the shape of one-sided communication in symmetric memory: slots are [source rank][largest size]
 * of a window that peers map, and post and answer set a flag after the data.
 *
 * Besides, a rank can broadcast a message to all others (results, for example, or that it is done).  The
 * broadcasts of one rank arrive at every living rank, in the order in which they were sent.
 *
 * Death of ranks.  A rank is marked dead when its back end sees that it is gone, or when a rank that waits
 * for it has seen no heartbeat of it for `timeout` seconds.  The waiting rank counts this time in
 * MOE_COMM_TICKS ticks of equal length.  A tick that ends late counts as one tick all the same, so that no
 * rank is marked dead because the whole machine stood still.  A rank sends heartbeats while it waits, posts
 * and answers; one that computes longer than the timeout between two such calls is taken for dead.  The rank
 * that marks another one dead tells this to all others, and to the dead rank too: if it still runs, it must
 * stop when it receives that.
 *
 * Threads: a struct moe_comm belongs to one rank and is used by one thread.
 *
 * Devices.  The caller defines what is in a slot, its counts included; no back end looks at it.  `bytes` of
 * post and answer is an upper bound: no byte behind it is read, and a back end whose slots both sides map
 * (the local one; NCCL's windows) ignores it.  So the same calls can serve ranks whose rows and counts
 * never leave a device.  No back end does so yet (docs/reference/expert-parallel.md has the whole table).
 * In a back end for devices the calls would mean:
 *
 *     request, reply        addresses for kernels: of a slot in the peer's window, or in this rank's own;
 *                           they do not change while the comm is open
 *     post, answer          enqueued behind the kernels that fill the slot: a flag, stored with release at
 *                           system scope
 *     requested, answered   the address to read once the flag has come, for which kernels wait: they spin
 *                           for a bounded time under the mask of living ranks, since nobody can stop a
 *                           kernel from outside; never NULL for a living rank
 *     wait                  the host waits for the end of the enqueued work
 *     heartbeats            the host reads a word in pinned memory, where a kernel that has spun for too long
 *                           stores the rank for which it waited
 *     give_up, dead         the mask of living ranks, copied to the device before the next launch
 *     broadcast, received   among hosts, by another back end (ucx): failures, results and plans do not
 *                           concern devices */
#ifndef MOE_RUNTIME_COMM_COMM_H
#define MOE_RUNTIME_COMM_COMM_H

#include "base/cancel.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOE_COMM_RANKS_MAX = 1024, MOE_COMM_TICKS = 20 };

struct moe_comm;

/* A back end.  The functions of the same names below say what each does.  Only the rank's thread calls
 * them. */
struct moe_comm_ops {
    const char *name;
    void *(*request)(struct moe_comm *c, int to);
    enum moe_code (*post)(struct moe_comm *c, int to, size_t bytes, struct moe_err *err);
    const void *(*requested)(struct moe_comm *c, int from);
    void *(*reply)(struct moe_comm *c, int to);
    enum moe_code (*answer)(struct moe_comm *c, int to, size_t bytes, struct moe_err *err);
    const void *(*answered)(struct moe_comm *c, int from);
    enum moe_code (*broadcast)(struct moe_comm *c, uint32_t kind, const void *data, size_t bytes,
                               struct moe_err *err);
    bool (*received)(struct moe_comm *c, int *from, uint32_t *kind, const void **data, size_t *bytes);
    /* sends a heartbeat, then waits until something comes, for at most `seconds` */
    void (*wait)(struct moe_comm *c, double seconds);
    /* a number that changes with every heartbeat of that rank */
    uint64_t (*heartbeats)(struct moe_comm *c, int rank);
    void (*give_up)(struct moe_comm *c, int rank);      /* tells all ranks that this one is dead */
    void (*close)(struct moe_comm *c);
    size_t (*request_size)(struct moe_comm *c, int from); /* bytes of the request that have come */
    size_t (*reply_size)(struct moe_comm *c, int from);   /* bytes of the reply that have come */
};

/* What this rank has seen of another one: its count of heartbeats, and for how many ticks it has not
 * changed. */
struct moe_peer { uint64_t heartbeats; int ticks; };

struct moe_comm {
    const struct moe_comm_ops *ops;
    int rank, ranks;
    size_t request_bytes, reply_bytes;  /* size of a slot */
    double timeout;                     /* seconds without a heartbeat after which a rank is dead */
    const struct moe_cancel *cancel;    /* ends waits early; NULL: nobody will.  The caller that opened the
                                           comm sets this */
    bool *dead;                         /* [ranks]; moe_comm_wait and moe_comm_mark_dead set it */
    int n_dead;
    struct moe_peer *peer;              /* [ranks] */
    double tick;                        /* when the present tick began (seconds, moe_now) */
    struct moe_err broken;              /* a malformed message and its sender; code MOE_OK: none has come */
    uint64_t posts, answers;            /* how many requests and replies this rank has sent so far, those to
                                           itself included */
    uint64_t post_bytes, answer_bytes;  /* the bytes of these requests and of these replies */
};

/* For back ends: moe_comm_init sets the fields above and allocates dead and peer, which moe_comm_release
 * frees, also after a failure of moe_comm_init. */
enum moe_code moe_comm_init(struct moe_comm *c, const struct moe_comm_ops *ops, int rank, int ranks,
                            size_t request_bytes, size_t reply_bytes, double timeout, struct moe_err *err);
void moe_comm_release(struct moe_comm *c);
void moe_comm_close(struct moe_comm **c); /* NULL-safe; nulls */

/* Where to write the next request to `to`: request_bytes bytes, aligned to 64.  The caller may write there
 * once the last request was answered or its server died; until then it can read there what it posted. */
static inline void *moe_comm_request(struct moe_comm *c, int to) { return c->ops->request(c, to); }
/* Sends the request: at least the first `bytes` bytes of the slot arrive. */
enum moe_code moe_comm_post(struct moe_comm *c, int to, size_t bytes, struct moe_err *err);
/* The request of `from` that has no answer yet; NULL: there is none.  It stays until it is answered. */
static inline const void *moe_comm_requested(struct moe_comm *c, int from)
{
    return c->dead[from] ? NULL : c->ops->requested(c, from);
}
/* How many bytes of that request have come.  A reader checks the counts in the request against this. */
static inline size_t moe_comm_request_size(struct moe_comm *c, int from)
{
    return c->ops->request_size(c, from);
}
/* Where to write the reply to the request of `to`: reply_bytes bytes, aligned to 64. */
static inline void *moe_comm_reply(struct moe_comm *c, int to) { return c->ops->reply(c, to); }
/* Sends the reply: at least the first `bytes` bytes of the slot arrive. */
enum moe_code moe_comm_answer(struct moe_comm *c, int to, size_t bytes, struct moe_err *err);
/* The reply of `from` to the last request; NULL: it has not come.  It stays until the next post to that
 * rank. */
static inline const void *moe_comm_answered(struct moe_comm *c, int from)
{
    return c->dead[from] ? NULL : c->ops->answered(c, from);
}
/* How many bytes of that reply have come. */
static inline size_t moe_comm_reply_size(struct moe_comm *c, int from) { return c->ops->reply_size(c, from); }

/* Sends a message to all other ranks; `data` is copied.  kind: any number below 2^31, which tells the
 * receiver what the message is. */
enum moe_code moe_comm_broadcast(struct moe_comm *c, uint32_t kind, const void *data, size_t bytes,
                                 struct moe_err *err);
/* Receives the next broadcast of another rank; false: there is none.  *data stays until the next call. */
static inline bool moe_comm_received(struct moe_comm *c, int *from, uint32_t *kind, const void **data,
                                     size_t *bytes)
{
    return c->ops->received(c, from, kind, data, bytes);
}

/* Begins a wait: counts the silence of every rank from now on. */
void moe_comm_begin_wait(struct moe_comm *c);
/* Waits until something comes or the present tick is over.  MOE_DEVICE when the others have marked this
 * rank dead; the error in c->broken when a malformed message has come; the code of c->cancel once that is
 * cancelled. */
enum moe_code moe_comm_wait(struct moe_comm *c, struct moe_err *err);
/* The same without waiting: a rank that is busy calls it to send a heartbeat. */
enum moe_code moe_comm_heartbeat(struct moe_comm *c, struct moe_err *err);
/* Marks dead those of `awaited` [ranks] that have been silent for the timeout, and tells all ranks.  True
 * when there were any. */
bool moe_comm_mark_dead(struct moe_comm *c, const bool *awaited);
/* For back ends: stores in c->broken that `rank` sent a malformed message; `what` completes the sentence
 * "rank 3 sent ...".  Only the first one is stored. */
void moe_comm_malformed(struct moe_comm *c, int rank, const char *what);
/* For back ends: marks `rank` dead here. */
void moe_comm_lost(struct moe_comm *c, int rank);

/* ---- back ends ---- */

/* Ranks that are threads of this process.  They share a hub, which is closed after the comms of all ranks.
 * Any thread may call moe_comm_local for its own rank.  On failure *h or *c is NULL. */
struct moe_hub;
enum moe_code moe_hub_open(struct moe_hub **h, int ranks, size_t request_bytes, size_t reply_bytes,
                           double timeout, struct moe_err *err);
void moe_hub_close(struct moe_hub **h); /* NULL-safe; nulls; no comm may be in use */
enum moe_code moe_comm_local(struct moe_comm **c, struct moe_hub *h, int rank, struct moe_err *err);

#endif
