/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the messages between ranks as bytes: each is the same after it was written and read, and is refused
 * when it is cut short anywhere or a number in it is out of its range.  Tests the table of what must be
 * alike on all ranks. */
#include "tests/ok.h"
#include "runtime/comm/wire.h"
#include "runtime/engine/results.h"
#include "runtime/engine/run-agree.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 3 };

/* ---- agreement ---- */

static bool flag;
static const char *text, *file, *own;
static int64_t number;
static double real;
static struct moe_strlist list;

static const struct moe_opt table[] = {
    MOE_GROUP("all"),
    MOE_BOOL(0, "flag", &flag, "x"),
    MOE_STR(0, "text", &text, "T", "x"),
    MOE_INT(0, "number", &number, "N", "x"),
    MOE_FLOAT(0, "real", &real, "F", "x"),
    MOE_LIST(0, "list", &list, "L", "x"),
    MOE_FILE(0, "file", &file, "FILE", "x"),
    MOE_OWN_STR(0, "own", &own, "X", "x"),
    MOE_END(),
};

static struct moe_agreement options(void)
{
    struct moe_agreement a = { 0 };
    moe_run_agree_options(&a, table);
    return a;
}

/* Whether the options differ from `before` in `name`, or, where that is NULL, in none that counts. */
static bool differs(const struct moe_agreement *before, const char *name)
{
    struct moe_agreement now = options();
    const char *other = moe_agree_difference(before, &now);
    return name ? other && !strcmp(other, name) : !other;
}

static void agreement(void)
{
    const char *ab[] = { "a", "b" }, *joined[] = { "ab" };
    struct moe_agreement a = options();
    OK(a.n == 6 && differs(&a, NULL));
    flag = true, OK(differs(&a, "--flag")), flag = false;
    text = "", OK(differs(&a, "--text")); /* an empty one is not none */
    struct moe_agreement empty = options();
    text = "x", OK(differs(&empty, "--text")), text = NULL;
    number = 1, OK(differs(&a, "--number")), number = 0;
    real = -0.0, OK(differs(&a, NULL)), real = 1e-9, OK(differs(&a, "--real")), real = 0;
    list = (struct moe_strlist){ .v = ab, .n = 2 };
    struct moe_agreement two = options();
    OK(differs(&a, "--list"));
    list = (struct moe_strlist){ .v = joined, .n = 1 };
    OK(differs(&two, "--list"));
    list = (struct moe_strlist){ 0 };
    file = "one", OK(differs(&a, "--file"));
    struct moe_agreement one = options();
    file = "two", OK(differs(&one, NULL)), file = NULL; /* what is in it is another question */
    own = "mine", OK(differs(&a, NULL));
    struct moe_agreement more = a;
    moe_agree_add(&more, "MODEL", "x", 1);
    OK(!strcmp(moe_agree_difference(&a, &more), "MODEL") &&
       !strcmp(moe_agree_difference(&more, &a), "MODEL"));
}

/* ---- errors ---- */

static void errors(void)
{
    unsigned char b[MOE_WIRE_ERR_BYTES];
    struct moe_err e = MOE_ERR_INIT, got;
    moe_fail_at(&e, MOE_CORRUPT, "a file", "a tensor", "what");
    size_t n = moe_wire_err_put(b, &e);
    OK(moe_wire_err_get(b, n, &got) && got.code == MOE_CORRUPT && !strcmp(got.msg, e.msg) &&
       !strcmp(got.file, "a file") && !strcmp(got.tensor, "a tensor"));
    for (size_t k = 0; k < n; k++) OK(!moe_wire_err_get(b, k, &got));
    const unsigned wrong[] = { 0, 999, 231, 4, 0x80000011 };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        for (int k = 0; k < 4; k++) b[k] = (unsigned char)(wrong[i] >> 8 * k);
        OK(moe_wire_err_get(b, n, &got) && got.code == (wrong[i] == 4 ? MOE_EXISTS : MOE_DEVICE));
    }
    OK(moe_wire_code(130) == MOE_SIGINT && moe_wire_code(UINT64_MAX) == MOE_DEVICE);
    memset(e.msg, 'A', sizeof e.msg - 1), memset(e.file, 'B', sizeof e.file - 1),
        memset(e.tensor, 'C', sizeof e.tensor - 1);
    n = moe_wire_err_put(b, &e);
    OK(n <= sizeof b && moe_wire_err_get(b, n, &got) && strlen(got.file) == sizeof got.file - 1);
    memset(b + 4 + 2, 'A', sizeof e.msg), b[4] = 0, b[5] = 4; /* 1024 bytes of a message: one too many */
    OK(!moe_wire_err_get(b, sizeof b, &got));
    snprintf(e.msg, sizeof e.msg, "an \x1b[31mescape");
    snprintf(e.file, sizeof e.file, "a\nb");
    OK(moe_wire_err_get(b, moe_wire_err_put(b, &e), &got) && !strcmp(got.msg, "an \\x1b[31mescape") &&
       !strcmp(got.file, "a\\nb"));
    b[7] = 0; /* a NUL inside */
    OK(!moe_wire_err_get(b, sizeof b, &got));
}

/* ---- at the rendezvous ---- */

static void join(void)
{
    static struct moe_wire_join j, got;
    j.failure = (struct moe_err)MOE_ERR_INIT;
    j.address = (const unsigned char *)"address";
    j.address_bytes = 7;
    moe_agree_add(&j.settings, "--temperature", "1", 1);
    moe_agree_add(&j.settings, "MODEL", "2", 1);
    size_t n = moe_wire_join_bytes(&j);
    unsigned char *b = malloc(n + 1);
    OK(b);
    moe_wire_join_put(b, &j);
    OK(moe_wire_join_get(b, n, &got) && got.address_bytes == 7 && !memcmp(got.address, "address", 7) &&
       !moe_agree_difference(&j.settings, &got.settings));
    for (size_t k = 0; k < n; k++) OK(!moe_wire_join_get(b, k, &got));
    OK(!moe_wire_join_get(b, n + 1, &got)); /* nothing may be left over */
    for (size_t k = 0; k < 18; k++) {       /* codes, lengths and counts: larger than what is there */
        unsigned char was = b[k];
        b[k] = 255;
        bool taken = moe_wire_join_get(b, n, &got);
        OK(!taken || got.address_bytes <= 7);
        b[k] = was;
    }
    free(b);
    moe_fail(&j.failure, MOE_NOT_FOUND, "gone");
    j.settings.n = 0;
    j.address_bytes = 0;
    n = moe_wire_join_bytes(&j);
    b = malloc(n);
    OK(b);
    moe_wire_join_put(b, &j);
    OK(moe_wire_join_get(b, n, &got) && got.failure.code == MOE_NOT_FOUND &&
       !strcmp(got.failure.msg, "gone"));
    b[0] = 0; /* success that has a message, or no address */
    OK(!moe_wire_join_get(b, n, &got));
    free(b);
}

static void welcome(void)
{
    const size_t offset[RANKS + 1] = { 0, 3, 4, 9 };
    const unsigned char key[MOE_WIRE_KEY] = "the key", *all;
    unsigned char b[64], k[MOE_WIRE_KEY];
    size_t n = moe_wire_welcome_bytes(RANKS, 9), got[RANKS + 1];
    moe_wire_welcome_put(b, key, RANKS, offset, (const unsigned char *)"abcdefghi");
    OK(moe_wire_welcome_get(b, n, k, RANKS, got, &all) && !memcmp(got, offset, sizeof got) &&
       !memcmp(all, "abcdefghi", 9) && !memcmp(k, key, sizeof k));
    for (size_t i = 0; i < n; i++) OK(!moe_wire_welcome_get(b, i, k, RANKS, got, &all));
    OK(!moe_wire_welcome_get(b, n + 1, k, RANKS, got, &all));
    for (int i = 0; i < 4 * RANKS; i++) { /* every length, larger and smaller */
        for (int d = -1; d <= 1; d += 2) {
            b[MOE_WIRE_KEY + i] = (unsigned char)(b[MOE_WIRE_KEY + i] + d);
            OK(!moe_wire_welcome_get(b, n, k, RANKS, got, &all));
            b[MOE_WIRE_KEY + i] = (unsigned char)(b[MOE_WIRE_KEY + i] - d);
        }
    }
}

static void heads(void)
{
    unsigned char b[MOE_WIRE_FRAME_BYTES];
    struct moe_wire_frame f = { MOE_WIRE_VERSION, 2, 7, MOE_WIRE_JOIN, 1, 1234567890123 }, g;
    struct moe_wire_head h = { 1, 2, 3, 4, "key" }, i;
    moe_wire_frame_put(b, &f);
    OK(moe_wire_frame_get(b, &g) && g.version == f.version && g.rank == 2 && g.ranks == 7 &&
       g.type == f.type && g.secret == 1 && g.bytes == f.bytes);
    b[3] ^= 1;
    OK(!moe_wire_frame_get(b, &g));
    moe_wire_head_put(b, &h);
    OK(moe_wire_head_get(b, MOE_WIRE_HEAD_BYTES, &i) && i.kind == 1 && i.from == 2 && i.what == 3 &&
       i.number == 4 && !memcmp(i.key, h.key, sizeof i.key));
    OK(!moe_wire_head_get(b, MOE_WIRE_HEAD_BYTES - 1, &i) &&
       !moe_wire_head_get(b, MOE_WIRE_HEAD_BYTES + 1, &i));
    OK(!moe_wire_body_max(0, 4) && !moe_wire_body_max(99, 4) &&
       moe_wire_body_max(MOE_WIRE_HELLO, 4) == MOE_WIRE_NONCE);
}

/* ---- requests and replies ---- */

enum { EXPERTS = 8, HIDDEN = 4, SLOT = 1024 };
static const struct moe_wire_shape shape = { .layers = 3,
                                             .experts = EXPERTS,
                                             .hidden = HIDDEN,
                                             .choices = 8,
                                             .n_moe = 2,
                                             .request_bytes = SLOT,
                                             .reply_bytes = SLOT };

static size_t write_request(unsigned char *slot, const struct moe_wire_request *q,
                            const struct moe_wire_pair *pairs, uint16_t count)
{
    memset(slot, 0, SLOT);
    moe_wire_request_put(slot, q);
    for (int e = 0; e < EXPERTS; e++)
        memcpy(slot + MOE_WIRE_SLOT_HEAD + 2 * e, e ? &(uint16_t){ 0 } : &count, 2);
    if (q->pairs == 3) memcpy(slot + moe_wire_pairs_at(EXPERTS), pairs, 3 * sizeof *pairs);
    return moe_wire_rows_at(EXPERTS, 3) + 2 * HIDDEN * sizeof(float);
}

static bool sound(struct moe_wire_request q, struct moe_wire_pair first, uint16_t count)
{
    unsigned char slot[SLOT];
    const struct moe_wire_pair pairs[3] = { first, { 0, 7 }, { 1, 3 } };
    size_t n = write_request(slot, &q, pairs, count);
    return moe_wire_request_sound(slot, n, &shape);
}

static void requests(void)
{
    const struct moe_wire_request q = { 5, 2, 2, 3, { 0, 1, 2 } };
    const struct moe_wire_pair p = { 0, 0 };
    unsigned char slot[SLOT];
    OK(sound(q, p, 3) && sound(q, p, 8));
    OK(!sound(q, p, 2) && !sound(q, p, 9)); /* fewer choices than pairs; more than a batch has */
    size_t n = write_request(slot, &q, (struct moe_wire_pair[]){ p, p, p }, 3);
    for (size_t k = 0; k < n; k++) OK(!moe_wire_request_sound(slot, k, &shape));
    struct moe_wire_request x;
#define BAD(field, value) OK((x = q, x.field = (value), !sound(x, p, 3)))
    BAD(layer, -1), BAD(layer, 3), BAD(layer, INT32_MAX), BAD(layer, INT32_MIN);
    BAD(rows, -1), BAD(rows, 4), BAD(rows, 3), BAD(rows, INT32_MAX), BAD(rows, 0);
    BAD(pairs, -1), BAD(pairs, 4), BAD(pairs, INT32_MAX), BAD(pairs, INT32_MIN);
    BAD(pass, UINT64_MAX), BAD(at.ready, -1), BAD(at.ready, 3);
    BAD(at.dispatching, 3), BAD(at.dispatching, INT32_MIN);
#undef BAD
    const struct moe_wire_pair bad[] = { { -1, 0 }, { 2, 0 },       { INT32_MAX, 0 },
                                         { 0, -1 }, { 0, EXPERTS }, { 0, INT32_MIN } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) OK(!sound(q, bad[i], 3));
}

static void replies(void)
{
    unsigned char slot[MOE_WIRE_SLOT_HEAD + MOE_WIRE_ERR_BYTES] = { 0 };
    struct moe_err e = MOE_ERR_INIT, got;
    const size_t whole = MOE_WIRE_SLOT_HEAD + 3 * HIDDEN * sizeof(float);
    struct moe_wire_reply p = { 5, 3, MOE_OK, { 0, 0, 0 } };
    moe_wire_reply_put(slot, &p);
    OK(moe_wire_reply_sound(slot, whole, 3, &shape, &got) && got.code == MOE_OK);
    OK(!moe_wire_reply_sound(slot, whole - 1, 3, &shape, &got) &&
       !moe_wire_reply_sound(slot, 3, 3, &shape, &got) &&
       !moe_wire_reply_sound(slot, whole, 2, &shape, &got));
    p.at.ready = 9;
    moe_wire_reply_put(slot, &p);
    OK(!moe_wire_reply_sound(slot, whole, 3, &shape, &got));
    p = (struct moe_wire_reply){ 5, 3, MOE_NONFINITE, { 0, 0, 0 } };
    moe_wire_reply_put(slot, &p);
    moe_fail(&e, MOE_NONFINITE, "a weight is NaN");
    size_t n = MOE_WIRE_SLOT_HEAD + moe_wire_err_put(slot + MOE_WIRE_SLOT_HEAD, &e);
    OK(moe_wire_reply_sound(slot, n, 3, &shape, &got) && got.code == MOE_NONFINITE &&
       !strcmp(got.msg, e.msg));
    OK(!moe_wire_reply_sound(slot, n - 1, 3, &shape, &got));
}

/* ---- results ---- */

static struct moe_results *open_results(bool reference)
{
    struct moe_results *r;
    struct moe_err err = MOE_ERR_INIT;
    static struct moe_sequence of[5];
    const struct moe_results_shape s = { .sequence = of,
                                         .n_sequences = 5,
                                         .vocab = 100,
                                         .reference = reference,
                                         .routing_bytes = 4 * sizeof(int64_t) };
    for (int i = 0; i < 5; i++) of[i].rank = i % RANKS;
    OK(moe_results_open(&r, RANKS, &s, &err) == MOE_OK);
    return r;
}

static bool hears(struct moe_results *r, int from, uint32_t kind, const void *p, size_t n)
{
    struct moe_err err = MOE_ERR_INIT;
    char who[16];
    enum moe_code code = moe_results_received(r, from, kind, p, n, &err);
    snprintf(who, sizeof who, "rank %d", from);
    OK(code == MOE_OK || (code == MOE_DEVICE && strstr(err.msg, who)));
    return code == MOE_OK;
}

static size_t put_sequence(unsigned char *b, int64_t index, int32_t token, int32_t finish)
{
    struct moe_wire_sequence s = { .index = index, .n = 1, .finish = finish, .text_bytes = 2,
                                   .tokens = (const unsigned char *)&token,
                                   .text = (const unsigned char *)"hi" };
    moe_wire_sequence_put(b, &s);
    return moe_wire_sequence_bytes(&s);
}

static void sequences(void)
{
    struct moe_results *r = open_results(false);
    unsigned char b[64];
    const int64_t bad[] = { -1, 5, 3, INT64_MIN, INT64_MAX }; /* 3 is rank 0's */
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        OK(!hears(r, 1, 0, b, put_sequence(b, bad[i], 7, 0)));
    OK(!hears(r, 1, 0, b, put_sequence(b, 1, 100, 0)) && !hears(r, 1, 0, b, put_sequence(b, 1, -1, 0)) &&
       !hears(r, 1, 0, b, put_sequence(b, 1, 7, 2)) && !hears(r, 1, 0, b, put_sequence(b, 1, 7, 4)));
    size_t n = put_sequence(b, 1, 7, 1);
    for (size_t k = 0; k < 28; k++) OK(!hears(r, 1, 0, b, k));
    OK(hears(r, 1, 0, b, n) && r->sequence[1].there && r->sequence[1].out.tokens[0] == 7 &&
       !strcmp(r->sequence[1].out.text, "hi"));
    OK(!hears(r, 1, 0, b, n)); /* twice */
    put_sequence(b, 4, 7, 0);
    memset(b + 8, 0xff, 7), b[15] = 0x3f; /* a count whose bytes wrap around to few */
    OK(!hears(r, 1, 0, b, n));
    OK(!hears(r, 1, 4, b, n) && !hears(r, 1, UINT32_MAX, b, 0));
    moe_results_close(&r);
}

static void sums(void)
{
    unsigned char b[256];
    double kl[] = { 0.5, 0.25 };
    struct moe_results *r = open_results(true);
    struct moe_wire_score s = { 2, 1, 3.5, 3.25, 0.75, 9, (const unsigned char *)kl };
    moe_wire_score_put(b, &s, 2);
    for (size_t k = 0; k < moe_wire_score_bytes(2); k++) OK(!hears(r, 2, 1, b, k));
    OK(!hears(r, 2, 1, b, moe_wire_score_bytes(2) + 1));
    OK(hears(r, 2, 1, b, moe_wire_score_bytes(2)) && r->sums.n == 2 && r->sums.all[1] == 0.25 &&
       r->scored[2]);
    OK(!hears(r, 2, 1, b, moe_wire_score_bytes(2))); /* twice */
    s.same = 3, moe_wire_score_put(b, &s, 2), OK(!hears(r, 1, 1, b, moe_wire_score_bytes(2))), s.same = 1;
    s.nll = NAN, moe_wire_score_put(b, &s, 2), OK(!hears(r, 1, 1, b, moe_wire_score_bytes(2))), s.nll = 1;
    kl[1] = INFINITY, moe_wire_score_put(b, &s, 2), OK(!hears(r, 1, 1, b, moe_wire_score_bytes(2))),
    kl[1] = 1;
    s.n = 1, moe_wire_score_put(b, &s, 2), OK(!hears(r, 1, 1, b, moe_wire_score_bytes(2)));
    moe_results_close(&r);
    r = open_results(false); /* nobody asked for divergences */
    s.n = 2, moe_wire_score_put(b, &s, 2), OK(!hears(r, 1, 1, b, moe_wire_score_bytes(2)));
    OK(hears(r, 1, 1, b, moe_wire_score_bytes(0)) && !r->sums.all);
    moe_results_close(&r);
}

static void counts(void)
{
    int64_t v[5] = { 1, 2, 3, 4, 5 };
    unsigned char b[MOE_WIRE_STATS_BYTES];
    struct moe_results *r = open_results(false);
    OK(!hears(r, 0, 2, v, 5 * sizeof *v) && !hears(r, 0, 2, v, 3 * sizeof *v) && !hears(r, 0, 2, v, 0));
    OK(hears(r, 0, 2, v, 4 * sizeof *v) && hears(r, 1, 2, v, 4 * sizeof *v) && r->routing[3] == 8 &&
       !hears(r, 1, 2, v, 4 * sizeof *v));
    v[0] = -1, OK(!hears(r, 2, 2, v, 4 * sizeof *v));
    v[0] = INT64_MAX, OK(!hears(r, 2, 2, v, 4 * sizeof *v));
    struct moe_wire_stats s = { .requests = 1, .mapped = 2, .seconds_wait = 0.5, .moves = 3,
                                .cache_bytes = 640, .cache_found = 7 };
    moe_wire_stats_put(b, &s);
    OK(hears(r, 1, 3, b, sizeof b) && r->stats[1].mapped == 2 && r->stats[1].seconds_wait == 0.5 &&
       r->stats[1].moves == 3 && r->cache[1].bytes == 640 && r->cache[1].found_tokens == 7);
    OK(!hears(r, 1, 3, b, sizeof b) && !hears(r, 2, 3, b, sizeof b - 1));
    s.seconds_wait = NAN, moe_wire_stats_put(b, &s), OK(!hears(r, 2, 3, b, sizeof b)), s.seconds_wait = 0;
    s.cache_pages = (uint64_t)1 << 63, moe_wire_stats_put(b, &s), OK(!hears(r, 2, 3, b, sizeof b));
    s.cache_pages = 1, s.died = 2, moe_wire_stats_put(b, &s), OK(!hears(r, 2, 3, b, sizeof b));
    s.died = 0, moe_wire_stats_put(b, &s), OK(hears(r, 2, 3, b, sizeof b));
    struct moe_cache_counts all = moe_results_cache(r);
    OK(all.bytes == 1280 && all.pages == 1 && all.found_tokens == 14);
    moe_results_close(&r);
}

/* ---- layouts: the bytes of every message; a change needs another MOE_WIRE_VERSION ---- */

/* Whether out [n] begins with n bytes of `hex`, which has one blank or none between bytes. */
static bool is(const unsigned char *out, size_t n, const char *hex)
{
    size_t i = 0;
    for (const char *h = hex; *h; h++) {
        unsigned b;
        if (*h == ' ') continue;
        OK(sscanf(h++, "%2x", &b) == 1);
        if (i >= n || out[i++] != b) return false;
    }
    return i == n;
}

static void layouts(void)
{
    unsigned char out[MOE_WIRE_ERR_BYTES];
    OK(MOE_WIRE_VERSION == 5);
    moe_wire_frame_put(out, &(struct moe_wire_frame){ 0x04030201, 5, 6, 7, 1, 0x0807060504030201 });
    OK(is(out, MOE_WIRE_FRAME_BYTES,
          "4d4f4552414e4b53 01020304 05000000 06000000 07000000 0100000000000000 0102030405060708"));
    struct moe_wire_head h = { 1, 2, 3, 4, { 0 } };
    for (int i = 0; i < MOE_WIRE_KEY; i++) h.key[i] = (unsigned char)(0x10 + i);
    moe_wire_head_put(out, &h);
    OK(is(out, MOE_WIRE_HEAD_BYTES, "01000000 02000000 03000000 04000000 1011121314151617 18191a1b1c1d1e1f"));
    moe_wire_request_put(out, &(struct moe_wire_request){ 0x0807060504030201, 9, 10, 11, { 12, 13, 14 } });
    OK(is(out, 32, "0102030405060708 09000000 0a000000 0b000000 0c000000 0d000000 0e000000"));
    for (int i = 32; i < MOE_WIRE_SLOT_HEAD; i++) OK(!out[i]);
    moe_wire_reply_put(out, &(struct moe_wire_reply){ 0x0807060504030201, 9, 10, { 12, 13, 14 } });
    OK(is(out, 28, "0102030405060708 09000000 0a000000 0c000000 0d000000 0e000000"));
    for (int i = 28; i < MOE_WIRE_SLOT_HEAD; i++) OK(!out[i]);
    moe_wire_stats_put(out, &(struct moe_wire_stats){ 1, 2, 3, 4, 5, 6, 1.0, 2.0, -2.0, 0.5,
                                                      8, 9, 10, 11, 12, 7, 1 });
    OK(is(out, MOE_WIRE_STATS_BYTES,
          "0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000"
          "0600000000000000 000000000000f03f 0000000000000040 00000000000000c0 000000000000e03f"
          "0800000000000000 0900000000000000 0a00000000000000 0b00000000000000 0c00000000000000"
          "07000000 01000000"));
    struct moe_err e = MOE_ERR_INIT;
    moe_fail(&e, MOE_NOMEM, "ab");
    OK(is(out, moe_wire_err_put(out, &e), "0a000000 0200 6162 0000 0000"));
    const unsigned char tokens[] = { 1, 0, 0, 0 }, one[] = { 'x' };
    struct moe_wire_sequence s = { .index = 2, .n = 1, .finish = 3, .text_bytes = 1, .tokens = tokens,
                                   .text = one };
    moe_wire_sequence_put(out, &s);
    OK(is(out, moe_wire_sequence_bytes(&s),
          "0200000000000000 0100000000000000 03000000 00000000 01000000 78"));
    s.err = e;
    moe_wire_sequence_put(out, &s);
    OK(is(out, moe_wire_sequence_bytes(&s), "0200000000000000 0100000000000000 03000000 02000000 01000000"
                                            "0a000000 0200 6162 0000 0000 78"));
    moe_wire_score_put(out, &(struct moe_wire_score){ 1, 2, 1.0, 2.0, 0.5, 3, NULL }, 0);
    OK(is(out, moe_wire_score_bytes(0),
          "0100000000000000 0200000000000000 000000000000f03f 0000000000000040 000000000000e03f"
          "0300000000000000"));
    const size_t at[] = { 0, 1, 3 };
    unsigned char key[MOE_WIRE_KEY] = { 1, 2 };
    moe_wire_welcome_put(out, key, 2, at, (const unsigned char *)"abc");
    OK(is(out, moe_wire_welcome_bytes(2, 3), "0102000000000000 0000000000000000 01000000 02000000 616263"));
    struct moe_wire_join j = { .failure = MOE_ERR_INIT, .address = one, .address_bytes = 1 };
    j.settings.n = 1;
    strcpy(j.settings.item[0].name, "s");
    j.settings.item[0].digest = (struct moe_hash128){ .high = 1, .low = 2 };
    moe_wire_join_put(out, &j);
    OK(is(out, moe_wire_join_bytes(&j),
          "00000000 0000 0000 0000 01000000 01 73 0100000000000000 0200000000000000 01000000 78"));
}

int main(void)
{
    layouts();
    agreement();
    errors();
    join();
    welcome();
    heads();
    requests();
    replies();
    sequences();
    sums();
    counts();
    printf("test-wire: %ld checks\n", checks);
    return 0;
}
