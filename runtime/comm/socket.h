/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/socket.h - the sockets at which ranks meet.  A name `where` is "HOST:PORT", ":PORT" (the
 * loopback of this host), or "unix:NAME" (an abstract socket of this host).  All sockets are non-blocking:
 * the caller polls them, and closes them. */
#ifndef MOE_RUNTIME_COMM_SOCKET_H
#define MOE_RUNTIME_COMM_SOCKET_H

#include "base/cancel.h"

#include <stdbool.h>

/* Opens a socket that listens at that address of this host, and at no other.  MOE_USAGE for a name of another
 * form, MOE_DEVICE when the socket cannot listen there. */
enum moe_code moe_socket_listen(const char *where, int *fd, struct moe_err *err);
/* Opens a socket that is connected to that address.  When nobody answers there within `seconds`, it returns
 * MOE_OK and *fd is -1. */
enum moe_code moe_socket_connect(const char *where, double seconds, int *fd, struct moe_err *err);
/* Whether an internet socket is connected to itself (moe_socket_connect never returns such a socket). */
bool moe_socket_is_self(int fd);
/* Accepts the next connection that waits at a listening socket.  -1: none waits, or it was closed because it
 * came to a "unix:" socket from another user, or the process can open no more files (*full is then true). */
int moe_socket_accept(int listening, bool *full);
/* Whether every address of that name is a loopback or "unix:" address, so that all ranks run on this host. */
bool moe_socket_is_here(const char *where);
/* These send or receive all of `data` until the time `end` (moe_now).  MOE_DEVICE when the other side went
 * away or the time is over; the code of `cancel` (NULL: nobody's) once that is cancelled. */
enum moe_code moe_socket_send(int fd, const void *data, size_t bytes, double end,
                              const struct moe_cancel *cancel, struct moe_err *err);
enum moe_code moe_socket_receive(int fd, void *data, size_t bytes, double end,
                                 const struct moe_cancel *cancel, struct moe_err *err);

#endif
