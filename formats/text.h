/* SPDX-License-Identifier: Apache-2.0 */
/* formats/text.h - text to calibrate with: the documents of a file, gzipped or not, in bounded memory.
 *
 * The content of a file says what it is, not its name.  It is text when it is valid UTF-8 without NUL (a byte
 * order mark is skipped, CRLF stays); it is JSON when it begins with an object's key or with an array of
 * objects, or has a name for JSON.  Anything else (Parquet, zstd, UTF-16, other JSON ...) is MOE_CORRUPT or
 * MOE_UNSUPPORTED, with its name and what to do.
 *
 * Plain text is one document, given in pieces of about a MiB.  They are cut where K2's pre-tokenizer cuts
 * anyway (between a letter and a space that a letter follows; after the end of a line that something visible
 * follows), so that the tokens of the pieces are those of the whole.  Where a piece has no such place, as in
 * text without spaces and lines, it ends at a character, and `torn` says so: the tokens there may differ.
 *
 * JSON is rows: lines with an object each (blank lines are skipped), or one array of objects.  A row is one
 * document:
 *
 *     {"text": TEXT}                                      given in pieces, as above
 *     {"messages": [{"role", "content", ...}], "tools"}   a conversation, as chat.h of tokenizer/ takes it
 *     {"conversations": [{"from", "value"}], "system"}    ShareGPT: from human, user, gpt, assistant, system;
 *                                                         other keys of turns as in messages
 *     {"instruction", "input", "output", "system", "history": [[Q, A]]}
 *                                                         Alpaca; "input" goes on a line of its own
 *
 * "tools" may be JSON in a string.  Other keys are counted (moe_text_left).  Anything else is MOE_CORRUPT,
 * naming file and line; a row above 64 MiB is MOE_UNSUPPORTED. */
#ifndef MOE_FORMATS_TEXT_H
#define MOE_FORMATS_TEXT_H

#include "base/cancel.h"
#include "formats/tokenizer/chat.h"

struct moe_text;

/* For readers of any file that people wrote: what its first bytes, after a byte order mark, say that it
 * is. */
enum moe_text_kind { MOE_TEXT_PLAIN, MOE_TEXT_LINES, MOE_TEXT_ARRAY };
/* MOE_UNSUPPORTED, named, with what to do, for what is no text: Parquet, zstd, UTF-16 ... */
enum moe_code moe_text_foreign(const char *path, const char *head, size_t n, struct moe_err *err);
/* That, and which kind: JSON where the name says so or the bytes begin as JSON (moe_json_begins). */
enum moe_code moe_text_tell(const char *path, const char *head, size_t n, enum moe_text_kind *kind,
                            struct moe_err *err);
/* Is it valid UTF-8 without NUL?  MOE_CORRUPT with the line, of which the first is `line`. */
enum moe_code moe_text_check(const char *path, int64_t line, const char *p, size_t n, struct moe_err *err);

/* Text of a document, or a conversation (text NULL); valid until the next call. */
struct moe_text_piece {
    const char *text;              /* valid UTF-8 without NUL */
    size_t bytes;
    const cJSON *messages, *tools; /* tools may be NULL */
    bool begins;                   /* a document begins here */
    bool torn;                     /* the piece before this one may have ended inside a token */
    int64_t line;                  /* the line where the piece, or its row, begins, from 1 */
};

/* piece: bytes of plain text at once, at least 64; 0 for the default.  memory: bytes that a row and its JSON
 * may take, MOE_NOMEM above; 0: no limit.  cancel: as of moe_stream_open. */
enum moe_code moe_text_open(struct moe_text **t, const char *path, size_t piece, uint64_t memory,
                            const struct moe_cancel *cancel, struct moe_err *err);
void moe_text_close(struct moe_text **t);

/* The next piece; *more false, and nothing in *p, at the end.  Documents without a byte are skipped; a file
 * that has no other is MOE_CORRUPT.  After a failure only close is allowed. */
enum moe_code moe_text_next(struct moe_text *t, struct moe_text_piece *p, bool *more, struct moe_err *err);

/* Bytes of the file: all, and read so far. */
uint64_t moe_text_size(const struct moe_text *t);
uint64_t moe_text_at(const struct moe_text *t);
/* Bytes that the reader holds at most; with a limit the JSON of the last piece's row is among them. */
uint64_t moe_text_held(const struct moe_text *t);
/* How many rows were stepped over so far that hold a conversation of no turn, or null for their text. */
int64_t moe_text_empty(const struct moe_text *t);
/* How many keys of rows were left out so far, and the first of them ("" when none was). */
int64_t moe_text_left(const struct moe_text *t, const char **first);

/* A piece as tokens; *ids is malloc'd.  Text is literal (moe_tokenize with special false); a conversation
 * goes through the chat template (not NULL then), its last answer as the model gave it.  *left (may be NULL)
 * is added to. */
enum moe_code moe_text_encode(const struct moe_tokenizer *t, const struct moe_chat *chat,
                              const struct moe_text_piece *p, int32_t **ids,
                              size_t *count, struct moe_chat_left *left, struct moe_err *err);

#endif
