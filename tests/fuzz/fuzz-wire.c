/* SPDX-License-Identifier: Apache-2.0 */
/* Reads any bytes as what comes from other processes: every message of runtime/comm/wire.h, and results as a
 * rank receives them.  The first byte chooses which.  What is accepted has to keep within every limit and be
 * the same after it was written and read again. */
#undef NDEBUG
#include "runtime/comm/wire.h"
#include "runtime/engine/results.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    RANKS = 3,
    EXPERTS = 5,
    HIDDEN = 4,
    TOKENS = 3,
    TOP_K = 2,
    VOCAB = 1000,
    SEQUENCES = 7,
    COUNTS = 2 * (EXPERTS + 1)
};

static void check_text(const char *s, size_t cap) { assert(memchr(s, 0, cap)); }

static void check_err(const struct moe_err *e)
{
    assert(e->code != MOE_OK && strcmp(moe_code_name(e->code), "unknown") && e->msg[0]);
    check_text(e->msg, sizeof e->msg);
    check_text(e->file, sizeof e->file);
    check_text(e->tensor, sizeof e->tensor);
    for (const char *c = e->msg; *c; c++) assert((unsigned char)*c >= 0x20 && *c != 0x7f);
}

static void err(const uint8_t *p, size_t n)
{
    struct moe_err e, again;
    unsigned char out[MOE_WIRE_ERR_BYTES];
    if (!moe_wire_err_get(p, n, &e)) return;
    check_err(&e);
    size_t bytes = moe_wire_err_put(out, &e);
    assert(bytes <= sizeof out && moe_wire_err_get(out, bytes, &again));
    assert(again.code == e.code && !strcmp(again.msg, e.msg) && !strcmp(again.file, e.file) &&
           !strcmp(again.tensor, e.tensor));
}

static void frame(const uint8_t *p, size_t n)
{
    struct moe_wire_frame f;
    unsigned char out[MOE_WIRE_FRAME_BYTES];
    if (n < sizeof out || !moe_wire_frame_get(p, &f)) return;
    moe_wire_frame_put(out, &f);
    assert(!memcmp(out, p, sizeof out));
    assert(moe_wire_body_max(f.type, RANKS) < 1 << 20);
}

static void join(const uint8_t *p, size_t n)
{
    struct moe_wire_join j, again;
    if (!moe_wire_join_get(p, n, &j)) return;
    if (j.failure.code != MOE_OK) check_err(&j.failure);
    assert(j.settings.n <= MOE_AGREE_MAX && j.address_bytes <= MOE_WIRE_ADDRESS_MAX &&
           j.address + j.address_bytes == p + n);
    for (uint32_t i = 0; i < j.settings.n; i++) check_text(j.settings.item[i].name, MOE_AGREE_NAME);
    assert(!moe_agree_difference(&j.settings, &j.settings));
    size_t bytes = moe_wire_join_bytes(&j);
    unsigned char *out = malloc(bytes);
    assert(out);
    moe_wire_join_put(out, &j);
    assert(moe_wire_join_get(out, bytes, &again) && again.failure.code == j.failure.code &&
           again.address_bytes == j.address_bytes);
    assert(!moe_agree_difference(&j.settings, &again.settings) &&
           !memcmp(again.address, j.address, j.address_bytes));
    free(out);
}

static void welcome(const uint8_t *p, size_t n)
{
    unsigned char key[MOE_WIRE_KEY];
    size_t offset[RANKS + 1];
    const unsigned char *all;
    if (!moe_wire_welcome_get(p, n, key, RANKS, offset, &all)) return;
    for (int r = 0; r < RANKS; r++) assert(offset[r] < offset[r + 1]);
    assert(all + offset[RANKS] == p + n && moe_wire_welcome_bytes(RANKS, offset[RANKS]) == n);
    unsigned char *out = malloc(n);
    assert(out);
    moe_wire_welcome_put(out, key, RANKS, offset, all);
    assert(!memcmp(out, p, n));
    free(out);
}

static void head(const uint8_t *p, size_t n)
{
    struct moe_wire_head h;
    unsigned char out[MOE_WIRE_HEAD_BYTES];
    if (!moe_wire_head_get(p, n, &h)) return;
    moe_wire_head_put(out, &h);
    assert(n == sizeof out && !memcmp(out, p, n));
}

static const struct moe_wire_shape shape = {
    .layers = 4,
    .experts = EXPERTS,
    .hidden = HIDDEN,
    .choices = TOKENS * TOP_K,
    .n_moe = 2,
    .request_bytes = 64 + 64 + 64 + 64,
    .reply_bytes = 64 + 2048,
};

/* Reads as a rank computes: every row and output to which a sound request leads has to lie in the slots. */
static void request(const uint8_t *p, size_t n)
{
    if (!moe_wire_request_sound(p, n, &shape)) return;
    struct moe_wire_request q = moe_wire_request_get(p);
    float sum = 0;
    assert(q.layer >= 0 && q.layer < shape.layers && q.pairs <= shape.choices);
    assert(64 + (size_t)q.pairs * HIDDEN * sizeof(float) <= shape.reply_bytes);
    for (int32_t i = 0; i < q.pairs; i++) {
        struct moe_wire_pair pair;
        float row[HIDDEN];
        memcpy(&pair, p + moe_wire_pairs_at(EXPERTS) + (size_t)i * sizeof pair, sizeof pair);
        assert(pair.expert >= 0 && pair.expert < EXPERTS);
        /* a sanitizer looks on */
        memcpy(row, p + moe_wire_rows_at(EXPERTS, q.pairs) + (size_t)pair.row * sizeof row, sizeof row);
        sum += row[0];
    }
    assert(q.pairs || sum == 0);
    unsigned char out[MOE_WIRE_SLOT_HEAD];
    moe_wire_request_put(out, &q);
    struct moe_wire_request again = moe_wire_request_get(out);
    assert(again.pass == q.pass && again.rows == q.rows && again.pairs == q.pairs &&
           again.at.dispatching == q.at.dispatching);
}

static void reply(const uint8_t *p, size_t n)
{
    struct moe_err e;
    if (!moe_wire_reply_sound(p, n, 2, &shape, &e)) return;
    if (e.code != MOE_OK) check_err(&e);
    else assert(n >= 64 + 2 * HIDDEN * sizeof(float) && moe_wire_reply_get(p).pairs == 2);
}

/* Gives a rank messages one after the other: a byte for sender and kind, two for the length. */
static void results(const uint8_t *p, size_t n, bool reference)
{
    static struct moe_sequence of[SEQUENCES];
    struct moe_results_shape s = { of, SEQUENCES, VOCAB, reference, COUNTS * sizeof(int64_t) };
    for (int i = 0; i < SEQUENCES; i++) of[i].rank = i % RANKS;
    struct moe_results *r;
    struct moe_err e = MOE_ERR_INIT;
    assert(moe_results_open(&r, RANKS, &s, &e) == MOE_OK);
    while (n >= 3) {
        size_t bytes = (size_t)(p[1] | p[2] << 8) < n - 3 ? (size_t)(p[1] | p[2] << 8) : n - 3;
        enum moe_code code = moe_results_received(r, p[0] % RANKS, p[0] / RANKS % 5, p + 3, bytes, &e);
        assert(code == MOE_OK || code == MOE_DEVICE);
        p += 3 + bytes;
        n -= 3 + bytes;
    }
    for (int64_t i = 0; i < SEQUENCES; i++) {
        const struct moe_result *q = &r->sequence[i];
        assert(!q->there || (q->rank == i % RANKS && !q->out.text[q->out.text_bytes]));
        for (int64_t t = 0; q->there && t < q->out.n; t++)
            assert(q->out.tokens[t] >= 0 && q->out.tokens[t] < VOCAB);
    }
    for (int64_t i = 0; r->sums.all && i < r->sums.n; i++) assert(isfinite(r->sums.all[i]));
    assert(!reference || !r->sums.n || r->sums.all);
    moe_results_close(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size) return 0;
    const uint8_t *p = data + 1;
    size_t n = size - 1;
    switch (data[0] % 9) {
    case 0: err(p, n); break;
    case 1: frame(p, n); break;
    case 2: join(p, n); break;
    case 3: welcome(p, n); break;
    case 4: head(p, n); break;
    case 5: request(p, n); break;
    case 6: reply(p, n); break;
    default: results(p, n, data[0] % 9 == 8); break;
    }
    return 0;
}
