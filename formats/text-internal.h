/* SPDX-License-Identifier: Apache-2.0 */
/* formats/text-internal.h - what the reader of calibration text is made of; for formats/text*.c alone. */
#ifndef MOE_FORMATS_TEXT_INTERNAL_H
#define MOE_FORMATS_TEXT_INTERNAL_H

#include "base/stream.h"
#include "formats/text.h"

struct moe_text {
    struct moe_stream *stream;
    char *path;
    enum moe_text_kind kind;
    bool ended;                       /* the stream has no more */
    size_t piece;
    uint64_t memory;                  /* that a row and its JSON may take; 0: no limit */
    char *buf; size_t from, to, cap;  /* read and not given yet: [from, to) */
    int64_t line;                     /* of buf[from] */
    int64_t given;                    /* pieces */
    bool torn;                        /* the last piece ended inside of what might be a token */
    /* the first object of an array is to come, another or the end is, it has ended */
    enum { BEFORE, BETWEEN, BEHIND } array;
    /* what the last row is; its turns where its shape has others; its tools where they were in a string */
    cJSON *row, *made, *tools;
    const char *rest; size_t n_rest;  /* of its text, not given yet */
    uint64_t row_need;                /* what the row's JSON takes at most; with a limit */
    int64_t row_line;
    int64_t left; char left_key[48];  /* keys that nothing reads */
    int64_t empty;                    /* rows without a turn, or of a text that is null */
};

/* A row's JSON, parsed and brought into shape: *p gets text or messages.  t->row_line is its line. */
enum moe_code moe_text_row(struct moe_text *t, const char *s, size_t n, struct moe_text_piece *p,
                           struct moe_err *err);
void moe_text_drop_row(struct moe_text *t);

#endif
