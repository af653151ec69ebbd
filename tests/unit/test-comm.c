/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the communicator for ranks that are threads: slots, replies, messages to all, ranks that fall
 * silent.  The build with SAN=thread is the one that counts. */
#include "tests/ok.h"
#include "runtime/comm/comm.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 6, ROUNDS = 300, MOST = 4096, DEAD_AT = 100 };

struct rank {
    struct moe_hub *hub;
    atomic_bool *found;
    int rank, dies, answered, lost, words, told_off;
    bool broken;
};

/* The request of `from` to `to` in a round: its length, and bytes that depend on all three. */
static size_t length(int from, int to, int round)
{
    return 64 + (size_t)(from * 977 + to * 131 + round * 61) % (MOST - 64);
}
static unsigned char byte(int from, int to, int round, size_t i)
{
    return (unsigned char)(from * 31 + to * 7 + round + (int)i * 13);
}

static bool is(const unsigned char *p, int from, int to, int round, int flip)
{
    for (size_t i = 4; i < length(from, to, round); i++)
        if (p[i] != (unsigned char)(byte(from, to, round, i) ^ flip)) return false;
    return true;
}

/* Answer each request with the same bytes, all bits inverted. */
static bool serve(struct rank *r, struct moe_comm *c, struct moe_err *err)
{
    bool did = false;
    for (int from = 0; from < RANKS; from++) {
        const unsigned char *q = moe_comm_requested(c, from);
        int round;
        if (!q) continue;
        memcpy(&round, q, sizeof round);
        r->broken |= !is(q, from, r->rank, round, 0);
        unsigned char *p = moe_comm_reply(c, from);
        memcpy(p, q, 4);
        for (size_t i = 4; i < length(from, r->rank, round); i++) p[i] = (unsigned char)(q[i] ^ 255);
        r->broken |= moe_comm_answer(c, from, length(from, r->rank, round), err) != MOE_OK;
        did = true;
    }
    return did;
}

static void receive(struct rank *r, struct moe_comm *c, int *received)
{
    int from;
    uint32_t kind;
    const void *data;
    size_t bytes;
    while (moe_comm_received(c, &from, &kind, &data, &bytes)) {
        int n;
        memcpy(&n, data, sizeof n);
        /* in order, none missing */
        r->broken |= bytes != sizeof n || n != received[from] || kind != (uint32_t)(n % 7);
        received[from]++;
        r->words++;
    }
}

static bool ask_all(struct rank *r, struct moe_comm *c, int round, struct moe_err *err)
{
    for (int to = 0; to < RANKS; to++) {
        if (c->dead[to]) continue;
        unsigned char *p = moe_comm_request(c, to);
        memcpy(p, &round, sizeof round);
        for (size_t i = 4; i < length(r->rank, to, round); i++) p[i] = byte(r->rank, to, round, i);
        if (moe_comm_post(c, to, length(r->rank, to, round), err) != MOE_OK) return false;
    }
    return moe_comm_broadcast(c, (uint32_t)(round % 7), &round, sizeof round, err) == MOE_OK;
}

static bool await(struct rank *r, struct moe_comm *c, int round, int *received, struct moe_err *err)
{
    bool awaited[RANKS], all = false;
    moe_comm_begin_wait(c);
    while (!all) {
        receive(r, c, received);
        if (serve(r, c, err)) moe_comm_begin_wait(c);
        all = true;
        for (int to = 0; to < RANKS; to++) {
            awaited[to] = !c->dead[to] && !moe_comm_answered(c, to);
            all &= !awaited[to];
        }
        if (all) break;
        if (moe_comm_wait(c, err) != MOE_OK) return false;
        moe_comm_mark_dead(c, awaited);
    }
    for (int to = 0; to < RANKS; to++) {
        const unsigned char *p = c->dead[to] ? NULL : moe_comm_answered(c, to);
        if (!p) continue;
        r->broken |= !is(p, r->rank, to, round, 255);
        r->answered++;
    }
    return true;
}

static void *run(void *arg)
{
    struct rank *r = arg;
    struct moe_comm *c;
    struct moe_err err = MOE_ERR_INIT;
    int received[RANKS] = { 0 };
    if (moe_comm_local(&c, r->hub, r->rank, &err) != MOE_OK) return NULL;
    for (int round = 0; round < ROUNDS; round++) {
        if (r->dies && round == DEAD_AT) break;
        if (!ask_all(r, c, round, &err) || !await(r, c, round, received, &err)) break;
    }
    if (!r->dies) /* until the others have what they asked for */
        for (int left = 1; left; ) {
            struct moe_err e = MOE_ERR_INIT;
            receive(r, c, received);
            left = 0;
            for (int k = 0; k < RANKS; k++) left += k != r->rank && !c->dead[k] && received[k] < ROUNDS;
            if (!serve(r, c, &e) && left && moe_comm_wait(c, &e) != MOE_OK) break;
        }
    for (int i = 0; !r->dies && i < 50; i++) { /* the last round of the others may still be under way */
        serve(r, c, &err);
        c->ops->wait(c, 0.01);
    }
    r->lost = c->n_dead;
    if (r->lost) atomic_store(r->found, true);
    if (r->dies == 2) { /* it was only slow, and without a heartbeat: it is told that it was given up */
        for (int i = 0; i < 600 && !atomic_load(r->found); i++) poll(NULL, 0, 50);
        moe_comm_begin_wait(c);
        r->told_off = moe_comm_wait(c, &err) == MOE_DEVICE && strstr(err.msg, "given up");
    }
    moe_comm_close(&c);
    return NULL;
}

static void all(int dies, double timeout)
{
    struct moe_hub *h;
    struct moe_err err = MOE_ERR_INIT;
    struct rank r[RANKS];
    pthread_t t[RANKS];
    atomic_bool found = false;
    OK(moe_hub_open(&h, RANKS, MOST, MOST, timeout, &err) == MOE_OK);
    for (int i = 0; i < RANKS; i++) {
        r[i] = (struct rank){ .hub = h, .found = &found, .rank = i, .dies = i == 2 ? dies : 0 };
        pthread_create(&t[i], NULL, run, &r[i]);
    }
    for (int i = 0; i < RANKS; i++) pthread_join(t[i], NULL);
    for (int i = 0; i < RANKS; i++) {
        OK(!r[i].broken);
        if (i == 2 && dies) continue;
        OK(r[i].lost == (dies != 0));
        OK(r[i].answered >= ROUNDS * (RANKS - 1) && r[i].answered <= ROUNDS * RANKS &&
           (dies || r[i].answered == ROUNDS * RANKS));
        OK(r[i].words == (dies ? ROUNDS * (RANKS - 2) + DEAD_AT : ROUNDS * (RANKS - 1)));
    }
    if (dies == 2) OK(r[2].told_off);
    moe_hub_close(&h);
}

int main(void)
{
    all(0, 60);
    all(1, 1);
    all(2, 1);
    printf("test-comm: %ld checks\n", checks);
    return 0;
}
