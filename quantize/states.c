#include "quantize/states.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t row_bytes(const struct moe_states *s) { return (size_t)s->width * sizeof(float); }

/* A file without a name; where the file system has none, one whose name goes at once. */
static enum moe_code open_nameless(struct moe_states *s, const char *scratch, struct moe_err *err)
{
    snprintf(s->path, sizeof s->path, "%s", scratch);
    do s->fd = open(scratch, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600); while (s->fd < 0 && errno == EINTR);
    if (s->fd >= 0) return MOE_OK;
    if (errno != EOPNOTSUPP && errno != EISDIR && errno != EINVAL) return moe_fail_errno(err, errno, scratch, "cannot make a file in --scratch");
    if (snprintf(s->path, sizeof s->path, "%s/moe-states-XXXXXX", scratch) >= (int)sizeof s->path) return moe_fail_at(err, MOE_IO, scratch, NULL, "the path is too long");
    s->fd = mkostemp(s->path, O_CLOEXEC);
    if (s->fd < 0) return moe_fail_errno(err, errno, scratch, "cannot make a file in --scratch");
    return unlink(s->path) ? moe_fail_errno(err, errno, s->path, "cannot remove the name of a scratch file") : MOE_OK;
}

static enum moe_code set_size(struct moe_states *s, uint64_t size, struct moe_err *err)
{
    return moe_ftruncate(s->fd, size) ? moe_fail_errno(err, errno, s->path, "cannot clear a scratch file") : MOE_OK;
}

/* All zeros, and room for them: fallocate, not posix_fallocate, which writes every block where the file system has none. */
static enum moe_code clear_file(struct moe_states *s, struct moe_err *err)
{
    uint64_t size = (uint64_t)s->n * row_bytes(s);
    int r;
    MOE_TRY(set_size(s, 0, err));
    MOE_TRY(set_size(s, size, err));
    do r = fallocate(s->fd, 0, 0, (off_t)size); while (r && errno == EINTR);
    return !r || errno == EOPNOTSUPP || errno == ENOSYS ? MOE_OK : moe_fail_errno(err, errno, s->path, "cannot keep room in --scratch");
}

static enum moe_code open_file(struct moe_states *s, const char *scratch, struct moe_err *err)
{
    MOE_TRY(moe_need_space(scratch, (uint64_t)s->n * row_bytes(s), scratch, err));
    MOE_TRY(open_nameless(s, scratch, err));
    return clear_file(s, err);
}

enum moe_code moe_states_open(struct moe_states *s, int64_t n, int64_t width, const char *scratch, struct moe_err *err)
{
    *s = (struct moe_states){ .fd = -1, .n = n, .width = width };
    if (scratch) {
        enum moe_code code = open_file(s, scratch, err);
        if (code != MOE_OK) moe_states_close(s);
        return code;
    }
    s->memory = calloc((size_t)n, row_bytes(s));
    return s->memory ? MOE_OK : moe_fail(err, MOE_NOMEM, "no memory for the states of %lld tokens (try --scratch DIR or fewer --calib-tokens)", (long long)n);
}

void moe_states_close(struct moe_states *s)
{
    free(s->memory);
    if (s->fd >= 0) close(s->fd);
    *s = (struct moe_states){ .fd = -1 };
}

enum moe_code moe_states_zero(struct moe_states *s, struct moe_err *err)
{
    if (s->memory) {
        memset(s->memory, 0, (size_t)s->n * row_bytes(s));
        return MOE_OK;
    }
    return clear_file(s, err);
}

enum moe_code moe_states_read(const struct moe_states *s, int64_t first, int64_t n, float *out, struct moe_err *err)
{
    if (!s->memory) return moe_pread(s->fd, s->path, out, (size_t)n * row_bytes(s), (uint64_t)first * row_bytes(s), err);
    memcpy(out, s->memory + first * s->width, (size_t)n * row_bytes(s));
    return MOE_OK;
}

enum moe_code moe_states_write(struct moe_states *s, int64_t first, int64_t n, const float *in, struct moe_err *err)
{
    if (!s->memory) return moe_pwrite(s->fd, s->path, in, (size_t)n * row_bytes(s), (uint64_t)first * row_bytes(s), err);
    memcpy(s->memory + first * s->width, in, (size_t)n * row_bytes(s));
    return MOE_OK;
}

enum moe_code moe_states_gather(const struct moe_states *s, const int32_t *row, int64_t n, float *out, struct moe_err *err)
{
    for (int64_t i = 0, m; i < n; i += m) {
        for (m = 1; i + m < n && row[i + m] == row[i] + m; m++) {}
        MOE_TRY(moe_states_read(s, row[i], m, out + i * s->width, err));
    }
    return MOE_OK;
}

enum moe_code moe_states_add(struct moe_states *s, const int32_t *row, int64_t n, const float *in, const float *factor, float *tmp, struct moe_err *err)
{
    for (int64_t i = 0; i < n; i++) {
        float *at = s->memory ? s->memory + row[i] * s->width : tmp, x = factor ? factor[i] : 1;
        const float *from = in + i * s->width;
        if (!s->memory) MOE_TRY(moe_states_read(s, row[i], 1, tmp, err));
        for (int64_t k = 0; k < s->width; k++) at[k] += x * from[k];
        if (!s->memory) MOE_TRY(moe_states_write(s, row[i], 1, tmp, err));
    }
    return MOE_OK;
}
