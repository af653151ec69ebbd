/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/comm/secret.h"

#include "base/io.h"
#include "base/sha256.h"
#include "base/show.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static_assert((int)MOE_WIRE_MAC == (int)MOE_SHA256_BYTES, "a MAC is a whole digest");

static enum moe_code check_file(int fd, const char *path, struct moe_err *err)
{
    struct stat st;
    if (fstat(fd, &st)) return moe_fail_errno(err, errno, path, "cannot look at the file");
    if (!S_ISREG(st.st_mode)) return moe_fail_at(err, MOE_USAGE, path, NULL, "a secret is a plain file");
    if (st.st_uid != geteuid() && st.st_uid)
        return moe_fail_at(err, MOE_USAGE, path, NULL, "the secret is another user's file");
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return moe_fail_at(err, MOE_USAGE, path, NULL,
                           "others can reach the secret (chmod 600 keeps them out)");
    return MOE_OK;
}

static enum moe_code read_key(int fd, const char *path, struct moe_secret *s, struct moe_err *err)
{
    unsigned char *p = s->key;
    ssize_t n;
    MOE_TRY(check_file(fd, path, err));
    while (s->bytes < sizeof s->key && (n = read(fd, p + s->bytes, sizeof s->key - s->bytes)) != 0) {
        if (n < 0 && errno != EINTR) return moe_fail_errno(err, errno, path, "cannot read the secret");
        if (n > 0) s->bytes += (size_t)n;
    }
    if (s->bytes == sizeof s->key)
        return moe_fail_at(err, MOE_USAGE, path, NULL, "the secret has %d bytes or more", MOE_SECRET_MAX);
    while (s->bytes && (p[s->bytes - 1] == '\n' || p[s->bytes - 1] == '\r')) s->bytes--;
    if (s->bytes >= MOE_SECRET_MIN) return MOE_OK;
    return moe_fail_at(
        err, MOE_USAGE, path, NULL,
        "the secret has %zu byte%s, at least %d are wanted (head -c 32 /dev/urandom makes one)", s->bytes,
        moe_plural((int64_t)s->bytes), MOE_SECRET_MIN);
}

enum moe_code moe_secret_read(struct moe_secret **out, const char *path, struct moe_err *err)
{
    struct moe_secret *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return moe_fail(err, MOE_NOMEM, "no memory for a secret");
    int fd = moe_open(path, O_RDONLY | O_NONBLOCK); /* else opening a pipe would wait for its writer */
    enum moe_code code = fd < 0 ? moe_fail_errno(err, errno, path, "cannot open the secret")
                                : read_key(fd, path, s, err);
    if (fd >= 0) close(fd);
    if (code != MOE_OK) moe_secret_free(&s);
    *out = s;
    return code;
}

void moe_secret_free(struct moe_secret **s)
{
    if (*s) explicit_bzero(*s, sizeof **s);
    free(*s);
    *s = NULL;
}

enum moe_code moe_secret_random(void *out, size_t bytes, struct moe_err *err)
{
    unsigned char *p = out;
    for (size_t at = 0; at < bytes;) {
        ssize_t n = getrandom(p + at, bytes - at, 0);
        if (n > 0) at += (size_t)n;
        else if (errno != EINTR)
            return moe_fail(err, MOE_DEVICE, "the system gives no random numbers: %s", strerror(errno));
    }
    return MOE_OK;
}

void moe_secret_sign(const struct moe_secret *s, enum moe_wire_type type, const struct moe_nonces *n,
                     const unsigned char frame[MOE_WIRE_FRAME_BYTES], const void *body, size_t bytes,
                     unsigned char mac[MOE_WIRE_MAC])
{
    const unsigned char what[] = {
        'm', 'o', 'e', ' ', 'r', 'a', 'n', 'k', 's', ' ', MOE_WIRE_VERSION, (unsigned char)type
    };
    struct moe_hmac h;
    memset(mac, 0, MOE_WIRE_MAC);
    if (!s) return;
    moe_hmac_init(&h, s->key, s->bytes);
    moe_hmac_add(&h, what, sizeof what);
    moe_hmac_add(&h, n->client, sizeof n->client);
    moe_hmac_add(&h, n->host, sizeof n->host);
    moe_hmac_add(&h, frame, MOE_WIRE_FRAME_BYTES);
    moe_hmac_add(&h, body, bytes);
    moe_hmac_end(&h, mac);
}

bool moe_secret_signed(const struct moe_secret *s, enum moe_wire_type type, const struct moe_nonces *n,
                       const unsigned char frame[MOE_WIRE_FRAME_BYTES], const void *body, size_t bytes,
                       const unsigned char mac[MOE_WIRE_MAC])
{
    unsigned char want[MOE_WIRE_MAC];
    if (!s) return true;
    moe_secret_sign(s, type, n, frame, body, bytes, want);
    return moe_equal_constant_time(want, mac, MOE_WIRE_MAC);
}
