/* formats/text.h - text to calibrate with: the documents of a .txt or .jsonl file, either gzipped, in bounded memory.
 *
 * A file is JSON lines when its name ends in .jsonl (or .jsonl.gz), else plain text; gzip is told by its magic bytes.
 *
 * Plain text is one document, given in pieces of about a MiB.  They are cut where K2's pre-tokenizer cuts anyway (between a letter and a
 * space that a letter follows; behind a line's end that something visible follows), so the tokens of the pieces are those of the whole.
 * A piece without such a place, as in text of neither spaces nor lines, ends at a character, and `torn` says so: the tokens around may differ.
 *
 * A line of JSON is one document: an object with "text" (a string), or with "messages": [{"role", "content"}], roles system, user,
 * assistant or tool, content a string, null, or a list of {"type": "text", "text"}.  Other keys are ignored, blank lines are skipped.
 * Anything else is MOE_CORRUPT naming file and line, a line above 64 MiB MOE_UNSUPPORTED. */
#ifndef MOE_FORMATS_TEXT_H
#define MOE_FORMATS_TEXT_H

#include "formats/tokenizer.h"

struct moe_text;

/* Text of a document, or its turns (text NULL); valid until the next call. */
struct moe_text_piece {
    const char *text; size_t bytes;          /* any bytes, as they are in the file */
    const struct moe_message *messages; size_t n_messages;
    bool begins, torn;                       /* a document begins; the piece before this one ended inside of what might be a token */
    int64_t line;                            /* where it begins, from 1 */
};

/* piece: bytes of plain text at once, at least 64; 0 for the default. */
enum moe_code moe_text_open(struct moe_text **t, const char *path, size_t piece, struct moe_err *err);
void moe_text_close(struct moe_text **t);

/* The next piece; *more false, and nothing in *p, at the end.  Documents without a byte are skipped; a file that has no other is
 * MOE_CORRUPT.  After a failure only close is allowed. */
enum moe_code moe_text_next(struct moe_text *t, struct moe_text_piece *p, bool *more, struct moe_err *err);

/* Bytes of the file: all, and read so far. */
uint64_t moe_text_size(const struct moe_text *t);
uint64_t moe_text_at(const struct moe_text *t);

/* A piece as tokens; *ids is malloc'd.  Text is literal (moe_tokenize with special false); turns go through the chat template, without
 * what asks for an answer behind the last one.  default_system as in moe_chat_encode. */
enum moe_code moe_text_encode(const struct moe_tokenizer *t, const struct moe_text_piece *p, const char *default_system, int32_t **ids,
                              size_t *count, struct moe_err *err);

#endif
