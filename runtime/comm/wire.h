/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/comm/wire.h - the layout of all messages between ranks: this is the one place that writes them as
 * bytes and reads them (wire-meet.c those of the rendezvous, wire-results.c results, wire.c all others).  It
 * does no I/O and keeps no state; any thread may call it.
 *
 * Nothing that arrives is trusted until a function here has read it: each checks every length against the
 * bytes that are there and every number against its range, and makes every text end with NUL and safe to
 * print.  Numbers are little-endian.  The first message between two ranks begins with a magic number and
 * MOE_WIRE_VERSION, which is the version of all messages; ranks compare it before they read anything else.
 *
 * A function named put writes into memory of the size that the constant _BYTES or the function _bytes
 * beside it says.  A function named get reads, and returns false when the bytes are no such message; the
 * contents of its outputs are then undefined. */
#ifndef MOE_RUNTIME_COMM_WIRE_H
#define MOE_RUNTIME_COMM_WIRE_H

#include "runtime/comm/agree.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MOE_WIRE_VERSION = 5,
    MOE_WIRE_NONCE = 32, /* bytes of a random number that is used once */
    MOE_WIRE_MAC = 32,   /* bytes at the end of a body that prove who wrote it; zeros without a secret */
    MOE_WIRE_KEY = 16,   /* bytes of a run's key, which every message between its ranks carries */
    MOE_WIRE_ADDRESS_MAX = 1 << 17, /* bytes of the address of a rank */
};

/* ---- errors ---- */

/* The code of a failure that another process reports: `code` when it is one of enum moe_code and not
 * MOE_OK, MOE_DEVICE else. */
enum moe_code moe_wire_code(uint64_t code);
enum {
    MOE_WIRE_ERR_BYTES = 4 + 3 * 2 + sizeof((struct moe_err *)0)->msg + sizeof((struct moe_err *)0)->file +
                         sizeof((struct moe_err *)0)->tensor
};
size_t moe_wire_err_put(unsigned char out[MOE_WIRE_ERR_BYTES], const struct moe_err *err); /* bytes written */
/* Reads a failure.  err->code is then one of enum moe_code, not MOE_OK, and the message is not empty.
 * `bytes` may be more than the failure takes. */
bool moe_wire_err_get(const unsigned char *p, size_t bytes, struct moe_err *err);

/* ---- at the rendezvous (rendezvous.h tells who says what) ---- */

enum moe_wire_type {
    MOE_WIRE_HELLO = 1,
    MOE_WIRE_CHALLENGE,
    MOE_WIRE_JOIN,
    MOE_WIRE_WELCOME,
    MOE_WIRE_REFUSED
};

/* The frame in front of every body.  Its first bytes are the magic number. */
struct moe_wire_frame {
    uint32_t version;
    int32_t rank, ranks;
    uint32_t type;
    uint64_t secret;  /* 1: the rank was given a secret; 0: none */
    uint64_t bytes;   /* of the body */
};
enum { MOE_WIRE_FRAME_BYTES = 40 };
void moe_wire_frame_put(unsigned char out[MOE_WIRE_FRAME_BYTES], const struct moe_wire_frame *f);
/* False when the frame comes from some other program. */
bool moe_wire_frame_get(const unsigned char in[MOE_WIRE_FRAME_BYTES], struct moe_wire_frame *f);
/* The largest body that a frame of this type may have in a run of so many ranks; 0: there is no such type. */
uint64_t moe_wire_body_max(uint32_t type, int ranks);

/* The body of HELLO is a nonce, that of CHALLENGE a nonce and a MAC, that of REFUSED an error and a MAC. */

/* JOIN, without its MAC: the failure of the rank (code MOE_OK: none), its settings and its address. */
struct moe_wire_join {
    struct moe_err failure;
    struct moe_agreement settings;
    const unsigned char *address;
    size_t address_bytes;
};
size_t moe_wire_join_bytes(const struct moe_wire_join *j);
void moe_wire_join_put(unsigned char *out, const struct moe_wire_join *j);
/* j->address points into p.  A rank without a failure has an address. */
bool moe_wire_join_get(const unsigned char *p, size_t bytes, struct moe_wire_join *j);

/* WELCOME, without its MAC: the run's key, the lengths of all addresses, the addresses.  The address of rank
 * r begins at offset[r], and offset [ranks + 1] belongs to the caller.  get: *all points into p. */
size_t moe_wire_welcome_bytes(int ranks, size_t addresses);
void moe_wire_welcome_put(unsigned char *out, const unsigned char key[MOE_WIRE_KEY], int ranks,
                          const size_t *offset, const unsigned char *all);
bool moe_wire_welcome_get(const unsigned char *p, size_t bytes, unsigned char key[MOE_WIRE_KEY], int ranks,
                          size_t *offset, const unsigned char **all);

/* ---- in front of every message between ranks (comm-ucx) ---- */

/* What `what` and `number` mean depends on `kind` (comm-ucx-internal.h). */
struct moe_wire_head {
    uint32_t kind, from, what, number;
    unsigned char key[MOE_WIRE_KEY];
};
enum { MOE_WIRE_HEAD_BYTES = 16 + MOE_WIRE_KEY };
void moe_wire_head_put(unsigned char out[MOE_WIRE_HEAD_BYTES], const struct moe_wire_head *h);
bool moe_wire_head_get(const void *in, size_t bytes, struct moe_wire_head *h);

/* ---- requests and replies (ep-internal.h has the parts behind these heads) ---- */

/* The dimensions that every rank of a run knows.  The numbers in messages are checked against them. */
struct moe_wire_shape {
    int64_t layers, experts, hidden;
    int64_t choices; /* of the largest batch: tokens x experts per token */
    int64_t n_moe;   /* layers with experts */
    size_t request_bytes, reply_bytes; /* of a slot */
};

/* How far a rank is in the change to a new plan; every request and reply has it in its head. */
struct moe_wire_progress {
    uint32_t moves;        /* changes of plan that it has completed */
    int32_t ready;         /* MoE layers that it has mapped by the new plan */
    int32_t dispatching;   /* MoE layers that it dispatches by the new plan */
};

/* The head of a request.  Behind it stand uint16_t counts [E] (how many tokens the client has for each
 * expert of this layer), struct moe_wire_pair [pairs] and float rows [rows][H], each aligned to 64 bytes. */
struct moe_wire_request {
    uint64_t pass; /* of the client: the server computes the lowest (pass, layer) first */
    int32_t layer, rows, pairs;
    struct moe_wire_progress at;
};
struct moe_wire_pair {
    int32_t row, expert;
};
/* The head of a reply.  Behind it stand float rows [pairs][H], aligned to 64 bytes; where code is not
 * MOE_OK, the error of the server stands there instead. */
struct moe_wire_reply {
    uint64_t pass; /* the largest one that the server has seen */
    int32_t pairs;
    uint32_t code;
    struct moe_wire_progress at;
};
enum { MOE_WIRE_SLOT_HEAD = 64 }; /* bytes of a slot that the head of a request or of a reply has */

/* n, rounded up to a multiple of 64. */
static inline size_t moe_wire_align(size_t n) { return (n + 63) / 64 * 64; }
/* Where, in bytes from the beginning of the slot, the pairs of a request stand, and where its rows. */
static inline size_t moe_wire_pairs_at(int64_t experts)
{
    return MOE_WIRE_SLOT_HEAD + moe_wire_align((size_t)experts * sizeof(uint16_t));
}
static inline size_t moe_wire_rows_at(int64_t experts, int64_t pairs)
{
    return moe_wire_pairs_at(experts) + moe_wire_align((size_t)pairs * sizeof(struct moe_wire_pair));
}

void moe_wire_request_put(unsigned char slot[MOE_WIRE_SLOT_HEAD], const struct moe_wire_request *q);
struct moe_wire_request moe_wire_request_get(const unsigned char slot[MOE_WIRE_SLOT_HEAD]); /* unchecked */
/* Whether `bytes` bytes of a slot are a request that a rank of this shape may compute: all numbers, counts
 * and pairs are in range, and all rows are there. */
bool moe_wire_request_sound(const unsigned char *slot, size_t bytes, const struct moe_wire_shape *s);
void moe_wire_reply_put(unsigned char slot[MOE_WIRE_SLOT_HEAD], const struct moe_wire_reply *p);
struct moe_wire_reply moe_wire_reply_get(const unsigned char slot[MOE_WIRE_SLOT_HEAD]); /* unchecked */
/* Whether `bytes` bytes of a slot are a reply to a request of `pairs` pairs: either all rows are there, and
 * err->code is MOE_OK, or *err is the error of the server. */
bool moe_wire_reply_sound(const unsigned char *slot, size_t bytes, int32_t pairs,
                          const struct moe_wire_shape *s, struct moe_err *err);

/* ---- results, which a rank sends to all others ---- */

/* One generated sequence. */
struct moe_wire_sequence {
    int64_t index, n;            /* its number among the sequences of the run; its tokens */
    int32_t finish;              /* why it ended (enum moe_finish) */
    size_t text_bytes;
    /* int32_t [n] and struct moe_logprobs [n], at any alignment; logprobs is NULL where there are none */
    const unsigned char *tokens, *text, *logprobs;
    struct moe_err err;          /* with which it ended; its code is MOE_OK where it had none */
};
size_t moe_wire_sequence_bytes(const struct moe_wire_sequence *s);
void moe_wire_sequence_put(unsigned char *out, const struct moe_wire_sequence *s);
/* vocab: the number of token ids; an id that is not below it is refused.  tokens, text and logprobs point
 * into p. */
bool moe_wire_sequence_get(const unsigned char *p, size_t bytes, int64_t vocab, struct moe_wire_sequence *s);

/* The score of the part of a text that one rank has scored, as struct moe_score_sums (score.h): sums over n
 * positions. */
struct moe_wire_score {
    int64_t n, same;           /* positions; those at which model and reference prefer the same token */
    double nll, nll_reference, kl;
    uint64_t anonymous;        /* bytes of memory that the rank held at its peak, besides mapped files */
    const unsigned char *all;  /* double [n], KL divergences, in any order; NULL without a reference */
};
/* n_all: the length of s->all; 0 where that is NULL. */
size_t moe_wire_score_bytes(int64_t n_all);
void moe_wire_score_put(unsigned char *out, const struct moe_wire_score *s, int64_t n_all);
/* reference: the rank has scored against a reference, so that it has sent s->all, which points into p. */
bool moe_wire_score_get(const unsigned char *p, size_t bytes, bool reference, struct moe_wire_score *s);

/* What a rank has done: struct moe_ep_stats (ep.h) says what the fields mean, and struct moe_cache_counts
 * (results.h) what those of the cache do. */
struct moe_wire_stats {
    uint64_t requests, served, again, bytes_sent, bytes_rows, mapped;
    double seconds_send, seconds_wait, seconds_serve, seconds_experts;
    uint64_t cache_bytes, cache_pages, cache_used_peak, cache_found, cache_preemptions;
    uint32_t moves, died;
};
enum { MOE_WIRE_STATS_BYTES = 15 * 8 + 2 * 4 };
void moe_wire_stats_put(unsigned char out[MOE_WIRE_STATS_BYTES], const struct moe_wire_stats *s);
bool moe_wire_stats_get(const unsigned char *p, size_t bytes, struct moe_wire_stats *s);

/* Whether p [bytes] are routing counts, int64_t each, `want` bytes in all, of which none is negative or so
 * large that a sum of 2^16 of them would overflow. */
bool moe_wire_counts_sound(const unsigned char *p, size_t bytes, size_t want);

#endif
