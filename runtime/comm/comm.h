/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/comm.h - how the ranks of an expert-parallel run reach each other.  Knows bytes and ranks, no
 * models (docs/reference/expert-parallel.md).
 *
 * Between two ranks there is one request slot and one reply slot each way, written by one
 * side, read by the other:
 *
 *     asker:  p = moe_comm_request(c, to); fill p; moe_comm_post(c, to, bytes)  ...
 *         moe_comm_answered(c, to) -> the reply
 *     server:  moe_comm_requested(c, from) -> the request; p = moe_comm_reply(c, from); fill p;
 *     moe_comm_answer(c, from, bytes)
 *
 * A reply hands the request slot back; it stands until the next request to the same rank is posted.  So
 * two slots a pair are all the memory there is, nobody is asked how much will come, and a rank that was
 * given up can still write into its own slots and nowhere else: replies are read by whoever asked for
 * them, requests of a dead rank are not looked at.  This is the shape of one-sided communication in
 * symmetric memory: slots are [source rank][most bytes] of a window that peers map, post and answer are a
 * flag written after the data.
 *
 * Besides, anything can be said to all others (results, farewells); what one rank says arrives in
 * order, and never gets lost.
 *
 * Death.  A rank is given up when its back end sees it gone, or when whoever waits for it saw no sign of life
 * for `timeout` seconds.  That time is counted in TICKS ticks that the waiting side itself lived through, so
 * that a machine which stands still as a whole loses nobody.  A rank gives signs of life while it waits,
 * posts and answers; one that computes for longer than the timeout between two of these is taken for dead.
 * Who gives a rank up tells all others, and the rank itself, if it can still hear; it must stop then.
 *
 * A struct moe_comm belongs to one rank and one thread.
 *
 * Devices.  What is in a slot, its counts included, is the caller's; a back end looks at none of it.
 * `bytes` of post and answer is a bound: no byte behind it is read, and a back end whose slots are
 * mapped by both sides (local; NCCL's windows) ignores it.  So the same calls serve ranks whose rows and
 * counts never leave a device, with these meanings (nothing here does so yet;
 * docs/reference/expert-parallel.md has the whole table):
 *
 *     request, reply          addresses for kernels: of a slot in the peer's window, or in this rank's; fixed
 *                             for the life of the comm
 *     post, answer            enqueued behind the kernels that fill the slot: a flag, stored
 *                             with release at system scope
 *     requested, answered     the address to read once the flag has come, which kernels wait for: a bounded
 *                             spin under the mask of the living, as nobody can stop a kernel from outside;
 *                             never NULL for a living rank
 *     wait, life              what the host sees of it: the end of the enqueued work, and the word in pinned
 *                             memory where a spin that ran out names the rank it waited for
 *     give_up, dead           the mask, copied to the device before the next launch
 *     say, heard              among hosts, by another back end (ucx): they are for failures, results and
 *                             plans, which devices have no part in */
#ifndef MOE_RUNTIME_COMM_COMM_H
#define MOE_RUNTIME_COMM_COMM_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { MOE_COMM_RANKS_MAX = 1024, MOE_COMM_TICKS = 20 };

struct moe_comm;

/* A back end.  All are called by the rank's thread. */
struct moe_comm_ops {
    const char *name;
    void *(*request)(struct moe_comm *c, int to);
    enum moe_code (*post)(struct moe_comm *c, int to, size_t bytes, struct moe_err *err);
    const void *(*requested)(struct moe_comm *c, int from);
    void *(*reply)(struct moe_comm *c, int to);
    enum moe_code (*answer)(struct moe_comm *c, int to, size_t bytes, struct moe_err *err);
    const void *(*answered)(struct moe_comm *c, int from);
    enum moe_code (*say)(struct moe_comm *c, uint32_t kind, const void *data, size_t bytes,
                         struct moe_err *err);
    bool (*heard)(struct moe_comm *c, int *from, uint32_t *kind, const void **data, size_t *bytes);
    void (*wait)(struct moe_comm *c, double seconds);   /* until something came, at most that long */
    /* another value whenever that rank gave a sign of life */
    uint64_t (*life)(struct moe_comm *c, int rank);
    void (*give_up)(struct moe_comm *c, int rank);      /* from now on dead for all */
    void (*close)(struct moe_comm *c);
    size_t (*request_size)(struct moe_comm *c,
                           int from); /* bytes of the request, and of the reply, that are there */
    size_t (*reply_size)(struct moe_comm *c, int from);
};

struct moe_peer { uint64_t life; int ticks; };

struct moe_comm {
    const struct moe_comm_ops *ops;
    int rank, ranks;
    size_t request_bytes, reply_bytes;  /* most that a slot holds */
    double timeout;
    bool *dead;                         /* [ranks]; kept up by moe_comm_wait */
    int n_dead;
    struct moe_peer *peer;              /* [ranks] */
    double tick;                        /* when the present one began */
    struct moe_err broken; /* what a rank sent that no rank sends, and who it was; code MOE_OK: nothing */
    uint64_t posts, answers, post_bytes, answer_bytes; /* sent so far, to this rank itself included */
};

/* Parts that back ends share: dead and peer, from calloc. */
enum moe_code moe_comm_init(struct moe_comm *c, const struct moe_comm_ops *ops, int rank, int ranks,
                            size_t request_bytes, size_t reply_bytes, double timeout, struct moe_err *err);
void moe_comm_release(struct moe_comm *c);
void moe_comm_close(struct moe_comm **c); /* NULL-safe; nulls */

/* Where to write the next request to `to`: request_bytes bytes, aligned to 64.  Only once the last one was
 * answered, or its server died; what was posted can be read there until then. */
static inline void *moe_comm_request(struct moe_comm *c, int to) { return c->ops->request(c, to); }
/* The first `bytes` bytes of the slot, or more, will be there. */
enum moe_code moe_comm_post(struct moe_comm *c, int to, size_t bytes, struct moe_err *err);
/* The request of `from` that waits for an answer; NULL: none. */
static inline const void *moe_comm_requested(struct moe_comm *c, int from)
{
    return c->dead[from] ? NULL : c->ops->requested(c, from);
}
/* How many bytes of it have come, where the back end copies them: whoever reads must not believe its counts
 * beyond these. */
static inline size_t moe_comm_request_size(struct moe_comm *c, int from)
{
    return c->ops->request_size(c, from);
}
static inline void *moe_comm_reply(struct moe_comm *c, int to) { return c->ops->reply(c, to); }
enum moe_code moe_comm_answer(struct moe_comm *c, int to, size_t bytes, struct moe_err *err);
/* The reply to the last request to `from`; NULL: not yet. */
static inline const void *moe_comm_answered(struct moe_comm *c, int from)
{
    return c->dead[from] ? NULL : c->ops->answered(c, from);
}
static inline size_t moe_comm_reply_size(struct moe_comm *c, int from) { return c->ops->reply_size(c, from); }

/* To all others (not to this rank itself); copied.  kind below 2^31. */
enum moe_code moe_comm_say(struct moe_comm *c, uint32_t kind, const void *data, size_t bytes,
                           struct moe_err *err);
/* The next thing that was said; data stands until the next call. */
static inline bool moe_comm_heard(struct moe_comm *c, int *from, uint32_t *kind, const void **data,
                                  size_t *bytes)
{
    return c->ops->heard(c, from, kind, data, bytes);
}

/* Begin to wait for something: nobody has been silent so far. */
void moe_comm_begin_wait(struct moe_comm *c);
/* Wait until something came or a tick has passed.  MOE_DEVICE when this rank has been given up by the others,
 * or a rank sends what makes no sense (c->broken); MOE_SIGINT and the like. */
enum moe_code moe_comm_wait(struct moe_comm *c, struct moe_err *err);
/* The same without waiting: a sign of life from a rank that is busy. */
enum moe_code moe_comm_alive(struct moe_comm *c, struct moe_err *err);
/* Give up those of `awaited` [ranks] that have been silent for the timeout; true when c->dead has changed. */
bool moe_comm_bury(struct moe_comm *c, const bool *awaited);
/* For back ends: `rank` has sent what no rank sends; `what` completes "rank 3 sent".  The first counts. */
void moe_comm_distrust(struct moe_comm *c, int rank, const char *what);
/* For back ends: `rank` is gone. */
void moe_comm_lost(struct moe_comm *c, int rank);

/* ---- back ends ---- */

/* Ranks are threads of this process.  A hub is what they share; it outlives its comms. */
struct moe_hub;
enum moe_code moe_hub_open(struct moe_hub **h, int ranks, size_t request_bytes, size_t reply_bytes,
                           double timeout, struct moe_err *err);
void moe_hub_close(struct moe_hub **h); /* NULL-safe; nulls; no comm may be in use */
enum moe_code moe_comm_local(struct moe_comm **c, struct moe_hub *h, int rank, struct moe_err *err);

#endif
