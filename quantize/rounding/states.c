/* SPDX-License-Identifier: Apache-2.0 */
#include "quantize/rounding/states.h"

#include "base/io.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static size_t row_bytes(const struct moe_states *s) { return (size_t)s->width * sizeof(float); }

enum moe_code moe_states_open(struct moe_states *s, int64_t n, int64_t width, const char *scratch,
                              struct moe_err *err)
{
    *s = (struct moe_states){ .fd = -1, .n = n, .width = width };
    if (scratch) {
        enum moe_code code = moe_scratch_open(scratch, (uint64_t)n * row_bytes(s), s->path, sizeof s->path,
                                              &s->fd, err);
        if (code != MOE_OK) moe_states_close(s);
        return code;
    }
    s->memory = calloc((size_t)n, row_bytes(s));
    return s->memory
             ? MOE_OK
             : moe_fail(err, MOE_NOMEM,
                        "no memory for the states of %lld tokens (try --scratch DIR or fewer --calib-tokens)",
                        (long long)n);
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
    return moe_scratch_clear(s->fd, s->path, (uint64_t)s->n * row_bytes(s), err);
}

enum moe_code moe_states_read(const struct moe_states *s, int64_t first, int64_t n, float *out,
                              struct moe_err *err)
{
    if (!s->memory)
        return moe_pread(s->fd, s->path, out, (size_t)n * row_bytes(s), (uint64_t)first * row_bytes(s), err);
    memcpy(out, s->memory + first * s->width, (size_t)n * row_bytes(s));
    return MOE_OK;
}

enum moe_code moe_states_write(struct moe_states *s, int64_t first, int64_t n, const float *in,
                               struct moe_err *err)
{
    if (!s->memory)
        return moe_pwrite(s->fd, s->path, in, (size_t)n * row_bytes(s), (uint64_t)first * row_bytes(s), err);
    memcpy(s->memory + first * s->width, in, (size_t)n * row_bytes(s));
    return MOE_OK;
}

enum moe_code moe_states_gather(const struct moe_states *s, const int32_t *row, int64_t n, float *out,
                                struct moe_err *err)
{
    for (int64_t i = 0, m; i < n; i += m) {
        for (m = 1; i + m < n && row[i + m] == row[i] + m; m++) {}
        MOE_TRY(moe_states_read(s, row[i], m, out + i * s->width, err));
    }
    return MOE_OK;
}

enum moe_code moe_states_add(struct moe_states *s, const int32_t *row, int64_t n, const float *in,
                             const float *factor, float *tmp, struct moe_err *err)
{
    for (int64_t i = 0; i < n; i++) {
        float *at = s->memory ? s->memory + row[i] * s->width : tmp;
        float x = factor ? factor[i] : 1;
        const float *from = in + i * s->width;
        if (!s->memory) MOE_TRY(moe_states_read(s, row[i], 1, tmp, err));
        for (int64_t k = 0; k < s->width; k++) at[k] += x * from[k];
        if (!s->memory) MOE_TRY(moe_states_write(s, row[i], 1, tmp, err));
    }
    return MOE_OK;
}
