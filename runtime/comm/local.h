/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/local.h - sockets of this machine that have a path, for processes of one user that pass whole
 * messages and open files to one another.
 *
 * Nobody but this user can connect: the file of a socket has mode 0600 from its creation, and both sides look
 * at the user of the other.  All sockets are non-blocking (SOCK_SEQPACKET): a message is a packet, and comes
 * whole or not at all. */
#ifndef MOE_RUNTIME_COMM_LOCAL_H
#define MOE_RUNTIME_COMM_LOCAL_H

#include "base/cancel.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* Descriptors that a message brings at most. */
enum { MOE_LOCAL_FILES = 64 };

/* A socket that listens.  fd is -1 where it is not open; device and inode are those of its file. */
struct moe_local { int fd; char path[108]; dev_t device; ino_t inode; };

/* Listens at `path`.  A socket there at which nobody listens any more is replaced.  MOE_USAGE for a path that
 * is empty or too long for a socket; MOE_EXISTS where somebody listens there, or something else than a socket
 * of this user is there; MOE_IO.  After a failure l->fd is -1 and nothing of it is left. */
enum moe_code moe_local_listen(struct moe_local *l, const char *path, struct moe_err *err);
/* Removes the file, if it is still this socket's, and closes; nothing where fd is -1. */
void moe_local_close(struct moe_local *l);
/* To accept, use moe_socket_accept of runtime/comm/socket.h, which refuses other users. */

/* Connects to `path` until the time `end` (moe_now); the caller closes *fd, which is -1 after a failure.
 * MOE_NOT_FOUND where there is no socket; MOE_DEVICE where nobody listens there any more, it is another
 * user's, or nobody has accepted in time; MOE_IO; the code of `cancel`. */
enum moe_code moe_local_connect(const char *path, double end, const struct moe_cancel *cancel, int *fd,
                                struct moe_err *err);

/* Sends a message with n descriptors, which stay the caller's.  false: it cannot be sent now, and errno says
 * why: EAGAIN or ETOOMANYREFS pass when the other side reads. */
bool moe_local_send(int fd, const void *data, size_t bytes, const int *file, int n);
/* Receives a message, if one is there, into data [cap], and its descriptors into file [MOE_LOCAL_FILES]; the
 * caller closes them.  file NULL: descriptors are not taken.  Returns the bytes; 0: the other side went away;
 * -1: nothing is there (errno EAGAIN), the message is longer than cap or brings more descriptors (EMSGSIZE),
 * this process may open no more files (EMFILE), or another failure; then there are no descriptors. */
ssize_t moe_local_receive(int fd, void *data, size_t cap, int *file, int *n);

#endif
