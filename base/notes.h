/* SPDX-License-Identifier: Apache-2.0 */
/* base/notes.h - notices and warnings of library code for the person who runs a program.
 *
 * Library code that has something to say gets a `const struct moe_notes *` and calls the functions below;
 * whoever made that struct decides where the lines go: to a terminal, a log or nowhere.  Nothing here
 * prints. */
#ifndef MOE_BASE_NOTES_H
#define MOE_BASE_NOTES_H

#include <stdbool.h>

struct moe_notes {
    /* line: at most 1023 bytes, without a newline, escaped for a terminal (base/show.h); it is only valid
     * during the call.  Called in whichever thread has something to say. */
    void (*say)(void *ctx, bool warning, const char *line);
    void *ctx;
};

/* Both do nothing when `to` or to->say is NULL. */
void moe_note(const struct moe_notes *to, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void moe_note_warn(const struct moe_notes *to, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
