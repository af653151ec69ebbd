/* SPDX-License-Identifier: Apache-2.0 */
/* Tests a rank against messages that the communicator accepts but that make no sense for the model:
 * requests, replies, messages to all.  The rank has to end with exit code 17 and a sentence that names the
 * sender.  Ranks are threads; the model is the fixture. */
#include "base/thread.h"
#include "tests/ok.h"
#include "runtime/comm/wire.h"
#include "runtime/engine/generate.h"
#include "runtime/parallel/ep.h"

#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 16 };
enum { DONE = 1, FAIL = 2, FIRST_USER = 5 }; /* what ranks say (runtime/parallel/ep-internal.h) */

/* What the lying rank does, and what the honest one says of it. */
struct lie {
    const char *says;
    enum { ASKS, ANSWERS, TALKS } how;
    void (*spoil)(unsigned char *slot, const struct moe_config *c);
    uint32_t kind;
    const void *data;
    size_t bytes;
};

struct liar {
    struct moe_hub *hub;
    const struct moe_config *c;
    const struct lie *lie;
    pthread_t id;
};

static size_t pairs_at(const struct moe_config *c) { return moe_wire_pairs_at(c->n_routed_experts); }

/* Write a request of one row and one pair that is right, before a lie changes it. */
static void write_request(unsigned char *slot, const struct moe_config *c)
{
    size_t bytes = moe_ep_request_bytes(c, BATCH);
    memset(slot, 0, bytes);
    moe_wire_request_put(
        slot, &(struct moe_wire_request){ 1, (int32_t)c->first_k_dense_replace, 1, 1, { 0, 0, 0 } });
    slot[MOE_WIRE_SLOT_HEAD] = 1; /* expert 0 was chosen once */
}

static void change(unsigned char *slot, size_t at, uint32_t v)
{
    for (int i = 0; i < 4; i++) slot[at + (size_t)i] = (unsigned char)(v >> 8 * i);
}

static void no_layer(unsigned char *slot, const struct moe_config *c)
{
    change(slot, 8, (uint32_t)c->num_hidden_layers);
}
static void dense_layer(unsigned char *slot, const struct moe_config *c) { (void)c, change(slot, 8, 0); }
static void many_rows(unsigned char *slot, const struct moe_config *c)
{
    (void)c, change(slot, 12, INT32_MAX);
}
static void many_pairs(unsigned char *slot, const struct moe_config *c)
{
    (void)c, change(slot, 16, INT32_MAX);
}
static void far_row(unsigned char *slot, const struct moe_config *c) { change(slot, pairs_at(c), 1u << 30); }
static void no_expert(unsigned char *slot, const struct moe_config *c)
{
    change(slot, pairs_at(c) + 4, (uint32_t)c->n_routed_experts);
}
static void no_count(unsigned char *slot, const struct moe_config *c)
{
    (void)c, slot[MOE_WIRE_SLOT_HEAD] = 0;
}
static void moved_far(unsigned char *slot, const struct moe_config *c) { (void)c, change(slot, 24, 1000000); }
static void other_rows(unsigned char *slot, const struct moe_config *c)
{
    (void)c, change(slot, 8, 1u << 20);
}
static void no_error(unsigned char *slot, const struct moe_config *c)
{
    (void)c;
    change(slot, 12, 999); /* a failure, behind which there is no sentence */
    memset(slot + MOE_WIRE_SLOT_HEAD, 0xff, MOE_WIRE_ERR_BYTES);
}

static const unsigned char noise[40] = { 1, 2, 3 };
static const struct lie lies[] = {
    { "rank 1 sent a request that makes no sense", .how = ASKS, .spoil = no_layer },
    { "rank 1 sent a request that makes no sense", .how = ASKS, .spoil = dense_layer },
    { "rank 1 sent a request that makes no sense", .how = ASKS, .spoil = many_rows },
    { "rank 1 sent a request that makes no sense", .how = ASKS, .spoil = many_pairs },
    { "rank 1 sent a request that makes no sense", .how = ASKS, .spoil = far_row },
    { "rank 1 sent a request that makes no sense", .how = ASKS, .spoil = no_expert },
    { "rank 1 sent a request that makes no sense", .how = ASKS, .spoil = no_count },
    { "rank 1 sent a request that makes no sense", .how = ASKS, .spoil = moved_far },
    { "rank 1 sent a reply that makes no sense", .how = ANSWERS, .spoil = other_rows },
    { "rank 1 sent a reply that makes no sense", .how = ANSWERS, .spoil = no_error },
    { "rank 1 sent a reply that makes no sense", .how = ANSWERS, .spoil = moved_far },
    { "rank 1 said what makes no sense", .how = TALKS, .kind = FAIL, .data = noise, .bytes = sizeof noise },
    { "rank 1 said what makes no sense", .how = TALKS, .kind = FAIL },
    { "rank 1 said what makes no sense", .how = TALKS, .kind = DONE, .data = noise, .bytes = 1 },
};

static void *lie(void *arg)
{
    const struct liar *l = arg;
    struct moe_err err = MOE_ERR_INIT;
    struct moe_comm *c;
    const void *asked = NULL;
    OK(moe_comm_local(&c, l->hub, 1, &err) == MOE_OK);
    if (l->lie->how == TALKS)
        OK(moe_comm_broadcast(c, l->lie->kind, l->lie->data, l->lie->bytes, &err) == MOE_OK);
    if (l->lie->how == ASKS) {
        unsigned char *slot = moe_comm_request(c, 0);
        write_request(slot, l->c);
        l->lie->spoil(slot, l->c);
        OK(moe_comm_post(c, 0, c->request_bytes, &err) == MOE_OK);
    }
    if (l->lie->how == ANSWERS) {
        OK(moe_comm_broadcast(c, DONE, NULL, 0, &err) == MOE_OK); /* it asks for nothing itself */
        for (int i = 0; i < 5000 && !asked; i++, poll(NULL, 0, 1)) asked = moe_comm_requested(c, 0);
        OK(asked);
        unsigned char *slot = moe_comm_reply(c, 0);
        struct moe_wire_request q = moe_wire_request_get(asked);
        moe_wire_reply_put(slot, &(struct moe_wire_reply){ q.pass, q.pairs, MOE_OK, { 0, 0, 0 } });
        l->lie->spoil(slot, l->c);
        OK(moe_comm_answer(c, 0, c->reply_bytes, &err) == MOE_OK);
    }
    moe_comm_close(&c);
    return NULL;
}

/* Rank 0 of several, with an engine of its own, as a pass that has failed once stays failed; the hub is
 * shared with the others. */
struct honest {
    struct moe_engine *e;
    struct moe_plan *plan;
    struct moe_hub *hub;
    struct moe_comm *comm;
    struct moe_ep *ep;
};

static void open_honest(struct honest *h, int ranks)
{
    const struct moe_engine_options eo = { .dense_only = true, .batch = BATCH, .context = 64 };
    struct moe_err err = MOE_ERR_INIT;
    OK(moe_engine_open(&h->e, "tests/data/tiny-k2/bf16", &eo, NULL, &err) == MOE_OK);
    const struct moe_config *c = &h->e->source->config;
    OK(moe_plan_trivial(&h->plan, c, ranks, &err) == MOE_OK);
    OK(moe_hub_open(&h->hub, ranks, moe_ep_request_bytes(c, BATCH), moe_ep_reply_bytes(c, BATCH), 60, &err) ==
       MOE_OK);
    OK(moe_comm_local(&h->comm, h->hub, 0, &err) == MOE_OK);
    struct moe_ep_options o = { .comm = h->comm,
                                .forward = h->e->forward,
                                .model = h->e->model,
                                .resident = h->e->resident,
                                .plan = h->plan,
                                .max_tokens = BATCH };
    OK(moe_ep_open(&h->ep, &o, &err) == MOE_OK);
}

static void close_honest(struct honest *h)
{
    moe_ep_close(&h->ep);
    moe_comm_close(&h->comm);
    moe_hub_close(&h->hub);
    moe_plan_free(&h->plan);
    moe_engine_close(&h->e);
}

/* Computes a prompt of four tokens. */
static enum moe_code compute(struct moe_engine *e, struct moe_err *err)
{
    static const int32_t ids[] = { 5, 6, 7, 8 };
    const struct moe_generate g = { .request = { .ids = ids, .n_ids = 4, .max_tokens = 1, .logprobs = -1 } };
    struct moe_generated out = { 0 };
    struct moe_core *core;
    MOE_TRY(moe_generate_open(&core, e, err));
    enum moe_code code = moe_generate_run(core, &g, &out, NULL, err);
    moe_core_close(&core);
    free(out.tokens);
    free(out.text);
    return code;
}

/* The honest rank computes a prompt, or serves only. */
static void meets(const struct lie *what)
{
    struct moe_err err = MOE_ERR_INIT;
    struct honest h;
    open_honest(&h, 2);
    struct liar l = { .hub = h.hub, .c = &h.e->source->config, .lie = what };
    OK(!moe_thread_start(&l.id, lie, &l));
    enum moe_code code = what->how == ANSWERS ? compute(h.e, &err) : moe_ep_finish(h.ep, &err);
    OK(!pthread_join(l.id, NULL));
    if (code != MOE_DEVICE || !strstr(err.msg, what->says))
        fprintf(stderr, "code %d, '%s', not '%s'\n", code, err.msg, what->says);
    OK(code == MOE_DEVICE && strstr(err.msg, what->says));
    close_honest(&h);
}

/* Check what rank 2 is told by rank 0. */
static void hears(struct moe_comm *two, const char *want)
{
    struct moe_err said;
    const void *data = NULL;
    int from = -1;
    uint32_t kind = 0;
    size_t bytes = 0;
    for (int i = 0; i < 5000 && (from != 0 || kind != FAIL); i++, poll(NULL, 0, 1))
        if (!moe_comm_received(two, &from, &kind, &data, &bytes)) from = -1;
    bool is = from == 0 && moe_wire_err_get(data, bytes, &said);
    if (!is || strcmp(said.msg, want))
        fprintf(stderr, "from %d, kind %u: '%s', not '%s'\n", from, kind, is ? said.msg : "?", want);
    OK(is && !strcmp(said.msg, want));
}

/* A failure is reported as that of the rank that met it, however many ranks pass it on. */
static void passes_on(void)
{
    struct moe_err err = MOE_ERR_INIT, heard = MOE_ERR_INIT;
    struct moe_comm *one, *two;
    struct honest h;
    open_honest(&h, 3);
    OK(moe_comm_local(&one, h.hub, 1, &err) == MOE_OK && moe_comm_local(&two, h.hub, 2, &err) == MOE_OK);
    moe_fail(&err, MOE_IO, "its disk is gone");
    moe_ep_fail(h.ep, &err);
    hears(two, "rank 0: its disk is gone");
    moe_fail(&err, MOE_DEVICE, "rank 1: rank 2 gone");
    OK(moe_ep_broadcast_failure(one, &err, &heard) == MOE_OK);
    OK(moe_ep_finish(h.ep, &heard) == MOE_DEVICE && !strcmp(heard.msg, "rank 1: rank 2 gone"));
    moe_ep_fail(h.ep, &heard);
    hears(two, "rank 1: rank 2 gone");
    moe_comm_close(&one);
    moe_comm_close(&two);
    close_honest(&h);
}

int main(void)
{
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) meets(&lies[i]);
    passes_on();
    printf("test-ep-lies: %ld checks\n", checks);
    return 0;
}
