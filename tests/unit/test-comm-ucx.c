/* SPDX-License-Identifier: Apache-2.0 */
/* Tests that a rank ends when another one sends over UCX what no rank sends, and that its message gives that
 * rank's number; and that it ignores what a stranger sends without the run's key.  Two processes run for
 * each kind of fault. */
#include "base/io.h"
#include "runtime/comm/comm-ucx.h"
#include "runtime/comm/rendezvous.h"

#if MOE_HAVE_UCX && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include "tests/ok.h"
#include "runtime/comm/comm-ucx-internal.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLOT = 4096, LARGE = 1 << 20 };

static enum moe_code meet(struct moe_comm **c, const char *where, int rank, struct moe_err *err)
{
    const void *mine = NULL;
    size_t bytes = 0;
    struct moe_meeting m;
    struct moe_err none = MOE_ERR_INIT;
    static const struct moe_agreement same;
    struct moe_rendezvous v = { .where = where, .rank = rank, .ranks = 2, .timeout = 60, .settings = &same };
    MOE_TRY(moe_comm_ucx_open(c, rank, 2, true, SLOT, SLOT, 30, &mine, &bytes, err));
    MOE_TRY(moe_rendezvous(&v, &none, mine, bytes, &m, err));
    moe_comm_ucx_set_key(*c, m.key);
    MOE_TRY(moe_comm_ucx_connect(*c, !rank, m.all + m.offset[!rank], err));
    moe_meeting_release(&m);
    return moe_comm_ucx_await_ready(*c, 60, err);
}

/* Rank 1 sends these bytes as they are. */
static void send_raw(struct ucx *x, const void *head, size_t n_head, size_t bytes)
{
    static unsigned char data[LARGE];
    ucp_request_param_t p = { 0 };
    void *r = x->u->ucp_am_send_nbx(x->link[0].ep, AM, head, n_head, data, bytes, &p);
    OK(!UCS_PTR_IS_ERR(r));
    if (!r) return;
    while (x->u->ucp_request_check_status(r) == UCS_INPROGRESS) x->u->ucp_worker_progress(x->worker);
    x->u->ucp_request_free(r);
}

static void send_message(struct ucx *x, uint32_t kind, uint32_t from, uint32_t what, uint32_t number,
                         size_t bytes)
{
    unsigned char out[MOE_WIRE_HEAD_BYTES];
    struct moe_wire_head h = { .kind = kind, .from = from, .what = what, .number = number };
    memcpy(h.key, x->key, sizeof h.key);
    moe_wire_head_put(out, &h);
    send_raw(x, out, sizeof out, bytes);
}

/* Each row: what rank 1 sends, and what rank 0 says of it. */
struct fault {
    const char *says;
    uint32_t kind, from, what, number;
    size_t bytes;
    int times;
};
static const struct fault faults[] = {
    { "rank 1 sent a request that is larger than any can be", REQUEST, 1, 0, 0, SLOT + 1, 1 },
    { "rank 1 sent a request that is larger than any can be", REQUEST, 1, 0, 0, LARGE, 1 },
    { "rank 1 sent a request before its last one was answered", REQUEST, 1, 0, 0, 64, 2 },
    { "rank 1 sent a reply that nobody asked for", REPLY, 1, 0, 0, 64, 1 },
    { "rank 1 sent a reply that is larger than any can be", REPLY, 1, 0, 0, SLOT + 64, 1 },
    { "rank 1 sent the same words twice", BROADCAST, 1, 9, 5, 10, 2 },
    { "rank 1 sent the same words twice", BROADCAST, 1, 9, 1u << 31, 10, 1 },
    { "rank 1 sent a message of a kind that there is not", KINDS, 1, 0, 0, 0, 1 },
    { "rank 1 sent a message of a kind that there is not", UINT32_MAX, 1, 0, 0, 0, 1 },
    { "rank 1 sent more bytes than a sign of life has", HEARTBEAT, 1, 0, 0, 100, 1 },
    { "rank 1 sent news of a rank that there is not", GIVEN_UP, 1, 2, 0, 0, 1 },
    { "no other rank has that number", REQUEST, 0, 0, 0, 64, 1 },
    { "no other rank has that number", HEARTBEAT, 2, 0, 0, 0, 1 },
    { "no other rank has that number", BROADCAST, UINT32_MAX, 0, 0, 64, 1 },
};

static void attack(struct moe_comm *c, const struct fault *f)
{
    struct ucx *x = (struct ucx *)(void *)c;
    for (int i = 0; i < f->times; i++) send_message(x, f->kind, f->from, f->what, f->number, f->bytes);
}

/* Messages without the key, and with another length of header: rank 0 must ignore them. */
static void knock(struct moe_comm *c)
{
    struct ucx *x = (struct ucx *)(void *)c;
    unsigned char key[MOE_WIRE_KEY], none[MOE_WIRE_HEAD_BYTES + 8] = { 0 };
    struct moe_err err;
    memcpy(key, x->key, sizeof key);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
        x->key[i] ^= 1;
        attack(c, &faults[i]);
        memcpy(x->key, key, sizeof key);
        send_raw(x, none, i, 100);
    }
    send_raw(x, none, sizeof none, 0);
    OK(moe_comm_broadcast(c, 77, "well", 4, &err) == MOE_OK);
}

/* Rank 0 receives until it gets the message `says` or, for knock, the message sent after all of it. */
static void watch(struct moe_comm *c, const char *says)
{
    struct moe_err err = MOE_ERR_INIT;
    int from;
    uint32_t kind = 0;
    const void *data;
    size_t bytes;
    enum moe_code code = MOE_OK;
    double end = moe_now() + 30;
    moe_comm_begin_wait(c);
    while (code == MOE_OK && kind != 77 && moe_now() < end) {
        code = moe_comm_wait(c, &err);
        if (!says && code == MOE_OK && moe_comm_received(c, &from, &kind, &data, &bytes))
            OK(from == 1 && kind == 77 && bytes == 4 && !memcmp(data, "well", 4));
    }
    bool good = says ? code == MOE_DEVICE && strstr(err.msg, says) : code == MOE_OK && kind == 77;
    if (!good)
        fprintf(stderr, "code %d, '%s', where '%s' was wanted\n", code, err.msg, says ? says : "nothing");
    OK(good);
}

static void process(int rank, const char *where, const struct fault *f)
{
    struct moe_comm *c = NULL;
    struct moe_err err = MOE_ERR_INIT;
    enum moe_code code = meet(&c, where, rank, &err);
    if (code != MOE_OK) fprintf(stderr, "%s\n", err.msg);
    if (code == MOE_UNSUPPORTED) _exit(77);
    OK(code == MOE_OK);
    if (!rank) watch(c, f ? f->says : NULL);
    else if (f) attack(c, f);
    else knock(c);
    moe_comm_close(&c);
    _exit(0);
}

/* Exit codes of both; 0 unless one failed. */
static int both(const struct fault *f)
{
    char where[64];
    pid_t pid[2];
    int result = 0, status;
    snprintf(where, sizeof where, "unix:moe-test-comm-ucx-%ld-%.0f", (long)getpid(), moe_now() * 1e6);
    fflush(stdout);
    for (int r = 0; r < 2; r++) {
        pid[r] = fork();
        OK(pid[r] >= 0);
        if (!pid[r]) process(r, where, f);
    }
    for (int r = 0; r < 2; r++) {
        OK(waitpid(pid[r], &status, 0) == pid[r]);
        if (status && !result) result = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
    }
    return result;
}

int main(void)
{
    int code = both(NULL);
    if (code == 77) return 77;
    OK(!code);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) OK(!both(&faults[i]));
    printf("test-comm-ucx: %ld checks\n", checks);
    return 0;
}
#else
#include <stdio.h>

int main(void)
{
    printf("skip: no UCX here, or sanitizers, which it is not built with\n");
    return 77;
}
#endif
