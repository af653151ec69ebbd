/* SPDX-License-Identifier: Apache-2.0 */
#include "base/cancel.h"

#include "base/io.h"
#include "base/show.h"

#include <stdarg.h>

/* The code of the request to end; MOE_OK when there is none.  A parent's code takes precedence over the
 * token's own, because the parent ends more. */
static enum moe_code asked(const struct moe_cancel *c)
{
    int code = MOE_OK;
    for (; c; c = c->parent) {
        int here = atomic_load_explicit(&c->code, memory_order_relaxed);
        if (here) code = here;
    }
    return (enum moe_code)code;
}

static const char *word(enum moe_code code) { return code == MOE_SIGINT ? "interrupted" : "terminated"; }

void moe_cancel_request(struct moe_cancel *c, enum moe_code code)
{
    int none = 0, stored = code == MOE_SIGINT ? MOE_SIGINT : MOE_SIGTERM;
    atomic_compare_exchange_strong(&c->code, &none, stored);
}

bool moe_is_cancelled(const struct moe_cancel *c) { return asked(c) != MOE_OK; }

enum moe_code moe_cancel_check(const struct moe_cancel *c, struct moe_err *err)
{
    MOE_TRY(moe_map_check(err));
    enum moe_code code = asked(c);
    return code == MOE_OK ? MOE_OK : moe_fail(err, code, "%s", word(code));
}

enum moe_code moe_cancel_check_resumable(const struct moe_cancel *c, struct moe_err *err)
{
    enum moe_code code = asked(c);
    return code == MOE_OK ? MOE_OK : moe_cancel_left(code, err, "nothing was finished yet");
}

enum moe_code moe_cancel_left(enum moe_code code, struct moe_err *err, const char *fmt, ...)
{
    va_list args;
    if (code != MOE_SIGINT && code != MOE_SIGTERM) return code;
    err->code = code;
    err->file[0] = err->tensor[0] = 0;
    va_start(args, fmt);
    /* moe_show_line shortens a long path in its middle, so the remedy at the end is kept */
    moe_show_line(err->msg, sizeof err->msg, fmt, args);
    va_end(args);
    return moe_wrap(err, "%s", word(code));
}
