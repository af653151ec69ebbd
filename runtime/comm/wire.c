/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/comm/wire.h"

#include "base/show.h"

#include <assert.h>
#include <math.h>
#include <string.h>

/* Rows, counts and pairs of requests and replies are arrays in memory, which is sent as it is.  All other
 * messages are written field by field; the sizes below are those of wire.h, as sums of the fields.  Whoever
 * changes a layout raises MOE_WIRE_VERSION (test-wire holds the bytes of every message). */
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "slots are sent as they are: little-endian only");
static_assert(sizeof(float) == 4 && sizeof(double) == 8 && sizeof(uint16_t) == 2 && sizeof(int64_t) == 8,
              "arrays in messages have these elements");
static_assert(sizeof(struct moe_wire_pair) == 8 && offsetof(struct moe_wire_pair, row) == 0 &&
                  offsetof(struct moe_wire_pair, expert) == 4,
              "a pair is row, expert without padding");

#define MAGIC "MOERANKS"
enum {
    MAGIC_BYTES = 8,
    PROGRESS_BYTES = 4 + 4 + 4,
    REQUEST_BYTES = 8 + 4 + 4 + 4 + PROGRESS_BYTES,
    REPLY_BYTES = 8 + 4 + 4 + PROGRESS_BYTES
};
static_assert(sizeof MAGIC == MAGIC_BYTES + 1, "the magic number fills its field");
static_assert(MOE_WIRE_FRAME_BYTES == (int)MAGIC_BYTES + 4 + 4 + 4 + 4 + 8 + 8, "the fields of a frame");
static_assert(MOE_WIRE_HEAD_BYTES == 4 + 4 + 4 + 4 + (int)MOE_WIRE_KEY, "the fields of a head");
static_assert((int)REQUEST_BYTES <= (int)MOE_WIRE_SLOT_HEAD && (int)REPLY_BYTES <= (int)MOE_WIRE_SLOT_HEAD,
              "the fields of a request and of a reply fit the head of a slot");
static_assert(MOE_WIRE_SLOT_HEAD % 64 == 0, "what follows the head of a slot is aligned to 64");

/* A pass number is below this, so that it never gets so large that it would wrap around to 0. */
static const uint64_t pass_max = (uint64_t)1 << 62;

/* ---- numbers ---- */

/* The bytes that are left to read.  bad: something that was read was missing or out of range. */
struct in {
    const unsigned char *at, *end;
    bool bad;
};

static uint64_t take(struct in *in, int bytes)
{
    uint64_t v = 0;
    if (in->bad || in->end - in->at < bytes) {
        in->bad = true;
        return 0;
    }
    for (int i = 0; i < bytes; i++) v |= (uint64_t)in->at[i] << 8 * i;
    in->at += bytes;
    return v;
}

static void give(unsigned char **at, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++) *(*at)++ = (unsigned char)(v >> 8 * i);
}

static uint32_t take32(struct in *in) { return (uint32_t)take(in, 4); }
static uint64_t take64(struct in *in) { return take(in, 8); }
static void give32(unsigned char **at, uint32_t v) { give(at, v, 4); }
static void give64(unsigned char **at, uint64_t v) { give(at, v, 8); }

static double take_double(struct in *in)
{
    uint64_t bits = take64(in);
    double v;
    memcpy(&v, &bits, sizeof v);
    in->bad |= !isfinite(v);
    return v;
}

static void give_double(unsigned char **at, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    give64(at, bits);
}

static void give_bytes(unsigned char **at, const void *p, size_t bytes)
{
    if (bytes) memcpy(*at, p, bytes);
    *at += bytes;
}

/* Returns where the next n bytes lie; NULL, and sets in->bad, when fewer are left. */
static const unsigned char *take_bytes(struct in *in, size_t n)
{
    const unsigned char *p = in->at;
    if (in->bad || (size_t)(in->end - in->at) < n) {
        in->bad = true;
        return NULL;
    }
    in->at += n;
    return p;
}

static struct in reader(const void *p, size_t bytes)
{
    const unsigned char *at = p;
    return (struct in){ at, at + bytes, false };
}

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

static void give_text(unsigned char **at, const char *s, size_t cap)
{
    size_t n = strnlen(s, cap - 1);
    give(at, n, 2);
    give_bytes(at, s, n);
}

/* Reads a text without NULs into out [cap], ends it with NUL, and makes it safe to print on a terminal. */
static void take_text(struct in *in, char *out, size_t cap)
{
    size_t n = (size_t)take(in, 2);
    const unsigned char *p = take_bytes(in, n);
    in->bad |= n >= cap || (p && memchr(p, 0, n));
    if (in->bad) return;
    memcpy(out, p, n);
    out[n] = 0;
    moe_show(out, cap);
}

static void give_err(unsigned char **at, const struct moe_err *e)
{
    give32(at, (uint32_t)e->code);
    give_text(at, e->msg, sizeof e->msg);
    give_text(at, e->file, sizeof e->file);
    give_text(at, e->tensor, sizeof e->tensor);
}

static void take_err(struct in *in, struct moe_err *e)
{
    *e = (struct moe_err)MOE_ERR_INIT;
    e->code = moe_wire_code(take32(in));
    take_text(in, e->msg, sizeof e->msg);
    take_text(in, e->file, sizeof e->file);
    take_text(in, e->tensor, sizeof e->tensor);
    in->bad |= !e->msg[0];
}

size_t moe_wire_err_put(unsigned char out[MOE_WIRE_ERR_BYTES], const struct moe_err *err)
{
    unsigned char *at = out;
    give_err(&at, err);
    return (size_t)(at - out);
}

bool moe_wire_err_get(const unsigned char *p, size_t bytes, struct moe_err *err)
{
    struct in in = reader(p, bytes);
    take_err(&in, err);
    return !in.bad;
}

/* ---- at the rendezvous ---- */

void moe_wire_frame_put(unsigned char out[MOE_WIRE_FRAME_BYTES], const struct moe_wire_frame *f)
{
    unsigned char *at = out;
    give_bytes(&at, MAGIC, MAGIC_BYTES);
    give32(&at, f->version);
    give32(&at, (uint32_t)f->rank);
    give32(&at, (uint32_t)f->ranks);
    give32(&at, f->type);
    give64(&at, f->secret);
    give64(&at, f->bytes);
}

bool moe_wire_frame_get(const unsigned char p[MOE_WIRE_FRAME_BYTES], struct moe_wire_frame *f)
{
    struct in in = reader(p, MOE_WIRE_FRAME_BYTES);
    const unsigned char *magic = take_bytes(&in, MAGIC_BYTES);
    f->version = take32(&in);
    f->rank = (int32_t)take32(&in);
    f->ranks = (int32_t)take32(&in);
    f->type = take32(&in);
    f->secret = take64(&in);
    f->bytes = take64(&in);
    return !memcmp(magic, MAGIC, MAGIC_BYTES);
}

enum { ITEM_BYTES_MAX = 1 + MOE_AGREE_NAME + 16 };

uint64_t moe_wire_body_max(uint32_t type, int ranks)
{
    switch (type) {
    case MOE_WIRE_HELLO: return MOE_WIRE_NONCE;
    case MOE_WIRE_CHALLENGE: return MOE_WIRE_NONCE + MOE_WIRE_MAC;
    case MOE_WIRE_JOIN:
        return MOE_WIRE_ERR_BYTES + 4 + MOE_AGREE_MAX * ITEM_BYTES_MAX + 4 + MOE_WIRE_ADDRESS_MAX +
               MOE_WIRE_MAC;
    case MOE_WIRE_WELCOME: return MOE_WIRE_KEY + (uint64_t)ranks * (4 + MOE_WIRE_ADDRESS_MAX) + MOE_WIRE_MAC;
    case MOE_WIRE_REFUSED: return MOE_WIRE_ERR_BYTES + MOE_WIRE_MAC;
    default: return 0;
    }
}

static void give_settings(unsigned char **at, const struct moe_agreement *a)
{
    give32(at, a->n);
    for (uint32_t i = 0; i < a->n; i++) {
        size_t n = strlen(a->item[i].name);
        give(at, n, 1);
        give_bytes(at, a->item[i].name, n);
        give64(at, a->item[i].digest.high);
        give64(at, a->item[i].digest.low);
    }
}

static void take_settings(struct in *in, struct moe_agreement *a)
{
    *a = (struct moe_agreement){ .n = take32(in) };
    in->bad |= a->n > MOE_AGREE_MAX;
    for (uint32_t i = 0; !in->bad && i < a->n; i++) {
        size_t n = (size_t)take(in, 1);
        const unsigned char *p = take_bytes(in, n);
        in->bad |= !n || n >= MOE_AGREE_NAME || (p && memchr(p, 0, n));
        if (in->bad) return;
        memcpy(a->item[i].name, p, n);
        moe_show(a->item[i].name, sizeof a->item[i].name);
        a->item[i].digest.high = take64(in);
        a->item[i].digest.low = take64(in);
    }
}

size_t moe_wire_join_bytes(const struct moe_wire_join *j)
{
    size_t n = 4 + 3 * 2 + strlen(j->failure.msg) + strlen(j->failure.file) + strlen(j->failure.tensor) + 4 +
               4 + j->address_bytes;
    for (uint32_t i = 0; i < j->settings.n; i++) n += 1 + strlen(j->settings.item[i].name) + 16;
    return n;
}

void moe_wire_join_put(unsigned char *out, const struct moe_wire_join *j)
{
    give_err(&out, &j->failure);
    give_settings(&out, &j->settings);
    give32(&out, (uint32_t)j->address_bytes);
    give_bytes(&out, j->address, j->address_bytes);
}

bool moe_wire_join_get(const unsigned char *p, size_t bytes, struct moe_wire_join *j)
{
    struct in in = reader(p, bytes), code = in;
    if (take32(&code) != MOE_OK) {
        take_err(&in, &j->failure);
    } else { /* no failure: the lengths of its three texts are 0 */
        j->failure = (struct moe_err)MOE_ERR_INIT;
        take32(&in);
        in.bad |= take(&in, 6) != 0;
    }
    take_settings(&in, &j->settings);
    j->address_bytes = take32(&in);
    in.bad |= j->address_bytes > MOE_WIRE_ADDRESS_MAX || (!j->address_bytes && j->failure.code == MOE_OK);
    j->address = take_bytes(&in, j->address_bytes);
    return !in.bad && in.at == in.end;
}

size_t moe_wire_welcome_bytes(int ranks, size_t addresses)
{
    return MOE_WIRE_KEY + 4 * (size_t)ranks + addresses;
}

void moe_wire_welcome_put(unsigned char *out, const unsigned char key[MOE_WIRE_KEY], int ranks,
                          const size_t *offset, const unsigned char *all)
{
    give_bytes(&out, key, MOE_WIRE_KEY);
    for (int r = 0; r < ranks; r++) give32(&out, (uint32_t)(offset[r + 1] - offset[r]));
    give_bytes(&out, all, offset[ranks]);
}

bool moe_wire_welcome_get(const unsigned char *p, size_t bytes, unsigned char key[MOE_WIRE_KEY], int ranks,
                          size_t *offset, const unsigned char **all)
{
    struct in in = reader(p, bytes);
    const unsigned char *k = take_bytes(&in, MOE_WIRE_KEY);
    if (!k) return false;
    memcpy(key, k, MOE_WIRE_KEY);
    offset[0] = 0;
    for (int r = 0; r < ranks; r++) {
        uint32_t n = take32(&in);
        in.bad |= !n || n > MOE_WIRE_ADDRESS_MAX;
        offset[r + 1] = offset[r] + n;
    }
    *all = take_bytes(&in, offset[ranks]);
    return !in.bad && in.at == in.end;
}

/* ---- between ranks ---- */

void moe_wire_head_put(unsigned char out[MOE_WIRE_HEAD_BYTES], const struct moe_wire_head *h)
{
    give32(&out, h->kind);
    give32(&out, h->from);
    give32(&out, h->what);
    give32(&out, h->number);
    give_bytes(&out, h->key, MOE_WIRE_KEY);
}

bool moe_wire_head_get(const void *p, size_t bytes, struct moe_wire_head *h)
{
    struct in in = reader(p, bytes);
    h->kind = take32(&in);
    h->from = take32(&in);
    h->what = take32(&in);
    h->number = take32(&in);
    const unsigned char *key = take_bytes(&in, MOE_WIRE_KEY);
    if (in.bad || in.at != in.end) return false;
    memcpy(h->key, key, MOE_WIRE_KEY);
    return true;
}

/* ---- requests and replies ---- */

static void give_progress(unsigned char **at, const struct moe_wire_progress *p)
{
    give32(at, p->moves);
    give32(at, (uint32_t)p->ready);
    give32(at, (uint32_t)p->dispatching);
}

static struct moe_wire_progress take_progress(struct in *in)
{
    struct moe_wire_progress p;
    p.moves = take32(in);
    p.ready = (int32_t)take32(in);
    p.dispatching = (int32_t)take32(in);
    return p;
}

static bool progress_sound(const struct moe_wire_progress *p, const struct moe_wire_shape *s)
{
    return p->ready >= 0 && p->ready <= s->n_moe && p->dispatching >= 0 && p->dispatching <= s->n_moe;
}

void moe_wire_request_put(unsigned char slot[MOE_WIRE_SLOT_HEAD], const struct moe_wire_request *q)
{
    unsigned char *at = slot;
    give64(&at, q->pass);
    give32(&at, (uint32_t)q->layer);
    give32(&at, (uint32_t)q->rows);
    give32(&at, (uint32_t)q->pairs);
    give_progress(&at, &q->at);
    memset(at, 0, (size_t)(slot + MOE_WIRE_SLOT_HEAD - at));
}

struct moe_wire_request moe_wire_request_get(const unsigned char slot[MOE_WIRE_SLOT_HEAD])
{
    struct in in = reader(slot, MOE_WIRE_SLOT_HEAD);
    struct moe_wire_request q;
    q.pass = take64(&in);
    q.layer = (int32_t)take32(&in);
    q.rows = (int32_t)take32(&in);
    q.pairs = (int32_t)take32(&in);
    q.at = take_progress(&in);
    return q;
}

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
    give64(&at, p->pass);
    give32(&at, (uint32_t)p->pairs);
    give32(&at, p->code);
    give_progress(&at, &p->at);
    memset(at, 0, (size_t)(slot + MOE_WIRE_SLOT_HEAD - at));
}

struct moe_wire_reply moe_wire_reply_get(const unsigned char slot[MOE_WIRE_SLOT_HEAD])
{
    struct in in = reader(slot, MOE_WIRE_SLOT_HEAD);
    struct moe_wire_reply p;
    p.pass = take64(&in);
    p.pairs = (int32_t)take32(&in);
    p.code = take32(&in);
    p.at = take_progress(&in);
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

/* ---- results ---- */

size_t moe_wire_sequence_bytes(int64_t n, size_t text_bytes)
{
    return 8 + 8 + 4 + (size_t)n * sizeof(int32_t) + text_bytes;
}

void moe_wire_sequence_put(unsigned char *out, const struct moe_wire_sequence *s)
{
    give64(&out, (uint64_t)s->index);
    give64(&out, (uint64_t)s->n);
    give32(&out, (uint32_t)s->finish);
    give_bytes(&out, s->tokens, (size_t)s->n * sizeof(int32_t));
    give_bytes(&out, s->text, s->text_bytes);
}

bool moe_wire_sequence_get(const unsigned char *p, size_t bytes, int64_t vocab, struct moe_wire_sequence *s)
{
    struct in in = reader(p, bytes);
    s->index = (int64_t)take64(&in);
    uint64_t n = take64(&in);
    s->finish = (int32_t)take32(&in);
    if (in.bad || s->index < 0 || n > bytes / sizeof(int32_t)) return false;
    s->n = (int64_t)n;
    s->tokens = take_bytes(&in, (size_t)n * sizeof(int32_t));
    for (uint64_t i = 0; !in.bad && i < n; i++) {
        int32_t id;
        memcpy(&id, s->tokens + i * sizeof id, sizeof id);
        in.bad = id < 0 || id >= vocab;
    }
    s->text_bytes = (size_t)(in.end - in.at);
    s->text = in.at;
    return !in.bad;
}

size_t moe_wire_score_bytes(int64_t n_all) { return 6 * 8 + (size_t)n_all * sizeof(double); }

void moe_wire_score_put(unsigned char *out, const struct moe_wire_score *s, int64_t n_all)
{
    give64(&out, (uint64_t)s->n);
    give64(&out, (uint64_t)s->same);
    give_double(&out, s->nll);
    give_double(&out, s->nll_reference);
    give_double(&out, s->kl);
    give64(&out, s->anonymous);
    give_bytes(&out, s->all, (size_t)n_all * sizeof(double));
}

bool moe_wire_score_get(const unsigned char *p, size_t bytes, bool reference, struct moe_wire_score *s)
{
    struct in in = reader(p, bytes);
    uint64_t n = take64(&in), same = take64(&in);
    s->nll = take_double(&in);
    s->nll_reference = take_double(&in);
    s->kl = take_double(&in);
    s->anonymous = take64(&in);
    if (in.bad || n > (uint64_t)1 << 40 || same > n) return false;
    s->n = (int64_t)n;
    s->same = (int64_t)same;
    s->all = reference ? in.at : NULL;
    for (uint64_t i = 0; reference && !in.bad && i < n; i++) take_double(&in);
    return !in.bad && in.at == in.end;
}

void moe_wire_stats_put(unsigned char out[MOE_WIRE_STATS_BYTES], const struct moe_wire_stats *s)
{
    const uint64_t counts[] = { s->requests, s->served, s->again, s->bytes_sent, s->bytes_rows, s->mapped };
    const double seconds[] = { s->seconds_send, s->seconds_wait, s->seconds_serve, s->seconds_experts };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) give64(&out, counts[i]);
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) give_double(&out, seconds[i]);
    give32(&out, s->moves);
    give32(&out, s->died);
}

bool moe_wire_stats_get(const unsigned char *p, size_t bytes, struct moe_wire_stats *s)
{
    struct in in = reader(p, bytes);
    uint64_t *const counts[] = { &s->requests,   &s->served,     &s->again,
                                 &s->bytes_sent, &s->bytes_rows, &s->mapped };
    double *const seconds[] = { &s->seconds_send, &s->seconds_wait, &s->seconds_serve, &s->seconds_experts };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        *counts[i] = take64(&in);
        in.bad |= *counts[i] > INT64_MAX;
    }
    for (size_t i = 0; i < sizeof seconds / sizeof *seconds; i++) *seconds[i] = take_double(&in);
    s->moves = take32(&in);
    s->died = take32(&in);
    return !in.bad && in.at == in.end && s->died <= 1 && s->moves <= INT32_MAX;
}

bool moe_wire_counts_sound(const unsigned char *p, size_t bytes, size_t want)
{
    if (bytes != want) return false;
    for (size_t i = 0; i < bytes / sizeof(int64_t); i++) {
        int64_t n;
        memcpy(&n, p + i * sizeof n, sizeof n);
        if (n < 0 || n > INT64_MAX >> 16) return false;
    }
    return true;
}
