/* SPDX-License-Identifier: Apache-2.0 */
/* Takes apart answers of any ids.  The parts have to be the same whether text comes as one token a byte or as
 * the tokenizer makes it; each has to be whole characters, in an order that makes sense; and no text may
 * appear that the model has not written.  The first byte chooses the template and whether thinking is asked
 * for; of the others 0x0e to 0x1f are markers, and the rest is text. */
#include "base/show.h"
#include "formats/tokenizer/chat-answer.h"
#include "tests/fuzz/fuzzdir.h"
#include "tests/unit/chat-vocab.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct moe_tokenizer *tok;

/* The parts of an answer, and what has come of them so far. */
struct sink { struct moe_chat_answer answer; int64_t calls; bool open; size_t bytes; };

static void put(void *ctx, const struct moe_chat_delta *d)
{
    struct sink *s = ctx;
    bool text = d->part != MOE_PART_CALL && d->part != MOE_PART_CALL_END;
    assert(text ? d->bytes > 0 : !d->bytes);
    if (d->part == MOE_PART_CALL) assert(d->call == s->calls && d->id_bytes && d->name_bytes);
    if (d->part == MOE_PART_CALL) s->open = true, s->calls++, s->bytes += d->id_bytes;
    if (d->part == MOE_PART_ARGUMENTS || d->part == MOE_PART_CALL_END)
        assert(s->open && d->call == s->calls - 1);
    else s->open = d->part == MOE_PART_CALL;
    if (d->part == MOE_PART_CALL_END) s->open = false;
    for (size_t i = 0, len; i < d->bytes; i += len) {
        len = (size_t)moe_utf8_char((const unsigned char *)d->text + i, d->bytes - i);
        assert(len);
    }
    s->bytes += d->bytes;
    moe_chat_answer_put(&s->answer, d);
}

enum { FIRST_MARK = 0x0e };
static bool is_mark(uint8_t c) { return c >= FIRST_MARK && c < 0x20; }

static void feed_text(struct moe_chat_parser *p, const uint8_t *s, size_t n, bool bytes)
{
    struct moe_err err = MOE_ERR_INIT;
    for (size_t i = 0; i < n; i += bytes ? 1 : n) {
        int32_t *ids;
        size_t count;
        assert(moe_tokenize(tok, (const char *)s + i, bytes ? 1 : n, false, &ids, &count, &err) == MOE_OK);
        moe_chat_parser_feed(p, ids, count);
        free(ids);
    }
}

/* Parses the answer; returns the number of malformed parts. */
static int64_t parse(const struct moe_chat *c, bool thinking, const uint8_t *s, size_t n, bool bytes,
                     struct sink *to)
{
    struct moe_chat_parser p;
    moe_chat_parser_init(&p, c, thinking, put, to);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i; end < n && !is_mark(s[end]); end++) {}
        feed_text(&p, s + i, end - i, bytes);
        if (end < n) moe_chat_parser_feed(&p, &(int32_t){ CHAT_RANKS + s[end++] - FIRST_MARK }, 1);
    }
    moe_chat_parser_finish(&p);
    assert(p.calls == to->calls);
    return p.malformed;
}

static bool same(const struct moe_buffer *a, const struct moe_buffer *b)
{
    return a->n == b->n && (!a->n || !memcmp(a->p, b->p, a->n));
}

static void compare(const struct moe_chat_answer *a, const struct moe_chat_answer *b)
{
    assert(!a->failed && !b->failed && a->n_calls == b->n_calls);
    assert(same(&a->content, &b->content) && same(&a->reasoning, &b->reasoning));
    for (size_t i = 0; i < a->n_calls; i++) {
        const struct moe_chat_call *x = &a->call[i], *y = &b->call[i];
        assert(x->complete == y->complete && same(&x->id, &y->id) && same(&x->name, &y->name) &&
               same(&x->arguments, &y->arguments));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const names[] = { "k2-instruct", "k2-thinking", "k2.5", "deepseek-v3" };
    static struct moe_chat *chat[4];
    struct moe_err err = MOE_ERR_INIT;
    if (fuzz_dir_make()) {
        chat_vocabulary(fuzz_dir, NULL, NULL);
        assert(moe_tokenizer_open(&tok, fuzz_dir, CHAT_VOCAB, &err) == MOE_OK);
        for (int i = 0; i < 4; i++)
            assert(moe_chat_open(&chat[i], tok, &(struct moe_chat_hint){ .name = names[i] }, &err) == MOE_OK);
    }
    if (!size) return 0;
    const struct moe_chat *c = chat[data[0] & 3];
    struct sink a = { .calls = 0 }, b = { .calls = 0 };
    int64_t one = parse(c, data[0] & 4, data + 1, size - 1, false, &a);
    int64_t other = parse(c, data[0] & 4, data + 1, size - 1, true, &b);
    assert(one == other);
    compare(&a.answer, &b.answer);
    size_t most = 0; /* an invalid byte becomes three, and a marker that is text at most 40 */
    for (size_t i = 1; i < size; i++) most += is_mark(data[i]) ? 40 : data[i] >= 0x80 ? 3 : 1;
    assert(a.bytes <= most);
    moe_chat_answer_release(&a.answer);
    moe_chat_answer_release(&b.answer);
    return 0;
}
