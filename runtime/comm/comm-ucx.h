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

/* A rank that can be reached at `address` (the comm's), but knows nobody yet.  here: all ranks run on this
 * host, so it listens at the loopback alone (unless UCX_NET_DEVICES says where).  MOE_UNSUPPORTED where UCX
 * is not there. */
enum moe_code moe_comm_ucx_open(struct moe_comm **c, int rank, int ranks, bool here, size_t request_bytes,
                                size_t reply_bytes, double timeout, const void **address,
                                size_t *address_bytes, struct moe_err *err);
/* The run's key (rendezvous.h), before anybody is connected: messages without it are a stranger's and not
 * looked at. */
void moe_comm_ucx_key(struct moe_comm *c, const unsigned char key[MOE_WIRE_KEY]);
/* Every other rank, before anything is sent. */
enum moe_code moe_comm_ucx_connect(struct moe_comm *c, int rank, const void *address, struct moe_err *err);
/* Until all connections stand, both ways, within `patience` seconds; MOE_DEVICE naming a rank without one.
 * UCX survives the loss of a peer only from then on. */
enum moe_code moe_comm_ucx_ready(struct moe_comm *c, double patience, struct moe_err *err);

#endif
