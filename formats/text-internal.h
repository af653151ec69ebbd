/* SPDX-License-Identifier: Apache-2.0 */
/* formats/text-internal.h - the state of the reader of calibration text; for formats/text*.c alone. */
#ifndef MOE_FORMATS_TEXT_INTERNAL_H
#define MOE_FORMATS_TEXT_INTERNAL_H

#include "base/stream.h"
#include "formats/text.h"

struct moe_text {
    struct moe_stream *stream;
    char *path;
    enum moe_text_kind kind;
    bool ended;                       /* the stream has no more bytes */
    size_t piece;                     /* bytes of plain text to give at once */
    uint64_t memory;                  /* bytes that a row and its JSON may take; 0: no limit */
    char *buf; size_t from, to, cap;  /* what was read and not given out yet is buf[from..to) */
    int64_t line;                     /* the line number of buf[from] */
    int64_t given;                    /* number of pieces given out */
    bool cut_in_token;                /* the last piece may have ended inside a token */
    /* where the reader is in an array of objects: before its first object, between two, or after its end */
    enum { BEFORE, BETWEEN, BEHIND } array;
    /* the last row's JSON; messages made of it where it has another shape; its tools where they were JSON in
     * a string */
    cJSON *row, *made, *tools;
    const char *rest; size_t n_rest;  /* the part of the last row's text that was not given out yet */
    uint64_t row_need;                /* an upper bound of the last row's JSON in bytes; with a limit only */
    int64_t row_line;                 /* the last row's line number */
    int64_t unread_keys;              /* number of keys in rows that nothing reads */
    char unread_key[48];              /* the first of them; "": there was none */
    int64_t empty;                    /* rows without a turn, or whose text is null */
};

/* Parse a row of n bytes, which begins on line t->row_line, and convert it: *p gets text or messages. */
enum moe_code moe_text_convert_row(struct moe_text *t, const char *s, size_t n, struct moe_text_piece *p,
                                   struct moe_err *err);
void moe_text_drop_row(struct moe_text *t);

#endif
