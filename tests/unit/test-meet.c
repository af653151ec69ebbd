/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the rendezvous of ranks, and what else may connect to it: silent and slow connections, other
 * programs, other versions, ranks of another run, forged messages; with a secret and without; and a rank 0
 * that is not one. */
#include "base/io.h"
#include "tests/ok.h"
#include "runtime/comm/rendezvous.h"
#include "runtime/comm/socket.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <sys/stat.h>
#include <unistd.h>

enum { RANKS_MAX = 4 };

static char place[64];
static struct moe_agreement settings;

/* A port of the loopback that nobody listens at. */
static void new_place(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    int s = socket(AF_INET, SOCK_STREAM, 0);
    OK(s >= 0 && !bind(s, (struct sockaddr *)&a, n) && !getsockname(s, (struct sockaddr *)&a, &n));
    close(s);
    snprintf(place, sizeof place, "127.0.0.1:%d", ntohs(a.sin_port));
}

/* One connection to the place, once somebody listens there. */
static int call(void)
{
    struct moe_err err;
    int fd = -1;
    for (int i = 0; i < 500 && fd < 0; i++) {
        OK(moe_socket_connect(place, 1, &fd, &err) == MOE_OK);
        if (fd < 0) poll(NULL, 0, 10);
    }
    OK(fd >= 0);
    return fd;
}

static void put(int fd, const void *p, size_t n) { OK(send(fd, p, n, MSG_NOSIGNAL) == (ssize_t)n); }

/* Whether the other side closes the connection within some seconds. */
static bool is_closed(int fd)
{
    struct moe_err err;
    unsigned char b[4096];
    double end = moe_now() + 5;
    while (moe_socket_receive(fd, b, 1, end, NULL, &err) == MOE_OK) {}
    return strstr(err.msg, "went away");
}

/* ---- ranks as threads ---- */

struct rank {
    struct moe_rendezvous v;
    struct moe_err failure, err;
    char address[32];
    struct moe_meeting m;
    enum moe_code code;
    pthread_t id;
};

static void *meet(void *arg)
{
    struct rank *r = arg;
    r->code = moe_rendezvous(&r->v, &r->failure, r->address, strlen(r->address), &r->m, &r->err);
    return NULL;
}

static struct rank rank(int r, int ranks, const struct moe_secret *secret)
{
    struct rank k = { .v = { .where = place,
                             .rank = r,
                             .ranks = ranks,
                             .timeout = 30,
                             .settings = &settings,
                             .secret = secret },
                      .failure = MOE_ERR_INIT,
                      .err = MOE_ERR_INIT };
    snprintf(k.address, sizeof k.address, "the address of rank %d", r);
    return k;
}

static void start(struct rank *r) { OK(!pthread_create(&r->id, NULL, meet, r)); }
static void end(struct rank *r) { OK(!pthread_join(r->id, NULL)); }

/* All have all addresses and the same key. */
static void all_met(struct rank *r, int ranks)
{
    for (int k = 0; k < ranks; k++) {
        if (r[k].code != MOE_OK) fprintf(stderr, "rank %d: %s\n", k, r[k].err.msg);
        OK(r[k].code == MOE_OK && !memcmp(r[k].m.key, r[0].m.key, MOE_WIRE_KEY));
        for (int i = 0; i < ranks; i++) {
            size_t n = r[k].m.offset[i + 1] - r[k].m.offset[i];
            OK(n == strlen(r[i].address) && !memcmp(r[k].m.all + r[k].m.offset[i], r[i].address, n));
        }
    }
    for (int k = 0; k < ranks; k++) moe_meeting_release(&r[k].m);
}

/* All have failed so. */
static void all_failed(struct rank *r, int ranks, enum moe_code code, const char *text)
{
    for (int k = 0; k < ranks; k++) {
        bool as_wanted = r[k].code == code && strstr(r[k].err.msg, text) && !r[k].m.all;
        if (!as_wanted)
            fprintf(stderr, "rank %d: code %d, not %d with '%s': %s\n", k, r[k].code, code, text,
                    r[k].err.msg);
        OK(as_wanted);
    }
}

static void run(struct rank *r, int ranks)
{
    for (int k = 0; k < ranks; k++) start(&r[k]);
    for (int k = 0; k < ranks; k++) end(&r[k]);
}

/* ---- who comes ---- */

static void plain(const struct moe_secret *secret)
{
    struct rank r[RANKS_MAX];
    new_place();
    for (int ranks = 1; ranks <= RANKS_MAX; ranks += RANKS_MAX - 1) {
        for (int k = 0; k < ranks; k++) r[k] = rank(k, ranks, secret);
        run(r, ranks);
        all_met(r, ranks);
    }
    snprintf(place, sizeof place, "unix:moe-test-meet-%ld", (long)getpid());
    for (int k = 0; k < RANKS_MAX; k++) r[k] = rank(k, RANKS_MAX, secret);
    run(r, RANKS_MAX);
    all_met(r, RANKS_MAX);
}

/* More ranks at the same moment than there are places for strangers; none is taken for one. */
static void many_ranks(void)
{
    enum { MANY = 200 };
    struct rank *r = malloc(MANY * sizeof *r);
    OK(r);
    new_place();
    for (int k = 0; k < MANY; k++) r[k] = rank(k, MANY, NULL);
    for (int k = MANY - 1; k >= 0; k--) start(&r[k]); /* rank 0 comes last, when all others knock */
    for (int k = 0; k < MANY; k++) end(&r[k]);
    all_met(r, MANY);
    free(r);
}

/* Silent, slow, talkative and mistaken connections, more than are kept; then the ranks. */
static void strangers(const struct moe_secret *secret)
{
    enum { MANY = 150 };
    static const char http[] =
        "GET / HTTP/1.1\r\nHost: x\r\n\r\n and some more so that it is as long as a frame";
    static unsigned char noise[100000];
    int fd[MANY];
    struct rank r[3];
    new_place();
    for (int k = 0; k < 3; k++) r[k] = rank(k, 3, secret);
    double t = moe_now();
    start(&r[0]);
    for (int i = 0; i < MANY; i++) {
        fd[i] = call();
        if (i % 4 == 1) put(fd[i], http, i % 8 == 1 ? 10 : sizeof http - 1);
        if (i % 4 == 2) send(fd[i], noise, sizeof noise, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (i % 4 == 3) put(fd[i], "MOERANKS", 8);
    }
    start(&r[1]);
    start(&r[2]);
    for (int k = 0; k < 3; k++) end(&r[k]);
    OK(moe_now() - t < 8); /* nobody waited for them */
    all_met(r, 3);
    for (int i = 0; i < MANY; i++) close(fd[i]);
}

static void hello(unsigned char out[MOE_WIRE_FRAME_BYTES + MOE_WIRE_NONCE], uint32_t version, uint32_t type,
                  uint64_t bytes)
{
    memset(out, 7, MOE_WIRE_FRAME_BYTES + MOE_WIRE_NONCE);
    moe_wire_frame_put(out, &(struct moe_wire_frame){ version, 1, 2, type, 0, bytes });
}

/* A frame that promises more than a message may have, or of a kind that has no place, ends its connection
 * alone. */
static void bad_frames(void)
{
    static const struct {
        uint32_t type;
        uint64_t bytes;
    } bad[] = { { MOE_WIRE_HELLO, 31 },
                { MOE_WIRE_HELLO, UINT64_MAX },
                { MOE_WIRE_JOIN, 40 },
                { MOE_WIRE_WELCOME, 40 },
                { 0, 0 },
                { 99, 32 } };
    unsigned char out[MOE_WIRE_FRAME_BYTES + MOE_WIRE_NONCE],
        got[MOE_WIRE_FRAME_BYTES + MOE_WIRE_NONCE + MOE_WIRE_MAC];
    struct moe_err err;
    struct rank r[2] = { rank(0, 2, NULL), rank(1, 2, NULL) };
    new_place();
    start(&r[0]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int fd = call();
        hello(out, MOE_WIRE_VERSION, bad[i].type, bad[i].bytes);
        put(fd, out, sizeof out);
        OK(is_closed(fd));
        close(fd);
    }
    const uint64_t length[] = { 0, 31, 32, 1 << 30, UINT64_MAX }; /* of a JOIN */
    for (size_t i = 0; i < sizeof length / sizeof *length; i++) {
        int fd = call();
        hello(out, MOE_WIRE_VERSION, MOE_WIRE_HELLO, MOE_WIRE_NONCE);
        put(fd, out, sizeof out);
        OK(moe_socket_receive(fd, got, sizeof got, moe_now() + 5, NULL, &err) == MOE_OK);
        hello(out, MOE_WIRE_VERSION, MOE_WIRE_JOIN, length[i]);
        put(fd, out, sizeof out);
        OK(is_closed(fd));
        close(fd);
    }
    start(&r[1]);
    end(&r[0]), end(&r[1]);
    all_met(r, 2);
}

/* A rank whose messages are of another version, older or newer, is told so, and ends a run without a
 * secret. */
static void other_versions(const struct moe_secret *secret, uint32_t version)
{
    unsigned char out[MOE_WIRE_FRAME_BYTES + MOE_WIRE_NONCE], got[MOE_WIRE_FRAME_BYTES];
    struct moe_wire_frame f;
    struct moe_err err;
    struct rank r[2];
    new_place();
    r[0] = rank(0, 2, secret), r[1] = rank(1, 2, secret);
    start(&r[0]);
    int fd = call();
    hello(out, version, MOE_WIRE_HELLO, MOE_WIRE_NONCE);
    put(fd, out, sizeof out);
    OK(moe_socket_receive(fd, got, sizeof got, moe_now() + 5, NULL, &err) == MOE_OK &&
       moe_wire_frame_get(got, &f) && f.version == MOE_WIRE_VERSION);
    if (secret) start(&r[1]), end(&r[1]); /* it has not proved that it is a rank */
    end(&r[0]);
    close(fd);
    if (secret) all_met(r, 2);
    else all_failed(r, 1, MOE_MISMATCH, "another version");
}

/* ---- ranks that do not belong together ---- */

static void failures(const struct moe_secret *secret)
{
    struct rank r[3];
    struct moe_agreement other = settings;
    other.item[1].digest.low++;
    new_place();
    for (int what = 0; what < 7; what++) {
        for (int k = 0; k < 3; k++) r[k] = rank(k, 3, secret);
        if (what == 0) moe_fail_at(&r[2].failure, MOE_NOT_FOUND, "a model", NULL, "it is not there");
        if (what == 1) moe_fail(&r[0].failure, MOE_NOMEM, "rank 0 has no memory");
        if (what == 2) r[1].v.settings = &other;
        if (what == 3) r[2].v.ranks = 4;
        if (what == 4) r[2].v.rank = 1;
        if (what == 5) r[2].v.rank = 3;
        if (what == 6)
            r[1].failure.code = (enum moe_code)999,
            snprintf(r[1].failure.msg, 32, "a code that there is not");
        run(r, 3);
        if (what == 0) all_failed(r, 3, MOE_NOT_FOUND, "rank 2: 'a model': it is not there");
        if (what == 1) all_failed(r, 3, MOE_NOMEM, "rank 0 has no memory");
        if (what == 2)
            all_failed(r, 3, MOE_MISMATCH,
                       "rank 1 has another model, plan or settings than rank 0: --seed differs");
        if (what == 3) all_failed(r, 3, MOE_MISMATCH, "wants 4 ranks, here are 3");
        if (what == 4) all_failed(r, 3, MOE_DEVICE, "rank 1 came twice");
        if (what == 5) all_failed(r, 3, MOE_MISMATCH, "none of 3");
        if (what == 6) all_failed(r, 3, MOE_DEVICE, "rank 1: a code that there is not");
        if (what == 0) OK(!strcmp(r[1].err.file, "a model"));
    }
    r[0] = rank(0, 2, secret);
    r[0].v.timeout = 0.5;
    run(r, 1);
    all_failed(r, 1, MOE_DEVICE, "rank 1 did not come");
    r[1] = rank(1, 2, secret);
    r[1].v.timeout = 0.5;
    start(&r[1]), end(&r[1]);
    all_failed(r + 1, 1, MOE_DEVICE, "found nobody");
    for (int k = 0; k < 2; k++) { /* alone with a failure of its own: that is what it says */
        r[k] = rank(k, 2, secret);
        r[k].v.timeout = 0.2;
        moe_fail(&r[k].failure, MOE_CORRUPT, "its own failure");
        start(&r[k]), end(&r[k]);
        all_failed(r + k, 1, MOE_CORRUPT, "its own failure");
        OK(r[k].m.told == !k);
    }
}

/* Ranks that have come learn at once why the run fails, while another one has not come: of a rank with
 * another plan, of one that has failed, and of rank 0's own failure. */
static void told_at_once(const struct moe_secret *secret, int what)
{
    struct moe_agreement other = settings;
    other.item[1].digest.low++;
    struct rank r[4] = { rank(0, 4, secret), rank(1, 4, secret), rank(2, 4, secret) };
    double t = moe_now();
    new_place();
    if (what == 0) r[1].v.settings = &other;
    if (what == 1) moe_fail(&r[1].failure, MOE_MISMATCH, "a plan for another run");
    if (what == 2) moe_fail(&r[0].failure, MOE_MISMATCH, "a plan for another run");
    if (what == 2) r[0].v.timeout = 2; /* it waits so long to tell the others */
    for (int k = 0; k < 3; k++) start(&r[k]);
    end(&r[1]), end(&r[2]);
    OK(moe_now() - t < 1.5);
    end(&r[0]);
    OK(moe_now() - t < 5);
    all_failed(r, 3, MOE_MISMATCH, what ? "a plan for another run" : "--seed differs");
}

/* A rank that left before all had come may come again. */
static void comes_again(void)
{
    struct rank r[3] = { rank(0, 3, NULL), rank(1, 3, NULL), rank(2, 3, NULL) };
    unsigned char out[MOE_WIRE_FRAME_BYTES + MOE_WIRE_NONCE],
        got[MOE_WIRE_FRAME_BYTES + MOE_WIRE_NONCE + MOE_WIRE_MAC], body[256];
    struct moe_err err;
    const struct moe_wire_join j = { .failure = MOE_ERR_INIT,
                                     .settings = settings,
                                     .address = (const unsigned char *)"x",
                                     .address_bytes = 1 };
    new_place();
    start(&r[0]);
    int fd = call();
    hello(out, MOE_WIRE_VERSION, MOE_WIRE_HELLO, MOE_WIRE_NONCE);
    put(fd, out, sizeof out);
    OK(moe_socket_receive(fd, got, sizeof got, moe_now() + 5, NULL, &err) == MOE_OK);
    size_t n = moe_wire_join_bytes(&j);
    OK(n + MOE_WIRE_MAC <= sizeof body);
    memset(body, 0, sizeof body);
    moe_wire_join_put(body, &j);
    moe_wire_frame_put(
        out, &(struct moe_wire_frame){ MOE_WIRE_VERSION, 1, 3, MOE_WIRE_JOIN, 0, n + MOE_WIRE_MAC });
    put(fd, out, MOE_WIRE_FRAME_BYTES);
    put(fd, body, n + MOE_WIRE_MAC);
    poll(NULL, 0, 100);
    close(fd);
    poll(NULL, 0, 100);
    start(&r[1]), start(&r[2]);
    for (int k = 0; k < 3; k++) end(&r[k]);
    all_met(r, 3);
}

/* ---- secrets ---- */

static void secrets(const struct moe_secret *a, const struct moe_secret *b)
{
    struct rank r[2];
    const struct {
        const struct moe_secret *host, *guest;
        const char *says;
    } bad[] = { { a, NULL, "wants a secret, rank 1 has none" },
                { NULL, a, "has no secret, rank 1 has one" },
                { a, b, "has another secret than rank 1" } };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        new_place();
        r[0] = rank(0, 2, bad[i].host), r[1] = rank(1, 2, bad[i].guest);
        r[0].v.timeout = 0.5;
        run(r, 2);
        all_failed(r + 1, 1, MOE_MISMATCH, bad[i].says);
        /* whoever is none of its ranks does not end the run */
        all_failed(r, 1, MOE_DEVICE, "rank 1 did not come");
        OK(!bad[i].host || strstr(r[0].err.msg, "did not know the secret"));
    }
    new_place(); /* and the right ones come after the wrong one */
    struct rank wrong = rank(1, 2, b);
    r[0] = rank(0, 2, a), r[1] = rank(1, 2, a);
    start(&r[0]);
    start(&wrong), end(&wrong);
    start(&r[1]), end(&r[1]), end(&r[0]);
    all_failed(&wrong, 1, MOE_MISMATCH, "another secret");
    all_met(r, 2);
}

static struct moe_secret *read_secret(const char *text, int mode, struct moe_err *err)
{
    char path[] = "/tmp/moe-test-meet-XXXXXX";
    struct moe_secret *s = NULL;
    int fd = mkstemp(path);
    OK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text) && !fchmod(fd, (mode_t)mode) &&
       !close(fd));
    err->code = MOE_OK;
    OK(moe_secret_read(&s, path, err) == err->code && (s != NULL) == (err->code == MOE_OK));
    unlink(path);
    return s;
}

static void secret_files(void)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_secret *s = read_secret("0123456789abcdef\r\n", 0600, &err);
    OK(s && s->bytes == 16 && !memcmp(s->key, "0123456789abcdef", 16));
    moe_secret_free(&s);
    OK(!read_secret("0123456789abcde\n", 0600, &err) && err.code == MOE_USAGE && strstr(err.msg, "15 bytes"));
    const int open[] = { 0640, 0604, 0620, 0601 };
    for (size_t i = 0; i < sizeof open / sizeof *open; i++)
        OK(!read_secret("0123456789abcdef", open[i], &err) && err.code == MOE_USAGE &&
           strstr(err.msg, "chmod 600"));
    FAILS(MOE_USAGE, moe_secret_read(&s, "/", &err));
    FAILS(MOE_NOT_FOUND, moe_secret_read(&s, "/nowhere/at/all", &err));
}

/* What is signed covers nonces, frame, body and kind. */
static void signatures(const struct moe_secret *a)
{
    struct moe_nonces n = { "client", "host" };
    unsigned char frame[MOE_WIRE_FRAME_BYTES] = "frame", body[] = "body", mac[MOE_WIRE_MAC];
    moe_secret_sign(a, MOE_WIRE_JOIN, &n, frame, body, 4, mac);
    OK(moe_secret_signed(a, MOE_WIRE_JOIN, &n, frame, body, 4, mac));
    OK(!moe_secret_signed(a, MOE_WIRE_WELCOME, &n, frame, body, 4, mac) &&
       !moe_secret_signed(a, MOE_WIRE_JOIN, &n, frame, body, 3, mac));
    unsigned char *const parts[] = { n.client, n.host, frame, body, mac };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        parts[i][3] ^= 1;
        OK(!moe_secret_signed(a, MOE_WIRE_JOIN, &n, frame, body, 4, mac));
        parts[i][3] ^= 1;
    }
}

/* ---- a rank 0 that is none ---- */

static int listening(void)
{
    struct moe_err err;
    int fd;
    new_place();
    OK(moe_socket_listen(place, &fd, &err) == MOE_OK);
    return fd;
}

static int accepted(int door)
{
    struct pollfd p = { .fd = door, .events = POLLIN };
    bool full;
    OK(poll(&p, 1, 5000) == 1);
    int fd = moe_socket_accept(door, &full);
    OK(fd >= 0);
    return fd;
}

/* What it answers: first to HELLO, then to JOIN. */
static void false_host(const void *first, size_t n_first, uint32_t type, uint64_t promised, const void *body,
                       size_t n, enum moe_code code, const char *says)
{
    struct rank r = rank(1, 2, NULL);
    unsigned char frame[MOE_WIRE_FRAME_BYTES], got[4096];
    struct moe_err err;
    int door = listening();
    start(&r);
    int fd = accepted(door);
    double soon = moe_now() + 5;
    OK(moe_socket_receive(fd, got, MOE_WIRE_FRAME_BYTES + MOE_WIRE_NONCE, soon, NULL, &err) == MOE_OK);
    put(fd, first, n_first);
    bool joins = type && moe_socket_receive(fd, got, MOE_WIRE_FRAME_BYTES, soon, NULL, &err) == MOE_OK;
    if (joins) {
        /* all of it is read: what is left when a socket closes takes the answer with it */
        struct moe_wire_frame f;
        OK(moe_wire_frame_get(got, &f) && f.bytes < sizeof got &&
           moe_socket_receive(fd, got, (size_t)f.bytes, moe_now() + 5, NULL, &err) == MOE_OK);
        moe_wire_frame_put(frame, &(struct moe_wire_frame){ MOE_WIRE_VERSION, 0, 2, type, 0, promised });
        put(fd, frame, sizeof frame);
        send(fd, body, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    poll(NULL, 0, 20);
    close(fd);
    end(&r);
    close(door);
    all_failed(&r, 1, code, says);
}

static void false_hosts(void)
{
    unsigned char ok[MOE_WIRE_FRAME_BYTES + MOE_WIRE_NONCE + MOE_WIRE_MAC] = { 0 }, bad[sizeof ok] = { 0 },
                                                             body[MOE_WIRE_ERR_BYTES + MOE_WIRE_MAC] = { 0 };
    enum { SIZE = 600 };
    moe_wire_frame_put(ok, &(struct moe_wire_frame){ MOE_WIRE_VERSION, 0, 2, MOE_WIRE_CHALLENGE, 0,
                                                     MOE_WIRE_NONCE + MOE_WIRE_MAC });
    memcpy(bad, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    false_host(bad, sizeof bad, 0, 0, NULL, 0, MOE_DEVICE, "is not moe-run");
    moe_wire_frame_put(bad, &(struct moe_wire_frame){ 2, 0, 2, 14, 0, 64 });
    false_host(bad, sizeof bad, 0, 0, NULL, 0, MOE_MISMATCH, "another version");
    moe_wire_frame_put(bad, &(struct moe_wire_frame){ MOE_WIRE_VERSION, 0, 2, MOE_WIRE_WELCOME, 0, 64 });
    false_host(bad, sizeof bad, 0, 0, NULL, 0, MOE_DEVICE, "makes no sense");
    false_host(ok, sizeof ok, MOE_WIRE_WELCOME, UINT64_MAX, body, SIZE, MOE_DEVICE, "makes no sense");
    false_host(ok, sizeof ok, MOE_WIRE_HELLO, 64, body, SIZE, MOE_DEVICE, "makes no sense");
    /* lengths of 0 */
    false_host(ok, sizeof ok, MOE_WIRE_WELCOME, SIZE, body, SIZE, MOE_DEVICE, "makes no sense");
    body[MOE_WIRE_KEY] = 200, body[MOE_WIRE_KEY + 3] = 255, body[MOE_WIRE_KEY + 4] = 200;
    /* of 4 GB */
    false_host(ok, sizeof ok, MOE_WIRE_WELCOME, SIZE, body, SIZE, MOE_DEVICE, "makes no sense");
    false_host(ok, sizeof ok, MOE_WIRE_WELCOME, SIZE, body, 100, MOE_DEVICE, "did not answer");
    struct moe_err e = MOE_ERR_INIT;
    moe_fail(&e, MOE_NOMEM, "forged");
    e.code = (enum moe_code)231;
    size_t n = moe_wire_err_put(body, &e);
    false_host(ok, sizeof ok, MOE_WIRE_REFUSED, n + MOE_WIRE_MAC, body, SIZE, MOE_DEVICE, "forged");
    memset(body, 'A', SIZE);
    false_host(ok, sizeof ok, MOE_WIRE_REFUSED, SIZE, body, SIZE, MOE_DEVICE, "makes no sense");
}

/* ---- names ---- */

static void names(void)
{
    struct moe_err err;
    int fd;
    FAILS(MOE_USAGE, moe_socket_listen("nowhere", &fd, &err));
    FAILS(MOE_USAGE, moe_socket_listen("unix:", &fd, &err));
    FAILS(MOE_USAGE, moe_socket_connect("host:", 1, &fd, &err));
    OK(moe_socket_is_here(":7000") && moe_socket_is_here("127.0.0.1:1") && moe_socket_is_here("[::1]:1") &&
       moe_socket_is_here("unix:x"));
    OK(!moe_socket_is_here("0.0.0.0:1") && !moe_socket_is_here("10.0.0.1:1") &&
       !moe_socket_is_here("[::]:1") && !moe_socket_is_here("x"));
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    OK(moe_socket_listen(":0", &fd, &err) == MOE_OK && !getsockname(fd, (struct sockaddr *)&a, &n) &&
       a.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
    close(fd);
}

/* A socket that is bound to the port it asks for meets itself. */
static void test_self(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    int pair[2], s = socket(AF_INET, SOCK_STREAM, 0);
    OK(s >= 0 && !bind(s, (struct sockaddr *)&a, n) && !getsockname(s, (struct sockaddr *)&a, &n));
    OK(!moe_socket_is_self(s));
    OK(!connect(s, (struct sockaddr *)&a, n) && moe_socket_is_self(s));
    close(s);
    OK(!socketpair(AF_UNIX, SOCK_STREAM, 0, pair) && !moe_socket_is_self(pair[0]));
    close(pair[0]), close(pair[1]);
}

/* ---- all of it: most parts wait for rank 0 to give up, so they run side by side, each in a process ---- */

enum { PARTS = 10 };

static void run_part(int part, const struct moe_secret *a, const struct moe_secret *b)
{
    const struct moe_secret *secret = part % 2 ? a : NULL;
    switch (part) {
    case 0:
    case 1:
        plain(secret);
        strangers(secret);
        other_versions(secret, MOE_WIRE_VERSION - 1);
        break;
    case 2:
    case 3: other_versions(secret, MOE_WIRE_VERSION + 1); break;
    case 4:
    case 5: failures(secret); break;
    case 6:
    case 7:
    case 8: told_at_once(a, part - 6); break;
    default:
        many_ranks();
        bad_frames();
        comes_again();
        secrets(a, b);
        false_hosts();
    }
}

/* A process that runs one part and then writes its number of checks into the pipe. */
static pid_t fork_part(int part, int pipe_end, const struct moe_secret *a, const struct moe_secret *b)
{
    pid_t pid = fork();
    OK(pid >= 0);
    if (pid) return pid;
    checks = 0;
    run_part(part, a, b);
    _exit(write(pipe_end, &checks, sizeof checks) != sizeof checks);
}

static void run_parts(const struct moe_secret *a, const struct moe_secret *b)
{
    pid_t pid[PARTS];
    int ends[2], status;
    long n;
    OK(!pipe(ends));
    for (int k = 0; k < PARTS; k++) pid[k] = fork_part(k, ends[1], a, b);
    for (int k = 0; k < PARTS; k++) {
        OK(waitpid(pid[k], &status, 0) == pid[k] && status == 0);
        OK(read(ends[0], &n, sizeof n) == sizeof n && n > 0);
        checks += n;
    }
    close(ends[0]), close(ends[1]);
}

int main(void)
{
    struct moe_err err = MOE_ERR_INIT;
    struct moe_secret *a = read_secret("what all ranks know", 0600, &err),
                      *b = read_secret("what nobody else knows", 0400, &err);
    OK(a && b);
    moe_agree_add(&settings, "--temperature", "1", 1);
    moe_agree_add(&settings, "--seed", "2", 1);
    names();
    secret_files();
    signatures(a);
    test_self();
    run_parts(a, b);
    moe_secret_free(&a);
    moe_secret_free(&b);
    printf("test-meet: %ld checks\n", checks);
    return 0;
}
