/* SPDX-License-Identifier: Apache-2.0 */
#include "base/stream.h"

#include "base/io.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum {
    BUFFER = 256 << 10, /* bytes read of a gzipped file at once */
    STEP_MAX = 1 << 30, /* bytes inflated at once: zlib counts them in an unsigned int */
    WAKE_MS = 200       /* how often a wait for a pipe looks at the token */
};

struct moe_stream {
    char *path;
    const struct moe_cancel *cancel;
    int fd;
    uint64_t size, at;                /* size: of a pipe UINT64_MAX until its end has come */
    bool piped;                       /* it is standard input or a pipe */
    bool owned;                       /* this stream closes the descriptor */
    bool zipped, inflating;           /* inflating: z has been initialised */
    bool between;                     /* between two gzip members: the file may end here */
    z_stream z;
    unsigned char in[BUFFER];         /* input that z has not read; of a plain file the first two bytes */
    size_t unreturned;                /* of a plain file: how many bytes of `in` were not returned yet */
};

/* Read up to n bytes of a pipe; *got is less than n only at its end.  The token is looked at every WAKE_MS,
 * because a signal that another thread gets does not interrupt poll here. */
static enum moe_code read_piped(struct moe_stream *s, void *to, size_t n, size_t *got, struct moe_err *err)
{
    for (*got = 0; *got < n; ) {
        struct pollfd p = { .fd = s->fd, .events = POLLIN };
        MOE_TRY(moe_cancel_check(s->cancel, err));
        if (poll(&p, 1, WAKE_MS) <= 0) continue;
        ssize_t k = read(s->fd, (char *)to + *got, n - *got);
        if (k < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (k < 0) return moe_fail_errno(err, errno, s->path, "cannot read");
        if (!k) break;
        *got += (size_t)k;
    }
    return MOE_OK;
}

/* Read the next n bytes; a file is known to have them, a pipe may have fewer. */
static enum moe_code read_next(struct moe_stream *s, void *to, size_t n, size_t *got, struct moe_err *err)
{
    *got = n;
    MOE_TRY(s->piped ? read_piped(s, to, n, got, err) : moe_pread(s->fd, s->path, to, n, s->at, err));
    s->at += *got;
    if (*got < n) s->size = s->at;
    return MOE_OK;
}

/* Give z the next input: `most` bytes, or as many as the file still has. */
static enum moe_code refill(struct moe_stream *s, size_t most, struct moe_err *err)
{
    size_t n = s->size - s->at < most ? (size_t)(s->size - s->at) : most;
    MOE_TRY(read_next(s, s->in, n, &n, err));
    s->z.next_in = s->in;
    s->z.avail_in = (uInt)n;
    return MOE_OK;
}

const char *moe_stream_name(const char *path) { return strcmp(path, "-") ? path : "standard input"; }

/* Open the file and find out by its first two bytes whether it is gzipped.  On failure the caller closes
 * *s. */
static enum moe_code begin(struct moe_stream *s, const char *path, struct moe_err *err)
{
    bool standard = !strcmp(path, "-");
    s->path = strdup(moe_stream_name(path));
    if (!s->path) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to read it");
    s->fd = standard ? STDIN_FILENO : -1;
    s->size = UINT64_MAX;
    s->piped = standard;
    if (!standard) MOE_TRY(moe_open_input(path, &s->fd, &s->size, &s->piped, err));
    s->owned = !standard;
    MOE_TRY(refill(s, 2, err));
    s->unreturned = s->z.avail_in;
    s->zipped = s->unreturned == 2 && !memcmp(s->in, "\x1f\x8b", 2);
    if (!s->zipped) return MOE_OK;
    if (inflateInit2(&s->z, 16 + MAX_WBITS) != Z_OK)
        return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to decompress it");
    s->inflating = true;
    return MOE_OK;
}

enum moe_code moe_stream_open(struct moe_stream **out, const char *path, const struct moe_cancel *cancel,
                              struct moe_err *err)
{
    struct moe_stream *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s) return moe_fail_at(err, MOE_NOMEM, path, NULL, "no memory to read it");
    s->fd = -1;
    s->cancel = cancel;
    enum moe_code code = begin(s, path, err);
    if (code != MOE_OK) moe_stream_close(&s);
    *out = s;
    return code;
}

void moe_stream_close(struct moe_stream **ps)
{
    struct moe_stream *s = *ps;
    if (!s) return;
    if (s->inflating) inflateEnd(&s->z);
    if (s->fd >= 0 && s->owned) close(s->fd);
    free(s->path);
    free(s);
    *ps = NULL;
}

static enum moe_code read_plain(struct moe_stream *s, char *to, size_t room, size_t *n, struct moe_err *err)
{
    size_t head = s->unreturned < room ? s->unreturned : room, rest = room - head;
    memcpy(to, s->in + (s->z.avail_in - s->unreturned), head);
    s->unreturned -= head;
    if (rest > s->size - s->at) rest = (size_t)(s->size - s->at);
    if (rest) MOE_TRY(read_next(s, to + head, rest, &rest, err));
    *n = head + rest;
    return MOE_OK;
}

static enum moe_code read_zipped(struct moe_stream *s, char *to, size_t room, size_t *n, struct moe_err *err)
{
    *n = 0;
    while (*n < room) {
        if (!s->z.avail_in && s->at < s->size) MOE_TRY(refill(s, BUFFER, err));
        if (!s->z.avail_in && s->between) return MOE_OK;
        size_t step = room - *n < STEP_MAX ? room - *n : STEP_MAX;
        s->z.next_out = (Bytef *)(to + *n);
        s->z.avail_out = (uInt)step;
        s->between = false;
        int r = inflate(&s->z, Z_NO_FLUSH);
        *n += step - s->z.avail_out;
        if (r == Z_STREAM_END) {
            s->between = true;
            r = inflateReset(&s->z);
        } else if (r == Z_BUF_ERROR || (r == Z_OK && !s->z.avail_in && s->at == s->size && s->z.avail_out)) {
            /* zlib needs more input, and the file has none */
            return moe_fail_at(err, MOE_CORRUPT, s->path, NULL, "the compressed text is truncated");
        }
        if (r == Z_MEM_ERROR) return moe_fail_at(err, MOE_NOMEM, s->path, NULL, "no memory to decompress it");
        if (r != Z_OK)
            return moe_fail_at(err, MOE_CORRUPT, s->path, NULL, "cannot decompress: %s",
                               s->z.msg ? s->z.msg : "bad data");
    }
    return MOE_OK;
}

enum moe_code moe_stream_read(struct moe_stream *s, char *to, size_t room, size_t *n, struct moe_err *err)
{
    return s->zipped ? read_zipped(s, to, room, n, err) : read_plain(s, to, room, n, err);
}

uint64_t moe_stream_size(const struct moe_stream *s) { return s->size == UINT64_MAX ? 0 : s->size; }
uint64_t moe_stream_at(const struct moe_stream *s)
{
    return s->at - (s->zipped ? s->z.avail_in : s->unreturned);
}

/* ---- a whole text ---- */

/* Count the bytes of a gzipped file's content by decompressing it, at most one buffer beyond the limit. */
static enum moe_code count_zipped(struct moe_stream *s, size_t limit, uint64_t *total, struct moe_err *err)
{
    char *buf = malloc(BUFFER);
    size_t n = BUFFER;
    enum moe_code code = buf ? MOE_OK
                             : moe_fail_at(err, MOE_NOMEM, s->path, NULL, "no memory to decompress it");
    for (*total = 0; code == MOE_OK && n == BUFFER && *total <= limit; *total += n)
        code = moe_stream_read(s, buf, BUFFER, &n, err);
    free(buf);
    return code;
}

static enum moe_code check_limit(const struct moe_stream *s, uint64_t total, size_t limit,
                                 struct moe_err *err)
{
    if (total <= limit) return MOE_OK;
    return moe_fail_at(err, MOE_UNSUPPORTED, s->path, NULL,
                       "has more than the %zu bytes of text that are read here", limit);
}

/* Read the `want` bytes that the stream is known to have, and check that they are all. */
static enum moe_code read_exactly(struct moe_stream *s, size_t want, char *text, struct moe_err *err)
{
    size_t n, more = 0;
    char one;
    MOE_TRY(moe_stream_read(s, text, want, &n, err));
    if (n == want) MOE_TRY(moe_stream_read(s, &one, 1, &more, err));
    return n == want && !more
             ? MOE_OK
             : moe_fail_at(err, MOE_CORRUPT, s->path, NULL, "the file was changed while it was read");
}

/* Read a stream whose size is only known at its end, and which can be read only once. */
static enum moe_code read_growing(struct moe_stream *s, size_t limit, char **text, size_t *size,
                                  struct moe_err *err)
{
    size_t cap = 0, got;
    *size = 0;
    do {
        cap = cap > limit / 2 ? limit + 1 : cap ? 2 * cap : limit < BUFFER ? limit + 1 : BUFFER;
        char *more = realloc(*text, cap + 1);
        if (!more) return moe_fail_at(err, MOE_NOMEM, s->path, NULL, "no memory for %zu bytes", cap);
        *text = more;
        MOE_TRY(moe_stream_read(s, *text + *size, cap - *size, &got, err));
        *size += got;
    } while (*size == cap && cap <= limit);
    (*text)[*size] = 0;
    return check_limit(s, *size, limit, err);
}

static enum moe_code read_sized(struct moe_stream *s, uint64_t total, char **text, size_t *size,
                                struct moe_err *err)
{
    *size = (size_t)total;
    *text = malloc(*size + 1);
    if (!*text) return moe_fail_at(err, MOE_NOMEM, s->path, NULL, "no memory for %zu bytes", *size);
    if (*size) MOE_TRY(read_exactly(s, *size, *text, err));
    (*text)[*size] = 0;
    return MOE_OK;
}

/* Read a file whose content is counted first; for that a gzipped one is decompressed once and opened
 * again. */
static enum moe_code read_counted(struct moe_stream **s, const char *path, size_t limit, char **text,
                                  size_t *size, struct moe_err *err)
{
    uint64_t total = (*s)->size;
    if ((*s)->zipped) MOE_TRY(count_zipped(*s, limit, &total, err));
    MOE_TRY(check_limit(*s, total, limit, err));
    if ((*s)->zipped) {
        const struct moe_cancel *cancel = (*s)->cancel;
        moe_stream_close(s);
        MOE_TRY(moe_stream_open(s, path, cancel, err));
    }
    return read_sized(*s, total, text, size, err);
}

enum moe_code moe_read_text(const char *path, size_t limit, const struct moe_cancel *cancel, char **data,
                            size_t *size, struct moe_err *err)
{
    struct moe_stream *s;
    char *text = NULL;
    *data = NULL;
    MOE_TRY(moe_stream_open(&s, path, cancel, err));
    enum moe_code code = s->piped ? read_growing(s, limit, &text, size, err)
                                  : read_counted(&s, path, limit, &text, size, err);
    moe_stream_close(&s);
    if (code == MOE_OK) *data = text;
    else free(text);
    return code;
}
