/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/socket.h - the sockets by which ranks meet: "HOST:PORT", ":PORT" (the loopback
 * of this host), or "unix:NAME" (an abstract socket of this host).  All are
 * non-blocking: the caller polls them. */
#ifndef MOE_RUNTIME_COMM_SOCKET_H
#define MOE_RUNTIME_COMM_SOCKET_H

#include "base/cancel.h"

#include <stdbool.h>

/* Opens a socket that listens at that address of this host, and at no other.  MOE_USAGE for a name of no
 * form above, MOE_DEVICE. */
enum moe_code moe_socket_listen(const char *where, int *fd, struct moe_err *err);
/* Opens a socket that is connected; *fd is -1 when nobody answers within `seconds`. */
enum moe_code moe_socket_connect(const char *where, double seconds, int *fd, struct moe_err *err);
/* Whether an internet socket is connected to itself.  moe_socket_connect then says that nobody answered. */
bool moe_socket_is_self(int fd);
/* The next connection that waits at a listening socket; -1: none, and *full when the process has no room for
 * it.  At a socket of this host, connections of other users are closed. */
int moe_socket_accept(int listening, bool *full);
/* Whether every address of that name is of this host alone, so that all who meet there run on it. */
bool moe_socket_is_here(const char *where);
/* Send or receive all of `data` until the time `end` (moe_now).  MOE_DEVICE when the other side went away
 * or the time is over; the code of `cancel` (NULL: nobody's) once that is cancelled. */
enum moe_code moe_socket_send(int fd, const void *data, size_t bytes, double end,
                              const struct moe_cancel *cancel, struct moe_err *err);
enum moe_code moe_socket_receive(int fd, void *data, size_t bytes, double end,
                                 const struct moe_cancel *cancel, struct moe_err *err);

#endif
