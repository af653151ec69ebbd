/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/engine/run-chat.h"

#include "base/buffer.h"
#include "base/io.h"
#include "base/show.h"
#include "runtime/engine/run-answer.h"
#include "runtime/engine/run-generate.h"
#include "runtime/engine/run-report.h"
#include "runtime/parallel/ep.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Milliseconds between two looks for a signal; bytes read from the terminal at once. */
enum { WAKE_MS = 100, BLOCK = 4096 };

/* The state of a conversation. */
struct chat_session {
    const struct moe_run_args *o;
    struct moe_rank *rank;
    struct moe_core *core;            /* its cache has the conversation so far */
    struct moe_chat *chat;
    cJSON *messages;                  /* the turns of user and assistant so far */
    char *system;                     /* the system turn; NULL: the template's own; "": none */
    struct moe_buffer input;          /* what was read from the terminal; bytes [at, n) are not used yet */
    size_t at;
};

/* ---- messages to the user ---- */

__attribute__((format(printf, 1, 2))) static void tell(const char *fmt, ...)
{
    char line[1024];
    va_list ap;
    va_start(ap, fmt);
    moe_show_line(line, sizeof line, fmt, ap);
    va_end(ap);
    fprintf(stderr, "%s\n", line);
}

static void help(void)
{
    fputs("  /clear         forget the conversation; the system turn stays\n"
          "  /system TEXT   let the system turn be TEXT; without TEXT, show it\n"
          "  /save FILE     write the conversation as a line of JSON, for --prompts and --calib\n"
          "  /help          this list\n"
          "  /quit          end, as control-D does\n"
          "A line that ends in a backslash goes on in the next one. Three quotes (\"\"\") begin\n"
          "and end a text of several lines. Two slashes (//) begin a text that begins with one.\n"
          "Control-C ends an answer; at the prompt it ends the conversation.\n", stderr);
}

/* ---- reading from the terminal ---- */

static enum moe_code no_memory(struct moe_err *err)
{
    return moe_fail(err, MOE_NOMEM, "no memory for the conversation");
}

static enum moe_code append(struct moe_buffer *t, const char *s, size_t n, struct moe_err *err)
{
    moe_buffer_put(t, s, n);
    return t->failed ? no_memory(err) : MOE_OK;
}

/* Waits for input from the terminal and appends it to t->input; *end: there will be no more.  Polls with a
 * timeout, since a signal that another thread handles does not interrupt poll(). */
static enum moe_code fetch(struct chat_session *t, bool *end, struct moe_err *err)
{
    if (t->at) memmove(t->input.p, t->input.p + t->at, t->input.n - t->at);
    t->input.n -= t->at;
    t->at = 0;
    char *room = moe_buffer_room(&t->input, BLOCK);
    if (!room) return no_memory(err);
    for (;;) {
        struct pollfd p = { .fd = STDIN_FILENO, .events = POLLIN };
        MOE_TRY(moe_cancel_check(t->o->run.cancel, err));
        if (poll(&p, 1, WAKE_MS) <= 0) continue;
        ssize_t n = read(STDIN_FILENO, room, BLOCK);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        *end = n == 0 || (n < 0 && errno == EIO); /* EIO: the terminal has gone */
        if (n < 0 && !*end) return moe_fail_errno(err, errno, "standard input", "cannot read");
        t->input.n += n > 0 ? (size_t)n : 0;
        return MOE_OK;
    }
}

/* Reads a line and appends it, without its line end, to *line; *end: there is no further line. */
static enum moe_code read_line(struct chat_session *t, const char *prompt, struct moe_buffer *line, bool *end,
                               struct moe_err *err)
{
    const char *newline = NULL;
    fputs(prompt, stderr);
    for (*end = false; !*end && !newline; ) {
        size_t left = t->input.n - t->at;
        newline = left ? memchr(t->input.p + t->at, '\n', left) : NULL;
        if (!newline) MOE_TRY(fetch(t, end, err));
    }
    size_t n = newline ? (size_t)(newline - (t->input.p + t->at)) : t->input.n - t->at;
    *end = !newline && !n;
    MOE_TRY(append(line, t->input.p + t->at, n, err));
    t->at += n + (newline != NULL);
    return MOE_OK;
}

/* Whether a message that begins with three quotes ends with another three. */
static bool ends_in_quotes(const struct moe_buffer *m)
{
    return m->n >= 6 && !memcmp(m->p + m->n - 3, "\"\"\"", 3);
}

/* Reads the rest of a message that begins with """, up to the line that ends with """; then removes the
 * quotes, and a newline next to them. */
static enum moe_code read_quoted(struct chat_session *t, struct moe_buffer *m, bool *end, struct moe_err *err)
{
    while (!*end && !ends_in_quotes(m)) {
        MOE_TRY(append(m, "\n", 1, err));
        MOE_TRY(read_line(t, "... ", m, end, err));
    }
    if (*end) return MOE_OK;
    m->n -= 3;
    if (m->n > 3 && m->p[m->n - 1] == '\n') m->n--;
    size_t from = m->n > 3 && m->p[3] == '\n' ? 4 : 3;
    m->n -= from;
    memmove(m->p, m->p + from, m->n);
    m->p[m->n] = 0;
    return MOE_OK;
}

/* Reads a message: one line; several lines of which all but the last end in a backslash; or lines between two
 * groups of three quotes. */
static enum moe_code read_message(struct chat_session *t, struct moe_buffer *m, bool *quoted, bool *end,
                                  struct moe_err *err)
{
    m->n = 0;
    MOE_TRY(read_line(t, "> ", m, end, err));
    *quoted = m->n >= 3 && !memcmp(m->p, "\"\"\"", 3);
    if (*quoted) return read_quoted(t, m, end, err);
    while (!*end && m->n && m->p[m->n - 1] == '\\') {
        m->p[m->n - 1] = '\n';
        MOE_TRY(read_line(t, "... ", m, end, err));
    }
    return MOE_OK;
}

/* Whether m is valid UTF-8 without NUL. */
static bool is_text(const struct moe_buffer *m)
{
    for (size_t i = 0, len; i < m->n; i += len) {
        len = (size_t)moe_utf8_char((const unsigned char *)m->p + i, m->n - i);
        if (!len || !m->p[i]) return false;
    }
    return true;
}

/* ---- a turn ---- */

/* Adds a text to a message under this key, with every NUL that the model has generated replaced by U+FFFD,
 * since the texts of a conversation end at a NUL.  *replaced: there was one. */
static bool add_text(cJSON *o, const char *key, const struct moe_buffer *text, bool *replaced)
{
    struct moe_buffer t = { 0 };
    for (size_t i = 0; i < text->n; i++) {
        moe_buffer_put(&t, text->p[i] ? text->p + i : "\xef\xbf\xbd", text->p[i] ? 1 : 3);
        *replaced |= !text->p[i];
    }
    bool ok = !t.failed && moe_json_add_str(o, key, t.n ? t.p : "");
    free(t.p);
    return ok;
}

/* Adds a tool call to a list, as the template wants to have it back. */
static bool add_call(cJSON *list, const struct moe_chat_call *call, bool *replaced)
{
    cJSON *c = moe_json_append(list, cJSON_CreateObject()), *f;
    return add_text(c, "id", &call->id, replaced) && moe_json_add_str(c, "type", "function") &&
           (f = moe_json_add_object(c, "function")) && add_text(f, "name", &call->name, replaced) &&
           add_text(f, "arguments", &call->arguments, replaced);
}

/* Appends the answer to the conversation as a turn.  Its thinking is stored separately (reasoning_content),
 * since the template decides whether later prompts contain it; a call that was cut off is left out. */
static enum moe_code remember(const struct chat_session *t, const struct moe_chat_answer *a,
                              struct moe_err *err)
{
    bool replaced = false, ok = !a->failed;
    cJSON *m = ok ? moe_json_append(t->messages, cJSON_CreateObject()) : NULL, *list = NULL;
    ok = moe_json_add_str(m, "role", "assistant") && add_text(m, "content", &a->content, &replaced);
    if (ok && a->reasoning.n) ok = add_text(m, "reasoning_content", &a->reasoning, &replaced);
    for (size_t i = 0; ok && i < a->n_calls; i++) {
        if (!a->call[i].complete) continue;
        if (!list) list = moe_json_add_array(m, "tool_calls");
        ok = list && add_call(list, &a->call[i], &replaced);
    }
    if (replaced) tell("(a NUL in the answer is remembered as U+FFFD)");
    return ok ? MOE_OK : no_memory(err);
}

/* Generates the answer to the conversation so far, printing it meanwhile. */
static enum moe_code answer(const struct chat_session *t, struct moe_generated *g, struct moe_run_answer *a,
                            struct moe_err *err)
{
    const struct moe_engine *e = t->rank->engine;
    int32_t *ids = NULL;
    size_t n_ids;
    struct moe_generate set = { .request = moe_run_request(t->o), .text = moe_run_print,
                                .cancel = e->cancel };
    struct moe_chat_request r = { .messages = t->messages, .system = t->system,
                                 .add_generation_prompt = true };
    moe_run_answer_begin(a, t->chat, e->tokenizer, moe_chat_begins_thinking(t->chat, &r),
                         !set.request.keep_special, &set);
    enum moe_code code = moe_chat_encode(t->chat, &r, &ids, &n_ids, NULL, err);
    set.request.ids = ids;
    set.request.n_ids = (int64_t)n_ids;
    if (code == MOE_OK) code = moe_generate_run(t->core, &set, g, NULL, err);
    free(ids);
    return code;
}

/* Removes the last turn. */
static void take_back(struct chat_session *t)
{
    cJSON_DeleteItemFromArray(t->messages, cJSON_GetArraySize(t->messages) - 1);
}

/* Adds a user turn and generates its answer.  After a control-C the answer so far is kept; if there is none,
 * or if the turn does not fit the context, the user turn is removed again. */
static enum moe_code one_turn(struct chat_session *t, const char *text, struct moe_err *err)
{
    struct moe_generated g = { 0 };
    struct moe_run_answer a;
    bool kept, stopped;
    if (!moe_prompt_turn(t->messages, "user", text)) return no_memory(err);
    if (!t->o->rendezvous) moe_sigint_part_begin(); /* with other ranks SIGINT ends the whole run */
    t->rank->engine->cancel = moe_sigint_part_token();
    enum moe_code code = answer(t, &g, &a, err);
    t->rank->engine->cancel = t->o->run.cancel;
    stopped = code == MOE_SIGINT && moe_sigint_part_cancelled();
    moe_sigint_part_end();
    kept = code == MOE_OK || (stopped && g.n);
    if (kept) {
        moe_run_print(NULL, "\n", 1);
        code = remember(t, &a.parts, err);
    }
    if (kept && !stopped && g.finish == MOE_FINISH_LENGTH && (t->o->n < 0 || g.n < t->o->n))
        tell("(the answer is cut: the context of %lld positions is full; /clear begins anew)",
             (long long)t->rank->engine->context);
    if (stopped) tell("(interrupted%s)", kept ? "" : " before the answer began: the turn is taken back");
    if (stopped && !kept) code = MOE_OK;
    if (!kept) take_back(t);
    if (code == MOE_USAGE) {
        tell("%s; the turn is taken back, and /clear begins anew", err->msg);
        code = MOE_OK;
    }
    moe_run_answer_release(&a);
    moe_generated_release(&g);
    return code;
}

/* ---- commands ---- */

static enum moe_code set_system(struct chat_session *t, const char *to, struct moe_err *err)
{
    if (!*to && !t->system) tell("the system turn is the chat template's own, or none where it has none");
    else if (!*to && !*t->system) tell("there is no system turn");
    else if (!*to) tell("the system turn: %s", t->system);
    if (!*to) return MOE_OK;
    char *copy = strdup(to);
    if (!copy) return no_memory(err);
    free(t->system);
    t->system = copy;
    tell("the system turn is set, for the next answer and those behind it");
    return MOE_OK;
}

static void clear(struct chat_session *t)
{
    while (cJSON_GetArraySize(t->messages)) take_back(t);
    tell("the conversation is forgotten");
}

/* The conversation as {"messages": [...]} in one line, malloc'd; NULL: no memory. */
static char *conversation(const struct chat_session *t)
{
    cJSON *all = cJSON_CreateObject(), *list = moe_json_add_array(all, "messages"), *m;
    bool ok = list && (!t->system || !*t->system || moe_prompt_turn(list, "system", t->system));
    for (m = t->messages->child; ok && m; m = m->next) ok = moe_json_append(list, cJSON_Duplicate(m, true));
    char *line = ok ? moe_json_print(all, 0) : NULL;
    cJSON_Delete(all);
    return line;
}

/* Sets *may to whether `path` may be written: it does not exist, or the user agrees to replace it. */
static enum moe_code may_save(struct chat_session *t, const char *path, bool *may, struct moe_err *err)
{
    struct moe_buffer reply = { 0 };
    bool end;
    *may = moe_exists(path) == MOE_ABSENT;
    if (*may) return MOE_OK;
    tell("'%s' exists already: replace it (y or n)?", path);
    enum moe_code code = read_line(t, "> ", &reply, &end, err);
    *may = code == MOE_OK && !end && (!strcmp(reply.p, "y") || !strcmp(reply.p, "yes"));
    if (code == MOE_OK && !*may) tell("nothing is written");
    free(reply.p);
    return code;
}

static enum moe_code save(struct chat_session *t, const char *path, struct moe_err *err)
{
    bool may;
    if (!*path || !strcmp(path, "-")) return tell("/save wants the name of a file"), MOE_OK;
    if (!t->messages->child) return tell("there is no conversation to save yet"), MOE_OK;
    MOE_TRY(may_save(t, path, &may, err));
    if (!may) return MOE_OK;
    char *line = conversation(t);
    if (!line) return no_memory(err);
    size_t n = strlen(line);
    line[n] = '\n'; /* replaces the NUL */
    enum moe_code code = moe_write_file(path, line, n + 1, err);
    free(line);
    if (code == MOE_OK) tell("'%s' has the conversation, of %d turns", path, cJSON_GetArraySize(t->messages));
    else tell("%s", err->msg); /* the conversation goes on */
    return MOE_OK;
}

static enum moe_code command(struct chat_session *t, char *line, bool *quit, struct moe_err *err)
{
    size_t n = strcspn(line, " \t\n");
    char *rest = line + n + strspn(line + n, " \t\n");
    for (size_t end = strlen(rest); end && strchr(" \t\r", rest[end - 1]); end--) rest[end - 1] = 0;
    line[n] = 0;
    if (!strcmp(line, "/clear")) return clear(t), MOE_OK;
    if (!strcmp(line, "/system")) return set_system(t, rest, err);
    if (!strcmp(line, "/save")) return save(t, rest, err);
    if (!strcmp(line, "/help") || !strcmp(line, "/?")) return help(), MOE_OK;
    *quit = !strcmp(line, "/quit") || !strcmp(line, "/exit");
    if (!*quit) tell("'%s' is no command: /help lists them, and a text that begins so is said with //", line);
    return MOE_OK;
}

/* ---- the conversation ---- */

static enum moe_code turns(struct chat_session *t, struct moe_buffer *m, struct moe_err *err)
{
    for (bool end = false, quit = false, quoted; !quit; ) {
        /* the user may need longer than the time after which the other ranks mark this one dead */
        if (t->rank->ep) MOE_TRY(moe_ep_pause(t->rank->ep, err));
        MOE_TRY(read_message(t, m, &quoted, &end, err));
        if (end) fputc('\n', stderr);
        if (end && m->n) tell("the text that was begun has no end, and is not sent");
        if (end) return MOE_OK;
        if (!is_text(m)) tell("that is not text in UTF-8: nothing was sent");
        else if (moe_prompt_is_blank(m->p)) tell("an empty turn is not sent (/help lists commands)");
        else if (!quoted && m->p[0] == '/' && m->p[1] != '/') MOE_TRY(command(t, m->p, &quit, err));
        else MOE_TRY(one_turn(t, m->p + (!quoted && m->p[0] == '/'), err));
    }
    return MOE_OK;
}

static enum moe_code open_session(struct chat_session *t, struct moe_err *err)
{
    MOE_TRY(moe_prompt_chat(&t->o->prompt, t->rank->engine, &t->chat, err));
    MOE_TRY(moe_generate_open(&t->core, t->rank->engine, err));
    t->messages = cJSON_CreateArray();
    if (t->o->prompt.system) t->system = strdup(t->o->prompt.system);
    if (!t->messages || (t->o->prompt.system && !t->system)) return no_memory(err);
    return MOE_OK;
}

enum moe_code moe_run_chat(const struct moe_run_args *o, struct moe_rank *r, struct moe_err *err)
{
    struct chat_session t = { .o = o, .rank = r };
    struct moe_buffer m = { 0 };
    enum moe_code code = open_session(&t, err);
    moe_notice(&o->run, "chat: a line is a turn; /help lists commands; control-D ends");
    if (code == MOE_OK) code = turns(&t, &m, err);
    if (code == MOE_SIGINT) fputc('\n', stderr);
    free(m.p);
    free(t.input.p);
    free(t.system);
    cJSON_Delete(t.messages);
    moe_chat_close(&t.chat);
    moe_core_close(&t.core);
    return code;
}
