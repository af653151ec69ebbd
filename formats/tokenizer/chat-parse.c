/* SPDX-License-Identifier: Apache-2.0 */
#include "formats/tokenizer/chat-parse.h"
#include "formats/tokenizer/chat-internal.h"

#include "base/json.h"

#include <string.h>

/* What the text that comes next belongs to.  BEHIND is behind a marker of calls, outside of any call: white
 * space there is dropped, and other text begins CONTENT. */
enum { THINKING, CONTENT, BEHIND, ID, ARGUMENTS };

/* The largest piece of a token that is decoded at once, in bytes. */
enum { PIECE = 256 };

/* Models sometimes spell a section's markers without the "s" of "calls", for which there are no tokens.
 * These texts are no content where a marker shows what they are: the first directly before
 * <|tool_call_begin|>, the other directly behind a call.  They differ only from byte FORK on, and '<' is in
 * neither a second time. */
static const char spelled[2][32] = { "<|tool_call_section_begin|>", "<|tool_call_section_end|>" };
enum { FORK = 20 };

/* ---- parts ---- */

static void put_text(struct moe_chat_parser *p, enum moe_chat_part part, const char *s, size_t n)
{
    int64_t call = part == MOE_PART_ARGUMENTS ? p->calls - 1 : 0;
    if (n) p->put(p->ctx, &(struct moe_chat_delta){ .part = part, .call = call, .text = s, .bytes = n });
}

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

/* Puts text of thinking or content that is certain to be that. */
static void put_plain(struct moe_chat_parser *p, const char *s, size_t n)
{
    if (p->state == BEHIND) {
        while (n && is_space(*s)) s++, n--;
        if (n) p->state = CONTENT;
    }
    put_text(p, p->state == THINKING ? MOE_PART_REASONING : MOE_PART_CONTENT, s, n);
}

/* Puts the text that was held back because it is the beginning of one of `spelled`. */
static void release(struct moe_chat_parser *p)
{
    size_t n = p->matched;
    p->matched = 0;
    put_plain(p, spelled[p->other], n);
}

/* Whether c goes on with the text that is held back; then it is held back, too. */
static bool match(struct moe_chat_parser *p, char c)
{
    if (p->matched == FORK) p->other = p->after_call && p->state == BEHIND && c == spelled[1][FORK];
    if (!p->matched || c != spelled[p->other][p->matched] || !c) return false;
    p->matched++;
    if (p->other && !spelled[1][p->matched]) p->matched = 0; /* the section's end, which is dropped */
    return true;
}

/* Takes text of thinking or content. */
static void take_plain(struct moe_chat_parser *p, const char *s, size_t n)
{
    size_t from = 0;
    for (size_t i = 0; i < n; i++) {
        if (p->matched && match(p, s[i])) {
            from = i + 1;
            continue;
        }
        if (p->matched) release(p);
        if (s[i] != spelled[0][0]) continue;
        put_plain(p, s + from, i - from);
        from = i + 1;
        p->matched = 1;
        p->other = false;
    }
    put_plain(p, s + from, n - from);
}

/* What was taken for a call is none, and the text of its id is content. */
static void spill_id(struct moe_chat_parser *p)
{
    size_t n = p->id_bytes;
    p->malformed++;
    p->id_bytes = 0;
    p->state = BEHIND;
    p->after_call = false;
    take_plain(p, p->id, n);
}

static void take_text(struct moe_chat_parser *p, const char *s, size_t n)
{
    if (p->state == ID && n > MOE_CALL_ID_BYTES - p->id_bytes) spill_id(p);
    if (p->state == ID) {
        memcpy(p->id + p->id_bytes, s, n);
        p->id_bytes += n;
    } else if (p->state == ARGUMENTS) {
        put_text(p, MOE_PART_ARGUMENTS, s, n);
    } else {
        take_plain(p, s, n);
    }
}

/* ---- calls ---- */

/* Sets d's name to the function's name in its id, functions.NAME:NUMBER; what of that form is missing in an
 * id is not missed. */
static void find_name(struct moe_chat_delta *d)
{
    static const char prefix[] = "functions.";
    const char *s = d->id;
    size_t n = d->id_bytes, digits = 0;
    if (n >= sizeof prefix - 1 && !memcmp(s, prefix, sizeof prefix - 1)) {
        s += sizeof prefix - 1;
        n -= sizeof prefix - 1;
    }
    while (digits < n && s[n - 1 - digits] >= '0' && s[n - 1 - digits] <= '9') digits++;
    if (digits && digits < n && s[n - 1 - digits] == ':') n -= digits + 1;
    d->name = s;
    d->name_bytes = n;
}

/* The id of a call is complete. */
static void begin_arguments(struct moe_chat_parser *p)
{
    struct moe_chat_delta d = { .part = MOE_PART_CALL, .call = p->calls, .id = p->id };
    d.id_bytes = p->id_bytes;
    while (d.id_bytes && is_space(*d.id)) d.id++, d.id_bytes--;
    while (d.id_bytes && is_space(d.id[d.id_bytes - 1])) d.id_bytes--;
    find_name(&d);
    if (!d.name_bytes) {
        spill_id(p);
        return;
    }
    p->calls++;
    p->id_bytes = 0;
    p->state = ARGUMENTS;
    p->put(p->ctx, &d);
}

/* A marker ends the call that has been begun, if there is one; `proper` if it is the marker for that. */
static void end_call(struct moe_chat_parser *p, bool proper)
{
    if (p->state == ID) {
        spill_id(p);
    } else if (p->state == ARGUMENTS) {
        if (proper) p->put(p->ctx, &(struct moe_chat_delta){ MOE_PART_CALL_END, .call = p->calls - 1 });
        p->state = BEHIND;
        p->after_call = true;
        p->malformed += !proper;
    } else {
        p->malformed += proper;
    }
}

/* ---- ids ---- */

/* Text ends where a marker stands: puts what was held back of it. */
static void settle(struct moe_chat_parser *p, enum moe_mark next)
{
    char rest[16];
    take_text(p, rest, moe_decode_flush(&p->text, rest));
    if (next == MOE_MARK_CALL && p->matched && !spelled[0][p->matched]) p->matched = 0;
    if (p->matched) release(p);
}

static void take_mark(struct moe_chat_parser *p, enum moe_mark m)
{
    settle(p, m);
    switch (m) {
    case MOE_MARK_THINK:
        p->state = THINKING;
        break;
    case MOE_MARK_THINK_END:
        if (p->state == THINKING) p->state = CONTENT;
        break;
    case MOE_MARK_CALL:
        end_call(p, false);
        p->state = ID;
        break;
    case MOE_MARK_CALL_ARGUMENT:
        if (p->state == ID) begin_arguments(p);
        else p->malformed++;
        break;
    case MOE_MARK_CALL_END:
        end_call(p, true);
        break;
    default: /* the two of a section */
        end_call(p, false);
        if (m == MOE_MARK_SECTION || p->state != THINKING) p->state = BEHIND;
    }
}

/* Whether the id is a marker in this state: those of thinking are text within a call. */
static bool find_mark(const struct moe_chat_parser *p, int32_t id, enum moe_mark *m)
{
    static const enum moe_mark marks[] = { MOE_MARK_THINK, MOE_MARK_THINK_END, MOE_MARK_SECTION,
                                           MOE_MARK_SECTION_END, MOE_MARK_CALL, MOE_MARK_CALL_ARGUMENT,
                                           MOE_MARK_CALL_END };
    bool in_call = p->state == ID || p->state == ARGUMENTS;
    if (id < 0 || p->chat->style.family != MOE_KIMI) return false;
    for (size_t i = in_call ? 2 : 0; i < sizeof marks / sizeof *marks; i++) {
        *m = marks[i];
        if (p->chat->mark[*m] == id) return true;
    }
    return false;
}

/* Takes the first `limit` bytes of the text that an id adds. */
static void take_token(struct moe_chat_parser *p, int32_t id, size_t limit)
{
    char room[MOE_TOKEN_ROOM], out[MOE_DECODE_BOUND(PIECE)];
    size_t len;
    const char *s = moe_token_bytes(p->chat->t, id, room, &len);
    if (!s || !moe_token_is_text(p->chat->t, id)) return;
    for (size_t at = 0, n; at < len; at += n) {
        n = len - at < PIECE ? len - at : PIECE;
        size_t made = moe_decode_bytes(&p->text, s + at, n, out);
        if (made > limit) made = limit;
        limit -= made;
        take_text(p, out, made);
    }
}

void moe_chat_parser_feed(struct moe_chat_parser *p, const int32_t *ids, size_t n)
{
    enum moe_mark m;
    for (size_t i = 0; i < n; i++) {
        p->reasoning_ids += p->state == THINKING;
        if (find_mark(p, ids[i], &m)) take_mark(p, m);
        else take_token(p, ids[i], SIZE_MAX);
    }
}

void moe_chat_parser_cut(struct moe_chat_parser *p, int32_t id, size_t bytes)
{
    enum moe_mark m;
    char rest[16];
    if (find_mark(p, id, &m)) { /* its text begins with what the bytes before it have left undecided */
        size_t n = moe_decode_flush(&p->text, rest);
        take_text(p, rest, n < bytes ? n : bytes);
    } else {
        take_token(p, id, bytes);
    }
    p->text.n = 0;
}

void moe_chat_parser_finish(struct moe_chat_parser *p)
{
    settle(p, MOE_MARK_IM_END);
    p->malformed += p->state == ID || p->state == ARGUMENTS;
    p->id_bytes = 0;
}

/* ---- the beginning ---- */

bool moe_chat_begins_thinking(const struct moe_chat *c, const struct moe_chat_request *r)
{
    const cJSON *v = r->kwargs ? moe_json_get(r->kwargs, "thinking") : NULL;
    bool off = c->style.opens && v && cJSON_IsFalse(v);
    return c->style.thinks && c->mark[MOE_MARK_THINK_END] >= 0 && !off;
}

void moe_chat_parser_init(struct moe_chat_parser *p, const struct moe_chat *c, bool thinking,
                          moe_chat_put_delta *put, void *ctx)
{
    *p = (struct moe_chat_parser){ .chat = c, .put = put, .ctx = ctx };
    p->state = thinking ? THINKING : CONTENT;
}
