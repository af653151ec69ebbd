/* SPDX-License-Identifier: Apache-2.0 */
/* runtime/server/server-internal.h - what the .c files of server.h share.
 *
 * An exchange is a request of HTTP and its answer.  It is made by the HTTP thread, worked on by the intake
 * thread, answered by the reader thread, and freed by whoever drops its last reference: the HTTP thread has
 * one until it has done with the request, the intake thread one while it works, and each choice that is in
 * the core has one until its last event was read.
 *
 * LOCKS are taken in this order: server.lock, exchange.lock, intake_lock, the core's and libmicrohttpd's. */
#ifndef MOE_RUNTIME_SERVER_SERVER_INTERNAL_H
#define MOE_RUNTIME_SERVER_SERVER_INTERNAL_H

#include "base/buffer.h"
#include "base/json.h"
#include "formats/tokenizer/chat.h"
#include "runtime/engine/request-json.h"
#include "runtime/server/keys.h"
#include "runtime/server/metrics.h"
#include "runtime/server/server.h"

#include <pthread.h>
#include <stdatomic.h>

struct MHD_Connection;
struct MHD_Daemon;
struct moe_exchange;

/* ---- errors (error.c) ---- */

enum { MOE_API_KEY = 64 };

/* An error of the API: the status, and what the object of OpenAI says. */
struct moe_api_error {
    int status;
    const char *type, *code;                /* code: NULL for none */
    char param[MOE_API_KEY];                /* the field to blame; "": none */
    struct moe_err err;                     /* its sentence */
    int retry_after;                        /* seconds; 0: not said */
};
/* Fills e->err for a status that the caller names; returns false, for `return moe_api_fail(...)`. */
bool moe_api_fail(struct moe_api_error *e, int status, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));
/* Chooses the status by the code of e->err: 400 for what the client got wrong, 429, 503, 500.  False. */
bool moe_api_fail_code(struct moe_api_error *e, const char *param);
cJSON *moe_api_error_json(const struct moe_api_error *e); /* {"error": {...}}; NULL: no memory */

/* ---- answers ---- */

/* One answer of the core among those of an exchange. */
struct moe_exchange_choice {
    struct moe_exchange *exchange;
    int64_t index;
    uint64_t id;                            /* of the core; 0: not submitted so far */
    bool live;                              /* its end has not come yet */
    bool paused;                            /* moe_core_pause */
    struct moe_event got;                   /* a whole answer */
    int64_t text_at;                        /* characters that were written, for text_offset */
    void *state;                            /* the format's own; NULL: none */
};

/* How answers of one route look.  All are called with exchange.lock held. */
struct moe_format {
    const char *prefix;                     /* of the id */
    /* Begins the state of a choice; false: no memory.  end frees it.  NULL: there is none. */
    bool (*begin)(struct moe_exchange *x, struct moe_exchange_choice *c);
    void (*end)(struct moe_exchange_choice *c);
    cJSON *(*whole)(struct moe_exchange *x); /* NULL: no memory */
    /* Adds events of what is new of a choice to a stream; the last one has ev->end. */
    void (*put)(struct moe_exchange *x, struct moe_exchange_choice *c, const struct moe_event *ev);
    cJSON *(*usage)(struct moe_exchange *x); /* the last event, where it is asked for */
};

/* ---- exchanges (exchange.c) ---- */

enum { MOE_ID_BYTES = 64 };

enum moe_exchange_state {
    MOE_EXCHANGE_READING,                   /* the body comes */
    MOE_EXCHANGE_WORKING,                   /* suspended: there is no answer yet */
    MOE_EXCHANGE_ANSWERED,                  /* `out` is the whole answer */
    MOE_EXCHANGE_STREAMING,                 /* `out` is what the client has not got yet of a stream */
    MOE_EXCHANGE_SENT                       /* the response belongs to libmicrohttpd */
};

struct moe_exchange {
    struct moe_server *server;
    struct moe_exchange *before, *after;    /* of all; under server.lock */
    struct moe_exchange *next_taken;        /* in the intake's queue */
    const struct moe_route *route;          /* NULL: there is no such path */
    char tail[128];                         /* of the url, behind the path of the route */
    char id[MOE_ID_BYTES];                  /* X-Request-Id */
    char path[64], method[8], client[64];   /* for the log */
    int key;                                /* whose request it is; -1: no keys are asked for */
    double begun;                           /* moe_now */
    struct moe_buffer body; uint64_t body_bytes; /* with those that were dropped */
    struct moe_api_error refused;           /* before the body was read; status 0: not */

    pthread_mutex_t lock;                   /* of what follows */
    int refs;
    struct MHD_Connection *connection;      /* NULL: HTTP is done with it */
    bool suspended;
    bool gone;                              /* the client is, or the server ends: nothing is sent any more */
    bool finished;                          /* nothing comes after what is in `out` */
    bool dropped;                           /* events of the core are of no use */
    enum moe_exchange_state state;
    int status, retry_after;
    const char *allow;                      /* the methods, of a 405 */
    const char *type;                       /* of `out`; NULL: JSON */
    int64_t sent;                           /* bytes of answers that were given to libmicrohttpd */
    bool delivered;                         /* the answer was sent to its end */
    bool first_seen;                        /* a token has come */
    struct moe_buffer out; size_t out_sent;
    double out_time;                        /* when something was last written to a stream */

    /* what was asked of the model */
    const struct moe_format *format;
    char answer_id[MOE_ID_BYTES], model[128];
    int64_t created;
    bool stream, include_usage, token_ids;
    bool keep_special;                      /* special tokens are in the text */
    bool thinking;                          /* answers begin within it */
    int logprobs;
    struct moe_exchange_choice *choice; int64_t n_choices, per_prompt;
    int64_t n_live;                         /* choices whose end has not come yet */
    int64_t prompt_tokens, cached_tokens, generated_tokens;
};

/* A new exchange, in the server's list, with one reference; NULL: no memory. */
struct moe_exchange *moe_exchange_open(struct moe_server *s, struct MHD_Connection *c);
void moe_exchange_hold(struct moe_exchange *x);
void moe_exchange_drop(struct moe_exchange *x);
/* With the lock held: lets the connection go on where it is suspended. */
void moe_exchange_wake(struct moe_exchange *x);
/* With the lock held: the client is gone, or the server ends.  Cancels what is in the core. */
void moe_exchange_abandon(struct moe_exchange *x);
/* The whole answer.  Takes over json; NULL becomes a 500. */
void moe_exchange_answer(struct moe_exchange *x, int status, cJSON *json);
void moe_exchange_refuse(struct moe_exchange *x, const struct moe_api_error *e);
/* The same with the lock held. */
void moe_exchange_answer_locked(struct moe_exchange *x, int status, cJSON *json);
void moe_exchange_refuse_locked(struct moe_exchange *x, const struct moe_api_error *e);
/* A whole answer of another type than JSON; takes over the text. */
void moe_exchange_answer_text(struct moe_exchange *x, int status, struct moe_buffer *text, const char *type);
/* With the lock held: adds an event to a stream; takes over json.  A stream for which there is no memory ends
 * with an error. */
void moe_exchange_event(struct moe_exchange *x, cJSON *json);
void moe_exchange_end_stream(struct moe_exchange *x);
/* With the lock held: lets the core hold the answers of a client that does not read, and go on with them. */
void moe_exchange_throttle(struct moe_exchange *x);
/* A random name: the prefix and 24 hexadecimal digits. */
void moe_random_id(char *out, size_t n, const char *prefix);

/* ---- the server ---- */

enum moe_server_state { MOE_SERVER_STARTING, MOE_SERVER_READY, MOE_SERVER_DRAINING };

struct moe_server {
    struct moe_server_options o;
    char *own_name; const char *own_names[1]; /* of the model, where none was given */
    struct moe_engine *engine;
    struct moe_core *core;
    struct moe_chat *chat; struct moe_err no_chat; /* NULL, and why */
    struct moe_server_info info;
    struct MHD_Daemon *http;
    int64_t created;
    struct moe_keys keys;
    struct moe_metrics metrics;
    int log;                                /* the access log; -1: none */
    atomic_int state;                       /* enum moe_server_state */
    atomic_bool stop_engine, stop_reader;
    atomic_int engine_code; struct moe_err engine_err; /* the failure that ended the core */
    pthread_t engine_thread, reader_thread, intake_thread;
    bool has_engine, has_reader, has_intake;

    pthread_mutex_t lock;
    struct moe_exchange *first; int64_t n_exchanges;
    uint64_t bodies;                        /* bytes held */

    pthread_mutex_t intake_lock;            /* of what follows; taken while an exchange's is held, too */
    pthread_cond_t intake_work;
    struct moe_exchange *taken, **taken_end; bool stop_intake;
};

/* ---- http.c ---- */

/* Begins to listen.  MOE_IO, MOE_USAGE. */
enum moe_code moe_http_open(struct moe_server *s, struct moe_err *err);
void moe_http_close(struct moe_server *s);

/* ---- access-log.c ---- */

/* Opens the log.  MOE_IO. */
enum moe_code moe_log_open(struct moe_server *s, struct moe_err *err);
void moe_log_close(struct moe_server *s);
/* Counts an exchange that has ended, and writes its line. */
void moe_log_exchange(struct moe_exchange *x);

/* ---- routes.c ---- */

struct moe_route {
    const char *path;                       /* one that ends in a slash stands for all below it */
    bool get, post;
    bool model;                             /* needs the model to be there */
    bool open;                              /* needs no key */
    /* Answers it: a GET in the HTTP thread, so at once; a POST in the intake thread.  False: *e is why not */
    bool (*answer)(struct moe_exchange *x, struct moe_api_error *e);
};
/* NULL: there is none.  url is without its query. */
const struct moe_route *moe_route_find(const char *url);
/* The part of the url behind the path of a route that ends in a slash; "" for others. */
const char *moe_route_tail(const struct moe_route *r, const char *url);

/* ---- intake.c ---- */

enum moe_code moe_intake_open(struct moe_server *s, struct moe_err *err);
void moe_intake_close(struct moe_server *s);
void moe_intake_take(struct moe_exchange *x);
/* The body as JSON, with the spelling of its numbers; the caller deletes it.  NULL: *e is why. */
cJSON *moe_intake_parse(struct moe_exchange *x, struct moe_api_error *e);

/* ---- submit.c ---- */

struct moe_ids { int32_t *v; size_t n; };

/* Whether the body asks for a model that is served here, or for none; its name goes to x->model. */
bool moe_submit_model(struct moe_exchange *x, const cJSON *body, struct moe_api_error *e);
/* Submits all choices of these prompts with the options of the body, and lets the answers come as x->format
 * says.  param: the field that the prompts come from.  False: *e is why not, and nothing runs. */
bool moe_submit(struct moe_exchange *x, const cJSON *body, const struct moe_ids *prompt, int64_t n,
                const struct moe_request *defaults, const char *param, struct moe_api_error *e);

/* ---- completions.c, chat.c, text.c: routes of the model ---- */

bool moe_route_completions(struct moe_exchange *x, struct moe_api_error *e);
bool moe_route_chat(struct moe_exchange *x, struct moe_api_error *e);
bool moe_route_template(struct moe_exchange *x, struct moe_api_error *e);
/* The ids of the conversation in the body; p->v is the caller's to free.  Sets x->thinking. */
bool moe_chat_prompt(struct moe_exchange *x, const cJSON *body, struct moe_ids *p, struct moe_api_error *e);
bool moe_route_tokenize(struct moe_exchange *x, struct moe_api_error *e);
bool moe_route_detokenize(struct moe_exchange *x, struct moe_api_error *e);

/* ---- reader.c ---- */

enum moe_code moe_reader_open(struct moe_server *s, struct moe_err *err);
void moe_reader_close(struct moe_server *s);

/* ---- answer-json.c ---- */

extern const struct moe_format moe_format_completion;

/* What all formats share. */
const char *moe_answer_finish(enum moe_finish finish);
cJSON *moe_answer_head(const struct moe_exchange *x, const char *object); /* id, object, created, model */
void moe_answer_add_usage(const struct moe_exchange *x, cJSON *o);
/* "token_ids", where they are asked for. */
void moe_answer_add_ids(const struct moe_exchange *x, cJSON *o, const struct moe_event *ev);
/* Whether a stream shows tokens even where they have no text so far. */
static inline bool moe_answer_shows_tokens(const struct moe_exchange *x)
{
    return x->logprobs >= 0 || x->token_ids;
}

/* ---- chat-json.c ---- */

extern const struct moe_format moe_format_chat;

#endif
