/* SPDX-License-Identifier: Apache-2.0 */
/* formats/text.h - reads the documents of a file of text to calibrate with, gzipped or not, in bounded
 * memory.
 *
 * The content of a file decides what it is, not its name.  It is text when it is valid UTF-8 without NUL (a
 * byte order mark is skipped, CRLF is kept).  It is JSON when it begins with the key of an object or with an
 * array of objects, or when its name ends as that of a JSON file does.  Anything else (Parquet, zstd, UTF-16,
 * other JSON ...) is MOE_CORRUPT or MOE_UNSUPPORTED, with the name of the format and what to do.
 *
 * Plain text is one document, which is given in pieces of about a MiB.  A piece ends where K2's pre-tokenizer
 * cuts in any case (between a letter and a space that a letter follows; after the end of a line when
 * something visible follows), so that the tokens of the pieces are those of the whole.  Where there is no
 * such place, as in text without spaces and lines, it ends after a character, and `cut_in_token` says that
 * the tokens there may differ.
 *
 * JSON has rows: lines with one object each (blank lines are skipped), or one array of objects.  A row is one
 * document:
 *
 *     {"text": TEXT}                                      given in pieces, as above
 *     {"messages": [{"role", "content", ...}], "tools"}   a conversation (formats/tokenizer/chat.h)
 *     {"conversations": [{"from", "value"}], "system"}    ShareGPT: from human, user; gpt, chatgpt, model,
 *                                                         assistant; system;
 *                                                         other keys of a turn are as in messages
 *     {"instruction", "input", "output", "system", "history": [[Q, A]]}
 *                                                         Alpaca: "input" goes on a line of its own
 *
 * "tools" may be JSON in a string.  Other keys are counted (moe_text_unread_keys).  Anything else is
 * MOE_CORRUPT with file and line; a row above 64 MiB is MOE_UNSUPPORTED. */
#ifndef MOE_FORMATS_TEXT_H
#define MOE_FORMATS_TEXT_H

#include "base/cancel.h"
#include "formats/tokenizer/chat.h"

struct moe_text;

/* What a file is, by its first bytes after a byte order mark.  This and the next three functions serve
 * readers of any file that people wrote. */
enum moe_text_kind { MOE_TEXT_PLAIN, MOE_TEXT_LINES, MOE_TEXT_ARRAY };
/* MOE_UNSUPPORTED, with the format's name and what to do, for content that is not text: Parquet, zstd, UTF-16
 * ... */
enum moe_code moe_text_refuse_foreign(const char *path, const char *head, size_t n, struct moe_err *err);
/* The same check; then *kind is set: JSON when the file's name says so or the bytes begin as JSON
 * (moe_json_begins). */
enum moe_code moe_text_detect_kind(const char *path, const char *head, size_t n, enum moe_text_kind *kind,
                                   struct moe_err *err);
/* Check that n bytes are valid UTF-8 without NUL; MOE_CORRUPT names the line, where `line` is the number of
 * the first. */
enum moe_code moe_text_check(const char *path, int64_t line, const char *p, size_t n, struct moe_err *err);

/* Text of a document, or (text NULL) a conversation; valid until the next call. */
struct moe_text_piece {
    const char *text;              /* valid UTF-8 without NUL */
    size_t bytes;
    const cJSON *messages, *tools; /* tools may be NULL */
    bool begins;                   /* a new document begins here */
    bool cut_in_token;             /* the piece before this one may have ended inside a token */
    int64_t line;                  /* where the piece, or its row, begins; the first line is 1 */
};

/* piece: bytes of plain text to give at once, at least 64; 0 for the default.  memory: bytes that a row and
 * its JSON may take, beyond which it is MOE_NOMEM; 0: no limit.  cancel: as for moe_stream_open. */
enum moe_code moe_text_open(struct moe_text **t, const char *path, size_t piece, uint64_t memory,
                            const struct moe_cancel *cancel, struct moe_err *err);
void moe_text_close(struct moe_text **t);

/* The next piece; at the end *more is false and *p is empty.  Empty documents are skipped; a file with no
 * other ones is MOE_CORRUPT.  After a failure only close may be called. */
enum moe_code moe_text_next(struct moe_text *t, struct moe_text_piece *p, bool *more, struct moe_err *err);

/* Bytes of the file (compressed, if it is): in all, and read so far. */
uint64_t moe_text_size(const struct moe_text *t);
uint64_t moe_text_at(const struct moe_text *t);
/* An upper bound of the reader's memory in bytes; with a limit the JSON of the last piece's row is
 * included. */
uint64_t moe_text_held(const struct moe_text *t);
/* The number of rows skipped so far because they have a conversation without a turn, or null as their
 * text. */
int64_t moe_text_empty_rows(const struct moe_text *t);
/* The number of keys of rows that nothing read so far, and the first of them ("" when there was none). */
int64_t moe_text_unread_keys(const struct moe_text *t, const char **first);

/* Convert a piece to tokens; *ids is malloc'd.  Text is literal (moe_tokenize with special false).  A
 * conversation goes through the chat template (chat must not be NULL then), with its last answer treated as
 * one just given (moe_chat_request.answered).  The counts in *left (may be NULL) are added to. */
enum moe_code moe_text_encode(const struct moe_tokenizer *t, const struct moe_chat *chat,
                              const struct moe_text_piece *p, int32_t **ids,
                              size_t *count, struct moe_chat_left *left, struct moe_err *err);

#endif
