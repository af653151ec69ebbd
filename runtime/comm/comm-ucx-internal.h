/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/comm-ucx-internal.h - what the sending and the receiving half of the UCX communicator share;
 * for runtime/comm/comm-ucx*.c alone. */
#ifndef MOE_RUNTIME_COMM_COMM_UCX_INTERNAL_H
#define MOE_RUNTIME_COMM_COMM_UCX_INTERNAL_H

#include "runtime/comm/comm.h"
#include "runtime/comm/ucx.h"
#include "runtime/comm/wire.h"

#if MOE_HAVE_UCX
enum kind { REQUEST, REPLY, SAID, BEAT, GIVEN_UP, BYE, HELLO, WELCOME, KINDS };
enum { AM = 1 };

/* One message under way: moe_wire_head in front, whose `what` is said's kind, or the rank given up; its
 * number is of what was said, in order. */
struct slot {
    unsigned char *p;
    unsigned char head[MOE_WIRE_HEAD_BYTES];
    void *pending;
};

/* Something that another rank has said, once it is here. */
struct said {
    struct said *next;
    struct moe_wire_head head;
    size_t bytes;
    bool here;
    unsigned char data[];
};

struct link {
    ucp_ep_h ep;
    struct slot request, reply;       /* to that rank */
    unsigned char *asked, *answer;    /* from it */
    size_t asked_bytes, answer_bytes; /* that have come */
    bool is_asked, is_answered, gone, bye, hello, welcome;
    bool asking, answering; /* a request, or a reply, is being fetched into its slot */
    bool owes;              /* a reply: it was asked and has not answered */
    uint64_t life;
    uint32_t heard;   /* how many of its words */
    uint32_t unheard; /* words of it that are kept, and their bytes */
    size_t unheard_bytes;
};

struct ucx {
    struct moe_comm c;
    const struct moe_ucx *u;
    ucp_context_h context;
    ucp_worker_h worker;
    ucp_address_t *address;
    size_t address_bytes;
    int efd;
    struct link *link; /* [ranks] */
    unsigned char *memory;
    size_t memory_bytes;
    unsigned char key[MOE_WIRE_KEY]; /* of the run: what comes without it is a stranger's */
    struct said *said, **said_end, *handed;
    uint32_t words; /* that this rank has said */
    double beat;    /* when it last gave a sign of life */
    bool news, ready, leaving;
};

/* A message: UCX's callback, arg a struct ucx. */
ucs_status_t moe_ucx_receive(void *arg, const void *header, size_t header_bytes, void *data, size_t bytes,
                             const ucp_am_recv_param_t *param);
#endif

#endif
