/* SPDX-License-Identifier: Apache-2.0 */
/* The access log: a line of JSON for each request, written when the last of its answers has ended. */
#include "runtime/server/server-internal.h"

#include "base/io.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { CLIENT_GONE = 499 };

enum moe_code moe_log_open(struct moe_server *s, struct moe_err *err)
{
    if (!s->o.log) return MOE_OK;
    s->log = open(s->o.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (s->log < 0) return moe_fail_errno(err, errno, s->o.log, "cannot open the log");
    return MOE_OK;
}

void moe_log_close(struct moe_server *s)
{
    if (s->log >= 0) close(s->log);
    s->log = -1;
}

/* The moment as RFC 3339 has it. */
static void add_time(cJSON *o)
{
    char text[40];
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(text + n, sizeof text - n, ".%03ldZ", now.tv_nsec / 1000000);
    moe_json_add_str(o, "time", text);
}

static cJSON *line_of(const struct moe_exchange *x, int status, double seconds)
{
    const struct moe_server *s = x->server;
    cJSON *o = cJSON_CreateObject();
    add_time(o);
    moe_json_add_str(o, "request_id", x->id);
    moe_json_add_str(o, "client", x->client);
    if (x->key >= 0) moe_json_add_str(o, "key", s->keys.v[x->key].name);
    moe_json_add_str(o, "method", x->method);
    moe_json_add_str(o, "path", x->path);
    moe_json_add_i64(o, "status", status);
    moe_json_add_i64(o, "bytes_in", (int64_t)x->body_bytes);
    moe_json_add_i64(o, "bytes_out", x->sent);
    moe_json_add_measured(o, "seconds", seconds);
    if (!x->n_choices) return o;
    moe_json_add_str(o, "id", x->answer_id);
    moe_json_add_bool(o, "stream", x->stream);
    moe_json_add_i64(o, "answers", x->n_choices);
    moe_json_add_i64(o, "prompt_tokens", x->prompt_tokens);
    moe_json_add_i64(o, "cached_tokens", x->cached_tokens);
    moe_json_add_i64(o, "completion_tokens", x->generated_tokens);
    return o;
}

static bool write_line(int fd, cJSON *o)
{
    char *text = moe_json_print(o, 0);
    size_t n = text ? strlen(text) : 0;
    if (text) text[n++] = '\n'; /* in the place of the NUL: one write, so that lines are whole */
    ssize_t done = text ? write(fd, text, n) : -1;
    free(text);
    return done == (ssize_t)n;
}

void moe_log_exchange(struct moe_exchange *x)
{
    struct moe_server *s = x->server;
    double seconds = moe_now() - x->begun;
    bool sent = x->state == MOE_EXCHANGE_SENT && x->delivered;
    int status = sent ? x->status : CLIENT_GONE;
    atomic_fetch_add(&s->metrics.answers[sent && status < 600 ? status / 100 : 0], 1);
    if (x->n_choices && sent) moe_histogram_add(&s->metrics.all, seconds);
    if (s->log < 0) return;
    cJSON *o = line_of(x, status, seconds);
    if (!write_line(s->log, o)) atomic_fetch_add(&s->metrics.unlogged, 1);
    cJSON_Delete(o);
}
