/* SPDX-License-Identifier: Apache-2.0 */
#include "base/notes.h"

#include "base/show.h"

#include <stdarg.h>
#include <stddef.h>

static void say(const struct moe_notes *to, bool warning, const char *fmt, va_list ap)
{
    char line[1024];
    if (!to || !to->say) return;
    moe_show_line(line, sizeof line, fmt, ap);
    to->say(to->ctx, warning, line);
}

void moe_note(const struct moe_notes *to, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(to, false, fmt, ap);
    va_end(ap);
}

void moe_note_warn(const struct moe_notes *to, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(to, true, fmt, ap);
    va_end(ap);
}
