/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/rendezvous.h - how processes that know their number and one name learn of each other: rank 0
 * listens there, the others come, each brings its address, all get all.  Nothing is kept open afterwards.
 *
 * Rank 0 serves all connections side by side under one deadline, holds a bounded number of those that have
 * not joined (the oldest goes when there are more), and reads a bounded number of bytes from each, so whoever
 * says nothing, or something else, costs nothing and ends nothing.
 *
 *     rank r   HELLO      its nonce
 *     rank 0   CHALLENGE  its own nonce, signed: it knows the secret
 *     rank r   JOIN       what it failed with, or its settings and its address, signed: so does this rank
 *     rank 0   WELCOME    the run's key and all addresses; or REFUSED, with the failure; signed
 *
 * Without a secret nothing is signed, and whoever reaches the name can join. */
#ifndef MOE_RUNTIME_COMM_RENDEZVOUS_H
#define MOE_RUNTIME_COMM_RENDEZVOUS_H

#include "runtime/comm/agree.h"
#include "runtime/comm/secret.h"

struct moe_rendezvous {
    const char *where; /* socket.h */
    int rank, ranks;
    double timeout;                       /* seconds that ranks have to come */
    const struct moe_agreement *settings; /* MOE_MISMATCH, naming the first, when they differ */
    const struct moe_secret *secret;      /* NULL: none */
    /* Told to a person once they have waited, and then what changes; NULL: nothing. */
    void (*tell)(void *ctx, const char *line);
    void *ctx;
};

/* What all ranks have afterwards: the addresses, one behind the other, rank r's at offset[r]. */
struct moe_meeting {
    unsigned char *all;
    size_t *offset; /* [ranks + 1] */
    unsigned char key[MOE_WIRE_KEY];
    bool told; /* after a failure: rank 0 knows of it, so it need not be said twice */
};

/* mine [bytes]: this rank's address, at most MOE_WIRE_ADDRESS_MAX.  failure: what this rank has failed with
 * already, code MOE_OK for nothing: then all ranks that come, this one included, return the failure of the
 * lowest rank that has one.  MOE_DEVICE when a rank does not come in time, or comes twice; MOE_MISMATCH when
 * ranks do not belong together.  Nothing is owned on failure. */
enum moe_code moe_rendezvous(const struct moe_rendezvous *v, const struct moe_err *failure, const void *mine,
                             size_t bytes, struct moe_meeting *m, struct moe_err *err);
void moe_meeting_release(struct moe_meeting *m);

/* rendezvous-host.c: rank 0's part of the above. */
enum moe_code moe_rendezvous_host(const struct moe_rendezvous *v, const struct moe_err *failure,
                                  const void *mine, size_t bytes, struct moe_meeting *m, struct moe_err *err);

/* Seconds for a message once it has begun; and before a person is told who is waited for. */
enum { MOE_RENDEZVOUS_PATIENCE = 10, MOE_RENDEZVOUS_SILENCE = 2 };

#endif
