/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/comm-ucx-internal.h - the state of the UCX back end, which its sending half (comm-ucx.c) and
 * its receiving half (comm-ucx-receive.c) share.  Only these two files include it. */
#ifndef MOE_RUNTIME_COMM_COMM_UCX_INTERNAL_H
#define MOE_RUNTIME_COMM_COMM_UCX_INTERNAL_H

#include "runtime/comm/comm.h"
#include "runtime/comm/ucx.h"
#include "runtime/comm/wire.h"

#if MOE_HAVE_UCX
/* The kinds of messages.  A request, a reply and SAID (a message to all ranks) have a body; those that follow
 * SAID are a head alone. */
enum kind { REQUEST, REPLY, SAID, HEARTBEAT, GIVEN_UP, BYE, HELLO, WELCOME, KINDS };
enum { AM = 1 }; /* the id of this program's active messages */

/* A slot of this rank and the head of its message (struct moe_wire_head), while UCX sends both.  The `what`
 * of a head is the caller's kind of a message that was said (moe_comm_say), or the rank that is given up; its
 * `number` counts the messages that this rank has said. */
struct slot {
    unsigned char *p; /* request_bytes or reply_bytes of the comm */
    unsigned char head[MOE_WIRE_HEAD_BYTES];
    void *pending;    /* UCX's request; NULL: it is sent */
};

/* A message that another rank has said. */
struct said {
    struct said *next;
    struct moe_wire_head head;
    size_t bytes;
    bool here; /* all its bytes have come */
    unsigned char data[];
};

/* What this rank shares with one rank; of the link to itself only request_in and reply_in are used as
 * slots. */
struct link {
    ucp_ep_h ep;
    struct slot request, reply;              /* slots that this rank sends */
    unsigned char *request_in, *reply_in;    /* slots into which that rank's messages are received */
    size_t request_in_bytes, reply_in_bytes; /* bytes of them that have come */
    bool has_request, has_reply;             /* a request, or a reply, is there, whole */
    bool fetching_request, fetching_reply;   /* a request, or a reply, is being fetched into its slot */
    bool owes_reply;                         /* this rank has posted a request and has no reply yet */
    bool gone;                               /* UCX or another rank says that it is dead */
    bool hello, welcome, bye;                /* a message of that kind has come */
    uint64_t heartbeats;                     /* messages of any kind that have come */
    uint32_t heard;                          /* how many messages that it said were handed to the caller */
    uint32_t unheard;                        /* how many more of them are kept for the caller */
    size_t unheard_bytes;                    /* the bytes of these */
};

struct ucx {
    struct moe_comm c;
    const struct moe_ucx *u;
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_address_t *address;
    size_t address_bytes;
    int efd;               /* readable when the worker has something to do */
    struct link *link; /* [ranks] */
    unsigned char *memory; /* all slots */
    size_t memory_bytes;
    unsigned char key[MOE_WIRE_KEY]; /* of the run; a message without it is a stranger's and is dropped */
    struct said *said, **said_end;   /* the list of messages that were said and not handed to the caller */
    struct said *handed;             /* the one that the caller has now */
    uint32_t words;                  /* how many messages this rank has said */
    double last_heartbeat;           /* when this rank last sent one (moe_now) */
    bool news;                       /* something has come for which a wait ends */
    bool ready;                      /* all ranks are connected */
    bool leaving;                    /* the comm is being closed: a lost connection means no death now */
};

/* UCX calls this with every message, in the thread that progresses the worker; arg is a struct ucx. */
ucs_status_t moe_ucx_receive(void *arg, const void *header, size_t header_bytes, void *data, size_t bytes,
                             const ucp_am_recv_param_t *param);
#endif

#endif
