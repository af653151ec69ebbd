/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/comm-ucx.h - ranks as processes, on one host or several, over whatever UCX finds
 * between them: RDMA, TCP.
 *
 * Where peers may die, UCX must be able to say so: endpoints use its peer failure handling, and shared
 * memory, which does not report a death in every version, is left out unless UCX_TLS names it.  UCX's own
 * environment variables hold. */
#ifndef MOE_RUNTIME_COMM_COMM_UCX_H
#define MOE_RUNTIME_COMM_COMM_UCX_H

#include "runtime/comm/comm.h"
#include "runtime/comm/wire.h"

/* Opens the comm of a rank that has no connections yet.  *address [*address_bytes], which the comm owns, is
 * what others need to connect to it.  here: all ranks run on this host, so that it listens at the loopback
 * alone (unless UCX_NET_DEVICES says where).  MOE_UNSUPPORTED where UCX is not there. */
enum moe_code moe_comm_ucx_open(struct moe_comm **c, int rank, int ranks, bool here, size_t request_bytes,
                                size_t reply_bytes, double timeout, const void **address,
                                size_t *address_bytes, struct moe_err *err);
/* Sets the key of the run (rendezvous.h), before any connection: messages without it are dropped. */
void moe_comm_ucx_key(struct moe_comm *c, const unsigned char key[MOE_WIRE_KEY]);
/* Connects to another rank; called for every one of them before anything is sent. */
enum moe_code moe_comm_ucx_connect(struct moe_comm *c, int rank, const void *address, struct moe_err *err);
/* Waits until all connections stand, both ways, for `patience` seconds; MOE_DEVICE names a rank without one.
 * UCX survives the loss of a peer only from then on. */
enum moe_code moe_comm_ucx_ready(struct moe_comm *c, double patience, struct moe_err *err);

#endif
