/* SPDX-License-Identifier: Apache-2.0 */
/* Reads any bytes as a calibration file.  It has to be refused with a sentence that names file and line, or
 * give documents.  Nothing of a plain text may be lost, and its tokens may not depend on how it was cut,
 * unless a piece says so.  The first byte chooses a name and the size of pieces. */
#include "base/show.h"
#include "formats/text.h"
#include "tests/fuzz/fuzzdir.h"
#include "tests/unit/chat-vocab.h"

#include <limits.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct moe_tokenizer *tok;
static struct moe_chat *chat;

struct ids { int32_t *v; size_t n; };

/* Adds the ids of a piece.  The template may refuse a conversation, which then has none. */
static void add_ids(struct ids *all, const struct moe_text_piece *p, struct moe_err *err)
{
    int32_t *ids;
    size_t n;
    enum moe_code code = moe_text_encode(tok, chat, p, &ids, &n, NULL, err);
    assert(code == MOE_OK || (p->messages && (code == MOE_CORRUPT || code == MOE_UNSUPPORTED) &&
                              err->msg[0]));
    all->v = realloc(all->v, (all->n + n + 1) * sizeof *all->v);
    assert(all->v);
    for (size_t i = 0; i < n; i++) all->v[all->n++] = ids[i];
    free(ids);
}

/* What was taken for plain text has to be the whole text, with the tokens of the whole. */
static void check_plain(const char *text, size_t n, const struct ids *all, bool cut_in_token)
{
    struct moe_err err = MOE_ERR_INIT;
    int32_t *ids;
    size_t count;
    assert(moe_utf8_prefix((const unsigned char *)text, n) == n && !memchr(text, 0, n));
    assert(moe_tokenize(tok, text, n, false, &ids, &count, &err) == MOE_OK);
    if (!cut_in_token) assert(count == all->n && !memcmp(ids, all->v, count * sizeof *ids));
    free(ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = { "x.txt", "x.jsonl", "x", "x.json.gz" };
    struct moe_err err = MOE_ERR_INIT;
    struct moe_text *t;
    struct moe_text_piece p;
    struct ids all = { NULL, 0 };
    char path[PATH_MAX];
    bool more = false, cut_in_token = false, plain = true; /* plain: the pieces so far are the text itself */
    size_t at = 0;
    if (fuzz_dir_make()) {
        chat_vocabulary(fuzz_dir, NULL, NULL);
        assert(moe_tokenizer_open(&tok, fuzz_dir, CHAT_VOCAB, &err) == MOE_OK);
        assert(moe_chat_open(&chat, tok, &(struct moe_chat_hint){ .name = "k2.5" }, &err) == MOE_OK);
    }
    if (!size) return 0;
    const char *name = names[data[0] & 3], *text = (const char *)data + 1;
    size_t n = size - 1;
    bool zipped = n > 1 && data[1] == 0x1f && data[2] == 0x8b;
    fuzz_put(name, text, n);
    if (!zipped && n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, n -= 3;
    snprintf(path, sizeof path, "%s/%s", fuzz_dir, name);
    enum moe_code code = moe_text_open(&t, path, 64 + data[0], 0, NULL, &err);
    while (code == MOE_OK && (code = moe_text_next(t, &p, &more, &err)) == MOE_OK && more) {
        assert(p.line >= 1 && (p.text ? p.bytes > 0 : p.messages != NULL));
        plain = plain && p.text && !zipped && at + p.bytes <= n && !memcmp(p.text, text + at, p.bytes);
        at += p.bytes;
        cut_in_token = cut_in_token || p.cut_in_token;
        add_ids(&all, &p, &err);
    }
    assert(code == MOE_OK || code == MOE_CORRUPT || code == MOE_UNSUPPORTED);
    if (code != MOE_OK) assert(strstr(err.msg, name));
    if (code == MOE_OK && plain && at == n) check_plain(text, n, &all, cut_in_token);
    if (code == MOE_OK && plain) /* only JSON without documents gives less than the text */
        assert(at == n || text[strspn(text, " \t\r\n")] == '{' || text[strspn(text, " \t\r\n")] == '[');
    moe_text_close(&t);
    free(all.v);
    return 0;
}
