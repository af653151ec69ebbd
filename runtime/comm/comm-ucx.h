/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/comm-ucx.h - ranks as processes, on one host or several, over whatever UCX finds between
 * them: RDMA, TCP.
 *
 * UCX must report the death of a rank.  So endpoints use its peer failure handling, and shared memory, which
 * does not report a death in every version of UCX, is not used unless the user names it in UCX_TLS.  What the
 * user has set in UCX's environment variables is kept. */
#ifndef MOE_RUNTIME_COMM_COMM_UCX_H
#define MOE_RUNTIME_COMM_COMM_UCX_H

#include "runtime/comm/comm.h"
#include "runtime/comm/wire.h"

/* Opens the comm of a rank, without connections; *c is NULL on failure.  *address [*address_bytes], which the
 * comm owns, is what others need to connect to it.  here: all ranks run on this host, so that UCX uses the
 * loopback device alone (unless the user sets UCX_NET_DEVICES).  request_bytes, reply_bytes: the size of a
 * slot, rounded up to 64.  timeout: seconds, as in struct moe_comm.  MOE_UNSUPPORTED where UCX is not
 * installed, MOE_DEVICE where it does not start. */
enum moe_code moe_comm_ucx_open(struct moe_comm **c, int rank, int ranks, bool here, size_t request_bytes,
                                size_t reply_bytes, double timeout, const void **address,
                                size_t *address_bytes, struct moe_err *err);
/* Sets the key of the run (rendezvous.h), before any connection: messages without it are dropped. */
void moe_comm_ucx_set_key(struct moe_comm *c, const unsigned char key[MOE_WIRE_KEY]);
/* Connects to another rank; called for every other rank before anything is sent. */
enum moe_code moe_comm_ucx_connect(struct moe_comm *c, int rank, const void *address, struct moe_err *err);
/* Waits, for `patience` seconds at most, until all ranks are connected in both directions; MOE_DEVICE names a
 * rank that is not.  Only from then on does a run survive the loss of a rank. */
enum moe_code moe_comm_ucx_await_ready(struct moe_comm *c, double patience, struct moe_err *err);

#endif
