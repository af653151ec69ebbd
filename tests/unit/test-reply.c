/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the parts of an answer while it is computed (runtime/engine/reply.h), on answers of random tokens
 * with stop texts: however events are grouped the parts are the same, they hold exactly the text that was
 * reported, and nothing of them is put before its text was. */
#include "base/buffer.h"
#include "base/io.h"
#include "formats/tokenizer/chat-answer.h"
#include "runtime/engine/answer.h"
#include "runtime/engine/reply.h"
#include "tests/ok.h"
#include "tests/unit/chat-vocab.h"

#include <stdlib.h>
#include <string.h>

enum { TOKENS = 40, FIRST_MARK = 7, MARKS = 7, ROUNDS = 3000 };

static struct moe_err err;
static char dir[] = "/tmp/moe-reply.XXXXXX";
static struct moe_tokenizer *tok;
static struct moe_chat *chat;
static uint64_t state = 1;

static uint64_t draw(uint64_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
}

/* An answer, as the engine has it after each of its tokens. */
struct run {
    int32_t ids[TOKENS];
    int64_t n;
    size_t sent[TOKENS + 1];  /* bytes of text that are certain after so many tokens; behind all: of all */
    char *text;
    size_t bytes;
    bool stopped;
};

/* calls: with markers of calls, not of thinking alone. */
static int32_t draw_token(bool calls)
{
    static const char *const bytes[] = { "\xc3", "\xa9", "\xf0\x9f", "\x98", "a", "<", " ", "\n" };
    int32_t *ids;
    size_t n;
    if (calls && !draw(3)) return CHAT_RANKS + FIRST_MARK + (int32_t)draw(MARKS);
    if (!draw(8)) return CHAT_RANKS + FIRST_MARK + MARKS - 2 + (int32_t)draw(2);
    if (!draw(3)) return (int32_t)draw(CHAT_RANKS);
    const char *s = bytes[draw(8)];
    assert(moe_tokenize(tok, s, strlen(s), false, &ids, &n, &err) == MOE_OK && n);
    int32_t id = ids[draw(n)];
    free(ids);
    return id;
}

/* Runs random tokens through the engine's own text, with up to two stop texts. */
static void make(struct run *r, bool calls, const char *const *stop, size_t n_stop)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    const struct moe_ends none = { NULL, 0 };
    const struct moe_request q = { .stop = stop, .n_stop = n_stop, .max_tokens = TOKENS };
    struct moe_answer a = { .q = &q, .tokenizer = tok, .ends = &none, .lock = &lock, .max_tokens = TOKENS };
    OK(moe_answer_begin(&a, &err) == MOE_OK);
    *r = (struct run){ .n = 0 };
    while (!a.done) {
        r->ids[r->n++] = draw_token(calls);
        assert(moe_answer_add(&a, r->ids[r->n - 1], &err) == MOE_OK);
        r->sent[r->n] = a.sent;
    }
    OK(moe_answer_end(&a, &err) == MOE_OK);
    r->sent[r->n] = a.bytes;
    r->stopped = a.stop;
    r->text = a.text;
    r->bytes = a.bytes;
}

/* The parts so far, and all their text with the names of markers left out. */
struct sink { struct moe_chat_answer answer; size_t bytes; };

static void put(void *ctx, const struct moe_chat_delta *d)
{
    struct sink *s = ctx;
    s->bytes += d->bytes + d->id_bytes;
    moe_chat_answer_put(&s->answer, d);
}

static char *parts_of(const struct run *r, bool thinking, bool one_by_one)
{
    struct sink s = { .bytes = 0 };
    struct moe_reply reply;
    size_t given = 0;
    moe_reply_init(&reply, chat, tok, thinking, false, put, &s);
    for (int64_t i = 0, n; i < r->n; i += n) {
        n = one_by_one ? 1 : 1 + (int64_t)draw(5);
        if (n > r->n - i) n = r->n - i;
        OK(moe_reply_add(&reply, r->ids + i, n, r->sent[i + n] - given, i + n == r->n, &err) == MOE_OK);
        given = r->sent[i + n];
        OK(s.bytes <= given);
    }
    moe_reply_release(&reply);
    cJSON *o = cJSON_CreateObject();
    moe_chat_answer_json(&s.answer, o);
    char *text = moe_json_print(o, 0);
    OK(text != NULL);
    cJSON_Delete(o);
    moe_chat_answer_release(&s.answer);
    return text;
}

/* Whether the parts are a text's, which has no marker of calls: the text without the names of those of
 * thinking. */
static void check_text(const struct run *r)
{
    static const char *const names[] = { "<think>", "</think>" };
    struct sink s = { .bytes = 0 };
    struct moe_buffer want = { 0 };
    const struct moe_generated g = { .tokens = (int32_t *)(uintptr_t)r->ids, .n = r->n,
                                     .text_bytes = r->bytes };
    OK(moe_reply_whole(chat, tok, true, false, &g, put, &s, &err) == MOE_OK);
    for (size_t i = 0; i < r->bytes; ) {
        size_t skip = 0;
        for (int k = 0; k < 2; k++)
            if (r->bytes - i >= strlen(names[k]) && !memcmp(r->text + i, names[k], strlen(names[k])))
                skip = strlen(names[k]);
        if (!skip) moe_buffer_put(&want, r->text + i, 1);
        i += skip ? skip : 1;
    }
    /* the beginning of such a name is left out, too, where a stop text has cut it */
    OK(s.bytes <= want.n && want.n - s.bytes < strlen("</think>"));
    struct moe_buffer got = { 0 };
    moe_buffer_put(&got, s.answer.reasoning.p, s.answer.reasoning.n);
    moe_buffer_put(&got, s.answer.content.p, s.answer.content.n);
    if (!s.answer.content.n || !s.answer.reasoning.n)
        OK(got.n == s.bytes && (!got.n || !memcmp(got.p, want.p, got.n)));
    OK(r->stopped || s.bytes == want.n);
    free(got.p);
    free(want.p);
    moe_chat_answer_release(&s.answer);
}

static bool has_calls(const struct run *r)
{
    for (int64_t i = 0; i < r->n; i++)
        if (r->ids[i] >= CHAT_RANKS + FIRST_MARK && r->ids[i] < CHAT_RANKS + FIRST_MARK + 5) return true;
    return false;
}

int main(void)
{
    static const char *const stops[] = { "a", "think", "<|tool", "end|>", "\xc3\xa9", "  ", "e", ">a" };
    long stopped = 0, plain = 0;
    OK(mkdtemp(dir));
    chat_vocabulary(dir, NULL, NULL);
    OK(moe_tokenizer_open(&tok, dir, CHAT_VOCAB, &err) == MOE_OK);
    OK(moe_chat_open(&chat, tok, &(struct moe_chat_hint){ .name = "k2.5" }, &err) == MOE_OK);
    for (int i = 0; i < ROUNDS; i++) {
        struct run r;
        const char *stop[] = { stops[draw(8)], stops[draw(8)] };
        make(&r, i & 2, stop, draw(3));
        char *one = parts_of(&r, i & 1, true);
        for (int k = 0; k < 3; k++) {
            char *other = parts_of(&r, i & 1, false);
            if (strcmp(one, other)) fprintf(stderr, "round %d:\n%s\n%s\n", i, one, other);
            OK(!strcmp(one, other));
            free(other);
        }
        stopped += r.stopped;
        if (!has_calls(&r)) plain++, check_text(&r);
        free(one);
        free(r.text);
    }
    OK(stopped > ROUNDS / 10 && plain > ROUNDS / 3);
    moe_chat_close(&chat);
    moe_tokenizer_close(&tok);
    OK(moe_remove_tree(dir, &err) == MOE_OK);
    printf("test-reply: %ld checks, %ld stopped, %ld without calls\n", checks, stopped, plain);
    return 0;
}
