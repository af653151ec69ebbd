/* SPDX-License-Identifier: Apache-2.0 */
/* The messages between a keeper of weights and an engine as bytes, and the sockets that bring them: who may
 * connect, what of a file is replaced, and which descriptors come through. */
#include "base/io.h"
#include "runtime/comm/local.h"
#include "runtime/comm/socket.h"
#include "runtime/comm/wire-keep.h"
#include "tests/ok.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static struct moe_err err = MOE_ERR_INIT;
static char dir[] = "/tmp/moe-test-keep.XXXXXX", path[64];

/* ---- messages ---- */

/* The message is read as it was written, and not at all when it is cut short or has a byte too many. */
static void round_trip(const struct moe_keep_message *m)
{
    unsigned char out[MOE_KEEP_PACKET + 1] = { 0 };
    struct moe_keep_message got;
    size_t n = moe_keep_put(out, m);
    OK(n <= MOE_KEEP_PACKET && moe_keep_get(out, n, &got) && !memcmp(&got, m, sizeof got));
    for (size_t k = 0; k < n; k++)
        OK(!moe_keep_get(out, k, &got) || (m->type == MOE_KEEP_FAILED && k > 16 && got.text[k - 16] == 0));
    OK(m->type == MOE_KEEP_FAILED || !moe_keep_get(out, n + 1, &got));
    out[0]++;
    OK(!moe_keep_get(out, n, &got));
    out[0]--;
    out[8]++; /* the version */
    OK(moe_keep_get(out, n, &got) && got.version == MOE_KEEP_VERSION + 1 && !got.type);
}

static struct moe_keep_message message(enum moe_keep_type type)
{
    return (struct moe_keep_message){ .version = MOE_KEEP_VERSION, .type = type };
}

static void messages(void)
{
    struct moe_keep_message offer = message(MOE_KEEP_OFFER), take = message(MOE_KEEP_TAKE),
                            failed = message(MOE_KEEP_FAILED);
    char longest[MOE_KEEP_VALUE] = { 0 };
    memset(longest, 'x', sizeof longest - 1);
    for (int i = 0; i < MOE_KEEP_TERMS; i++) moe_keep_add(&offer.terms, "fifteen letters", longest);
    round_trip(&offer);
    take.first = (uint64_t)5 << 40, take.n = MOE_KEEP_UNITS;
    round_trip(&take);
    take.type = MOE_KEEP_GIVE;
    round_trip(&take);
    memset(failed.text, 'y', sizeof failed.text - 1);
    round_trip(&failed);
}

static bool accepted(const struct moe_keep_message *m)
{
    unsigned char out[MOE_KEEP_PACKET];
    struct moe_keep_message got;
    return moe_keep_get(out, moe_keep_put(out, m), &got);
}

static void limits(void)
{
    struct moe_keep_message m = message(MOE_KEEP_TAKE);
    OK(!accepted(&m));
    m.n = MOE_KEEP_UNITS + 1, OK(!accepted(&m));
    m.n = 2, m.first = UINT64_MAX - 1, OK(!accepted(&m));
    m.first = UINT64_MAX - 2, OK(accepted(&m));
    m.type = MOE_KEEP_FAILED + 1, OK(!accepted(&m));
    m = message(MOE_KEEP_FAILED), OK(!accepted(&m)); /* without a text */
    m.text[0] = 27, OK(accepted(&m));
    unsigned char out[MOE_KEEP_PACKET];
    OK(moe_keep_get(out, moe_keep_put(out, &m), &m) && !strcmp(m.text, "\\x1b"));
}

static void terms(void)
{
    struct moe_keep_terms a = { 0 }, b = { 0 };
    moe_keep_add(&a, "model", "1"), moe_keep_add(&b, "model", "1");
    OK(moe_keep_difference(&a, &b) < 0);
    moe_keep_add(&a, "gpu", "2");
    OK(moe_keep_difference(&a, &b) == 1 && moe_keep_difference(&b, &a) == 1);
    moe_keep_add(&b, "gpu", "3");
    OK(moe_keep_difference(&a, &b) == 1);
    b = a;
    OK(moe_keep_difference(&a, &b) < 0);
    b.item[0].name[0] = 'n';
    OK(moe_keep_difference(&a, &b) == 0);
}

/* ---- sockets ---- */

static atomic_bool looking;
static long seen, open_to_others;

/* Looks at the mode of the file, over and over, while it comes and goes. */
static void *look(void *nothing)
{
    struct stat st;
    while (looking)
        if (!lstat(path, &st)) seen++, open_to_others += (st.st_mode & 077) != 0;
    return nothing;
}

static void nobody_else_can_connect(void)
{
    struct moe_local l;
    struct stat st;
    pthread_t thread;
    looking = true;
    OK(!pthread_create(&thread, NULL, look, NULL));
    for (int i = 0; i < 400; i++) {
        umask(i % 2 ? 0 : 0777);
        OK(moe_local_listen(&l, path, &err) == MOE_OK && !lstat(path, &st) && (st.st_mode & 0777) == 0600);
        moe_local_close(&l);
        OK(lstat(path, &st) && errno == ENOENT);
    }
    umask(022);
    looking = false;
    OK(!pthread_join(thread, NULL) && !open_to_others);
}

static void what_is_there(void)
{
    struct moe_local l, other;
    char far[256];
    memset(far, 'a', sizeof far - 1), far[255] = 0;
    FAILS(MOE_USAGE, moe_local_listen(&l, far, &err));
    FAILS(MOE_USAGE, moe_local_listen(&l, "", &err));
    FAILS(MOE_NOT_FOUND, moe_local_listen(&l, "/nowhere/at/all", &err));
    OK(close(open(path, O_CREAT | O_WRONLY, 0600)) == 0);
    FAILS(MOE_EXISTS, moe_local_listen(&l, path, &err));
    SAYS("exists, and is no socket");
    OK(unlink(path) == 0 && symlink("elsewhere", path) == 0);
    FAILS(MOE_EXISTS, moe_local_listen(&l, path, &err));
    OK(unlink(path) == 0 && moe_local_listen(&l, path, &err) == MOE_OK);
    FAILS(MOE_EXISTS, moe_local_listen(&other, path, &err));
    SAYS("a process that listens there");
    OK(other.fd == -1);
    close(l.fd); /* as the end of its process does */
    OK(moe_local_listen(&l, path, &err) == MOE_OK); /* nobody listens at what is there */
    OK(unlink(path) == 0 && moe_local_listen(&other, path, &err) == MOE_OK);
    moe_local_close(&l); /* the file is another socket's, and stays */
    OK(access(path, F_OK) == 0);
    moe_local_close(&other);
    OK(access(path, F_OK) != 0);
}

static void connecting(void)
{
    struct moe_local l;
    int fd;
    FAILS(MOE_NOT_FOUND, moe_local_connect(path, moe_now() + 1, NULL, &fd, &err));
    OK(moe_local_listen(&l, path, &err) == MOE_OK);
    close(l.fd);
    FAILS(MOE_DEVICE, moe_local_connect(path, moe_now() + 1, NULL, &fd, &err));
    SAYS("nobody who listens there");
    OK(fd == -1 && moe_local_listen(&l, path, &err) == MOE_OK);
    struct moe_cancel c = { 0 };
    int many[1024], n = 0;
    enum moe_code code;
    while ((code = moe_local_connect(path, moe_now() + 0.1, &c, &many[n], &err)) == MOE_OK && n < 1023) n++;
    OK(code == MOE_DEVICE && n > 8); /* nobody accepts */
    SAYS("too many others");
    moe_cancel_request(&c, MOE_SIGTERM);
    OK(moe_local_connect(path, moe_now() + 9, &c, &fd, &err) == MOE_SIGTERM);
    while (n) close(many[--n]);
    moe_local_close(&l);
}

static int files_open(void)
{
    int n = 0;
    for (int fd = 0; fd < 1024; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void descriptors(void)
{
    struct moe_local l;
    int from, to, file[MOE_LOCAL_FILES], sent[MOE_LOCAL_FILES], n;
    bool full;
    char text[8];
    OK(moe_local_listen(&l, path, &err) == MOE_OK);
    OK(moe_local_connect(path, moe_now() + 1, NULL, &from, &err) == MOE_OK);
    OK((to = moe_socket_accept(l.fd, &full)) >= 0);
    int before = files_open();
    for (int i = 0; i < MOE_LOCAL_FILES; i++) sent[i] = l.fd;
    OK(moe_local_receive(to, text, sizeof text, file, &n) == -1 && errno == EAGAIN);
    OK(moe_local_send(from, "hello", 5, sent, MOE_LOCAL_FILES));
    OK(moe_local_receive(to, text, sizeof text, file, &n) == 5 && n == MOE_LOCAL_FILES);
    OK(fcntl(file[63], F_GETFD) == FD_CLOEXEC && files_open() == before + n);
    while (n) close(file[--n]);
    OK(moe_local_send(from, "hello", 5, sent, 3)); /* not wanted */
    OK(moe_local_receive(to, text, sizeof text, NULL, NULL) == 5 && files_open() == before);
    OK(moe_local_send(from, "too long", 9, sent, 3));
    OK(moe_local_receive(to, text, sizeof text, file, &n) == -1 && errno == EMSGSIZE && !n);
    OK(files_open() == before);
    struct rlimit old, few = { (rlim_t)before, (rlim_t)before };
    OK(!getrlimit(RLIMIT_NOFILE, &old) && moe_local_send(from, "hello", 5, sent, 3));
    few.rlim_max = old.rlim_max;
    OK(!setrlimit(RLIMIT_NOFILE, &few));
    OK(moe_local_receive(to, text, sizeof text, file, &n) == -1 && errno == EMFILE && !n);
    OK(!setrlimit(RLIMIT_NOFILE, &old) && files_open() == before);
    OK(moe_local_send(from, "hello", 5, (int[]){ 0, 1 }, 2) && moe_local_send(from, "again", 5, sent, 0));
    OK(moe_local_receive(to, text, sizeof text, file, &n) == 5 && n == 2 && !memcmp(text, "hello", 5));
    while (n) close(file[--n]);
    OK(moe_local_receive(to, text, sizeof text, file, &n) == 5 && !n && !memcmp(text, "again", 5));
    close(from);
    OK(moe_local_receive(to, text, sizeof text, file, &n) == 0 && !moe_local_send(to, "x", 1, NULL, 0));
    close(to);
    moe_local_close(&l);
}

int main(void)
{
    OK(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/socket", dir);
    messages();
    limits();
    terms();
    nobody_else_can_connect();
    what_is_there();
    connecting();
    descriptors();
    OK(rmdir(dir) == 0);
    printf("%ld checks, a mode seen %ld times\n", checks, seen);
    return 0;
}
