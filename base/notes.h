/* SPDX-License-Identifier: Apache-2.0 */
/* base/notes.h - who hears what work has to say to a person beside its result: notices and warnings.
 *
 * Library code that has something to say is given a `const struct moe_notes *` and calls the functions below;
 * where the lines go, a terminal, a log or nowhere, is for whoever made it.  Nothing here prints. */
#ifndef MOE_BASE_NOTES_H
#define MOE_BASE_NOTES_H

#include <stdbool.h>

struct moe_notes {
    /* One line without its end, fit for a terminal (base/show.h), of at most 1023 bytes, which it does not
     * keep.  Called in the thread that has something to say. */
    void (*say)(void *ctx, bool warning, const char *line);
    void *ctx;
};

/* Both do nothing where `to` or its `say` is NULL: nobody hears. */
void moe_note(const struct moe_notes *to, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void moe_note_warn(const struct moe_notes *to, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
