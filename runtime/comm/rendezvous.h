/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/rendezvous.h - how the processes of a run, which know their rank and the name of one socket,
 * get the addresses of all ranks: rank 0 listens at that name, the others connect, each sends its address,
 * and rank 0 sends all addresses to all.  No connection stays open afterwards.
 *
 * Rank 0 serves all connections side by side under one deadline.  It keeps a bounded number of connections
 * that have not joined (it closes the oldest when there are more) and reads a bounded number of bytes from
 * each, so a client that sends nothing, or something else, neither costs much nor ends the run.
 *
 *     rank r   HELLO      its nonce; the frame has magic number and version
 *     rank 0   CHALLENGE  its own nonce, signed: rank 0 knows the secret
 *     rank r   JOIN       its failure, or its settings and its address, signed: rank r knows the secret
 *     rank 0   WELCOME    the key of the run and all addresses; or REFUSED, with the reason; signed
 *
 * Ranks that do not belong together are refused: of another version (the frames differ), of another number
 * of ranks, or with other settings (struct moe_agreement: options, model, plans, prompts).  Rank 0 sends
 * REFUSED to all that have joined as soon as it knows a reason, and to those that come within the next
 * seconds.
 *
 * Without a secret nothing is signed, and every process that can connect to the name can join. */
#ifndef MOE_RUNTIME_COMM_RENDEZVOUS_H
#define MOE_RUNTIME_COMM_RENDEZVOUS_H

#include "runtime/comm/agree.h"
#include "runtime/comm/secret.h"

struct moe_rendezvous {
    const char *where; /* socket.h */
    int rank, ranks;
    double timeout;                       /* seconds within which all ranks must have come */
    const struct moe_agreement *settings; /* MOE_MISMATCH, naming the first, when they differ */
    const struct moe_secret *secret;      /* NULL: none */
    const struct moe_cancel *cancel;      /* ends the wait early; NULL: nobody will */
    /* Called with a line for the user once the wait gets long, and when another rank has come; may be
     * NULL. */
    void (*tell)(void *ctx, const char *line);
    void *ctx;
};

/* What every rank has afterwards: the addresses of all ranks, one behind the other.  That of rank r is
 * all[offset[r]] to all[offset[r + 1] - 1]. */
struct moe_meeting {
    unsigned char *all;
    size_t *offset; /* [ranks + 1] */
    unsigned char key[MOE_WIRE_KEY]; /* of the run */
    bool told; /* after a failure: rank 0 knows of it and reports it, so that this rank need not */
};

/* mine [bytes]: the address of this rank, at most MOE_WIRE_ADDRESS_MAX bytes.
 *
 * failure: what this rank has failed with already (code MOE_OK: it has not).  If any rank comes with a
 * failure, all ranks return one: that of rank 0 if it has one, else the first that came to rank 0.  It may be
 * err itself.
 *
 * MOE_DEVICE when a rank does not come in time, or comes twice; MOE_MISMATCH when ranks do not belong
 * together.  On success the caller releases *m; on failure only m->told is set, and there is nothing to
 * release. */
enum moe_code moe_rendezvous(const struct moe_rendezvous *v, const struct moe_err *failure, const void *mine,
                             size_t bytes, struct moe_meeting *m, struct moe_err *err);
void moe_meeting_release(struct moe_meeting *m);

/* rendezvous-host.c: what moe_rendezvous does in rank 0. */
enum moe_code moe_rendezvous_host(const struct moe_rendezvous *v, const struct moe_err *failure,
                                  const void *mine, size_t bytes, struct moe_meeting *m, struct moe_err *err);

/* PATIENCE: seconds within which a message must be complete.  SILENCE: seconds before the user is told
 * which ranks are missing. */
enum { MOE_RENDEZVOUS_PATIENCE = 10, MOE_RENDEZVOUS_SILENCE = 2 };

#endif
