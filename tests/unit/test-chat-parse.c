/* SPDX-License-Identifier: Apache-2.0 */
/* Tests the parser of what models write in a chat (tests/data/chat-parse.json): that every answer has the
 * parts that are expected, however its text is cut into tokens; that parts are whole characters; answers that
 * end within a token; which templates begin with thinking. */
#include "base/io.h"
#include "base/json.h"
#include "base/show.h"
#include "formats/tokenizer/chat-answer.h"
#include "tests/ok.h"
#include "tests/unit/chat-vocab.h"

#include <stdlib.h>
#include <string.h>

static struct moe_err err;
static char dir[] = "/tmp/moe-parse.XXXXXX";
static struct moe_tokenizer *tok;
static struct moe_chat *chat; /* k2.5 */

enum { OUTPUT_MAX = 4096 };

/* An output as a text in which each byte is either text or the first byte of a marker. */
struct output { char text[OUTPUT_MAX]; int32_t mark[OUTPUT_MAX]; size_t n; bool thinking; };

static cJSON *json(const char *text)
{
    cJSON *j;
    OK(moe_json_parse(text, strlen(text), NULL, &j, &err) == MOE_OK);
    return j;
}

static void add_piece(struct output *o, const char *s, bool literal)
{
    while (*s) {
        int32_t id = -1;
        for (int i = 0; i < CHAT_MARKS && !literal && id < 0; i++) {
            size_t len = strlen(chat_marks[i]);
            if (strncmp(s, chat_marks[i], len)) continue;
            id = CHAT_RANKS + i;
            s += len - 1;
        }
        OK(o->n < OUTPUT_MAX);
        o->mark[o->n] = id;
        o->text[o->n++] = *s++;
    }
}

static struct output output_of(const cJSON *c)
{
    struct output o = { .thinking = true };
    const cJSON *out = moe_json_get(c, "output"), *thinking = moe_json_get(c, "thinking"), *piece;
    if (cJSON_IsString(out)) add_piece(&o, out->valuestring, false);
    else cJSON_ArrayForEach(piece, out) {
        const cJSON *text = moe_json_get(piece, "text");
        add_piece(&o, (text ? text : piece)->valuestring, text != NULL);
    }
    if (thinking) o.thinking = cJSON_IsTrue(thinking);
    return o;
}

/* ---- parsing ---- */

/* Puts parts into an answer, and checks that each is whole and in order. */
struct sink { struct moe_chat_answer answer; int64_t calls, open; };

static void put(void *ctx, const struct moe_chat_delta *d)
{
    struct sink *s = ctx;
    bool call = d->part == MOE_PART_CALL;
    if (call) {
        assert(d->call == s->calls && d->id_bytes && d->name_bytes);
        s->calls++;
        s->open = d->call;
    } else if (d->part == MOE_PART_ARGUMENTS || d->part == MOE_PART_CALL_END) {
        assert(d->call == s->open);
    } else {
        s->open = -1;
    }
    if (d->part == MOE_PART_CALL_END) s->open = -1;
    assert((d->bytes > 0) == (!call && d->part != MOE_PART_CALL_END));
    for (size_t i = 0, len; i < d->bytes; i += len) {
        len = (size_t)moe_utf8_char((const unsigned char *)d->text + i, d->bytes - i);
        assert(len);
    }
    moe_chat_answer_put(&s->answer, d);
}

static void feed_text(struct moe_chat_parser *p, const char *s, size_t n)
{
    int32_t *ids;
    size_t count;
    if (!n) return;
    assert(moe_tokenize(tok, s, n, false, &ids, &count, &err) == MOE_OK);
    size_t half = count / 2;
    moe_chat_parser_feed(p, ids, half);
    struct moe_chat_parser copy = *p;
    moe_chat_parser_feed(&copy, ids + half, count - half);
    *p = copy;
    free(ids);
}

/* The parts of an output whose text is cut before bytes a and b, as JSON; with a == SIZE_MAX at every
 * byte. */
static char *parse(const struct output *o, size_t a, size_t b)
{
    struct sink s = { .open = -1 };
    struct moe_chat_parser p;
    size_t from = 0;
    moe_chat_parser_init(&p, chat, o->thinking, put, &s);
    for (size_t i = 0; i <= o->n; i++) {
        bool mark = i < o->n && o->mark[i] >= 0;
        if (i < o->n && !mark && i != a && i != b && a != SIZE_MAX) continue;
        feed_text(&p, o->text + from, i - from);
        from = i + mark;
        if (mark) moe_chat_parser_feed(&p, &o->mark[i], 1);
    }
    moe_chat_parser_finish(&p);
    assert(p.calls == s.calls);
    cJSON *all = cJSON_CreateObject(), *open = moe_json_add_array(all, "complete");
    for (size_t i = 0; i < s.answer.n_calls; i++)
        moe_json_append(open, cJSON_CreateBool(s.answer.call[i].complete));
    moe_json_add_i64(all, "malformed", p.malformed);
    moe_chat_answer_json(&s.answer, all);
    char *text = moe_json_print(all, 0);
    assert(text);
    cJSON_Delete(all);
    moe_chat_answer_release(&s.answer);
    return text;
}

/* ---- what is expected ---- */

static bool same(const cJSON *a, const cJSON *b)
{
    const char *s = cJSON_IsString(a) ? a->valuestring : "", *t = cJSON_IsString(b) ? b->valuestring : "";
    return !strcmp(s, t);
}

static void check_expected(const cJSON *c, const cJSON *got)
{
    const cJSON *want = moe_json_get(c, "tools")->child, *malformed = moe_json_get(c, "malformed");
    const cJSON *calls = moe_json_get(got, "tool_calls"), *call = calls ? calls->child : NULL;
    const cJSON *complete = moe_json_get(got, "complete")->child;
    OK(same(moe_json_get(got, "content"), moe_json_get(c, "content")));
    OK(same(moe_json_get(got, "reasoning_content"), moe_json_get(c, "reasoning")));
    for (; want; want = want->next, call = call->next, complete = complete->next) {
        const cJSON *name = want->child->next, *arguments = name->next;
        OK(call && complete);
        const cJSON *f = moe_json_get(call, "function");
        OK(same(moe_json_get(call, "id"), want->child) && same(moe_json_get(f, "name"), name) &&
           same(moe_json_get(f, "arguments"), arguments));
        OK(cJSON_IsTrue(complete) == !arguments->next);
    }
    OK(!call);
    OK(moe_json_get(got, "malformed")->valuedouble == (malformed ? malformed->valuedouble : 0));
}

static void check_cut(const struct output *o, const char *whole, size_t a, size_t b)
{
    char *cut = parse(o, a, b);
    if (strcmp(cut, whole)) fprintf(stderr, "cut before %zu and %zu:\n%s\nis not\n%s\n", a, b, cut, whole);
    OK(!strcmp(cut, whole));
    free(cut);
}

static void test_case(const cJSON *c)
{
    struct output o = output_of(c);
    char *whole = parse(&o, 0, 0);
    cJSON *got = json(whole);
    fprintf(stderr, "%s: %s\n", moe_json_get(c, "name")->valuestring, whole);
    check_expected(c, got);
    check_cut(&o, whole, SIZE_MAX, 0);
    for (size_t i = 1; i < o.n; i++)
        for (size_t j = i; j < o.n && (o.n < 300 || j == i); j++) check_cut(&o, whole, i, j);
    cJSON_Delete(got);
    free(whole);
}

static void test_cases(void)
{
    char *text;
    size_t n;
    OK(moe_read_file("tests/data/chat-parse.json", 1 << 20, &text, &n, &err) == MOE_OK);
    cJSON *all = json(text), *c;
    OK(cJSON_GetArraySize(moe_json_get(all, "cases")) >= 16);
    cJSON_ArrayForEach(c, moe_json_get(all, "cases")) test_case(c);
    cJSON_Delete(all);
    free(text);
}

/* ---- an answer that ends within a token; bytes that are no characters; NULs ---- */

static void expect(const struct moe_chat *with, const int32_t *ids, size_t n, int32_t last, size_t bytes,
                   const char *want, size_t want_bytes)
{
    struct sink s = { .open = -1 };
    struct moe_chat_parser p;
    moe_chat_parser_init(&p, with, false, put, &s);
    moe_chat_parser_feed(&p, ids, n);
    if (last >= 0) moe_chat_parser_cut(&p, last, bytes);
    moe_chat_parser_finish(&p);
    OK(s.answer.content.n == want_bytes && (!want_bytes || !memcmp(s.answer.content.p, want, want_bytes)));
    OK(!s.answer.reasoning.n && !s.calls);
    moe_chat_answer_release(&s.answer);
}

static int32_t byte_token(char c)
{
    int32_t *ids;
    size_t n;
    OK(moe_tokenize(tok, &c, 1, false, &ids, &n, &err) == MOE_OK && n == 1);
    int32_t id = ids[0];
    free(ids);
    return id;
}

static void test_bytes(void)
{
    const int32_t e1 = byte_token('\xc3'), e2 = byte_token('\xa9'), a = byte_token('a'), nul = byte_token(0);
    int32_t *the, section = moe_token_find_special(tok, "<|tool_calls_section_begin|>");
    size_t n;
    expect(chat, (const int32_t[]){ e1, e2 }, 2, -1, 0, "\xc3\xa9", 2);
    expect(chat, (const int32_t[]){ a, e1 }, 2, -1, 0, "a\xef\xbf\xbd", 4);
    expect(chat, (const int32_t[]){ e1, a, nul, a }, 4, -1, 0, "\xef\xbf\xbd" "a\0a", 6);
    expect(chat, (const int32_t[]){ a, CHAT_RANKS, -1, 1 << 30, CHAT_VOCAB - 1, a }, 6, -1, 0, "aa", 2);
    OK(moe_tokenize(tok, " the", 4, false, &the, &n, &err) == MOE_OK && n == 1);
    for (size_t i = 0; i <= 4; i++) expect(chat, &a, 1, the[0], i, "a the", 1 + i);
    expect(chat, &a, 1, e1, 3, "a", 1); /* the beginning of a character is dropped */
    expect(chat, &a, 1, section, 5, "a", 1);
    free(the);
}

/* Counts the ids of thinking: all up to </think>, none behind it, and those of a second thinking. */
static void test_count(void)
{
    const int32_t a = byte_token('a'), think = moe_token_find_special(tok, "<think>"),
        end = moe_token_find_special(tok, "</think>"),
        call = moe_token_find_special(tok, "<|tool_call_begin|>");
    const int32_t ids[] = { think, a, a, end, a, think, a, call, a };
    struct sink s = { .open = -1 };
    struct moe_chat_parser p;
    moe_chat_parser_init(&p, chat, true, put, &s);
    moe_chat_parser_feed(&p, ids, 5);
    OK(p.reasoning_ids == 4);
    moe_chat_parser_feed(&p, ids + 5, 4);
    OK(p.reasoning_ids == 6);
    moe_chat_parser_finish(&p);
    moe_chat_answer_release(&s.answer);
}

static void test_templates(void)
{
    static const struct { const char *name; bool thinks, off; } rows[] = {
        { "k2-first", false, false }, { "k2-instruct", false, false }, { "k2-thinking", true, true },
        { "k2.5", true, false },      { "k2.6", true, false },         { "k2.7-code", true, false },
        { "deepseek-v3", false, false },
    };
    cJSON *off = json("{\"thinking\": false}");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct moe_chat *c;
        OK(moe_chat_open(&c, tok, &(struct moe_chat_hint){ .name = rows[i].name }, &err) == MOE_OK);
        OK(moe_chat_begins_thinking(c, &(struct moe_chat_request){ .tools = NULL }) == rows[i].thinks);
        OK(moe_chat_begins_thinking(c, &(struct moe_chat_request){ .kwargs = off }) == rows[i].off);
        moe_chat_close(&c);
    }
    cJSON_Delete(off);
    /* the markers of another family are text */
    struct moe_chat *c;
    int32_t section = moe_token_find_special(tok, "<|tool_calls_section_begin|>"), a = byte_token('a');
    OK(moe_chat_open(&c, tok, &(struct moe_chat_hint){ .name = "deepseek-v3" }, &err) == MOE_OK);
    expect(c, (const int32_t[]){ a, section }, 2, -1, 0, "a<|tool_calls_section_begin|>", 29);
    moe_chat_close(&c);
}

/* Without tokens for thinking nothing can end it, so that the whole answer is content. */
static void test_missing(void)
{
    struct moe_tokenizer *t;
    struct moe_chat *c;
    chat_vocabulary(dir, "</think>", NULL);
    OK(moe_tokenizer_open(&t, dir, CHAT_VOCAB, &err) == MOE_OK);
    OK(moe_chat_open(&c, t, &(struct moe_chat_hint){ .name = "k2.5" }, &err) == MOE_OK);
    OK(!moe_chat_begins_thinking(c, &(struct moe_chat_request){ .tools = NULL }));
    moe_chat_close(&c);
    moe_tokenizer_close(&t);
}

int main(void)
{
    OK(mkdtemp(dir));
    chat_vocabulary(dir, NULL, NULL);
    OK(moe_tokenizer_open(&tok, dir, CHAT_VOCAB, &err) == MOE_OK);
    OK(moe_chat_open(&chat, tok, &(struct moe_chat_hint){ .name = "k2.5" }, &err) == MOE_OK);
    test_cases();
    test_bytes();
    test_count();
    test_templates();
    test_missing();
    moe_chat_close(&chat);
    moe_tokenizer_close(&tok);
    OK(moe_remove_tree(dir, &err) == MOE_OK);
    printf("test-chat-parse: %ld checks\n", checks);
    return 0;
}
