/* SPDX-License-Identifier: Apache-2.0 */
/* Failures, and the messages between the ranks of a run: heads, requests, replies. */
#include "runtime/comm/wire-internal.h"

#include "base/show.h"

#include <assert.h>

/* Rows, counts and pairs of requests and replies are arrays in memory, which is sent as it is.  All other
 * messages are written field by field; the sizes below are those of wire.h, as sums of the fields.  Whoever
 * changes a layout raises MOE_WIRE_VERSION (test-wire holds the bytes of every message). */
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "slots are sent as they are: little-endian only");
static_assert(sizeof(float) == 4 && sizeof(double) == 8 && sizeof(uint16_t) == 2 && sizeof(int64_t) == 8,
              "arrays in messages have these elements");
static_assert(sizeof(struct moe_wire_pair) == 8 && offsetof(struct moe_wire_pair, row) == 0 &&
                  offsetof(struct moe_wire_pair, expert) == 4,
              "a pair is row, expert without padding");

enum {
    PROGRESS_BYTES = 4 + 4 + 4,
    REQUEST_BYTES = 8 + 4 + 4 + 4 + PROGRESS_BYTES,
    REPLY_BYTES = 8 + 4 + 4 + PROGRESS_BYTES
};
static_assert(MOE_WIRE_HEAD_BYTES == 4 + 4 + 4 + 4 + (int)MOE_WIRE_KEY, "the fields of a head");
static_assert((int)REQUEST_BYTES <= (int)MOE_WIRE_SLOT_HEAD && (int)REPLY_BYTES <= (int)MOE_WIRE_SLOT_HEAD,
              "the fields of a request and of a reply fit the head of a slot");
static_assert(MOE_WIRE_SLOT_HEAD % 64 == 0, "what follows the head of a slot is aligned to 64");

/* A pass number is below this, so that it never gets so large that it would wrap around to 0. */
static const uint64_t pass_max = (uint64_t)1 << 62;

/* ---- errors ---- */

enum moe_code moe_wire_code(uint64_t code)
{
    static const enum moe_code known[] = {
#define X(name, value, word, text) MOE_##name,
        MOE_CODES(X)
#undef X
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i] != MOE_OK && code == (uint64_t)known[i]) return known[i];
    return MOE_DEVICE;
}

static void put_text(unsigned char **at, const char *s, size_t cap)
{
    size_t n = strnlen(s, cap - 1);
    put_uint(at, n, 2);
    put_bytes(at, s, n);
}

/* Reads a text without NULs into out [cap], ends it with NUL, and makes it safe to print on a terminal. */
static void get_text(struct fields *in, char *out, size_t cap)
{
    size_t n = (size_t)get_uint(in, 2);
    const unsigned char *p = get_bytes(in, n);
    in->bad |= n >= cap || (p && memchr(p, 0, n));
    if (in->bad) return;
    memcpy(out, p, n);
    out[n] = 0;
    moe_show(out, cap);
}

void moe_wire_put_err_fields(unsigned char **at, const struct moe_err *e)
{
    put32(at, (uint32_t)e->code);
    put_text(at, e->msg, sizeof e->msg);
    put_text(at, e->file, sizeof e->file);
    put_text(at, e->tensor, sizeof e->tensor);
}

void moe_wire_get_err_fields(struct fields *in, struct moe_err *e)
{
    *e = (struct moe_err)MOE_ERR_INIT;
    e->code = moe_wire_code(get32(in));
    get_text(in, e->msg, sizeof e->msg);
    get_text(in, e->file, sizeof e->file);
    get_text(in, e->tensor, sizeof e->tensor);
    in->bad |= !e->msg[0];
}

size_t moe_wire_err_put(unsigned char out[MOE_WIRE_ERR_BYTES], const struct moe_err *err)
{
    unsigned char *at = out;
    moe_wire_put_err_fields(&at, err);
    return (size_t)(at - out);
}

bool moe_wire_err_get(const unsigned char *p, size_t bytes, struct moe_err *err)
{
    struct fields in = read_fields(p, bytes);
    moe_wire_get_err_fields(&in, err);
    return !in.bad;
}

/* ---- between ranks ---- */

void moe_wire_head_put(unsigned char out[MOE_WIRE_HEAD_BYTES], const struct moe_wire_head *h)
{
    put32(&out, h->kind);
    put32(&out, h->from);
    put32(&out, h->what);
    put32(&out, h->number);
    put_bytes(&out, h->key, MOE_WIRE_KEY);
}

bool moe_wire_head_get(const void *p, size_t bytes, struct moe_wire_head *h)
{
    struct fields in = read_fields(p, bytes);
    h->kind = get32(&in);
    h->from = get32(&in);
    h->what = get32(&in);
    h->number = get32(&in);
    const unsigned char *key = get_bytes(&in, MOE_WIRE_KEY);
    if (in.bad || in.at != in.end) return false;
    memcpy(h->key, key, MOE_WIRE_KEY);
    return true;
}

/* ---- requests and replies ---- */

static void put_progress(unsigned char **at, const struct moe_wire_progress *p)
{
    put32(at, p->moves);
    put32(at, (uint32_t)p->ready);
    put32(at, (uint32_t)p->dispatching);
}

static struct moe_wire_progress get_progress(struct fields *in)
{
    struct moe_wire_progress p;
    p.moves = get32(in);
    p.ready = (int32_t)get32(in);
    p.dispatching = (int32_t)get32(in);
    return p;
}

static bool progress_sound(const struct moe_wire_progress *p, const struct moe_wire_shape *s)
{
    return p->ready >= 0 && p->ready <= s->n_moe && p->dispatching >= 0 && p->dispatching <= s->n_moe;
}

void moe_wire_request_put(unsigned char slot[MOE_WIRE_SLOT_HEAD], const struct moe_wire_request *q)
{
    unsigned char *at = slot;
    put64(&at, q->pass);
    put32(&at, (uint32_t)q->layer);
    put32(&at, (uint32_t)q->rows);
    put32(&at, (uint32_t)q->pairs);
    put_progress(&at, &q->at);
    memset(at, 0, (size_t)(slot + MOE_WIRE_SLOT_HEAD - at));
}

struct moe_wire_request moe_wire_request_get(const unsigned char slot[MOE_WIRE_SLOT_HEAD])
{
    struct fields in = read_fields(slot, MOE_WIRE_SLOT_HEAD);
    struct moe_wire_request q;
    q.pass = get64(&in);
    q.layer = (int32_t)get32(&in);
    q.rows = (int32_t)get32(&in);
    q.pairs = (int32_t)get32(&in);
    q.at = get_progress(&in);
    return q;
}

/* Whether the counts of a request agree with its head.  They are of all choices of the client's batch: their
 * sum is at least the pairs for this server, and at most the choices of the largest batch. */
static bool counts_sound(const unsigned char *slot, int64_t pairs, const struct moe_wire_shape *s)
{
    int64_t sum = 0;
    for (int64_t e = 0; e < s->experts; e++) {
        uint16_t n;
        memcpy(&n, slot + MOE_WIRE_SLOT_HEAD + (size_t)e * sizeof n, sizeof n);
        sum += n;
    }
    return pairs <= sum && sum <= s->choices;
}

bool moe_wire_request_sound(const unsigned char *slot, size_t bytes, const struct moe_wire_shape *s)
{
    if (bytes < moe_wire_pairs_at(s->experts)) return false;
    struct moe_wire_request q = moe_wire_request_get(slot);
    size_t row = (size_t)s->hidden * sizeof(float);
    bool good = q.pass < pass_max && q.layer >= 0 && q.layer < s->layers && q.rows >= 0 &&
                q.pairs >= q.rows && q.pairs <= s->choices && progress_sound(&q.at, s) &&
                MOE_WIRE_SLOT_HEAD + (size_t)q.pairs * row <= s->reply_bytes &&
                moe_wire_rows_at(s->experts, q.pairs) + (size_t)q.rows * row <= bytes &&
                counts_sound(slot, q.pairs, s);
    const unsigned char *p = slot + moe_wire_pairs_at(s->experts);
    for (int32_t i = 0; good && i < q.pairs; i++) {
        struct moe_wire_pair pair;
        memcpy(&pair, p + (size_t)i * sizeof pair, sizeof pair);
        good = pair.row >= 0 && pair.row < q.rows && pair.expert >= 0 && pair.expert < s->experts;
    }
    return good;
}

void moe_wire_reply_put(unsigned char slot[MOE_WIRE_SLOT_HEAD], const struct moe_wire_reply *p)
{
    unsigned char *at = slot;
    put64(&at, p->pass);
    put32(&at, (uint32_t)p->pairs);
    put32(&at, p->code);
    put_progress(&at, &p->at);
    memset(at, 0, (size_t)(slot + MOE_WIRE_SLOT_HEAD - at));
}

struct moe_wire_reply moe_wire_reply_get(const unsigned char slot[MOE_WIRE_SLOT_HEAD])
{
    struct fields in = read_fields(slot, MOE_WIRE_SLOT_HEAD);
    struct moe_wire_reply p;
    p.pass = get64(&in);
    p.pairs = (int32_t)get32(&in);
    p.code = get32(&in);
    p.at = get_progress(&in);
    return p;
}

bool moe_wire_reply_sound(const unsigned char *slot, size_t bytes, int32_t pairs,
                          const struct moe_wire_shape *s, struct moe_err *err)
{
    err->code = MOE_OK;
    if (bytes < MOE_WIRE_SLOT_HEAD) return false;
    struct moe_wire_reply p = moe_wire_reply_get(slot);
    if (p.code != MOE_OK) return moe_wire_err_get(slot + MOE_WIRE_SLOT_HEAD, bytes - MOE_WIRE_SLOT_HEAD, err);
    return p.pass < pass_max && p.pairs == pairs && progress_sound(&p.at, s) &&
           bytes >= MOE_WIRE_SLOT_HEAD + (size_t)pairs * (size_t)s->hidden * sizeof(float);
}
