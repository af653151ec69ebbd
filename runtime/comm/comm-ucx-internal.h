/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/comm-ucx-internal.h - the state of the UCX back end, which its sending half (comm-ucx.c) and
 * its receiving half (comm-ucx-receive.c) share.  Only these two files include it. */
#ifndef MOE_RUNTIME_COMM_COMM_UCX_INTERNAL_H
#define MOE_RUNTIME_COMM_COMM_UCX_INTERNAL_H

#include "runtime/comm/comm.h"
#include "runtime/comm/ucx.h"
#include "runtime/comm/wire.h"

#if MOE_HAVE_UCX
/* The kinds of messages.  A request, a reply and BROADCAST (a message to all ranks) have a body; the kinds
 * that follow BROADCAST are control messages, which are a head alone. */
enum kind { REQUEST, REPLY, BROADCAST, HEARTBEAT, GIVEN_UP, BYE, HELLO, WELCOME, KINDS };
enum { AM = 1 }; /* the id of this program's active messages */

/* A slot of this rank and the head of its message (struct moe_wire_head), while UCX sends both.  The `what`
 * of a head is the caller's kind of a broadcast (moe_comm_broadcast), or the rank that is given up; its
 * `number` counts the broadcasts of this rank. */
struct slot {
    unsigned char *p; /* request_bytes or reply_bytes of the comm */
    unsigned char head[MOE_WIRE_HEAD_BYTES];
    void *pending;    /* UCX's request; NULL: it is sent */
};

/* A message that another rank has sent to all ranks. */
struct broadcast {
    struct broadcast *next;
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
    uint32_t received;                       /* how many of its broadcasts were handed to the caller */
    uint32_t kept;                           /* how many more of them are kept for the caller */
    size_t kept_bytes;                       /* the bytes of these */
};

struct ucx {
    struct moe_comm c;
    const struct moe_ucx *u;
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_address_t *address;
    size_t address_bytes;
    int efd;                          /* readable when the worker has something to do */
    struct link *link;                /* [ranks] */
    unsigned char *memory;            /* all slots */
    size_t memory_bytes;
    unsigned char key[MOE_WIRE_KEY];  /* of the run; a message without it is a stranger's and is dropped */
    struct broadcast *broadcasts;     /* the list of broadcasts that were not handed to the caller */
    struct broadcast **broadcasts_end;/* where the next one is appended */
    struct broadcast *handed;         /* the one that the caller has now */
    uint32_t broadcasts_sent;         /* how many broadcasts this rank has sent */
    double last_heartbeat;            /* when this rank last sent one (moe_now) */
    bool wake;                        /* something has come for which a wait ends */
    bool ready;                       /* all ranks are connected */
    bool leaving;                     /* the comm is being closed: a lost connection means no death now */
};

/* UCX calls this with every message, in the thread that progresses the worker; arg is a struct ucx. */
ucs_status_t moe_ucx_receive(void *arg, const void *header, size_t header_bytes, void *data, size_t bytes,
                             const ucp_am_recv_param_t *param);
#endif

#endif
